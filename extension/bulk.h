/*
 * bulk.h
 *	  The many new orders of one statement, on their way past the collection.
 */
#ifndef REBATE_BULK_H
#define REBATE_BULK_H

#include "rebate.h"
#include "order.h"

typedef struct Bulk Bulk;

extern Bulk *bulk_begin(Store *store, Source *source, int32 generation);

/* An order that was decided as new, without having failed; copies what it keeps */
extern void bulk_add(Bulk *bulk, const char *key, const Decision *d);

/* Post all that was added */
extern void bulk_end(Bulk *bulk);

#endif							/* REBATE_BULK_H */
