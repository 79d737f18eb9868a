/*
 * archive.c
 *	  What the archive of old entries means for those who read the ledger.
 *
 * rebate.archive() moves the oldest entries of each account, a prefix of its
 * sequence, to a table of their own.  Whoever reads by SQL reads both through the
 * view rebate_data.ledger.  Readers by cursor go along the table of entries only:
 * what lies before the boundary of an account is refused to them, so that nobody
 * takes the rest for all there was.
 *
 * rebate.drop_archived() removes the oldest archived entries of each account for
 * good.  What the ledger of the account begins with from then on is carried
 * forward; what was before is refused to everybody.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "archive.h"

/* Columns of rebate_data.boundary and rebate_data.archive */
#define BO_SEQ		2
#define BO_CHECK	4
#define AR_EPOCH	2
#define AR_XID		3

/* Columns of rebate_data.carried, from 0 on */
enum CarriedColumn
{
	CA_ACCOUNT_ID, CA_SEQ, CA_POSTED_AT, CA_CHECK, CA_BUCKETS,
	CA_BOOK_DATE = CA_BUCKETS + NUM_BUCKETS, CA_OPENED, CA_DIGEST_HIGH, CA_DIGEST_LOW
};

bool
archive_exists(Store *store)
{
	return store->version >= 2;
}

/*
 * The row of one account in a table that has at most one of each; NULL if there
 * is none.  To be ended by end_account_row().
 */
typedef struct AccountRow
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} AccountRow;

static TupleTableSlot *
begin_account_row(AccountRow *row, Store *store, StoreTable table, StoreIndex primary_key,
				  Snapshot snapshot, int64 account_id)
{
	ScanKeyData key;

	row->rel = store_open(store, table, AccessShareLock);
	row->index = index_open(store->indexes[primary_key], AccessShareLock);
	row->slot = table_slot_create(row->rel, NULL);
	row->scan = index_beginscan_compat(row->rel, row->index, snapshot, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(account_id));
	index_rescan(row->scan, &key, 1, NULL, 0);
	if (!index_getnext_slot(row->scan, ForwardScanDirection, row->slot))
		return NULL;
	slot_getallattrs(row->slot);
	return row->slot;
}

static void
end_account_row(AccountRow *row)
{
	index_endscan(row->scan);
	ExecDropSingleTupleTableSlot(row->slot);
	index_close(row->index, AccessShareLock);
	table_close(row->rel, AccessShareLock);
}

Boundary
archive_boundary(Store *store, Snapshot snapshot, int64 account_id)
{
	Boundary	boundary = {0};
	AccountRow	row;
	TupleTableSlot *slot;

	if (!archive_exists(store))
		return boundary;
	slot = begin_account_row(&row, store, ST_BOUNDARY, SI_BOUNDARY, snapshot, account_id);
	if (slot)
	{
		boundary.seq = DatumGetInt64(slot->tts_values[BO_SEQ - 1]);
		boundary.check = DatumGetInt64(slot->tts_values[BO_CHECK - 1]);
	}
	end_account_row(&row);
	return boundary;
}

/* A row of rebate_data.carried, whose columns are all there and never NULL */
Carried
archive_carried_row(TupleTableSlot *slot, int64 *account_id)
{
	const Datum *values = slot->tts_values;
	Carried		carried;

	*account_id = DatumGetInt64(values[CA_ACCOUNT_ID]);
	carried.seq = DatumGetInt64(values[CA_SEQ]);
	carried.posted_at = DatumGetTimestampTz(values[CA_POSTED_AT]);
	carried.check = DatumGetInt64(values[CA_CHECK]);
	for (int b = 0; b < NUM_BUCKETS; b++)
		carried.balance[b] = DatumGetInt64(values[CA_BUCKETS + b]);
	carried.book_date = DatumGetDateADT(values[CA_BOOK_DATE]);
	carried.opened = (uint64) DatumGetInt64(values[CA_OPENED]);
	carried.digest.high = (uint64) DatumGetInt64(values[CA_DIGEST_HIGH]);
	carried.digest.low = (uint64) DatumGetInt64(values[CA_DIGEST_LOW]);
	return carried;
}

Carried
archive_carried(Store *store, Snapshot snapshot, int64 account_id)
{
	Carried		carried = {0};
	AccountRow	row;
	TupleTableSlot *slot;

	if (!archive_exists(store))
		return carried;
	slot = begin_account_row(&row, store, ST_CARRIED, SI_CARRIED, snapshot, account_id);
	if (slot)
		carried = archive_carried_row(slot, &account_id);
	end_account_row(&row);
	return carried;
}

void
archive_refuse_moment(const Carried *carried, const char *currency)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_ARCHIVED),
			 errmsg("entries of that time were exported and dropped"),
			 errdetail("The account in %s begins with the balances after entry " INT64_FORMAT ".",
					   currency, carried->seq),
			 errhint("Ask for a moment from %s on, or read what was exported.",
					 api_timestamptz_text(carried->posted_at))));
}

/* Has any transaction up to "upto" ended since the earlier snapshot? */
static bool
any_ended(const XidSnapshot *earlier, const XidSnapshot *now, uint64 upto)
{
	if (upto >= earlier->xmax)
		return true;
	for (int i = 0; i < earlier->nxip && earlier->xip[i] <= upto; i++)
		if (xid_snapshot_sees(now, earlier->xip[i]))
			return true;
	return false;
}

/*
 * Which entries are archived is known by account, a reader of the feed knows
 * transactions: so the youngest transaction of any archived entry decides.  What is
 * still in progress has none there.  It is looked for under a snapshot at least as
 * new as the one that reads, so what is archived meanwhile is refused, not missed.
 */
void
archive_check_feed(Store *store, const FeedCursor *cursor, const XidSnapshot *now)
{
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		missing = false;

	if (!archive_exists(store))
		return;
	rel = store_open(store, ST_ARCHIVE, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		int32		epoch = DatumGetInt32(heap_getattr(tuple, AR_EPOCH, desc, &isnull));
		uint64		xid = (uint64) DatumGetInt64(heap_getattr(tuple, AR_XID, desc, &isnull));

		/* a reader from the beginning wants the entries of all epochs */
		missing = cursor->seen.xmax == 0 ||
			(epoch == cursor->point.epoch && any_ended(&cursor->seen, now, xid));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	if (missing)
		ereport(ERROR,
				(errcode(ERRCODE_RB_ARCHIVED),
				 errmsg("entries that the cursor has not seen are archived"),
				 errdetail("The feed has what is not archived only."),
				 errhint("Begin with the balances and the cursor of rebate.feed_snapshot(); rebate.entries has the archived ones.")));
}
