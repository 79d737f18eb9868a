/*
 * ledger_rows.c
 *	  All rows of the ledger as they lie on disk.
 *
 * Rows are appended when they are posted, so each table is nearly in the order of
 * posting.  They are read side by side, the earlier row first: then most
 * entries of an account come one after the other as their sequence counts, and
 * no page is visited twice.  The archive is in the order of accounts, by batches.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "utils/rel.h"

#include "archive.h"
#include "ledger_rows.h"

/* One of the tables, and its next row */
typedef struct Side
{
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		accruals;		/* rows of accruals, not of entries */
	bool		more;
	TimestampTz posted_at;		/* of the row; what has no entry comes at once */
	LedgerRow	row;
} Side;

struct LedgerRows
{
	Side		sides[3];
	int			nsides;
	Side	   *last;			/* whose row was returned */
};

static void
side_begin(Side *side, Store *store, StoreTable table, Snapshot snapshot)
{
	side->rel = store_open(store, table, AccessShareLock);
	side->slot = table_slot_create(side->rel, NULL);
	side->accruals = table == ST_ACCRUAL;
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
	row->order_key = (const text *) DatumGetPointer(slot->tts_values[ACC_ORDER_KEY - 1]);
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

static void
next_row(Side *side)
{
	if (side->accruals)
		next_accrual(side);
	else
		next_entry(side);
}

LedgerRows *
ledger_rows_begin(Store *store, Snapshot snapshot)
{
	LedgerRows *rows = palloc0(sizeof(LedgerRows));

	side_begin(&rows->sides[rows->nsides++], store, ST_ACCRUAL, snapshot);
	side_begin(&rows->sides[rows->nsides++], store, ST_ENTRY, snapshot);
	if (archive_exists(store))
		side_begin(&rows->sides[rows->nsides++], store, ST_ENTRY_ARCHIVE, snapshot);
	for (int i = 0; i < rows->nsides; i++)
		next_row(&rows->sides[i]);
	return rows;
}

const LedgerRow *
ledger_rows_next(LedgerRows *rows)
{
	if (rows->last)
		next_row(rows->last);
	rows->last = NULL;
	for (int i = 0; i < rows->nsides; i++)
	{
		Side	   *side = &rows->sides[i];

		if (side->more && (rows->last == NULL || side->posted_at < rows->last->posted_at))
			rows->last = side;
	}
	return rows->last ? &rows->last->row : NULL;
}

void
ledger_rows_end(LedgerRows *rows)
{
	for (int i = 0; i < rows->nsides; i++)
		side_end(&rows->sides[i]);
	pfree(rows);
}
