/*
 * links_group.c
 *	  Orders that were split from the same one: read once, for all of them.
 *
 * Each order replaces one other at most.  Followed to its end that is its root,
 * and orders with one root are a group, of which each is decided with a look at
 * all others.  So what is read of a group stays for as long as one snapshot is
 * used: the reads of a statement grow with its orders and not with their square.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "arith.h"
#include "links.h"

/* Orders remembered; beyond, what was read of others is forgotten */
#define MAX_REMEMBERED 20000

/* All orders with one root */
typedef struct OrderGroup
{
	char	  **keys;
	int			nkeys;
	bool		taken;			/* link_groups_take() has told them */
	bool		inherits;		/* what is recorded of the root is read: */
	OrderFacts	root_facts;
	int			nread;			/* of the rows, in the order of the keys */
	List	   *peers;			/* of OrderPeers, of all rows that were read */
} OrderGroup;

typedef struct OrderName
{
	int32		source_id;
	const char *key;
} OrderName;

/* What is known of the way of one order */
typedef struct OrderWay
{
	OrderName	name;
	uint32		hash;
	char		status;
	char	   *root;			/* NULL: not known yet */
	bool		cycle;			/* the way leads back to "root" */
	OrderGroup *group;			/* of the root only; NULL: not read */
} OrderWay;

static inline uint32
hash_name(OrderName name)
{
	return hash_bytes((const unsigned char *) name.key, strlen(name.key)) ^
		hash_bytes_uint32((uint32) name.source_id);
}

#define SH_PREFIX wayhash
#define SH_ELEMENT_TYPE OrderWay
#define SH_KEY_TYPE OrderName
#define SH_KEY name
#define SH_HASH_KEY(tb, k) hash_name(k)
#define SH_EQUAL(tb, a, b) ((a).source_id == (b).source_id && strcmp((a).key, (b).key) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct LinkGroups
{
	Store	   *store;
	Snapshot	snapshot;
	MemoryContext context;
	wayhash_hash *ways;
	uint32		limit;			/* of orders remembered */
};

/* The snapshot is the caller's, and outlives what is read under it. */
LinkGroups *
link_groups_create(Store *store, Snapshot snapshot)
{
	LinkGroups *groups = palloc(sizeof(LinkGroups));

	groups->store = store;
	groups->snapshot = snapshot;
	groups->context = AllocSetContextCreate(CurrentMemoryContext, "rebate groups of orders",
											ALLOCSET_DEFAULT_SIZES);
	groups->ways = wayhash_create(groups->context, 64, NULL);
	groups->limit = MAX_REMEMBERED;
	return groups;
}

void
link_groups_delete(LinkGroups *groups)
{
	MemoryContextDelete(groups->context);
	pfree(groups);
}

/* Make room for another order: whoever asks begins with this. */
static void
bound_memory(LinkGroups *groups)
{
	if (groups->ways->members < groups->limit)
		return;
	MemoryContextReset(groups->context);
	groups->limit = MAX_REMEMBERED;
	groups->ways = wayhash_create(groups->context, 64, NULL);
}

static OrderWay *
find_way(LinkGroups *groups, int32 source_id, const char *key)
{
	OrderName	name = {source_id, key};
	OrderWay   *way = wayhash_lookup(groups->ways, name);
	bool		found;

	if (way == NULL)
	{
		name.key = MemoryContextStrdup(groups->context, key);
		way = wayhash_insert(groups->ways, name, &found);
		way->root = NULL;
		way->cycle = false;
		way->group = NULL;
	}
	return way;
}

/*
 * Follow an order to its root, or to where the way meets itself.  The result is
 * good until the next order is met.
 */
static OrderWay *
follow(LinkGroups *groups, int32 source_id, const char *key)
{
	List	   *path = NIL;
	OrderWay   *way = find_way(groups, source_id, key);
	char	   *root = NULL;
	bool		cycle = false;
	ListCell   *lc;
	Link		link;

	/* an order is on the path exactly if its root is its own key, for now */
	while (way->root == NULL)
	{
		CHECK_FOR_INTERRUPTS();
		way->root = unconstify(char *, way->name.key);
		path = lappend(path, way->root);
		if (!links_of(groups->store, source_id, way->name.key, LINK_REPLACES, groups->snapshot,
					  &link))
		{
			root = way->root;
			break;
		}
		way = find_way(groups, source_id, link.target);
	}
	if (root == NULL)
	{
		cycle = way->cycle || list_member_ptr(path, way->root);
		root = way->root;
	}
	foreach(lc, path)
	{
		way = find_way(groups, source_id, lfirst(lc));
		way->root = root;
		way->cycle = cycle;
	}
	list_free(path);
	return find_way(groups, source_id, key);
}

