-- Returns as rows of their own: "original" is the key of the order that a row returns.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SET client_min_messages = notice;
SET timezone = 'UTC';

CREATE TABLE orders (
	id bigint PRIMARY KEY,
	customer text,
	total numeric(12,2),
	units int,
	cur text NOT NULL DEFAULT 'EUR',
	status text NOT NULL DEFAULT 'confirmed',
	of_order int,
	merchant text NOT NULL DEFAULT 'm1');
SET client_min_messages = warning;
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status',
	original => ARRAY['of_order']);
SELECT rebate.set_rule('ten', percent => 10, scope => '{"merchant": "m1"}');
SELECT rebate.set_rule('unit', per_unit => 0.50, currency => 'EUR', scope => '{"merchant": "m2"}');
SELECT rebate.set_rule('welcome', fixed => 5, currency => 'EUR', minimum => 100, scope => '{"merchant": "m3"}');
SET client_min_messages = notice;

-- what each order earned, and what the audit says
CREATE VIEW ledger AS
SELECT d.order_key::int AS id, d.decision, d.earned, f.message AS failure
FROM rebate.decisions d LEFT JOIN rebate.failures f USING (source, order_key);
CREATE FUNCTION look(VARIADIC ids int[]) RETURNS TABLE (id int, decision text, earned numeric, failure text)
LANGUAGE sql AS $$
	SELECT l.* FROM ledger l WHERE l.id = ANY (ids) ORDER BY l.id $$;

-- A return takes at its order's rate, and in any number of steps exactly all:
-- 10 % of 99.99 is 10.00; after 33.33: 66.66 / 99.99 of 9.999 is 6.67; after 66.66: 3.33; then 0.
INSERT INTO orders VALUES (1, 'alice', 99.99);
INSERT INTO orders VALUES (2, 'alice', -33.33, NULL, 'EUR', 'confirmed', 1);
SELECT * FROM look(1, 2);
INSERT INTO orders VALUES (3, 'alice', -33.33, NULL, 'EUR', 'pending', 1);
SELECT * FROM look(1, 2, 3);
INSERT INTO orders VALUES (4, NULL, -33.33, NULL, 'EUR', 'confirmed', 1);
SELECT * FROM look(1, 2, 3, 4);
SELECT seq, kind, amount, available FROM rebate.entries WHERE member = 'alice' ORDER BY seq;
SELECT * FROM rebate.audit();

-- void, tracked, failed and deleted returns take nothing: what they took comes back
UPDATE orders SET status = 'void' WHERE id = 2;
SELECT * FROM look(1);
UPDATE orders SET status = 'confirmed' WHERE id = 2;
UPDATE orders SET status = 'tracked' WHERE id = 3;
SELECT * FROM look(1, 3);
UPDATE orders SET total = 33.33 WHERE id = 4;
SELECT * FROM look(1, 4);
DELETE FROM orders WHERE id = 2;
SELECT * FROM look(1, 2);
SELECT * FROM rebate.audit();
UPDATE orders SET total = -33.33 WHERE id = 4;
UPDATE orders SET status = 'pending' WHERE id = 3;
INSERT INTO orders VALUES (2, 'alice', -33.33, NULL, 'EUR', 'confirmed', 1);
SELECT * FROM look(1, 2, 3, 4);
SELECT * FROM rebate.audit();

-- where it comes from
CREATE FUNCTION told(id int) RETURNS TABLE (topic text, subject text, outcome text, amount numeric, detail text)
LANGUAGE sql AS $$
	SELECT e.topic, e.subject, e.outcome, e.amount,
		regexp_replace(e.detail, ', (generation|order time|first seen|confirmed) [^,]*', '', 'g')
	FROM rebate.explain('orders', id) e WHERE e.topic IN ('order', 'accrual') $$;
SELECT * FROM told(1);
SELECT * FROM told(2);

