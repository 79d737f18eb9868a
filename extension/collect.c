/*
 * collect.c
 *	  The orders that the current transaction has touched.
 *
 * An order is decided from the image its statement gave when it is touched for the first
 * time.  Images are only candidates: a user's trigger may change the new row
 * again, and then its statement reaches us before the one that made the row.  So
 * an order touched more than once is read again from its table, and decided
 * again, when it is posted.
 *
 * Posting happens before the transaction commits, or at the end of each
 * outermost statement, or when the collection is full.  What was posted inside a
 * subtransaction is remembered until that subtransaction has ended well.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "collect.h"
#include "guard.h"
#include "post.h"
#include "rules.h"

/* Orders held before they are posted early: bounds memory */
#define MAX_ITEMS 16384
/* Orders remembered as touched after posting; beyond, all count as touched */
#define MAX_REMEMBERED 4096
/* Rows decided in one subtransaction */
#define ROWS_PER_GUARD 512

typedef struct OrderItem
{
	int32		source_id;
	const char *key;
	Oid			relid;
	SubTransactionId created_sub;
	SubTransactionId posted_sub;	/* invalid: waits to be posted */
	SubTransactionId moved_sub; /* its facts went to another key */
	int32		generation;		/* of its first touch */
	bool		new_order;
	bool		reread;
	bool		any_backdate;
	bool		fixed_failure;	/* decided by its statement: do not read again */
	Decision   *decision;
	OrderFacts *facts;
} OrderItem;

typedef struct ItemKey
{
	int32		source_id;
	const char *key;
} ItemKey;

typedef struct ItemEntry
{
	ItemKey		key;
	uint32		hash;
	char		status;
	OrderItem  *item;
} ItemEntry;

static inline uint32
hash_item_key(ItemKey key)
{
	return hash_bytes((const unsigned char *) key.key, strlen(key.key)) ^
		hash_bytes_uint32((uint32) key.source_id);
}

#define SH_PREFIX itemhash
#define SH_ELEMENT_TYPE ItemEntry
#define SH_KEY_TYPE ItemKey
#define SH_KEY key
#define SH_HASH_KEY(tb, k) hash_item_key(k)
#define SH_EQUAL(tb, a, b) ((a).source_id == (b).source_id && strcmp((a).key, (b).key) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* All in collect_context, a child of TopTransactionContext, but for all_touched */
static MemoryContext collect_context = NULL;
static itemhash_hash *item_hash = NULL;
static OrderItem **items = NULL;	/* in the order of their creation */
static int	nitems = 0;
static int	allocated_items = 0;
static int	first_unposted = 0; /* all items before it are posted */
static bool nested_work = false;	/* posted or moved in a subtransaction */
static List *all_touched = NIL; /* source ids */
static bool flushing = false;

/*----------------------------------------------------------------------------
 * The collection
 *----------------------------------------------------------------------------
 */

