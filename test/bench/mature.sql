-- A rule with a hold, and three sets of :due orders (four times as many in the last) whose rebates are due: made long before
-- orders of the bench, each member's all over the time of the set.
CREATE EXTENSION rebate;
SELECT rebate.attach('orders', member => 'customer_id', amount => 'amount', currency => 'EUR', order_time => 'created_at',
	confirmed_at => 'created_at', since => '2000-01-01', max_backdate => NULL);
SELECT rebate.set_rule('held', percent => 5, hold => '14 days', valid_from => '2000-01-01');
INSERT INTO orders (customer_id, merchant_id, amount, created_at)
	SELECT g::bigint * 7919 % :members + 1, 1, 100, '2024-06-01'::timestamptz + g * interval '1 second'
	FROM generate_series(1, :due) g;
INSERT INTO orders (customer_id, merchant_id, amount, created_at)
	SELECT g::bigint * 7919 % :members + 1, 1, 100, '2025-01-01'::timestamptz + g * interval '1 second'
	FROM generate_series(1, :due) g;
INSERT INTO orders (customer_id, merchant_id, amount, created_at)
	SELECT g::bigint * 7919 % :members + 1, 1, 100, '2025-06-01'::timestamptz + g * interval '1 second'
	FROM generate_series(1, 4 * :due) g;
CHECKPOINT;
