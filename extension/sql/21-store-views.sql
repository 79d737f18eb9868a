-- The views over the store.  They are the owner's too, so that a grant on a
-- view is all that a reader needs.  Only pg_catalog is used: the views outlive
-- nothing of ours but the schema they are in.
CREATE FUNCTION rebate.store_views() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$ SELECT $ddl$
CREATE OR REPLACE VIEW rebate.balances AS
SELECT a.member, a.currency,
	   a.tracked * c.unit AS tracked,
	   a.pending * c.unit AS pending,
	   a.maturing * c.unit AS maturing,
	   a.available * c.unit AS available,
	   a.held * c.unit AS held,
	   a.last_entry, a.account_id, a.opened_at
FROM rebate_data.account a
JOIN rebate_data.currency c ON c.code = a.currency;
COMMENT ON VIEW rebate.balances IS 'balances by bucket: one row a member and currency';

CREATE OR REPLACE VIEW rebate.accruals AS
SELECT x.accrual_id, a.member, a.currency, s.relation_name AS source,
	   x.order_key, r.name AS rule, x.version,
	   CASE x.phase WHEN 't' THEN 'tracked' WHEN 'p' THEN 'pending'
			WHEN 'c' THEN 'confirmed' WHEN 'v' THEN 'void' END AS phase,
	   CASE x.bucket WHEN '0' THEN 'tracked' WHEN '1' THEN 'pending'
			WHEN '2' THEN 'maturing' WHEN '3' THEN 'available'
			WHEN '4' THEN 'held' END AS bucket,
	   x.earned * c.unit AS earned,
	   x.base, x.order_time, x.confirmed_at, x.due, x.first_seen,
	   x.generation, x.account_id
FROM rebate_data.accrual x
JOIN rebate_data.account a ON a.account_id = x.account_id
JOIN rebate_data.currency c ON c.code = a.currency
LEFT JOIN rebate_data.source s ON s.source_id = x.source_id
LEFT JOIN rebate_data.rule r ON r.rule_id = x.rule_id
WHERE x.rule_id <> 0 AND x.seq IS NOT NULL;
COMMENT ON VIEW rebate.accruals IS 'rebates: one row an order, rule and account, with what it earned and where that stands; bucket is NULL if it is nowhere';

CREATE OR REPLACE VIEW rebate.entries AS
SELECT e.account_id, e.seq, a.member, a.currency,
	   CASE e.kind WHEN 'a' THEN 'accrue' WHEN 'r' THEN 'reverse'
			WHEN 'm' THEN 'move' WHEN 'w' THEN 'write_off' ELSE e.kind::text END AS kind,
	   d.code AS debit, k.code AS credit,
	   e.amount * c.unit AS amount,
	   s.relation_name AS source, e.order_key,
	   r.name AS rule, e.accrual_id,
	   e.posting_id,
	   e.tracked * c.unit AS tracked,
	   e.pending * c.unit AS pending,
	   e.maturing * c.unit AS maturing,
	   e.available * c.unit AS available,
	   e.held * c.unit AS held,
	   e.event_at, e.effective_date, e.book_date, e.posted_at
FROM rebate_data.ledger e
JOIN rebate_data.account a ON a.account_id = e.account_id
JOIN rebate_data.currency c ON c.code = a.currency
LEFT JOIN rebate_data.ledger_account d ON d.ledger_account_id = e.debit
LEFT JOIN rebate_data.ledger_account k ON k.ledger_account_id = e.credit
LEFT JOIN rebate_data.source s ON s.source_id = e.source_id
LEFT JOIN rebate_data.rule r ON r.rule_id = e.rule_id;
COMMENT ON VIEW rebate.entries IS 'the ledger: each movement of money of a member, with the balances after it; seq is dense';

