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
#include "catalog/namespace.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "store.h"
#include "xid_index.h"

/* Ranges summarised at a time; and behind us at the start, older ones are left to autovacuum */
#define MAX_RANGES 16
#define MAX_BEHIND 256

typedef struct XidIndex
{
	const char *table;
	const char *index;
	Oid			indexid;		/* what "done" is about */
	BlockNumber done;			/* ranges before it are summarised */
} XidIndex;

static XidIndex xid_indexes[] = {
	{"accrual", "accrual_xid_brin", InvalidOid, 0},
	{"entry", "entry_xid_brin", InvalidOid, 0}
};

static void
keep_up(XidIndex *x, Oid nspid)
{
	Oid			relid = get_relname_relid(x->table, nspid);
	Oid			indexid = get_relname_relid(x->index, nspid);
	Relation	rel;
	Relation	index;
	BlockNumber pages_per_range;
	BlockNumber full;

	if (!OidIsValid(relid) || !OidIsValid(indexid))
		return;
	rel = table_open(relid, AccessShareLock);
	index = index_open(indexid, AccessShareLock);
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
	Oid			nspid;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	nspid = get_namespace_oid(STORE_SCHEMA, true);
	if (OidIsValid(nspid))
		for (int i = 0; i < (int) lengthof(xid_indexes); i++)
			keep_up(&xid_indexes[i], nspid);
	PopActiveSnapshot();
	CommitTransactionCommand();
}
