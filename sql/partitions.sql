--
-- A partitioned order table: rows through the root, a mid level and a leaf;
-- columns in other orders; partitions that come and go.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
SET timezone = 'UTC';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;

-- a root with a hole, a leaf made before the hole, a mid level and leaves in other orders
CREATE TABLE orders (
    gone text, id int, region text NOT NULL, customer text, total numeric, refunded numeric,
    PRIMARY KEY (id, region)
) PARTITION BY LIST (region);
CREATE TABLE orders_de PARTITION OF orders FOR VALUES IN ('de');
ALTER TABLE orders DROP COLUMN gone;
CREATE TABLE orders_us (
    refunded numeric, old1 int, total numeric, customer text, region text NOT NULL, old2 int, id int NOT NULL
) PARTITION BY RANGE (id);
ALTER TABLE orders_us DROP COLUMN old1, DROP COLUMN old2;
ALTER TABLE orders ATTACH PARTITION orders_us FOR VALUES IN ('us');
CREATE TABLE orders_us_1 (x int, total numeric, id int NOT NULL, customer text, region text NOT NULL, refunded numeric);
ALTER TABLE orders_us_1 DROP COLUMN x;
ALTER TABLE orders_us ATTACH PARTITION orders_us_1 FOR VALUES FROM (0) TO (1000);
CREATE TABLE orders_us_2 PARTITION OF orders_us FOR VALUES FROM (1000) TO (2000);
CREATE TABLE orders_hash PARTITION OF orders FOR VALUES IN ('fr', 'it') PARTITION BY HASH (id);
CREATE TABLE orders_hash_0 PARTITION OF orders_hash FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE orders_hash_1 PARTITION OF orders_hash FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE orders_other PARTITION OF orders DEFAULT;
INSERT INTO orders VALUES (1, 'de', 'old', 1000, 0), (2, 'us', 'old', 1000, 0);

SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', refunded => 'refunded');
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', refunded => 'refunded');
SELECT rebate.set_rule('ten', percent => 10);
SELECT t.tgrelid::regclass AS relation, string_agg(t.tgname, ' ' ORDER BY t.tgname) AS triggers
FROM pg_trigger t WHERE t.tgname LIKE 'rebate%' AND t.tgrelid::regclass::text LIKE 'orders%' GROUP BY t.tgrelid ORDER BY t.tgrelid::regclass::text COLLATE "C";

-- what the members have, how many entries that took, and what the audit finds
CREATE VIEW state AS
SELECT b.member, b.available, b.last_entry,
       (SELECT string_agg(concat_ws(': ', violation, subject), '; ' ORDER BY subject) FROM rebate.audit()) AS audit
FROM rebate.balances b ORDER BY member COLLATE "C";

-- through the root, a mid level, a leaf; each order once
INSERT INTO orders VALUES (10, 'de', 'root', 10, 0), (11, 'us', 'root', 20, 0), (1011, 'us', 'root', 40, 0),
    (12, 'fr', 'root', 80, 0), (13, 'it', 'root', 160, 0), (14, 'xx', 'root', 320, 0);
INSERT INTO orders_us (id, region, customer, total) VALUES (20, 'us', 'mid', 10), (1020, 'us', 'mid', 20);
INSERT INTO orders_hash (id, region, customer, total) VALUES (22, 'fr', 'mid', 40), (23, 'it', 'mid', 80);
INSERT INTO orders_us_1 (id, region, customer, total) VALUES (30, 'us', 'leaf', 10);
INSERT INTO orders_de (id, region, customer, total) VALUES (31, 'de', 'leaf', 20);
INSERT INTO orders_other (id, region, customer, total) VALUES (32, 'yy', 'leaf', 40);
COPY orders (id, region, customer, total) FROM stdin;
40	de	copy	10
41	us	copy	20
1041	us	copy	40
42	fr	copy	80
\.
COPY orders_us_1 (id, region, customer, total) FROM stdin;
43	us	copy	160
\.
SELECT * FROM state;
SELECT order_key, earned FROM rebate.accruals WHERE member = 'root' ORDER BY order_key COLLATE "C";

