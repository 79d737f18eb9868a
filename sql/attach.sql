-- rebate.create_store(), attach(), detach(), set_programme(), add_currency():
-- what they accept, refuse, warn about and record.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
CREATE EXTENSION rebate;

--
-- The store
--
CREATE SCHEMA rebate_data;
SELECT rebate.create_store();
\echo :LAST_ERROR_SQLSTATE
DROP SCHEMA rebate_data;
SELECT rebate.create_store('no_such_role');
SELECT rebate.create_store();
SELECT rebate.create_store();
SELECT rebate.create_store('rebate_owner');
SELECT rebate.create_store('pg_monitor');
\echo :LAST_ERROR_SQLSTATE

SELECT c.relkind, array_agg(DISTINCT pg_get_userbyid(c.relowner)) AS owners
FROM pg_class c WHERE c.relnamespace = 'rebate_data'::regnamespace AND c.relkind <> 'i'
GROUP BY 1 ORDER BY 1;
SELECT c.relname, pg_get_userbyid(c.relowner) AS owner, obj_description(c.oid) IS NOT NULL AS commented
FROM pg_class c WHERE c.relnamespace = 'rebate'::regnamespace AND c.relkind <> 'i'
	AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1;
-- each of our functions has a comment, and none is for everyone
SELECT p.proname FROM pg_proc p
WHERE p.pronamespace = 'rebate'::regnamespace
  AND (obj_description(p.oid, 'pg_proc') IS NULL
	   OR has_function_privilege('public', p.oid, 'EXECUTE'));
-- nothing is granted on the store or its views
SELECT c.relname FROM pg_class c
WHERE c.relnamespace IN ('rebate_data'::regnamespace, 'rebate'::regnamespace)
  AND has_table_privilege('public', c.oid, 'SELECT, INSERT, UPDATE, DELETE');
SELECT has_schema_privilege('public', 'rebate', 'USAGE') AS rebate,
	   has_schema_privilege('public', 'rebate_data', 'USAGE') AS rebate_data;
-- a guard on each table
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'rebate_data'::regnamespace AND c.relkind = 'r'
  AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'rebate_guard');
INSERT INTO rebate_data.entry SELECT FROM rebate_data.entry;
\echo :LAST_ERROR_SQLSTATE
UPDATE rebate_data.account SET available = 1;
DELETE FROM rebate_data.accrual;
TRUNCATE rebate_data.rule_version;
SELECT rebate.guard();

SELECT scale, count(*) > 0 AS some, min(unit) AS unit, min(code COLLATE "C") AS first FROM rebate_data.currency
GROUP BY scale ORDER BY scale;
SELECT code, scale, unit FROM rebate_data.currency WHERE code IN ('EUR', 'JPY', 'KWD', 'CLF') ORDER BY code;
SELECT count(*) AS gold FROM rebate_data.currency WHERE code IN ('XAU', 'XTS', 'XXX');

--
-- Tables that cannot be attached
--
CREATE TABLE part (id int PRIMARY KEY, customer text, total numeric) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (1) TO (10);
CREATE TABLE parent (id int PRIMARY KEY, customer text, total numeric);
CREATE TABLE child () INHERITS (parent);
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, customer text, total numeric);
CREATE TEMP TABLE temporary (id int PRIMARY KEY, customer text, total numeric);
CREATE VIEW view AS SELECT * FROM parent;
SELECT rebate.attach('part1', 'customer', 'total', 'EUR');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.attach('parent', 'customer', 'total', 'EUR');
SELECT rebate.attach('child', 'customer', 'total', 'EUR');
SELECT rebate.attach('unlogged', 'customer', 'total', 'EUR');
SELECT rebate.attach('temporary', 'customer', 'total', 'EUR');
SELECT rebate.attach('view', 'customer', 'total', 'EUR');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.attach('pg_class', 'relname', 'relpages', 'EUR');
SELECT rebate.attach('rebate_data.account', 'member', 'available', 'currency');
DROP TABLE part, parent, child, unlogged, temporary CASCADE;

--
-- Arguments
--
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'cancelled');
CREATE TABLE orders (
	id			bigserial PRIMARY KEY,
	number		text NOT NULL UNIQUE,
	note		text UNIQUE,
	shop		int NOT NULL,
	line		int NOT NULL,
	customer	text,
	total		numeric(12,2),
	cents		bigint,
	approx		double precision,
	currency	char(3),
	status		order_status,
	code		int,
	placed_at	timestamptz,
	placed_on	date,
	qty			int,
	place		point,
	"Order Date" timestamp,
	"EUR"		text,
	UNIQUE (shop, line));
