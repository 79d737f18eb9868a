-- The same rebates in plain SQL, from the order rows, the disputes, and what the clock did: nothing of the ledger is read.
-- Each day looks at the orders that were touched and at those whose time has come, and once more at all of them at the end.

-- Orders that a statement touched since the end of the last day, and what those return.
CREATE UNLOGGED TABLE soak.touched (n bigint, original bigint);
CREATE FUNCTION soak.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO soak.touched SELECT n, original FROM row;
	RETURN NULL;
END $$;
CREATE TRIGGER touch_inserted AFTER INSERT ON orders REFERENCING NEW TABLE AS row FOR EACH STATEMENT EXECUTE FUNCTION soak.touch();
CREATE TRIGGER touch_updated AFTER UPDATE ON orders REFERENCING NEW TABLE AS row FOR EACH STATEMENT EXECUTE FUNCTION soak.touch();
CREATE TRIGGER touch_deleted AFTER DELETE ON orders REFERENCING OLD TABLE AS row FOR EACH STATEMENT EXECUTE FUNCTION soak.touch();
CREATE UNLOGGED TABLE soak.today (n bigint PRIMARY KEY);

-- From when to when an order was in dispute; NULL: still.
CREATE TABLE soak.dispute (n bigint NOT NULL, since timestamptz NOT NULL, until timestamptz, PRIMARY KEY (n, since));
CREATE INDEX ON soak.dispute (n) WHERE until IS NULL;
-- What the clock did to an order: confirmed it, or gave it up in a state, which it does once.
-- The moment that it confirmed an order at is a fact, and holds when the order is confirmed by it again.
CREATE TABLE soak.aged (n bigint PRIMARY KEY, confirmed_at timestamptz, fact timestamptz, given_up_in text, given_up boolean NOT NULL DEFAULT false);
-- When the clock confirms an order that is paid, or gives up one that is new.
CREATE TABLE soak.ageing (n bigint PRIMARY KEY, state text NOT NULL, due timestamptz NOT NULL);
CREATE INDEX ON soak.ageing (due);
-- What each rule should give for each order. What has matured, or never waited, stays so while the order is confirmed and pays something
-- to the same member.
CREATE TABLE soak.wanted (n bigint NOT NULL, customer text NOT NULL, curr text NOT NULL, rule text NOT NULL, phase text NOT NULL, amount numeric NOT NULL,
	due timestamptz, matured boolean NOT NULL);
CREATE INDEX ON soak.wanted (n);
CREATE INDEX ON soak.wanted (due) WHERE NOT matured;
CREATE VIEW soak.wish AS
SELECT n, customer, curr, rule, amount, CASE WHEN amount < 0 AND phase <> 'tracked' THEN 'available' WHEN phase <> 'confirmed' THEN phase
	WHEN matured THEN 'available' ELSE 'maturing' END AS bucket
FROM soak.wanted;
-- Orders that ever had a rebate; members that are erased, and their orders that had one: these move no money any more. Members
-- to or from whom an order went: whose it was is a question of the ledger, so that they are not erased.
CREATE TABLE soak.had (n bigint PRIMARY KEY);
CREATE TABLE soak.erased (customer text PRIMARY KEY);
CREATE TABLE soak.settled (n bigint PRIMARY KEY);
CREATE TABLE soak.moved (customer text);
CREATE TABLE soak.written_off (curr text, amount numeric);

-- When something of an order is due that would be so without disputes, counted from a moment: later by the time that it was in
-- dispute before that, infinity while it is.
CREATE FUNCTION soak.due(n bigint, counted timestamptz, due timestamptz) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
	at_once boolean := due = counted;
	d record;
BEGIN
	IF EXISTS (SELECT FROM soak.dispute x WHERE x.n = $1 AND until IS NULL) THEN
		RETURN 'infinity';
	END IF;
	FOR d IN SELECT since, until FROM soak.dispute x WHERE x.n = $1 AND until > counted ORDER BY since LOOP
		EXIT WHEN d.since > due OR d.since = due AND NOT at_once;
		due := due + (d.until - greatest(d.since, counted));
	END LOOP;
	RETURN due;
