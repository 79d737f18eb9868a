/*
 * collect_rows.c
 *	  Decides the rows of a statement and puts them into the collection.
 *
 * An order is decided from the image its statement gave when it is touched for
 * the first time.  Images are only candidates: a user's trigger may change the
 * new row again, and then that change reaches us before the statement that made
 * the row.  So an order touched more than once is read again from its table when
 * it is posted.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "bulk.h"
#include "collect_internal.h"
#include "counters.h"
#include "defer.h"
#include "guard.h"
#include "partition.h"
#include "row_sort.h"
#include "rules.h"

/* Rows decided in one subtransaction */
#define ROWS_PER_GUARD 512

/*
 * A decision for an order that raised an error, or whose statement made it fail:
 * what is posted stays.  An old row earns nothing, broken or not.
 */
Decision *
failed_decision(const OrderFacts *facts, int32 generation, bool old_order, int sqlerrcode,
				const char *error, const char *detail)
{
	Decision   *d = palloc0(sizeof(Decision));
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	bool		known = facts->seen || facts->deferred;
	bool		before = facts->seen ? (facts->flags & ORDER_BEFORE_ATTACHMENT) != 0 : old_order;

	d->keep = d->failed = !before;
	d->flags = before ? ORDER_BEFORE_ATTACHMENT : ORDER_FAILED;
	d->generation = known ? facts->generation : generation;
	d->first_seen = known ? facts->first_seen : now;
	d->order_time = facts->seen ? facts->order_time : d->first_seen;
	d->phase = facts->seen ? facts->phase : PHASE_VOID;
	d->has_confirmed_at = facts->has_confirmed_at;
	d->confirmed_at = facts->confirmed_at;
	d->sqlerrcode = sqlerrcode;
	d->error = error;
	d->error_detail = detail;
	if (ORDER_IS_SETTLED(facts->flags))
		decide_settled(facts, d);
	return d;
}

/*
 * Whether a row with this key was there before this transaction began to change
 * the table: seen by a snapshot of now that looks past the transaction's own
 * commands.
 */
bool
existed_before(Source *source, Relation rel, const char *key)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found;

	/* registering made a copy */
	snapshot->curcid = FirstCommandId;
	found = facts_fetch_past_row(source, rel, key, snapshot, slot);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * Whether an order that was never seen is older than the attachment: it was
 * there before this transaction.  An INSERT that meets a key for the first time
 * made it.
 */
static bool
row_is_old(CollectBatch *batch, const char *key, OrderFacts *facts)
{
	Relation	rel;
	bool		result;

	if (facts->deferred_old)
		return true;
	if (facts->seen || facts->deferred || batch->event == COLLECT_INSERT)
		return false;
	if (batch->all_old)
		return true;
	rel = table_open(batch->source->relid, AccessShareLock);
	result = existed_before(batch->source, rel, key);
	if (!result && batch->event == COLLECT_UPDATE)
	{
		/* a row of an inheritance child is none of this table's */
		Snapshot	snapshot;
		TupleTableSlot *slot = table_slot_create(rel, NULL);

		CommandCounterIncrement();
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		result = !facts_fetch_row(batch->source, rel, key, snapshot, slot);
		UnregisterSnapshot(snapshot);
		ExecDropSingleTupleTableSlot(slot);
	}
	table_close(rel, NoLock);
	return result;
}

/* on_error = abort: the statement fails with the row */
void
collect_abort_on(Source *source, const char *key, int sqlerrcode, const char *error, const char *detail)
{
	if (!may_see_rows(source->relid))
		ereport(ERROR,
				(errcode(sqlerrcode),
				 errmsg("an order of %s cannot be decided", source->name),
				 errdetail("What is wrong with it is shown to those who may read the table."),
				 errhint("Correct the row, or set on_error => 'set_aside' to let it through.")));
	ereport(ERROR,
			(errcode(sqlerrcode),
			 errmsg("order %s of %s cannot be decided: %s", key, source->name, error),
			 detail ? errdetail_internal("%s", detail) : 0,
			 errhint("Correct the row, or set on_error => 'set_aside' to let it through.")));
}


/* Count a failed row, or with on_error = abort fail with it. */
void
count_failure(CollectBatch *batch, const char *key, const Decision *d)
{
	if (collect_run)
	{
		collect_run->nfailed++;
		return;
	}
	if (batch->source->abort_on_error)
		collect_abort_on(batch->source, key, d->sqlerrcode, d->error, d->error_detail);
	if (batch->nfailed++ == 0)
	{
		/* the collection may be dropped before the WARNING */
		batch->first_key = MemoryContextStrdup(TopTransactionContext, key);
		batch->first_error = MemoryContextStrdup(TopTransactionContext, d->error);
	}
}