CREATE UNIQUE INDEX ON orders (code) WHERE code > 0;

SELECT rebate.attach(NULL, 'customer', 'total', 'EUR');
SELECT rebate.attach('orders', NULL, 'total', 'USD');
SELECT rebate.attach('orders', 'customer', NULL, 'USD');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.attach('orders', 'customer', 'total');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.attach('orders', 'customer', 'total', 'usd');
SELECT rebate.attach('orders', 'customer', 'total', 'XXQ');
SELECT rebate.attach('orders', 'customer', 'totl', 'USD');
SELECT rebate.attach('orders', 'customer', 'total +', 'USD');
SELECT rebate.attach('orders', 'customer', '', 'USD');
SELECT rebate.attach('orders', 'customer', 'total * random()', 'USD');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.attach('orders', 'customer', 'customer', 'USD');
SELECT rebate.attach('orders', 'place', 'total', 'USD');
\echo :LAST_ERROR_SQLSTATE
-- keys
SELECT rebate.attach('orders', 'customer', 'total', 'USD', "key" => '{}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', "key" => '{nope}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', "key" => '{NULL}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', "key" => '{id,id}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', "key" => '{note}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', "key" => '{shop}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', "key" => '{ctid}');
CREATE TABLE keyless (id int NOT NULL, customer text, total numeric);
SELECT rebate.attach('keyless', 'customer', 'total', 'USD');
ALTER TABLE keyless ADD PRIMARY KEY (id) DEFERRABLE;
SELECT rebate.attach('keyless', 'customer', 'total', 'USD');
SELECT rebate.attach('keyless', 'customer', 'total', 'USD', "key" => '{id}');
DROP TABLE keyless;
-- words
SELECT rebate.attach('orders', 'customer', 'total', 'USD', on_delete => 'forget');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', on_truncate => NULL);
SELECT rebate.attach('orders', 'customer', 'total', 'USD', on_error => 'ignore');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', max_backdate => '-1 day');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', since => '2020-01-01');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', order_time => 'placed_at', since => 'infinity');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', refunded_quantity => 'qty');
-- phases
SELECT rebate.attach('orders', 'customer', 'total', 'USD', phases => '{"paid": "pending"}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', status => 'status', phases => '[]');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', status => 'status', phases => '{}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', status => 'status', phases => '{"paid": "payed"}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', status => 'status', phases => '{"paid": 1}');
-- attributes
SELECT rebate.attach('orders', 'customer', 'total', 'USD', attributes => '["shop"]');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', attributes => '{"shop": 1}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', attributes => '{"": "shop"}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', attributes => '{"shop": "shp"}');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', attributes => '{"place": "place"}');
-- nothing of this left a trace
SELECT count(*) FROM rebate.sources;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND tgname ~ '^rebate';

--
-- Attached
--
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR');	-- the column
SELECT source, key, member, amount, currency, arguments FROM rebate.sources;
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', "key" => '{id}');	-- the same
SELECT rebate.attach('orders', member => '"customer"', amount => ' total ', currency => '"EUR"');	-- the same
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD', "key" => '{shop,line}',
	quantity => 'qty', order_time => 'Order Date', status => 'status',
	phases => '{"new": "tracked", "paid": "pending", "shipped": "confirmed", "lost": "void"}',
	attributes => '{"shop": "shop", "big": "total > 100"}', max_backdate => NULL, on_delete => 'keep',
	on_truncate => 'void', on_error => 'abort', replace => true);
SELECT source, key, member, amount, currency, jsonb_pretty(arguments) FROM rebate.sources;
SELECT order_time, status, attributes, phases, max_backdate, max_future FROM rebate_data.source;
SELECT tgname, tgenabled, pg_get_triggerdef(oid), obj_description(oid) FROM pg_trigger
WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal ORDER BY 1;
-- each difference is named
SELECT rebate.attach('orders', member => 'customer', amount => 'cents / 100.0', currency => 'USD',
	order_time => 'placed_at', phases => '{"new": "void"}', status => 'status', max_backdate => '1 mon');
\echo :LAST_ERROR_SQLSTATE
-- with replace: the same row, the same since
SELECT since AS since_before FROM rebate.sources \gset
SELECT rebate.attach('orders', member => 'customer', amount => 'cents / 100.0', currency => 'currency', replace => true);
SELECT source_id, key, amount, currency, since = :'since_before' AS same_since FROM rebate.sources;

