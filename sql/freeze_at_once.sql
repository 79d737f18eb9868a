-- Freezes of orders whose rebates have no hold: due when the order is confirmed, and frozen then.  Runs twice, with each
-- moment of posting.
\if :{?posting}
\else
\set posting commit
\endif
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;
SET rebate.posting = :posting;

CREATE TABLE orders (
    id int PRIMARY KEY, customer text, total numeric, status text DEFAULT 'paid', refunded numeric, placed timestamptz DEFAULT '2026-01-01',
    sent timestamptz
);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', status => 'status',
                     phases => '{"paid": "pending", "sent": "confirmed", "cancelled": "void"}', refunded => 'refunded',
                     order_time => 'placed', confirmed_at => 'sent', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('at once', percent => 10, valid_from => '2020-01-01');
\set due 'SELECT order_key AS key, member, bucket, earned, due FROM rebate.accruals ORDER BY order_key, member, earned; SELECT * FROM rebate.audit();'

-- confirmed while it is frozen: it stays, its neighbour does not wait
INSERT INTO orders (id, customer, total) VALUES (1, 'alice', 100), (2, 'alice', 50);
SELECT rebate.freeze('orders', '1', 'chargeback', '2026-01-05');
UPDATE orders SET status = 'sent', sent = '2026-01-10';
:due
CALL rebate.mature('2027-01-01');
:due
SELECT subject, outcome, amount, regexp_replace(detail, '^.*(member.*)$', '\1') AS detail FROM rebate.explain('orders', 1) WHERE topic = 'accrual';
-- amended, partly refunded, of another member, cancelled and back: it is frozen all the same
UPDATE orders SET total = 200, refunded = 50 WHERE id = 1;
:due
UPDATE orders SET customer = 'bob' WHERE id = 1;
:due
UPDATE orders SET status = 'cancelled' WHERE id = 1;
UPDATE orders SET status = 'sent' WHERE id = 1;
SELECT rebate.reconcile('orders');
:due
-- due later by the time of the union, 10 to 15 January; not before
SELECT rebate.freeze('orders', '1', 'review', '2026-01-08');
SELECT rebate.unfreeze('orders', '1', 'chargeback', '2026-01-12');
CALL rebate.mature('2027-01-01');
SELECT rebate.unfreeze('orders', '1', 'review', '2026-01-15');
:due
CALL rebate.mature('2026-01-14 23:59:59.999999');
SELECT bucket FROM rebate.accruals WHERE order_key = '1' AND earned > 0;
CALL rebate.mature('2026-01-15');
:due
-- what has matured stays, frozen again or not
SELECT rebate.freeze('orders', '1', 'again', '2026-01-09'), rebate.freeze('orders', '2', 'late', '2026-01-01');
UPDATE orders SET total = total + 10;
:due
SELECT rebate.unfreeze('orders', '1'), rebate.unfreeze('orders', '2');
:due

-- a batch, some of whose orders are frozen, and deferred; a freeze that is in the same transaction, before or after
INSERT INTO orders (id, customer, total) SELECT i, 'carol', 10 FROM generate_series(10, 15) i;
SELECT count(rebate.freeze('orders', i::text, 'chargeback', '2026-01-05')) FROM generate_series(10, 12) i;
SET rebate.mode = defer;
UPDATE orders SET status = 'sent', sent = '2026-01-10' WHERE id BETWEEN 10 AND 13;
RESET rebate.mode;
SELECT rebate.reconcile('orders', deferred_only => true);
BEGIN;
SELECT rebate.freeze('orders', '14', 'first');
UPDATE orders SET status = 'sent' WHERE id = 14;
COMMIT;
BEGIN;
UPDATE orders SET status = 'sent' WHERE id = 15;
SELECT rebate.freeze('orders', '15', 'second');
COMMIT;
SELECT order_key AS key, bucket, earned, due FROM rebate.accruals WHERE member = 'carol' ORDER BY order_key;
SELECT * FROM rebate.audit();
-- one that cannot be read is frozen, and mended
SET client_min_messages = error;
UPDATE orders SET status = '?' WHERE id = 10;
RESET client_min_messages;
UPDATE orders SET status = 'sent', total = 20 WHERE id = 10;
SELECT rebate.retry('orders');
-- the freeze ended before it was confirmed, so that it is due as ever; it waits for the clock
SELECT rebate.unfreeze('orders', '11', at => '2026-01-07');
-- a return takes from available, frozen or not
UPDATE orders SET total = -10 WHERE id = 12;
SELECT order_key AS key, bucket, earned, due FROM rebate.accruals WHERE member = 'carol' ORDER BY order_key;
UPDATE orders SET total = 10 WHERE id = 12;
UPDATE orders SET total = 20 WHERE id IN (11, 12);
SELECT order_key AS key, bucket, earned, due FROM rebate.accruals WHERE member = 'carol' ORDER BY order_key;
SELECT * FROM rebate.audit();
-- the audit finds one that is due at another time
SET client_min_messages = error;
BEGIN;
ALTER TABLE rebate_data.freeze DISABLE TRIGGER rebate_guard;
UPDATE rebate_data.freeze SET unfrozen_at = '2026-02-01' WHERE order_key = '11';
ALTER TABLE rebate_data.freeze ENABLE TRIGGER rebate_guard;
SELECT violation, subject FROM rebate.audit() ORDER BY violation COLLATE "C";
ROLLBACK;

SET client_min_messages = warning;
DROP TABLE orders CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
RESET rebate.posting;
SELECT :'posting' = 'commit' AS again \gset
\set posting statement
\getenv srcdir PG_ABS_SRCDIR
\cd :srcdir
\if :again
\i sql/freeze_at_once.sql
\endif
