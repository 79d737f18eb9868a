-- Every role and every function, table, view, sequence and verb that there is. What is expected comes from the one list,
-- rebate.right_objects(); what there is, from the catalog: so what is added later is found, and fails until it is in the list.
-- Then each function is called, and each relation read and written, as each role.
CREATE EXTENSION pgtap;
SET client_min_messages = error;
SELECT no_plan();
CREATE ROLE rebate_test_owner;
CREATE EXTENSION rebate;
SELECT rebate.create_store('rebate_test_owner');
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2));
SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('five', percent => 5);
INSERT INTO orders VALUES (1, 'alice', 100);

-- the roles, with what each may do besides what everybody may
CREATE TABLE who (role name PRIMARY KEY, rights text[]);
INSERT INTO who VALUES ('rebate_test_stranger', '{}'), ('rebate_test_app', '{}'), ('rebate_test_the_owner', '{owner}'),
    ('rebate_test_super', '{owner,superuser,nobody}');
INSERT INTO who SELECT 'rebate_test_' || r, ARRAY[r] FROM unnest('{admin,author,approver,auditor,operator,gateway,member}'::text[]) r;
-- rights of a group are those of its members
INSERT INTO who VALUES ('rebate_test_deputy', '{auditor,operator}');
SELECT format('CREATE ROLE %I LOGIN', role) FROM who \gexec
ALTER ROLE rebate_test_super SUPERUSER;
GRANT rebate_test_owner TO rebate_test_the_owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO rebate_test_app;
CREATE ROLE rebate_test_group IN ROLE rebate_test_auditor;
GRANT rebate_test_group TO rebate_test_deputy;
SELECT rebate.grant_right(r, role) FROM who, unnest(rights) r WHERE r NOT IN ('owner', 'superuser', 'nobody') AND role <> 'rebate_test_deputy';
SELECT rebate.grant_right('operator', 'rebate_test_deputy');

CREATE VIEW functions AS SELECT p.oid, p.oid::regprocedure::text AS called, p.proname::text AS name, p.prokind, p.prorettype IN ('trigger'::regtype,
        'event_trigger'::regtype) AS is_trigger, p.proargtypes FROM pg_proc p WHERE pronamespace IN ('rebate'::regnamespace, 'rebate_data'::regnamespace);
CREATE VIEW relations AS SELECT c.oid, c.oid::regclass::text AS called, c.relname::text AS name, c.relkind, c.relnamespace = 'rebate_data'::regnamespace AS in_store
    FROM pg_class c WHERE relnamespace IN ('rebate'::regnamespace, 'rebate_data'::regnamespace) AND relkind NOT IN ('i', 'I', 't', 'c');

-- the list has each of them once, and nothing else
SELECT set_eq($$ SELECT DISTINCT 'function', name FROM functions UNION ALL SELECT 'view', name FROM relations WHERE relkind = 'v' AND NOT in_store $$,
    $$ SELECT kind, name FROM rebate.right_objects() $$, 'rebate.right_objects() has every function and view (add a line to extension/sql/85-rights.sql)');
SELECT is_empty($$ SELECT kind, name FROM rebate.right_objects() GROUP BY 1, 2 HAVING count(*) > 1 $$, 'each in one line');
SELECT is_empty($$ SELECT name, r FROM rebate.right_objects(), unnest(rights) r
    WHERE r NOT IN ('admin', 'author', 'approver', 'auditor', 'operator', 'gateway', 'member', 'owner', 'superuser', 'nobody')
       OR r IN ('owner', 'superuser', 'nobody') AND cardinality(rights) > 1 $$, 'with rights that there are');
SELECT is_empty($$ SELECT called, relkind FROM relations WHERE relkind NOT IN ('r', 'v', 'S') $$, 'tables, views, sequences, nothing else');
SELECT cmp_ok((SELECT count(*) FROM functions), '>', 50::bigint, 'functions are found');
SELECT cmp_ok((SELECT count(*) FROM relations), '>', 40::bigint, 'relations are found');

