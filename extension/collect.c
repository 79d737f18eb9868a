/*
 * collect.c
 *	  What happens to orders in the collection: touched again, moved to another
 *	  key, failed by their statement, and at last posted.
 *
 * Posting happens before the transaction commits, or at the end of each
 * outermost statement, or when the collection is full.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "collect_internal.h"
#include "counters.h"
#include "defer.h"
#include "guard.h"
#include "links.h"
#include "post.h"
#include "rules.h"

CollectRun *collect_run = NULL;

/*
 * Whether an order is older than the attachment, or took the row of one that is.
 * What the first evaluation in this transaction said stands; otherwise facts
 * tell, and for an order without facts whether its row was there before.
 */
static bool
item_is_old(const ItemState *state, OrderFacts *facts, Source *source, Relation rel,
			const char *key)
{
	if ((state && state->old) || facts->deferred_old)
		return true;
	if (facts->seen)
		return (facts->flags & ORDER_BEFORE_ATTACHMENT) != 0;
	if (facts->deferred || (state && state->reconciled))
		return false;
	if (state && state->evaluated)
		return state->before;
	return existed_before(source, rel, key);
}

static OrderItem *
touch(Store *store, Source *source, const char *key)
{
	OrderItem  *item;

	collection_begin();
	collection.linked |= source->linked;
	item = collection_find(source->source_id, key);
	if (item == NULL)
		item = collection_add(source->source_id, source->relid,
							  MemoryContextStrdup(collection.context, key),
							  rules_generation(store));
	collection_touch(item);
	return item;
}

void
collect_touch(Store *store, Source *source, const char *key)
{
	if (defer_active())
		defer_touch(store, source, key);
	else
		(void) touch(store, source, key);
}

void
collect_again(Store *store, Source *source, const char *key, bool archived)
{
	OrderItem  *item;
	ItemState  *state;

	/* no failure of a statement before it stands */
	collect_firing();
	item = touch(store, source, key);
	state = collection_change(item);
	state->failed = false;
	state->reconciled = true;
	state->any_backdate = true;
	state->archived = archived;
}

void
collect_firing(void)
{
	collection.firing++;
}

