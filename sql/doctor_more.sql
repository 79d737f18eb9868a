--
-- rebate.doctor(): each illness is found, and the calls that it names heal it.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
CREATE SCHEMA "the shop";
CREATE TABLE "the shop"."Orders" (id serial PRIMARY KEY, customer text, total numeric, "from" int, CHECK (total < 1000000));
SELECT rebate.attach('"the shop"."Orders"', 'customer', 'total', 'EUR', attributes => '{"who''s": "customer"}', max_future => NULL);
SELECT rebate.set_rule('five', percent => 5);
INSERT INTO "the shop"."Orders" (customer, total) SELECT 'ann', 10 FROM generate_series(1, 10);

-- what depends on the server is left out
\set ill '(SELECT "check", subject, status, regexp_replace(detail, ''\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d \\w+'', ''WHEN'', ''g'') AS detail, remedy FROM rebate.doctor() WHERE status <> ''ok'' AND "check" NOT IN (''transaction ids'', ''open transactions'') AND coalesce(subject, '''') NOT IN (''pg_cron'', ''rebate.delivery'', ''fsync'', ''full_page_writes'')) ill'
SELECT * FROM :ill;
-- \gexec calls each remedy as it is printed
\pset format unaligned
\pset tuples_only on

\echo === triggers: disabled, renamed, of another kind, another function, missing
ALTER TABLE "the shop"."Orders" DISABLE TRIGGER rebate_insert;
ALTER TRIGGER rebate_update ON "the shop"."Orders" RENAME TO "my trigger";
DROP TRIGGER rebate_delete ON "the shop"."Orders";
CREATE TRIGGER rebate_delete AFTER DELETE ON "the shop"."Orders" REFERENCING OLD TABLE AS o FOR EACH STATEMENT WHEN (1 = 2) EXECUTE FUNCTION rebate.collect();
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
DROP TRIGGER rebate_truncate ON "the shop"."Orders";
CREATE TRIGGER rebate_truncate BEFORE TRUNCATE ON "the shop"."Orders" EXECUTE FUNCTION nothing();
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
INSERT INTO "the shop"."Orders" (customer, total) VALUES ('bob', 10);
DROP TRIGGER rebate_insert ON "the shop"."Orders";
INSERT INTO "the shop"."Orders" (customer, total) VALUES ('bob', 10);
SELECT * FROM :ill WHERE "check" = 'triggers';
SELECT remedy FROM :ill WHERE "check" = 'triggers' \gexec
SELECT * FROM :ill;
SELECT count(*), sum(earned) FROM rebate.accruals;
SELECT * FROM rebate.audit();

\echo === triggers of rows, on partitions too; one of a table that is not attached
CREATE TABLE parted (id int, day date, customer text, total numeric, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
SELECT rebate.attach('parted', 'customer', 'total', 'EUR', row_triggers => true);
SELECT * FROM :ill;
ALTER TABLE parted_1 ENABLE TRIGGER rebate_replica_update, DISABLE TRIGGER rebate_replica_truncate, ENABLE REPLICA TRIGGER rebate_insert;
CREATE TABLE stray (id int);
CREATE TRIGGER rebate_insert AFTER INSERT ON stray REFERENCING NEW TABLE AS n EXECUTE FUNCTION rebate.collect();
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
DROP TABLE stray;

\echo === partitions that were attached, also where newer orders hide it
CREATE TABLE parted_2 (LIKE parted);
INSERT INTO parted_2 SELECT i, '2026-02-01', 'pat', 1 FROM generate_series(1, 3) i;
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO parted_2 SELECT i, '2026-02-02', repeat('p', 200), 1 FROM generate_series(4, 1500) i;
SELECT "check", subject, status, regexp_replace(detail, '(^3 of )?\d+', '\1N'), remedy FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;

\echo === a key without its index; with one that is not valid
CREATE TABLE keyed (a int NOT NULL, "b b" text NOT NULL, customer text, total numeric, CONSTRAINT keyed_key UNIQUE ("b b", a));
SELECT rebate.attach('keyed', 'customer', 'total', 'EUR', "key" => '{a,"b b"}');
INSERT INTO keyed VALUES (1, 'x', 'kim', 10);
ALTER TABLE keyed DROP CONSTRAINT keyed_key;
INSERT INTO keyed VALUES (2, 'x', 'kim', 10);
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
DROP INDEX "keyed_a_b b_idx";
ALTER TABLE keyed DISABLE TRIGGER USER;
INSERT INTO keyed VALUES (2, 'x', 'kim', 10);
ALTER TABLE keyed ENABLE TRIGGER USER;
CREATE UNIQUE INDEX CONCURRENTLY keyed_new ON keyed ("b b", a);
DELETE FROM keyed WHERE ctid = (SELECT max(ctid) FROM keyed);
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.keyed' ORDER BY 1;

\echo === a column that is gone
SELECT rebate.attach('keyed', 'customer', 'total * 1', 'EUR', "key" => '{a,"b b"}', replace => true);
ALTER TABLE keyed DROP total;
INSERT INTO keyed VALUES (3, 'x', 'kim');
SELECT * FROM :ill;
ALTER TABLE keyed ADD total numeric;
UPDATE keyed SET total = 20;
SELECT * FROM :ill;
ALTER TABLE keyed RENAME total TO sum;
SELECT * FROM :ill;
SELECT replace(remedy, 'total', 'sum') FROM :ill \gexec
SELECT * FROM :ill;
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.keyed' ORDER BY 1;

\echo === failures, and keys that changed together
INSERT INTO keyed VALUES (4, 'x', 'kim', NULL);
SELECT * FROM :ill;
ALTER TABLE keyed DISABLE TRIGGER rebate_update;
UPDATE keyed SET sum = 20 WHERE a = 4;
ALTER TABLE keyed ENABLE TRIGGER rebate_update;
SELECT remedy FROM :ill \gexec
UPDATE keyed SET a = a + 10 WHERE a IN (3, 4);
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;

\echo === rebate.mode, of this session and of others
SET rebate.mode = off;
INSERT INTO keyed VALUES (5, 'x', 'kim', 20);
UPDATE keyed SET sum = 40 WHERE a = 1;
SELECT * FROM :ill;
SELECT remedy FROM :ill WHERE "check" = 'mode' \gexec
SELECT * FROM :ill;
SELECT * FROM rebate.audit();
SET rebate.mode = defer;
INSERT INTO keyed VALUES (6, 'x', 'kim', 20);
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
CREATE ROLE "regress doctor";
ALTER ROLE "regress doctor" SET rebate.mode = off;
ALTER ROLE "regress doctor" SET synchronous_commit = off;
SELECT format('ALTER ROLE "regress doctor" IN DATABASE %I SET rebate.posting = statement', current_database()) AS setting \gset
:setting;
SELECT format('ALTER DATABASE %I SET session_replication_role = replica', current_database()) AS setting \gset
:setting;
SELECT "check", replace(subject, quote_ident(current_database()), 'DB'), status, detail, replace(remedy, quote_ident(current_database()), 'DB') FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
DROP ROLE "regress doctor";
SET synchronous_commit = off;
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;

\echo === guards: disabled, renamed, missing
ALTER TABLE rebate_data.entry DISABLE TRIGGER rebate_guard;
ALTER TRIGGER rebate_guard ON rebate_data.account RENAME TO guard;
DROP TRIGGER rebate_guard ON rebate_data.failure;
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
DELETE FROM rebate_data.failure;

\echo === event triggers: disabled, renamed, missing
ALTER EVENT TRIGGER rebate_follow_partitions DISABLE;
ALTER EVENT TRIGGER rebate_watch_drops RENAME TO watch;
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
ALTER EXTENSION rebate DROP EVENT TRIGGER rebate_watch_drops;
DROP EVENT TRIGGER rebate_watch_drops;
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;

\echo === an order and its lines; a table that was detached, or is gone
CREATE TABLE lines (no int PRIMARY KEY, "order" int REFERENCES "the shop"."Orders", customer text, total numeric);
SELECT rebate.attach('lines', 'customer', 'total', 'EUR');
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
SELECT "check", subject, status, regexp_replace(detail, '\d{4}-\d\d-\d\d \d\d:\d\d \w+', 'WHEN') FROM rebate.doctor() WHERE "check" = 'tables';
DROP TABLE lines;
SELECT * FROM :ill;

\echo === keys of other orders that no order has
SELECT rebate.attach('"the shop"."Orders"', 'customer', 'total', 'EUR', attributes => '{"who''s": "customer"}', max_future => NULL, "replaces" => '{"\"from\""}', replace => true);
INSERT INTO "the shop"."Orders" (customer, total) SELECT 'ann', 1 FROM generate_series(1, 1000);
SELECT * FROM :ill;
ANALYZE "the shop"."Orders";
SELECT "check", subject, status, regexp_replace(detail, '\d+', 'N'), remedy FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;

\echo === sequences near their end, or behind
SELECT setval('"the shop"."Orders_id_seq"', 2000000000);
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
SELECT setval('rebate_data.id', 64);
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
SELECT setval('rebate_data.id', 9223372036854775000);
SELECT subject, detail FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;

\echo === the clock stands still
SELECT rebate.set_rule('held', percent => 10, hold => '1 day');
CREATE TABLE held (id int PRIMARY KEY, customer text, total numeric, at timestamptz);
SELECT rebate.attach('held', 'customer', 'total', 'EUR', order_time => 'at', confirmed_at => 'at', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('held', percent => 10, hold => '1 day', valid_from => '2020-01-01', source => 'held');
INSERT INTO held VALUES (1, 'hal', 100, now() - interval '2 days');
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;
SELECT available FROM rebate.balances WHERE member = 'hal';
ALTER TABLE rebate_data.job DISABLE TRIGGER rebate_guard;
UPDATE rebate_data.job SET finished_at = now() - interval '20 minutes';
ALTER TABLE rebate_data.job ENABLE TRIGGER rebate_guard;
SELECT * FROM :ill;
SELECT remedy FROM :ill \gexec
SELECT * FROM :ill;

SELECT * FROM rebate.audit();
\pset tuples_only off
\pset format aligned
DROP TABLE keyed, parted, held;
DROP SCHEMA "the shop" CASCADE;
DROP FUNCTION nothing();
