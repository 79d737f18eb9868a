-- :orders orders of a year, all of them matured, and the reads that are measured.
CREATE EXTENSION rebate;
SELECT rebate.attach('orders', member => 'customer_id', amount => 'amount', currency => 'EUR', order_time => 'created_at',
	confirmed_at => 'created_at', since => '2000-01-01', max_backdate => NULL);
SELECT rebate.set_rule('held', percent => 5, hold => '14 days', valid_from => '2000-01-01');
INSERT INTO orders (customer_id, merchant_id, amount, created_at)
	SELECT g::bigint * 7919 % :members + 1, 1, 100, '2025-01-01'::timestamptz + g * interval '1 second'
	FROM generate_series(1, :orders) g;
CALL rebate.mature('2025-12-01');
VACUUM (ANALYZE);
CHECKPOINT;

CREATE FUNCTION bench_reads(members integer, calls integer) RETURNS TABLE (what text, us numeric) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz;
	middle timestamptz;
BEGIN
	SELECT min(posted_at) + (max(posted_at) - min(posted_at)) / 2 INTO middle FROM rebate_data.accrual;
	FOREACH what IN ARRAY '{balance,balance_at,rebates,entries}'::text[] LOOP
		FOR round IN 0..1 LOOP
			-- the first round warms up
			began := clock_timestamp();
			FOR i IN 1..CASE round WHEN 0 THEN 100 ELSE calls END LOOP
				IF what = 'balance' THEN
					PERFORM * FROM rebate.balance((1 + i::bigint * 104729 % members)::text);
				ELSIF what = 'balance_at' THEN
					PERFORM * FROM rebate.balance((1 + i::bigint * 104729 % members)::text, at => middle);
				ELSIF what = 'rebates' THEN
					PERFORM * FROM rebate.accruals WHERE member = (1 + i::bigint * 104729 % members)::text
					ORDER BY order_time DESC LIMIT 20;
				ELSE
					PERFORM * FROM rebate.entries WHERE member = (1 + i::bigint * 104729 % members)::text
					ORDER BY seq DESC LIMIT 20;
				END IF;
			END LOOP;
			us := extract(epoch FROM clock_timestamp() - began) * 1000000 / calls;
		END LOOP;
		RETURN NEXT;
	END LOOP;
END $$;
