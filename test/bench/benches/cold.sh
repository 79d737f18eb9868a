# shellcheck shell=bash
# The first order on a new connection, 10,000 rules: milliseconds above the plain table.

connections=${BENCH_CONNECTIONS:-50}

bench_setup() {
	local v
	variants=()
	for v in plain plpgsql rebate rebate_other; do
		wanted "$v" || continue
		case $v in
		rebate_other) bench_shop_other rebate_other ;;
		*) bench_shop "$v" 10000 ;;
		esac
		variants+=("$v")
	done
}

# Connects, waits until the session is up, and times the INSERT in the client.
first_order() {
	local ms
	ms=$(on "$1" psql -XqAt -U shop -v ON_ERROR_STOP=1 -v c=$((RANDOM % members + 1)) -v m=$((RANDOM % 10000 + 1)) <<-'SQL' |
		SELECT 1;
		\timing on
		INSERT INTO orders (customer_id, merchant_id, amount, created_at) VALUES (:c, :m, 99.90, now());
	SQL
		sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p')
	[ -n "$ms" ] || rb_die "cold: no order in $1"
	sample "$1" ms "$ms"
}

bench_load() { load_start "$1" 1 order.pgbench -D merchants=10000 -C; }

bench_measure() {
	local v other=other
	note_server "${variants[0]}"
	if wanted rebate; then
		other=$(posting other rebate)
		note "rebate: posting at $(posting default rebate) (default); rebate_other: posting at $other"
	fi
	interleave 3 first_order "${variants[@]}"
	samples_new
	interleave "$connections" first_order "${variants[@]}"
	for v in "${variants[@]}"; do
		note "$v: $(median_of "$v" ms 2) ms (median, of $connections connections; least and greatest:" \
			"$(spread_of "$v" ms 2 | cut -d' ' -f2-))"
		bench_check "$v"
	done
	metric_vs ms rebate plain ms -
	metric_vs "ms_$other" rebate_other plain ms -
}
