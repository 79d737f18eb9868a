# shellcheck shell=bash
# CPU of a single order where there is much: 1,000 partitions against 12, 10,000,000 members against 100,000, 100,000
# rules against 1,000. The shop without rebates shows what so many members cost by themselves.
# server: max_locks_per_transaction = 4096

partitions=${BENCH_PARTITIONS:-1000}
many_members=${BENCH_MANY_MEMBERS:-10000000}
many_rules=${BENCH_MANY_RULES:-100000}
# Shared buffers that hold all of so many members, and how long orders go on before they count: until most pages of the
# accounts were changed once after the checkpoint, and so not every order pays for writing two of them as a whole.
members_buffers=${BENCH_MEMBERS_BUFFERS:-8GB}
members_warm_up=${BENCH_MEMBERS_WARM_UP:-60}
parts=${BENCH_PARTS:-partitions members rules}

part() { case " $parts " in *" $1 "*) return 0 ;; esac; return 1; }

# Each part makes its own servers, since all of them together are large.
bench_setup() { :; }

# Of which shop: members_N, plain_N and rules_N are named after what they have; the rest is as everywhere.
load() {
	case $1 in
	members_* | plain_*) members=${1#*_} load_start "$1" 1 order.pgbench -D merchants=1000 ;;
	rules_*) load_start "$1" 1 order.pgbench -D merchants="${1#rules_}" ;;
	*) load_start "$1" 1 order.pgbench -D merchants=1000 ;;
	esac
}
bench_load() { load "$1"; }

compare() {                             # METRIC LARGE SMALL [PLAIN_LARGE PLAIN_SMALL]; the servers stay
	note_server "$2"
	samples_new
	turns "$rounds" load pinned "$3" "$2" "${@:4}"
	note_orders "1 client" "$3" "$2" "${@:4}"
	metric_vs "$1" "$2" "$3" cpu
	if [ $# -gt 3 ]; then note_vs "$4" "$5" cpu; fi
	bench_check "$2"
	bench_check "$3"
}

# The same server with shared buffers for all that it has, and that in them.
in_memory() {                           # VARIANT
	query "$1" "ALTER SYSTEM SET shared_buffers = '$members_buffers'"
	restart "$1" 0
	query "$1" 'CREATE EXTENSION IF NOT EXISTS pg_prewarm' >/dev/null
	note "$1: $(query "$1" "SELECT pg_size_pretty(8192 * sum(pg_prewarm(oid))) FROM pg_class WHERE relkind IN ('r', 'i')
		AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)") in shared buffers"
}

partitioned_shop() {                    # VARIANT PARTITIONS
	local begin=$SECONDS
	bench_server "$1"
	script "$1" shop.sql
	script "$1" many_partitions.sql -v partitions="$2"
	script "$1" rebate.sql -v merchants=1000
	script "$1" fill.sql -v merchants=1000
	note "$1: made in $((SECONDS - begin)) s"
}

bench_measure() {
	if part partitions; then
		partitioned_shop partitions_12 12
		partitioned_shop "partitions_$partitions" "$partitions"
		compare partitions_ratio "partitions_$partitions" partitions_12
		bench_servers_end
	fi
	if part members; then
		local kind variant
		for kind in rebate plain; do
			variant=${kind/rebate/members}
			bench_shop "${variant}_$members" 1000 "$kind"
			members=$many_members bench_shop "${variant}_$many_members" 1000 "$kind"
		done
		local warm_up=$members_warm_up
		compare members_ratio "members_$many_members" "members_$members" "plain_$many_members" "plain_$members"
		in_memory "members_$many_members"
		compare members_ratio_in_memory "members_$many_members" "members_$members" "plain_$many_members" "plain_$members"
		bench_servers_end
	fi
	if part rules; then
		bench_shop rules_1000 1000 rebate
		bench_shop "rules_$many_rules" "$many_rules" rebate
		compare rules_ratio "rules_$many_rules" rules_1000
		bench_servers_end
	fi
}
