-- The clock: what matures, and what becomes of it afterwards.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;

CREATE TABLE orders (
    id int PRIMARY KEY, customer text, total numeric, status text DEFAULT 'sent', refunded numeric, placed timestamptz
);
SELECT rebate.set_programme('Europe/Berlin');
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', status => 'status',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     refunded => 'refunded', order_time => 'placed', confirmed_at => 'placed', since => '2020-01-01',
                     max_backdate => NULL);
SELECT rebate.set_rule('ten', percent => 10, hold => '14 days', valid_from => '2020-01-01');

CREATE VIEW state AS
SELECT b.*, (SELECT string_agg(concat_ws(': ', violation, subject), '; ' ORDER BY subject) FROM rebate.audit()) AS audit
FROM (SELECT) one
LEFT JOIN (SELECT member, pending, maturing, available FROM rebate.balances) b ON true
ORDER BY member COLLATE "C";
\set balances 'SELECT * FROM state;'
\set entries 'SELECT seq, kind, debit, credit, amount, order_key AS key, maturing, available, event_at, effective_date FROM rebate.entries WHERE member = '
\set job 'SELECT job, state, upto, done, started_at <= progress_at AND progress_at <= finished_at AS in_order, pid = pg_backend_pid() AS mine, started_by = session_user AS by_me FROM rebate.jobs;'

-- nothing to do
CALL rebate.mature('2026-01-01');
:job

--
-- Due or not, to the microsecond; one account may have many
--
INSERT INTO orders (id, customer, total, placed) VALUES
    (1, 'alice', 100, '2026-01-01 10:00'), (2, 'alice', 50, '2026-01-02 10:00'), (3, 'bob', 30, '2026-01-01 10:00:00.000001'),
    (4, 'carol', 20, '2026-01-20'), (5, 'alice', 10, '2026-01-01 09:00');
INSERT INTO orders (id, customer, total, placed, status) VALUES (6, 'bob', 70, '2026-01-01', 'paid'), (7, 'bob', 70, '2026-01-01', 'new');
SELECT bucket, due, count(*) FROM rebate_data.waiting GROUP BY 1, 2 ORDER BY 1, 2;
CALL rebate.mature('2026-01-15 10:00');
:balances
:job
:entries 'alice' ORDER BY seq;
-- again it does nothing
CALL rebate.mature('2026-01-15 10:00');
:job
SELECT max(last_entry) FROM rebate.balances;
CALL rebate.mature('2026-01-16 10:00');
:balances
SELECT order_key, bucket, due FROM rebate.accruals ORDER BY order_key;

--
-- What orders change before they are due
--
UPDATE orders SET status = 'paid' WHERE id = 4;
SELECT count(*) AS waiting FROM rebate_data.waiting;
UPDATE orders SET status = 'sent', placed = '2026-01-21' WHERE id = 4;
SELECT bucket, due FROM rebate_data.waiting;
UPDATE orders SET refunded = 15 WHERE id = 4;
SELECT bucket, due FROM rebate_data.waiting;
:balances
UPDATE orders SET status = 'cancelled' WHERE id = 4;
SELECT count(*) AS waiting FROM rebate_data.waiting;
CALL rebate.mature('2026-03-01');
:balances
UPDATE orders SET status = 'sent' WHERE id = 4;
CALL rebate.mature('2026-03-01');
:balances

--
-- After it matured: from available, below zero, and later rebates fill the debt. It stays matured while it is confirmed.
--
UPDATE orders SET refunded = 40 WHERE id = 1;
UPDATE orders SET total = 60 WHERE id = 2;
:balances
UPDATE orders SET status = 'cancelled' WHERE id = 1;
:balances
-- un-cancelled it waits again, since its money is maturing anew
UPDATE orders SET status = 'sent' WHERE id = 1;
:balances
CALL rebate.mature('2026-03-01');
:balances
-- all of it used up by a return without an original: the debt is shown beside what is maturing
INSERT INTO orders (id, customer, total, placed) VALUES (20, 'alice', -300, '2026-02-01'), (21, 'alice', 100, '2026-02-02');
:balances
UPDATE orders SET refunded = total WHERE id = 2;
:balances
CALL rebate.mature('2026-03-01');
:balances
INSERT INTO orders (id, customer, total, placed) VALUES (22, 'alice', 400, '2026-02-03');
CALL rebate.mature('2026-03-01');
:balances
DELETE FROM orders;
:balances
:entries 'alice' AND seq > 20 ORDER BY seq;
SELECT count(*) AS waiting FROM rebate_data.waiting;