-- refunds at each level
UPDATE orders SET refunded = total / 2 WHERE customer = 'root';
UPDATE orders_us SET refunded = total WHERE customer = 'mid';
UPDATE orders_us_1 SET refunded = total / 2 WHERE customer IN ('leaf', 'copy');
-- those that nobody counts
UPDATE orders SET refunded = 1 WHERE customer = 'old';
SELECT * FROM state;

-- a row that moves to another partition takes its rebate along: no entry
UPDATE orders SET region = 'us' WHERE id = 10;
UPDATE orders SET region = 'de' WHERE customer = 'copy' AND region IN ('us', 'fr');
UPDATE orders_us SET id = id + 1000 WHERE id = 30;
SELECT * FROM state;
SELECT order_key, earned FROM rebate.accruals WHERE member IN ('root', 'copy', 'leaf') ORDER BY order_key COLLATE "C";
-- moved and changed at once, an old one too
UPDATE orders SET region = 'fr', total = total * 2 WHERE id = 10;
UPDATE orders SET region = 'fr' WHERE id = 1;
UPDATE orders SET total = 5000 WHERE id = 1;
-- two orders exchange their partitions
INSERT INTO orders VALUES (50, 'de', 'swap', 10, 0), (51, 'us', 'swap', 20, 0);
UPDATE orders SET region = CASE region WHEN 'de' THEN 'us' ELSE 'de' END WHERE customer = 'swap';
-- with identities that do not tell: they fail, and are healed by the way back
INSERT INTO orders VALUES (60, 'de', 'unclear', 10, 0), (60, 'us', 'unclear', 20, 0);
UPDATE orders SET region = CASE region WHEN 'de' THEN 'fr' ELSE 'it' END WHERE customer = 'unclear';
UPDATE orders SET region = CASE region WHEN 'fr' THEN 'de' ELSE 'us' END WHERE customer = 'unclear';
SELECT * FROM state;

-- ON CONFLICT and MERGE
INSERT INTO orders VALUES (10, 'fr', 'root', 400, 0), (70, 'us', 'both', 10, 0)
    ON CONFLICT (id, region) DO UPDATE SET total = excluded.total;
INSERT INTO orders_us VALUES (0, 20, 'both', 'us', 70), (0, 20, 'both', 'us', 71)
    ON CONFLICT (id, region) DO UPDATE SET total = excluded.total;
MERGE INTO orders o USING (VALUES (70, 'us', 30), (71, 'us', 0), (72, 'fr', 40)) v (id, region, total)
    ON o.id = v.id AND o.region = v.region
    WHEN MATCHED AND v.total = 0 THEN DELETE
    WHEN MATCHED THEN UPDATE SET total = v.total
    WHEN NOT MATCHED THEN INSERT (id, region, customer, total) VALUES (v.id, v.region, 'both', v.total);
SELECT * FROM state;

-- reading back by key, by the root or any partition
SELECT topic, subject, outcome, amount FROM rebate.explain('orders', 10, 'fr');
SELECT topic, outcome, amount FROM rebate.explain('orders_us_2', 1011, 'us') WHERE topic = 'accrual';
SELECT rebate.order_key('orders', 10, 'fr'), rebate.order_key('orders_de', 10, 'fr');
SELECT topic, outcome, amount FROM rebate.explain('orders', 99, 'zz');

-- touched twice in a transaction: read again from its partition
BEGIN;
INSERT INTO orders VALUES (80, 'us', 'twice', 10, 0);
UPDATE orders_us_1 SET total = 20 WHERE id = 80;
UPDATE orders SET region = 'it' WHERE id = 80;
SAVEPOINT s;
DELETE FROM orders_hash WHERE id = 80;
ROLLBACK TO s;
COMMIT;
DELETE FROM orders WHERE customer = 'swap';
DELETE FROM orders_us WHERE customer = 'copy';
SELECT * FROM state;

-- TRUNCATE
TRUNCATE orders;
TRUNCATE orders_us_2;
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', refunded => 'refunded', on_truncate => 'void', replace => true);
TRUNCATE orders_us_2;
SELECT * FROM state;
TRUNCATE orders_hash;
SELECT * FROM state;