static void
begin_collection(void)
{
	MemoryContext old;

	if (items)
		return;
	if (collect_context == NULL)
		collect_context = AllocSetContextCreate(TopTransactionContext, "rebate collection",
												ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(collect_context);
	item_hash = itemhash_create(collect_context, 16, NULL);
	allocated_items = 16;
	items = palloc(sizeof(OrderItem *) * allocated_items);
	nitems = first_unposted = 0;
	MemoryContextSwitchTo(old);
}

static OrderItem *
find_item(int32 source_id, const char *key)
{
	ItemKey		probe = {source_id, key};
	ItemEntry  *entry = item_hash ? itemhash_lookup(item_hash, probe) : NULL;

	return entry ? entry->item : NULL;
}

/* Key must live in collect_context. */
static OrderItem *
add_item(int32 source_id, Oid relid, const char *key, int32 generation)
{
	ItemKey		probe = {source_id, key};
	OrderItem  *item;
	ItemEntry  *entry;
	bool		found;

	if (nitems == allocated_items)
	{
		allocated_items *= 2;
		items = repalloc_huge(items, sizeof(OrderItem *) * allocated_items);
	}
	item = MemoryContextAllocZero(collect_context, sizeof(OrderItem));
	item->source_id = source_id;
	item->key = key;
	item->relid = relid;
	item->created_sub = GetCurrentSubTransactionId();
	item->generation = generation;
	entry = itemhash_insert(item_hash, probe, &found);
	entry->item = item;
	items[nitems++] = item;
	return item;
}

/* An order is touched again: what was decided from an image is void. */
static void
touch_item(OrderItem *item, bool new_order)
{
	item->reread = true;
	item->fixed_failure = false;
	item->moved_sub = InvalidSubTransactionId;
	item->new_order |= new_order;
	if (item->posted_sub != InvalidSubTransactionId)
	{
		item->posted_sub = InvalidSubTransactionId;
		first_unposted = 0;
	}
}

bool
collect_is_empty(void)
{
	return first_unposted == nitems;
}

void
collect_touch(Store *store, Source *source, const char *key, bool new_order)
{
	OrderItem  *item;

	begin_collection();
	item = find_item(source->source_id, key);
	if (item == NULL)
		item = add_item(source->source_id, source->relid,
						MemoryContextStrdup(collect_context, key), rules_generation(store));
	touch_item(item, new_order);
}

/*
 * An UPDATE changed the key of one order: its facts and accruals move with it.
 * Returns false if the new key has a history of its own; then the two are two
 * orders, of which one left and one came back.
 */
bool
collect_rekey(Store *store, Source *source, const char *oldkey, const char *newkey)
{
	OrderItem  *olditem = find_item(source->source_id, oldkey);
	OrderItem  *newitem;

	if (find_item(source->source_id, newkey) != NULL ||
		!post_rekey(store, source->source_id, oldkey, newkey))
		return false;
	collect_touch(store, source, newkey, olditem && olditem->new_order);
	newitem = find_item(source->source_id, newkey);
	olditem = find_item(source->source_id, oldkey);
	if (olditem)
	{
		newitem->generation = olditem->generation;
		olditem->moved_sub = GetCurrentSubTransactionId();
		nested_work |= olditem->moved_sub != TopSubTransactionId;
		olditem->reread = true;
	}
	return true;
}

/* on_error = abort: the statement fails with the row */
static void
abort_on(Source *source, const char *key, int sqlerrcode, const char *error, const char *detail)
{
	ereport(ERROR,
			(errcode(sqlerrcode),
			 errmsg("order %s of %s cannot be decided: %s", key, source->name, error),
			 detail ? errdetail_internal("%s", detail) : 0,
			 errhint("Correct the row, or set on_error => 'set_aside' to let it through.")));
}

void
collect_failure(Store *store, Source *source, const char *key, int sqlerrcode,
				const char *error, const char *detail)
{
	OrderItem  *item;
	MemoryContext old;

	if (source->abort_on_error)
		abort_on(source, key, sqlerrcode, error, detail);
	collect_touch(store, source, key, false);
	item = find_item(source->source_id, key);
	old = MemoryContextSwitchTo(collect_context);
	item->fixed_failure = true;
	item->decision = palloc0(sizeof(Decision));
	item->decision->sqlerrcode = sqlerrcode;
	item->decision->error = pstrdup(error);
	item->decision->error_detail = detail ? pstrdup(detail) : NULL;
	MemoryContextSwitchTo(old);
}

/*----------------------------------------------------------------------------
 * Deciding under guard
 *----------------------------------------------------------------------------
 */

/* Deep copy of a decision into the current context. */
static Decision *
copy_decision(const Decision *d)
{
	Decision   *copy = palloc(sizeof(Decision));

	*copy = *d;
	if (d->member)
		copy->member = pstrdup(d->member);
	if (d->error)
		copy->error = pstrdup(d->error);
	if (d->error_detail)
		copy->error_detail = pstrdup(d->error_detail);
	copy->wishes = NULL;
	if (d->nwishes > 0)
	{
		copy->wishes = palloc(sizeof(Wish) * d->nwishes);
		for (int i = 0; i < d->nwishes; i++)
		{
			copy->wishes[i] = d->wishes[i];
			if (d->wishes[i].base)
				copy->wishes[i].base = DatumGetNumericCopy(NumericGetDatum(d->wishes[i].base));
		}
	}
	return copy;
}

/* A decision for an order whose row raised an error. */
static Decision *
failed_decision(OrderFacts *facts, int32 generation, bool new_order, int sqlerrcode,
				const char *error, const char *detail)
{
	Decision   *d = palloc0(sizeof(Decision));
	TimestampTz now = GetCurrentTransactionStartTimestamp();

	d->keep = d->failed = true;
	d->generation = facts->seen ? facts->generation : generation;
	d->first_seen = facts->seen ? facts->first_seen : now;
	d->order_time = facts->seen ? facts->order_time : now;
	d->phase = facts->seen ? facts->phase : PHASE_VOID;
	d->has_confirmed_at = facts->has_confirmed_at;
	d->confirmed_at = facts->confirmed_at;
	d->flags = ORDER_FAILED;
	if (!facts->seen && !new_order)
	{
		/* an old row earns nothing, broken or not */
		d->flags = ORDER_BEFORE_ATTACHMENT;
		d->keep = d->failed = false;
	}
	d->sqlerrcode = sqlerrcode;
	d->error = error;
	d->error_detail = detail;
	return d;
}

static void
count_failure(CollectBatch *batch, const char *key, Decision *d)
{
	if (batch->source->abort_on_error)
		abort_on(batch->source, key, d->sqlerrcode, d->error, d->error_detail);
	if (batch->nfailed++ == 0)
	{
		/* the collection may be dropped before the WARNING */
		batch->first_key = MemoryContextStrdup(TopTransactionContext, key);
		batch->first_error = MemoryContextStrdup(TopTransactionContext, d->error);
	}
}

/* One WARNING a statement, whatever the number of rows. */
static void
warn_failures(CollectBatch *batch)
{
	if (batch->nfailed > 0)
		ereport(WARNING,
				(errcode(ERRCODE_RB_ORDER_FAILED),
				 errmsg_plural(INT64_FORMAT " order of %s could not be decided and was set aside",
							   INT64_FORMAT " orders of %s could not be decided and were set aside",
							   batch->nfailed, batch->nfailed, batch->source->name),
				 errdetail("The first is order %s: %s.", batch->first_key, batch->first_error),
				 errhint("The orders themselves are stored; see rebate.failures.")));
}

/* What became of the rows of one guarded stretch */
typedef struct RowResult
{
	const char *key;
	Decision   *decision;		/* NULL: touched before */
	OrderFacts *facts;
} RowResult;

typedef struct Stretch
{
	CollectBatch *batch;
	int			limit;			/* rows to take at the most */
	int			n;
	bool		end;			/* there are no more rows */
	RowResult  *results;
	MemoryContext row_context;
} Stretch;

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
		.new_order = batch->event == COLLECT_INSERT,
		.archived = batch->event == COLLECT_DELETE && source->on_delete == LEAVE_KEEP,
		.any_backdate = batch->any_backdate
	};

	while (s->n < s->limit)
	{
		RowResult  *result = &s->results[s->n];
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
		key = image_key(source, batch->slot);
		result->decision = NULL;
		result->facts = NULL;
		if (!batch->all_touched && find_item(source->source_id, key) == NULL)
		{
			OrderImage	image;
			Decision   *d;

			MemoryContextSwitchTo(collect_context);
			result->facts = palloc(sizeof(OrderFacts));
			facts_read(batch->store, batch->accrual, source->source_id, key, batch->snapshot,
					   result->facts);
			MemoryContextSwitchTo(s->row_context);
			if (batch->only_unseen && result->facts->seen)
				continue;
			if (batch->event != COLLECT_DELETE)
				image_read(batch->store, source, batch->slot, &image);
			d = decide(&context, batch->event == COLLECT_DELETE ? NULL : &image, result->facts);
			if (batch->skip_old && (d->flags & ORDER_BEFORE_ATTACHMENT))
				continue;
			MemoryContextSwitchTo(collect_context);
			result->decision = copy_decision(d);
			MemoryContextSwitchTo(s->row_context);
		}
		result->key = MemoryContextStrdup(collect_context, key);
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
		OrderItem  *item = find_item(batch->source->source_id, result->key);
		bool		new_order = batch->event == COLLECT_INSERT;

		batch->ncollected++;
		if (item == NULL)
		{
			item = add_item(batch->source->source_id, batch->source->relid, result->key,
							batch->generation);
			item->new_order = new_order;
			item->any_backdate = batch->any_backdate;
			item->decision = result->decision;
			item->facts = result->facts;
			item->reread = result->decision == NULL;
			if (result->decision && result->decision->failed)
				count_failure(batch, result->key, result->decision);
		}
		else
			touch_item(item, new_order);
	}
	s->n = 0;
}

