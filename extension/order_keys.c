/*
 * order_keys.c
 *	  Entries of the unique index of orders that are made together, in its order.
 *
 * Rows are written in the order of accounts, so that their keys would lead all
 * over the index, and after a checkpoint write most of its pages to WAL.
 */
#include "rebate.h"

#include "access/table.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplesort.h"

#include "order_keys.h"
#include "store_table.h"

struct OrderKeys
{
	Store	   *store;
	int32		source_id;
	TupleDesc	desc;
	TupleTableSlot *slot;
	Tuplesortstate *sort;
};

OrderKeys *
order_keys_begin(Store *store, int32 source_id)
{
	OrderKeys  *keys = palloc(sizeof(OrderKeys));
	AttrNumber	attno = 1;
	Oid			operator = TextLessOperator;
	Oid			collation = C_COLLATION_OID;
	bool		nulls_first = false;

	keys->store = store;
	keys->source_id = source_id;
	keys->desc = CreateTemplateTupleDesc(4);
	TupleDescInitEntry(keys->desc, 1, "order_key", TEXTOID, -1, 0);
	TupleDescInitEntry(keys->desc, 2, "part", INT2OID, -1, 0);
	TupleDescInitEntry(keys->desc, 3, "offset", INT2OID, -1, 0);
	TupleDescInitEntry(keys->desc, 4, "block", INT8OID, -1, 0);
	/* a copy is complete in all majors, without another call */
	keys->desc = CreateTupleDescCopy(keys->desc);
	keys->slot = MakeSingleTupleTableSlot(keys->desc, &TTSOpsVirtual);
	keys->sort = tuplesort_begin_heap(keys->desc, 1, &attno, &operator, &collation, &nulls_first,
									  maintenance_work_mem, NULL, TUPLESORT_NONE);
	return keys;
}

void
order_keys_add(OrderKeys *keys, const char *key, int part, ItemPointer tid)
{
	TupleTableSlot *slot = keys->slot;
	Datum		text = CStringGetTextDatum(key);

	ExecClearTuple(slot);
	slot->tts_values[0] = text;
	slot->tts_values[1] = Int16GetDatum(part);
	slot->tts_values[2] = Int16GetDatum(ItemPointerGetOffsetNumber(tid));
	slot->tts_values[3] = Int64GetDatum(ItemPointerGetBlockNumber(tid));
	memset(slot->tts_isnull, false, sizeof(bool) * 4);
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(keys->sort, slot);
	ExecClearTuple(slot);
	pfree(DatumGetPointer(text));
}

void
order_keys_end(OrderKeys *keys)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(keys->desc, &TTSOpsMinimalTuple);
	StoreTableDesc table = {0};

	tuplesort_performsort(keys->sort);
	table_begin(&table, keys->store, ST_ACCRUAL);
	while (tuplesort_gettupleslot(keys->sort, true, false, slot, NULL))
	{
		ItemPointerData tid;
		Datum		values[3];
		bool		isnull[3] = {false, false, false};

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		values[0] = Int32GetDatum(keys->source_id);
		values[1] = slot->tts_values[0];
		values[2] = slot->tts_values[1];
		ItemPointerSet(&tid, (BlockNumber) DatumGetInt64(slot->tts_values[3]),
					   (OffsetNumber) DatumGetInt16(slot->tts_values[2]));
		table_index_entry(&table, keys->store->indexes[SI_ACCRUAL_ORDER], values, isnull, &tid);
	}
	table_end(&table);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(keys->slot);
	tuplesort_end(keys->sort);
	pfree(keys);
}
