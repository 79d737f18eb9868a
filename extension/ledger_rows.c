/*
 * ledger_rows.c
 *	  All rows of the ledger as they lie on disk.
 *
 * Rows are appended when they are posted, so each table is nearly in the order of
 * posting.  The two are read side by side, the earlier row first: then most
 * entries of an account come one after the other as their sequence counts, and
 * no page is visited twice.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "utils/rel.h"

#include "ledger_rows.h"

/* One of the two tables, and its next row */
typedef struct Side
{
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		more;
	TimestampTz posted_at;		/* of the row; what has no entry comes at once */
	LedgerRow	row;
} Side;

struct LedgerRows
{
	Side		accruals;
	Side		entries;
	Side	   *last;			/* whose row was returned */
};

static void
side_begin(Side *side, Store *store, StoreTable table, Snapshot snapshot)
{
	side->rel = store_open(store, table, AccessShareLock);
	side->slot = table_slot_create(side->rel, NULL);
	/* from the first page on, wherever others read */
	side->scan = table_beginscan_strat(side->rel, snapshot, 0, NULL, true, false);
}

static bool
side_next(Side *side)
{
	side->more = table_scan_getnextslot(side->scan, ForwardScanDirection, side->slot);
	return side->more;
}

static void
side_end(Side *side)
{
	table_endscan(side->scan);
	ExecDropSingleTupleTableSlot(side->slot);
	table_close(side->rel, AccessShareLock);
}

static void
next_accrual(Side *side)
{
	LedgerRow  *row = &side->row;
	TupleTableSlot *slot = side->slot;

	if (!side_next(side))
		return;
	slot_getsomeattrs(slot, ACC_DUE);
	row->accrual = (Form_accrual) GETSTRUCT(ExecFetchSlotHeapTuple(slot, false, NULL));
	row->has_due = !slot->tts_isnull[ACC_DUE - 1];
	row->due = DatumGetTimestampTz(slot->tts_values[ACC_DUE - 1]);
	row->has_entry = !slot->tts_isnull[ACC_ENTRY(EC_SEQ) - 1];
	side->posted_at = PG_INT64_MIN;
	if (row->has_entry)
	{
		ledger_opening_entry(slot, &row->entry);
		side->posted_at = row->entry.fields.posted_at;
	}
}

static void
next_entry(Side *side)
{
	LedgerRow  *row = &side->row;

	if (!side_next(side))
		return;
	slot_getallattrs(side->slot);
	row->accrual = NULL;
	row->has_entry = true;
	ledger_later_entry(side->slot, &row->entry);
	side->posted_at = row->entry.fields.posted_at;
}

LedgerRows *
ledger_rows_begin(Store *store, Snapshot snapshot)
{
	LedgerRows *rows = palloc0(sizeof(LedgerRows));

	side_begin(&rows->accruals, store, ST_ACCRUAL, snapshot);
	side_begin(&rows->entries, store, ST_ENTRY, snapshot);
	next_accrual(&rows->accruals);
	next_entry(&rows->entries);
	return rows;
}

const LedgerRow *
ledger_rows_next(LedgerRows *rows)
{
	Side	   *a = &rows->accruals;
	Side	   *b = &rows->entries;

	if (rows->last == a)
		next_accrual(a);
	else if (rows->last == b)
		next_entry(b);

	if (!a->more && !b->more)
		return NULL;
	rows->last = !b->more || (a->more && a->posted_at <= b->posted_at) ? a : b;
	return &rows->last->row;
}

void
ledger_rows_end(LedgerRows *rows)
{
	side_end(&rows->entries);
	side_end(&rows->accruals);
	pfree(rows);
}
