/*
 * audit_ledger.c
 *	  The ledger part of the audit.
 *
 * It believes nothing but the entries.  A pass over all rows tells whether
 * anything may be wrong (audit_pass.c).  If so, and only then, the entries are
 * walked in the order of accounts and sequences beside the accounts, and queries
 * compare the tables: these tell what is wrong.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "archive.h"
#include "audit.h"
#include "audit_pass.h"
#include "ledger_scan.h"

/* The walk along one account's entries */
typedef struct AccountWalk
{
	ReturnSetInfo *result;
	bool		known;			/* there is a row of it in rebate_data.account */
	FormData_account account;
	int64		account_id;
	int64		last_seq;
	int64		balance[NUM_BUCKETS];
	int64		check;
	TimestampTz posted_at;
	Carried		carried;		/* what it begins with; counted down to what is there of it */
} AccountWalk;

static void
report_entry(AccountWalk *walk, int64 seq, const char *violation, const char *detail)
{
	audit_report(walk->result, "ledger", violation,
				 psprintf("account " INT64_FORMAT ", entry " INT64_FORMAT, walk->account_id, seq),
				 detail);
}

static void
check_entry(AccountWalk *walk, const LedgerEntry *entry)
{
	EntryFields e = entry->fields;
	bool		known_kind;

	/* of what was dropped, openings are there yet; anything else is told by a query */
	if (e.seq <= walk->carried.seq)
	{
		if (entry->opening)
			walk->carried.opened -= (uint64) entry_check(0, &e);
		return;
	}
	if (e.seq != walk->last_seq + 1)
		report_entry(walk, e.seq, "sequence not dense",
					 psprintf("The entry before it is " INT64_FORMAT ".", walk->last_seq));
	walk->last_seq = e.seq;

	if (e.amount <= 0 || e.debit == e.credit)
		report_entry(walk, e.seq, "entry is no movement", NULL);
	known_kind = e.kind == ENTRY_ACCRUE || e.kind == ENTRY_REVERSE || e.kind == ENTRY_MOVE ||
		e.kind == ENTRY_WRITE_OFF;
	if (!known_kind)
		report_entry(walk, e.seq, "unknown kind of entry", psprintf("The kind is \"%c\".", e.kind));
	if (e.posted_at < walk->posted_at)
		report_entry(walk, e.seq, "posted before the entry before it", NULL);
	walk->posted_at = e.posted_at;

	walk->check = entry_check(walk->check, &e);
	if (walk->check != entry->check)
	{
		report_entry(walk, e.seq, "check does not match",
					 "This entry, or one before it, is not as it was posted.");
		/* report each break of the chain once */
		walk->check = entry->check;
	}

	ledger_move(walk->balance, &e);
	for (int b = 0; b < NUM_BUCKETS; b++)
	{
		int64		after = entry->balance[b];

		if (after != walk->balance[b])
		{
			report_entry(walk, e.seq, "balance after the entry does not match",
						 psprintf("Bucket %d is " INT64_FORMAT " minor units, the entries give " INT64_FORMAT ".",
								  b, after, walk->balance[b]));
			walk->balance[b] = after;
		}
		else if (after < 0 && b != BUCKET_AVAILABLE)
			report_entry(walk, e.seq, "bucket below zero", psprintf("Bucket %d.", b));
	}
}

/* All entries of an account were seen: does its row say the same? */
static void
finish_account(AccountWalk *walk)
{
	char	   *subject = psprintf("account " INT64_FORMAT, walk->account_id);

	if (!walk->known)
	{
		audit_report(walk->result, "ledger", "entries without an account", subject, NULL);
		return;
	}
	if (walk->carried.opened != 0)
		audit_report(walk->result, "ledger", "entries before those carried forward do not match", subject,
					 psprintf("One up to entry " INT64_FORMAT ", of those that opened a rebate, is not as it was posted.",
							  walk->carried.seq));
	if (walk->account.last_entry != walk->last_seq)
		audit_report(walk->result, "ledger", "account and entries differ", subject,
					 psprintf("The account's last entry is " INT64_FORMAT ", there are entries up to " INT64_FORMAT ".",
							  walk->account.last_entry, walk->last_seq));
	else if (walk->account.last_check != walk->check)
		audit_report(walk->result, "ledger", "account and entries differ", subject,
					 "The check of the last entry differs.");
	for (int b = 0; b < NUM_BUCKETS; b++)
		if (walk->account.balance[b] != walk->balance[b])
			audit_report(walk->result, "ledger", "balance does not match", subject,
						 psprintf("Bucket %d is " INT64_FORMAT " minor units, the entries give " INT64_FORMAT ".",
								  b, walk->account.balance[b], walk->balance[b]));
}

