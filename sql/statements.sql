-- Every kind of statement, with savepoints, rollbacks and triggers of the user's own: each leaves the ledger that
-- belongs to the rows as they are then.  The file runs itself a second time with rebate.posting = statement and
-- compares.  The rule pays 10 %, so a balance is a tenth of what the member's orders add up to.
\if :{?second}
\set ECHO none
\o /dev/null
\set VERBOSITY terse
SET client_min_messages = error;
SET rebate.posting = statement;
\else
SET client_min_messages = warning;
SET timezone = 'UTC';
\endif
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SELECT rebate.create_store();
\if :{?second}
\else
RESET client_min_messages;
CREATE TABLE outcome (step int, posting text, member text, pending numeric, available numeric, audit text);
-- records the balances that are not zero and what the audit finds, and shows them beside what the rows say
CREATE FUNCTION state() RETURNS TABLE (step int, member text, pending numeric, available numeric, tenth numeric, audit text)
LANGUAGE plpgsql AS $$
DECLARE
    here int := COALESCE((SELECT max(o.step) FROM outcome o WHERE o.posting = current_setting('rebate.posting')), 0) + 1;
BEGIN
    INSERT INTO outcome
    SELECT here, current_setting('rebate.posting'), b.member, b.pending, b.available,
           (SELECT string_agg(concat_ws(': ', a.violation, a.subject), '; ') FROM rebate.audit() a)
    FROM (SELECT) one
    LEFT JOIN (SELECT * FROM rebate.balances x WHERE x.pending <> 0 OR x.available <> 0) b ON true;
    RETURN QUERY
    SELECT o.step, o.member, o.pending, o.available,
           (SELECT sum(round(t.total / 10, 2)) FROM orders t WHERE t.customer = o.member), o.audit
    FROM outcome o
    WHERE o.step = here AND o.posting = current_setting('rebate.posting')
    ORDER BY o.member COLLATE "C";
END $$;
\endif

CREATE TABLE customer (name text PRIMARY KEY);
CREATE TABLE orders (
    id int PRIMARY KEY, customer text REFERENCES customer ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE,
    total numeric(12,2), note text
);
INSERT INTO customer VALUES ('ann'), ('ben'), ('cat');
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR');
SELECT rebate.set_rule('ten', percent => 10);

--
-- Statements
--
-- 1: many rows at once, also none
INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20), (3, 'ann', 30);
INSERT INTO orders SELECT 1, 'ann', 10 WHERE false;
INSERT INTO orders SELECT n, 'cat', n FROM generate_series(10, 19) n;
SELECT * FROM state();
-- 2
COPY orders (id, customer, total) FROM stdin;
4	ben	1.25
5	ben	2.25
6	\N	3.25
\.
SELECT * FROM state();
-- 3: what conflicts is updated, or left alone
INSERT INTO orders VALUES (1, 'ann', 100), (7, 'ann', 70) ON CONFLICT (id) DO UPDATE SET total = excluded.total;
INSERT INTO orders VALUES (1, 'ann', 1000), (8, 'ann', 80) ON CONFLICT DO NOTHING;
SELECT * FROM state();
-- 4: inserts, updates and deletes in one
MERGE INTO orders o USING (VALUES (1, 5), (2, NULL), (9, 90)) v (id, total) ON o.id = v.id
WHEN MATCHED AND v.total IS NULL THEN DELETE
WHEN MATCHED THEN UPDATE SET total = v.total
WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'ben', v.total);
SELECT * FROM state();
-- 5: a writing CTE moves orders to another member; another makes and changes what it finds
WITH gone AS (DELETE FROM orders WHERE customer = 'cat' AND id > 15 RETURNING *)
INSERT INTO orders SELECT id + 100, 'ben', total FROM gone;
WITH made AS (INSERT INTO orders VALUES (20, 'cat', 200) RETURNING id), changed AS (UPDATE orders SET total = total + 1 WHERE id = 10)
DELETE FROM orders WHERE id = 11;
SELECT * FROM state();
-- 6
UPDATE orders o SET total = v.total, note = 'x' FROM (VALUES (1, 11.11), (3, 33.33)) v (id, total) WHERE o.id = v.id;
UPDATE orders SET note = 'not read by anybody';
SELECT * FROM state();
-- 7: foreign keys: a member's name changes, a member goes
UPDATE customer SET name = 'anna' WHERE name = 'ann';
DELETE FROM customer WHERE name = 'cat';
SELECT * FROM state();
-- 8: a statement that fails in the middle leaves nothing
INSERT INTO orders VALUES (30, 'ben', 300), (1, 'ben', 1);
UPDATE orders SET total = 10 / (id - 3);
SELECT * FROM state();

