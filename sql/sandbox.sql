--
-- Sandboxes: rebate.create_store(sandbox => true), and rebate.reset(), which empties their ledger.
--
\set VERBOSITY default
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';

-- an ordinary store cannot be reset, and does not become a sandbox
SELECT rebate.create_store();
SELECT rebate.reset();
SELECT rebate.create_store(sandbox => true);
UPDATE rebate_data.store SET sandbox = true;
SELECT version FROM rebate.versions() WHERE part = 'store';
SELECT * FROM rebate.doctor() WHERE "check" = 'sandbox';
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
CREATE EXTENSION rebate;

-- a sandbox says that it is one
SELECT rebate.create_store(sandbox => true);
SET client_min_messages = notice;
SELECT rebate.create_store();
SELECT rebate.create_store(sandbox => true);
SET client_min_messages = warning;
SELECT version FROM rebate.versions() WHERE part = 'store';
SELECT * FROM rebate.doctor() WHERE "check" = 'sandbox';
UPDATE rebate_data.store SET sandbox = false;

-- something of everything that orders leave behind
CREATE TABLE shop (id int PRIMARY KEY, customer text, total numeric(12,2), curr text DEFAULT 'EUR', state text DEFAULT 'paid', back_of int);
CREATE TABLE dated (day date, n int, customer text, total numeric(12,2), ordered timestamptz, PRIMARY KEY (day, n)) PARTITION BY RANGE (day);
CREATE TABLE dated_1 PARTITION OF dated FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
SELECT rebate.add_currency('STARS', 0);
SELECT rebate.attach('shop', 'customer', 'total', 'curr', status => 'state', phases => '{"paid": "confirmed", "new": "pending"}', original => ARRAY['back_of']);
SELECT rebate.attach('dated', 'customer', 'total', 'EUR', order_time => 'ordered', since => '2026-01-01', max_backdate => NULL);
SELECT rebate.set_group('one', 'best');
SELECT rebate.set_rule('five', percent => 5, hold => '1 day', rule_group => 'one', scope => '{"curr": "EUR"}', source => 'shop');
SELECT rebate.set_rule('dated', percent => 10, source => 'dated', valid_from => '2026-01-01');
INSERT INTO shop SELECT i, 'm' || i % 4, 100, CASE i % 5 WHEN 0 THEN 'STARS' ELSE 'EUR' END, CASE i % 3 WHEN 0 THEN 'new' ELSE 'paid' END
FROM generate_series(1, 40) i;
INSERT INTO shop VALUES (41, 'm1', -50, 'EUR', 'paid', 1);
INSERT INTO shop VALUES (42, 'm1', NULL);
INSERT INTO dated SELECT '2026-01-05', i, 'm' || i, 100, '2026-01-05 12:00' FROM generate_series(1, 3) i;
CALL rebate.mature(now() + '3 days');
CALL rebate.fold();
CALL rebate.archive(now() + '1 minute');
CALL rebate.drop_archived(now() + '1 minute', 'nowhere');
UPDATE shop SET total = 200 WHERE id IN (2, 3);
UPDATE shop SET total = 300 WHERE id IN (2, 3);
CALL rebate.archive(now() + '1 minute');
INSERT INTO shop VALUES (44, 'm2', 100);
INSERT INTO shop VALUES (45, 'gone', 100);
DELETE FROM shop WHERE id = 45;
SELECT length(rebate.erase_member('gone'));
SELECT rebate.request_erasure('m3');
SELECT rebate.freeze('shop', '1', 'chargeback');
SELECT length(rebate.channel('m1'));
SET rebate.mode = defer;
INSERT INTO shop VALUES (43, 'm1', 10);
RESET rebate.mode;
CALL rebate.run_audit();
SELECT rebate.feed_cursor() AS feed_cursor, rebate.events_cursor('m1') AS events_cursor \gset

