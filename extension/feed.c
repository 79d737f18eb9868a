/*
 * feed.c
 *	  rebate.feed(), feed_cursor() and feed_snapshot(): all events of all members,
 *	  each once.
 *
 * Transactions commit in another order than they get their ids, and an entry's
 * time is older than its commit, so neither can say what is new.  Two snapshots
 * can: a batch is what the later one sees and the earlier one does not.  The
 * cursor holds both, and the place inside the batch; when the batch is read, its
 * later snapshot is the earlier one of the next.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "archive.h"
#include "cluster.h"
#include "collect.h"
#include "cursor.h"
#include "event.h"
#include "feed.h"
#include "rights.h"
#include "wal_flush.h"

PG_FUNCTION_INFO_V1(rebate_feed);
PG_FUNCTION_INFO_V1(rebate_feed_cursor);
PG_FUNCTION_INFO_V1(rebate_feed_snapshot);

/* A call of feed() */
typedef struct FeedCall
{
	Store	   *store;
	ReturnSetInfo *result;
	Snapshot	snapshot;
	int64		left;			/* rows that may be returned yet */
	FeedCursor	cursor;
	StringInfoData head;		/* of the cursors inside the batch */
	StringInfoData text;		/* a cursor, as a value of type text */
	/* the row that waits until it is known whether it is the last of its batch */
	bool		waiting;
	StringInfoData event;		/* as a value of type json */
} FeedCall;

/* Rows of a result up to this size leave their memory to the next one */
#define MAX_ROWS_MEMORY		(16 * 1024 * 1024)

static MemoryContext rows_memory = NULL;

/*
 * A result's rows, in memory that is not given back to the operating system: a
 * reader of the whole feed would else spend a third of his time on pages that
 * are new to the process.
 */
static Tuplestorestate *
begin_rows(void)
{
	MemoryContext old;
	Tuplestorestate *rows;

	if (rows_memory == NULL)
		rows_memory = AllocSetContextCreate(TopMemoryContext, "rebate feed rows",
											ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(rows_memory);
	rows = tuplestore_begin_heap(true, false, work_mem);
	MemoryContextSwitchTo(old);
	return rows;
}

/* No result outlives its transaction; one that failed has not freed its rows. */
void
feed_at_xact_end(bool aborted)
{
	if (rows_memory == NULL)
		return;
	if (aborted || MemoryContextMemAllocated(rows_memory, false) > MAX_ROWS_MEMORY)
	{
		MemoryContextDelete(rows_memory);
		rows_memory = NULL;
	}
}

/* A snapshot of now; all that it sees is durable, up to *point. */
static Snapshot
look(Store *store, XidSnapshot *xids, HistoryPoint *point)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	*xids = xid_snapshot_of(snapshot);
	point->system_identifier = GetSystemIdentifier();
	/* after a restore into this cluster the first posting opens an epoch */
	point->epoch = store->epoch_current ? store->epoch : store->epoch + 1;
	point->tli = GetWALInsertionTimeLine();
	point->lsn = GetXLogInsertRecPtr();

	/*
	 * If the last record ended with its page, that is behind the header of the
	 * next one, where a timeline would not end.
	 */
	if (point->lsn % XLOG_BLCKSZ <= SizeOfXLogLongPHD)
		point->lsn -= point->lsn % XLOG_BLCKSZ;
	wal_flush_inserted();
	return snapshot;
}

static void
refuse(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_CURSOR_REFUSED),
			 errmsg("the cursor is of another history than this server's"),
			 errdetail("%s", detail),
			 errhint("Read from the beginning, or from rebate.feed_cursor(), and compare.")));
}

/*
 * Raise unless what the cursor has seen is part of this server's history.  A
 * standby that was promoted with all that the cursor had seen goes on with it, and
 * so does a cluster that pg_upgrade made.
 */
