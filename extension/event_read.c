/*
 * event_read.c
 *	  Reading entries in the order of account and sequence.
 *
 * Entries that opened a rebate are in the rebate's row, the others in a table of
 * their own; each has a unique index in this order, and the two are merged.  What
 * a range has in neither is in the archive.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "archive.h"
#include "event.h"

/* One of the tables, and its next entry */
typedef struct Side
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		opening;
	bool		more;
	StringInfoData order_key;
	EventRow	row;
} Side;

struct EventScan
{
	Store	   *store;
	Snapshot	snapshot;
	Side		opening;
	Side		later;
	Side		archive;		/* opened when it is needed */
	Side	   *last;			/* whose entry was returned */
	ScanKeyData after[2];		/* of a comparison of rows; the index keeps a pointer */
};

static void
side_begin(Side *side, Store *store, StoreTable table, StoreIndex index, Snapshot snapshot,
		   int nkeys)
{
	side->rel = store_open(store, table, AccessShareLock);
	side->index = index_open(store->indexes[index], AccessShareLock);
	side->slot = table_slot_create(side->rel, NULL);
	side->scan = index_beginscan_compat(side->rel, side->index, snapshot, nkeys);
	side->opening = table == ST_ACCRUAL;
	side->more = false;
	initStringInfo(&side->order_key);
}

static void
side_end(Side *side)
{
	index_endscan(side->scan);
	ExecDropSingleTupleTableSlot(side->slot);
	index_close(side->index, AccessShareLock);
	table_close(side->rel, AccessShareLock);
	pfree(side->order_key.data);
}

