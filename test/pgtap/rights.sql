-- Who may do what, of all functions, views, tables and sequences that there are: found in the catalog, so that what is
-- added later is covered too.
CREATE EXTENSION pgtap;
SET client_min_messages = warning;
SELECT no_plan();
CREATE ROLE rebate_test_owner;
CREATE ROLE rebate_test_member LOGIN;
CREATE ROLE rebate_test_stranger LOGIN;
GRANT rebate_test_owner TO rebate_test_member;
GRANT CREATE ON DATABASE rebate_test TO rebate_test_owner;
-- what a superuser may have set for all that he makes
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO rebate_test_stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO rebate_test_stranger;
CREATE EXTENSION rebate;
SELECT rebate.create_store('rebate_test_owner');
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM rebate_test_stranger;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM rebate_test_stranger;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2));
SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('five', percent => 5);
INSERT INTO orders VALUES (1, 'alice', 100);

CREATE VIEW all_functions AS SELECT p.oid, p.oid::regprocedure::text AS name, p.proname, p.prokind, p.prosecdef, p.proconfig, p.prolang, p.proacl, p.proowner,
    p.proleakproof, p.provolatile FROM pg_proc p WHERE pronamespace IN ('rebate'::regnamespace, 'rebate_data'::regnamespace);
CREATE VIEW all_relations AS SELECT c.oid, c.oid::regclass::text AS name, c.relkind, c.relowner, c.relacl, c.relnamespace, c.relname FROM pg_class c
    WHERE relnamespace IN ('rebate'::regnamespace, 'rebate_data'::regnamespace) AND relkind NOT IN ('i', 't', 'I', 'c');
CREATE VIEW our_members AS SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
    AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'rebate');
SELECT cmp_ok((SELECT count(*) FROM all_functions), '>', 25::bigint, 'functions are found');
SELECT cmp_ok((SELECT count(*) FROM all_relations), '>', 28::bigint, 'tables, views and sequences are found');

-- what there may be at all
SELECT is_empty($$ SELECT name FROM all_functions WHERE oid NOT IN (SELECT objid FROM our_members) $$, 'every function is of the extension');
SELECT is_empty($$ SELECT name, relkind FROM all_relations WHERE relkind NOT IN ('r', 'v', 'S') $$, 'tables, views, sequences, nothing else');
SELECT is_empty($$ SELECT name FROM all_functions WHERE prosecdef OR proleakproof $$, 'no function is SECURITY DEFINER or leakproof');
SELECT is_empty($$ SELECT name FROM all_functions WHERE proowner <> (SELECT extowner FROM pg_extension WHERE extname = 'rebate') $$,
    'functions belong to who made the extension');
SELECT is_empty($$ SELECT name FROM all_relations WHERE relowner <> 'rebate_test_owner'::regrole AND oid NOT IN (SELECT objid FROM our_members) $$,
    'the store belongs to its owner');
SELECT is_empty($$ SELECT typname FROM pg_type WHERE typnamespace = 'rebate'::regnamespace AND typtype NOT IN ('c', 'b') $$, 'no types');
SELECT is_empty($$ SELECT oprname FROM pg_operator WHERE oprnamespace = 'rebate'::regnamespace $$, 'no operators');
SELECT is_empty($$ SELECT castsource::regtype FROM pg_cast WHERE castfunc IN (SELECT oid FROM all_functions) $$, 'no casts');
SELECT is_empty($$ SELECT evtname FROM pg_event_trigger WHERE evtfoid IN (SELECT oid FROM all_functions) AND evtname NOT LIKE 'rebate\_%' $$,
    'event triggers have our prefix');

-- rights on functions: explicit, and of the extension's owner and the store's only
SELECT is_empty($$ SELECT name FROM all_functions WHERE proacl IS NULL $$, 'every function has an explicit list of rights');
SELECT is_empty($$ SELECT name, a.grantee::regrole FROM all_functions f, aclexplode(f.proacl) a
    WHERE a.grantee NOT IN (f.proowner, 'rebate_test_owner'::regrole)
    AND NOT (a.grantee = 'pg_monitor'::regrole AND f.proname LIKE 'get\_stat\_%') $$, 'none is granted to others, but for monitoring');
SELECT is_empty($$ SELECT name FROM all_functions WHERE has_function_privilege('rebate_test_stranger', oid, 'EXECUTE') $$, 'a stranger may execute nothing');
SELECT is_empty($$ SELECT name FROM all_functions WHERE NOT has_function_privilege('rebate_test_member', oid, 'EXECUTE') AND proname NOT LIKE 'store\_%' $$,
    'a member of the owner''s role may execute all but the texts of the DDL');
