--
-- Functions that a superuser lets expressions use: as they were then, and nobody
-- else's.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
CREATE ROLE regress_hostile_owner;
CREATE ROLE regress_hostile_app;
CREATE SCHEMA hostile;
GRANT USAGE, CREATE ON SCHEMA hostile TO regress_hostile_owner;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
CREATE TABLE hostile.orders (id int PRIMARY KEY, customer text, total numeric, sku text);
GRANT INSERT ON hostile.orders TO regress_hostile_app;
SELECT rebate.attach('hostile.orders', 'customer', 'total', 'EUR');
CREATE FUNCTION hostile.margin(sku text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN RETURN CASE WHEN sku LIKE 'A%' THEN 1 ELSE 2 END; END$$;
SELECT rebate.set_rule('margin', percent => 10, base => 'total * hostile.margin(sku)');

-- what cannot be allowed
SELECT rebate.allow_function('hostile.margin(text)');
CREATE FUNCTION hostile.changing(text) RETURNS numeric LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$BEGIN RETURN 1; END$$;
SELECT rebate.allow_function('hostile.changing(text)');
CREATE FUNCTION hostile.definer(text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog AS $$BEGIN RETURN 1; END$$;
SELECT rebate.allow_function('hostile.definer(text)');
CREATE FUNCTION hostile.many(text) RETURNS SETOF numeric LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$BEGIN RETURN; END$$;
SELECT rebate.allow_function('hostile.many(text)');
CREATE FUNCTION pg_temp.temporary(text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$BEGIN RETURN 1; END$$;
DO $$BEGIN PERFORM rebate.allow_function('pg_temp.temporary(text)'); EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', sqlstate; END$$;
SELECT rebate.allow_function(NULL);
-- who cannot allow it: the owner of the store and of the function
GRANT rebate_owner TO regress_hostile_owner;
SET ROLE regress_hostile_owner;
SELECT rebate.allow_function('hostile.margin(text)');
INSERT INTO rebate_data.allowed_function VALUES ('hostile.margin(text)', 1);
RESET ROLE;

-- allowed: it runs as the store's owner, in an operation that leaves nothing behind
ALTER FUNCTION hostile.margin(text) SET search_path = pg_catalog, pg_temp;
SELECT rebate.allow_function('hostile.margin(text)');
SELECT rebate.set_rule('margin', percent => 10, base => 'total * hostile.margin(sku)');
CREATE FUNCTION hostile.body(numeric) RETURNS numeric IMMUTABLE RETURN $1 * 2;
SELECT rebate.allow_function('hostile.body(numeric)');
SELECT rebate.set_rule('body', percent => 1, base => 'hostile.body(total)');
SET ROLE regress_hostile_app;
INSERT INTO hostile.orders VALUES (1, 'ann', 100, 'A1'), (2, 'ann', 100, 'B1');
RESET ROLE;
SELECT order_key, rule, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY 1, 2;

-- whoever can replace it cannot use that: the orders fail until it is allowed again
ALTER FUNCTION hostile.margin(text) OWNER TO regress_hostile_owner;
INSERT INTO hostile.orders VALUES (3, 'ann', 100, 'A1');
ALTER FUNCTION hostile.margin(text) OWNER TO CURRENT_USER;
INSERT INTO hostile.orders VALUES (4, 'ann', 100, 'A1');
CREATE FUNCTION pg_temp.check(id int) RETURNS TABLE (decision text, message text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO hostile.orders VALUES (%s, ''bob'', 100, ''A1'')', id);
    PERFORM rebate.flush();
    RETURN QUERY SELECT d.decision, f.message FROM rebate.decisions d LEFT JOIN rebate.failures f USING (source, order_key) WHERE order_key = id::text;
END$$;
SET client_min_messages = error;
BEGIN;
CREATE OR REPLACE FUNCTION hostile.margin(sku text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$BEGIN RAISE EXCEPTION 'called'; END$$;
SELECT * FROM pg_temp.check(10);
ROLLBACK;
SELECT * FROM pg_temp.check(11);
BEGIN;
ALTER FUNCTION hostile.margin(text) RESET search_path;
SELECT * FROM pg_temp.check(12);
ROLLBACK;
BEGIN;
ALTER FUNCTION hostile.margin(text) SET work_mem = '1MB';
SELECT * FROM pg_temp.check(13);
ROLLBACK;
BEGIN;
ALTER FUNCTION hostile.margin(text) STABLE;
SELECT * FROM pg_temp.check(14);
ROLLBACK;
BEGIN;
ALTER FUNCTION hostile.margin(text) SECURITY DEFINER;
SELECT * FROM pg_temp.check(15);
ROLLBACK;
BEGIN;
ALTER FUNCTION hostile.margin(text) RENAME TO margin_of;
CREATE FUNCTION hostile.margin(text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$BEGIN RAISE EXCEPTION 'called'; END$$;
SELECT * FROM pg_temp.check(16);
ROLLBACK;
BEGIN;
CREATE OR REPLACE FUNCTION hostile.body(numeric) RETURNS numeric IMMUTABLE RETURN $1 * 3;
SELECT * FROM pg_temp.check(17);
SELECT rebate.allow_function('hostile.body(numeric)');
SELECT * FROM pg_temp.check(18);
ROLLBACK;
BEGIN;
SELECT rebate.allow_function('hostile.margin(text)', false);
SELECT * FROM pg_temp.check(19);
ROLLBACK;
SET client_min_messages = warning;
SELECT * FROM rebate.audit();
SELECT member, available FROM rebate.balances ORDER BY 1;
SELECT function, fingerprint <> 0 AS ok, allowed_by = session_user AS who FROM rebate_data.allowed_function;

SET client_min_messages = warning;
DROP SCHEMA hostile CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP OWNED BY regress_hostile_owner;
DROP ROLE regress_hostile_app, regress_hostile_owner;
