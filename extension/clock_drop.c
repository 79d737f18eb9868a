/*
 * clock_drop.c
 *	  rebate.drop_archived(): removes archived entries for good.
 *
 * Of each account the oldest archived entries go, up to a moment.  In the same
 * transaction goes forward what the rest of the ledger begins with: number, time
 * and check of the last of them, the balances after it, what they did to house
 * accounts, and sums of hashes by which the audit still sees that each rebate is
 * the sum of its entries.  Each entry is checked before: what the audit would
 * object to is not dropped, since the evidence would go with it.
 *
 * Entries that opened a rebate stay in the rebate's row.  Entries that are not
 * folded yet stay for a later run, so that house balances never need them.
 *
 * Nobody who posts reads the archive, so orders wait for nothing here.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api.h"
#include "archive.h"
#include "clock.h"
#include "clock_batch.h"
#include "event.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(rebate_drop_step);

/* Accounts of the first batch, and at most of one; entries of an account at once */
#define FIRST_BATCH		16
#define MAX_BATCH		500
#define MAX_ENTRIES		200

/* What dropped entries of one currency did to a house account */
typedef struct HouseSum
{
	int32		ledger_account;
	char	   *currency;
	int64		amount;
} HouseSum;

typedef struct Drop
{
	ClockBatch	batch;
	int64		account_id;		/* the accounts up to this one are done */
	int32		drop_id;		/* of the row that tells of this run */
	int32		fold_epoch;		/* entries before this mark are folded */
	int64		fold_xid;
} Drop;

/* One account, and how far its entries were taken */
typedef struct DropAccount
{
	const Drop *drop;
	TimestampTz before;
	int64		account_id;
	char	   *currency;
	int64		boundary;		/* the last archived entry */
	bool		stopped;		/* by one that must stay */
	int64		from;			/* where it was */
	Carried		carried;
	int64		removed;		/* entries that are no openings */
	List	  **houses;
} DropAccount;

/*
 * Are the entries that may go as many as were exported?  The last entry of an
 * account is archived once another follows it, whenever that is: so others than the
 * exported ones may have come from before the moment.  What earlier runs for the
 * same export have removed counts, too.  No entry is archived as long as we run.
 */
static void
check_exported(Store *store, const ClockRun *run)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	int64		there;
	bool		isnull;

	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(run->upto), false);
	sql_text(&params, run->note);
	store_spi_begin(store, &scope);
	sql_run("SELECT (SELECT count(*) FROM rebate_data.entry_archive WHERE posted_at < $1)"
			"     + coalesce(sum(entries), 0)::bigint FROM rebate_data.dropped"
			" WHERE before = $1 AND exported_to = $2", &params, SPI_OK_SELECT);
	there = DatumGetInt64(sql_get(0, 1, &isnull));
	store_spi_end(&scope);
	if (there != run->expected)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("not the entries that were exported are archived"),
				 errdetail(INT64_FORMAT " entries were exported, and " INT64_FORMAT " posted before that moment are or were archived.",
						   run->expected, there),
				 errhint("Some may have been archived since: export again, and count those that do not stay.")));
}

static void
begin_drop(Store *store, ClockRun *run)
{
	Drop	   *drop;
	StoreSpi	scope;
	SqlParams	params = {0};
	bool		isnull;

	store_require(store, 2, "rebate.drop_archived()");
	if (run->expected >= 0)
		check_exported(store, run);
	/* what was folded needs the entries no more */
	(void) clock_fold_step(store, run);
	drop = run->state = MemoryContextAllocZero(run->context, sizeof(Drop));
	clock_batch_init(&drop->batch, FIRST_BATCH, MAX_BATCH);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(run->upto), false);
	sql_text(&params, run->note);
	store_spi_begin(store, &scope);
	sql_run("SELECT checkpoint_epoch, checkpoint_xid FROM rebate_data.fold", NULL, SPI_OK_SELECT);
	drop->fold_epoch = sql_get_int(0, 1, 0);
	drop->fold_xid = DatumGetInt64(sql_get(0, 2, &isnull));
	sql_run("INSERT INTO rebate_data.dropped (drop_id, before, exported_to)"
			" SELECT coalesce(max(drop_id), 0) + 1, $1, $2 FROM rebate_data.dropped"
			" RETURNING drop_id", &params, SPI_OK_INSERT_RETURNING);
	drop->drop_id = sql_get_int(0, 1, 0);
	store_spi_end(&scope);
}

