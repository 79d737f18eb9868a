--
-- Changes of rules by two persons: one writes a draft, another approves it.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE EXTENSION rebate;
CREATE ROLE regress_rebate_ann LOGIN;
CREATE ROLE regress_rebate_bob LOGIN;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, merchant char(4), placed timestamptz, vip boolean);
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', order_time => 'placed', since => '2026-01-01', max_backdate => NULL, max_future => NULL);
GRANT rebate_owner TO regress_rebate_ann, regress_rebate_bob;
GRANT SELECT (total, merchant) ON orders TO regress_rebate_ann;
GRANT SELECT ON orders TO regress_rebate_bob;
\set valid '2026-01-01'
RESET client_min_messages;

-- without the requirement a rule is a version at once
SELECT rebate.set_rule('ten', percent => 10, valid_from => :'valid');
SELECT rebate.require_approval(NULL);
SELECT rebate.require_approval(false);
SELECT rebate.require_approval(true);
SELECT rebate.require_approval(true);

--
-- Written by Ann
--
SET SESSION AUTHORIZATION regress_rebate_ann;
\set VERBOSITY default
SELECT rebate.set_rule('ten', percent => 12, valid_from => :'valid', scope => '{"merchant": "m1"}', condition => 'total > 20');
\set VERBOSITY terse
-- again: the same draft; what is current already is none
SELECT rebate.set_rule('ten', percent => 12, valid_from => :'valid', scope => '{"merchant": "m1"}', condition => 'total > 20');
SELECT rebate.set_rule('ten', percent => 10, valid_from => :'valid');
-- all that is checked is checked at once
SELECT rebate.set_rule('ten', percent => 500);
SELECT rebate.set_rule('ten', percent => 12, condition => 'totl > 20');
SELECT rebate.set_rule('ten', percent => 12, scope => '{"country": "DE"}');
SELECT rebate.set_rule('ten', percent => 12, rule_group => 'none');
SELECT rebate.set_rule('ten', fixed => 1, currency => 'XYZ');
SELECT rebate.set_rule('ten', percent => 12, condition => 'vip');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.end_rule('nine');
SELECT rebate.set_group('none', 'all');
-- not by her who wrote it, whatever role she takes
SELECT rebate.approve_rule(1);
\echo :LAST_ERROR_SQLSTATE
SET ROLE rebate_owner;
SELECT rebate.approve_rule(1);
RESET ROLE;
RESET SESSION AUTHORIZATION;
SELECT draft, kind, rule, state, changes, base_version, current_version, stale, author, author_role, decided_by, version FROM rebate.rule_drafts;
SELECT rule, version, rate FROM rebate.rules;

-- nothing has changed for orders
INSERT INTO orders VALUES (1, 'alice', 100, 'm1', '2026-02-01');
SELECT order_key, rule, version, earned FROM rebate.accruals ORDER BY order_key;

--
-- Looked at and approved by Bob
--
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT topic, subject, outcome, amount, detail FROM rebate.preview('orders', '{"customer": "bob", "total": 50, "merchant": "m1", "placed": "2026-02-01"}', 1) WHERE topic <> 'order';
SELECT topic, subject, outcome, amount, detail FROM rebate.preview('orders', '{"customer": "bob", "total": 50, "merchant": "m2", "placed": "2026-02-01"}', 1) WHERE topic <> 'order';
SELECT topic, subject, outcome, amount, detail FROM rebate.preview('orders', '{"customer": "bob", "total": 50, "merchant": "m1", "placed": "2026-02-01"}') WHERE topic <> 'order';
SELECT rebate.preview('orders', '{"customer": "bob"}', 7);
SELECT rebate.preview('orders', '{"customer": "bob"}', NULL);
BEGIN READ ONLY;
SELECT rebate.preview('orders', '{"customer": "bob"}', 1);
ROLLBACK;
SELECT generation FROM rebate_data.generation;
SELECT rebate.approve_rule(7);
SELECT rebate.approve_rule(NULL);
SELECT rebate.withdraw_rule(1);
SELECT rebate.reject_rule(1, ' ');
SELECT rebate.approve_rule(1, 'as agreed');
SELECT rebate.approve_rule(1);
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.reject_rule(1, 'too late');
SELECT rebate.withdraw_rule(1);
RESET SESSION AUTHORIZATION;
SELECT rule, version, rate, NULLIF(created_by, current_user) AS created_by, draft, approved_by FROM rebate.rule_versions ORDER BY version;
SELECT state, changes, decided_by, decided_at IS NOT NULL AS decided, reason, version FROM rebate.rule_drafts;
INSERT INTO orders VALUES (2, 'alice', 100, 'm1', '2026-02-01'), (3, 'alice', 100, 'm2', '2026-02-01');
SELECT order_key, rule, version, earned FROM rebate.accruals ORDER BY order_key;
SELECT subject, outcome, amount, detail FROM rebate.explain('orders', 2) WHERE topic = 'rule';
SELECT * FROM rebate.audit();