END $$;

-- What orders should have by the rules, before the clock: all, or those of today.
CREATE VIEW soak.ruled AS
SELECT o.n, o.customer, o.curr, r.rule, o.phase, o.confirmed_at, r.hold,
	CASE WHEN o.amount > 0 THEN
		round(CASE WHEN o.net <= 0 THEN 0 WHEN r.rule = 'coupon' THEN r.full ELSE r.full * o.net / o.amount END, o.scale)
	ELSE -round(r.full, o.scale) END AS amount
FROM (
	SELECT o.n, o.customer, o.curr, o.merchant, o.amount, o.seen, o.ordered_at,
		CASE o.curr WHEN 'JPY' THEN 0 WHEN 'KWD' THEN 3 ELSE 2 END AS scale,
		o.amount - o.refunded - COALESCE((SELECT sum(-b.amount) FROM orders b WHERE b.original = o.id AND b.state IN ('paid', 'shipped')), 0) AS net,
		CASE WHEN o.state = 'shipped' OR a.confirmed_at IS NOT NULL THEN 'confirmed' WHEN o.state = 'paid' THEN 'pending' ELSE 'tracked' END AS phase,
		COALESCE(o.shipped_at, a.confirmed_at) AS confirmed_at
	FROM orders o LEFT JOIN soak.aged a ON a.n = o.n
	WHERE o.original IS NULL AND o.amount <> 0 AND o.customer IS NOT NULL AND o.state <> 'cancelled' AND a.given_up_in IS NULL
		AND NOT EXISTS (SELECT FROM soak.erased e WHERE e.customer = o.customer) AND NOT EXISTS (SELECT FROM soak.settled s WHERE s.n = o.n)) o
CROSS JOIN LATERAL (SELECT CASE WHEN o.merchant = 'shop 1' AND o.curr = 'EUR' THEN least(abs(o.amount) * 5 / 100, 4) END AS tea,
	CASE WHEN o.merchant <> 'shop 3' AND o.curr = 'EUR' AND abs(o.amount) >= 50 THEN 3 END AS coupon) s
CROSS JOIN LATERAL (VALUES
	('everyone', abs(o.amount) * CASE WHEN o.seen >= 40 AND o.ordered_at >= soak.at(40) THEN 3 ELSE 2 END / 100, interval '14 days'),
	('tea', CASE WHEN s.tea >= COALESCE(s.coupon, 0) THEN s.tea END, interval '0'),
	('coupon', CASE WHEN s.coupon > COALESCE(s.tea, 0) THEN s.coupon END, interval '3 days')) r (rule, "full", hold)
WHERE r.full IS NOT NULL;

-- What the orders of today should have.
CREATE PROCEDURE soak.want() LANGUAGE plpgsql AS $$
BEGIN
	WITH old AS (DELETE FROM soak.wanted w USING soak.today t WHERE w.n = t.n RETURNING w.*)
	INSERT INTO soak.wanted
	SELECT r.n, r.customer, r.curr, r.rule, r.phase, r.amount, v.due,
		r.phase = 'confirmed' AND (EXISTS (SELECT FROM old WHERE old.n = r.n AND old.rule = r.rule AND old.customer = r.customer AND old.phase = 'confirmed' AND old.matured)
			-- nothing to wait for
			OR r.hold = interval '0' AND NOT v.disputed)
	FROM soak.today t JOIN soak.ruled r ON r.n = t.n
	CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM soak.dispute d WHERE d.n = r.n) AS disputed OFFSET 0) d
	CROSS JOIN LATERAL (SELECT d.disputed, CASE WHEN r.phase = 'confirmed' THEN CASE WHEN d.disputed THEN soak.due(r.n, r.confirmed_at, r.confirmed_at + r.hold)
		ELSE r.confirmed_at + r.hold END END AS due OFFSET 0) v
	WHERE r.amount <> 0;
	INSERT INTO soak.had SELECT DISTINCT w.n FROM soak.today t JOIN soak.wanted w ON w.n = t.n ON CONFLICT DO NOTHING;
