--
-- Savepoints, three deep: what each level does to orders, whether it posts, and whether it is released or rolled back,
-- in every combination, by SAVEPOINT and by blocks with exceptions, and with both moments of posting.  The rule pays
-- 10 %: at the end each order must have a tenth of its total, for its member, and the audit finds nothing.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;
SELECT rebate.set_rule('ten', percent => 10);

CREATE TABLE trial (trial int PRIMARY KEY, posting text, way text, acts text[], posts boolean[], ends text[]);
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, trial int,
    CONSTRAINT known FOREIGN KEY (trial) REFERENCES trial DEFERRABLE);
CREATE TABLE linked (id int PRIMARY KEY, customer text, total numeric, returns int, trial int);
CREATE INDEX ON orders (trial);
CREATE INDEX ON linked (trial);
CREATE INDEX ON linked (returns);
SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
SELECT rebate.attach('linked', 'customer', 'total', 'EUR', original => '{returns}');

-- depths 1 to 3; the acts go round, so that each meets each at every level
INSERT INTO trial
SELECT row_number() OVER (ORDER BY posting COLLATE "C", way COLLATE "C", depth, round, posts, ends), posting, way,
    ARRAY(SELECT (ARRAY['change', 'delete', 'insert', 'rekey', 'again', 'return'])[1 + (round + level * (1 + round / 6)) % 6]
          FROM generate_series(1, depth) level ORDER BY level),
    ARRAY(SELECT posts >> (level - 1) & 1 = 1 FROM generate_series(1, depth) level ORDER BY level),
    ARRAY(SELECT CASE WHEN ends >> (level - 1) & 1 = 1 THEN 'rollback' ELSE 'release' END FROM generate_series(1, depth) level ORDER BY level)
FROM unnest('{commit, statement}'::text[]) posting, unnest('{savepoint, block}'::text[]) way,
    generate_series(1, 3) depth, generate_series(0, 11) round, generate_series(0, 7) posts, generate_series(0, 7) ends
WHERE posts >> depth = 0 AND ends >> depth = 0 AND (round + posts + ends) % 4 = 0;
SELECT way, posting, cardinality(acts) AS depth, count(*) FROM trial GROUP BY 1, 2, 3 ORDER BY way COLLATE "C", posting COLLATE "C", 3;

-- what each begins with: two orders that are posted, two that are returned in part
INSERT INTO orders SELECT trial * 20 + i, 'c' || trial % 7, i * 10, trial FROM trial, generate_series(1, 2) i;
INSERT INTO linked SELECT trial * 20 + i, 'l' || trial % 7, i * 10, NULL, trial FROM trial, generate_series(1, 2) i;
INSERT INTO linked SELECT trial * 20 + 3, 'l' || trial % 7, -1, trial * 20 + 1, trial FROM trial;