static void
start_account(AccountWalk *walk, int64 account_id, TupleTableSlot *row, const Carried *carried)
{
	ReturnSetInfo *result = walk->result;

	memset(walk, 0, sizeof(*walk));
	walk->result = result;
	walk->account_id = account_id;
	walk->posted_at = carried->seq > 0 ? carried->posted_at : PG_INT64_MIN;
	walk->carried = *carried;
	walk->last_seq = carried->seq;
	walk->check = carried->check;
	memcpy(walk->balance, carried->balance, sizeof(walk->balance));
	walk->known = row != NULL;
	if (row)
	{
		bool		free_it;
		HeapTuple	tuple = ExecFetchSlotHeapTuple(row, false, &free_it);

		walk->account = *(Form_account) GETSTRUCT(tuple);
		if (free_it)
			heap_freetuple(tuple);
	}
}

static int64
slot_int64(TupleTableSlot *slot, int attno)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, attno, &isnull));
}

/* Walk accounts and entries side by side, both in the order of account ids. */
static void
walk_accounts(Store *store, ReturnSetInfo *result, Snapshot snapshot)
{
	Relation	accounts = store_open(store, ST_ACCOUNT, AccessShareLock);
	Relation	index = index_open(store->indexes[SI_ACCOUNT_ID], AccessShareLock);
	TupleTableSlot *account = table_slot_create(accounts, NULL);
	IndexScanDesc account_scan = index_beginscan_compat(accounts, index, snapshot, 0);
	LedgerScan *ledger = ledger_scan_begin(store, snapshot);
	const LedgerEntry *entry = ledger_scan_next(ledger);
	AccountWalk walk = {.result = result};
	bool		have_account;

	index_rescan(account_scan, NULL, 0, NULL, 0);
	have_account = index_getnext_slot(account_scan, ForwardScanDirection, account);
	while (have_account || entry)
	{
		int64		of_account = have_account ? slot_int64(account, AC_ACCOUNT_ID) : PG_INT64_MAX;
		int64		of_entry = entry ? entry->fields.account_id : PG_INT64_MAX;
		int64		id = Min(of_account, of_entry);
		Carried		carried;

		CHECK_FOR_INTERRUPTS();
		carried = archive_carried(store, snapshot, id);
		start_account(&walk, id, of_account == id ? account : NULL, &carried);
		for (; entry && entry->fields.account_id == id; entry = ledger_scan_next(ledger))
			check_entry(&walk, entry);
		finish_account(&walk);
		if (of_account == id)
			have_account = index_getnext_slot(account_scan, ForwardScanDirection, account);
	}

	ledger_scan_end(ledger);
	index_endscan(account_scan);
	ExecDropSingleTupleTableSlot(account);
	index_close(index, AccessShareLock);
	table_close(accounts, AccessShareLock);
}

/* When a query is worth its time */
typedef enum RunWhen
{
	IN_DOUBT,					/* the pass found something */
	IF_FROZEN,					/* ... or frozen orders */
	IF_ERASED,					/* ... or erased members */
	ALWAYS						/* its tables are small */
} RunWhen;

typedef struct LedgerQuery
{
	RunWhen		when;
	const char *dropped;		/* put in place of %s where entries may have been dropped */
	const char *sql;			/* returns violation, subject, detail */
} LedgerQuery;