--
-- Rejected, withdrawn, stale
--
SET client_min_messages = warning;
SET SESSION AUTHORIZATION regress_rebate_ann;
SELECT rebate.set_rule('ten', percent => 13, valid_from => :'valid');
SELECT rebate.set_rule('ten', percent => 14, valid_from => :'valid');
SELECT rebate.set_rule('ten', percent => 15, valid_from => :'valid');
SELECT rebate.end_rule('ten', '2026-06-01');
SELECT rebate.set_rule('new', fixed => 1, currency => 'EUR', valid_from => :'valid');
SELECT rebate.withdraw_rule(3);
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.reject_rule(2, 'too much');
SELECT rebate.approve_rule(4);
SELECT rebate.approve_rule(6);
\set VERBOSITY default
SELECT rebate.approve_rule(5);
\set VERBOSITY terse
\echo :LAST_ERROR_SQLSTATE
SELECT draft, changes FROM rebate.rule_drafts WHERE stale;
SELECT rebate.approve_rule(5, 'end all the same', allow_stale => true);
RESET SESSION AUTHORIZATION;
SELECT draft, kind, rule, state, changes, base_version, decided_by, reason, version FROM rebate.rule_drafts WHERE draft > 1 ORDER BY draft;
SELECT rule, version, formula, rate, valid_from, NULLIF(created_by, current_user) AS created_by, draft, approved_by FROM rebate.rule_versions ORDER BY rule, version;
-- what another draft has brought about meanwhile
SET SESSION AUTHORIZATION regress_rebate_ann;
SELECT rebate.set_rule('new', fixed => 2, currency => 'EUR', valid_from => :'valid');
RESET SESSION AUTHORIZATION;
SELECT rebate.set_rule('new', fixed => 2, currency => 'EUR', valid_from => :'valid');
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(7);
SELECT rebate.approve_rule(8, allow_stale => true);
SELECT rebate.reject_rule(8, 'twice');
RESET SESSION AUTHORIZATION;

--
-- A group: made at once, changed by two
--
SELECT rebate.set_group('season', 'first');
SET SESSION AUTHORIZATION regress_rebate_ann;
SELECT rebate.set_rule('spring', percent => 3, rule_group => 'season', valid_from => :'valid');
SELECT rebate.set_rule('summer', percent => 4, rule_group => 'season', valid_from => :'valid');
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(9), rebate.approve_rule(10);
SELECT rebate.set_group('season', 'best');
SELECT rebate.approve_rule(11);
SELECT subject, outcome, amount FROM rebate.preview('orders', '{"customer": "bob", "total": 50, "placed": "2026-07-01"}') WHERE topic = 'accrual';
SELECT subject, outcome, amount FROM rebate.preview('orders', '{"customer": "bob", "total": 50, "placed": "2026-07-01"}', 11) WHERE topic = 'accrual';
SET SESSION AUTHORIZATION regress_rebate_ann;
SELECT rebate.approve_rule(11);
RESET SESSION AUTHORIZATION;
SELECT kind, rule, state, changes, author, decided_by, version FROM rebate.rule_drafts WHERE draft = 11;
SELECT rule, version, created_by, draft, approved_by FROM rebate.rule_versions WHERE rule_group = 'season' ORDER BY rule, version;
SELECT * FROM rebate.audit();

