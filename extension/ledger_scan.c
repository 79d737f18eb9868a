/*
 * ledger_scan.c
 *	  All entries in the order of account and sequence.
 *
 * Entries that opened a rebate are in the rebate's row, the others in a table of
 * their own; each has an index in this order, and the two are merged.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "utils/rel.h"

#include "ledger_scan.h"

/* One of the two tables, and its next entry */
typedef struct Side
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		more;
	LedgerEntry entry;
} Side;

struct LedgerScan
{
	Side		opening;
	Side		later;
	Side	   *last;			/* whose entry was returned */
};

static void
side_begin(Side *side, Store *store, StoreTable table, StoreIndex index, Snapshot snapshot)
{
	side->rel = store_open(store, table, AccessShareLock);
	side->index = index_open(store->indexes[index], AccessShareLock);
	side->slot = table_slot_create(side->rel, NULL);
	side->scan = index_beginscan_compat(side->rel, side->index, snapshot, 0);
	index_rescan(side->scan, NULL, 0, NULL, 0);
}

/* Bring the next row of a side into its slot; false at the end. */
static bool
side_next(Side *side)
{
	side->more = index_getnext_slot(side->scan, ForwardScanDirection, side->slot);
	if (side->more)
		slot_getallattrs(side->slot);
	return side->more;
}

static void
side_end(Side *side)
{
	index_endscan(side->scan);
	ExecDropSingleTupleTableSlot(side->slot);
	index_close(side->index, AccessShareLock);
	table_close(side->rel, AccessShareLock);
}

/* The entry that opened the rebate whose row is in the slot, which is deformed */
void
ledger_opening_entry(TupleTableSlot *slot, LedgerEntry *entry)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;
	EntryFields *e = &entry->fields;
	int64		earned = DatumGetInt64(values[ACC_EARNED - 1]);

	memset(e, 0, sizeof(EntryFields));
	e->account_id = DatumGetInt64(values[ACC_ACCOUNT_ID - 1]);
	e->accrual_id = DatumGetInt64(values[ACC_ACCRUAL_ID - 1]);
	e->rule_id = DatumGetInt32(values[ACC_RULE_ID - 1]);
	e->amount = ledger_abs(earned);
	e->event_at = DatumGetTimestampTz(values[ACC_ORDER_TIME - 1]);
	entry_from_columns(&values[ACC_KIND - 1], &nulls[ACC_KIND - 1], e, &entry->check,
					   entry->balance);
}

/* The entry in a row of rebate_data.entry, which is deformed */
void
ledger_later_entry(TupleTableSlot *slot, LedgerEntry *entry)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;
	EntryFields *e = &entry->fields;

	memset(e, 0, sizeof(EntryFields));
	e->account_id = DatumGetInt64(values[EN_ACCOUNT_ID - 1]);
	e->accrual_id = nulls[EN_ACCRUAL_ID - 1] ? 0 : DatumGetInt64(values[EN_ACCRUAL_ID - 1]);
	e->payout_id = nulls[EN_PAYOUT_ID - 1] ? 0 : DatumGetInt64(values[EN_PAYOUT_ID - 1]);
	e->rule_id = DatumGetInt32(values[EN_RULE_ID - 1]);
	entry_from_columns(&values[EN_KIND - 1], &nulls[EN_KIND - 1], e, &entry->check,
					   entry->balance);
}

static void
next_opening(Side *side)
{
	if (side_next(side))
		ledger_opening_entry(side->slot, &side->entry);
}

static void
next_later(Side *side)
{
	if (side_next(side))
		ledger_later_entry(side->slot, &side->entry);
}

LedgerScan *
ledger_scan_begin(Store *store, Snapshot snapshot)
{
	LedgerScan *scan = palloc0(sizeof(LedgerScan));

	side_begin(&scan->opening, store, ST_ACCRUAL, SI_ACCRUAL_SEQ, snapshot);
	side_begin(&scan->later, store, ST_ENTRY, SI_ENTRY, snapshot);
	next_opening(&scan->opening);
	next_later(&scan->later);
	return scan;
}

const LedgerEntry *
ledger_scan_next(LedgerScan *scan)
{
	Side	   *a = &scan->opening;
	Side	   *b = &scan->later;

	if (scan->last == a)
		next_opening(a);
	else if (scan->last == b)
		next_later(b);

	if (!a->more && !b->more)
		return NULL;
	if (!b->more)
		scan->last = a;
	else if (!a->more)
		scan->last = b;
	else if (a->entry.fields.account_id != b->entry.fields.account_id)
		scan->last = a->entry.fields.account_id < b->entry.fields.account_id ? a : b;
	else
		scan->last = a->entry.fields.seq <= b->entry.fields.seq ? a : b;
	return &scan->last->entry;
}

void
ledger_scan_end(LedgerScan *scan)
{
	side_end(&scan->later);
	side_end(&scan->opening);
	pfree(scan);
}