static void
add_to_house(DropAccount *account, int32 ledger_account, int64 amount)
{
	HouseSum   *house = NULL;
	ListCell   *lc;

	if (ledger_account < LEDGER_MEMO)
		return;
	foreach(lc, *account->houses)
	{
		HouseSum   *other = lfirst(lc);

		if (other->ledger_account == ledger_account && strcmp(other->currency, account->currency) == 0)
			house = other;
	}
	if (house == NULL)
	{
		house = palloc0(sizeof(HouseSum));
		house->ledger_account = ledger_account;
		house->currency = account->currency;
		*account->houses = lappend(*account->houses, house);
	}
	house->amount += amount;
}

static void
refuse_damaged(const EventRow *row)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_STORE_DAMAGED),
			 errmsg("entry " INT64_FORMAT " of account " INT64_FORMAT " is not as it was posted",
					row->fields.seq, row->fields.account_id),
			 errdetail("What is damaged is not dropped."),
			 errhint("rebate.audit() lists what is wrong.")));
}

/* There are no more entries, and not as many as were archived. */
static void
refuse_missing(const DropAccount *account)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_STORE_DAMAGED),
			 errmsg("entry " INT64_FORMAT " of account " INT64_FORMAT " is missing",
					account->carried.seq + 1, account->account_id),
			 errdetail("What is damaged is not dropped."),
			 errhint("rebate.audit() lists what is wrong.")));
}

/* Take an account through its next entry, which is to go if it may and is sound. */
static void
take_entry(void *arg, const EventRow *row)
{
	DropAccount *account = arg;
	Carried    *carried = &account->carried;
	const EntryFields *e = &row->fields;
	const Drop *drop = account->drop;

	if (account->stopped || e->posted_at >= account->before || e->epoch > drop->fold_epoch ||
		(e->epoch == drop->fold_epoch && e->xid >= drop->fold_xid))
	{
		account->stopped = true;
		return;
	}
	carried->check = entry_check(carried->check, e);
	ledger_move(carried->balance, e);
	if (e->seq != carried->seq + 1 || carried->check != row->check ||
		memcmp(carried->balance, row->balance, sizeof(carried->balance)) != 0)
		refuse_damaged(row);
	carried->book_date = carried->seq == 0 ? e->book_date : Max(carried->book_date, e->book_date);
	carried->seq = e->seq;
	carried->posted_at = e->posted_at;
	if (row->opening)
	{
		carried->opened += (uint64) entry_check(0, e);
		return;
	}
	account->removed++;
	digest_add(&carried->digest, &kept_digest_key, e->accrual_id, e->account_id,
			   digest_movement(&kept_digest_key, e));
	add_to_house(account, e->debit, e->amount);
	add_to_house(account, e->credit, -e->amount);
}

/* The next accounts that have archived entries; an array, and how many */
static DropAccount *
next_accounts(Store *store, const Drop *drop, TimestampTz before, List **houses, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	DropAccount *accounts;
	bool		isnull;

	sql_param(&params, INT8OID, Int64GetDatum(drop->account_id), false);
	sql_int(&params, drop->batch.rows);
	store_spi_begin(store, &scope);
	*n = (int) sql_run("SELECT b.account_id, b.seq, a.currency"
					   "  FROM rebate_data.boundary b"
					   "  JOIN rebate_data.account a ON a.account_id = b.account_id"
					   " WHERE b.account_id > $1 ORDER BY b.account_id LIMIT $2",
					   &params, SPI_OK_SELECT);
	accounts = MemoryContextAllocZero(context, sizeof(DropAccount) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		accounts[i].drop = drop;
		accounts[i].before = before;
		accounts[i].houses = houses;
		accounts[i].account_id = DatumGetInt64(sql_get(i, 1, &isnull));
		accounts[i].boundary = DatumGetInt64(sql_get(i, 2, &isnull));
		accounts[i].currency = sql_get_text(i, 3, context);
	}
	store_spi_end(&scope);
	return accounts;
}

