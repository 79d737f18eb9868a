--
-- Values at the edges: an order goes through whatever it holds, and what cannot
-- be decided is set aside.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
CREATE TABLE o (id int PRIMARY KEY, m text, amount numeric, qty numeric, conf timestamptz, refunded numeric, at timestamptz DEFAULT now());
SELECT rebate.attach('o', 'm', 'amount', 'EUR', quantity => 'qty', confirmed_at => 'conf', refunded => 'refunded', order_time => 'at');
SELECT rebate.set_rule('ten', percent => 10, hold => '30 days');
\set VERBOSITY terse
INSERT INTO o VALUES (1, 'ann', 100, 1, '294276-12-31 00:00+00', 0);
INSERT INTO o VALUES (2, 'ann', '1e100000'::numeric, 1, NULL, 1);
INSERT INTO o VALUES (3, repeat('x', 12800), 100, 1, NULL, 0);
INSERT INTO o VALUES (4, 'ann', '-1e100', 1, NULL, 0);
INSERT INTO o VALUES (5, 'ann', 'NaN', 1, NULL, 0);
INSERT INTO o VALUES (6, 'ann', 'Infinity', 1, NULL, 0);
INSERT INTO o VALUES (7, 'ann', 100, '-Infinity', NULL, 0);
INSERT INTO o VALUES (8, 'ann', 100, 1, NULL, 'NaN');
INSERT INTO o VALUES (9, 'ann', 100, 1, NULL, -1);
INSERT INTO o VALUES (10, 'ann', 100, 1, NULL, 0, 'infinity');
INSERT INTO o VALUES (11, 'ann', 100, 1, NULL, 0, '4713-01-01 BC');
INSERT INTO o VALUES (12, 'ann', 100, 1, NULL, 0, now() + interval '2 days');
INSERT INTO o VALUES (13, 'ann', ('0.' || repeat('1', 1000))::numeric, 1, NULL, 0);
INSERT INTO o VALUES (14, 'ann', 1e35, 1, NULL, 0);
INSERT INTO o VALUES (15, 'ann', 100000000000000.1, 1, now(), 0);
INSERT INTO o VALUES (16, 'bob', 100000000000000, 1, now(), 0);
SELECT order_key, sqlstate, message FROM rebate.failures ORDER BY order_key::int;
SELECT member, maturing FROM rebate.balances ORDER BY member;
SELECT * FROM rebate.audit();

-- the balance of an account has an end: the order that would pass it fails
BEGIN;
INSERT INTO o SELECT i, 'carl', 100000000000000, 1, now(), 0 FROM generate_series(10001, 19300) i;
COMMIT;
SELECT member, maturing FROM rebate.balances WHERE member = 'carl';

-- a key that no index of the store can hold
CREATE TABLE k (id bytea PRIMARY KEY, m text, amount numeric);
SELECT rebate.attach('k', 'm', 'amount', 'EUR');
INSERT INTO k SELECT decode(string_agg(md5(i::text), ''), 'hex'), 'ann', 1 FROM generate_series(1, 150) i;
UPDATE k SET amount = 2;
SELECT source, message FROM rebate.failures WHERE source = 'public.k';
DELETE FROM k;
SELECT * FROM rebate.audit();

-- a row that is passed over does not take its neighbour's error
CREATE TABLE n (id int PRIMARY KEY, m text, amount numeric, qty numeric, at timestamptz);
INSERT INTO n VALUES (1, 'ann', 100, 1, '2000-01-01'), (2, 'ann', 100, 0, now()), (3, 'ann', 100, 1, '2000-01-01');
SELECT rebate.attach('n', 'm', 'amount / qty', 'EUR', order_time => 'at', since => now() - interval '1 day');
SELECT order_key, sqlstate, message FROM rebate.failures WHERE source = 'public.n';
SELECT order_key FROM rebate.decisions WHERE source = 'public.n';

-- the trigger functions are for triggers only
SELECT rebate.collect();
SELECT rebate.collect_truncate();
CREATE TRIGGER zz BEFORE INSERT ON n FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect_truncate();
INSERT INTO n VALUES (4, 'ann', 100, 1, now());
DROP TRIGGER zz ON n;
CREATE TRIGGER zz AFTER INSERT ON n FOR EACH ROW EXECUTE FUNCTION rebate.collect();
INSERT INTO n VALUES (4, 'ann', 100, 1, now());
DROP TRIGGER zz ON n;

-- many orders, many failures, inside a savepoint: posted when the collection is full, and that is all
CREATE TABLE b (id int PRIMARY KEY, m text, amount numeric);
INSERT INTO b SELECT i, 'm' || i % 10, 100 FROM generate_series(1, 20000) i;
INSERT INTO b VALUES (119990, 'm1', 5);
SELECT rebate.attach('b', 'm', 'amount', 'EUR', on_truncate => 'void');
BEGIN;
DELETE FROM b WHERE id = 119990;
SAVEPOINT s;
UPDATE b SET id = id + 100000 WHERE id <= 20000;
SELECT rebate.flush() > 0 AS flushed;
ROLLBACK TO s;
COMMIT;
SELECT * FROM rebate.audit();
-- orders that were posted early and are met again by the same statement
UPDATE b SET id = id + 100000 WHERE id <= 20000;
SELECT count(*), sum(earned) FROM rebate.accruals WHERE source = 'public.b';
TRUNCATE b;
INSERT INTO b SELECT i, 'm' || i % 10, 10 FROM generate_series(200001, 200100) i;
BEGIN;
UPDATE b SET amount = 20;
INSERT INTO b SELECT i, 'm' || i % 10, 10 FROM generate_series(200101, 220000) i
	UNION ALL SELECT i, 'm' || i % 10, 30 FROM generate_series(200001, 200100) i
	ON CONFLICT (id) DO UPDATE SET amount = excluded.amount;
COMMIT;
SELECT count(*), sum(earned) FROM rebate.accruals WHERE source = 'public.b' AND earned <> 0;
SELECT * FROM rebate.audit();
-- no session setting moves a limit, and a switch to read-only none of the money
SET timezone = 'AAA0BBB-167,J1,J320';
INSERT INTO o VALUES (20, 'dora', 100, 1, NULL, 0, now() - interval '721 hours');
RESET timezone;
SELECT order_key, message FROM rebate.failures WHERE order_key = '20';
BEGIN;
INSERT INTO o VALUES (21, 'emma', 100, 1, now(), 0);
SET TRANSACTION READ ONLY;
COMMIT;
SELECT member, maturing FROM rebate.balances WHERE member IN ('dora', 'emma');

-- rows of an inheritance child, made while nobody watched, are not the table's
ALTER EVENT TRIGGER rebate_follow_partitions DISABLE;
CREATE TABLE kid () INHERITS (n);
ALTER EVENT TRIGGER rebate_follow_partitions ENABLE ALWAYS;
INSERT INTO kid VALUES (50, 'kid', 100, 1, now());
UPDATE n SET amount = amount + 1 WHERE id = 50;
SELECT member FROM rebate.balances WHERE member = 'kid';
DROP TABLE kid;
SELECT * FROM rebate.audit();

-- a key whose type changes leaves its old texts behind
CREATE TABLE y (id text PRIMARY KEY, m text, amount numeric);
SELECT rebate.attach('y', 'm', 'amount', 'EUR');
INSERT INTO y VALUES ('003', 'fred', 100);
ALTER TABLE y ALTER id TYPE bigint USING id::bigint;
SELECT part, violation FROM rebate.audit() ORDER BY violation;
DROP TABLE o, k, n, b, y;
