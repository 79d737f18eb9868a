-- The library's own processes at work: who delivers is told of orders and of what matures, two help the clock.
SET client_min_messages = warning;
CREATE EXTENSION rebate;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, placed timestamptz);
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', order_time => 'placed', confirmed_at => 'placed', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('ten', percent => 10, hold => '14 days', valid_from => '2020-01-01');
SELECT count(*) FROM (SELECT rebate.channel('m' || m) FROM generate_series(1, 20) m) c;
LISTEN rebate;
INSERT INTO orders SELECT i, 'm' || i % 500, 10, '2025-01-01'::timestamptz + i * interval '1 second' FROM generate_series(1, 20500) i;
INSERT INTO orders VALUES (20501, 'm1', 1, '2025-01-01');
INSERT INTO orders VALUES (20502, 'new', 1, '2025-01-01');
SET rebate.clock_workers = 2;
CALL rebate.mature('2026-01-01');
DO $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		EXIT WHEN (SELECT published >= (SELECT count(*) FROM rebate.entries) FROM rebate.delivery_status);
		PERFORM pg_sleep(0.1);
		COMMIT;
	END LOOP;
END $$;
SELECT published, hints, notifications, overflows, sweeps, last_error FROM rebate.delivery_status;
SELECT count(*) FROM rebate.entries;
SELECT job, state, done FROM rebate.jobs;
SELECT 'all delivered, all matured' FROM rebate.delivery_status, rebate.jobs
WHERE published >= (SELECT count(*) FROM rebate.entries) AND job = 'mature' AND state = 'finished' AND done = 20502
	AND NOT EXISTS (SELECT FROM rebate_data.waiting) AND NOT EXISTS (SELECT FROM rebate.audit());