-- For an export: enough to recompute the checks, and to load it into tables elsewhere.
CREATE OR REPLACE VIEW rebate.archived_entries AS
SELECT e.account_id, e.seq, a.member, a.currency, e.kind::text AS kind,
	   d.code AS debit, k.code AS credit, e.amount * c.unit AS amount,
	   s.relation_name AS source, e.order_key, r.name AS rule,
	   e.accrual_id, e.posting_id, e.payout_id,
	   e.tracked * c.unit AS tracked, e.pending * c.unit AS pending, e.maturing * c.unit AS maturing,
	   e.available * c.unit AS available, e.held * c.unit AS held,
	   e.event_at, e.effective_date, e.book_date, e.posted_at,
	   NOT EXISTS (SELECT FROM rebate_data.entry_archive x
				   WHERE x.account_id = e.account_id AND x.seq = e.seq) AS stays,
	   e.epoch, e.xid, e."check", c.unit, e.debit AS debit_id, e.credit AS credit_id, e.rule_id
FROM rebate_data.boundary b
JOIN rebate_data.ledger e ON e.account_id = b.account_id AND e.seq <= b.seq
LEFT JOIN rebate_data.carried f ON f.account_id = b.account_id
JOIN rebate_data.account a ON a.account_id = e.account_id
JOIN rebate_data.currency c ON c.code = a.currency
LEFT JOIN rebate_data.ledger_account d ON d.ledger_account_id = e.debit
LEFT JOIN rebate_data.ledger_account k ON k.ledger_account_id = e.credit
LEFT JOIN rebate_data.source s ON s.source_id = e.source_id
LEFT JOIN rebate_data.rule r ON r.rule_id = e.rule_id
WHERE f.seq IS NULL OR e.seq > f.seq;
COMMENT ON VIEW rebate.archived_entries IS 'the stretch of each account''s entries that is archived, for an export before rebate.drop_archived(), which leaves those that stay';

CREATE OR REPLACE VIEW rebate.dropped_archives AS
SELECT d.before, d.exported_to, d.entries, d.began_at, d.dropped_by
FROM rebate_data.dropped d;
COMMENT ON VIEW rebate.dropped_archives IS 'runs of rebate.drop_archived(): how many entries they removed, and where those can be read';

CREATE OR REPLACE VIEW rebate.decisions AS
SELECT s.relation_name AS source, x.order_key,
	   CASE WHEN pg_catalog.bit_or(x.flags) & 16384 <> 0 THEN 'erased'
			WHEN pg_catalog.bit_or(x.flags) & 2 <> 0 THEN 'failed'
			WHEN pg_catalog.bit_or(x.flags) & 257 <> 0 THEN 'before attachment'
			WHEN pg_catalog.bit_or(x.flags) & 512 <> 0 THEN
				CASE WHEN pg_catalog.bit_or(x.flags) & 8 = 0 AND EXISTS (
					SELECT FROM rebate_data.link l
					WHERE l.source_id = x.source_id AND l.order_key = x.order_key AND l.kind = 'o'
					  AND NOT EXISTS (
						SELECT FROM rebate_data.accrual o
						WHERE o.source_id = l.source_id AND o.order_key = l.target_key
						  AND (o.flags & 40 = 0 OR o.flags & 16384 <> 0)))
				THEN 'waits for its original' ELSE 'return' END
			WHEN pg_catalog.bit_or(x.flags) & 4 <> 0 THEN 'guest'
			WHEN pg_catalog.bool_or(x.rule_id <> 0) THEN 'accrued'
			ELSE 'no rule' END AS decision,
	   pg_catalog.min(x.first_seen) AS first_seen,
	   pg_catalog.min(x.generation) AS generation,
	   pg_catalog.count(*) FILTER (WHERE x.rule_id <> 0) AS rebates,
	   COALESCE(pg_catalog.sum(x.earned * c.unit) FILTER (WHERE x.rule_id <> 0), 0) AS earned
FROM rebate_data.accrual x
JOIN rebate_data.source s ON s.source_id = x.source_id
LEFT JOIN rebate_data.account a ON a.account_id = x.account_id
LEFT JOIN rebate_data.currency c ON c.code = a.currency
GROUP BY x.source_id, s.relation_name, x.order_key;
COMMENT ON VIEW rebate.decisions IS 'what was concluded for each order seen: accrued, no rule, guest, erased, before attachment, failed; of a return: return, or waits for its original';

