/*
 * look.c
 *	  The publisher's look for committed entries that no hint announced.
 *
 * Each entry has the id of its transaction, so what is new to a snapshot can be
 * told from what an earlier one saw.  An index of ranges leads to the pages that
 * were written since.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "api.h"
#include "cursor.h"
#include "look.h"
#include "round.h"

static SeenSnapshot looking_from;	/* when the look at hand began */
static int64 looked_upto = 0;	/* the account that it has come to */
static SPIPlanPtr handle_plan = NULL;

/*
 * Of more transactions in progress than are remembered the oldest are: all from the
 * next one on count as not seen, and what of them was announced is known.
 */
void
seen_snapshot(Snapshot snapshot, SeenSnapshot *seen)
{
	XidSnapshot xids = xid_snapshot_of(snapshot);

	seen->valid = true;
	seen->xmin = xids.xmin;
	seen->nxip = Min(xids.nxip, MAX_REMEMBERED_XIDS);
	seen->xmax = xids.nxip > seen->nxip ? xids.xip[seen->nxip] : xids.xmax;
	memcpy(seen->xip, xids.xip, sizeof(uint64) * seen->nxip);
	pfree(xids.xip);
}

/* The handle of an account; false if there is none. */
static bool
account_handle(int64 account_id, pg_uuid_t *handle)
{
	Oid			argtypes[1] = {INT8OID};
	Datum		values[1];
	bool		isnull;

	if (handle_plan == NULL)
	{
		handle_plan = SPI_prepare("SELECT handle FROM rebate_data.account WHERE account_id = $1", 1,
								  argtypes);
		if (handle_plan == NULL)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(handle_plan);
	}
	values[0] = Int64GetDatum(account_id);
	if (SPI_execute_plan(handle_plan, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the handle of an account");
	if (SPI_processed == 0)
		return false;
	*handle = *DatumGetUUIDP(sql_get(0, 1, &isnull));
	return true;
}

/* Announce what a look has found: account, first and last entry.  Most is no news. */
static void
announce_found(SPITupleTable *found, uint64 n)
{
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	tuple = found->vals[i];
		bool		isnull;
		int64		first = DatumGetInt64(SPI_getbinval(tuple, found->tupdesc, 2, &isnull));
		int64		last = DatumGetInt64(SPI_getbinval(tuple, found->tupdesc, 3, &isnull));
		pg_uuid_t	handle;

		looked_upto = DatumGetInt64(SPI_getbinval(tuple, found->tupdesc, 1, &isnull));
		if (!round_knows(looked_upto, first, last) && account_handle(looked_upto, &handle))
			round_add(looked_upto, &handle, first, last);
	}
	SPI_freetuptable(found);
}

/* An entry that nobody announced */
typedef struct Unknown
{
	int64		account_id;
	int64		seq;
} Unknown;

/* More than these are looked for account by account */
#define MAX_UNKNOWN 256

#define NEW_ENTRIES \
	"(SELECT account_id, seq, xid, epoch FROM rebate_data.accrual" \
	"  WHERE xid >= $1 AND seq IS NOT NULL" \
	" UNION ALL" \
	" SELECT account_id, seq, xid, epoch FROM rebate_data.entry WHERE xid >= $1) e" \
	" WHERE epoch = $4 AND (xid >= $2 OR xid = ANY ($3))"

static int
compare_unknown(const void *a, const void *b)
{
	const Unknown *x = a;
	const Unknown *y = b;

	if (x->account_id != y->account_id)
		return x->account_id < y->account_id ? -1 : 1;
	return (x->seq > y->seq) - (x->seq < y->seq);
}

/*
 * Go over the new entries, of which all but a few are known as a rule, and add
 * those few to the round; false if there are more, then none is added.
 */
static bool
look_at_each(Oid *argtypes, Datum *values)
{
	Portal		portal;
	Unknown		unknown[MAX_UNKNOWN];
	int			n = 0;
	bool		few = true;

	portal = SPI_cursor_open_with_args(NULL, "SELECT account_id, seq FROM " NEW_ENTRIES, 4,
									   argtypes, values, NULL, true, 0);
	do
	{
		SPI_cursor_fetch(portal, true, 1000);
		for (uint64 i = 0; i < SPI_processed && few; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			bool		isnull;
			int64		account_id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
			int64		seq = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));

			if (round_knows(account_id, seq, seq))
				continue;
			few = n < MAX_UNKNOWN;
			if (few)
				unknown[n++] = (Unknown) {account_id, seq};
		}
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0 && few);
	SPI_cursor_close(portal);
	if (!few)
		return false;

	qsort(unknown, n, sizeof(Unknown), compare_unknown);
	for (int i = 0, last; i < n; i = last + 1)
	{
		pg_uuid_t	handle;

		for (last = i; last + 1 < n && unknown[last + 1].account_id == unknown[i].account_id;)
			last++;
		if (account_handle(unknown[i].account_id, &handle))
			round_add(unknown[i].account_id, &handle, unknown[i].seq, unknown[last].seq);
	}
	return true;
}

bool
look(Store *store, RingDatabase *db, SeenSnapshot *seen)
{
	SeenSnapshot *before = &db->seen;
	Datum	   *xids = palloc(sizeof(Datum) * Max(before->nxip, 1));
	Oid			argtypes[5] = {INT8OID, INT8OID, INT8ARRAYOID, INT4OID, INT8OID};
	Datum		values[5];
	StoreSpi	scope;
	bool		all = true;

	store_spi_begin(store, &scope);
	if (looked_upto == 0)
		seen_snapshot(GetActiveSnapshot(), &looking_from);
	if (before->valid)
	{
		for (int i = 0; i < before->nxip; i++)
			xids[i] = Int64GetDatum((int64) before->xip[i]);
		values[0] = Int64GetDatum((int64) before->xmin);
		values[1] = Int64GetDatum((int64) before->xmax);
		values[2] = PointerGetDatum(construct_array(xids, before->nxip, INT8OID, 8,
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		values[3] = Int32GetDatum(store->epoch);
		values[4] = Int64GetDatum(looked_upto);
		(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		if (looked_upto > 0 || !look_at_each(argtypes, values))
		{
			if (SPI_execute_with_args("SELECT account_id, min(seq), max(seq) FROM " NEW_ENTRIES
									  " AND account_id > $5 GROUP BY account_id ORDER BY account_id",
									  5, argtypes, values, NULL, true, MAX_ROUND) != SPI_OK_SELECT)
				elog(ERROR, "could not look for entries");
			all = SPI_processed < MAX_ROUND;
			announce_found(SPI_tuptable, SPI_processed);
		}
		pg_atomic_fetch_add_u64(&db->sweeps, 1);
	}
	store_spi_end(&scope);
	if (all)
	{
		*seen = looking_from;
		looked_upto = 0;
	}
	return all;
}

void
look_again(void)
{
	looked_upto = 0;
}
