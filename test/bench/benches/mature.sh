# shellcheck shell=bash
# The clock: 1,000,000 due rebates of 100,000 members become available; and what orders of these members notice of it.

due=${BENCH_DUE:-1000000}
rate=${BENCH_RATE:-400}                 # orders per second while the clock runs
clients=2

bench_setup() {
	local begin=$SECONDS
	bench_server rebate
	script rebate shop.sql
	script rebate mature.sql -v due="$due"
	note "made in $((SECONDS - begin)) s"
}

bench_load() {
	on "$1" psql -Xq -U postgres shop -c "CALL rebate.mature('2025-05-01')" &
	load_of[$1]=$!
}

# The 99th percentile of the latency of orders, in ms, from their scheduled start: VARIANT QUANTITY
orders() {
	local ms
	rm -f "$run"/log.*
	on rebate pgbench -n -M prepared -c "$clients" -T "$seconds" -R "$rate" -l --log-prefix="$run/log" -D members="$members" \
		-D merchants=1 -U shop -f "$bench_dir/order.pgbench" shop >"$run/pgbench" 2>&1 ||
		{ cat "$run/pgbench" >&2; rb_die "mature: pgbench failed"; }
	ms=$(cat "$run"/log.* | awk '{ print $3 / 1000 }' | sort -g | awk '{ v[NR] = $1 } END { print v[int(NR * 0.99)] }')
	[ -n "$ms" ] || rb_die "mature: no orders"
	sample "$1" p99 "$ms"
}

clock_off() { orders off; }

# The clock is cancelled after the orders, and goes on in the next round where it was.
clock_on() {
	on rebate psql -Xq -c "CALL rebate.mature('2026-01-01')" 2>/dev/null &
	load_of[clock]=$!
	until [ "$(query rebate "SELECT count(*) FROM rebate.jobs WHERE state = 'running'")" = 1 ]; do sleep 0.02; done
	orders on
	[ "$(query rebate "SELECT count(*) FROM rebate.jobs WHERE state = 'running'")" = 1 ] ||
		note "the clock was done before the orders of round $round: more would have to be due"
	query rebate "SELECT pg_cancel_backend(pid) FROM rebate.jobs WHERE state = 'running'" >/dev/null
	wait "${load_of[clock]}" || :
	unset 'load_of[clock]'
}

mode() { "clock_$1"; }

bench_measure() {
	local per_s found cpu pid before
	note_server rebate
	# one session, so that its CPU can be read
	cpu=$(on rebate psql -XqAt -v ON_ERROR_STOP=1 <<-'SQL' | awk '{ if (NR == 1) a = $1; else print ($1 - a) / 100 }'
		SELECT pg_backend_pid() AS pid \gset
		\setenv PID :pid
		\! awk '{ print $14 + $15 }' /proc/$PID/stat
		CALL rebate.mature('2025-05-01');
		\! awk '{ print $14 + $15 }' /proc/$PID/stat
	SQL
	)
	per_s=$(query rebate "SELECT round(done / extract(epoch FROM finished_at - started_at)) FROM rebate.jobs WHERE state = 'finished'")
	found=$(query rebate "SELECT done FROM rebate.jobs")
	[ "$found" = "$due" ] || rb_die "mature: $found rebates matured instead of $due"
	metric rows_per_s "$per_s"
	note "$due rebates: $(calc "$cpu * 1000000 / $due") us of CPU each, $(query rebate "SELECT batches FROM rebate.jobs") batches"

	samples_new
	round=0
	orders warm
	samples_new
	interleave "$rounds" mode off on
	note "p99 of $rate orders/s: $(median_of off p99 2) ms without the clock, $(median_of on p99 2) ms while it runs"
	metric_vs p99_ratio on off p99
	query rebate "CALL rebate.mature('2026-01-01')"
	found=$(query rebate "SELECT sum(available) = 2 * $due * 5 AND (SELECT count(*) FROM rebate_data.waiting WHERE due < now()) = 0
		FROM rebate.balances")
	[ "$found" = t ] || rb_die "mature: not all that was due is available"
}