--
-- As it is when it is approved
--
SET SESSION AUTHORIZATION regress_rebate_ann;
SELECT rebate.set_rule('cond', percent => 1, condition => 'total > 20', valid_from => :'valid');
SELECT rebate.set_rule('scope', percent => 1, scope => '{"merchant": "m1"}', valid_from => :'valid');
SELECT rebate.set_rule('past', percent => 1, valid_to => now() + '1 day');
SET SESSION AUTHORIZATION regress_rebate_bob;
-- the author may not read the column any more
RESET SESSION AUTHORIZATION;
REVOKE SELECT (total) ON orders FROM regress_rebate_ann;
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(12);
RESET SESSION AUTHORIZATION;
GRANT SELECT (total) ON orders TO regress_rebate_ann;
-- nor write rules
REVOKE rebate_owner FROM regress_rebate_ann;
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(12);
RESET SESSION AUTHORIZATION;
GRANT rebate_owner TO regress_rebate_ann;
-- a column means something else, or is gone
BEGIN;
ALTER TABLE orders ALTER total TYPE bigint;
SET LOCAL SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(12);
ROLLBACK;
BEGIN;
ALTER TABLE orders RENAME merchant TO seller;
SET LOCAL SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(13);
ROLLBACK;
-- its time has come and gone
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE rebate_data.draft SET arguments = jsonb_set(arguments, '{valid_to}', '"2026-01-02T00:00:00+00:00"') WHERE draft_id = 14;
SET LOCAL session_replication_role = origin;
SET LOCAL SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(14);
ROLLBACK;
-- neither the path of who approves matters, nor what he made
CREATE SCHEMA regress_rebate_bob AUTHORIZATION regress_rebate_bob;
GRANT USAGE ON SCHEMA regress_rebate_bob TO PUBLIC;
SET SESSION AUTHORIZATION regress_rebate_bob;
CREATE FUNCTION regress_rebate_bob.gt(numeric, numeric) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR regress_rebate_bob.> (FUNCTION = regress_rebate_bob.gt, LEFTARG = numeric, RIGHTARG = numeric);
CREATE TYPE regress_rebate_bob.numeric AS (x int);
SET search_path = regress_rebate_bob, pg_catalog, public;
SELECT rebate.approve_rule(12), rebate.approve_rule(13), rebate.approve_rule(14);
RESET search_path;
RESET SESSION AUTHORIZATION;
DROP SCHEMA regress_rebate_bob CASCADE;
SELECT rule, version, condition, scope, created_by, approved_by FROM rebate.rule_versions WHERE draft IN (12, 13, 14) ORDER BY rule;

--
-- A gateway tells persons behind one login apart
--
BEGIN;
SELECT rebate.on_behalf_of('carol');
SELECT rebate.set_rule('gate', percent => 1, valid_from => :'valid');
COMMIT;
-- a claim ends with its transaction
BEGIN;
SELECT rebate.on_behalf_of('dave');
COMMIT;
SELECT rebate.approve_rule(15);
BEGIN;
SELECT rebate.on_behalf_of('dave');
ROLLBACK;
SELECT rebate.approve_rule(15);
BEGIN;
SELECT rebate.on_behalf_of('carol');
SAVEPOINT s;
SELECT rebate.approve_rule(15);
ROLLBACK TO s;
SELECT rebate.on_behalf_of('dave');
ROLLBACK TO s;
-- what was said after the savepoint is undone, and what was said before it holds no longer
SELECT rebate.approve_rule(15);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT rebate.on_behalf_of('dave');
RELEASE s;
SAVEPOINT s;
ROLLBACK TO s;
SELECT rebate.approve_rule(15);
COMMIT;
SELECT rebate.on_behalf_of('');
SELECT draft, author_claim, decided_claim FROM rebate.rule_drafts WHERE draft = 15;
SELECT rule, created_by = current_user AS created_by_login, approved_by FROM rebate.rule_versions WHERE draft = 15;

--
-- What the programme allows at most
--
SELECT rebate.set_max_percent(-1);
SELECT rebate.set_max_percent('NaN');
SELECT rebate.set_max_percent(20);
\set VERBOSITY default
SELECT rebate.set_rule('much', percent => 50, max_percent => 50, valid_from => :'valid');
\set VERBOSITY terse
SELECT rebate.set_rule('much', percent => 20, valid_from => :'valid');
SELECT rebate.set_max_percent(10);
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(16);
RESET SESSION AUTHORIZATION;
SELECT rebate.set_max_percent(50);
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(16);
RESET SESSION AUTHORIZATION;
SELECT rebate.set_max_percent(NULL);
RESET client_min_messages;
SELECT rebate.set_max_percent(NULL);
SET client_min_messages = warning;
SELECT rebate.set_rule('much', percent => 500, max_percent => 500, valid_from => :'valid');
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(17);
RESET SESSION AUTHORIZATION;