/* One WARNING a statement, whatever the number of rows. */
void
warn_failures(const CollectBatch *batch)
{
	if (batch->nfailed > 0)
		ereport(WARNING,
				(errcode(ERRCODE_RB_ORDER_FAILED),
				 errmsg_plural(INT64_FORMAT " order of %s could not be decided and was set aside",
							   INT64_FORMAT " orders of %s could not be decided and were set aside",
							   batch->nfailed, batch->nfailed, batch->source->name),
				 may_see_rows(batch->source->relid) ?
				 errdetail("The first is order %s: %s.", batch->first_key, batch->first_error) : 0,
				 errhint("The orders themselves are stored; see rebate.failures.")));
}

/* What became of the rows of one guarded stretch */
typedef struct RowResult
{
	const char *key;
	Decision   *decision;		/* NULL: touched before */
	OrderFacts *facts;			/* NULL beside a decision: it goes to the bulk */
} RowResult;

typedef struct Stretch
{
	CollectBatch *batch;
	int			limit;			/* rows to take at the most */
	int			n;
	bool		end;			/* there are no more rows */
	RowResult  *results;
	MemoryContext row_context;
	MemoryContext context;		/* of results that go to the bulk; NULL: row_context */
} Stretch;

static void
open_facts(CollectBatch *batch)
{
	/* the lock that posting takes: one lock a transaction, not two */
	batch->accrual = store_open(batch->store, ST_ACCRUAL, RowExclusiveLock);
	batch->snapshot = RegisterSnapshot(GetLatestSnapshot());
}

static void
close_facts(CollectBatch *batch)
{
	UnregisterSnapshot(batch->snapshot);
	table_close(batch->accrual, NoLock);
	batch->accrual = NULL;
}

/*
 * Post early if the collection is full.  It may forget orders then, also those
 * that this statement will meet again, and what is posted are facts of its orders.
 */
static void
bound_collection(CollectBatch *batch)
{
	if (collection.n - collection.first_unposted < rebate_collect_limit)
		return;
	collect_flush();
	if (batch->touched_before)
		batch->all_touched = collection_all_touched(batch->source->source_id);
	if (batch->accrual)
	{
		close_facts(batch);
		open_facts(batch);
	}
}

/* Facts of an order, also where the batch did not expect to need any. */
static void
read_facts(CollectBatch *batch, const char *key, OrderFacts *facts)
{
	bool		opened = batch->accrual == NULL;

	if (opened)
		open_facts(batch);
	facts_read(batch->store, batch->accrual, batch->source->source_id, key, batch->snapshot, facts);
	if (opened)
		close_facts(batch);
}

/*
 * Decide a row as that of a new order, which the bulk will find out; false if it
 * fails, since an old order does not, whatever its row says.
 */
static bool
decide_new(Stretch *s, DecideContext *context, const char *key, RowResult *result)
{
	CollectBatch *batch = s->batch;
	OrderFacts	none = {.assumed = true};
	OrderImage	image;
	Decision   *d;

	image_read(batch->store, batch->source, batch->slot, key, &image);
	d = decide(context, &image, &none);
	if (d->failed)
		return false;
	if (s->context)
	{
		MemoryContext old = MemoryContextSwitchTo(s->context);

		d = copy_decision(d);
		key = pstrdup(key);
		MemoryContextSwitchTo(old);
	}
	result->key = key;
	result->decision = d;
	s->n++;
	return true;
}