--
-- Transactions
--
-- 9: rolled back
BEGIN;
INSERT INTO orders VALUES (31, 'ben', 310);
UPDATE orders SET total = 1;
DELETE FROM orders WHERE id = 1;
SELECT rebate.flush() > 0 AS flushed \gset
SELECT sum(available) FROM rebate.balances;
ROLLBACK;
SELECT * FROM state();
-- 10: an order touched again and again
BEGIN;
INSERT INTO orders VALUES (32, 'ben', 1);
UPDATE orders SET total = 2 WHERE id = 32;
UPDATE orders SET total = 3, customer = 'anna' WHERE id = 32;
DELETE FROM orders WHERE id = 32;
INSERT INTO orders VALUES (32, 'anna', 4);
UPDATE orders SET id = 33 WHERE id = 32;
UPDATE orders SET total = 5 WHERE id = 33;
COMMIT;
SELECT * FROM state();
-- 11: inserted and deleted
BEGIN;
INSERT INTO orders VALUES (34, 'ben', 340);
DELETE FROM orders WHERE id = 34;
COMMIT;
SELECT * FROM state();
-- 12: savepoints rolled back and released, in each other
BEGIN;
INSERT INTO orders VALUES (40, 'ben', 400);
SAVEPOINT a;
UPDATE orders SET total = 401 WHERE id = 40;
INSERT INTO orders VALUES (41, 'ben', 410);
SAVEPOINT b;
INSERT INTO orders VALUES (42, 'ben', 420);
UPDATE orders SET total = 411 WHERE id = 41;
RELEASE b;
SAVEPOINT c;
DELETE FROM orders WHERE id IN (40, 41);
ROLLBACK TO c;
ROLLBACK TO a;
INSERT INTO orders VALUES (43, 'ben', 43);
COMMIT;
SELECT * FROM state();
-- 13: posted inside a savepoint, rolled back; and posted before, changed inside, rolled back
BEGIN;
UPDATE orders SET total = 500 WHERE id = 40;
SAVEPOINT a;
UPDATE orders SET total = 600 WHERE id = 40;
INSERT INTO orders VALUES (50, 'ben', 50);
SELECT rebate.flush() AS flushed \gset
ROLLBACK TO a;
SELECT rebate.flush() AS flushed \gset
SAVEPOINT b;
UPDATE orders SET total = 700 WHERE id = 40;
DELETE FROM orders WHERE id = 43;
SELECT rebate.flush() AS flushed \gset
SAVEPOINT c;
UPDATE orders SET total = 800 WHERE id = 40;
RELEASE b;
ROLLBACK TO a;
INSERT INTO orders VALUES (51, 'ben', 51);
COMMIT;
SELECT * FROM state();
-- 14: the same with releases
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
INSERT INTO orders VALUES (52, 'ben', 52);
SELECT rebate.flush() AS flushed \gset
UPDATE orders SET total = 53 WHERE id = 52;
RELEASE b;
SELECT rebate.flush() AS flushed \gset
UPDATE orders SET id = 53 WHERE id = 52;
SAVEPOINT c;
UPDATE orders SET id = 54 WHERE id = 53;
ROLLBACK TO c;
RELEASE a;
COMMIT;
SELECT * FROM state();
-- 15: blocks with exceptions, in loops
DO $$
BEGIN
    FOR i IN 60..69 LOOP
        BEGIN
            INSERT INTO orders VALUES (i, 'anna', 10);
            UPDATE orders SET total = total + 1 WHERE id = i;
            IF i % 2 = 0 THEN
                PERFORM rebate.flush();
            END IF;
            IF i % 3 = 0 THEN
                RAISE EXCEPTION 'no';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            INSERT INTO orders VALUES (i, 'ben', 1);
        END;
    END LOOP;
