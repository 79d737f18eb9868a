-- What rules pay, to the cent.  Each rule has a scope of its own ("r"), so that an order meets the rule it is made
-- for; the figure worked out by hand is in the column "expected" and compared with what was earned.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;

CREATE TABLE sale (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, member text DEFAULT 'm', r text, amount numeric, expected text,
    currency text DEFAULT 'EUR', quantity numeric, refunded numeric, returned numeric, shipping numeric,
    status text DEFAULT 'confirmed', at timestamptz DEFAULT now()
);
SELECT rebate.set_programme('Europe/Berlin');
SELECT rebate.attach('sale', member => 'member', amount => 'amount', currency => 'currency', quantity => 'quantity',
                     refunded => 'refunded', refunded_quantity => 'returned', status => 'status', order_time => 'at',
                     since => '2020-01-01', max_backdate => NULL);
-- earned by the orders of one scope, rule by rule; "ok" compares it with what is expected
CREATE FUNCTION paid(r text) RETURNS TABLE (amount numeric, quantity numeric, refunded numeric, returned numeric,
                                            earned text, ok boolean) LANGUAGE sql AS $$
    SELECT s.amount, s.quantity, s.refunded, s.returned, x.earned, x.earned IS NOT DISTINCT FROM s.expected
    FROM sale s
    LEFT JOIN LATERAL (
        SELECT string_agg(CASE WHEN a.rule = s.r THEN '' ELSE a.rule || ' ' END || a.earned, ', ' ORDER BY a.rule COLLATE "C") AS earned
        FROM rebate.accruals a
        WHERE a.source = 'public.sale' AND a.order_key = s.id::text AND a.earned <> 0) x ON true
    WHERE s.r = paid.r ORDER BY s.id
$$;

--
-- percent: amount x rate, rounded once, half away from zero
--
SELECT rebate.set_rule('percent', percent => 7.25, scope => '{"r": "percent"}');
INSERT INTO sale (r, amount, expected) VALUES
    ('percent', 100, '7.25'),
    ('percent', 0.06, NULL),            -- 0.00435
    ('percent', 0.07, '0.01'),          -- 0.005075
    ('percent', 33.33, '2.42'),         -- 2.416425
    ('percent', 123456789.99, '8950617.27'),    -- 8950617.274275
    ('percent', -33.33, '-2.42'),
    ('percent', 10.000000001, '0.73');  -- 0.7250000000725
SELECT * FROM paid('percent');

-- a base of its own; of the other sign it is zero; null pays nothing
SELECT rebate.set_rule('base', percent => 10, base => 'amount - shipping', source => 'sale', scope => '{"r": "base"}');
INSERT INTO sale (r, amount, shipping, refunded, expected) VALUES
    ('base', 100, 5.05, NULL, '9.50'),      -- 9.495
    ('base', 100, 5, 50, '4.75'),           -- 9.5 x 50 / 100
    ('base', 100, 120, NULL, NULL),
    ('base', -100, -5, NULL, '-9.50'),      -- base -95
    ('base', -100, -120, NULL, NULL),       -- base 20
    ('base', 100, NULL, NULL, NULL);
SELECT * FROM paid('base');
SELECT base FROM rebate.accruals WHERE rule = 'base' AND earned <> 0 ORDER BY order_key::int;

--
-- fixed, per unit
--
SELECT rebate.set_rule('fixed', fixed => 2.505, currency => 'EUR', scope => '{"r": "fixed"}');
INSERT INTO sale (r, amount, refunded, currency, expected) VALUES
    ('fixed', 100, NULL, 'EUR', '2.51'), ('fixed', 0.01, NULL, 'EUR', '2.51'), ('fixed', -7, NULL, 'EUR', '-2.51'),
    ('fixed', 0, NULL, 'EUR', NULL), ('fixed', 100, 90, 'EUR', '0.25'),     -- 2.505 x 10 / 100 = 0.2505
    ('fixed', 100, NULL, 'USD', NULL);
SELECT * FROM paid('fixed');

