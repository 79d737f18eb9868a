# shellcheck shell=bash
# What an order writes: bytes of WAL against the plain table's, and bytes on disk, tables and indexes, beyond those of the
# plain table. Single orders of members who have an account, each page changed before since the last checkpoint: what a
# checkpoint adds, the first images of pages, depends on how often there is one.

orders=${BENCH_ORDERS:-200000}
rounds=${BENCH_ROUNDS:-3}

bench_setup() {
	local v
	variants=()
	for v in plain plpgsql rebate; do
		wanted "$v" || continue
		bench_shop "$v" 1000
		# changes the pages of all accounts
		query "$v" "INSERT INTO orders (customer_id, merchant_id, amount, created_at)
			SELECT c, 1 + c % 1000, 10 + c % 490, now() FROM generate_series(1, $members) c"
		variants+=("$v")
	done
}

bench_load() { load_start "$1" 1 order.pgbench -D merchants=1000; }

# WAL written, and bytes of all relations of the shop and its ledger
written() {
	query "$1" "SELECT pg_current_wal_insert_lsn() - '0/0', sum(pg_total_relation_size(oid)) FROM pg_class
		WHERE relkind IN ('r', 'S') AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace,
			'pg_toast'::regnamespace)" | tr '|' ' '
}

some_orders() {                         # VARIANT
	local before after
	read -ra before < <(written "$1")
	on "$1" pgbench -n -M prepared -c 2 -t "$((orders / 2))" -D members="$members" -D merchants=1000 -U shop \
		-f "$bench_dir/order.pgbench" shop >"$run/pgbench" 2>&1 || { cat "$run/pgbench" >&2; rb_die "$bench: pgbench failed"; }
	read -ra after < <(written "$1")
	sample "$1" wal "$(calc "(${after[0]} - ${before[0]}) / $orders")"
	sample "$1" disk "$(calc "(${after[1]} - ${before[1]}) / $orders")"
}

bench_measure() {
	local v
	note_server "${variants[0]}"
	samples_new
	interleave "$rounds" some_orders "${variants[@]}"
	for v in "${variants[@]}"; do
		note "$v: an order writes $(median_of "$v" wal 0) bytes of WAL, and takes $(median_of "$v" disk 0) bytes on disk"
		bench_check "$v"
	done
	metric_vs wal_bytes_vs_plain rebate plain wal
	metric_vs bytes_per_order rebate plain disk -
	note_vs plpgsql plain wal
}
