\echo Use "CREATE EXTENSION rebate" to load this file. \quit

-- CREATE EXTENSION must not put its functions into a schema that somebody else
-- prepared: its owner could replace them.
DO $$
BEGIN
	IF (SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'rebate')
		<> (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
	   AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_namespace n
				JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'rebate')
	THEN
		RAISE EXCEPTION 'schema "rebate" belongs to somebody else'
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'Drop or rename that schema, then run CREATE EXTENSION again.';
	END IF;
END
$$;

COMMENT ON SCHEMA rebate IS 'rebates on order tables: functions, and views over the ledger';
-- Trigger functions on order tables.  Nobody may create triggers with them but
-- the store's owner, whom rebate.create_store() grants it.
CREATE FUNCTION rebate.collect() RETURNS trigger
AS 'MODULE_PATHNAME', 'rebate_collect' LANGUAGE C;
COMMENT ON FUNCTION rebate.collect() IS 'hands the rows of a statement on an attached table to the engine';
REVOKE ALL ON FUNCTION rebate.collect() FROM PUBLIC;

CREATE FUNCTION rebate.collect_truncate() RETURNS trigger
AS 'MODULE_PATHNAME', 'rebate_collect_truncate' LANGUAGE C;
COMMENT ON FUNCTION rebate.collect_truncate() IS 'refuses TRUNCATE of an attached table, or takes its orders as deleted';
REVOKE ALL ON FUNCTION rebate.collect_truncate() FROM PUBLIC;

CREATE FUNCTION rebate.collect_row() RETURNS trigger
AS 'MODULE_PATHNAME', 'rebate_collect_row' LANGUAGE C;
COMMENT ON FUNCTION rebate.collect_row() IS 'hands a replicated row of an attached table to the engine';
REVOKE ALL ON FUNCTION rebate.collect_row() FROM PUBLIC;

-- Event triggers: partitions that come and go, and what is renamed.
CREATE FUNCTION rebate.follow_partitions() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'rebate_follow_partitions' LANGUAGE C;
COMMENT ON FUNCTION rebate.follow_partitions() IS 'after DDL: puts triggers on new partitions of attached tables, archives the rebates of detached ones, follows renamed tables and columns';
REVOKE ALL ON FUNCTION rebate.follow_partitions() FROM PUBLIC;

CREATE EVENT TRIGGER rebate_follow_partitions ON ddl_command_end
	WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER SCHEMA')
	EXECUTE FUNCTION rebate.follow_partitions();
ALTER EVENT TRIGGER rebate_follow_partitions ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER rebate_follow_partitions IS 'keeps rebates on partitions that are created, attached or detached';

CREATE FUNCTION rebate.watch_drops() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'rebate_watch_drops' LANGUAGE C;
COMMENT ON FUNCTION rebate.watch_drops() IS 'before a DROP: has the library archive the rebates of partitions that it drops';
REVOKE ALL ON FUNCTION rebate.watch_drops() FROM PUBLIC;

CREATE EVENT TRIGGER rebate_watch_drops ON ddl_command_start
	WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED')
	EXECUTE FUNCTION rebate.watch_drops();
