/*
 * facts.c
 *	  What is recorded of an order, and its row as the table has it now.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "order.h"

/*
 * Read the rows of an order from rebate_data.accrual under "snapshot".  The
 * facts of an order are in each of its rows; those that differ (a fact came
 * later) are merged.
 */
void
facts_read(Store *store, Relation accrual, int32 source_id, const char *key,
		   Snapshot snapshot, OrderFacts *facts)
{
	ScanKeyData keys[2];
	/* the lock that posting takes: one a transaction, not two */
	Relation	index = index_open(store->indexes[SI_ACCRUAL_ORDER],
								   RecoveryInProgress() ? AccessShareLock : RowExclusiveLock);
	IndexScanDesc scan;
	TupleTableSlot *slot = NULL;
	int			allocated = 0;
	Datum		keytext = CStringGetTextDatum(key);

	memset(facts, 0, sizeof(*facts));
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(source_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, keytext);
	scan = index_beginscan_compat(accrual, index, snapshot, 2);
	index_rescan(scan, keys, 2, NULL, 0);

	/* most orders are new: make the slot when there is something to put in */
	while (index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		HeapTuple	tuple;
		Form_accrual row;
		bool		isnull;
		Datum		confirmed;

		if (slot == NULL)
			slot = table_slot_create(accrual, NULL);
		if (!index_fetch_heap(scan, slot))
			continue;
		tuple = ExecCopySlotHeapTuple(slot);
		row = (Form_accrual) GETSTRUCT(tuple);
		if (!facts->seen || row->generation < facts->generation)
			facts->generation = row->generation;
		if (!facts->seen || row->first_seen < facts->first_seen)
			facts->first_seen = row->first_seen;
		facts->seen = true;
		facts->order_time = row->order_time;
		facts->flags |= row->flags;
		facts->next_part = Max(facts->next_part, row->part + 1);
		facts->phase = row->phase;
		confirmed = heap_getattr(tuple, ACC_CONFIRMED_AT, RelationGetDescr(accrual), &isnull);
		if (!isnull)
		{
			facts->has_confirmed_at = true;
			facts->confirmed_at = DatumGetTimestampTz(confirmed);
		}
		if (facts->nrows == allocated)
		{
			allocated = Max(4, allocated * 2);
			facts->rows = facts->rows ? repalloc(facts->rows, sizeof(HeapTuple) * allocated)
				: palloc(sizeof(HeapTuple) * allocated);
		}
		facts->rows[facts->nrows++] = tuple;
	}
	if (slot)
		ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	index_close(index, NoLock);
	pfree(DatumGetPointer(keytext));
}

/* The texts of a canonical key, in the order of the key columns */
static char **
key_parts(Source *source, const char *key)
{
	char	  **parts = palloc(sizeof(char *) * source->nkeys);
	Jsonb	   *jb;

	if (source->nkeys == 1)
	{
		parts[0] = pstrdup(key);
		return parts;
	}
	jb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(key)));
	for (int i = 0; i < source->nkeys; i++)
	{
		JsonbValue *v = getIthJsonbValueFromContainer(&jb->root, i);

		if (v == NULL || v->type != jbvString)
			elog(ERROR, "malformed order key \"%s\"", key);
		parts[i] = pnstrdup(v->val.string.val, v->val.string.len);
	}
	return parts;
}

/*
 * Fetch the row with a canonical key into "slot" through the unique index over
 * the key columns.  Returns false if there is none under "snapshot".
 *
 * The equality of the index may be coarser than that of the canonical texts
 * (never finer), and the index has at most one match.
 */
bool
facts_fetch_row(Source *source, Relation rel, const char *key, Snapshot snapshot,
				TupleTableSlot *slot)
{
	Relation	index;
	char	  **parts;
	ScanKeyData keys[INDEX_MAX_KEYS];
	IndexScanDesc scan;
	bool		found;

	if (strncmp(key, LONG_KEY_PREFIX, strlen(LONG_KEY_PREFIX)) == 0)
		return false;
	index = index_open(source->key_index, AccessShareLock);
	parts = key_parts(source, key);

	for (int i = 0; i < source->nkeys; i++)
	{
		AttrNumber	heapattno = index->rd_index->indkey.values[i];
		Oid			opcintype = index->rd_opcintype[i];
		Oid			operator;
		Oid			typinput,
					typioparam;
		int			part;
		Oid			type;

		for (part = 0; part < source->nkeys; part++)
			if (source->key_attnos[part] == heapattno)
				break;
		if (part == source->nkeys)
			elog(ERROR, "index \"%s\" is not over the key", RelationGetRelationName(index));

		type = source->key_canon[part].typid;
		getTypeInputInfo(type, &typinput, &typioparam);
		operator = get_opfamily_member(index->rd_opfamily[i], opcintype, opcintype,
									   BTEqualStrategyNumber);
		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber, opcintype,
							   index->rd_indcollation[i], get_opcode(operator),
							   OidInputFunctionCall(typinput, parts[part], typioparam, -1));
	}

	scan = index_beginscan_compat(rel, index, snapshot, source->nkeys);
	index_rescan(scan, keys, source->nkeys, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
		ExecMaterializeSlot(slot);

	/* the key's type may have changed since: then it is another order's row */
	if (found && strcmp(image_key(source, slot), key) != 0)
	{
		ExecClearTuple(slot);
		found = false;
	}
	index_endscan(scan);
	index_close(index, AccessShareLock);
	return found;
}
