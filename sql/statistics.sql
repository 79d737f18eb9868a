--
-- Counters, ages and the progress of jobs: rebate.stat_engine, stat_delivery, stat_jobs, stat_backlog, stat_tables.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
-- without a store
SELECT count(*) FROM rebate.stat_engine;
SELECT count(*) FROM rebate.stat_delivery;
SELECT * FROM rebate.stat_jobs;
SELECT * FROM rebate.stat_backlog;
SELECT * FROM rebate.stat_tables;

SET client_min_messages = warning;
SELECT rebate.create_store();
RESET client_min_messages;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, status text DEFAULT 'sent', placed timestamptz DEFAULT now());
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', order_time => 'placed', confirmed_at => 'placed', status => 'status',
    phases => '{"paid": "pending", "sent": "confirmed"}', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('ten', percent => 10, valid_from => '2020-01-01');
\set engine 'SELECT transactions, rolled_back, statements, bulk_statements AS bulk, inserted, updated, deleted, deferred, posted, failed, rebates, entries FROM rebate.stat_engine;'
SELECT rebate.stat_reset();
:engine
INSERT INTO orders VALUES (1, 'ann', 10);
:engine
INSERT INTO orders SELECT i, 'ann', 10 FROM generate_series(2, 5) i;
UPDATE orders SET total = 20 WHERE id < 3;
-- touches nothing that counts: a statement, and no order
UPDATE orders SET placed = placed WHERE id < 0;
DELETE FROM orders WHERE id = 3;
:engine

-- what is rolled back is not counted, by savepoint or as a whole
SELECT rebate.stat_reset();
BEGIN;
INSERT INTO orders VALUES (10, 'ben', 10);
SAVEPOINT a;
INSERT INTO orders VALUES (11, 'ben', 10), (12, 'ben', 10);
SAVEPOINT b;
INSERT INTO orders VALUES (13, 'ben', 10);
RELEASE SAVEPOINT b;
SELECT rebate.flush();
ROLLBACK TO SAVEPOINT a;
SAVEPOINT c;
SAVEPOINT d;
INSERT INTO orders VALUES (14, 'ben', 10);
RELEASE SAVEPOINT d;
DELETE FROM orders WHERE id = 14;
RELEASE SAVEPOINT c;
COMMIT;
:engine
BEGIN;
INSERT INTO orders VALUES (15, 'ben', 10);
SELECT rebate.flush();
-- not before the commit
:engine
ROLLBACK;
BEGIN;
SAVEPOINT a;
INSERT INTO orders VALUES (16, 'ben', 10);
ROLLBACK TO SAVEPOINT a;
COMMIT;
:engine

-- both moments of posting count the same
SET rebate.posting = statement;
SELECT rebate.stat_reset();
INSERT INTO orders SELECT i, 'cem', 10 FROM generate_series(20, 24) i;
UPDATE orders SET total = 30 WHERE id = 20;
:engine
RESET rebate.posting;

-- posted at the end of its statement
SET rebate.collect_limit = 10;
SELECT rebate.stat_reset();
INSERT INTO orders SELECT i, 'm' || i % 3, 10 FROM generate_series(1001, 1100) i;
:engine
RESET rebate.collect_limit;

-- set aside, deferred, due: how many, since when
SELECT rebate.stat_reset();
SET client_min_messages = error;
INSERT INTO orders VALUES (30, 'dan', NULL), (31, 'dan', NULL), (32, 'dan', 10);
RESET client_min_messages;
:engine
SET rebate.mode = defer;
SELECT rebate.stat_reset();
INSERT INTO orders VALUES (33, 'dan', 10), (34, 'dan', 10);
DELETE FROM orders WHERE id = 33;
:engine
RESET rebate.mode;
SELECT rebate.set_rule('held', percent => 5, hold => '1 day', valid_from => '2020-01-01');
INSERT INTO orders VALUES (40, 'eve', 100, 'sent', '2021-01-01'), (41, 'eve', 100, 'sent', '2021-01-02'), (42, 'eve', 100, 'sent', now());
SELECT rebate.set_ageing('orders', auto_confirm_after => '10 days');
INSERT INTO orders VALUES (43, 'eve', 100, 'paid', '2021-01-03'), (44, 'eve', 100, 'paid', now());
SELECT kind, source, waiting, CASE WHEN kind IN ('failure', 'deferred') THEN oldest > now() - interval '1 hour' END AS young,
    CASE WHEN kind IN ('mature', 'age') THEN oldest END AS oldest, age >= interval '0' AS aged
FROM rebate.stat_backlog;

-- of each table shared memory would tell
SELECT * FROM rebate.stat_tables;

-- jobs: those that never ran, too
SELECT job, state, batches, done, finished_runs, stopped_runs, total_done FROM rebate.stat_jobs;
CALL rebate.mature();
SELECT kind, waiting, oldest FROM rebate.stat_backlog WHERE kind = 'mature';
CALL rebate.mature();
-- one that breaks off
SELECT rebate.clock_step('fold', '2021-01-01');
SELECT job, state, finished_runs, stopped_runs FROM rebate.stat_jobs WHERE job = 'fold';
SELECT 1 / 0;
SELECT job, state, finished_runs, stopped_runs FROM rebate.stat_jobs WHERE job = 'fold';
CALL rebate.fold();
SELECT job, state, done, finished_runs, stopped_runs, total_done FROM rebate.stat_jobs WHERE state <> 'never';

-- times only where they are asked for
SELECT rebate.stat_reset();
INSERT INTO orders VALUES (50, 'fay', 10);
SELECT collect_time, decide_time, post_time FROM rebate.stat_engine;
SET rebate.track_timing = on;
INSERT INTO orders VALUES (51, 'fay', 10);
UPDATE orders SET total = 20 WHERE id = 51;
BEGIN; INSERT INTO orders VALUES (52, 'fay', 10); ROLLBACK;
SELECT collect_time > 0 AS collect, decide_time > 0 AS decide, post_time > 0 AS post, collect_time + decide_time + post_time < 60000 AS sane FROM rebate.stat_engine;
RESET rebate.track_timing;
CREATE ROLE regress_statistics;
SET ROLE regress_statistics;
SET rebate.track_timing = on;
SELECT * FROM rebate.stat_engine;
RESET ROLE;
DROP ROLE regress_statistics;

SELECT part, violation FROM rebate.audit();
DROP TABLE orders;
SET client_min_messages = warning;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP SCHEMA rebate CASCADE;
