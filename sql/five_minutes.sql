-- The README's first block, as a new user types it, and what he would try next.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';

CREATE EXTENSION rebate;
CREATE TABLE orders (id bigserial PRIMARY KEY, customer text, total numeric(12,2));   -- you already have one
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR');
SELECT rebate.set_rule('welcome', percent => 5);
INSERT INTO orders (customer, total) VALUES ('alice', 199.90);
-- all columns but the account's id and the time it was opened
SELECT member, currency, tracked, pending, maturing, available, held, last_entry FROM rebate.balances WHERE member = 'alice';
-- times differ from run to run
CREATE FUNCTION without_times(text) RETURNS text LANGUAGE sql AS
$$ SELECT regexp_replace($1, '(order time|first seen|confirmed|posted|due) [0-9][^,]*', '\1 T', 'g') $$;
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 1);
DELETE FROM orders WHERE id = 1;    -- back to exactly 0
SELECT * FROM rebate.audit();       -- (0 rows)

SELECT member, currency, tracked, pending, maturing, available, held, last_entry FROM rebate.balances WHERE member = 'alice';
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 1);
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 2);
SELECT * FROM rebate.balance('alice');

-- the same calls again do nothing; with other arguments
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR');
SELECT rebate.set_rule('welcome', percent => 5);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'USD');
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.set_rule('welcome', percent => 6);
INSERT INTO orders (customer, total) VALUES ('alice', 100);
SELECT rule, version, earned FROM rebate.accruals WHERE order_key = '2';

-- all of it inside the transaction of a migration, seen before its end, and undone
BEGIN;
CREATE TABLE bookings (id int PRIMARY KEY, guest text, price numeric(12,2));
SELECT rebate.attach('bookings', member => 'guest', amount => 'price', currency => 'CHF');
SELECT rebate.set_rule('booking', fixed => 3, currency => 'CHF', source => 'bookings');
INSERT INTO bookings VALUES (1, 'bob', 80);
SELECT rebate.flush();
SELECT rule, member, currency, earned FROM rebate.accruals WHERE source = 'public.bookings' ORDER BY rule COLLATE "C";
ROLLBACK;
SELECT count(*) FROM rebate.accruals WHERE member = 'bob';

--
-- explain() of orders of every kind
--
ALTER TABLE orders ADD status text NOT NULL DEFAULT 'paid', ADD refunded numeric, ADD country text, ADD quantity int;
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', status => 'status',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     refunded => 'refunded', quantity => 'quantity', replace => true);
-- what is mapped now reaches an order with its next change
UPDATE orders SET status = 'sent';
CREATE TABLE bookings (id int PRIMARY KEY, guest text, price numeric(12,2), total numeric, country text);
SELECT rebate.attach('bookings', member => 'guest', amount => 'price', currency => 'CHF');
SELECT rebate.set_group('coupons', 'best');
SELECT rebate.set_rule('neighbours', percent => 2, scope => '{"country": ["CH", "AT"]}', hold => '14 days');
SELECT rebate.set_rule('large', fixed => 10, currency => 'EUR', minimum => 500);
SELECT rebate.set_rule('francs', fixed => 1, currency => 'CHF');
SELECT rebate.set_rule('big day', percent => 1, condition => 'total > 1000', source => 'orders');
SELECT rebate.set_rule('coupon a', percent => 2, currency => 'EUR', max_per_order => 5, rule_group => 'coupons', priority => 2);
SELECT rebate.set_rule('coupon b', per_unit => 0.75, currency => 'EUR', rule_group => 'coupons', source => 'orders');
SELECT rebate.set_rule('tight', percent => 50, currency => 'EUR', max_per_order => 1, limit_mode => 'reject');
SELECT rebate.set_rule('kept', percent => 1, unlinked_return => 'ignore', rounding => 'down');
SELECT rebate.set_rule('rooms', percent => 1, source => 'bookings');
SELECT rebate.set_rule('future', percent => 1, valid_from => '2999-01-01 00:00+00');
SELECT rebate.set_rule('gone', percent => 1);
SELECT rebate.end_rule('gone');
INSERT INTO orders (id, customer, total, status, refunded, country, quantity) VALUES
    (11, 'carol', 300, 'sent', 100, 'AT', 10),
    (12, 'carol', 300, 'new', NULL, 'DE', 1),
    (13, NULL, 50, 'sent', NULL, NULL, NULL),
    (14, 'carol', 80, 'cancelled', NULL, NULL, NULL),
    (15, 'carol', NULL, 'sent', NULL, NULL, NULL),
    (16, 'carol', 0, 'sent', NULL, NULL, NULL),
    (17, 'carol', -60, 'sent', NULL, 'AT', -2),
    (18, 'carol', 60, 'sent', 70, 'AT', 2);
