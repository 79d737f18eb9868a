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
	char	   *original;		/* the answers */
	char	   *replaces;
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
	ask->original = image.original;
	ask->replaces = image.replaces;
}

/* What an item is about, by its row and by what is recorded, added to the list */
static List *
about(Ask *ask, OrderItem *item, List *keys)
{
	static const char kinds[] = {LINK_RETURN, LINK_REPLACES};
	int			n = list_length(keys);
	Link		link;

	ask->item = item;
	ask->original = ask->replaces = NULL;
	if (!ask->source->broken && !item->state.moved)
	{
		/* if it raises, it will again, and be told */
		if (ask->source->has_expressions)
			(void) run_guarded(ask->store, ask_row, ask);
		else
			ask_row(ask);
	}
	if (ask->original)
		keys = lappend(keys, ask->original);
	if (ask->replaces)
		keys = lappend(keys, ask->replaces);
	for (int i = 0; i < (int) lengthof(kinds); i++)
		if (links_of(ask->store, ask->source->source_id, item->key, kinds[i], ask->snapshot, &link))
			keys = lappend(keys, link.target);
	item->about_another = list_length(keys) > n;
	return keys;
}

/*
 * Lock orders, and those that they were split from: who decides an order decides
 * all that were split from the same one.  What is between them may change until
 * the lock is there; then it is looked at again.
 */
static void
lock_keys(Store *store, Source *source, List *keys)
{
	bool		taken = true;

	while (taken)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		LinkGroups *groups = link_groups_create(store, snapshot);
		const char **array = palloc(sizeof(char *) * 2 * Max(list_length(keys), 1));
		int			n = 0;
		ListCell   *lc;

		foreach(lc, keys)
		{
			const char *root = NULL;

			array[n++] = lfirst(lc);
			if (source->replaces)
				root = link_groups_root(groups, source->source_id, lfirst(lc));
			if (root)
				array[n++] = pstrdup(root);
		}
		link_groups_delete(groups);
		UnregisterSnapshot(snapshot);
		taken = links_lock(source->source_id, array, n) && source->replaces;
		pfree(array);
	}
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
	List	   *keys = NIL;

	ask.rel = table_open(source->relid, AccessShareLock);
	ask.slot = table_slot_create(ask.rel, NULL);
	ask.snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = collection.first_unposted; i < collection.n; i++)
	{
		OrderItem  *item = collection.items[i];

		if (item->state.posted || item->source_id != source->source_id)
			continue;
		CHECK_FOR_INTERRUPTS();
		item->pulled = false;
		item->warned = item->state.decision && item->state.decision->failed &&
			!item->state.reread && !item->state.failed;
		keys = lappend(keys, unconstify(char *, item->key));
		keys = about(&ask, item, keys);
		if (!item->state.moved)
			collection_change(item)->reread = true;
	}
	UnregisterSnapshot(ask.snapshot);
	ExecDropSingleTupleTableSlot(ask.slot);
	table_close(ask.rel, NoLock);
	lock_keys(store, source, keys);
	list_free(keys);
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

	collection.group_pulls = NIL;
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
		item = collection_add(source->source_id, source->relid,
							  MemoryContextStrdup(collection.context, key),
							  rules_generation(store));
	item->about_another = item->warned = false;
	item->pulled = true;
	collection_touch(item);
}

/* An order with whose group something is */
typedef struct GroupPull
{
	Source	   *source;
	const char *key;
} GroupPull;

/*
 * All orders that were split from the same one as this are to be decided again:
 * at the end of the pass, when all is written down that it has to say.
 */
static void
pull_group(Source *source, const char *key)
{
	GroupPull  *pull = palloc(sizeof(GroupPull));

	pull->source = source;
	pull->key = pstrdup(key);
	collection.group_pulls = lappend(collection.group_pulls, pull);
}

void
collect_links_pull_groups(Store *store, LinkGroups *groups)
{
	ListCell   *lc;

	foreach(lc, collection.group_pulls)
	{
		GroupPull  *pull = lfirst(lc);
		char	   *const *keys;
		int			n = link_groups_take(groups, pull->source->source_id, pull->key, &keys);

		for (int i = 0; i < n; i++)
			collect_links_pull(store, pull->source, keys[i]);
		pfree(unconstify(char *, pull->key));
		pfree(pull);
	}
	list_free(collection.group_pulls);
	collection.group_pulls = NIL;
}

/* One kind of what an item says; "others" are decided with it if that has changed. */
static void
keep_kind(Store *store, Source *source, OrderItem *item, const Decision *d, char kind)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	const char *target = kind == LINK_RETURN ? d->original : d->replaces;
	Link		link;
	bool		found = links_of(store, source->source_id, item->key, kind, snapshot, &link);

	UnregisterSnapshot(snapshot);
	if (links_agree(kind, found ? &link : NULL, d))
		return;
	links_write(store, source->source_id, item->key, kind, found ? &link : NULL, d);
	collection.links_written = true;
	if (kind == LINK_REPLACES && found)
		pull_group(source, link.target);
	if (kind == LINK_RETURN && found)
		collect_links_pull(store, source, link.target);
	if (kind == LINK_RETURN && target)
		collect_links_pull(store, source, target);
}

void
collect_links_keep(Store *store, Source *source, OrderItem *item)
{
	static const Decision nothing = {.has_row = true};
	const Decision *d = item->state.moved ? &nothing : item->state.decision;

	/* what left with its money stays, and what it took of another order, too */
	if (source->original && (!d->keep || d->failed))
		keep_kind(store, source, item, d, LINK_RETURN);
	if (source->replaces)
	{
		/* what a row replaced stays known when it is gone */
		if (d->has_row)
			keep_kind(store, source, item, d, LINK_REPLACES);
		pull_group(source, item->key);
	}
}
