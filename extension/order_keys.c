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
#include "utils/memutils.h"
#include "utils/tuplesort.h"

#include "order.h"
#include "order_keys.h"
#include "store_table.h"

/* The key of a row, and where the row is */
typedef struct KeyOfRow
{
	uint64		prefix;			/* of the key, to be compared first */
	const char *key;
	ItemPointerData tid;
	int16		part;
} KeyOfRow;

StaticAssertDecl(sizeof(KeyOfRow) <= ORDER_KEY_SIZE, "ORDER_KEY_SIZE is what a key takes");

static inline int
compare_keys(const KeyOfRow *a, const KeyOfRow *b)
{
	if (a->prefix != b->prefix)
		return a->prefix < b->prefix ? -1 : 1;
	return strcmp(a->key, b->key);
}

#define ST_SORT sort_keys
#define ST_ELEMENT_TYPE KeyOfRow
#define ST_COMPARE(a, b) compare_keys(a, b)
#define ST_CHECK_FOR_INTERRUPTS
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

struct OrderKeys
{
	Store	   *store;
	int32		source_id;
	text	   *text;			/* of the entry that is being made */

	/* keys that stay where they are */
	KeyOfRow   *rows;			/* NULL: they are copied */
	int64		nrows;
	int64		allocated;

	/* copies */
	TupleDesc	desc;
	TupleTableSlot *slot;
	Tuplesortstate *sort;
};

static void
begin_sort(OrderKeys *keys)
{
	AttrNumber	attno = 1;
	Oid			operator = TextLessOperator;
	Oid			collation = C_COLLATION_OID;
	bool		nulls_first = false;

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
}

OrderKeys *
order_keys_begin(Store *store, int32 source_id, int64 nstay)
{
	OrderKeys  *keys = palloc0(sizeof(OrderKeys));

	keys->store = store;
	keys->source_id = source_id;
	if (nstay > 0)
	{
		keys->allocated = nstay;
		keys->rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(KeyOfRow) * nstay);
		keys->text = palloc(VARHDRSZ + MAX_KEY_LENGTH);
	}
	else
		begin_sort(keys);
	return keys;
}

void
order_keys_add(OrderKeys *keys, const char *key, int part, ItemPointer tid)
{
	TupleTableSlot *slot = keys->slot;
	Datum		text;

	if (keys->rows)
	{
		KeyOfRow   *row;

		if (keys->nrows == keys->allocated)
		{
			keys->allocated *= 2;
			keys->rows = repalloc_huge(keys->rows, sizeof(KeyOfRow) * keys->allocated);
		}
		row = &keys->rows[keys->nrows++];
		row->prefix = order_key_prefix(key);
		row->key = key;
		row->tid = *tid;
		row->part = part;
		return;
	}

	text = CStringGetTextDatum(key);
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

static void
make_entry(OrderKeys *keys, StoreTableDesc *table, Datum key, Datum part, ItemPointer tid)
{
	Datum		values[3] = {Int32GetDatum(keys->source_id), key, part};
	bool		isnull[3] = {false, false, false};

	CHECK_FOR_INTERRUPTS();
	table_index_entry(table, keys->store->indexes[SI_ACCRUAL_ORDER], values, isnull, tid);
}

static void
make_entries_of_rows(OrderKeys *keys, StoreTableDesc *table)
{
	sort_keys(keys->rows, keys->nrows);
	for (int64 i = 0; i < keys->nrows; i++)
	{
		KeyOfRow   *row = &keys->rows[i];
		Size		len = strlen(row->key);

		Assert(len <= MAX_KEY_LENGTH);
		SET_VARSIZE(keys->text, VARHDRSZ + len);
		memcpy(VARDATA(keys->text), row->key, len);
		make_entry(keys, table, PointerGetDatum(keys->text), Int16GetDatum(row->part), &row->tid);
	}
	pfree(keys->rows);
	pfree(keys->text);
}

static void
make_entries_of_copies(OrderKeys *keys, StoreTableDesc *table)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(keys->desc, &TTSOpsMinimalTuple);

	tuplesort_performsort(keys->sort);
	while (tuplesort_gettupleslot(keys->sort, true, false, slot, NULL))
	{
		ItemPointerData tid;

		slot_getallattrs(slot);
		ItemPointerSet(&tid, (BlockNumber) DatumGetInt64(slot->tts_values[3]),
					   (OffsetNumber) DatumGetInt16(slot->tts_values[2]));
		make_entry(keys, table, slot->tts_values[0], slot->tts_values[1], &tid);
	}
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(keys->slot);
	tuplesort_end(keys->sort);
}

void
order_keys_end(OrderKeys *keys)
{
	StoreTableDesc table = {0};

	table_begin(&table, keys->store, ST_ACCRUAL);
	if (keys->rows)
		make_entries_of_rows(keys, &table);
	else
		make_entries_of_copies(keys, &table);
	table_end(&table);
	pfree(keys);
}