static void
sql_array(SqlParams *params, Datum *values, int n, Oid type, Oid array_type)
{
	int16		length;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &length, &byval, &align);
	sql_param(params, array_type,
			  PointerGetDatum(construct_array(values, n, type, length, byval, align)), false);
}

/* Remove what was taken of the accounts, and write down what is carried forward. */
static int64
remove_entries(Store *store, DropAccount *accounts, int n)
{
	enum
	{
		ACCOUNT, FROM, SEQ, POSTED_AT, CHECK, BUCKETS, BOOK_DATE = BUCKETS + NUM_BUCKETS, OPENED,
		HIGH, LOW, NCOLUMNS
	};
	Datum	   *columns[NCOLUMNS];
	SqlParams	params = {0};
	StoreSpi	scope;
	int64		expected = 0;
	int64		removed;

	for (int c = 0; c < NCOLUMNS; c++)
		columns[c] = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		const Carried *carried = &accounts[i].carried;

		columns[ACCOUNT][i] = Int64GetDatum(accounts[i].account_id);
		columns[FROM][i] = Int64GetDatum(accounts[i].from);
		columns[SEQ][i] = Int64GetDatum(carried->seq);
		columns[POSTED_AT][i] = TimestampTzGetDatum(carried->posted_at);
		columns[CHECK][i] = Int64GetDatum(carried->check);
		for (int b = 0; b < NUM_BUCKETS; b++)
			columns[BUCKETS + b][i] = Int64GetDatum(carried->balance[b]);
		columns[BOOK_DATE][i] = DateADTGetDatum(carried->book_date);
		columns[OPENED][i] = Int64GetDatum((int64) carried->opened);
		columns[HIGH][i] = Int64GetDatum((int64) carried->digest.high);
		columns[LOW][i] = Int64GetDatum((int64) carried->digest.low);
		expected += accounts[i].removed;
	}
	for (int c = 0; c < NCOLUMNS; c++)
		if (c == BOOK_DATE)
			sql_array(&params, columns[c], n, DATEOID, DATEARRAYOID);
		else if (c == POSTED_AT)
			sql_array(&params, columns[c], n, TIMESTAMPTZOID, TIMESTAMPTZARRAYOID);
		else
			sql_array(&params, columns[c], n, INT8OID, INT8ARRAYOID);

	store_spi_begin(store, &scope);
	clock_batch_plan();
	removed = (int64) sql_run(
		"DELETE FROM rebate_data.entry_archive e USING unnest($1, $2, $3) d (account_id, after, upto)"
		" WHERE e.account_id = d.account_id AND e.seq > d.after AND e.seq <= d.upto",
		&params, SPI_OK_DELETE);
	if (removed != expected)
		elog(ERROR, "removed " INT64_FORMAT " entries instead of " INT64_FORMAT, removed, expected);
	sql_run("INSERT INTO rebate_data.carried (account_id, seq, posted_at, \"check\", tracked, pending,"
			"            maturing, available, held, book_date, opened, digest_high, digest_low)"
			" SELECT * FROM unnest($1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
			" ON CONFLICT (account_id) DO UPDATE SET seq = excluded.seq, posted_at = excluded.posted_at,"
			"   \"check\" = excluded.\"check\", tracked = excluded.tracked, pending = excluded.pending,"
			"   maturing = excluded.maturing, available = excluded.available, held = excluded.held,"
			"   book_date = excluded.book_date, opened = excluded.opened,"
			"   digest_high = excluded.digest_high, digest_low = excluded.digest_low",
			&params, SPI_OK_INSERT);
	store_spi_end(&scope);
	return removed;
}

