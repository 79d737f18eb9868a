-- `make demo ORDERS=file.csv`, last part: what became of the orders.
\set QUIET on
\set ON_ERROR_STOP on
\pset pager off
\pset footer off
\pset null ''
SET client_min_messages = warning;

\echo '=== 4. What became of them'
\echo
SELECT decision, count(*) AS orders, sum(earned) AS earned FROM rebate.decisions GROUP BY decision ORDER BY 2 DESC;
SELECT EXISTS (SELECT FROM rebate.failures) AS failures \gset
\if :failures
\echo 'Set aside, and why:'
\echo
SELECT sqlstate, message, count(*) AS orders, min(order_key) AS "for example" FROM rebate.failures
GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 5;
\endif
\echo 'What is owed, and to whom most of it:'
\echo
SELECT currency, count(*) AS members, sum(tracked) AS tracked, sum(pending) AS pending, sum(maturing) AS maturing,
       sum(available) AS available, sum(last_entry) AS entries
FROM rebate.balances GROUP BY currency ORDER BY currency;
SELECT member, currency, available, last_entry AS entries FROM rebate.balances ORDER BY available DESC, member LIMIT 5;

-- A member whose ledger is worth a look: something was taken back, but not all of it.
SELECT b.* FROM (VALUES (1)) one LEFT JOIN (
    SELECT member, currency FROM rebate.balances b
    ORDER BY last_entry BETWEEN 2 AND 200 AND EXISTS (
        SELECT FROM rebate.entries e WHERE e.account_id = b.account_id AND e.kind = 'reverse') DESC, available DESC
    LIMIT 1) b ON true \gset
\if :{?member}
\echo '=== 5. The ledger of member' :member
\echo
\echo 'The last ten entries: never changed afterwards, numbered without gaps, with the balance after each.'
\echo
SELECT * FROM (SELECT seq, order_key AS "order", rule, kind, debit, credit, amount, available, event_at
    FROM rebate.entries WHERE member = :'member' AND currency = :'currency' ORDER BY seq DESC LIMIT 10) e ORDER BY seq;

\echo '=== 6. The last of these orders explained'
\echo
SELECT format('SELECT format(''SELECT * FROM rebate.explain(''''orders'''', %s)'', %s) AS explain FROM orders WHERE '
    'rebate.order_key(''orders'', %s) = %L',
    string_agg('%L::' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY i.n),
    string_agg(quote_ident(a.attname), ', ' ORDER BY i.n), string_agg(quote_ident(a.attname), ', ' ORDER BY i.n),
    (SELECT order_key FROM rebate.entries WHERE member = :'member' AND currency = :'currency' ORDER BY seq DESC LIMIT
        1)) AS make
FROM pg_index x, unnest(x.indkey) WITH ORDINALITY i (attnum, n)
JOIN pg_attribute a ON a.attrelid = 'orders'::regclass AND a.attnum = i.attnum
WHERE x.indrelid = 'orders'::regclass AND x.indisprimary \gset
:make \gset
\echo :explain
\echo
\pset format wrapped
\pset columns 150
:explain;
\endif
