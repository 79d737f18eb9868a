/*
 * collection.c
 *	  The orders that the current transaction has touched: kept until they are
 *	  posted, through savepoints and their rollbacks.
 *
 * What a subtransaction changes of an item is undone when it rolls back: what it
 * posted waits again, what it touched is as it was.
 */
#include "rebate.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "collect_internal.h"
#include "guard.h"
#include "former.h"
#include "links.h"

/* Orders remembered as touched after posting; beyond, all count as touched */
#define MAX_REMEMBERED 4096
#define MAX_REMEMBERED_MEMORY (1024 * 1024)

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

Collection	collection;

static itemhash_hash *item_hash = NULL;
static int	allocated_items = 0;
static List *all_touched = NIL; /* source ids, in TopTransactionContext */
static List *forgotten_moves = NIL; /* the same, of which items that moved were forgotten */

/* The state of an item before a subtransaction first changed it; a stack */
typedef struct Undo
{
	SubTransactionId sub;
	OrderItem  *item;
	SubTransactionId changed_sub;
	ItemState	state;
} Undo;

static Undo *undos = NULL;
static int	nundos = 0;
static int	allocated_undos = 0;

void
collection_begin(void)
{
	if (collection.items)
		return;
	collection.context = AllocSetContextCreate(TopTransactionContext, "rebate collection",
											   ALLOCSET_DEFAULT_SIZES);
	item_hash = itemhash_create(collection.context, 16, NULL);
	allocated_items = 16;
	collection.items = MemoryContextAlloc(collection.context,
										  sizeof(OrderItem *) * allocated_items);
	collection.n = collection.first_unposted = 0;
	undos = NULL;
	nundos = allocated_undos = 0;
}

OrderItem *
collection_find(int32 source_id, const char *key)
{
	ItemKey		probe = {source_id, key};
	ItemEntry  *entry = item_hash ? itemhash_lookup(item_hash, probe) : NULL;

	return entry ? entry->item : NULL;
}

OrderItem *
collection_add(int32 source_id, Oid relid, const char *key, int32 generation)
{
	ItemKey		probe = {source_id, key};
	OrderItem  *item;
	ItemEntry  *entry;
	bool		found;

	if (collection.n == allocated_items)
	{
		allocated_items *= 2;
		collection.items = repalloc_huge(collection.items, sizeof(OrderItem *) * allocated_items);
	}
	item = MemoryContextAllocZero(collection.context, sizeof(OrderItem));
	item->source_id = source_id;
	item->relid = relid;
	item->key = key;
	item->state.generation = generation;
	item->created_sub = GetCurrentSubTransactionId();
	item->changed_sub = item->created_sub;
	entry = itemhash_insert(item_hash, probe, &found);
	entry->item = item;
	collection.items[collection.n++] = item;
	return item;
}

static void
push_undo(OrderItem *item, SubTransactionId sub, SubTransactionId changed_sub,
		  const ItemState *state)
{
	if (nundos == allocated_undos)
	{
		allocated_undos = Max(16, allocated_undos * 2);
		undos = undos ? repalloc_huge(undos, sizeof(Undo) * allocated_undos)
			: MemoryContextAlloc(collection.context, sizeof(Undo) * allocated_undos);
	}
	undos[nundos].sub = sub;
	undos[nundos].item = item;
	undos[nundos].changed_sub = changed_sub;
	undos[nundos++].state = *state;
}

ItemState *
collection_change(OrderItem *item)
{
	SubTransactionId sub = GetCurrentSubTransactionId();

	if (item->changed_sub != sub)
	{
		push_undo(item, sub, item->changed_sub, &item->state);
		item->changed_sub = sub;
	}
	return &item->state;
}

/* Whether the firing at work has made an order fail, whatever its row says */
static bool
failed_now(const ItemState *state)
{
	return state->failed && state->failed_firing == collection.firing;
}

void
collection_touch(OrderItem *item)
{
	ItemState  *state;

	/* posted as failed when the collection was full: it stays so */
	if (item->state.posted && failed_now(&item->state))
		return;
	state = collection_change(item);
	state->reread = true;
	state->moved = false;
	if (!failed_now(state))
		state->failed = false;
	if (state->posted)
	{
		state->posted = false;
		collection.first_unposted = 0;
	}
}

bool
collection_all_touched(int32 source_id)
{
	return list_member_int(all_touched, source_id);
}

bool
collect_is_empty(void)
{
	return collection.first_unposted == collection.n;
}

void
collection_forgotten(int32 source_id)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	all_touched = list_append_unique_int(all_touched, source_id);
	MemoryContextSwitchTo(old);
}

bool
collection_forgot_moves(int32 source_id)
{
	return list_member_int(forgotten_moves, source_id);
}

/*
 * Forget posted items, but not those made outside the current subtransaction:
 * should it roll back they must be posted again; nor those that the statement at
 * work has failed: it will come to their rows yet.  Their sources count as
 * touched from now on.
 */
