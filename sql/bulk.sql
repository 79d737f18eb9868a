-- Statements that bring more orders than rebate.collect_limit: they are posted at their end, account by account.  Here
-- the limit is so low that hundreds of orders are many runs, parts and, by their accounts, pieces.  The rule pays 10 %.
SET client_min_messages = warning;
SET timezone = 'UTC';
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2), state text NOT NULL DEFAULT 'paid', note text);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', status => 'state',
    phases => '{"new": "tracked", "paid": "pending", "done": "confirmed", "off": "void"}');
SELECT rebate.set_rule('ten', percent => 10, hold => '1 day');
SET rebate.collect_limit = 10;

-- what the rows say, and what the ledger says; a sound ledger has no line in "audit"
CREATE FUNCTION state(OUT orders bigint, OUT tenth numeric, OUT ledger numeric, OUT accounts bigint, OUT audit text)
LANGUAGE sql AS $$
    SELECT (SELECT count(*) FROM orders),
           (SELECT sum(round(total / 10, 2)) FROM orders WHERE customer IS NOT NULL AND state <> 'off'),
           (SELECT sum(tracked + pending + maturing + available) FROM rebate.balances WHERE member ~ '^[a-z]'),
           (SELECT count(*) FROM rebate.balances WHERE member ~ '^[a-z]'),
           left((SELECT string_agg(concat_ws(': ', a.violation, a.subject), '; ') FROM rebate.audit() a), 100)
$$;
-- accounts with entries, and those of them that were brought along more than once: each time has its own moment
CREATE FUNCTION turns(OUT accounts bigint, OUT several bigint) LANGUAGE sql AS $$
    SELECT count(*), count(*) FILTER (WHERE n > 1)
      FROM (SELECT count(DISTINCT posted_at) AS n FROM rebate.entries GROUP BY account_id) a
$$;

-- rebates of nothing, and no account
INSERT INTO orders SELECT n, 'm' || n, 0.04 FROM generate_series(1, 30) n;
SELECT * FROM state();

--
-- Once an account, its entries in the order of the rows
--
INSERT INTO orders SELECT n, 'm' || n % 8, n FROM generate_series(31, 90) n;
SELECT * FROM state();
SELECT * FROM turns();
SELECT member, count(*), min(seq), max(seq),
       array_agg(order_key::int ORDER BY seq) = array_agg(order_key::int ORDER BY order_key::int) AS in_order
  FROM rebate.entries GROUP BY member ORDER BY member;
-- of one account no more than the limit at once
BEGIN;
INSERT INTO orders SELECT n, 'one', n FROM generate_series(100, 199) n;
SELECT * FROM turns();
SELECT count(*), max(seq) FROM rebate.entries WHERE member = 'one';
ROLLBACK;
-- more accounts than 64 times the limit
BEGIN;
INSERT INTO orders SELECT n, 'm' || n % 700, n FROM generate_series(1001, 2400) n;
SELECT * FROM turns();
SELECT * FROM state();
ROLLBACK;
SELECT * FROM state();

--
-- Orders of every kind
--
INSERT INTO orders
SELECT n, CASE WHEN n % 7 <> 0 THEN 'k' || n % 5 END, CASE n % 11 WHEN 0 THEN 0 ELSE n END,
       (ARRAY['new', 'paid', 'done', 'off'])[1 + n % 4]
  FROM generate_series(101, 200) n;
SELECT * FROM state();
SELECT decision, count(*), sum(rebates), sum(earned) FROM rebate.decisions GROUP BY decision ORDER BY decision;
SELECT phase, bucket, count(*), sum(earned), count(due) FROM rebate.accruals WHERE order_key::int > 100 GROUP BY 1, 2 ORDER BY 1, 2;
-- some cannot be decided
INSERT INTO orders
SELECT n, 'k' || n % 5, CASE WHEN n % 25 = 0 THEN 'NaN' ELSE n::numeric END FROM generate_series(201, 300) n;
SELECT order_key, message, attempts FROM rebate.failures ORDER BY order_key;
UPDATE orders SET total = 1 WHERE total = 'NaN';
SELECT * FROM state();
-- two accounts of one member, rules that pay together
CREATE TABLE sale (no int PRIMARY KEY, who int, sum numeric, cur text, shop text);
SELECT rebate.attach('sale', member => 'who', amount => 'sum', currency => 'cur', attributes => '{"shop": "shop"}');
SELECT rebate.set_rule('shop a', fixed => 5, currency => 'EUR', scope => '{"shop": "a"}', source => 'sale');
INSERT INTO sale SELECT n, n % 4, 100, CASE WHEN n % 2 = 0 THEN 'EUR' ELSE 'JPY' END, CASE WHEN n % 3 = 0 THEN 'a' ELSE 'b' END
  FROM generate_series(1, 48) n;
