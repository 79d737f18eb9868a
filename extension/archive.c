/*
 * archive.c
 *	  What the archive of old entries means for those who read the ledger.
 *
 * rebate.archive() moves the oldest entries of each account, a prefix of its
 * sequence, to a table of their own.  Whoever reads by SQL reads both through the
 * view rebate_data.ledger.  Readers by cursor go along the table of entries only:
 * what lies before the boundary of an account is refused to them, so that nobody
 * takes the rest for all there was.
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

bool
archive_exists(Store *store)
{
	return store->version >= 2;
}

Boundary
archive_boundary(Store *store, Snapshot snapshot, int64 account_id)
{
	Boundary	boundary = {0};
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData key;

	if (!archive_exists(store))
		return boundary;
	rel = store_open(store, ST_BOUNDARY, AccessShareLock);
	index = index_open(store->indexes[SI_BOUNDARY], AccessShareLock);
	slot = table_slot_create(rel, NULL);
	scan = index_beginscan_compat(rel, index, snapshot, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(account_id));
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		slot_getallattrs(slot);
		boundary.seq = DatumGetInt64(slot->tts_values[BO_SEQ - 1]);
		boundary.check = DatumGetInt64(slot->tts_values[BO_CHECK - 1]);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return boundary;
}

/*
 * Which entries are archived is known by account, a reader of the feed knows
 * transactions: so the youngest transaction of any archived entry decides.  It is
 * looked for under a snapshot at least as new as the one that reads, so what is
 * archived meanwhile is refused, not missed.
 */
void
archive_check_feed(Store *store, const FeedCursor *cursor)
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
			(epoch == cursor->point.epoch && xid >= cursor->seen.xmin);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	if (missing)
		ereport(ERROR,
				(errcode(ERRCODE_RB_ARCHIVED),
				 errmsg("entries that the cursor has not seen are archived"),
				 errdetail("The feed has what is not archived only."),
				 errhint("Take rebate.feed_cursor(), then read rebate.entries, which has the archived ones, too; go on with that cursor.")));
}