SELECT is_empty($$ SELECT name FROM all_functions f, aclexplode(f.proacl) a WHERE a.is_grantable AND a.grantee <> f.proowner $$, 'and hand none of them on');

-- rights on tables, views, sequences
SELECT is_empty($$ SELECT name, a.grantee::regrole, a.privilege_type FROM all_relations r, aclexplode(r.relacl) a
    WHERE a.grantee NOT IN (r.relowner, 'rebate_test_owner'::regrole)
    AND NOT (a.grantee = 'pg_monitor'::regrole AND r.relname LIKE 'stat\_%' AND r.relkind = 'v' AND a.privilege_type = 'SELECT') $$,
    'no right on a table, view or sequence is granted to others, but for monitoring');
SELECT is_empty($$ SELECT name, attname FROM all_relations r JOIN pg_attribute a ON a.attrelid = r.oid WHERE attacl IS NOT NULL $$, 'nor on a column');
SELECT is_empty($$ SELECT name, v FROM all_relations, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS v
    WHERE relkind <> 'S' AND has_table_privilege('rebate_test_stranger', oid, v) $$, 'a stranger has none');
SELECT is_empty($$ SELECT name, v FROM all_relations, unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS v
    WHERE relkind = 'S' AND has_sequence_privilege('rebate_test_stranger', oid, v) $$, 'nor of sequences');
SELECT is_empty($$ SELECT name FROM all_relations WHERE oid IN (SELECT objid FROM our_members) AND relkind = 'r'
    AND has_table_privilege('rebate_test_member', oid, 'SELECT') $$, 'the key of channels is not the owner''s to read');
SELECT ok(NOT has_schema_privilege('rebate_test_stranger', 'rebate_data', 'USAGE'), 'nor may he name a table of the store');
SELECT ok(NOT has_schema_privilege('rebate_test_stranger', 'rebate', 'CREATE'), 'nor put anything into schema rebate');
SELECT ok(NOT has_schema_privilege('rebate_test_member', 'rebate', 'CREATE'), 'which the store''s owner may not either');

-- views read as their owner, who owns the tables; none lets a function of the reader see rows before its own filter
SELECT is_empty($$ SELECT name FROM all_relations JOIN pg_class c USING (oid) WHERE c.relkind = 'v' AND 'security_invoker=true' = ANY (c.reloptions) $$,
    'a grant on a view is enough');
SELECT is_empty($$ SELECT v.name, u.name FROM all_relations v JOIN pg_rewrite w ON w.ev_class = v.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
    JOIN all_functions u ON u.oid = d.refobjid WHERE v.relnamespace = 'rebate_data'::regnamespace OR v.oid NOT IN (SELECT objid FROM our_members) $$,
    'views of the store call no function of the extension, which may be dropped');

-- a grant on a view is a grant on all that it shows; one that shows each reader his own must not let functions of his look at other rows
CREATE VIEW asks_who AS SELECT v.oid, v.name FROM all_relations v WHERE relkind = 'v'
    AND (pg_get_viewdef(v.oid) ~* '(current_user|session_user|current_role|current_setting)' OR EXISTS (
        SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
        JOIN our_members m ON m.classid = 'pg_proc'::regclass AND m.objid = d.refobjid WHERE w.ev_class = v.oid));
SELECT is_empty($$ SELECT name FROM asks_who JOIN pg_class c USING (oid) WHERE name <> 'rebate.delivery_status'
    AND NOT 'security_barrier=true' = ANY (COALESCE(c.reloptions, '{}')) $$, 'a view that depends on who asks is a security barrier');
CREATE ROLE rebate_test_reader;
GRANT SELECT ON rebate.balances TO rebate_test_reader;
SET ROLE rebate_test_reader;
SELECT lives_ok('SELECT * FROM rebate.balances', 'a grant on a view');
SELECT throws_ok('SELECT * FROM rebate_data.account', '42501', NULL, 'is none on its tables');
SELECT throws_ok('SELECT * FROM rebate.entries', '42501', NULL, 'nor on other views');
SELECT throws_ok('SELECT * FROM rebate.balance(''alice'')', '42501', NULL, 'nor on functions');
SELECT throws_ok('SELECT member FROM rebate.balances FOR UPDATE', '42501', NULL, 'and locks nothing');
RESET ROLE;
REVOKE ALL ON rebate.balances FROM rebate_test_reader;

