--
-- rebate.doctor(): whether all is as it should be, and what to call if not.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
SELECT * FROM rebate.doctor();
CREATE TABLE shop (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('shop', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('five', percent => 5);
INSERT INTO shop SELECT i, 'ann', 10 FROM generate_series(1, 10) i;

-- what depends on the server is left out
CREATE VIEW doctor AS SELECT "check", subject, status, regexp_replace(detail, '\d{4}-\d\d-\d\d \d\d:\d\d \w+', 'WHEN', 'g') AS detail, remedy
	FROM rebate.doctor() WHERE "check" NOT IN ('settings', 'clock', 'delivery', 'open transactions', 'transaction ids', 'replication slots', 'channel names');
SELECT * FROM doctor;
SELECT DISTINCT "check", status IN ('ok', 'notice', 'problem') AS known FROM rebate.doctor() WHERE "check" IN ('settings', 'clock', 'delivery') ORDER BY 1;

-- each illness is found, and its remedy heals it
INSERT INTO shop VALUES (11, 'ann', NULL), (12, 'ann', NULL);
SELECT * FROM doctor WHERE status <> 'ok';
UPDATE shop SET total = 10 WHERE id > 10;
SET rebate.mode = defer;
INSERT INTO shop VALUES (13, 'ann', 10), (14, 'ann', 10);
SELECT * FROM doctor WHERE status <> 'ok';
RESET rebate.mode;
SELECT * FROM doctor WHERE status <> 'ok';
SELECT rebate.reconcile('public.shop', deferred_only => true);
SELECT * FROM doctor WHERE status <> 'ok';
SET rebate.mode = off;
INSERT INTO shop VALUES (15, 'ann', 10), (16, 'ann', 10);
UPDATE shop SET total = 20 WHERE id = 1;
SELECT * FROM doctor WHERE status <> 'ok';
RESET rebate.mode;
SELECT * FROM doctor WHERE status <> 'ok';
-- thorough: every order, not the newest only
SELECT * FROM rebate.doctor(true) WHERE "check" = 'orders';
SELECT rebate.reconcile('public.shop');
SELECT * FROM rebate.doctor(true) WHERE "check" = 'orders';

ALTER TABLE shop DISABLE TRIGGER rebate_insert;
ALTER TABLE shop ENABLE REPLICA TRIGGER rebate_update;
DROP TRIGGER rebate_delete ON shop;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
DROP TRIGGER rebate_truncate ON shop;
CREATE TRIGGER rebate_truncate BEFORE TRUNCATE ON shop EXECUTE FUNCTION nothing();
SELECT * FROM doctor WHERE status <> 'ok';
ALTER TABLE shop ENABLE TRIGGER rebate_insert;
ALTER TABLE shop ENABLE TRIGGER rebate_update;
DROP TRIGGER rebate_truncate ON public.shop;
SELECT rebate.attach('public.shop', amount => 'total', member => 'customer', currency => 'EUR', replace => true);
SELECT * FROM doctor WHERE status <> 'ok';

ALTER TABLE rebate_data.entry DISABLE TRIGGER rebate_guard;
SELECT * FROM doctor WHERE status <> 'ok';
ALTER TABLE rebate_data.entry ENABLE TRIGGER rebate_guard;

ALTER EVENT TRIGGER rebate_follow_partitions DISABLE;
SELECT * FROM doctor WHERE status <> 'ok';
ALTER EVENT TRIGGER rebate_follow_partitions ENABLE ALWAYS;

-- an order and its lines
CREATE TABLE lines (no int PRIMARY KEY, shop_id int REFERENCES shop, customer text, total numeric);
SELECT rebate.attach('lines', 'customer', 'total', 'EUR');
SELECT * FROM doctor WHERE status <> 'ok';
SELECT rebate.detach('lines');
SELECT * FROM doctor WHERE status <> 'ok';
DROP TABLE lines;

-- a mapping that no longer fits, a table that is gone
CREATE TABLE frail (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('frail', 'customer', 'total * 2', 'EUR');
ALTER TABLE frail DROP total;
SELECT * FROM doctor WHERE status <> 'ok';
DROP TABLE frail;
SELECT * FROM doctor WHERE status <> 'ok';

-- partitions
CREATE TABLE parted (id int, day date, customer text, total numeric, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
SELECT rebate.attach('parted', 'customer', 'total', 'EUR');
INSERT INTO parted VALUES (1, '2026-01-01', 'pat', 10);
CREATE TABLE parted_2 (total numeric, customer text, day date NOT NULL, id int NOT NULL, PRIMARY KEY (id, day));
INSERT INTO parted_2 VALUES (20, 'pat', '2026-02-01', 2), (30, 'pat', '2026-02-02', 3);
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
SELECT * FROM doctor WHERE status <> 'ok' AND subject ~ 'parted';
SELECT rebate.reconcile('parted');
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.parted' ORDER BY order_key;
SELECT * FROM doctor WHERE status <> 'ok' AND subject ~ 'parted';
DROP TRIGGER rebate_insert ON parted_2;
SELECT * FROM doctor WHERE status <> 'ok' AND subject ~ 'parted';
DROP TABLE parted;

-- what keeps vacuum away, and makes orders fail that come at once
ALTER TABLE rebate_data.accrual SET (autovacuum_enabled = false);
SELECT * FROM doctor WHERE status <> 'ok';
ALTER TABLE rebate_data.accrual RESET (autovacuum_enabled);
SET default_transaction_isolation = 'repeatable read';
SELECT * FROM rebate.doctor() WHERE subject = 'default_transaction_isolation';
SET default_transaction_isolation = 'read committed';
SELECT * FROM rebate.doctor() WHERE subject = 'default_transaction_isolation';
RESET default_transaction_isolation;

-- a store that the engine refuses: each thing, and what takes it back
CREATE TRIGGER copy BEFORE UPDATE ON rebate_data.account FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE RULE twice AS ON INSERT TO rebate_data.finding DO ALSO NOTHING;
ALTER TABLE rebate_data.failure ENABLE ROW LEVEL SECURITY;
ALTER TABLE rebate_data.campaign OWNER TO pg_monitor;
SELECT * FROM rebate.doctor();
ALTER TABLE rebate_data.account DISABLE TRIGGER copy;
SELECT subject, remedy FROM rebate.doctor();
SELECT remedy FROM rebate.doctor() \gexec
SELECT * FROM doctor WHERE status <> 'ok';
-- what it cannot mend it repeats
DROP TRIGGER copy ON rebate_data.account;
BEGIN;
ALTER TABLE rebate_data.entry ALTER posting_id SET NOT NULL;
SELECT * FROM rebate.doctor();
ROLLBACK;
SELECT * FROM doctor WHERE status <> 'ok';
BEGIN;
ALTER TABLE rebate_data.generation RENAME TO generations;
SELECT * FROM rebate.doctor();
CREATE ROLE regress_doctor;
GRANT EXECUTE ON FUNCTION rebate.doctor(boolean) TO regress_doctor;
SET LOCAL ROLE regress_doctor;
SELECT * FROM rebate.doctor();
ROLLBACK;
SELECT * FROM doctor WHERE status <> 'ok';

-- for members of the store's owner, under whose rights it reads
CREATE ROLE regress_doctor;
GRANT EXECUTE ON FUNCTION rebate.doctor(boolean) TO regress_doctor;
SET ROLE regress_doctor;
SELECT count(*) > 0 FROM rebate.doctor();
RESET ROLE;
GRANT rebate_owner TO regress_doctor;
SET ROLE regress_doctor;
SELECT count(*) > 0 FROM rebate.doctor();
RESET ROLE;
REVOKE ALL ON FUNCTION rebate.doctor(boolean) FROM regress_doctor;
DROP ROLE regress_doctor;
DROP VIEW doctor;
DROP TABLE shop;
DROP FUNCTION nothing();
