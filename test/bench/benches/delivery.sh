# shellcheck shell=bash
# Delivery: what it costs those who write orders, what it costs itself, and how fast it is.
#
# Variants worker, off and commit run with that setting of rebate.delivery, each with a client on the shared channel.
# They are measured with a disk that takes 1 ms longer to flush (delivery/flush_delay.c in the server); all the rest is
# measured without it, on the server of variant worker.
# server: shared_preload_libraries = 'rebate'
# server: synchronous_commit = on
# server: wal_sync_method = fdatasync
# server: max_connections = 320
# server: shared_buffers = '256MB'

merchants=10                            # few rules: those of many sessions do not fit into a CPU's cache
channels=1000                           # members with a channel of their own
idle=200                                # listeners to whom nothing is said
feed_events=500000
idle_seconds=${BENCH_IDLE_SECONDS:-20}
# Longer than elsewhere: what the publisher does for the orders of a slice must not fall into another's.
slice=${BENCH_SLICE:-0.5}
rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-2}
# 64 sessions on the buffers of all members would do little else than map pages.
members=${BENCH_MEMBERS:-10000}
parts=${BENCH_PARTS:-tps latency publisher feed idle}

declare -A listener_of=()

bench_setup() {
	local v
	helpers_build
	bench_server worker "rebate.delivery = worker"
	script worker shop.sql
	script worker rebate.sql -v merchants="$merchants"
	script worker fill.sql -v merchants="$merchants"
	variants=(worker)
	for v in off commit; do
		wanted "$v" || continue
		bench_server "$v" "rebate.delivery = $v" worker
		variants+=("$v")
	done
}

helpers_build() {
	local pg_config=$run/tree$rb_bindir/pg_config program
	helpers=$run/helpers
	mkdir -p "$helpers"
	for program in listen latency feed; do
		"${CC:-cc}" -O2 -Wall -I"$("$pg_config" --includedir)" -o "$helpers/$program" "$bench_dir/delivery/$program.c" \
			-L"$("$pg_config" --libdir)" -lpq -lpthread
	done
}

# Clients that listen: NAME VARIANT CONNECTIONS CHANNEL
listeners_start() {
	PGHOST=${host_of[$2]} "$helpers/listen" "$3" "$4" >"$run/listen-$1" &
	listener_of[$1]=$!
	# As a load, it ends with the bench in any case.
	load_of[listen-$1]=$!
	for _ in {1..200}; do
		if [ -s "$run/listen-$1" ]; then return; fi
		kill -0 "${listener_of[$1]}" 2>/dev/null || break
		sleep 0.05
	done
	rb_die "$bench: listener $1 does not connect"
}

listeners_end() {                       # NAME
	kill -TERM "${listener_of[$1]}"
	wait "${listener_of[$1]}" || rb_die "$bench: listener $1 failed"
	unset "listener_of[$1]" "load_of[listen-$1]"
}

# How many notifications it was told.
heard() { sed -n 2p "$run/listen-$1"; }

status() { query "$1" "SELECT $2 FROM rebate.delivery_status"; }

# Waits until a server's deliverer is in the mode wanted, with nothing left to do.
settled() {                             # VARIANT MODE
	local last='' now
	for _ in {1..100}; do
		now=$(status "$1" "mode || ' ' || coalesce(ring_used, 0) || ' ' || coalesce(published, 0)")
		# Twice the same, farther apart than two looks of the publisher.
		if [ "$now" = "$last" ] && [[ $now == "$2 0 "* ]]; then return; fi
		last=$now
		sleep 1.2
	done
	rb_die "$bench: delivery of $1 does not settle: $now"
}

# load_end for a load that runs: a stopped one is still there when it is told to go on.
writers_end() {                         # VARIANT
	load_check "$1"
	kill -STOP "${load_of[$1]}"
	load_end "$1"
}

part() { case " $parts " in *" $1 "*) return 0 ;; esac; return 1; }

writers() { load_start "$1" "$n_writers" order.pgbench -D merchants="$merchants"; }
bench_load() { n_writers=8; writers "$1"; }