-- The return comes before its order, and waits; the order comes, and it counts at once:
-- 10 % of 80.00 is 8.00, 30.00 are returned, 50/80 of it is 5.00.
INSERT INTO orders VALUES (11, 'bob', -30, NULL, 'EUR', 'confirmed', 10);
SELECT * FROM look(10, 11);
SELECT * FROM told(11);
SELECT * FROM rebate.audit();
INSERT INTO orders VALUES (10, 'bob', 80);
SELECT * FROM look(10, 11);
SELECT seq, kind, amount FROM rebate.entries WHERE member = 'bob' ORDER BY seq;
-- both in one statement, and in one transaction in either order
INSERT INTO orders VALUES (13, 'bob', -20, NULL, 'EUR', 'confirmed', 12), (12, 'bob', 80, NULL, 'EUR', 'confirmed', NULL);
BEGIN;
INSERT INTO orders VALUES (14, 'bob', 40);
INSERT INTO orders VALUES (15, 'bob', -40, NULL, 'EUR', 'confirmed', 14);
COMMIT;
BEGIN;
INSERT INTO orders VALUES (17, 'bob', -10, NULL, 'EUR', 'confirmed', 16);
SELECT rebate.flush();
INSERT INTO orders VALUES (16, 'bob', 40);
SAVEPOINT a;
UPDATE orders SET total = -20 WHERE id = 17;
SELECT rebate.flush();
ROLLBACK TO a;
COMMIT;
SELECT * FROM look(12, 13, 14, 15, 16, 17);
SELECT * FROM rebate.audit();

-- A return whose original changes moves: 10 back to 8.00; 12 has 80 - 20 - 30 left, 3.00
UPDATE orders SET of_order = 12 WHERE id = 11;
SELECT * FROM look(10, 11, 12);
-- ... is a return no more: a negative row of its own, -3.00
UPDATE orders SET of_order = NULL WHERE id = 11;
SELECT * FROM look(10, 11, 12);
UPDATE orders SET of_order = 10 WHERE id = 11;
SELECT * FROM look(10, 11, 12);
-- the order leaves and comes back; its key changes, and back
DELETE FROM orders WHERE id = 10;
SELECT * FROM look(10, 11);
INSERT INTO orders VALUES (10, 'bob', 80);
UPDATE orders SET id = 110 WHERE id = 10;
SELECT * FROM look(10, 11, 110);
UPDATE orders SET id = 10 WHERE id = 110;
-- so does that of the return
UPDATE orders SET id = 111 WHERE id = 11;
SELECT * FROM look(10, 11, 111);
SELECT order_key, target_key, amount FROM rebate_data.link WHERE target_key = '10';
UPDATE orders SET id = 11 WHERE id = 111;
SELECT * FROM look(10, 11);
SELECT * FROM rebate.audit();

-- More than the order: capped, and said.  Its amount is amended: judged afresh.
UPDATE orders SET total = -100 WHERE id = 11;
SELECT * FROM look(10);
SELECT * FROM told(10);
UPDATE orders SET total = 200 WHERE id = 10;
SELECT * FROM look(10);

-- What cannot be: a return of itself, of a return, in another currency
INSERT INTO orders VALUES (20, 'carol', 50, NULL, 'EUR', 'confirmed', NULL), (21, 'carol', -10, NULL, 'EUR', 'confirmed', 20);
INSERT INTO orders VALUES (22, 'carol', -5, NULL, 'EUR', 'confirmed', 22);
INSERT INTO orders VALUES (23, 'carol', -5, NULL, 'EUR', 'confirmed', 21);
INSERT INTO orders VALUES (24, 'carol', -5, NULL, 'USD', 'confirmed', 20);
SELECT * FROM look(20, 21, 22, 23, 24);
-- The order becomes a return itself: what returns it fails; amount 0 takes nothing.
INSERT INTO orders VALUES (25, 'carol', 100);
UPDATE orders SET total = 0, of_order = 25 WHERE id = 20;
SELECT * FROM look(20, 21, 25);
-- and back: a failed row waits for its own next change
UPDATE orders SET total = 50, of_order = NULL WHERE id = 20;
SELECT * FROM look(20, 21);
UPDATE orders SET total = total WHERE id = 21;
SELECT * FROM look(20, 21);
-- the order's currency changes: the return fails
UPDATE orders SET cur = 'USD' WHERE id = 20;
SELECT * FROM look(20, 21);
SELECT * FROM rebate.audit();

-- Units: 0.50 for each of 10; 4 come back for 44.00 of 100.00: 6 x 0.50 = 3.00, whatever the money says.
INSERT INTO orders VALUES (30, 'dave', 100, 10, 'EUR', 'confirmed', NULL, 'm2');
INSERT INTO orders VALUES (31, 'dave', -44, 4, 'EUR', 'confirmed', 30, 'm2');
SELECT * FROM look(30);
INSERT INTO orders VALUES (32, 'dave', -56, -6, 'EUR', 'confirmed', 30, 'm2');
SELECT * FROM look(30);
-- The minimum is held against the amount before returns: 5.00 of 100, 60/100 of it 3.00
INSERT INTO orders VALUES (33, 'dave', 100, NULL, 'EUR', 'confirmed', NULL, 'm3'),
	(34, 'dave', -40, NULL, 'EUR', 'confirmed', 33, 'm9');