END $$;
SELECT * FROM state();
-- 16: a transaction that cannot go on
BEGIN;
INSERT INTO orders VALUES (70, 'ben', 700);
SELECT 1 / 0;
INSERT INTO orders VALUES (71, 'ben', 710);
COMMIT;
SELECT * FROM state();
-- 17: two phases, where the server allows it
SELECT current_setting('max_prepared_transactions')::int > 0 AS can_prepare \gset
BEGIN;
INSERT INTO orders VALUES (72, 'ben', 720);
\if :can_prepare
PREPARE TRANSACTION 'rebate one';
COMMIT PREPARED 'rebate one';
\else
COMMIT;
\endif
BEGIN;
INSERT INTO orders VALUES (73, 'ben', 730);
\if :can_prepare
PREPARE TRANSACTION 'rebate two';
ROLLBACK PREPARED 'rebate two';
\else
ROLLBACK;
\endif
SELECT * FROM state();
-- 18: in the other isolation levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO orders VALUES (74, 'ben', 74);
UPDATE orders SET total = 75 WHERE id = 74;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE orders SET total = 76 WHERE id = 74;
SAVEPOINT a;
DELETE FROM orders WHERE id = 74;
ROLLBACK TO a;
COMMIT;
SELECT * FROM state();
-- 19: prepared statements
BEGIN;
PREPARE add (int, numeric) AS INSERT INTO orders VALUES ($1, 'anna', $2) RETURNING id;
EXECUTE add (80, 8);
EXECUTE add (81, 9);
COMMIT;
DEALLOCATE add;
SELECT * FROM state();

--
-- Triggers of the user, sorting before ours and after, on the row and on the statement
--
DELETE FROM orders;
-- 20
SELECT * FROM state();
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_LEVEL = 'STATEMENT' THEN
        IF pg_trigger_depth() = 1 THEN
            UPDATE orders SET total = total + 1 WHERE note = TG_NAME;
        END IF;
        RETURN NULL;
    END IF;
    IF NEW.note = 'update ' || TG_NAME AND pg_trigger_depth() = 1 THEN
        UPDATE orders SET total = total * 2 WHERE id = NEW.id;
    ELSIF NEW.note = 'delete ' || TG_NAME THEN
        DELETE FROM orders WHERE id = NEW.id;
    ELSIF NEW.note = 'again ' || TG_NAME AND pg_trigger_depth() = 1 THEN
        DELETE FROM orders WHERE id = NEW.id;
        INSERT INTO orders VALUES (NEW.id, 'anna', NEW.total + 5, NEW.note);
    ELSIF NEW.note = 'undo ' || TG_NAME AND pg_trigger_depth() = 1 THEN
        BEGIN
            UPDATE orders SET total = total * 7 WHERE id = NEW.id;
            PERFORM rebate.flush();
            RAISE EXCEPTION 'no';
        EXCEPTION WHEN raise_exception THEN
            UPDATE orders SET total = total * 3 WHERE id = NEW.id;
        END;
    ELSIF NEW.note = 'other ' || TG_NAME AND pg_trigger_depth() = 1 THEN
        INSERT INTO orders VALUES (NEW.id + 1, 'anna', NEW.total, 'made') ON CONFLICT DO NOTHING;
        UPDATE orders SET total = total + 1 WHERE note = 'made';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a_row AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION meddle();