const char *
link_groups_root(LinkGroups *groups, int32 source_id, const char *key)
{
	OrderWay   *way;

	bound_memory(groups);
	way = follow(groups, source_id, key);
	return way->cycle ? NULL : way->root;
}

static int
compare_keys(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/*
 * Find all orders that lead to "root".  Each has one way, so none is met twice,
 * but for the root itself if it is on a cycle.
 */
static OrderGroup *
read_keys(LinkGroups *groups, int32 source_id, char *root, bool cycle)
{
	List	   *keys = list_make1(root);
	OrderGroup *group;

	for (int i = 0; i < list_length(keys); i++)
	{
		ListCell   *lc;

		foreach(lc, links_to(groups->store, source_id, list_nth(keys, i), LINK_REPLACES,
							 groups->snapshot))
		{
			Link	   *link = lfirst(lc);
			OrderWay   *way;

			CHECK_FOR_INTERRUPTS();
			if (strcmp(link->key, root) == 0)
				continue;
			way = find_way(groups, source_id, link->key);
			way->root = root;
			way->cycle = cycle;
			keys = lappend(keys, unconstify(char *, way->name.key));
		}
	}
	group = MemoryContextAllocZero(groups->context, sizeof(OrderGroup));
	group->nkeys = list_length(keys);
	group->keys = MemoryContextAlloc(groups->context, sizeof(char *) * group->nkeys);
	for (int i = 0; i < group->nkeys; i++)
		group->keys[i] = list_nth(keys, i);
	qsort(group->keys, group->nkeys, sizeof(char *), compare_keys);
	list_free(keys);
	/* however large it is, its other orders will ask for it, too */
	groups->limit = Max(groups->limit, MAX_REMEMBERED + (uint32) group->nkeys);
	return group;
}

/* The group of an order; *root is NULL if its way leads back to where it was. */
static OrderGroup *
find_group(LinkGroups *groups, int32 source_id, const char *key, const char **root)
{
	OrderWay   *way;
	OrderGroup *group;
	char	   *end;
	bool		cycle;

	bound_memory(groups);
	way = follow(groups, source_id, key);
	end = way->root;
	cycle = way->cycle;
	*root = cycle ? NULL : end;
	group = find_way(groups, source_id, end)->group;
	if (group == NULL)
	{
		group = read_keys(groups, source_id, end, cycle);
		find_way(groups, source_id, end)->group = group;
	}
	return group;
}

int
link_groups_take(LinkGroups *groups, int32 source_id, const char *key, char *const **keys)
{
	const char *root;
	OrderGroup *group = find_group(groups, source_id, key, &root);

	*keys = group->keys;
	if (group->taken)
		return 0;
	group->taken = true;
	return group->nkeys;
}

/*----------------------------------------------------------------------------
 * Rows
 *----------------------------------------------------------------------------
 */

/* Whether a row can count beside others: alive, with an amount */
static bool
counts(Source *source, const OrderImage *image, const OrderFacts *facts)
{
	return image->sqlerrcode == 0 && image->phase != PHASE_VOID && !image->original &&
		!(facts->flags & ORDER_BEFORE_ATTACHMENT) &&
		!(image->has_order_time && image->order_time < source->since) &&
		arith_sign(image->amount) != 0;
}

/* The orders of a group that count together with one; NULL: none yet */
static OrderPeers *
find_peers(OrderGroup *group, const OrderImage *image)
{
	ListCell   *lc;

	if (image->amount == NULL || image->currency == NULL)
		return NULL;
	foreach(lc, group->peers)
	{
		OrderPeers *peers = lfirst(lc);

		if (peers->sign == arith_sign(image->amount) &&
			strcmp(peers->currency->code, image->currency->code) == 0)
			return peers;
	}
	return NULL;
}

/*
 * Put a row beside those that it counts with: of its image what rules are judged
 * by, copied, since values of expressions do not last.
 */
static void
add_peer(LinkGroups *groups, OrderGroup *group, const char *key, const OrderImage *image)
{
	OrderPeers *peers = find_peers(group, image);
	MemoryContext old = MemoryContextSwitchTo(groups->context);
	GroupMember *m;

	if (peers == NULL)
	{
		peers = palloc0(sizeof(OrderPeers));
		peers->context = groups->context;
		peers->currency = image->currency;
		peers->sign = arith_sign(image->amount);
		peers->allocated = 4;
		peers->members = palloc(sizeof(GroupMember) * peers->allocated);
		group->peers = lappend(group->peers, peers);
	}
	if (peers->n == peers->allocated)
	{
		peers->allocated *= 2;
		peers->members = repalloc_huge(peers->members, sizeof(GroupMember) * peers->allocated);
	}
	m = &peers->members[peers->n++];
	memset(m, 0, sizeof(*m));
	m->key = key;
	m->image.key = key;
	m->image.slot = image->slot;
	m->image.currency = image->currency;
	m->image.phase = image->phase;
	m->image.amount = DatumGetNumericCopy(NumericGetDatum(image->amount));
	if (image->quantity)
		m->image.quantity = DatumGetNumericCopy(NumericGetDatum(image->quantity));
	m->image.has_order_time = image->has_order_time;
	m->image.order_time = image->order_time;
	MemoryContextSwitchTo(old);
}

/* A slot with a copy of a row, as a row of the attached table */
static TupleTableSlot *
keep_row(LinkGroups *groups, Source *source, TupleTableSlot *row)
{
	MemoryContext old = MemoryContextSwitchTo(groups->context);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(source->desc, &TTSOpsHeapTuple);

	ExecForceStoreHeapTuple(ExecCopySlotHeapTuple(row), slot, true);
	MemoryContextSwitchTo(old);
	return slot;
}

/*
 * Read the rows of a group, from where an earlier call came to: a row whose
 * expressions raise stops it, and fails whoever asks.
 */
static void
read_rows(LinkGroups *groups, OrderGroup *group, Source *source, Relation rel, Relation accrual)
{
	TupleTableSlot *slot;

	if (group->nread == group->nkeys)
		return;
	slot = table_slot_create(rel, NULL);
	for (; group->nread < group->nkeys; group->nread++)
	{
		const char *key = group->keys[group->nread];
		TupleTableSlot *own;
		OrderImage	image;
		OrderFacts	facts;

		CHECK_FOR_INTERRUPTS();
		if (!facts_fetch_row(source, rel, key, groups->snapshot, slot))
			continue;
		own = keep_row(groups, source, slot);
		image_read_row(groups->store, source, own, key, &image);
		facts_read(groups->store, accrual, source->source_id, key, groups->snapshot, &facts);
		if (counts(source, &image, &facts))
			add_peer(groups, group, key, &image);
		else
			ExecDropSingleTupleTableSlot(own);
	}
	ExecDropSingleTupleTableSlot(slot);
}

static int
compare_members(const void *a, const void *b)
{
	return strcmp(((const GroupMember *) a)->key, ((const GroupMember *) b)->key);
}

int
order_peers_find(const OrderPeers *peers, const char *key)
{
	GroupMember probe = {.key = key};
	GroupMember *found = bsearch(&probe, peers->members, peers->n, sizeof(GroupMember),
								 compare_members);

	return found ? found - peers->members : -1;
}

/* The facts of the order that this one was split from */
static void
inherit(LinkGroups *groups, OrderGroup *group, Source *source, Relation accrual, const char *root,
		OrderLinks *links)
{
	if (!group->inherits)
	{
		MemoryContext old = MemoryContextSwitchTo(groups->context);

		facts_read(groups->store, accrual, source->source_id, root, groups->snapshot,
				   &group->root_facts);
		MemoryContextSwitchTo(old);
		group->inherits = true;
	}
	links->root = root;
	links->root_known = group->root_facts.seen;
	links->generation = group->root_facts.generation;
	links->first_seen = group->root_facts.first_seen;
	links->root_before = (group->root_facts.flags & ORDER_BEFORE_ATTACHMENT) != 0;
}

void
link_groups_judge(LinkGroups *groups, Source *source, Relation rel, const OrderImage *image,
				  OrderLinks *links)
{
	Relation	accrual;
	const char *root;
	OrderGroup *group = find_group(groups, source->source_id, image->key, &root);
	OrderPeers *peers;

	links->cycle = root == NULL;
	if (links->cycle || group->nkeys == 1)
		return;
	accrual = store_open(groups->store, ST_ACCRUAL, AccessShareLock);
	if (strcmp(root, image->key) != 0)
		inherit(groups, group, source, accrual, root, links);
	read_rows(groups, group, source, rel, accrual);
	table_close(accrual, NoLock);
	peers = find_peers(group, image);
	/* one that does not count among them earns nothing anyway */
	if (peers && peers->n > 1 && order_peers_find(peers, image->key) >= 0)
		links->peers = peers;
}