# Nanoseconds of CPU of a process.
cpu_of() { cut -d' ' -f1 "/proc/$1/schedstat"; }

# CPU of the publisher for an event, 8 writers: METRIC MEMBERS
publisher_round() {
	local pid cpu before after
	settled worker worker
	pid=$(status worker worker_pid)
	before=$(query worker 'SELECT sum(last_entry) FROM rebate_data.account')
	cpu=$(cpu_of "$pid")
	members=$2 n_writers=8 writers worker
	sleep "$seconds"
	writers_end worker
	settled worker worker
	cpu=$(($(cpu_of "$pid") - cpu))
	after=$(query worker 'SELECT sum(last_entry) FROM rebate_data.account')
	[ "$(status worker worker_pid)" = "$pid" ] || rb_die "$bench: the publisher did not survive"
	sample worker "$1" "$(calc "$cpu / 1000 / ($after - $before)")"
	sample worker "$1_events" "$(calc "($after - $before) / $seconds")"
}

publisher() {                           # METRIC MEMBERS
	local before after
	before=$(status worker "hints || ' ' || overflows || ' ' || sweeps || ' ' || notifications")
	samples_new
	for ((round = 0; round <= 3; round++)); do
		if [ "$round" = 1 ]; then samples_new; fi
		publisher_round "$1" "$2"
	done
	after=$(status worker "hints || ' ' || overflows || ' ' || sweeps || ' ' || notifications")
	metric "$1" "$(median_of worker "$1" 2)"
	note "    $1: rounds $(spread_of worker "$1" 2 | cut -d' ' -f2-), $(median_of worker "$1_events" 0) events/s;" \
		"hints, overflows, sweeps, notifications: $before, then $after"
}

# Milliseconds from commit to notification: METRIC-PREFIX RATE
latency() {
	settled worker worker
	# New sessions read their rules and pages, and the publisher learns its pace.
	on worker "$helpers/latency" "$2" 3 8 1000 "$merchants" >"$run/latency"
	on worker "$helpers/latency" "$2" "$((3 * seconds))" 8 1000 "$merchants" >"$run/latency"
	read -r orders achieved p50 p99 most <"$run/latency"
	note "    $1: $orders orders, $achieved orders/s; p50 $p50 ms, p99 $p99 ms, most $most ms"
}

# Orders a second of 8 unthrottled writers, without and with idle listeners in turn.
idle_listeners() {
	local with before count
	samples_new
	for ((round = 1; round <= 3; round++)); do
		for with in none idle; do
			if [ $with = idle ]; then listeners_start idle worker "$idle" nobody; fi
			settled worker worker
			n_writers=8 writers worker
			sleep 0.5
			read -ra before < <(counters worker)
			sleep "$seconds"
			count=$(query worker 'SELECT last_value FROM orders_id_seq')
			writers_end worker
			sample $with tps "$(calc "($count - ${before[0]}) / $seconds")"
			if [ $with = idle ]; then
				# Once, while they are there.
				if [ "$round" = 3 ]; then
					latency idle_listeners 1000
					metric idle_listeners_p99_ms "$p99"
				fi
				listeners_end idle
				[ "$(heard idle)" = 0 ] || rb_die "$bench: idle listeners were told something"
			fi
		done
	done
	note "8 writers, no idle listeners: $(spread_of none tps 0) orders/s; $idle: $(spread_of idle tps 0)"
	metric_vs idle_listeners idle none tps
}

