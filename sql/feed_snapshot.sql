-- A reader of the feed who begins late: balances and the cursor behind exactly what is in them, in one call.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, currency text DEFAULT 'EUR', status text DEFAULT 'paid');
SELECT rebate.attach('orders', 'customer', 'total', 'currency', status => 'status', phases => '{"paid": "pending", "done": "confirmed", "off": "void"}');
SELECT rebate.set_rule('ten', percent => 10);

-- nobody has an account: a row all the same, with the cursor
SELECT cursor IS NOT NULL AS cursor, account, member, currency, last_entry, tracked, pending, maturing, available, held FROM rebate.feed_snapshot();
SELECT cursor AS empty FROM rebate.feed_snapshot() \gset

INSERT INTO orders VALUES (1, 'ann', 100, 'EUR'), (2, 'ann', 50, 'JPY'), (3, 'bob', 20, 'EUR');
UPDATE orders SET status = 'done' WHERE id = 1;
UPDATE orders SET total = 200 WHERE id = 1;
CALL rebate.archive(now() + '1 minute');
\set VERBOSITY sqlstate
SELECT * FROM rebate.feed();
\set VERBOSITY default

-- the consumer: his table is filled by the snapshot, and brought along by events
CREATE TABLE mine (account uuid PRIMARY KEY, member text, currency text, last_entry bigint, pending numeric, available numeric);
CREATE TABLE place (cursor text);
BEGIN;
CREATE TEMP TABLE snapshot AS SELECT * FROM rebate.feed_snapshot();
INSERT INTO place SELECT DISTINCT cursor FROM snapshot;
INSERT INTO mine SELECT account, member, currency, last_entry, pending, available FROM snapshot WHERE account IS NOT NULL;
COMMIT;
SELECT count(*) FROM place;
SELECT member, currency, last_entry, pending, available FROM mine ORDER BY 1, 2;
CREATE FUNCTION bring_along() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	f record;
	n bigint := 0;
	after text := (SELECT p.cursor FROM place p);
BEGIN
	FOR f IN SELECT * FROM rebate.feed(after) LOOP
		INSERT INTO mine VALUES ((f.event ->> 'account')::uuid, f.event ->> 'member', f.event ->> 'currency', (f.event ->> 'seq')::bigint, (f.event #>> '{balance,pending}')::numeric, (f.event #>> '{balance,available}')::numeric)
		ON CONFLICT (account) DO UPDATE SET last_entry = excluded.last_entry, pending = excluded.pending, available = excluded.available
		WHERE mine.last_entry = excluded.last_entry - 1;
		IF NOT FOUND THEN
			RAISE 'entry % of % does not follow', f.event ->> 'seq', f.event ->> 'member';
		END IF;
		UPDATE place SET cursor = f.cursor;
		n := n + 1;
	END LOOP;
	RETURN n;
END $$;
CREATE VIEW differences AS
(SELECT member, currency, last_entry, pending, available FROM rebate.balances EXCEPT SELECT member, currency, last_entry, pending, available FROM mine)
UNION ALL
(SELECT member, currency, last_entry, pending, available FROM mine EXCEPT SELECT member, currency, last_entry, pending, available FROM rebate.balances);
SELECT bring_along();
TABLE differences;
INSERT INTO orders VALUES (4, 'ann', 10), (5, 'cleo', 10);
DELETE FROM orders WHERE id = 3;
SELECT count(*) FROM differences;
SELECT bring_along();
TABLE differences;

-- what the own transaction has posted is not in it, and comes later
BEGIN;
INSERT INTO orders VALUES (6, 'bob', 1000);
SELECT member, last_entry, pending FROM rebate.feed_snapshot() WHERE member = 'bob';
SELECT cursor AS inside FROM rebate.feed_snapshot() LIMIT 1 \gset
COMMIT;
SELECT event ->> 'member' AS member, event ->> 'amount' AS amount FROM rebate.feed(:'inside');
-- nor what was posted since the transaction's snapshot is missing
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM orders;
SELECT member, last_entry, pending FROM rebate.feed_snapshot() WHERE member = 'bob';
COMMIT;
-- the cursor from before the first account is good for what is not archived only
\set VERBOSITY sqlstate
SELECT * FROM rebate.feed(:'empty');
\set VERBOSITY default

DROP VIEW differences;
DROP FUNCTION bring_along;
DROP TABLE mine, place, snapshot;
DROP TABLE orders CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