/* Keep the text of an order's key as C string, in memory that is used again. */
static void
keep_order_key(Side *side, Datum value, bool isnull)
{
	text	   *key;

	side->row.order_key = NULL;
	if (isnull)
		return;
	key = DatumGetTextPP(value);
	resetStringInfo(&side->order_key);
	appendBinaryStringInfo(&side->order_key, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	side->row.order_key = side->order_key.data;
	if (key != (text *) DatumGetPointer(value))
		pfree(key);
}

/* Bring the next entry of a side into its row. */
static void
side_next(Side *side)
{
	Datum	   *values = side->slot->tts_values;
	bool	   *nulls = side->slot->tts_isnull;
	EventRow   *row = &side->row;
	EntryFields *e = &row->fields;

	side->more = index_getnext_slot(side->scan, ForwardScanDirection, side->slot);
	if (!side->more)
		return;
	slot_getallattrs(side->slot);
	row->opening = side->opening;
	if (side->opening)
	{
		int64		earned = DatumGetInt64(values[ACC_EARNED - 1]);

		e->account_id = DatumGetInt64(values[ACC_ACCOUNT_ID - 1]);
		e->accrual_id = DatumGetInt64(values[ACC_ACCRUAL_ID - 1]);
		e->payout_id = 0;
		e->rule_id = DatumGetInt32(values[ACC_RULE_ID - 1]);
		e->amount = ledger_abs(earned);
		e->event_at = DatumGetTimestampTz(values[ACC_ORDER_TIME - 1]);
		row->source_id = DatumGetInt32(values[ACC_SOURCE_ID - 1]);
		keep_order_key(side, values[ACC_ORDER_KEY - 1], nulls[ACC_ORDER_KEY - 1]);
		entry_from_columns(&values[ACC_KIND - 1], &nulls[ACC_KIND - 1], e, &row->check,
						   row->balance);
	}
	else
	{
		e->account_id = DatumGetInt64(values[EN_ACCOUNT_ID - 1]);
		e->accrual_id = nulls[EN_ACCRUAL_ID - 1] ? 0 : DatumGetInt64(values[EN_ACCRUAL_ID - 1]);
		e->payout_id = nulls[EN_PAYOUT_ID - 1] ? 0 : DatumGetInt64(values[EN_PAYOUT_ID - 1]);
		e->rule_id = DatumGetInt32(values[EN_RULE_ID - 1]);
		row->source_id = nulls[EN_SOURCE_ID - 1] ? 0 : DatumGetInt32(values[EN_SOURCE_ID - 1]);
		keep_order_key(side, values[EN_ORDER_KEY - 1], nulls[EN_ORDER_KEY - 1]);
		entry_from_columns(&values[EN_KIND - 1], &nulls[EN_KIND - 1], e, &row->check,
						   row->balance);
	}
}

/* A scan takes as many keys in each rescan as it was begun with. */
static void
side_rescan(Side *side, ScanKey keys, int nkeys)
{
	index_rescan(side->scan, keys, nkeys, NULL, 0);
	side_next(side);
}

/* Does the entry of one side come before that of another? */
static bool
comes_before(const Side *a, const Side *b)
{
	EventKey	ka = {a->row.fields.account_id, a->row.fields.seq};
	EventKey	kb = {b->row.fields.account_id, b->row.fields.seq};

	return event_key_cmp(&ka, &kb) < 0;
}

/* The side whose entry is next; NULL if there are no more. */
static Side *
first_side(EventScan *scan)
{
	Side	   *first = scan->opening.more ? &scan->opening : NULL;

	if (scan->later.more && (first == NULL || comes_before(&scan->later, first)))
		first = &scan->later;
	if (scan->archive.more && (first == NULL || comes_before(&scan->archive, first)))
		first = &scan->archive;
	return first;
}

static EventScan *
begin_scan(Store *store, Snapshot snapshot, int nkeys)
{
	EventScan  *scan = palloc0(sizeof(EventScan));

	/* texts of orders may be fetched from a TOAST table, which asks for this */
	scan->snapshot = RegisterSnapshot(snapshot);
	scan->store = store;
	side_begin(&scan->opening, store, ST_ACCRUAL, SI_ACCRUAL_SEQ, scan->snapshot, nkeys);
	side_begin(&scan->later, store, ST_ENTRY, SI_ENTRY, scan->snapshot, nkeys);
	return scan;
}

/* (account_id, seq) > after, as one comparison of rows: accounts can be long. */
EventScan *
event_scan_begin(Store *store, Snapshot snapshot, EventKey after)
{
	EventScan  *scan = begin_scan(store, snapshot, 1);
	ScanKeyData row;

	ScanKeyEntryInitialize(&scan->after[0], SK_ROW_MEMBER, 1, BTGreaterStrategyNumber, INT8OID,
						   InvalidOid, F_BTINT8CMP, Int64GetDatum(after.account_id));
	ScanKeyEntryInitialize(&scan->after[1], SK_ROW_MEMBER | SK_ROW_END, 2, BTGreaterStrategyNumber,
						   INT8OID, InvalidOid, F_BTINT8CMP, Int64GetDatum(after.seq));
	memset(&row, 0, sizeof(row));
	row.sk_flags = SK_ROW_HEADER;
	row.sk_attno = 1;
	row.sk_strategy = BTGreaterStrategyNumber;
	row.sk_argument = PointerGetDatum(scan->after);
	side_rescan(&scan->opening, &row, 1);
	side_rescan(&scan->later, &row, 1);
	return scan;
}

const EventRow *
event_scan_next(EventScan *scan)
{
	if (scan->last)
		side_next(scan->last);
	scan->last = first_side(scan);
	return scan->last ? &scan->last->row : NULL;
}

void
event_scan_end(EventScan *scan)
{
	if (scan->archive.rel)
		side_end(&scan->archive);
	side_end(&scan->later);
	side_end(&scan->opening);
	UnregisterSnapshot(scan->snapshot);
	pfree(scan);
}

EventScan *
event_lookup_begin(Store *store, Snapshot snapshot)
{
	return begin_scan(store, snapshot, 2);
}

const EventRow *
event_lookup(EventScan *scan, EventKey place, bool opening)
{
	Side	   *side = opening ? &scan->opening : &scan->later;
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(place.account_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(place.seq));
	side_rescan(side, keys, 2);
	return side->more ? &side->row : NULL;
}

EventScan *
event_ranges_begin(Store *store, Snapshot snapshot)
{
	return begin_scan(store, snapshot, 3);
}

/* Look for entries of a range in the archive, too, if the store has one. */
static void
range_archive(EventScan *scan, ScanKey keys)
{
	if (!archive_exists(scan->store))
		return;
	if (scan->archive.rel == NULL)
		side_begin(&scan->archive, scan->store, ST_ENTRY_ARCHIVE, SI_ENTRY_ARCHIVE, scan->snapshot, 3);
	side_rescan(&scan->archive, keys, 3);
}

/*
 * Sequences are dense, so the table of later entries is searched only for what
 * the other one has not, and the archive for what neither has.
 */
int64
event_range(EventScan *scan, int64 account_id, int64 after, int64 upto, int64 limit,
			void (*fn) (void *arg, const EventRow *row), void *arg)
{
	ScanKeyData keys[3];
	int			nsides = 1;
	int64		next = after + 1;
	int64		n;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(account_id));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(next));
	ScanKeyInit(&keys[2], 2, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(upto));
	side_rescan(&scan->opening, keys, 3);
	scan->later.more = scan->archive.more = false;
	scan->last = NULL;
	for (n = 0; n < limit && next <= upto; n++)
	{
		if (scan->last)
			side_next(scan->last);
		scan->last = first_side(scan);
		for (; nsides < 3 && !(scan->last && scan->last->row.fields.seq == next); nsides++)
		{
			keys[1].sk_argument = Int64GetDatum(next);
			if (nsides == 1)
				side_rescan(&scan->later, keys, 3);
			else
				range_archive(scan, keys);
			scan->last = first_side(scan);
		}
		if (scan->last == NULL)
			break;
		next = scan->last->row.fields.seq + 1;
		fn(arg, &scan->last->row);
	}
	return n;
}

int64
event_read(Store *store, Snapshot snapshot, int64 account_id, int64 after, int64 upto,
		   int64 limit, void (*fn) (void *arg, const EventRow *row), void *arg)
{
	EventScan  *scan = event_ranges_begin(store, snapshot);
	bool		names = event_names_begin(store);
	int64		n = event_range(scan, account_id, after, upto, limit, fn, arg);

	if (names)
		event_names_end();
	event_scan_end(scan);
	return n;
}

bool
event_is_own(Store *store, const EventRow *row)
{
	FullTransactionId own = GetTopFullTransactionIdIfAny();

	return FullTransactionIdIsValid(own) && store->epoch_current &&
		row->fields.epoch == store->epoch &&
		row->fields.xid == (int64) U64FromFullTransactionId(own);
}