-- monitoring sees counts and ages, and nothing else
CREATE ROLE rebate_test_monitor LOGIN IN ROLE pg_monitor;
SET ROLE rebate_test_monitor;
SELECT lives_ok('SELECT * FROM rebate.' || v, 'a member of pg_monitor reads ' || v) FROM unnest(ARRAY['stat_engine', 'stat_delivery', 'stat_jobs', 'stat_backlog', 'stat_tables']) AS v;
SELECT results_eq('SELECT count(*) FROM rebate.stat_jobs', 'VALUES (8::bigint)', 'of the store, too');
SELECT bag_eq('SELECT kind, source, waiting FROM rebate.stat_backlog',
    $$VALUES ('mature', NULL, 0::bigint), ('age', NULL, 0), ('failure', 'public.orders', 0), ('deferred', 'public.orders', 0),
    ('draft', NULL, 0), ('erasure', NULL, 0)$$, 'what waits');
SELECT throws_ok(c, '42501', NULL, 'he may not: ' || c) FROM unnest(ARRAY['SELECT rebate.stat_reset()', 'SELECT * FROM rebate.balances',
    'SELECT * FROM rebate.delivery_status', 'SELECT * FROM rebate.failures', 'SELECT * FROM rebate.jobs', 'SELECT rebate.doctor()',
    'SELECT * FROM rebate_data.job']) AS c;
RESET ROLE;
SET ROLE rebate_test_member;
SELECT lives_ok('SELECT * FROM rebate.' || v, 'a member of the owner''s role reads ' || v) FROM unnest(ARRAY['stat_engine', 'stat_delivery', 'stat_jobs', 'stat_backlog', 'stat_tables']) AS v;
SELECT lives_ok('SELECT rebate.stat_reset()', 'and resets');
RESET ROLE;

-- guards
SELECT is_empty($$ SELECT name FROM all_relations r WHERE relnamespace = 'rebate_data'::regnamespace AND relkind = 'r'
    AND (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = r.oid AND t.tgfoid = 'rebate.guard'::regproc
         AND t.tgtype = 2 | 4 | 8 | 16 | 32 AND t.tgenabled = 'O' AND t.tgqual IS NULL AND t.tgattr = '') <> 1 $$,
    'each table is guarded against INSERT, UPDATE, DELETE and TRUNCATE');
SELECT is_empty($$ SELECT t.tgname, t.tgrelid::regclass FROM pg_trigger t JOIN all_relations r ON r.oid = t.tgrelid
    WHERE tgfoid <> 'rebate.guard'::regproc AND NOT tgisinternal $$, 'and has no other trigger');
SELECT is_empty($$ SELECT tablename, rulename FROM pg_rules WHERE schemaname IN ('rebate', 'rebate_data') $$, 'no rules');
SELECT is_empty($$ SELECT tablename, policyname FROM pg_policies WHERE schemaname IN ('rebate', 'rebate_data') $$, 'no policies');
SELECT is_empty($$ SELECT conrelid::regclass, conname FROM pg_constraint WHERE connamespace = 'rebate_data'::regnamespace AND contype IN ('f', 'x')
    OR connamespace = 'rebate_data'::regnamespace AND condeferrable $$, 'no foreign keys, nothing deferrable');

-- every function says who may call it, whoever has been granted what: for a stranger with all rights on functions
GRANT ALL ON ALL FUNCTIONS IN SCHEMA rebate TO rebate_test_stranger;
CREATE TABLE calls (name text, call text);
INSERT INTO calls SELECT substring(c FROM 'rebate\.(\w+)'), c FROM unnest(ARRAY[
    $$SELECT rebate.attach('orders', 'customer', 'total', 'EUR', replace => true)$$, $$SELECT rebate.detach('orders')$$,
    $$SELECT rebate.set_programme('Asia/Kathmandu')$$, $$SELECT rebate.add_currency('PTS', 0)$$,
    $$SELECT rebate.set_rule('mine', percent => 5)$$, $$SELECT rebate.end_rule('five')$$, $$SELECT rebate.set_group('g')$$,
    $$SELECT * FROM rebate.balance('alice')$$, $$SELECT rebate.order_key('orders', 1)$$, $$SELECT * FROM rebate.explain('orders', 1)$$,
    $$SELECT * FROM rebate.audit()$$, $$SELECT * FROM rebate.events('alice')$$, $$SELECT rebate.events_cursor('alice')$$,
    $$SELECT * FROM rebate.feed()$$, $$SELECT rebate.feed_cursor()$$, $$SELECT * FROM rebate.feed_snapshot()$$, $$SELECT rebate.channel('alice')$$,
    $$SELECT rebate.rotate_channels()$$, $$SELECT rebate.create_store('rebate_test_stranger')$$]) AS c;