SELECT rebate.set_rule('unit', per_unit => 0.333, currency => 'EUR', scope => '{"r": "unit"}');
INSERT INTO sale (r, amount, quantity, refunded, returned, expected) VALUES
    ('unit', 50, 3, NULL, NULL, '1.00'),    -- 0.999
    ('unit', 50, 2.5, NULL, NULL, '0.83'),  -- 0.8325
    ('unit', 50, NULL, NULL, NULL, NULL),
    ('unit', 50, 0, NULL, NULL, NULL),
    ('unit', 50, 10, NULL, 4, '2.00'),      -- 3.33 x 6 / 10 = 1.998
    ('unit', 50, 10, 25, 4, '2.00'),        -- the quantity replaces the fraction
    ('unit', 50, 10, 25, NULL, '3.33'),
    ('unit', 50, 10, 50, 4, NULL),          -- but refunded in full is nothing
    ('unit', 50, 10, NULL, 10, NULL),
    ('unit', 50, 10, NULL, 12, NULL),
    ('unit', -50, -10, NULL, NULL, '-3.33'),
    ('unit', -50, 10, NULL, NULL, '-3.33'),
    ('unit', 50, -10, NULL, NULL, NULL),
    ('unit', -50, -10, 20, 5, '-3.33');     -- refunds of a return are not read
SELECT * FROM paid('unit');

--
-- minimum, on the amount before refunds
--
SELECT rebate.set_rule('minimum', percent => 5, minimum => 50, currency => 'EUR', scope => '{"r": "minimum"}');
INSERT INTO sale (r, amount, refunded, expected) VALUES
    ('minimum', 49.99, NULL, NULL), ('minimum', 50, NULL, '2.50'), ('minimum', 100, 60, '2.00'),
    ('minimum', -49.99, NULL, NULL), ('minimum', -50, NULL, '-2.50');
SELECT * FROM paid('minimum');

--
-- max_per_order: clip and reject, before refunds
--
SELECT rebate.set_rule('clip', percent => 10, max_per_order => 5, currency => 'EUR', scope => '{"r": "clip"}');
SELECT rebate.set_rule('reject', percent => 10, max_per_order => 5, limit_mode => 'reject', currency => 'EUR', scope => '{"r": "reject"}');
INSERT INTO sale (r, amount, refunded, expected) VALUES
    ('clip', 49, NULL, '4.90'), ('clip', 50, NULL, '5.00'), ('clip', 51, NULL, '5.00'), ('clip', 100, 50, '2.50'),
    ('clip', -80, NULL, '-5.00'),
    ('reject', 50, NULL, '5.00'), ('reject', 50.01, NULL, NULL), ('reject', 100, 60, NULL), ('reject', -80, NULL, NULL);
SELECT * FROM paid('clip');
SELECT * FROM paid('reject');

--
-- Rounding: 1 % of 0.5, 1.5, 2.5 and around
--
SELECT rebate.set_rule('half_up', percent => 1, rounding => 'half_up', scope => '{"r": "half_up"}');
SELECT rebate.set_rule('half_even', percent => 1, rounding => 'half_even', scope => '{"r": "half_even"}');
SELECT rebate.set_rule('half_down', percent => 1, rounding => 'half_down', scope => '{"r": "half_down"}');
SELECT rebate.set_rule('down', percent => 1, rounding => 'down', scope => '{"r": "down"}');
SELECT rebate.set_rule('up', percent => 1, rounding => 'up', scope => '{"r": "up"}');
INSERT INTO sale (r, amount, expected)
SELECT m.mode, a.amount, CASE WHEN m.cents[a.n] <> 0 THEN round(m.cents[a.n] / 100.0, 2)::text END
FROM (VALUES ('half_up', '{1, 2, 3, 2, 3, -1, -2, -3}'::int[]), ('half_even', '{0, 2, 2, 2, 3, 0, -2, -2}'),
             ('half_down', '{0, 1, 2, 2, 3, 0, -1, -2}'), ('down', '{0, 1, 2, 2, 2, 0, -1, -2}'),
             ('up', '{1, 2, 3, 3, 3, -1, -2, -3}')) m (mode, cents)
CROSS JOIN (VALUES (1, 0.5), (2, 1.5), (3, 2.5), (4, 2.4999999), (5, 2.5000001), (6, -0.5), (7, -1.5), (8, -2.5)) a (n, amount)
ORDER BY m.mode, a.n;
SELECT r, count(*) AS orders, bool_and(p.ok) AS ok, string_agg(COALESCE(p.earned, '-'), ' ') AS earned
FROM (VALUES ('half_up'), ('half_even'), ('half_down'), ('down'), ('up')) v (r), paid(r) p GROUP BY r ORDER BY r COLLATE "C";

