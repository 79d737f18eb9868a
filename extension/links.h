/*
 * links.h
 *	  Orders that are about another order of their table: what is recorded of it
 *	  in rebate_data.link, and the locks that keep it true.
 */
#ifndef REBATE_LINKS_H
#define REBATE_LINKS_H

#include "rebate.h"
#include "nodes/pg_list.h"
#include "order.h"

/* Kinds of links */
#define LINK_RETURN 'o'			/* the target is the original of a return */
#define LINK_REPLACES 'r'		/* it was split from the target, or replaces it */

/* One row of rebate_data.link */
typedef struct Link
{
	char	   *key;
	char		kind;
	char	   *target;
	char	   *currency;
	Numeric		amount;
	Numeric		quantity;		/* NULL: none */
	ItemPointerData tid;
} Link;

/* What an order says of another one; false: nothing is recorded */
extern bool links_of(Store *store, int32 source_id, const char *key, char kind,
					 Snapshot snapshot, Link *link);

/* What other orders say of an order, a list of Link in the order of their keys */
extern List *links_to(Store *store, int32 source_id, const char *target, char kind,
					  Snapshot snapshot);

/* All links of a source */
extern List *links_of_source(Store *store, int32 source_id, Snapshot snapshot);

/* Whether what is recorded (NULL: nothing) is what a decision says */
extern bool links_agree(char kind, const Link *link, const Decision *d);

/* Record what a decision says in the place of "old" (NULL: nothing is there) */
extern void links_write(Store *store, int32 source_id, const char *key, char kind,
						const Link *old, const Decision *d);

/*
 * links_group.c: groups of orders with the same root, as they are under one
 * snapshot.  What is returned is good until the next call.
 */
typedef struct LinkGroups LinkGroups;

extern LinkGroups *link_groups_create(Store *store, Snapshot snapshot);
extern void link_groups_delete(LinkGroups *groups);

/*
 * The order that others were split from, by way of whatever is between; the order
 * itself if it was not.  NULL: the way leads back to where it was.
 */
extern const char *link_groups_root(LinkGroups *groups, int32 source_id, const char *key);

/*
 * Keys of all orders with the same root, in their order, the order itself among
 * them; none if they were taken before.
 */
extern int	link_groups_take(LinkGroups *groups, int32 source_id, const char *key,
							 char *const **keys);

/* Which orders count beside the one that "image" is of, and what it inherits */
extern void link_groups_judge(LinkGroups *groups, Source *source, Relation rel,
							  const OrderImage *image, OrderLinks *links);

/* The place of an order among its peers; -1: it is not there */
extern int	order_peers_find(const OrderPeers *peers, const char *key);

/*
 * Find out what other orders mean for the order that "image" is of; "groups" NULL:
 * without those that were split from the same one.  Orders that say something of
 * it which they must not, their keys, are added to *mistaken if that is not NULL.
 * "rel" is the source's table.  Raises what expressions raise.
 */
extern void links_judge(Store *store, Source *source, Relation rel, OrderImage *image,
						Snapshot snapshot, LinkGroups *groups, OrderLinks *links,
						List **mistaken);

/*
 * Lock orders of one source until the end of the transaction, in an order that
 * all agree on.  Whoever decides an order that is about another one holds the
 * locks of both, so that of two transactions the later sees what the other did.
 * Returns whether a lock was taken that was not held before.
 */
extern bool links_lock(int32 source_id, const char **keys, int n);

/* The locks are gone */
extern void links_at_xact_end(void);

#endif							/* REBATE_LINKS_H */
