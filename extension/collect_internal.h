/*
 * collect_internal.h
 *	  The collection, for the modules that fill and post it.
 */
#ifndef REBATE_COLLECT_INTERNAL_H
#define REBATE_COLLECT_INTERNAL_H

#include "collect.h"
#include "links.h"

/* Orders held before they are posted early: bounds memory */
#define MAX_ITEMS 16384

/* What a subtransaction may change of an item, and its rollback takes back */
typedef struct ItemState
{
	int32		generation;		/* of rules, at its first touch */
	bool		posted;			/* does not wait to be posted */
	bool		moved;			/* its facts went to another key */
	bool		old;			/* took the key of an old order's row */
	bool		evaluated;		/* at its first touch ... */
	bool		before;			/* ... it was older than the attachment */
	bool		reread;			/* touched again: its row decides */
	bool		any_backdate;
	bool		archived;		/* if its row is gone, the money stays */
	bool		reconciled;		/* if not seen, it came while nobody looked */
	bool		failed;			/* its statement made it fail */
	uint64		failed_firing;	/* ... in this firing */
	Decision   *decision;
	OrderFacts *facts;
} ItemState;

/* An order that this transaction has touched */
typedef struct OrderItem
{
	int32		source_id;
	const char *key;
	Oid			relid;
	SubTransactionId created_sub;
	SubTransactionId changed_sub;	/* whose rollback is prepared for */
	/* while it is posted, of a source whose orders can be about others: */
	bool		about_another;	/* its row is, or was */
	bool		pulled;			/* it is here because of another order */
	bool		warned;			/* its failure is known since its statement */
	ItemState	state;			/* changed through collection_change() only */
} OrderItem;

/* The items, in the order of their creation; all before first_unposted are posted */
typedef struct Collection
{
	MemoryContext context;		/* child of TopTransactionContext */
	OrderItem **items;
	int			n;
	int			first_unposted;
	SubTransactionId flushing;	/* where a flush is at work */
	uint64		firing;			/* counts firings of triggers */
	bool		linked;			/* some are of sources whose orders can be about others */
	/* while they are posted: */
	bool		links_written;	/* since a snapshot was taken */
	List	   *group_pulls;	/* groups to be decided, see collect_links.c */
} Collection;

extern Collection collection;

extern void collection_begin(void);
extern OrderItem *collection_find(int32 source_id, const char *key);

/* The key must live in the collection's context */
extern OrderItem *collection_add(int32 source_id, Oid relid, const char *key, int32 generation);

/* The state of an item, to be changed; a rollback will restore it */
extern ItemState *collection_change(OrderItem *item);

/* Touch an order again: what was decided from an image is void */
extern void collection_touch(OrderItem *item);

/* Whether earlier statements touched more orders of a source than are remembered */
extern bool collection_all_touched(int32 source_id);

/* All that waited is posted */
extern void collection_posted(void);

/*
 * collect_links.c: before orders that can be about others are decided again,
 * lock all that are concerned, and say which go first; and after one was
 * decided, write down what it says of another order, which is decided then.
 */
extern void collect_links_begin(Store *store);
extern void collect_links_keep(Store *store, Source *source, OrderItem *item);

/* Orders of the groups of those that were decided are to be decided, too */
extern void collect_links_pull_groups(Store *store, LinkGroups *groups);

/*
 * An order to be decided again because of another one.  Whoever decides it holds
 * the lock of that one, too.
 */
extern void collect_links_pull(Store *store, Source *source, const char *key);

/* collect_rows.c, for both ways to a decision */
extern Decision *failed_decision(const OrderFacts *facts, int32 generation, bool old_order,
								 int sqlerrcode, const char *error, const char *detail);
extern void count_failure(CollectBatch *batch, const char *key, const Decision *d);
extern void warn_failures(const CollectBatch *batch);

/*
 * Whether a row with this key was there before this transaction began to
 * change the table.
 */
extern bool existed_before(Source *source, Relation rel, const char *key);

#endif							/* REBATE_COLLECT_INTERNAL_H */
