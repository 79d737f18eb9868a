--
-- The audit finds every kind of damage that is made on purpose.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
CREATE TABLE shop (id int PRIMARY KEY, customer text, total numeric(12,2), state text);
SELECT rebate.attach('shop', member => 'customer', amount => 'total', currency => 'EUR', status => 'state');
SELECT rebate.set_rule('five', percent => 5);
INSERT INTO shop VALUES (1, 'ann', 100, 'confirmed'), (2, 'ann', 40, 'pending'), (3, 'bob', 60, 'tracked'),
	(4, NULL, 10, 'confirmed'), (5, 'bob', NULL, 'confirmed');
UPDATE shop SET total = 80 WHERE id = 1;
UPDATE shop SET state = 'confirmed' WHERE id = 2;
SELECT member, tracked, pending, maturing, available, last_entry FROM rebate.balances ORDER BY member;
SELECT * FROM rebate.audit();

-- a direct change is refused ...
INSERT INTO rebate_data.entry SELECT * FROM rebate_data.entry;
UPDATE rebate_data.account SET available = 1000000;
DELETE FROM rebate_data.accrual;
TRUNCATE rebate_data.entry;

-- ... and found when somebody goes around the guards.  Ids differ from run to
-- run where sequences do, so only what was violated is shown.
CREATE FUNCTION damage(what text, sql text) RETURNS TABLE (damage text, part text, violation text, places bigint)
LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		SET LOCAL session_replication_role = replica;
		EXECUTE sql;
		SET LOCAL session_replication_role = origin;
		RETURN QUERY SELECT what, a.part, a.violation, count(*) FROM rebate.audit() a GROUP BY 2, 3 ORDER BY 2, 3;
		RAISE EXCEPTION USING ERRCODE = 'P0099';
	EXCEPTION WHEN SQLSTATE 'P0099' THEN
	END;
	IF NOT FOUND THEN
		RETURN QUERY SELECT what, 'nothing found', NULL::text, NULL::bigint;
	END IF;
END
$$;