CREATE OR REPLACE VIEW rebate.failures AS
SELECT s.relation_name AS source, f.order_key, f.sqlstate, f.message, f.detail,
	   f.first_failed_at, f.last_failed_at, f.attempts
FROM rebate_data.failure f
LEFT JOIN rebate_data.source s ON s.source_id = f.source_id;
COMMENT ON VIEW rebate.failures IS 'orders set aside because they could not be decided; the next change of the row, or rebate.retry(), decides it again';

-- Messages and details have values of rows; who only counts failures needs none.
CREATE OR REPLACE VIEW rebate.failed_orders AS
SELECT s.relation_name AS source, f.order_key, f.sqlstate,
	   f.first_failed_at, f.last_failed_at, f.attempts
FROM rebate_data.failure f
LEFT JOIN rebate_data.source s ON s.source_id = f.source_id;
COMMENT ON VIEW rebate.failed_orders IS 'as rebate.failures, without what it says of the values of rows';

CREATE OR REPLACE VIEW rebate.sources AS
SELECT s.relation_name AS source, s.source_id, s.key_columns AS key, s.member,
	   s.amount, COALESCE(s.currency_code, s.currency) AS currency, s.since,
	   s.attached_at, s.attached_by, s.detached_at, s.arguments,
	   (SELECT pg_catalog.count(*) FROM rebate_data.failure f WHERE f.source_id = s.source_id) AS failures,
	   (SELECT pg_catalog.count(*) FROM rebate_data.deferred d WHERE d.source_id = s.source_id) AS deferred
FROM rebate_data.source s;
COMMENT ON VIEW rebate.sources IS 'order tables that rebates are, or were, attached to, with what is mapped';

CREATE OR REPLACE VIEW rebate.rule_versions AS
SELECT r.name AS rule, v.version, v.formula, v.rate, v.currency, v.scope,
	   v.condition, v.valid_from, v.valid_to, g.name AS rule_group, v.priority,
	   p.name AS campaign, v.arguments, v.generation, v.created_at, v.created_by,
	   d.draft_id AS draft, COALESCE(d.decided_claim, d.decided_by) AS approved_by
FROM rebate_data.rule_version v
JOIN rebate_data.rule r ON r.rule_id = v.rule_id
LEFT JOIN rebate_data.rule_group g ON g.group_id = v.group_id
LEFT JOIN rebate_data.campaign p ON p.campaign_id = v.campaign_id
LEFT JOIN rebate_data.draft d ON d.generation = v.generation AND d.state = 'approved';
COMMENT ON VIEW rebate.rule_versions IS 'all versions of the rules; formula "none" pays nothing: the rule was ended';

CREATE OR REPLACE VIEW rebate.rules AS
SELECT r.name AS rule, v.version, v.formula, v.rate, v.currency, v.scope,
	   v.condition, v.valid_from, v.valid_to, g.name AS rule_group, v.priority,
	   p.name AS campaign, v.arguments
FROM rebate_data.rule r
CROSS JOIN LATERAL (
	SELECT * FROM rebate_data.rule_version l
	WHERE l.rule_id = r.rule_id ORDER BY l.version DESC LIMIT 1) v
LEFT JOIN rebate_data.rule_group g ON g.group_id = v.group_id
LEFT JOIN rebate_data.campaign p ON p.campaign_id = v.campaign_id;
COMMENT ON VIEW rebate.rules IS 'the last version of each rule';

-- What an open draft changes is told against what is current now, what an approved
-- one changed against the version before its own.
CREATE OR REPLACE VIEW rebate.rule_drafts AS
SELECT d.draft_id AS draft, d.kind, d.name AS rule, d.state,
	   (SELECT pg_catalog.jsonb_object_agg(COALESCE(o.key, n.key), pg_catalog.jsonb_build_object('from', o.value, 'to', n.value))
		FROM pg_catalog.jsonb_each(CASE WHEN d.state = 'open' THEN c.arguments
									WHEN d.version IS NOT NULL THEN b.arguments
									ELSE d.replaces END) o
		FULL JOIN pg_catalog.jsonb_each(d.arguments) n ON n.key = o.key
		WHERE o.value IS DISTINCT FROM n.value
		  AND (d.kind <> 'end' OR n.key IS NOT NULL)) AS changes,
	   d.arguments, d.condition, d.base, d.base_version, c.version AS current_version,
	   d.state = 'open' AND c.version <> d.base_version AS stale,
	   d.author, d.author_claim, d.author_role, d.written_at,
	   d.decided_by, d.decided_claim, d.decided_at, d.reason, d.version
