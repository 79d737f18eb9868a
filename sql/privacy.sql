--
-- Members get another key, or are erased: no cent changes, the audit stays clean, and nothing of an erased key is left.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
CREATE ROLE rebate_test_asks LOGIN IN ROLE rebate_owner;
CREATE ROLE rebate_test_agrees LOGIN IN ROLE rebate_owner;
CREATE ROLE rebate_test_zoe LOGIN;
SELECT rebate.grant_right('approver', 'rebate_owner');

CREATE TABLE shop (
	id text PRIMARY KEY, customer text, total numeric, state text DEFAULT 'sent', refunded numeric, tier text,
	note text, placed timestamptz DEFAULT '2026-01-01', sent timestamptz DEFAULT '2026-01-02', back_of text
);
SELECT rebate.attach('shop', 'customer', 'total', 'EUR', status => 'state', refunded => 'refunded', quantity => 'note::numeric',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     attributes => '{"tier": "tier"}', order_time => 'placed', confirmed_at => 'sent',
                     since => '2020-01-01', max_backdate => NULL, original => ARRAY['back_of']);
CREATE TABLE rows_shop (id int PRIMARY KEY, customer int, total numeric, placed timestamptz DEFAULT '2026-01-01');
SELECT rebate.attach('rows_shop', 'customer', 'total', 'USD', order_time => 'placed', since => '2020-01-01', max_backdate => NULL,
                     row_triggers => true);
SELECT rebate.set_group('all', 'stack');
SELECT rebate.set_rule('ten', percent => 10, hold => '14 days', valid_from => '2020-01-01', rule_group => 'all', source => 'shop');
SELECT rebate.set_rule('one', percent => 1, valid_from => '2020-01-01', rule_group => 'all', source => 'shop');
SELECT rebate.set_rule('violet', fixed => 2, currency => 'EUR', hold => '90 days', scope => '{"tier": "violet"}', source => 'shop',
                       valid_from => '2020-01-01', rule_group => 'all');
SELECT rebate.set_rule('rows', percent => 3, valid_from => '2020-01-01', source => 'rows_shop');
RESET client_min_messages;
\set money 'SELECT member, currency, tracked, pending, maturing, available, last_entry FROM rebate.balances ORDER BY member COLLATE "C", currency; SELECT * FROM rebate.audit();'
\set pseudonyms 'SELECT CASE WHEN member LIKE \'erased-%\' THEN \'(erased)\' ELSE member END AS member, currency, tracked, pending, maturing, available, last_entry FROM rebate.balances ORDER BY account_id; SELECT * FROM rebate.audit();'

-- money in every state, also below zero
INSERT INTO shop (id, customer, total, state, sent) VALUES
	('a1', 'alice', 100, 'new', NULL), ('a2', 'alice', 200, 'paid', NULL), ('a3', 'alice', 300, 'sent', '2026-01-02'),
	('a4', 'alice', 400, 'sent', '2026-03-01'), ('a5', 'alice', -50, 'sent', '2026-01-02'), ('b1', 'bob', 100, 'sent', '2026-01-02'),
	('n1', 'nina', -70, 'sent', '2026-01-02');
CALL rebate.mature('2026-02-01');
:money

-- another key: no entry, no balance
SELECT count(*) AS entries, sum("check"::numeric) AS checks FROM rebate_data.ledger \gset before_
SELECT handle FROM rebate_data.account WHERE member = 'alice' \gset
SELECT length(rebate.channel('alice'));
SELECT rebate.replace_member('alice', 'alina');
:money
SELECT count(*) = :before_entries AND sum("check"::numeric) = :before_checks AS same FROM rebate_data.ledger;
SELECT DISTINCT event ->> 'member' AS member, event ->> 'account' = :'handle' AS same_handle FROM rebate.feed() ORDER BY 1;
SELECT count(*) FROM rebate.events('alice');
SELECT count(*) FROM rebate.events('alina');
-- his channel is closed, since its name was made of the old key
SELECT count(*) FROM rebate_data.channel;
-- rows with the old key, or with the new one, are his
INSERT INTO shop (id, customer, total) VALUES ('a6', 'alice', 10), ('a7', 'alina', 20);
UPDATE shop SET total = total + 10 WHERE id IN ('a1', 'a2', 'a3', 'a4', 'a6');
UPDATE shop SET customer = 'alina' WHERE customer = 'alice';
UPDATE shop SET refunded = 100 WHERE id = 'a4';
:money
SELECT outcome, detail LIKE '%member alina%' AS alina FROM rebate.explain('shop', 'a6') WHERE topic IN ('order', 'accrual');
SELECT detail FROM rebate.preview('shop', '{"id": "p", "customer": "alice", "total": 10, "state": "new", "placed": "2026-01-01"}') WHERE topic = 'accrual';
-- also with member keys of other types
INSERT INTO rows_shop VALUES (1, 7, 100), (2, 8, 100);
SELECT rebate.replace_member('7', '70');
UPDATE rows_shop SET total = 200;
UPDATE rows_shop SET customer = 70 WHERE id = 1;
:money
-- and along a chain, and back
SELECT rebate.replace_member('alina', 'alma');
SELECT rebate.replace_member('alma', 'alice');
UPDATE shop SET total = total + 10 WHERE id = 'a7';
INSERT INTO shop (id, customer, total) VALUES ('a8', 'alma', 10), ('a9', 'alina', 10), ('a10', 'alice', 10);
:money