SELECT rebate.set_rule('late', percent => 1);
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 11);
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 12);
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 13);
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 14);
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 15);
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 16);
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 17)
WHERE topic <> 'rule' OR outcome IN ('pays', 'returns are ignored');
SELECT topic, subject, outcome, amount, without_times(detail) AS detail FROM rebate.explain('orders', 18)
WHERE topic <> 'rule' OR outcome LIKE 'pays%';

-- it shows what waits, and writes nothing of its own
BEGIN;
UPDATE orders SET total = 400 WHERE id = 12;
SELECT topic, subject, outcome, amount FROM rebate.explain('orders', 12) WHERE topic IN ('order', 'accrual');
ROLLBACK;
SELECT count(*) AS entries, max(last_entry) AS last FROM rebate.entries e JOIN rebate.balances b USING (account_id) \gset before_
SELECT count(*) > 0 AS lines FROM rebate.explain('orders', 11);
SELECT count(*) = :before_entries AS same, max(last_entry) = :before_last AS same_last
FROM rebate.entries e JOIN rebate.balances b USING (account_id);

-- a hundred lines about rules, and how many more there are
SELECT count(rebate.set_rule('shop ' || n, percent => 1, scope => jsonb_build_object('country', 'X' || n))) FROM generate_series(1, 120) n;
INSERT INTO orders (id, customer, total, country) VALUES (20, 'dave', 10, 'X7');
SELECT count(*) FROM rebate.explain('orders', 20) WHERE topic = 'rule';
SELECT subject, outcome, amount FROM rebate.explain('orders', 20) WHERE subject = 'shop 7 v1' AND topic = 'rule' OR outcome LIKE '% more';
SELECT (SELECT count(*) FROM rebate.rules) - 100 AS more;

-- composite keys, canonical keys, keys that cannot be
CREATE TABLE lines (shop numeric, no text, member text, amount numeric, PRIMARY KEY (no, shop));
SELECT rebate.attach('lines', member => 'member', amount => 'amount', currency => 'EUR', key => ARRAY['shop', 'no'],
                     attributes => '{"country": "member", "total": "amount"}');
INSERT INTO lines VALUES (1.50, 'a"b', 'erin', 10);
SELECT rebate.order_key('lines', 1.5, 'a"b');
SELECT topic, subject, outcome, amount FROM rebate.explain('lines', 1.500, 'a"b') WHERE topic = 'order' OR outcome = 'pays';
SELECT rebate.explain('lines', 1.5);
SELECT rebate.explain('lines', 1.5, NULL);
SELECT rebate.explain('lines', 'x', 'y');
SELECT rebate.explain('pg_class', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.explain(NULL, 1);

-- for members of the store's owner only
CREATE ROLE regress_rebate_reader;
GRANT EXECUTE ON FUNCTION rebate.explain TO regress_rebate_reader;
GRANT USAGE ON SCHEMA rebate TO regress_rebate_reader;
SET ROLE regress_rebate_reader;
SELECT rebate.explain('orders', 1);
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP TABLE orders, bookings, lines;
DROP FUNCTION without_times;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP OWNED BY regress_rebate_reader;
DROP ROLE regress_rebate_reader;
