# shellcheck shell=bash
# Orders per second of 1 to 64 writers with flushes 1 ms longer: the plain table, rebates by row triggers in PL/pgSQL,
# by the application in four statements of a transaction (application.pgbench), and by rebate.
# server: synchronous_commit = on
# server: wal_sync_method = fdatasync
# server: max_connections = 150

writers=${BENCH_WRITERS:-1 2 4 8 16 32 64}
slice=${BENCH_SLICE:-0.5}
rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-2}
# 64 sessions on the buffers of all members would do little else than map pages.
members=${BENCH_MEMBERS:-10000}

bench_setup() {
	local v
	variants=()
	for v in plain application plpgsql rebate; do
		wanted "$v" || continue
		case $v in
		application)
			bench_shop application 1000 plpgsql
			query application 'DROP TRIGGER rebate_insert ON orders'
			;;
		*) bench_shop "$v" 1000 ;;
		esac
		restart "$v" 1000
		variants+=("$v")
	done
}

load() {
	case $1 in
	application) load_start "$1" "$count" application.pgbench -D merchants=1000 ;;
	*) load_start "$1" "$count" order.pgbench -D merchants=1000 ;;
	esac
}
bench_load() { count=8 load "$1"; }

bench_measure() {
	local count v
	note_server "${variants[0]}"
	for count in $writers; do
		warm_up=$((1 + count / 8))
		turns "$rounds" load free "${variants[@]}"
		note_orders "$count writers" "${variants[@]}"
		for v in "${variants[@]}"; do metric "${v}_$count" "$(median_of "$v" tps 0)"; done
	done
	for v in "${variants[@]}"; do bench_check "$v"; done
}
