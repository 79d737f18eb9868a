-- Freezes: disputes stop the clock, and nothing else.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;

CREATE TABLE orders (
    id int PRIMARY KEY, customer text, total numeric, status text DEFAULT 'sent', refunded numeric, placed timestamptz,
    sent timestamptz
);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', status => 'status',
                     phases => '{"paid": "pending", "sent": "confirmed", "cancelled": "void"}', refunded => 'refunded',
                     order_time => 'placed', confirmed_at => 'sent', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('ten', percent => 10, hold => '14 days', valid_from => '2020-01-01');
\set due 'SELECT order_key AS key, bucket, earned, due FROM rebate.accruals ORDER BY order_key, earned; SELECT * FROM rebate.audit();'

INSERT INTO orders (id, customer, total, placed, sent) VALUES
    (1, 'alice', 100, '2026-01-01', '2026-01-02'), (2, 'alice', 50, '2026-01-01', '2026-01-02');
-- frozen it does not mature, its neighbour does
SELECT rebate.freeze('orders', '1', 'chargeback', '2026-01-05');
:due
CALL rebate.mature('2027-01-01');
:due
-- refunds go on, and take from where the money is
UPDATE orders SET refunded = 40 WHERE id = 1;
:due
-- a second reason that overlaps: the union counts, 5 to 12 January
SELECT rebate.freeze('orders', '1', 'risk review', '2026-01-08');
SELECT rebate.freeze('orders', '1', 'risk review', '2026-01-09');
SELECT rebate.unfreeze('orders', '1', 'chargeback', '2026-01-10');
:due
SELECT rebate.unfreeze('orders', '1', 'risk review', '2026-01-12');
:due
SELECT rebate.unfreeze('orders', '1');
-- again, and apart from the first: one more day
SELECT rebate.freeze('orders', '1', 'chargeback', '2026-01-20');
SELECT rebate.unfreeze('orders', '1', at => '2026-01-21');
:due
-- one that began after it would have been due, and one that ended before it was confirmed, count for nothing
SELECT rebate.freeze('orders', '1', 'late', '2026-02-01');
SELECT rebate.unfreeze('orders', '1', 'late', '2026-03-01');
SELECT rebate.freeze('orders', '1', 'early', '2025-12-01');
SELECT rebate.unfreeze('orders', '1', 'early', '2025-12-20');
:due
-- from before it was confirmed until after: what is after counts
SELECT rebate.freeze('orders', '1', 'across', '2025-12-30');
SELECT rebate.unfreeze('orders', '1', 'across', '2026-01-03');
:due
-- every change of the order knows it: cancelled and revived, amended, with another key, deleted and back
UPDATE orders SET status = 'cancelled' WHERE id = 1;
:due
UPDATE orders SET status = 'paid' WHERE id = 1;
:due
UPDATE orders SET status = 'sent', total = 200 WHERE id = 1;
:due
UPDATE orders SET id = 10 WHERE id = 1;
:due
DELETE FROM orders WHERE id = 10;
INSERT INTO orders (id, customer, total, placed, sent) VALUES (10, 'alice', 100, '2026-01-01', '2026-01-02');
:due
SELECT topic, subject, outcome, amount, regexp_replace(detail, 'by \S+', 'by ...', 'g') AS detail
FROM rebate.explain('orders', 10) WHERE topic IN ('accrual', 'freeze');
SELECT order_key, reason, frozen_at, unfrozen_at, frozen_by = session_user AS by_me, unfrozen_by = session_user AS by_me FROM rebate.freezes ORDER BY frozen_at;
-- due now, and not a microsecond before
CALL rebate.mature('2026-01-24 23:59:59.999999');
:due
CALL rebate.mature('2026-01-25');
:due

-- what has matured stays, whatever is found out later; a refund takes from available
SELECT rebate.freeze('orders', '2', 'chargeback', '2026-01-03');
:due
UPDATE orders SET refunded = total WHERE id = 2;
SELECT maturing, available FROM rebate.balances;
SELECT rebate.unfreeze('orders', '2');