/* Decide one row that raised, as failed. */
static void
keep_error(Stretch *s, const char *key, ErrorData *error)
{
	CollectBatch *batch = s->batch;
	RowResult  *result = &s->results[0];
	MemoryContext old = MemoryContextSwitchTo(collect_context);

	result->key = pstrdup(key);
	result->facts = palloc(sizeof(OrderFacts));
	facts_read(batch->store, batch->accrual, batch->source->source_id, key, batch->snapshot,
			   result->facts);
	result->decision = failed_decision(result->facts, batch->generation,
									   batch->event == COLLECT_INSERT, error->sqlerrcode,
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
} Replay;

static bool
replay_next(CollectBatch *batch)
{
	Replay	   *replay = batch->next_arg;

	if (replay->at == replay->nrows)
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
			if (replay.next(batch))
				replay.rows[replay.nrows++] = ExecCopySlotHeapTuple(batch->slot);
			else
				end = true;
		}
		batch->next = replay_next;
		batch->next_arg = &replay;

		s->limit = replay.nrows;
		error = run_guarded(batch->store, decide_stretch, s);
		if (error == NULL)
			keep_results(s);
		else
		{
			for (int i = 0; i < replay.nrows; i++)
			{
				replay.at = i;
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
		if (nitems - first_unposted >= MAX_ITEMS)
			collect_flush();
	}
	MemoryContextDelete(context);
}

void
collect_rows(CollectBatch *batch)
{
	Stretch		s = {.batch = batch};
	MemoryContext old;

	begin_collection();
	batch->generation = rules_generation(batch->store);
	/* of earlier statements: this one meets each order once */
	batch->all_touched = list_member_int(all_touched, batch->source->source_id);
	/* the lock that posting takes: one lock a transaction, not two */
	batch->accrual = table_open(batch->store->tables[ST_ACCRUAL], RowExclusiveLock);
	batch->snapshot = RegisterSnapshot(GetLatestSnapshot());
	s.row_context = AllocSetContextCreate(CurrentMemoryContext, "rebate row",
										  ALLOCSET_SMALL_SIZES);
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
			if (nitems - first_unposted >= MAX_ITEMS)
				collect_flush();
		}
	}

	MemoryContextSwitchTo(old);
	MemoryContextDelete(s.row_context);
	UnregisterSnapshot(batch->snapshot);
	table_close(batch->accrual, NoLock);
	warn_failures(batch);
}

