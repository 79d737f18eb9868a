/*
 * order_keys.h
 *	  Entries of the unique index of orders that are made together, in its order.
 */
#ifndef REBATE_ORDER_KEYS_H
#define REBATE_ORDER_KEYS_H

#include "rebate.h"
#include "storage/itemptr.h"
#include "store.h"

typedef struct OrderKeys OrderKeys;

extern OrderKeys *order_keys_begin(Store *store, int32 source_id);

/* A row was made that has no entry yet */
extern void order_keys_add(OrderKeys *keys, const char *key, int part, ItemPointer tid);

/* Make the entries; raises unique_violation as any insert does */
extern void order_keys_end(OrderKeys *keys);

#endif							/* REBATE_ORDER_KEYS_H */
