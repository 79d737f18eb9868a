-- Archived entries are exported and dropped: what is left begins with what they came to, to the cent, and what was before
-- is refused.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2), refunded numeric(12,2) NOT NULL DEFAULT 0,
	currency text NOT NULL DEFAULT 'EUR', status text NOT NULL DEFAULT 'paid', at timestamptz NOT NULL DEFAULT '2024-01-10 12:00', done_at timestamptz);
SELECT rebate.attach('orders', 'customer', 'total', currency => 'currency', refunded => 'refunded', status => 'status',
	order_time => 'at', confirmed_at => 'done_at', max_backdate => NULL, since => '2024-01-01',
	phases => '{"new": "tracked", "paid": "pending", "done": "confirmed", "off": "void"}');
SELECT rebate.set_rule('five', percent => 5, valid_from => '2024-01-01');
SELECT rebate.set_rule('held', percent => 1, hold => '1 day', valid_from => '2024-01-01');

-- the first stretch, which will be dropped: refunds are booked today, so members m have entries of today in it, and members d have not
INSERT INTO orders (id, customer, total, currency) SELECT i, CASE WHEN i % 2 = 0 THEN 'm' ELSE 'd' END || i % 3, i * 10, CASE WHEN i % 5 = 0 THEN 'USD' ELSE 'EUR' END FROM generate_series(1, 30) i;
UPDATE orders SET status = 'done', done_at = '2024-02-10 12:00' WHERE id <= 20;
UPDATE orders SET refunded = total / 2 WHERE id <= 10 AND customer ~ 'm';
INSERT INTO orders (id, customer, total) VALUES (100, 'alone', 100);
INSERT INTO orders (id, customer, total) VALUES (101, 'once', 100);
UPDATE orders SET status = 'done', done_at = '2024-02-10 12:00' WHERE id = 101;
-- one whose last entry of the stretch is booked before another one
INSERT INTO orders (id, customer, total, at) VALUES (110, 'back', 10, '2024-02-20 12:00');
UPDATE orders SET status = 'done', done_at = '2024-02-20 12:00' WHERE id = 110;
INSERT INTO orders (id, customer, total, at) VALUES (111, 'back', 10, '2024-01-05 12:00');
UPDATE orders SET status = 'done', done_at = '2024-01-05 12:00' WHERE id = 111;
SELECT clock_timestamp() AS early \gset
SELECT pg_sleep(0.01);
-- the second, which stays archived
UPDATE orders SET status = 'done', done_at = '2024-03-10 12:00' WHERE id BETWEEN 21 AND 25;
INSERT INTO orders (id, customer, total, at) SELECT i, 'd' || i % 3, i, '2024-03-11 12:00' FROM generate_series(40, 50) i;
UPDATE orders SET status = 'done', done_at = '2024-03-12 12:00' WHERE id BETWEEN 40 AND 45;
SELECT clock_timestamp() AS cut \gset
SELECT pg_sleep(0.01);
-- the third, at hand
INSERT INTO orders (id, customer, total, at) VALUES (112, 'back', 10, '2024-04-01 12:00');
UPDATE orders SET refunded = total WHERE id IN (11, 15, 21, 23);
INSERT INTO orders (id, customer, total, status, at, done_at) VALUES (31, 'm1', 1000, 'done', '2024-04-01 12:00', '2024-04-02 12:00');
CALL rebate.mature();
SELECT * FROM rebate.audit();

-- what there is, to compare; statements without the lines before a day
CREATE TABLE entries AS SELECT * FROM rebate.entries;
CREATE TABLE balances AS SELECT * FROM rebate.balances;
CREATE TABLE trial AS SELECT * FROM rebate.trial_balance;
CREATE TABLE moments AS
SELECT m.at, b.* FROM unnest(ARRAY[:'early', :'cut', clock_timestamp()]::timestamptz[]) m (at)
	CROSS JOIN (SELECT DISTINCT member FROM rebate.balances) x CROSS JOIN LATERAL rebate.balance(x.member, at => m.at) b;
