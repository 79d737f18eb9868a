/*
 * collect_links.c
 *	  Orders that are about others, when they are posted: which other orders are
 *	  to be decided with them, and in which sequence.
 *
 * A transaction that changes an order and one that returns it must not each
 * decide without seeing the other.  So all orders of such a source are locked
 * before they are read, with those that they are about, and read under a
 * snapshot taken after that.  What an order is about is told by its row, which
 * this transaction has changed or locked, and by what is recorded of it, which
 * only who changes the row changes: both are known before the lock and stay.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "collect_internal.h"
#include "guard.h"
#include "links.h"
#include "rules.h"

/* A row, to be asked which order it is about */
typedef struct Ask
{
	Store	   *store;
	Source	   *source;
	Relation	rel;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	OrderItem  *item;
	char	   *about;			/* the answer */
} Ask;

static void
ask_row(void *arg)
{
	Ask		   *ask = arg;
	OrderImage	image;

	expr_reset();
	if (!facts_fetch_row(ask->source, ask->rel, ask->item->key, ask->snapshot, ask->slot))
		return;
	image_read_link(ask->store, ask->source, ask->slot, &image);
	ask->about = image.original;
}

/*
 * Lock the orders of one source that wait, and those that they are about.  All of
 * them are to be read again: what was decided from an image did not know of
 * others.
 */
static void
begin_source(Store *store, Source *source)
{
	Ask			ask = {.store = store,.source = source};
	int			n = 0;
	const char **keys = palloc(sizeof(char *) * 3 * (collection.n - collection.first_unposted));

	ask.rel = table_open(source->relid, AccessShareLock);
	ask.slot = table_slot_create(ask.rel, NULL);
	ask.snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = collection.first_unposted; i < collection.n; i++)
	{
		OrderItem  *item = collection.items[i];
		Link		link;

		if (item->state.posted || item->source_id != source->source_id)
			continue;
		CHECK_FOR_INTERRUPTS();
		item->about_another = item->pulled = false;
		item->warned = item->state.decision && item->state.decision->failed &&
			!item->state.reread && !item->state.failed;
		keys[n++] = item->key;
		ask.item = item;
		ask.about = NULL;
		if (!source->broken && !item->state.moved)
		{
			if (source->has_expressions)
				(void) run_guarded(store, ask_row, &ask);	/* it will fail again, and be told */
			else
				ask_row(&ask);
		}
		if (ask.about)
			keys[n++] = ask.about;
		if (links_of(store, source->source_id, item->key, ask.snapshot, &link))
			keys[n++] = link.target;
		else
			link.target = NULL;
		item->about_another = ask.about || link.target;
		if (!item->state.moved)
			collection_change(item)->reread = true;
	}
	UnregisterSnapshot(ask.snapshot);
	ExecDropSingleTupleTableSlot(ask.slot);
	table_close(ask.rel, NoLock);
	links_lock(source->source_id, keys, n);
	pfree(keys);
}

static int
compare_sources(const ListCell *a, const ListCell *b)
{
	int32		x = ((const Source *) lfirst(a))->source_id;
	int32		y = ((const Source *) lfirst(b))->source_id;

	return (x > y) - (x < y);
}

/* An order left its key: under it, it says nothing any more. */
static void
leave_keys(Store *store, Source *source)
{
	for (int i = collection.first_unposted; i < collection.n; i++)
	{
		OrderItem  *item = collection.items[i];

		if (item->source_id == source->source_id && !item->state.posted && item->state.moved)
			collect_links_keep(store, source, item);
	}
}

/* Runs in collection.context. */
void
collect_links_begin(Store *store)
{
	List	   *sources = NIL;
	ListCell   *lc;

	for (int i = collection.first_unposted; i < collection.n; i++)
	{
		OrderItem  *item = collection.items[i];
		Source	   *source;

		if (item->state.posted)
			continue;
		source = source_get(store, item->relid);
		if (source && source->linked && !source->key_broken)
			sources = list_append_unique_ptr(sources, source);
	}
	list_sort(sources, compare_sources);
	foreach(lc, sources)
		begin_source(store, lfirst(lc));
	foreach(lc, sources)
		leave_keys(store, lfirst(lc));
}

void
collect_links_pull(Store *store, Source *source, const char *key)
{
	OrderItem  *item = collection_find(source->source_id, key);

	if (item && !item->state.posted)
		return;					/* it is decided anyway */
	if (item == NULL)
	{
		links_lock(source->source_id, &key, 1);
		item = collection_add(source->source_id, source->relid,
							  MemoryContextStrdup(collection.context, key),
							  rules_generation(store));
	}
	item->about_another = item->warned = false;
	item->pulled = true;
	collection_touch(item);
}

void
collect_links_keep(Store *store, Source *source, OrderItem *item)
{
	static const Decision nothing = {0};
	const Decision *d = item->state.moved ? &nothing : item->state.decision;
	Snapshot	snapshot;
	Link		link;
	bool		found;

	/* what left with its money stays, and what it took of another order, too */
	if (d->keep && !d->failed)
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = links_of(store, source->source_id, item->key, snapshot, &link);
	UnregisterSnapshot(snapshot);
	if (links_agree(found ? &link : NULL, d))
		return;
	links_write(store, source->source_id, item->key, found ? &link : NULL, d);
	if (found)
		collect_links_pull(store, source, link.target);
	if (d->original)
		collect_links_pull(store, source, d->original);
}