--
-- What a superuser does behind our back is found
--
SELECT * FROM rebate.audit();
-- the findings after a change, as an error, which takes the change back
CREATE FUNCTION tamper(change text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL session_replication_role = replica;
	EXECUTE change;
	SET LOCAL session_replication_role = origin;
	RAISE EXCEPTION '%', COALESCE((SELECT string_agg(format('%s: %s. %s', a.violation, a.subject, regexp_replace(a.detail, ' (at|by|By|is) .*', ' ...')), E'\n')
		FROM rebate.audit() a WHERE a.part = 'rules'), 'nothing');
END $$;
SELECT tamper($$ DELETE FROM rebate_data.draft WHERE draft_id = 1 $$);
SELECT tamper($$ UPDATE rebate_data.draft SET state = 'open' WHERE draft_id = 11 $$);
SELECT tamper($$ UPDATE rebate_data.draft SET decided_by = author, decided_claim = NULL, author_claim = NULL WHERE draft_id IN (1, 15) $$);
SELECT tamper($$ UPDATE rebate_data.rule_version SET rate = 99 WHERE rule_id = 1 AND version IN (1, 2) $$);
SELECT tamper($$ UPDATE rebate_data.rule_version SET valid_from = '2025-01-01' WHERE rule_id = 1 AND version = 2 $$);
SELECT tamper($$ UPDATE rebate_data.rule_version v SET condition = NULL FROM rebate_data.rule r WHERE r.rule_id = v.rule_id AND r.name = 'cond' $$);
SELECT tamper($$ UPDATE rebate_data.rule_version v SET scope = '{"merchant": ["m2"]}' FROM rebate_data.rule r WHERE r.rule_id = v.rule_id AND r.name = 'scope' $$);
SELECT tamper($$ UPDATE rebate_data.rule_version v SET rate = 5 FROM rebate_data.rule r WHERE r.rule_id = v.rule_id AND r.name = 'spring' AND v.version = 2 $$);
SELECT tamper($$ UPDATE rebate_data.rule_version SET formula = 'percent', rate = 1 WHERE rule_id = 1 AND formula = 'none' $$);
SELECT tamper($$ UPDATE rebate_data.rule_version v SET rate = 60 FROM rebate_data.rule r WHERE r.rule_id = v.rule_id AND r.name = 'much' AND v.version = 1 $$);
SELECT tamper($$ INSERT INTO rebate_data.rule_control (generation, approval, changed_by) SELECT generation, false, 'me' FROM rebate_data.generation $$);
SELECT * FROM rebate.audit();

--
-- Approval is turned off by two, too
--
SELECT rebate.require_approval(false);
SELECT rebate.set_rule('ten', percent => 1, valid_from => :'valid');
SELECT rebate.approve_rule(18);
-- who may not ask for it any more has not asked
BEGIN;
SET LOCAL SESSION AUTHORIZATION regress_rebate_ann;
SELECT rebate.require_approval(false);
SET LOCAL SESSION AUTHORIZATION DEFAULT;
REVOKE rebate_owner FROM regress_rebate_ann;
SET LOCAL SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(20);
ROLLBACK;
SET SESSION AUTHORIZATION regress_rebate_bob;
SELECT rebate.approve_rule(18);
RESET SESSION AUTHORIZATION;
RESET client_min_messages;
SELECT rebate.require_approval(false);
SELECT rebate.set_rule('ten', percent => 1, valid_from => :'valid');
SELECT approval, max_percent, changed_by = current_user AS by_author FROM rebate_data.rule_control ORDER BY generation;
SELECT kind, state, changes, version FROM rebate.rule_drafts WHERE draft = 18;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP TABLE orders;
DROP FUNCTION tamper;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP OWNED BY regress_rebate_ann, regress_rebate_bob;
DROP ROLE regress_rebate_ann, regress_rebate_bob;
