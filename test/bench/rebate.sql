-- The shop with rebates: a percentage for each of :merchants merchants.
CREATE EXTENSION rebate;
SELECT rebate.attach('orders', member => 'customer_id', amount => 'amount', currency => 'EUR',
	order_time => 'created_at', attributes => '{"merchant": "merchant_id"}');
SELECT rebate.set_rule('merchant ' || m, percent => 1 + m % 10, scope => jsonb_build_object('merchant', m::text))
FROM generate_series(1, :merchants) m;
