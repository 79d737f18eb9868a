--
-- Who inserts an order, and from where: a role with INSERT and nothing else, a
-- function with other rights, a commit, a restricted operation.  What he hears of
-- a failure holds no value that he may not read.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
CREATE ROLE regress_hostile_app;
CREATE ROLE regress_hostile_reader;
CREATE SCHEMA hostile;
GRANT USAGE, CREATE ON SCHEMA hostile TO PUBLIC;
CREATE TABLE hostile.orders (id int PRIMARY KEY, customer text, total text, note text);
SELECT rebate.attach('hostile.orders', member => 'customer', amount => 'total::numeric', currency => 'EUR', attributes => '{"note": "note"}');
SELECT rebate.set_rule('ten', percent => 10);
SELECT rebate.set_rule('noted', percent => 1, scope => '{"note": "noted"}');
-- the library is loaded by the first order of a session: settings made before it count for nothing
\c -
SET client_min_messages = error;
SET ROLE regress_hostile_app;
DO $$BEGIN PERFORM set_config('rebate.mode', 'off', false); EXCEPTION WHEN OTHERS THEN NULL; END$$;
DO $$BEGIN PERFORM set_config('rebate.posting', 'statement', false); EXCEPTION WHEN OTHERS THEN NULL; END$$;
DO $$BEGIN PERFORM set_config('rebate.delivery', 'off', false); EXCEPTION WHEN OTHERS THEN NULL; END$$;
DO $$BEGIN PERFORM set_config('rebate.no_such', 'x', false); EXCEPTION WHEN OTHERS THEN NULL; END$$;
RESET ROLE;
GRANT INSERT ON hostile.orders TO regress_hostile_app;
REVOKE ALL ON SCHEMA rebate FROM PUBLIC;
SET ROLE regress_hostile_app;
BEGIN;
INSERT INTO hostile.orders VALUES (1, 'alice', '100');
RESET ROLE;
-- collected for the commit
SELECT member FROM rebate.balances;
COMMIT;
SELECT member, available FROM rebate.balances;
SELECT current_setting('rebate.mode'), current_setting('rebate.posting'), current_setting('rebate.delivery') = 'off' AS off, current_setting('rebate.no_such', true);
SET client_min_messages = warning;
SET ROLE regress_hostile_app;
SET rebate.mode = off;
RESET ROLE;

--
-- values in error texts
--
INSERT INTO hostile.orders VALUES (2, 'secret member', 'secret amount');
GRANT UPDATE (note) ON hostile.orders TO regress_hostile_app;
SET ROLE regress_hostile_app;
-- he changes a row that he cannot read
UPDATE hostile.orders SET note = 'x';
INSERT INTO hostile.orders VALUES (3, 'bob', 'x');
RESET ROLE;
-- a policy hides rows: the same
GRANT SELECT ON hostile.orders TO regress_hostile_app;
ALTER TABLE hostile.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON hostile.orders USING (customer = 'app');
CREATE POLICY write ON hostile.orders FOR INSERT WITH CHECK (true);
SET ROLE regress_hostile_app;
INSERT INTO hostile.orders VALUES (4, 'somebody else', 'y');
SET row_security = off;
INSERT INTO hostile.orders VALUES (5, 'somebody else', 'y');
RESET row_security;
RESET ROLE;
ALTER TABLE hostile.orders DISABLE ROW LEVEL SECURITY;
-- who may read hears it
SET ROLE regress_hostile_app;
UPDATE hostile.orders SET note = 'y' WHERE id = 3;
RESET ROLE;
-- refused instead of set aside
REVOKE SELECT ON hostile.orders FROM regress_hostile_app;
DELETE FROM hostile.orders WHERE id > 1;
SELECT rebate.attach('hostile.orders', member => 'customer', amount => 'total::numeric', currency => 'EUR', attributes => '{"note": "note"}', replace => true, on_error => 'abort');
INSERT INTO hostile.orders VALUES (6, 'carl', '10', 'x');
ALTER TABLE hostile.orders DISABLE TRIGGER USER;
UPDATE hostile.orders SET total = 'secret amount' WHERE id = 6;
ALTER TABLE hostile.orders ENABLE TRIGGER USER;
SET ROLE regress_hostile_app;
UPDATE hostile.orders SET note = 'z';
RESET ROLE;
UPDATE hostile.orders SET note = 'z';
UPDATE hostile.orders SET total = 10 WHERE id = 6;
SELECT rebate.attach('hostile.orders', member => 'customer', amount => 'total::numeric', currency => 'EUR', attributes => '{"note": "note"}', replace => true);
SELECT * FROM rebate.audit();

