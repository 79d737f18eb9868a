# shellcheck shell=bash
# A ledger of 5,000,000 entries: reading it, auditing it, folding house accounts, the trial balance.

entries=${BENCH_ENTRIES:-5000000}       # two for each order: the rebate, and that it became available
tail=${BENCH_TAIL:-10000}               # entries after the fold
parts=${BENCH_PARTS:-read audit fold trial}

bench_setup() {
	local begin=$SECONDS
	bench_server rebate
	script rebate shop.sql
	script rebate ledger.sql -v orders="$((entries / 2))"
	note "made in $((SECONDS - begin)) s"
}

bench_load() {
	on "$1" psql -Xq -U postgres shop -c 'SELECT count(*) FROM rebate.audit()' >/dev/null &
	load_of[$1]=$!
}

# Microseconds that the server takes for one call: of 10,000 in a loop, each about another member
read_round() {
	local name us
	while IFS='|' read -r name us; do sample rebate "$name" "$us"; done < <(query rebate "SELECT * FROM bench_reads($members, 10000)")
}

read_part() {
	interleave "$rounds" read_round rebate
	metric balance_us "$(median_of rebate balance 1)"
	metric balance_at_us "$(median_of rebate balance_at 1)"
	metric rebates_us "$(median_of rebate rebates 1)"
	note "last 20 entries of a member: $(median_of rebate entries 1) us"
}

# The audit tells at DEBUG1 what each part took.
audit_round() {
	local line
	while read -r line; do
		case $line in
		*'audit of the ledger:'*) sample rebate entries_per_s "$(rate_of "$line")" ;;
		*'audit of public.orders:'*) sample rebate orders_per_s "$(rate_of "$line")" ;;
		[1-9]*) rb_die "ledger: the audit found $line violations" ;;
		esac
	done < <(on rebate psql -XqAt -c 'SET client_min_messages = debug1' -c 'SELECT count(*) FROM rebate.audit()' 2>&1)
}

# "... N rows in M ms": rows a second
rate_of() { sed -n 's/.*: \([0-9]*\) [a-z]* in \([0-9]*\) ms.*/\1 \2/p' <<<"$1" | awk '{ printf "%.0f", $1 * 1000 / ($2 + 1) }'; }

audit_part() {
	interleave "$((rounds < 3 ? rounds : 3))" audit_round rebate
	metric audit_entries_per_s "$(median_of rebate entries_per_s 0)"
	metric audit_orders_per_s "$(median_of rebate orders_per_s 0)"
}

fold_part() {
	local ms
	query rebate 'CALL rebate.fold()'
	ms=$(query rebate "SELECT extract(epoch FROM finished_at - started_at) * 1000 FROM rebate.jobs WHERE job = 'fold'")
	metric fold_entries_per_s "$(calc "int($entries / $ms * 1000)")"
}

# Twice in a session: the first plans the view with nothing of the catalog at hand
trial_round() {
	local times
	mapfile -t times < <(on rebate psql -Xq -c '\timing on' -c 'SELECT sum(balance) FROM rebate.trial_balance' \
		-c 'SELECT sum(balance) FROM rebate.trial_balance' | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p')
	sample rebate trial_first "${times[0]}"
	sample rebate trial "${times[1]}"
}

trial_part() {
	local found
	query rebate "INSERT INTO orders (customer_id, merchant_id, amount, created_at)
		SELECT 1 + g % $members, 1, 100, '2025-12-01' FROM generate_series(1, $tail) g"
	found=$(query rebate "SELECT sum(balance) FILTER (WHERE kind = 'house') = ($entries / 2 + $tail) * 5 AND sum(balance) = 0 FROM rebate.trial_balance")
	[ "$found" = t ] || rb_die "ledger: the trial balance does not agree with the orders"
	interleave "$rounds" trial_round rebate
	metric trial_ms "$(median_of rebate trial 1)"
	note "the first of a session: $(median_of rebate trial_first 1) ms"
}

bench_measure() {
	local part
	note_server rebate
	for part in $parts; do
		samples_new
		"${part}_part"
	done
}
