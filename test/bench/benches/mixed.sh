# shellcheck shell=bash
# Single orders at a fixed rate while one statement brings 500,000: of members that the statement also touches (its
# first half of all) they wait for it at most so long, of others they hardly notice it.

bulk_orders=${BENCH_BULK_ORDERS:-500000}
rate=${BENCH_RATE:-200}                 # single orders per second
clients=${BENCH_CLIENTS:-8}
rounds=${BENCH_ROUNDS:-3}

bench_setup() { bench_shop rebate 1000; }

bench_load() {
	on "$1" psql -XqAt -U shop -v ON_ERROR_STOP=1 -c "INSERT INTO orders (customer_id, merchant_id, amount, created_at)
		SELECT 1 + (c * 7919::bigint) % ($members / 2), 1 + c % 1000, 10 + c % 490, now() FROM generate_series(1, $bulk_orders) c" &
	load_of[$1]=$!
}

# Single orders of members FIRST to LAST for so many seconds, in the background.
singles_start() {                       # SECONDS FIRST LAST
	rm -f "$run"/log.*
	on rebate pgbench -n -M prepared -c "$clients" -T "$1" -R "$rate" -l --log-prefix="$run/log" -D first="$2" -D last="$3" \
		-D merchants=1000 -U shop -f "$bench_dir/mixed.pgbench" shop >"$run/pgbench" 2>&1 &
	load_of[singles]=$!
}

singles_end() {
	wait "${load_of[singles]}" || { cat "$run/pgbench" >&2; rb_die "$bench: pgbench failed"; }
	unset 'load_of[singles]'
}

# Milliseconds of waiting of the single orders that were due between two times, from then until they were committed:
# 99th percentile and greatest.
waits() {                               # BEGIN END
	cat "$run"/log.* | awk -v b="$1" -v e="$2" '{ t = $5 + $6 / 1e6 - $3 / 1e6; if (t >= b && t <= e) print $3 / 1000 }' |
		sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR * 99 + 99) / 100)], v[NR] }'
}

epoch() { date +%s.%N; }

# One round: alone; with the load, of others; with the load, of the same members.
alone() {
	local begin
	begin=$(epoch)
	singles_start "$((2 * seconds))" "$((members / 2 + 1))" "$members"
	singles_end
	read -r p99 most < <(waits "$begin" "$(epoch)") || rb_die "$bench: no single orders"
	sample alone p99 "$p99"
}

with_load() {                           # WHAT FIRST LAST
	local begin end
	# longer than the load: what comes after it is left out
	singles_start "$((3 * estimate + 3))" "$2" "$3"
	sleep 1
	begin=$(epoch)
	bench_load rebate
	wait "${load_of[rebate]}" || rb_die "$bench: the load failed"
	end=$(epoch)
	unset 'load_of[rebate]'
	singles_end
	read -r p99 most < <(waits "$begin" "$end") || rb_die "$bench: no single orders"
	sample "$1" p99 "$p99"
	sample "$1" most "$most"
	sample "$1" load "$(calc "($end - $begin) * 1000")"
	sample "$1" share "$(calc "$most / 1000 / ($end - $begin)")"
	query rebate CHECKPOINT
}

others() { with_load others "$((members / 2 + 1))" "$members"; }
same() { with_load same 1 "$((members / 2))"; }
step() { "$1"; }

bench_measure() {
	local begin
	note_server rebate
	round=0
	estimate=1
	begin=$SECONDS
	bench_load rebate
	wait "${load_of[rebate]}" || rb_die "$bench: the load failed"
	unset 'load_of[rebate]'
	estimate=$((SECONDS - begin + 1))
	samples_new
	interleave "$rounds" step alone others same
	note "$rate single orders/s beside $bulk_orders in $(median_of others load 0) ms: p99 $(median_of others p99 1) ms," \
		"alone $(median_of alone p99 1) ms; of members of the load $(median_of same most 0) ms at most," \
		"which takes $(median_of same load 0) ms"
	metric wait_vs_load "$(median_of same share 3)"
	note "    wait_vs_load: rounds $(spread_of same share 3 | cut -d' ' -f2-)"
	metric_vs p99_vs_alone others alone p99
	bench_check rebate
}
