-- The reference model: what the ledger must be, computed slowly from the order
-- rows as they are now, the rules as the test wrote them, and the recorded
-- facts.  It shares no code with the engine and reads its tables for facts
-- (first seen, generation, before attachment) and for the comparison only.
CREATE SCHEMA model;

CREATE TABLE model.currency (code text PRIMARY KEY, scale integer NOT NULL);
INSERT INTO model.currency VALUES ('EUR', 2), ('USD', 2), ('JPY', 0), ('KWD', 3);

CREATE TABLE model.programme (time_zone text NOT NULL);
INSERT INTO model.programme VALUES ('UTC');

-- An attached table in the model's words: SQL expressions over the row.
CREATE TABLE model.source (
	source				regclass PRIMARY KEY,
	key					text NOT NULL,		-- canonical text; composite: a jsonb array as text
	member				text NOT NULL,		-- canonical text
	amount				text NOT NULL,
	currency			text NOT NULL,
	quantity			text,
	order_time			text,				-- a timestamptz
	order_time_is_date	boolean NOT NULL DEFAULT false,
	status				text,
	phases				jsonb,				-- NULL: the status is the phase
	confirmed_at		text,
	refunded			text,
	refunded_quantity	text,
	original			text,				-- canonical key of the order that a row returns; NULL: none
	replaces			text,				-- canonical key of the order that a row was split from; NULL: none
	confirm_after		interval,			-- ageing
	give_up_after		interval,
	attributes			text NOT NULL DEFAULT '''{}''',	-- a jsonb object of native values
	since				timestamptz NOT NULL
);

CREATE TABLE model.rule (
	id		serial PRIMARY KEY,				-- the older rule has the smaller number
	name	text NOT NULL UNIQUE
);

CREATE TABLE model.rule_version (
	rule			text NOT NULL,
	version			integer NOT NULL,
	generation		integer NOT NULL,
	formula			text NOT NULL,			-- percent, fixed, per_unit, none
	rate			numeric,
	currency		text,
	scope			jsonb,
	condition		text,
	base			text,
	minimum			numeric,
	max_per_order	numeric,
	limit_mode		text,
	rounding		text,
	refund			text,
	unlinked_return	text,
	hold			interval,
	priority		integer,
	rule_group		text,
	group_mode		text,
	valid_from		timestamptz NOT NULL,
	valid_to		timestamptz,
	source			regclass,
	arguments		jsonb,
	PRIMARY KEY (rule, version)
);

CREATE TABLE model.rule_group (name text PRIMARY KEY, mode text NOT NULL);

-- Recorded facts of orders.
CREATE TABLE model.fact (
	source		regclass,
	okey		text,
	first_seen	timestamptz NOT NULL,
	generation	integer NOT NULL,
	before		boolean NOT NULL,
	PRIMARY KEY (source, okey)
);

-- When the test saw an order for the first time: its generation is in [lo, hi].
CREATE TABLE model.seen (
	source		regclass,
	okey		text,
	lo			integer NOT NULL,
	hi			integer NOT NULL,
	first_seen	timestamptz,			-- NULL: not known yet
	after		timestamptz NOT NULL,	-- and between these
	before		timestamptz NOT NULL,
	loose		boolean NOT NULL DEFAULT false,
	PRIMARY KEY (source, okey)
);
CREATE TABLE model.last_generation (generation integer NOT NULL, at timestamptz NOT NULL DEFAULT '-infinity');
INSERT INTO model.last_generation VALUES (1);

-- Links of orders without a row that can be read: what they replaced is known still.
CREATE TABLE model.link (source regclass, okey text, target text);

-- Freezes as the test made them.
CREATE TABLE model.freeze (source regclass, okey text, reason text, since timestamptz, until timestamptz);

-- What a run of the clock did: rebates that it made available; orders that it confirmed, or gave up while they
-- were in a phase.  place: the row's version then.  As long as the row has not been touched, it must be as the
-- clock left it; later the engine may have begun again.
CREATE TABLE model.matured (source regclass, okey text, rule text, member text, currency text, place text);
CREATE TABLE model.aged (source regclass, okey text, what text, at timestamptz, phase text, place text);

