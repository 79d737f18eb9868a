# shellcheck shell=bash
# What benches share: private servers, measured rounds, statistics. Sourced by run and profile after test/lib/server.bash.
#
# A bench is a file benches/NAME.sh with functions
#   bench_setup            makes the servers of its variants (those for which `wanted VARIANT` is true)
#   bench_measure          measures and reports
#   bench_load VARIANT     starts the load of one variant, for profile
# and lines "# server: SETTING" for settings of its servers beyond those below.
#
# Each variant has a server of its own, named like it, so that all CPU of a server belongs to one variant. `on VARIANT
# COMMAND` runs a client there. Figures of a round are kept with `sample`; metric_ratio and its like report from them.

bench_dir=$rb_top/test/bench
rounds=${BENCH_ROUNDS:-5}               # measured rounds
seconds=${BENCH_SECONDS:-3}             # of one variant in one round
slice=${BENCH_SLICE:-0.05}              # seconds after which the next variant has its turn in a round
members=${BENCH_MEMBERS:-100000}

# A server as in production, but for what makes rounds unequal: checkpoints and autovacuum in the middle of one.
bench_settings="shared_buffers = '${BENCH_SHARED_BUFFERS:-512MB}'
wal_level = 'replica'
max_wal_size = '32GB'
checkpoint_timeout = '1h'
synchronous_commit = off
autovacuum = off
max_prepared_transactions = 0
rebate.delivery = off"

note() { printf '# %s\n' "$*"; }

# A metric with its value; nothing if there is none.
metric() {                              # METRIC VALUE
	if [ -n "$2" ]; then printf 'bench %s %s %s\n' "$bench" "$1" "$2"; fi
}

# Is this variant to be run? BENCH_VARIANTS="plain plpgsql" leaves the others out; for development.
wanted() {
	case " ${BENCH_VARIANTS:-$1} " in *" $1 "*) return 0 ;; esac
	return 1
}

# Of these variants, those wanted.
only_wanted() {
	local v
	for v in "$@"; do
		if wanted "$v"; then printf '%s\n' "$v"; fi
	done
}

calc() { awk "BEGIN { printf \"%.6g\n\", $1 }"; }

# --- servers ---------------------------------------------------------------------------------------------------------

declare -A host_of=() postmaster_of=() load_of=()

# Before the first bench: the server's files in $run/tree, with rebate, and an empty data directory.
bench_tree() {
	rb_copy_tree "$run/tree"
	rb_copy_source "$run/src"
	rb_build "$run/src" "$run/tree" >"$run/build" 2>&1 || { cat "$run/build" >&2; rb_die "rebate does not build"; }
	(cd / && rb_initdb "$run/tree" "$run/template")
	# Not the environment of a server, but the private programs.
	PATH=$run/tree$rb_bindir:$PATH
	export PGPORT=5432 PGUSER=postgres PGDATABASE=shop PGOPTIONS='-c client_min_messages=warning'
}

# A server for a variant: VARIANT [SETTINGS] [VARIANT TO COPY]
bench_server() {
	local v=$1 settings=${2:-} template=$run/template
	if [ -n "${3:-}" ]; then
		template=$run/servers/$3/data
		rb_stop "$run/servers/$3"
	fi
	mkdir -p "$run/servers"
	chmod 0755 "$run/servers"
	rb_create "$run/servers/$v" "$run/tree" \
		"$bench_settings"$'\n'"$(sed -n 's/^# server: //p' "$bench_dir/benches/$bench.sh")"$'\n'"$settings" "$template"
	server_start "$v"
	if [ -n "${3:-}" ]; then server_start "$3"; else on "$v" psql -Xq -d postgres -c 'CREATE DATABASE shop'; fi
}

server_start() {
	rb_start "$run/servers/$1"
	host_of[$1]=$(cat "$run/servers/$1/socket")
	postmaster_of[$1]=$(head -n 1 "$run/servers/$1/data/postmaster.pid")
	server_warm "$1"
}