static void
check_history(const HistoryPoint *given, const HistoryPoint *now)
{
	List	   *history;
	ListCell   *lc;
	bool		upgraded = given->system_identifier != now->system_identifier;

	if (upgraded && !cluster_is_former(given->system_identifier))
		refuse("It is of a server with another system identifier.");
	if (given->epoch != now->epoch)
		refuse(psprintf("It is of epoch %d of the store, now is epoch %d.", given->epoch,
						now->epoch));
	/* a cluster made by pg_upgrade begins behind the WAL of the old one */
	if (given->tli == now->tli || upgraded)
	{
		if (given->lsn > GetFlushRecPtr(NULL))
			refuse(psprintf("It has seen WAL up to %X/%X, this server has less.",
							LSN_FORMAT_ARGS(given->lsn)));
		return;
	}
	history = readTimeLineHistory(now->tli);
	foreach(lc, history)
	{
		TimeLineHistoryEntry *entry = lfirst(lc);

		if (entry->tli != given->tli)
			continue;
		if (given->lsn > entry->end)
			refuse(psprintf("It has seen WAL of timeline %u up to %X/%X, this server left it at %X/%X.",
							given->tli, LSN_FORMAT_ARGS(given->lsn), LSN_FORMAT_ARGS(entry->end)));
		return;
	}
	refuse(psprintf("It is of timeline %u, which this server's timeline %u does not come from.",
					given->tli, now->tli));
}

static void
compare_check(void *arg, const EventRow *row)
{
	const FeedCursor *cursor = arg;

	if (row->check != cursor->last_check)
		refuse(psprintf("Entry " INT64_FORMAT " of account " INT64_FORMAT " is another one than it has seen.",
						row->fields.seq, row->fields.account_id));
}

/*
 * The entry that was read last must be there.  This tells apart what has the
 * same timeline and position: a server that was started from a copy of its files.
 */
static void
check_last_entry(Store *store, Snapshot snapshot, FeedCursor *cursor)
{
	EventKey	last = cursor->last;

	if (last.account_id != 0 &&
		event_read(store, snapshot, last.account_id, last.seq - 1, last.seq, 1, compare_check,
				   cursor) == 0)
		refuse(psprintf("Entry " INT64_FORMAT " of account " INT64_FORMAT ", which it has seen, is not there.",
						last.seq, last.account_id));
}

/* Begin a value of a type with a length, to be written in place. */
static void
begin_value(StringInfo buf)
{
	resetStringInfo(buf);
	appendStringInfoSpaces(buf, VARHDRSZ);
}

static Datum
end_value(StringInfo buf)
{
	SET_VARSIZE(buf->data, buf->len);
	return PointerGetDatum(buf->data);
}

static void
hold_row(FeedCall *call, const EventRow *row)
{
	begin_value(&call->event);
	event_to_json(call->store, &call->event, row);
	call->cursor.last = (EventKey) {row->fields.account_id, row->fields.seq};
	call->cursor.last_check = row->check;
	call->waiting = true;
}

/* Return the row that waits. */
static void
put_row(FeedCall *call)
{
	Datum		values[2];
	bool		nulls[2] = {false, false};

	begin_value(&call->text);
	feed_cursor_write(&call->text, &call->head, call->cursor.last, call->cursor.last_check);
	values[0] = end_value(&call->text);
	values[1] = end_value(&call->event);
	tuplestore_putvalues(call->result->setResult, call->result->setDesc, values, nulls);
	call->waiting = false;
	call->left--;
}

/* Another row of the batch; false if it may not be returned any more */
static bool
add_row(FeedCall *call, const EventRow *row)
{
	CHECK_FOR_INTERRUPTS();
	if (call->waiting)
	{
		put_row(call);
		if (call->left == 0)
			return false;
	}
	hold_row(call, row);
	return true;
}

/* The batch is read; the next one begins where it ended. */
static void
end_batch(FeedCall *call)
{
	call->cursor.seen = call->cursor.current;
	call->cursor.in_batch = false;
	feed_cursor_head(&call->head, &call->cursor);
	if (call->waiting)
		put_row(call);
}

/*
 * Rows of other epochs are older than any cursor: their transactions count as
 * ended.
 */
