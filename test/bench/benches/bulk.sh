# shellcheck shell=bash
# Many orders in one statement, 1,000 rules over 1,000 merchants, 100,000 members: INSERT ... SELECT, and COPY for the
# memory of the session.

bulk_orders=${BENCH_BULK_ORDERS:-500000}
copy_orders=${BENCH_COPY_ORDERS:-5000000}
rounds=${BENCH_ROUNDS:-3}

bench_setup() {
	local v
	variants=()
	for v in plain plpgsql setbased rebate; do
		wanted "$v" || continue
		bench_shop "$v" 1000
		variants+=("$v")
	done
}

bench_load() { load_start "$1" 1 order.pgbench -D merchants=1000; }

# One statement: seconds, and the server's CPU.
bulk_insert() {                         # VARIANT
	local v=$1 ms
	ms=$(on "$v" psql -XqAt -U shop -v ON_ERROR_STOP=1 -v n="$bulk_orders" -v members="$members" <<-'SQL' |
		\timing on
		INSERT INTO orders (customer_id, merchant_id, amount, created_at)
		SELECT 1 + (c * 7919::bigint) % :members, 1 + c % 1000, 10 + c % 490, now() FROM generate_series(1, :n) c;
	SQL
		sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p')
	[ -n "$ms" ] || rb_die "$bench: no orders in $v"
	sample "$v" time "$(calc "$ms / 1000")"
	# What the one before has left to be written is not for the next to wait for.
	query "$v" CHECKPOINT
}

# The most memory of its own that a session has during one COPY, in kilobytes.
copy_peak() {                           # VARIANT
	local pid most=0 now
	awk -v n="$copy_orders" -v m="$members" 'BEGIN {
		for (i = 1; i <= n; i++) print 1 + i % m "\t" 1 + i % 1000 "\t" 10 + i % 490 "\tnow" }' |
		on "$1" psql -XqAt -U shop -v ON_ERROR_STOP=1 \
			-c 'COPY orders (customer_id, merchant_id, amount, created_at) FROM STDIN' >/dev/null &
	load_of[copy]=$!
	while [ -z "${pid:-}" ]; do
		sleep 0.05
		pid=$(query "$1" "SELECT pid FROM pg_stat_activity WHERE usename = 'shop' AND query LIKE 'COPY%'")
	done
	while kill -0 "${load_of[copy]}" 2>/dev/null; do
		now=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null) || :
		if [ "${now:-0}" -gt "$most" ]; then most=$now; fi
		sleep 0.05
	done
	wait "${load_of[copy]}" || rb_die "$bench: COPY failed in $1"
	unset "load_of[copy]"
	sample "$1" peak "$most"
}

bench_measure() {
	local v
	note_server "${variants[0]}"
	round=0
	for v in "${variants[@]}"; do bulk_insert "$v"; done
	samples_new
	interleave "$rounds" bulk_insert "${variants[@]}"
	for v in "${variants[@]}"; do
		note "$v: $bulk_orders orders in $(spread_of "$v" time 2 | awk '{ print $1 " s (" $2 " to " $3 ")" }')"
		bench_check "$v"
	done
	metric_vs time_vs_plain rebate plain time
	metric_vs time_vs_plpgsql rebate plpgsql time
	metric_vs time_vs_setbased rebate setbased time
	note_vs plpgsql plain time
	note_vs setbased plain time

	if [ "$copy_orders" -gt 0 ]; then
		for v in plain rebate; do
			wanted "$v" || return 0
			copy_peak "$v"
		done
		metric peak_mib "$(calc "($(median_of rebate peak 0) - $(median_of plain peak 0)) / 1024")"
		note "the session of one COPY of $copy_orders orders: $(median_of plain peak 0) kB plain, $(median_of rebate peak 0) kB"
		bench_check rebate
	fi
}
