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

# Orders while the clock runs, and its rows a second meanwhile. It is cancelled after them, and goes on in the next round
# where it was. MODE SETTING
clock_runs() {
	on rebate psql -Xq -c "$2" -c "CALL rebate.mature('2026-01-01')" 2>/dev/null &
	load_of[clock]=$!
	# it looks for what is due before it posts anything, which is not what is measured
	until [ "$(query rebate "SELECT count(*) FROM rebate.jobs WHERE done > 0 AND state = 'running'")" = 1 ]; do
		kill -0 "${load_of[clock]}" 2>/dev/null || rb_die "mature: the clock has nothing to do"
		sleep 0.02
	done
	orders "$1"
	[ "$(query rebate "SELECT count(*) FROM rebate.jobs WHERE state = 'running'")" = 1 ] ||
		note "the clock was done before the orders of round $round: more would have to be due"
	# progress is written once a second
	sample "$1" rows "$(query rebate "SELECT coalesce(max(round(done / extract(epoch FROM progress_at - started_at))), 0)
		FROM rebate.jobs WHERE progress_at > started_at + interval '1 second'")"
	query rebate "SELECT pg_cancel_backend(pid) FROM rebate.jobs WHERE state = 'running'" >/dev/null
	wait "${load_of[clock]}" || :
	unset 'load_of[clock]'
}

clock_on() { clock_runs on "SET rebate.clock_workers = 0"; }
clock_short() { clock_runs short "SET rebate.clock_batch_time = '0.25ms'"; }
clock_worker() { clock_runs worker "SET rebate.clock_workers = 1"; }

mode() { "clock_$1"; }

# All that is due by a moment, with so many workers: rows a second, and the CPU of session and workers. WORKERS UPTO METRIC
run_clock() {
	local cpu found
	# one session, so that its CPU can be read; that of a worker goes to the postmaster when it has ended, with that of others
	cpu=$(on rebate psql -XqAt -v ON_ERROR_STOP=1 <<-SQL | awk '{ if (NR == 1) { a = $1; b = $2 } else printf "%.6g %.6g\n", ($1 - a) / 100, ($2 - b) / 100 }'
		SET rebate.clock_workers = $1;
		SELECT pg_backend_pid() AS pid \gset
		\setenv PID :pid
		\! echo \$(awk '{ print \$14 + \$15 }' /proc/\$PID/stat) \$(awk '{ print \$16 + \$17 }' /proc/${postmaster_of[rebate]}/stat)
		CALL rebate.mature('$2');
		DO \$\$BEGIN WHILE EXISTS (SELECT FROM pg_stat_get_activity(NULL) a WHERE a.backend_type = 'rebate clock worker') LOOP PERFORM pg_sleep(0.01), pg_stat_clear_snapshot(); END LOOP; END\$\$;
		\! echo \$(awk '{ print \$14 + \$15 }' /proc/\$PID/stat) \$(awk '{ print \$16 + \$17 }' /proc/${postmaster_of[rebate]}/stat)
	SQL
	)
	found=$(query rebate "SELECT done FROM rebate.jobs")
	[ "$found" = "$due" ] || rb_die "mature: $found rebates matured instead of $due"
	metric "$3" "$(query rebate "SELECT round(done / extract(epoch FROM finished_at - started_at)) FROM rebate.jobs WHERE state = 'finished'")"
	note "$due rebates, $1 workers: $(calc "${cpu% *} * 1000000 / $due") us of CPU each in the session, $(calc "${cpu#* } * 1000000 / $due") in workers and what else ended meanwhile, $(query rebate "SELECT batches FROM rebate.jobs") batches"
}

bench_measure() {
	local found
	note_server rebate
	run_clock 0 2024-11-01 rows_per_s
	run_clock 1 2025-05-01 rows_per_s_1_worker

	samples_new
	round=0
	orders warm
	samples_new
	interleave "$rounds" mode off on short worker
	note "p99 of $rate orders/s: $(median_of off p99 2) ms without the clock, $(median_of on p99 2) ms while it runs"
	metric_vs p99_ratio on off p99
	metric_vs p99_ratio_short_batch short off p99
	metric_vs p99_ratio_1_worker worker off p99
	note "rows per second meanwhile: $(median_of on rows 0); in batches of 0.25 ms $(median_of short rows 0); with a worker $(median_of worker rows 0)"
	query rebate "CALL rebate.mature('2026-01-01')"
	found=$(query rebate "SELECT sum(available) = 6 * $due * 5 AND (SELECT count(*) FROM rebate_data.waiting WHERE due < now()) = 0
		FROM rebate.balances")
	[ "$found" = t ] || rb_die "mature: not all that was due is available"
}
