-- One day of the shop. Variables: day, orders (of the day), chunk (of it, one by one, in each of two sessions), audit, archive, erase, out.
SET client_min_messages = error;
\set noon 'soak.at(:day, 0.5)'
INSERT INTO soak.began VALUES (:day);

-- What the day does with an order that was there before: no order twice.
CREATE TEMP TABLE act AS
SELECT o.n, o.id, o.state, o.amount, o.curr, o.customer, soak.draw(o.n, 1000 + :day, 1000) AS a, soak.draw(o.n, 3000 + :day, 100) AS b,
	EXISTS (SELECT FROM soak.dispute d WHERE d.n = o.n AND d.until IS NULL) AS disputed
FROM orders o WHERE o.original IS NULL AND soak.draw(o.n, 1000 + :day, 1000) < 200 AND (o.ordered_at > soak.at(:day - 70));

-- orders, one by one and several in a transaction, while members read
\setenv SOAK_DAY :day
\setenv SOAK_CHUNK :chunk
\! pgbench -n -M prepared -c 2 -t $SOAK_CHUNK -D day=$SOAK_DAY -f "$SOAK_DIR/order.pgbench@20" -f "$SOAK_DIR/basket.pgbench@2" -f "$SOAK_DIR/member.pgbench@1" --random-seed=$SOAK_DAY >"$SOAK_OUT/pgbench" 2>&1 || { cat "$SOAK_OUT/pgbench"; echo 'not ok - pgbench'; }

-- an import; each fifth day the night shift has switched rebates off, and catches up
SELECT CASE WHEN :day % 5 = 4 THEN 'defer' ELSE 'on' END AS mode \gset
SET rebate.mode = :mode;
INSERT INTO orders SELECT o.* FROM (SELECT nextval('soak.n') AS n FROM generate_series(1, :orders - 2 * :chunk)) s, soak.new_order(s.n, :day) o;
UPDATE orders o SET state = 'paid' FROM act WHERE o.id = act.id AND act.state = 'new' AND act.a < 100;
RESET rebate.mode;
SELECT rebate.reconcile('orders', deferred_only => true) \g /dev/null

-- life goes on
UPDATE orders o SET state = 'shipped', shipped_at = soak.at(:day, act.b / 110.0) FROM act WHERE o.id = act.id AND act.state = 'paid' AND act.a < 90;
-- some returns do not stay: they go before what is refunded and returned, so that no order that pays something at the end of the day is at zero
-- in between, which would end what had matured of it
DELETE FROM orders o USING (SELECT id FROM orders WHERE original IS NOT NULL AND soak.draw(n, 4000 + :day, 300) = 0) d WHERE o.id = d.id;
UPDATE orders o SET refunded = CASE WHEN act.b < 20 THEN o.amount WHEN act.b < 60 THEN round(o.amount * act.b / 100, CASE o.curr WHEN 'JPY' THEN 0 ELSE 2 END) ELSE 0 END
FROM act WHERE o.id = act.id AND o.amount > 0 AND act.a BETWEEN 100 AND 115;
UPDATE orders o SET state = 'cancelled' FROM act WHERE o.id = act.id AND act.state <> 'cancelled' AND act.a BETWEEN 116 AND 121;
UPDATE orders o SET state = 'paid' FROM act WHERE o.id = act.id AND act.state = 'cancelled' AND act.a BETWEEN 122 AND 150;
UPDATE orders o SET amount = abs(o.amount) + act.b, merchant = CASE WHEN act.b < 50 THEN 'shop 1' ELSE o.merchant END
FROM act WHERE o.id = act.id AND o.amount > 0 AND act.a BETWEEN 151 AND 154 AND NOT act.disputed;
INSERT INTO soak.moved SELECT unnest(ARRAY[customer, 'm' || b]) FROM act WHERE a BETWEEN 155 AND 156;
UPDATE orders o SET customer = 'm' || act.b FROM act WHERE o.id = act.id AND act.a BETWEEN 155 AND 156;
UPDATE orders o SET amount = 10 + act.b FROM act WHERE o.id = act.id AND o.amount IS NULL AND act.a < 200;
DELETE FROM orders o USING act WHERE o.id = act.id AND act.a = 157;
-- returned in rows of their own
INSERT INTO orders SELECT nextval('soak.n'), currval('soak.n'), o.customer, o.merchant, -round(o.amount / 3, CASE o.curr WHEN 'JPY' THEN 0 ELSE 2 END) - CASE o.curr WHEN 'JPY' THEN 1 ELSE 0.01 END,
	o.curr, 0, 'shipped', soak.at(:day, act.b / 110.0), soak.at(:day, act.b / 110.0), o.id, :day
