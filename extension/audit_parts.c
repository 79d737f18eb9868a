/*
 * audit_parts.c
 *	  Whether the rows of one order agree.
 *
 * An order has a row for each rule that pays and for each member whom it pays,
 * numbered 0, 1, ... (part).  Their facts are the same, and none is there twice.  They
 * are written together, so as a rule they come one after the other; a row that does
 * not follow the one before it has its order read by the index.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "audit_parts.h"

/* Orders with longer keys are read by the index */
#define MAX_KEY		256

/* What there is one row of */
typedef struct PartName
{
	int32		rule_id;
	int64		account_id;
} PartName;

/* What the rows of an order have in common, and those of them that were met */
typedef struct PartsOf
{
	int32		generation;
	TimestampTz first_seen;
	int			n;
	int			room;
	PartName   *names;
} PartsOf;

struct OrderParts
{
	Relation	accrual;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	PartsOf		read;			/* by the index */
	/* the order of the row before: its parts 0 to n - 1 */
	PartsOf		parts;
	int32		source_id;
	int			key_length;
	char		key[MAX_KEY];
};

static void
init_parts(PartsOf *parts)
{
	parts->room = 16;
	parts->names = palloc(sizeof(PartName) * parts->room);
}

OrderParts *
parts_begin(Store *store, Snapshot snapshot)
{
	OrderParts *parts = palloc0(sizeof(OrderParts));

	parts->accrual = store_open(store, ST_ACCRUAL, AccessShareLock);
	parts->index = index_open(store->indexes[SI_ACCRUAL_ORDER], AccessShareLock);
	parts->scan = index_beginscan_compat(parts->accrual, parts->index, snapshot, 2);
	parts->slot = table_slot_create(parts->accrual, NULL);
	init_parts(&parts->read);
	init_parts(&parts->parts);
	return parts;
}

void
parts_end(OrderParts *parts)
{
	ExecDropSingleTupleTableSlot(parts->slot);
	index_endscan(parts->scan);
	index_close(parts->index, AccessShareLock);
	table_close(parts->accrual, AccessShareLock);
	pfree(parts->read.names);
	pfree(parts->parts.names);
	pfree(parts);
}

/* Does a row agree with those of its order that were met?  Then it is one of them. */
static bool
meet_part(PartsOf *parts, const FormData_accrual *row)
{
	if (parts->n == 0)
	{
		parts->generation = row->generation;
		parts->first_seen = row->first_seen;
	}
	if (row->generation != parts->generation || row->first_seen != parts->first_seen)
		return false;
	for (int i = 0; i < parts->n; i++)
		if (parts->names[i].rule_id == row->rule_id && parts->names[i].account_id == row->account_id)
			return false;
	if (parts->n == parts->room)
	{
		parts->room *= 2;
		parts->names = repalloc(parts->names, sizeof(PartName) * parts->room);
	}
	parts->names[parts->n++] = (PartName) {row->rule_id, row->account_id};
	return true;
}

/* Do all rows of a row's order agree?  The scan may keep memory until its end. */
static bool
read_order(OrderParts *parts, const FormData_accrual *row, const text *order_key)
{
	bool		agree = true;
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(row->source_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(order_key));
	index_rescan(parts->scan, keys, lengthof(keys), NULL, 0);
	parts->read.n = 0;
	while (agree && index_getnext_slot(parts->scan, ForwardScanDirection, parts->slot))
		agree = meet_part(&parts->read,
						  (Form_accrual) GETSTRUCT(ExecFetchSlotHeapTuple(parts->slot, false, NULL)));
	ExecClearTuple(parts->slot);
	return agree;
}

static inline bool
follows(const OrderParts *parts, const FormData_accrual *row, const char *key, int key_length)
{
	return row->part == parts->parts.n && row->source_id == parts->source_id &&
		key_length == parts->key_length && memcmp(key, parts->key, key_length) == 0;
}

bool
parts_agree(OrderParts *parts, const FormData_accrual *row, const text *order_key)
{
	const char *key = VARDATA_ANY(order_key);
	int			key_length = VARSIZE_ANY_EXHDR(order_key);

	if (row->part == 0)
	{
		parts->parts.n = 0;
		if (key_length > MAX_KEY)
			return true;
		parts->source_id = row->source_id;
		parts->key_length = key_length;
		memcpy(parts->key, key, key_length);
		return meet_part(&parts->parts, row);
	}
	if (parts->parts.n > 0 && follows(parts, row, key, key_length))
		return meet_part(&parts->parts, row);
	parts->parts.n = 0;
	return read_order(parts, row, order_key);
}