--
-- Refund modes
--
-- the example of SEMANTICS: minimum 50, 5 %, amount 100, refunded 60: rejudge 0, pro_rata 2.00
SELECT rebate.set_rule('pro_rata', percent => 5, minimum => 50, max_per_order => 4.5, currency => 'EUR', scope => '{"r": "pro_rata"}');
SELECT rebate.set_rule('rejudge', percent => 5, minimum => 50, max_per_order => 4.5, currency => 'EUR', refund => 'rejudge', scope => '{"r": "rejudge"}');
SELECT rebate.set_rule('all', percent => 5, minimum => 50, max_per_order => 4.5, currency => 'EUR', refund => 'all', scope => '{"r": "all"}');
SELECT rebate.set_rule('keep', percent => 5, minimum => 50, max_per_order => 4.5, currency => 'EUR', refund => 'keep_until_full', scope => '{"r": "keep"}');
SELECT rebate.set_rule('semantics', percent => 5, minimum => 50, currency => 'EUR', scope => '{"r": "semantics"}');
SELECT rebate.set_rule('semantics rejudged', percent => 5, minimum => 50, currency => 'EUR', refund => 'rejudge', scope => '{"r": "semantics"}');
INSERT INTO sale (r, amount, refunded, expected) VALUES
    ('semantics', 100, 60, '2.00'), ('semantics', 100, 50, '2.50, semantics rejudged 2.50');
SELECT * FROM paid('semantics');
INSERT INTO sale (r, amount, refunded, expected)
SELECT v.r, 100, a.refunded, v.expected[a.n]
FROM (VALUES ('pro_rata', '{4.50, 4.50, 4.46, 4.05, 2.25, 1.80, NULL, NULL}'::text[]),  -- 4.5 x what is left
             ('rejudge', '{4.50, 4.50, 4.50, 4.50, 2.50, NULL, NULL, NULL}'),           -- 5 % of what is left, at most 4.5
             ('all', '{4.50, 4.50, NULL, NULL, NULL, NULL, NULL, NULL}'),
             ('keep', '{4.50, 4.50, 4.50, 4.50, 4.50, 4.50, NULL, NULL}')) v (r, expected)
CROSS JOIN (VALUES (1, NULL), (2, 0), (3, 1), (4, 10), (5, 50), (6, 60), (7, 100), (8, 101)) a (n, refunded)
ORDER BY v.r, a.n;
SELECT r, count(*) AS orders, bool_and(p.ok) AS ok, string_agg(COALESCE(p.earned, '-'), ' ') AS earned
FROM (VALUES ('pro_rata'), ('rejudge'), ('all'), ('keep')) v (r), paid(r) p GROUP BY r ORDER BY r COLLATE "C";
-- the same of fixed and per unit; rejudged, a fixed amount stays above the minimum
SELECT rebate.set_rule('fixed rejudged', fixed => 3, minimum => 50, currency => 'EUR', refund => 'rejudge', scope => '{"r": "fixed rejudged"}');
SELECT rebate.set_rule('units rejudged', per_unit => 0.30, max_per_order => 2, limit_mode => 'reject', currency => 'EUR', refund => 'rejudge', scope => '{"r": "units rejudged"}');
INSERT INTO sale (r, amount, quantity, refunded, expected) VALUES
    ('fixed rejudged', 100, 1, 50, '3.00'), ('fixed rejudged', 100, 1, 50.01, NULL),
    ('units rejudged', 100, 6, NULL, '1.80'), ('units rejudged', 100, 6, 50, '1.80'),
    ('units rejudged', 100, 10, 50, NULL);      -- 3.00 was over the limit; a refund does not bring back what was rejected
SELECT * FROM paid('fixed rejudged');
SELECT * FROM paid('units rejudged');
-- what came back is told by a quantity alone
SELECT rebate.set_rule('back ' || mode, per_unit => 1, currency => 'EUR', refund => mode, scope => '{"r": "back"}')
FROM unnest(ARRAY['all', 'keep_until_full', 'pro_rata', 'rejudge']) mode;
INSERT INTO sale (r, amount, quantity, returned, expected) VALUES
    ('back', 100, 10, NULL, 'back all 10.00, back keep_until_full 10.00, back pro_rata 10.00, back rejudge 10.00'),
    ('back', 100, 10, 4, 'back keep_until_full 10.00, back pro_rata 6.00, back rejudge 6.00'),
    ('back', 100, 10, 10, NULL), ('back', 100, 10, 11, NULL);
