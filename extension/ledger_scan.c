/*
 * ledger_scan.c
 *	  All entries in the order of account and sequence.
 *
 * Entries that opened a rebate are in the rebate's row, the others in a table of
 * their own, or in the archive; each has an index in this order, and they are
 * merged.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "utils/rel.h"

#include "archive.h"
#include "ledger_scan.h"

/* One of the tables, and its next entry */
typedef struct Side
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		opening;		/* rows of rebates, not of entries */
	bool		more;
	LedgerEntry entry;
} Side;

struct LedgerScan
{
	Side		sides[3];
	int			nsides;
	Side	   *last;			/* whose entry was returned */
};

static void
side_begin(Side *side, Store *store, StoreTable table, StoreIndex index, Snapshot snapshot)
{
	side->rel = store_open(store, table, AccessShareLock);
	side->index = index_open(store->indexes[index], AccessShareLock);
	side->slot = table_slot_create(side->rel, NULL);
	side->scan = index_beginscan_compat(side->rel, side->index, snapshot, 0);
	side->opening = table == ST_ACCRUAL;
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
	entry->opening = true;
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
	entry->opening = false;
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

static void
next_entry(Side *side)
{
	if (side->opening)
		next_opening(side);
	else
		next_later(side);
}

LedgerScan *
ledger_scan_begin(Store *store, Snapshot snapshot)
{
	LedgerScan *scan = palloc0(sizeof(LedgerScan));

	side_begin(&scan->sides[scan->nsides++], store, ST_ACCRUAL, SI_ACCRUAL_SEQ, snapshot);
	side_begin(&scan->sides[scan->nsides++], store, ST_ENTRY, SI_ENTRY, snapshot);
	if (archive_exists(store))
		side_begin(&scan->sides[scan->nsides++], store, ST_ENTRY_ARCHIVE, SI_ENTRY_ARCHIVE, snapshot);
	for (int i = 0; i < scan->nsides; i++)
		next_entry(&scan->sides[i]);
	return scan;
}

/* Does the entry of one side come before that of another? */
static bool
comes_before(const Side *a, const Side *b)
{
	const EntryFields *x = &a->entry.fields;
	const EntryFields *y = &b->entry.fields;

	return x->account_id != y->account_id ? x->account_id < y->account_id : x->seq < y->seq;
}

const LedgerEntry *
ledger_scan_next(LedgerScan *scan)
{
	if (scan->last)
		next_entry(scan->last);
	scan->last = NULL;
	for (int i = 0; i < scan->nsides; i++)
	{
		Side	   *side = &scan->sides[i];

		if (side->more && (scan->last == NULL || comes_before(side, scan->last)))
			scan->last = side;
	}
	return scan->last ? &scan->last->entry : NULL;
}

void
ledger_scan_end(LedgerScan *scan)
{
	for (int i = 0; i < scan->nsides; i++)
		side_end(&scan->sides[i]);
	pfree(scan);
}
