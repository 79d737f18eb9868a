-- The life of an order's rebate: what each change of the row leaves in the ledger.
-- Rules: "ten" pays 10 %, so that figures can be read off; "bonus" 2.00 an order, with a hold.
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
    id int PRIMARY KEY, customer text, total numeric, currency text DEFAULT 'EUR',
    status text DEFAULT 'sent', refunded numeric, placed timestamptz DEFAULT now()
);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'currency', status => 'status',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     refunded => 'refunded', order_time => 'placed', since => '2020-01-01');
SELECT rebate.set_rule('ten', percent => 10);
SELECT rebate.set_rule('bonus', fixed => 2, currency => 'EUR', hold => '14 days');

-- a line an account that is not at zero, and what the audit finds: nothing
CREATE VIEW state AS
SELECT b.*, (SELECT string_agg(concat_ws(': ', violation, subject), '; ' ORDER BY subject) FROM rebate.audit()) AS audit
FROM (SELECT) one
LEFT JOIN (SELECT member, currency, tracked, pending, maturing, available FROM rebate.balances
           WHERE tracked <> 0 OR pending <> 0 OR maturing <> 0 OR available <> 0) b ON true
ORDER BY member COLLATE "C", currency;
\set balances 'SELECT * FROM state;'
\set accruals 'SELECT order_key AS key, rule, member, currency, phase, bucket, earned, confirmed_at IS NOT NULL AS confirmed, due - confirmed_at AS hold FROM rebate.accruals ORDER BY order_key COLLATE "C", rule COLLATE "C" DESC, account_id;'
\set entries 'SELECT seq, kind, debit, credit, amount, order_key AS key, rule, tracked, pending, maturing, available FROM rebate.entries WHERE member = '
\set failures 'SELECT order_key, sqlstate, message, detail, attempts FROM rebate.failures ORDER BY order_key COLLATE "C";'

--
-- Phases: forward, void, and back
--
INSERT INTO orders (id, customer, total, status) VALUES (1, 'alice', 100, 'new');
:balances
UPDATE orders SET status = 'paid' WHERE id = 1;
:balances
UPDATE orders SET status = 'sent' WHERE id = 1;
:balances
SELECT confirmed_at AS confirmed FROM rebate.accruals WHERE order_key = '1' AND rule = 'ten' \gset
UPDATE orders SET status = 'cancelled' WHERE id = 1;
:balances
:accruals
-- un-cancelled it is as it was: the time of confirmation is a fact
UPDATE orders SET status = 'sent' WHERE id = 1;
:balances
:accruals
SELECT bool_and(confirmed_at = :'confirmed') AS same_time FROM rebate.accruals WHERE order_key = '1';
-- and backwards
UPDATE orders SET status = 'paid' WHERE id = 1;
UPDATE orders SET status = 'new' WHERE id = 1;
:balances
UPDATE orders SET status = 'sent' WHERE id = 1;
:entries 'alice' ORDER BY seq;
-- an update that changes nothing posts nothing
UPDATE orders SET status = status, total = 100.00 WHERE id = 1;
SELECT count(*) FROM rebate.entries;
-- a row may start anywhere
INSERT INTO orders (id, customer, total, status, refunded) VALUES
    (2, 'bob', 50, 'cancelled', NULL), (3, 'bob', 50, 'sent', 50), (4, 'bob', 50, 'paid', 25);
:balances
SELECT order_key, decision, rebates, earned FROM rebate.decisions ORDER BY order_key COLLATE "C";

--
-- Amendments: judged afresh
--
UPDATE orders SET total = 123.45 WHERE id = 1;
:balances
UPDATE orders SET total = 100 WHERE id = 1;
:balances
DELETE FROM orders;
:balances