/*----------------------------------------------------------------------------
 * Posting
 *----------------------------------------------------------------------------
 */

/* One order to be read and decided again */
typedef struct Again
{
	Store	   *store;
	Source	   *source;
	OrderItem  *item;
	Relation	rel;
	TupleTableSlot *slot;
	Relation	accrual;
	Snapshot	snapshot;
} Again;

static void
decide_again(void *arg)
{
	Again	   *a = arg;
	OrderItem  *item = a->item;
	OrderImage	image;
	DecideContext context = {
		.store = a->store,
		.source = a->source,
		.now = GetCurrentTransactionStartTimestamp(),
		.generation = item->generation,
		.new_order = item->new_order,
		.any_backdate = item->any_backdate
	};
	bool		there = facts_fetch_row(a->source, a->rel, item->key, a->snapshot, a->slot);

	expr_reset();
	if (there)
		image_read(a->store, a->source, a->slot, &image);
	context.archived = !there && a->source->on_delete == LEAVE_KEEP;
	item->decision = copy_decision(decide(&context, there ? &image : NULL, item->facts));
	ExecClearTuple(a->slot);
}

/*
 * Read and decide again what was touched more than once.  Runs in
 * collect_context: the orders are few.
 */
static void
decide_touched(Store *store)
{
	Again		a = {.store = store};
	CollectBatch failures = {.store = store};

	for (int i = first_unposted; i < nitems; i++)
	{
		OrderItem  *item = items[i];
		ErrorData  *error = NULL;

		if (item->posted_sub != InvalidSubTransactionId ||
			item->moved_sub != InvalidSubTransactionId || !item->reread)
			continue;

		if (a.source == NULL || a.source->relid != item->relid)
		{
			if (a.rel)
			{
				warn_failures(&failures);
				ExecDropSingleTupleTableSlot(a.slot);
				table_close(a.rel, NoLock);
				a.rel = NULL;
			}
			a.source = source_get(store, item->relid);
			failures.source = a.source;
			failures.nfailed = 0;
			if (a.source)
			{
				a.rel = table_open(item->relid, AccessShareLock);
				a.slot = table_slot_create(a.rel, NULL);
			}
		}
		if (a.accrual == NULL)
		{
			a.accrual = table_open(store->tables[ST_ACCRUAL], AccessShareLock);
			a.snapshot = RegisterSnapshot(GetLatestSnapshot());
		}
		if (a.source == NULL)
		{
			/* detached meanwhile, by this transaction */
			item->posted_sub = GetCurrentSubTransactionId();
			continue;
		}

		item->facts = palloc(sizeof(OrderFacts));
		facts_read(store, a.accrual, item->source_id, item->key, a.snapshot, item->facts);
		if (item->fixed_failure)
		{
			item->decision = failed_decision(item->facts, item->generation, true,
											 item->decision->sqlerrcode, item->decision->error,
											 item->decision->error_detail);
		}
		else
		{
			a.item = item;
			if (a.source->has_expressions || rules_have_expressions())
				error = run_guarded(store, decide_again, &a);
			else
				decide_again(&a);
			if (error)
				item->decision = failed_decision(item->facts, item->generation, item->new_order,
												 error->sqlerrcode, error->message, error->detail);
		}
		if (item->decision->failed)
			count_failure(&failures, item->key, item->decision);
		item->reread = false;
	}
	if (a.rel)
	{
		warn_failures(&failures);
		ExecDropSingleTupleTableSlot(a.slot);
		table_close(a.rel, NoLock);
	}
	if (a.accrual)
	{
		UnregisterSnapshot(a.snapshot);
		table_close(a.accrual, AccessShareLock);
	}
}

