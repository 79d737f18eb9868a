-- The books: the trial balance of all accounts, and a member's statement.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;

CREATE TABLE orders (
    id int PRIMARY KEY, customer text, total numeric, currency text DEFAULT 'EUR', status text DEFAULT 'sent', refunded numeric, placed timestamptz
);
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'currency', status => 'status',
                     phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}',
                     refunded => 'refunded', order_time => 'placed', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('ten', percent => 10, valid_from => '2020-01-01');
SELECT rebate.set_rule('spring', percent => 1, hold => '14 days', valid_from => '2020-01-01', valid_to => '2026-06-01');
\set trial 'SELECT * FROM rebate.trial_balance ORDER BY currency COLLATE "C", code COLLATE "C";'
-- the same from the entries alone; a difference is shown
CREATE VIEW from_entries AS
SELECT code, currency, sum(balance) AS balance
FROM (SELECT debit AS code, currency, amount AS balance FROM rebate.entries UNION ALL SELECT credit, currency, - amount FROM rebate.entries) e
GROUP BY code, currency HAVING sum(balance) <> 0;
\set difference 'SELECT code, currency, t.balance AS trial, e.balance AS entries FROM (SELECT * FROM rebate.trial_balance WHERE balance <> 0) t FULL JOIN from_entries e USING (code, currency) WHERE t.balance IS DISTINCT FROM e.balance;'
\set statement 'SELECT currency AS cur, line, book_date, seq, order_key AS key, rule, amount, tracked, pending, maturing, available FROM rebate.statement'

-- nobody has anything
:trial
SELECT * FROM rebate.statement('ann');

INSERT INTO orders VALUES
    (1, 'ann', 100.00, 'EUR', 'sent', NULL, '2026-01-10 12:00+00'),
    (2, 'ann', 50.00, 'EUR', 'new', NULL, '2026-02-01 23:59:59+00'),
    (3, 'ann', 1000, 'JPY', 'sent', NULL, '2026-02-02 00:00:00+00'),
    (4, 'bob', 80.00, 'EUR', 'paid', NULL, '2026-02-03 12:00+00'),
    (5, 'ann', 10.00, 'EUR', 'sent', NULL, '2026-07-01 12:00+00');
-- booked before the last one, though posted after it
INSERT INTO orders VALUES (6, 'ann', 30.00, 'EUR', 'sent', NULL, '2026-01-20 12:00+00');
:trial
:difference
:statement ('ann');
-- a range; its ends belong to it
:statement ('ann', '2026-01-20', '2026-02-01', 'EUR');
:statement ('ann', NULL, '2026-01-09');
:statement ('ann', '2026-07-02');
SELECT * FROM rebate.statement('nobody');

-- folded, with a tail: the clock, refunds, what is void again
CALL rebate.mature('2026-03-01');
CALL rebate.fold();
:difference
UPDATE orders SET refunded = 50 WHERE id = 1;
UPDATE orders SET status = 'cancelled' WHERE id IN (2, 4);
INSERT INTO orders VALUES (7, 'cleo', 20.00, 'KWD', 'sent', NULL, '2026-02-03 12:00+00');
:trial
:difference
SELECT currency, sum(balance), sum(debit) = sum(credit) AS equal FROM rebate.trial_balance GROUP BY currency ORDER BY currency COLLATE "C";

-- whatever the day: the closing of one is the opening of the next, and the last closing is the balance
CREATE VIEW at_day AS
SELECT m.member, d.day::date, s.currency, s.line, s.tracked, s.pending, s.maturing, s.available, s.held
FROM (VALUES ('ann'), ('bob'), ('cleo')) m (member), generate_series(timestamp '2026-01-08', '2026-02-05', '1 day') d (day),
     LATERAL rebate.statement(m.member, d.day::date, d.day::date) s;
SELECT count(*) FROM at_day c JOIN at_day o ON o.member = c.member AND o.currency = c.currency AND o.line = 'opening' AND c.line = 'closing' AND o.day = c.day + 1
WHERE (c.tracked, c.pending, c.maturing, c.available, c.held) IS DISTINCT FROM (o.tracked, o.pending, o.maturing, o.available, o.held);
SELECT count(*) FROM at_day;
SELECT b.member, b.currency FROM rebate.balances b, LATERAL rebate.statement(b.member, NULL, NULL, b.currency) s
WHERE s.line = 'closing' AND (b.tracked, b.pending, b.maturing, b.available, b.held) IS DISTINCT FROM (s.tracked, s.pending, s.maturing, s.available, s.held);
-- the movements between opening and closing, added up by somebody else
SELECT count(*) AS statements, count(*) FILTER (WHERE moved IS DISTINCT FROM added) AS wrong
FROM (SELECT s.currency, max(s.available) FILTER (WHERE line = 'closing') - max(s.available) FILTER (WHERE line = 'opening') AS moved,
             (SELECT coalesce(sum(CASE WHEN credit = 'member:available' THEN amount WHEN debit = 'member:available' THEN - amount END), 0)
              FROM rebate.entries e WHERE member = 'ann' AND e.currency = s.currency AND book_date BETWEEN d.day AND d.day + 9) AS added
      FROM generate_series(date '2026-01-01', '2026-07-10', '5 days') t (t), LATERAL (SELECT t::date AS day) d,
           LATERAL rebate.statement('ann', d.day, d.day + 9) s GROUP BY s.currency, d.day) x;

-- a row in this transaction is in its books
BEGIN;
INSERT INTO orders VALUES (8, 'ann', 1.00, 'EUR', 'sent', NULL, '2026-07-02 12:00+00');
:statement ('ann', '2026-07-02');
:difference
ROLLBACK;

SELECT * FROM rebate.statement(NULL);
SELECT * FROM rebate.statement('ann', '2026-02-01', '2026-01-31');
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP VIEW at_day, from_entries;
DROP TABLE orders;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
