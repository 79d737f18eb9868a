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

/* Bytes that a key takes which stays where it is */
#define ORDER_KEY_SIZE	24

/*
 * With nstay > 0 about so many rows are to come, and their keys stay where they
 * are until the end; else they are copied, and may go to disk.
 */
extern OrderKeys *order_keys_begin(Store *store, int32 source_id, int64 nstay);

/* A row was made that has no entry yet */
extern void order_keys_add(OrderKeys *keys, const char *key, int part, ItemPointer tid);

/* Make the entries; raises unique_violation as any insert does */
extern void order_keys_end(OrderKeys *keys);

/* The first bytes of a key, which compare as the key does as far as they differ */
static inline uint64
order_key_prefix(const char *key)
{
	uint64		result = 0;

	for (int i = 0; i < 8; i++)
	{
		result = result << 8 | (unsigned char) *key;
		if (*key)
			key++;
	}
	return result;
}

#endif							/* REBATE_ORDER_KEYS_H */