/* Write down the orders that failed, and forget those that no longer do. */
static void
record_failures(Store *store, PostOrder *orders, int n)
{
	StoreSpi	scope;
	bool		open = false;

	for (int i = 0; i < n; i++)
	{
		Decision   *d = orders[i].decision;
		Datum		values[5];
		char		nulls[6] = "     ";
		Oid			argtypes[5] = {INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};

		if (!d->failed && !(orders[i].facts->flags & ORDER_FAILED))
			continue;
		if (!open)
			store_spi_begin(store, &scope);
		open = true;
		values[0] = Int32GetDatum(orders[i].source_id);
		values[1] = CStringGetTextDatum(orders[i].key);
		if (d->failed)
		{
			values[2] = CStringGetTextDatum(unpack_sql_state(d->sqlerrcode));
			values[3] = CStringGetTextDatum(d->error);
			nulls[4] = d->error_detail ? ' ' : 'n';
			values[4] = d->error_detail ? CStringGetTextDatum(d->error_detail) : (Datum) 0;
			if (SPI_execute_with_args("INSERT INTO rebate_data.failure AS f VALUES"
									  " ($1, $2, $3, $4, $5, now(), now(), 1)"
									  " ON CONFLICT (source_id, order_key) DO UPDATE SET"
									  "  sqlstate = excluded.sqlstate, message = excluded.message,"
									  "  detail = excluded.detail, last_failed_at = excluded.last_failed_at,"
									  "  attempts = f.attempts + 1",
									  5, argtypes, values, nulls, false, 0) != SPI_OK_INSERT)
				elog(ERROR, "could not record a failure");
		}
		else if (SPI_execute_with_args("DELETE FROM rebate_data.failure"
									   " WHERE source_id = $1 AND order_key = $2",
									   2, argtypes, values, NULL, false, 0) != SPI_OK_DELETE)
			elog(ERROR, "could not forget a failure");
	}
	if (open)
		store_spi_end(&scope);
}

/*
 * Forget posted items, but not those made outside the current subtransaction:
 * should it roll back they must be posted again.  Their sources count as touched
 * from now on.
 */
