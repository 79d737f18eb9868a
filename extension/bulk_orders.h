/*
 * bulk_orders.h
 *	  Orders of a large statement, packed, and brought into the order of accounts.
 */
#ifndef REBATE_BULK_ORDERS_H
#define REBATE_BULK_ORDERS_H

#include "rebate.h"
#include "post.h"

typedef struct PackedOrder PackedOrder;

/* A member in a currency */
typedef struct BulkAccount
{
	int64		account_id;		/* 0: not looked for; of a missing one: to be */
	bool		missing;
	const CurrencyInfo *currency;
	PackedOrder *first;			/* its orders, as long as they are in memory */
	PackedOrder *last;
	char		member[FLEXIBLE_ARRAY_MEMBER];
} BulkAccount;

typedef struct BulkOrders BulkOrders;

/*
 * In the current context.  Orders are in memory up to maintenance_work_mem, beyond
 * it on disk.  "accounts" are always all that orders name.
 */
extern BulkOrders *bulk_orders_begin(void);
extern void bulk_orders_end(BulkOrders *orders);

/*
 * Pack a decision for an account, NULL if it touches none.  *packed_key points to
 * the copy of the key.  To keep it comes later, when its account has an id; what
 * is not kept until the end of the run is forgotten.
 */
extern PackedOrder *bulk_orders_pack(BulkOrders *orders, const char *key, const Decision *d,
									 BulkAccount *account, const char **packed_key);
extern void bulk_orders_keep(BulkOrders *orders, PackedOrder *order);
extern void bulk_orders_end_run(BulkOrders *orders, BulkAccount **accounts, int naccounts);

/* Number of orders that are kept, and whether they and their keys stay in memory until the end */
extern int64 bulk_orders_count(BulkOrders *orders);
extern bool bulk_orders_in_memory(BulkOrders *orders);

/*
 * The orders by the ids of their accounts, those of one as they were kept; first
 * those without: whether there is one more, and whose; and that one, which is in
 * the current context if it is not in memory anyway.
 */
extern void bulk_orders_sort(BulkOrders *orders, BulkAccount **accounts, int naccounts);
extern bool bulk_orders_more(BulkOrders *orders, const BulkAccount **account);
extern const PackedOrder *bulk_orders_take(BulkOrders *orders);

/*
 * A packed order as one to be posted, in the current context; what it points to
 * is in the packed one.
 */
extern void bulk_orders_unpack(const PackedOrder *order, PostOrder *result);

#endif							/* REBATE_BULK_ORDERS_H */
