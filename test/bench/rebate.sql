-- The shop with rebates: a percentage for each of :merchants merchants.
CREATE EXTENSION rebate;
SELECT rebate.attach('orders', member => 'customer_id', amount => 'amount', currency => 'EUR',
	order_time => 'created_at', attributes => '{"merchant": "merchant_id"}');
-- each in a transaction of its own: in one, all would have to pass over the versions of the others' generation
SELECT format('SELECT rebate.set_rule(''merchant %s'', percent => %s, scope => ''{"merchant": "%s"}'')', m, 1 + m % 10, m)
FROM generate_series(1, :merchants) m
\gexec
