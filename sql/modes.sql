--
-- rebate.mode = defer and off, and rebate.reconcile() afterwards: the ledger is
-- what it would have been.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
SELECT name, setting, context, enumvals FROM pg_settings WHERE name = 'rebate.mode';
CREATE TABLE shop (id int PRIMARY KEY, customer text, total numeric, state text);
INSERT INTO shop VALUES (100, 'old', 10, 'paid'), (101, 'old', 10, 'paid'), (102, 'old', 10, 'paid');
SELECT rebate.attach('shop', 'customer', 'total', 'EUR', status => 'state',
	phases => '{"new": "tracked", "paid": "confirmed", "void": "void"}');
SELECT rebate.set_rule('five', percent => 5);
INSERT INTO shop VALUES (1, 'ann', 100, 'paid'), (2, 'bob', 10, 'paid'), (3, 'cy', 10, 'new'), (6, 'dan', 20, 'paid'), (7, 'eve', 30, 'paid');

-- deferred: keys are recorded, once each, and nothing is posted
SET rebate.mode = defer;
INSERT INTO shop VALUES (4, 'ann', 40, 'paid'), (5, 'cy', 20, 'paid');
UPDATE shop SET total = 200 WHERE id = 1;
UPDATE shop SET total = 50 WHERE id = 4;
UPDATE shop SET total = 60 WHERE id = 4;
UPDATE shop SET state = state;
UPDATE shop SET state = 'paid' WHERE id = 3;
DELETE FROM shop WHERE id = 2;
UPDATE shop SET id = 8 WHERE id = 5;
UPDATE shop SET id = 9 WHERE id = 6;
INSERT INTO shop VALUES (10, 'fay', NULL, 'paid');
-- rows older than the attachment stay so, by whatever way they are met
UPDATE shop SET total = 1000 WHERE id = 100;
BEGIN;
DELETE FROM shop WHERE id = 101;
INSERT INTO shop VALUES (101, 'old', 1000, 'paid');
COMMIT;
DELETE FROM shop WHERE id = 102;
INSERT INTO shop VALUES (102, 'old', 1000, 'paid');
-- what rolls back was never deferred
BEGIN;
SAVEPOINT s;
INSERT INTO shop VALUES (11, 'gus', 10, 'paid');
ROLLBACK TO s;
INSERT INTO shop VALUES (12, 'gus', 10, 'paid');
COMMIT;
SELECT order_key, old, ambiguous, archived FROM rebate_data.deferred ORDER BY order_key::int;
SELECT member, tracked, available FROM rebate.balances ORDER BY member;
-- the audit tells them from damaged ones, and so does explain
SELECT part, violation, subject, detail FROM rebate.audit();
SELECT topic, outcome, amount, detail ~ 'waits for rebate.reconcile' AS waits FROM rebate.explain('shop', 4);
SELECT topic, outcome, amount, detail ~ 'waits for rebate.reconcile' AS waits FROM rebate.explain('shop', 100);
SELECT topic, outcome, amount FROM rebate.explain('shop', 1);
-- a rule written after an order came is not for it, whenever it is decided
SELECT rebate.set_rule('late', percent => 90);
-- in parts
SELECT rebate.reconcile('shop', deferred_only => true, "limit" => 3);
SELECT rebate.reconcile('shop', deferred_only => true, "limit" => 3);
SELECT count(*) AS waiting FROM rebate_data.deferred;
SELECT rebate.reconcile('shop', deferred_only => true);
SELECT rebate.reconcile('shop', deferred_only => true);
SELECT count(*) AS waiting FROM rebate_data.deferred;
SELECT member, tracked, available FROM rebate.balances ORDER BY member;
SELECT order_key, decision, generation, earned FROM rebate.decisions ORDER BY order_key::int;
SELECT order_key, sqlstate, message FROM rebate.failures;
SELECT * FROM rebate.audit();
RESET rebate.mode;

-- first seen is the time of the deferring, and so is a confirmation
BEGIN;
SET LOCAL rebate.mode = defer;
INSERT INTO shop VALUES (20, 'ida', 10, 'paid');
COMMIT;
SELECT pg_sleep(0.01);
SELECT rebate.reconcile('shop', '{20}');
SELECT first_seen = confirmed_at AND first_seen = order_time AS at_once, first_seen < now() AS before
	FROM rebate.accruals WHERE order_key = '20';

-- a deferred order that is touched again with rebates on is new, not old
SET rebate.mode = defer;
INSERT INTO shop VALUES (21, 'ida', 10, 'paid');
RESET rebate.mode;
UPDATE shop SET total = 20 WHERE id = 21;
SELECT earned FROM rebate.accruals WHERE order_key = '21' ORDER BY earned;
SELECT rebate.reconcile('shop', deferred_only => true);
SELECT earned FROM rebate.accruals WHERE order_key = '21' ORDER BY earned;
-- and an old one that left and came back under rebates is old
INSERT INTO shop SELECT 200 + i, 'old', 10, 'paid' FROM generate_series(1, 2) i;
SELECT rebate.detach('shop');
INSERT INTO shop VALUES (210, 'old', 10, 'paid'), (211, 'old', 10, 'paid');
SELECT rebate.attach('shop', 'customer', 'total', 'EUR', status => 'state',
	phases => '{"new": "tracked", "paid": "confirmed", "void": "void"}');
