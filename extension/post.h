/*
 * post.h
 *	  The only writer of the ledger.
 */
#ifndef REBATE_POST_H
#define REBATE_POST_H

#include "rebate.h"
#include "order.h"

/* An order with its decision, ready to be posted */
typedef struct PostOrder
{
	int32		source_id;
	const char *key;
	Decision   *decision;
	OrderFacts *facts;			/* as they were when it was decided */
} PostOrder;

/*
 * Post the difference between the decisions and what is posted.  Accounts are
 * locked in one global order.  The orders' rows must be locked by this
 * transaction (it changed them).
 */
extern void post_orders(Store *store, PostOrder *orders, int n);

/*
 * Post one order that was decided as new without looking for facts of it.
 * Returns false, having posted nothing, if there are some.
 */
extern bool post_new_order(Store *store, PostOrder *order);

/*
 * Move the facts and accruals of an order to another key.  Returns false, having
 * done nothing, if the other key has facts of its own.
 */
extern bool post_rekey(Store *store, int32 source_id, const char *oldkey, const char *newkey);

#endif							/* REBATE_POST_H */
