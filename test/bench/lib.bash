# shellcheck shell=bash
# What benches share: private servers, measured rounds, statistics. Sourced by run and profile after test/lib/server.bash.
#
# A bench is a file benches/NAME.sh with functions
#   bench_setup            makes the databases of its variants (those for which `wanted VARIANT` is true)
#   bench_measure          measures in interleaved rounds, and reports
#   bench_load VARIANT     the load of one variant, for $seconds seconds, for profile
# and lines "# server: SETTING" for settings of its server beyond those below.

bench_dir=$rb_top/test/bench
rounds=${BENCH_ROUNDS:-5}               # measured rounds
seconds=${BENCH_SECONDS:-3}             # of one variant in one round
members=${BENCH_MEMBERS:-100000}

# A server as in production, but for what makes rounds unequal: checkpoints and autovacuum in the middle of one.
bench_settings="shared_buffers = '1GB'
wal_level = 'replica'
max_wal_size = '32GB'
checkpoint_timeout = '1h'
synchronous_commit = off
autovacuum = off
max_prepared_transactions = 0"

# Copies the server's files to $run/tree, builds and installs rebate there. BENCH_VARIANTS without rebate: no build.
bench_tree() {
	rb_copy_tree "$run/tree"
	wanted rebate || wanted rebate_other || return 0
	rb_copy_source "$run/src"
	rb_build "$run/src" "$run/tree" >"$run/build" 2>&1 || { cat "$run/build" >&2; rb_die "rebate does not build"; }
}

# A fresh server for the bench in file $1.
bench_server() {
	server=$run/s
	rb_create "$server" "$run/tree" "$bench_settings"$'\n'"$(sed -n 's/^# server: //p' "$1")"
	rb_start "$server"
	rb_client_env "$server"
	postmaster=$(head -n 1 "$server/data/postmaster.pid")
	export PGOPTIONS='-c client_min_messages=warning'
	note "server: $(bench_settings_in_force)"
}

bench_settings_in_force() {
	local name line=''
	for name in shared_buffers wal_level max_wal_size fsync full_page_writes synchronous_commit autovacuum jit \
		shared_preload_libraries; do
		line+=", $name = $(query postgres "SHOW $name")"
	done
	printf 'PostgreSQL %s%s' "$(query postgres 'SHOW server_version')" "$line"
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

note() { printf '# %s\n' "$*"; }

# One value; prints nothing if it could not be had.
metric() {                              # NAME VALUE
	if [ -n "$2" ]; then printf 'bench %s %s %s\n' "$bench" "$1" "$2"; fi
}

query() { psql -XqAt -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }

script() {                              # DATABASE FILE [psql's options]
	local db=$1 file=$2
	shift 2
	psql -XqAt -v ON_ERROR_STOP=1 -v members="$members" "$@" -d "$db" -f "$bench_dir/$file" >/dev/null
}

# --- databases -------------------------------------------------------------------------------------------------------

# The shop of a variant: $2 merchants, a rule for each but in the plain one; then an order of each member.
bench_shop() {                          # VARIANT MERCHANTS [DATABASE]
	local variant=$1 merchants=$2 db=${3:-$1} begin=$SECONDS
	query postgres "CREATE DATABASE $db"
	script "$db" shop.sql
	case $variant in
	plain) ;;
	rebate_other) script "$db" rebate.sql -v merchants="$merchants"
		query "$db" "LOAD 'rebate'; ALTER DATABASE $db SET rebate.posting = $(other_posting)" ;;
	*) script "$db" "$variant.sql" -v merchants="$merchants" ;;
	esac
	script "$db" fill.sql -v merchants="$merchants"
	rb_say "$bench: database $db made in $((SECONDS - begin)) s"
}

# The moments of posting: the default one, which the variant rebate runs with, and the other.
default_posting() {
	query postgres "LOAD 'rebate'; SELECT boot_val FROM pg_settings WHERE name = 'rebate.posting'"
}

other_posting() {
	if [ "$(default_posting)" = commit ]; then echo statement; else echo commit; fi
}

# Names of variants in the output.
variant_title() {
	case $1 in
	rebate) printf 'rebate, posting at %s (default)' "$(default_posting)" ;;
	rebate_other) printf 'rebate, posting at %s' "$(other_posting)" ;;
	*) printf '%s' "$1" ;;
	esac
}

# Did the shop of this database get what it should? A bench of something that does not work would be fast.
bench_check() {                         # DATABASE
	local found
	case $1 in
	*plpgsql*) found=$(query "$1" "SELECT count(*) = (SELECT count(*) FROM orders) AND
			sum(earned) = (SELECT sum(available) FROM ledger.account) AND
			count(*) FILTER (WHERE earned <> 0) = (SELECT count(*) FROM ledger.entry) FROM ledger.accrual") ;;
	*rebate*) found=$(query "$1" "SELECT count(*) = (SELECT count(*) FROM orders) AND
			sum(earned) = (SELECT sum(available) FROM rebate_data.account) AND
			count(*) FILTER (WHERE earned <> 0) = (SELECT count(*) FROM rebate_data.entry) FROM rebate_data.accrual
			WHERE rule_id > 0") ;;
	*) return 0 ;;
	esac
	[ "$found" = t ] || rb_die "$bench: the ledger of database $1 does not agree with its orders"
}

# --- measuring -------------------------------------------------------------------------------------------------------

# CPU of the server in ticks: the postmaster, its children that are gone, and those that are there.
server_ticks() {
	{ cat /proc/[0-9]*/stat 2>/dev/null || :; } | awk -v pm="$postmaster" '
		{ pid = $1; sub(/^.*\) /, "") }         # from here on $1 is field 3 of the manual page
		pid == pm { sum += $12 + $13 + $14 + $15 }
		$2 == pm { sum += $12 + $13 }
		END { print sum + 0 }'
}

