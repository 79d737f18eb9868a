# shellcheck shell=bash
# A year of orders in one COPY into a table with a partition for each month; 1,000 rules over 1,000 merchants.

bulk_orders=${BENCH_BULK_ORDERS:-500000}
rounds=${BENCH_ROUNDS:-3}

# Orders in the order of their time: customer, merchant, amount, time
year_of_orders() {                      # NUMBER
	printf '%s' "SELECT 1 + (c * 7919::bigint) % $members, 1 + c % 1000, 10 + c % 490,
		'2025-01-01'::timestamptz + c * (interval '360 days' / $1) FROM generate_series(1, $1) c"
}

bench_setup() {
	local v
	variants=()
	for v in plain plpgsql rebate; do
		wanted "$v" || continue
		bench_server "$v"
		script "$v" shop.sql
		script "$v" partitioned.sql
		case $v in
		rebate) script "$v" partitioned_rebate.sql -v merchants=1000 ;;
		plpgsql)
			script "$v" plpgsql.sql -v merchants=1000
			query "$v" "UPDATE ledger.rule_version SET valid_from = '2025-01-01'"
			;;
		esac
		# one of each member, so that their accounts exist
		query "$v" "INSERT INTO orders (customer_id, merchant_id, amount, created_at) $(year_of_orders "$members")"
		query "$v" 'VACUUM ANALYZE'
		variants+=("$v")
	done
	query "${variants[0]}" "COPY ($(year_of_orders "$bulk_orders")) TO STDOUT" >"$run/orders"
}

bench_load() {
	on "$1" psql -Xq -U shop -c "\\copy orders (customer_id, merchant_id, amount, created_at) FROM '$run/orders'" &
	load_of[$1]=$!
}

copy_year() {                           # VARIANT
	local ms
	ms=$(on "$1" psql -XqAt -U shop -v ON_ERROR_STOP=1 <<-SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
		\\timing on
		\\copy orders (customer_id, merchant_id, amount, created_at) FROM '$run/orders'
	SQL
	)
	[ -n "$ms" ] || rb_die "$bench: no orders in $1"
	sample "$1" time "$(calc "$ms / 1000")"
	query "$1" CHECKPOINT
}

bench_measure() {
	local v
	note_server "${variants[0]}"
	round=0
	for v in "${variants[@]}"; do copy_year "$v"; done
	samples_new
	interleave "$rounds" copy_year "${variants[@]}"
	for v in "${variants[@]}"; do
		note "$v: $bulk_orders orders in $(spread_of "$v" time 2 | awk '{ print $1 " s (" $2 " to " $3 ")" }')"
		bench_check "$v"
	done
	metric_vs time_vs_plain rebate plain time
	note_vs plpgsql plain time
}
