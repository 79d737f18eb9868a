# shellcheck shell=bash
# One session writes 1,000,000 single orders, then 100,000 savepoints, half of them rolled back: how much more memory it
# has afterwards, by the server's own account.

orders=${BENCH_ORDERS:-1000000}
savepoints=${BENCH_SAVEPOINTS:-100000}

bench_setup() {
	local v
	variants=()
	for v in plain rebate; do
		wanted "$v" || continue
		bench_shop "$v" 1000
		variants+=("$v")
	done
}

bench_load() { load_start "$1" 1 order.pgbench -D merchants=1000; }

# Single orders, each a statement and a transaction of its own
single_orders() {                       # FROM TO
	awk -v from="$1" -v to="$2" -v m="$members" 'BEGIN { for (c = from; c <= to; c++)
		print "EXECUTE single(" 1 + c * 7919 % m ", " 1 + c % 1000 ", " 10 + c % 490 ");" }'
}

# Transactions of a hundred savepoints, every other one rolled back
nested_orders() {                       # NUMBER
	awk -v n="$1" -v m="$members" 'BEGIN { for (c = 1; c <= n; c++) {
		if (c % 100 == 1) print "BEGIN;"
		print "SAVEPOINT s;\nEXECUTE single(" 1 + c * 7919 % m ", " 1 + c % 1000 ", " 10 + c % 490 ");"
		print c % 2 ? "ROLLBACK TO s;" : "RELEASE s;"
		if (c % 100 == 0 || c == n) print "COMMIT;" } }'
}

memory() { echo "SELECT 'memory', '$1', sum(total_bytes) / 1024, sum(used_bytes) / 1024 FROM pg_backend_memory_contexts;"; }

# First an order of each member, and some savepoints, so that what is kept of them by design is there.
one_session() {                         # VARIANT
	local what last='' total used
	{
		echo 'PREPARE single AS INSERT INTO orders (customer_id, merchant_id, amount, created_at) VALUES ($1, $2, $3, now());'
		memory warm
		single_orders 1 "$members"
		nested_orders 1000
		memory begin
		single_orders "$((members + 1))" "$((members + orders))"
		memory singles
		nested_orders "$savepoints"
		memory savepoints
	} | on "$1" psql -XqAt -v ON_ERROR_STOP=1 >"$run/session"
	while IFS='|' read -r _ what total used; do
		note "$1, $what: ${total%%.*} KiB of memory, ${used%%.*} in use"
		case $what in
		begin) last=$total ;;
		savepoints) sample "$1" growth "$(calc "$total - $last")" ;;
		esac
	done <"$run/session"
}

bench_measure() {
	local v
	note_server "${variants[0]}"
	samples_new
	round=1
	for v in "${variants[@]}"; do
		one_session "$v"
		bench_check "$v"
	done
	metric memory_growth_kib "$(median_of rebate growth 0)"
	note "    memory_growth_kib: of a session without rebates $(median_of plain growth 0)"
}
