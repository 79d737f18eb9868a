/*
 * feed_batch.c
 *	  The entries that became visible between two snapshots.
 *
 * They are found by transaction id, through indexes (BRIN) that say in which
 * parts of a table ids so young can be at all, and sorted here.  Of a long batch
 * only the first entries are kept, those behind them are searched for when it is
 * their turn: memory is bounded, and each entry is looked at a bounded number of
 * times in a session.
 */
#include "rebate.h"

#include "executor/spi.h"
#include "executor/tuptable.h"
#include "tcop/dest.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "feed.h"

/* Entries kept at a time, and room for as many that are to be sorted in */
#define MAX_KEPT		131072

/*
 * A transaction that has been running for long must not make all entries since
 * its begin candidates: so far behind it is looked for by its own id, unless there
 * are more than these.
 */
#define FAR_BEHIND		65536
#define MAX_FAR_BEHIND	8

/* The part found last, and what of */
typedef struct KeptPart
{
	MemoryContext context;
	Oid			accrual;		/* of the store that it was found in */
	XidSnapshot seen;
	XidSnapshot current;
	EventKey	after;
	BatchEntry *entries;
	int			n;
	bool		complete;
} KeptPart;

static KeptPart *kept = NULL;

/* Collects entries from the executor */
typedef struct Collector
{
	DestReceiver dest;			/* must be first */
	KeptPart   *part;
	int			allocated;
	bool		bounded;		/* entries from "bound" on were dropped */
	EventKey	bound;
} Collector;

static int
compare_entries(const void *a, const void *b)
{
	return event_key_cmp(&((const BatchEntry *) a)->place, &((const BatchEntry *) b)->place);
}

/* Sort, and drop what is too much. */
static void
sort_part(Collector *c)
{
	KeptPart   *part = c->part;

	qsort(part->entries, part->n, sizeof(BatchEntry), compare_entries);
	if (part->n > MAX_KEPT)
	{
		c->bounded = true;
		c->bound = part->entries[MAX_KEPT].place;
		part->n = MAX_KEPT;
	}
}

/* One row: account_id, seq, xid, opening */
static bool
collect_row(TupleTableSlot *slot, DestReceiver *self)
{
	Collector  *c = (Collector *) self;
	KeptPart   *part = c->part;
	uint64		xid;
	EventKey	place;

	slot_getallattrs(slot);
	xid = (uint64) DatumGetInt64(slot->tts_values[2]);
	if (xid_snapshot_sees(&part->seen, xid) || !xid_snapshot_sees(&part->current, xid))
		return true;
	place.account_id = DatumGetInt64(slot->tts_values[0]);
	place.seq = DatumGetInt64(slot->tts_values[1]);
	if (event_key_cmp(&place, &part->after) <= 0 ||
		(c->bounded && event_key_cmp(&place, &c->bound) >= 0))
		return true;

	if (part->n == c->allocated)
	{
		if (part->n < 2 * MAX_KEPT)
		{
			c->allocated *= 2;
			part->entries = repalloc(part->entries, sizeof(BatchEntry) * c->allocated);
		}
		else
			sort_part(c);
	}
	part->entries[part->n].place = place;
	part->entries[part->n++].opening = DatumGetBool(slot->tts_values[3]);
	return true;
}

static void
no_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
no_shutdown(DestReceiver *self)
{
}

/* Which ids can be in the batch, as a condition that the indexes understand */
static void
add_condition(StringInfo sql, const XidSnapshot *seen)
{
	int			far = 0;

	while (far < seen->nxip && seen->xmax - seen->xip[far] > FAR_BEHIND)
		far++;
	if (far > MAX_FAR_BEHIND)
		far = 0;
	appendStringInfo(sql, "(xid >= " UINT64_FORMAT, far < seen->nxip ? seen->xip[far] : seen->xmax);
	for (int i = 0; i < far; i++)
		appendStringInfo(sql, " OR xid = " UINT64_FORMAT, seen->xip[i]);
	appendStringInfoChar(sql, ')');
}

/* Run the search; entries go to the collector. */
static void
search(Store *store, Collector *c)
{
	static const char *const settings[][2] = {
		{"enable_bitmapscan", "on"}, {"enable_seqscan", "off"},
		{"max_parallel_workers_per_gather", "0"}, {"jit", "off"}
	};
	SPIExecuteOptions options = {.read_only = true, .dest = &c->dest};
	StringInfoData sql;
	StoreSpi	scope;

	initStringInfo(&sql);
	for (int opening = 1; opening >= 0; opening--)
	{
		appendStringInfo(&sql, "SELECT account_id, seq, xid, %s FROM rebate_data.%s WHERE epoch = %d AND ",
						 opening ? "true" : "false", opening ? "accrual" : "entry", store->epoch);
		add_condition(&sql, &c->part->seen);
		if (opening)
			appendStringInfoString(&sql, " UNION ALL ");
	}

	store_spi_begin(store, &scope);
	for (size_t i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_execute_extended(sql.data, &options) != SPI_OK_SELECT)
		elog(ERROR, "could not search for entries");
	store_spi_end(&scope);
	pfree(sql.data);
}

static XidSnapshot
copy_snapshot(const XidSnapshot *s)
{
	XidSnapshot copy = *s;

	copy.xip = palloc(sizeof(uint64) * Max(s->nxip, 1));
	memcpy(copy.xip, s->xip, sizeof(uint64) * s->nxip);
	return copy;
}

void
feed_batch_forget(void)
{
	KeptPart   *part = kept;

	kept = NULL;
	if (part)
		MemoryContextDelete(part->context);
}

/* Search for the entries behind "after"; kept only when all is well. */
static void
find_part(Store *store, const XidSnapshot *seen, const XidSnapshot *current, EventKey after)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate feed batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KeptPart   *part = palloc0(sizeof(KeptPart));
	Collector	c = {
		.dest = {collect_row, no_startup, no_shutdown, no_shutdown, DestTuplestore},
		.part = part,
		.allocated = 1024
	};

	part->context = context;
	part->accrual = store->tables[ST_ACCRUAL];
	part->seen = copy_snapshot(seen);
	part->current = copy_snapshot(current);
	part->after = after;
	part->entries = palloc(sizeof(BatchEntry) * c.allocated);
	MemoryContextSwitchTo(old);

	/* before the first entry of this epoch there is nothing to compare */
	if (store->epoch_current)
		search(store, &c);
	sort_part(&c);
	part->complete = !c.bounded;
	part->entries = repalloc(part->entries, sizeof(BatchEntry) * Max(part->n, 1));

	feed_batch_forget();
	MemoryContextSetParent(context, CacheMemoryContext);
	kept = part;
}

/* The number of the first kept entry behind "after" */
static int
first_behind(EventKey after)
{
	int			low = 0,
				high = kept->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (event_key_cmp(&kept->entries[middle].place, &after) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

BatchPart
feed_batch_part(Store *store, const XidSnapshot *seen, const XidSnapshot *current,
				EventKey after)
{
	int			first;

	if (kept && (kept->accrual != store->tables[ST_ACCRUAL] ||
				 event_key_cmp(&after, &kept->after) < 0 ||
				 !xid_snapshot_equal(&kept->seen, seen) ||
				 !xid_snapshot_equal(&kept->current, current) ||
				 (first_behind(after) == kept->n && !kept->complete)))
		feed_batch_forget();
	if (kept == NULL)
		find_part(store, seen, current, after);
	first = first_behind(after);
	return (BatchPart) {kept->entries + first, kept->n - first, kept->complete};
}
