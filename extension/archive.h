/*
 * archive.h
 *	  What the archive of old entries means for those who read the ledger.
 */
#ifndef REBATE_ARCHIVE_H
#define REBATE_ARCHIVE_H

#include "rebate.h"
#include "executor/tuptable.h"
#include "utils/date.h"
#include "utils/snapshot.h"

#include "cursor.h"
#include "digest.h"
#include "store.h"

/* The last archived entry of an account */
typedef struct Boundary
{
	int64		seq;			/* 0: nothing of it is archived */
	int64		check;
} Boundary;

/*
 * Where the ledger of an account begins whose oldest entries were dropped, and
 * what the audit compares the rest with: hashes of entries of that stretch that
 * are still there, and of what the others did to each rebate
 */
typedef struct Carried
{
	int64		seq;			/* 0: nothing of it was dropped */
	int64		check;
	TimestampTz posted_at;
	int64		balance[NUM_BUCKETS];
	DateADT		book_date;		/* the latest */
	uint64		opened;
	LedgerDigest digest;
} Carried;

/* Has the store an archive?  Those of version 1 have none. */
extern bool archive_exists(Store *store);

/* The boundary of an account, as a snapshot sees it */
extern Boundary archive_boundary(Store *store, Snapshot snapshot, int64 account_id);

/* What is carried forward of an account, as a snapshot sees it; of the row in a slot */
extern Carried archive_carried(Store *store, Snapshot snapshot, int64 account_id);
extern Carried archive_carried_row(TupleTableSlot *slot, int64 *account_id);

/* Raise RB016: of that account only what comes after is there */
pg_noreturn extern void archive_refuse_moment(const Carried *carried, const char *currency);

/*
 * Raise RB016 if a reader of the feed with this cursor may lack what is archived;
 * "now": which transactions have ended
 */
extern void archive_check_feed(Store *store, const FeedCursor *cursor, const XidSnapshot *now);

#endif							/* REBATE_ARCHIVE_H */
