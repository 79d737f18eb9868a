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
-- What is recorded of splits
CREATE FUNCTION model.link_of(src regclass) RETURNS TABLE (okey text, target text)
LANGUAGE sql STABLE AS $$
	SELECT model.okey(l.order_key), model.okey(l.target_key)
	  FROM rebate_data.link l JOIN rebate.sources s USING (source_id)
	 WHERE s.source::text::regclass = src AND l.kind = 'r'
$$;
CREATE VIEW model.accrual AS
	SELECT a.source::text::regclass AS source, model.okey(a.order_key) AS okey, a.rule, a.version, a.member, a.currency,
		   a.earned, a.bucket, a.phase, a.confirmed_at, a.due, a.first_seen, a.generation
	  FROM rebate.accruals a;

-- Changes of rules that wait for a second person, if they do: what they were, and the version they were based on.
CREATE TABLE model.draft (draft integer PRIMARY KEY, rule text, arguments jsonb, at timestamptz, based_on integer);
CREATE TABLE model.approval (required boolean NOT NULL);
INSERT INTO model.approval VALUES (false);

CREATE FUNCTION model.last_version(name text) RETURNS model.rule_version
LANGUAGE sql STABLE AS $$ SELECT v FROM model.rule_version v WHERE v.rule = name ORDER BY v.version DESC LIMIT 1 $$;

