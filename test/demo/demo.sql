-- A tour of rebate on a sample shop: `make demo` runs it on a private server and shows what it prints.
-- Prose is echoed, statements are shown before their results (ECHO queries), results that say nothing are left out.
\set QUIET on
\pset pager off
\pset footer off
\pset null ''
\set ON_ERROR_STOP on
SET client_min_messages = warning;

\echo
\echo '=== 1. A shop'
\echo
\echo 'An order table as the shop made it: it knows nothing of rebates.'
\echo
\set ECHO queries
CREATE TABLE orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer    text,
    merchant    text NOT NULL,
    coupon      text,
    total       numeric(12,2) NOT NULL,
    refunded    numeric(12,2) NOT NULL DEFAULT 0,
    status      text NOT NULL DEFAULT 'new',
    ordered_at  timestamptz NOT NULL DEFAULT now());
\set ECHO none
-- Unseen: the same table once more, to measure against.
CREATE TABLE orders_plain (LIKE orders INCLUDING ALL);

\echo
\echo 'Its rebates are attached from outside: who receives them, on what amount, and what the shop''s own states mean.'
\echo
\set ECHO queries
CREATE EXTENSION rebate;
\o /dev/null
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR',
    refunded => 'refunded', order_time => 'ordered_at', status => 'status',
    phases => '{"new": "tracked", "paid": "pending", "delivered": "confirmed", "cancelled": "void"}');
\o
\set ECHO none

\echo
\echo '=== 2. Rules'
\echo
\echo 'One percent on orders from 20.00. Five percent at one merchant, kept back 14 days after delivery.'
\echo 'A welcome bonus and a bonus for large orders, of which a customer gets the better one.'
\echo
\set ECHO queries
\o /dev/null
SELECT rebate.set_rule('everyone', percent => 1, minimum => 20, currency => 'EUR');
SELECT rebate.set_rule('tea house', percent => 5, scope => '{"merchant": "tea house"}', hold => '14 days');
SELECT rebate.set_group('bonus', 'best');
SELECT rebate.set_rule('welcome', fixed => 3, currency => 'EUR', scope => '{"coupon": "WELCOME"}',
    rule_group => 'bonus');
SELECT rebate.set_rule('large order', percent => 4, minimum => 100, currency => 'EUR', rule_group => 'bonus');
\o
\set ECHO none

\echo
\echo '=== 3. Orders'
\echo
\echo 'The shop goes on as before: one INSERT, an INSERT of several rows, a COPY. Beside it runs a client, rebate-listen:'
\echo 'what it hears it prints at once, here behind ">>".'
\echo
\! "$DEMO_LISTENER" start
\set ECHO queries
INSERT INTO orders (customer, merchant, total) VALUES ('alice', 'tea house', 40.00);
\! sleep 0.3
INSERT INTO orders (customer, merchant, coupon, total) VALUES
    ('bob',   'tea house', NULL,      15.90),
    ('carol', 'bookshop',  'WELCOME', 60.00),
    ('alice', 'bookshop',  'WELCOME', 120.00);
COPY orders (customer, merchant, coupon, total) FROM stdin WITH (FORMAT csv);
bob,bookshop,,250.00
carol,tea house,,33.33
,bookshop,,80.00
\.
\! sleep 0.3
\set ECHO none
\echo
\echo 'In the same transactions each order got its rebates. They are tracked: expected, but nobody has paid yet.'
\echo 'Orders 3 and 4 both carry the coupon; for order 4 the bonus for large orders is worth more.'
\echo
\set ECHO queries
SELECT order_key AS "order", member, rule, base, earned, bucket FROM rebate.accruals ORDER BY order_key, rule;
SELECT order_key AS "order", decision FROM rebate.decisions WHERE decision <> 'accrued';
\set ECHO none
\echo 'What is rolled back leaves nothing behind.'
\echo
\set ECHO queries
BEGIN;
INSERT INTO orders (customer, merchant, total) VALUES ('dave', 'tea house', 1000.00);
SELECT rebate.flush();
SELECT member, tracked FROM rebate.balances WHERE member = 'dave';
ROLLBACK;
SELECT member, tracked FROM rebate.balances WHERE member = 'dave';
\set ECHO none

\echo '=== 4. Paid, delivered, refunded, cancelled'
\echo
\echo 'Paid orders make the rebates pending.'
\echo
\set ECHO queries
UPDATE orders SET status = 'paid';
\! sleep 0.3
SELECT member, currency, tracked, pending, maturing, available FROM rebate.balances ORDER BY member;
\set ECHO none
\echo 'Delivered orders make them available, or maturing where the rule holds them back.'
\echo
\set ECHO queries
UPDATE orders SET status = 'delivered' WHERE id IN (1, 3, 4, 5);
\! sleep 0.3
SELECT member, currency, tracked, pending, maturing, available FROM rebate.balances ORDER BY member;
\set ECHO none
\echo 'A third of order 4 is refunded, and order 6 cancelled: each takes back its share, and no more.'
\echo
\set ECHO queries
UPDATE orders SET refunded = 40.00 WHERE id = 4;
UPDATE orders SET status = 'cancelled' WHERE id = 6;
\! sleep 0.3
SELECT member, currency, tracked, pending, maturing, available FROM rebate.balances ORDER BY member;
\set ECHO none

\! "$DEMO_LISTENER" stop
\echo '=== 5. One member''s ledger'
\echo
\echo 'Every movement, never changed afterwards, numbered without gaps, with the balances after it.'
\echo
\set ECHO queries
SELECT seq, order_key AS "order", rule, kind, debit, credit, amount, tracked, pending, maturing, available
FROM rebate.entries WHERE member = 'alice' ORDER BY seq;
\set ECHO none

\echo '=== 6. One rebate explained'
\echo
\echo 'Why order 4 earned what it earned: its facts, the rules looked at, its rebates and their entries.'
\echo
\pset format wrapped
\pset columns 150
\set ECHO queries
SELECT * FROM rebate.explain('orders', 4);
\set ECHO none
\pset format aligned

\echo '=== 7. The audit'
\echo
\echo 'Recomputes every balance from the entries, and every rebate from its order. No rows: all is well.'
\echo
\set ECHO queries
SELECT * FROM rebate.audit();
\set ECHO none
