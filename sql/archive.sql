-- Old entries move to the archive: balances, statements, explanations and the audit are what they were, readers by cursor are
-- told, orders whose entries are archived go on.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2), refunded numeric(12,2) NOT NULL DEFAULT 0,
	status text NOT NULL DEFAULT 'paid');
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded', status => 'status',
	phases => '{"new": "tracked", "paid": "pending", "done": "confirmed", "off": "void"}');
SELECT rebate.set_rule('five', percent => 5);
SELECT rebate.set_rule('held', percent => 1, hold => '1 day');

-- orders with entries besides those that opened their rebates
INSERT INTO orders (id, customer, total) SELECT i, 'm' || i % 3, i * 10 FROM generate_series(1, 30) i;
UPDATE orders SET status = 'done' WHERE id <= 20;
UPDATE orders SET refunded = total / 2 WHERE id <= 10;
INSERT INTO orders (id, customer, total) VALUES (100, 'alone', 100);
INSERT INTO orders (id, customer, total) VALUES (101, 'once', 100);
UPDATE orders SET status = 'done' WHERE id = 101;
SELECT clock_timestamp() AS early \gset
SELECT rebate.feed_cursor() AS feed_early, rebate.events_cursor('m1') AS m1_early \gset
SELECT cursor AS m1_third FROM rebate.events('m1') WHERE seq = 3 AND currency = 'EUR' \gset
SELECT cursor AS feed_some FROM rebate.feed(NULL, 5) OFFSET 4 \gset
SELECT pg_sleep(0.01);
UPDATE orders SET status = 'done' WHERE id BETWEEN 21 AND 25;
SELECT clock_timestamp() AS cut \gset
SELECT pg_sleep(0.01);
UPDATE orders SET refunded = total WHERE id BETWEEN 21 AND 23;
INSERT INTO orders (id, customer, total, status) VALUES (31, 'm1', 1000, 'done');

-- what there is, to compare
CREATE TABLE before AS SELECT * FROM rebate.entries;
CREATE TABLE balances AS SELECT * FROM rebate.balances;
CREATE TABLE trial AS SELECT * FROM rebate.trial_balance;
CREATE TABLE moments AS
SELECT m.at, b.* FROM unnest(ARRAY[:'early', :'cut', clock_timestamp()]::timestamptz[]) m (at)
	CROSS JOIN LATERAL rebate.balance('m1', at => m.at) b;
CREATE TABLE lines AS SELECT row_number() OVER () AS n, s.* FROM rebate.statement('m1') s;
CREATE TABLE explained AS SELECT row_number() OVER () AS n, e.* FROM rebate.explain('orders', 4) e;
CREATE VIEW differences AS
SELECT 'entries' AS of, count(*) FROM ((TABLE before EXCEPT TABLE rebate.entries) UNION ALL (TABLE rebate.entries EXCEPT TABLE before)) d
UNION ALL SELECT 'balances', count(*) FROM ((TABLE balances EXCEPT TABLE rebate.balances) UNION ALL (TABLE rebate.balances EXCEPT TABLE balances)) d
UNION ALL SELECT 'trial balance', count(*) FROM ((TABLE trial EXCEPT TABLE rebate.trial_balance) UNION ALL (TABLE rebate.trial_balance EXCEPT TABLE trial)) d
UNION ALL SELECT 'moments', count(*) FROM (TABLE moments EXCEPT SELECT m.at, b.* FROM (SELECT DISTINCT at FROM moments) m CROSS JOIN LATERAL rebate.balance('m1', at => m.at) b) d
UNION ALL SELECT 'statement', count(*) FROM (TABLE lines EXCEPT SELECT row_number() OVER (), s.* FROM rebate.statement('m1') s) d
UNION ALL SELECT 'explanation', count(*) FROM (TABLE explained EXCEPT SELECT row_number() OVER (), e.* FROM rebate.explain('orders', 4) e) d;
SELECT * FROM differences WHERE count <> 0;

-- nothing is old enough
CALL rebate.archive('2000-01-01');
SELECT count(*) FROM rebate_data.entry_archive;
SELECT count(*) FROM rebate.feed();

