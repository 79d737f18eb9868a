-- The shop of the soak: its orders, how they are attached, its rules. Time is the shop's own: day 0 is 2026-01-01.
-- Variables: seed, members.
SET client_min_messages = warning;
CREATE EXTENSION rebate;
CREATE SCHEMA soak;
ALTER DATABASE :"DBNAME" SET timezone = 'UTC';
SET timezone = 'UTC';

-- n names an order for good, id is what the shop calls it
CREATE TABLE orders (id bigint PRIMARY KEY, n bigint NOT NULL, customer text, merchant text NOT NULL, amount numeric, curr text NOT NULL,
	refunded numeric NOT NULL DEFAULT 0, state text NOT NULL, ordered_at timestamptz NOT NULL, shipped_at timestamptz,
	original bigint, seen int NOT NULL);
CREATE UNIQUE INDEX ON orders (n);
CREATE INDEX ON orders (original) WHERE original IS NOT NULL;
CREATE SEQUENCE soak.n;

CREATE FUNCTION soak.at(day int, share float8 DEFAULT 0) RETURNS timestamptz LANGUAGE sql IMMUTABLE
	RETURN timestamptz '2026-01-01 00:00+00' + make_interval(days => day) + make_interval(secs => share * 86400);
-- the same draw of 0 .. m - 1 for the same order, purpose and seed
SELECT format('CREATE FUNCTION soak.draw(n bigint, purpose int, m int) RETURNS int LANGUAGE sql IMMUTABLE
	RETURN abs(hashint8extended(n, %s + purpose) %% m)::int', :seed * 1000) \gexec

-- A new order of a day, as a set, so that it is planned with the statement: one in ten is up to 20 days late, some are negative without an original, some cannot be decided.
SELECT format($f$
CREATE FUNCTION soak.new_order(n bigint, day int) RETURNS SETOF orders LANGUAGE sql STABLE AS $$
	SELECT n, n, CASE WHEN soak.draw(n, 1, 50) > 0 THEN 'm' || least(soak.draw(n, 2, %1$s), soak.draw(n, 3, %1$s)) END,
		'shop ' || soak.draw(n, 4, 5),
		CASE WHEN soak.draw(n, 5, 400) = 0 THEN NULL WHEN soak.draw(n, 5, 400) < 6 THEN -1 ELSE 1 END *
			CASE c.curr WHEN 'JPY' THEN 1 + soak.draw(n, 6, 20000) ELSE (1 + soak.draw(n, 6, 20000)) / 100.0 END,
		c.curr, 0,
		CASE WHEN soak.draw(n, 5, 400) < 6 THEN 'paid' WHEN soak.draw(n, 7, 10) < 3 THEN 'new' WHEN soak.draw(n, 7, 10) < 8 THEN 'paid' ELSE 'shipped' END,
		o.at, CASE WHEN soak.draw(n, 5, 400) >= 6 AND soak.draw(n, 7, 10) >= 8 THEN o.at + interval '1 hour' END, NULL::bigint, day
	FROM (SELECT CASE WHEN soak.draw(n, 8, 20) < 17 THEN 'EUR' WHEN soak.draw(n, 8, 20) < 19 THEN 'JPY' ELSE 'KWD' END AS curr) c,
		(SELECT soak.at(day - CASE WHEN soak.draw(n, 9, 10) = 0 THEN soak.draw(n, 10, 20) ELSE 0 END, soak.draw(n, 11, 86400) / 90000.0) AS at) o
$$$f$, :members) \gexec

SELECT rebate.attach('orders', member => 'customer', amount => 'amount', currency => 'curr', refunded => 'refunded',
	status => 'state', phases => '{"new": "tracked", "paid": "pending", "shipped": "confirmed", "cancelled": "void"}',
	order_time => 'ordered_at', confirmed_at => 'shipped_at', original => ARRAY['original'],
	since => soak.at(-40), max_backdate => NULL);
SELECT rebate.set_ageing('orders', auto_confirm_after => '30 days', give_up_after => '45 days');
SELECT rebate.set_rule('everyone', percent => 2, hold => '14 days', valid_from => soak.at(-40));
SELECT rebate.set_group('shops', 'best');
SELECT rebate.set_rule('tea', percent => 5, currency => 'EUR', scope => '{"merchant": "shop 1"}', max_per_order => 4, rule_group => 'shops',
	valid_from => soak.at(-40));
SELECT rebate.set_rule('coupon', fixed => 3, currency => 'EUR', minimum => 50, condition => 'merchant <> ''shop 3''', refund => 'keep_until_full',
	hold => '3 days', rule_group => 'shops', valid_from => soak.at(-40));

-- two people
CREATE ROLE soak_asks LOGIN IN ROLE rebate_owner;
CREATE ROLE soak_agrees LOGIN IN ROLE rebate_owner;
SELECT rebate.grant_right('approver', 'soak_agrees');

-- when each day began, by the clock on the wall
CREATE TABLE soak.began (day int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp());

-- who follows all events by cursor
CREATE TABLE soak.heard (account_id bigint, seq bigint);
CREATE TABLE soak.place (cursor text);
INSERT INTO soak.place VALUES (NULL);