static bool
is_current(FeedCall *call, const EventRow *row)
{
	if (!call->store->epoch_current || row->fields.epoch != call->store->epoch)
		return true;
	return xid_snapshot_sees(&call->cursor.current, (uint64) row->fields.xid);
}

/* The first batch of a reader from the beginning: all there is, in order */
static void
read_all(FeedCall *call, EventKey after)
{
	EventScan  *scan = event_scan_begin(call->store, call->snapshot, after);
	const EventRow *row;

	while ((row = event_scan_next(scan)) != NULL)
	{
		if (is_current(call, row) && !add_row(call, row))
			break;
	}
	event_scan_end(scan);
	if (row == NULL)
		end_batch(call);
}

/* Any other batch */
static void
read_changes(FeedCall *call, EventKey after)
{
	EventScan  *scan = event_lookup_begin(call->store, call->snapshot);
	bool		more = true;
	BatchPart	part;

	do
	{
		part = feed_batch_part(call->store, &call->cursor.seen, &call->cursor.current, after);
		for (int i = 0; more && i < part.n; i++)
		{
			const EventRow *row;

			after = part.entries[i].place;
			row = event_lookup(scan, after, part.entries[i].opening);
			if (row == NULL)
			{
				feed_batch_forget();
				ereport(ERROR,
						(errcode(ERRCODE_RB_STORE_DAMAGED),
						 errmsg("entry " INT64_FORMAT " of account " INT64_FORMAT " is not where its index leads",
								after.seq, after.account_id),
						 errhint("Run rebate.audit(), and REINDEX SCHEMA %s.", STORE_SCHEMA)));
			}
			more = add_row(call, row);
		}
	} while (more && !part.complete);
	event_scan_end(scan);
	if (more)
	{
		end_batch(call);
		feed_batch_forget();
	}
}

/* Return rows of the cursor's batch. */
static void
read_batch(FeedCall *call, EventKey after)
{
	if (xid_snapshot_equal(&call->cursor.seen, &call->cursor.current))
		return;					/* a look at an idle server costs no search */
	feed_cursor_head(&call->head, &call->cursor);
	if (call->cursor.seen.xmax == 0)
		read_all(call, after);
	else
		read_changes(call, after);
}

/* The store, for a caller who may read the feed here */
static Store *
feed_store(const char *function)
{
	Store	   *store;

	/* a standby does not know which transactions are running */
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_RB_NOT_ON_STANDBY),
				 errmsg("%s cannot be called on a standby", function),
				 errhint("Call it on the primary; rebate.events() works on both.")));
	store = store_get(false);
	rights_check(store, RIGHT_AUDITOR, function);
	collect_flush();
	return store;
}

