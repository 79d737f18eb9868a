/*
 * post_clock.h
 *	  What the clock posts.
 */
#ifndef REBATE_POST_CLOCK_H
#define REBATE_POST_CLOCK_H

#include "rebate.h"

#include "clock_batch.h"
#include "storage/itemptr.h"
#include "store.h"

/* A row of rebate_data.waiting, as a look at what is due found it */
typedef struct DueRow
{
	int64		account_id;
	int64		seq;
	TimestampTz due;
	ItemPointerData tid;
} DueRow;

typedef struct PostedDue
{
	int64		ndone;
	int64		nbusy;			/* left alone: others have their account or row */
} PostedDue;

/*
 * Make maturing accruals available.  The rows are hints, those of an account
 * together: what does not wait any more as they say is passed over.  Waits for
 * nobody, and ends when the batch is over: returns how many rows were looked at,
 * at least one.
 */
extern int	post_mature(Store *store, const DueRow *rows, int n, ClockBatch *batch,
						PostedDue *result);

/*
 * Bring the rebates of an order to the freezes that are recorded of it.  Locks
 * their accounts, calls record(arg), which writes the record, and changes when
 * they are due.  Returns false, having done nothing, if the order is not known.
 */
extern bool post_freezes(Store *store, int32 source_id, const char *key, void (*record) (void *),
						 void *arg);

#endif							/* REBATE_POST_CLOCK_H */