static void
forget_items(SubTransactionId sub)
{
	MemoryContext oldcontext = collect_context;
	OrderItem **olditems = items;
	int			n = nitems;

	collect_context = NULL;
	items = NULL;
	begin_collection();
	for (int i = 0; i < n; i++)
	{
		OrderItem  *olditem = olditems[i];
		OrderItem  *item;
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		all_touched = list_append_unique_int(all_touched, olditem->source_id);
		MemoryContextSwitchTo(old);
		if (olditem->created_sub == sub)
			continue;
		item = add_item(olditem->source_id, olditem->relid,
						MemoryContextStrdup(collect_context, olditem->key), olditem->generation);
		item->created_sub = olditem->created_sub;
		item->posted_sub = olditem->posted_sub;
		item->moved_sub = olditem->moved_sub;
		item->new_order = olditem->new_order;
		item->any_backdate = olditem->any_backdate;
		item->reread = true;
	}
	MemoryContextDelete(oldcontext);
}

/* Mark what was posted, and forget what need not be remembered. */
static void
after_posting(void)
{
	SubTransactionId sub = GetCurrentSubTransactionId();

	for (int i = first_unposted; i < nitems; i++)
	{
		if (items[i]->posted_sub == InvalidSubTransactionId)
			items[i]->posted_sub = sub;
	}
	nested_work |= sub != TopSubTransactionId;
	if (nitems > MAX_REMEMBERED)
		forget_items(sub);
	first_unposted = nitems;
}

int64
collect_flush(void)
{
	Store	   *store;
	MemoryContext old;
	PostOrder  *orders;
	int			n = 0;

	if (flushing || collect_is_empty())
		return 0;
	store = store_get(false);
	flushing = true;

	/* our own statement's rows must be visible to what is read again */
	CommandCounterIncrement();
	(void) rules_generation(store);

	old = MemoryContextSwitchTo(collect_context);
	decide_touched(store);
	orders = palloc(sizeof(PostOrder) * (nitems - first_unposted));
	for (int i = first_unposted; i < nitems; i++)
	{
		OrderItem  *item = items[i];

		if (item->posted_sub != InvalidSubTransactionId ||
			item->moved_sub != InvalidSubTransactionId)
			continue;
		orders[n].source_id = item->source_id;
		orders[n].key = item->key;
		orders[n].decision = item->decision;
		orders[n++].facts = item->facts;
	}
	if (n > 0)
	{
		post_orders(store, orders, n);
		record_failures(store, orders, n);
	}
	MemoryContextSwitchTo(old);
	after_posting();
	flushing = false;
	return n;
}

/*----------------------------------------------------------------------------
 * Ends of transactions and subtransactions
 *----------------------------------------------------------------------------
 */

void
collect_pre_commit(void)
{
	bool		pushed = false;

	if (collect_is_empty())
		return;
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	collect_flush();
	if (pushed)
		PopActiveSnapshot();
}

/* The memory goes with TopTransactionContext. */
void
collect_at_xact_end(void)
{
	collect_context = NULL;
	item_hash = NULL;
	items = NULL;
	nitems = first_unposted = allocated_items = 0;
	nested_work = false;
	all_touched = NIL;
	flushing = false;
}

/* What a subtransaction made belongs to its parent now. */
void
collect_at_subcommit(SubTransactionId my, SubTransactionId parent)
{
	/* items of the innermost levels are at the end */
	for (int i = nitems - 1; i >= 0 && items[i]->created_sub == my; i--)
		items[i]->created_sub = parent;
	for (int i = 0; i < nitems && nested_work; i++)
	{
		if (items[i]->posted_sub == my)
			items[i]->posted_sub = parent;
		if (items[i]->moved_sub == my)
			items[i]->moved_sub = parent;
	}
}

/* What a subtransaction touched is not touched, what it posted not posted. */
void
collect_at_subabort(SubTransactionId my)
{
	flushing = false;
	while (nitems > 0 && items[nitems - 1]->created_sub == my)
	{
		OrderItem  *item = items[--nitems];
		ItemKey		key = {item->source_id, item->key};

		itemhash_delete(item_hash, key);
	}
	first_unposted = Min(first_unposted, nitems);
	for (int i = 0; i < nitems && nested_work; i++)
	{
		OrderItem  *item = items[i];

		if (item->moved_sub == my)
			item->moved_sub = InvalidSubTransactionId;
		if (item->posted_sub == my)
		{
			item->posted_sub = InvalidSubTransactionId;
			item->reread = true;
			first_unposted = 0;
		}
	}
}