SELECT * FROM paid('back');
-- thirds in steps end at zero, whatever the path
SELECT rebate.set_rule('thirds', percent => 10, scope => '{"r": "thirds"}');
INSERT INTO sale (r, amount) VALUES ('thirds', 10);
CREATE TEMP TABLE path (step int, refunded numeric);
INSERT INTO path VALUES (1, 3.33), (2, 6.66), (3, 9.99), (4, 5), (5, 10);
DO $$
DECLARE p path; line text := '';
BEGIN
    FOR p IN SELECT * FROM path ORDER BY step LOOP
        UPDATE sale SET refunded = p.refunded WHERE r = 'thirds';
        PERFORM rebate.flush();
        line := line || ' ' || (SELECT earned FROM rebate.accruals WHERE rule = 'thirds');
    END LOOP;
    RAISE NOTICE '%', line;     -- 0.667 0.334 0.001 0.5 0
END $$;

--
-- Groups
--
SELECT rebate.set_group('first', 'first');
SELECT rebate.set_group('best', 'best');
SELECT rebate.set_group('stack', 'stack');
SELECT rebate.set_rule(g || ' ' || v.n, percent => v.percent, max_per_order => v.most, currency => 'EUR', minimum => v.minimum,
                       priority => v.priority, rule_group => g, scope => jsonb_build_object('r', g))
FROM unnest(ARRAY['first', 'best', 'stack']) g,
     (VALUES (1, 2, NULL::numeric, 0, NULL::numeric), (2, 3, NULL, 5, 100), (3, 10, 6, 5, NULL), (4, 6, NULL, 5, 100)) v (n, percent, most, priority, minimum)
ORDER BY g, v.n;
INSERT INTO sale (r, amount, refunded, expected) VALUES
    -- of 2 (3 %), 3 (10 %, at most 6) and 4 (6 %), all of priority 5, the oldest; below 100 only 3 of these applies
    ('first', 100, NULL, 'first 2 3.00'), ('first', 99, NULL, 'first 3 6.00'), ('first', 200, 100, 'first 2 3.00'),
    -- 3 and 4 both give 6.00 at 100: the older; at 110 4 gives 6.60; refunds do not change who wins
    ('best', 100, NULL, 'best 3 6.00'), ('best', 110, NULL, 'best 4 6.60'), ('best', 50, NULL, 'best 3 5.00'),
    ('best', 110, 100, 'best 4 0.60'), ('best', -110, NULL, 'best 4 -6.60'),
    ('stack', 100, NULL, 'stack 1 2.00, stack 2 3.00, stack 3 6.00, stack 4 6.00'), ('stack', 50, NULL, 'stack 1 1.00, stack 3 5.00');
SELECT * FROM paid('first');
SELECT * FROM paid('best');
SELECT * FROM paid('stack');
-- a group's mode is pinned in the versions: orders seen before keep it, those after have the new one
SELECT rebate.set_group('first', 'stack');
UPDATE sale SET amount = 300 WHERE r = 'first' AND amount = 100;
INSERT INTO sale (r, amount) VALUES ('first', 300);
SELECT order_key = (SELECT max(id)::text FROM sale) AS new, rule, version, earned FROM rebate.accruals
WHERE order_key IN (SELECT id::text FROM sale WHERE r = 'first' AND amount = 300) AND earned <> 0 ORDER BY 1, rule COLLATE "C";

--
-- Scope and condition
--
SELECT rebate.set_rule('list', percent => 1, scope => '{"r": ["list", "list2"], "currency": ["EUR", "CHF"]}');
SELECT rebate.set_rule('condition', percent => 1, condition => 'amount > 10 AND shipping < 5', source => 'sale', scope => '{"r": "list"}');
INSERT INTO sale (r, amount, currency, shipping, expected) VALUES
    ('list', 100, 'EUR', 1, 'condition 1.00, 1.00'), ('list', 100, 'USD', 1, 'condition 1.00'), ('list', 10, 'CHF', 1, '0.10'),
    ('list', 100, 'EUR', NULL, '1.00'), ('list2', 100, 'EUR', 1, 'list 1.00'), (NULL, 100, 'EUR', 1, NULL);