ALTER EVENT TRIGGER rebate_watch_drops ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER rebate_watch_drops IS 'keeps rebates of partitions that are dropped';
-- The store: ordinary objects with one owner, no extension members, so that
-- neither DROP EXTENSION nor a dump without the extension can lose money.
-- rebate.create_store() runs the texts below once, with the store's owner as
-- current user: tables, and the rows they begin with, which a restore of a dump
-- without data lacks.  They use pg_catalog types only and call none of our
-- functions.
--
-- Money is kept in minor units of the account's currency (bigint); the views
-- in schema rebate show numerics of exactly the currency's scale.
CREATE FUNCTION rebate.store_tables() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$ SELECT $ddl$
CREATE TABLE rebate_data.store (
	one				boolean PRIMARY KEY DEFAULT true CHECK (one),
	store_version	integer NOT NULL,
	compatible_with	integer NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE rebate_data.store IS 'one row: the version of this store''s tables, and the oldest one that a library must know to use them';

CREATE TABLE rebate_data.epoch (
	epoch				integer PRIMARY KEY,
	system_identifier	bigint NOT NULL,
	database_oid		oid NOT NULL,
	account_oid			oid NOT NULL,
	opened_at			timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE rebate_data.epoch IS 'spans in which transaction ids and cursors can be compared; cluster, database and table account are those it was opened in, and others in a copy or after a restore';

CREATE TABLE rebate_data.currency (
	code	text COLLATE "C" PRIMARY KEY,
	scale	smallint NOT NULL CHECK (scale BETWEEN 0 AND 12),
	unit	numeric NOT NULL,
	iso		boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE rebate_data.currency IS 'currencies and units of account: scale is the number of decimals of a posted amount, unit the value of one minor unit';

CREATE TABLE rebate_data.programme (
	programme_id	integer PRIMARY KEY,
	name			text NOT NULL UNIQUE,
	time_zone		text NOT NULL
);
COMMENT ON TABLE rebate_data.programme IS 'sets of rules with one time zone and calendar';

CREATE TABLE rebate_data.ledger_account (
	ledger_account_id	integer PRIMARY KEY,
	code				text NOT NULL UNIQUE,
	kind				text NOT NULL CHECK (kind IN ('member', 'memo', 'house')),
	description			text NOT NULL
);
COMMENT ON TABLE rebate_data.ledger_account IS 'chart of accounts: the buckets of members, and the house accounts on the other side';

CREATE TABLE rebate_data.campaign (
	campaign_id		integer PRIMARY KEY,
	name			text NOT NULL UNIQUE,
	expense_account	integer NOT NULL
);
COMMENT ON TABLE rebate_data.campaign IS 'who funds rules; expense_account is the house account that their rebates are charged to';

CREATE TABLE rebate_data.source (
	source_id			integer PRIMARY KEY,
	relation			regclass NOT NULL UNIQUE,
	relation_name		text NOT NULL,
	programme_id		integer NOT NULL,
	key_columns			text[] NOT NULL,
	member				text NOT NULL,
	amount				text NOT NULL,
	currency			text,
	currency_code		text,
	quantity			text,
	order_time			text,
	status				text,
	phases				jsonb,
	confirmed_at		text,
	refunded			text,
	refunded_quantity	text,
	attributes			jsonb,
	since				timestamptz NOT NULL,
	max_backdate		interval,
	max_future			interval,
	on_delete			text NOT NULL,
	on_truncate			text NOT NULL,
	on_error			text NOT NULL,
	arguments			jsonb NOT NULL,
	attached_at			timestamptz NOT NULL DEFAULT pg_catalog.now(),
	attached_by			text NOT NULL DEFAULT session_user,
	detached_at			timestamptz,
	original			text[],
	"replaces"			text[],
	auto_confirm_after	interval,
	give_up_after		interval
);
COMMENT ON TABLE rebate_data.source IS 'order tables that rebates are attached to, with the mapping of their columns; expressions are stored deparsed and fully qualified';

CREATE TABLE rebate_data.generation (
	one			boolean PRIMARY KEY DEFAULT true CHECK (one),
	generation	integer NOT NULL,
	changed_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	expressions	boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE rebate_data.generation IS 'one row: the number of the last write of rules, and whether any has an expression';

CREATE TABLE rebate_data.rule_group (
	group_id	integer PRIMARY KEY,
	name		text NOT NULL UNIQUE,
	mode		text NOT NULL CHECK (mode IN ('first', 'best', 'stack')),
	generation	integer NOT NULL
);
COMMENT ON TABLE rebate_data.rule_group IS 'groups of rules: of an exclusive group (first, best) one rule pays, of a stack all';

CREATE TABLE rebate_data.rule (
	rule_id			integer PRIMARY KEY,
	name			text NOT NULL UNIQUE,
	programme_id	integer NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE rebate_data.rule IS 'rules by name; what a rule says is in its versions';

CREATE TABLE rebate_data.rule_version (
	rule_id			integer NOT NULL,
	version			integer NOT NULL,
	generation		integer NOT NULL,
	valid_from		timestamptz NOT NULL,
	valid_to		timestamptz,
	source_id		integer,
	scope_id		integer NOT NULL,
	scope			jsonb,
	condition		text,
	formula			text NOT NULL CHECK (formula IN ('percent', 'fixed', 'per_unit', 'none')),
	rate			numeric NOT NULL,
	base			text,
	currency		text,
	minimum			numeric,
	max_per_order	numeric,
	limit_mode		text NOT NULL,
	rounding		text NOT NULL,
	refund			text NOT NULL,
	unlinked_return	text NOT NULL,
	hold			interval NOT NULL,
	priority		integer NOT NULL,
	group_id		integer NOT NULL,
	group_mode		text NOT NULL,
	campaign_id		integer NOT NULL,
	expense_account	integer NOT NULL,
	arguments		jsonb NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	created_by		text NOT NULL DEFAULT session_user,
	PRIMARY KEY (rule_id, version)
);
COMMENT ON TABLE rebate_data.rule_version IS 'what a rule says, append-only; group_id 0 is a group of its own';

CREATE TABLE rebate_data.scope (
	scope_id	integer PRIMARY KEY,
	attributes	text[] NOT NULL UNIQUE
);
COMMENT ON TABLE rebate_data.scope IS 'the sets of attributes that scopes of rules name; scope 0 names none';

CREATE TABLE rebate_data.rule_scope (
	scope_id	integer NOT NULL,
	scope_key	text COLLATE "C" NOT NULL,
	rule_id		integer NOT NULL,
	version		integer NOT NULL,
	PRIMARY KEY (scope_id, scope_key, rule_id, version)
);
COMMENT ON TABLE rebate_data.rule_scope IS 'which rule versions an order with these attribute values can meet: one probe a scope';

CREATE SEQUENCE rebate_data.id AS bigint INCREMENT BY 64 MINVALUE 64 START 64;
COMMENT ON SEQUENCE rebate_data.id IS 'ids of accounts, accruals, postings and failures; a session takes 64 at a time';

CREATE TABLE rebate_data.account (
	account_id	bigint NOT NULL,
	last_entry	bigint NOT NULL,
	tracked		bigint NOT NULL,
	pending		bigint NOT NULL,
	maturing	bigint NOT NULL,
	available	bigint NOT NULL,
	held		bigint NOT NULL,
	last_check	bigint NOT NULL,
	last_posted	timestamptz NOT NULL,
	status		"char" NOT NULL,
	currency	text COLLATE "C" NOT NULL,
	member		text COLLATE "C" NOT NULL,
	opened_at	timestamptz NOT NULL,
	handle		uuid NOT NULL,
	CONSTRAINT account_pkey PRIMARY KEY (account_id),
	CONSTRAINT account_member_key UNIQUE (member, currency)
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE rebate_data.account IS 'one member in one currency: balances by bucket in minor units, and the number, check and time of the last entry';

CREATE TABLE rebate_data.accrual (
	accrual_id		bigint NOT NULL,
	account_id		bigint NOT NULL,
	source_id		integer NOT NULL,
	rule_id			integer NOT NULL,
	version			integer NOT NULL,
	generation		integer NOT NULL,
	first_seen		timestamptz NOT NULL,
	order_time		timestamptz NOT NULL,
	earned			bigint NOT NULL,
	bucket			"char" NOT NULL,
	phase			"char" NOT NULL,
	flags			smallint NOT NULL,
	part			smallint NOT NULL,
	order_key		text COLLATE "C" NOT NULL,
	kind			"char",
	seq				bigint,
	posted_at		timestamptz,
	xid				bigint,
	"check"			bigint,
	debit			integer,
	credit			integer,
	epoch			integer,
	effective_date	date,
	book_date		date,
	amount			bigint,
	event_at		timestamptz,
	posting_id		bigint,
	tracked			bigint,
	pending			bigint,
	maturing		bigint,
	available		bigint,
	held			bigint,
	confirmed_at	timestamptz,
	due				timestamptz,
	granted			bigint,
	level			smallint,
	base			numeric,
	looked_up		jsonb,
	CONSTRAINT accrual_order_key UNIQUE (source_id, order_key, part)
) USING heap WITH (fillfactor = 90);
CREATE UNIQUE INDEX accrual_seq_key ON rebate_data.accrual (account_id, seq) WHERE seq IS NOT NULL;
CREATE INDEX accrual_xid_brin ON rebate_data.accrual USING brin (xid) WITH (pages_per_range = 128, autosummarize = off);
COMMENT ON TABLE rebate_data.accrual IS 'one rebate of one order under one rule for one account, with the facts of the order; rule_id 0 (account_id 0) is the bare decision and facts of an order; from kind to held: the entry that opened the rebate, which never changes (NULL amount: as earned; event_at: as order_time; book_date: as effective_date; posting_id: as accrual_id; balances: zero)';

CREATE TABLE rebate_data.waiting (
	bucket		"char" NOT NULL,
	due			timestamptz NOT NULL,
	account_id	bigint NOT NULL,
	seq			bigint NOT NULL,
	CONSTRAINT waiting_pkey PRIMARY KEY (bucket, due, account_id, seq)
) USING heap;
COMMENT ON TABLE rebate_data.waiting IS 'rebates that wait for the clock, by the entry that opened them: one row for each in bucket 0, 1 or 2 with a due, so that the clock finds them, and their own row stays in its page when it moves them';

CREATE TABLE rebate_data.entry (
	account_id		bigint NOT NULL,
	accrual_id		bigint,
	payout_id		bigint,
	source_id		integer,
	rule_id			integer NOT NULL,
	order_key		text COLLATE "C",
	kind			"char" NOT NULL,
	seq				bigint NOT NULL,
	posted_at		timestamptz NOT NULL,
	xid				bigint NOT NULL,
	"check"			bigint NOT NULL,
	debit			integer NOT NULL,
	credit			integer NOT NULL,
	epoch			integer NOT NULL,
	effective_date	date NOT NULL,
	book_date		date,
	amount			bigint NOT NULL,
	event_at		timestamptz NOT NULL,
	posting_id		bigint,
	tracked			bigint,
	pending			bigint,
	maturing		bigint,
	available		bigint,
	held			bigint,
	CONSTRAINT entry_pkey PRIMARY KEY (account_id, seq)
) USING heap;
CREATE INDEX entry_xid_brin ON rebate_data.entry USING brin (xid) WITH (pages_per_range = 128, autosummarize = off);
COMMENT ON TABLE rebate_data.entry IS 'append-only: the movements after those that opened a rebate, each between two ledger accounts, with the balances after it (NULL: zero; book_date: as effective_date; posting_id: as accrual_id)';

CREATE VIEW rebate_data.ledger AS
SELECT account_id, seq, COALESCE(amount, abs(earned)) AS amount, posted_at,
	   COALESCE(event_at, order_time) AS event_at, xid, "check", debit, credit, epoch,
	   effective_date, COALESCE(book_date, effective_date) AS book_date, rule_id, source_id, kind,
	   accrual_id, COALESCE(posting_id, accrual_id) AS posting_id, NULL::bigint AS payout_id,
	   COALESCE(tracked, 0) AS tracked, COALESCE(pending, 0) AS pending,
	   COALESCE(maturing, 0) AS maturing, COALESCE(available, 0) AS available,
	   COALESCE(held, 0) AS held, order_key
  FROM rebate_data.accrual WHERE seq IS NOT NULL
UNION ALL
SELECT account_id, seq, amount, posted_at, event_at, xid, "check", debit, credit, epoch,
	   effective_date, COALESCE(book_date, effective_date), rule_id, source_id, kind,
	   accrual_id, COALESCE(posting_id, accrual_id), payout_id,
	   COALESCE(tracked, 0), COALESCE(pending, 0), COALESCE(maturing, 0), COALESCE(available, 0),
	   COALESCE(held, 0), order_key
  FROM rebate_data.entry;
COMMENT ON VIEW rebate_data.ledger IS 'all entries: one movement between two ledger accounts, with the balances after it; seq is dense in commit order; those that opened a rebate are kept in its row';

CREATE TABLE rebate_data.house_entry (
	posting_id	bigint NOT NULL,
	leg			smallint NOT NULL,
	currency	text COLLATE "C" NOT NULL,
	amount		bigint NOT NULL,
	debit		integer NOT NULL,
	credit		integer NOT NULL,
	book_date	date NOT NULL,
	posted_at	timestamptz NOT NULL,
	kind		"char" NOT NULL,
	PRIMARY KEY (posting_id, leg)
);
COMMENT ON TABLE rebate_data.house_entry IS 'legs of postings that touch no member: splits, fees, merchant receipts';

CREATE TABLE rebate_data.channel (
	member		text COLLATE "C" PRIMARY KEY,
	asked_at	timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE rebate_data.channel IS 'members who asked for a channel: their events are published on it';

CREATE TABLE rebate_data.failure (
	source_id		integer NOT NULL,
	order_key		text COLLATE "C" NOT NULL,
	sqlstate		text NOT NULL,
	message			text NOT NULL,
	detail			text,
	first_failed_at	timestamptz NOT NULL,
	last_failed_at	timestamptz NOT NULL,
	attempts		integer NOT NULL,
	PRIMARY KEY (source_id, order_key)
);
COMMENT ON TABLE rebate_data.failure IS 'orders set aside because they could not be decided, until a later change or retry succeeds';

CREATE TABLE rebate_data.allowed_function (
	function	text COLLATE "C" PRIMARY KEY,
	fingerprint	bigint NOT NULL,
	allowed_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	allowed_by	text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE rebate_data.allowed_function IS 'functions that a superuser lets expressions use, as they were then';

CREATE TABLE rebate_data.link (
	source_id	integer NOT NULL,
	order_key	text COLLATE "C" NOT NULL,
	kind		"char" NOT NULL,
	target_key	text COLLATE "C" NOT NULL,
	currency	text COLLATE "C" NOT NULL,
	amount		numeric NOT NULL,
	quantity	numeric,
	CONSTRAINT link_pkey PRIMARY KEY (source_id, order_key, kind)
) USING heap;
CREATE INDEX link_target ON rebate_data.link (source_id, target_key, kind);
COMMENT ON TABLE rebate_data.link IS 'orders that are about another order of their table: kind o, a return of the original target_key, which it takes amount and quantity from; kind r, split from target_key or in its place';

CREATE TABLE rebate_data.job (
	job			text COLLATE "C" PRIMARY KEY,
	upto		timestamptz NOT NULL,
	started_at	timestamptz NOT NULL,
	progress_at	timestamptz NOT NULL,
	finished_at	timestamptz,
	batches		bigint NOT NULL,
	done		bigint NOT NULL,
	pid			integer NOT NULL,
	lock_key	bigint NOT NULL,
	started_by	text NOT NULL
);
COMMENT ON TABLE rebate_data.job IS 'the last run of each job of the clock';

CREATE TABLE rebate_data.house_balance (
	ledger_account_id	integer NOT NULL,
	currency			text COLLATE "C" NOT NULL,
	amount				bigint NOT NULL,
	PRIMARY KEY (ledger_account_id, currency)
);
COMMENT ON TABLE rebate_data.house_balance IS 'debits less credits of each house account, of the entries before the mark in rebate_data.fold';

CREATE TABLE rebate_data.fold (
	one			boolean PRIMARY KEY DEFAULT true CHECK (one),
	epoch		integer NOT NULL,
	xid			bigint NOT NULL,
	folded_at	timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE rebate_data.fold IS 'one row: entries of earlier epochs, and those of this epoch by earlier transactions, are in rebate_data.house_balance';

CREATE TABLE rebate_data.finding (
	finding		bigint PRIMARY KEY,
	found_at	timestamptz NOT NULL,
	part		text NOT NULL,
	violation	text NOT NULL,
	subject		text NOT NULL,
	detail		text
);
COMMENT ON TABLE rebate_data.finding IS 'what the last audit by the clock found';

CREATE TABLE rebate_data.freeze (
	source_id	integer NOT NULL,
	order_key	text COLLATE "C" NOT NULL,
	frozen_at	timestamptz NOT NULL,
	reason		text COLLATE "C" NOT NULL,
	frozen_by	text NOT NULL,
	unfrozen_at	timestamptz,
	unfrozen_by	text,
	CONSTRAINT freeze_pkey PRIMARY KEY (source_id, order_key, frozen_at, reason)
);
COMMENT ON TABLE rebate_data.freeze IS 'disputes and reviews that stop the clock for the rebates of an order, from when to when; facts, never deleted';

CREATE TABLE rebate_data.deferred (
	source_id	integer NOT NULL,
	order_key	text COLLATE "C" NOT NULL,
	first_seen	timestamptz NOT NULL,
	touched_at	timestamptz NOT NULL,
	generation	integer NOT NULL,
	old			boolean NOT NULL,
	ambiguous	boolean NOT NULL,
	archived	boolean NOT NULL,
	PRIMARY KEY (source_id, order_key)
);
COMMENT ON TABLE rebate_data.deferred IS 'orders touched while rebate.mode was defer, until rebate.reconcile() has decided them, with the facts of their first touch: old says that an order not known was there before, ambiguous that its key changed together with others, archived that its row left and its money stays';
$ddl$ $function$;
COMMENT ON FUNCTION rebate.store_tables() IS 'the DDL that rebate.create_store() runs';

CREATE FUNCTION rebate.store_rows() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$ SELECT $ddl$
INSERT INTO rebate_data.store (store_version, compatible_with) VALUES (1, 1);
INSERT INTO rebate_data.programme VALUES (1, 'default', 'UTC');
INSERT INTO rebate_data.ledger_account VALUES
	(1, 'member:tracked', 'memo', 'expected rebates of orders not yet paid; no liability'),
	(2, 'member:pending', 'member', 'rebates of paid orders that are not yet confirmed'),
	(3, 'member:maturing', 'member', 'rebates of confirmed orders inside their hold'),
	(4, 'member:available', 'member', 'rebates that the member may use'),
	(5, 'member:held', 'member', 'money set aside for a payout'),
	(10, 'memo:expected', 'memo', 'the other side of member:tracked'),
	(100, 'expense:default', 'house', 'rebate expense of campaign default');
INSERT INTO rebate_data.campaign VALUES (1, 'default', 100);
INSERT INTO rebate_data.generation (generation) VALUES (1);
INSERT INTO rebate_data.fold (epoch, xid) VALUES (0, 0);
INSERT INTO rebate_data.scope VALUES (0, '{}');
$ddl$ $function$;
COMMENT ON FUNCTION rebate.store_rows() IS 'the rows that a new store begins with';
REVOKE ALL ON FUNCTION rebate.store_rows() FROM PUBLIC;
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
WHERE x.rule_id <> 0;
COMMENT ON VIEW rebate.accruals IS 'rebates: one row an order, rule and account, with what it earned and where that stands; bucket is NULL if it is nowhere';

CREATE OR REPLACE VIEW rebate.entries AS
SELECT e.account_id, e.seq, a.member, a.currency,
	   CASE e.kind WHEN 'a' THEN 'accrue' WHEN 'r' THEN 'reverse'
			WHEN 'm' THEN 'move' ELSE e.kind::text END AS kind,
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

CREATE OR REPLACE VIEW rebate.decisions AS
SELECT s.relation_name AS source, x.order_key,
	   CASE WHEN pg_catalog.bit_or(x.flags) & 2 <> 0 THEN 'failed'
			WHEN pg_catalog.bit_or(x.flags) & 257 <> 0 THEN 'before attachment'
			WHEN pg_catalog.bit_or(x.flags) & 512 <> 0 THEN
				CASE WHEN pg_catalog.bit_or(x.flags) & 8 = 0 AND EXISTS (
					SELECT FROM rebate_data.link l
					WHERE l.source_id = x.source_id AND l.order_key = x.order_key AND l.kind = 'o'
					  AND NOT EXISTS (
						SELECT FROM rebate_data.accrual o
						WHERE o.source_id = l.source_id AND o.order_key = l.target_key
						  AND o.flags & 40 = 0))
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
COMMENT ON VIEW rebate.decisions IS 'what was concluded for each order seen: accrued, no rule, guest, before attachment, failed; of a return: return, or waits for its original';

CREATE OR REPLACE VIEW rebate.failures AS
SELECT s.relation_name AS source, f.order_key, f.sqlstate, f.message, f.detail,
	   f.first_failed_at, f.last_failed_at, f.attempts
FROM rebate_data.failure f
LEFT JOIN rebate_data.source s ON s.source_id = f.source_id;
COMMENT ON VIEW rebate.failures IS 'orders set aside because they could not be decided; the next change of the row, or rebate.retry(), decides it again';

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
	   p.name AS campaign, v.arguments, v.generation, v.created_at, v.created_by
FROM rebate_data.rule_version v
JOIN rebate_data.rule r ON r.rule_id = v.rule_id
LEFT JOIN rebate_data.rule_group g ON g.group_id = v.group_id
LEFT JOIN rebate_data.campaign p ON p.campaign_id = v.campaign_id;
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

-- What was folded and the entries since then: their transactions are found by
-- the index; later epochs are looked for only if there are any.
CREATE OR REPLACE VIEW rebate.house_balances AS
SELECT l.code, l.kind, h.currency, pg_catalog.sum(h.amount) * c.unit AS balance
FROM (
	SELECT b.ledger_account_id, b.currency, b.amount FROM rebate_data.house_balance b
	UNION ALL
	SELECT g.ledger_account_id, a.currency, g.amount
	FROM (
		SELECT e.account_id, e.debit, e.credit, e.amount FROM rebate_data.ledger e
		WHERE e.xid >= (SELECT f.xid FROM rebate_data.fold f)
		  AND e.epoch = (SELECT f.epoch FROM rebate_data.fold f)
		UNION ALL
		SELECT e.account_id, e.debit, e.credit, e.amount FROM rebate_data.ledger e
		WHERE (SELECT pg_catalog.max(p.epoch) FROM rebate_data.epoch p) > (SELECT f.epoch FROM rebate_data.fold f)
		  AND e.epoch > (SELECT f.epoch FROM rebate_data.fold f)) t
	JOIN rebate_data.account a ON a.account_id = t.account_id
	CROSS JOIN LATERAL (VALUES (t.debit, t.amount), (t.credit, - t.amount)) AS g (ledger_account_id, amount)) h
JOIN rebate_data.ledger_account l ON l.ledger_account_id = h.ledger_account_id
JOIN rebate_data.currency c ON c.code = h.currency
WHERE h.ledger_account_id >= 10
GROUP BY l.code, l.kind, h.currency, c.unit;
COMMENT ON VIEW rebate.house_balances IS 'debits less credits of each account that is no member''s, by currency';

CREATE OR REPLACE VIEW rebate.trial_balance AS
SELECT t.code, t.kind, t.campaign, t.currency,
	   GREATEST(t.balance, 0 * t.balance) AS debit,
	   GREATEST(- t.balance, 0 * t.balance) AS credit,
	   t.balance
FROM (
	SELECT h.code, h.kind, p.name AS campaign, h.currency, h.balance
	FROM rebate.house_balances h
	JOIN rebate_data.ledger_account l ON l.code = h.code
	LEFT JOIN rebate_data.campaign p ON p.expense_account = l.ledger_account_id
	UNION ALL
	SELECT l.code, l.kind, NULL, m.currency, - b.amount * c.unit
	FROM (
		SELECT a.currency, pg_catalog.sum(a.tracked) AS tracked, pg_catalog.sum(a.pending) AS pending,
			   pg_catalog.sum(a.maturing) AS maturing, pg_catalog.sum(a.available) AS available,
			   pg_catalog.sum(a.held) AS held
		FROM rebate_data.account a GROUP BY a.currency) m
	CROSS JOIN LATERAL (VALUES (1, m.tracked), (2, m.pending), (3, m.maturing), (4, m.available),
						(5, m.held)) AS b (ledger_account_id, amount)
	JOIN rebate_data.ledger_account l ON l.ledger_account_id = b.ledger_account_id
	JOIN rebate_data.currency c ON c.code = m.currency) t;
COMMENT ON VIEW rebate.trial_balance IS 'all accounts at one moment, members'' by bucket and the others by campaign: balance is debits less credits, and its sum is zero in each currency';

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
$ddl$ $function$;
COMMENT ON FUNCTION rebate.store_views() IS 'the DDL of the views that rebate.create_store() makes';
REVOKE ALL ON FUNCTION rebate.store_views() FROM PUBLIC;
REVOKE ALL ON FUNCTION rebate.store_tables() FROM PUBLIC;
-- Names in the schema can be used by everyone; what they lead to is granted to
-- nobody but the store's owner.
GRANT USAGE ON SCHEMA rebate TO PUBLIC;

CREATE FUNCTION rebate.guard() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_guard';
COMMENT ON FUNCTION rebate.guard() IS 'trigger of the store''s tables: refuses changes that the engine does not make';
REVOKE ALL ON FUNCTION rebate.guard() FROM PUBLIC;

-- A guard that is there is turned on, in case it was off.
CREATE FUNCTION rebate.store_guards() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT COALESCE(pg_catalog.string_agg(pg_catalog.format(CASE WHEN t.oid IS NULL THEN $ddl$
CREATE TRIGGER rebate_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
	ON rebate_data.%1$I FOR EACH STATEMENT EXECUTE FUNCTION rebate.guard();
COMMENT ON TRIGGER rebate_guard ON rebate_data.%1$I IS 'the ledger is written by the engine only';
$ddl$ ELSE $ddl$
ALTER TABLE rebate_data.%1$I ENABLE TRIGGER rebate_guard;
$ddl$ END, c.relname), '' ORDER BY c.relname), '')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'rebate_guard'
WHERE n.nspname = 'rebate_data' AND c.relkind = 'r'
  AND t.tgenabled IS DISTINCT FROM 'O'
$function$;
COMMENT ON FUNCTION rebate.store_guards() IS 'the DDL of the guards that rebate.create_store() puts on the store''s tables';
REVOKE ALL ON FUNCTION rebate.store_guards() FROM PUBLIC;

CREATE FUNCTION rebate.store_grants(owner name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT pg_catalog.string_agg(pg_catalog.format(
	'GRANT EXECUTE ON ROUTINE %s TO %I; ', p.oid::pg_catalog.regprocedure, owner), '' ORDER BY p.proname, p.oid)
	|| pg_catalog.format('GRANT SELECT ON rebate.delivery_status TO %I; ', owner)
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
	AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
	AND d.refobjid = e.oid AND e.extname = 'rebate'
WHERE n.nspname = 'rebate' AND p.proname NOT LIKE 'store\_%'
$function$;
COMMENT ON FUNCTION rebate.store_grants(name) IS 'the grants that rebate.create_store() makes to the store''s owner';
REVOKE ALL ON FUNCTION rebate.store_grants(name) FROM PUBLIC;

CREATE FUNCTION rebate.store_view_owner(owner name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT pg_catalog.string_agg(pg_catalog.concat(
	-- a new view has what its maker grants by default on what he makes
	(SELECT pg_catalog.string_agg(pg_catalog.format('REVOKE ALL ON rebate.%I FROM %s; ', c.relname,
		CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END), '')
	 FROM (SELECT DISTINCT x.grantee FROM pg_catalog.aclexplode(c.relacl) x) a
	 WHERE a.grantee <> c.relowner AND pg_catalog.pg_get_userbyid(c.relowner) <> owner),
	pg_catalog.format('ALTER VIEW rebate.%I OWNER TO %I; ', c.relname, owner)), '' ORDER BY c.relname)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'rebate' AND c.relkind = 'v'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
				  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
					AND d.objid = c.oid AND d.deptype = 'e')
$function$;
COMMENT ON FUNCTION rebate.store_view_owner(name) IS 'gives the views to the store''s owner, for rebate.create_store()';
REVOKE ALL ON FUNCTION rebate.store_view_owner(name) FROM PUBLIC;

-- ISO 4217 without precious metals, test codes and bond units.
CREATE FUNCTION rebate.store_currencies() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$ SELECT $ddl$
INSERT INTO rebate_data.currency (code, scale, unit, iso)
SELECT l.code, s.scale, ('1e-' || s.scale)::numeric, true
FROM (VALUES
	(0, 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF'),
	(2, 'AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV
		BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE
		CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD
		HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP
		LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR
		MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB
		SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS
		TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG
		YER ZAR ZMW ZWG'),
	(3, 'BHD IQD JOD KWD LYD OMR TND'),
	(4, 'CLF UYW')) AS s (scale, codes)
CROSS JOIN LATERAL pg_catalog.regexp_split_to_table(s.codes, '\s+') AS l (code);
$ddl$ $function$;
COMMENT ON FUNCTION rebate.store_currencies() IS 'the ISO 4217 currencies that rebate.create_store() fills in';
REVOKE ALL ON FUNCTION rebate.store_currencies() FROM PUBLIC;

CREATE FUNCTION rebate.create_store(owner name DEFAULT NULL) RETURNS name
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_create_store';
COMMENT ON FUNCTION rebate.create_store(name) IS 'makes the store (schema rebate_data) and its views, owned by a role; returns the owner';
REVOKE ALL ON FUNCTION rebate.create_store(name) FROM PUBLIC;
-- What adopt_store() looks at before it makes a store ours: the shape that
-- create_store() gives, and everything that hangs on it.
CREATE FUNCTION rebate.store_shape() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
WITH relation AS (
	SELECT c.* FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = 'rebate_data'
)
SELECT pg_catalog.string_agg(line, E'\n' ORDER BY line COLLATE "C") FROM (
	SELECT pg_catalog.format('%s %s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view'
			WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' ELSE 'relation of kind ' || c.relkind::text END,
			c.relname) || CASE c.relpersistence WHEN 'p' THEN '' ELSE ', not logged' END
		|| CASE WHEN c.relispartition THEN ', a partition' ELSE '' END
		|| CASE WHEN c.reloftype <> 0 THEN ', of a type' ELSE '' END AS line
	FROM relation c
	UNION ALL
	SELECT pg_catalog.format('column %s of %s: %s%s%s%s', a.attname, c.relname,
			pg_catalog.format_type(a.atttypid, a.atttypmod),
			CASE WHEN a.attcollation <> 0 THEN ' collation ' || a.attcollation::pg_catalog.regcollation::text ELSE '' END,
			CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
			CASE WHEN a.attidentity <> '' OR a.attgenerated <> '' THEN ' generated' ELSE '' END
			|| COALESCE(' default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''))
	FROM relation c
	JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	WHERE c.relkind IN ('r', 'v')
	UNION ALL
	SELECT pg_catalog.format('constraint %s of %s: %s', k.conname, c.relname, pg_catalog.pg_get_constraintdef(k.oid))
	FROM relation c JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid
	UNION ALL
	SELECT 'definition: ' || pg_catalog.pg_get_indexdef(i.indexrelid)
			|| CASE WHEN i.indisvalid THEN '' ELSE ', invalid' END
	FROM relation c JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
	UNION ALL
	SELECT pg_catalog.format('definition of view %s: %s', c.relname,
			pg_catalog.regexp_replace(pg_catalog.pg_get_viewdef(c.oid), '\s+', ' ', 'g'))
	FROM relation c WHERE c.relkind = 'v'
	UNION ALL
	SELECT pg_catalog.format('sequence %s: %s by %s from %s', c.relname, s.seqtypid::pg_catalog.regtype,
			s.seqincrement, s.seqmin)
	FROM relation c JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid) l
$function$;
COMMENT ON FUNCTION rebate.store_shape() IS 'tables, columns, constraints, indexes, views and sequences of the store, a line each';
REVOKE ALL ON FUNCTION rebate.store_shape() FROM PUBLIC;

-- Indexes that somebody added are no difference: they run as the store's owner
-- and change nothing.
CREATE FUNCTION rebate.store_difference(found text, made text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT pg_catalog.string_agg(pg_catalog.format('%s: %s', what, line), E'\n' ORDER BY what, line COLLATE "C") FROM (
	SELECT 'missing' AS what, l.line FROM pg_catalog.string_to_table(made, E'\n') l (line)
	EXCEPT
	SELECT 'missing', l.line FROM pg_catalog.string_to_table(found, E'\n') l (line)
	UNION ALL
	(SELECT 'not ours', l.line FROM pg_catalog.string_to_table(found, E'\n') l (line)
	 WHERE l.line !~ '^index ' AND l.line !~ '^definition: CREATE (UNIQUE )?INDEX '
	 EXCEPT
	 SELECT 'not ours', l.line FROM pg_catalog.string_to_table(made, E'\n') l (line))) d
$function$;
COMMENT ON FUNCTION rebate.store_difference(text, text) IS 'what a store lacks and what it has too much';
REVOKE ALL ON FUNCTION rebate.store_difference(text, text) FROM PUBLIC;

CREATE FUNCTION rebate.store_foreign(owner name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
WITH relation AS (
	SELECT c.*, n.nspname = 'rebate_data' AS in_store
	FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE (n.nspname = 'rebate_data' OR n.nspname = 'rebate' AND NOT EXISTS (
			SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
			AND d.objid = c.oid AND d.deptype = 'e'))
	  AND c.relkind <> 'i'
), trusted AS (
	SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = owner OR r.rolsuper
)
SELECT pg_catalog.string_agg(line, E'\n' ORDER BY line COLLATE "C") FROM (
	SELECT pg_catalog.format('%s belongs to role %I', c.oid::pg_catalog.regclass, pg_catalog.pg_get_userbyid(c.relowner)) AS line
	FROM relation c
	WHERE CASE WHEN c.in_store THEN c.relowner <> owner::pg_catalog.regrole
		ELSE c.relowner NOT IN (SELECT oid FROM trusted) END
	UNION ALL
	SELECT pg_catalog.format('trigger %I on %s', t.tgname, c.oid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
	WHERE NOT t.tgisinternal AND NOT (c.in_store AND t.tgname = 'rebate_guard'
		AND t.tgfoid = 'rebate.guard()'::pg_catalog.regprocedure AND t.tgtype = 62
		AND t.tgattr::text = '' AND t.tgqual IS NULL)
	UNION ALL
	SELECT pg_catalog.format('foreign key %I of %s on %s', k.conname, k.conrelid::pg_catalog.regclass, c.oid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_constraint k ON k.confrelid = c.oid
	UNION ALL
	SELECT pg_catalog.format('rule %I on %s', w.rulename, c.oid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid
	WHERE NOT (c.relkind IN ('v', 'm') AND w.ev_type = '1')
	UNION ALL
	SELECT pg_catalog.format('policy %I on %s', p.polname, c.oid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_policy p ON p.polrelid = c.oid
	UNION ALL
	SELECT pg_catalog.format('row security of %s', c.oid::pg_catalog.regclass)
	FROM relation c WHERE c.relrowsecurity OR c.relforcerowsecurity
	UNION ALL
	SELECT pg_catalog.format('inheritance of %s by %s', i.inhparent::pg_catalog.regclass, i.inhrelid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_inherits i ON c.oid IN (i.inhparent, i.inhrelid)
	UNION ALL
	SELECT DISTINCT pg_catalog.format('view %s of role %I on %s', v.oid::pg_catalog.regclass,
		pg_catalog.pg_get_userbyid(v.relowner), c.oid::pg_catalog.regclass)
	FROM relation c
	JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid
		AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
	JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
	JOIN pg_catalog.pg_class v ON v.oid = w.ev_class
	WHERE c.in_store AND v.relowner NOT IN (SELECT oid FROM trusted)) l
$function$;
COMMENT ON FUNCTION rebate.store_foreign(name) IS 'what hangs on the store or its views and is not ours, a line each';
REVOKE ALL ON FUNCTION rebate.store_foreign(name) FROM PUBLIC;

CREATE FUNCTION rebate.adopt_store(owner name DEFAULT NULL) RETURNS name
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_adopt_store';
COMMENT ON FUNCTION rebate.adopt_store(name) IS 'takes over a store that outlived DROP EXTENSION: checks it, makes views, guards, grants and triggers again, and catches up; returns the owner';
REVOKE ALL ON FUNCTION rebate.adopt_store(name) FROM PUBLIC;
-- Versions of library, functions and store, and the way from one to the next.
CREATE FUNCTION rebate.store_upgrade(version integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$ SELECT NULL::text $function$;
COMMENT ON FUNCTION rebate.store_upgrade(integer) IS 'the DDL that makes this version of the store of the one before; NULL: not known here';
REVOKE ALL ON FUNCTION rebate.store_upgrade(integer) FROM PUBLIC;

CREATE FUNCTION rebate.upgrade_store() RETURNS integer
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_upgrade_store';
COMMENT ON FUNCTION rebate.upgrade_store() IS 'brings the store to the version of the library; returns it';
REVOKE ALL ON FUNCTION rebate.upgrade_store() FROM PUBLIC;

CREATE FUNCTION rebate.versions(OUT part text, OUT version text, OUT latest text, OUT advice text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'rebate_versions';
COMMENT ON FUNCTION rebate.versions() IS 'versions of library, extension and store, and what to do if they differ';
REVOKE ALL ON FUNCTION rebate.versions() FROM PUBLIC;
CREATE FUNCTION rebate.attach(
	source				regclass,
	member				text,
	amount				text,
	currency			text DEFAULT NULL,
	"key"				text[] DEFAULT NULL,
	quantity			text DEFAULT NULL,
	order_time			text DEFAULT NULL,
	status				text DEFAULT NULL,
	phases				jsonb DEFAULT NULL,
	confirmed_at		text DEFAULT NULL,
	refunded			text DEFAULT NULL,
	refunded_quantity	text DEFAULT NULL,
	attributes			jsonb DEFAULT NULL,
	since				timestamptz DEFAULT NULL,
	max_backdate		interval DEFAULT '30 days',
	max_future			interval DEFAULT '1 day',
	on_delete			text DEFAULT 'void',
	on_truncate			text DEFAULT 'refuse',
	on_error			text DEFAULT 'set_aside',
	"replace"			boolean DEFAULT false,
	row_triggers		boolean DEFAULT false,
	original			text[] DEFAULT NULL,
	"replaces"			text[] DEFAULT NULL
) RETURNS regclass
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_attach';
COMMENT ON FUNCTION rebate.attach IS 'attaches an order table: its orders earn rebates from now on';
REVOKE ALL ON FUNCTION rebate.attach FROM PUBLIC;

CREATE FUNCTION rebate.detach(source regclass) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_detach';
COMMENT ON FUNCTION rebate.detach IS 'detaches an order table; the ledger stays';
REVOKE ALL ON FUNCTION rebate.detach FROM PUBLIC;

CREATE FUNCTION rebate.set_programme(time_zone text) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_set_programme';
COMMENT ON FUNCTION rebate.set_programme IS 'sets the time zone in which times without zone, dates and holds are read';
REVOKE ALL ON FUNCTION rebate.set_programme FROM PUBLIC;

CREATE FUNCTION rebate.add_currency(code text, scale integer) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_add_currency';
COMMENT ON FUNCTION rebate.add_currency IS 'adds a unit of account, or changes the number of decimals of an unused one';
REVOKE ALL ON FUNCTION rebate.add_currency FROM PUBLIC;
CREATE FUNCTION rebate.set_rule(
	name				text,
	percent				numeric DEFAULT NULL,
	fixed				numeric DEFAULT NULL,
	per_unit			numeric DEFAULT NULL,
	currency			text DEFAULT NULL,
	scope				jsonb DEFAULT NULL,
	condition			text DEFAULT NULL,
	base				text DEFAULT NULL,
	minimum				numeric DEFAULT NULL,
	max_per_order		numeric DEFAULT NULL,
	limit_mode			text DEFAULT 'clip',
	rounding			text DEFAULT 'half_up',
	refund				text DEFAULT 'pro_rata',
	unlinked_return		text DEFAULT 'today',
	hold				interval DEFAULT '0',
	priority			integer DEFAULT 0,
	rule_group			text DEFAULT NULL,
	valid_from			timestamptz DEFAULT NULL,
	valid_to			timestamptz DEFAULT NULL,
	source				regclass DEFAULT NULL,
	campaign			text DEFAULT 'default',
	max_percent			numeric DEFAULT 100
) RETURNS integer
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_set_rule';
COMMENT ON FUNCTION rebate.set_rule IS 'writes a rule, or the next version of it; returns the version';
REVOKE ALL ON FUNCTION rebate.set_rule FROM PUBLIC;

CREATE FUNCTION rebate.end_rule(name text, at timestamptz DEFAULT NULL) RETURNS integer
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_end_rule';
COMMENT ON FUNCTION rebate.end_rule IS 'ends a rule: a version that pays nothing from a moment on; returns the version';
REVOKE ALL ON FUNCTION rebate.end_rule FROM PUBLIC;

CREATE FUNCTION rebate.set_group(name text, mode text DEFAULT 'first') RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_set_group';
COMMENT ON FUNCTION rebate.set_group IS 'makes a group of rules, or changes which of its rules pay';
REVOKE ALL ON FUNCTION rebate.set_group FROM PUBLIC;
CREATE FUNCTION rebate.allow_function(function regprocedure, allowed boolean DEFAULT true) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_allow_function';
COMMENT ON FUNCTION rebate.allow_function IS 'lets expressions use a function, as long as it stays as it is; superusers only';
REVOKE ALL ON FUNCTION rebate.allow_function FROM PUBLIC;
-- Reading.  Each function checks its caller: superusers and members of the
-- store owner's role.  flush() posts what would be posted anyway, but it holds the
-- members' accounts from then on: who needs it is granted it.
CREATE FUNCTION rebate.flush() RETURNS bigint
AS 'MODULE_PATHNAME', 'rebate_flush' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION rebate.flush() IS 'posts the orders that this transaction has collected; returns their number';
REVOKE ALL ON FUNCTION rebate.flush() FROM PUBLIC;

CREATE FUNCTION rebate.balance(member text, currency text DEFAULT NULL, at timestamptz DEFAULT NULL)
RETURNS TABLE (member text, currency text, tracked numeric, pending numeric, maturing numeric,
			   available numeric, held numeric, last_entry bigint)
AS 'MODULE_PATHNAME', 'rebate_balance' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.balance(text, text, timestamptz) IS 'balances of a member by bucket, now or at a moment; one row a currency';
REVOKE ALL ON FUNCTION rebate.balance(text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION rebate.order_key(source regclass, VARIADIC "key" "any") RETURNS text
AS 'MODULE_PATHNAME', 'rebate_order_key' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.order_key(regclass, "any") IS 'canonical text of an order''s key';
REVOKE ALL ON FUNCTION rebate.order_key(regclass, "any") FROM PUBLIC;

CREATE FUNCTION rebate.statement(member text, "from" date DEFAULT NULL, "to" date DEFAULT NULL, currency text DEFAULT NULL)
RETURNS TABLE (currency text, line text, book_date date, seq bigint, posted_at timestamptz, source text,
			   order_key text, rule text, accrual_id bigint, amount numeric, tracked numeric,
			   pending numeric, maturing numeric, available numeric, held numeric)
AS 'MODULE_PATHNAME', 'rebate_statement' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.statement(text, date, date, text) IS 'a member''s account over a range of days by book date: opening balances, each movement with the balances after it, closing balances';
REVOKE ALL ON FUNCTION rebate.statement(text, date, date, text) FROM PUBLIC;
CREATE FUNCTION rebate.explain(source regclass, VARIADIC "key" "any")
RETURNS TABLE (topic text, subject text, outcome text, amount numeric, detail text)
AS 'MODULE_PATHNAME', 'rebate_explain' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.explain(regclass, "any") IS 'one order: its facts, which rules pay and why the others do not, its rebates and their entries';
REVOKE ALL ON FUNCTION rebate.explain(regclass, "any") FROM PUBLIC;

CREATE FUNCTION rebate.preview(source regclass, "row" "any")
RETURNS TABLE (topic text, subject text, outcome text, amount numeric, detail text)
AS 'MODULE_PATHNAME', 'rebate_preview' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.preview(regclass, "any") IS 'what an order would earn that does not exist yet, as explain() tells it; the row as JSON object or as a row of the table';
REVOKE ALL ON FUNCTION rebate.preview(regclass, "any") FROM PUBLIC;
CREATE FUNCTION rebate.audit()
RETURNS TABLE (part text, violation text, subject text, detail text)
AS 'MODULE_PATHNAME', 'rebate_audit' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.audit() IS 'checks the ledger against itself and the sources against the ledger: one row a violation, none if all is well';
REVOKE ALL ON FUNCTION rebate.audit() FROM PUBLIC;
CREATE FUNCTION rebate.reconcile(source regclass, keys text[] DEFAULT NULL, deferred_only boolean DEFAULT false, "limit" integer DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'rebate_reconcile' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.reconcile(regclass, text[], boolean, integer) IS 'decides orders from their rows as they are now and posts the difference: those with these keys, the deferred ones, or all of the table; returns their number';
REVOKE ALL ON FUNCTION rebate.reconcile(regclass, text[], boolean, integer) FROM PUBLIC;

CREATE FUNCTION rebate.retry(source regclass DEFAULT NULL, "limit" integer DEFAULT NULL,
	OUT healed bigint, OUT failing bigint, OUT busy bigint)
RETURNS record
AS 'MODULE_PATHNAME', 'rebate_retry' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.retry(regclass, integer) IS 'decides again the orders in rebate.failures; returns how many healed, still fail, or are being changed by others';
REVOKE ALL ON FUNCTION rebate.retry(regclass, integer) FROM PUBLIC;
CREATE FUNCTION rebate.doctor(thorough boolean DEFAULT false)
RETURNS TABLE ("check" text, subject text, status text, detail text, remedy text)
AS 'MODULE_PATHNAME', 'rebate_doctor' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.doctor(boolean) IS 'whether all is as it should be, and what to call if not; thorough: every order is looked at';
REVOKE ALL ON FUNCTION rebate.doctor(boolean) FROM PUBLIC;
-- Where the extension was created: an extension member without a dump mark, so
-- that pg_upgrade brings it along and a restore has the new cluster's.
CREATE TABLE rebate.cluster (
	system_identifier	bigint PRIMARY KEY
);
INSERT INTO rebate.cluster SELECT system_identifier FROM pg_catalog.pg_control_system();
COMMENT ON TABLE rebate.cluster IS 'the cluster that the extension was created in; another one than this after pg_upgrade, which changes neither transaction ids nor cursors';
REVOKE ALL ON rebate.cluster FROM PUBLIC;

-- Reading events by cursor.  Each function checks its caller: superusers and
-- members of the store owner's role.
CREATE FUNCTION rebate.events(member text, after text DEFAULT NULL, "limit" integer DEFAULT 100)
RETURNS TABLE (seq bigint, currency text, cursor text, event json)
AS 'MODULE_PATHNAME', 'rebate_events' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.events(text, text, integer) IS 'events of a member after a cursor (NULL: from the beginning), with the cursor after each';
REVOKE ALL ON FUNCTION rebate.events(text, text, integer) FROM PUBLIC;

CREATE FUNCTION rebate.events_cursor(member text) RETURNS text
AS 'MODULE_PATHNAME', 'rebate_events_cursor' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.events_cursor(text) IS 'cursor after all events of a member that are there now';
REVOKE ALL ON FUNCTION rebate.events_cursor(text) FROM PUBLIC;

CREATE FUNCTION rebate.feed(cursor text DEFAULT NULL, "limit" integer DEFAULT 1000)
RETURNS TABLE (cursor text, event json)
AS 'MODULE_PATHNAME', 'rebate_feed' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.feed(text, integer) IS 'events of all members after a cursor (NULL: from the beginning), each once, with the cursor after each';
REVOKE ALL ON FUNCTION rebate.feed(text, integer) FROM PUBLIC;

CREATE FUNCTION rebate.feed_cursor() RETURNS text
AS 'MODULE_PATHNAME', 'rebate_feed_cursor' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.feed_cursor() IS 'cursor after all events that are visible now';
REVOKE ALL ON FUNCTION rebate.feed_cursor() FROM PUBLIC;
-- The key of channel names.  An extension member without a dump mark: pg_upgrade
-- keeps it, a dump leaves it out, and a copy of the database has other names.
CREATE TABLE rebate.channel_key (
	one		boolean PRIMARY KEY DEFAULT true CHECK (one),
	key		bytea NOT NULL
);
COMMENT ON TABLE rebate.channel_key IS 'the secret that names of member channels are made with';
REVOKE ALL ON rebate.channel_key FROM PUBLIC;

CREATE FUNCTION rebate.channel(member text) RETURNS text
AS 'MODULE_PATHNAME', 'rebate_channel' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.channel(text) IS 'name of a member''s channel, which is published from now on';
REVOKE ALL ON FUNCTION rebate.channel(text) FROM PUBLIC;

CREATE FUNCTION rebate.rotate_channels() RETURNS bigint
AS 'MODULE_PATHNAME', 'rebate_rotate_channels' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.rotate_channels() IS 'new names for all member channels; returns the number of those that were open';
REVOKE ALL ON FUNCTION rebate.rotate_channels() FROM PUBLIC;

CREATE FUNCTION rebate.get_delivery_status(
	OUT setting text, OUT mode text, OUT reason text, OUT worker_pid integer, OUT ring_size integer,
	OUT ring_used bigint, OUT overflows bigint, OUT sweeps bigint, OUT hints bigint,
	OUT published bigint, OUT notifications bigint, OUT lag interval,
	OUT queue_usage double precision, OUT last_error text, OUT last_error_at timestamptz)
AS 'MODULE_PATHNAME', 'rebate_delivery_status' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.get_delivery_status() IS 'the row of rebate.delivery_status';
REVOKE ALL ON FUNCTION rebate.get_delivery_status() FROM PUBLIC;

CREATE VIEW rebate.delivery_status AS SELECT * FROM rebate.get_delivery_status();
COMMENT ON VIEW rebate.delivery_status IS 'who notifies clients of this database and why, and how that goes';
REVOKE ALL ON rebate.delivery_status FROM PUBLIC;
-- The clock.  Procedures that commit can neither be SECURITY DEFINER nor pin their
-- settings, so they are nothing but a loop: every name is qualified, there is no
-- operator, and all else is in C.
CREATE FUNCTION rebate.clock_step(job text, upto timestamptz) RETURNS boolean
AS 'MODULE_PATHNAME', 'rebate_clock_step' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.clock_step(text, timestamptz) IS 'one batch of a job, for its procedure, which commits; false when there is no more to do';
REVOKE ALL ON FUNCTION rebate.clock_step(text, timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.mature(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('mature', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.mature(timestamptz) IS 'makes maturing rebates available that are due, in batches with COMMIT';
REVOKE ALL ON PROCEDURE rebate.mature(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.age(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('age', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.age(timestamptz) IS 'confirms pending orders after auto_confirm_after and gives up orders after give_up_after, in batches with COMMIT';
REVOKE ALL ON PROCEDURE rebate.age(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.retry_failures(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('retry_failures', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.retry_failures(timestamptz) IS 'decides again the orders in rebate.failures, in batches with COMMIT';
REVOKE ALL ON PROCEDURE rebate.retry_failures(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.run_audit(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('run_audit', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.run_audit(timestamptz) IS 'runs rebate.audit() and keeps what it finds in rebate.findings';
REVOKE ALL ON PROCEDURE rebate.run_audit(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.prune(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('prune', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.prune(timestamptz) IS 'deletes what pg_cron keeps of runs of these jobs that ended over a week ago';
REVOKE ALL ON PROCEDURE rebate.prune(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.fold(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('fold', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.fold(timestamptz) IS 'adds what was posted to house accounts up to now to their stored balances, so that rebate.house_balances need not read it again';
REVOKE ALL ON PROCEDURE rebate.fold(timestamptz) FROM PUBLIC;
-- The jobs of the clock in pg_cron, which need not be there.
CREATE FUNCTION rebate.schedule(job text DEFAULT NULL, schedule text DEFAULT NULL)
RETURNS TABLE (name text, "at" text, command text)
AS 'MODULE_PATHNAME', 'rebate_schedule' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.schedule(text, text) IS 'registers the jobs of the clock, or one of them, with pg_cron';
REVOKE ALL ON FUNCTION rebate.schedule(text, text) FROM PUBLIC;

CREATE FUNCTION rebate.unschedule(job text DEFAULT NULL) RETURNS integer
AS 'MODULE_PATHNAME', 'rebate_unschedule' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.unschedule(text) IS 'takes the jobs of the clock, or one of them, out of pg_cron; returns their number';
REVOKE ALL ON FUNCTION rebate.unschedule(text) FROM PUBLIC;

CREATE FUNCTION rebate.schedules(OUT job text, OUT schedule text, OUT username text, OUT active boolean,
	OUT last_run timestamptz, OUT last_status text, OUT last_message text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'rebate_schedules' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.schedules() IS 'the jobs of the clock as pg_cron has them, and how their last runs went';
REVOKE ALL ON FUNCTION rebate.schedules() FROM PUBLIC;
CREATE FUNCTION rebate.freeze(source regclass, order_key text, reason text, "at" timestamptz DEFAULT now()) RETURNS boolean
AS 'MODULE_PATHNAME', 'rebate_freeze' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.freeze(regclass, text, text, timestamptz) IS 'stops the clock for the rebates of an order; false if they were frozen for this reason already';
REVOKE ALL ON FUNCTION rebate.freeze(regclass, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION rebate.unfreeze(source regclass, order_key text, reason text DEFAULT NULL, "at" timestamptz DEFAULT now()) RETURNS integer
AS 'MODULE_PATHNAME', 'rebate_unfreeze' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.unfreeze(regclass, text, text, timestamptz) IS 'ends the freeze of an order for a reason, or for all; returns how many there were';
REVOKE ALL ON FUNCTION rebate.unfreeze(regclass, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION rebate.set_ageing(source regclass, auto_confirm_after interval DEFAULT NULL, give_up_after interval DEFAULT NULL) RETURNS bigint
AS 'MODULE_PATHNAME', 'rebate_set_ageing' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.set_ageing(regclass, interval, interval) IS 'how long after its order time the clock confirms a pending order of a table, or gives up one that was not confirmed; returns how many were decided again';
REVOKE ALL ON FUNCTION rebate.set_ageing(regclass, interval, interval) FROM PUBLIC;
-- Last: what whoever creates the extension grants by default on all that he makes
-- (ALTER DEFAULT PRIVILEGES) is taken back from ours.
DO $$
DECLARE
	r record;
BEGIN
	FOR r IN
		SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM %s', m.kind, m.name,
				CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END) AS command
		FROM pg_catalog.pg_extension e
		JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
			AND d.refobjid = e.oid AND d.deptype = 'e'
		CROSS JOIN LATERAL (
			SELECT 'ROUTINE' AS kind, p.oid::pg_catalog.regprocedure::text AS name, p.proacl AS acl, p.proowner AS owner
			FROM pg_catalog.pg_proc p
			WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
			UNION ALL
			SELECT 'TABLE', c.oid::pg_catalog.regclass::text, c.relacl, c.relowner
			FROM pg_catalog.pg_class c
			WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid AND c.relkind IN ('r', 'v')
			) m
		CROSS JOIN LATERAL (SELECT DISTINCT x.grantee FROM pg_catalog.aclexplode(m.acl) x) a
		WHERE e.extname = 'rebate' AND a.grantee <> m.owner
	LOOP
		EXECUTE r.command;
	END LOOP;
END
$$;
