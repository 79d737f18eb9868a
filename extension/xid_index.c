/*
 * xid_index.c
 *	  Keeps the BRIN indexes by transaction id summarised.
 *
 * A range of pages costs writers nothing until it is summarised, and a look reads
 * all of what is not.  Autovacuum summarises what is full, but its next visit may
 * be a million orders away.  The range that is being filled stays without a
 * summary: it would change with each order.
 */
#include "rebate.h"

#include "access/brin.h"
#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "store.h"
#include "xid_index.h"

/* Ranges summarised at a time; and behind us at the start, older ones are left to autovacuum */
#define MAX_RANGES 16
#define MAX_BEHIND 256

typedef struct XidIndex
{
	StoreTable	table;
	StoreIndex	index;
	Oid			indexid;		/* what "done" is about */
	BlockNumber done;			/* ranges before it are summarised */
} XidIndex;

static XidIndex xid_indexes[] = {
	{ST_ACCRUAL, SI_ACCRUAL_XID, InvalidOid, 0},
	{ST_ENTRY, SI_ENTRY_XID, InvalidOid, 0}
};

static void
keep_up(XidIndex *x, Store *store)
{
	Relation	rel = store_open(store, x->table, AccessShareLock);
	Oid			relid = RelationGetRelid(rel);
	Oid			indexid = store->indexes[x->index];
	Relation	index = index_open(indexid, AccessShareLock);
	BlockNumber pages_per_range;
	BlockNumber full;

	pages_per_range = BrinGetPagesPerRange(index);
	full = RelationGetNumberOfBlocks(rel) / pages_per_range;
	/* the last page may have room yet */
	if (full > 0 && RelationGetNumberOfBlocks(rel) % pages_per_range == 0)
		full--;
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);

	if (x->indexid != indexid || x->done > full)
	{
		x->indexid = indexid;
		x->done = full > MAX_BEHIND ? full - MAX_BEHIND : 0;
	}
	for (int i = 0; i < MAX_RANGES && x->done < full; i++)
	{
		/* vacuum holds it for long, and summarises itself */
		if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
			return;
		(void) OidFunctionCall2(F_BRIN_SUMMARIZE_RANGE, ObjectIdGetDatum(indexid),
								Int64GetDatum((int64) x->done * pages_per_range));
		x->done++;
	}
}

void
xid_index_keep_up(void)
{
	Store	   *store;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	store = store_get(true);
	if (store)
		for (int i = 0; i < (int) lengthof(xid_indexes); i++)
			keep_up(&xid_indexes[i], store);
	PopActiveSnapshot();
	CommitTransactionCommand();
}