-- what cannot be
\set VERBOSITY sqlstate
SELECT rebate.erase_member('alice');
\set VERBOSITY default
SELECT rebate.replace_member('alice', 'bob');
SELECT rebate.replace_member('bob', 'alma');
SELECT rebate.replace_member('alma', 'anna');
SELECT rebate.replace_member('nobody', 'anna');
SELECT rebate.replace_member('alice', 'alice');
SELECT rebate.replace_member('alice', '');
SELECT rebate.replace_member(NULL, 'anna');
BEGIN;
SELECT rebate.replace_member('alice', 'anna');
INSERT INTO shop (id, customer, total) VALUES ('x1', 'alice', 10);
SELECT member FROM rebate.accruals WHERE order_key = 'x1' LIMIT 1;
SELECT rebate.flush();
SELECT DISTINCT member FROM rebate.accruals WHERE order_key = 'x1';
ROLLBACK;
INSERT INTO shop (id, customer, total) VALUES ('x1', 'alice', 10);
SELECT DISTINCT member FROM rebate.accruals WHERE order_key = 'x1';
:money

-- an erasure is refused while there is money anywhere
SELECT rebate.erase_member('alice');
SELECT rebate.erase_member('nina');
SELECT rebate.erase_member('alma');
SELECT rebate.erase_member('alice', true);
-- one asks, another one agrees
SELECT rebate.request_erasure('nobody');
SET SESSION AUTHORIZATION rebate_test_asks;
SELECT rebate.request_erasure('alice');
SELECT rebate.request_erasure('nina');
SELECT rebate.request_erasure('bob');
SELECT rebate.withdraw_erasure('bob');
SELECT rebate.withdraw_erasure('bob');
SELECT member, requested_by FROM rebate.erasure_requests();
SELECT rebate.erase_member('alice', true);
SET ROLE rebate_owner;
SELECT rebate.erase_member('alice', true);
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION rebate_test_agrees;
SELECT rebate.erase_member('bob', true);
-- who asked is no second person through a gateway; another one whom it names is, and is written down
BEGIN;
SELECT rebate.on_behalf_of('rebate_test_asks');
SELECT rebate.erase_member('alice', true);
ROLLBACK;
BEGIN;
SELECT rebate.on_behalf_of('vera');
SELECT length(rebate.erase_member('nina', true));
SELECT erased_by, requested_by FROM rebate.erasures();
ROLLBACK;
SELECT entries AS counted_before FROM rebate.stat_engine \gset
SELECT length(rebate.erase_member('alice', true));
SELECT length(rebate.erase_member('nina', true));
SELECT entries - :counted_before = (SELECT count(*) FROM rebate.entries WHERE kind = 'write_off') AS counted FROM rebate.stat_engine;
RESET SESSION AUTHORIZATION;
:pseudonyms
SELECT member LIKE 'erased-%' AS pseudonym, erased_by, requested_by FROM rebate.erasures();
SELECT * FROM rebate.erasure_requests();
SELECT kind, debit, credit, sum(amount) FROM rebate.entries WHERE kind = 'write_off' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT code, balance FROM rebate.trial_balance WHERE balance <> 0 AND currency = 'EUR' ORDER BY code COLLATE "C";
SELECT currency, sum(balance) FROM rebate.trial_balance GROUP BY 1 ORDER BY 1;
SELECT line, amount, available FROM rebate.statement((SELECT member FROM rebate.balances WHERE last_entry = 4 AND currency = 'EUR'));
SELECT * FROM rebate_data.waiting w JOIN rebate_data.account a USING (account_id) WHERE a.member LIKE 'erased-%';
CALL rebate.mature('2027-01-01');
CALL rebate.fold();
:pseudonyms

