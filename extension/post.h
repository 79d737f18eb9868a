/*
 * post.h
 *	  The only writer of the ledger.
 */
#ifndef REBATE_POST_H
#define REBATE_POST_H

#include "rebate.h"
#include "order.h"
#include "order_keys.h"

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
 * Post orders that are known to be new, and stand in the order of their accounts,
 * which are there; those that touch none come first and have no wishes.  No
 * account is locked before its entries are formed.  The rows have no entries in
 * the unique index of orders yet; the caller makes them from "keys".
 */
extern void post_sorted_orders(Store *store, PostOrder *orders, int n, OrderKeys *keys);

/* An account by name */
typedef struct AccountToFind
{
	const char *member;
	const char *currency;
	int64		account_id;
} AccountToFind;

/* Find the ids of accounts, 0 of those that are missing */
extern void post_find_ids(Store *store, AccountToFind *accounts, int n);

/*
 * Make accounts, which come in the order of their names, with the ids given;
 * another session may make one first, with another id, then it is waited for.
 */
extern void post_create_accounts(Store *store, AccountToFind *accounts, int n);

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
