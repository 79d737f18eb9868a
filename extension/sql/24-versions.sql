-- Versions of library, functions and store, and the way from one to the next.
-- A step may add tables, and columns to tables other than account, accrual, entry, waiting, link, entry_archive, boundary
-- and carried, which are read as C structures.
CREATE FUNCTION rebate.store_upgrade(version integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$ SELECT CASE version WHEN 2 THEN $ddl$
-- rights
CREATE TABLE rebate_data.granted_right (
	role_name	text COLLATE "C" NOT NULL,
	right_name	text COLLATE "C" NOT NULL,
	granted_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	granted_by	text NOT NULL,
	CONSTRAINT granted_right_pkey PRIMARY KEY (role_name, right_name)
) USING heap;
COMMENT ON TABLE rebate_data.granted_right IS 'rights that roles have been granted; roles by name, so that a dump keeps them';

-- members
CREATE TABLE rebate_data.login (
	login				text COLLATE "C" NOT NULL,
	member				text COLLATE "C" NOT NULL,
	role_oid			oid NOT NULL,
	system_identifier	bigint NOT NULL,
	mapped_at			timestamptz NOT NULL DEFAULT pg_catalog.now(),
	mapped_by			text NOT NULL DEFAULT session_user,
	CONSTRAINT login_pkey PRIMARY KEY (login)
) USING heap;
COMMENT ON TABLE rebate_data.login IS 'roles that see the rows of a member: by name, and in the cluster where that was said only if the role is still the same';

-- allowed functions
ALTER TABLE rebate_data.allowed_function ADD COLUMN digest bytea;
COMMENT ON COLUMN rebate_data.allowed_function.digest IS 'SHA-256 of all that makes the function what it is; NULL: written by a library of 0.1.0, which knows the fingerprint only';

-- approval of rules
CREATE TABLE rebate_data.draft (
	draft_id		integer PRIMARY KEY,
	kind			text NOT NULL CHECK (kind IN ('rule', 'end', 'group', 'approval')),
	name			text NOT NULL,
	arguments		jsonb NOT NULL,
	condition		text,
	base			text,
	source_id		integer,
	base_version	integer NOT NULL,
	replaces		jsonb,
	author			text NOT NULL,
	author_id		oid NOT NULL,
	author_claim	text,
	author_role		text NOT NULL,
	written_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	state			text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'approved', 'rejected', 'withdrawn')),
	decided_at		timestamptz,
	decided_by		text,
	decided_by_id	oid,
	decided_claim	text,
	reason			text,
	generation		integer,
	version			integer
);
COMMENT ON TABLE rebate_data.draft IS 'changes of rules that wait for a second person, or were decided by one; author is session_user, author_role current_user, whose rights count, and a claim the person that a gateway named; base_version and replaces are what was current when it was written, generation and version what the approval made';

CREATE TABLE rebate_data.rule_control (
	generation		integer PRIMARY KEY,
	approval		boolean NOT NULL,
	max_percent		numeric,
	changed_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	changed_by		text NOT NULL,
	changed_claim	text
);
COMMENT ON TABLE rebate_data.rule_control IS 'append-only: from each generation on, whether changes of rules need approval, and the greatest percentage of a rule (NULL: none)';

-- privacy
CREATE TABLE rebate_data.former_member (
	hash	bytea PRIMARY KEY,
	member	text COLLATE "C"
);
COMMENT ON TABLE rebate_data.former_member IS 'keys that members had, as keyed hashes: member is the key that took its place, NULL: the member is erased, and orders with the old key earn nothing';

CREATE TABLE rebate_data.former_secret (
	one	boolean PRIMARY KEY DEFAULT true CHECK (one),
	key	bytea NOT NULL
);
COMMENT ON TABLE rebate_data.former_secret IS 'one row: the secret of the hashes in rebate_data.former_member';
INSERT INTO rebate_data.former_secret (key)
	VALUES (pg_catalog.sha256(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()) || pg_catalog.uuid_send(pg_catalog.gen_random_uuid())));

CREATE TABLE rebate_data.erasure (
	member			text COLLATE "C" PRIMARY KEY,
	erased_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	erased_by		text NOT NULL DEFAULT session_user,
	erased_claim	text,
	requested_at	timestamptz,
	requested_by	text,
	requested_claim	text
);
COMMENT ON TABLE rebate_data.erasure IS 'erased members by pseudonym: who erased them, and who asked for it where a balance was written off; a claim is the person that a gateway named';