bool
collect_knows(Store *store, Source *source, const char *key)
{
	Relation	accrual = store_open(store, ST_ACCRUAL, RowExclusiveLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	OrderFacts	facts;

	facts_read(store, accrual, source->source_id, key, snapshot, &facts);
	UnregisterSnapshot(snapshot);
	table_close(accrual, NoLock);
	if (facts.seen)
		return !(facts.flags & ORDER_BEFORE_ATTACHMENT);
	return facts.deferred && !facts.deferred_old;
}

/*
 * An UPDATE changed the key of one order: its facts and accruals move with it.
 * If the new key has a history of its own the two are two orders, of which one
 * left and one came back.  Either way, what came from an old row is old.
 */
void
collect_rekey(Store *store, Source *source, const char *oldkey, const char *newkey)
{
	OrderItem  *olditem = collection_find(source->source_id, oldkey);
	OrderItem  *newitem = collection_find(source->source_id, newkey);
	ItemState	before = {0};
	ItemState  *state;
	OrderFacts	facts;
	Relation	accrual;
	Relation	rel;
	Snapshot	snapshot;
	bool		is_old;

	if (defer_active())
	{
		defer_rekey(store, source, oldkey, newkey);
		return;
	}
	accrual = store_open(store, ST_ACCRUAL, RowExclusiveLock);
	rel = table_open(source->relid, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (olditem)
		before = olditem->state;
	facts_read(store, accrual, source->source_id, oldkey, snapshot, &facts);
	is_old = item_is_old(olditem ? &before : NULL, &facts, source, rel, oldkey);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	table_close(accrual, NoLock);

	/* a key that another order has left is free */
	if ((newitem == NULL || newitem->state.moved) &&
		post_rekey(store, source->source_id, oldkey, newkey))
	{
		newitem = touch(store, source, newkey);
		state = collection_change(newitem);
		if (olditem)
			state->generation = before.generation;
		state->evaluated = true;
		state->before = is_old;

		/* remembered, since the statement that made the row may come to us yet */
		olditem = touch(store, source, oldkey);
		collection_change(olditem)->moved = true;
	}
	else
	{
		(void) touch(store, source, oldkey);
		newitem = touch(store, source, newkey);
	}
	if (is_old)
		collection_change(newitem)->old = true;
}

void
collect_failure(Store *store, Source *source, const char *key, int sqlerrcode,
				const char *error, const char *detail)
{
	OrderItem  *item;
	ItemState  *state;
	MemoryContext old;

	/* whoever defers wants the shop to go on, whatever on_error says */
	if (defer_active())
	{
		defer_ambiguous(store, source, key);
		return;
	}
	if (source->abort_on_error && collect_run == NULL)
		collect_abort_on(source, key, sqlerrcode, error, detail);
	item = touch(store, source, key);
	old = MemoryContextSwitchTo(collection.context);
	state = collection_change(item);
	state->failed = true;
	state->failed_firing = collection.firing;
	state->decision = palloc0(sizeof(Decision));
	state->decision->sqlerrcode = sqlerrcode;
	state->decision->error = pstrdup(error);
	state->decision->error_detail = detail ? pstrdup(detail) : NULL;
	MemoryContextSwitchTo(old);
}

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
	LinkGroups *groups;			/* NULL: not while it is written down who belongs together */
	bool		there;			/* its row */
	List	   *mistaken;		/* orders that say of it what they must not */
} Again;

/* An order was split from one that this transaction has made and not posted yet. */
static void
inherit_unposted(Again *a, OrderLinks *links)
{
	OrderItem  *root;

	if (links->root == NULL || links->root_known)
		return;
	root = collection_find(a->source->source_id, links->root);
	if (root == NULL || root->state.posted || root->state.decision == NULL)
		return;
	links->root_known = true;
	links->generation = root->state.decision->generation;
	links->first_seen = root->state.decision->first_seen;
	links->root_before = (root->state.decision->flags & ORDER_BEFORE_ATTACHMENT) != 0;
}

static void
decide_again(void *arg)
{
	Again	   *a = arg;
	OrderItem  *item = a->item;
	ItemState  *state = &item->state;
	OrderImage	image;
	DecideContext context = {
		.store = a->store,
		.source = a->source,
		.now = GetCurrentTransactionStartTimestamp(),
		.generation = state->generation,
		.any_backdate = state->any_backdate,
		.old_order = item_is_old(state, state->facts, a->source, a->rel, item->key),
		.known_new = state->evaluated && !state->before
	};
	bool		there = facts_fetch_row(a->source, a->rel, item->key, a->snapshot, a->slot);

	expr_reset();
	a->there = there;
	if (there)
	{
		image_read(a->store, a->source, a->slot, item->key, &image);
		links_judge(a->store, a->source, a->rel, &image, a->snapshot, a->groups,
					&context.links, &a->mistaken);
		inherit_unposted(a, &context.links);
	}
	context.archived = !there && (state->archived || state->facts->deferred_archived);
	/* what was deferred is judged as of then */
	context.any_backdate &= !state->facts->deferred;
	state->decision = copy_decision(decide(&context, there ? &image : NULL, state->facts));
	ExecClearTuple(a->slot);
}

/* Go to the source of an item; a->source is NULL if it is none any more. */
static void
enter_source(Again *a, CollectBatch *failures, OrderItem *item)
{
	if (a->source && a->source->relid == item->relid)
		return;
	if (a->rel)
	{
		warn_failures(failures);
		ExecDropSingleTupleTableSlot(a->slot);
		table_close(a->rel, NoLock);
		a->rel = NULL;
	}
	a->source = source_get(a->store, item->relid);
	if (a->source && a->source->key_broken)
		a->source = NULL;
	failures->source = a->source;
	failures->nfailed = 0;
	if (a->source)
	{
		a->rel = table_open(item->relid, AccessShareLock);
		a->slot = table_slot_create(a->rel, NULL);
	}
}

/* Decide the item a->item, or fail it with what its row raised. */
static void
decide_guarded(Again *a)
{
	OrderItem  *item = a->item;
	ItemState  *state = &item->state;
	ErrorData  *error = NULL;

	if (a->source->has_expressions || rules_have_expressions())
		error = run_guarded(a->store, decide_again, a);
	else
		decide_again(a);
	if (error)
		state->decision = failed_decision(state->facts, state->generation,
										  item_is_old(state, state->facts, a->source, a->rel,
													  item->key),
										  error->sqlerrcode, error->message, error->detail);
}

/*
 * What an item says of others is written down, and those are decided that it, or
 * that say of it what they must not.
 */
static void
keep_links(Again *a)
{
	OrderItem  *item = a->item;
	ListCell   *lc;

	foreach(lc, a->mistaken)
		collect_links_pull(a->store, a->source, lfirst(lc));
	collect_links_keep(a->store, a->source, item);
	item->state.reread = item->about_another && !(item->state.decision->flags & ORDER_RETURN);
	item->about_another = false;
}

/* Read and decide an item again. */
static void
decide_item(Again *a, CollectBatch *failures, OrderItem *item)
{
	/* what is decided now is undone with the current subtransaction */
	ItemState  *state = collection_change(item);

	enter_source(a, failures, item);
	if (a->source == NULL)
	{
		/* detached, dropped, or robbed of its key by this transaction */
		ereport(WARNING,
				(errcode(ERRCODE_RB_NOT_ATTACHED),
				 errmsg("an order goes without a rebate, since its table is no longer attached"),
				 may_see_rows(item->relid) ? errdetail("It is order %s.", item->key) : 0));
		state->posted = true;
		return;
	}

	state->facts = palloc(sizeof(OrderFacts));
	facts_read(a->store, a->accrual, item->source_id, item->key, a->snapshot, state->facts);
	if (!state->reread && !state->failed && !state->facts->seen)
		return;					/* it was assumed to be new, and is */
	a->item = item;
	a->mistaken = NIL;
	a->there = false;
	if (state->failed)
	{
		state->decision = failed_decision(state->facts, state->generation,
										  !state->facts->ambiguous &&
										  item_is_old(state, state->facts, a->source, a->rel,
													  item->key),
										  state->decision->sqlerrcode, state->decision->error,
										  state->decision->error_detail);
		/* whose facts it should have is not known: it earns nothing */
		if (!state->facts->seen)
			state->decision->flags |= ORDER_BEFORE_ATTACHMENT;
	}
	else
		decide_guarded(a);
	if (item->pulled && !state->failed && !a->there && !state->facts->seen && !state->facts->deferred)
	{
		/* an order that is not there is none, whoever is about it */
		state->posted = true;
		return;
	}
	state->reread = false;
	if (a->source->linked)
		keep_links(a);
	/* of one that is decided once more this was only about what it says of others */
	if (state->reread)
		return;
	if (state->decision->failed && !(a->source->linked && item->warned))
		count_failure(failures, item->key, state->decision);
	item->warned = true;
}

/*
 * Whether an item is read in a pass: those that are about another in pass 0, and
 * all that are to be read again, or have failed, or were assumed to be new, after.
 */
static bool
read_in_pass(const OrderItem *item, int pass)
{
	const ItemState *state = &item->state;

	if (state->posted || state->moved)
		return false;
	if (pass == 0)
		return item->about_another && state->reread;
	return state->reread || (pass == 1 && (state->failed || state->facts->assumed));
}

/*
 * Take a snapshot to read under, if there is none.  Groups wait until it is written
 * down in pass 0 which orders belong to them.
 */
static void
begin_reading(Again *a, int pass)
{
	if (a->accrual == NULL)
		a->accrual = store_open(a->store, ST_ACCRUAL, AccessShareLock);
	if (a->snapshot == NULL)
		a->snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (a->groups == NULL && collection.linked && pass > 0)
		a->groups = link_groups_create(a->store, a->snapshot);
}

static void
forget_snapshot(Again *a)
{
	if (a->groups)
		link_groups_delete(a->groups);
	if (a->snapshot)
		UnregisterSnapshot(a->snapshot);
	a->groups = NULL;
	a->snapshot = NULL;
}

/* What was written down is to be seen, and leads to other orders. */
static void
end_linked_pass(Again *a)
{
	if (collection.links_written)
		forget_snapshot(a);
	collection.links_written = false;
	if (collection.group_pulls == NIL)
		return;
	begin_reading(a, 1);
	collect_links_pull_groups(a->store, a->groups);
}

static void
end_reading(Again *a, CollectBatch *failures)
{
	if (a->rel)
	{
		warn_failures(failures);
		ExecDropSingleTupleTableSlot(a->slot);
		table_close(a->rel, NoLock);
	}
	forget_snapshot(a);
	if (a->accrual)
		table_close(a->accrual, AccessShareLock);
}

/*
 * Read and decide again what was touched more than once, and what other orders
 * can be about: those first that are about another.  Runs in collection.context:
 * the orders are few.
 */
static void
decide_touched(Store *store)
{
	Again		a = {.store = store};
	CollectBatch failures = {.store = store};
	int			pass = collection.linked ? 0 : 1;
	bool		again;

	if (collection.linked)
		collect_links_begin(store);
	do
	{
		again = pass == 0;
		for (int i = collection.first_unposted; i < collection.n; i++)
		{
			OrderItem  *item = collection.items[i];

			if (!read_in_pass(item, pass))
				continue;
			begin_reading(&a, pass);
			/* one more look, since it may have led to orders before it */
			again |= collection.linked;
			decide_item(&a, &failures, item);
		}
		if (collection.linked)
			end_linked_pass(&a);
		pass++;
	} while (again);
	end_reading(&a, &failures);
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
			counters_add_of(store, orders[i].source_id, CT_FAILED, 1);
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
 * Post the only order that waits if it was assumed to be new and was not touched
 * since; false if there is more to it.
 */
static bool
post_assumed(Store *store)
{
	OrderItem  *item = collection.items[collection.first_unposted];
	ItemState  *state = &item->state;
	PostOrder	order = {item->source_id, item->key, state->decision, state->facts};

	return collection.n - collection.first_unposted == 1 &&
		!state->posted && !state->moved && !state->reread && !state->failed &&
		state->facts->assumed && !state->decision->failed && post_new_order(store, &order);
}

/* Post all orders that wait; returns their number.  Runs in collection.context. */
static int
post_collected(Store *store)
{
	PostOrder  *orders;
	int			n = 0;

	if (!collection.linked && post_assumed(store))
		return 1;

	(void) counters_enter(ACTIVITY_DECIDE);
	decide_touched(store);
	(void) counters_enter(ACTIVITY_POST);
	orders = palloc(sizeof(PostOrder) * (collection.n - collection.first_unposted));
	for (int i = collection.first_unposted; i < collection.n; i++)
	{
		OrderItem  *item = collection.items[i];

		if (item->state.posted || item->state.moved)
			continue;
		orders[n].source_id = item->source_id;
		orders[n].key = item->key;
		orders[n].decision = item->state.decision;
		orders[n++].facts = item->state.facts;
	}
	if (n > 0)
	{
		post_orders(store, orders, n);
		record_failures(store, orders, n);
	}
	return n;
}

int64
collect_flush(void)
{
	Store	   *store;
	bool		read_only;
	MemoryContext old;
	Activity	around;
	int			n;

	if (collection.flushing != InvalidSubTransactionId || collect_is_empty())
		return 0;
	around = counters_enter(ACTIVITY_POST);
	store = store_get(false);
	collection.flushing = GetCurrentSubTransactionId();

	/* orders were written: that the transaction is read-only since is no matter */
	read_only = XactReadOnly;
	XactReadOnly = false;

	/* our own statement's rows must be visible to what is read again */
	CommandCounterIncrement();
	(void) rules_generation(store);

	old = MemoryContextSwitchTo(collection.context);
	n = post_collected(store);
	MemoryContextSwitchTo(old);
	collection_posted();
	XactReadOnly = read_only;
	collection.flushing = InvalidSubTransactionId;
	counters_leave(around);
	return n;
}

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