SELECT * FROM look(33, 34);
SELECT * FROM rebate.audit();

-- Many at once: more orders than are locked one by one
INSERT INTO orders SELECT 1000 + i, 'erin', 10 FROM generate_series(1, 300) i;
INSERT INTO orders SELECT 2000 + i, 'erin', -2.50, NULL, 'EUR', 'confirmed', 1000 + i FROM generate_series(1, 300) i;
SELECT decision, earned, count(*) FROM ledger WHERE id > 1000 GROUP BY 1, 2 ORDER BY 1;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';
BEGIN;
UPDATE orders SET total = -5 WHERE id > 2000;
SELECT rebate.flush();
SELECT mode, count(*) FROM pg_locks WHERE locktype = 'advisory' GROUP BY 1;
COMMIT;
SELECT available FROM rebate.balances WHERE member = 'erin';

-- What is recorded of returns is checked, and reconcile() makes it true again
SET session_replication_role = replica;
UPDATE orders SET total = -1 WHERE id = 2001;
DELETE FROM orders WHERE id = 2002;
INSERT INTO orders VALUES (2999, 'erin', -1, NULL, 'EUR', 'confirmed', 1003);
RESET session_replication_role;
SELECT violation, subject, detail FROM rebate.audit() ORDER BY 2, 1;
SELECT rebate.reconcile('orders');
SELECT * FROM look(1001, 1002, 1003, 2002);
SELECT * FROM rebate.audit();

-- The mapping: how it is checked, taken away and given back
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status',
	original => ARRAY['of_order', 'id']);
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status',
	original => ARRAY['id']);
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status',
	original => ARRAY['merchant']);
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status');
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status', replace => true);
SELECT * FROM look(1, 2, 3);
SELECT count(*) FROM rebate_data.link;
SELECT * FROM rebate.audit();
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status', replace => true,
	original => ARRAY['nullif(of_order, 0)']);
SELECT * FROM look(1, 2, 3);
SELECT * FROM rebate.audit();
-- a renamed column is followed; an expression is not, and is repaired by hand
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status', replace => true,
	original => ARRAY['of_order']);
ALTER TABLE orders RENAME of_order TO "Returns";
INSERT INTO orders VALUES (41, 'fay', -10, NULL, 'EUR', 'confirmed', 40), (40, 'fay', 20, NULL, 'EUR', 'confirmed', NULL);
SELECT * FROM look(40, 41);
SELECT * FROM rebate.audit();

-- with on_delete = keep what a return took stays taken
SELECT rebate.attach('orders', 'customer', 'total', 'cur', quantity => 'units', status => 'status', replace => true,
	original => ARRAY['Returns'], on_delete => 'keep');
DELETE FROM orders WHERE id = 41;
SELECT * FROM look(40);
UPDATE orders SET total = 40 WHERE id = 40;
SELECT * FROM look(40);
SELECT * FROM rebate.audit();

-- a composite key, one column shared; on_error = abort
CREATE TABLE lines (shop text, no int, ref int, customer text, amount numeric, PRIMARY KEY (shop, no));
SELECT rebate.attach('lines', 'customer', 'amount', 'EUR', original => ARRAY['shop', 'ref'], on_error => 'abort');
INSERT INTO lines VALUES ('a', 1, NULL, 'gil', 100), ('b', 1, NULL, 'gil', 200);
SELECT rebate.set_rule('lines', percent => 1, source => 'lines', scope => '{}');
INSERT INTO lines VALUES ('a', 2, NULL, 'gil', 100), ('b', 2, NULL, 'gil', 200), ('b', 3, 2, NULL, -50);
SELECT order_key, decision, earned FROM rebate.decisions WHERE source = 'public.lines' ORDER BY 1;
INSERT INTO lines VALUES ('b', 4, 3, 'gil', -1);
INSERT INTO lines VALUES ('b', 4, 2, 'gil', 1);
SELECT order_key, decision, earned FROM rebate.decisions WHERE source = 'public.lines' ORDER BY 1;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP TABLE lines;
DROP FUNCTION look(int[]), told(int);
DROP VIEW ledger;
DROP TABLE orders;
DROP SCHEMA rebate_data CASCADE;
DROP EXTENSION rebate CASCADE;