SELECT * FROM damage('balance raised', $$UPDATE rebate_data.account SET available = available + 1 WHERE member = 'ann'$$);
SELECT * FROM damage('last entry forgotten', $$UPDATE rebate_data.account SET last_entry = last_entry - 1 WHERE member = 'ann'$$);
SELECT * FROM damage('last check changed', $$UPDATE rebate_data.account SET last_check = 0 WHERE member = 'ann'$$);
SELECT * FROM damage('account deleted', $$DELETE FROM rebate_data.account WHERE member = 'bob'$$);
SELECT * FROM damage('account in an unknown currency', $$UPDATE rebate_data.account SET currency = 'QQQ' WHERE member = 'bob'$$);
-- the entries that opened a rebate, in its row
SELECT * FROM damage('opening raised', $$UPDATE rebate_data.accrual SET amount = amount + 1 WHERE seq = 1 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('opening negated', $$UPDATE rebate_data.accrual SET amount = -amount WHERE seq = 1 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('opening forgotten', $$UPDATE rebate_data.accrual SET seq = NULL WHERE seq = 2 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('opening with another number', $$UPDATE rebate_data.accrual SET seq = 7 WHERE seq = 2 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('sides swapped', $$UPDATE rebate_data.accrual SET debit = credit, credit = debit WHERE seq = 1 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('other house account', $$UPDATE rebate_data.accrual SET debit = 101 WHERE debit = 100 AND seq = 1$$);
SELECT * FROM damage('kind changed', $$UPDATE rebate_data.accrual SET kind = 'z' WHERE seq = 1 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('book date changed', $$UPDATE rebate_data.accrual SET book_date = effective_date - 40 WHERE seq = 1 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('event moved', $$UPDATE rebate_data.accrual SET event_at = order_time - interval '1 hour' WHERE seq = 1 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('balance after opening changed', $$UPDATE rebate_data.accrual SET available = available + 5 WHERE seq = 1 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
-- the entries after them
SELECT * FROM damage('entry raised', $$UPDATE rebate_data.entry SET amount = amount + 1 WHERE seq = 3 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('entry negated', $$UPDATE rebate_data.entry SET amount = -amount WHERE seq = 3 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('entry deleted', $$DELETE FROM rebate_data.entry WHERE seq = 3 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('last entry deleted', $$DELETE FROM rebate_data.entry WHERE (account_id, seq) = (SELECT account_id, last_entry FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('entry doubled', $$INSERT INTO rebate_data.entry (account_id, accrual_id, source_id, rule_id, kind, seq, posted_at, xid, "check", debit, credit, epoch, effective_date, amount, event_at, order_key) SELECT account_id, accrual_id, source_id, rule_id, kind, seq + 100, posted_at, xid, "check", debit, credit, epoch, effective_date, amount, event_at, order_key FROM rebate_data.entry WHERE seq = 3 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('entry moved to another account', $$UPDATE rebate_data.entry SET account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'bob'), seq = 2 WHERE seq = 3 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('posted earlier', $$UPDATE rebate_data.entry SET posted_at = posted_at - interval '1 day' WHERE seq = 3 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('balance after entry changed', $$UPDATE rebate_data.entry SET available = available + 5 WHERE seq = 3 AND account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'ann')$$);
SELECT * FROM damage('accrual raised', $$UPDATE rebate_data.accrual SET earned = earned + 1 WHERE order_key = '1'$$);
SELECT * FROM damage('accrual in another bucket', $$UPDATE rebate_data.accrual SET bucket = '1' WHERE order_key = '1'$$);
SELECT * FROM damage('accrual deleted', $$DELETE FROM rebate_data.accrual WHERE order_key = '1'$$);
SELECT * FROM damage('decision deleted', $$DELETE FROM rebate_data.accrual WHERE order_key = '4'$$);
SELECT * FROM damage('accrual of another rule', $$UPDATE rebate_data.accrual SET rule_id = 77 WHERE order_key = '1'$$);
SELECT * FROM damage('accrual of another account', $$UPDATE rebate_data.accrual SET account_id = (SELECT account_id FROM rebate_data.account WHERE member = 'bob'), seq = 2 WHERE order_key = '1'$$);
SELECT * FROM damage('accrual of another source', $$UPDATE rebate_data.accrual SET source_id = 77 WHERE order_key = '1'$$);
SELECT * FROM damage('accrual of another order', $$UPDATE rebate_data.accrual SET order_key = '99' WHERE order_key = '1'$$);
SELECT * FROM damage('facts doubled', $$INSERT INTO rebate_data.accrual (accrual_id, account_id, source_id, rule_id, version, generation, first_seen, order_time, earned, bucket, phase, flags, part, order_key) SELECT accrual_id + 1000000, 0, source_id, 0, 0, generation + 1, first_seen, order_time, 0, '-', phase, flags, part + 1, order_key FROM rebate_data.accrual WHERE order_key = '1'$$);
SELECT * FROM damage('accrual doubled', $$INSERT INTO rebate_data.accrual (accrual_id, account_id, source_id, rule_id, version, generation, first_seen, order_time, earned, bucket, phase, flags, part, order_key) SELECT accrual_id + 1000000, account_id, source_id, rule_id, version, generation, first_seen, order_time, earned, bucket, phase, flags, part + 1, order_key FROM rebate_data.accrual WHERE order_key = '1'$$);
SELECT * FROM damage('rule version rewritten', $$UPDATE rebate_data.rule_version SET rate = 50; UPDATE rebate_data.generation SET generation = generation + 1$$);
SELECT * FROM damage('rule version deleted', $$DELETE FROM rebate_data.rule_version$$);
SELECT * FROM damage('rule of the future', $$UPDATE rebate_data.rule_version SET generation = 1000$$);
SELECT * FROM damage('ledger account deleted', $$DELETE FROM rebate_data.ledger_account WHERE ledger_account_id = 100$$);
SELECT * FROM damage('sequence set back', $$SELECT setval('rebate_data.id', 64, false); UPDATE rebate_data.account SET account_id = account_id WHERE false; UPDATE rebate_data.accrual SET accrual_id = accrual_id + 10000000 WHERE order_key = '4'$$);
SELECT * FROM damage('guard dropped', $$DROP TRIGGER rebate_guard ON rebate_data.entry$$);
SELECT * FROM damage('order changed behind our back', $$UPDATE shop SET total = 1000 WHERE id = 1$$);
SELECT * FROM damage('order deleted behind our back', $$DELETE FROM shop WHERE id = 1$$);
SELECT * FROM damage('order inserted behind our back', $$INSERT INTO shop VALUES (9, 'eve', 10, 'confirmed')$$);
SELECT * FROM damage('status changed behind our back', $$UPDATE shop SET state = 'pending' WHERE id = 1$$);
SELECT * FROM damage('member changed behind our back', $$UPDATE shop SET customer = 'bob' WHERE id = 1$$);
SELECT * FROM damage('trigger dropped', $$DROP TRIGGER rebate_update ON shop$$);
SELECT * FROM damage('trigger disabled', $$ALTER TABLE shop DISABLE TRIGGER rebate_insert$$);
SELECT * FROM damage('table dropped', $$DROP TABLE shop$$);

-- all of it was rolled back
SELECT * FROM rebate.audit();
DROP FUNCTION damage(text, text);
DROP TABLE shop;