-- what was posted before the moment moves
SELECT count(*) AS entries FROM rebate_data.entry \gset
CALL rebate.archive(:'cut');
SELECT job, state, done > 0 AS moved, done = (SELECT count(*) FROM rebate_data.entry_archive) AS as_many FROM rebate.jobs WHERE job = 'archive';
SELECT count(*) = :entries AS none_lost, count(*) FILTER (WHERE posted_at < :'cut') AS old,
	count(*) FILTER (WHERE archived AND posted_at >= :'cut') AS too_young
FROM (SELECT posted_at, false AS archived FROM rebate_data.entry UNION ALL SELECT posted_at, true FROM rebate_data.entry_archive) e;
-- the last entry of an account stays
SELECT a.member, e.posted_at < :'cut' AS old, a.last_entry = e.seq AS last FROM rebate_data.entry e JOIN rebate_data.account a USING (account_id)
WHERE posted_at < :'cut' ORDER BY 1;
SELECT a.member, b.seq < a.last_entry AS behind, b.tracked + b.pending + b.maturing + b.available AS money
FROM rebate_data.boundary b JOIN rebate_data.account a USING (account_id) ORDER BY 1;
SELECT * FROM differences WHERE count <> 0;
SELECT * FROM rebate.audit();
-- what a member sees of himself
BEGIN;
SELECT rebate.act_as('m1');
SELECT count(*) = (SELECT count(*) FROM before WHERE member = 'm1') AS all_entries, min(seq) AS from_the_first
FROM rebate.get_my_entries("limit" => 1000);
SELECT count(*) AS wrong FROM (SELECT seq, available, maturing FROM rebate.get_my_entries("limit" => 1000) EXCEPT SELECT seq, available, maturing FROM before WHERE member = 'm1') d;
SELECT count(*) AS moments, count(*) FILTER (WHERE (b.pending, b.maturing, b.available, b.last_entry) IS DISTINCT FROM (m.pending, m.maturing, m.available, m.last_entry)) AS wrong
FROM moments m CROSS JOIN LATERAL rebate.get_my_balance(m.at) b;
\set VERBOSITY sqlstate
SELECT * FROM rebate.my_events();
\set VERBOSITY default
ROLLBACK;
-- again there is nothing to do
CALL rebate.archive(:'cut');
SELECT done FROM rebate.jobs WHERE job = 'archive';

-- readers of one member: from the beginning and from before the boundary they are refused, with where to go on
\set VERBOSITY sqlstate
SELECT * FROM rebate.events('m1');
SELECT * FROM rebate.events('m1', :'m1_third');
\set VERBOSITY default
DO $$
DECLARE
	hint text;
	detail text;
	message text;
	boundary bigint;
	last bigint;
BEGIN
	PERFORM * FROM rebate.events('m1');
EXCEPTION WHEN SQLSTATE 'RB016' THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT, detail = PG_EXCEPTION_DETAIL, message = MESSAGE_TEXT;
	SELECT b.seq, a.last_entry INTO boundary, last FROM rebate_data.boundary b JOIN rebate_data.account a USING (account_id) WHERE member = 'm1';
	RAISE WARNING '%: % %', message, replace(detail, boundary::text, '(boundary)'), regexp_replace(hint, '''.*''', '(cursor)');
	RAISE WARNING 'from that cursor: %', (SELECT min(seq) = boundary + 1 AND max(seq) = last AND count(*) = last - boundary
		FROM rebate.events('m1', substring(hint from '''(.*)''')));
	-- one whose check is another is of another history
	BEGIN
		PERFORM * FROM rebate.events('m1', substring(hint from '''(.*)\d''') || translate(substring(hint from '(\d)'''), '0123456789', '1234567890'));
	EXCEPTION WHEN SQLSTATE 'RB013' THEN
		RAISE WARNING 'another check: %', SQLERRM;
	END;
END
$$;
SELECT count(*) > 0 AS some FROM rebate.events('m1', rebate.events_cursor('m1'));
SELECT count(*) AS all_of_it FROM rebate.events('alone');