CREATE FUNCTION statements() RETURNS TABLE (day date, member text, lines text[]) LANGUAGE sql AS $$
	SELECT f.day, x.member, array_agg(s::text)
	FROM (VALUES ('2024-01-11'::date, ARRAY['d0', 'd1', 'd2', 'once']), ('2024-03-11', ARRAY['d0', 'd1', 'd2', 'once']),
		('2100-01-01', (SELECT array_agg(DISTINCT b.member) FROM rebate.balances b))) f (day, members)
	CROSS JOIN unnest(f.members) x (member) CROSS JOIN LATERAL rebate.statement(x.member, f.day) s GROUP BY f.day, x.member $$;
CREATE TABLE statements AS SELECT * FROM statements();
CREATE VIEW differences AS
SELECT 'balances' AS of, count(*) FROM ((TABLE balances EXCEPT TABLE rebate.balances) UNION ALL (TABLE rebate.balances EXCEPT TABLE balances)) d
UNION ALL SELECT 'trial balance', count(*) FROM ((TABLE trial EXCEPT TABLE rebate.trial_balance) UNION ALL (TABLE rebate.trial_balance EXCEPT TABLE trial)) d
UNION ALL SELECT 'moments', count(*) FROM (TABLE moments EXCEPT SELECT m.at, b.* FROM (SELECT DISTINCT at, member FROM moments) m CROSS JOIN LATERAL rebate.balance(m.member, at => m.at) b) d
UNION ALL SELECT 'statements', count(*) FROM (TABLE statements EXCEPT SELECT * FROM statements()) d
UNION ALL SELECT 'entries kept', count(*) FROM (SELECT * FROM rebate.entries EXCEPT TABLE entries) d;
SELECT * FROM differences WHERE count <> 0;
SELECT count(*) FROM statements;

-- without an archive there is nothing to drop
CALL rebate.drop_archived(:'early', 'nowhere');
SELECT before = :'early' AS before, exported_to, entries FROM rebate.dropped_archives;
CALL rebate.archive(:'cut');
SELECT * FROM differences WHERE count <> 0;
SELECT count(*) FROM rebate_data.carried;

-- what is exported: all that is archived, with all that the checks are made of
CREATE TABLE export AS SELECT * FROM rebate.archived_entries WHERE posted_at < :'early';
SELECT count(*) > 50 AS many, bool_or(stays) AS some_stay, bool_or(NOT stays) AS some_go,
	(SELECT count(*) FROM rebate_data.entry_archive WHERE posted_at < :'early') = count(*) FILTER (WHERE NOT stays) AS all_that_go
