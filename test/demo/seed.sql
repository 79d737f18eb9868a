-- A sample shop of 1,000 orders in schema rebate_demo: `make seed DB=mydb` runs it in a developer's own database,
-- `make psql` on a private server. Its rules name its table, so that no other attached table earns from them.
\set QUIET on
\set ON_ERROR_STOP on
\pset pager off
\pset footer off
SET client_min_messages = warning;

SELECT to_regnamespace('rebate_demo') IS NOT NULL AS present,
       EXISTS (SELECT FROM pg_extension WHERE extname = 'rebate') AS created,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super \gset
\if :present
    \echo 'Schema rebate_demo is there already; nothing was done. To begin anew:'
    \echo '  DELETE FROM rebate_demo.orders;  SELECT rebate.detach(''rebate_demo.orders'');  DROP SCHEMA rebate_demo CASCADE;'
    \quit
\endif
\if :created
\elif :super
    CREATE EXTENSION rebate;
\else
    DO $$ BEGIN RAISE 'extension rebate is not in this database, and creating it takes a superuser'
        USING HINT = 'As superuser: CREATE EXTENSION rebate;'; END $$;
\endif

BEGIN;
CREATE SCHEMA rebate_demo;
CREATE TABLE rebate_demo.orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer    text,
    merchant    text NOT NULL,
    country     text NOT NULL,
    coupon      text,
    items       integer NOT NULL,
    total       numeric(12,2) NOT NULL,
    currency    text NOT NULL,
    refunded    numeric(12,2) NOT NULL DEFAULT 0,
    status      text NOT NULL DEFAULT 'new',
    ordered_at  timestamptz NOT NULL DEFAULT now());
COMMENT ON TABLE rebate_demo.orders IS 'a sample shop, made by rebate''s "make seed"';

\o /dev/null
SELECT rebate.attach('rebate_demo.orders', member => 'customer', amount => 'total', currency => 'currency',
    quantity => 'items', refunded => 'refunded', order_time => 'ordered_at', since => now() - interval '30 days',
    status => 'status', phases => '{"new": "tracked", "paid": "pending", "delivered": "confirmed", "cancelled": '
        '"void"}');
SELECT rebate.set_rule('demo everyone', percent => 1, source => 'rebate_demo.orders', valid_from => now() - interval
    '30 days');
SELECT rebate.set_rule('demo tea house', percent => 5, scope => '{"merchant": "tea house"}', hold => '14 days',
    source => 'rebate_demo.orders', valid_from => now() - interval '30 days');
SELECT rebate.set_rule('demo abroad', percent => 1.5, scope => '{"country": ["AT", "CH"]}', minimum => 50, currency
    => 'EUR',
    max_per_order => 2, source => 'rebate_demo.orders', valid_from => now() - interval '30 days');
SELECT rebate.set_rule('demo by the piece', per_unit => 0.10, currency => 'EUR', condition => 'items >= 5',
    source => 'rebate_demo.orders', valid_from => now() - interval '30 days');
SELECT rebate.set_group('demo bonus', 'best');
SELECT rebate.set_rule('demo welcome', fixed => 3, currency => 'EUR', scope => '{"coupon": "WELCOME"}', rule_group =>
    'demo bonus',
    source => 'rebate_demo.orders', valid_from => now() - interval '30 days');
SELECT rebate.set_rule('demo large order', percent => 3, minimum => 100, currency => 'EUR', rule_group => 'demo bonus',
    source => 'rebate_demo.orders', valid_from => now() - interval '30 days');
\o
COMMIT;

-- The same orders each time, but for the hour: 60 customers and some guests, over four weeks.
INSERT INTO rebate_demo.orders (customer, merchant, country, coupon, items, total, currency, ordered_at)
SELECT CASE WHEN i % 23 <> 0 THEN (ARRAY['alice', 'bob', 'carol', 'dave', 'erin', 'frank'])[1 + i * i % 6] || CASE
    WHEN i % 10 = 0 THEN '' ELSE i % 10 || '' END END,
    (ARRAY['tea house', 'bookshop', 'bicycles', 'garden', 'hardware'])[1 + i * 7 % 11 % 5],
    (ARRAY['DE', 'DE', 'DE', 'AT', 'CH', 'FR'])[1 + i * 5 % 13 % 6],
    CASE WHEN i <= 60 THEN 'WELCOME' END,
    1 + i * 3 % 7,
    (500 + i * 7919 % 19500) / 100.0,
    CASE WHEN i % 13 = 0 THEN 'CHF' ELSE 'EUR' END,
    now() - interval '28 days' + i * interval '40 minutes'
FROM generate_series(1, 1000) AS i;
UPDATE rebate_demo.orders SET status = 'paid' WHERE id % 10 <> 0;
UPDATE rebate_demo.orders SET status = 'delivered' WHERE id <= 800 AND id % 10 <> 0;
UPDATE rebate_demo.orders SET refunded = round(total / 3, 2) WHERE id % 17 = 0;
UPDATE rebate_demo.orders SET status = 'cancelled' WHERE id % 29 = 0;

\echo
\echo '1,000 orders are in rebate_demo.orders; what they earned:'
\echo
SELECT source, decision, count(*) AS orders, sum(rebates) AS rebates FROM rebate.decisions
WHERE source = 'rebate_demo.orders' GROUP BY 1, 2 ORDER BY 3 DESC;
SELECT rule, currency, count(*) AS rebates, sum(earned) AS earned FROM rebate.accruals
WHERE source = 'rebate_demo.orders' GROUP BY 1, 2 ORDER BY 1, 2;
\echo 'Things to try:'
\echo '  SELECT * FROM rebate.balances ORDER BY available DESC LIMIT 10;'
\echo '  SELECT * FROM rebate.entries WHERE member = ''alice'' ORDER BY account_id, seq;'
\echo '  SELECT * FROM rebate.explain(''rebate_demo.orders'', 51);'
\echo '  UPDATE rebate_demo.orders SET refunded = total WHERE id = 51;    -- and explain it again'
\echo '  SELECT rebate.set_rule(''demo everyone'', percent => 2, source => ''rebate_demo.orders'');    -- for orders from now on'
\echo '  SELECT * FROM rebate.audit();'
\echo