GRANT SELECT ON calls TO PUBLIC;
-- those that are no secret: they post what is collected anyway, tell whether a worker runs or what the documentation tells, or are for triggers
CREATE TABLE harmless (name text);
INSERT INTO harmless VALUES ('flush'), ('get_delivery_status'), ('right_objects'), ('personal_data');
INSERT INTO harmless SELECT proname FROM pg_proc WHERE pronamespace = 'rebate'::regnamespace AND prorettype IN ('trigger'::regtype, 'event_trigger'::regtype);
-- functions that are not in the list are called with a value for each argument that has no default: rights come first
INSERT INTO calls SELECT p.proname, format('SELECT rebate.%I(%s)', p.proname, (
        SELECT string_agg(CASE t WHEN 'regclass'::regtype THEN '''orders''::regclass' WHEN '"any"'::regtype THEN '1' WHEN 'jsonb'::regtype THEN '''{}''::jsonb'
            WHEN 'interval'::regtype THEN '''1 day''::interval' WHEN 'timestamptz'::regtype THEN 'now()' WHEN 'boolean'::regtype THEN 'true'
            WHEN 'text'::regtype THEN '''alice''' WHEN 'name'::regtype THEN '''alice''' WHEN 'text[]'::regtype THEN '''{1}''::text[]'
            WHEN 'regprocedure'::regtype THEN '''pg_catalog.now()''::regprocedure' ELSE '1::' || t::regtype END, ', ' ORDER BY n)
        FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, n) WHERE n <= p.pronargs - p.pronargdefaults))
FROM pg_proc p WHERE p.oid IN (SELECT oid FROM all_functions WHERE proname NOT LIKE 'store\_%' AND prokind = 'f')
    AND proname NOT IN (SELECT name FROM calls UNION ALL SELECT name FROM harmless);
SET ROLE rebate_test_stranger;
SELECT throws_ok(call, '42501', NULL, 'with EXECUTE granted by mistake, still not: ' || name)
FROM calls WHERE name <> 'create_store' ORDER BY name;
SELECT throws_ok(call, NULL, NULL, 'with EXECUTE granted by mistake, still not: ' || name) FROM calls WHERE name = 'create_store';
RESET ROLE;

-- what a member of the store owner's role, who is no superuser, cannot do with the owner's rights
SET ROLE rebate_test_member;
SELECT lives_ok('SELECT * FROM rebate.audit()', 'a member of the owner''s role audits');
SELECT throws_ok($$ SELECT rebate.attach('orders', 'customer', 'total * 2', 'EUR', replace => true) $$, '42501', NULL, 'a table of others stays theirs');
SELECT throws_ok($$ SELECT rebate.detach('orders') $$, '42501', NULL, 'also for detaching');
SELECT throws_ok($$ SELECT * FROM rebate.channel_key $$, '42501', NULL, 'the key of channels is nobody''s');
SELECT throws_ok($$ SELECT rebate.set_rule('peek', percent => 1, condition => 'total > 10', source => 'orders') $$, '42501', NULL,
    'a rule reads no column that its author may not');
RESET ROLE;
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');

-- no argument takes the server down: NULL, empty, long, strange
CREATE FUNCTION try_all(value text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    call text;
    n bigint := 0;
BEGIN
    FOR call IN SELECT format('SELECT rebate.%I(%s)', p.proname, (
            SELECT string_agg(CASE WHEN t IN ('text'::regtype, 'name'::regtype, '"any"'::regtype) THEN quote_nullable(value) || '::text'
                ELSE 'NULL::' || t::regtype END, ', ' ORDER BY o)
            FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, o)))
        FROM pg_proc p WHERE p.pronamespace = 'rebate'::regnamespace AND prokind = 'f' ORDER BY p.proname
    LOOP
        BEGIN
            EXECUTE call;
            n := n + 1;
        EXCEPTION WHEN OTHERS THEN
            IF sqlstate NOT LIKE 'XX%' THEN
                n := n + 1;
            ELSE
                RAISE WARNING '% in %: %', sqlstate, left(call, 200), left(sqlerrm, 200);
            END IF;
        END;
    END LOOP;
    RETURN n;
END$$;
SELECT is(try_all(v), (SELECT count(*) FROM pg_proc p WHERE p.pronamespace = 'rebate'::regnamespace AND prokind = 'f'),
    'functions take odd arguments: ' || COALESCE(left(v, 20), 'null'))
FROM unnest(ARRAY[NULL, '', 'orders', repeat('x', 100000), E'\x01\'"\\%s%n', '-1', '{"a": 1}', '2026-01-01']) AS v;
SELECT * FROM finish();