INSERT INTO sale SELECT n, 0, 100, CASE WHEN n % 2 = 0 THEN 'EUR' ELSE 'JPY' END, 'a' FROM generate_series(101, 120) n;
SELECT member, currency, maturing + available AS earned, last_entry FROM rebate.balances WHERE member IN ('0', '1', '2', '3') ORDER BY 1, 2;
SELECT rebate.end_rule('shop a');
SELECT * FROM rebate.audit();

--
-- COPY, and statements with several parts
--
COPY orders (id, customer, total) FROM PROGRAM 'for i in $(seq 301 330); do printf "%d\tc%d\t%d\n" $i $((i % 4)) $i; done';
SELECT * FROM state();
WITH first AS (INSERT INTO orders SELECT n, 'w' || n % 4, n FROM generate_series(401, 430) n RETURNING id),
     second AS (INSERT INTO orders SELECT n, 'w' || n % 5, n FROM generate_series(431, 460) n RETURNING id)
SELECT (SELECT count(*) FROM first), (SELECT count(*) FROM second);
SELECT * FROM state();
-- half of them are there
INSERT INTO orders SELECT n, 'u' || n % 3, 2 * n FROM generate_series(441, 480) n
    ON CONFLICT (id) DO UPDATE SET total = excluded.total, customer = excluded.customer;
SELECT * FROM state();
INSERT INTO orders SELECT n, 'v' || n % 3, 3 * n FROM generate_series(461, 500) n ON CONFLICT DO NOTHING;
SELECT * FROM state();
MERGE INTO orders o USING (SELECT n, 'x' || n % 3 AS customer FROM generate_series(481, 540) n) s ON o.id = s.n
    WHEN MATCHED AND s.n % 2 = 0 THEN DELETE
    WHEN MATCHED THEN UPDATE SET total = 1
    WHEN NOT MATCHED THEN INSERT VALUES (s.n, s.customer, s.n);
SELECT * FROM state();

--
-- Known orders
--
DELETE FROM orders WHERE id BETWEEN 481 AND 520;
INSERT INTO orders SELECT n, 'y' || n % 3, 5 * n FROM generate_series(471, 550) n ON CONFLICT DO NOTHING;
SELECT * FROM state();
SELECT count(*) FROM rebate.decisions WHERE source = 'public.orders' AND order_key::int BETWEEN 471 AND 550;
-- in one transaction, again and again
BEGIN;
DELETE FROM orders WHERE id > 500;
INSERT INTO orders SELECT n, 'z' || n % 3, n FROM generate_series(501, 550) n;
DELETE FROM orders WHERE id > 520;
INSERT INTO orders SELECT n, 'z' || n % 2, 2 * n FROM generate_series(521, 560) n;
UPDATE orders SET total = total + 1 WHERE id > 500;
COMMIT;
SELECT * FROM state();

--
-- Savepoints and errors in the middle
--
BEGIN;
INSERT INTO orders SELECT n, 's' || n % 3, n FROM generate_series(601, 630) n;
SAVEPOINT a;
INSERT INTO orders SELECT n, 's' || n % 4, n FROM generate_series(631, 660) n;
UPDATE orders SET total = 2 * total WHERE id BETWEEN 601 AND 660;
ROLLBACK TO a;
INSERT INTO orders SELECT n, 's' || n % 2, n FROM generate_series(641, 670) n;
RELEASE a;
SAVEPOINT b;
INSERT INTO orders SELECT n, 's', 100 / (n - 695) FROM generate_series(671, 700) n;
ROLLBACK TO b;
DO $$
BEGIN
    INSERT INTO orders SELECT n, 's' || n % 3, n FROM generate_series(671, 685) n;
    BEGIN
        INSERT INTO orders SELECT n, 's' || n % 3, n FROM generate_series(686, 700) n;
        DELETE FROM orders WHERE id BETWEEN 675 AND 690;
        RAISE 'back';
    EXCEPTION WHEN raise_exception THEN
        INSERT INTO orders SELECT n, 's' || n % 2, n FROM generate_series(690, 700) n;
    END;