# Waits until no client is connected, so that each backend's work is in the figures, and in those of the right round.
no_clients() {
	local pid line
	for _ in {1..500}; do
		line=
		while read -r pid; do
			line+=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || :)
		done < <({ cat /proc/[0-9]*/stat 2>/dev/null || :; } | awk -v pm="$postmaster" \
			'{ pid = $1; sub(/^.*\) /, "") } $2 == pm { print pid }')
		case $line in *'[local]'*) sleep 0.02 ;; *) return 0 ;; esac
	done
	rb_die "a client stays connected"
}

# Counters of database $1: WAL bytes, records and full-page images of the server, pages looked for, bytes on disk.
counters() {
	query "$1" "SELECT wal_bytes, wal_records, wal_fpi, blks_hit + blks_read,
		(SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind IN ('r', 'S')
			AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace))
		FROM pg_stat_wal, pg_stat_database WHERE datname = current_database()" | tr '|' ' '
}

# A figure of the round that is running: kept in $run/samples.
sample() { printf '%s %s %s %s\n' "$round" "$1" "$2" "$3" >>"$run/samples"; }

# Lets pgbench run script $4 and keeps as samples what an order cost: VARIANT DATABASE CLIENTS SCRIPT [pgbench's options]
pgbench_round() {
	local variant=$1 db=$2 clients=$3 file=$4 before after begin end done_ tps
	shift 4
	read -ra before < <(counters "$db")
	no_clients
	begin=$(server_ticks)
	pgbench -n -M prepared -c "$clients" -j "$((clients > 1 ? 2 : 1))" -T "$seconds" -f "$bench_dir/$file" \
		-D members="$members" -U shop "$@" "$db" >"$run/pgbench" 2>&1 ||
		{ cat "$run/pgbench" >&2; rb_die "$bench: pgbench failed"; }
	no_clients
	end=$(server_ticks)
	read -ra after < <(counters "$db")
	done_=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$run/pgbench")
	tps=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$run/pgbench")
	if ! grep -q '^number of failed transactions: 0 ' "$run/pgbench" || [ "${done_:-0}" = 0 ]; then
		cat "$run/pgbench" >&2
		rb_die "$bench: failed transactions"
	fi
	sample "$variant" tps "$tps"
	sample "$variant" orders "$done_"
	sample "$variant" cpu "$(calc "($end - $begin) * 1000000 / $ticks_per_second / $done_")"
	sample "$variant" wal "$(calc "(${after[0]} - ${before[0]}) / $done_")"
	sample "$variant" wal_records "$(calc "(${after[1]} - ${before[1]}) / $done_")"
	sample "$variant" wal_fpi "$(calc "(${after[2]} - ${before[2]}) / $done_")"
	sample "$variant" pages "$(calc "(${after[3]} - ${before[3]}) / $done_")"
	sample "$variant" disk "$(calc "(${after[4]} - ${before[4]}) / $done_")"
}
ticks_per_second=$(getconf CLK_TCK)

calc() { awk "BEGIN { printf \"%.6g\n\", $1 }"; }

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

# A round that does not count: caches, hint bits, first changes of pages after the checkpoint.
warm_up() {                             # COMMAND VARIANT..
	local seconds=1
	interleave 1 "$@"
	: >"$run/samples"
}

# --- statistics ------------------------------------------------------------------------------------------------------

# Of numbers, one a line: median, least, greatest, to $1 decimals.
spread() {
	sort -g | awk -v d="$1" '{ v[NR] = $1 }
		END { if (NR) printf "%.*f %.*f %.*f\n", d, (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2, d, v[1], d, v[NR] }'
}

# Samples of a variant: VARIANT QUANTITY DECIMALS
spread_of() { awk -v v="$1" -v q="$2" '$2 == v && $3 == q { print $4 }' "$run/samples" | spread "$3"; }

# Of the rounds: variant $1 divided by ($4 /) or less ($4 -) variant $2 in quantity $3; round by round, to $5 decimals.
spread_vs() {
	awk -v a="$1" -v b="$2" -v q="$3" -v op="$4" '
		$3 == q && $2 == a { x[$1] = $4 }
		$3 == q && $2 == b { y[$1] = $4 }
		END { for (r in x) if (r in y) print op == "/" ? x[r] / y[r] : x[r] - y[r] }' "$run/samples" | spread "${5:-3}"
}

# Prints the metric $1: median of variant $2 divided by variant $3 in quantity $4, and its spread as a comment.
metric_ratio() {
	local m low high
	read -r m low high < <(spread_vs "$2" "$3" "$4" / 3) || return 0
	metric "$1" "$m"
	note "$bench $1: rounds from $low to $high"
}

# One line of absolute figures per variant.
note_orders() {                         # TITLE VARIANT..
	local title=$1 v m low high t tlow thigh
	shift
	for v in "$@"; do
		read -r m low high < <(spread_of "$v" cpu 1) || continue
		read -r t tlow thigh < <(spread_of "$v" tps 0)
		note "$title, $(variant_title "$v"): $m us/order server CPU ($low to $high), $t orders/s ($tlow to $thigh)"
		note "    an order: WAL $(spread_of "$v" wal 0 | cut -d' ' -f1) bytes" \
			"in $(spread_of "$v" wal_records 1 | cut -d' ' -f1) records" \
			"($(spread_of "$v" wal_fpi 3 | cut -d' ' -f1) full pages)," \
			"$(spread_of "$v" pages 1 | cut -d' ' -f1) page accesses," \
			"$(spread_of "$v" disk 0 | cut -d' ' -f1) bytes on disk"
	done
}
