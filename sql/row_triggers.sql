--
-- Row triggers, for where changes are replicated: the same orders through
-- statement triggers, row triggers, both, and in replica mode by partition.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
SET timezone = 'UTC';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;
SELECT rebate.set_rule('ten', percent => 10);
SELECT rebate.set_rule('large', percent => 5, minimum => 100, currency => 'EUR', hold => '14 days');

CREATE TABLE statements (id int PRIMARY KEY, customer text, total numeric, refunded numeric DEFAULT 0,
    status text DEFAULT 'sent', shop text DEFAULT 'a', note text);
CREATE TABLE both_ways (LIKE statements INCLUDING ALL);
CREATE TABLE replica (LIKE statements INCLUDING ALL);
CREATE TABLE parts (shop text NOT NULL DEFAULT 'a', status text DEFAULT 'sent', id int NOT NULL, customer text,
    total numeric, refunded numeric DEFAULT 0, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (20);
CREATE TABLE parts_2 (LIKE statements INCLUDING DEFAULTS);
ALTER TABLE parts_2 ALTER shop SET NOT NULL, DROP COLUMN note, ADD COLUMN note text;
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (20) TO (1000);
CREATE TABLE unseen (LIKE statements INCLUDING ALL);
CREATE FUNCTION attach(source regclass, row_triggers boolean) RETURNS regclass LANGUAGE sql AS $$
    SELECT rebate.attach(source, member => 'customer', amount => 'total', currency => 'EUR', refunded => 'refunded', status => 'status',
        phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "void": "void"}', row_triggers => row_triggers)
$$;
SELECT attach('statements', false), attach('both_ways', true), attach('replica', true), attach('parts', true);
SELECT rebate.set_rule('shop', percent => 2, scope => '{"shop": "b"}');
SELECT attach('unseen', false);
SELECT attach('replica', true);
SELECT attach('replica', false);
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'replica'::regclass ORDER BY tgname;
SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE tgname LIKE 'rebate_replica%' AND tgrelid::regclass::text LIKE 'parts%' ORDER BY tgrelid::regclass::text, tgname;

-- one stream of statements, for each table
CREATE PROCEDURE run(t text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO %I (id, customer, total, status, shop) SELECT i, ''c'' || i %% 3, i * 10, (ARRAY[''new'', ''paid'', ''sent''])[i %% 3 + 1], chr(97 + i %% 2) FROM generate_series(1, 30) i', t);
    COMMIT;
    EXECUTE format('UPDATE %I SET status = ''sent'' WHERE id %% 4 = 0', t);
    EXECUTE format('UPDATE %I SET refunded = total / 2 WHERE id %% 5 = 0', t);
    EXECUTE format('UPDATE %I SET note = ''nothing'' WHERE id %% 2 = 0', t);
    COMMIT;
    EXECUTE format('DELETE FROM %I WHERE id %% 7 = 0', t);
    EXECUTE format('INSERT INTO %I (id, customer, total) VALUES (7, ''c1'', 333)', t);
    EXECUTE format('INSERT INTO %I (id, customer, total) VALUES (40, ''c2'', 99), (41, NULL, 50) ON CONFLICT DO NOTHING', t);
    EXECUTE format('INSERT INTO %I (id, customer, total) VALUES (40, ''c2'', 200), (5, ''c0'', 200), (42, ''c0'', 1) ON CONFLICT (id) DO UPDATE SET total = excluded.total, customer = excluded.customer', t);
    COMMIT;
    EXECUTE format('UPDATE %I SET id = 45 WHERE id = 4', t);
    COMMIT;
    -- bad rows are set aside, and healed
    EXECUTE format('UPDATE %I SET total = NULL WHERE id IN (10, 11)', t);
    COMMIT;
    EXECUTE format('UPDATE %I SET total = 77 WHERE id = 10', t);
    EXECUTE format('MERGE INTO %I o USING (VALUES (1, 0), (2, 500), (50, 60)) v (id, total) ON o.id = v.id'
        ' WHEN MATCHED AND v.total = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET total = v.total'
        ' WHEN NOT MATCHED THEN INSERT (id, customer, total, shop) VALUES (v.id, ''c1'', v.total, ''b'')', t);
    BEGIN
        EXECUTE format('DELETE FROM %I', t);
        RAISE EXCEPTION 'back';
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
    EXECUTE format('UPDATE %I SET customer = ''c1'' WHERE id = 41', t);
    -- the same order three times in a transaction
    EXECUTE format('UPDATE %I SET total = total + 1 WHERE id = 3', t);
    EXECUTE format('DELETE FROM %I WHERE id = 3', t);
    EXECUTE format('INSERT INTO %I (id, customer, total) VALUES (3, ''c2'', 150)', t);
    COMMIT;
END $$;
SET client_min_messages = error;
CALL run('statements');
CALL run('both_ways');
SET session_replication_role = replica;
CALL run('unseen');
CALL run('replica');
CALL run('parts');
RESET session_replication_role;
RESET client_min_messages;

-- the same rows, and the same rebates
CREATE VIEW ledger AS
SELECT s.relation_name AS source, x.order_key, x.rule, x.member, x.phase, x.bucket, x.earned, x.base, x.version
FROM rebate.accruals x JOIN rebate_data.source s ON s.relation_name = x.source;
CREATE FUNCTION differences(t text) RETURNS TABLE (order_key text, rule text, mine text, theirs text) LANGUAGE sql AS $$
    SELECT COALESCE(a.order_key, b.order_key), COALESCE(a.rule, b.rule), to_jsonb(a) - 'source', to_jsonb(b) - 'source'
    FROM (SELECT * FROM ledger WHERE source = 'public.statements') a
    FULL JOIN (SELECT * FROM ledger WHERE source = 'public.' || t) b USING (order_key, rule, member)
    WHERE to_jsonb(a) - 'source' IS DISTINCT FROM to_jsonb(b) - 'source'
$$;
SELECT count(*), sum(earned) FROM ledger WHERE source = 'public.statements';
SELECT (SELECT count(*) FROM ((TABLE statements EXCEPT TABLE both_ways) UNION ALL (TABLE statements EXCEPT TABLE replica)
    UNION ALL (TABLE statements EXCEPT TABLE unseen)
    UNION ALL (TABLE statements EXCEPT SELECT id, customer, total, refunded, status, shop, note FROM parts)) d) AS different_rows;
SELECT t, d.* FROM unnest(ARRAY['both_ways', 'replica', 'parts']) t CROSS JOIN LATERAL differences(t) d;
-- and the same number of entries for each order
SELECT source, count(*), sum(amount) FILTER (WHERE kind = 'accrue') AS accrued, sum(amount) FILTER (WHERE kind = 'reverse') AS reversed
FROM rebate.entries GROUP BY source ORDER BY source;
SELECT source, order_key, sqlstate, message FROM rebate.failures ORDER BY source, order_key;
SELECT violation, count(*) FROM rebate.audit() WHERE subject NOT LIKE 'public.unseen%' GROUP BY violation;

-- no triggers at all: what reconcile() finds in the end is the same, but for the order that failed after it had earned
SELECT count(*) FROM ledger WHERE source = 'public.unseen';
SELECT rebate.reconcile('unseen');
(SELECT order_key, rule, member, bucket, earned FROM ledger WHERE source = 'public.statements' AND earned <> 0
EXCEPT SELECT order_key, rule, member, bucket, earned FROM ledger WHERE source = 'public.unseen')
UNION ALL
(SELECT order_key, rule, member, bucket, earned FROM ledger WHERE source = 'public.unseen' AND earned <> 0
EXCEPT SELECT order_key, rule, member, bucket, earned FROM ledger WHERE source = 'public.statements')
ORDER BY 1, 2;
SELECT * FROM rebate.audit();

-- a move between partitions in replica mode, of new orders and of an old one
CREATE TABLE moving (id int, region text, customer text, total numeric, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE moving_a PARTITION OF moving FOR VALUES IN ('a');
CREATE TABLE moving_b PARTITION OF moving FOR VALUES IN ('b');
INSERT INTO moving VALUES (1, 'a', 'old', 1000);
SELECT rebate.attach('moving', member => 'customer', amount => 'total', currency => 'EUR', row_triggers => true);
SET session_replication_role = replica;
INSERT INTO moving VALUES (2, 'a', 'mover', 10), (3, 'a', 'mover', 20), (4, 'b', 'mover', 40);
UPDATE moving SET region = 'b' WHERE region = 'a';
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.moving' ORDER BY order_key;
SELECT member, available, last_entry FROM rebate.balances WHERE member IN ('mover', 'old');
BEGIN;
DELETE FROM moving WHERE id = 2;
INSERT INTO moving VALUES (9, 'a', 'mover', 100);
UPDATE moving SET region = 'a' WHERE id = 3;
SAVEPOINT s;
UPDATE moving SET region = 'a' WHERE id = 4;
ROLLBACK TO s;
INSERT INTO moving VALUES (10, 'a', 'mover', 100);
COMMIT;
SELECT order_key, earned FROM rebate.accruals WHERE source = 'public.moving' AND earned <> 0 ORDER BY order_key;
-- a row that a trigger keeps out does not become the next one; and what triggers move between is told apart
CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.customer <> 'out' THEN NEW END; END $$;
CREATE FUNCTION move_another() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.customer = 'first' THEN
        UPDATE moving SET region = 'b' WHERE customer = 'second';
        INSERT INTO moving VALUES (24, 'a', 'third', 240);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_out BEFORE INSERT ON moving_b FOR EACH ROW EXECUTE FUNCTION keep_out();
CREATE TRIGGER z_move AFTER DELETE ON moving_a FOR EACH ROW EXECUTE FUNCTION move_another();
ALTER TABLE moving_b ENABLE ALWAYS TRIGGER keep_out;
ALTER TABLE moving_a ENABLE ALWAYS TRIGGER z_move;
INSERT INTO moving VALUES (20, 'a', 'out', 200), (21, 'a', 'stays', 210), (22, 'a', 'first', 220), (23, 'a', 'second', 230);
BEGIN;
UPDATE moving SET region = 'b' WHERE customer = 'out';
INSERT INTO moving VALUES (25, 'a', 'new', 250), (26, 'b', 'new', 260);
COMMIT;
UPDATE moving SET region = 'b' WHERE id IN (21, 22);
SELECT * FROM moving WHERE id >= 20 ORDER BY id;
SELECT order_key, member, earned FROM rebate.accruals WHERE source = 'public.moving' AND order_key ~ '"2.",' ORDER BY order_key, rule;
-- each was posted once: what moved was not taken back and earned again
SELECT member, available, last_entry FROM rebate.balances WHERE member IN ('stays', 'first', 'second', 'third', 'new', 'out') ORDER BY member;
SELECT * FROM rebate.audit();
DROP TRIGGER keep_out ON moving_b;
DROP TRIGGER z_move ON moving_a;
-- TRUNCATE is refused here too
TRUNCATE moving;
TRUNCATE moving_a;
RESET session_replication_role;
-- a partition that is created has them too, one that leaves loses them
CREATE TABLE moving_c PARTITION OF moving FOR VALUES IN ('c');
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'moving_c'::regclass ORDER BY tgname;
ALTER TABLE moving DETACH PARTITION moving_c;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'moving_c'::regclass;
SELECT * FROM rebate.audit();
SELECT rebate.attach('moving', member => 'customer', amount => 'total', currency => 'EUR', replace => true);
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'rebate_replica%' AND tgrelid::regclass::text LIKE 'moving%';
SET client_min_messages = warning;
DROP TABLE statements, both_ways, replica, parts, unseen, moving, moving_c CASCADE;
DROP FUNCTION attach(regclass, boolean), differences(text), keep_out(), move_another();
DROP PROCEDURE run(text);
DROP VIEW ledger;
