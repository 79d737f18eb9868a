/*
 * clock_archive.c
 *	  The job that moves old entries to the archive.
 *
 * Times of entries never decrease along an account's sequence, so those before a
 * moment are a prefix of it.  They are moved from the front, and with them, in the
 * same transaction, the account's boundary: the number, time and check of the last
 * one, and the balances after it.  Whoever reads the ledger sees each entry once,
 * before and after.
 *
 * The last entry of an account stays, since readers begin from it.  So do the
 * entries that opened a rebate: they are in the rebate's row, which an order
 * is known by for as long as it can come again.
 *
 * Entries do not change, and nobody who posts reads them.  So no account is
 * locked, and orders wait for nothing here.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "api.h"
#include "archive.h"
#include "clock.h"
#include "clock_batch.h"

/* Accounts of the first batch, and at most of one; entries of an account at once */
#define FIRST_BATCH		16
#define MAX_BATCH		500
#define MAX_ENTRIES		100

/* The accounts up to this one have nothing to move any more */
typedef struct Archive
{
	ClockBatch	batch;
	int64		account_id;
} Archive;

/*
 * $1: the last account that is done, $2: the moment, $3: accounts, $4: entries of
 * each.  Returns the last account looked at, whether one of them may have more, and how many
 * entries were moved.
 */
static const char archive_sql[] =
"WITH a AS MATERIALIZED ("
"  SELECT x.account_id, x.last_entry, coalesce(b.seq, 0) AS boundary"
"    FROM (SELECT account_id, last_entry FROM rebate_data.account WHERE account_id > $1"
"           ORDER BY account_id LIMIT $3) x"
"    LEFT JOIN rebate_data.boundary b ON b.account_id = x.account_id),"
" due AS MATERIALIZED ("
"  SELECT e.account_id, e.seq FROM a"
"   CROSS JOIN LATERAL (SELECT n.account_id, n.seq, n.posted_at FROM rebate_data.entry n"
"                        WHERE n.account_id = a.account_id AND n.seq > a.boundary AND n.seq < a.last_entry"
"                        ORDER BY n.seq LIMIT $4) e"
"   WHERE e.posted_at < $2),"
" taken AS ("
"  DELETE FROM rebate_data.entry e USING due d WHERE e.account_id = d.account_id AND e.seq = d.seq"
"  RETURNING e.account_id, e.accrual_id, e.payout_id, e.source_id, e.rule_id, e.order_key, e.kind, e.seq,"
"            e.posted_at, e.xid, e.\"check\", e.debit, e.credit, e.epoch, e.effective_date, e.book_date,"
"            e.amount, e.event_at, e.posting_id, e.tracked, e.pending, e.maturing, e.available, e.held),"
" kept AS ("
"  INSERT INTO rebate_data.entry_archive (account_id, accrual_id, payout_id, source_id, rule_id, order_key, kind,"
"            seq, posted_at, xid, \"check\", debit, credit, epoch, effective_date, book_date,"
"            amount, event_at, posting_id, tracked, pending, maturing, available, held)"
"  SELECT * FROM taken ORDER BY account_id, seq),"
" bounds AS ("
"  INSERT INTO rebate_data.boundary AS b (account_id, seq, posted_at, \"check\", tracked, pending, maturing, available, held)"
"  SELECT DISTINCT ON (account_id) account_id, seq, posted_at, \"check\", coalesce(tracked, 0),"
"         coalesce(pending, 0), coalesce(maturing, 0), coalesce(available, 0), coalesce(held, 0)"
"    FROM taken ORDER BY account_id, seq DESC"
"  ON CONFLICT (account_id) DO UPDATE SET seq = excluded.seq, posted_at = excluded.posted_at,"
"    \"check\" = excluded.\"check\", tracked = excluded.tracked, pending = excluded.pending,"
"    maturing = excluded.maturing, available = excluded.available, held = excluded.held),"
" mark AS ("
"  INSERT INTO rebate_data.archive AS r (epoch, xid, before, archived_at)"
"  SELECT epoch, xid, $2, clock_timestamp() FROM taken ORDER BY epoch DESC, xid DESC LIMIT 1"
"  ON CONFLICT (one) DO UPDATE SET"
"    epoch = greatest(r.epoch, excluded.epoch),"
"    xid = CASE WHEN excluded.epoch > r.epoch THEN excluded.xid"
"               WHEN excluded.epoch < r.epoch THEN r.xid ELSE greatest(r.xid, excluded.xid) END,"
"    before = excluded.before, archived_at = excluded.archived_at)"
" SELECT (SELECT max(account_id) FROM a),"
"        coalesce((SELECT max(n) = $4 FROM (SELECT count(*) AS n FROM due GROUP BY account_id) c), false),"
"        (SELECT count(*) FROM taken)";

/*
 * Libraries that know of no archive would take what is left for the whole ledger.
 * Sessions that still have one must connect again from now on.
 */
static void
refuse_older_libraries(Store *store)
{
	if (store->compatible_with >= 2)
		return;
	sql_run("UPDATE rebate_data.store SET compatible_with = 2 WHERE compatible_with < 2", NULL,
			SPI_OK_UPDATE);
	CacheInvalidateRelcacheByRelid(store->tables[ST_STORE]);
}

/* Move what is old of the next accounts. */
bool
clock_archive_step(Store *store, ClockRun *run)
{
	Archive    *archive = run->state;
	SqlParams	params = {0};
	StoreSpi	scope;
	int			naccounts;
	int64		last;
	bool		isnull;
	bool		none;
	bool		more;

	if (archive == NULL)
	{
		store_require(store, 2, "rebate.archive()");
		archive = run->state = MemoryContextAllocZero(run->context, sizeof(Archive));
		clock_batch_init(&archive->batch, FIRST_BATCH, MAX_BATCH);
	}
	naccounts = archive->batch.rows;
	sql_param(&params, INT8OID, Int64GetDatum(archive->account_id), false);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(run->upto), false);
	sql_int(&params, naccounts);
	sql_int(&params, MAX_ENTRIES);
	clock_batch_locks(&archive->batch);
	store_spi_begin(store, &scope);
	refuse_older_libraries(store);
	clock_batch_plan();
	sql_run(archive_sql, &params, SPI_OK_SELECT);
	last = DatumGetInt64(sql_get(0, 1, &none));
	more = DatumGetBool(sql_get(0, 2, &isnull));
	run->done += DatumGetInt64(sql_get(0, 3, &isnull));
	store_spi_end(&scope);
	clock_batch_end(&archive->batch, naccounts);

	/* one that had as many as were asked for is looked at again */
	if (!none && !more)
		archive->account_id = last;
	return !none;
}
