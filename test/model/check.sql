-- The model against the engine: facts are read from the views, targets
-- computed, accruals, balances, entries and the audit compared.  A row of
-- model.check() is a difference.

CREATE FUNCTION model.generation() RETURNS integer
LANGUAGE sql STABLE AS $$ SELECT generation FROM rebate_data.generation $$;

-- The engine's key in the model's spelling (a composite key as jsonb prints it).
CREATE FUNCTION model.okey(order_key text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN order_key LIKE '[%]' THEN order_key::jsonb::text ELSE order_key END
$$;

CREATE VIEW model.decision AS
	SELECT d.source::text::regclass AS source, model.okey(d.order_key) AS okey, d.decision, d.first_seen, d.generation
	  FROM rebate.decisions d;
CREATE VIEW model.accrual AS
	SELECT a.source::text::regclass AS source, model.okey(a.order_key) AS okey, a.rule, a.version, a.member, a.currency,
		   a.earned, a.bucket, a.phase, a.confirmed_at, a.due, a.first_seen, a.generation
	  FROM rebate.accruals a;

-- rebate.set_rule(), and the model's own copy of what was said.
CREATE FUNCTION model.set_rule(
	name text, percent numeric DEFAULT NULL, fixed numeric DEFAULT NULL, per_unit numeric DEFAULT NULL,
	currency text DEFAULT NULL, scope jsonb DEFAULT NULL, condition text DEFAULT NULL, base text DEFAULT NULL,
	minimum numeric DEFAULT NULL, max_per_order numeric DEFAULT NULL, limit_mode text DEFAULT 'clip',
	rounding text DEFAULT 'half_up', refund text DEFAULT 'pro_rata', unlinked_return text DEFAULT 'today',
	hold interval DEFAULT '0', priority integer DEFAULT 0, rule_group text DEFAULT NULL,
	valid_from timestamptz DEFAULT NULL, valid_to timestamptz DEFAULT NULL, source regclass DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	written integer;
	args jsonb := jsonb_build_object('percent', percent, 'fixed', fixed, 'per_unit', per_unit, 'currency', currency,
		'scope', scope, 'condition', condition, 'base', base, 'minimum', minimum, 'max_per_order', max_per_order,
		'limit_mode', limit_mode, 'rounding', rounding, 'refund', refund, 'unlinked_return', unlinked_return,
		'hold', hold, 'priority', priority, 'rule_group', rule_group, 'valid_from', valid_from, 'valid_to', valid_to,
		'source', source::text);
	last model.rule_version;
BEGIN
	SELECT * INTO last FROM model.rule_version v WHERE v.rule = set_rule.name ORDER BY v.version DESC LIMIT 1;
	written := rebate.set_rule(name => name, percent => percent, fixed => fixed, per_unit => per_unit,
		currency => currency, scope => scope, condition => condition, base => base, minimum => minimum,
		max_per_order => max_per_order, limit_mode => limit_mode, rounding => rounding, refund => refund,
		unlinked_return => unlinked_return, hold => hold, priority => priority, rule_group => rule_group,
		valid_from => valid_from, valid_to => valid_to, source => source);
	IF last.arguments = args THEN
		IF written <> last.version THEN
			RAISE EXCEPTION 'model: the same call of set_rule wrote version % after %', written, last.version;
		END IF;
		RETURN written;
	END IF;
	IF written <> coalesce(last.version, 0) + 1 THEN
		RAISE EXCEPTION 'model: set_rule returned version % after %', written, last.version;
	END IF;
	INSERT INTO model.rule (name) VALUES (set_rule.name) ON CONFLICT DO NOTHING;
	INSERT INTO model.rule_version VALUES (name, written, model.generation(),
		CASE WHEN percent IS NOT NULL THEN 'percent' WHEN fixed IS NOT NULL THEN 'fixed' ELSE 'per_unit' END,
		coalesce(percent, fixed, per_unit), currency, scope, condition, base, minimum, max_per_order, limit_mode,
		rounding, refund, unlinked_return, hold, priority, rule_group,
		(SELECT g.mode FROM model.rule_group g WHERE g.name = set_rule.rule_group),
		coalesce(valid_from, now()), valid_to, source, args);
	RETURN written;
END
$$;

CREATE FUNCTION model.end_rule(name text, at timestamptz DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
	written integer;
	last model.rule_version;
BEGIN
	SELECT * INTO last FROM model.rule_version v WHERE v.rule = end_rule.name ORDER BY v.version DESC LIMIT 1;
	IF NOT FOUND THEN
		RETURN NULL;		-- its first version was rolled back
	END IF;
	written := rebate.end_rule(name, at);
	IF last.formula = 'none' AND (last.valid_from = at OR (at IS NULL AND last.valid_from <= now())) THEN
		IF written <> last.version THEN
			RAISE EXCEPTION 'model: ending a rule again wrote version % after %', written, last.version;
		END IF;
		RETURN written;
	END IF;
	IF written <> last.version + 1 THEN
		RAISE EXCEPTION 'model: end_rule returned version % after %', written, last.version;
	END IF;
	last.version := written;
	last.generation := model.generation();
	last.formula := 'none';
	last.scope := NULL;
	last.condition := NULL;
	last.base := NULL;
	last.valid_from := coalesce(at, now());
	last.valid_to := NULL;
	last.arguments := NULL;
	INSERT INTO model.rule_version SELECT last.*;
	RETURN written;
END
$$;

CREATE FUNCTION model.set_group(name text, mode text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM rebate.set_group(name, mode);
	INSERT INTO model.rule_group VALUES (name, mode);
END
$$;

-- Called between statements: which orders exist under which generation.
CREATE FUNCTION model.observe() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	s regclass;
BEGIN
	PERFORM rebate.flush();
	FOR s IN SELECT source FROM model.source LOOP
		INSERT INTO model.seen
			SELECT d.source, d.okey, l.generation, model.generation(), d.first_seen
			  FROM model.decision d, model.last_generation l
			 WHERE d.source = s
			ON CONFLICT DO NOTHING;
	END LOOP;
	UPDATE model.last_generation SET generation = model.generation();
END
$$;

-- A statement changed the key of one order: its facts move with it.
CREATE FUNCTION model.rekeyed(src regclass, old text, new text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	keys text[];
BEGIN
	SELECT array_agg(okey) INTO keys FROM model.rows(src);
	IF old = ANY (keys) OR NOT new = ANY (keys) THEN
		RETURN;				-- it did not happen
	END IF;
	IF EXISTS (SELECT FROM model.seen WHERE source = src AND okey = new)
	   OR NOT EXISTS (SELECT FROM model.seen WHERE source = src AND okey = old) THEN
		UPDATE model.seen SET loose = true WHERE source = src AND okey IN (old, new);
	ELSE
		INSERT INTO model.seen SELECT source, new, lo, hi, first_seen, loose FROM model.seen WHERE source = src AND okey = old;
		UPDATE model.seen SET loose = true WHERE source = src AND okey = old;
	END IF;
END
$$;

-- Called before a statement that makes rows fail: what is posted stays.
CREATE FUNCTION model.keep(src regclass) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	failing text[];
BEGIN
	PERFORM rebate.flush();
	SELECT coalesce(array_agg(okey), '{}') INTO failing FROM model.rows(src) WHERE failed;
	DELETE FROM model.kept WHERE source = src AND okey <> ALL (failing);
	INSERT INTO model.kept
		SELECT source, okey, rule, member, currency, earned, bucket FROM model.accrual
		 WHERE source = src AND okey <> ALL (failing) AND earned <> 0;
END
$$;

CREATE FUNCTION model.check(old_orders boolean DEFAULT true) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	s model.source;
	zone text;
BEGIN
	PERFORM rebate.flush();
	SELECT time_zone INTO STRICT zone FROM model.programme;
	PERFORM set_config('TimeZone', zone, true), set_config('DateStyle', 'ISO, YMD', true);
	CREATE TEMP TABLE IF NOT EXISTS m_target (source regclass, okey text, rule text, version integer, member text,
		currency text, amount numeric, bucket text, hold interval, kept boolean);
	CREATE TEMP TABLE IF NOT EXISTS m_row AS SELECT NULL::regclass AS source, r.* FROM model.rows(NULL) r LIMIT 0;
	TRUNCATE m_target, m_row;
	TRUNCATE model.fact;
	INSERT INTO model.fact
		SELECT source, okey, first_seen, generation, decision = 'before attachment' FROM model.decision;

	FOR s IN SELECT * FROM model.source LOOP
		INSERT INTO m_row SELECT s.source, r.* FROM model.rows(s.source) r;
		INSERT INTO m_target
			SELECT s.source, t.*, false FROM model.targets(s.source) t
			UNION ALL
			SELECT s.source, k.okey, k.rule, NULL, k.member, k.currency, k.earned, k.bucket, NULL, true
			  FROM model.kept k JOIN m_row r USING (source, okey)
			 WHERE k.source = s.source AND r.failed;
	END LOOP;

	-- every order has a decision, and the right one
	RETURN QUERY
		SELECT format('decision of %s %s: %s', r.source, r.okey, CASE
				WHEN d.okey IS NULL THEN 'none'
				WHEN d.generation IS NULL OR d.first_seen IS NULL THEN 'without facts'
				ELSE format('%s, but the row is %s', d.decision, CASE WHEN r.failed THEN 'failing' WHEN r.order_time < src.since THEN 'older than since'
						WHEN r.member IS NULL THEN 'a guest''s' ELSE 'good' END) END)
		  FROM m_row r JOIN model.source src USING (source) LEFT JOIN model.decision d USING (source, okey)
		 -- rows that are older than "since" when the table is attached leave no trace
		 WHERE (d.okey IS NULL AND NOT coalesce(r.order_time < src.since, false))
			OR (d.okey IS NOT NULL AND (d.generation IS NULL OR d.first_seen IS NULL))
			OR (d.decision <> 'before attachment' AND NOT coalesce(r.order_time < src.since, false)
				AND ((d.decision = 'failed') <> r.failed AND r.member IS NOT NULL
					 OR (d.decision = 'guest') <> (r.member IS NULL AND r.original IS NULL) AND NOT r.failed))
			OR (d.decision <> 'before attachment' AND r.order_time < src.since AND NOT r.failed AND r.member IS NOT NULL)
			OR (d.decision = 'before attachment' AND NOT old_orders);

	-- facts as the test saw them
	RETURN QUERY
		SELECT format('facts of %s %s: generation %s first seen %s, the test saw %s..%s, %s', d.source, d.okey,
					  d.generation, d.first_seen, n.lo, n.hi, n.first_seen)
		  FROM model.decision d JOIN model.seen n USING (source, okey)
		 WHERE NOT n.loose AND (d.generation NOT BETWEEN n.lo AND n.hi OR d.first_seen <> n.first_seen)
		UNION ALL
		SELECT format('facts of %s %s: generation %s, the test expects %s..%s', d.source, d.okey,
					  d.generation, l.generation, model.generation())
		  FROM model.decision d, model.last_generation l
		 WHERE NOT EXISTS (SELECT FROM model.seen n WHERE n.source = d.source AND n.okey = d.okey)
		   AND d.generation NOT BETWEEN l.generation AND model.generation();

	-- accruals
	RETURN QUERY
		SELECT format('accrual of %s %s, rule %s, %s %s: %s %s (version %s), the model says %s %s (version %s)',
					  source, okey, rule, member, currency, coalesce(a.earned, 0), a.bucket, a.version,
					  coalesce(t.amount, 0), t.bucket, t.version)
		  FROM m_target t
		  FULL JOIN (SELECT * FROM model.accrual WHERE earned <> 0) a USING (source, okey, rule, member, currency)
		 WHERE a.earned IS DISTINCT FROM t.amount OR a.bucket IS DISTINCT FROM t.bucket
			OR (a.version IS DISTINCT FROM t.version AND NOT t.kept)
		 ORDER BY 1;

	-- due = confirmed + hold, in the programme's zone
	RETURN QUERY
		SELECT format('due of %s %s, rule %s: %s, confirmed %s, hold %s', a.source, a.okey, a.rule, a.due, a.confirmed_at, t.hold)
		  FROM m_target t JOIN model.accrual a USING (source, okey, rule, member, currency)
		  JOIN m_row r USING (source, okey)
		 WHERE t.bucket = 'maturing' AND NOT t.kept
		   AND (a.due IS DISTINCT FROM (a.confirmed_at AT TIME ZONE zone + t.hold) AT TIME ZONE zone
				OR (r.confirmed_at IS NOT NULL AND a.confirmed_at <> r.confirmed_at));

	-- balances
	RETURN QUERY
		WITH want AS (
			SELECT member, currency,
				   coalesce(sum(amount) FILTER (WHERE bucket = 'tracked'), 0) AS tracked,
				   coalesce(sum(amount) FILTER (WHERE bucket = 'pending'), 0) AS pending,
				   coalesce(sum(amount) FILTER (WHERE bucket = 'maturing'), 0) AS maturing,
				   coalesce(sum(amount) FILTER (WHERE bucket = 'available'), 0) AS available
			  FROM m_target GROUP BY member, currency)
		SELECT format('balance of %s in %s: tracked %s pending %s maturing %s available %s held %s, the model says %s %s %s %s 0',
					  member, currency, b.tracked, b.pending, b.maturing, b.available, b.held,
					  coalesce(w.tracked, 0), coalesce(w.pending, 0), coalesce(w.maturing, 0), coalesce(w.available, 0))
		  FROM want w FULL JOIN rebate.balances b USING (member, currency)
		 WHERE b.account_id IS NULL
			OR ROW(b.tracked, b.pending, b.maturing, b.available, b.held) <>
			   ROW(coalesce(w.tracked, 0), coalesce(w.pending, 0), coalesce(w.maturing, 0), coalesce(w.available, 0), 0::numeric)
		 ORDER BY 1;

	-- entries: dense, and each leaves the balances that the one before and its two sides make
	RETURN QUERY
		WITH e AS (
			SELECT *, lag(seq, 1, 0::bigint) OVER w AS previous,
				   lag(tracked, 1, 0::numeric) OVER w AS tracked0, lag(pending, 1, 0::numeric) OVER w AS pending0,
				   lag(maturing, 1, 0::numeric) OVER w AS maturing0, lag(available, 1, 0::numeric) OVER w AS available0,
				   lead(seq) OVER w AS next
			  FROM rebate.entries WINDOW w AS (PARTITION BY account_id ORDER BY seq))
		SELECT format('entry %s of %s in %s (%s %s, %s to %s): after %s|%s|%s|%s comes %s|%s|%s|%s, previous entry %s', e.seq, e.member,
					  e.currency, e.kind, e.amount, e.debit, e.credit, e.tracked0, e.pending0, e.maturing0, e.available0,
					  e.tracked, e.pending, e.maturing, e.available, e.previous)
		  FROM e
		 WHERE e.seq <> e.previous + 1 OR e.amount <= 0
			OR abs(e.tracked - e.tracked0) + abs(e.pending - e.pending0) + abs(e.maturing - e.maturing0) + abs(e.available - e.available0)
			   <> e.amount * CASE e.kind WHEN 'move' THEN 2 ELSE 1 END
			OR (e.tracked - e.tracked0) + (e.pending - e.pending0) + (e.maturing - e.maturing0) + (e.available - e.available0)
			   <> e.amount * CASE e.kind WHEN 'accrue' THEN 1 WHEN 'reverse' THEN -1 ELSE 0 END
			OR (e.next IS NULL AND NOT EXISTS (
				SELECT FROM rebate.balances b
				 WHERE b.account_id = e.account_id AND b.last_entry = e.seq
				   AND ROW(b.tracked, b.pending, b.maturing, b.available) = ROW(e.tracked, e.pending, e.maturing, e.available)));

	-- and the engine's own opinion
	RETURN QUERY SELECT format('audit: %s %s %s %s', part, violation, subject, detail) FROM rebate.audit();
END
$$;

-- Nothing is posted twice: what is not zero, for comparing two runs.
CREATE FUNCTION model.totals() RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT format('%s %s: tracked %s pending %s maturing %s available %s held %s', member, currency,
				  tracked, pending, maturing, available, held)
	  FROM rebate.balances
	 WHERE (tracked, pending, maturing, available, held) <> (0, 0, 0, 0, 0)
	 ORDER BY member COLLATE "C", currency COLLATE "C"
$$;