CREATE TRIGGER z_row AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION meddle();
CREATE TRIGGER a_statement AFTER INSERT OR UPDATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION meddle();
CREATE TRIGGER z_statement AFTER INSERT OR UPDATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION meddle();
-- 21: each alone, and all in one statement
INSERT INTO orders VALUES (200, 'ben', 10, 'update a_row');
INSERT INTO orders VALUES (202, 'ben', 10, 'update z_row');
INSERT INTO orders VALUES (204, 'ben', 10, 'delete a_row');
INSERT INTO orders VALUES (206, 'ben', 10, 'delete z_row');
INSERT INTO orders VALUES (208, 'ben', 10, 'again a_row');
INSERT INTO orders VALUES (210, 'ben', 10, 'again z_row');
INSERT INTO orders VALUES (212, 'ben', 10, 'undo a_row');
INSERT INTO orders VALUES (214, 'ben', 10, 'undo z_row');
INSERT INTO orders VALUES (216, 'ben', 10, 'other a_row');
INSERT INTO orders VALUES (218, 'ben', 10, 'other z_row');
INSERT INTO orders VALUES (220, 'ben', 10, 'a_statement');
INSERT INTO orders VALUES (222, 'ben', 10, 'z_statement');
SELECT id, customer, total, note FROM orders ORDER BY id;
SELECT * FROM state();
-- 22
INSERT INTO orders SELECT id + 100, customer, 10, note FROM orders WHERE note <> 'made';
SELECT * FROM state();
-- 23: the same by UPDATE
ALTER TABLE orders DISABLE TRIGGER USER;
ALTER TABLE orders ENABLE TRIGGER rebate_insert, ENABLE TRIGGER rebate_update, ENABLE TRIGGER rebate_delete;
UPDATE orders SET total = 10, customer = 'ben';
ALTER TABLE orders ENABLE TRIGGER USER;
UPDATE orders SET total = 20 WHERE id >= 300;
SELECT id, customer, total, note FROM orders ORDER BY id;
SELECT * FROM state();
-- 24: and rolled back
BEGIN;
UPDATE orders SET total = 50;
SAVEPOINT a;
INSERT INTO orders VALUES (500, 'ben', 10, 'again z_row'), (502, 'ben', 10, 'update a_row');
ROLLBACK TO a;
SELECT rebate.flush() > 0 AS flushed \gset
ROLLBACK;
SELECT * FROM state();
-- 25: before the row is stored
CREATE FUNCTION halve() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.note = 'skip' THEN
        RETURN NULL;
    END IF;
    NEW.total := NEW.total / 2;
    RETURN NEW;
END $$;
CREATE TRIGGER halve BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION halve();
INSERT INTO orders VALUES (600, 'anna', 100, NULL), (601, 'anna', 100, 'skip');
UPDATE orders SET note = 'halved again' WHERE id = 600;
SELECT * FROM state();
DROP TRIGGER halve ON orders;
DROP FUNCTION halve;

--
-- 26: deferred triggers, which come at the end of the transaction
--
DROP TRIGGER a_row ON orders;
DROP TRIGGER z_row ON orders;
DROP TRIGGER a_statement ON orders;
DROP TRIGGER z_statement ON orders;
DROP FUNCTION meddle;
DELETE FROM orders;
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.note = 'late update' THEN
        UPDATE orders SET total = total + 1, note = 'done' WHERE id = NEW.id;
    ELSIF NEW.note = 'late delete' THEN
        DELETE FROM orders WHERE id = NEW.id;
    ELSIF NEW.note = 'late insert' THEN
        INSERT INTO orders VALUES (NEW.id + 1, 'anna', NEW.total, 'done') ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER z_late AFTER INSERT OR UPDATE ON orders DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION late();
BEGIN;
INSERT INTO orders VALUES (700, 'ben', 10, 'late update'), (702, 'ben', 10, 'late delete'), (704, 'ben', 10, 'late insert');
COMMIT;
INSERT INTO orders VALUES (706, 'ben', 10, 'late update'), (708, 'ben', 10, 'late delete'), (710, 'ben', 10, 'late insert');
SELECT id, customer, total, note FROM orders ORDER BY id;
SELECT * FROM state();
-- 27: fired early, and with ours having posted
BEGIN;
INSERT INTO orders VALUES (720, 'ben', 10, 'late update'), (722, 'ben', 10, 'late delete'), (724, 'ben', 10, 'late insert');
SELECT rebate.flush() AS flushed \gset
SET CONSTRAINTS ALL IMMEDIATE;
UPDATE orders SET total = total + 1 WHERE id >= 720;
COMMIT;
SELECT * FROM state();
-- 28: a foreign key that is checked at the end, and fails
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO orders VALUES (730, 'nobody', 10, NULL);
COMMIT;
SELECT * FROM state();