-- one act of a trial at a level, as a statement
CREATE FUNCTION act(trial int, act text, level int) RETURNS text LANGUAGE sql AS $$
    SELECT format(CASE act
        WHEN 'change' THEN 'UPDATE orders SET total = total + %2$s WHERE trial = %1$s'
        WHEN 'delete' THEN 'DELETE FROM orders WHERE trial = %1$s AND id %% 2 = %2$s %% 2'
        WHEN 'insert' THEN 'INSERT INTO orders VALUES (%1$s * 20 + 10 + %2$s, ''c'', 100 * %2$s, %1$s)'
        WHEN 'rekey' THEN 'UPDATE orders SET id = %1$s * 20 + 19 - id %% 20 WHERE id = (SELECT min(id) FROM orders WHERE trial = %1$s)'
        WHEN 'again' THEN 'WITH gone AS (DELETE FROM orders WHERE trial = %1$s RETURNING id, total)
            INSERT INTO orders SELECT id, ''d'', total * 2, %1$s FROM gone ON CONFLICT (id) DO UPDATE SET customer = ''e'''
        WHEN 'return' THEN 'UPDATE linked SET total = total - %2$s, returns = CASE WHEN id %% 20 = 3 THEN %1$s * 20 + %2$s %% 3 END WHERE trial = %1$s'
        END, trial, level)
$$;
-- the orders without their ledger, or with another one
CREATE FUNCTION wrong() RETURNS TABLE (trial int, acts text[], posts boolean[], ends text[], order_key text, owed text, posted text) LANGUAGE sql AS $$
    WITH owed AS (
        SELECT 'public.orders' AS source, id::text AS order_key, trial, round(total / 10, 2) AS earned, customer AS member FROM orders
        UNION ALL
        SELECT 'public.linked', o.id::text, o.trial, round((o.total + COALESCE(sum(r.total), 0)) / 10, 2), o.customer
        FROM linked o LEFT JOIN linked r ON r.returns = o.id WHERE o.returns IS NULL GROUP BY o.id
    ), posted AS (
        SELECT source, order_key, sum(earned) AS earned, min(member) AS member, count(*) FROM rebate.accruals WHERE earned <> 0 GROUP BY source, order_key
    )
    SELECT t.trial, t.acts, t.posts, t.ends, o.source || ' ' || o.order_key, concat_ws(' ', o.earned, o.member), concat_ws(' ', p.earned, p.member)
    FROM (SELECT * FROM owed WHERE earned <> 0) o FULL JOIN posted p USING (source, order_key) LEFT JOIN trial t ON t.trial = COALESCE(o.trial, order_key::int / 20)
    WHERE (o.earned, o.member, 1) IS DISTINCT FROM (p.earned, p.member, p.count)
$$;

-- by blocks: an inner level between an act and one more change
CREATE PROCEDURE nest(t trial, level int) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE act(t.trial, t.acts[level], level);
    IF t.posts[level] THEN
        PERFORM rebate.flush();
    END IF;
    IF level < cardinality(t.acts) THEN
        BEGIN
            CALL nest(t, level + 1);
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
        UPDATE orders SET total = total + 0.5 WHERE trial = t.trial;
    END IF;
    IF t.ends[level] = 'rollback' THEN
        RAISE EXCEPTION 'back';
    END IF;
END $$;
CREATE PROCEDURE blocks() LANGUAGE plpgsql AS $$
DECLARE
    t trial;
BEGIN
    FOR t IN SELECT * FROM trial WHERE way = 'block' ORDER BY trial LOOP
        PERFORM set_config('rebate.posting', t.posting, false);
        UPDATE orders SET total = total + 7 WHERE id = t.trial * 20 + 1;
        BEGIN
            CALL nest(t, 1);
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
        COMMIT;
    END LOOP;
END $$;
CALL blocks();
SELECT * FROM wrong();

-- by savepoints: level 1 begins, level 2 begins, ... level 2 ends, level 1 ends
\set ECHO none
SELECT statement FROM trial t CROSS JOIN LATERAL (
    SELECT 0, ARRAY['SET rebate.posting = ' || posting, 'BEGIN',
        format('UPDATE orders SET total = total + 7 WHERE id = %s', t.trial * 20 + 1)]
    UNION ALL
    SELECT level, ARRAY['SAVEPOINT s' || level, act(t.trial, acts[level], level)]
        || CASE WHEN posts[level] THEN '{DO $$ BEGIN PERFORM rebate.flush\(\); END $$}' ELSE '{}' END::text[]
    FROM generate_series(1, cardinality(acts)) level
    UNION ALL
    SELECT 100 - level, ARRAY[CASE ends[level] WHEN 'release' THEN 'RELEASE s' ELSE 'ROLLBACK TO s' END || level]
        || CASE WHEN level > 1 THEN ARRAY[format('UPDATE orders SET total = total + 0.5 WHERE trial = %s', t.trial)] ELSE '{}' END::text[]
    FROM generate_series(1, cardinality(acts)) level
    UNION ALL
    SELECT 100, '{COMMIT}') s (place, statements)
CROSS JOIN LATERAL unnest(statements) WITH ORDINALITY u (statement, n)
WHERE way = 'savepoint' ORDER BY trial, place, n
\gexec
\set ECHO all
RESET rebate.posting;
SELECT * FROM wrong();
SELECT violation, count(*) FROM rebate.audit() GROUP BY violation;
-- nothing was lost on the way: every way of ending has left orders of every kind
SELECT way, count(*) FILTER (WHERE id % 20 < 3) AS old, count(*) FILTER (WHERE id % 20 BETWEEN 11 AND 13) AS new,
    count(*) FILTER (WHERE id % 20 > 16) AS moved, sum(o.total)
FROM orders o JOIN trial USING (trial) GROUP BY way ORDER BY way COLLATE "C";

--
-- Errors at a savepoint's end
--
DELETE FROM orders;
DELETE FROM linked;
INSERT INTO orders VALUES (1, 'ann', 100), (2, 'ben', 200);
-- there is nothing to release: the level fails, and goes back
BEGIN;
SAVEPOINT a;
UPDATE orders SET total = 110 WHERE id = 1;
SAVEPOINT b;
UPDATE orders SET total = 120 WHERE id = 1;
SELECT rebate.flush() AS flushed \gset
RELEASE nothing;
RELEASE a;
ROLLBACK TO b;
UPDATE orders SET total = 130 WHERE id = 2;
RELEASE a;
COMMIT;
SELECT order_key, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY order_key;
-- back twice to the same place; out of two levels at once
BEGIN;
SAVEPOINT a;
UPDATE orders SET total = 140;
SELECT rebate.flush() AS flushed \gset
ROLLBACK TO a;
UPDATE orders SET total = 150 WHERE id = 1;
ROLLBACK TO a;
SAVEPOINT b;
DELETE FROM orders;
SELECT rebate.flush() AS flushed \gset
SAVEPOINT c;
INSERT INTO orders VALUES (1, 'ann', 160);
RELEASE b;
ROLLBACK TO a;
SAVEPOINT b;
UPDATE orders SET total = 170 WHERE id = 1;
SAVEPOINT c;
UPDATE orders SET total = 180 WHERE id = 2;
RELEASE a;
COMMIT;
SELECT order_key, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY order_key;
-- a deferred constraint that fails when it is asked, inside a savepoint, after posting; then in the end
BEGIN;
SET CONSTRAINTS known DEFERRED;
UPDATE orders SET total = 190 WHERE id = 1;
SAVEPOINT a;
INSERT INTO orders VALUES (3, 'cat', 300, -1);
UPDATE orders SET total = 200 WHERE id = 1;
SELECT rebate.flush() AS flushed \gset
SET CONSTRAINTS known IMMEDIATE;
ROLLBACK TO a;
UPDATE orders SET total = 210 WHERE id = 2;
COMMIT;
BEGIN;
SET CONSTRAINTS known DEFERRED;
UPDATE orders SET total = 0;
SELECT rebate.flush() AS flushed \gset
INSERT INTO orders VALUES (3, 'cat', 300, -1);
COMMIT;
SELECT order_key, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY order_key;
-- posting itself fails inside a block: the row is refused, and what waited before still waits
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', on_error => 'abort', replace => true);
DO $$
BEGIN
    UPDATE orders SET total = 220 WHERE id = 1;
    FOR i IN 1..3 LOOP
        BEGIN
            UPDATE orders SET total = total + 1 WHERE id = 1;
            UPDATE orders SET total = 230 WHERE id = 2;
            UPDATE orders SET total = NULL WHERE id = 2;
            PERFORM rebate.flush();
            RAISE NOTICE 'not reached';
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE '%', SQLERRM;
        END;
        PERFORM rebate.flush();
    END LOOP;
    UPDATE orders SET total = 240 WHERE id = 2;
END $$;
SELECT order_key, earned FROM rebate.accruals WHERE earned <> 0 ORDER BY order_key;
SELECT * FROM wrong();
SELECT * FROM rebate.audit();

--
-- A failure of a statement stands although the collection is posted, and forgotten, before the statement comes to the
-- rows that it failed.
--
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', replace => true);
DELETE FROM orders;
INSERT INTO orders SELECT i, 'many', 10 FROM generate_series(1, 17000) i;
INSERT INTO orders VALUES (17001, 'moves', 100), (17002, 'moves', 200);
UPDATE orders SET id = CASE WHEN id > 17000 THEN id + 100000 ELSE id END, total = total + 10;
SELECT order_key, sqlstate, message, attempts FROM rebate.failures ORDER BY order_key COLLATE "C";
SELECT member, available, last_entry FROM rebate.balances WHERE available <> 0 ORDER BY member;
-- the next statement decides such an order by its row
UPDATE orders SET total = 30 WHERE id > 100000;
SELECT order_key, sqlstate, message, attempts FROM rebate.failures ORDER BY order_key COLLATE "C";
SELECT violation, count(*) FROM rebate.audit() GROUP BY violation;

-- and so does a person, in the same transaction
BEGIN;
UPDATE orders SET id = id + 50000 WHERE id IN (1, 2);
SELECT rebate.flush();
SELECT rebate.reconcile('orders', ARRAY['1', '2', '50001', '50002']);
COMMIT;
SELECT order_key, message FROM rebate.failures WHERE order_key IN ('1', '2', '50001', '50002');
SELECT order_key, earned FROM rebate.accruals WHERE order_key IN ('1', '2', '50001', '50002') ORDER BY order_key COLLATE "C";
SELECT violation, count(*) FROM rebate.audit() GROUP BY violation;

--
-- A function that a condition calls, which has a savepoint of its own, inside a flush: it is no place to post from.
--
DELETE FROM orders;
CREATE FUNCTION three_letters(name text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM 1 / (length(name) - 3);
    RETURN false;
EXCEPTION WHEN division_by_zero THEN
    PERFORM rebate.flush();
    RETURN true;
END $$;
SELECT rebate.allow_function('three_letters(text)');
BEGIN;
SELECT rebate.set_rule('three', percent => 1, condition => 'three_letters(customer)');
INSERT INTO orders VALUES (20001, 'ann', 100), (20002, 'bert', 100), (20003, 'cat', 100);
UPDATE orders SET total = 200;
SAVEPOINT a;
UPDATE orders SET total = 300;
SELECT rebate.flush();
ROLLBACK TO a;
COMMIT;
SELECT order_key, rule, earned FROM rebate.accruals WHERE earned <> 0 AND order_key >= '2' ORDER BY order_key, rule COLLATE "C";
SELECT member, available, last_entry FROM rebate.balances WHERE available <> 0 ORDER BY member;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP TABLE orders, linked, trial CASCADE;
DROP FUNCTION act, wrong, three_letters;
DROP PROCEDURE IF EXISTS nest, blocks;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
