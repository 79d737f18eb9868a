--
-- What people try who have some right already: to be two persons, to have a call of the doctor run code of theirs, to
-- learn who was erased, and what is left of him.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SELECT rebate.create_store();
CREATE ROLE regress_hostile_owner;
CREATE ROLE regress_hostile_admin;
CREATE ROLE regress_hostile_ann;
CREATE ROLE regress_hostile_bob;
CREATE ROLE regress_hostile_gate;
CREATE ROLE regress_hostile_login;
CREATE ROLE regress_hostile_mallory;
CREATE ROLE regress_hostile_dev;
CREATE SCHEMA hostile;
GRANT USAGE, CREATE ON SCHEMA hostile TO PUBLIC;
SELECT count(rebate.grant_right(r, 'regress_hostile_' || w)) FROM (VALUES ('owner', 'admin'), ('admin', 'admin'), ('ann', 'operator'),
    ('ann', 'approver'), ('bob', 'operator'), ('bob', 'approver'), ('gate', 'gateway'), ('gate', 'operator'), ('login', 'member')) w (w, r);
SET ROLE regress_hostile_owner;
CREATE TABLE hostile.heads (id int PRIMARY KEY, customer text, total numeric);
CREATE TABLE hostile.lines (id int PRIMARY KEY, head int NOT NULL REFERENCES hostile.heads, customer text, total numeric);
SELECT rebate.attach('hostile.heads', 'customer', 'total', 'EUR');
SELECT rebate.attach('hostile.lines', 'customer', 'total', 'EUR');
RESET ROLE;
SELECT rebate.set_rule('ten', percent => 10, source => 'hostile.heads');
INSERT INTO hostile.heads SELECT g, 'someone' || g || '@example.com', 100 FROM generate_series(1, 20) g;
\set VERBOSITY terse

--
-- a table's name ends no comment of a call that the doctor recommends to a superuser
--
SET ROLE regress_hostile_owner;
ALTER TABLE hostile.heads RENAME TO "heads
; CREATE ROLE regress_hostile_made; --";
RESET ROLE;
BEGIN;
SELECT remedy FROM rebate.doctor() WHERE "check" = 'tables' AND status = 'problem' \gexec
SELECT count(*) FROM pg_roles WHERE rolname = 'regress_hostile_made';
ROLLBACK;
ALTER TABLE hostile."heads
; CREATE ROLE regress_hostile_made; --" RENAME TO heads;
-- nor that of a role, where the store is somebody else's
DO $$BEGIN EXECUTE format('CREATE ROLE %I', E'regress_hostile_made\n; CREATE ROLE regress_hostile_made; --'); END$$;
BEGIN;
DROP TRIGGER rebate_guard ON rebate_data.store;
DO $$BEGIN EXECUTE format('REASSIGN OWNED BY rebate_owner TO %I', E'regress_hostile_made\n; CREATE ROLE regress_hostile_made; --'); END$$;
SELECT remedy FROM rebate.doctor();
ROLLBACK;
DO $$BEGIN EXECUTE format('DROP ROLE %I', E'regress_hostile_made\n; CREATE ROLE regress_hostile_made; --'); END$$;

--
-- an expression that its author's session can just about read does not stop orders of sessions with less stack
--
SELECT rebate.set_rule('deep', percent => 1, condition => repeat('NOT ', 300) || '(total > 0)', source => 'hostile.heads');
SELECT rebate.set_rule('deep', percent => 1, base => 'total' || repeat(' + 1', 100), source => 'hostile.heads');
SELECT rebate.set_rule('long', percent => 1, condition => 'total > 0' || repeat(' OR total > 0', 1000), source => 'hostile.heads');
-- nor does one with a pattern that takes a minute to compile, in each session; whatever the syntax of its repetitions
SELECT rebate.set_rule('slow', percent => 1, condition => $$customer ~ '^((a{0,12}){0,12}){0,9}d'$$, source => 'hostile.heads');
SELECT rebate.set_rule('slow', percent => 1, condition => $$regexp_like(customer, '^\(\(a\{0,12\}\)\{0,12\}\)\{0,9\}d', 'b')$$, source => 'hostile.heads');
SELECT rebate.set_rule('slow', percent => 1, base => 'gcd(total, 1' || repeat('7', 1000) || ')', source => 'hostile.heads');
SELECT rebate.set_rule('quick', percent => 1, condition => $$customer ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' OR customer ~ '^(someone){1,9}[0-9]{0,9}@'$$,
    source => 'hostile.heads');

