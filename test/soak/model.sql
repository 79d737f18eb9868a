-- The same rebates in plain SQL, from the order rows, the disputes, and what the clock did: nothing of the ledger is read.

-- From when to when an order was in dispute; NULL: still.
CREATE TABLE soak.dispute (n bigint NOT NULL, since timestamptz NOT NULL, until timestamptz, PRIMARY KEY (n, since));
-- What the clock did to an order: confirmed it, or gave it up in a state, which it does once.
-- The moment that it confirmed an order at is a fact, and holds when the order is confirmed by it again.
CREATE TABLE soak.aged (n bigint PRIMARY KEY, confirmed_at timestamptz, fact timestamptz, given_up_in text, given_up boolean NOT NULL DEFAULT false);
-- Rebates of a member that matured, or have no hold, and so nothing for a dispute to stop; while the order is confirmed and pays something they stay so.
CREATE TABLE soak.matured (n bigint, rule text, customer text, PRIMARY KEY (n, rule));
-- Of a day: what each rule should give for each order, and in which bucket.
CREATE UNLOGGED TABLE soak.wanted (n bigint, customer text, curr text, rule text, phase text, confirmed_at timestamptz, amount numeric);
CREATE VIEW soak.wish AS
SELECT w.*, CASE WHEN w.amount < 0 AND w.phase <> 'tracked' THEN 'available' WHEN w.phase <> 'confirmed' THEN w.phase
	WHEN m.n IS NOT NULL THEN 'available' ELSE 'maturing' END AS bucket
FROM soak.wanted w LEFT JOIN soak.matured m USING (n, rule);

-- When something of an order is due that would be so without disputes, counted from a moment: later by the time that it was in
-- dispute before that, infinity while it is.
CREATE FUNCTION soak.due(n bigint, counted timestamptz, due timestamptz) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
	d record;
BEGIN
	FOR d IN SELECT since, until FROM soak.dispute x WHERE x.n = $1 AND (until IS NULL OR until > counted) ORDER BY since LOOP
		EXIT WHEN d.since >= due;
		IF d.until IS NULL THEN
			RETURN 'infinity';
		END IF;
		due := due + (d.until - greatest(d.since, counted));
	END LOOP;
	RETURN due;
END $$;
CREATE FUNCTION soak.in_dispute(n bigint) RETURNS boolean LANGUAGE sql STABLE
	RETURN EXISTS (SELECT FROM soak.dispute d WHERE d.n = in_dispute.n AND d.until IS NULL);

-- The end of a day, after age() and mature() ran up to it.
CREATE PROCEDURE soak.end_of(day int) LANGUAGE plpgsql AS $$
DECLARE
	upto timestamptz := soak.at(day + 1);
