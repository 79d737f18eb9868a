-- Large groups of orders that were split from one: what they share is right, and what is read grows with their number.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, part_of int, grp int);
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', replaces => ARRAY['part_of']);
SELECT rebate.set_rule('fixed', fixed => 5, currency => 'EUR', minimum => 100);
SELECT rebate.set_rule('capped', percent => 10, currency => 'EUR', max_per_order => 7);
SELECT rebate.set_rule('each', percent => 1, condition => 'total <> 0.5');

-- index scans of this session in the store and in the shop's table
CREATE FUNCTION reads() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(idx_scan)::bigint FROM pg_stat_xact_user_tables
	WHERE schemaname = 'rebate_data' OR relid = 'orders'::regclass $$;

-- n parts of 1.00 each and their root, the parts in turn of the root or each of the one before it; what is read a part
CREATE TABLE measured (what text, n int, reads bigint);
CREATE PROCEDURE split(what text, n int, chain boolean, one_by_one boolean, first int) LANGUAGE plpgsql AS $$
DECLARE
	before bigint := reads();
BEGIN
	IF one_by_one THEN
		FOR i IN 0 .. n - 1 LOOP
			INSERT INTO orders VALUES (first + i, 'm' || i % 7, 1,
				CASE WHEN i > 0 THEN CASE WHEN chain THEN first + i - 1 ELSE first END END, first);
		END LOOP;
	ELSE
		INSERT INTO orders SELECT first + i, 'm' || i % 7, 1,
			CASE WHEN i > 0 THEN CASE WHEN chain THEN first + i - 1 ELSE first END END, first
		FROM generate_series(0, n - 1) AS i;
	END IF;
	PERFORM rebate.flush();
	INSERT INTO measured VALUES (what, n, reads() - before);
END $$;
SET client_min_messages = notice;

CALL split('one statement', 30, false, false, 1000);
CALL split('one statement', 300, false, false, 2000);
CALL split('one by one', 30, false, true, 3000);
CALL split('one by one', 300, false, true, 4000);
CALL split('a chain', 30, true, false, 5000);
CALL split('a chain', 300, true, false, 6000);
SET rebate.posting = statement;
CALL split('posted at the statement', 30, false, false, 7000);
CALL split('posted at the statement', 300, false, false, 8000);
-- here each statement reads the group as it is: half the square, with what one order reads
CALL split('each posted by itself', 60, false, true, 9000);
RESET rebate.posting;
SELECT what, max(reads) FILTER (WHERE n = 300) < 11 * max(reads) FILTER (WHERE n = 30) AS linear,
	max(reads / n) < 25 AS few
FROM measured WHERE n <> 60 GROUP BY what ORDER BY what;
SELECT reads < 60 * 60 / 2 * 15 AS few FROM measured WHERE n = 60;

-- a change of one of them, and the audit of all
BEGIN;
INSERT INTO measured SELECT 'before', 0, reads();
UPDATE orders SET total = 2 WHERE id = 2007;
SELECT rebate.flush() = 300 AS all_decided;
SELECT reads() - reads < 300 * 12 AS few FROM measured WHERE what = 'before';
UPDATE measured SET reads = reads() WHERE what = 'before';
SELECT * FROM rebate.audit();
SELECT reads() - reads < 12 * count AS few FROM measured, (SELECT count(*) FROM orders) o WHERE what = 'before';
ROLLBACK;

-- 5.00 of 300 orders: 200 have 0.02 and 100 have 0.01; of the capped 7.00, 100 have 0.03; each one has its cent
CREATE VIEW ledger AS
SELECT o.grp, r.rule, count(*) AS n, sum(r.earned) AS sum, min(r.earned), max(r.earned),
	count(*) FILTER (WHERE r.earned = 0.01) AS cents
FROM rebate.accruals r JOIN orders o ON o.id = r.order_key::int GROUP BY 1, 2;
SELECT * FROM ledger ORDER BY 1, 2;
SELECT * FROM rebate.audit();

-- 1.00 more for one: 301 of 500 cents; and one is gone
UPDATE orders SET total = 2 WHERE id = 2007;
DELETE FROM orders WHERE id = 4100;
SELECT * FROM ledger WHERE grp IN (2000, 4000) ORDER BY 1, 2;
SELECT rule, earned FROM rebate.accruals WHERE order_key = '2007' ORDER BY 1;
-- one whose rule raises when it comes belongs to no group yet; one that raises later fails all, which keep what they have
SET client_min_messages = warning;
SELECT rebate.set_rule('raises', fixed => 1, currency => 'EUR', condition => '1 / (total - 3) > 0');
INSERT INTO orders SELECT 10000 + i, 'm', CASE i WHEN 20 THEN 3 ELSE 4 END, CASE WHEN i > 0 THEN 10000 END, 10000
FROM generate_series(0, 29) AS i;
SET client_min_messages = notice;
SELECT count(*), min(message), max(message) FROM rebate.failures;
SELECT * FROM ledger WHERE grp = 10000 ORDER BY 1, 2;
UPDATE orders SET total = 4 WHERE id = 10020;
SELECT count(*) FROM rebate.failures;
BEGIN;
INSERT INTO measured SELECT 'raises', 0, reads();
UPDATE orders SET total = 3 WHERE id = 10020;
SELECT rebate.flush();
SELECT reads() - reads < 30 * 12 AS few FROM measured WHERE what = 'raises';
COMMIT;
SELECT count(*), min(message), max(message) FROM rebate.failures;
SELECT * FROM ledger WHERE grp = 10000 ORDER BY 1, 2;
UPDATE orders SET total = 5 WHERE id = 10020;
SELECT count(*) FROM rebate.failures;
SELECT * FROM ledger WHERE grp = 10000 ORDER BY 1, 2;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP VIEW ledger;
DROP PROCEDURE split;
DROP FUNCTION reads;
DROP TABLE measured, orders;
DROP SCHEMA rebate_data CASCADE;
DROP EXTENSION rebate CASCADE;