-- warnings: integer and inexact amounts, labels
SELECT rebate.attach('orders', member => 'customer', amount => 'cents', currency => 'USD', replace => true);
SELECT rebate.attach('orders', member => 'customer', amount => 'cents', currency => 'JPY', replace => true);
SELECT rebate.attach('orders', member => 'customer', amount => 'approx', currency => 'USD', replace => true);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD', status => 'status', replace => true);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD', status => 'code',
	phases => '{"1": "pending"}', order_time => 'placed_on', replace => true);

-- a missing trigger is made again
DROP TRIGGER rebate_update ON orders;
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD', status => 'code',
	phases => '{"1": "pending"}', order_time => 'placed_on');
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD', status => 'code',
	phases => '{"1": "pending"}', order_time => 'placed_on');

-- the key is part of what was recorded
INSERT INTO orders (number, shop, line, customer, total, code, placed_on) VALUES ('a', 1, 1, 'alice', 10, 1, current_date);
SELECT source, order_key, decision FROM rebate.decisions;
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD', status => 'code',
	phases => '{"1": "pending"}', order_time => 'placed_on', "key" => '{number}', replace => true);

--
-- Detached, and attached again
--
SELECT rebate.detach('orders');
SELECT rebate.detach('orders');
\echo :LAST_ERROR_SQLSTATE
SELECT detached_at IS NOT NULL AS detached FROM rebate.sources;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND tgname ~ '^rebate';
INSERT INTO orders (number, shop, line, customer, total, code) VALUES ('b', 1, 2, 'bob', 10, 2);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR');
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD', replace => true);
SELECT source_id, detached_at FROM rebate.sources;
SELECT source, order_key, decision FROM rebate.decisions ORDER BY order_key;

-- a table of the same name is another source
ALTER TABLE orders RENAME TO old_orders;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, at timestamptz);
INSERT INTO orders VALUES (1, 'alice', 10, '2020-01-01'), (2, 'bob', 20, '2024-01-01');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', order_time => 'at', since => '2023-01-01 UTC');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', order_time => 'at', since => '2022-01-01 UTC');
SELECT rebate.attach('orders', 'customer', 'total', 'USD', order_time => 'at');	-- the same
SELECT source_id, source FROM rebate.sources ORDER BY source_id;
SELECT source, order_key, decision FROM rebate.decisions ORDER BY source, order_key;
-- an earlier since takes in older rows
SELECT rebate.attach('orders', 'customer', 'total', 'USD', order_time => 'at', since => '-infinity', replace => true);
SELECT source, order_key, decision FROM rebate.decisions ORDER BY source, order_key;
DROP TABLE old_orders;
DROP TABLE orders;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('orders', 'customer', 'total', 'USD');
SELECT source_id, source, detached_at IS NOT NULL AS detached FROM rebate.sources ORDER BY source_id;

-- awkward names; in a migration's transaction, and taken back with it
BEGIN;
CREATE SCHEMA "My Shop";
CREATE TABLE "My Shop"."Order ""Lines""" ("the id" uuid PRIMARY KEY, "Customer" text, "select" numeric);
SELECT rebate.attach('"My Shop"."Order ""Lines"""', 'Customer', 'select', 'EUR');
SELECT source, key, member, amount FROM rebate.sources WHERE source ~ 'My';
ROLLBACK;
SELECT count(*) FROM rebate.sources WHERE source ~ 'My';

-- a trigger of that name that is not ours
CREATE TABLE other (id int PRIMARY KEY, customer text, total numeric);
CREATE TRIGGER rebate_insert BEFORE UPDATE ON other FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
SELECT rebate.attach('other', 'customer', 'total', 'USD');
DROP TABLE other;

--
-- Programme and currencies
--
SELECT rebate.set_programme('Europe/Berln');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.set_programme('FOO+3');
SELECT rebate.set_programme(NULL);
SELECT rebate.set_programme('utc');
SELECT rebate.set_programme('Europe/Berlin');
SELECT name, time_zone FROM rebate_data.programme;
SELECT rebate.add_currency('points', 0);
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.add_currency('POINTS', -1);
SELECT rebate.add_currency('POINTS', 13);
SELECT rebate.add_currency(NULL, 1);
SELECT rebate.add_currency('POINTS', 0);
SELECT rebate.add_currency('POINTS', 0);
SELECT code, scale, unit, iso FROM rebate_data.currency WHERE code = 'POINTS';
SELECT rebate.add_currency('POINTS', 1);
SELECT rebate.attach('orders', 'customer', 'total', 'POINTS', replace => true);
SELECT rebate.set_rule('one percent', percent => 1);
INSERT INTO orders VALUES (1, 'alice', 1000);
SELECT member, currency, available FROM rebate.balances;
SELECT rebate.add_currency('POINTS', 2);
\echo :LAST_ERROR_SQLSTATE