-- an order that is frozen while it is pending: its rebate comes frozen, and so does one under another rule, for another member
INSERT INTO orders (id, customer, total, placed, status) VALUES (3, 'bob', 100, '2026-01-01', 'paid');
SELECT rebate.freeze('orders', '3', 'chargeback', '2026-01-05');
UPDATE orders SET status = 'sent', sent = '2026-01-10' WHERE id = 3;
:due
UPDATE orders SET customer = 'carol' WHERE id = 3;
:due
SELECT rebate.unfreeze('orders', '3', at => '2026-01-15');
:due
-- an order without a rebate, too
INSERT INTO orders (id, customer, total, placed, sent) VALUES (4, NULL, 100, '2026-01-01', '2026-01-02');
SELECT rebate.freeze('orders', '4', 'chargeback', '2026-01-05');
UPDATE orders SET customer = 'dave' WHERE id = 4;
SELECT due FROM rebate.accruals WHERE order_key = '4';
-- in one transaction with the order
BEGIN;
INSERT INTO orders (id, customer, total, placed, sent) VALUES (5, 'erin', 100, '2026-01-01', '2026-01-02');
SELECT rebate.freeze('orders', '5', 'chargeback', '2026-01-05');
UPDATE orders SET total = 300 WHERE id = 5;
COMMIT;
:due
BEGIN;
SELECT rebate.unfreeze('orders', '5');
ROLLBACK;
:due

-- what was due before the freeze, and the clock had not come to, stays too, and is due as before when the freeze has ended
INSERT INTO orders (id, customer, total, placed, sent) VALUES (8, 'hal', 100, '2026-01-01', '2026-01-02');
SELECT rebate.freeze('orders', '8', 'chargeback', '2026-01-18');
CALL rebate.mature('2026-01-20');
UPDATE orders SET total = 110 WHERE id = 8;
SELECT bucket, earned, due FROM rebate.accruals WHERE order_key = '8';
SELECT rebate.unfreeze('orders', '8', at => '2026-01-19');
SELECT bucket, due FROM rebate.accruals WHERE order_key = '8';
CALL rebate.mature('2026-01-17');
SELECT bucket, due FROM rebate.accruals WHERE order_key = '8';
SELECT * FROM rebate.audit();

-- one that was never frozen stays so
INSERT INTO orders (id, customer, total, placed, sent) VALUES (7, 'gil', 10, '2026-01-01', '2026-01-02');
SELECT rebate.unfreeze('orders', '7');
SELECT * FROM rebate.audit();

-- what is refused
SELECT rebate.freeze('orders', '99', 'chargeback');
SELECT rebate.freeze('orders', '5', NULL);
SELECT rebate.freeze('orders', '5', '');
SELECT rebate.freeze('orders', NULL, 'x');
SELECT rebate.freeze('orders', 'five', 'x');
SELECT rebate.freeze('orders', '5', 'x', now() + interval '1 hour');
SELECT rebate.freeze('orders', '5', 'x', '-infinity');
SELECT rebate.unfreeze('orders', '5', 'chargeback', '2026-01-04');
SELECT rebate.unfreeze('orders', '5', 'other');
SELECT rebate.freeze('pg_class', '5', 'x');

-- the audit finds what does not fit
SET client_min_messages = error;
BEGIN;
ALTER TABLE rebate_data.freeze DISABLE TRIGGER rebate_guard;
UPDATE rebate_data.freeze SET unfrozen_at = unfrozen_at + interval '1 hour' WHERE order_key = '3';
DELETE FROM rebate_data.freeze WHERE order_key = '4';
INSERT INTO rebate_data.freeze VALUES (1, '2000', '2026-01-01', 'x', 'me', NULL, NULL);
ALTER TABLE rebate_data.freeze ENABLE TRIGGER rebate_guard;
SELECT violation, subject FROM rebate.audit() ORDER BY violation COLLATE "C";
ROLLBACK;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP TABLE orders CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
