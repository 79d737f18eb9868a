-- Columns that rules name are dropped, renamed, changed: no money moves because of it, and it is told.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, merchant text, country text, weight int);
SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
-- a table that never had a merchant is not concerned
CREATE TABLE others (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('others', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('shop', percent => 10, scope => '{"merchant": "m1"}', source => 'orders');
SELECT rebate.set_rule('land', percent => 5, scope => '{"country": ["DE", "AT"]}', source => 'orders');
SELECT rebate.set_rule('heavy', percent => 1, condition => 'weight > 5', source => 'orders');
SELECT rebate.set_rule('all', percent => 2);
SET client_min_messages = notice;
INSERT INTO orders VALUES (1, 'ann', 100, 'm1', 'DE', 10), (2, 'ann', 100, 'm1', 'FR', 1), (3, 'ann', 100, 'm2', 'DE', 1), (4, 'ann', 100, 'm2', 'FR', 1);
INSERT INTO others VALUES (1, 'bob', 100);
CREATE VIEW ledger AS
SELECT source, order_key AS key, rule, earned FROM rebate.accruals WHERE earned <> 0;
SELECT * FROM ledger ORDER BY 1, 2, 3;

-- the column of a scope is dropped: what it paid stays, and the orders are set aside when they change
ALTER TABLE orders DROP COLUMN merchant;
UPDATE orders SET total = 200;
UPDATE others SET total = 200;
SELECT * FROM ledger ORDER BY 1, 2, 3;
SELECT order_key, sqlstate, message, detail FROM rebate.failures ORDER BY 1;
SELECT "check", subject, status FROM rebate.doctor() WHERE status <> 'ok' AND "check" = 'failures';
SELECT * FROM rebate.audit();
-- to cancel is to cancel
BEGIN;
DELETE FROM orders WHERE id = 2;
SELECT rebate.flush();
SELECT * FROM ledger WHERE key = '2' ORDER BY 1, 2, 3;
ROLLBACK;
-- the column is there again
ALTER TABLE orders ADD COLUMN merchant text;
UPDATE orders SET merchant = CASE WHEN id < 3 THEN 'm1' ELSE 'm2' END;
SELECT * FROM ledger ORDER BY 1, 2, 3;
SELECT count(*) FROM rebate.failures;

-- renamed: the same; an attribute of the old name heals it
ALTER TABLE orders RENAME country TO land;
UPDATE orders SET total = 100;
SELECT order_key, sqlstate, detail FROM rebate.failures ORDER BY 1;
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', replace => true,
	attributes => '{"merchant": "merchant", "country": "land"}');
SELECT * FROM ledger ORDER BY 1, 2, 3;
SELECT count(*) FROM rebate.failures;

-- what a condition names fails all orders that the rule could be for
ALTER TABLE orders DROP COLUMN weight;
UPDATE orders SET total = 300 WHERE id = 1;
SELECT order_key, sqlstate, message, detail FROM rebate.failures ORDER BY 1;
SELECT * FROM ledger WHERE key = '1' ORDER BY 1, 2, 3;
ALTER TABLE orders ADD COLUMN weight int;
UPDATE orders SET weight = 6 WHERE id = 1;
SELECT * FROM ledger WHERE key = '1' ORDER BY 1, 2, 3;

-- another type, without a canonical text
ALTER TABLE orders ALTER merchant TYPE json USING to_json(merchant);
UPDATE orders SET total = 400 WHERE id = 2;
SELECT order_key, sqlstate, message, detail FROM rebate.failures ORDER BY 1;
-- whoever means it says so: an attribute that is null matches nothing
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', replace => true,
	attributes => '{"merchant": "NULL::text", "country": "land"}');
SELECT * FROM ledger ORDER BY 1, 2, 3;
SELECT count(*) FROM rebate.failures;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP VIEW ledger;
DROP TABLE orders, others;
DROP SCHEMA rebate_data CASCADE;
DROP EXTENSION rebate CASCADE;