/* Checks that are joins */
static const LedgerQuery ledger_queries[] = {
	/* what an accrual says it earned, and in which bucket, against its entries */
	{IN_DOUBT,
		/* these are compared in audit_carried.c */
		" AND NOT EXISTS (SELECT FROM rebate_data.carried c WHERE c.account_id = x.account_id AND x.seq <= c.seq)",
		"SELECT CASE WHEN x.accrual_id IS NULL THEN 'entries without an accrual'"
		"            ELSE 'accrual and entries differ' END,"
		"       'accrual ' || coalesce(x.accrual_id, e.accrual_id),"
		"       'The accrual says ' || coalesce(x.earned::text, 'nothing') || ' minor units, its entries '"
		"         || coalesce(e.earned::text, 'nothing') || '.'"
		"  FROM (SELECT * FROM rebate_data.accrual WHERE rule_id <> 0) x"
		"  FULL JOIN (SELECT accrual_id, account_id,"
		"               sum(CASE WHEN credit BETWEEN 1 AND 5 THEN amount ELSE 0 END"
		"                 - CASE WHEN debit BETWEEN 1 AND 5 THEN amount ELSE 0 END) AS earned,"
		"               ARRAY[sum(amount * ((credit = 1)::int - (debit = 1)::int)),"
		"                     sum(amount * ((credit = 2)::int - (debit = 2)::int)),"
		"                     sum(amount * ((credit = 3)::int - (debit = 3)::int)),"
		"                     sum(amount * ((credit = 4)::int - (debit = 4)::int)),"
		"                     sum(amount * ((credit = 5)::int - (debit = 5)::int))] AS buckets"
		"          FROM rebate_data.ledger WHERE kind IN ('a', 'r', 'm', 'w')"
		"         GROUP BY accrual_id, account_id) e"
		"    ON e.accrual_id = x.accrual_id AND e.account_id = x.account_id"
		" WHERE (x.accrual_id IS NULL OR x.earned <> coalesce(e.earned, 0)"
		"    OR (x.bucket = '-') <> (x.earned = 0)"
		"    OR x.bucket NOT IN ('-', '0', '1', '2', '3', '4')"
		"    OR (x.bucket IN ('0', '1', '2', '3', '4')"
		"        AND coalesce(e.buckets[ascii(x.bucket::text) - 47], 0) <> x.earned))%s"},
	/* entries that name what is not there */
	{IN_DOUBT, NULL,
		"SELECT 'unknown ledger account', 'account ' || e.account_id || ', entry ' || e.seq,"
		"       'Debit ' || e.debit || ', credit ' || e.credit || '.'"
		"  FROM rebate_data.ledger e"
		" WHERE NOT EXISTS (SELECT FROM rebate_data.ledger_account l WHERE l.ledger_account_id = e.debit)"
		"    OR NOT EXISTS (SELECT FROM rebate_data.ledger_account l WHERE l.ledger_account_id = e.credit)"},
	{IN_DOUBT, NULL,
		"SELECT 'accrual of an unknown rule version', 'accrual ' || x.accrual_id,"
		"       'Rule ' || x.rule_id || ', version ' || x.version || '.'"
		"  FROM rebate_data.accrual x WHERE x.rule_id <> 0"
		"   AND NOT EXISTS (SELECT FROM rebate_data.rule_version v"
		"                    WHERE v.rule_id = x.rule_id AND v.version = x.version)"},
	{IN_DOUBT, NULL,
		"SELECT 'accrual of an unknown account', 'accrual ' || x.accrual_id,"
		"       'Account ' || x.account_id || '.'"
		"  FROM rebate_data.accrual x WHERE x.rule_id <> 0"
		"   AND NOT EXISTS (SELECT FROM rebate_data.account a WHERE a.account_id = x.account_id)"},
	{IN_DOUBT, NULL,
		"SELECT 'accrual of an unknown source', 'accrual ' || x.accrual_id,"
		"       'Source ' || x.source_id || '.'"
		"  FROM rebate_data.accrual x"
		" WHERE NOT EXISTS (SELECT FROM rebate_data.source s WHERE s.source_id = x.source_id)"},
	{IN_DOUBT, NULL,
		"SELECT 'rebate without an opening entry', 'accrual ' || accrual_id, NULL"
		"  FROM rebate_data.accrual WHERE (rule_id <> 0) <> (seq IS NOT NULL)"},
	/* one rebate of an order under one rule for one account */
	{IN_DOUBT, NULL,
		"SELECT 'rebate twice', 'source ' || source_id || ', order ' || order_key,"
		"       'Rule ' || rule_id || ', account ' || account_id || '.'"
		"  FROM rebate_data.accrual GROUP BY source_id, order_key, rule_id, account_id HAVING count(*) > 1"},
	/* the facts of an order are the same in each of its rows */
	{IN_DOUBT, NULL,
		"SELECT 'facts of an order disagree', 'source ' || source_id || ', order ' || order_key, NULL"
		"  FROM rebate_data.accrual GROUP BY source_id, order_key"
		" HAVING min(generation) <> max(generation) OR min(first_seen) <> max(first_seen)"},
	/* the clock stands still for what is frozen */
	{IF_FROZEN, NULL,
		"SELECT 'frozen order does not know of its freeze', 'source ' || f.source_id || ', order ' || f.order_key, f.reason"
		"  FROM rebate_data.freeze f"
		" WHERE NOT EXISTS (SELECT FROM rebate_data.accrual x WHERE x.source_id = f.source_id"
		"                      AND x.order_key = f.order_key AND x.flags & 1024 <> 0)"},
	{IF_FROZEN, NULL,
		"SELECT 'order says that it is frozen and is not', 'source ' || x.source_id || ', order ' || x.order_key, NULL"
		"  FROM rebate_data.accrual x WHERE x.flags & 1024 <> 0"
		"   AND NOT EXISTS (SELECT FROM rebate_data.freeze f"
		"                    WHERE f.source_id = x.source_id AND f.order_key = x.order_key)"},
	{IN_DOUBT, NULL,
		"SELECT 'rebate matured while it was frozen', 'accrual ' || accrual_id, NULL"
		"  FROM rebate_data.accrual WHERE bucket NOT IN ('0', '1', '2') AND due = 'infinity'"},
	/* the clock finds by another table what is due */
	{IN_DOUBT, NULL,
		"SELECT CASE WHEN x.accrual_id IS NULL THEN 'what waits for the clock is no accrual'"
		"            ELSE 'accrual does not wait for the clock' END,"
		"       'account ' || account_id || ', entry ' || seq, NULL"
		"  FROM (SELECT * FROM rebate_data.accrual"
		"         WHERE bucket IN ('0', '1', '2') AND due IS NOT NULL) x"
		"  FULL JOIN (SELECT true AS waits, * FROM rebate_data.waiting) w USING (account_id, seq, bucket, due)"
		" WHERE x.accrual_id IS NULL OR w.waits IS NULL"},
	{IN_DOUBT, NULL,
		"SELECT 'account in an unknown currency', 'account ' || a.account_id, a.currency"
		"  FROM rebate_data.account a"
		" WHERE NOT EXISTS (SELECT FROM rebate_data.currency c WHERE c.code = a.currency)"},
	{ALWAYS, NULL,
		"SELECT 'rules of a generation to come', 'rule ' || v.rule_id || ', version ' || v.version, NULL"
		"  FROM rebate_data.rule_version v"
		" WHERE v.generation > (SELECT generation FROM rebate_data.generation)"},
	/* a sequence that was lost in a restore would give numbers out twice */
	{IN_DOUBT, NULL,
		"SELECT 'sequence behind its numbers', 'rebate_data.id', 'The greatest number in use is ' || m.id || '.'"
		"  FROM (SELECT greatest((SELECT max(account_id) FROM rebate_data.account),"
		"                        (SELECT max(accrual_id) FROM rebate_data.accrual)) AS id) m"
		" WHERE m.id >= (SELECT last_value + 64 FROM rebate_data.id)"},
	{ALWAYS, NULL,
		"SELECT 'direct changes are not guarded', 'table ' || c.relname, 'Trigger rebate_guard is missing or disabled.'"
		"  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
		" WHERE n.nspname = 'rebate_data' AND c.relkind = 'r'"
		"   AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'rebate_guard'"
		"                      AND t.tgenabled IN ('O', 'A'))"}
};

