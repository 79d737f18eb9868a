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
 * Move the facts and accruals of an order to another key.  Returns false, having
 * done nothing, if the other key has facts of its own.
 */
extern bool post_rekey(Store *store, int32 source_id, const char *oldkey, const char *newkey);

/* One step of the chained check over the entries of an account */
typedef struct EntryFields
{
	int64		account_id;
	int64		seq;
	int64		posting_id;
	int64		amount;
	TimestampTz posted_at;
	TimestampTz event_at;
	int64		xid;
	int32		debit;
	int32		credit;
	int32		epoch;
	int32		effective_date;
	int32		book_date;
	int32		rule_id;
	char		kind;
	int64		accrual_id;		/* 0: none */
	int64		payout_id;
} EntryFields;

extern int64 entry_check(int64 previous, const EntryFields *entry);

#endif							/* REBATE_POST_H */