CREATE TABLE rebate_data.erasure_request (
	member			text COLLATE "C" PRIMARY KEY,
	requested_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	requested_by	text NOT NULL,
	requested_by_id	oid NOT NULL,
	requested_claim	text
);
COMMENT ON TABLE rebate_data.erasure_request IS 'members to be erased although they have a balance, once somebody else agrees';

-- statistics
ALTER TABLE rebate_data.job
	ADD COLUMN finished_runs bigint NOT NULL DEFAULT 0,
	ADD COLUMN stopped_runs bigint NOT NULL DEFAULT 0,
	ADD COLUMN total_done bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN rebate_data.job.finished_runs IS 'runs of the job that came to their end';
COMMENT ON COLUMN rebate_data.job.stopped_runs IS 'runs that broke off, but for the last';
COMMENT ON COLUMN rebate_data.job.total_done IS 'rows that all runs did';
CREATE INDEX failure_first ON rebate_data.failure (source_id, first_failed_at);
CREATE INDEX deferred_first ON rebate_data.deferred (source_id, first_seen);

-- archive
CREATE TABLE rebate_data.entry_archive (
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
	CONSTRAINT entry_archive_pkey PRIMARY KEY (account_id, seq)
) USING heap;
CREATE INDEX entry_archive_xid_brin ON rebate_data.entry_archive USING brin (xid) WITH (pages_per_range = 128, autosummarize = off);
COMMENT ON TABLE rebate_data.entry_archive IS 'entries that rebate.archive() moved out of rebate_data.entry, as they were there: of each account those up to its boundary';

CREATE TABLE rebate_data.boundary (
	account_id	bigint NOT NULL,
	seq			bigint NOT NULL,
	posted_at	timestamptz NOT NULL,
	"check"		bigint NOT NULL,
	tracked		bigint NOT NULL,
	pending		bigint NOT NULL,
	maturing	bigint NOT NULL,
	available	bigint NOT NULL,
	held		bigint NOT NULL,
	CONSTRAINT boundary_pkey PRIMARY KEY (account_id)
) USING heap WITH (fillfactor = 90);
COMMENT ON TABLE rebate_data.boundary IS 'the last archived entry of each account that has any: its time, its check and the balances after it; entries up to it are in rebate_data.entry_archive, but those that opened a rebate, which stay in its row';

CREATE TABLE rebate_data.archive (
	one			boolean PRIMARY KEY DEFAULT true CHECK (one),
	epoch		integer NOT NULL,
	xid			bigint NOT NULL,
	before		timestamptz NOT NULL,
	archived_at	timestamptz NOT NULL
);
COMMENT ON TABLE rebate_data.archive IS 'one row once entries have been archived: the youngest transaction of any of them, and what was asked for last';

CREATE TABLE rebate_data.carried (
	account_id	bigint NOT NULL,
	seq			bigint NOT NULL,
	posted_at	timestamptz NOT NULL,
	"check"		bigint NOT NULL,
	tracked		bigint NOT NULL,
	pending		bigint NOT NULL,
	maturing	bigint NOT NULL,
	available	bigint NOT NULL,
	held		bigint NOT NULL,
	book_date	date NOT NULL,
	opened		bigint NOT NULL,
	digest_high	bigint NOT NULL,
	digest_low	bigint NOT NULL,
	CONSTRAINT carried_pkey PRIMARY KEY (account_id)
) USING heap WITH (fillfactor = 90);
COMMENT ON TABLE rebate_data.carried IS 'where the ledger of an account begins whose oldest entries rebate.drop_archived() has removed: number, time and check of the last of that stretch, the balances after it, and the latest book date of it';
COMMENT ON COLUMN rebate_data.carried.opened IS 'sum of hashes of the entries of that stretch that are still there, since they opened a rebate';
COMMENT ON COLUMN rebate_data.carried.digest_high IS 'with digest_low: sum of hashes of what the removed entries did to each rebate';

CREATE TABLE rebate_data.carried_house (
	ledger_account_id	integer NOT NULL,
	currency			text COLLATE "C" NOT NULL,
	amount				bigint NOT NULL,
	CONSTRAINT carried_house_pkey PRIMARY KEY (ledger_account_id, currency)
) USING heap;
COMMENT ON TABLE rebate_data.carried_house IS 'debits less credits of house accounts by removed entries; they are part of rebate_data.checkpoint, too';