-- what the list says: who may call it, and to whom it is granted
CREATE FUNCTION may(role_rights text[], object_rights text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS
    -- what takes two persons is nobody's by being the owner; a superuser has each right that somebody was given
    $$ SELECT role_rights && object_rights
           OR 'owner' = ANY (role_rights) AND NOT object_rights && '{superuser,nobody}'
           AND (object_rights <> '{approver}' OR 'superuser' = ANY (role_rights)) $$;
CREATE FUNCTION granted(role_rights text[], object_rights text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS
    $$ SELECT may(role_rights, object_rights) OR 'owner' = ANY (role_rights) AND NOT 'nobody' = ANY (object_rights) $$;

-- 1. by the catalog's lists of privileges
-- a function, since a view would go with the extension
CREATE FUNCTION wrong_privileges() RETURNS TABLE (role name, called text, verb text, expected boolean) LANGUAGE sql AS $$
    SELECT role, called, 'EXECUTE' AS verb, granted(w.rights, o.rights) AS expected
    FROM who w, functions f LEFT JOIN rebate.right_objects() o ON o.kind = 'function' AND o.name = f.name
    WHERE has_function_privilege(role, f.oid, 'EXECUTE') IS DISTINCT FROM granted(w.rights, o.rights)
    UNION ALL
    SELECT role, called, verb, NULL
    FROM who w, functions f, unnest(ARRAY['EXECUTE WITH GRANT OPTION']) verb
    WHERE has_function_privilege(role, f.oid, verb) AND NOT 'superuser' = ANY (w.rights)
    UNION ALL
    SELECT role, called, verb, CASE WHEN in_store THEN '{owner}' && w.rights ELSE may(w.rights, o.rights) END
    FROM who w, relations r LEFT JOIN rebate.right_objects() o ON o.kind = 'view' AND o.name = r.name AND NOT r.in_store,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER', 'SELECT WITH GRANT OPTION']) verb
    WHERE r.relkind <> 'S' AND has_table_privilege(role, r.oid, verb) IS DISTINCT FROM CASE
        WHEN '{superuser}' && w.rights THEN true
        -- members of the extension: the secrets of delivery, and a view that is not the owner's
        WHEN EXISTS (SELECT FROM pg_depend d WHERE d.objid = r.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
            THEN verb = 'SELECT' AND r.relkind = 'v' AND may(w.rights, o.rights)
        WHEN '{owner}' && w.rights THEN true
        WHEN in_store THEN false
        ELSE verb = 'SELECT' AND may(w.rights, o.rights) END
    UNION ALL
    SELECT role, called, verb, '{owner}' && w.rights
    FROM who w, relations r, unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) verb
    WHERE r.relkind = 'S' AND has_sequence_privilege(role, r.oid, verb) <> ('{owner}' && w.rights)
    UNION ALL
    SELECT role, called, verb || ' of a column', false
    FROM who w, relations r, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) verb
    WHERE r.relkind <> 'S' AND has_any_column_privilege(role, r.oid, verb) AND NOT has_table_privilege(role, r.oid, verb)
    UNION ALL
    SELECT role, n::text, verb, CASE WHEN '{superuser}' && w.rights THEN true WHEN n = 'rebate_data'::regnamespace THEN '{owner}' && w.rights
        ELSE verb = 'USAGE' END
    FROM who w, unnest(ARRAY['rebate', 'rebate_data']::regnamespace[]) n, unnest(ARRAY['USAGE', 'CREATE']) verb
    WHERE has_schema_privilege(role, n, verb) <> CASE WHEN '{superuser}' && w.rights THEN true WHEN n = 'rebate_data'::regnamespace THEN '{owner}' && w.rights
        ELSE verb = 'USAGE' END;
$$;
SELECT is_empty('SELECT * FROM wrong_privileges()', 'what is granted is what the list says');

-- 2. by doing it; all is undone
CREATE FUNCTION done(as_role name, command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text := 'went through';
BEGIN
    BEGIN
        EXECUTE format('SET LOCAL ROLE %I', as_role);
        EXECUTE command;
        RAISE EXCEPTION USING ERRCODE = 'UNDO0';
    EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
        NULL;
    WHEN OTHERS THEN
        result := sqlstate || ' ' || sqlerrm;
    END;
    RETURN result;
END$$;
-- NULL for each argument: who may not call a function hears so before it looks at them
CREATE VIEW calls AS SELECT f.*, format('%s rebate.%I(%s)', CASE prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, f.name, (
        SELECT string_agg('NULL::' || CASE t WHEN '"any"'::regtype THEN 'text' ELSE t::regtype::text END, ', ' ORDER BY n)
        FROM unnest(f.proargtypes) WITH ORDINALITY AS u (t, n))) AS call
    FROM functions f WHERE NOT is_trigger;
CREATE TABLE called AS SELECT w.role, c.name, c.call, may(w.rights, o.rights) AS expected, done(w.role, c.call) AS heard
    FROM who w, calls c JOIN rebate.right_objects() o ON o.kind = 'function' AND o.name = c.name ORDER BY c.name, w.role;
SELECT cmp_ok((SELECT count(*) FROM called), '>', 500::bigint, 'functions are called');
-- a superuser registers no jobs, since they would run as he
SELECT is_empty($$ SELECT role, call, expected, heard FROM called WHERE expected = (heard ~ '^42501') AND (role, name) <> ('rebate_test_super', 'schedule') $$,
    'who may call a function can, nobody else can');
SELECT is_empty($$ SELECT role, call, heard FROM called WHERE heard ~ '^(XX|22P|42[^5]|58)' $$, 'and no call does harm');

-- 3. the library agrees, whoever was granted EXECUTE by mistake; without harm are the texts of the DDL, what posts the caller's own
-- orders anyway, what says whether a worker runs or what the documentation says, and the name of the owner of the store
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA rebate TO PUBLIC;
CREATE TABLE called_by_mistake AS SELECT w.role, c.name, c.call, may(w.rights, o.rights) AS expected, done(w.role, c.call) AS heard
    FROM who w, calls c JOIN rebate.right_objects() o ON o.kind = 'function' AND o.name = c.name
    WHERE c.name NOT IN ('flush', 'get_delivery_status', 'right_objects', 'personal_data', 'create_store') AND NOT 'nobody' = ANY (o.rights) ORDER BY c.name, w.role;
SELECT is_empty($$ SELECT role, call, expected, heard FROM called_by_mistake WHERE expected = (heard ~ '^42501') AND (role, name) <> ('rebate_test_super', 'schedule') $$,
    'the library allows what the list says, and nothing else');
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA rebate FROM PUBLIC;

CREATE TABLE touched AS SELECT w.role, r.called, r.relkind, r.in_store, v.verb, w.rights, o.rights AS object_rights, done(w.role, format(v.command, r.called, a.attname)) AS heard
    FROM who w, relations r LEFT JOIN rebate.right_objects() o ON o.kind = 'view' AND o.name = r.name AND NOT r.in_store
    LEFT JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = 1,
    (VALUES ('SELECT', 'SELECT * FROM %1$s'), ('INSERT', 'INSERT INTO %1$s DEFAULT VALUES'), ('UPDATE', 'UPDATE %1$s SET %2$I = %2$I'), ('DELETE', 'DELETE FROM %1$s'),
        ('TRUNCATE', 'TRUNCATE %1$s'), ('LOCK', 'LOCK TABLE %1$s IN ACCESS EXCLUSIVE MODE'), ('COPY', 'COPY %1$s TO PROGRAM ''cat > /dev/null''')) v (verb, command)
    WHERE r.relkind = 'r' OR r.relkind = 'v' AND v.verb NOT IN ('COPY', 'TRUNCATE');
SELECT cmp_ok((SELECT count(*) FROM touched), '>', 2000::bigint, 'relations are read and written');
SELECT is_empty($$ SELECT role, called, verb, heard FROM touched WHERE NOT rights && '{owner,superuser}'
    AND (heard !~ CASE WHEN relkind = 'v' AND verb <> 'SELECT' THEN '^(42501|55000)' ELSE '^42501' END) IS DISTINCT FROM (verb = 'SELECT' AND NOT in_store AND relkind = 'v' AND may(rights, object_rights)) $$,
    'roles read the views of their rights, and write nothing');
SELECT is_empty($$ SELECT role, called, verb, heard FROM touched WHERE rights && '{owner,superuser}' AND in_store AND relkind = 'r'
    AND heard NOT LIKE CASE WHEN verb IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') THEN 'RB009 %' WHEN verb = 'COPY' AND NOT rights && '{superuser}' THEN '42501 %' ELSE 'went through' END $$,
    'who owns the store reads it, and does not write it either');
SELECT is_empty($$ SELECT role, c FROM who, unnest(ARRAY['SELECT nextval(''rebate_data.id'')', 'SELECT setval(''rebate_data.id'', 64)', 'SELECT last_value FROM rebate_data.id']) c
    WHERE NOT rights && '{owner,superuser}' AND done(role, c) !~ '^42501' $$, 'no number of the sequence');
SELECT is_empty($$ SELECT role, c FROM who, unnest(ARRAY['CREATE TABLE rebate_data.mine (x int)', 'CREATE VIEW rebate.mine AS SELECT 1',
        'CREATE FUNCTION rebate.mine() RETURNS int LANGUAGE sql AS ''SELECT 1''', 'DROP TABLE rebate_data.account CASCADE', 'ALTER TABLE rebate_data.entry ADD COLUMN x int',
        'ALTER TABLE rebate_data.entry DISABLE TRIGGER rebate_guard', 'DROP VIEW rebate.balances CASCADE', 'DROP SCHEMA rebate_data CASCADE',
        'CREATE OR REPLACE VIEW rebate.rules AS SELECT 1', 'COMMENT ON TABLE rebate_data.entry IS ''mine''', 'GRANT SELECT ON rebate.balances TO PUBLIC',
        'ALTER SCHEMA rebate RENAME TO theirs', 'DROP EXTENSION rebate CASCADE', 'SET rebate.mode = off', 'SET rebate.posting = statement',
        'SET rebate.collect_limit = 1', 'SET rebate.clock_batch_time = 1', 'SET rebate.clock_workers = 1', 'ALTER TABLE orders DISABLE TRIGGER rebate_insert', 'ALTER EVENT TRIGGER rebate_watch_drops DISABLE']) c
    WHERE NOT rights && '{owner,superuser}' AND done(role, c) NOT SIMILAR TO '(42501|0LP01|01007) %' AND c NOT LIKE 'GRANT%' $$, 'nothing is made, dropped or switched off');
SELECT is_empty($$ SELECT a.grantee FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'rebate.balances'::regclass AND a.grantee = 0 $$, 'nothing is handed on');
SELECT is_empty('SELECT * FROM wrong_privileges()', 'and what is granted is what it was');
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');

-- functions and views that are new objects get the grants again
DROP EXTENSION rebate CASCADE;
CREATE EXTENSION rebate;
SELECT isnt_empty('SELECT * FROM wrong_privileges()', 'after CREATE EXTENSION nothing is granted');
SELECT lives_ok('SELECT rebate.adopt_store(''rebate_test_owner'')', 'adopting the store');
SELECT is_empty('SELECT * FROM wrong_privileges()', 'grants all of it again');

-- what a right gave is taken back with it, but for what another one gives; what was given by hand stays
GRANT SELECT ON rebate.balances TO rebate_test_deputy;
SELECT rebate.revoke_right('operator', 'rebate_test_deputy');
UPDATE who SET rights = '{auditor}' WHERE role = 'rebate_test_deputy';
SELECT is_empty('SELECT * FROM wrong_privileges()', 'one right less');
SELECT rebate.grant_right('auditor', 'rebate_test_operator');
UPDATE who SET rights = '{auditor,operator}' WHERE role = 'rebate_test_operator';
SELECT is_empty('SELECT * FROM wrong_privileges()', 'one more');
SELECT rebate.revoke_right('operator', 'rebate_test_operator');
UPDATE who SET rights = '{auditor}' WHERE role = 'rebate_test_operator';
SELECT is_empty('SELECT * FROM wrong_privileges()', 'the first of two goes');
SELECT rebate.revoke_right(right_name, role) FROM rebate.granted_rights ORDER BY 1;
UPDATE who SET rights = '{}' WHERE NOT rights && '{owner,superuser}';
SELECT set_eq('SELECT role::text, called, verb FROM wrong_privileges()', $$ VALUES ('rebate_test_deputy', 'rebate.balances', 'SELECT') $$, 'all are taken back, but for what was given by hand');
SELECT is_empty('TABLE rebate.granted_rights', 'none is left');
SELECT * FROM finish();