-- keys that change leave what is due as it is
INSERT INTO orders (id, customer, total, placed) VALUES (30, 'dave', 100, '2026-03-01');
UPDATE orders SET id = 31 WHERE id = 30;
CALL rebate.mature('2026-04-01');
SELECT order_key, bucket FROM rebate.accruals WHERE member = 'dave' ORDER BY order_key;

-- the hold is read in the programme's zone, also across a change of the clocks
INSERT INTO orders (id, customer, total, placed) VALUES (40, 'erin', 100, '2026-03-20 12:00+01');
SELECT due AT TIME ZONE 'Europe/Berlin' AS due FROM rebate.accruals WHERE order_key = '40';
-- which cannot change under the orders that were read in it
SELECT rebate.set_programme('UTC');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.set_programme('europe/berlin');

-- more than one batch, more than one look: every rebate once; an account comes several times, but never twice in a batch
SET maintenance_work_mem = '1MB';
SET rebate.clock_batch_time = '1s';
INSERT INTO orders (id, customer, total, placed)
    SELECT g, 'm' || g % 700, 10, '2026-05-01'::timestamptz + g % 3 * interval '1 day' FROM generate_series(1000, 41000) g;
CALL rebate.mature('2026-06-01');
SELECT job, state, batches > 10 AS batches, done FROM rebate.jobs;
SELECT count(*), sum(available) FROM rebate.balances WHERE member LIKE 'm%';
SELECT * FROM rebate.audit();
RESET maintenance_work_mem;
RESET rebate.clock_batch_time;

-- what it refuses
BEGIN;
CALL rebate.mature();
ROLLBACK;
CALL rebate.mature('infinity');
CALL rebate.mature('-infinity');
CALL rebate.mature(NULL);
SELECT rebate.clock_step('no such job', now());
CREATE ROLE rebate_test_stranger;
GRANT EXECUTE ON PROCEDURE rebate.mature(timestamptz) TO rebate_test_stranger;
GRANT EXECUTE ON FUNCTION rebate.clock_step(text, timestamptz) TO rebate_test_stranger;
SET ROLE rebate_test_stranger;
CALL rebate.mature();
SELECT count(*) FROM rebate.jobs;
RESET ROLE;
REVOKE ALL ON PROCEDURE rebate.mature(timestamptz) FROM rebate_test_stranger;
REVOKE ALL ON FUNCTION rebate.clock_step(text, timestamptz) FROM rebate_test_stranger;
DROP ROLE rebate_test_stranger;
-- a member of the owner's role may run it, and what others have named in his path does not run
CREATE ROLE rebate_test_clock IN ROLE rebate_owner;
CREATE SCHEMA trap;
CREATE FUNCTION trap.clock_step(text, timestamptz) RETURNS boolean LANGUAGE sql AS $$ SELECT 1 / 0 = 1 $$;
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT (1 / 0)::text::timestamptz $$;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
SET search_path = trap, public, pg_catalog;
SET ROLE rebate_test_clock;
CALL rebate.mature();
RESET ROLE;
RESET search_path;
SELECT job, state, done, started_by = session_user AS by_me FROM rebate.jobs;
DROP SCHEMA trap CASCADE;
DROP ROLE rebate_test_clock;

-- a run that an error ended is shown as stopped, and the next one goes on; what it had committed stays
INSERT INTO orders (id, customer, total, placed)
    SELECT g, 'n' || g, 10, '2026-05-01' FROM generate_series(50001, 50100) g;
SELECT rebate.clock_step('mature', '2026-07-01');
SELECT state, batches, done FROM rebate.jobs;
SELECT rebate.clock_step('mature', '2026-07-01');
CALL rebate.mature('infinity');
SELECT state FROM rebate.jobs;
SELECT count(*) BETWEEN 1 AND 99 AS some FROM rebate.balances WHERE member LIKE 'n%' AND available = 1.00;
CALL rebate.mature('2026-07-01');
SELECT state, done > 0 AND done < 100 AS rest FROM rebate.jobs;
SELECT count(*) FROM rebate.balances WHERE member LIKE 'n%' AND available = 1.00;
SELECT * FROM rebate.audit();