SET rebate.mode = off;
INSERT INTO shop VALUES (212, 'old', 10, 'paid');
SET rebate.mode = defer;
DELETE FROM shop WHERE id = 212;
RESET rebate.mode;
INSERT INTO shop VALUES (212, 'old', 10, 'paid');
SELECT order_key, decision FROM rebate.decisions WHERE order_key IN ('210', '212') ORDER BY 1;
SELECT rebate.reconcile('shop');
SELECT * FROM rebate.audit();

-- several keys changed at once: set aside, and healed by taking them back
CREATE TABLE k (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('k', 'customer', 'total', 'EUR', on_error => 'abort');
INSERT INTO k VALUES (1, 'kim', 10), (2, 'leo', 20);
SET rebate.mode = defer;
UPDATE k SET id = id + 10;
SELECT order_key, old, ambiguous FROM rebate_data.deferred ORDER BY order_key;
SELECT rebate.reconcile('k');
SELECT order_key, sqlstate FROM rebate.failures WHERE source = 'public.k' ORDER BY order_key;
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.k' ORDER BY order_key;
UPDATE k SET id = id - 10;
SELECT rebate.reconcile('k', deferred_only => true);
RESET rebate.mode;
SELECT order_key, sqlstate FROM rebate.failures WHERE source = 'public.k' ORDER BY order_key;
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.k' ORDER BY order_key, earned;
SELECT * FROM rebate.audit();

-- off: nothing is seen; keys given, then the whole table
SET rebate.mode = off;
INSERT INTO shop VALUES (30, 'max', 10, 'paid'), (31, 'max', 20, 'paid'), (32, 'max', NULL, 'paid'), (33, NULL, 5, 'paid');
UPDATE shop SET total = 500 WHERE id = 1;
DELETE FROM shop WHERE id = 3;
RESET rebate.mode;
SELECT violation, subject FROM rebate.audit() ORDER BY subject;
SELECT rebate.reconcile('shop', ARRAY['30', ' 1', '30', '9999']);
SELECT rebate.reconcile('shop', '{}');
SELECT member, available FROM rebate.balances WHERE member IN ('ann', 'max') ORDER BY member;
SELECT rebate.reconcile('shop');
SELECT rebate.reconcile('shop');
SELECT member, available FROM rebate.balances WHERE member IN ('cy', 'max') ORDER BY member;
SELECT order_key, message FROM rebate.failures WHERE order_key = '32';
SELECT * FROM rebate.audit();

-- no triggers at all, a composite key, an order time, rows that stay when they leave
CREATE TABLE lines (region text, no int, customer text, total numeric, at timestamptz, PRIMARY KEY (no, region));
INSERT INTO lines VALUES ('x', 1, 'old', 10, '2020-01-01');
SELECT rebate.attach('lines', 'customer', 'total', 'EUR', key => '{region,no}', order_time => 'at', on_delete => 'keep');
DROP TRIGGER rebate_insert ON lines;
DROP TRIGGER rebate_update ON lines;
DROP TRIGGER rebate_delete ON lines;
INSERT INTO lines VALUES ('x', 2, 'nia', 10, now()), ('y', 2, 'nia', 20, now()), ('y', 3, 'nia', 40, now());
SELECT rebate.reconcile('lines', ARRAY['["x", 2]', '["y", "2"]', '["x", 1]']);
SELECT rebate.reconcile('lines', ARRAY[rebate.order_key('lines', 'y', 3)]);
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.lines' AND rule = 'five' ORDER BY order_key COLLATE "C";
UPDATE lines SET total = total * 2;
DELETE FROM lines WHERE no = 3;
SELECT rebate.reconcile('lines');
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.lines' AND rule = 'five' ORDER BY order_key COLLATE "C";
SELECT rebate.reconcile('lines', ARRAY['x']);
SELECT rebate.reconcile('lines', ARRAY['["x"]']);
SELECT rebate.reconcile('lines', ARRAY['["x", null]']);
SELECT rebate.reconcile('lines', ARRAY['["x", "y"]']);
SELECT violation FROM rebate.audit() WHERE violation <> 'trigger is missing or disabled';

-- whoever writes orders needs no right while they are deferred, and gains none
CREATE ROLE regress_clerk;
GRANT INSERT, UPDATE, SELECT ON shop TO regress_clerk;
SET rebate.mode = defer;
SET ROLE regress_clerk;
INSERT INTO shop VALUES (40, 'pam', 10, 'paid');
SET rebate.mode = off;
SELECT rebate.reconcile('shop');
SELECT count(*) FROM rebate_data.deferred;
RESET ROLE;
RESET rebate.mode;
SELECT rebate.reconcile('shop', '{40}');

-- what does not go
SELECT rebate.reconcile(NULL);
SELECT rebate.reconcile('pg_class');
SELECT rebate.reconcile('shop', '{NULL}');
SELECT rebate.reconcile('shop', '{x}');
SELECT rebate.reconcile('shop', "limit" => 3);
SELECT rebate.reconcile('shop', deferred_only => true, "limit" => 0);
SELECT rebate.reconcile('shop', '{1}', deferred_only => true);
BEGIN READ ONLY;
SELECT rebate.reconcile('shop');
ROLLBACK;
ALTER TABLE shop DROP total;
SELECT rebate.reconcile('shop', '{1}');
DROP TABLE shop, k, lines;
DROP ROLE regress_clerk;