-- Members with another key, and those who are erased; orders of theirs that had a rebate then, which move no money any more,
-- and what stays posted for these.
CREATE TABLE model.alias (old text PRIMARY KEY, now text NOT NULL);
CREATE TABLE model.erased (member text PRIMARY KEY);
CREATE TABLE model.settled (source regclass, okey text, PRIMARY KEY (source, okey));
CREATE TABLE model.settled_target (source regclass, okey text, rule text, member text, currency text, earned numeric, bucket text);

-- What was posted for orders before a statement that makes some of them fail.
CREATE TABLE model.kept (
	source regclass, okey text, rule text, member text, currency text, earned numeric, bucket text
);

CREATE TYPE model.row AS (
	okey				text,
	member				text,
	amount				numeric,
	currency			text,
	quantity			numeric,
	order_time			timestamptz,	-- NULL: not mapped
	phase				text,
	confirmed_at		timestamptz,
	refunded			numeric,
	refunded_quantity	numeric,
	original			text,
	replaces			text,
	place				text,			-- the version of the row
	attributes			jsonb,
	conditions			jsonb,			-- "rule.version": true or false
	bases				jsonb,			-- "rule.version": number or null
	failed				boolean
);

-- What a rule gives for an order before refunds: num / den, den 1 or 100.
CREATE TYPE model.wish AS (
	rule_id integer, v model.rule_version, base numeric, quantity numeric, num numeric, den numeric,
	shared boolean						-- its part of what the orders of its group get together
);

CREATE TYPE model.target AS (
	okey text, rule text, version integer, member text, currency text, amount numeric, bucket text, hold interval
);

-- One exact integer division, one rounding; on the absolute value.
CREATE FUNCTION model.round_fraction(num numeric, den numeric, scale integer, mode text) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	digits integer := greatest(scale(num), scale(den)) + 1;
	n numeric := trunc(abs(num) * 10::numeric ^ scale * 10::numeric ^ digits);
	d numeric := trunc(abs(den) * 10::numeric ^ digits);
	q numeric;
	r numeric;
	up boolean;
BEGIN
	IF den = 0 THEN
		RAISE EXCEPTION 'model: division by zero';
	END IF;
	q := div(n, d);
	r := n - q * d;
	IF r < 0 OR r >= d THEN
		RAISE EXCEPTION 'model: bad division % / %', n, d;
	END IF;
	up := CASE mode
		WHEN 'down' THEN false
		WHEN 'up' THEN r > 0
		WHEN 'half_up' THEN 2 * r >= d
		WHEN 'half_down' THEN 2 * r > d
		WHEN 'half_even' THEN 2 * r > d OR (2 * r = d AND mod(q, 2) = 1)
	END;
	IF up IS NULL THEN
		RAISE EXCEPTION 'model: rounding mode %', mode;
	END IF;
	IF up THEN
		q := q + 1;
	END IF;
	RETURN round(sign(num) * sign(den) * q / 10::numeric ^ scale, scale);
END
$$;

-- The rows of a source.
CREATE FUNCTION model.rows(src regclass) RETURNS SETOF model.row
LANGUAGE plpgsql AS $$
DECLARE
	s model.source;
	conditions text;
	bases text;
	zone text;