/* rebate.feed(cursor, limit) */
Datum
rebate_feed(PG_FUNCTION_ARGS)
{
	const EventKey beginning = {0, 0};
	char	   *text = api_text(fcinfo, 0);
	FeedCall	call = {0};
	XidSnapshot now;
	HistoryPoint point;
	bool		names;

	call.store = feed_store("rebate.feed");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the limit must not be null")));
	call.left = PG_GETARG_INT32(1);
	if (call.left < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the limit must be at least 1")));
	InitMaterializedSRF(fcinfo, 0);
	call.result = (ReturnSetInfo *) fcinfo->resultinfo;
	tuplestore_end(call.result->setResult);
	call.result->setResult = begin_rows();
	initStringInfo(&call.head);
	initStringInfo(&call.text);
	initStringInfo(&call.event);
	if (text)
		feed_cursor_parse(text, &call.cursor);

	call.snapshot = look(call.store, &now, &point);
	if (text)
		check_history(&call.cursor.point, &point);
	archive_check_feed(call.store, &call.cursor, &now);
	if (text)
		check_last_entry(call.store, call.snapshot, &call.cursor);

	names = event_names_begin(call.store);
	if (call.cursor.in_batch)
		read_batch(&call, call.cursor.last);
	if (call.left > 0)
	{
		call.cursor.point = point;
		call.cursor.in_batch = true;
		call.cursor.current = now;
		read_batch(&call, beginning);
	}
	if (names)
		event_names_end();
	UnregisterSnapshot(call.snapshot);
	return (Datum) 0;
}

/* A cursor that is inside no batch, as text in a new buffer */
static void
write_cursor(StringInfo text, const FeedCursor *cursor)
{
	StringInfoData head;

	initStringInfo(&head);
	initStringInfo(text);
	feed_cursor_head(&head, cursor);
	feed_cursor_write(text, &head, cursor->last, cursor->last_check);
}

/* The columns of rebate.feed_snapshot() */
enum SnapshotColumn
{
	FS_CURSOR, FS_ACCOUNT, FS_MEMBER, FS_CURRENCY, FS_LAST_ENTRY, FS_BUCKETS,
	FS_NATTS = FS_BUCKETS + NUM_BUCKETS
};

/* Return a row for each account, all with the cursor; how many */
static int64
put_accounts(Store *store, Snapshot snapshot, ReturnSetInfo *result, Datum cursor)
{
	Relation	rel = store_open(store, ST_ACCOUNT, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan_compat(rel, snapshot);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "rebate row",
													  ALLOCSET_SMALL_SIZES);
	int64		n = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(row_context);
		Datum		values[FS_NATTS];
		bool		nulls[FS_NATTS] = {0};
		Form_account row;
		CurrencyInfo *currency;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		row = (Form_account) GETSTRUCT(ExecFetchSlotHeapTuple(slot, false, NULL));
		currency = store_currency(store, TextDatumGetCString(slot->tts_values[AC_CURRENCY - 1]));
		if (currency == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("account " INT64_FORMAT " is in an unknown currency", row->account_id),
					 errhint("Restore it in table \"%s.currency\".", STORE_SCHEMA)));
		values[FS_CURSOR] = cursor;
		values[FS_ACCOUNT] = slot->tts_values[AC_HANDLE - 1];
		values[FS_MEMBER] = slot->tts_values[AC_MEMBER - 1];
		values[FS_CURRENCY] = slot->tts_values[AC_CURRENCY - 1];
		values[FS_LAST_ENTRY] = Int64GetDatum(row->last_entry);
		for (int b = 0; b < NUM_BUCKETS; b++)
			values[FS_BUCKETS + b] = NumericGetDatum(int64_div_fast_to_numeric(row->balance[b],
																			   currency->scale));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
		n++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	MemoryContextDelete(row_context);
	return n;
}

/*
 * rebate.feed_snapshot(): what a reader begins with who cannot, or does not want
 * to, read all there ever was.  Balances and cursor are of one snapshot.
 */
Datum
rebate_feed_snapshot(PG_FUNCTION_ARGS)
{
	Store	   *store = feed_store("rebate.feed_snapshot");
	FeedCursor	cursor = {0};
	StringInfoData text;
	Snapshot	snapshot;
	ReturnSetInfo *result;
	Datum		values[FS_NATTS] = {0};
	bool		nulls[FS_NATTS];

	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;
	snapshot = look(store, &cursor.seen, &cursor.point);
	/* what this transaction has posted comes after the cursor, if it commits */
	snapshot->curcid = FirstCommandId;
	write_cursor(&text, &cursor);
	values[FS_CURSOR] = PointerGetDatum(cstring_to_text_with_len(text.data, text.len));
	if (put_accounts(store, snapshot, result, values[FS_CURSOR]) == 0)
	{
		memset(nulls, true, sizeof(nulls));
		nulls[FS_CURSOR] = false;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/* rebate.feed_cursor(): after all that is visible now */
Datum
rebate_feed_cursor(PG_FUNCTION_ARGS)
{
	Store	   *store = feed_store("rebate.feed_cursor");
	FeedCursor	cursor = {0};
	StringInfoData text;

	UnregisterSnapshot(look(store, &cursor.seen, &cursor.point));
	write_cursor(&text, &cursor);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(text.data, text.len));
}
