/*
 * row_sort.c
 *	  The rows of a large statement, member by member.
 *
 * Orders that are more than the collection holds are posted in parts.  In the
 * order of the table each part would touch nearly all members, and each account
 * would be updated in each part; no version of it can be pruned before the
 * transaction ends, so that soon none finds room in its page.  In the order of
 * members an account is updated once, or twice where a part ends within it.
 */
#include "rebate.h"

#include "access/tupdesc.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/tuplesort.h"

#include "row_sort.h"
#include "source.h"

struct RowSort
{
	Tuplesortstate *sort;
	TupleTableSlot *sorted;		/* hash of the member, number of the row, the row */
	MinimalTuple row;			/* the last one, aligned */
	Size		allocated;
};

/* The next row, as batch->next; the batch's slot has it until the one after it. */
static bool
row_sort_next(CollectBatch *batch)
{
	RowSort    *sort = batch->next_arg;
	bytea	   *packed;
	Size		size;
	bool		isnull;

	ExecClearTuple(batch->slot);
	if (!tuplesort_gettupleslot(sort->sort, true, false, sort->sorted, NULL))
		return false;
	packed = DatumGetByteaPP(slot_getattr(sort->sorted, 3, &isnull));
	size = VARSIZE_ANY_EXHDR(packed);
	if (size > sort->allocated)
	{
		sort->allocated = size * 2;
		sort->row = repalloc(sort->row, sort->allocated);
	}
	memcpy(sort->row, VARDATA_ANY(packed), size);
	ExecForceStoreMinimalTuple(sort->row, batch->slot, false);
	return true;
}

/* Put the row in a slot into the sort; the member's value need only be told from others. */
static void
put_row(RowSort *sort, TupleTableSlot *slot, TupleTableSlot *row, AttrNumber member, int64 number)
{
	Form_pg_attribute attribute = TupleDescAttr(row->tts_tupleDescriptor, member - 1);
	bool		isnull;
	Datum		value = slot_getattr(row, member, &isnull);
	MinimalTuple tuple = ExecCopySlotMinimalTuple(row);
	bytea	   *packed = palloc(VARHDRSZ + tuple->t_len);

	SET_VARSIZE(packed, VARHDRSZ + tuple->t_len);
	memcpy(VARDATA(packed), tuple, tuple->t_len);
	ExecClearTuple(slot);
	slot->tts_values[0] = Int64GetDatum(isnull ? 0 :
										datum_image_hash(value, attribute->attbyval,
														 attribute->attlen));
	slot->tts_values[1] = Int64GetDatum(number);
	slot->tts_values[2] = PointerGetDatum(packed);
	memset(slot->tts_isnull, false, sizeof(bool) * 3);
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(sort->sort, slot);
	ExecClearTuple(slot);
	pfree(packed);
	pfree(tuple);
}

RowSort *
row_sort_begin(CollectBatch *batch)
{
	AttrNumber	member = batch->source->member.attno;
	AttrNumber	attnos[2] = {1, 2};
	Oid			operators[2] = {Int8LessOperator, Int8LessOperator};
	Oid			collations[2] = {InvalidOid, InvalidOid};
	bool		nulls_first[2] = {false, false};
	RowSort    *sort;
	TupleDesc	desc;
	TupleTableSlot *slot;
	int64		number = 0;

	if (member <= 0)
		return NULL;
	sort = palloc(sizeof(RowSort));
	sort->allocated = 256;
	sort->row = palloc(sort->allocated);
	desc = CreateTemplateTupleDesc(3);
	TupleDescInitEntry(desc, 1, "member", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 2, "number", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 3, "row", BYTEAOID, -1, 0);
	/* a copy is complete in all majors, without another call */
	desc = CreateTupleDescCopy(desc);
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	sort->sorted = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	sort->sort = tuplesort_begin_heap(desc, 2, attnos, operators, collations, nulls_first,
									  maintenance_work_mem, NULL, TUPLESORT_NONE);
	while (batch->next(batch))
	{
		CHECK_FOR_INTERRUPTS();
		put_row(sort, slot, batch->slot, member, number++);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplesort_performsort(sort->sort);
	batch->next = row_sort_next;
	batch->next_arg = sort;
	return sort;
}

void
row_sort_end(RowSort *sort)
{
	ExecDropSingleTupleTableSlot(sort->sorted);
	tuplesort_end(sort->sort);
	pfree(sort->row);
	pfree(sort);
}
