-- The worker is a superuser's process in somebody's database: whoever owns that can give it settings, and the store's owner what
-- it reads. It goes on telling, and calls nothing of theirs.
-- server: shared_preload_libraries = 'rebate'
CREATE EXTENSION pgtap;
SET client_min_messages = warning;
SELECT no_plan();
CREATE EXTENSION rebate;
CREATE ROLE rebate_test_nobody;
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2));
SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('five', percent => 5);
SELECT rebate.channel('alice');

-- orders, one a transaction, until "condition" holds
CREATE SEQUENCE order_id;
CREATE PROCEDURE order_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
    done boolean;
BEGIN
    FOR i IN 1 .. 1200 LOOP
        INSERT INTO orders VALUES (nextval('order_id'), 'alice', 100);
        COMMIT;
        PERFORM pg_sleep(0.05);
        EXECUTE 'SELECT ' || condition || ' FROM rebate.delivery_status' INTO done;
        EXIT WHEN done;
    END LOOP;
END$$;
CREATE FUNCTION wait_until(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    done boolean;
BEGIN
    FOR i IN 1 .. 1200 LOOP
        EXECUTE 'SELECT ' || condition || ' FROM rebate.delivery_status' INTO done;
        EXIT WHEN done;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RETURN done;
END$$;
CALL order_until('worker_pid IS NOT NULL');
SELECT ok(wait_until('published >= (SELECT count(*) FROM orders)'), 'the worker tells of each order');
SELECT worker_pid AS first_worker FROM rebate.delivery_status \gset

-- what would be called by name: each function that the server's own SQL may mean, in a schema that comes first
DO $$
DECLARE
    f record;
BEGIN
    FOR f IN SELECT proname, pg_get_function_identity_arguments(oid) AS args FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
        AND proname IN ('now', 'int8eq', 'texteq', 'format', 'coalesce', 'to_json', 'pg_notify', 'unnest', 'count', 'current_setting') AND prokind = 'f' AND provariadic = 0 AND proargmodes IS NULL
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS text LANGUAGE plpgsql AS $f$BEGIN RAISE EXCEPTION ''called as %%'', current_user; END$f$', f.proname, f.args);
    END LOOP;
END$$;
CREATE FUNCTION hostile.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'called as %', current_user; END$$;
CREATE OPERATOR hostile.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.equal);
CREATE FUNCTION hostile.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'called as %', current_user; END$$;
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equal);
CREATE TABLE hostile.account (x int);

-- settings of the database, all of which its owner may make
CREATE FUNCTION set_for_database(name text, value text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET %I = %s', current_database(), name, CASE WHEN name = 'search_path' THEN value ELSE quote_literal(value) END);
END$$;
SELECT set_for_database(s[1], s[2]) FROM (SELECT ARRAY[a, b] AS s FROM (VALUES
    ('search_path', 'hostile, pg_temp, pg_catalog'), ('standard_conforming_strings', 'off'), ('quote_all_identifiers', 'on'),
    ('transform_null_equals', 'on'), ('array_nulls', 'off'), ('DateStyle', 'German, DMY'), ('IntervalStyle', 'iso_8601'),
    ('TimeZone', 'Asia/Kathmandu'), ('extra_float_digits', '-15'), ('bytea_output', 'escape'), ('row_security', 'off'),
    ('default_transaction_isolation', 'serializable'), ('default_transaction_read_only', 'on'), ('default_transaction_deferrable', 'on'),
    ('statement_timeout', '1ms'), ('idle_in_transaction_session_timeout', '1ms'), ('enable_indexscan', 'off'), ('enable_indexonlyscan', 'off'),
    ('enable_bitmapscan', 'off'), ('work_mem', '64kB'), ('cursor_tuple_fraction', '0'), ('plan_cache_mode', 'force_generic_plan'),
    ('client_min_messages', 'debug5'), ('role', 'rebate_test_nobody')) v (a, b)) s;
SELECT pg_terminate_backend(:first_worker);
SELECT format('CALL order_until(%L)', 'worker_pid <> ' || :first_worker) \gexec
SELECT ok(wait_until('worker_pid <> ' || :first_worker), 'another worker, with hostile settings');
SELECT last_entry AS told FROM rebate.balance('alice') \gset
INSERT INTO orders SELECT nextval('order_id'), 'alice', 100 FROM generate_series(1, 20);
SELECT ok(wait_until('published >= (SELECT count(*) FROM orders)'), 'tells of each order');
SELECT is((SELECT last_error FROM rebate.delivery_status), NULL, 'without an error');

-- a store that outlived the extension is left alone: the worker goes, and comes back when it is adopted
DROP EXTENSION rebate CASCADE;
CREATE EXTENSION rebate;
SELECT ok(wait_until('worker_pid IS NULL'), 'the worker leaves a store that is not ours');
SELECT lives_ok('SELECT rebate.adopt_store()', 'adopted');
CALL order_until('worker_pid IS NOT NULL');
SELECT ok(wait_until('worker_pid IS NOT NULL'), 'it comes back');
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');
DO $$BEGIN EXECUTE format('ALTER DATABASE %I RESET ALL', current_database()); END$$;
SELECT * FROM finish();