/* What went of house accounts, and how many entries in all */
static void
record_drop(Store *store, const Drop *drop, List *houses, int64 removed)
{
	StoreSpi	scope;
	ListCell   *lc;
	SqlParams	counted = {0};

	store_spi_begin(store, &scope);
	foreach(lc, houses)
	{
		const HouseSum *house = lfirst(lc);
		SqlParams	params = {0};

		sql_int(&params, house->ledger_account);
		sql_text(&params, house->currency);
		sql_param(&params, INT8OID, Int64GetDatum(house->amount), false);
		sql_run("INSERT INTO rebate_data.carried_house AS h VALUES ($1, $2, $3)"
				" ON CONFLICT (ledger_account_id, currency) DO UPDATE SET amount = h.amount + excluded.amount",
				&params, SPI_OK_INSERT);
	}
	sql_int(&counted, drop->drop_id);
	sql_param(&counted, INT8OID, Int64GetDatum(removed), false);
	sql_run("UPDATE rebate_data.dropped SET entries = entries + $2 WHERE drop_id = $1", &counted,
			SPI_OK_UPDATE);
	store_spi_end(&scope);
}

/* Drop what is old of the next accounts. */
bool
clock_drop_step(Store *store, ClockRun *run)
{
	Drop	   *drop = run->state;
	DropAccount *accounts;
	List	   *houses = NIL;
	Snapshot	snapshot;
	EventScan  *scan;
	int			naccounts;
	int			n;
	int			ntaken = 0;
	int64		done = 0;
	int64		last;
	bool		more = false;

	if (drop == NULL)
	{
		begin_drop(store, run);
		return true;
	}
	clock_batch_locks(&drop->batch);
	naccounts = drop->batch.rows;
	accounts = next_accounts(store, drop, run->upto, &houses, &n);
	if (n == 0)
		return false;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = event_ranges_begin(store, snapshot);
	last = accounts[n - 1].account_id;
	for (int i = 0; i < n; i++)
	{
		DropAccount *account = &accounts[i];
		int64		found;

		account->carried = archive_carried(store, snapshot, account->account_id);
		account->from = account->carried.seq;
		found = event_range(scan, account->account_id, account->from, account->boundary,
							MAX_ENTRIES, take_entry, account);
		if (!account->stopped && account->carried.seq < account->boundary)
		{
			if (found < MAX_ENTRIES)
				refuse_missing(account);
			more = true;
		}
		if (account->carried.seq > account->from)
			accounts[ntaken++] = *account;
	}
	event_scan_end(scan);
	UnregisterSnapshot(snapshot);
	if (ntaken > 0)
	{
		done = remove_entries(store, accounts, ntaken);
		record_drop(store, drop, houses, done);
	}
	run->done += done;
	clock_batch_end(&drop->batch, naccounts);

	/* if one had as many as were asked for, all are looked at again */
	if (!more)
		drop->account_id = last;
	return true;
}

/*
 * rebate.drop_step(before, exported_to, entries): one batch, for rebate.drop_archived().
 * What is dropped is lost, so it takes an administrator, who says where it is.
 */
Datum
rebate_drop_step(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	char	   *exported_to = api_text(fcinfo, 1);

	rights_check(store, RIGHT_ADMIN, "rebate.drop_archived");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("before must not be null")));
	if (exported_to == NULL || exported_to[strspn(exported_to, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("exported_to must say where the entries were exported to"),
				 errdetail("They are gone afterwards; what is written here is kept in rebate.dropped_archives."),
				 errhint("COPY (SELECT * FROM rebate.archived_entries WHERE posted_at < ...) TO ...")));
	if (!PG_ARGISNULL(2) && PG_GETARG_INT64(2) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("entries must not be negative")));
	PG_RETURN_BOOL(clock_run_step(store, RIGHT_ADMIN, "drop_archived", PG_GETARG_TIMESTAMPTZ(0),
								  exported_to, PG_ARGISNULL(2) ? -1 : PG_GETARG_INT64(2)));
}