/* Take the next rows of the batch and decide them. */
static void
decide_stretch(void *arg)
{
	Stretch    *s = arg;
	CollectBatch *batch = s->batch;
	Source	   *source = batch->source;
	MemoryContext old = CurrentMemoryContext;
	DecideContext context = {
		.store = batch->store,
		.source = source,
		.now = GetCurrentTransactionStartTimestamp(),
		.generation = batch->generation,
		.archived = batch->archived,
		.any_backdate = batch->any_backdate
	};

	while (s->n < s->limit)
	{
		RowResult  *result = &s->results[s->n];
		OrderItem  *known;
		char	   *key;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(s->row_context);
		expr_reset();

		/* a tuple read back from disk belongs to the slot, not to this row */
		MemoryContextSwitchTo(old);
		if (!batch->next(batch))
		{
			s->end = true;
			break;
		}
		MemoryContextSwitchTo(s->row_context);
		/* at attachment most rows are old: know them by their time alone */
		if (batch->only_unseen && batch->skip_old && image_is_old(source, batch->slot))
			continue;
		key = image_key(source, batch->slot);
		result->decision = NULL;
		result->facts = NULL;
		if ((batch->bulk || !batch->all_touched) &&
			collection_find(source->source_id, key) == NULL)
		{
			OrderImage	image;
			Decision   *d;

			if (batch->bulk && decide_new(s, &context, key, result))
				continue;

			MemoryContextSwitchTo(collection.context);
			result->facts = palloc(sizeof(OrderFacts));
			if (batch->assume_new)
			{
				memset(result->facts, 0, sizeof(OrderFacts));
				result->facts->assumed = true;
			}
			else
				read_facts(batch, key, result->facts);
			MemoryContextSwitchTo(s->row_context);
			if (result->facts->seen ? batch->only_unseen : batch->only_known)
				continue;
			context.old_order = row_is_old(batch, key, result->facts);
			if (batch->event != COLLECT_DELETE)
				image_read(batch->store, source, batch->slot, key, &image);
			d = decide(&context, batch->event == COLLECT_DELETE ? NULL : &image, result->facts);
			if (d->failed && result->facts->assumed)
			{
				/* an old order does not fail, whatever its row says */
				MemoryContextSwitchTo(collection.context);
				read_facts(batch, key, result->facts);
				MemoryContextSwitchTo(s->row_context);
				d = decide(&context, &image, result->facts);
			}
			if (batch->skip_old && (d->flags & ORDER_BEFORE_ATTACHMENT))
				continue;
			MemoryContextSwitchTo(collection.context);
			result->decision = copy_decision(d);
			MemoryContextSwitchTo(s->row_context);
		}
		/* an item that is there has its key */
		known = collection_find(source->source_id, key);
		result->key = known ? known->key : MemoryContextStrdup(collection.context, key);
		s->n++;
	}
	MemoryContextSwitchTo(old);
}

/* Put the results of a stretch into the collection. */
static void
keep_results(Stretch *s)
{
	CollectBatch *batch = s->batch;

	for (int i = 0; i < s->n; i++)
	{
		RowResult  *result = &s->results[i];
		OrderItem  *item;
		ItemState  *state;

		batch->ncollected++;
		if (result->decision && result->facts == NULL)
		{
			bulk_add(batch->bulk, result->key, result->decision);
			continue;
		}
		item = collection_find(batch->source->source_id, result->key);
		if (item == NULL)
		{
			item = collection_add(batch->source->source_id, batch->source->relid, result->key,
								  batch->generation);
			state = &item->state;
			state->any_backdate = batch->any_backdate;
			state->decision = result->decision;
			state->facts = result->facts;
			state->reread = result->decision == NULL;
			if (result->decision)
			{
				state->evaluated = true;
				state->before = (result->decision->flags & ORDER_BEFORE_ATTACHMENT) != 0;
				if (result->decision->failed)
					count_failure(batch, result->key, result->decision);
			}
		}
		else
		{
			collection_touch(item);
			state = &item->state;
		}
		state->archived = batch->archived;
	}
	s->n = 0;
}

/* Decide one row that raised, as failed. */
static void
keep_error(Stretch *s, const char *key, ErrorData *error)
{
	CollectBatch *batch = s->batch;
	RowResult  *result = &s->results[0];
	MemoryContext old = MemoryContextSwitchTo(collection.context);

	result->key = pstrdup(key);
	result->facts = palloc(sizeof(OrderFacts));
	read_facts(batch, key, result->facts);
	result->decision = failed_decision(result->facts, batch->generation,
									   row_is_old(batch, key, result->facts), error->sqlerrcode,
									   pstrdup(error->message),
									   error->detail ? pstrdup(error->detail) : NULL);
	MemoryContextSwitchTo(old);
	s->n = 1;
	keep_results(s);
}

/*
 * Stretches of rows whose expressions may raise run in subtransactions; after
 * the first failure row by row.  The batch's rows are taken through a buffer of
 * copies, so that a stretch can be taken again.
 */
typedef struct Replay
{
	CollectNext next;			/* the batch's own */
	void	   *next_arg;
	HeapTuple  *rows;
	int			nrows;
	int			at;
	int			end;			/* rows before it may be taken */
} Replay;

static bool
replay_next(CollectBatch *batch)
{
	Replay	   *replay = batch->next_arg;

	if (replay->at == replay->end)
		return false;
	ExecForceStoreHeapTuple(replay->rows[replay->at++], batch->slot, false);
	return true;
}