-- what the shop does with the rows of his orders moves nothing: refunds, another member, none, deletion
UPDATE shop SET refunded = total WHERE id = 'a1';
UPDATE shop SET customer = 'anonymous' WHERE id IN ('a2', 'a3');
UPDATE shop SET customer = NULL, total = 1 WHERE id = 'a4';
UPDATE shop SET state = 'nonsense' WHERE id = 'a6';
UPDATE shop SET note = 'no number' WHERE id = 'a7';
DELETE FROM shop WHERE id IN ('a5', 'a8');
INSERT INTO shop (id, customer, total) VALUES ('a5', 'bob', 1000);
UPDATE shop SET id = 'a90' WHERE id = 'a9';
SELECT order_key, decision, earned FROM rebate.decisions WHERE source = 'public.shop' ORDER BY order_key COLLATE "C";
:pseudonyms
-- new orders with any key that he had: recorded, no money, no error; in every way that orders come
INSERT INTO shop (id, customer, total) VALUES ('e1', 'alice', 10), ('e2', 'alma', 10), ('e3', 'alina', 10), ('e4', 'bob', 10);
UPDATE shop SET total = 20 WHERE id LIKE 'e_';
SET rebate.posting = statement;
INSERT INTO shop (id, customer, total, state) VALUES ('e5', 'alice', 10, 'nonsense'), ('e6', 'alma', 10, 'paid');
RESET rebate.posting;
SET rebate.collect_limit = 10;
INSERT INTO shop (id, customer, total) SELECT 'l' || i, CASE i % 3 WHEN 0 THEN 'alice' WHEN 1 THEN 'm' || i % 5 ELSE 'alma' END, 10
FROM generate_series(1, 60) i;
UPDATE shop SET total = 20 WHERE id LIKE 'l%';
RESET rebate.collect_limit;
SET rebate.mode = defer;
INSERT INTO shop (id, customer, total) VALUES ('e7', 'alice', 10);
SET rebate.mode = off;
INSERT INTO shop (id, customer, total) VALUES ('e8', 'alice', 10);
RESET rebate.mode;
SELECT rebate.reconcile('shop');
SELECT length(rebate.erase_member('70')) IS NULL AS has_money;
UPDATE rows_shop SET total = 0 WHERE id = 1;
SELECT length(rebate.erase_member('70'));
INSERT INTO rows_shop VALUES (3, 7, 100), (4, 70, 100), (5, 8, 100);
SET session_replication_role = replica;
INSERT INTO rows_shop VALUES (6, 7, 100), (7, 8, 100);
RESET session_replication_role;
SELECT count(*), decision, sum(earned) FROM rebate.decisions GROUP BY decision ORDER BY decision;
SELECT order_key, decision, earned FROM rebate.decisions WHERE order_key LIKE 'e_' OR source = 'public.rows_shop' ORDER BY order_key COLLATE "C";
SELECT * FROM rebate.retry();
:pseudonyms
SELECT subject, outcome, detail LIKE '%its member is erased%' AS said FROM rebate.explain('shop', 'e1');
SELECT subject, outcome, detail LIKE '%stays%' AS said FROM rebate.explain('shop', 'a2') WHERE topic = 'order';
SELECT outcome FROM rebate.preview('shop', '{"id": "p", "customer": "alma", "total": 10, "state": "new", "placed": "2026-01-01"}');
-- a mistake that is put right: the order was never his
UPDATE shop SET customer = 'alice' WHERE id = 'e4';
SELECT decision, earned FROM rebate.decisions WHERE order_key = 'e4';
UPDATE shop SET customer = 'bob' WHERE id = 'e4';
SELECT decision, earned FROM rebate.decisions WHERE order_key = 'e4';
-- nor is one that was given to somebody else before
INSERT INTO shop (id, customer, total, sent) VALUES ('g1', 'gina', 100, '2026-01-02');
UPDATE shop SET customer = 'bob' WHERE id = 'g1';
SELECT length(rebate.erase_member('gina'));
UPDATE shop SET refunded = 50 WHERE id = 'g1';
SELECT member LIKE 'erased-%' AS erased, rule, earned FROM rebate.accruals WHERE order_key = 'g1' ORDER BY 1, 2;
-- his pseudonym is nobody's key
SELECT member AS pseudonym FROM rebate.balances WHERE member LIKE 'erased-%' ORDER BY account_id LIMIT 1 \gset
INSERT INTO shop (id, customer, total) VALUES ('e9', :'pseudonym', 10);
SELECT decision FROM rebate.decisions WHERE order_key = 'e9';
SELECT rebate.replace_member('bob', 'alma');
SELECT rebate.replace_member('alice', 'new');
SELECT rebate.request_erasure('alice');
SELECT rebate.erase_member('alice');
SELECT rebate.erase_member('never seen');
:pseudonyms

