-- The same rebates by row triggers in PL/pgSQL: the competitor, written as well as we can.
--
-- Same postings, tables, columns and indexes as rebate's account, accrual and entry, with two advantages of a
-- trigger made for one table: member and order are bigints as in that table, not texts; and nothing is set aside
-- (an order that cannot be decided is an error). Bigints of minor units, no foreign keys, fillfactors as in the store.
CREATE SCHEMA ledger;
CREATE SEQUENCE ledger.id AS bigint CACHE 64;

CREATE TABLE ledger.generation (
	one			boolean PRIMARY KEY DEFAULT true CHECK (one),
	generation	integer NOT NULL
);
INSERT INTO ledger.generation (generation) VALUES (1);

CREATE TABLE ledger.rule_version (
	rule_id			integer NOT NULL,
	version			integer NOT NULL,
	generation		integer NOT NULL,
	merchant_id		integer NOT NULL,
	percent			numeric NOT NULL,
	valid_from		timestamptz NOT NULL,
	valid_to		timestamptz,
	priority		integer NOT NULL DEFAULT 0,
	expense_account	integer NOT NULL DEFAULT 100,
	PRIMARY KEY (rule_id, version)
);
CREATE INDEX ON ledger.rule_version (merchant_id, priority DESC, generation DESC);

CREATE TABLE ledger.account (
	account_id	bigint NOT NULL PRIMARY KEY,
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
	member		bigint NOT NULL,
	opened_at	timestamptz NOT NULL,
	handle		uuid NOT NULL,
	UNIQUE (member, currency)
) WITH (fillfactor = 50);