--
-- Keys that change
--
DROP TRIGGER z_late ON orders;
DELETE FROM orders;
-- 29: two orders change places
INSERT INTO orders VALUES (1, 'anna', 10), (2, 'ben', 20);
BEGIN;
UPDATE orders SET id = 99 WHERE id = 1;
UPDATE orders SET id = 1 WHERE id = 2;
UPDATE orders SET id = 2 WHERE id = 99;
COMMIT;
SELECT order_key, member, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY order_key COLLATE "C";
SELECT * FROM state();
-- 30: an order leaves its key to another
BEGIN;
UPDATE orders SET id = 3, total = 30 WHERE id = 1;
INSERT INTO orders VALUES (1, 'anna', 40);
COMMIT;
SELECT order_key, member, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY order_key COLLATE "C";
SELECT * FROM state();
-- 31: or takes that of one that left
BEGIN;
DELETE FROM orders WHERE id = 1;
UPDATE orders SET id = 1 WHERE id = 3;
COMMIT;
SELECT order_key, member, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY order_key COLLATE "C";
SELECT * FROM state();
-- 32: there and back, and half of it rolled back
BEGIN;
UPDATE orders SET id = 4 WHERE id = 1;
UPDATE orders SET id = 1 WHERE id = 4;
SAVEPOINT a;
UPDATE orders SET id = 5, total = 50 WHERE id = 1;
SELECT rebate.flush() AS flushed \gset
ROLLBACK TO a;
UPDATE orders SET id = 6 WHERE id = 2;
COMMIT;
SELECT order_key, member, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY order_key COLLATE "C";
SELECT * FROM state();

--
-- Many
--
-- 33: more than the collection holds, with savepoints between
BEGIN;
INSERT INTO orders SELECT n, 'anna', 1 FROM generate_series(10001, 30000) n;
SAVEPOINT a;
UPDATE orders SET total = 2 WHERE id > 20000;
DELETE FROM orders WHERE id BETWEEN 15001 AND 25000;
ROLLBACK TO a;
INSERT INTO orders SELECT n, 'ben', 1 FROM generate_series(30001, 35000) n;
SAVEPOINT b;
UPDATE orders SET customer = 'ben' WHERE id BETWEEN 10001 AND 20000;
RELEASE b;
COMMIT;
SELECT * FROM state();
-- 34
BEGIN;
SAVEPOINT a;
DELETE FROM orders WHERE id > 10000;
INSERT INTO orders SELECT n, 'anna', 3 FROM generate_series(10001, 30000) n;
ROLLBACK TO a;
UPDATE orders SET total = total + 1 WHERE id = 10001;
COMMIT;
SELECT * FROM state();

--
-- 35: a trigger gives the new row another key, before our trigger has seen the first one
--
DELETE FROM orders;
CREATE FUNCTION rename() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        UPDATE orders SET id = id + 1000 WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a_rename AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION rename();
INSERT INTO orders VALUES (800, 'ben', 10, NULL);
SELECT order_key, decision, earned FROM rebate.decisions WHERE order_key IN ('800', '1800') AND earned <> 0;
SELECT * FROM state();
-- 36
UPDATE orders SET total = 20 WHERE id = 1800;
SELECT order_key, decision, earned FROM rebate.decisions WHERE order_key IN ('800', '1800', '2800') AND earned <> 0;
SELECT * FROM state();
-- 37
DELETE FROM orders;
SELECT * FROM state();

SELECT rebate.detach('orders');
SET client_min_messages = warning;
DROP TABLE orders, customer;
DROP FUNCTION late, rename;

\if :{?second}
\o
\set ECHO all
\else
\set second yes
\getenv srcdir PG_ABS_SRCDIR
\cd :srcdir
\i sql/statements.sql
-- both moments of posting left the same
SELECT posting, max(step) AS steps FROM outcome GROUP BY posting ORDER BY posting COLLATE "C";
SELECT step, member, pending, available, audit, array_agg(posting) AS only
FROM outcome GROUP BY 1, 2, 3, 4, 5 HAVING count(*) <> 2 ORDER BY 1, 2;
SET client_min_messages = warning;
RESET rebate.posting;
DROP TABLE outcome;
DROP FUNCTION state;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
\endif