-- a partition that is created
CREATE TABLE orders_jp PARTITION OF orders FOR VALUES IN ('jp') PARTITION BY RANGE (id);
CREATE TABLE orders_jp_1 PARTITION OF orders_jp FOR VALUES FROM (0) TO (1000);
INSERT INTO orders_jp VALUES (90, 'jp', 'later', 10, 0);
INSERT INTO orders_jp_1 VALUES (91, 'jp', 'later', 20, 0);
INSERT INTO orders VALUES (92, 'jp', 'later', 40, 0);
-- one that is attached, with rows: they wait
CREATE TABLE orders_cn (customer text, total numeric, region text NOT NULL, refunded numeric, id int NOT NULL);
INSERT INTO orders_cn VALUES ('before', 10, 'cn', 0, 93);
ALTER TABLE orders ATTACH PARTITION orders_cn FOR VALUES IN ('cn');
INSERT INTO orders_cn VALUES ('later', 80, 'cn', 0, 94);
SELECT * FROM state WHERE member = 'later';
DELETE FROM orders WHERE id = 93;
-- one made with the schema
CREATE SCHEMA more CREATE TABLE orders_kr PARTITION OF public.orders FOR VALUES IN ('kr');
INSERT INTO more.orders_kr VALUES (95, 'kr', 'later', 160, 0);
SELECT * FROM state WHERE member = 'later';

-- detached, the rebates stay, and the triggers go
ALTER TABLE orders DETACH PARTITION orders_cn;
ALTER TABLE orders DETACH PARTITION orders_jp;
INSERT INTO orders_cn VALUES ('nobody', 80, 'cn', 0, 96);
UPDATE orders_cn SET total = 0;
DELETE FROM orders_jp;
SELECT * FROM state WHERE member = 'later';
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'rebate%'
    AND tgrelid IN ('orders_cn'::regclass, 'orders_jp'::regclass, 'orders_jp_1'::regclass);
-- dropped
DROP TABLE more.orders_kr;
DROP TABLE orders_de, orders_hash;
SELECT * FROM state;
-- rolled back
BEGIN;
DROP TABLE orders_us;
ROLLBACK;
INSERT INTO orders VALUES (97, 'us', 'later', 10, 0);
DELETE FROM orders WHERE id = 97;
SELECT * FROM state WHERE member = 'later';

-- attached again with its rows: the ledger goes on with what it knew
ALTER TABLE orders ATTACH PARTITION orders_cn FOR VALUES IN ('cn');
UPDATE orders SET total = 200 WHERE id = 94;
DELETE FROM orders WHERE customer = 'nobody';
SELECT * FROM state WHERE member = 'later';
ALTER TABLE orders DETACH PARTITION orders_cn CONCURRENTLY;
ALTER TABLE orders DETACH PARTITION orders_other;
ALTER TABLE orders DETACH PARTITION orders_cn CONCURRENTLY;
SELECT * FROM state WHERE member = 'later';