BEGIN
	SELECT * INTO STRICT s FROM model.source m WHERE m.source = src;
	SELECT time_zone INTO STRICT zone FROM model.programme;
	PERFORM set_config('TimeZone', zone, true), set_config('DateStyle', 'ISO, YMD', true);
	SELECT coalesce('jsonb_build_object(' || string_agg(format('%L, (%s) IS TRUE', v.rule || '.' || v.version, v.condition), ', ') || ')', '''{}''')
	  INTO conditions
	  FROM model.rule_version v WHERE v.condition IS NOT NULL AND (v.source IS NULL OR v.source = src);
	SELECT coalesce('jsonb_build_object(' || string_agg(format('%L, (%s)::numeric', v.rule || '.' || v.version, v.base), ', ') || ')', '''{}''')
	  INTO bases
	  FROM model.rule_version v WHERE v.base IS NOT NULL AND (v.source IS NULL OR v.source = src);
	RETURN QUERY EXECUTE format($q$
		SELECT x.okey, coalesce(a.now, x.member), x.amount, x.currency, x.quantity, x.order_time, x.phase, x.confirmed_at,
			   coalesce(x.refunded, 0), coalesce(x.refunded_quantity, 0), x.original, x.replaces, x.place, x.attributes, x.conditions, x.bases,
			   NOT EXISTS (SELECT FROM model.erased e WHERE e.member = coalesce(a.now, x.member)) AND (
			   x.amount IS NULL OR x.amount IN ('NaN', 'Infinity', '-Infinity')
			   OR x.phase IS NULL OR x.phase NOT IN ('tracked', 'pending', 'confirmed', 'void')
			   OR x.currency IS NULL OR NOT EXISTS (SELECT FROM model.currency c WHERE c.code = x.currency))
		  FROM (SELECT (%s)::text, (%s)::text, (%s)::numeric, (%s)::text, (%s)::numeric, (%s)::timestamptz,
					   %s, (%s)::timestamptz, (%s)::numeric, (%s)::numeric, (%s)::text, (%s)::text,
					   format('%%s %%s %%s', tableoid, ctid, xmin), (%s)::jsonb, (%s)::jsonb, (%s)::jsonb
				  FROM %s) AS x(okey, member, amount, currency, quantity, order_time, phase, confirmed_at,
								refunded, refunded_quantity, original, replaces, place, attributes, conditions, bases)
		  LEFT JOIN model.alias a ON a.old = x.member
		$q$,
		s.key, s.member, s.amount, s.currency, coalesce(s.quantity, 'NULL'), coalesce(s.order_time, 'NULL'),
		CASE WHEN s.status IS NULL THEN '''confirmed'''
			 WHEN s.phases IS NULL THEN format('(%s)::text', s.status)
			 ELSE format('%L::jsonb ->> ((%s)::text)', s.phases, s.status) END,
		coalesce(s.confirmed_at, 'NULL'), coalesce(s.refunded, '0'), coalesce(s.refunded_quantity, '0'),
		coalesce(s.original, 'NULL'), coalesce(s.replaces, 'NULL'), s.attributes,
		conditions, bases, src);
END
$$;

-- The version of a rule that applies to an order.
CREATE FUNCTION model.version_at(rule_name text, order_generation integer, at timestamptz, is_date boolean)
RETURNS model.rule_version
LANGUAGE sql STABLE AS $$
	SELECT v.* FROM model.rule_version v
	 WHERE v.rule = rule_name
	   AND v.generation <= order_generation
	   AND at >= CASE WHEN is_date
					  THEN date_trunc('day', v.valid_from AT TIME ZONE (SELECT time_zone FROM model.programme))
						   AT TIME ZONE (SELECT time_zone FROM model.programme)
					  ELSE v.valid_from END
	   AND (v.valid_to IS NULL OR at < v.valid_to)
	 ORDER BY v.version DESC LIMIT 1
$$;