SELECT * FROM paid('list');
SELECT * FROM paid('list2');
SELECT count(*) FROM rebate.accruals a JOIN sale s ON a.order_key = s.id::text WHERE s.r IS NULL;
DELETE FROM sale WHERE r IS NULL;

--
-- Currencies with other scales; units of one's own
--
SELECT rebate.add_currency('POINTS', 0);
SELECT rebate.set_rule('scales', percent => 1.5, scope => '{"r": "scales"}');
SELECT rebate.set_rule('yen', fixed => 100, minimum => 1000, max_per_order => 90, currency => 'JPY', scope => '{"r": "scales"}');
INSERT INTO sale (r, amount, currency, refunded, expected) VALUES
    ('scales', 1000, 'JPY', NULL, '15, yen 90'), ('scales', 33, 'JPY', NULL, NULL),  -- 0.495
    ('scales', 34, 'JPY', NULL, '1'),                                               -- 0.51
    ('scales', 1000, 'JPY', 333, '10, yen 60'),                                     -- 10.005, 60.03
    ('scales', 1.234, 'KWD', NULL, '0.019'),                                        -- 0.01851
    ('scales', 0.033, 'KWD', NULL, NULL), ('scales', 0.034, 'KWD', NULL, '0.001'),  -- 0.000495, 0.00051
    ('scales', 1000, 'POINTS', NULL, '15'), ('scales', 10, 'EUR', NULL, '0.15'), ('scales', 100, 'CLF', NULL, '1.5000');
SELECT * FROM paid('scales');
SELECT currency, tracked, pending, maturing, available, held FROM rebate.balances WHERE currency <> 'EUR' AND currency <> 'USD'
ORDER BY currency;

--
-- Versions and validity
--
SELECT rebate.set_rule('v', percent => 1, valid_from => '2024-01-01 00:00+00', scope => '{"r": "v"}');
INSERT INTO sale (r, amount, at) VALUES
    ('v', 100, '2023-12-31 23:59:59.999999+00'), ('v', 100, '2024-01-01 00:00+00');
SELECT rebate.set_rule('v', percent => 2, valid_from => '2024-06-01 00:00+00', valid_to => '2024-07-01 00:00+00', scope => '{"r": "v"}');
INSERT INTO sale (r, amount, at) VALUES
    ('v', 100, '2024-05-31 23:59:59+00'), ('v', 100, '2024-06-01 00:00+00'),
    ('v', 100, '2024-06-30 23:59:59+00'), ('v', 100, '2024-07-01 00:00+00');