-- what cannot be
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE orders_far PARTITION OF orders FOR VALUES IN ('far') SERVER nowhere;
CREATE FOREIGN TABLE orders_far (id int NOT NULL, region text NOT NULL, customer text, total numeric, refunded numeric) SERVER nowhere;
ALTER TABLE orders ATTACH PARTITION orders_far FOR VALUES IN ('far');
CREATE UNLOGGED TABLE orders_un PARTITION OF orders FOR VALUES IN ('un');
ALTER TABLE orders_us_1 SET UNLOGGED;
SELECT rebate.attach('orders_us', 'customer', 'total', 'EUR');
-- (above, PostgreSQL itself refuses, since the key needs its unique index)
CREATE TABLE far (id int NOT NULL, customer text, total numeric) PARTITION BY LIST (id);
CREATE FOREIGN TABLE far_1 PARTITION OF far FOR VALUES IN (1) SERVER nowhere;
SELECT rebate.attach('far', 'customer', 'total', 'EUR', "key" => '{id}');
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER nowhere CASCADE;
RESET client_min_messages;
CREATE TABLE keyless (id int NOT NULL, customer text, total numeric) PARTITION BY LIST (id);
SELECT rebate.attach('keyless', 'customer', 'total', 'EUR', "key" => '{id}');
-- an attached table cannot become a partition, nor take part in inheritance
CREATE TABLE single (id int NOT NULL PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('single', 'customer', 'total', 'EUR');
ALTER TABLE far ATTACH PARTITION single DEFAULT;
CREATE TABLE single_child () INHERITS (single);
CREATE TABLE parent (id int NOT NULL, customer text);
ALTER TABLE single INHERIT parent;
CREATE TABLE child (id int NOT NULL, customer text, total numeric);
ALTER TABLE child INHERIT single;
CREATE TABLE grandchild () INHERITS (child);
SELECT rebate.attach('child', 'customer', 'total', 'EUR', "key" => '{id}');
SELECT rebate.attach('grandchild', 'customer', 'total', 'EUR', "key" => '{id}');

-- without the event trigger: said so, and attach() helps
ALTER EVENT TRIGGER rebate_follow_partitions DISABLE;
CREATE TABLE orders_br PARTITION OF orders FOR VALUES IN ('br');
INSERT INTO orders_br VALUES (98, 'br', 'late', 10, 0);
SELECT * FROM rebate.audit();
DELETE FROM orders WHERE id = 98;
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', refunded => 'refunded', on_truncate => 'void');
ALTER EVENT TRIGGER rebate_follow_partitions ENABLE ALWAYS;
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', refunded => 'refunded', on_truncate => 'void');
INSERT INTO orders_br VALUES (99, 'br', 'late', 10, 0);
SELECT * FROM state WHERE member = 'late';

-- in everybody's DDL: who owns the table needs no right of ours, and who owns another gains none
SET client_min_messages = warning;
CREATE ROLE rebate_test_shop;
GRANT CREATE ON SCHEMA public TO rebate_test_shop;
CREATE TABLE theirs (id int NOT NULL, customer text, total numeric, PRIMARY KEY (id)) PARTITION BY RANGE (id);
ALTER TABLE theirs OWNER TO rebate_test_shop;
SELECT rebate.attach('theirs', 'customer', 'total', 'EUR');
SET ROLE rebate_test_shop;
CREATE TABLE theirs_1 PARTITION OF theirs FOR VALUES FROM (0) TO (10);
CREATE TABLE theirs_2 (total numeric, id int NOT NULL, customer text);
ALTER TABLE theirs ATTACH PARTITION theirs_2 FOR VALUES FROM (10) TO (20);
INSERT INTO theirs_1 VALUES (1, 'low', 10);
INSERT INTO theirs_2 VALUES (20, 11, 'low');
INSERT INTO theirs VALUES (2, 'low', 40);
ALTER TABLE theirs DETACH PARTITION theirs_2;
DROP TABLE theirs_1;
ALTER TABLE theirs RENAME customer TO buyer;
CREATE TABLE own (id int PRIMARY KEY, customer text, total numeric) PARTITION BY RANGE (id);
CREATE TABLE own_1 PARTITION OF own FOR VALUES FROM (0) TO (10);
ALTER TABLE own DETACH PARTITION own_1;
SELECT current_user, count(*) FROM pg_trigger WHERE tgrelid IN ('own'::regclass, 'own_1'::regclass, 'theirs_2'::regclass);
CREATE TRIGGER rebate_insert AFTER INSERT ON own REFERENCING NEW TABLE AS rebate_new FOR EACH STATEMENT EXECUTE FUNCTION rebate.collect();
SELECT rebate.follow_partitions();
RESET ROLE;
SELECT source, member FROM rebate.sources WHERE source = 'public.theirs';
SELECT * FROM state WHERE member = 'low';
SELECT rebate.detach('theirs');
DROP TABLE theirs, theirs_2, own, own_1;
REVOKE CREATE ON SCHEMA public FROM rebate_test_shop;
DROP ROLE rebate_test_shop;
RESET client_min_messages;
SELECT rebate.detach('orders');
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'rebate%' AND tgrelid::regclass::text LIKE 'orders%';
INSERT INTO orders_br VALUES (100, 'br', 'late', 10, 0);
SELECT * FROM state WHERE member = 'late';
SET client_min_messages = warning;
DROP TABLE orders, orders_jp, orders_cn, orders_other, far, keyless, single, child, parent, grandchild CASCADE;
DROP SCHEMA more CASCADE;
DROP VIEW state;