FROM export;
CREATE FUNCTION chain(start bigint, VARIADIC fields bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. cardinality(fields) LOOP
		start := hashint8extended(fields[i], start);
	END LOOP;
	RETURN start;
END $$;
CREATE FUNCTION micros(t timestamptz) RETURNS bigint LANGUAGE sql AS $$ SELECT (extract(epoch FROM t - '2000-01-01 00:00:00+00') * 1000000)::bigint $$;
SELECT count(*) AS wrong_checks FROM (
	SELECT "check", chain(coalesce(lag("check") OVER (PARTITION BY account_id ORDER BY seq), 0), account_id, seq, posting_id, (amount / unit)::bigint,
		micros(posted_at), micros(event_at), xid, debit_id, credit_id, epoch, effective_date - '2000-01-01', book_date - '2000-01-01', rule_id, ascii(kind), accrual_id, 0) AS computed
	FROM export) e WHERE "check" <> computed;

-- dropped
CALL rebate.drop_archived(:'early', 'table export');
SELECT before = :'early' AS before, exported_to, entries = (SELECT count(*) FROM export WHERE NOT stays) AS all_of_them, dropped_by = session_user AS by FROM rebate.dropped_archives OFFSET 1;
SELECT job, state, done = (SELECT count(*) FROM export WHERE NOT stays) AS done FROM rebate.jobs WHERE job = 'drop_archived';
SELECT count(*) FILTER (WHERE posted_at < :'early') AS old, count(*) > 0 AS some_left FROM rebate_data.entry_archive;
SELECT * FROM differences WHERE count <> 0;
SELECT * FROM rebate.audit();
SELECT count(*) FROM rebate.archived_entries WHERE posted_at < :'early';
-- export and what is there are all there was
SELECT count(*) AS lost FROM (SELECT account_id, seq FROM entries EXCEPT (SELECT account_id, seq FROM export UNION SELECT account_id, seq FROM rebate.entries)) d;
-- nothing of members who have one entry, or only a last one
SELECT a.member, c.seq, c.book_date < '2024-03-01' AS long_ago FROM rebate_data.carried c JOIN rebate_data.account a USING (account_id) WHERE member !~ 'm' ORDER BY 1, 2;
-- again there is nothing to do
CALL rebate.drop_archived(:'early', 'table export');
SELECT entries FROM rebate.dropped_archives ORDER BY began_at;
SELECT * FROM rebate.audit();

-- what was before is refused, and the hint leads on
CREATE PROCEDURE refused(what text, query text)
LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE query;
	RAISE WARNING '%: not refused', what;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE WARNING '%: % % / % / %', what, state, message, regexp_replace(detail, 'entry \d+', 'entry (n)'), regexp_replace(hint, '\d{4}-\d\d-\d\dT\S+|''[^'']*''', '(from)');
	IF hint ~ 'moment from' THEN
		EXECUTE format('SELECT FROM rebate.balance(''d0'', ''EUR'', %L)', substring(hint from '(\d{4}-\S+) on'));
	END IF;
END $$;
CALL refused('a balance of long ago', $$SELECT * FROM rebate.balance('d0', 'EUR', '2024-01-01')$$);
CALL refused('a statement from the beginning', $$SELECT * FROM rebate.statement('d0')$$);
CALL refused('a statement from a day too early', $$SELECT * FROM rebate.statement('d0', '2024-01-10')$$);
CALL refused('a statement that ends before', $$SELECT * FROM rebate.statement('d0', '2024-01-01', '2024-01-09')$$);
CALL refused('a statement from between two days', $$SELECT * FROM rebate.statement('back', '2024-01-06')$$);
CALL refused('one currency only', $$SELECT * FROM rebate.statement('d0', '2024-01-01', currency => 'EUR')$$);
CALL refused('events from the beginning', $$SELECT * FROM rebate.events('d0')$$);
CALL refused('the feed from the beginning', $$SELECT * FROM rebate.feed()$$);
SELECT count(*) > 0 AS whose_entries_are_all_there FROM rebate.statement('alone');
SELECT line, book_date, amount, pending, available FROM rebate.statement('d0', '2024-01-11', '2024-03-12', 'EUR') ORDER BY seq NULLS FIRST, line DESC;

-- an order is explained by what is left
SELECT topic, regexp_replace(subject, '\d+', '(n)') AS subject, outcome, amount, regexp_replace(detail, 'posted.*', 'posted') AS detail FROM rebate.explain('orders', 7) WHERE topic = 'entry';
-- a member sees his last entries
BEGIN;
SELECT rebate.act_as('d0');
SELECT min(m.seq) = (SELECT min(c.seq) + 1 FROM rebate_data.carried c JOIN rebate_data.account a USING (account_id) WHERE a.member = 'd0' AND a.currency = 'EUR') AS from_the_boundary,
	count(*) = max(seq) - min(seq) + 1 AS dense FROM rebate.get_my_entries('EUR', "limit" => 1000) m;
SELECT count(*) > 0 AS rebates FROM rebate.my_rebates;
\set VERBOSITY sqlstate
SELECT * FROM rebate.get_my_balance('2024-01-01');
\set VERBOSITY default
ROLLBACK;

-- orders whose entries were dropped are refunded, cancelled and come again
UPDATE orders SET refunded = total WHERE id IN (1, 2, 20);
DELETE FROM orders WHERE id = 3;
INSERT INTO orders (id, customer, total, status, done_at) VALUES (3, 'd1', 30, 'done', '2024-02-10 12:00');
UPDATE orders SET status = 'off' WHERE id = 7;
SELECT order_key, rule, earned, bucket FROM rebate.accruals WHERE order_key IN ('1', '2', '3', '7', '20') AND earned <> 0 ORDER BY 1, 2;
SELECT * FROM rebate.audit();
SELECT sum(balance) FROM rebate.trial_balance GROUP BY currency;
-- the rest goes, too: of all accounts but the last entry
CALL rebate.archive(now() + '1 minute');
CREATE TABLE now_trial AS SELECT * FROM rebate.trial_balance;
CALL rebate.drop_archived(now() + '1 minute', 'thrown away');
SELECT count(*) FROM rebate_data.entry_archive;
SELECT count(*) FROM ((TABLE now_trial EXCEPT TABLE rebate.trial_balance) UNION ALL (TABLE rebate.trial_balance EXCEPT TABLE now_trial)) d;
SELECT * FROM rebate.audit();
SELECT line, pending, maturing, available FROM rebate.statement('once', '2100-01-01');
CALL rebate.fold();
SELECT * FROM rebate.audit();
-- many entries of one account, batch after batch
INSERT INTO orders (id, customer, total, status) SELECT i, 'many', 10, 'new' FROM generate_series(1001, 1200) i;
UPDATE orders SET status = 'done', done_at = '2024-02-10' WHERE id > 1000;
UPDATE orders SET refunded = total WHERE id > 1000;
CALL rebate.archive(now() + interval '1 minute');
CALL rebate.drop_archived(now() + '1 minute', 'thrown away');
SELECT batches > 4 AS batches FROM rebate.jobs WHERE job = 'drop_archived';
SELECT * FROM rebate.audit();
-- what was not exported is not dropped: the last entry of a member stays out of the archive until another follows it
INSERT INTO orders (id, customer, total) VALUES (1900, 'quiet', 10);
UPDATE orders SET status = 'done' WHERE id = 1900;
SELECT now() + '1 minute' AS before \gset
CALL rebate.archive(:'before');
SELECT count(*) FILTER (WHERE NOT stays) AS exported FROM rebate.archived_entries WHERE posted_at < :'before' \gset
INSERT INTO orders (id, customer, total) VALUES (1901, 'quiet', 10);
CALL rebate.archive(:'before');
\set VERBOSITY terse
CALL rebate.drop_archived(:'before', 'counted', :exported);
\set VERBOSITY default
SELECT count(*) FROM rebate.dropped_archives WHERE exported_to = 'counted';
SELECT count(*) FILTER (WHERE NOT stays) AS exported FROM rebate.archived_entries WHERE posted_at < :'before' \gset
CALL rebate.drop_archived(:'before', 'counted', :exported);
SELECT count(*) FROM rebate_data.entry_archive;
-- a run that is repeated goes on with the same export
CALL rebate.drop_archived(:'before', 'counted', :exported);
SELECT count(*), sum(entries) = :exported AS all_of_them FROM rebate.dropped_archives WHERE exported_to = 'counted';
SELECT * FROM rebate.audit();
INSERT INTO orders (id, customer, total) VALUES (2000, 'late', 10), (2001, 'late', 10);
UPDATE orders SET status = 'done' WHERE id >= 2000;
CALL rebate.archive(now() + interval '1 minute');

-- what the audit finds
CREATE PROCEDURE try(what text, how text)
LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	SET LOCAL session_replication_role = replica;
	EXECUTE how;
	RESET session_replication_role;
	FOR line IN SELECT DISTINCT format('%s: %s', $1, a.violation) COLLATE "C" FROM rebate.audit() a ORDER BY 1 LOOP
		RAISE WARNING '%', line;
	END LOOP;
	ROLLBACK;
END
$$;
CALL try('what is carried forward is gone', 'DELETE FROM rebate_data.carried');
CALL try('carried from too early', 'UPDATE rebate_data.carried SET seq = seq - 1');
CALL try('carried from too late', 'UPDATE rebate_data.carried SET seq = seq + 1');
CALL try('a balance', 'UPDATE rebate_data.carried SET available = available + 1');
CALL try('the check', 'UPDATE rebate_data.carried SET "check" = "check" + 1');
CALL try('the sum of openings', 'UPDATE rebate_data.carried SET opened = opened + 1');
CALL try('the digest', 'UPDATE rebate_data.carried SET digest_low = digest_low + 1');
CALL try('the other half', 'UPDATE rebate_data.carried SET digest_high = digest_high + 1');
CALL try('house accounts', 'UPDATE rebate_data.carried_house SET amount = amount + 1');
CALL try('an opening of long ago', 'UPDATE rebate_data.accrual SET event_at = order_time + ''1 second'' WHERE order_key = ''4''');
CALL try('money of two old rebates', 'UPDATE rebate_data.accrual x SET earned = earned + CASE part WHEN 0 THEN 1 ELSE -1 END WHERE order_key = ''14''');
CALL try('an entry comes back', 'INSERT INTO rebate_data.entry_archive SELECT account_id, e.accrual_id, NULL, e.source_id, e.rule_id, e.order_key, e.kind, c.seq, e.posted_at, e.xid, e."check", e.debit, e.credit, e.epoch, e.effective_date, e.book_date, e.amount, e.event_at, e.posting_id, e.tracked, e.pending, e.maturing, e.available, e.held FROM rebate_data.entry e JOIN rebate_data.carried c USING (account_id) ORDER BY account_id LIMIT 1');
SELECT * FROM rebate.audit();

-- what is damaged is not dropped; it is folded before, or the fold would have the damage
CALL rebate.fold();
\set VERBOSITY sqlstate
SET session_replication_role = replica;
UPDATE rebate_data.entry_archive SET amount = amount + 1;
RESET session_replication_role;
CALL rebate.drop_archived(now() + '1 minute', 'nowhere');
SET session_replication_role = replica;
UPDATE rebate_data.entry_archive SET amount = amount - 1, pending = pending + 1;
RESET session_replication_role;
CALL rebate.drop_archived(now() + '1 minute', 'nowhere');
SET session_replication_role = replica;
UPDATE rebate_data.entry_archive SET pending = pending - 1;
-- nor what comes before an entry that is missing: the run ends
CREATE TABLE missing AS SELECT e.* FROM rebate_data.entry_archive e JOIN rebate_data.boundary b USING (account_id, seq);
DELETE FROM rebate_data.entry_archive e USING missing m WHERE e.account_id = m.account_id AND e.seq = m.seq;
RESET session_replication_role;
CALL rebate.drop_archived(now() + '1 minute', 'nowhere');
SET session_replication_role = replica;
INSERT INTO rebate_data.entry_archive TABLE missing;
RESET session_replication_role;
DROP TABLE missing;
SELECT * FROM rebate.audit();
SELECT count(*) FROM rebate_data.entry_archive;
CALL rebate.drop_archived(now() + '1 minute', 'nowhere');
SELECT count(*) FROM rebate_data.entry_archive;
SELECT * FROM rebate.audit();

-- who may, and how
CALL rebate.drop_archived(NULL, 'nowhere');
CALL rebate.drop_archived('infinity', 'nowhere');
CALL rebate.drop_archived(now(), NULL);
CALL rebate.drop_archived(now(), E' \t');
CALL rebate.drop_archived(now(), 'nowhere', -1);
CALL rebate.drop_archived(now());
SELECT rebate.clock_step('drop_archived', now());
SELECT rebate.clock_step(NULL, now());
-- a run that says another place than the one before is another
SELECT rebate.drop_step('2024-01-01', 'one place');
SELECT rebate.drop_step('2024-01-01', 'one place');
CALL rebate.drop_archived('2024-01-01', 'another place');
SELECT exported_to FROM rebate.dropped_archives WHERE before = '2024-01-01' ORDER BY began_at;
BEGIN;
CALL rebate.drop_archived(now(), 'nowhere');
ROLLBACK;
CREATE ROLE rebate_test_operator;
SELECT rebate.grant_right('operator', 'rebate_test_operator');
SELECT rebate.grant_right('auditor', 'rebate_test_operator');
SET ROLE rebate_test_operator;
CALL rebate.drop_archived(now(), 'nowhere');
SELECT rebate.clock_step('drop_archived', now());
SELECT count(*) > 2 AS told FROM rebate.dropped_archives;
SELECT count(*) FROM rebate.archived_entries WHERE NOT stays;
RESET ROLE;
SELECT rebate.grant_right('admin', 'rebate_test_operator');
SET ROLE rebate_test_operator;
CALL rebate.drop_archived(now(), 'nowhere');
RESET ROLE;
SELECT rebate.revoke_right('admin', 'rebate_test_operator'), rebate.revoke_right('auditor', 'rebate_test_operator'), rebate.revoke_right('operator', 'rebate_test_operator');
DROP ROLE rebate_test_operator;
\set VERBOSITY default

DROP PROCEDURE try, refused;
DROP VIEW differences;
DROP FUNCTION statements, chain, micros;
DROP TABLE entries, balances, trial, now_trial, moments, statements, export;
DROP TABLE orders CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
