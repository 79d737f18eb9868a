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
