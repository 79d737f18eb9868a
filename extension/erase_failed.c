/*
 * erase_failed.c
 *	  Orders of an erased member that were set aside.
 *
 * They are decided again: now they are an erased member's, and what was written
 * down of their errors goes.  Whose an order is only its row tells, and many may be
 * set aside.  So all of them are looked at before the member is locked, and then
 * only those that were his and those that came since.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "erase_failed.h"
#include "guard.h"
#include "order.h"
#include "reconcile.h"
#include "rules.h"

/* Columns of rebate_data.failure */
#define FA_SOURCE_ID	1
#define FA_ORDER_KEY	2

typedef struct FailedOrder
{
	int32		source_id;
	char	   *key;
} FailedOrder;

struct FailedOrders
{
	Store	   *store;
	const char *member;
	Snapshot	seen;			/* what it sees has been looked at */
	List	   *orders;			/* of FailedOrder: his, as it seemed */
	Reconciled	result;
};

static int
compare_orders(const ListCell *a, const ListCell *b)
{
	const FailedOrder *x = lfirst(a);
	const FailedOrder *y = lfirst(b);

	if (x->source_id != y->source_id)
		return x->source_id < y->source_id ? -1 : 1;
	return strcmp(x->key, y->key);
}

/* Those that were set aside, as "snapshot" has them and "seen", if there is one, has not */
static List *
list_failures(Store *store, Snapshot snapshot, Snapshot seen)
{
	Relation	rel = store_open(store, ST_FAILURE, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
	List	   *orders = NIL;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		FailedOrder *order;
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (seen && table_tuple_satisfies_snapshot(rel, slot, seen))
			continue;
		order = palloc(sizeof(FailedOrder));
		order->source_id = DatumGetInt32(slot_getattr(slot, FA_SOURCE_ID, &isnull));
		order->key = TextDatumGetCString(slot_getattr(slot, FA_ORDER_KEY, &isnull));
		orders = lappend(orders, order);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return orders;
}

/* Reading the member of an order */
typedef struct FailedRow
{
	Store	   *store;
	Source	   *source;
	TupleTableSlot *slot;
	const char *member;			/* NULL: is it an erased member's? */
	bool		his;
} FailedRow;

static void
read_row(void *arg)
{
	FailedRow  *row = arg;
	OrderImage	image;

	expr_reset();
	if (row->member)
		row->his = image_is_of(row->store, row->source, row->slot, row->member);
	else
	{
		image_read(row->store, row->source, row->slot, NULL, &image);
		row->his = image.erased;
	}
}

/* Those of the keys whose rows are the member's; member NULL: an erased member's */
static List *
keys_of(Store *store, Source *source, List *keys, const char *member)
{
	FailedRow	row = {.store = store,.source = source,.member = member};
	Relation	rel = table_open(source->relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate failed order",
												  ALLOCSET_DEFAULT_SIZES);
	List	   *result = NIL;
	ListCell   *lc;

	row.slot = table_slot_create(rel, NULL);
	foreach(lc, keys)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		row.his = facts_fetch_row(source, rel, lfirst(lc), snapshot, row.slot) &&
			run_guarded(store, read_row, &row) == NULL && row.his;
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		if (row.his)
			result = lappend(result, lfirst(lc));
	}
	ExecDropSingleTupleTableSlot(row.slot);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(context);
	table_close(rel, NoLock);
	return result;
}

/* The source of this number, if its rows can be read */
static Source *
find_source(Store *store, int32 source_id)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	Source	   *source;
	Oid			relid = InvalidOid;
	bool		isnull;

	sql_int(&params, source_id);
	store_spi_begin(store, &scope);
	if (sql_run("SELECT relation::oid FROM rebate_data.source WHERE source_id = $1 AND detached_at IS NULL",
				&params, SPI_OK_SELECT) == 1)
		relid = DatumGetObjectId(sql_get(0, 1, &isnull));
	store_spi_end(&scope);
	source = OidIsValid(get_rel_namespace(relid)) ? source_get(store, relid) : NULL;
	return source && !source->broken && !source->key_broken ? source : NULL;
}

/* Go through orders, those of a source together. */
static void
for_each_source(FailedOrders *failed, List *orders,
				void (*fn) (FailedOrders *failed, Source *source, List *keys))
{
	ListCell   *lc;
	int32		source_id = 0;
	List	   *keys = NIL;

	(void) rules_generation(failed->store);
	list_sort(orders, compare_orders);
	foreach(lc, orders)
	{
		FailedOrder *order = lfirst(lc);
		ListCell   *next = lnext(orders, lc);

		source_id = order->source_id;
		/* one that was his may have failed again since */
		if (keys == NIL || strcmp(llast(keys), order->key) != 0)
			keys = lappend(keys, order->key);
		if (next == NULL || ((FailedOrder *) lfirst(next))->source_id != source_id)
		{
			Source	   *source = find_source(failed->store, source_id);

			if (source)
				fn(failed, source, keys);
			list_free(keys);
			keys = NIL;
		}
	}
}

static void
keep_his(FailedOrders *failed, Source *source, List *keys)
{
	ListCell   *lc;

	foreach(lc, keys_of(failed->store, source, keys, failed->member))
	{
		FailedOrder *order = palloc(sizeof(FailedOrder));

		order->source_id = source->source_id;
		order->key = lfirst(lc);
		failed->orders = lappend(failed->orders, order);
	}
}

FailedOrders *
failed_look(Store *store, const char *member)
{
	FailedOrders *failed = palloc0(sizeof(FailedOrders));

	failed->store = store;
	failed->member = member;
	failed->seen = RegisterSnapshot(GetLatestSnapshot());
	for_each_source(failed, list_failures(store, failed->seen, NULL), keep_his);
	return failed;
}

static void
decide_his(FailedOrders *failed, Source *source, List *keys)
{
	keys = keys_of(failed->store, source, keys, NULL);
	if (keys != NIL)
		reconcile_keys(failed->store, source, keys, true, &failed->result);
}

void
failed_decide(FailedOrders *failed)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *orders = list_failures(failed->store, snapshot, failed->seen);

	UnregisterSnapshot(snapshot);
	UnregisterSnapshot(failed->seen);
	for_each_source(failed, list_concat(failed->orders, orders), decide_his);
	if (failed->result.nbusy > 0)
		ereport(NOTICE,
				(errmsg_plural(INT64_FORMAT " order that was set aside is being changed by others",
							   INT64_FORMAT " orders that were set aside are being changed by others",
							   failed->result.nbusy, failed->result.nbusy),
				 errhint("Call rebate.erase_member() again afterwards.")));
}