--
-- Partial refunds in steps, to zero; too much; below zero
--
-- 10 % of 99.99 is 9.999; after a third 6.666, after two thirds 3.333; bonus 2, 1.3333.., 0.6666..
INSERT INTO orders (id, customer, total) VALUES (10, 'carol', 99.99);
SELECT rule, earned, bucket FROM rebate.accruals WHERE order_key = '10' ORDER BY rule COLLATE "C";
UPDATE orders SET refunded = 33.33 WHERE id = 10;
SELECT rule, earned, bucket FROM rebate.accruals WHERE order_key = '10' ORDER BY rule COLLATE "C";
UPDATE orders SET refunded = 66.66 WHERE id = 10;
SELECT rule, earned, bucket FROM rebate.accruals WHERE order_key = '10' ORDER BY rule COLLATE "C";
UPDATE orders SET refunded = 99.99 WHERE id = 10;
SELECT rule, earned, bucket FROM rebate.accruals WHERE order_key = '10' ORDER BY rule COLLATE "C";
UPDATE orders SET refunded = 150 WHERE id = 10;
:balances
-- a refund taken back
UPDATE orders SET refunded = 33.33 WHERE id = 10;
:balances
UPDATE orders SET refunded = 0 WHERE id = 10;
:balances
-- a negative refund is no refund: the row fails, and what was posted stays
UPDATE orders SET refunded = -1 WHERE id = 10;
:failures
:balances
UPDATE orders SET refunded = NULL WHERE id = 10;
:failures
-- available money went elsewhere (a return without its order), then the order is refunded: below zero
INSERT INTO orders (id, customer, total) VALUES (11, 'carol', -80);
:balances
UPDATE orders SET refunded = 99.99 WHERE id = 10;
:balances
DELETE FROM orders;
:balances

--
-- DELETE and the key again: the facts stay
--
INSERT INTO orders (id, customer, total) VALUES (20, 'dave', 100);
SELECT first_seen AS seen, generation AS gen FROM rebate.decisions WHERE order_key = '20' \gset
DELETE FROM orders WHERE id = 20;
:balances
SELECT rebate.set_rule('ten', percent => 20);
INSERT INTO orders (id, customer, total) VALUES (20, 'dave', 100), (21, 'dave', 100);
-- 20 under version 1 as before, 21 under version 2
SELECT order_key, rule, version, earned FROM rebate.accruals WHERE member = 'dave' ORDER BY order_key COLLATE "C", rule COLLATE "C";
SELECT first_seen = :'seen' AS same_time, generation = :gen AS same_rules FROM rebate.decisions WHERE order_key = '20';
-- delete and insert again in one transaction, and in one statement's worth of changes
BEGIN;
DELETE FROM orders WHERE id = 20;
INSERT INTO orders (id, customer, total) VALUES (20, 'dave', 50);
COMMIT;
:balances
SELECT rebate.set_rule('ten', percent => 10);
DELETE FROM orders;

--
-- The key changes: the same order under another name
--
INSERT INTO orders (id, customer, total) VALUES (30, 'erin', 100);
SELECT count(*) AS entries FROM rebate.entries \gset
UPDATE orders SET id = 31 WHERE id = 30;
SELECT count(*) = :entries AS nothing_posted FROM rebate.entries;
SELECT order_key, rule, earned FROM rebate.accruals WHERE member = 'erin' ORDER BY rule COLLATE "C";
UPDATE orders SET id = 32, total = 200 WHERE id = 31;
:balances
-- several at once: which became which?
INSERT INTO orders (id, customer, total) VALUES (33, 'erin', 10);
SET client_min_messages = error;    -- which of them the WARNING names is no matter
UPDATE orders SET id = id + 100;
RESET client_min_messages;
:failures
SELECT order_key, decision, earned FROM rebate.decisions WHERE order_key IN ('32', '33', '132', '133') ORDER BY order_key COLLATE "C";
:balances
-- taken back, all is as it was
UPDATE orders SET id = 32 WHERE id = 132;
UPDATE orders SET id = 33 WHERE id = 133;
SELECT order_key, decision, earned FROM rebate.decisions WHERE order_key IN ('32', '33') ORDER BY order_key COLLATE "C";
:failures
:balances
DELETE FROM orders;

--
-- Another member, another currency, another time
--
INSERT INTO orders (id, customer, total) VALUES (40, 'frank', 100);
UPDATE orders SET customer = 'grace' WHERE id = 40;
:balances
UPDATE orders SET currency = 'USD' WHERE id = 40;
:balances
UPDATE orders SET currency = 'EUR', customer = 'frank' WHERE id = 40;
:balances
-- a rule of one day: an order whose time moves into it, and out
SELECT rebate.set_rule('yesterday', percent => 1, valid_from => now() - interval '2 days', valid_to => now() - interval '1 day');
INSERT INTO orders (id, customer, total) VALUES (41, 'heidi', 100);
SELECT rule, earned FROM rebate.accruals WHERE order_key = '41' ORDER BY rule COLLATE "C";
BEGIN;
-- "ten" and "bonus" were not valid then
UPDATE orders SET placed = now() - interval '36 hours' WHERE id = 41;
SELECT rebate.flush();
SELECT rule, earned, order_time < now() - interval '1 day' AS moved FROM rebate.accruals WHERE order_key = '41' ORDER BY rule COLLATE "C";
ROLLBACK;
-- back-dating an order that is known is an amendment; a new one is too old
UPDATE orders SET placed = now() - interval '60 days' WHERE id = 41;
INSERT INTO orders (id, customer, total, placed) VALUES (42, 'heidi', 100, now() - interval '60 days');
:failures
:balances
DELETE FROM orders WHERE id = 42;
UPDATE orders SET placed = now() + interval '2 days' WHERE id = 41;
:failures
UPDATE orders SET placed = now() WHERE id = 41;
:balances
DELETE FROM orders;