-- rule_id 0: the decision that an order gets nothing.
CREATE TABLE ledger.accrual (
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
	order_id		bigint NOT NULL,
	base			numeric,
	confirmed_at	timestamptz,
	due				timestamptz,
	granted			bigint,
	level			smallint,
	looked_up		jsonb,
	kind			"char",
	seq				bigint,
	posted_at		timestamptz,
	xid				xid8,
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
	UNIQUE (source_id, order_id, rule_id, account_id)
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX ON ledger.accrual (account_id, seq) WHERE seq IS NOT NULL;

CREATE TABLE ledger.entry (
	account_id		bigint NOT NULL,
	seq				bigint NOT NULL,
	posting_id		bigint NOT NULL,
	amount			bigint NOT NULL,
	posted_at		timestamptz NOT NULL,
	event_at		timestamptz NOT NULL,
	xid				xid8 NOT NULL,
	"check"			bigint NOT NULL,
	debit			integer NOT NULL,
	credit			integer NOT NULL,
	epoch			integer NOT NULL,
	effective_date	date NOT NULL,
	book_date		date NOT NULL,
	kind			"char" NOT NULL,
	accrual_id		bigint,
	payout_id		bigint,
	tracked			bigint,
	pending			bigint,
	maturing		bigint,
	available		bigint,
	held			bigint,
	source_id		integer,
	order_id		bigint,
	PRIMARY KEY (account_id, seq)
);

-- A new order: one look for its rule, one change of the account, one insert.
CREATE FUNCTION ledger.order_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	new_generation	integer;
	new_rule		integer;
	new_version		integer;
	new_expense		integer;
	new_earned		bigint;
	new_accrual		bigint := nextval('ledger.id');
	a				record;
BEGIN
	SELECT (SELECT generation FROM ledger.generation), r.rule_id, r.version, r.expense_account, round(NEW.amount * r.percent)
	INTO new_generation, new_rule, new_version, new_expense, new_earned
	FROM ledger.rule_version r WHERE r.merchant_id = NEW.merchant_id
		AND r.valid_from <= NEW.created_at AND (r.valid_to > NEW.created_at OR r.valid_to IS NULL)
	ORDER BY r.priority DESC, r.generation DESC
	LIMIT 1;

	IF new_rule IS NULL OR NEW.customer_id IS NULL THEN
		INSERT INTO ledger.accrual (accrual_id, account_id, source_id, rule_id, version, generation, first_seen, order_time,
			earned, bucket, phase, flags, order_id)
		SELECT new_accrual, 0, 1, 0, 0, generation, now(), NEW.created_at, 0, 'a', 'c', 0, NEW.id FROM ledger.generation;
		RETURN NULL;
	END IF;

	IF new_earned <= 0 THEN
		-- Rare: nothing to post, or a negative order.
		PERFORM ledger.open_account(NEW.customer_id);
		INSERT INTO ledger.accrual (accrual_id, account_id, source_id, rule_id, version, generation, first_seen, order_time,
			earned, bucket, phase, flags, order_id, base, confirmed_at)
		SELECT new_accrual, account_id, 1, new_rule, new_version, new_generation, now(), NEW.created_at,
			new_earned, 'a', 'c', 0, NEW.id, NEW.amount, now()
		FROM ledger.account WHERE member = NEW.customer_id AND currency = 'EUR'
		RETURNING account_id INTO a;
		PERFORM ledger.post(a.account_id, new_earned, new_accrual, NEW.id, NEW.created_at);
		RETURN NULL;
	END IF;

	LOOP
		UPDATE ledger.account SET
			last_entry = last_entry + 1,
			available = available + new_earned,
			last_posted = greatest(last_posted, clock_timestamp()),
			last_check = hash_record_extended(ROW(account_id, last_entry + 1, new_earned, new_accrual, available + new_earned),
				last_check)
		WHERE member = NEW.customer_id AND currency = 'EUR'
		RETURNING account_id, last_entry, last_check, last_posted, available INTO a;
		EXIT WHEN FOUND;
		PERFORM ledger.open_account(NEW.customer_id);
	END LOOP;

	INSERT INTO ledger.accrual (accrual_id, account_id, source_id, rule_id, version, generation, first_seen, order_time,
		earned, bucket, phase, flags, order_id, base, confirmed_at,
		kind, seq, posted_at, xid, "check", debit, credit, epoch, effective_date, available)
	VALUES (new_accrual, a.account_id, 1, new_rule, new_version, new_generation, now(), NEW.created_at,
		new_earned, 'a', 'c', 0, NEW.id, NEW.amount, now(),
		'a', a.last_entry, a.last_posted, pg_current_xact_id(), a.last_check, new_expense, 4, 1, current_date, a.available);
	RETURN NULL;
END
$$;

-- The first order of a member; another one may be doing the same.
CREATE FUNCTION ledger.open_account(new_member bigint) RETURNS void LANGUAGE sql AS $$
	INSERT INTO ledger.account
	VALUES (nextval('ledger.id'), 0, 0, 0, 0, 0, 0, 0, clock_timestamp(), 'o', 'EUR', new_member, now(), gen_random_uuid())
	ON CONFLICT (member, currency) DO NOTHING
$$;

-- A changed order: what it earns now, under the rules that were there when it came, less what it has.
CREATE FUNCTION ledger.order_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	facts			record;
	has				record;
	new_rule		integer := 0;
	new_version		integer;
	new_earned		bigint := 0;
	new_accrual		bigint;
	new_account		bigint := 0;
BEGIN
	SELECT min(generation) AS generation, min(first_seen) AS first_seen INTO facts
	FROM ledger.accrual WHERE source_id = 1 AND order_id = OLD.id;
	IF facts.generation IS NULL THEN
		RETURN NULL;			-- older than the trigger
	END IF;

	IF TG_OP = 'UPDATE' AND NEW.customer_id IS NOT NULL THEN
		SELECT r.rule_id, r.version, round(NEW.amount * r.percent) INTO new_rule, new_version, new_earned
		FROM ledger.rule_version r WHERE r.merchant_id = NEW.merchant_id AND r.generation <= facts.generation
			AND r.valid_from <= NEW.created_at AND (r.valid_to > NEW.created_at OR r.valid_to IS NULL)
		ORDER BY r.priority DESC, r.generation DESC
		LIMIT 1;
		IF FOUND THEN
			PERFORM ledger.open_account(NEW.customer_id);
			SELECT account_id INTO new_account FROM ledger.account WHERE member = NEW.customer_id AND currency = 'EUR';
			INSERT INTO ledger.accrual (accrual_id, account_id, source_id, rule_id, version, generation, first_seen,
				order_time, earned, bucket, phase, flags, order_id, base, confirmed_at)
			VALUES (nextval('ledger.id'), new_account, 1, new_rule, new_version, facts.generation, facts.first_seen,
				NEW.created_at, 0, 'a', 'c', 0, NEW.id, NEW.amount, facts.first_seen)
			ON CONFLICT DO NOTHING;
		END IF;
	END IF;

	-- In the order of accounts, so that two of these do not wait for each other.
	FOR has IN
		SELECT accrual_id, account_id, rule_id, earned FROM ledger.accrual
		WHERE source_id = 1 AND order_id = OLD.id AND rule_id <> 0 ORDER BY account_id, rule_id
	LOOP
		IF has.account_id = new_account AND has.rule_id = new_rule THEN
			PERFORM ledger.post(has.account_id, new_earned - has.earned, has.accrual_id, NEW.id, now());
			UPDATE ledger.accrual SET earned = new_earned, version = new_version, base = NEW.amount, phase = 'c',
				order_time = NEW.created_at
			WHERE source_id = 1 AND order_id = OLD.id AND rule_id = has.rule_id AND account_id = has.account_id;
		ELSE
			PERFORM ledger.post(has.account_id, -has.earned, has.accrual_id, OLD.id, now());
			UPDATE ledger.accrual SET earned = 0, phase = 'v'
			WHERE source_id = 1 AND order_id = OLD.id AND rule_id = has.rule_id AND account_id = has.account_id;
		END IF;
	END LOOP;
	RETURN NULL;
END
$$;

CREATE FUNCTION ledger.post(the_account bigint, change bigint, the_accrual bigint, the_order bigint, event timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	a	record;
BEGIN
	IF change = 0 THEN
		RETURN;
	END IF;
	UPDATE ledger.account SET
		last_entry = last_entry + 1,
		available = available + change,
		last_posted = greatest(last_posted, clock_timestamp()),
		last_check = hash_record_extended(ROW(account_id, last_entry + 1, change, the_accrual, available + change), last_check)
	WHERE account_id = the_account
	RETURNING last_entry, last_check, last_posted, available INTO a;
	INSERT INTO ledger.entry (account_id, seq, posting_id, amount, posted_at, event_at, xid, "check", debit, credit, epoch,
		effective_date, book_date, kind, accrual_id, available, source_id, order_id)
	VALUES (the_account, a.last_entry, nextval('ledger.id'), abs(change), a.last_posted, event, pg_current_xact_id(), a.last_check,
		CASE WHEN change > 0 THEN 100 ELSE 4 END, CASE WHEN change > 0 THEN 4 ELSE 100 END, 1,
		current_date, current_date, CASE WHEN change > 0 THEN 'a' ELSE 'r' END::"char", the_accrual, a.available, 1, the_order);
END
$$;

CREATE TRIGGER rebate_insert AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION ledger.order_inserted();
CREATE TRIGGER rebate_update AFTER UPDATE ON orders FOR EACH ROW
	WHEN ((OLD.customer_id, OLD.merchant_id, OLD.amount, OLD.created_at) IS DISTINCT FROM
		(NEW.customer_id, NEW.merchant_id, NEW.amount, NEW.created_at)) EXECUTE FUNCTION ledger.order_changed();
CREATE TRIGGER rebate_delete AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION ledger.order_changed();

INSERT INTO ledger.rule_version (rule_id, version, generation, merchant_id, percent, valid_from)
SELECT m, 1, 1 + m, m, 1 + m % 10, now() FROM generate_series(1, :merchants) m;
UPDATE ledger.generation SET generation = 1 + :merchants;

GRANT USAGE ON SCHEMA ledger TO shop;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ledger TO shop;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA ledger TO shop;
ANALYZE ledger.rule_version;