END $$;
COMMIT;
SELECT * FROM state();
-- ours
SELECT rebate.attach('sale', member => 'who', amount => 'sum', currency => 'cur', on_error => 'abort', replace => true);
INSERT INTO sale SELECT n, n % 4, CASE n WHEN 230 THEN 'NaN' ELSE 100::numeric END, 'EUR' FROM generate_series(201, 240) n;
INSERT INTO sale SELECT n, n % 4, 100, 'EUR' FROM generate_series(201, 240) n;
SELECT member, currency, maturing + available AS earned, last_entry FROM rebate.balances WHERE member IN ('0', '1', '2', '3') ORDER BY 1, 2;

--
-- Triggers of the user's own
--
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.note = 'more' THEN
        UPDATE orders SET total = total + 10 WHERE id = NEW.id;
    ELSIF NEW.note = 'gone' THEN
        DELETE FROM orders WHERE id = NEW.id;
    ELSIF NEW.note = 'moved' THEN
        UPDATE orders SET id = id + 10000 WHERE id = NEW.id;
    ELSIF NEW.note = 'many' THEN
        INSERT INTO orders SELECT NEW.id * 100 + n, 't' || n % 3, 1 FROM generate_series(1, 15) n;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER meddle AFTER INSERT ON orders FOR EACH ROW WHEN (NEW.note IS NOT NULL) EXECUTE FUNCTION meddle();
INSERT INTO orders
SELECT n, 't' || n % 4, n, 'paid', (ARRAY['more', 'gone', 'many'])[n % 8] FROM generate_series(701, 760) n;
SELECT * FROM state();
-- a new order is taken to another key before its own statement is told of it
INSERT INTO orders
SELECT n, 't' || n % 4, n, 'paid', CASE n WHEN 777 THEN 'moved' END FROM generate_series(761, 790) n;
SELECT * FROM state();
-- the same of more than are remembered
BEGIN;
SET LOCAL rebate.collect_limit = 1;
INSERT INTO orders SELECT n, 'r' || n % 4, n, 'paid', 'moved' FROM generate_series(5001, 10000) n;
SELECT * FROM state();
ROLLBACK;
-- before ours, and after ours
CREATE FUNCTION close_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE orders SET state = CASE TG_NAME WHEN 'a_close' THEN 'done' ELSE 'off' END WHERE id IN (SELECT id FROM fresh WHERE id % 3 = TG_ARGV[0]::int);
    RETURN NULL;
END $$;
CREATE TRIGGER a_close AFTER INSERT ON orders REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION close_orders(0);
CREATE TRIGGER z_close AFTER INSERT ON orders REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION close_orders(1);
INSERT INTO orders SELECT n, 'q' || n % 4, n FROM generate_series(801, 860) n;
SELECT * FROM state();
SELECT phase, count(*), sum(earned) FROM rebate.accruals WHERE order_key::int BETWEEN 801 AND 860 GROUP BY phase ORDER BY phase;
DROP TRIGGER a_close ON orders;
DROP TRIGGER z_close ON orders;
DROP TRIGGER meddle ON orders;

--
-- Expressions that may raise: only their rows are set aside
--
SELECT rebate.set_rule('inverse', percent => 1, condition => '1000 / (id - 905) <> 1', source => 'orders');
INSERT INTO orders SELECT n, 'e' || n % 4, n FROM generate_series(901, 1520) n;
SELECT order_key, message FROM rebate.failures;
SELECT count(*), sum(earned) FROM rebate.accruals WHERE rule = 'inverse';
SELECT rebate.end_rule('inverse');
DELETE FROM orders WHERE id BETWEEN 901 AND 1520;
SELECT * FROM state();