--
-- Guests, claimed later under the rules of their order
--
INSERT INTO orders (id, customer, total) VALUES (50, NULL, 100);
SELECT decision, rebates, earned FROM rebate.decisions WHERE order_key = '50';
SELECT rebate.set_rule('ten', percent => 30);
UPDATE orders SET customer = 'ivan' WHERE id = 50;
SELECT rule, version, earned FROM rebate.accruals WHERE order_key = '50' ORDER BY rule COLLATE "C";
UPDATE orders SET customer = NULL WHERE id = 50;
SELECT decision, rebates, earned FROM rebate.decisions WHERE order_key = '50';
:balances
SELECT rebate.set_rule('ten', percent => 10);
DELETE FROM orders;

--
-- Negative rows, zero, NULL, what is unknown
--
INSERT INTO orders (id, customer, total, status, refunded) VALUES
    (60, 'judy', -50, 'new', NULL),     -- not pending: takes nothing yet
    (61, 'judy', -50, 'paid', 20),      -- at once, from available; refunded is not read
    (62, 'judy', -50, 'sent', NULL),
    (63, 'judy', 0, 'sent', NULL),
    (64, 'judy', -50, 'cancelled', NULL);
SELECT order_key, rule, bucket, earned FROM rebate.accruals WHERE member = 'judy' ORDER BY order_key COLLATE "C", rule COLLATE "C";
SELECT order_key, decision FROM rebate.decisions WHERE order_key ~ '^6[0-9]$' ORDER BY order_key COLLATE "C";
:balances
UPDATE orders SET status = 'paid' WHERE id = 60;
UPDATE orders SET total = 50 WHERE id = 61;
:balances
INSERT INTO orders (id, customer, total, currency, status) VALUES
    (70, 'judy', NULL, 'EUR', 'sent'), (71, 'judy', 'NaN', 'EUR', 'sent'), (72, 'judy', 10, 'XXX', 'sent'),
    (73, 'judy', 10, NULL, 'sent'), (74, 'judy', 10, 'EUR', 'lost'), (75, 'judy', 10, 'EUR', NULL),
    (76, 'judy', 1e30, 'EUR', 'sent'), (77, 'judy', 10, 'EUR', 'sent');
:failures
:balances
-- correct them one by one; 76 is forgotten with its row
UPDATE orders SET total = 10, currency = 'EUR', status = 'sent' WHERE id BETWEEN 70 AND 73;
UPDATE orders SET status = 'sent' WHERE id = 74;
UPDATE orders SET total = total WHERE id = 75;
DELETE FROM orders WHERE id = 76;
:failures
:balances
-- an order that accrued, and then fails, keeps what it has
UPDATE orders SET status = 'lost' WHERE id = 77;
SELECT decision, earned FROM rebate.decisions WHERE order_key = '77';
UPDATE orders SET status = 'cancelled' WHERE id = 77;
SELECT decision, earned FROM rebate.decisions WHERE order_key = '77';
DELETE FROM orders;
:failures
:balances

--
-- on_error => 'abort': the statement fails instead
--
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'currency', status => 'status',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     refunded => 'refunded', order_time => 'placed', since => '2020-01-01', on_error => 'abort', replace => true);
INSERT INTO orders (id, customer, total) VALUES (80, 'kim', 10), (81, 'kim', NULL);
\echo :LAST_ERROR_SQLSTATE
INSERT INTO orders (id, customer, total) VALUES (80, 'kim', 10), (82, 'kim', 20);
UPDATE orders SET status = 'lost' WHERE id = 80;
\set VERBOSITY sqlstate
UPDATE orders SET id = id + 1000;
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
SELECT id, customer, total, status FROM orders ORDER BY id;
:failures
:balances

--
-- on_delete => 'keep': the order leaves, the rebate stays; TRUNCATE
--
TRUNCATE orders;
\echo :LAST_ERROR_SQLSTATE
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'currency', status => 'status',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     refunded => 'refunded', order_time => 'placed', since => '2020-01-01', on_delete => 'keep', on_truncate => 'void',
                     replace => true);