static void
collect_guarded(CollectBatch *batch, Stretch *s)
{
	Replay		replay = {.next = batch->next, .next_arg = batch->next_arg};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate rows",
												  ALLOCSET_DEFAULT_SIZES);
	bool		end = false;

	s->context = context;
	while (!end)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		ErrorData  *error;

		MemoryContextReset(context);
		replay.rows = palloc(sizeof(HeapTuple) * ROWS_PER_GUARD);
		replay.nrows = replay.at = 0;
		batch->next_arg = replay.next_arg;
		while (replay.nrows < ROWS_PER_GUARD && !end)
		{
			/* a scan outlives this stretch */
			MemoryContextSwitchTo(old);
			end = !replay.next(batch);
			MemoryContextSwitchTo(context);
			if (!end)
				replay.rows[replay.nrows++] = ExecCopySlotHeapTuple(batch->slot);
		}
		/* a row of a scan must not leave its page to the subtransaction */
		ExecClearTuple(batch->slot);
		batch->next = replay_next;
		batch->next_arg = &replay;

		s->limit = replay.end = replay.nrows;
		error = run_guarded(batch->store, decide_stretch, s);
		if (error == NULL)
			keep_results(s);
		else
		{
			for (int i = 0; i < replay.nrows; i++)
			{
				replay.at = i;
				replay.end = i + 1;
				s->n = 0;
				s->limit = 1;
				error = run_guarded(batch->store, decide_stretch, s);
				if (error == NULL)
					keep_results(s);
				else
				{
					ExecForceStoreHeapTuple(replay.rows[i], batch->slot, false);
					keep_error(s, image_key(batch->source, batch->slot), error);
				}
			}
		}
		s->end = false;
		batch->next = replay.next;
		batch->next_arg = replay.next_arg;
		MemoryContextSwitchTo(old);
		bound_collection(batch);
	}
	MemoryContextDelete(context);
}

/* What the batch was, for the statistics */
static void
count_batch(const CollectBatch *batch)
{
	static const Counter of_event[] = {
		[COLLECT_INSERT] = CT_INSERTED,
		[COLLECT_UPDATE] = CT_UPDATED,
		[COLLECT_DELETE] = CT_DELETED
	};

	counters_add_of(batch->store, batch->source->source_id, of_event[batch->event],
					batch->ncollected);
}

/* Decide the rows of a batch, collect them, warn once of those that failed. */
void
collect_rows(CollectBatch *batch)
{
	Stretch		s = {.batch = batch};
	RowSort    *sort = NULL;
	MemoryContext old;

	if (defer_active())
	{
		defer_rows(batch);
		counters_add_of(batch->store, batch->source->source_id, CT_DEFERRED, batch->ncollected);
		count_batch(batch);
		return;
	}
	/* what is recorded of a deferred order must be read */
	if (batch->store->maybe_deferred)
		batch->assume_new = false;
	collection_begin();
	collection.linked |= batch->source->linked;
	batch->touched_before = batch->keys_changed || collection.n > 0;
	batch->generation = rules_generation(batch->store);
	/* of earlier statements: this one meets each order once */
	batch->all_touched = collection_all_touched(batch->source->source_id);
	if (batch->many && batch->event == COLLECT_INSERT && !batch->store->maybe_deferred &&
		!collection_forgot_moves(batch->source->source_id))
		batch->bulk = bulk_begin(batch->store, batch->source, batch->generation);
	else if (batch->many)
		sort = row_sort_begin(batch);
	if (!batch->assume_new && batch->bulk == NULL)
		open_facts(batch);
	s.row_context = AllocSetContextCreate(CurrentMemoryContext, "rebate row",
										  ALLOCSET_DEFAULT_SIZES);
	old = CurrentMemoryContext;

	/* no row of a deletion is read beyond its key */
	if (batch->event != COLLECT_DELETE &&
		(batch->source->has_expressions || rules_have_expressions()))
	{
		s.results = palloc(sizeof(RowResult) * ROWS_PER_GUARD);
		collect_guarded(batch, &s);
	}
	else
	{
		RowResult	result;

		s.results = &result;
		s.limit = 1;
		while (!s.end)
		{
			decide_stretch(&s);
			keep_results(&s);
			bound_collection(batch);
		}
	}

	MemoryContextSwitchTo(old);
	MemoryContextDelete(s.row_context);
	if (batch->accrual)
		close_facts(batch);
	if (batch->bulk)
		bulk_end(batch->bulk);
	if (sort)
		row_sort_end(sort);
	count_batch(batch);
	warn_failures(batch);
}

static bool
scan_next(CollectBatch *batch)
{
	return source_scan_next((SourceScan *) batch->next_arg);
}

/*
 * Collect all rows that a table has now: the source's own, or a partition of it,
 * or one that was just detached.
 */
void
collect_table(CollectBatch *batch, Relation rel)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SourceScan *scan = source_scan_begin(batch->source, rel, snapshot);

	batch->slot = source_scan_slot(scan);
	batch->next = scan_next;
	batch->next_arg = scan;
	collect_rows(batch);
	source_scan_end(scan);
	UnregisterSnapshot(snapshot);
}
