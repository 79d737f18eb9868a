-- rebate.sql for orders of 2025.
CREATE EXTENSION rebate;
SELECT rebate.attach('orders', member => 'customer_id', amount => 'amount', currency => 'EUR', order_time => 'created_at',
	attributes => '{"merchant": "merchant_id"}', since => '2025-01-01', max_backdate => NULL);
SELECT rebate.set_rule('merchant ' || m, percent => 1 + m % 10, scope => jsonb_build_object('merchant', m::text),
	valid_from => '2025-01-01')
FROM generate_series(1, :merchants) m;