-- a back-dated version reaches orders seen from now on, not those before
SELECT rebate.set_rule('v', percent => 3, valid_from => '2024-01-01 00:00+00', scope => '{"r": ["v", "w"]}');
UPDATE sale SET amount = 200 WHERE r = 'v' AND at = '2024-06-01 00:00+00';
INSERT INTO sale (r, amount, at) VALUES ('v', 100, '2024-06-01 00:00+00'), ('w', 100, '2024-06-01 00:00+00');
SELECT s.r, s.at, s.amount, a.version, a.earned FROM sale s LEFT JOIN rebate.accruals a ON a.order_key = s.id::text
WHERE s.r IN ('v', 'w') ORDER BY s.id;
-- the next version leaves the scope: it pays there no more
SELECT rebate.set_rule('v', percent => 4, valid_from => '2024-01-01 00:00+00', scope => '{"r": "w"}');
INSERT INTO sale (r, amount, at) VALUES ('v', 100, '2024-06-01 00:00+00'), ('w', 100, '2024-06-01 00:00+00');
SELECT s.r, a.version, a.earned FROM sale s LEFT JOIN rebate.accruals a ON a.order_key = s.id::text
WHERE s.r IN ('v', 'w') ORDER BY s.id DESC LIMIT 2;
-- ended at a moment: orders from then on get nothing, those before, and those seen before, what they had
SELECT rebate.end_rule('v', '2024-09-01 00:00+00');
INSERT INTO sale (r, amount, at) VALUES ('w', 100, '2024-08-31 23:59:59+00'), ('w', 100, '2024-09-01 00:00+00');
SELECT s.r, s.at, a.version, a.earned FROM sale s LEFT JOIN rebate.accruals a ON a.order_key = s.id::text
WHERE s.r = 'w' ORDER BY s.id;
UPDATE sale SET amount = 1000 WHERE r = 'w';
SELECT s.r, s.at, a.version, a.earned FROM sale s LEFT JOIN rebate.accruals a ON a.order_key = s.id::text
WHERE s.r = 'w' ORDER BY s.id;
-- an order whose time is a date: valid from the start of that day
CREATE TABLE daily (id int PRIMARY KEY, member text, amount numeric, day date);
SELECT rebate.attach('daily', member => 'member', amount => 'amount', currency => 'EUR', order_time => 'day', since => '2024-01-01', max_backdate => NULL);
SELECT rebate.set_rule('daily', percent => 1, source => 'daily', valid_from => '2024-06-15 15:00+00', valid_to => '2024-06-20 15:00+00');
INSERT INTO daily SELECT n, 'd', 100, '2024-06-01'::date + n FROM unnest(ARRAY[13, 14, 18, 19, 20]) n;
SELECT order_key, order_time, earned FROM rebate.accruals WHERE rule = 'daily' ORDER BY order_key COLLATE "C";
SELECT rebate.set_rule('today', percent => 1, source => 'daily');
INSERT INTO daily VALUES (100, 'd', 100, (now() AT TIME ZONE 'Europe/Berlin')::date);
SELECT rule, earned FROM rebate.accruals WHERE source = 'public.daily' AND order_key = '100';
DELETE FROM daily WHERE id = 100;

--
-- Hold: maturing until confirmed + hold in the programme's zone
--
SELECT rebate.set_rule('hold', percent => 10, hold => '1 month 2 days 3 hours', source => 'sale', scope => '{"r": "hold"}');
INSERT INTO sale (r, amount, status) VALUES ('hold', 100, 'pending');
SELECT bucket, earned, due FROM rebate.accruals WHERE rule = 'hold';
UPDATE sale SET status = 'confirmed' WHERE r = 'hold';
SELECT bucket, earned, due - confirmed_at BETWEEN '30 days' AND '34 days' AS due
FROM rebate.accruals WHERE rule = 'hold';
SELECT pending, maturing FROM rebate.balances WHERE member = 'm' AND currency = 'EUR';
UPDATE sale SET refunded = 40 WHERE r = 'hold';
SELECT bucket, earned FROM rebate.accruals WHERE rule = 'hold';
UPDATE sale SET refunded = 100 WHERE r = 'hold';
SELECT bucket, earned, due FROM rebate.accruals WHERE rule = 'hold';
-- a time of confirmation that is mapped; across a change of the clocks a day is a day
CREATE TABLE parcel (id int PRIMARY KEY, member text, amount numeric, shipped timestamp);
SELECT rebate.attach('parcel', member => 'member', amount => 'amount', currency => 'EUR', confirmed_at => 'shipped');
SELECT rebate.set_rule('parcel', percent => 10, hold => '14 days', source => 'parcel');
INSERT INTO parcel VALUES (1, 'p', 10, '2025-03-20 12:00'), (2, 'p', 10, '2025-03-16 02:30');
-- 12:00 in Berlin is 11:00 UTC in winter, 10:00 in summer; 02:30 is not on the clock on March 30
SELECT order_key, bucket, earned, confirmed_at, due FROM rebate.accruals WHERE rule = 'parcel' ORDER BY order_key COLLATE "C";

-- no figure differs from what was worked out
SELECT v.r, p.* FROM (SELECT DISTINCT r FROM sale WHERE r NOT IN ('thirds', 'hold', 'v', 'w', 'first')) v, paid(v.r) p
WHERE NOT p.ok ORDER BY v.r COLLATE "C";
SELECT * FROM rebate.failures;
SELECT * FROM rebate.audit();
DELETE FROM sale;
DELETE FROM parcel;
DELETE FROM daily;
SELECT member, currency FROM rebate.balances WHERE tracked <> 0 OR pending <> 0 OR maturing <> 0 OR available <> 0 OR held <> 0;
SELECT * FROM rebate.audit();

SET client_min_messages = warning;
DROP TABLE sale, parcel, daily, path;
DROP FUNCTION paid;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
