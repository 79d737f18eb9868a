-- Splits and replacements: "replaces" is the key of the order that a row was split from, or replaces.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
CREATE TABLE orders (
	id int PRIMARY KEY,
	customer text,
	total numeric(12,2),
	rule text,
	of_order int,
	status text NOT NULL DEFAULT 'confirmed',
	refunded numeric,
	cur text NOT NULL DEFAULT 'EUR',
	return_of int);
SELECT rebate.attach('orders', 'customer', 'total', 'cur', status => 'status', refunded => 'refunded',
	original => ARRAY['return_of'], replaces => ARRAY['of_order']);
SELECT rebate.set_rule('fixed', fixed => 5, currency => 'EUR', minimum => 100, scope => '{"rule": "fixed"}');
SELECT rebate.set_rule('capped', percent => 10, currency => 'EUR', max_per_order => 7, scope => '{"rule": "capped"}');
SELECT rebate.set_rule('reject', percent => 10, currency => 'EUR', max_per_order => 7, limit_mode => 'reject', scope => '{"rule": "reject"}');
SELECT rebate.set_rule('minimum', percent => 5, currency => 'EUR', minimum => 60, scope => '{"rule": "minimum"}');
SELECT rebate.set_rule('ten', percent => 10, scope => '{"rule": "ten"}');
SET client_min_messages = notice;
CREATE VIEW ledger AS
SELECT d.order_key::int AS id, d.decision, d.earned, f.message AS failure
FROM rebate.decisions d LEFT JOIN rebate.failures f USING (source, order_key);
CREATE FUNCTION look(VARIADIC ids int[]) RETURNS TABLE (id int, decision text, earned numeric, failure text)
LANGUAGE sql AS $$
	SELECT l.* FROM ledger l WHERE l.id = ANY (ids) ORDER BY l.id $$;

-- 5.00 from 100.00 on, once: 100 alone; then 60 and 40, of two members
INSERT INTO orders VALUES (1, 'alice', 100, 'fixed');
SELECT * FROM look(1);
BEGIN;
UPDATE orders SET total = 60 WHERE id = 1;
INSERT INTO orders VALUES (2, 'bob', 40, 'fixed', 1);
COMMIT;
SELECT * FROM look(1, 2);
SELECT member, available FROM rebate.balances ORDER BY member;
SELECT * FROM rebate.audit();
-- three parts of 500: 166.65, 166.65 and 166.70 leave two units, one to the largest fraction, one to the smaller key
BEGIN;
UPDATE orders SET total = 33.33 WHERE id IN (1, 2);
INSERT INTO orders VALUES (3, 'bob', 33.34, 'fixed', 2);
COMMIT;
SELECT * FROM look(1, 2, 3);
-- one is refunded by half, 1.66 x 1/2, and another returned in full: the others keep theirs
UPDATE orders SET refunded = 16.665 WHERE id = 2;
INSERT INTO orders (id, customer, total, return_of) VALUES (4, 'bob', -33.34, 3);
SELECT * FROM look(1, 2, 3, 4);
SELECT * FROM rebate.audit();
-- one is cancelled: 66.66 are not 100.00; and comes back
UPDATE orders SET status = 'void' WHERE id = 3;
SELECT * FROM look(1, 2, 3);
UPDATE orders SET status = 'pending' WHERE id = 3;
SELECT * FROM look(1, 2, 3);
-- the order that the others were split from is deleted, and comes back larger: 500 x 66.66, 33.33, 33.34 / 133.33
DELETE FROM orders WHERE id = 1;
SELECT * FROM look(1, 2, 3);
INSERT INTO orders VALUES (1, 'alice', 66.66, 'fixed');
SELECT * FROM look(1, 2, 3);
-- that between is deleted: what it replaced stays known
DELETE FROM orders WHERE id = 2;
SELECT * FROM look(1, 2, 3);
SELECT * FROM rebate.audit();