# The feed from the beginning, of so many events; the first reading is for the caches.
feed() {
	local had
	had=$(query worker 'SELECT sum(last_entry) FROM rebate_data.account')
	if [ "$had" -lt "$feed_events" ]; then
		query worker "INSERT INTO orders (customer_id, merchant_id, amount, created_at)
			SELECT 1 + c % $members, 1 + c % $merchants, 10 + c % 490, now() FROM generate_series(1, $feed_events - $had) c" >/dev/null
		had=$feed_events
	fi
	query worker 'VACUUM ANALYZE' >/dev/null
	settled worker worker
	samples_new
	for ((round = 0; round <= 2; round++)); do
		if [ "$round" = 1 ]; then samples_new; fi
		on worker "$helpers/feed" 500 >"$run/feed"
		read -r events took bytes <"$run/feed"
		[ "$events" = "$had" ] || rb_die "$bench: the feed has $events events, the ledger $had"
		sample worker feed "$(calc "$events / $took")"
	done
	metric feed_events_per_s "$(median_of worker feed 0)"
	note "    feed_events_per_s: rounds $(spread_of worker feed 0 | cut -d' ' -f2-); $events events, $((bytes / events)) bytes each"
}

# A server on which nothing happens. Not looked at meanwhile: looking can write (hint bits, pruning). The background
# writer notes the running transactions once more, up to 25 s after the last change: then the next span counts.
idle_server() {
	local pid wal switches
	settled worker worker
	query worker CHECKPOINT
	sleep 2
	pid=$(status worker worker_pid)
	for _ in 1 2 3; do
		wal=$(query worker 'SELECT pg_current_wal_insert_lsn()')
		switches=$(awk '/^voluntary/ { print $2 }' "/proc/$pid/status")
		sleep "$idle_seconds"
		switches=$(($(awk '/^voluntary/ { print $2 }' "/proc/$pid/status") - switches))
		wal=$(query worker "SELECT pg_current_wal_insert_lsn() - '$wal'")
		if [ "$wal" = 0 ]; then break; fi
	done
	[ "$(status worker worker_pid)" = "$pid" ] || rb_die "$bench: the idle publisher went away"
	metric idle_wal_bytes "$wal"
	metric idle_wakeups_per_s "$(calc "$switches / $idle_seconds")"
}

# Writers with a slow disk, against those whom nobody listens to.
writers_with_delay() {
	local v n
	for v in "${variants[@]}"; do
		restart "$v" 1000
		listeners_start "$v" "$v" 1 rebate
	done
	for n in 1 8 64; do
		n_writers=$n
		case " ${variants[*]} " in *' off '*) ;; *) continue ;; esac
		# long enough for 64 sessions to know their rules and pages
		warm_up=$((1 + n / 8))
		if [ "$n" = 64 ]; then turns "$rounds" writers free "${variants[@]}"; else turns "$rounds" writers free worker off; fi
		note_orders "$n writers, flushes 1 ms longer" "${variants[@]}"
		metric_vs "tps_vs_off_$n" worker off tps
		if [ "$n" = 64 ]; then metric_vs tps_vs_commit_notify worker commit tps; fi
	done
	for v in "${variants[@]}"; do
		case $v in
		off) [ "$(status off mode)" = off ] || rb_die "$bench: off is not off" ;;
		*) settled "$v" "$v" ;;
		esac
		listeners_end "$v"
		note "$v: the client was told $(heard "$v") notifications"
		bench_check "$v"
		[ "$v" = worker ] || rb_stop "$run/servers/$v"
	done
}

bench_measure() {
	note_server worker
	note "$rounds rounds here, $seconds s each"
	if part tps; then writers_with_delay; fi

	restart worker 0
	listeners_start shared worker 1 rebate
	if part latency; then
		latency '2000 orders/s' 2000
		metric p50_ms "$p50"
		metric p99_ms "$p99"
		idle_listeners
	fi

	query worker 'ALTER SYSTEM SET synchronous_commit = off'
	query worker 'SELECT pg_reload_conf()' >/dev/null
	if part publisher; then
		publisher publisher_us "$members"
		query worker "SELECT count(rebate.channel(m::text)) FROM generate_series(1, $channels) m" >/dev/null
		publisher publisher_member_us "$channels"
		query worker 'SELECT rebate.rotate_channels()' >/dev/null
	fi
	if part feed; then feed; fi
	listeners_end shared
	note "worker: the client was told $(heard shared) notifications"
	if part idle; then idle_server; fi
	bench_check worker
}