-- Where personal data is.  A member, a key of an order, an attribute and a text of a row that are like no other,
-- through everything that records something.
CREATE FUNCTION found(needle text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	c record;
	n bigint;
BEGIN
	FOR c IN SELECT s.nspname, t.relname, a.attname FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
			 JOIN pg_namespace s ON s.oid = t.relnamespace
			 WHERE s.nspname IN ('rebate', 'rebate_data') AND t.relkind IN ('r', 'm', 'S') AND a.attnum > 0 AND NOT a.attisdropped
			 ORDER BY s.nspname COLLATE "C", t.relname COLLATE "C", a.attnum
	LOOP
		EXECUTE format('SELECT count(*) FROM %I.%I WHERE position($1 IN %I::text) + position(encode(convert_to($1, ''UTF8''), ''hex'') IN %3$I::text) > 0',
					   c.nspname, c.relname, c.attname) INTO n USING needle;
		IF n > 0 THEN
			RETURN NEXT concat_ws('.', c.nspname, c.relname, c.attname);
		END IF;
	END LOOP;
END $$;
CREATE FUNCTION listed() RETURNS SETOF text LANGUAGE sql AS $$ SELECT concat_ws('.', "schema", "table", "column") FROM rebate.personal_data() $$;
-- what is listed is there, and nobody forgot to say what becomes of it
SELECT listed() EXCEPT
SELECT concat_ws('.', n.nspname, c.relname, a.attname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace;
-- each column once
SELECT listed, count(*) FROM listed() listed GROUP BY 1 HAVING count(*) > 1;

-- a new column that can hold a text is in rebate.personal_data(), or among these, which tell of no person
SELECT format('%s.%s.%s', n.nspname, c.relname, a.attname) AS not_listed FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('rebate', 'rebate_data') AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
  AND atttypid IN ('text'::regtype, 'varchar'::regtype, 'name'::regtype, 'json'::regtype, 'jsonb'::regtype, 'bytea'::regtype, 'text[]'::regtype)
  AND format('%s.%s.%s', n.nspname, c.relname, a.attname) NOT IN (SELECT listed())
  AND format('%s.%s', c.relname, a.attname) <> ALL (ARRAY[
	'account.currency', 'allowed_function.digest', 'allowed_function.function', 'carried_house.currency', 'dropped.exported_to', 'campaign.name', 'checkpoint.currency', 'currency.code', 'draft.kind', 'draft.name', 'draft.state', 'failure.sqlstate', 'finding.part',
	'finding.violation', 'granted_right.right_name', 'house_balance.currency', 'house_entry.currency', 'job.job', 'ledger_account.code', 'ledger_account.description',
	'ledger_account.kind', 'link.currency', 'programme.name', 'programme.time_zone', 'rule.name', 'rule_group.mode', 'rule_group.name', 'rule_version.currency',
	'rule_version.formula', 'rule_version.group_mode', 'rule_version.limit_mode', 'rule_version.refund', 'rule_version.rounding', 'rule_version.unlinked_return',
	'scope.attributes', 'source.amount', 'source.arguments', 'source.attributes', 'source.confirmed_at', 'source.currency', 'source.currency_code', 'source.key_columns',
	'source.member', 'source.on_delete', 'source.on_error', 'source.on_truncate', 'source.order_time', 'source.original', 'source.phases', 'source.quantity',
	'source.refunded', 'source.refunded_quantity', 'source.relation_name', 'source.replaces', 'source.status'])
ORDER BY 1;
SELECT * FROM rebate.personal_data() WHERE what IS NULL OR kept IS NULL OR erasure IS NULL OR erasure !~ '^(stays|removed|replaced|added|a new one)';

\set key '\'zoe.quark@example.org\''
SET client_min_messages = error;
INSERT INTO shop (id, customer, total, state, tier, sent) VALUES
	('ZQ-1-needle', 'zoe.maiden@example.org', 100, 'sent', 'violet', '2026-01-02'), ('ZQ-2-needle', 'zoe.maiden@example.org', 100, 'paid', 'tier-needle', NULL);
SELECT rebate.replace_member('zoe.maiden@example.org', :key);
INSERT INTO shop (id, customer, total, state) VALUES ('ZQ-3-needle', :key, 100, 'state-needle');
INSERT INTO shop (id, customer, total, note) VALUES ('ZQ-4-needle', :key, 100, 'Zoe ' || :key);
INSERT INTO shop (id, customer, total, note) VALUES ('other', 'bob', 100, 'not ' || :key);
-- its message is clipped in the middle of the key
INSERT INTO shop (id, customer, total, note) VALUES ('long', 'bob', 100, repeat('- ', 224) || :key);
SELECT right(message, 14) AS clipped FROM rebate_data.failure WHERE order_key = 'long';
INSERT INTO shop (id, customer, total, back_of) VALUES ('ZQ-5-needle', :key, -10, 'ZQ-1-needle');
SELECT rebate.freeze('shop', 'ZQ-1-needle', :key || ' disputes', '2026-01-03');
SELECT rebate.freeze('shop', 'ZQ-1-needle', :key || ' again', '2026-01-03');
SELECT length(rebate.channel(:key));
SELECT rebate.map_login('rebate_test_zoe', :key);
SET rebate.mode = defer;
INSERT INTO shop (id, customer, total) VALUES ('ZQ-6-needle', :key, 100);
SET rebate.mode = off;
INSERT INTO shop (id, customer, total) VALUES ('ZQ-7-needle', :key, 100);
RESET rebate.mode;
CALL rebate.run_audit();
SET SESSION AUTHORIZATION rebate_test_asks;
SELECT rebate.request_erasure(:key);
RESET SESSION AUTHORIZATION;
RESET client_min_messages;
SELECT found(:key);
SELECT found('zoe.maiden@example.org');
SELECT found('needle');
SELECT 'not listed', f FROM unnest(ARRAY[:key, 'zoe.maiden', 'needle', 'Zoe']) n, found(n) f WHERE f NOT IN (SELECT listed());
SELECT position(:key IN d::text) FROM rebate.delivery_status d;
SET SESSION AUTHORIZATION rebate_test_agrees;
SELECT length(rebate.erase_member(:key, true));
RESET SESSION AUTHORIZATION;
SELECT found(:key);
SELECT found('zoe.maiden@example.org');
SELECT found('Zoe');
-- keys of orders stay where the list says so
SELECT found('needle');
SELECT 'should be gone', f FROM found('needle') f WHERE f NOT IN (SELECT concat_ws('.', "schema", "table", "column") FROM rebate.personal_data() WHERE erasure LIKE 'stays%');
SELECT rebate.reconcile('shop');
SELECT 'deferred', f FROM found('needle') f WHERE f LIKE '%deferred%';
SELECT found(:key);
SELECT order_key, decision, earned FROM rebate.decisions WHERE order_key LIKE 'ZQ%' ORDER BY order_key COLLATE "C";
SELECT order_key, sqlstate, regexp_replace(message, '(- )+', '- ') AS message, detail FROM rebate_data.failure ORDER BY order_key COLLATE "C";
SELECT found('zoe.quark');
SELECT reason FROM rebate_data.freeze ORDER BY reason COLLATE "C";
:pseudonyms
-- an error that came later goes with the next call
UPDATE shop SET state = 'sent', note = 'Zoe' WHERE id = 'ZQ-3-needle';
SELECT rebate.erase_member(:key);
SELECT found('Zoe');

-- the audit finds what does not fit
SET client_min_messages = error;
BEGIN;
ALTER TABLE rebate_data.former_secret DISABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.former_member DISABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.erasure DISABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.account DISABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.accrual DISABLE TRIGGER rebate_guard;
DELETE FROM rebate_data.former_secret;
INSERT INTO rebate_data.former_member VALUES ('\x00', 'gone');
UPDATE rebate_data.erasure SET requested_by = erased_by WHERE member = :'pseudonym';
UPDATE rebate_data.account SET pending = pending + 1 WHERE member = :'pseudonym';
UPDATE rebate_data.accrual SET flags = 0 WHERE order_key = 'g1' AND earned > 0;
UPDATE rebate_data.account SET status = 'e' WHERE member = 'bob';
ALTER TABLE rebate_data.former_secret ENABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.former_member ENABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.erasure ENABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.account ENABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.accrual ENABLE TRIGGER rebate_guard;
SELECT DISTINCT violation COLLATE "C" FROM rebate.audit() WHERE part = 'ledger' ORDER BY 1;
ROLLBACK;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP FUNCTION listed, found;
DROP TABLE shop, rows_shop;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP ROLE rebate_test_asks, rebate_test_agrees, rebate_test_zoe;