-- a limit of 7.00: 10 % of 50 and 50 is 10.00, of which 3.50 each; of 40 and 20, 6.00
INSERT INTO orders VALUES (10, 'carol', 100, 'capped');
SELECT * FROM look(10);
BEGIN;
UPDATE orders SET total = 50 WHERE id = 10;
INSERT INTO orders VALUES (11, 'carol', 50, 'capped', 10);
COMMIT;
SELECT * FROM look(10, 11);
UPDATE orders SET total = 30 + id - 10 * (id - 10) WHERE id IN (10, 11);
SELECT id, total FROM orders WHERE id IN (10, 11) ORDER BY id;
SELECT * FROM look(10, 11);
-- over it nothing, where that is asked for
INSERT INTO orders VALUES (12, 'carol', 40, 'reject', NULL), (13, 'carol', 40, 'reject', 12);
SELECT * FROM look(12, 13);
UPDATE orders SET total = 30 WHERE id = 13;
SELECT * FROM look(12, 13);
-- a minimum of 60: 5 % of 70 and 30, where 30 alone would get nothing
INSERT INTO orders VALUES (14, 'carol', 70, 'minimum', NULL), (15, 'carol', 30, 'minimum', 14);
SELECT * FROM look(14, 15);
-- a share goes to orders that the rule is for, alive, in the same currency and of the same sign
INSERT INTO orders VALUES (16, 'carol', 500, 'ten', 14), (17, 'carol', 500, 'minimum', 14);
UPDATE orders SET cur = 'USD' WHERE id = 17;
SELECT * FROM look(14, 15, 16, 17);
-- without a constant of money each is by itself: 10 % of 0.05 and 0.04
INSERT INTO orders VALUES (18, 'carol', 0.05, 'ten', NULL), (19, 'carol', 0.04, 'ten', 18);
SELECT * FROM look(18, 19);
-- the mirror image: -5.00 of -60 and -40
INSERT INTO orders VALUES (20, 'dave', -60, 'fixed', NULL), (21, 'dave', -40, 'fixed', 20);
SELECT * FROM look(20, 21);
SELECT * FROM rebate.audit();

-- The facts are those of the first: rules written later are not for its parts.
SELECT rebate.set_rule('ten', percent => 50, scope => '{"rule": "ten"}');
INSERT INTO orders VALUES (22, 'carol', 10, 'ten', 18), (23, 'carol', 10, 'ten', NULL);
SELECT * FROM look(22, 23);
-- in the wrong order: the part first, which then belongs to its order
INSERT INTO orders VALUES (31, 'erin', 40, 'fixed', 30);
SELECT * FROM look(31);
INSERT INTO orders VALUES (30, 'erin', 60, 'fixed');
SELECT * FROM look(30, 31);
-- another order, and none
INSERT INTO orders VALUES (32, 'erin', 90, 'fixed');
UPDATE orders SET of_order = 32 WHERE id = 31;
SELECT * FROM look(30, 31, 32);
UPDATE orders SET of_order = NULL WHERE id = 31;
SELECT * FROM look(30, 31, 32);
-- a circle fails, and what hangs on it; it is opened again
UPDATE orders SET of_order = 31 WHERE id = 31;
UPDATE orders SET of_order = 32 WHERE id = 31;
UPDATE orders SET of_order = 31 WHERE id = 32;
SELECT * FROM look(30, 31, 32);
UPDATE orders SET of_order = NULL WHERE id = 32;
SELECT * FROM look(30, 31, 32);
SELECT * FROM rebate.audit();

-- where it comes from
SELECT topic, subject, outcome, amount, regexp_replace(detail, ', (generation|order time|first seen|confirmed) [^,]*', '', 'g') AS detail
FROM rebate.explain('orders', 31) WHERE topic <> 'entry' AND outcome <> 'scope does not match';

-- what is recorded is checked, and made true again
SET session_replication_role = replica;
UPDATE orders SET of_order = 30 WHERE id = 31;
RESET session_replication_role;
SELECT violation, subject, detail FROM rebate.audit() ORDER BY 2, 1;
SELECT rebate.reconcile('orders', '{31}');
SELECT * FROM look(30, 31, 32);
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP FUNCTION look(int[]);
DROP VIEW ledger;
DROP TABLE orders;
DROP SCHEMA rebate_data CASCADE;
DROP EXTENSION rebate CASCADE;