FROM rebate_data.draft d
LEFT JOIN rebate_data.rule r ON r.name = d.name AND d.kind IN ('rule', 'end')
LEFT JOIN rebate_data.rule_version b ON b.rule_id = r.rule_id AND b.version = d.version - 1
CROSS JOIN LATERAL (
	SELECT CASE d.kind WHEN 'group' THEN pg_catalog.max(g.generation)
			   WHEN 'approval' THEN 0 ELSE COALESCE(pg_catalog.max(l.version), 0) END AS version,
		   CASE d.kind WHEN 'group' THEN pg_catalog.jsonb_build_object('mode', pg_catalog.max(g.mode))
			   WHEN 'approval' THEN d.replaces
			   ELSE (SELECT k.arguments FROM rebate_data.rule_version k
					 WHERE k.rule_id = r.rule_id ORDER BY k.version DESC LIMIT 1) END AS arguments
	FROM (VALUES (1)) one (one)
	LEFT JOIN rebate_data.rule_group g ON g.name = d.name AND d.kind = 'group'
	LEFT JOIN rebate_data.rule_version l ON l.rule_id = r.rule_id) c;
COMMENT ON VIEW rebate.rule_drafts IS 'changes of rules that wait for approval, and those that were decided: who wrote them, what they change, who decided';

-- What was folded, and the entries since then: those of later epochs, of which there
-- are none as a rule, and in the mark's epoch those of its transaction and later ones.
-- The first condition leads to the pages by the index of transaction ids.  The second
-- is true of all: a range that is closed on both sides is taken for a small part of the
-- table, and so are its entries, which is what they are.  OFFSET 0 has the account of
-- each of them looked up, instead of all accounts read.
-- A bucket shows zero where no entry ever moved it.
CREATE OR REPLACE VIEW rebate.trial_balance AS
SELECT t.code, t.kind, t.campaign, t.currency,
	   GREATEST(t.balance, 0 * t.balance) AS debit,
	   GREATEST(- t.balance, 0 * t.balance) AS credit,
	   t.balance
FROM (
	SELECT l.code, l.kind, p.name AS campaign, s.currency, s.amount * c.unit AS balance
	FROM (
		SELECT h.ledger_account_id, h.currency, pg_catalog.sum(h.amount) AS amount
		FROM (
			SELECT b.ledger_account_id, b.currency, b.amount FROM rebate_data.checkpoint b
			UNION ALL
			SELECT g.ledger_account_id, m.currency, g.amount
			FROM (
				SELECT e.debit, e.credit, a.currency, pg_catalog.sum(e.amount) AS amount
				FROM rebate_data.ledger e
				CROSS JOIN LATERAL (
					SELECT o.currency FROM rebate_data.account o
					WHERE o.account_id = e.account_id OFFSET 0) a
				WHERE e.xid >= (SELECT CASE WHEN p.epoch > f.checkpoint_epoch THEN 0
										WHEN p.epoch = f.checkpoint_epoch THEN f.checkpoint_xid
										ELSE 9223372036854775807 END
								FROM rebate_data.fold f
								CROSS JOIN (SELECT pg_catalog.max(q.epoch) AS epoch FROM rebate_data.epoch q) p)
				  AND e.xid <= 9223372036854775807
				  AND (e.epoch, e.xid) >= (SELECT f.checkpoint_epoch, f.checkpoint_xid FROM rebate_data.fold f)
				GROUP BY e.debit, e.credit, a.currency) m
			CROSS JOIN LATERAL (VALUES (m.debit, m.amount), (m.credit, - m.amount),
								(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)) AS g (ledger_account_id, amount)) h
		GROUP BY h.ledger_account_id, h.currency) s
	JOIN rebate_data.ledger_account l ON l.ledger_account_id = s.ledger_account_id
	JOIN rebate_data.currency c ON c.code = s.currency
	LEFT JOIN rebate_data.campaign p ON p.expense_account = s.ledger_account_id) t;