/* What version 1 of the store has instead of what version 2 has */
static const LedgerQuery queries_of_version_1[] = {
	/* what libraries of version 0.1 folded of house accounts */
	{IN_DOUBT, NULL,
		"SELECT 'house balance does not match', l.code || ', ' || currency,"
		"       'It is ' || coalesce(h.amount, 0) || ' minor units, the entries give ' || coalesce(e.amount, 0) || '.'"
		"  FROM rebate_data.house_balance h"
		"  FULL JOIN (SELECT ledger_account_id, currency, sum(amount) AS amount FROM ("
		"             SELECT g.ledger_account_id, a.currency, sum(g.amount) AS amount"
		"               FROM rebate_data.ledger e JOIN rebate_data.account a ON a.account_id = e.account_id"
		"               CROSS JOIN rebate_data.fold f"
		"              CROSS JOIN LATERAL (VALUES (e.debit, e.amount), (e.credit, - e.amount)) g (ledger_account_id, amount)"
		"              WHERE g.ledger_account_id >= 10 AND (e.epoch < f.epoch OR (e.epoch = f.epoch AND e.xid < f.xid))"
		"              GROUP BY g.ledger_account_id, a.currency) t"
		"              GROUP BY ledger_account_id, currency) e USING (ledger_account_id, currency)"
		"  LEFT JOIN rebate_data.ledger_account l USING (ledger_account_id)"
		" WHERE coalesce(h.amount, 0) <> coalesce(e.amount, 0)"}
};

