--
-- What is renamed, moved or dropped takes its orders along.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;
SET timezone = 'UTC';
CREATE ROLE regress_leaver;
CREATE SCHEMA parts;
CREATE SCHEMA old;
CREATE VIEW state AS SELECT source, order_key, earned FROM rebate.accruals ORDER BY source COLLATE "C", order_key;

CREATE TABLE old.orders (id int, region text, customer text, total numeric, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts.de PARTITION OF old.orders FOR VALUES IN ('de');
CREATE TABLE parts.sub PARTITION OF old.orders FOR VALUES IN ('fr', 'it') PARTITION BY LIST (region);
CREATE TABLE parts.fr PARTITION OF parts.sub FOR VALUES IN ('fr');
CREATE TABLE us PARTITION OF old.orders FOR VALUES IN ('us');
CREATE TABLE theirs PARTITION OF old.orders FOR VALUES IN ('uk');
ALTER TABLE theirs OWNER TO regress_leaver;
SELECT rebate.attach('old.orders', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('ten', percent => 10);
INSERT INTO old.orders SELECT i, r, 'ann', 100 FROM unnest('{de,fr,us,uk}'::text[]) WITH ORDINALITY r(r, i);
INSERT INTO us VALUES (10, 'us', 'ann', NULL);
SELECT rebate.freeze('old.orders', rebate.order_key('old.orders', 1, 'de'), 'dispute');

-- a name, a schema, the schema's name: orders, failures and freezes are those of the new one, in this session too
ALTER TABLE old.orders RENAME TO "Purchases";
INSERT INTO old."Purchases" VALUES (5, 'us', 'bob', 100);
SELECT source, source_id, failures FROM rebate.sources;
ALTER TABLE old."Purchases" SET SCHEMA public;
UPDATE "Purchases" SET total = 200 WHERE id = 5;
SELECT source, source_id, failures FROM rebate.sources;
ALTER TABLE "Purchases" SET SCHEMA old;
ALTER SCHEMA old RENAME TO new;
INSERT INTO us VALUES (6, 'us', 'bob', 100);
SELECT source, source_id, failures FROM rebate.sources;
SELECT * FROM state;
SELECT source, order_key, message FROM rebate.failures;
SELECT source, order_key, reason FROM rebate.freezes;
SELECT topic, outcome, amount FROM rebate.explain('new."Purchases"', 5, 'us');
SELECT to_regclass('old.orders') IS NULL AS gone;
ALTER TABLE us RENAME TO america;
UPDATE america SET total = 300 WHERE id = 6;
SELECT rebate.order_key('america', 6, 'us'), earned FROM rebate.accruals WHERE order_key = rebate.order_key('america', 6, 'us');
UPDATE america SET total = 0 WHERE id = 10;
SELECT * FROM rebate.audit();
-- rolled back
BEGIN;
ALTER TABLE new."Purchases" RENAME TO nothing;
SELECT source FROM rebate.sources;
ROLLBACK;
INSERT INTO america VALUES (7, 'us', 'bob', 100);
SELECT source FROM rebate.sources;

-- partitions that leave with their schema or their owner: rebates stay, archived
BEGIN;
DROP SCHEMA parts CASCADE;
ROLLBACK;
SELECT count(*) FROM new."Purchases";
SELECT * FROM rebate.audit();
DROP SCHEMA parts CASCADE;
SELECT * FROM rebate.audit();
DROP OWNED BY regress_leaver;
SELECT * FROM rebate.audit();
SELECT rebate.reconcile('new."Purchases"');
SELECT * FROM state;
-- one that was detached before
ALTER TABLE new."Purchases" DETACH PARTITION america;
DROP TABLE america;
SELECT * FROM rebate.audit();
SELECT rebate.reconcile('new."Purchases"');
SELECT member, available, maturing FROM rebate.balances ORDER BY member COLLATE "C";

-- a partition of one that becomes one of another: its orders begin there, those of the first stay
CREATE TABLE other (LIKE new."Purchases" INCLUDING INDEXES) PARTITION BY LIST (region);
SELECT rebate.attach('other', 'customer', 'total', 'EUR');
CREATE TABLE moves PARTITION OF new."Purchases" FOR VALUES IN ('es');
INSERT INTO moves VALUES (20, 'es', 'mia', 100);
ALTER TABLE new."Purchases" DETACH PARTITION moves;
ALTER TABLE other ATTACH PARTITION moves FOR VALUES IN ('es');
INSERT INTO moves VALUES (21, 'es', 'mia', 100);
SELECT rebate.reconcile('other');
SELECT * FROM state WHERE order_key LIKE '%es%';
SELECT * FROM rebate.audit();

-- dropped and made again under the same name: not the same table
CREATE TABLE again (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('again', 'customer', 'total', 'EUR');
INSERT INTO again VALUES (1, 'eve', 100), (2, 'eve', 100);
DROP TABLE again;
SELECT violation, subject FROM rebate.audit();
CREATE TABLE again (id int PRIMARY KEY, customer text, total numeric);
INSERT INTO again VALUES (1, 'eve', 1000);
\set VERBOSITY default
SELECT rebate.attach('again', 'customer', 'total', 'EUR');
\set VERBOSITY terse
INSERT INTO again VALUES (2, 'eve', 1000);
DELETE FROM again WHERE id = 1;
SELECT source, detached_at IS NOT NULL AS detached FROM rebate.sources ORDER BY source COLLATE "C";
SELECT * FROM state WHERE source LIKE '%again%';
SELECT rebate.reconcile('again');
SELECT * FROM rebate.audit();
SELECT "check", subject, detail FROM rebate.doctor() WHERE status = 'problem' AND "check" NOT IN ('settings', 'transaction ids', 'open transactions');

-- the store may go with them
CREATE SCHEMA last;
CREATE TABLE last.gone PARTITION OF other FOR VALUES IN ('xx');
INSERT INTO other VALUES (30, 'xx', 'mia', 100);
SET client_min_messages = warning;
DROP SCHEMA last, rebate_data CASCADE;
SELECT count(*) FROM other;

DROP VIEW IF EXISTS state;
DROP TABLE new."Purchases", other, again;
DROP SCHEMA new;
DROP ROLE regress_leaver;