END $$;

-- The end of a day, after age() and mature() ran up to it.
CREATE PROCEDURE soak.end_of(day int) LANGUAGE plpgsql AS $$
DECLARE
	upto timestamptz := soak.at(day + 1);
BEGIN
	TRUNCATE soak.today;
	INSERT INTO soak.today
	SELECT n FROM soak.touched WHERE original IS NULL
	UNION SELECT o.n FROM soak.touched t JOIN orders o ON o.id = t.original
	UNION SELECT n FROM soak.dispute WHERE soak.at(day, 0.5) IN (since, until);
	TRUNCATE soak.touched;
	ANALYZE soak.today;
	IF day IN (1, 3, 9, 20, 40) THEN
		ANALYZE orders, soak.dispute, soak.aged, soak.ageing, soak.wanted, soak.had;
	END IF;

	-- what the clock decided ends with the state that it was decided in;
	-- but one that it confirmed is so whenever it is paid again
	UPDATE soak.aged a SET confirmed_at = CASE WHEN o.state = 'paid' THEN a.fact END,
		given_up_in = CASE WHEN o.state = a.given_up_in THEN a.given_up_in END
	FROM soak.today t, orders o WHERE t.n = a.n AND o.n = a.n;
	DELETE FROM soak.ageing a USING soak.today t WHERE a.n = t.n;
	INSERT INTO soak.ageing
	SELECT o.n, o.state, CASE WHEN EXISTS (SELECT FROM soak.dispute d WHERE d.n = o.n) THEN soak.due(o.n, o.ordered_at, v.due) ELSE v.due END
	FROM soak.today t JOIN orders o ON o.n = t.n LEFT JOIN soak.aged a ON a.n = o.n
	CROSS JOIN LATERAL (SELECT o.ordered_at + CASE o.state WHEN 'paid' THEN interval '30 days' ELSE interval '45 days' END AS due) v
	WHERE o.original IS NULL AND o.amount IS NOT NULL AND o.customer IS NOT NULL
		AND (o.state = 'paid' AND a.confirmed_at IS NULL OR o.state = 'new' AND a.given_up IS NOT TRUE)
		AND NOT EXISTS (SELECT FROM soak.erased e WHERE e.customer = o.customer) AND NOT EXISTS (SELECT FROM soak.settled s WHERE s.n = o.n);
	CALL soak.want();
	-- the clock comes to what waits with a rebate
	TRUNCATE soak.today;
	WITH come AS (DELETE FROM soak.ageing a WHERE due <= upto AND EXISTS (SELECT FROM soak.wanted w WHERE w.n = a.n AND w.amount > 0) RETURNING *),
		also AS (INSERT INTO soak.today SELECT n FROM come)
	INSERT INTO soak.aged AS a (n, confirmed_at, fact, given_up_in, given_up)
	SELECT n, CASE state WHEN 'paid' THEN due END, CASE state WHEN 'paid' THEN due END, CASE state WHEN 'new' THEN state END, state = 'new' FROM come
	ON CONFLICT (n) DO UPDATE SET confirmed_at = CASE WHEN excluded.given_up THEN a.confirmed_at ELSE COALESCE(a.fact, excluded.fact) END,
		fact = COALESCE(a.fact, excluded.fact), given_up_in = COALESCE(excluded.given_up_in, a.given_up_in), given_up = a.given_up OR excluded.given_up;
	CALL soak.want();
	UPDATE soak.wanted SET matured = true WHERE NOT matured AND due <= upto;
END $$;

-- Members who leave: after the end of a day, by two people.
CREATE FUNCTION soak.leaving(day int) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT customer FROM orders WHERE customer NOT IN (SELECT customer FROM soak.moved WHERE customer IS NOT NULL) AND customer NOT IN (SELECT customer FROM soak.erased)
	GROUP BY customer ORDER BY soak.draw(substr(customer, 2)::bigint, 6000 + day, 1000000), customer LIMIT 5