--
-- a function that a superuser allowed is not replaced unseen: this one has the fingerprint of the first version of the store,
-- a hash whose last block can be chosen
--
SET ROLE regress_hostile_dev;
CREATE FUNCTION hostile.half(numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS 'BEGIN RETURN $1 / 2; END';
RESET ROLE;
SELECT rebate.allow_function('hostile.half(numeric)');
SELECT fingerprint FROM rebate_data.allowed_function;
SELECT rebate.set_rule('half', percent => 10, base => 'hostile.half(total)', source => 'hostile.heads');
INSERT INTO hostile.heads VALUES (701, 'dev', 100);
SELECT order_key, rule, earned FROM rebate.accruals WHERE order_key = '701' ORDER BY rule COLLATE "C";
SET ROLE regress_hostile_dev;
CREATE OR REPLACE FUNCTION hostile.half(numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS 'BEGIN RAISE WARNING ''as %'', current_user; RETURN 1000 * $1; END --                       1bw!!x#Srd1;';
RESET ROLE;
INSERT INTO hostile.heads VALUES (702, 'dev', 100);
SELECT order_key, sqlstate FROM rebate.failures;
SET ROLE regress_hostile_dev;
CREATE OR REPLACE FUNCTION hostile.half(numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS 'BEGIN RETURN $1 / 2; END';
RESET ROLE;
SELECT healed, failing FROM rebate.retry();
SELECT rebate.end_rule('half');

--
-- one person is not two: who asks for an erasure under the name that a gateway gives him, or under another name of his login
--
SET SESSION AUTHORIZATION regress_hostile_gate;
BEGIN;
SELECT rebate.on_behalf_of('regress_hostile_ann');
SELECT rebate.request_erasure('someone1@example.com');
COMMIT;
SELECT requested_by FROM rebate.erasure_requests();
SET SESSION AUTHORIZATION regress_hostile_ann;
SELECT rebate.erase_member('someone1@example.com', true);
SELECT rebate.request_erasure('someone2@example.com');
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_hostile_ann RENAME TO regress_hostile_anna;
SELECT rebate.grant_right('approver', 'regress_hostile_anna');
SET SESSION AUTHORIZATION regress_hostile_anna;
SELECT rebate.erase_member('someone2@example.com', true);
RESET SESSION AUTHORIZATION;
SELECT rebate.revoke_right('approver', 'regress_hostile_anna');
ALTER ROLE regress_hostile_anna RENAME TO regress_hostile_ann;
SET SESSION AUTHORIZATION regress_hostile_bob;
SELECT length(rebate.erase_member('someone1@example.com', true)), length(rebate.erase_member('someone2@example.com', true));
SELECT erased_by, requested_by FROM rebate.erasures() ORDER BY requested_at;
RESET SESSION AUTHORIZATION;
SELECT * FROM rebate.audit();
-- and the audit knows, too
BEGIN;
ALTER TABLE rebate_data.erasure DISABLE TRIGGER rebate_guard;
UPDATE rebate_data.erasure SET requested_claim = erased_by WHERE requested_claim IS NOT NULL;
SELECT part, violation FROM rebate.audit();
ROLLBACK;

--
-- who has lost his right leaves no draft behind that turns approval off
--
SET SESSION AUTHORIZATION regress_hostile_admin;
SELECT rebate.require_approval(true), rebate.require_approval(false);
RESET SESSION AUTHORIZATION;
SELECT rebate.revoke_right('admin', 'regress_hostile_admin');
SET SESSION AUTHORIZATION regress_hostile_bob;
SELECT rebate.approve_rule(1);
SELECT state FROM rebate.rule_drafts;
RESET SESSION AUTHORIZATION;
SELECT rebate.grant_right('admin', 'regress_hostile_admin');
SET SESSION AUTHORIZATION regress_hostile_bob;
SELECT rebate.approve_rule(1);
SELECT state FROM rebate.rule_drafts;
RESET SESSION AUTHORIZATION;

--
-- everybody may read pg_locks: they do not tell who is being erased, or opens an account
--
CREATE VIEW hostile.guesses AS
    SELECT count(*) AS locks, count(*) FILTER (WHERE (l.classid::bigint << 32 | l.objid::bigint) IN
            (SELECT hashtextextended(('someone' || g || '@example.com') COLLATE "C", 0) FROM generate_series(1, 1000) g)) AS guessed
    FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 20997 AND l.pid = pg_backend_pid();
GRANT SELECT ON hostile.guesses TO PUBLIC;
BEGIN;
SELECT rebate.erase_member('someone500@example.com');
SET LOCAL ROLE regress_hostile_mallory;
SELECT * FROM hostile.guesses;
ROLLBACK;
BEGIN;
INSERT INTO hostile.heads VALUES (600, 'someone600@example.com', 100);
SELECT rebate.flush();
SET LOCAL ROLE regress_hostile_mallory;
SELECT * FROM hostile.guesses;
ROLLBACK;

--
-- statistics of the planner have values of rows, until he is erased; also of a table that has no rows any more
--
SELECT rebate.map_login('regress_hostile_login', 'someone3@example.com');
SELECT length(rebate.channel('someone3@example.com'));
ANALYZE;
CREATE VIEW hostile.statistics AS
    SELECT s.tablename, s.attname FROM pg_stats s
    WHERE s.schemaname = 'rebate_data' AND concat(s.most_common_vals::text, s.histogram_bounds::text) ~ 'someone3@example.com';
SELECT count(*) > 0 AS there FROM hostile.statistics;
UPDATE hostile.heads SET total = 0 WHERE id = 3;
SELECT length(rebate.erase_member('someone3@example.com'));
SELECT * FROM hostile.statistics;
SELECT attname FROM pg_stats WHERE schemaname = 'rebate_data' AND tablename = 'account' AND attname = 'member';

--
-- an erased key does not come back, whoever names it, nor does one that somebody had before
--
SELECT rebate.replace_member('someone4@example.com', 'someone5');
SET SESSION AUTHORIZATION regress_hostile_gate;
BEGIN;
SELECT rebate.act_as('someone3@example.com');
SELECT length(channel) FROM rebate.my_channel;
SELECT rebate.act_as('someone4@example.com');
SELECT length(channel) FROM rebate.my_channel;
SELECT rebate.act_as('someone6@example.com');
SELECT length(channel) FROM rebate.my_channel;
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT length(rebate.channel('someone3@example.com'));
SELECT member FROM rebate_data.channel;
SELECT rebate.map_login('regress_hostile_login', 'someone3@example.com');
SELECT rebate.map_login('regress_hostile_login', 'someone4@example.com');
SELECT * FROM rebate.logins;
SELECT * FROM rebate.audit();

DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
DROP SCHEMA hostile CASCADE;
DROP ROLE regress_hostile_owner, regress_hostile_admin, regress_hostile_ann, regress_hostile_bob, regress_hostile_gate, regress_hostile_login, regress_hostile_mallory,
    regress_hostile_dev;
