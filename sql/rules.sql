-- rebate.set_rule(), end_rule(), set_group(): what they accept, refuse and record.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;

--
-- Before a table is attached
--
SELECT rebate.set_rule('early', percent => 5, condition => 'total > 10');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.set_rule('early', percent => 5, base => 'total');
SELECT rebate.set_rule('early', percent => 5, scope => '{"merchant": "m1"}');
SELECT rebate.set_rule('early', percent => 5);
SELECT rebate.end_rule('early', '-infinity');

--
-- Arguments
--
CREATE TABLE orders (
	id			int PRIMARY KEY,
	customer	text,
	total		numeric,
	shipping	numeric,
	merchant	text,
	shop		int,
	country		char(4),
	vip			boolean,
	weight		numeric(8,3),
	place		point,
	placed_at	timestamptz);
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', order_time => 'placed_at');

SELECT rebate.set_rule(NULL, percent => 5);
SELECT rebate.set_rule('', percent => 5);
SELECT rebate.set_rule(repeat('x', 64), percent => 5);
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.set_rule('r');
SELECT rebate.set_rule('r', percent => 5, fixed => 1, currency => 'EUR');
SELECT rebate.set_rule('r', percent => -1);
SELECT rebate.set_rule('r', percent => 'NaN');
SELECT rebate.set_rule('r', percent => 'Infinity');
SELECT rebate.set_rule('r', percent => 500);
SELECT rebate.set_rule('r', percent => 5, max_percent => NULL);
SELECT rebate.set_rule('r', percent => 15, max_percent => 10);
SELECT rebate.set_rule('r', fixed => 1);
SELECT rebate.set_rule('r', per_unit => 1);
SELECT rebate.set_rule('r', percent => 1, minimum => 10);
SELECT rebate.set_rule('r', percent => 1, max_per_order => 10);
SELECT rebate.set_rule('r', fixed => 1, currency => 'EURO');
SELECT rebate.set_rule('r', fixed => 1, currency => 'eur');
SELECT rebate.set_rule('r', fixed => -1, currency => 'EUR');
SELECT rebate.set_rule('r', fixed => 1e15, currency => 'EUR');
SELECT rebate.set_rule('r', fixed => 1e-31, currency => 'EUR');
SELECT rebate.set_rule('r', percent => 1, minimum => -1, currency => 'EUR');
SELECT rebate.set_rule('r', percent => 1, max_per_order => 'NaN', currency => 'EUR');
SELECT rebate.set_rule('r', fixed => 1, currency => 'EUR', base => 'total');
SELECT rebate.set_rule('r', per_unit => 1, currency => 'EUR');	-- no quantity is mapped
SELECT rebate.set_rule('r', percent => 1, limit_mode => 'cut');
SELECT rebate.set_rule('r', percent => 1, rounding => 'bankers');
SELECT rebate.set_rule('r', percent => 1, refund => NULL);
SELECT rebate.set_rule('r', percent => 1, unlinked_return => 'carry');
SELECT rebate.set_rule('r', percent => 1, hold => '-1 day');
SELECT rebate.set_rule('r', percent => 1, hold => '1 month -1 day');
SELECT rebate.set_rule('r', percent => 1, hold => '1000 years');
SELECT rebate.set_rule('r', percent => 1, hold => NULL);
SELECT rebate.set_rule('r', percent => 1, priority => NULL);
SELECT rebate.set_rule('r', percent => 1, rule_group => 'nope');
SELECT rebate.set_rule('r', percent => 1, campaign => 'nope');
SELECT rebate.set_rule('r', percent => 1, campaign => NULL);
SELECT rebate.set_rule('r', percent => 1, valid_from => '2024-01-02', valid_to => '2024-01-01');
SELECT rebate.set_rule('r', percent => 1, valid_from => 'infinity');
SELECT rebate.set_rule('r', percent => 1, valid_to => '2024-01-01');
SELECT rebate.set_rule('r', percent => 1, source => 'pg_class');
\echo :LAST_ERROR_SQLSTATE
-- expressions
SELECT rebate.set_rule('r', percent => 1, condition => '');
SELECT rebate.set_rule('r', percent => 1, condition => 'totl > 10');
SELECT rebate.set_rule('r', percent => 1, condition => 'total >');
SELECT rebate.set_rule('r', percent => 1, condition => 'total');
SELECT rebate.set_rule('r', percent => 1, condition => 'placed_at < now()');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.set_rule('r', percent => 1, condition => 'exists (select from pg_class)');
SELECT rebate.set_rule('r', percent => 1, base => 'customer');
-- scopes
SELECT rebate.set_rule('r', percent => 1, scope => '[]');
SELECT rebate.set_rule('r', percent => 1, scope => '{"shop": []}');
SELECT rebate.set_rule('r', percent => 1, scope => '{"shop": null}');
SELECT rebate.set_rule('r', percent => 1, scope => '{"shop": [1, null]}');
SELECT rebate.set_rule('r', percent => 1, scope => '{"shop": {"id": 1}}');
SELECT rebate.set_rule('r', percent => 1, scope => '{"shop": [[1]]}');
SELECT rebate.set_rule('r', percent => 1, scope => '{"shp": 1}');
SELECT rebate.set_rule('r', percent => 1, scope => '{"shop": "one"}');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.set_rule('r', percent => 1, scope => '{"place": "(1,2)"}');
SELECT rebate.set_rule('r', percent => 1,
	scope => jsonb_build_object('shop', (SELECT jsonb_agg(i) FROM generate_series(1, 101) i),
								'merchant', (SELECT jsonb_agg('m' || i) FROM generate_series(1, 10) i)));
