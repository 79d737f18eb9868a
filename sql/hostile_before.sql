--
-- The owner's triggers on his order table: they change rows on their way, drop
-- them, write others, and fail.  What is posted is what is stored at the end.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
CREATE ROLE regress_hostile_owner;
CREATE SCHEMA hostile AUTHORIZATION regress_hostile_owner;
SET ROLE regress_hostile_owner;
CREATE TABLE hostile.orders (id int PRIMARY KEY, customer text, total numeric, note text);
RESET ROLE;
SELECT rebate.attach('hostile.orders', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('ten', percent => 10);
CREATE VIEW hostile_state AS SELECT
    (SELECT string_agg(format('%s %s %s', id, customer, total), ', ' ORDER BY id) FROM hostile.orders) AS orders,
    (SELECT string_agg(format('%s %s %s', order_key, member, earned), ', ' ORDER BY order_key::int) FROM rebate.accruals WHERE earned <> 0) AS rebates,
    (SELECT string_agg(violation || ' ' || subject, ', ') FROM rebate.audit()) AS audit;

-- before: another amount, another member, another key, no row, another row
SET ROLE regress_hostile_owner;
CREATE FUNCTION hostile.before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_op = 'DELETE' THEN
        IF old.note = 'kept' THEN RETURN NULL; END IF;
        RETURN old;
    END IF;
    CASE new.note
        WHEN 'amount' THEN new.total := 1;
        WHEN 'member' THEN new.customer := 'mallory';
        WHEN 'key' THEN new.id := new.id + 1000;
        WHEN 'none' THEN RETURN NULL;
        WHEN 'other' THEN INSERT INTO hostile.orders VALUES (new.id + 2000, 'other', 50);
        WHEN 'gone' THEN DELETE FROM hostile.orders WHERE customer = 'gone';
        ELSE NULL;
    END CASE;
    RETURN new;
END$$;
CREATE TRIGGER before BEFORE INSERT OR UPDATE OR DELETE ON hostile.orders FOR EACH ROW EXECUTE FUNCTION hostile.before();
INSERT INTO hostile.orders VALUES (1, 'ann', 100, 'amount'), (2, 'ann', 100, 'member'), (3, 'ann', 100, 'key'), (4, 'ann', 100, 'none'),
    (5, 'ann', 100, 'other'), (6, 'ann', 100, 'kept'), (7, 'gone', 100, NULL);
RESET ROLE;
SELECT * FROM hostile_state;
SET ROLE regress_hostile_owner;
UPDATE hostile.orders SET note = 'amount' WHERE id = 6;
UPDATE hostile.orders SET note = 'key' WHERE id = 5;
UPDATE hostile.orders SET note = 'none', total = 1000000 WHERE id = 2;
UPDATE hostile.orders SET note = 'gone' WHERE id = 1;
RESET ROLE;
SELECT * FROM hostile_state;
SET ROLE regress_hostile_owner;
UPDATE hostile.orders SET note = 'kept' WHERE id = 6;
DELETE FROM hostile.orders WHERE id IN (1, 6);
INSERT INTO hostile.orders VALUES (6, 'ann', 10, 'none') ON CONFLICT (id) DO UPDATE SET total = 500;
INSERT INTO hostile.orders VALUES (6, 'ann', 10) ON CONFLICT (id) DO UPDATE SET total = 300, note = 'member';
RESET ROLE;
SELECT * FROM hostile_state;

-- after: writes to the same table from row and statement triggers, that fire before and behind ours; one level each
SET ROLE regress_hostile_owner;
DROP TRIGGER before ON hostile.orders;
CREATE FUNCTION hostile.after() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;
    CASE tg_argv[0]
        WHEN 'double' THEN UPDATE hostile.orders SET total = total * 2 WHERE note = 'fresh';
        WHEN 'split' THEN INSERT INTO hostile.orders SELECT id + 100, customer, 1, 'made' FROM hostile.orders WHERE note = 'fresh' ON CONFLICT DO NOTHING;
        WHEN 'drop' THEN DELETE FROM hostile.orders WHERE note = 'drop';
        WHEN 'undo' THEN
            BEGIN
                UPDATE hostile.orders SET total = 1000000;
                INSERT INTO hostile.orders VALUES (-1, 'mallory', 1000000);
                RAISE EXCEPTION 'undo';
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
        WHEN 'done' THEN UPDATE hostile.orders SET note = 'old' WHERE note = 'fresh';
    END CASE;
    RETURN NULL;
END$$;
CREATE TRIGGER a_double AFTER INSERT ON hostile.orders FOR EACH STATEMENT EXECUTE FUNCTION hostile.after('double');
CREATE TRIGGER a_row AFTER INSERT ON hostile.orders FOR EACH ROW EXECUTE FUNCTION hostile.after('split');
CREATE TRIGGER s_undo AFTER INSERT OR UPDATE ON hostile.orders FOR EACH STATEMENT EXECUTE FUNCTION hostile.after('undo');
CREATE TRIGGER y_drop AFTER INSERT ON hostile.orders FOR EACH STATEMENT EXECUTE FUNCTION hostile.after('drop');
CREATE TRIGGER z_done AFTER INSERT ON hostile.orders FOR EACH STATEMENT EXECUTE FUNCTION hostile.after('done');
INSERT INTO hostile.orders VALUES (10, 'bob', 10, 'fresh'), (11, 'bob', 20, 'drop');
INSERT INTO hostile.orders VALUES (12, 'bob', 30, 'fresh');
BEGIN;
INSERT INTO hostile.orders VALUES (13, 'bob', 40, 'fresh');
SAVEPOINT s;
INSERT INTO hostile.orders VALUES (14, 'bob', 50, 'fresh');
ROLLBACK TO s;
UPDATE hostile.orders SET total = total + 1 WHERE customer = 'bob';
COMMIT;
RESET ROLE;
SELECT * FROM hostile_state;
-- an error behind ours takes all of it back
SET ROLE regress_hostile_owner;
CREATE FUNCTION hostile.fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
CREATE TRIGGER zz_fail AFTER DELETE ON hostile.orders FOR EACH STATEMENT EXECUTE FUNCTION hostile.fail();
DELETE FROM hostile.orders;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON hostile.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hostile.fail();
UPDATE hostile.orders SET total = 1000000;
DROP TRIGGER at_commit ON hostile.orders;
-- a trigger at commit writes once more
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON hostile.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hostile.after('split');
UPDATE hostile.orders SET note = 'fresh', total = 70 WHERE id = 12;
RESET ROLE;
SELECT * FROM hostile_state;
SELECT member, available FROM rebate.balances ORDER BY member COLLATE "C";

DROP VIEW hostile_state;
DROP SCHEMA hostile CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP ROLE regress_hostile_owner;
