--
-- What somebody who may only write orders, or who owns the order table, tries.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
CREATE ROLE regress_hostile_app;
CREATE ROLE regress_hostile_owner;
CREATE SCHEMA hostile;
CREATE SCHEMA hostile_app AUTHORIZATION regress_hostile_app;
GRANT USAGE, CREATE ON SCHEMA hostile TO regress_hostile_app, regress_hostile_owner;
CREATE TABLE hostile.orders (id bigint PRIMARY KEY, customer text, total numeric, ordered_at timestamptz DEFAULT now());
GRANT SELECT, INSERT, UPDATE, DELETE ON hostile.orders TO regress_hostile_app;
ALTER TABLE hostile.orders OWNER TO regress_hostile_owner;
SELECT rebate.attach('hostile.orders', member => 'customer', amount => 'total', currency => 'EUR',
    order_time => 'ordered_at');
SELECT rebate.set_rule('five', percent => 5);
RESET client_min_messages;

-- settings: placeholders do not work, settings of the library are the superuser's
SET ROLE regress_hostile_app;
SET rebate.mode = off;
SET rebate.posting = statement;

-- no function, no view, no table, no sequence
SELECT * FROM rebate.balance('alice');
SELECT * FROM rebate.balances;
SELECT * FROM rebate_data.account;
SELECT nextval('rebate_data.id');
SELECT rebate.attach('hostile.orders', member => 'customer', amount => 'total', currency => 'EUR');
SELECT rebate.set_rule('mine', percent => 100);
SELECT * FROM rebate.audit();
SELECT rebate.collect();

-- forged triggers
CREATE TABLE hostile_app.mine (LIKE hostile.orders INCLUDING ALL);
CREATE TRIGGER forged AFTER INSERT ON hostile_app.mine REFERENCING NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect();

-- functions, operators, temporary tables and types in the way
CREATE FUNCTION hostile_app.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'called'; END$$;
CREATE FUNCTION hostile_app.unnest(bigint[], text[], text[]) RETURNS bigint LANGUAGE plpgsql
    AS $$BEGIN RAISE EXCEPTION 'called'; END$$;
CREATE FUNCTION hostile_app.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'called'; END$$;
CREATE OPERATOR hostile_app.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile_app.eq);
CREATE TEMP TABLE account (x integer);
CREATE DOMAIN pg_temp.numeric AS text;
SET search_path = hostile_app, pg_temp, pg_catalog;
INSERT INTO hostile.orders VALUES (1, 'alice', 100);
INSERT INTO hostile.orders VALUES (2, 'bob', NULL);
RESET search_path;
SET row_security = off;
INSERT INTO hostile.orders VALUES (3, 'alice', 100);
RESET row_security;

-- numbers and times that fit nowhere
INSERT INTO hostile.orders VALUES (10, 'alice', 'NaN'), (11, 'alice', 'Infinity'), (12, 'alice', '1e1000'),
    (13, 'alice', '1e-16383');
INSERT INTO hostile.orders VALUES (14, 'alice', 1, 'infinity'), (15, 'alice', 1, '-infinity'),
    (16, 'alice', 1, '4714-11-24 00:00+00 BC'), (17, 'alice', 1, '294276-12-31 23:59Z');
RESET ROLE;

-- the owner of the table: a type of his own with a cast of his own is not called
SET ROLE regress_hostile_owner;
CREATE TYPE hostile.evil AS (x integer);
CREATE FUNCTION hostile.as_number(hostile.evil) RETURNS numeric LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN RAISE EXCEPTION 'called as %', current_user; END$$;
CREATE CAST (hostile.evil AS numeric) WITH FUNCTION hostile.as_number AS IMPLICIT;
ALTER TABLE hostile.orders ADD kept numeric;
UPDATE hostile.orders SET kept = total;
ALTER TABLE hostile.orders ALTER total TYPE hostile.evil USING NULL;
INSERT INTO hostile.orders VALUES (20, 'alice', ROW(1));
RESET ROLE;
SELECT part, violation, detail FROM rebate.audit();
SET ROLE regress_hostile_owner;
DELETE FROM hostile.orders WHERE id = 20;
ALTER TABLE hostile.orders ALTER total TYPE numeric USING NULL;
UPDATE hostile.orders SET total = kept;
-- nor are policies, checks of domains and index expressions by the audit
CREATE FUNCTION hostile.spy(bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN IF current_user <> 'regress_hostile_owner' THEN RAISE EXCEPTION 'called as %', current_user; END IF; RETURN true; END$$;
CREATE DOMAIN hostile.spied AS bigint CHECK (hostile.spy(value));
ALTER TABLE hostile.orders ALTER id TYPE hostile.spied;
CREATE INDEX ON hostile.orders ((hostile.spy(id)));
ALTER TABLE hostile.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE hostile.orders FORCE ROW LEVEL SECURITY;
CREATE POLICY spy ON hostile.orders USING (hostile.spy(id));
BEGIN;
UPDATE hostile.orders SET total = 50 WHERE id = 1;
UPDATE hostile.orders SET total = 60 WHERE id = 1;
COMMIT;
RESET ROLE;
SELECT order_key, decision, earned FROM rebate.decisions ORDER BY order_key::numeric;
SELECT member, available FROM rebate.balances ORDER BY member;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP TABLE account;
DROP SCHEMA hostile, hostile_app CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP EXTENSION rebate CASCADE;
DROP DOMAIN IF EXISTS pg_temp.numeric;
DROP ROLE regress_hostile_app, regress_hostile_owner;
