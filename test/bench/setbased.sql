-- The same rebates by statement triggers in PL/pgSQL with transition tables: the set-based competitor.
--
-- Tables, postings and indexes are those of plpgsql.sql, which makes them; here an INSERT of many orders finds rules,
-- numbers entries, chains checks and brings accounts along in one statement each.
\ir plpgsql.sql
DROP TRIGGER rebate_insert ON orders;

-- The chain of checks of an account, as a window aggregate.
CREATE FUNCTION ledger.chain_step(state bigint, seed bigint, entry bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
	SELECT hashint8extended(entry, coalesce(state, seed))
$$;
CREATE AGGREGATE ledger.chain(bigint, bigint) (sfunc = ledger.chain_step, stype = bigint);

CREATE FUNCTION ledger.orders_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	new_generation	integer := (SELECT generation FROM ledger.generation);
BEGIN
	-- In the order of their members, so that two of these do not wait for each other in a circle.
	INSERT INTO ledger.account
	SELECT nextval('ledger.id'), 0, 0, 0, 0, 0, 0, 0, clock_timestamp(), 'o', 'EUR', member, now(), gen_random_uuid()
	FROM (SELECT DISTINCT customer_id AS member FROM new_orders WHERE customer_id IS NOT NULL ORDER BY 1) m
	WHERE NOT EXISTS (SELECT FROM ledger.account a WHERE a.member = m.member AND a.currency = 'EUR')
	ON CONFLICT (member, currency) DO NOTHING;
	PERFORM FROM ledger.account
	WHERE member IN (SELECT customer_id FROM new_orders) AND currency = 'EUR' ORDER BY account_id FOR NO KEY UPDATE;

	WITH rules AS (
		SELECT DISTINCT ON (n.id) n.id, n.customer_id, n.amount, n.created_at, r.rule_id, r.version, r.expense_account,
			round(n.amount * r.percent)::bigint AS earned
		FROM new_orders n JOIN ledger.rule_version r ON r.merchant_id = n.merchant_id
			AND r.valid_from <= n.created_at AND (r.valid_to > n.created_at OR r.valid_to IS NULL)
		WHERE n.customer_id IS NOT NULL
		ORDER BY n.id, r.priority DESC, r.generation DESC
	), numbered AS (
		SELECT o.*, a.account_id, a.last_check, nextval('ledger.id') AS accrual_id,
			a.last_entry + row_number() OVER w AS seq, a.available + sum(o.earned) OVER w AS balance,
			greatest(a.last_posted, clock_timestamp()) AS posted
		FROM rules o JOIN ledger.account a ON a.member = o.customer_id AND a.currency = 'EUR'
		WINDOW w AS (PARTITION BY a.account_id ORDER BY o.id ROWS UNBOUNDED PRECEDING)
	), chained AS (
		SELECT n.*, ledger.chain(last_check, hash_record_extended(ROW(account_id, seq, earned, accrual_id, balance), 0)) OVER (PARTITION BY account_id
			ORDER BY seq ROWS UNBOUNDED PRECEDING) AS new_check
		FROM numbered n
	), accruals AS (
		INSERT INTO ledger.accrual (accrual_id, account_id, source_id, rule_id, version, generation, first_seen, order_time,
			earned, bucket, phase, flags, order_id, base, confirmed_at,
			kind, seq, posted_at, xid, "check", debit, credit, epoch, effective_date, available)
		SELECT accrual_id, account_id, 1, rule_id, version, new_generation, now(), created_at,
			earned, 'a', 'c', 0, id, amount, now(),
			'a', seq, posted, pg_current_xact_id(), new_check, expense_account, 4, 1, current_date, balance
		FROM chained
	)
	UPDATE ledger.account a SET last_entry = c.seq, available = c.balance, last_posted = c.posted, last_check = c.new_check
	FROM (SELECT DISTINCT ON (account_id) account_id, seq, balance, posted, new_check FROM chained
		ORDER BY account_id, seq DESC) c
	WHERE a.account_id = c.account_id;
	RETURN NULL;
END
$$;
CREATE TRIGGER rebate_insert AFTER INSERT ON orders REFERENCING NEW TABLE AS new_orders
	FOR EACH STATEMENT EXECUTE FUNCTION ledger.orders_inserted();