$$;
CREATE PROCEDURE soak.erase(who text) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO soak.erased VALUES (who);
	INSERT INTO soak.settled SELECT o.n FROM orders o JOIN soak.had USING (n) WHERE o.customer = who;
	INSERT INTO soak.written_off SELECT curr, sum(amount) FROM soak.wish WHERE customer = who AND bucket <> 'tracked' GROUP BY curr;
	DELETE FROM soak.wanted w WHERE w.customer = who;
	DELETE FROM soak.ageing a USING orders o WHERE o.n = a.n AND o.customer = who;
END $$;

-- Where the ledger has another balance than the model: of members, and of all accounts.
CREATE FUNCTION soak.difference() RETURNS TABLE (what text, account text, curr text, model numeric, ledger numeric) LANGUAGE sql AS $$
WITH wish AS MATERIALIZED (SELECT customer, curr, bucket, sum(amount) AS amount FROM soak.wish GROUP BY 1, 2, 3)
SELECT 'member', customer || ' ' || bucket, curr, m.amount, b.amount
FROM wish m
FULL JOIN (SELECT member AS customer, currency AS curr, v.bucket, v.amount FROM rebate.balances,
		LATERAL (VALUES ('tracked', tracked), ('pending', pending), ('maturing', maturing), ('available', available), ('held', held)) v (bucket, amount)
		WHERE v.amount <> 0) b
	USING (customer, curr, bucket)
WHERE COALESCE(m.amount, 0) <> COALESCE(b.amount, 0)
UNION ALL
SELECT 'trial balance', code, curr, m.amount, t.balance
FROM (SELECT code, curr, sum(amount) AS amount FROM (
		SELECT 'member:' || bucket AS code, curr, -amount AS amount FROM wish
		UNION ALL SELECT CASE bucket WHEN 'tracked' THEN 'memo:expected' ELSE 'expense:default' END, curr, amount FROM wish
		UNION ALL SELECT v.code, curr, v.amount FROM soak.written_off w, LATERAL (VALUES ('expense:default', w.amount), ('house:write-off', -w.amount)) v (code, amount)) x GROUP BY 1, 2) m
FULL JOIN (SELECT code, currency AS curr, balance FROM rebate.trial_balance) t USING (code, curr)
WHERE COALESCE(m.amount, 0) <> COALESCE(t.balance, 0)
$$;

-- Of which orders of a member that comes: what the model says of each rebate, and the ledger.
CREATE FUNCTION soak.orders_of(who text) RETURNS TABLE (n bigint, id text, rule text, model text, ledger text, row_now orders, disputes text) LANGUAGE sql AS $$
SELECT COALESCE(o.n, w.n), COALESCE(o.id::text, a.order_key), rule, w.said, a.said, o, (SELECT string_agg(format('%s to %s', since, until), ', ' ORDER BY since) FROM soak.dispute d WHERE d.n = o.n)
FROM (SELECT w.n, o.id::text AS order_key, w.rule, format('%s in %s, due %s, matured %s', w.amount, v.bucket, w.due, w.matured) AS said, w.amount, v.bucket
	FROM soak.wanted w JOIN soak.wish v USING (n, rule) JOIN orders o USING (n) WHERE w.customer = who) w
FULL JOIN (SELECT order_key, rule, format('%s in %s, due %s, confirmed %s', earned, bucket, due, confirmed_at) AS said, earned AS amount, bucket
	FROM rebate.accruals WHERE member = who AND earned <> 0) a USING (order_key, rule)
LEFT JOIN orders o ON o.id::text = order_key
WHERE (w.amount, w.bucket) IS DISTINCT FROM (a.amount, a.bucket)
$$;

-- Of all orders once more: where what was kept from day to day is not what the rows say now.
CREATE VIEW soak.forgotten AS
SELECT n, rule, w.customer AS kept, r.customer AS now, w.amount AS kept_amount, r.amount AS now_amount
FROM soak.wanted w FULL JOIN (SELECT * FROM soak.ruled WHERE amount <> 0) r USING (n, rule)
WHERE (w.customer, w.curr, w.phase, w.amount) IS DISTINCT FROM (r.customer, r.curr, r.phase, r.amount);
