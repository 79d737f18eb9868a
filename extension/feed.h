/*
 * feed.h
 *	  A batch of the feed: what became visible between two snapshots.
 */
#ifndef REBATE_FEED_H
#define REBATE_FEED_H

#include "rebate.h"
#include "cursor.h"
#include "event.h"
#include "store.h"

/* Where an entry is; "opening": in the row of the rebate that it opened */
typedef struct BatchEntry
{
	EventKey	place;
	bool		opening;
} BatchEntry;

/* A part of a batch, in order */
typedef struct BatchPart
{
	const BatchEntry *entries;
	int			n;
	bool		complete;		/* nothing of the batch is behind it */
} BatchPart;

/*
 * The entries behind "after" that "current" sees and "seen" does not.  Kept in
 * this session for the next call, so that a long batch that is read in many calls
 * is not searched for in each.
 */
extern BatchPart feed_batch_part(Store *store, const XidSnapshot *seen,
								 const XidSnapshot *current, EventKey after);

/* Search again */
extern void feed_batch_forget(void);

/* At the end of a transaction */
extern void feed_at_xact_end(bool aborted);

#endif							/* REBATE_FEED_H */
