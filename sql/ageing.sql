-- Orders that the clock confirms, or gives up.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;

CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, status text, placed timestamptz DEFAULT '2026-01-01');
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', status => 'status',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     order_time => 'placed', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('ten', percent => 10, valid_from => '2020-01-01');
SELECT rebate.set_rule('held', percent => 1, hold => '14 days', valid_from => '2020-01-01');
\set state 'SELECT order_key AS key, rule, phase, bucket, earned, due, CASE WHEN bucket IS DISTINCT FROM \'available\' OR due IS NOT NULL THEN confirmed_at END AS confirmed FROM rebate.accruals ORDER BY order_key, rule; SELECT * FROM rebate.audit();'

-- nothing set: nothing ages
INSERT INTO orders VALUES (1, 'alice', 100, 'new'), (2, 'alice', 200, 'paid');
CALL rebate.age('2030-01-01');
:state
-- what waits already is told
SELECT rebate.set_ageing('orders', auto_confirm_after => '30 days', give_up_after => '60 days');
:state
INSERT INTO orders VALUES (3, 'bob', 300, 'paid'), (4, NULL, 100, 'paid'), (5, 'bob', 100, 'cancelled');
INSERT INTO orders VALUES (6, 'bob', 100, 'paid', '2026-02-01');
CALL rebate.age('2026-01-30 23:59:59');
SELECT job, state, done FROM rebate.jobs;
CALL rebate.age('2026-01-31');
:state
SELECT job, state, done FROM rebate.jobs;
SELECT topic, outcome, amount, regexp_replace(detail, 'first seen [^,]*, ', '') AS detail FROM rebate.explain('orders', 3) WHERE topic IN ('order', 'accrual');
-- run late it is the same: confirmed when it was due; the hold counts from there
CALL rebate.age('2026-03-03');
:state
-- confirmed it stays while the row says pending, and follows the row otherwise
UPDATE orders SET total = 400 WHERE id = 3;
UPDATE orders SET status = 'cancelled' WHERE id = 6;
UPDATE orders SET status = 'sent' WHERE id = 2;
:state
UPDATE orders SET status = 'paid' WHERE id IN (2, 6);
:state
CALL rebate.mature('2026-03-01');
:state
-- given up: no rebate, whatever else changes of the row; alive again when its phase changes, and never given up again
SELECT topic, outcome, amount, regexp_replace(detail, 'first seen [^,]*', '') AS detail FROM rebate.explain('orders', 1) WHERE topic IN ('order', 'accrual');
UPDATE orders SET total = 150 WHERE id = 1;
SELECT * FROM rebate.accruals WHERE order_key = '1' AND earned <> 0;
UPDATE orders SET status = 'paid' WHERE id = 1;
SELECT order_key, bucket, earned, due FROM rebate.accruals WHERE order_key = '1';
UPDATE orders SET status = 'new' WHERE id = 1;
SELECT order_key, bucket, earned, due FROM rebate.accruals WHERE order_key = '1';
CALL rebate.age('2030-01-01');
SELECT order_key, bucket, earned, due FROM rebate.accruals WHERE order_key = '1';
SELECT * FROM rebate.audit();

-- give_up_after before auto_confirm_after: a pending order is given up, too
SELECT rebate.set_ageing('orders', auto_confirm_after => '30 days', give_up_after => '10 days');
INSERT INTO orders VALUES (10, 'carol', 100, 'paid', '2026-05-01'), (11, 'carol', 100, 'new', '2026-05-01');
CALL rebate.age('2026-06-15');
SELECT order_key, phase, bucket, earned FROM rebate.accruals WHERE member = 'carol' ORDER BY order_key, rule;
-- a freeze stops this clock, too
SELECT rebate.set_ageing('orders', auto_confirm_after => '30 days');
INSERT INTO orders VALUES (20, 'dave', 100, 'paid', '2026-05-01');
SELECT rebate.freeze('orders', '20', 'dispute', '2026-05-02');
SELECT due FROM rebate.accruals WHERE order_key = '20';
CALL rebate.age('2027-01-01');
SELECT bucket, due FROM rebate.accruals WHERE order_key = '20';
SELECT rebate.unfreeze('orders', '20', at => '2026-05-05');
SELECT bucket, due FROM rebate.accruals WHERE order_key = '20';
CALL rebate.age('2026-06-02');
SELECT bucket FROM rebate.accruals WHERE order_key = '20';
CALL rebate.age('2026-06-03');
SELECT rule, bucket, due, confirmed_at FROM rebate.accruals WHERE order_key = '20' ORDER BY rule;
SELECT * FROM rebate.audit();

-- more than a batch; a detached table and a table that is gone are left alone
INSERT INTO orders SELECT g, 'm' || g, 100, 'paid', '2026-05-01' FROM generate_series(1000, 1200) g;
CREATE TABLE gone (LIKE orders INCLUDING ALL);
SELECT rebate.attach('gone', member => 'customer', amount => 'total', currency => 'EUR', status => 'status',
                     phases => '{"paid": "pending"}', order_time => 'placed', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_ageing('gone', auto_confirm_after => '1 day');
INSERT INTO gone VALUES (1, 'zoe', 100, 'paid', '2026-05-01');
SELECT rebate.detach('gone');
DROP TABLE gone;
CALL rebate.age('2026-06-03');
SELECT state, done FROM rebate.jobs WHERE job = 'age';
SELECT bucket, count(*) FROM rebate.accruals WHERE member LIKE 'm%' OR member = 'zoe' GROUP BY 1 ORDER BY 1;
-- taken back
SELECT rebate.set_ageing('orders');
SELECT count(*) FROM rebate_data.waiting w JOIN rebate_data.accrual x USING (account_id, seq) WHERE x.source_id = 1 AND w.bucket <> '2';
SELECT violation, subject FROM rebate.audit();

-- what is refused
SELECT rebate.set_ageing('orders', auto_confirm_after => '-1 day');
SELECT rebate.set_ageing('orders', give_up_after => '0');
SELECT rebate.set_ageing('pg_class', give_up_after => '1 day');
CREATE ROLE rebate_test_clock IN ROLE rebate_owner;
SET ROLE rebate_test_clock;
SELECT rebate.set_ageing('orders', give_up_after => '1 day');
RESET ROLE;
DROP ROLE rebate_test_clock;

SET client_min_messages = warning;
DROP TABLE orders CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
