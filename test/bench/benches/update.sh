# shellcheck shell=bash
# Many orders in one UPDATE, 1,000 rules over 1,000 merchants, 100,000 members: they are confirmed; and a column changes
# that is not mapped. Each round has orders of its own.
# server: work_mem = '64MB'

update_orders=${BENCH_UPDATE_ORDERS:-500000}
rounds=${BENCH_ROUNDS:-3}

bench_setup() {
	local v b begin
	variants=()
	for v in plain rebate; do
		wanted "$v" || continue
		begin=$SECONDS
		bench_server "$v"
		script "$v" shop.sql
		on "$v" psql -Xq -v ON_ERROR_STOP=1 >/dev/null <<-'SQL'
			ALTER TABLE orders ADD status text NOT NULL DEFAULT 'paid', ADD note text;
		SQL
		if [ "$v" = rebate ]; then
			on "$v" psql -Xq -v ON_ERROR_STOP=1 >/dev/null <<-'SQL'
				SET client_min_messages = warning;
				CREATE EXTENSION rebate;
				SELECT rebate.attach('orders', member => 'customer_id', amount => 'amount', currency => 'EUR',
					order_time => 'created_at', status => 'status', attributes => '{"merchant": "merchant_id"}',
					phases => '{"paid": "pending", "done": "confirmed"}');
				SELECT rebate.set_rule('merchant ' || m, percent => 1 + m % 10,
					scope => jsonb_build_object('merchant', m::text))
				FROM generate_series(1, 1000) m;
			SQL
		fi
		# The first for a round that does not count.
		for ((b = 0; b <= rounds; b++)); do
			on "$v" psql -Xq -U shop -v ON_ERROR_STOP=1 -v n="$update_orders" -v members="$members" <<-'SQL'
				INSERT INTO orders (customer_id, merchant_id, amount, created_at)
				SELECT 1 + (c * 7919::bigint) % :members, 1 + c % 1000, 10 + c % 490, now() FROM generate_series(1, :n) c;
			SQL
		done
		query "$v" 'VACUUM ANALYZE'
		query "$v" CHECKPOINT
		variants+=("$v")
		note "$v: made in $((SECONDS - begin)) s"
	done
}

bench_load() { bulk_update "$1" status done; }

# One statement over the orders of the round: VARIANT COLUMN VALUE
bulk_update() {
	local v=$1 column=$2 value=$3 ms
	ms=$(on "$v" psql -XqAt -U shop -v ON_ERROR_STOP=1 -v column="$column" -v value="$value" -v n="$update_orders" \
		-v round="$round" <<-'SQL' | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
		\timing on
		UPDATE orders SET :column = :'value' WHERE id > :round * :n AND id <= (:round + 1) * :n;
	SQL
	)
	[ -n "$ms" ] || rb_die "$bench: no orders in $v"
	sample "$v" "$column" "$(calc "$ms / 1000")"
	query "$v" CHECKPOINT
}

both_updates() { bulk_update "$1" note seen; bulk_update "$1" status done; }

bench_measure() {
	local v column found
	note_server "${variants[0]}"
	round=0
	for v in "${variants[@]}"; do both_updates "$v"; done
	samples_new
	interleave "$rounds" both_updates "${variants[@]}"
	for v in "${variants[@]}"; do
		for column in status note; do
			note "$v: $column of $update_orders orders in" \
				"$(spread_of "$v" "$column" 2 | awk '{ print $1 " s (" $2 " to " $3 ")" }')"
		done
	done
	if wanted rebate; then
		found=$(query rebate "SELECT sum(pending) = 0 AND sum(available) = (SELECT sum(earned) FROM rebate_data.accrual)
			AND sum(last_entry) = (SELECT 2 * count(*) FROM orders) FROM rebate_data.account")
		[ "$found" = t ] || rb_die "$bench: the ledger does not agree with the orders"
	fi
	metric_vs time_vs_plain rebate plain status
	metric_vs unrelated_vs_plain rebate plain note
}