DELETE FROM orders WHERE id = 80;
:balances
SELECT topic, subject, outcome, amount FROM rebate.explain('orders', 80) WHERE topic <> 'entry';
-- it comes back, smaller
INSERT INTO orders (id, customer, total) VALUES (80, 'kim', 5);
:balances
TRUNCATE orders;
:balances
INSERT INTO orders (id, customer, total) VALUES (82, 'kim', 20);
BEGIN;
INSERT INTO orders (id, customer, total) VALUES (83, 'kim', 30);
TRUNCATE orders;
INSERT INTO orders (id, customer, total) VALUES (84, 'kim', 40);
COMMIT;
:balances
BEGIN;
TRUNCATE orders;
ROLLBACK;
:balances
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'currency', status => 'status',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     refunded => 'refunded', order_time => 'placed', since => '2020-01-01', on_truncate => 'keep', replace => true);
TRUNCATE orders;
:balances
SELECT rebate.detach('orders');
DROP TABLE orders;

--
-- An old order mints nothing, whatever is done to it
--
CREATE TABLE old (id int PRIMARY KEY, customer text, total numeric);
INSERT INTO old SELECT n, 'old', 100 FROM generate_series(1, 8) n;
SELECT rebate.attach('old', member => 'customer', amount => 'total', currency => 'EUR');
SELECT decision, count(*) FROM rebate.decisions WHERE source = 'public.old' GROUP BY 1;
UPDATE old SET total = 200;
UPDATE old SET customer = 'new' WHERE id = 1;
DELETE FROM old WHERE id = 2;
INSERT INTO old VALUES (2, 'new', 300);
UPDATE old SET id = 13 WHERE id = 3;
BEGIN;
DELETE FROM old WHERE id = 4;
INSERT INTO old VALUES (4, 'new', 300);
COMMIT;
BEGIN;
UPDATE old SET total = 50 WHERE id = 5;
UPDATE old SET id = 15 WHERE id = 5;
UPDATE old SET id = 5 WHERE id = 15;
COMMIT;
BEGIN;
UPDATE old SET id = 16 WHERE id = 6;
UPDATE old SET id = 6 WHERE id = 16;
UPDATE old SET total = 60 WHERE id = 6;
COMMIT;
-- several keys at once: they fail, and stay old when they are touched again
SET client_min_messages = error;
UPDATE old SET id = id + 20 WHERE id IN (7, 8);
RESET client_min_messages;
UPDATE old SET total = 70 WHERE id IN (27, 28);
INSERT INTO old VALUES (1, 'new', 1) ON CONFLICT (id) DO UPDATE SET total = 999;
SELECT order_key, decision, earned FROM rebate.decisions WHERE source = 'public.old' AND (decision = 'accrued' OR earned <> 0)
ORDER BY order_key COLLATE "C";
:balances
-- with an order time an old order is one from before "since", also if its row could not be decided at first
CREATE TABLE old2 (id int PRIMARY KEY, customer text, total numeric, placed timestamptz);
SELECT rebate.attach('old2', member => 'customer', amount => 'total', currency => 'EUR', order_time => 'placed');
INSERT INTO old2 VALUES (1, 'old', 100, now() - interval '1 hour'), (2, 'old', NULL, now() - interval '1 hour'), (3, 'old', 100, NULL);
UPDATE old2 SET placed = now() WHERE id = 1;
UPDATE old2 SET total = 100 WHERE id = 2;
UPDATE old2 SET placed = now() - interval '1 hour' WHERE id = 3;
-- a rule that was valid before the attachment
SELECT rebate.set_rule('since long', percent => 1, valid_from => '2020-01-01 00:00+00', source => 'old2');
INSERT INTO old2 VALUES (4, 'old', 100, now() - interval '1 hour'), (5, 'old', 100, NULL);
UPDATE old2 SET placed = now() - interval '1 hour' WHERE id = 5;
-- one that earned, and turns out to be old
INSERT INTO old2 VALUES (6, 'old', 100, now());
SELECT rule, earned FROM rebate.accruals WHERE source = 'public.old2' AND order_key = '6' ORDER BY rule COLLATE "C";
UPDATE old2 SET placed = now() - interval '1 hour' WHERE id = 6;
SELECT order_key, decision, earned FROM rebate.decisions WHERE source = 'public.old2' AND earned <> 0 ORDER BY order_key COLLATE "C";
:balances

SET client_min_messages = warning;
DROP TABLE old, old2;
DROP VIEW state;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