/* The same of what version 2 of the store has */
static const LedgerQuery queries_of_version_2[] = {
	/* what was folded of all ledger accounts; openings are there although they are carried */
	{IN_DOUBT,
		" UNION ALL SELECT ledger_account_id, currency, amount FROM rebate_data.carried_house"
		" UNION ALL SELECT g.ledger_account_id, a.currency, - sum(g.amount)"
		"             FROM rebate_data.carried c JOIN rebate_data.account a ON a.account_id = c.account_id"
		"            CROSS JOIN LATERAL (VALUES (1, c.tracked), (2, c.pending), (3, c.maturing), (4, c.available), (5, c.held)) g (ledger_account_id, amount)"
		"            GROUP BY g.ledger_account_id, a.currency"
		" UNION ALL SELECT g.ledger_account_id, a.currency, - sum(g.amount)"
		"             FROM rebate_data.carried c JOIN rebate_data.account a ON a.account_id = c.account_id"
		"             JOIN rebate_data.accrual x ON x.account_id = c.account_id AND x.seq <= c.seq"
		"            CROSS JOIN LATERAL (VALUES (x.debit, coalesce(x.amount, abs(x.earned))),"
		"                                (x.credit, - coalesce(x.amount, abs(x.earned)))) g (ledger_account_id, amount)"
		"            WHERE g.ledger_account_id < 10 GROUP BY g.ledger_account_id, a.currency",
		"SELECT 'folded balance does not match', coalesce(l.code, ledger_account_id::text) || ', ' || currency,"
		"       'It is ' || coalesce(b.amount, 0) || ' minor units, the entries give ' || coalesce(e.amount, 0) || '.'"
		"  FROM rebate_data.checkpoint b"
		"  FULL JOIN (SELECT ledger_account_id, currency, sum(amount) AS amount FROM ("
		"             SELECT g.ledger_account_id, a.currency, sum(g.amount) AS amount"
		"               FROM rebate_data.ledger e JOIN rebate_data.account a ON a.account_id = e.account_id"
		"               CROSS JOIN rebate_data.fold f"
		"              CROSS JOIN LATERAL (VALUES (e.debit, e.amount), (e.credit, - e.amount)) g (ledger_account_id, amount)"
		"              WHERE (e.epoch, e.xid) < (f.checkpoint_epoch, f.checkpoint_xid)"
		"              GROUP BY g.ledger_account_id, a.currency%s) t"
		"              GROUP BY ledger_account_id, currency) e USING (ledger_account_id, currency)"
		"  LEFT JOIN rebate_data.ledger_account l USING (ledger_account_id)"
		" WHERE coalesce(b.amount, 0) <> coalesce(e.amount, 0)"},
	{IF_ERASED, NULL,
		"SELECT 'erased member has a balance', 'account ' || account_id, NULL"
		"  FROM rebate_data.account"
		" WHERE status = 'e' AND (tracked <> 0 OR pending <> 0 OR maturing <> 0 OR available <> 0 OR held <> 0)"},
	{IF_ERASED, NULL,
		"SELECT 'rebate of an erased member is not settled', 'accrual ' || x.accrual_id, NULL"
		"  FROM rebate_data.accrual x JOIN rebate_data.account a ON a.account_id = x.account_id"
		" WHERE a.status = 'e' AND x.earned <> 0 AND x.flags & 16392 <> 16392"},
	/* money that leaves the books takes two, as person_same() has it */
	{IF_ERASED, NULL,
		"SELECT 'balance written off without two people', 'account ' || w.account_id, NULL"
		"  FROM (SELECT DISTINCT account_id FROM rebate_data.ledger WHERE kind = 'w' OR debit = 20 OR credit = 20) w"
		"  LEFT JOIN rebate_data.account a ON a.account_id = w.account_id"
		" WHERE NOT EXISTS (SELECT FROM rebate_data.erasure e WHERE e.member = a.member AND a.status = 'e'"
		"                      AND COALESCE(e.requested_claim, e.requested_by) <> COALESCE(e.erased_claim, e.erased_by)"
		"                      AND (e.requested_by <> e.erased_by OR e.requested_claim IS NOT NULL AND e.erased_claim IS NOT NULL))"},
	{ALWAYS, NULL,
		"SELECT 'erased members can come back', 'rebate_data.former_secret', 'Without the secret no old key is recognized.'"
		" WHERE EXISTS (SELECT FROM rebate_data.former_member)"
		"   AND NOT EXISTS (SELECT FROM rebate_data.former_secret WHERE length(key) = 32)"},
	{ALWAYS, NULL,
		"SELECT 'a key that was replaced leads nowhere', 'member ' || f.member, NULL"
		"  FROM rebate_data.former_member f"
		" WHERE f.member IS NOT NULL AND NOT EXISTS (SELECT FROM rebate_data.account a WHERE a.member = f.member)"}
};