-- readers of the feed
\set VERBOSITY sqlstate
SELECT * FROM rebate.feed();
SELECT * FROM rebate.feed(:'feed_some');
SELECT * FROM rebate.feed(:'feed_early');
\set VERBOSITY default
SELECT rebate.feed_cursor() AS feed_now \gset
UPDATE orders SET refunded = total WHERE id IN (4, 30);
SELECT event ->> 'kind' AS kind, event ->> 'amount' AS amount FROM rebate.feed(:'feed_now') ORDER BY event ->> 'amount' COLLATE "C";

-- an order whose entries are archived: it is refunded to zero, and comes and goes
SELECT sum(earned) FROM rebate.accruals WHERE order_key IN ('4', '30');
UPDATE orders SET refunded = 0 WHERE id = 4;
SELECT rule, earned, bucket FROM rebate.accruals WHERE order_key = '4' ORDER BY 1;
DELETE FROM orders WHERE id = 5;
SELECT sum(earned) FROM rebate.accruals WHERE order_key = '5';
INSERT INTO orders (id, customer, total, status) VALUES (5, 'm2', 50, 'done');
SELECT sum(earned) FROM rebate.accruals WHERE order_key = '5';
CALL rebate.mature(now() + interval '2 days');
SELECT count(*) FROM rebate.accruals WHERE bucket = 'maturing';
SELECT * FROM rebate.audit();
-- folding, before and after
CALL rebate.fold();
SELECT sum(balance) FROM rebate.trial_balance;
CALL rebate.archive(now() + interval '1 minute');
SELECT count(*) = (SELECT count(DISTINCT account_id) FROM rebate_data.entry) AS the_last_of_each FROM rebate_data.entry;
CALL rebate.fold();
SELECT sum(balance) FROM rebate.trial_balance;
SELECT * FROM rebate.audit();

-- many entries of one account: batch after batch
INSERT INTO orders (id, customer, total, status) SELECT i, 'many', 10, 'new' FROM generate_series(1001, 1200) i;
UPDATE orders SET status = 'done' WHERE id > 1000;
UPDATE orders SET refunded = total WHERE id > 1000;
CALL rebate.archive(now() + interval '1 minute');
SELECT batches >= 10 AS batches, done = (SELECT count(*) FROM rebate_data.entry_archive a JOIN rebate_data.account USING (account_id) WHERE member = 'many') AS done FROM rebate.jobs WHERE job = 'archive';
SELECT * FROM rebate.audit();

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
CALL try('an amount in the archive', 'UPDATE rebate_data.entry_archive SET amount = amount + 1 WHERE seq = (SELECT max(seq) - 1 FROM rebate_data.entry_archive)');
CALL try('an archived entry is gone', 'DELETE FROM rebate_data.entry_archive WHERE seq = (SELECT max(seq) - 1 FROM rebate_data.entry_archive)');
CALL try('the archive is gone', 'TRUNCATE rebate_data.entry_archive');
CALL try('the boundaries are gone', 'DELETE FROM rebate_data.boundary');
CALL try('a boundary too low', 'UPDATE rebate_data.boundary SET seq = seq - 1');
CALL try('a boundary too high', 'UPDATE rebate_data.boundary SET seq = seq + 1');
CALL try('balances of a boundary', 'UPDATE rebate_data.boundary SET available = available + 1');
CALL try('check of a boundary', 'UPDATE rebate_data.boundary SET "check" = "check" + 1');
CALL try('an entry moved back', 'WITH d AS (DELETE FROM rebate_data.entry_archive WHERE seq = (SELECT max(seq) - 1 FROM rebate_data.entry_archive) RETURNING *) INSERT INTO rebate_data.entry SELECT * FROM d');
CALL try('the mark', 'UPDATE rebate_data.archive SET xid = xid - 1');
SELECT * FROM rebate.audit();

-- who may, and how
\set VERBOSITY sqlstate
CALL rebate.archive(NULL);
CALL rebate.archive('infinity');
DELETE FROM rebate_data.entry_archive;
BEGIN;
CALL rebate.archive(now());
ROLLBACK;
CREATE ROLE rebate_test_nobody;
SET ROLE rebate_test_nobody;
CALL rebate.archive(now());
RESET ROLE;
DROP ROLE rebate_test_nobody;
\set VERBOSITY default

DROP PROCEDURE try;
DROP VIEW differences;
DROP TABLE before, balances, trial, moments, lines, explained;
DROP TABLE orders CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
