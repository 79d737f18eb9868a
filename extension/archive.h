/*
 * archive.h
 *	  What the archive of old entries means for those who read the ledger.
 */
#ifndef REBATE_ARCHIVE_H
#define REBATE_ARCHIVE_H

#include "rebate.h"
#include "cursor.h"
#include "store.h"
#include "utils/snapshot.h"

/* The last archived entry of an account */
typedef struct Boundary
{
	int64		seq;			/* 0: nothing of it is archived */
	int64		check;
} Boundary;

/* Has the store an archive?  Those of version 1 have none. */
extern bool archive_exists(Store *store);

/* The boundary of an account, as a snapshot sees it */
extern Boundary archive_boundary(Store *store, Snapshot snapshot, int64 account_id);

/* Raise RB016 if a reader of the feed with this cursor lacks what is archived */
extern void archive_check_feed(Store *store, const FeedCursor *cursor);

#endif							/* REBATE_ARCHIVE_H */
