# shellcheck shell=bash
# One order per transaction: 1,000 rules over 1,000 merchants, 100,000 members; one client, then eight.
# The variant plain_again, run only if asked for in BENCH_VARIANTS, tells how exact the ratios are.

bench_setup() {
	local v
	variants=()
	for v in plain plain_again plpgsql rebate rebate_other; do
		wanted "$v" || continue
		case $v in
		plain_again)
			[ -n "${BENCH_VARIANTS:-}" ] || continue
			bench_shop plain_again 1000 plain
			;;
		rebate_other) bench_shop_other rebate_other ;;
		*) bench_shop "$v" 1000 ;;
		esac
		variants+=("$v")
	done
}

one_client() { load_start "$1" 1 order.pgbench -D merchants=1000; }
eight_clients() { load_start "$1" 8 order.pgbench -D merchants=1000; }
bench_load() { one_client "$1"; }

bench_measure() {
	local v other=other
	note "plain: orders (id bigserial primary key, customer_id bigint, merchant_id integer, amount numeric(12,2)," \
		"created_at timestamptz), one index on customer_id"
	note_server "${variants[0]}"
	if wanted rebate; then
		other=$(posting other rebate)
		note "rebate: posting at $(posting default rebate) (default); rebate_other: posting at $other"
	fi

	# The client and its session share a CPU: to wake up another one costs as much as a plain order, or nothing, as the
	# scheduler likes, and would hide what an order costs.
	turns "$rounds" one_client pinned "${variants[@]}"
	note_orders "1 client" "${variants[@]}"
	note_vs plain_again plain cpu
	note_vs plpgsql plain cpu
	metric_vs cpu_vs_plain rebate plain cpu
	metric_vs "cpu_vs_plain_$other" rebate_other plain cpu
	metric_vs cpu_vs_plpgsql rebate plpgsql cpu
	metric_vs "cpu_vs_plpgsql_$other" rebate_other plpgsql cpu

	if [ -n "${BENCH_FREE:-}" ]; then
		turns "$rounds" one_client free "${variants[@]}"
		note_orders "1 client, any CPU" "${variants[@]}"
		note_vs plain_again plain cpu
		note_vs plpgsql plain cpu
		metric_vs cpu_vs_plain_free rebate plain cpu
		metric_vs "cpu_vs_plain_free_$other" rebate_other plain cpu
		metric_vs cpu_vs_plpgsql_free rebate plpgsql cpu
		metric_vs "cpu_vs_plpgsql_free_$other" rebate_other plpgsql cpu
	fi

	turns "$rounds" eight_clients free "${variants[@]}"
	note_orders "8 clients" "${variants[@]}"
	note_vs plain_again plain tps
	note_vs plpgsql plain tps
	metric_vs tps_vs_plain rebate plain tps
	metric_vs "tps_vs_plain_$other" rebate_other plain tps

	for v in "${variants[@]}"; do bench_check "$v"; done
}
