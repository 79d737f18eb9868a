--
-- What somebody with CREATE on the database, the owner of the store, and somebody
-- with GRANT ALL ON ALL try.  Nobody may run his code as somebody else, and what
-- is written past the engine is found.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE ROLE regress_hostile_mallory;
CREATE ROLE regress_hostile_owner;
CREATE ROLE regress_hostile_app;
DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_hostile_mallory', current_database()); END$$;

-- schemas that were there before
SET ROLE regress_hostile_mallory;
CREATE SCHEMA rebate;
RESET ROLE;
CREATE EXTENSION rebate;
DROP SCHEMA rebate;
CREATE EXTENSION rebate;

-- a store without our guards, as one that somebody planted: with triggers that run at commit
SET client_min_messages = error;
SELECT rebate.create_store('regress_hostile_mallory');
DROP EXTENSION rebate CASCADE;
CREATE EXTENSION rebate;
SET client_min_messages = warning;
SET ROLE regress_hostile_mallory;
CREATE FUNCTION rebate_data.evil() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN RAISE EXCEPTION 'called as %', current_user; END$$;
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'rebate_data'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('CREATE CONSTRAINT TRIGGER evil AFTER INSERT OR UPDATE OR DELETE ON rebate_data.%I DEFERRABLE
            INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rebate_data.evil()', t.relname);
    END LOOP;
END$$;
RESET ROLE;
CREATE TABLE public.orders (id int PRIMARY KEY, customer text, total numeric(12,2));
-- each function that a superuser may call, each in a transaction of its own
CREATE FUNCTION public.attempt(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE call;
    RETURN 'went through';
EXCEPTION WHEN OTHERS THEN
    RETURN CASE WHEN sqlerrm LIKE 'called as%' THEN sqlerrm ELSE 'refused' END;
END$$;
SELECT rebate.attach('public.orders', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('mine', percent => 5);
SELECT DISTINCT public.attempt(c) LIKE 'called as%' AS called
FROM unnest(ARRAY[
    $$SELECT rebate.channel('alice')$$, $$SELECT rebate.rotate_channels()$$, $$SELECT rebate.set_programme('Asia/Kathmandu')$$,
    $$SELECT rebate.add_currency('PTS', 0)$$, $$SELECT rebate.set_group('g')$$, $$SELECT rebate.end_rule('mine')$$,
    $$SELECT rebate.balance('alice')$$, $$SELECT rebate.audit()$$, $$SELECT rebate.events('alice')$$, $$SELECT rebate.feed()$$,
    $$SELECT rebate.flush()$$, $$SELECT rebate.explain('public.orders', 1)$$, $$SELECT rebate.detach('public.orders')$$]) AS c;
SELECT rebate.channel('alice');
SELECT rebate.rotate_channels();
-- nor is it dressed as ours: without EXECUTE on the guard's function there is no guard
SET ROLE regress_hostile_mallory;
CREATE TRIGGER rebate_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON rebate_data.store FOR EACH STATEMENT EXECUTE FUNCTION rebate.guard();
CREATE FUNCTION rebate_data.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
CREATE TRIGGER rebate_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON rebate_data.store FOR EACH STATEMENT EXECUTE FUNCTION rebate_data.guard();
RESET ROLE;
SELECT rebate.audit();
SELECT DISTINCT "check", status FROM rebate.doctor();
SELECT rebate.adopt_store();
-- (how many there are grows with the tables of the store)
DO $$
DECLARE
	lines text;
BEGIN
	PERFORM rebate.adopt_store('regress_hostile_mallory');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS lines = PG_EXCEPTION_DETAIL;
	RAISE WARNING '% %: %', sqlstate, sqlerrm, regexp_replace(lines, '^(trigger evil on rebate_data\.\S+\n){10}and \d+ more$', 'evil triggers');
END$$;
SET client_min_messages = error;
DROP SCHEMA rebate_data CASCADE;
SET client_min_messages = warning;

--
-- the owner of the store: his triggers, rules, policies and index expressions run
-- as he, whoever inserts the order
--
CREATE SCHEMA hostile;
GRANT USAGE, CREATE ON SCHEMA hostile TO PUBLIC;
DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_hostile_owner', current_database()); END$$;
SELECT rebate.create_store('regress_hostile_owner');
SELECT rebate.attach('public.orders', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('five', percent => 5);
SET ROLE regress_hostile_owner;
CREATE TABLE hostile.seen (who name, what text);
CREATE FUNCTION hostile.see() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN INSERT INTO hostile.seen VALUES (current_user, tg_table_name || ' ' || tg_op); RETURN NULL; END$$;
CREATE FUNCTION hostile.see(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN IF current_user <> 'regress_hostile_owner' THEN RAISE EXCEPTION 'called as %', current_user; END IF; RETURN $1; END$$;
CREATE TRIGGER evil AFTER INSERT OR UPDATE OR DELETE ON rebate_data.failure FOR EACH ROW EXECUTE FUNCTION hostile.see();
CREATE TRIGGER evil AFTER INSERT ON rebate_data.account FOR EACH ROW EXECUTE FUNCTION hostile.see();
RESET ROLE;
-- a trigger would not see what the engine writes: nothing is posted before it is gone
INSERT INTO public.orders VALUES (1, 'alice', 100);
SET ROLE regress_hostile_owner;
DROP TRIGGER evil ON rebate_data.account;
RESET ROLE;
INSERT INTO public.orders VALUES (1, 'alice', 100);
SELECT rebate.set_rule('later', percent => 5);
SET ROLE regress_hostile_owner;
ALTER TABLE rebate_data.failure DISABLE TRIGGER evil;
CREATE INDEX evil ON rebate_data.accrual (hostile.see(accrual_id));
CREATE INDEX evil_part ON rebate_data.account (opened_at) WHERE hostile.see(account_id) <> 0;
CREATE INDEX evil_failure ON rebate_data.failure (hostile.see(source_id::bigint));
RESET ROLE;
INSERT INTO public.orders VALUES (1, 'alice', 100);
INSERT INTO public.orders VALUES (2, 'bob', NULL), (3, 'carl', 10);
UPDATE public.orders SET total = 50 WHERE id = 2;
SELECT count(*) FROM hostile.seen;
SELECT member, available FROM rebate.balances ORDER BY member;
SET ROLE regress_hostile_owner;
DROP TRIGGER evil ON rebate_data.failure;
DROP INDEX rebate_data.evil, rebate_data.evil_part, rebate_data.evil_failure;
RESET ROLE;

--
-- GRANT ALL ON ALL, and whoever types it
--
GRANT USAGE ON SCHEMA rebate_data TO regress_hostile_app;
GRANT ALL ON ALL TABLES IN SCHEMA rebate, rebate_data TO regress_hostile_app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA rebate_data TO regress_hostile_app;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA rebate TO regress_hostile_app;
SET ROLE regress_hostile_app;
CREATE FUNCTION hostile.sqlstate_of(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE call;
    RETURN 'went through';
EXCEPTION WHEN OTHERS THEN
    RETURN sqlstate;
END$$;
-- every table, each verb, by every role
CREATE VIEW hostile.tables AS SELECT c.oid::regclass::text AS name,
    (SELECT quote_ident(attname) FROM pg_attribute a WHERE attrelid = c.oid AND attnum = 1) AS col
FROM pg_class c WHERE relnamespace = 'rebate_data'::regnamespace AND relkind IN ('r', 'p');
GRANT SELECT ON hostile.tables TO PUBLIC;
CREATE FUNCTION hostile.verbs() RETURNS TABLE (verb text, sqlstate text, everywhere boolean) LANGUAGE sql AS $$
    SELECT v.verb, hostile.sqlstate_of(format(v.call, t.name, t.col)), count(*) = (SELECT count(*) FROM hostile.tables)
    FROM hostile.tables t, (VALUES
        ('INSERT', 'INSERT INTO %1$s SELECT * FROM %1$s'), ('INSERT DEFAULT', 'INSERT INTO %1$s DEFAULT VALUES'),
        ('UPDATE', 'UPDATE %1$s SET %2$s = %2$s'), ('DELETE', 'DELETE FROM %1$s'), ('TRUNCATE', 'TRUNCATE %1$s'),
        ('CTE', 'WITH d AS (DELETE FROM %1$s RETURNING 1) SELECT count(*) FROM d'),
        ('MERGE', 'MERGE INTO %1$s USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE'),
        ('ON CONFLICT', 'INSERT INTO %1$s SELECT * FROM %1$s ON CONFLICT DO NOTHING')) AS v (verb, call)
    GROUP BY 1, 2 ORDER BY 1, 2 $$;
SELECT * FROM hostile.verbs();
RESET ROLE;
SELECT * FROM hostile.verbs() WHERE sqlstate <> 'RB009';
SET ROLE regress_hostile_owner;
SELECT * FROM hostile.verbs() WHERE sqlstate <> 'RB009';
SET ROLE regress_hostile_app;
COPY rebate_data.currency FROM stdin;
XXX	2	0.01	f
\.
-- the functions check their caller by themselves
CREATE TABLE hostile.calls (name text, call text);
INSERT INTO hostile.calls SELECT substring(c from 'rebate\.(\w+)'), c FROM unnest(ARRAY[
    $$SELECT rebate.attach('public.orders', 'customer', 'total', 'EUR', replace => true)$$, $$SELECT rebate.detach('public.orders')$$,
    $$SELECT rebate.set_programme('Asia/Kathmandu')$$, $$SELECT rebate.add_currency('PTS', 0)$$, $$SELECT rebate.set_rule('mine', percent => 5)$$,
    $$SELECT rebate.end_rule('five')$$, $$SELECT rebate.set_group('g')$$, $$SELECT * FROM rebate.balance('alice')$$,
    $$SELECT rebate.order_key('public.orders', 1)$$, $$SELECT * FROM rebate.explain('public.orders', 1)$$, $$SELECT * FROM rebate.audit()$$,
    $$SELECT * FROM rebate.events('alice')$$, $$SELECT rebate.events_cursor('alice')$$, $$SELECT * FROM rebate.feed()$$,
    $$SELECT rebate.feed_cursor()$$, $$SELECT rebate.channel('alice')$$, $$SELECT rebate.rotate_channels()$$]) AS c;
SELECT name, hostile.sqlstate_of(call) FROM hostile.calls WHERE hostile.sqlstate_of(call) <> '42501';
-- forged triggers, with the right to make them: the table is not attached
CREATE TABLE hostile.mine (id int PRIMARY KEY, customer text, total numeric(12,2));
CREATE TRIGGER rebate_insert AFTER INSERT ON hostile.mine REFERENCING NEW TABLE AS rebate_new
    FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect();
CREATE TRIGGER other_name AFTER UPDATE ON hostile.mine REFERENCING OLD TABLE AS o NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect('public.orders', 'orders');
CREATE TRIGGER rebate_truncate BEFORE TRUNCATE ON hostile.mine
    FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect_truncate();
CREATE TRIGGER row_wise AFTER INSERT ON hostile.mine FOR EACH ROW EXECUTE FUNCTION rebate.collect_row();
INSERT INTO hostile.mine VALUES (1, 'mallory', 1000000);
UPDATE hostile.mine SET total = 2000000;
TRUNCATE hostile.mine;
CREATE TABLE hostile.parted (id int, customer text, total numeric(12,2)) PARTITION BY LIST (id);
CREATE TABLE hostile.part PARTITION OF hostile.parted FOR VALUES IN (1);
CREATE TRIGGER forged AFTER INSERT ON hostile.part REFERENCING NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect();
INSERT INTO hostile.part VALUES (1, 'mallory', 1000000);
CREATE TEMP TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2));
CREATE TRIGGER forged AFTER INSERT ON pg_temp.orders REFERENCING NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect();
INSERT INTO pg_temp.orders VALUES (1, 'mallory', 1000000);
CREATE VIEW hostile.seen_orders AS SELECT 1 AS id;
CREATE TRIGGER forged INSTEAD OF INSERT ON hostile.seen_orders FOR EACH ROW EXECUTE FUNCTION rebate.collect();
INSERT INTO hostile.seen_orders VALUES (1);
-- a child of the order table is another table
RESET ROLE;
SELECT member FROM rebate.balances WHERE member = 'mallory';
-- twice on the order table itself, at other times and for other events: an order is an order
CREATE TRIGGER again AFTER INSERT ON public.orders REFERENCING NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect();
CREATE TRIGGER a_first AFTER INSERT ON public.orders REFERENCING NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect('again');
CREATE TRIGGER b_row AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION rebate.collect_row();
CREATE TRIGGER cut BEFORE TRUNCATE ON public.orders FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect_truncate();
INSERT INTO public.orders VALUES (10, 'dora', 100);
DROP TRIGGER again ON public.orders;
DROP TRIGGER a_first ON public.orders;
DROP TRIGGER b_row ON public.orders;
DROP TRIGGER cut ON public.orders;
SELECT member, available, last_entry FROM rebate.balances WHERE member = 'dora';
SELECT part, violation, subject FROM rebate.audit();

--
-- past the guards: who disables them is found
--
BEGIN;
ALTER TABLE rebate_data.account DISABLE TRIGGER rebate_guard;
UPDATE rebate_data.account SET available = available + 100000 WHERE member = 'dora';
ALTER TABLE rebate_data.account ENABLE TRIGGER rebate_guard;
SELECT part, violation FROM rebate.audit();
ROLLBACK;
BEGIN;
ALTER TABLE rebate_data.account DISABLE TRIGGER ALL;
SELECT part, violation, subject FROM rebate.audit();
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO public.orders VALUES (11, 'dora', 100);
DELETE FROM public.orders WHERE id = 10;
SET LOCAL session_replication_role = origin;
SELECT part, violation, subject FROM rebate.audit() ORDER BY 3;
ROLLBACK;
BEGIN;
ALTER TABLE public.orders DISABLE TRIGGER rebate_insert;
SELECT part, violation, subject FROM rebate.audit();
ROLLBACK;
SELECT part, violation, subject FROM rebate.audit();

SET client_min_messages = warning;
DROP TABLE public.orders, pg_temp.orders;
DROP FUNCTION public.attempt;
DROP SCHEMA hostile CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA IF EXISTS rebate, rebate_data CASCADE;
DO $$BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM regress_hostile_mallory, regress_hostile_owner', current_database()); END$$;
DROP ROLE regress_hostile_app, regress_hostile_owner, regress_hostile_mallory;