--
-- The same ledger at whatever moment it is posted
--
SET rebate.posting = statement;
INSERT INTO orders SELECT n, 'p' || n % 4, n FROM generate_series(1701, 1760) n;
SELECT * FROM state();
RESET rebate.posting;

--
-- Partitions
--
CREATE TABLE part (id int, day date, customer text, total numeric, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE part_2 (total numeric, customer text, gone int, day date NOT NULL, id int NOT NULL);
ALTER TABLE part_2 DROP COLUMN gone;
ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
SELECT rebate.attach('part', member => 'customer', amount => 'total', currency => 'EUR');
INSERT INTO part SELECT n, date '2026-01-20' + n % 20, '9' || n % 3, n FROM generate_series(1, 60) n;
INSERT INTO part_2 SELECT n, '9' || n % 3, date '2026-02-20', n FROM generate_series(61, 90) n;
SELECT member, maturing, last_entry FROM rebate.balances WHERE member LIKE '9_' ORDER BY member;
SELECT * FROM rebate.audit();

--
-- Keys that end in one another, long ones, and equal beginnings
--
CREATE TABLE word (key text PRIMARY KEY, who text, total numeric);
SELECT rebate.attach('word', member => 'who', amount => 'total', currency => 'EUR');
INSERT INTO word SELECT repeat('a', n), '99', 10 FROM generate_series(1, 40) n;
DELETE FROM word WHERE length(key) % 3 = 0;
INSERT INTO word SELECT repeat(c, n), '99', 10 FROM generate_series(1, 1200, 13) n, unnest(ARRAY['a', 'b', 'aé']) c ON CONFLICT DO NOTHING;
DELETE FROM word WHERE length(key) % 4 = 0;
INSERT INTO word SELECT repeat(c, n), '99', 10 FROM generate_series(1, 1200, 13) n, unnest(ARRAY['a', 'b', 'aé']) c ON CONFLICT DO NOTHING;
SELECT (SELECT count(*) FROM word), maturing FROM rebate.balances WHERE member = '99';
SELECT * FROM rebate.audit();
-- known ones far apart from each other
INSERT INTO orders SELECT n, 'far', n FROM generate_series(20001, 20800) n;
DELETE FROM orders WHERE id > 20000 AND id % 40 = 0;
INSERT INTO orders SELECT n, 'far', n FROM generate_series(20040, 20800, 40) n;
SELECT (SELECT sum(round(total / 10, 2)) FROM orders WHERE customer = 'far') AS tenth, pending FROM rebate.balances WHERE member = 'far';
SELECT * FROM rebate.audit();

-- more than fits into maintenance_work_mem: they are put aside on disk, beginning with those that were in memory
CREATE TABLE page (key text PRIMARY KEY, who text, total numeric);
SELECT rebate.attach('page', member => 'who', amount => 'total', currency => 'EUR');
SET maintenance_work_mem = '1MB';
INSERT INTO page SELECT repeat(md5(n::text), 50) || n, CASE WHEN n % 8 > 0 THEN '8' || n % 8 END, n FROM generate_series(10001, 11600) n;
RESET maintenance_work_mem;
SELECT member, count(*), max(seq), sum(amount),
       array_agg(right(order_key, 5) ORDER BY seq) = array_agg(right(order_key, 5) ORDER BY right(order_key, 5)) AS in_order
  FROM rebate.entries WHERE member LIKE '8_' GROUP BY member ORDER BY member;
SELECT decision, count(*) FROM rebate.decisions WHERE source = 'public.page' GROUP BY decision ORDER BY decision;
SELECT violation, count(*) FROM rebate.audit() GROUP BY violation;

--
-- Deferred, then reconciled; orders wait while the next statement comes
--
SET rebate.mode = defer;
INSERT INTO orders SELECT n, 'd' || n % 4, n FROM generate_series(1601, 1630) n;
RESET rebate.mode;
INSERT INTO orders SELECT n, 'd' || n % 4, n FROM generate_series(1631, 1660) n;
SELECT * FROM rebate.reconcile('orders');
SELECT * FROM state();

DROP TABLE orders, sale, part, word, page;
DROP FUNCTION state, turns, meddle, close_orders;
SET client_min_messages = warning;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
