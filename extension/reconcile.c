/*
 * reconcile.c
 *	  Rows that no trigger saw: those that were there when a table was attached.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "utils/snapmgr.h"

#include "collect.h"
#include "reconcile.h"

static bool
scan_next(CollectBatch *batch)
{
	return table_scan_getnextslot((TableScanDesc) batch->next_arg, ForwardScanDirection,
								  batch->slot);
}

int64
reconcile_attach(Oid relid, bool record_all_existing, bool again)
{
	Store	   *store = store_get(false);
	CollectBatch batch = {0};
	Relation	rel;
	Snapshot	snapshot;

	collect_flush();
	batch.store = store;
	batch.source = source_get(store, relid);
	if (batch.source == NULL)
		elog(ERROR, "relation %u is not attached", relid);
	batch.only_unseen = !again;
	batch.any_backdate = true;
	batch.event = record_all_existing ? COLLECT_UPDATE : COLLECT_INSERT;
	batch.all_old = record_all_existing;
	batch.skip_old = !record_all_existing;

	rel = table_open(relid, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	batch.slot = table_slot_create(rel, NULL);
	batch.next = scan_next;
	batch.next_arg = table_beginscan(rel, snapshot, 0, NULL);
	collect_rows(&batch);
	table_endscan((TableScanDesc) batch.next_arg);
	ExecDropSingleTupleTableSlot(batch.slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);

	collect_flush();
	return batch.ncollected;
}