-- nothing of this left a trace
SELECT rule, version FROM rebate.rule_versions ORDER BY 1, 2;

--
-- Versions
--
SELECT rebate.set_rule('welcome', percent => 5);
SELECT rebate.set_rule('welcome', percent => 5.00, hold => '0 days', scope => '{}');	-- the same
SELECT rebate.set_rule('welcome', percent => 6);
SELECT rebate.set_rule('welcome', percent => 6, valid_from => '2024-01-01');
SELECT rebate.set_rule('welcome', percent => 6);	-- valid_from is not asked for
SELECT rebate.set_rule('welcome', percent => 6, condition => 'total > 10 AND vip', base => 'total - shipping',
	scope => '{"shop": ["07", 7, 8], "country": "DE", "vip": true, "weight": 1.50}', minimum => 10, max_per_order => 99.5,
	currency => 'EUR', limit_mode => 'reject', rounding => 'half_even', refund => 'all', unlinked_return => 'ignore',
	hold => '14 days', priority => 3, valid_from => '2024-01-01', valid_to => '2034-01-01', source => 'orders');
SELECT rebate.set_rule('welcome', percent => 6, condition => ' total>10 and vip ', base => 'total-shipping',
	scope => '{"vip": true, "weight": 1.5, "shop": [8, 7], "country": "DE  "}', minimum => 10.00, max_per_order => 99.50,
	currency => 'EUR', limit_mode => 'reject', rounding => 'half_even', refund => 'all', unlinked_return => 'ignore',
	hold => '14 days', priority => 3, valid_to => '2034-01-01', source => 'orders');	-- the same
SELECT rule, version, generation, formula, rate, currency, scope, condition, valid_to FROM rebate.rule_versions
WHERE rule = 'welcome' ORDER BY version;
SELECT rule, version, formula, rate, jsonb_pretty(arguments) AS arguments FROM rebate.rules WHERE rule = 'welcome';
SELECT base, minimum, max_per_order, limit_mode, rounding, refund, unlinked_return, hold, priority, group_id, group_mode,
	   campaign_id, expense_account, valid_from, source_id
FROM rebate_data.rule_version WHERE version = 4;
SELECT k.version, s.attributes, k.scope_key
FROM rebate_data.rule_scope k JOIN rebate_data.scope s USING (scope_id) JOIN rebate_data.rule r USING (rule_id)
WHERE r.name = 'welcome' ORDER BY 1, 2, 3;
SELECT rebate.set_rule('welcome', percent => 150, max_percent => 200);
SELECT rebate.set_rule('flat', fixed => 2.5, currency => 'EUR');
SELECT created_by = session_user AS me FROM rebate.rule_versions WHERE rule = 'flat';

--
-- The end of a rule
--
SELECT rebate.end_rule('nope');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.end_rule(NULL);
SELECT rebate.end_rule('flat', 'infinity');
SELECT rebate.end_rule('flat', '2030-01-01');
SELECT rebate.end_rule('flat', '2030-01-01');
SELECT rebate.end_rule('flat') = 3 AS earlier;
SELECT rebate.end_rule('flat');	-- is ended
SELECT rebate.end_rule('flat', '2029-01-01');
SELECT rebate.set_rule('flat', fixed => 2.5, currency => 'EUR');
SELECT version, formula, rate, arguments - '{limit_mode,rounding,refund,unlinked_return,hold,priority,campaign}'::text[] AS arguments
FROM rebate.rule_versions WHERE rule = 'flat' ORDER BY version;