-- Does every attribute of the scope have one of its values?
CREATE FUNCTION model.in_scope(scope jsonb, attributes jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	name text;
	wanted jsonb;
	one jsonb;
	found_one boolean;
BEGIN
	FOR name, wanted IN SELECT * FROM jsonb_each(coalesce(scope, '{}')) LOOP
		IF jsonb_typeof(wanted) <> 'array' THEN
			wanted := jsonb_build_array(wanted);
		END IF;
		found_one := false;
		FOR one IN SELECT * FROM jsonb_array_elements(wanted) LOOP
			IF jsonb_typeof(attributes -> name) = 'number' THEN
				found_one := found_one OR (attributes ->> name)::numeric = (one #>> '{}')::numeric;
			ELSIF jsonb_typeof(attributes -> name) = 'string' THEN
				found_one := found_one OR attributes ->> name = one #>> '{}';
			END IF;				-- NULL matches nothing
		END LOOP;
		IF NOT found_one THEN
			RETURN false;
		END IF;
	END LOOP;
	RETURN true;
END
$$;

-- What a rule gives for absolute values, before rounding, as num/den; NULL: it does not apply.
CREATE FUNCTION model.exact(v model.rule_version, amount numeric, base numeric, quantity numeric,
							OUT num numeric, OUT den numeric)
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF v.minimum IS NOT NULL AND amount < v.minimum THEN
		RETURN;
	END IF;
	den := 1;
	CASE v.formula
		WHEN 'percent' THEN num := base * v.rate; den := 100;
		WHEN 'fixed' THEN num := v.rate;
		WHEN 'per_unit' THEN num := quantity * v.rate;
		WHEN 'none' THEN num := NULL;
	END CASE;
	IF num > v.max_per_order * den THEN
		IF v.limit_mode = 'reject' THEN
			num := NULL;
		ELSE
			num := v.max_per_order;
			den := 1;
		END IF;
	END IF;
END
$$;

-- Does the result of a rule count once for all orders split from the same one?
CREATE FUNCTION model.counts_once(v model.rule_version) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
	SELECT v.formula = 'fixed' OR v.minimum IS NOT NULL OR v.max_per_order IS NOT NULL
$$;

CREATE FUNCTION model.without_limits(v model.rule_version) RETURNS model.rule_version
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	v.minimum := NULL;
	v.max_per_order := NULL;
	RETURN v;
END
$$;

-- Which rules give what for a row before refunds, under a generation and an order time.  In a group what
-- counts once is not held against minimum and limit yet.
CREATE FUNCTION model.wishes(o model.row, s model.source, generation integer, at timestamptz, in_group boolean)
RETURNS model.wish[]
LANGUAGE plpgsql AS $$
DECLARE
	r model.rule;
	v model.rule_version;
	judged model.rule_version;
	sgn integer := sign(o.amount);
	base numeric;
	quantity numeric;
	num numeric;
	den numeric;
	wishes model.wish[] := '{}';
BEGIN
	FOR r IN SELECT * FROM model.rule LOOP
		v := model.version_at(r.name, generation, at, s.order_time_is_date);
		CONTINUE WHEN v.rule IS NULL OR v.formula = 'none';
		CONTINUE WHEN v.source IS NOT NULL AND v.source <> s.source;
		CONTINUE WHEN v.currency IS NOT NULL AND v.currency <> o.currency;
		CONTINUE WHEN NOT model.in_scope(v.scope, o.attributes);
		CONTINUE WHEN v.condition IS NOT NULL AND NOT (o.conditions ->> (v.rule || '.' || v.version))::boolean;
		CONTINUE WHEN sgn < 0 AND v.unlinked_return = 'ignore';
		-- the mirror image of a negative row; a base of the other sign counts as 0; a return may
		-- carry its quantity with either sign
		base := CASE WHEN v.base IS NULL THEN o.amount ELSE (o.bases ->> (v.rule || '.' || v.version))::numeric END;
		base := CASE WHEN base * sgn < 0 THEN 0 ELSE abs(base) END;
		quantity := CASE WHEN sgn > 0 AND o.quantity < 0 THEN 0 ELSE abs(o.quantity) END;
		judged := CASE WHEN in_group AND model.counts_once(v) THEN model.without_limits(v) ELSE v END;
		SELECT e.num, e.den INTO num, den FROM model.exact(judged, abs(o.amount), base, quantity) e;
		CONTINUE WHEN num IS NULL;
		wishes := wishes || ROW(r.id, v, base, quantity, num, den, false)::model.wish;
	END LOOP;
	RETURN wishes;
END
$$;

-- What counts once for the orders of a group, shared out: the sum of what it gives them is held against
-- minimum and limit, rounded, and allocated by amount, truncated and then a unit each to the largest
-- fractions, ties by key.
CREATE FUNCTION model.share(wishes model.wish[], o model.row, s model.source, f model.fact, at timestamptz, others model.row[])
RETURNS model.wish[]
LANGUAGE plpgsql AS $$
DECLARE
	w model.wish;
	x model.wish;
	other model.row;
	scale integer := (SELECT c.scale FROM model.currency c WHERE c.code = o.currency);
	keys text[];
	weights numeric[];
	num numeric;
	den numeric;
	units numeric;
	result model.wish[] := '{}';
BEGIN
	FOREACH w IN ARRAY wishes LOOP
		IF NOT model.counts_once(w.v) THEN
			result := result || w;
			CONTINUE;
		END IF;
		keys := ARRAY[o.okey];
		weights := ARRAY[abs(o.amount)];
		num := w.num;
		den := w.den;
		FOREACH other IN ARRAY others LOOP
			FOREACH x IN ARRAY model.wishes(other, s, f.generation, coalesce(other.order_time, at), true) LOOP
				CONTINUE WHEN (x.v).rule <> (w.v).rule OR (x.v).version <> (w.v).version;
				keys := keys || other.okey;
				weights := weights || abs(other.amount);
				num := CASE WHEN (w.v).formula = 'fixed' THEN num ELSE num + x.num END;
			END LOOP;
		END LOOP;
		CONTINUE WHEN (SELECT sum(t) FROM unnest(weights) t) < (w.v).minimum;
		IF num > (w.v).max_per_order * den THEN
			CONTINUE WHEN (w.v).limit_mode = 'reject';
			num := (w.v).max_per_order;
			den := 1;
		END IF;
		IF cardinality(keys) > 1 THEN
			units := model.round_fraction(num, den, scale, (w.v).rounding) * 10::numeric ^ scale;
			WITH parts AS (
				SELECT k, trunc(p) AS whole, p - trunc(p) AS fraction
				  FROM (SELECT k, units * t / sum(t) OVER () AS p, units * t AS exact FROM unnest(keys, weights) u(k, t)) q),
			ranked AS (
				SELECT *, row_number() OVER (ORDER BY fraction DESC, k COLLATE "C") AS place, units - sum(whole) OVER () AS spare
				  FROM parts)
			SELECT (whole + CASE WHEN place <= spare THEN 1 ELSE 0 END) / 10::numeric ^ scale INTO num
			  FROM ranked WHERE k = o.okey;
			den := 1;
			w.shared := true;
		END IF;
		w.num := num;
		w.den := den;
		result := result || w;
	END LOOP;
	RETURN result;
END
$$;

-- The targets of one order: every rebate that is not zero.  others: those that were split from the same.
CREATE FUNCTION model.decide(o model.row, s model.source, f model.fact, others model.row[] DEFAULT '{}')
RETURNS SETOF model.target
LANGUAGE plpgsql AS $$
DECLARE
	at timestamptz := coalesce(o.order_time, f.first_seen);
	v model.rule_version;
	sgn integer := CASE WHEN o.failed THEN 0 ELSE sign(o.amount) END;
	amount numeric := abs(o.amount);
	refunded numeric;
	refunded_quantity numeric;
	by_quantity boolean;
	mode text;
	part_num numeric;			-- what is left after refunds: part_num / part_den
	part_den numeric;
	num numeric;
	den numeric;
	t model.target;
	wishes model.wish[];
	wish model.wish;
	winner integer;
BEGIN
	-- what a return takes is in the refunds of its original
	IF o.failed OR o.original IS NOT NULL OR o.member IS NULL OR f.before OR o.amount = 0 OR o.phase = 'void'
	   OR (o.order_time IS NOT NULL AND o.order_time < s.since) THEN
		RETURN;
	END IF;

	wishes := model.wishes(o, s, f.generation, at, others <> '{}');
	IF others <> '{}' THEN
		wishes := model.share(wishes, o, s, f, at, others);
	END IF;

	FOREACH wish IN ARRAY wishes LOOP
		v := wish.v;
		-- the one winner of an exclusive group
		IF v.rule_group IS NOT NULL AND v.group_mode IN ('first', 'best') THEN
			SELECT w.rule_id INTO winner FROM unnest(wishes) w
			 WHERE (w.v).rule_group = v.rule_group
			 ORDER BY CASE WHEN v.group_mode = 'best' THEN w.num * (100 / w.den) END DESC,
					  (w.v).priority DESC, w.rule_id
			 LIMIT 1;
			CONTINUE WHEN winner <> wish.rule_id;
		END IF;

		CONTINUE WHEN wish.num = 0;

		-- after refunds
		num := wish.num;
		den := wish.den;
		IF sgn > 0 THEN
			refunded := least(o.refunded, amount);
			by_quantity := v.formula = 'per_unit' AND (s.refunded_quantity IS NOT NULL
				OR s.original IS NOT NULL AND s.quantity IS NOT NULL AND s.refunded IS NULL);
			IF by_quantity THEN
				refunded_quantity := least(o.refunded_quantity, wish.quantity);
				part_num := CASE WHEN refunded = amount THEN 0 ELSE wish.quantity - refunded_quantity END;
				part_den := wish.quantity;
			ELSE
				part_num := amount - refunded;
				part_den := amount;
			END IF;
			-- what a group gets together is not judged again for one of its orders
			mode := CASE WHEN wish.shared AND v.refund = 'rejudge' THEN 'pro_rata' ELSE v.refund END;
			CASE mode
				WHEN 'pro_rata' THEN
					num := num * part_num;
					den := den * part_den;
				WHEN 'all' THEN
					IF refunded > 0 OR part_num < part_den THEN
						num := 0;
					END IF;
				WHEN 'keep_until_full' THEN
					IF part_num = 0 THEN
						num := 0;
					END IF;
				WHEN 'rejudge' THEN
					-- numbers times part_den, so that there is no division yet
					SELECT CASE WHEN refunded = amount THEN 0 ELSE coalesce(e.num, 0) END, coalesce(e.den, 1) * amount INTO num, den
					  FROM model.exact(
							model.times(v, amount),
							(amount - refunded) * amount,
							wish.base * (amount - refunded),
							CASE WHEN by_quantity THEN part_num * amount ELSE wish.quantity * (amount - refunded) END) e;
			END CASE;
		END IF;

		t.okey := o.okey;
		t.rule := v.rule;
		t.version := v.version;
		t.member := o.member;
		t.currency := o.currency;
		t.amount := sgn * model.round_fraction(num, den, (SELECT c.scale FROM model.currency c WHERE c.code = o.currency), v.rounding);
		t.hold := v.hold;
		t.bucket := CASE
			WHEN sgn < 0 THEN CASE WHEN o.phase IN ('pending', 'confirmed') THEN 'available' END
			-- without a hold it need not wait for the clock, unless its order was ever frozen
			WHEN o.phase = 'confirmed' THEN CASE
				WHEN v.hold > '0'::interval OR EXISTS (SELECT FROM model.freeze z WHERE z.source = s.source AND z.okey = o.okey)
				THEN 'maturing' ELSE 'available' END
			ELSE o.phase END;
		IF t.amount <> 0 AND t.bucket IS NOT NULL THEN
			RETURN NEXT t;
		END IF;
	END LOOP;
END
$$;

-- A version whose constants in money are k times as large.
CREATE FUNCTION model.times(v model.rule_version, k numeric) RETURNS model.rule_version
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	v.minimum := v.minimum * k;
	v.max_per_order := v.max_per_order * k;
	IF v.formula = 'fixed' THEN
		v.rate := v.rate * k;
	END IF;
	RETURN v;
END
$$;

-- The order that the way from a key leads to.
CREATE FUNCTION model.root(src regclass, all_rows model.row[], okey text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	target text;
BEGIN
	FOR i IN 1 .. 100 LOOP
		SELECT r.replaces INTO target FROM unnest(all_rows) r WHERE r.okey = root.okey AND NOT r.failed;
		IF NOT FOUND THEN
			SELECT l.target INTO target FROM model.link l WHERE l.source = src AND l.okey = root.okey;
		END IF;
		IF target IS NULL THEN
			RETURN okey;
		END IF;
		okey := target;
	END LOOP;
	RAISE EXCEPTION 'model: what % replaces leads in a circle', okey;
END
$$;

-- When the clock comes: span after a moment in the zone of the programme, the time in which the order was
-- frozen since then not counted; never while it is frozen.
CREATE FUNCTION model.clock_at(src regclass, okey text, since timestamptz, span interval) RETURNS timestamptz
LANGUAGE plpgsql STRICT AS $$
DECLARE
	zone text := (SELECT time_zone FROM model.programme);
	needed interval := (since AT TIME ZONE zone + span) AT TIME ZONE zone - since;
	at timestamptz := since;
	frozen tstzrange;
	nothing boolean := needed = '0'::interval;		-- to be waited for: a freeze of that moment comes first
BEGIN
	IF EXISTS (SELECT FROM model.freeze f WHERE f.source = src AND f.okey = clock_at.okey AND f.until IS NULL) THEN
		RETURN 'infinity';
	END IF;
	FOR frozen IN
		SELECT unnest(range_agg(tstzrange(f.since, f.until)) * tstzmultirange(tstzrange(clock_at.since, NULL)))
		  FROM model.freeze f WHERE f.source = src AND f.okey = clock_at.okey
	LOOP
		EXIT WHEN extract(epoch FROM lower(frozen) - at) > extract(epoch FROM needed)
			OR extract(epoch FROM lower(frozen) - at) = extract(epoch FROM needed) AND NOT nothing;
		needed := needed - (lower(frozen) - at);
		at := upper(frozen);
	END LOOP;
	RETURN at + make_interval(secs => extract(epoch FROM needed));
END
$$;

-- All targets of a source, given model.fact.
CREATE FUNCTION model.targets(src regclass) RETURNS SETOF model.target
LANGUAGE plpgsql AS $$
DECLARE
	s model.source;
	all_rows model.row[] := ARRAY(SELECT r FROM model.rows(src) r);
	o model.row;
	others model.row[];
	f model.fact;
	returned numeric;
	returned_quantity numeric;
BEGIN
	SELECT * INTO STRICT s FROM model.source m WHERE m.source = src;
	FOREACH o IN ARRAY all_rows LOOP
		SELECT * INTO f FROM model.fact m WHERE m.source = src AND m.okey = o.okey;
		CONTINUE WHEN NOT FOUND OR EXISTS (SELECT FROM model.erased e WHERE e.member = o.member)
			OR EXISTS (SELECT FROM model.settled z WHERE z.source = src AND z.okey = o.okey);
		-- what the clock did
		IF o.phase = 'pending' AND EXISTS (SELECT FROM model.aged a WHERE a.source = src AND a.okey = o.okey AND a.what = 'confirmed') THEN
			o.phase := 'confirmed';
		END IF;
		CONTINUE WHEN EXISTS (SELECT FROM model.aged a WHERE a.source = src AND a.okey = o.okey AND a.what = 'given up'
							  AND a.phase = o.phase AND a.place = o.place);
		-- returns that count
		SELECT coalesce(sum(abs(r.amount)), 0), coalesce(sum(abs(r.quantity)), 0) INTO returned, returned_quantity
		  FROM unnest(all_rows) r JOIN model.fact m ON m.source = src AND m.okey = r.okey
		 WHERE r.original = o.okey AND NOT r.failed AND NOT m.before AND r.amount < 0
		   AND r.phase IN ('pending', 'confirmed') AND (r.order_time IS NULL OR r.order_time >= s.since);
		o.refunded := o.refunded + returned;
		o.refunded_quantity := o.refunded_quantity + returned_quantity;
		-- orders that count once with this one
		others := '{}';
		IF s.replaces IS NOT NULL AND o.original IS NULL AND NOT o.failed THEN
			others := ARRAY(
				SELECT r FROM unnest(all_rows) r LEFT JOIN model.fact m ON m.source = src AND m.okey = r.okey
				 WHERE r.okey <> o.okey AND NOT r.failed AND r.original IS NULL AND NOT coalesce(m.before, false)
				   AND r.phase <> 'void' AND (r.order_time IS NULL OR r.order_time >= s.since)
				   AND r.currency = o.currency AND sign(r.amount) = sign(o.amount) AND r.amount <> 0
				   AND model.root(src, all_rows, r.okey) = model.root(src, all_rows, o.okey));
		END IF;
		RETURN QUERY SELECT * FROM model.decide(o, s, f, others);
	END LOOP;
END
$$;
