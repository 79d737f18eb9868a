/*
 * reconcile.c
 *	  Rows that no trigger saw: those that were there when a table was attached.
 */
#include "rebate.h"

#include "access/table.h"

#include "collect.h"
#include "reconcile.h"

int64
reconcile_attach(Oid relid, bool record_all_existing, bool again)
{
	Store	   *store = store_get(false);
	CollectBatch batch = {0};
	Relation	rel;

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
	collect_table(&batch, rel);
	table_close(rel, NoLock);

	collect_flush();
	return batch.ncollected;
}