--
-- Groups
--
SELECT rebate.set_group('', 'first');
SELECT rebate.set_group('seasonal', 'worst');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.set_group('seasonal');
SELECT rebate.set_group('seasonal', 'first');
SELECT rebate.set_rule('spring', percent => 1, rule_group => 'seasonal', scope => '{"shop": [1, 2]}');
SELECT rebate.set_rule('autumn', percent => 2, rule_group => 'seasonal', priority => 1);
SELECT rebate.set_rule('winter', percent => 3, rule_group => 'seasonal');
SELECT rebate.end_rule('winter');
SELECT rebate.set_group('seasonal', 'best');
SELECT r.name, v.version, v.generation - first_value(v.generation) OVER (ORDER BY v.generation) AS generation,
	   v.formula, v.rate, v.group_mode,
	   (SELECT array_agg(k.scope_key ORDER BY k.scope_key) FROM rebate_data.rule_scope k
		WHERE k.rule_id = v.rule_id AND k.version = v.version) AS keys
FROM rebate_data.rule_version v JOIN rebate_data.rule r USING (rule_id) JOIN rebate_data.rule_group g USING (group_id)
WHERE g.name = 'seasonal' ORDER BY v.generation, v.rule_id, v.version;
SELECT rebate.set_rule('spring', percent => 1, rule_group => 'seasonal', scope => '{"shop": [1, 2]}');	-- the same
SELECT rule, version, rule_group, priority FROM rebate.rules ORDER BY rule COLLATE "C";

--
-- Two tables
--
CREATE TABLE bookings (id int PRIMARY KEY, customer text, total numeric, shop text, vip int, nights int);
SELECT rebate.attach('bookings', 'customer', 'total', 'EUR', quantity => 'nights');
SELECT rebate.set_rule('both', percent => 1, condition => 'total > 10', scope => '{"shop": 7}');
SELECT rebate.set_rule('both', percent => 1, condition => 'merchant = ''m1''');
SELECT rebate.set_rule('both', percent => 1, condition => 'vip = ''1''');
SELECT rebate.set_rule('both', percent => 1, scope => '{"shop": "07"}');
SELECT rebate.set_rule('both', percent => 1, scope => '{"merchant": "m1"}');
SELECT rebate.set_rule('both', percent => 1, scope => '{"merchant": "m1"}', source => 'orders');
SELECT rebate.set_rule('nights', per_unit => 2, currency => 'EUR', source => 'bookings');
SELECT rebate.set_rule('nights', per_unit => 2, currency => 'EUR', source => 'orders');
-- a rule for all tables must fit one that is attached later
CREATE TABLE trips (id int PRIMARY KEY, customer text, price numeric);
SELECT rebate.set_rule('large', percent => 1, condition => 'total > 1000');
SELECT rebate.attach('trips', 'customer', 'price', 'EUR');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.end_rule('large');
SELECT rebate.set_rule('both', percent => 1, source => 'orders');
SELECT rebate.attach('trips', 'customer', 'price', 'EUR');
SELECT rebate.detach('trips');
DROP TABLE trips;
SELECT rebate.detach('bookings');
SELECT rebate.set_rule('nights', per_unit => 3, currency => 'EUR', source => 'bookings');
\echo :LAST_ERROR_SQLSTATE

--
-- They pay
--
SELECT rebate.set_rule('welcome', percent => 5, source => 'orders');
INSERT INTO orders (id, customer, total, shop, placed_at) VALUES (1, 'alice', 100, 2, now() + '1 s'), (2, 'bob', 10, 3, now() + '1 s');
SELECT member, rule, version, earned FROM rebate.accruals ORDER BY member, rule;

--
-- Who may
--
CREATE ROLE regress_rebate_author;
GRANT EXECUTE ON FUNCTION rebate.set_rule TO regress_rebate_author;
SET ROLE regress_rebate_author;
SELECT rebate.set_rule('mine', percent => 100);
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.end_rule('welcome');
RESET ROLE;
-- a member of the store's owner sees no column that he may not read
GRANT rebate_owner TO regress_rebate_author;
SET ROLE regress_rebate_author;
SELECT rebate.set_rule('mine', percent => 1, source => 'orders', condition => 'total > 10');
SELECT rebate.set_rule('mine', percent => 1, source => 'orders');
RESET ROLE;
GRANT SELECT (total) ON orders TO regress_rebate_author;
SET ROLE regress_rebate_author;
SELECT rebate.set_rule('mine', percent => 1, source => 'orders', condition => 'total > 10');
RESET ROLE;

SET client_min_messages = warning;
DROP TABLE orders, bookings;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP OWNED BY regress_rebate_author;
DROP ROLE regress_rebate_author;
