--
-- Columns that somebody adds to the tables of the store: those that are written as C structures are refused, and good
-- again once the column is dropped; the others go on with it.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, status text DEFAULT 'sent', back_of int, placed timestamptz DEFAULT '2026-01-01');
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', status => 'status', order_time => 'placed', confirmed_at => 'placed', original => ARRAY['back_of'],
    phases => '{"paid": "pending", "sent": "confirmed"}', since => '2025-01-01', max_backdate => NULL);
SELECT rebate.set_rule('ten', percent => 10, hold => '1 day', valid_from => '2025-01-01');
INSERT INTO orders VALUES (1, 'ann', 100, 'sent'), (2, 'ben', 100, 'paid'), (3, 'cem', 100, 'sent'), (4, 'dan', 100, 'sent');
SELECT rebate.freeze('orders', '3', 'seen');

-- each table of the store gets one, with a value in each row
DO $$
DECLARE
	name regclass;
BEGIN
	FOR name IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'rebate_data'::regnamespace AND c.relkind = 'r' LOOP
		EXECUTE format('ALTER TABLE %s ADD note text DEFAULT %L', name, repeat('x', 40));
	END LOOP;
END $$;
INSERT INTO orders VALUES (5, 'ann', 100);
SELECT subject, detail, remedy FROM rebate.doctor();
SELECT remedy FROM rebate.doctor() \gexec
SELECT "check", subject, detail FROM rebate.doctor() WHERE status = 'problem' AND "check" <> 'settings';

-- all that is written, with rows of before and after, by way of each writer
INSERT INTO orders VALUES (5, 'ann', 100);
INSERT INTO orders VALUES (6, 'ann', 100, 'paid'), (7, 'eve', 50, 'sent'), (8, 'eve', NULL, 'sent');
-- rows that were there have a value of the column, dropped or not
UPDATE orders SET total = 60 WHERE id IN (1, 5);
UPDATE orders SET status = 'sent' WHERE id IN (2, 6);
UPDATE orders SET id = 40 WHERE id = 4;
UPDATE orders SET customer = 'fay' WHERE id = 7;
INSERT INTO orders VALUES (9, 'ann', -30, 'sent', 1);
SELECT rebate.freeze('orders', '5', 'seen'), rebate.unfreeze('orders', '3');
SET rebate.collect_limit = 5;
INSERT INTO orders SELECT i, 'm' || i % 4, 100 FROM generate_series(100, 120) i;
RESET rebate.collect_limit;
SET rebate.mode = defer;
INSERT INTO orders VALUES (10, 'ann', 10);
UPDATE orders SET total = 70 WHERE id = 2;
DELETE FROM orders WHERE id = 100;
RESET rebate.mode;
UPDATE orders SET total = 20 WHERE id = 10;
SELECT rebate.reconcile('orders');
CALL rebate.mature();
CALL rebate.archive('2030-01-01');
UPDATE orders SET total = 10 WHERE id IN (101, 102);
SELECT rebate.replace_member('m1', 'm5');
DELETE FROM orders WHERE customer = 'm2';
CALL rebate.mature();
SELECT length(rebate.erase_member('m2'));
SELECT member, tracked, pending, maturing, available, held FROM rebate.balances WHERE member !~ '^erased' ORDER BY member COLLATE "C";
SELECT order_key, earned, bucket FROM rebate.accruals WHERE order_key ~ '^.$' ORDER BY 1, 2;
SELECT * FROM rebate.audit();
-- what it should be, by the rows alone; a return takes from its original
SELECT sum(tracked + pending + maturing + available + held) = (SELECT sum(round(total * 0.1, 2)) FROM orders) AS right FROM rebate.balances;
SELECT DISTINCT note FROM rebate_data.failure;

DROP TABLE orders;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP SCHEMA rebate CASCADE;