BEGIN
	-- what the clock decided ends with the state that it was decided in
	UPDATE soak.aged a SET confirmed_at = CASE WHEN o.state = 'paid' THEN a.confirmed_at END,
		given_up_in = CASE WHEN o.state = a.given_up_in THEN a.given_up_in END
	FROM orders o WHERE o.n = a.n AND (a.confirmed_at IS NOT NULL AND o.state <> 'paid' OR a.given_up_in <> o.state);
	INSERT INTO soak.aged AS a (n, confirmed_at, fact)
	SELECT o.n, v.due, v.due FROM orders o, LATERAL (SELECT soak.due(o.n, o.ordered_at, o.ordered_at + interval '30 days') AS due OFFSET 0) v
	WHERE o.state = 'paid' AND o.original IS NULL AND o.amount IS NOT NULL AND o.customer IS NOT NULL AND o.ordered_at + interval '30 days' <= upto AND v.due <= upto
		AND NOT EXISTS (SELECT FROM soak.aged x WHERE x.n = o.n AND x.confirmed_at IS NOT NULL)
	ON CONFLICT (n) DO UPDATE SET confirmed_at = COALESCE(a.fact, excluded.fact), fact = COALESCE(a.fact, excluded.fact);
	INSERT INTO soak.aged AS a (n, given_up_in, given_up)
	SELECT o.n, 'new', true FROM orders o
	WHERE o.state = 'new' AND o.original IS NULL AND o.amount IS NOT NULL AND o.customer IS NOT NULL AND o.ordered_at + interval '45 days' <= upto
		AND soak.due(o.n, o.ordered_at, o.ordered_at + interval '45 days') <= upto
		AND NOT EXISTS (SELECT FROM soak.aged x WHERE x.n = o.n AND x.given_up)
	ON CONFLICT (n) DO UPDATE SET given_up_in = excluded.given_up_in, given_up = true;

	TRUNCATE soak.wanted;
	INSERT INTO soak.wanted
	SELECT o.n, o.customer, o.curr, r.rule, o.phase, o.confirmed_at,
		CASE WHEN o.amount > 0 THEN
			round(CASE WHEN o.net <= 0 THEN 0 WHEN r.rule = 'coupon' THEN r.full ELSE r.full * o.net / o.amount END, o.scale)
		ELSE -round(r.full, o.scale) END
	FROM (
		SELECT o.n, o.customer, o.curr, o.merchant, o.amount, o.seen, o.ordered_at,
			CASE o.curr WHEN 'JPY' THEN 0 WHEN 'KWD' THEN 3 ELSE 2 END AS scale,
			o.amount - o.refunded - COALESCE((SELECT sum(-b.amount) FROM orders b WHERE b.original = o.id AND b.state IN ('paid', 'shipped')), 0) AS net,
			CASE WHEN o.state = 'shipped' OR a.confirmed_at IS NOT NULL THEN 'confirmed' WHEN o.state = 'paid' THEN 'pending' ELSE 'tracked' END AS phase,
			COALESCE(o.shipped_at, a.confirmed_at) AS confirmed_at
		FROM orders o LEFT JOIN soak.aged a ON a.n = o.n
		WHERE o.original IS NULL AND o.amount <> 0 AND o.customer IS NOT NULL AND o.state <> 'cancelled' AND a.given_up_in IS NULL) o
	CROSS JOIN LATERAL (SELECT CASE WHEN o.merchant = 'shop 1' AND o.curr = 'EUR' THEN least(abs(o.amount) * 5 / 100, 4) END AS tea,
		CASE WHEN o.merchant <> 'shop 3' AND o.curr = 'EUR' AND abs(o.amount) >= 50 THEN 3 END AS coupon) s
	CROSS JOIN LATERAL (VALUES
		('everyone', abs(o.amount) * CASE WHEN o.seen >= 40 AND o.ordered_at >= soak.at(40) THEN 3 ELSE 2 END / 100),
		('tea', CASE WHEN s.tea >= COALESCE(s.coupon, 0) THEN s.tea END),
		('coupon', CASE WHEN s.coupon > COALESCE(s.tea, 0) THEN s.coupon END)) r (rule, "full")
	WHERE r.full IS NOT NULL;

	ANALYZE soak.wanted;
	DELETE FROM soak.matured m WHERE NOT EXISTS (SELECT FROM soak.wanted w WHERE w.n = m.n AND w.rule = m.rule AND w.customer = m.customer AND w.phase = 'confirmed' AND w.amount <> 0);
	INSERT INTO soak.matured
	SELECT w.n, w.rule, w.customer FROM soak.wanted w
	WHERE w.phase = 'confirmed' AND w.amount <> 0 AND CASE w.rule WHEN 'tea' THEN true WHEN 'everyone' THEN w.confirmed_at + interval '14 days' <= upto
			AND soak.due(w.n, w.confirmed_at, w.confirmed_at + interval '14 days') <= upto
		ELSE w.confirmed_at + interval '3 days' <= upto AND soak.due(w.n, w.confirmed_at, w.confirmed_at + interval '3 days') <= upto END
		AND NOT EXISTS (SELECT FROM soak.matured m WHERE m.n = w.n AND m.rule = w.rule)
	ON CONFLICT DO NOTHING;
END $$;

-- Where the ledger has another balance than the model: of members, and of all accounts.
CREATE VIEW soak.difference AS
SELECT 'member' AS what, customer || ' ' || bucket AS account, curr, m.amount AS model, b.amount AS ledger
FROM (SELECT customer, curr, bucket, sum(amount) AS amount FROM soak.wish GROUP BY 1, 2, 3) m
FULL JOIN (SELECT member AS customer, currency AS curr, v.bucket, v.amount FROM rebate.balances,
		LATERAL (VALUES ('tracked', tracked), ('pending', pending), ('maturing', maturing), ('available', available), ('held', held)) v (bucket, amount)) b
	USING (customer, curr, bucket)
WHERE COALESCE(m.amount, 0) <> COALESCE(b.amount, 0)
UNION ALL
SELECT 'trial balance', code, curr, m.amount, t.balance
FROM (SELECT 'member:' || bucket AS code, curr, -sum(amount) AS amount FROM soak.wish GROUP BY 1, 2
	UNION ALL SELECT CASE bucket WHEN 'tracked' THEN 'memo:expected' ELSE 'expense:default' END, curr, sum(amount) FROM soak.wish GROUP BY 1, 2) m
FULL JOIN (SELECT code, currency AS curr, balance FROM rebate.trial_balance) t USING (code, curr)
WHERE COALESCE(m.amount, 0) <> COALESCE(t.balance, 0);