/* Run one of the queries, and report what it returns. */
static void
report_query(ReturnSetInfo *result, const char *sql)
{
	uint64		n = sql_run(sql, NULL, SPI_OK_SELECT);

	for (uint64 row = 0; row < n; row++)
		audit_report(result, "ledger",
					 SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1),
					 SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 2),
					 SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 3));
}

/* Run those of the queries that are worth it. */
static void
run_queries(Store *store, ReturnSetInfo *result, const LedgerQuery *queries, int n,
			const LedgerDoubt *doubt)
{
	for (int i = 0; i < n; i++)
	{
		RunWhen		when = queries[i].when;
		const char *sql = queries[i].sql;

		if (queries[i].dropped)
			sql = psprintf(sql, archive_exists(store) ? queries[i].dropped : "");
		if (doubt->any || when == ALWAYS || (when == IF_FROZEN && doubt->frozen) ||
			 (when == IF_ERASED && doubt->erased))
			report_query(result, sql);
	}
}

void
audit_ledger(Store *store, ReturnSetInfo *result)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	LedgerDoubt doubt = audit_pass(store, snapshot);
	StoreSpi	scope;

	if (doubt.any)
	{
		walk_accounts(store, result, snapshot);
		audit_carried(store, result, snapshot);
	}
	UnregisterSnapshot(snapshot);

	store_spi_begin(store, &scope);
	run_queries(store, result, ledger_queries, lengthof(ledger_queries), &doubt);
	if (store->version >= 2)
		run_queries(store, result, queries_of_version_2, lengthof(queries_of_version_2), &doubt);
	else
		run_queries(store, result, queries_of_version_1, lengthof(queries_of_version_1), &doubt);
	if (archive_exists(store))
		for (int i = 0; audit_archive_queries[i]; i++)
			report_query(result, audit_archive_queries[i]);
	store_spi_end(&scope);
}
