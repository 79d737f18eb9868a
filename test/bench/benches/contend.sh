# shellcheck shell=bash
# 32 writers whose orders all share one merchant, and so one rule, against 32 writers over 1,000 merchants with a rule
# each; all of one campaign, whose account of expense is in every posting. Flushes are 1 ms longer: who waits for another's
# commit loses most.
# server: synchronous_commit = on
# server: wal_sync_method = fdatasync

writers=${BENCH_CONTENDERS:-32}
# Longer than elsewhere: many sessions take a while to get going.
slice=${BENCH_SLICE:-0.5}
# Many sessions on the buffers of all members would do little else than map pages.
members=${BENCH_MEMBERS:-10000}

bench_setup() {
	variants=()
	for v in spread shared; do
		wanted "$v" || continue
		bench_shop "$v" 1000 rebate
		restart "$v" 1000
		variants+=("$v")
	done
}

bench_load() {
	case $1 in
	shared) load_start "$1" "$writers" order.pgbench -D merchants=1 ;;
	*) load_start "$1" "$writers" order.pgbench -D merchants=1000 ;;
	esac
}

bench_measure() {
	note_server "${variants[0]}"
	warm_up=$((1 + writers / 8)) turns "$rounds" bench_load free "${variants[@]}"
	note_orders "$writers writers, flushes 1 ms longer" "${variants[@]}"
	metric_vs tps_vs_spread shared spread tps
	for v in "${variants[@]}"; do bench_check "$v"; done
}