COMMENT ON VIEW rebate.trial_balance IS 'all accounts at one moment, members'' by bucket and the others by campaign: balance is debits less credits, and its sum is zero in each currency';

CREATE OR REPLACE VIEW rebate.house_balances AS
SELECT t.code, t.kind, t.currency, t.balance
FROM rebate.trial_balance t
JOIN rebate_data.ledger_account l ON l.code = t.code
WHERE l.ledger_account_id >= 10;
COMMENT ON VIEW rebate.house_balances IS 'debits less credits of each account that is no member''s, by currency';

CREATE OR REPLACE VIEW rebate.findings AS
SELECT f.found_at, f.part, f.violation, f.subject, f.detail
FROM rebate_data.finding f;
COMMENT ON VIEW rebate.findings IS 'what the last audit by the clock found';

CREATE OR REPLACE VIEW rebate.freezes AS
SELECT s.relation_name AS source, f.order_key, f.reason, f.frozen_at, f.frozen_by,
	   f.unfrozen_at, f.unfrozen_by
FROM rebate_data.freeze f
LEFT JOIN rebate_data.source s ON s.source_id = f.source_id;
COMMENT ON VIEW rebate.freezes IS 'orders whose rebates are or were frozen, and why';

-- A run holds an advisory lock of our own class (0x5203 = 20995) as long as it lasts.
CREATE OR REPLACE VIEW rebate.jobs AS
SELECT j.job,
	   CASE WHEN EXISTS (
				SELECT FROM pg_catalog.pg_locks l
				WHERE l.locktype = 'advisory' AND l.objsubid = 20995 AND l.granted
				  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
									WHERE d.datname = pg_catalog.current_database())
				  AND l.pid = j.pid AND l.objid::bigint = j.lock_key) THEN 'running'
			WHEN j.finished_at IS NOT NULL THEN 'finished' ELSE 'stopped' END AS state,
	   j.upto, j.started_at, j.progress_at, j.finished_at, j.batches, j.done, j.pid,
	   j.started_by
FROM rebate_data.job j;
COMMENT ON VIEW rebate.jobs IS 'the last run of each job of the clock, and how far it is';

CREATE OR REPLACE VIEW rebate.ledger_accounts AS
SELECT l.code, l.kind, l.description
FROM rebate_data.ledger_account l;
COMMENT ON VIEW rebate.ledger_accounts IS 'chart of accounts: the codes that entries debit and credit';

CREATE OR REPLACE VIEW rebate.logins AS
SELECT l.login, l.member,
	   EXISTS (SELECT FROM pg_catalog.pg_roles r
			   WHERE r.rolname = l.login
				 AND (r.oid = l.role_oid OR l.system_identifier <>
					  (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s))) AS in_force,
	   l.mapped_at, l.mapped_by
FROM rebate_data.login l;
COMMENT ON VIEW rebate.logins IS 'roles that see the rows of a member; not in force: the role is gone, or another one of that name';

CREATE OR REPLACE VIEW rebate.granted_rights AS
SELECT g.role_name AS role, g.right_name,
	   EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname::text = g.role_name) AS role_exists,
	   g.granted_at, g.granted_by
FROM rebate_data.granted_right g;
COMMENT ON VIEW rebate.granted_rights IS 'the rights that roles were granted by rebate.grant_right()';
$ddl$ $function$;
COMMENT ON FUNCTION rebate.store_views() IS 'the DDL of the views that rebate.create_store() makes';
REVOKE ALL ON FUNCTION rebate.store_views() FROM PUBLIC;
REVOKE ALL ON FUNCTION rebate.store_tables() FROM PUBLIC;
