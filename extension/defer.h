/*
 * defer.h
 *	  rebate.mode = defer: the keys of orders are recorded, and nothing is decided.
 */
#ifndef REBATE_DEFER_H
#define REBATE_DEFER_H

#include "rebate.h"
#include "collect.h"

/* Whether orders that come now are deferred */
extern bool defer_active(void);

/* What the collection does with orders, for orders that are deferred */
extern void defer_rows(CollectBatch *batch);
extern void defer_touch(Store *store, Source *source, const char *key);
extern void defer_rekey(Store *store, Source *source, const char *oldkey, const char *newkey);
extern void defer_ambiguous(Store *store, Source *source, const char *key);

/* Add to an order's facts what was recorded when it was deferred */
extern void defer_read(Store *store, int32 source_id, const char *key, Snapshot snapshot,
					   OrderFacts *facts);

#endif							/* REBATE_DEFER_H */
