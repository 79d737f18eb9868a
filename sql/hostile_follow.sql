--
-- DDL: what somebody's settings, or a store that somebody planted, make of the
-- event triggers and of the names that are recorded.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
CREATE ROLE regress_hostile_mallory;
CREATE ROLE regress_hostile_owner;
DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_hostile_mallory', current_database()); END$$;
CREATE SCHEMA hostile;
GRANT USAGE, CREATE ON SCHEMA hostile TO PUBLIC;

--
-- a planted store is not read by the event triggers: no DDL fails (and none waits, isolation/planted_store)
--
SET ROLE regress_hostile_mallory;
CREATE SCHEMA rebate_data;
CREATE TABLE rebate_data.source (source_id int, relation regclass, relation_name text);
CREATE TABLE rebate_data.store (one boolean);
CREATE TABLE hostile.mallorys (id int);
INSERT INTO rebate_data.source VALUES (1, 'hostile.mallorys', 'hostile.mallorys');
RESET ROLE;
CREATE TABLE hostile.mine (id int PRIMARY KEY, customer text, total numeric);
ALTER TABLE hostile.mine RENAME TO mine2;
ALTER TABLE hostile.mine2 SET SCHEMA public;
ALTER TABLE public.mine2 ALTER total TYPE numeric(20,2);
DROP TABLE public.mine2;
CREATE TABLE hostile.parted (id int) PARTITION BY LIST (id);
CREATE TABLE hostile.part PARTITION OF hostile.parted DEFAULT;
DROP TABLE hostile.part, hostile.parted;
SELECT rebate.set_rule('mine', percent => 5);
DROP SCHEMA rebate_data CASCADE;
DROP TABLE hostile.mallorys;

--
-- settings of whoever makes the store, attaches, and changes names
--
SELECT current_setting('server_version_num')::integer < 190000 AS strings_may_differ \gset
\if :strings_may_differ
SET standard_conforming_strings = off;
SET escape_string_warning = off;
\endif
SET backslash_quote = off;
SET transform_null_equals = on;
SET quote_all_identifiers = on;
SET array_nulls = off;
SET DateStyle = 'German, DMY';
SET IntervalStyle = iso_8601;
SET TimeZone = 'Asia/Kathmandu';
SET extra_float_digits = -15;
SET bytea_output = escape;
SELECT rebate.create_store();
SELECT count(*) FROM rebate_data.currency WHERE code ~ '^[A-Z][A-Z][A-Z]$';
SELECT max(length(code)) FROM rebate_data.currency;
CREATE TABLE hostile.orders (id int, customer text, total numeric, region text, status text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
ALTER TABLE hostile.orders OWNER TO regress_hostile_owner;
SELECT rebate.attach('hostile.orders', 'customer', 'total', 'EUR', attributes => '{"region": "region"}',
    status => 'status', phases => $${"a\\b": "confirmed", "c": "pending"}$$);
SELECT rebate.set_rule('ten', percent => 10, condition => $$status = E'a\\b' OR status IS NOT NULL$$);
SELECT source, key, member, amount FROM rebate.sources;
SELECT condition FROM rebate.rules;
SET ROLE regress_hostile_owner;
CREATE TABLE hostile.orders_de PARTITION OF hostile.orders FOR VALUES IN ('de');
INSERT INTO hostile.orders VALUES (1, 'ann', 100, 'de', E'a\\b');
-- the owner renames; somebody else renames something else
ALTER TABLE hostile.orders RENAME customer TO buyer;
ALTER TABLE hostile.orders RENAME COLUMN region TO "Region";
ALTER TABLE hostile.orders RENAME TO sales;
RESET ROLE;
SET ROLE regress_hostile_mallory;
CREATE TABLE hostile.mallorys (id int);
ALTER TABLE hostile.mallorys RENAME TO others;
RESET ROLE;
SELECT source, key, member, amount FROM rebate.sources;
SET ROLE regress_hostile_owner;
INSERT INTO hostile.sales VALUES (2, 'bob', 100, 'de', 'c');
RESET ROLE;
RESET ALL;
SET client_min_messages = warning;
SELECT source, key, member, amount FROM rebate.sources;
SELECT attributes, phases FROM rebate_data.source;
SELECT member, source, rule, bucket, earned FROM rebate.accruals ORDER BY member;
SELECT source, order_key, message FROM rebate.failures;
-- the same with the settings as they are by default: nothing is new
SELECT rebate.attach('hostile.sales', 'buyer', 'total', 'EUR', attributes => '{"region": "Region"}',
    status => 'status', phases => $${"a\\b": "confirmed", "c": "pending"}$$);
SELECT rebate.adopt_store();
SET quote_all_identifiers = on;
SELECT rebate.adopt_store();
RESET quote_all_identifiers;
SELECT * FROM rebate.audit();

SET client_min_messages = error;
DROP SCHEMA hostile CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DO $$BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM regress_hostile_mallory', current_database()); END$$;
DROP ROLE regress_hostile_mallory, regress_hostile_owner;