CREATE TABLE rebate_data.dropped (
	drop_id		integer PRIMARY KEY,
	before		timestamptz NOT NULL,
	exported_to	text NOT NULL,
	entries		bigint NOT NULL DEFAULT 0,
	began_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	dropped_by	text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE rebate_data.dropped IS 'runs of rebate.drop_archived(): who removed how many entries, posted before when, and where they were exported to';

-- The ledger of one account is found by the indexes only if no part of UNION ALL has a condition of its own.
CREATE OR REPLACE VIEW rebate_data.ledger AS
SELECT * FROM (
	SELECT account_id, seq, COALESCE(amount, abs(earned)) AS amount, posted_at,
		COALESCE(event_at, order_time) AS event_at, xid, "check", debit, credit, epoch,
		effective_date, COALESCE(book_date, effective_date) AS book_date, rule_id, source_id, kind,
		accrual_id, COALESCE(posting_id, accrual_id) AS posting_id, NULL::bigint AS payout_id,
		COALESCE(tracked, 0) AS tracked, COALESCE(pending, 0) AS pending,
		COALESCE(maturing, 0) AS maturing, COALESCE(available, 0) AS available,
		COALESCE(held, 0) AS held, order_key
	FROM rebate_data.accrual
	UNION ALL
	SELECT account_id, seq, amount, posted_at, event_at, xid, "check", debit, credit, epoch,
		effective_date, COALESCE(book_date, effective_date), rule_id, source_id, kind,
		accrual_id, COALESCE(posting_id, accrual_id), payout_id,
		COALESCE(tracked, 0), COALESCE(pending, 0), COALESCE(maturing, 0), COALESCE(available, 0),
		COALESCE(held, 0), order_key
	FROM rebate_data.entry
	UNION ALL
	SELECT account_id, seq, amount, posted_at, event_at, xid, "check", debit, credit, epoch,
		effective_date, COALESCE(book_date, effective_date), rule_id, source_id, kind,
		accrual_id, COALESCE(posting_id, accrual_id), payout_id,
		COALESCE(tracked, 0), COALESCE(pending, 0), COALESCE(maturing, 0), COALESCE(available, 0),
		COALESCE(held, 0), order_key
	FROM rebate_data.entry_archive) l
WHERE seq IS NOT NULL;

-- the trial balance; what was folded by version 1 stays as it is, under its own mark
CREATE TABLE rebate_data.checkpoint (
	ledger_account_id	integer NOT NULL,
	currency			text COLLATE "C" NOT NULL,
	amount				bigint NOT NULL,
	CONSTRAINT checkpoint_pkey PRIMARY KEY (ledger_account_id, currency)
) USING heap;
COMMENT ON TABLE rebate_data.checkpoint IS 'debits less credits of each ledger account, members'' buckets too, of the entries before the mark in rebate_data.fold';
ALTER TABLE rebate_data.fold
	ADD COLUMN checkpoint_epoch integer NOT NULL DEFAULT 0,
	ADD COLUMN checkpoint_xid bigint NOT NULL DEFAULT 0;
COMMENT ON TABLE rebate_data.fold IS 'one row, the marks: entries of earlier epochs, and those of this epoch by earlier transactions, are in rebate_data.checkpoint';
COMMENT ON COLUMN rebate_data.fold.epoch IS 'mark of rebate_data.house_balance';
COMMENT ON COLUMN rebate_data.fold.xid IS 'mark of rebate_data.house_balance';
COMMENT ON COLUMN rebate_data.fold.checkpoint_epoch IS 'mark of rebate_data.checkpoint';
COMMENT ON COLUMN rebate_data.fold.checkpoint_xid IS 'mark of rebate_data.checkpoint';
COMMENT ON TABLE rebate_data.house_balance IS 'what libraries of version 0.1 fold: debits less credits of each house account, of the entries before their mark in rebate_data.fold; nothing reads it';

-- sandbox
ALTER TABLE rebate_data.store ADD COLUMN sandbox boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN rebate_data.store.sandbox IS 'made as a sandbox: rebate.reset() may empty the ledger; never changed after the store was made';

$ddl$ END $function$;
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
