# shellcheck shell=bash
# One order per transaction: 1,000 rules over 1,000 merchants, 100,000 members; one client, then eight.

oltp_variants() { only_wanted plain plain_again rebate rebate_other plpgsql; }

bench_setup() {
	local v
	# plain_again, only if asked for by name: how exact the ratios are.
	variants=()
	for v in $(oltp_variants); do
		if [ "$v" = plain_again ] && [ -z "${BENCH_VARIANTS:-}" ]; then continue; fi
		variants+=("$v")
		case $v in
		plain_again) bench_shop plain 1000 plain_again ;;
		*) bench_shop "$v" 1000 ;;
		esac
	done
}

one_client() { pgbench_round "$1" "$1" 1 order.pgbench -D merchants=1000; }
eight_clients() { pgbench_round "$1" "$1" 8 order.pgbench -D merchants=1000; }

bench_load() { one_client "$1"; }

bench_measure() {
	local v
	note "plain table: orders (id bigserial primary key, customer_id bigint, merchant_id integer, amount numeric(12,2)," \
		"created_at timestamptz), one index on customer_id"
	warm_up one_client "${variants[@]}"
	interleave "$rounds" one_client "${variants[@]}"
	note_orders "1 client" "${variants[@]}"
	metric_ratio cpu_vs_plain rebate plain cpu
	metric_ratio cpu_vs_plpgsql rebate plpgsql cpu
	if wanted rebate_other; then
		metric_ratio "cpu_vs_plain_$(other_posting)" rebate_other plain cpu
		metric_ratio "cpu_vs_plpgsql_$(other_posting)" rebate_other plpgsql cpu
	fi
	if wanted plpgsql; then note "plpgsql against plain: $(spread_vs plpgsql plain cpu / | cut -d' ' -f1)"; fi
	if wanted plain_again; then note "plain against plain: $(spread_vs plain_again plain cpu /) (median, least, greatest)"; fi

	warm_up eight_clients "${variants[@]}"
	interleave "$rounds" eight_clients "${variants[@]}"
	note_orders "8 clients" "${variants[@]}"
	metric_ratio tps_vs_plain rebate plain tps
	if wanted rebate_other; then metric_ratio "tps_vs_plain_$(other_posting)" rebate_other plain tps; fi
	if wanted plain_again; then note "plain against plain: $(spread_vs plain_again plain tps /)"; fi
	for v in "${variants[@]}"; do bench_check "$v"; done
}