--
-- Who may
--
CREATE ROLE regress_rebate_shop;
CREATE ROLE regress_rebate_admin IN ROLE rebate_owner;
GRANT CREATE ON SCHEMA public TO regress_rebate_shop, regress_rebate_admin;
SET ROLE regress_rebate_shop;
SELECT rebate.attach('orders', 'customer', 'total', 'USD');
SELECT * FROM rebate.balances;
SELECT * FROM rebate_data.account;
SET ROLE regress_rebate_admin;
SELECT rebate.attach('orders', 'customer', 'total', 'USD');	-- not his table
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.detach('orders');
CREATE TABLE mine (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('mine', 'customer', 'total', 'USD');
INSERT INTO mine VALUES (1, 'carol', 100);
SELECT member, currency, available FROM rebate.balances ORDER BY member COLLATE "C";
SELECT attached_by = session_user AS attached_by FROM rebate.sources WHERE source = 'public.mine';
RESET ROLE;
-- owner of a table, EXECUTE by accident, but no member of the store's owner
GRANT EXECUTE ON FUNCTION rebate.attach TO regress_rebate_shop;
SET ROLE regress_rebate_shop;
CREATE TABLE theirs (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('theirs', 'customer', 'total', 'USD');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP TABLE orders, mine, theirs;
DROP TYPE order_status;

--
-- DROP EXTENSION leaves the money; the store is adopted by name
--
\set VERBOSITY terse
DROP EXTENSION rebate;
\set VERBOSITY default
SET client_min_messages = warning;
DROP EXTENSION rebate CASCADE;
RESET client_min_messages;
CREATE EXTENSION rebate;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('orders', 'customer', 'total', 'USD');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.create_store();
SELECT rebate.create_store('rebate_owner');
SELECT rebate.adopt_store('pg_monitor');
SELECT rebate.adopt_store('rebate_owner');
SELECT rebate.create_store();
SELECT member, currency, available FROM rebate.balances ORDER BY member COLLATE "C";
SELECT rebate.attach('orders', 'customer', 'total', 'USD');
DELETE FROM rebate_data.account;

SET client_min_messages = warning;
DROP TABLE orders;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
REVOKE ALL ON SCHEMA public FROM regress_rebate_shop, regress_rebate_admin;
DROP ROLE regress_rebate_admin;
RESET client_min_messages;

--
-- A store of an ordinary role, which is nobody's superuser
--
CREATE EXTENSION rebate;
CREATE ROLE regress_rebate_owner;
GRANT EXECUTE ON FUNCTION rebate.create_store TO regress_rebate_owner;
SET ROLE regress_rebate_owner;
SELECT rebate.create_store('rebate_owner');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.create_store();
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT current_database() AS db \gset
GRANT CREATE ON DATABASE :"db" TO regress_rebate_owner;
GRANT CREATE ON SCHEMA public TO regress_rebate_owner;
SET ROLE regress_rebate_owner;
SET search_path = public, pg_catalog;
SET default_tablespace = pg_global;
SELECT rebate.create_store();
RESET default_tablespace;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('orders', 'customer', 'total', 'USD');
SELECT rebate.set_rule('welcome', percent => 5);
INSERT INTO orders VALUES (1, 'alice', 100);
SELECT member, currency, available FROM rebate.balances;
SELECT DISTINCT nspname, pg_get_userbyid(relowner) AS owner FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname IN ('rebate', 'rebate_data') ORDER BY 1;
-- somebody who may insert orders, and has no right on anything of ours
RESET ROLE;
GRANT INSERT ON orders TO regress_rebate_shop;
SET ROLE regress_rebate_shop;
INSERT INTO orders VALUES (2, 'alice', 50);
RESET ROLE;
SELECT member, currency, available FROM rebate.balances;

SET client_min_messages = warning;
DROP TABLE orders;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP OWNED BY regress_rebate_owner, regress_rebate_shop;
DROP ROLE regress_rebate_owner, regress_rebate_shop;
