-- Errors planted in a ledger, each of which the model must find by itself, without the audit: prints TAP.
-- Runs in a database with the extension, model.sql and check.sql.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET TimeZone = 'UTC';
CREATE SCHEMA planted;
CREATE TABLE planted.o (id integer PRIMARY KEY, member text, amount numeric, status text, at timestamptz, part_of integer);
SELECT rebate.attach('planted.o', 'member', 'amount', 'EUR', status => 'status', order_time => 'at', confirmed_at => 'at',
	since => '2026-01-01', max_backdate => NULL, "replaces" => ARRAY['part_of']) \g /dev/null
INSERT INTO model.source (source, key, member, amount, currency, order_time, status, confirmed_at, replaces, since)
	VALUES ('planted.o', 'id::text', 'member', 'amount', '''EUR''', 'at', 'status', 'at', 'part_of::text', '2026-01-01');
SELECT model.set_rule('five', percent => 5, hold => '14 days', valid_from => '2026-01-01'),
	model.set_rule('once', fixed => 3, currency => 'EUR', valid_from => '2026-01-01') \g /dev/null
SELECT model.observe() \g /dev/null
INSERT INTO planted.o VALUES (1, 'alice', 100, 'confirmed', '2026-03-01', NULL), (2, 'alice', 50, 'pending', '2026-03-01', 1),
	(3, 'bob', 20, 'confirmed', '2026-03-01', NULL), (4, 'bob', 20, 'tracked', '2026-03-01', NULL), (5, 'carl', 20, 'pending', '2026-03-01', NULL);
SELECT model.observe() \g /dev/null
SELECT model.freeze('planted.o', '5', 'dispute', '2026-02-25') \g /dev/null
UPDATE planted.o SET status = 'confirmed' WHERE id = 5;
SELECT model.freeze('planted.o', '3', 'dispute', '2026-03-05') \g /dev/null
SELECT model.before_mature('2026-03-20') \g /dev/null
CALL rebate.mature('2026-03-20');

CREATE SEQUENCE planted.n;
CREATE TABLE planted.result (ok boolean);
-- Plant an error: differences of this kind must be found.
CREATE FUNCTION planted.finds(label text, kind text, plant text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found_them text[];
	ok boolean;
BEGIN
	BEGIN
		SET LOCAL session_replication_role = replica;
		ALTER TABLE rebate_data.account DISABLE TRIGGER USER;
		ALTER TABLE rebate_data.accrual DISABLE TRIGGER USER;
		ALTER TABLE rebate_data.entry DISABLE TRIGGER USER;
		ALTER TABLE rebate_data.link DISABLE TRIGGER USER;
		EXECUTE plant;
		found_them := ARRAY(SELECT c FROM model.check() c WHERE c NOT LIKE 'audit: %');
		RAISE EXCEPTION SQLSTATE 'PLANT';
	EXCEPTION WHEN SQLSTATE 'PLANT' THEN
		NULL;
	END;
	ok := CASE WHEN kind IS NULL THEN found_them = '{}' ELSE EXISTS (SELECT FROM unnest(found_them) f WHERE f LIKE kind || '%') END;
	INSERT INTO planted.result VALUES (ok);
	RETURN CASE WHEN ok THEN '' ELSE 'not ' END || 'ok ' || nextval('planted.n') || ' - ' || label
		|| CASE WHEN ok THEN '' ELSE E'\n# found ' || found_them::text END;
END $$;
\pset tuples_only on
\pset format unaligned

SELECT planted.finds('nothing planted, nothing found', NULL, 'SELECT');
SELECT planted.finds('a cent too much', 'accrual of planted.o 1, rule five', $$UPDATE rebate_data.accrual SET earned = earned + 1 WHERE order_key = '1' AND rule_id = 1$$);
SELECT planted.finds('a share of another size', 'accrual of planted.o 2, rule once', $$UPDATE rebate_data.accrual SET earned = earned - 1 WHERE order_key = '2' AND rule_id = 2$$);
SELECT planted.finds('another version', 'accrual of planted.o 2', $$UPDATE rebate_data.accrual SET version = 2 WHERE order_key = '2' AND rule_id = 1$$);
SELECT planted.finds('available before it is due', 'accrual of planted.o 3', $$UPDATE rebate_data.accrual SET bucket = '3' WHERE order_key = '3' AND bucket = '2'$$);
SELECT planted.finds('forgotten by the clock', 'balance of bob', $$UPDATE rebate_data.account SET maturing = maturing + 1, available = available - 1 WHERE member = 'bob'$$);
SELECT planted.finds('due though it is frozen', 'due of planted.o 3', $$UPDATE rebate_data.accrual SET due = '2026-03-15' WHERE order_key = '3' AND bucket = '2'$$);
SELECT planted.finds('available at once though it is frozen', 'accrual of planted.o 5, rule once', $$UPDATE rebate_data.accrual SET bucket = '3' WHERE order_key = '5' AND rule_id = 2$$);
SELECT planted.finds('an order without a decision', 'decision of planted.o 4: none', $$DELETE FROM rebate_data.accrual WHERE order_key = '4'$$);
SELECT planted.finds('seen later', 'facts of planted.o 4', $$UPDATE rebate_data.accrual SET first_seen = first_seen + interval '1 second' WHERE order_key = '4'$$);
SELECT planted.finds('of another generation', 'facts of planted.o 4', $$UPDATE rebate_data.accrual SET generation = generation - 1 WHERE order_key = '4'$$);
SELECT planted.finds('an entry is missing', 'entry', $$DELETE FROM rebate_data.entry WHERE (account_id, seq) = (SELECT account_id, max(seq) FROM rebate_data.entry GROUP BY 1 LIMIT 1)$$);
SELECT planted.finds('a member with more than that', 'balance of alice', $$UPDATE rebate_data.account SET available = available + 1 WHERE member = 'alice'$$);

SELECT '1..' || count(*) FROM planted.result;