-- A table of the store that reset() must know: which ones have rows, before and after.  A new table of the store
-- belongs to the first list here (and into reset.c), or to the second (what people wrote, and what is kept otherwise).
CREATE FUNCTION filled(tables text[]) RETURNS TABLE (t text, n bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOREACH t IN ARRAY tables LOOP
		EXECUTE format('SELECT count(*) FROM rebate_data.%I', t) INTO n;
		RETURN NEXT;
	END LOOP;
END $$;
\set emptied '{accrual,account,archive,boundary,carried,carried_house,channel,checkpoint,deferred,dropped,entry,entry_archive,erasure,erasure_request,failure,finding,former_member,freeze,house_balance,house_entry,job,link,waiting}'
\set kept '{allowed_function,campaign,currency,draft,epoch,fold,former_secret,generation,granted_right,ledger_account,login,programme,rule,rule_control,rule_group,rule_scope,rule_version,scope,source,store}'
SELECT relname AS not_in_a_list FROM pg_class WHERE relnamespace = 'rebate_data'::regnamespace AND relkind = 'r'
	AND relname <> ALL (:'emptied'::name[]) AND relname <> ALL (:'kept'::name[]) ORDER BY 1;
-- (house entries come with splits, house balances from libraries of version 0.1)
SELECT * FROM filled(:'emptied') WHERE n = 0;
CREATE TEMP TABLE kept AS SELECT t, query_to_xml(format('SELECT * FROM rebate_data.%I ORDER BY 1, 2', t), false, false, '')::text AS rows
FROM unnest(:'kept'::text[]) t WHERE t NOT IN ('epoch', 'fold');

-- what exists counts as older than the attachment: known, and without rebates
SELECT rebate.reset();
SELECT * FROM filled(:'emptied') WHERE n > 0;
SELECT source, decision, count(*), sum(earned) FROM rebate.decisions GROUP BY 1, 2 ORDER BY 1, 2;
SELECT t FROM kept WHERE rows <> query_to_xml(format('SELECT * FROM rebate_data.%I ORDER BY 1, 2', t), false, false, '')::text;
SELECT * FROM rebate.audit();
SELECT * FROM rebate.trial_balance WHERE balance <> 0;
UPDATE shop SET total = 200 WHERE id = 1;
SELECT count(*) FROM rebate.accruals;
INSERT INTO shop VALUES (50, 'm1', 100);
SELECT member, earned FROM rebate.accruals;
SELECT last_entry FROM rebate.balances WHERE member = 'm1';

-- cursors of the old ledger are void
\set VERBOSITY sqlstate
SELECT * FROM rebate.feed(:'feed_cursor');
SELECT * FROM rebate.events('m1', :'events_cursor');
\set VERBOSITY default
SELECT count(*) FROM rebate.feed();

-- or they count as new ones: of what was wrong with them the same is told again
SELECT rebate.reset(replay => true);
SELECT source, decision, count(*), sum(earned) FROM rebate.decisions GROUP BY 1, 2 ORDER BY 1, 2;
SELECT sqlstate, order_key FROM rebate.failures;
SELECT * FROM rebate.audit();
-- again: the same
CREATE TEMP TABLE before AS SELECT member, source, order_key, rule, phase, bucket, earned FROM rebate.accruals;
SELECT rebate.reset(replay => true);
SELECT * FROM before EXCEPT SELECT member, source, order_key, rule, phase, bucket, earned FROM rebate.accruals;
SELECT count(*) = (SELECT count(*) FROM before) AS same FROM rebate.accruals;

-- with the orders of this transaction, in a savepoint, rolled back
BEGIN;
INSERT INTO shop VALUES (60, 'm1', 100);
SAVEPOINT a;
SELECT rebate.reset();
SELECT count(*) FROM rebate.accruals;
INSERT INTO shop VALUES (61, 'm1', 100);
SELECT rebate.flush();
SELECT order_key, earned FROM rebate.accruals;
ROLLBACK TO a;
INSERT INTO shop VALUES (62, 'm1', 100);
COMMIT;
SELECT count(*) - (SELECT count(*) FROM before) AS more FROM rebate.accruals;
SELECT * FROM rebate.audit();
BEGIN;
SELECT rebate.reset();
INSERT INTO shop VALUES (63, 'm1', 100);
COMMIT;
SELECT order_key, earned FROM rebate.accruals;
SELECT * FROM rebate.audit();

-- large tables go as files
DELETE FROM dated;
DELETE FROM shop;
INSERT INTO shop SELECT i, 'm' || i % 900, 100 FROM generate_series(1, 5000) i;
SELECT pg_relation_size('rebate_data.accrual') > 32 * 8192 AS large;
DELETE FROM shop;
SELECT rebate.reset();
SELECT pg_relation_size('rebate_data.accrual') < 32 * 8192 AS small;
INSERT INTO shop VALUES (1, 'm1', 100);
SELECT * FROM rebate.audit();

-- without the rules
SELECT rebate.reset(keep => 'sources');
SELECT count(*) FROM rebate.rules;
SELECT * FROM filled('{rule,rule_group,rule_scope,rule_version,campaign,scope,source}');
INSERT INTO shop VALUES (2, 'm1', 100);
SELECT decision FROM rebate.decisions WHERE order_key = '2';
SELECT rebate.set_rule('ten', percent => 10);
INSERT INTO shop VALUES (3, 'm1', 100);
SELECT order_key, rule, version, earned FROM rebate.accruals;
SELECT * FROM rebate.audit();

-- without anything
SELECT rebate.reset(keep => 'nothing');
SELECT count(*) FROM rebate.sources;
SELECT tgname FROM pg_trigger WHERE tgrelid IN ('shop'::regclass, 'dated'::regclass, 'dated_1'::regclass) AND NOT tgisinternal;
INSERT INTO shop VALUES (4, 'm1', 100);
SELECT rebate.attach('shop', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('ten', percent => 10);
INSERT INTO shop VALUES (5, 'm1', 100);
SELECT order_key, earned FROM rebate.accruals;
SELECT * FROM rebate.audit();

-- a mapping that no longer fits, and a table that is gone, stop nothing
SELECT rebate.attach('dated', 'customer', 'total', 'EUR');
ALTER TABLE dated RENAME total TO price;
ALTER TABLE dated ALTER price TYPE text;
DROP TABLE shop;
SELECT rebate.reset();

-- what does not go
SELECT rebate.reset(keep => 'accounts');
SELECT rebate.reset(keep => NULL);
SELECT rebate.reset(keep => 'nothing', replay => true);
BEGIN READ ONLY;
SELECT rebate.reset();
ROLLBACK;
CREATE ROLE regress_tester;
GRANT EXECUTE ON FUNCTION rebate.reset TO regress_tester;
SET ROLE regress_tester;
SELECT rebate.reset();
RESET ROLE;
REVOKE EXECUTE ON FUNCTION rebate.reset FROM regress_tester;
GRANT rebate_owner TO regress_tester;
SET ROLE regress_tester;
SELECT rebate.reset();
SELECT rebate.reset(keep => 'nothing');
RESET ROLE;
DROP OWNED BY regress_tester;
DROP ROLE regress_tester;

-- it outlives the extension
DROP EXTENSION rebate CASCADE;
CREATE EXTENSION rebate;
SELECT rebate.adopt_store();
SELECT version FROM rebate.versions() WHERE part = 'store';
SELECT rebate.reset(keep => 'nothing');
DROP TABLE dated;
DROP FUNCTION filled;
DROP TABLE before, kept;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
