-- What each right is good for, done by a role that has it and nothing else; what it does not bring along; and what somebody
-- makes of grant_right() who sets names, paths and objects in its way.
CREATE EXTENSION pgtap;
SET client_min_messages = error;
SELECT no_plan();
CREATE EXTENSION rebate;
SELECT rebate.create_store();
CREATE ROLE rebate_test_shop LOGIN;
CREATE ROLE rebate_test_admin LOGIN;
CREATE ROLE rebate_test_author LOGIN;
CREATE ROLE rebate_test_auditor LOGIN;
CREATE ROLE rebate_test_operator LOGIN;
CREATE ROLE rebate_test_stranger LOGIN;
SELECT rebate.grant_right(replace(r, 'rebate_test_', ''), r) FROM unnest('{rebate_test_admin,rebate_test_author,rebate_test_auditor,rebate_test_operator}'::text[]) r;
CREATE SCHEMA shop AUTHORIZATION rebate_test_admin;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
CREATE FUNCTION hint(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    what text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS what = PG_EXCEPTION_HINT;
    RETURN what;
END $$;
CREATE FUNCTION sorry(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
    more text;
BEGIN
    EXECUTE command;
    RETURN 'went through';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(' ', sqlstate, said, nullif(more, ''));
END$$;

-- admin: attaches what is his own, and nobody else's
SET ROLE rebate_test_admin;
CREATE TABLE shop.orders (id int PRIMARY KEY, customer text, total numeric(12,2), state text, secret text);
CREATE TABLE shop.parts (id int PRIMARY KEY, customer text, total numeric) PARTITION BY RANGE (id);
CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100);
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.orders TO rebate_test_shop;
SELECT lives_ok($$ SELECT rebate.attach('shop.orders', 'customer', 'total', 'EUR', status => 'state', phases => '{"new": "pending", "paid": "confirmed", "off": "void"}') $$,
    'an admin attaches his table');
SELECT lives_ok($$ SELECT rebate.attach('shop.parts', 'customer', 'total', 'EUR', row_triggers => true) $$, 'a partitioned one, with row triggers');
SELECT lives_ok($$ CREATE TABLE shop.parts_2 PARTITION OF shop.parts FOR VALUES FROM (100) TO (200) $$, 'adds a partition');
SELECT lives_ok($$ SELECT rebate.add_currency('PTS', 0) $$, 'adds a currency');
SELECT lives_ok($$ SELECT rebate.set_ageing('shop.orders', auto_confirm_after => '1 day') $$, 'sets the ageing of his table');
SELECT throws_ok($$ SELECT rebate.set_rule('mine', percent => 100) $$, '42501', NULL, 'writes no rules');
SELECT throws_ok('SELECT * FROM rebate.balances', '42501', NULL, 'reads no balances');
RESET ROLE;
CREATE TABLE theirs (id int PRIMARY KEY, customer text, total numeric);
GRANT ALL ON theirs TO rebate_test_admin;
SET ROLE rebate_test_admin;
SELECT throws_ok($$ SELECT rebate.attach('theirs', 'customer', 'total', 'EUR') $$, '42501', NULL, 'a table of others is not his to attach');
RESET ROLE;

-- author: rules, over columns that he may read
SET ROLE rebate_test_author;
SELECT is(rebate.set_rule('five', percent => 5, hold => '1 day'), 1, 'an author writes a rule');
SELECT throws_ok($$ SELECT rebate.set_rule('peek', percent => 1, condition => 'secret > ''m''', source => 'shop.orders') $$, '42501', NULL, 'none that reads what he may not');
SELECT throws_ok($$ SELECT rebate.set_rule('peek', percent => 1, base => 'length(secret)', source => 'shop.orders') $$, '42501', NULL, 'also as base');
SELECT throws_ok($$ SELECT * FROM rebate.preview('shop.orders', '{"id": 9, "customer": "alice", "total": 10, "state": "paid"}') $$, '42501', NULL, 'no preview over a table that he may not read');
RESET ROLE;
GRANT SELECT (id, customer, total, state) ON shop.orders TO rebate_test_author;
SET ROLE rebate_test_author;
SELECT lives_ok($$ SELECT rebate.set_rule('large', percent => 1, condition => 'total > 1000', source => 'shop.orders') $$, 'with SELECT on the columns he does');
SELECT throws_ok($$ SELECT rebate.set_rule('peek', percent => 1, condition => 'secret > ''m''', source => 'shop.orders') $$, '42501', NULL, 'not on others');
SELECT throws_ok($$ SELECT rebate.set_rule('peek', percent => 1, condition => 'shop.orders IS NOT NULL', source => 'shop.orders') $$, NULL, NULL, 'nor on the whole row');
SELECT throws_ok($$ SELECT * FROM rebate.preview('shop.orders', '{"id": 9, "customer": "alice", "total": 10, "state": "paid"}') $$, '42501', NULL, 'still no preview');
RESET ROLE;
GRANT SELECT ON shop.orders TO rebate_test_author, rebate_test_auditor;
SET ROLE rebate_test_author;
SELECT isnt_empty($$ SELECT * FROM rebate.preview('shop.orders', '{"id": 9, "customer": "alice", "total": 10, "state": "paid"}') $$, 'he previews what he may read');
SELECT throws_ok($$ SELECT rebate.set_ageing('shop.orders') $$, '42501', NULL, 'and attaches or sets nothing');
RESET ROLE;
SELECT is((SELECT created_by FROM rebate.rule_versions WHERE rule = 'five'), session_user::text, 'who wrote a rule is the one who logged in, not the role that he took');

-- orders, as ever
SET ROLE rebate_test_shop;
INSERT INTO shop.orders VALUES (1, 'alice', 100, 'paid', 'x'), (2, 'bob', 50, 'new', 'y'), (3, 'carol', 70, 'of amethyst', 'z');
RESET ROLE;
INSERT INTO shop.parts VALUES (1, 'alice', 10), (101, 'bob', 20);

-- operator: whatever keeps it going, though the store and the orders are not his
SET ROLE rebate_test_operator;
SELECT throws_ok('SELECT * FROM shop.orders', '42501', NULL, 'an operator does not read the orders');
SELECT is((SELECT concat(message, detail) ~ 'amethyst' FROM rebate.failures), true, 'but why one failed, with its values');
SELECT is((SELECT failing FROM rebate.retry()), 1::bigint, 'tries again');
SELECT is(rebate.reconcile('shop.orders'), 0::bigint, 'reconciles');
SELECT is(rebate.reconcile('shop.orders', ARRAY['1']), 1::bigint, 'also one order');
SELECT ok(rebate.freeze('shop.orders', rebate.order_key('shop.orders', 1), 'dispute'), 'freezes');
SELECT is(rebate.unfreeze('shop.orders', '1'), 1, 'and ends it');
SELECT isnt_empty('SELECT * FROM rebate.doctor(true)', 'asks the doctor');
SELECT isnt_empty('SELECT * FROM rebate.delivery_status', 'sees how delivery goes');
SELECT throws_ok('SELECT * FROM rebate.entries', '42501', NULL, 'reads no entries');
SELECT throws_ok($$ SELECT * FROM rebate.explain('shop.orders', 1) $$, '42501', NULL, 'nor what an order earned');
SELECT throws_ok($$ SELECT rebate.set_rule('mine', percent => 100) $$, '42501', NULL, 'writes no rules');
-- in this session, since they commit
CALL rebate.mature(now() + '3 days');
CALL rebate.age(now() + '3 days');
CALL rebate.retry_failures();
CALL rebate.run_audit();
CALL rebate.fold();
CALL rebate.prune();
SELECT set_eq('SELECT job, state FROM rebate.jobs', $$ SELECT unnest(ARRAY['mature', 'age', 'retry_failures', 'run_audit', 'fold', 'prune']), 'finished' $$, 'runs all jobs');
RESET ROLE;
SELECT is((SELECT available FROM rebate.balances WHERE member = 'alice'), 5.50, 'what matured is the member''s');
SELECT is_empty($$ SELECT frozen_by FROM rebate.freezes WHERE frozen_by <> session_user OR unfrozen_by <> session_user $$, 'who froze is the one who logged in');

-- auditor: reads the ledger; the words of failures, with values of rows, are not for him
SET ROLE rebate_test_auditor;
SELECT is_empty('SELECT * FROM rebate.audit()', 'an auditor audits');
SELECT isnt_empty('SELECT * FROM rebate.entries', 'reads entries');
SELECT isnt_empty($$ SELECT * FROM rebate.statement('alice') $$, 'a statement');
SELECT isnt_empty($$ SELECT * FROM rebate.feed() $$, 'all events');
SELECT is((SELECT array_agg(order_key) FROM rebate.failed_orders), '{3}', 'sees that an order failed');
SELECT throws_ok('SELECT * FROM rebate.failures', '42501', NULL, 'not what it says of the row');
SELECT throws_ok('SELECT * FROM rebate.doctor()', '42501', NULL, 'also not by the doctor');
SELECT is_empty($$ SELECT t FROM (SELECT d::text AS t FROM rebate.decisions d UNION ALL SELECT s::text FROM rebate.sources s UNION ALL SELECT a::text FROM rebate.audit() a) x
    WHERE t ~ 'amethyst' $$, 'nor by another view');
SELECT isnt_empty($$ SELECT * FROM rebate.explain('shop.orders', 1) $$, 'explains orders of a table that he may read');
SELECT throws_ok($$ SELECT * FROM rebate.explain('shop.parts', 1) $$, '42501', 'permission denied for table shop.parts', 'no others');
SELECT throws_ok($$ SELECT * FROM rebate.retry() $$, '42501', NULL, 'mends nothing');
RESET ROLE;
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.orders TO rebate_test_auditor USING (customer = 'bob');
SET ROLE rebate_test_auditor;
SELECT throws_ok($$ SELECT * FROM rebate.explain('shop.orders', 1) $$, '42501', 'permission denied for table shop.orders', 'nor where a policy hides rows from him');
RESET ROLE;
ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY;
-- an order that cannot be decided and is not set aside: the audit has its words for who may see the row
UPDATE shop.orders SET total = 100, state = 'paid' WHERE id = 3;
SET session_replication_role = replica;
UPDATE shop.orders SET state = 'of beryl' WHERE id = 3;
RESET session_replication_role;
REVOKE SELECT ON shop.orders FROM rebate_test_auditor;
SET ROLE rebate_test_auditor;
SELECT is((SELECT string_agg(detail, '') FROM rebate.audit()), 'SQLSTATE RB010', 'an audit says nothing of a row to who may not read it');
RESET ROLE;
SELECT ok((SELECT string_agg(detail, '') FROM rebate.audit()) ~ 'map of phases', 'but says to who may');
SELECT rebate.reconcile('shop.orders');

-- whoever has no right gets none by a detour: a view, a function, a trigger, a table of a role that has it
SET ROLE rebate_test_auditor;
SELECT throws_ok('CREATE VIEW rebate.mine AS SELECT 1', '42501', NULL, 'nothing of ones own in our schema');
RESET ROLE;
CREATE SCHEMA play;
GRANT ALL ON SCHEMA play TO PUBLIC;
SET ROLE rebate_test_auditor;
CREATE VIEW play.balances AS SELECT * FROM rebate.balances;
CREATE VIEW play.audited AS SELECT * FROM rebate.audit();
GRANT SELECT ON play.balances, play.audited TO PUBLIC;
RESET ROLE;
SET ROLE rebate_test_stranger;
SELECT lives_ok('SELECT * FROM play.balances', 'what an auditor shows to others by a view of his is his to answer for');
SELECT throws_ok('SELECT * FROM play.audited', '42501', NULL, 'functions in it ask for who calls');
SELECT throws_ok($$ SELECT rebate.grant_right('admin', 'rebate_test_stranger') $$, '42501', NULL, 'nobody grants himself a right');
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA rebate TO PUBLIC;
SET ROLE rebate_test_stranger;
SELECT matches(sorry($$SELECT rebate.grant_right('admin', 'rebate_test_stranger')$$), '^42501 .*"admin"', 'also with EXECUTE given by mistake');
SELECT is(hint(command), format('SELECT rebate.grant_right(%L, %L).', name, 'rebate_test_stranger'), 'the hint names the least right that is enough: ' || command)
FROM (VALUES ('SELECT rebate.stat_reset()', 'operator'), ('SELECT rebate.get_my_channel()', 'member'), ('SELECT * FROM rebate.erasures()', 'auditor'),
    ('SELECT rebate.withdraw_rule(1)', 'author')) v (command, name);
RESET ROLE;
SET ROLE rebate_test_operator;
SELECT matches(sorry($$SELECT rebate.grant_right('admin', 'rebate_test_operator')$$), '^42501 .*"admin"', 'nor who has another right');
RESET ROLE;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA rebate FROM PUBLIC;

-- a right ends at once, in sessions that have used it, too; with a rollback it does not
SET ROLE rebate_test_auditor;
SELECT lives_ok('SELECT * FROM rebate.audit()', 'used');
RESET ROLE;
BEGIN;
SELECT rebate.revoke_right('auditor', 'rebate_test_auditor');
GRANT EXECUTE ON FUNCTION rebate.audit() TO PUBLIC;
SET LOCAL ROLE rebate_test_auditor;
SELECT matches(sorry('SELECT * FROM rebate.audit()'), '^42501', 'revoked');
ROLLBACK;
SET ROLE rebate_test_auditor;
SELECT lives_ok('SELECT * FROM rebate.audit()', 'and not, after a rollback');
RESET ROLE;
BEGIN;
SAVEPOINT s;
SELECT rebate.grant_right('operator', 'rebate_test_auditor');
SET LOCAL ROLE rebate_test_auditor;
SELECT lives_ok('SELECT * FROM rebate.failures', 'granted');
ROLLBACK TO s;
GRANT EXECUTE ON FUNCTION rebate.retry(regclass, integer) TO PUBLIC;
SET LOCAL ROLE rebate_test_auditor;
SELECT matches(sorry('SELECT * FROM rebate.retry()'), '^42501', 'and not, after a rollback to a savepoint');
ROLLBACK;

-- roles: renamed, dropped, made again; of odd names
CREATE ROLE rebate_test_old;
SELECT rebate.grant_right('auditor', 'rebate_test_old');
ALTER ROLE rebate_test_old RENAME TO rebate_test_new;
SET ROLE rebate_test_new;
SELECT matches(sorry('SELECT * FROM rebate.audit()'), '^42501 permission denied for rebate.audit', 'a right is of a name: a role renamed has it no more');
RESET ROLE;
SELECT is((SELECT remedy ~ 'revoke_right..auditor., .rebate_test_old' FROM rebate.doctor() WHERE "check" = 'rights' AND subject = 'role rebate_test_old'), true, 'the doctor tells');
SELECT lives_ok($$ SELECT rebate.grant_right('auditor', 'rebate_test_new'); SELECT rebate.revoke_right('auditor', 'rebate_test_old') $$, 'and how to mend it');
SET ROLE rebate_test_new;
SELECT lives_ok('SELECT * FROM rebate.audit()', 'so it is again');
RESET ROLE;
DROP OWNED BY rebate_test_new;
DROP ROLE rebate_test_new;
CREATE ROLE rebate_test_new;
SET ROLE rebate_test_new;
SELECT throws_ok('SELECT * FROM rebate.balances', '42501', NULL, 'a role made again has no grants');
RESET ROLE;
SELECT is((SELECT detail ~ 'may not use accruals, ' FROM rebate.doctor() WHERE "check" = 'rights' AND subject = 'role rebate_test_new'), true, 'the doctor tells');
SELECT rebate.revoke_right('auditor', 'rebate_test_new');
CREATE ROLE "Rebate'test; DROP SCHEMA shop CASCADE; --";
CREATE ROLE "current_user";
CREATE ROLE "rebate_test ""quoted"" \ %s";
SELECT lives_ok(format('SELECT rebate.grant_right(%L, %L)', 'auditor', r), 'a role named ' || r)
FROM unnest(ARRAY['Rebate''test; DROP SCHEMA shop CASCADE; --', 'current_user', 'rebate_test "quoted" \ %s']) r;
SELECT ok(has_table_privilege(r, 'rebate.balances', 'SELECT') AND has_function_privilege(r, 'rebate.audit()', 'EXECUTE'), 'has the grants: ' || r)
FROM unnest(ARRAY['Rebate''test; DROP SCHEMA shop CASCADE; --', 'current_user', 'rebate_test "quoted" \ %s']) r;
SELECT is((SELECT count(*) FROM rebate.doctor() WHERE "check" = 'rights' AND status <> 'ok'), 0::bigint, 'the doctor is content');
SELECT rebate.revoke_right('auditor', r) FROM unnest(ARRAY['Rebate''test; DROP SCHEMA shop CASCADE; --', 'current_user', 'rebate_test "quoted" \ %s']) r;
SELECT lives_ok(format('DROP ROLE %I', r), 'nothing is left of ' || r)
FROM unnest(ARRAY['Rebate''test; DROP SCHEMA shop CASCADE; --', 'current_user', 'rebate_test "quoted" \ %s']) r;
SELECT is(sorry(c), e, c) FROM (VALUES
    ('SELECT rebate.grant_right(''auditor'', ''rebate_test_nobody'')', '42704 role "rebate_test_nobody" does not exist'),
    ('SELECT rebate.grant_right(''auditor'', ''public'')', '42704 role "public" does not exist'),
    ('SELECT rebate.grant_right(''auditor'', NULL)', '22004 role must not be null'),
    ('SELECT rebate.grant_right(NULL, ''rebate_test_shop'')', '22023 right_name must not be null'),
    ('SELECT rebate.grant_right(''owner'', ''rebate_test_shop'')', '22023 right_name cannot be "owner"'),
    ('SELECT rebate.grant_right(''Auditor'', ''rebate_test_shop'')', '22023 right_name cannot be "Auditor"')) v (c, e);

-- names, operators and temporary objects in the way of an admin, and of a superuser
CREATE SCHEMA hostile;
GRANT ALL ON SCHEMA hostile TO PUBLIC;
SET ROLE rebate_test_stranger;
CREATE TABLE hostile.caught (who name, what text);
GRANT INSERT ON hostile.caught TO PUBLIC;
CREATE FUNCTION hostile.catch(what text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO hostile.caught VALUES (current_user, what); RETURN true; END$$;
DO $$
DECLARE
    f record;
BEGIN
    FOR f IN SELECT proname, pg_get_function_identity_arguments(oid) AS args, prorettype::regtype AS result FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
        AND proname IN ('format', 'regexp_matches', 'string_to_array', 'jsonb_each', 'jsonb_array_elements_text', 'has_table_privilege', 'has_function_privilege', 'now',
            'texteq', 'nameeqtext', 'texteqname', 'jsonb_build_object') AND prokind = 'f' AND provariadic = 0 AND NOT proretset
            AND prorettype NOT IN ('anyelement'::regtype) AND proargmodes IS NULL
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$BEGIN PERFORM hostile.catch(%L); RETURN NULL; END$f$', f.proname, f.args, f.result, f.proname);
    END LOOP;
END$$;
CREATE FUNCTION hostile.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN PERFORM hostile.catch('='); RETURN true; END$$;
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equal);
CREATE FUNCTION hostile.equal(name, name) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN PERFORM hostile.catch('='); RETURN true; END$$;
CREATE OPERATOR hostile.= (LEFTARG = name, RIGHTARG = name, FUNCTION = hostile.equal);
CREATE FUNCTION hostile.equal(text, text[]) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN PERFORM hostile.catch('='); RETURN true; END$$;
CREATE VIEW hostile.pg_roles AS SELECT 'rebate_test_stranger'::name AS rolname WHERE hostile.catch('pg_roles');
CREATE VIEW hostile.granted_right AS SELECT 'rebate_test_stranger'::text AS role_name, 'admin'::text AS right_name;
CREATE FUNCTION hostile.right_objects(OUT kind text, OUT name text, OUT rights text[]) RETURNS SETOF record LANGUAGE plpgsql AS $$BEGIN PERFORM hostile.catch('right_objects'); END$$;
GRANT ALL ON ALL TABLES IN SCHEMA hostile TO PUBLIC;
RESET ROLE;
CREATE ROLE rebate_test_clerk;
CREATE FUNCTION hostile_round(as_role name) RETURNS void LANGUAGE plpgsql
    SET search_path = hostile, pg_temp, pg_catalog, rebate, rebate_data, public SET standard_conforming_strings = off SET quote_all_identifiers = on
    SET array_nulls = off AS $$
BEGIN
    EXECUTE pg_catalog.format('SET LOCAL ROLE %I', as_role);
    PERFORM rebate.grant_right('auditor', 'rebate_test_clerk');
    PERFORM rebate.grant_right('operator', 'rebate_test_clerk');
    PERFORM rebate.revoke_right('operator', 'rebate_test_clerk');
    RESET ROLE;
END$$;
SET ROLE rebate_test_admin;
CREATE TEMP VIEW pg_roles AS SELECT 'rebate_test_stranger'::name AS rolname;
CREATE TEMP TABLE granted_right (role_name text, right_name text);
CREATE TEMP TABLE balances (x int);
RESET ROLE;
SELECT lives_ok($$ SELECT hostile_round('rebate_test_admin') $$, 'an admin grants with hostile names around');
SELECT lives_ok(format($$ SELECT hostile_round(%L) $$, session_user), 'and a superuser');
SELECT is_empty('SELECT * FROM hostile.caught', 'nothing of them was called');
SELECT ok(has_table_privilege('rebate_test_clerk', 'rebate.entries', 'SELECT') AND NOT has_table_privilege('rebate_test_clerk', 'rebate.failures', 'SELECT')
    AND NOT has_table_privilege('rebate_test_stranger', 'rebate.entries', 'SELECT'),
    'what was granted is what was meant');
SELECT rebate.revoke_right('auditor', 'rebate_test_clerk');
DROP ROLE rebate_test_clerk;

-- SET ROLE with cascades that are deferred to the commit: as whoever they run, the store is written as its owner, and nobody gains a right
CREATE TABLE shop.customers (name text PRIMARY KEY);
INSERT INTO shop.customers VALUES ('alice'), ('bob'), ('carol'), ('dora');
ALTER TABLE shop.orders ADD CONSTRAINT fk FOREIGN KEY (customer) REFERENCES shop.customers ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED;
CREATE FUNCTION shop.later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE shop.orders SET secret = current_user, total = total + 1 WHERE id = NEW.id;
    RETURN NULL;
END$$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON shop.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.later();
GRANT ALL ON shop.customers TO rebate_test_shop;
GRANT SELECT ON shop.orders TO rebate_test_stranger;
GRANT rebate_test_shop, rebate_test_stranger TO rebate_test_admin;
BEGIN;
SET LOCAL ROLE rebate_test_shop;
INSERT INTO shop.orders VALUES (20, 'dora', 99, 'paid', NULL);
UPDATE shop.customers SET name = 'dorothy' WHERE name = 'dora';
DELETE FROM shop.customers WHERE name = 'bob';
SET LOCAL ROLE rebate_test_admin;
COMMIT;
SELECT is((SELECT array_agg((member, maturing + available) ORDER BY member)::text FROM rebate.balances WHERE member IN ('dora', 'dorothy')), (SELECT array_agg((customer, round(total * 0.05, 2)) ORDER BY customer)::text FROM shop.orders WHERE id = 20),
    'a cascade that was deferred over a SET ROLE is posted');
SELECT is((SELECT sum(earned) FROM rebate.accruals WHERE order_key = '2' AND source = 'shop.orders'), 0.00, 'what it deletes is taken back');
SELECT is_empty($$ SELECT * FROM rebate.audit() $$, 'the audit is clean');
SELECT * FROM finish();