# Stops a server and starts it again with this many microseconds more for each flush of the WAL.
restart() {                             # VARIANT MICROSECONDS
	local library=$run/flush_delay.so
	rb_stop "$run/servers/$1"
	if [ "$2" = 0 ]; then
		server_start "$1"
		return
	fi
	[ -e "$library" ] || "${CC:-cc}" -O2 -Wall -shared -fPIC -o "$library" "$bench_dir/delivery/flush_delay.c" -ldl
	FLUSH_DELAY_US=$2 LD_PRELOAD=$library server_start "$1"
}

# Touches all shared buffers, as a server that has run for a while has: the kernel makes memory when it is first touched,
# and a server that has just started would pay for it with each new page of a table.
server_warm() {
	on "$1" psql -Xq -v ON_ERROR_STOP=1 -d postgres >/dev/null <<-'SQL'
		CREATE UNLOGGED TABLE warm (x text);
		ALTER TABLE warm ALTER x SET STORAGE EXTERNAL;
		INSERT INTO warm SELECT repeat('x', 8000) FROM generate_series(1,
			(SELECT setting::bigint FROM pg_settings WHERE name = 'shared_buffers'));
		DROP TABLE warm;
		CHECKPOINT;
	SQL
}

# Stops and removes all servers of a bench.
bench_servers_end() {
	local dir
	for dir in "$run"/servers/*; do
		if [ -d "$dir" ]; then rb_remove "$dir"; fi
	done
}

on() {                                  # VARIANT COMMAND..
	PGHOST=${host_of[$1]} "${@:2}"
}

query() { on "$1" psql -XqAt -v ON_ERROR_STOP=1 -c "$2"; }

script() {                              # VARIANT FILE [OPTIONS OF psql]
	on "$1" psql -XqAt -v ON_ERROR_STOP=1 -v members="$members" "${@:3}" -f "$bench_dir/$2" >/dev/null
}

note_server() {                         # VARIANT: any, they are alike
	local name line
	line="PostgreSQL $(query "$1" 'SHOW server_version'), $(nproc) CPUs"
	for name in shared_buffers wal_level synchronous_commit fsync full_page_writes max_wal_size autovacuum jit \
		shared_preload_libraries; do
		line+=", $name = $(query "$1" "SHOW $name")"
	done
	note "$line"
}

# --- the shop --------------------------------------------------------------------------------------------------------

# The server and shop of a variant: $2 merchants, each with a rule but in the plain one; then an order of each member.
# KIND: plain, rebate, plpgsql (the SQL file of that name); default: VARIANT.
bench_shop() {                          # VARIANT MERCHANTS [KIND]
	local v=$1 merchants=$2 kind=${3:-$1} begin=$SECONDS
	bench_server "$v"
	script "$v" shop.sql
	if [ "$kind" != plain ]; then script "$v" "$kind.sql" -v merchants="$merchants"; fi
	script "$v" fill.sql -v merchants="$merchants"
	note "$v: made in $((SECONDS - begin)) s"
}

# A copy of variant rebate that posts at the other moment.
bench_shop_other() {                    # VARIANT [OF]
	bench_server "$1" "rebate.posting = '$(posting other "${2:-rebate}")'" "${2:-rebate}"
}

# The moments of posting: the default one, which the variants named rebate run with, and the other.
posting() {                             # default | other, VARIANT
	query "$2" "LOAD 'rebate'; SELECT CASE WHEN '$1' = 'default' THEN boot_val
		WHEN boot_val = 'commit' THEN 'statement' ELSE 'commit' END FROM pg_settings WHERE name = 'rebate.posting'"
}

# Did the shop of this variant get what it should? A bench of something that does not work would be fast.
bench_check() {                         # VARIANT
	local schema found
	for schema in ledger rebate_data; do
		[ -n "$(query "$1" "SELECT to_regclass('$schema.accrual')")" ] || continue
		found=$(query "$1" "SELECT count(*) = (SELECT count(*) FROM orders) AND
			sum(earned) = (SELECT sum(available) FROM $schema.account) AND
			count(seq) = (SELECT sum(last_entry) FROM $schema.account) FROM $schema.accrual WHERE rule_id <> 0")
		[ "$found" = t ] || rb_die "$bench: the ledger of $1 does not agree with its orders"
	done
}

# --- measuring -------------------------------------------------------------------------------------------------------

# A figure of the round that is running.
sample() { printf '%s %s %s %s\n' "$round" "$1" "$2" "$3" >>"$run/samples"; }

samples_new() { : >"$run/samples"; }

# Runs `COMMAND VARIANT` for each variant in turn, round after round, every other round in the opposite order.
interleave() {                          # ROUNDS COMMAND VARIANT..
	local n=$1 command=$2 v order
	shift 2
	for ((round = 1; round <= n; round++)); do
		order=("$@")
		if ((round % 2 == 0)); then
			order=()
			for v in "$@"; do order=("$v" ${order[@]+"${order[@]}"}); done
		fi
		for v in "${order[@]}"; do "$command" "$v"; done
	done
}

# Starts a pgbench on a variant's server that runs until load_end: VARIANT CLIENTS SCRIPT [OPTIONS OF pgbench]
load_start() {
	local v=$1 clients=$2 file=$3
	shift 3
	# A simple command, so that the process is pgbench itself.
	PGHOST=${host_of[$v]} pgbench -n -M prepared -c "$clients" -j "$((clients > 1 ? 2 : 1))" -T 100000 -f "$bench_dir/$file" \
		-D members="$members" -U shop "$@" shop >"$run/load-$v" 2>&1 &
	load_of[$v]=$!
	for _ in {1..400}; do
		if [ "$(backends "$v" | wc -l)" = "$clients" ]; then return; fi
		load_check "$v"
		sleep 0.05
	done
	cat "$run/load-$v" >&2; rb_die "$bench: pgbench does not connect: $(backends "$v" | wc -l) sessions"
}

# Process ids of the load's sessions.
backends() { query "$1" "SELECT pid FROM pg_stat_activity WHERE usename = 'shop'"; }

load_check() {
	if ! kill -0 "${load_of[$1]}" 2>/dev/null || grep -q aborted "$run/load-$1"; then
		cat "$run/load-$1" >&2
		rb_die "$bench: the load of $1 failed"
	fi
}

load_end() {                            # VARIANT..
	local v
	for v in "$@"; do
		load_check "$v"
		# A stopped process ends when it goes on.
		kill -TERM "${load_of[$v]}"
		kill -CONT "${load_of[$v]}"
		wait "${load_of[$v]}" 2>/dev/null || :
		unset "load_of[$v]"
	done
}

# Client and session of a variant on one CPU: no time goes into waking up the other CPU.
load_pin() {                            # VARIANT..
	local v pid cpu=$(($(nproc) - 1))
	for v in "$@"; do
		for pid in "${load_of[$v]}" $(backends "$v"); do taskset -apc "$cpu" "$pid" >/dev/null; done
	done
}

# Counters of a variant: orders, WAL bytes, records and full-page images, pages looked for, bytes on disk.
counters() {
	query "$1" "SELECT (SELECT last_value FROM orders_id_seq), wal_bytes, wal_records, wal_fpi, blks_hit + blks_read,
		(SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind IN ('r', 'S')
			AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace))
		FROM pg_stat_wal, pg_stat_database WHERE datname = current_database()" | tr '|' ' '
}

# The started loads of these variants in turn, in slices, for $seconds each: a round. Samples are what an order cost.
turns_round() {                         # VARIANT..
	local v cpu active before after args=() c
	declare -A counted=()
	for v in "$@"; do
		counted[$v]=$(counters "$v")
		args+=("$v:${load_of[$v]}:${postmaster_of[$v]}")
	done
	sleep 0.1                       # the sessions that counted are gone
	"$bench_dir/turns" "$slice" "$seconds" "${args[@]}" >"$run/turns"
	sleep 0.1
	while read -r v cpu active; do
		load_check "$v"
		read -ra before <<<"${counted[$v]}"
		read -ra after < <(counters "$v")
		c=$((after[0] - before[0]))
		[ "$c" -gt 0 ] || rb_die "$bench: no orders in $v"
		sample "$v" cpu "$(calc "$cpu / $c")"
		sample "$v" tps "$(calc "$c / $active")"
		sample "$v" wal "$(calc "(${after[1]} - ${before[1]}) / $c")"
		sample "$v" wal_records "$(calc "(${after[2]} - ${before[2]}) / $c")"
		sample "$v" wal_fpi "$(calc "(${after[3]} - ${before[3]}) / $c")"
		sample "$v" pages "$(calc "(${after[4]} - ${before[4]}) / $c")"
		sample "$v" disk "$(calc "(${after[5]} - ${before[5]}) / $c")"
	done <"$run/turns"
}

# Rounds of turns for variants whose loads `COMMAND VARIANT` starts; the first, of warm_up seconds, does not count: caches,
# first changes of pages after the checkpoint. With `pinned` as fourth word each client shares a CPU with its session.
warm_up=1
turns() {                               # ROUNDS COMMAND free|pinned VARIANT..
	local n=$1 command=$2 where=$3 v
	shift 3
	for v in "$@"; do
		"$command" "$v"
		sleep 0.3
		kill -STOP "${load_of[$v]}"
	done
	if [ "$where" = pinned ]; then load_pin "$@"; fi
	for ((round = 0; round <= n; round++)); do
		if [ "$round" = 0 ]; then seconds=$warm_up turns_round "$@"; samples_new; else turns_round "$@"; fi
	done
	load_end "$@"
}

# --- statistics ------------------------------------------------------------------------------------------------------

# Of numbers, one a line: median, least, greatest, to $1 decimals.
spread() {
	sort -g | awk -v d="$1" '{ v[NR] = $1 }
		END { if (NR) printf "%.*f %.*f %.*f\n", d, (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2, d, v[1], d, v[NR] }'
}

# Samples of a variant: VARIANT QUANTITY DECIMALS
spread_of() { awk -v v="$1" -v q="$2" '$2 == v && $3 == q { print $4 }' "$run/samples" | spread "$3"; }
median_of() { spread_of "$@" | cut -d' ' -f1; }

# Round by round: variant $1 divided by ($4 /) or less ($4 -) variant $2 in quantity $3, to $5 decimals.
spread_vs() {
	awk -v a="$1" -v b="$2" -v q="$3" -v op="$4" '
		$3 == q && $2 == a { x[$1] = $4 }
		$3 == q && $2 == b { y[$1] = $4 }
		END { for (r in x) if (r in y) print op == "/" ? x[r] / y[r] : x[r] - y[r] }' "$run/samples" | spread "${5:-3}"
}

# Reports as METRIC the median of variant $2 divided by (or with `-` as $5: less) variant $3 in quantity $4.
metric_vs() {                           # METRIC VARIANT VARIANT QUANTITY [/ | -]
	local m low high
	read -r m low high < <(spread_vs "$2" "$3" "$4" "${5:-/}") || return 0
	metric "$1" "$m"
	note "    $1: rounds from $low to $high"
}

# The same as a comment.
note_vs() {                             # VARIANT VARIANT QUANTITY
	local m low high
	read -r m low high < <(spread_vs "$1" "$2" "$3" /) || return 0
	note "$3, $1 against $2: $m (rounds from $low to $high)"
}

# Absolute figures of variants.
note_orders() {                         # TITLE VARIANT..
	local title=$1 v m low high t tlow thigh
	shift
	for v in "$@"; do
		read -r m low high < <(spread_of "$v" cpu 1) || continue
		read -r t tlow thigh < <(spread_of "$v" tps 0)
		note "$title, $v: $m us/order server CPU ($low to $high), $t orders/s ($tlow to $thigh);" \
			"WAL $(median_of "$v" wal 0) bytes in $(median_of "$v" wal_records 1) records" \
			"($(median_of "$v" wal_fpi 3) full pages)," \
			"$(median_of "$v" pages 1) page accesses, $(median_of "$v" disk 0) bytes on disk"
	done
}