--
-- from where an order comes
--
CREATE FUNCTION hostile.definer(id int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = hostile
    AS $$BEGIN INSERT INTO hostile.orders VALUES (id, 'definer', '10'); RETURN id; END$$;
CREATE FUNCTION hostile.invoker(id int) RETURNS int LANGUAGE plpgsql
    AS $$BEGIN INSERT INTO hostile.orders VALUES (id, 'invoker', '10'); RETURN id; END$$;
CREATE FUNCTION hostile.fixed(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN RETURN hostile.invoker(id); END$$;
SET ROLE regress_hostile_reader;
SELECT hostile.definer(10);
SELECT hostile.invoker(11);
RESET ROLE;
SET ROLE regress_hostile_app;
SELECT hostile.definer(12), hostile.invoker(13);
-- a role that is given up before the commit, or taken; savepoints of both
BEGIN;
INSERT INTO hostile.orders VALUES (14, 'role', '10');
RESET ROLE;
SAVEPOINT s;
SET ROLE regress_hostile_app;
INSERT INTO hostile.orders VALUES (15, 'role', '10');
ROLLBACK TO s;
INSERT INTO hostile.orders VALUES (16, 'role', '10');
SET LOCAL ROLE regress_hostile_reader;
COMMIT;
BEGIN;
SET SESSION AUTHORIZATION regress_hostile_app;
INSERT INTO hostile.orders VALUES (17, 'session', '10');
SET CONSTRAINTS ALL DEFERRED;
COMMIT;
RESET SESSION AUTHORIZATION;
-- a restricted operation: a materialized view, an index expression
SET ROLE regress_hostile_app;
CREATE MATERIALIZED VIEW hostile.orders_made AS SELECT hostile.invoker(20) AS id;
CREATE TABLE hostile.mine (id int);
INSERT INTO hostile.mine VALUES (21);
CREATE INDEX ON hostile.mine (hostile.fixed(id));
RESET ROLE;
-- a trigger at commit, deferred, as another role than the one that commits
CREATE TABLE hostile.cart (id int);
CREATE FUNCTION hostile.checkout() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    AS $$BEGIN INSERT INTO hostile.orders VALUES (new.id, 'cart', '10'); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER checkout AFTER INSERT ON hostile.cart DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hostile.checkout();
GRANT INSERT ON hostile.cart TO regress_hostile_reader;
SET ROLE regress_hostile_reader;
BEGIN;
INSERT INTO hostile.cart VALUES (30);
SAVEPOINT s;
INSERT INTO hostile.cart VALUES (31);
ROLLBACK TO s;
INSERT INTO hostile.cart VALUES (32);
COMMIT;
RESET ROLE;
-- a trigger of the superuser on a view of the ledger
CREATE FUNCTION hostile.reorder() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN INSERT INTO hostile.orders VALUES (40, new.member, '10'); PERFORM rebate.balance(new.member); RETURN new; END$$;
CREATE TRIGGER reorder INSTEAD OF INSERT ON rebate.balances FOR EACH ROW EXECUTE FUNCTION hostile.reorder();
INSERT INTO rebate.balances (member) VALUES ('view');
DROP TRIGGER reorder ON rebate.balances;
-- a trigger on the order table that asks for the balance of the order it is about
CREATE FUNCTION hostile.ask() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    RAISE WARNING '% %', new.customer, (SELECT sum(available) FROM rebate.balance(new.customer));
    RETURN NULL;
END$$;
CREATE TRIGGER z_ask AFTER INSERT ON hostile.orders FOR EACH ROW EXECUTE FUNCTION hostile.ask();
SET ROLE regress_hostile_app;
\set VERBOSITY terse
INSERT INTO hostile.orders VALUES (50, 'asked', '10'), (51, 'asked', '20');
INSERT INTO hostile.orders VALUES (52, 'asked', '30');
RESET ROLE;
DROP TRIGGER z_ask ON hostile.orders;
-- temporary objects with the names of ours
SET ROLE regress_hostile_app;
CREATE TEMP TABLE account (x int);
CREATE TEMP TABLE accrual (x int);
CREATE TEMP TABLE failure (x int);
CREATE TEMP TABLE orders (x int);
CREATE TEMP TABLE pg_class (x int);
CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'called'; END$$;
CREATE FUNCTION pg_temp.unnest(text[]) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'called'; END$$;
CREATE DOMAIN pg_temp.int8 AS text CHECK (false);
SET search_path = pg_temp, hostile, pg_catalog;
INSERT INTO hostile.orders VALUES (60, 'temp', '10'), (61, 'temp', 'x');
RESET search_path;
RESET ROLE;
SET search_path = pg_temp, hostile, pg_catalog;
SELECT sum(available) FROM rebate.balance('temp');
SELECT count(*) FROM rebate.audit();
SELECT rebate.set_rule('eleven', percent => 11, valid_from => '2100-01-01');
RESET search_path;
-- no path at all
SET search_path = '';
CREATE TABLE hostile.more (id int PRIMARY KEY, customer text, total numeric, at timestamp);
SELECT rebate.attach('hostile.more', 'customer', 'total', 'EUR', order_time => 'at', attributes => '{"big": "total > 1000"}', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('big', percent => 1, condition => 'total >= 1000 AND customer LIKE ''p%''', scope => '{"big": "true"}', valid_from => '2020-01-01', source => 'hostile.more');
INSERT INTO hostile.more VALUES (1, 'path', 2000, '2026-01-01'), (2, 'path', NULL, '2026-01-01');
UPDATE hostile.more SET id = 3 WHERE id = 1;
SELECT available FROM rebate.balance('path');
SELECT topic, subject, outcome, amount FROM rebate.explain('hostile.more', 3) WHERE topic = 'rule';
SELECT rebate.order_key('hostile.more', 3);
SELECT count(*) FROM rebate.events('path');
SELECT count(*) FROM rebate.audit();
SELECT rebate.end_rule('big');
SELECT rebate.detach('hostile.more');
RESET search_path;
SELECT member, available FROM rebate.balances ORDER BY member COLLATE "C";
SELECT source, order_key, message FROM rebate.failures ORDER BY order_key::int;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
GRANT USAGE ON SCHEMA rebate TO PUBLIC;
DISCARD TEMP;
DROP SCHEMA hostile CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP ROLE regress_hostile_app, regress_hostile_reader;