-- failures: those that can be decided now are, and those that failed later than that are left
INSERT INTO orders (id, customer, total, placed) SELECT g, 'f' || g, NULL, '2026-05-05' FROM generate_series(70001, 70120) g;
SET session_replication_role = replica;
UPDATE orders SET total = 10 WHERE id BETWEEN 70001 AND 70100;
RESET session_replication_role;
CALL rebate.retry_failures('2026-01-01');
SELECT count(*), max(attempts) FROM rebate.failures;
CALL rebate.retry_failures();
SELECT job, state, done FROM rebate.jobs WHERE job = 'retry_failures';
SELECT count(*), min(attempts), max(attempts) FROM rebate.failures;
SELECT count(*) FROM rebate.accruals WHERE member LIKE 'f%' AND earned = 1;
-- what the audit finds is kept until the next
CALL rebate.run_audit();
SELECT count(*) FROM rebate.findings;
SET session_replication_role = replica;
UPDATE orders SET total = 20 WHERE id = 70001;
RESET session_replication_role;
CALL rebate.run_audit();
SELECT part, violation, subject FROM rebate.findings;
SELECT job, state, done FROM rebate.jobs WHERE job = 'run_audit';
SELECT rebate.reconcile('orders', '{70001}');
CALL rebate.run_audit();
SELECT count(*) FROM rebate.findings;
-- all accounts: the same before and after folding, and with what came since
CREATE VIEW difference AS
SELECT code, currency, e.balance, t.balance AS shown
FROM (SELECT l.code, e.currency, sum(l.amount) AS balance
      FROM rebate.entries e CROSS JOIN LATERAL (VALUES (e.debit, e.amount), (e.credit, -e.amount)) l (code, amount)
      GROUP BY 1, 2) e FULL JOIN rebate.trial_balance t USING (code, currency)
WHERE coalesce(e.balance, 0) <> coalesce(t.balance, 0)
UNION ALL
SELECT b.currency, 'accounts', b.maturing, t.balance
FROM (SELECT currency, sum(maturing) AS maturing FROM rebate.balances GROUP BY 1) b JOIN rebate.trial_balance t USING (currency)
WHERE t.code = 'member:maturing' AND t.balance <> - b.maturing;
SELECT count(*), (SELECT count(*) FROM difference) AS wrong FROM rebate.house_balances;
CALL rebate.fold();
SELECT count(*) > 0 AS folded, (SELECT count(*) FROM difference) AS wrong FROM rebate_data.checkpoint;
INSERT INTO orders (id, customer, total, placed, status) VALUES (80001, 'yan', 1000, '2026-05-01', 'new'), (80002, 'yan', 1000, '2026-05-01', 'paid');
SELECT count(*) AS wrong FROM difference;
CALL rebate.fold();
CALL rebate.fold();
SELECT count(*) AS wrong FROM difference;
SELECT * FROM rebate.audit();
-- an epoch later: what is older counts as ended
SET client_min_messages = error;
ALTER TABLE rebate_data.epoch DISABLE TRIGGER rebate_guard;
UPDATE rebate_data.epoch SET database_oid = 1;
ALTER TABLE rebate_data.epoch ENABLE TRIGGER rebate_guard;
RESET client_min_messages;
\c
SET timezone = 'UTC';
CALL rebate.fold();
SELECT f.checkpoint_epoch - e.epoch AS epochs_ahead, f.checkpoint_xid FROM rebate_data.fold f, rebate_data.epoch e;
SELECT count(*) AS wrong FROM difference;
UPDATE orders SET total = 2000 WHERE id = 80001;
SELECT count(*) AS wrong FROM difference;
CALL rebate.fold();
SELECT count(*) AS wrong FROM difference;
SELECT * FROM rebate.audit();
-- without pg_cron there is nothing to prune
CALL rebate.prune();

-- the audit finds what is due and not found, and what is found and not due
SET session_replication_role = replica;
DELETE FROM orders;
RESET session_replication_role;
INSERT INTO orders (id, customer, total, placed) VALUES (60000, 'zoe', 10, '2026-05-01'), (60001, 'zoe', 10, '2026-05-02');
SET client_min_messages = error;
ALTER TABLE rebate_data.waiting DISABLE TRIGGER rebate_guard;
DELETE FROM rebate_data.waiting WHERE due = '2026-05-15';
UPDATE rebate_data.waiting SET due = '2026-05-15' WHERE due = '2026-05-16';
ALTER TABLE rebate_data.waiting ENABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.checkpoint DISABLE TRIGGER rebate_guard;
UPDATE rebate_data.checkpoint SET amount = amount + 1 WHERE ledger_account_id = 10;
ALTER TABLE rebate_data.checkpoint ENABLE TRIGGER rebate_guard;
SELECT violation, count(*) FROM rebate.audit() WHERE part = 'ledger' GROUP BY 1 ORDER BY violation COLLATE "C";
CALL rebate.mature('2026-07-01');
SELECT maturing, available FROM rebate.balances WHERE member = 'zoe';

DROP TABLE orders CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