-- A version was written.
CREATE FUNCTION model.record_rule(name text, args jsonb, written integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	last model.rule_version := model.last_version(name);
BEGIN
	IF written <> coalesce(last.version, 0) + 1 THEN
		RAISE EXCEPTION 'model: version % was written after %', written, last.version;
	END IF;
	INSERT INTO model.rule (name) VALUES (record_rule.name) ON CONFLICT DO NOTHING;
	INSERT INTO model.rule_version VALUES (name, written, model.generation(),
		CASE WHEN args ->> 'percent' IS NOT NULL THEN 'percent' WHEN args ->> 'fixed' IS NOT NULL THEN 'fixed' ELSE 'per_unit' END,
		coalesce(args ->> 'percent', args ->> 'fixed', args ->> 'per_unit')::numeric, args ->> 'currency', nullif(args -> 'scope', 'null'), args ->> 'condition',
		args ->> 'base', (args ->> 'minimum')::numeric, (args ->> 'max_per_order')::numeric, args ->> 'limit_mode',
		args ->> 'rounding', args ->> 'refund', args ->> 'unlinked_return', (args ->> 'hold')::interval, (args ->> 'priority')::integer, args ->> 'rule_group',
		(SELECT g.mode FROM model.rule_group g WHERE g.name = args ->> 'rule_group'),
		coalesce((args ->> 'valid_from')::timestamptz, now()), (args ->> 'valid_to')::timestamptz, (args ->> 'source')::regclass, args);
END
$$;

-- The last version ends.
CREATE FUNCTION model.record_end(name text, at timestamptz, written integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	last model.rule_version := model.last_version(name);
BEGIN
	IF written <> last.version + 1 THEN
		RAISE EXCEPTION 'model: ending version % wrote %', last.version, written;
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
END
$$;

-- A change that says what is there already writes nothing.  Others write a version, or a draft.
CREATE FUNCTION model.written(name text, args jsonb, at timestamptz, same boolean, result integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
	last model.rule_version := model.last_version(name);
	approval boolean := (SELECT required FROM model.approval);
BEGIN
	IF same THEN
		IF result IS DISTINCT FROM (CASE WHEN NOT approval THEN last.version END) THEN
			RAISE EXCEPTION 'model: the same again wrote % after %', result, last.version;
		END IF;
	ELSIF approval THEN
		INSERT INTO model.draft VALUES (result, name, args, at, coalesce(last.version, 0));
	ELSIF args IS NULL THEN
		PERFORM model.record_end(name, at, result);
	ELSE
		PERFORM model.record_rule(name, args, result);
	END IF;
	RETURN result;
END
$$;

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
	args jsonb := jsonb_build_object('percent', percent, 'fixed', fixed, 'per_unit', per_unit, 'currency', currency,
		'scope', scope, 'condition', condition, 'base', base, 'minimum', minimum, 'max_per_order', max_per_order,
		'limit_mode', limit_mode, 'rounding', rounding, 'refund', refund, 'unlinked_return', unlinked_return,
		'hold', hold, 'priority', priority, 'rule_group', rule_group, 'valid_from', valid_from, 'valid_to', valid_to,
		'source', source::text);
	last model.rule_version := model.last_version(name);
BEGIN
	RETURN model.written(name, args, NULL, coalesce(last.arguments = args, false),
		rebate.set_rule(name => name, percent => percent, fixed => fixed, per_unit => per_unit,
			currency => currency, scope => scope, condition => condition, base => base, minimum => minimum,
			max_per_order => max_per_order, limit_mode => limit_mode, rounding => rounding, refund => refund,
			unlinked_return => unlinked_return, hold => hold, priority => priority, rule_group => rule_group,
			valid_from => valid_from, valid_to => valid_to, source => source));
END
$$;

CREATE FUNCTION model.end_rule(name text, at timestamptz DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
	last model.rule_version := model.last_version(name);
BEGIN
	IF last.version IS NULL THEN
		RETURN NULL;		-- its first version was rolled back, or waits
	END IF;
	RETURN model.written(name, NULL, at, last.formula = 'none' AND (last.valid_from = at OR (at IS NULL AND last.valid_from <= now())),
		rebate.end_rule(name, at));
END
$$;

-- The second person approves a draft, or rejects it.  One that was written before another version is refused.
CREATE FUNCTION model.decide_draft(newest boolean, approves boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	d model.draft;
	stale boolean;
	version integer;
BEGIN
	SELECT * INTO d FROM model.draft ORDER BY CASE WHEN newest THEN -draft ELSE draft END LIMIT 1;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	stale := coalesce((model.last_version(d.rule)).version, 0) <> d.based_on;
	IF NOT approves OR stale THEN
		IF stale THEN
			BEGIN
				PERFORM rebate.approve_rule(d.draft);
				RAISE EXCEPTION 'model: stale draft % was approved', d.draft;
			EXCEPTION WHEN SQLSTATE 'RB017' THEN
				NULL;
			END;
		END IF;
		PERFORM rebate.reject_rule(d.draft, 'no');
	ELSE
		version := rebate.approve_rule(d.draft);
		IF d.arguments IS NULL THEN
			PERFORM model.record_end(d.rule, d.at, version);
		ELSE
			PERFORM model.record_rule(d.rule, d.arguments, version);
		END IF;
	END IF;
	DELETE FROM model.draft WHERE draft = d.draft;
END
$$;

CREATE FUNCTION model.require_approval() RETURNS void
LANGUAGE sql AS $$
	SELECT rebate.require_approval(true);
	UPDATE model.approval SET required = true
$$;

-- A member gets another key: what is posted is his.
CREATE FUNCTION model.replace_member(old text, now text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	who text := coalesce((SELECT a.now FROM model.alias a WHERE a.old = replace_member.old), old);
BEGIN
	IF EXISTS (SELECT FROM model.erased e WHERE e.member IN (who, replace_member.now)) OR who = replace_member.now THEN
		RETURN;
	END IF;
	PERFORM rebate.replace_member(who, now);
	DELETE FROM model.alias a WHERE a.old = replace_member.now;
	UPDATE model.alias a SET now = replace_member.now WHERE a.now = who;
	INSERT INTO model.alias VALUES (who, now);
	UPDATE model.kept k SET member = replace_member.now WHERE k.member = who;
	UPDATE model.matured m SET member = replace_member.now WHERE m.member = who;
END
$$;

-- A member leaves for good; the second person calls it.  Orders of his, unless they were given to somebody else since, move no money
-- any more; what is posted of them stays under his pseudonym, or is written off if there is a balance.
CREATE FUNCTION model.erase_member(member text, write_off boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	who text := coalesce((SELECT a.now FROM model.alias a WHERE a.old = erase_member.member), member);
	refused boolean;
	pseudonym text;
BEGIN
	PERFORM rebate.flush();
	CREATE TEMP TABLE m_his AS
		SELECT s.source::text::regclass AS source, model.okey(x.order_key) AS okey, x.accrual_id, bal.account_id IS NOT NULL AS off,
			   NOT EXISTS (SELECT FROM rebate_data.accrual o
							WHERE o.source_id = x.source_id AND o.order_key = x.order_key AND o.rule_id <> 0 AND o.account_id <> x.account_id
							  AND (o.earned <> 0 OR x.earned = 0 AND o.part > x.part)) AS his
		  FROM rebate_data.accrual x JOIN rebate_data.account a USING (account_id) JOIN rebate.sources s USING (source_id)
		  LEFT JOIN rebate.balances bal ON bal.account_id = x.account_id AND (bal.tracked, bal.pending, bal.maturing, bal.available, bal.held) <> (0, 0, 0, 0, 0)
		 WHERE a.member = who;
	refused := NOT write_off AND EXISTS (SELECT FROM rebate.balances b WHERE b.member = who AND (b.tracked, b.pending, b.maturing, b.available, b.held) <> (0, 0, 0, 0, 0));
	BEGIN
		pseudonym := rebate.erase_member(who, write_off);
		IF refused THEN
			RAISE EXCEPTION 'model: % had a balance and was erased', who;
		END IF;
	EXCEPTION WHEN SQLSTATE 'RB018' THEN
		DROP TABLE m_his;
		-- nobody asked for one who had no account then
		IF NOT refused AND NOT write_off THEN
			RAISE EXCEPTION 'model: % has no balance and was not erased', who;
		END IF;
		RETURN;
	END;
	IF pseudonym IS NULL AND EXISTS (SELECT FROM m_his) THEN
		RAISE EXCEPTION 'model: % had an account and was not erased', who;
	END IF;
	INSERT INTO model.erased SELECT a.old FROM model.alias a WHERE a.now = who UNION SELECT who ON CONFLICT DO NOTHING;
	DELETE FROM model.alias a WHERE a.now = who;
	INSERT INTO model.settled SELECT DISTINCT source, okey FROM m_his WHERE his ON CONFLICT DO NOTHING;
	INSERT INTO model.settled_target
		SELECT h.source, h.okey, a.rule, a.member, a.currency, a.earned, a.bucket
		  FROM m_his h JOIN rebate_data.accrual x USING (accrual_id) JOIN rebate.accruals v USING (accrual_id) JOIN model.accrual a
			ON a.source = h.source AND a.okey = h.okey AND a.rule = v.rule AND a.member = pseudonym AND a.currency = v.currency
		 WHERE NOT h.off AND a.earned <> 0;
	UPDATE model.freeze f SET reason = 'erased' FROM m_his h WHERE h.his AND f.source = h.source AND f.okey = h.okey;
	DROP TABLE m_his;
END
$$;

-- Before rebate.archive(): before which moment it is to move entries, the one that so large a part of them is older than.
CREATE TABLE model.archive (run serial, before timestamptz NOT NULL);
CREATE FUNCTION model.archive_moment(part numeric) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	moment timestamptz;
BEGIN
	PERFORM rebate.flush();
	SELECT posted_at INTO moment FROM rebate_data.ledger ORDER BY posted_at
		OFFSET (SELECT floor(count(*) * part) FROM rebate_data.ledger) LIMIT 1;
	moment := coalesce(moment, clock_timestamp());
	INSERT INTO model.archive (before) VALUES (moment);
	RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00');
END
$$;

-- And after it: all of them are moved, but the last of an account, and those that opened a rebate.
CREATE FUNCTION model.archived() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	SELECT count(*) INTO n
	  FROM rebate_data.entry e JOIN rebate_data.account a USING (account_id)
	 WHERE e.seq < a.last_entry AND e.posted_at < (SELECT before FROM model.archive ORDER BY run DESC LIMIT 1);
	IF n > 0 THEN
		RAISE EXCEPTION 'model: % entries are not archived', n;
	END IF;
END
$$;

-- The mode of a group is pinned in the versions of its rules: a change writes new ones.
CREATE FUNCTION model.set_group(name text, mode text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	last model.rule_version;
BEGIN
	PERFORM rebate.set_group(name, mode);
	IF NOT EXISTS (SELECT FROM model.rule_group g WHERE g.name = set_group.name) THEN
		INSERT INTO model.rule_group VALUES (name, mode);
		RETURN;
	END IF;
	IF EXISTS (SELECT FROM model.rule_group g WHERE g.name = set_group.name AND g.mode = set_group.mode) THEN
		RETURN;
	END IF;
	UPDATE model.rule_group g SET mode = set_group.mode WHERE g.name = set_group.name;
	FOR last IN
		SELECT v.* FROM model.rule_version v
		 WHERE v.version = (SELECT max(w.version) FROM model.rule_version w WHERE w.rule = v.rule)
		   AND v.rule_group = set_group.name AND v.formula <> 'none'
	LOOP
		last.version := last.version + 1;
		last.generation := model.generation();
		last.group_mode := set_group.mode;
		INSERT INTO model.rule_version SELECT last.*;
	END LOOP;
END
$$;

-- Called between statements: which orders exist under which generation.  Those that are deferred are
-- there, too; they have been seen since the last call.
CREATE FUNCTION model.observe() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	s model.source;
BEGIN
	PERFORM rebate.flush();
	FOR s IN SELECT * FROM model.source LOOP
		INSERT INTO model.seen
			SELECT d.source, d.okey, l.generation, model.generation(), d.first_seen, l.at, clock_timestamp(),
				   -- also one that was split from another, and since then deleted and inserted as one that is not: it keeps what it had
				   s.replaces IS NOT NULL AND (d.first_seen < l.at OR EXISTS (SELECT FROM model.link_of(s.source) k WHERE k.okey = d.okey))
			  FROM model.decision d, model.last_generation l
			 WHERE d.source = s.source
			ON CONFLICT (source, okey) DO NOTHING;
		INSERT INTO model.seen
			SELECT s.source, model.okey(d.order_key), l.generation, model.generation(), NULL, l.at, clock_timestamp(), s.replaces IS NOT NULL
			  FROM rebate_data.deferred d JOIN rebate.sources r USING (source_id), model.last_generation l
			 WHERE r.source::text::regclass = s.source
			ON CONFLICT (source, okey) DO NOTHING;
	END LOOP;
	UPDATE model.last_generation SET generation = model.generation(), at = clock_timestamp();
END
$$;

-- A new order will be split from one that is known: its facts are those.
CREATE FUNCTION model.before_split(src regclass, root text, part text) RETURNS void
LANGUAGE sql AS $$
	INSERT INTO model.seen
		SELECT source, part, lo, hi, first_seen, after, before, false FROM model.seen
		 WHERE source = src AND okey = root AND NOT loose AND first_seen IS NOT NULL
		   AND EXISTS (SELECT FROM model.decision d WHERE d.source = src AND d.okey = root)
		   AND NOT EXISTS (SELECT FROM model.decision d WHERE d.source = src AND d.okey = part)
	ON CONFLICT (source, okey) DO NOTHING
$$;
-- if it was: forget it, if not
CREATE FUNCTION model.after_split(src regclass, part text) RETURNS void
LANGUAGE sql AS $$
	SELECT rebate.flush();
	DELETE FROM model.seen s WHERE source = src AND okey = part
	   AND NOT EXISTS (SELECT FROM model.decision d WHERE d.source = src AND d.okey = part)
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
		INSERT INTO model.seen SELECT source, new, lo, hi, first_seen, after, before, loose FROM model.seen WHERE source = src AND okey = old;
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

-- Tables m_row and m_target: the rows and what they should have.
CREATE FUNCTION model.prepare() RETURNS void
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
	TRUNCATE model.fact, model.link;
	INSERT INTO model.fact
		SELECT source, okey, first_seen, generation, decision = 'before attachment' FROM model.decision;

	FOR s IN SELECT * FROM model.source LOOP
		INSERT INTO model.link SELECT s.source, l.* FROM model.link_of(s.source) l;
		INSERT INTO m_row SELECT s.source, r.* FROM model.rows(s.source) r;
		-- one that was given up may have come back meanwhile
		UPDATE model.aged a SET place = r.place FROM m_row r
		 WHERE a.source = s.source AND a.what = 'given up' AND r.source = s.source AND r.okey = a.okey
		   AND r.phase = a.phase AND r.place <> a.place
		   AND NOT EXISTS (SELECT FROM model.accrual x WHERE x.source = s.source AND x.okey = a.okey AND x.earned <> 0);
		INSERT INTO m_target
			SELECT s.source, t.*, false FROM model.targets(s.source) t
			UNION ALL
			SELECT s.source, k.okey, k.rule, NULL, k.member, k.currency, k.earned, k.bucket, NULL, true
			  FROM model.kept k JOIN m_row r USING (source, okey)
			 WHERE k.source = s.source AND r.failed
			   AND NOT EXISTS (SELECT FROM model.settled z WHERE z.source = s.source AND z.okey = r.okey)
			UNION ALL
			SELECT s.source, z.okey, z.rule, NULL, z.member, z.currency, z.earned, z.bucket, NULL, true
			  FROM model.settled_target z WHERE z.source = s.source;
	END LOOP;

	-- what has matured stays so, as long as nothing touched the order
	UPDATE m_target t SET bucket = 'available'
	  FROM model.matured m JOIN m_row r USING (source, okey) JOIN model.source src USING (source)
	 WHERE t.bucket = 'maturing' AND (m.source, m.okey, m.rule, m.member, m.currency) = (t.source, t.okey, t.rule, t.member, t.currency)
	   AND (m.place = r.place AND src.original IS NULL AND src.replaces IS NULL
			OR EXISTS (SELECT FROM model.accrual a WHERE (a.source, a.okey, a.rule, a.member, a.currency, a.bucket)
														 = (t.source, t.okey, t.rule, t.member, t.currency, 'available')));
END
$$;

-- Called before rebate.mature(upto): what it will make available.
CREATE FUNCTION model.before_mature(upto timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM model.prepare();
	INSERT INTO model.matured
		SELECT t.source, t.okey, t.rule, t.member, t.currency, r.place
		  FROM m_target t JOIN model.accrual a USING (source, okey, rule, member, currency) JOIN m_row r USING (source, okey)
		 WHERE t.bucket = 'maturing' AND a.bucket = 'maturing'
		   AND CASE WHEN t.kept THEN a.due ELSE model.clock_at(t.source, t.okey, a.confirmed_at, t.hold) END <= upto;
END
$$;

-- Called before rebate.age(upto): which orders it will confirm, and give up.
CREATE FUNCTION model.before_age(upto timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM model.prepare();
	INSERT INTO model.aged
		WITH waiting AS (
			SELECT DISTINCT r.source, r.okey, r.phase, r.place,
				   CASE WHEN r.phase = 'pending' THEN model.clock_at(r.source, r.okey, coalesce(r.order_time, f.first_seen), s.confirm_after) END AS confirm,
				   CASE WHEN NOT EXISTS (SELECT FROM model.aged a WHERE a.source = r.source AND a.okey = r.okey AND a.what = 'given up')
						THEN model.clock_at(r.source, r.okey, coalesce(r.order_time, f.first_seen), s.give_up_after) END AS give_up
			  FROM m_row r JOIN model.source s USING (source) JOIN model.fact f USING (source, okey)
			 WHERE EXISTS (SELECT FROM m_target t WHERE t.source = r.source AND t.okey = r.okey AND t.bucket IN ('tracked', 'pending')))
		SELECT source, okey, CASE WHEN confirm <= coalesce(give_up, confirm) THEN 'confirmed' ELSE 'given up' END,
			   -- when, unless it had been confirmed before
			   CASE WHEN NOT EXISTS (SELECT FROM model.accrual a WHERE a.source = w.source AND a.okey = w.okey AND a.confirmed_at IS NOT NULL)
					THEN least(confirm, give_up) END, phase, place
		  FROM waiting w WHERE least(confirm, give_up) <= upto;
END
$$;

-- What is available stays so.
CREATE FUNCTION model.freeze(src regclass, okey text, reason text, at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM model.prepare();
	INSERT INTO model.matured
		SELECT t.source, t.okey, t.rule, t.member, t.currency, r.place
		  FROM m_target t JOIN m_row r USING (source, okey)
		 WHERE t.source = src AND t.okey = model.okey("freeze".okey) AND t.bucket = 'available' AND t.amount > 0;
	IF rebate.freeze(src, okey, reason, at) THEN
		INSERT INTO model.freeze VALUES (src, model.okey(okey), reason, at, NULL);
	END IF;
END
$$;

CREATE FUNCTION model.unfreeze(src regclass, okey text, reason text, at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	ended integer := rebate.unfreeze(src, okey, reason, at);
	n integer;
BEGIN
	UPDATE model.freeze f SET until = at
	 WHERE f.source = src AND f.okey = model.okey(unfreeze.okey) AND f.until IS NULL AND f.reason = coalesce(unfreeze.reason, f.reason);
	GET DIAGNOSTICS n = ROW_COUNT;
	IF n <> ended THEN
		RAISE EXCEPTION 'model: unfreeze ended % freezes, not %', ended, n;
	END IF;
END
$$;

CREATE FUNCTION model.unfreeze_all() RETURNS void
LANGUAGE sql AS $$
	SELECT model.unfreeze(f.source, d.order_key, NULL, now())
	  FROM (SELECT DISTINCT source, okey FROM model.freeze WHERE until IS NULL) f
	  JOIN rebate.decisions d ON d.source::text::regclass = f.source AND model.okey(d.order_key) = f.okey
$$;

CREATE FUNCTION model.set_ageing(src regclass, confirm_after interval, give_up_after interval) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM rebate.set_ageing(src, confirm_after, give_up_after);
	UPDATE model.source s SET confirm_after = set_ageing.confirm_after, give_up_after = set_ageing.give_up_after WHERE s.source = src;
END
$$;

-- At the end of a stream: nothing is left to post, each event is in the feed once, and the doctor finds nothing.
CREATE FUNCTION model.finish() RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT count(*) FROM rebate.entries);
	s regclass;
BEGIN
	FOR s IN SELECT source FROM model.source LOOP
		PERFORM rebate.reconcile(s);
	END LOOP;
	RETURN QUERY
		SELECT format('reconcile once more: %s entries, there were %s', count(*), before)
		  FROM rebate.entries HAVING count(*) <> before;
	RETURN QUERY
		SELECT format('doctor: %s %s %s', "check", subject, detail) FROM rebate.doctor()
		 WHERE status = 'problem' AND "check" NOT IN ('settings', 'failures', 'clock');
END
$$;

-- In a transaction of its own: the feed has what is committed, or tells that entries are archived.
CREATE FUNCTION model.events() RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM rebate_data.archive) THEN
		BEGIN
			RETURN QUERY SELECT format('the feed has %s events though some are archived', count(*)) FROM rebate.feed(NULL, 100000);
		EXCEPTION WHEN SQLSTATE 'RB016' THEN
			NULL;
		END;
		RETURN;
	END IF;
	RETURN QUERY WITH e AS (SELECT n, event ->> 'account' AS account, (event ->> 'seq')::bigint AS seq
				 FROM rebate.feed(NULL, 100000) WITH ORDINALITY f(cursor, event, n)),
	gaps AS (SELECT account, seq, lag(seq, 1, 0::bigint) OVER (PARTITION BY account ORDER BY n) AS previous FROM e)
	SELECT format('event %s of account %s comes after %s', seq, account, previous) FROM gaps WHERE seq <> previous + 1
	UNION ALL
	SELECT format('%s events of %s entries', (SELECT count(*) FROM e), count(*)) FROM rebate.entries HAVING count(*) <> (SELECT count(*) FROM e);
END
$$;

CREATE FUNCTION model.check(old_orders boolean DEFAULT true) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM model.prepare();

	-- every order has a decision, and the right one
	RETURN QUERY
		SELECT format('decision of %s %s: %s', r.source, r.okey, CASE
				WHEN d.okey IS NULL THEN 'none'
				WHEN d.generation IS NULL OR d.first_seen IS NULL THEN 'without facts'
				ELSE format('%s, but the row is %s', d.decision, CASE WHEN r.failed THEN 'failing' WHEN r.order_time < src.since THEN 'older than since'
						WHEN r.member IS NULL THEN 'a guest''s' ELSE 'good' END) END)
		  FROM m_row r JOIN model.source src USING (source) LEFT JOIN model.decision d USING (source, okey)
		  CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM model.erased e WHERE e.member = r.member)
								  OR EXISTS (SELECT FROM model.settled z WHERE z.source = r.source AND z.okey = r.okey) AS gone) g
		 -- rows that are older than "since" when the table is attached leave no trace
		 WHERE (d.okey IS NULL AND NOT coalesce(r.order_time < src.since, false))
			OR (d.okey IS NOT NULL AND (d.generation IS NULL OR d.first_seen IS NULL))
			-- one of an erased member that never had a rebate may not have been looked at since
			OR (d.decision <> 'erased' AND EXISTS (SELECT FROM model.settled z WHERE z.source = r.source AND z.okey = r.okey))
			OR (d.decision = 'erased' AND NOT g.gone)
			OR (d.decision <> 'before attachment' AND NOT g.gone AND NOT coalesce(r.order_time < src.since, false)
				AND ((d.decision = 'failed') <> r.failed AND r.member IS NOT NULL
					 OR (d.decision = 'guest') <> (r.member IS NULL AND r.original IS NULL) AND NOT r.failed))
			OR (d.decision <> 'before attachment' AND NOT g.gone AND r.order_time < src.since AND NOT r.failed AND r.member IS NOT NULL)
			OR (d.decision = 'before attachment' AND NOT old_orders);

	-- facts as the test saw them
	RETURN QUERY
		SELECT format('facts of %s %s: generation %s first seen %s, the test saw %s..%s, %s', d.source, d.okey,
					  d.generation, d.first_seen, n.lo, n.hi, n.first_seen)
		  FROM model.decision d JOIN model.seen n USING (source, okey)
		 WHERE NOT n.loose AND (d.generation NOT BETWEEN n.lo AND n.hi OR d.first_seen <> n.first_seen
								OR d.first_seen NOT BETWEEN n.after AND n.before)
		UNION ALL
		SELECT format('facts of %s %s: generation %s, the test expects %s..%s', d.source, d.okey,
					  d.generation, l.generation, model.generation())
		  FROM model.decision d, model.last_generation l
		 WHERE NOT EXISTS (SELECT FROM model.seen n WHERE n.source = d.source AND n.okey = d.okey)
		   AND NOT EXISTS (SELECT FROM model.link k WHERE k.source = d.source AND k.okey = d.okey)
		   -- was it split from another one before it became one that is not
		   AND NOT (d.first_seen < l.at AND EXISTS (SELECT FROM model.source s WHERE s.source = d.source AND s.replaces IS NOT NULL))
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
		   AND (a.due IS DISTINCT FROM model.clock_at(a.source, a.okey, a.confirmed_at, t.hold)
				-- confirmed by the clock, not before
				OR EXISTS (SELECT FROM model.aged g WHERE g.source = a.source AND g.okey = a.okey AND g.what = 'confirmed'
							  AND g.place = r.place AND a.confirmed_at <> coalesce(r.confirmed_at, g.at))
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

	-- what is archived is old enough, and not the last of its account
	RETURN QUERY
		SELECT format('entry %s of account %s is archived', e.seq, e.account_id)
		  FROM rebate_data.entry_archive e JOIN rebate_data.account a USING (account_id)
		 WHERE e.seq >= a.last_entry OR NOT EXISTS (SELECT FROM model.archive m WHERE e.posted_at < m.before);

	-- where it ends is known with the balances of then
	RETURN QUERY
		SELECT format('archive of account %s ends at %s, the last entry that was archived is %s', account_id, b, e)
		  FROM (SELECT DISTINCT ON (account_id) account_id, seq, posted_at, coalesce(tracked, 0) AS tracked, coalesce(pending, 0) AS pending,
					   coalesce(maturing, 0) AS maturing, coalesce(available, 0) AS available
				  FROM (SELECT account_id, seq, posted_at, tracked, pending, maturing, available FROM rebate_data.entry_archive
						 UNION ALL SELECT account_id, seq, posted_at, tracked, pending, maturing, available FROM rebate_data.carried) a
				 ORDER BY account_id, seq DESC) e
		  FULL JOIN rebate_data.boundary b USING (account_id)
		 WHERE ROW(b.seq, b.posted_at, b.tracked, b.pending, b.maturing, b.available)
			   IS DISTINCT FROM ROW(e.seq, e.posted_at, e.tracked, e.pending, e.maturing, e.available);

	-- entries: dense behind those that were dropped, and each leaves the balances that the one before and its two sides make
	RETURN QUERY
		WITH f AS (
			SELECT b.account_id, coalesce(c.seq, 0) AS seq, coalesce(c.tracked * u.unit, 0) AS tracked, coalesce(c.pending * u.unit, 0) AS pending,
				   coalesce(c.maturing * u.unit, 0) AS maturing, coalesce(c.available * u.unit, 0) AS available
			  FROM rebate.balances b JOIN rebate_data.currency u ON u.code = b.currency LEFT JOIN rebate_data.carried c USING (account_id)),
		e AS (
			SELECT n.*, lag(n.seq, 1, f.seq) OVER w AS previous,
				   lag(n.tracked, 1, f.tracked) OVER w AS tracked0, lag(n.pending, 1, f.pending) OVER w AS pending0,
				   lag(n.maturing, 1, f.maturing) OVER w AS maturing0, lag(n.available, 1, f.available) OVER w AS available0,
				   lead(n.seq) OVER w AS next
			  FROM rebate.entries n JOIN f ON f.account_id = n.account_id AND n.seq > f.seq WINDOW w AS (PARTITION BY n.account_id ORDER BY n.seq))
		SELECT format('entry %s of %s in %s (%s %s, %s to %s): after %s|%s|%s|%s comes %s|%s|%s|%s, previous entry %s', e.seq, e.member,
					  e.currency, e.kind, e.amount, e.debit, e.credit, e.tracked0, e.pending0, e.maturing0, e.available0,
					  e.tracked, e.pending, e.maturing, e.available, e.previous)
		  FROM e
		 WHERE e.seq <> e.previous + 1 OR e.amount <= 0
			OR abs(e.tracked - e.tracked0) + abs(e.pending - e.pending0) + abs(e.maturing - e.maturing0) + abs(e.available - e.available0)
			   <> e.amount * CASE e.kind WHEN 'move' THEN 2 ELSE 1 END
			OR (e.tracked - e.tracked0) + (e.pending - e.pending0) + (e.maturing - e.maturing0) + (e.available - e.available0)
			   <> e.amount * CASE WHEN e.kind = 'accrue' OR e.kind = 'write_off' AND e.credit LIKE 'member:%' THEN 1 WHEN e.kind = 'move' THEN 0 ELSE -1 END
			OR (e.next IS NULL AND NOT EXISTS (
				SELECT FROM rebate.balances b
				 WHERE b.account_id = e.account_id AND b.last_entry = e.seq
				   AND ROW(b.tracked, b.pending, b.maturing, b.available) = ROW(e.tracked, e.pending, e.maturing, e.available)));

	-- the trial balance, and the balances of all members
	RETURN QUERY
		SELECT format('trial balance in %s: available %s, members have %s', currency, t.balance, b.available)
		  FROM (SELECT currency, sum(available) AS available FROM rebate.balances GROUP BY currency) b
		  FULL JOIN (SELECT currency, - balance AS balance FROM rebate.trial_balance WHERE code = 'member:available') t USING (currency)
		 WHERE coalesce(b.available, 0) <> coalesce(t.balance, 0)
		UNION ALL
		SELECT format('trial balance in %s: it comes to %s', currency, sum(balance)) FROM rebate.trial_balance GROUP BY currency HAVING sum(balance) <> 0;

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
