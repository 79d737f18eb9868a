-- The owner of an order table hangs all that he can on it: triggers, policies, rules, checks, domains, generated columns, index
-- expressions, statistics, each of which notes as whom it runs, and tries to make its author a superuser. Then the engine comes to
-- that table by every path that it has, called by a superuser and by roles with rights. It calls none of them.
CREATE EXTENSION pgtap;
SET client_min_messages = error;
SELECT no_plan();
CREATE EXTENSION rebate;
SELECT rebate.create_store();
CREATE ROLE rebate_test_mallory LOGIN;
CREATE ROLE rebate_test_shop LOGIN;
CREATE ROLE rebate_test_operator LOGIN;
CREATE ROLE rebate_test_auditor LOGIN;
CREATE ROLE rebate_test_author LOGIN;
SELECT rebate.grant_right(r, 'rebate_test_' || r) FROM unnest('{operator,auditor,author}'::text[]) r;
CREATE SCHEMA shop AUTHORIZATION rebate_test_mallory;

SET ROLE rebate_test_mallory;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
CREATE TABLE shop.noted (who name, what text);
GRANT ALL ON shop.noted TO PUBLIC;
CREATE FUNCTION shop.note(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shop.noted VALUES (current_user, what);
    BEGIN
        EXECUTE 'ALTER ROLE rebate_test_mallory SUPERUSER';
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    BEGIN
        EXECUTE 'UPDATE rebate_data.account SET available = 100000';
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    RETURN true;
END$$;
CREATE FUNCTION shop.spy(bigint, what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN shop.note(what); END$$;
CREATE FUNCTION shop.spy_trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM shop.note(concat('trigger ', TG_NAME)); RETURN NEW; END$$;
CREATE DOMAIN shop.number AS bigint;
CREATE TABLE shop.orders (id shop.number PRIMARY KEY, customer text, total numeric(12,2), state text, note text DEFAULT 'x');
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.orders TO rebate_test_shop;
GRANT SELECT ON shop.orders TO rebate_test_auditor, rebate_test_author;
RESET ROLE;
SELECT rebate.attach('shop.orders', 'customer', 'total', 'EUR', status => 'state', phases => '{"new": "pending", "paid": "confirmed"}');
SELECT rebate.set_rule('five', percent => 5, hold => '1 day');
SELECT rebate.set_rule('one', percent => 1, condition => 'total > 10', base => 'total * 2', source => 'shop.orders');
-- set aside, and behind our back, so that each path has something to do
INSERT INTO shop.orders VALUES (1, 'alice', 100, 'new'), (2, 'bob', 50, 'paid'), (3, 'carol', 70, 'odd'), (4, 'dora', 70, 'paid');
SET session_replication_role = replica;
INSERT INTO shop.orders VALUES (5, 'eve', 70, 'paid'), (6, 'fred', 70, 'new');
RESET session_replication_role;

SET ROLE rebate_test_mallory;
ALTER DOMAIN shop.number ADD CONSTRAINT spied CHECK (shop.spy(value, 'domain')) NOT VALID;
ALTER TABLE shop.orders ADD CONSTRAINT spied CHECK (shop.spy(id, 'check')) NOT VALID;
CREATE INDEX ON shop.orders (shop.spy(id, 'index'));
CREATE INDEX ON shop.orders (total) WHERE shop.spy(id, 'index condition');
CREATE STATISTICS shop.watched ON (shop.spy(id, 'statistics')), state FROM shop.orders;
ALTER TABLE shop.orders ADD seen boolean GENERATED ALWAYS AS (shop.spy(id, 'generated')) STORED;
ALTER TABLE shop.orders ALTER note SET DEFAULT shop.spy(0, 'default')::text;
CREATE TRIGGER spy_before BEFORE INSERT OR UPDATE OR DELETE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.spy_trigger();
CREATE TRIGGER spy_after AFTER INSERT OR UPDATE OR DELETE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.spy_trigger();
CREATE CONSTRAINT TRIGGER spy_late AFTER INSERT OR UPDATE OR DELETE ON shop.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.spy_trigger();
CREATE TRIGGER spy_statement BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON shop.orders FOR EACH STATEMENT EXECUTE FUNCTION shop.spy_trigger();
CREATE POLICY spied ON shop.orders USING (shop.spy(id, 'policy'));
CREATE FUNCTION shop.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN shop.note('operator'); END$$;
CREATE OPERATOR shop.= (LEFTARG = text, RIGHTARG = text, FUNCTION = shop.equal);
TRUNCATE shop.noted;
RESET ROLE;

-- what is called is what his own statements, and those of the shop, call
SET ROLE rebate_test_shop;
BEGIN;
INSERT INTO shop.orders (id, customer, total, state) VALUES (10, 'gil', 100, 'paid');
UPDATE shop.orders SET total = 200 WHERE id = 10;
COMMIT;
RESET ROLE;
SELECT ok((SELECT count(DISTINCT what) FROM shop.noted) >= 8, 'the traps work: ' || (SELECT string_agg(DISTINCT what, ', ') FROM shop.noted));
SELECT is_empty($$ SELECT DISTINCT who FROM shop.noted WHERE who <> 'rebate_test_shop' $$, 'when the shop writes, as the shop, and as nobody else');
TRUNCATE shop.noted;

-- every path, by who has the right for it and by a superuser; the path of names is hostile, too
SET search_path = shop, pg_catalog, public;
CREATE FUNCTION public.as_role(role name, command text) RETURNS text LANGUAGE plpgsql SET search_path = shop, pg_temp, pg_catalog AS $$
BEGIN
    EXECUTE pg_catalog.format('SET LOCAL ROLE %I', role);
    EXECUTE command;
    RESET ROLE;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN pg_catalog.concat(sqlstate, ' ', sqlerrm);
END$$;
RESET search_path;
CREATE TABLE paths (n int GENERATED ALWAYS AS IDENTITY, right_name text, command text);
INSERT INTO paths (right_name, command) VALUES
    ('auditor', $$SELECT * FROM rebate.audit()$$), ('auditor', $$SELECT * FROM rebate.explain('shop.orders', 2)$$),
    ('auditor', $$SELECT * FROM rebate.explain('shop.orders', 5)$$), ('auditor', $$SELECT * FROM rebate.feed()$$), ('auditor', $$SELECT * FROM rebate.statement('bob')$$),
    ('author', $$SELECT * FROM rebate.preview('shop.orders', '{"id": 99, "customer": "zoe", "total": 100, "state": "paid"}')$$),
    ('author', $$SELECT rebate.set_rule('two', percent => 2, condition => 'total > 20', source => 'shop.orders')$$),
    ('operator', $$SELECT * FROM rebate.doctor(true)$$), ('operator', $$SELECT * FROM rebate.retry('shop.orders')$$),
    ('operator', $$SELECT rebate.freeze('shop.orders', '2', 'why')$$), ('operator', $$SELECT rebate.unfreeze('shop.orders', '2')$$),
    ('operator', $$SELECT rebate.reconcile('shop.orders', ARRAY['5'])$$), ('operator', $$SELECT rebate.reconcile('shop.orders')$$);
SELECT is(public.as_role(('rebate_test_' || right_name)::name, command), 'done', command) FROM paths ORDER BY n;
SELECT is(public.as_role(session_user::name, command), 'done', 'a superuser: ' || command) FROM paths WHERE command !~ 'set_rule' ORDER BY n;
SET SESSION AUTHORIZATION rebate_test_operator;
CALL rebate.retry_failures();
CALL rebate.mature(now() + '3 days');
CALL rebate.age();
CALL rebate.run_audit();
RESET SESSION AUTHORIZATION;
CALL rebate.run_audit();
CALL rebate.retry_failures();
SELECT lives_ok($$ SELECT rebate.attach('shop.orders', 'customer', 'total', 'EUR', status => 'state', phases => '{"new": "pending", "paid": "confirmed", "odd": "void"}', replace => true) $$, 'a superuser attaches again');
SELECT lives_ok($$ SELECT rebate.set_ageing('shop.orders', auto_confirm_after => '1 day') $$, 'sets the ageing');
CALL rebate.age(now() + '3 days');
SELECT lives_ok($$ SELECT rebate.detach('shop.orders') $$, 'detaches');
SELECT lives_ok($$ SELECT rebate.attach('shop.orders', 'customer', 'total', 'EUR', status => 'state', phases => '{"new": "pending", "paid": "confirmed", "odd": "void"}') $$, 'and attaches');
DROP EXTENSION rebate CASCADE;
CREATE EXTENSION rebate;
SELECT lives_ok('SELECT rebate.adopt_store()', 'adopts the store');
SELECT is_empty('SELECT who, what FROM shop.noted', 'nothing of the owner''s was called on any path');
SELECT ok(NOT (SELECT rolsuper FROM pg_roles WHERE rolname = 'rebate_test_mallory'), 'who has gained no right');
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');
SELECT is((SELECT sum(pending + maturing + available) FROM rebate.balances), (SELECT sum(round(total * 0.05, 2) + round(total * 0.02, 2) * CASE WHEN id IN (5, 6) THEN 2 ELSE 1 END) FROM shop.orders WHERE state IN ('new', 'paid')), 'and the amounts are right');

-- row security that hides all from everybody: the ledger goes on, and he who may not see a row hears nothing of it
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY;
TRUNCATE shop.noted;
SELECT is(public.as_role('rebate_test_operator', $$SELECT rebate.reconcile('shop.orders', ARRAY['5'])$$), 'done', 'with policies the operator reconciles');
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit sees each row');
SELECT matches(public.as_role('rebate_test_auditor', $$SELECT * FROM rebate.explain('shop.orders', 2)$$), '^42501', 'an explanation is only for who sees all rows');
SELECT matches(public.as_role('rebate_test_author', $$SELECT * FROM rebate.preview('shop.orders', '{"id": 99}')$$), '^42501', 'and so is a preview');
SELECT is_empty('SELECT who, what FROM shop.noted', 'no policy was asked');
SELECT * FROM finish();
