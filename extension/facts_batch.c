/*
 * facts_batch.c
 *	  What is recorded of many orders, read in one walk along the index of orders.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "order.h"

/* Entries that are passed over before it is better to look for the next key from the root */
#define MAX_STEPS	16

static int
compare_wanted(const void *a, const void *b)
{
	return strcmp(((const OrderWanted *) a)->key, ((const OrderWanted *) b)->key);
}

/* The key of the entry that the scan is at, compared with one that is wanted */
static int
compare_with_entry(const char *key, IndexScanDesc scan)
{
	bool		isnull;
	text	   *found = DatumGetTextPP(index_getattr(scan->xs_itup, 2, scan->xs_itupdesc, &isnull));
	int			len = VARSIZE_ANY_EXHDR(found);
	int			keylen = strlen(key);
	int			cmp = memcmp(key, VARDATA_ANY(found), Min(keylen, len));

	return cmp != 0 ? cmp : keylen - len;
}

/*
 * Read the rows of all that are wanted, which are sorted: from entry to entry, and
 * from the root again where there are too many between two of them.
 */
static void
walk(IndexScanDesc scan, int32 source_id, Relation accrual, OrderWanted *wanted, int n)
{
	TupleTableSlot *slot = table_slot_create(accrual, NULL);
	ScanKeyData keys[2];
	int			at = 0;
	int			steps = MAX_STEPS;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(source_id));
	while (at < n)
	{
		int			cmp;

		if (steps >= MAX_STEPS)
		{
			CHECK_FOR_INTERRUPTS();
			ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_TEXT_GE,
						CStringGetTextDatum(wanted[at].key));
			index_rescan(scan, keys, 2, NULL, 0);
			steps = 0;
		}
		if (index_getnext_tid(scan, ForwardScanDirection) == NULL)
			break;
		while ((cmp = compare_with_entry(wanted[at].key, scan)) < 0 && ++at < n)
			;
		if (cmp > 0)
			steps++;
		else if (cmp == 0)
		{
			steps = 0;
			if (index_fetch_heap(scan, slot))
				facts_add_row(wanted[at].facts, accrual, ExecCopySlotHeapTuple(slot));
		}
	}
	ExecDropSingleTupleTableSlot(slot);
}

bool
facts_read_many(Store *store, Relation accrual, int32 source_id, OrderWanted *wanted, int n,
				Snapshot snapshot)
{
	Relation	index = index_open(store->indexes[SI_ACCRUAL_ORDER], AccessShareLock);
	IndexScanDesc scan = index_beginscan_compat(accrual, index, snapshot, 2);
	bool		distinct = true;

	qsort(wanted, n, sizeof(OrderWanted), compare_wanted);
	for (int i = 0; i < n; i++)
		memset(wanted[i].facts, 0, sizeof(OrderFacts));
	scan->xs_want_itup = true;
	walk(scan, source_id, accrual, wanted, n);
	index_endscan(scan);
	index_close(index, AccessShareLock);
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && strcmp(wanted[i - 1].key, wanted[i].key) == 0)
		{
			/* the rows went to the first of them */
			facts_read(store, accrual, source_id, wanted[i].key, snapshot, wanted[i].facts);
			distinct = false;
		}
		else
			facts_complete(store, source_id, wanted[i].key, snapshot, wanted[i].facts);
	}
	return distinct;
}