static void
forget_items(SubTransactionId sub)
{
	MemoryContext oldcontext = collection.context;
	OrderItem **olditems = collection.items;
	Undo	   *oldundos = undos;
	int			n = collection.n;
	int			noldundos = nundos;

	collection.items = NULL;
	collection_begin();
	for (int i = 0; i < n; i++)
	{
		OrderItem  *olditem = olditems[i];
		OrderItem  *item;
		MemoryContext old;

		collection_forgotten(olditem->source_id);
		if (olditem->state.moved)
		{
			old = MemoryContextSwitchTo(TopTransactionContext);
			forgotten_moves = list_append_unique_int(forgotten_moves, olditem->source_id);
			MemoryContextSwitchTo(old);
		}
		if (olditem->created_sub == sub && !failed_now(&olditem->state))
			continue;
		item = collection_add(olditem->source_id, olditem->relid,
							  MemoryContextStrdup(collection.context, olditem->key), 0);
		item->created_sub = olditem->created_sub;
		item->changed_sub = olditem->changed_sub;
		item->state = olditem->state;
		old = MemoryContextSwitchTo(collection.context);
		item->state.decision = olditem->state.failed ? copy_decision(olditem->state.decision) : NULL;
		MemoryContextSwitchTo(old);
		item->state.facts = NULL;
	}
	for (int i = 0; i < noldundos; i++)
	{
		OrderItem  *item = collection_find(oldundos[i].item->source_id, oldundos[i].item->key);
		MemoryContext old;

		if (item == NULL)
			continue;
		/* what waits again is read again */
		oldundos[i].state.reread |= !oldundos[i].state.posted;
		oldundos[i].state.facts = NULL;
		old = MemoryContextSwitchTo(collection.context);
		oldundos[i].state.decision = oldundos[i].state.failed ?
			copy_decision(oldundos[i].state.decision) : NULL;
		MemoryContextSwitchTo(old);
		push_undo(item, oldundos[i].sub, oldundos[i].changed_sub, &oldundos[i].state);
	}
	MemoryContextDelete(oldcontext);
}

void
collection_posted(void)
{
	for (int i = collection.first_unposted; i < collection.n; i++)
	{
		if (!collection.items[i]->state.posted)
			collection_change(collection.items[i])->posted = true;
	}
	if (collection.n > MAX_REMEMBERED ||
		MemoryContextMemAllocated(collection.context, true) > MAX_REMEMBERED_MEMORY)
		forget_items(GetCurrentSubTransactionId());
	collection.first_unposted = collection.n;
}

/* The memory goes with TopTransactionContext. */
void
collect_at_xact_end(void)
{
	memset(&collection, 0, sizeof(collection));
	item_hash = NULL;
	allocated_items = 0;
	all_touched = forgotten_moves = NIL;
	undos = NULL;
	nundos = allocated_undos = 0;
	links_at_xact_end();
	former_at_xact_end();
}

/*
 * What a subtransaction made and changed belongs to its parent now.  Items and
 * undos of the innermost level are at the ends of their arrays.
 */
void
collect_at_subcommit(SubTransactionId my, SubTransactionId parent)
{
	int			first = nundos;

	for (int i = collection.n - 1; i >= 0 && collection.items[i]->created_sub == my; i--)
		collection.items[i]->created_sub = collection.items[i]->changed_sub = parent;

	while (first > 0 && undos[first - 1].sub == my)
		first--;
	for (int i = first, n = nundos, keep = first; i < n; i++)
	{
		Undo	   *undo = &undos[i];

		undo->item->changed_sub = parent;
		/* the parent has an older state to go back to, or made the item */
		if (undo->changed_sub != parent)
		{
			undo->sub = parent;
			undos[keep++] = *undo;
		}
		nundos = keep;
	}
}

/* What a subtransaction changed is as it was before, what it made is gone. */
void
collect_at_subabort(SubTransactionId my)
{
	/* not of what an expression calls, inside the flush */
	if (collection.flushing == my)
		collection.flushing = InvalidSubTransactionId;
	while (nundos > 0 && undos[nundos - 1].sub == my)
	{
		Undo	   *undo = &undos[--nundos];

		undo->item->state = undo->state;
		undo->item->changed_sub = undo->changed_sub;
		if (!undo->state.posted)
		{
			/* facts may have been read anew for a posting that is undone */
			undo->item->state.reread = true;
			collection.first_unposted = 0;
		}
	}
	while (collection.n > 0 && collection.items[collection.n - 1]->created_sub == my)
	{
		OrderItem  *item = collection.items[--collection.n];
		ItemKey		key = {item->source_id, item->key};

		itemhash_delete(item_hash, key);
	}
	collection.first_unposted = Min(collection.first_unposted, collection.n);
}
