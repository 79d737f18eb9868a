-- Keys that people give as text: read as their type, whatever they look like, or refused; never another key.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
CREATE TABLE k_int (k int PRIMARY KEY, customer text DEFAULT 'ann', total numeric DEFAULT 100);
CREATE TABLE k_numeric (k numeric PRIMARY KEY, customer text DEFAULT 'ann', total numeric DEFAULT 100);
CREATE TABLE k_uuid (k uuid PRIMARY KEY, customer text DEFAULT 'ann', total numeric DEFAULT 100);
CREATE TABLE k_text (k text PRIMARY KEY, customer text DEFAULT 'ann', total numeric DEFAULT 100);
CREATE TABLE k_time (k timestamptz PRIMARY KEY, customer text DEFAULT 'ann', total numeric DEFAULT 100);
CREATE TABLE k_two (k int, l text, customer text DEFAULT 'ann', total numeric DEFAULT 100, PRIMARY KEY (l, k));
SELECT count(rebate.attach(t, 'customer', 'total', 'EUR'))
FROM unnest('{k_int,k_numeric,k_uuid,k_text,k_time,k_two}'::regclass[]) t;
SELECT rebate.set_rule('ten', percent => 10);
INSERT INTO k_int VALUES (42);
INSERT INTO k_numeric VALUES (1.50);
INSERT INTO k_uuid VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
INSERT INTO k_text VALUES ('42'), (' 42');
INSERT INTO k_time VALUES ('2026-03-01 12:00+00');
INSERT INTO k_two VALUES (7, 'x');


-- what each function makes of it: decided, what explain() says, frozen
CREATE FUNCTION try(source regclass, k text) RETURNS TABLE (decided bigint, explained text, frozen boolean, ended int) LANGUAGE plpgsql AS $$
BEGIN
	decided := rebate.reconcile(source, ARRAY[k]);
	IF source <> 'k_two'::regclass THEN
		SELECT subject || ': ' || outcome INTO explained FROM rebate.explain(source, k) WHERE topic = 'order';
	END IF;
	frozen := rebate.freeze(source, k, 'test');
	ended := rebate.unfreeze(source, k, 'test');
	RETURN NEXT;
EXCEPTION WHEN data_exception OR invalid_text_representation OR no_data_found THEN
	explained := SQLERRM;
	RETURN NEXT;
END $$;
SELECT s, k, t.* FROM (VALUES ('k_int', '42'), ('k_int', ' 42'), ('k_int', '042'), ('k_int', '+42'), ('k_int', '42.0'), ('k_int', ''),
	('k_numeric', '1.5'), ('k_numeric', '1.500'), ('k_numeric', '15e-1'), ('k_numeric', 'one'),
	('k_uuid', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'), ('k_uuid', '{a0eebc999c0b4ef8bb6d6bb9bd380a11}'), ('k_uuid', 'a0'),
	('k_text', '42'), ('k_text', ' 42'), ('k_text', '042'),
	('k_time', '2026-03-01 13:00+01'), ('k_time', '2026-03-01 12:00'), ('k_time', '2026-03-01 12:00:00.000+00'), ('k_time', 'soon'),
	('k_two', '["x", "7"]'), ('k_two', '["x", 7]'), ('k_two', '["x","07"]'), ('k_two', '["7", "x"]'), ('k_two', '["x"]'), ('k_two', 'x'), ('k_two', '["x", null]')
	) AS v (s, k), try(s::regclass, k) t;
SELECT outcome FROM rebate.explain('k_two', 'x', ' 07') WHERE topic = 'order';
SELECT outcome FROM rebate.explain('k_numeric', 1.500::float8) WHERE topic = 'order';
-- a time is read in the session's zone
SET timezone = 'Asia/Kathmandu';
SELECT decided, frozen FROM try('k_time', '2026-03-01 17:45');
RESET timezone;
SET timezone = 'UTC';
-- nothing came by it
SELECT source, order_key, earned FROM rebate.accruals ORDER BY source COLLATE "C", order_key COLLATE "C";
SELECT order_key, count(*) FROM rebate_data.freeze GROUP BY 1 ORDER BY order_key COLLATE "C";
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP FUNCTION try;
DROP TABLE k_int, k_numeric, k_uuid, k_text, k_time, k_two;
DROP SCHEMA rebate_data CASCADE;
DROP EXTENSION rebate CASCADE;