FROM act JOIN orders o ON o.id = act.id WHERE o.amount > 0 AND act.a BETWEEN 158 AND 166;
-- a number is given again
SELECT format('UPDATE orders SET id = %s WHERE id = %s', o.id + 1000000000, o.id)
FROM orders o JOIN act ON act.id = o.id
WHERE act.a = 167 AND o.id < 1000000000 AND NOT act.disputed AND NOT EXISTS (SELECT FROM orders b WHERE b.original = o.id)
	AND NOT EXISTS (SELECT FROM soak.dispute d WHERE d.n = o.n) LIMIT 3 \gexec
-- what was written and is taken back before the commit
BEGIN;
DELETE FROM orders WHERE n % 97 = :day;
SAVEPOINT a;
INSERT INTO orders SELECT o.* FROM (SELECT nextval('soak.n') AS n FROM generate_series(1, 20)) s, soak.new_order(s.n, :day) o;
ROLLBACK TO a;
SELECT rebate.flush() \g /dev/null
ROLLBACK;

-- disputes begin and end
INSERT INTO soak.dispute SELECT act.n, :noon FROM act JOIN orders o ON o.id = act.id WHERE act.a BETWEEN 168 AND 173 AND NOT act.disputed AND o.state IN ('paid', 'shipped', 'new') AND o.amount > 0 AND o.customer IS NOT NULL;
SELECT count(rebate.freeze('orders', o.id::text, 'dispute', :noon)) FROM soak.dispute d JOIN orders o ON o.n = d.n WHERE d.since = :noon \g /dev/null
WITH ended AS (UPDATE soak.dispute d SET until = :noon WHERE until IS NULL AND since < :noon AND soak.draw(n, 5000 + :day, 12) = 0 RETURNING n)
SELECT sum(rebate.unfreeze('orders', o.id::text, 'dispute', :noon)) FROM ended JOIN orders o USING (n) \g /dev/null
DROP TABLE act;

-- rules change
SELECT CASE :day WHEN 39 THEN 'SELECT rebate.set_rule(''everyone'', percent => 3, hold => ''14 days'', valid_from => soak.at(40))' ELSE 'SELECT 1' END AS change \gset
:change \g /dev/null

-- the clock
CALL rebate.retry_failures();
CALL rebate.age(soak.at(:day + 1));
CALL rebate.mature(soak.at(:day + 1));
CALL rebate.fold();

-- who follows; an account has another handle when its member is erased
WITH new AS (SELECT f.cursor, f.event, row_number() OVER () AS i FROM soak.place p, rebate.feed(p.cursor, 1000000) f),
	kept AS (INSERT INTO soak.heard SELECT a.account_id, (event ->> 'seq')::bigint FROM new LEFT JOIN rebate_data.account a ON a.handle = (event ->> 'account')::uuid)
UPDATE soak.place SET cursor = (SELECT cursor FROM new ORDER BY i DESC LIMIT 1) WHERE EXISTS (SELECT FROM new);

-- and all is compared
CALL soak.end_of(:day);
\o :out
SELECT format('day %s: %s', :day, d) FROM soak.difference() d LIMIT 5;
SELECT format('day %s: order %s', :day, o) FROM (SELECT DISTINCT split_part(account, ' ', 1) AS who FROM soak.difference() WHERE what = 'member' LIMIT 3) d,
	LATERAL soak.orders_of(d.who) o LIMIT 10;

-- some leave for good: one person asks, another agrees
\if :erase
\o /dev/null
SELECT 'SET SESSION AUTHORIZATION soak_asks', format('SELECT rebate.request_erasure(%L)', l),
	'SET SESSION AUTHORIZATION soak_agrees', format('SELECT rebate.erase_member(%L, true)', l),
	'RESET SESSION AUTHORIZATION', format('CALL soak.erase(%L)', l) FROM soak.leaving(:day) l \gexec
\o :out
SELECT format('day %s: erasure: %s', :day, d) FROM soak.difference() d LIMIT 5;
\endif
-- and what all have read goes where it is seldom looked for; a cursor is behind as long as any transaction was running
\if :archive
\o
SELECT at AS before FROM soak.began WHERE day = :day - 5 \gset
CALL rebate.archive(:'before');
\o :out
SELECT format('day %s: archive: %s', :day, d) FROM soak.difference() d LIMIT 5;
\endif
\if :audit
SELECT format('day %s: audit: %s', :day, a) FROM rebate.audit() a LIMIT 5;
\endif
\o
