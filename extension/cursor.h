/*
 * cursor.h
 *	  The texts that say how far a client has read.
 */
#ifndef REBATE_CURSOR_H
#define REBATE_CURSOR_H

#include "rebate.h"
#include "access/xlogdefs.h"
#include "lib/stringinfo.h"
#include "event.h"

/*
 * Which transactions a snapshot sees as ended, by ids that do not wrap around:
 * all before xmin, and those before xmax that are not in xip (sorted).
 */
typedef struct XidSnapshot
{
	uint64		xmin;
	uint64		xmax;
	int			nxip;
	uint64	   *xip;
} XidSnapshot;

/* Of a snapshot just taken; the current transaction counts as running */
extern XidSnapshot xid_snapshot_of(Snapshot snapshot);

static inline bool
xid_snapshot_sees(const XidSnapshot *s, uint64 xid)
{
	int			low = 0,
				high = s->nxip;

	if (xid < s->xmin)
		return true;
	if (xid >= s->xmax)
		return false;
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (s->xip[middle] == xid)
			return false;
		if (s->xip[middle] < xid)
			low = middle + 1;
		else
			high = middle;
	}
	return true;
}

extern bool xid_snapshot_equal(const XidSnapshot *a, const XidSnapshot *b);

/* A place in the server's history of WAL */
typedef struct HistoryPoint
{
	uint64		system_identifier;
	int32		epoch;			/* rebate_data.epoch */
	TimeLineID	tli;
	XLogRecPtr	lsn;
} HistoryPoint;

/*
 * How far a reader of the feed is: it has all that "seen" sees, and, inside a
 * batch, of what "current" sees besides the entries up to "last".
 */
typedef struct FeedCursor
{
	HistoryPoint point;			/* of the later snapshot */
	XidSnapshot seen;
	bool		in_batch;
	XidSnapshot current;		/* in_batch */
	EventKey	last;			/* account 0: nothing was read yet */
	int64		last_check;
} FeedCursor;

/*
 * Write what is the same in all cursors of a batch, and append a whole cursor:
 * "head", and the entry that was read last.
 */
extern void feed_cursor_head(StringInfo head, const FeedCursor *cursor);
extern void feed_cursor_write(StringInfo buf, const StringInfoData *head, EventKey last,
							  int64 last_check);

/* Read one; raises cursor_refused if it is none of ours */
extern void feed_cursor_parse(const char *text, FeedCursor *cursor);

/* How far a reader of one member is in one currency */
typedef struct MemberPlace
{
	const char *currency;
	int64		seq;
	int64		check;
} MemberPlace;

extern void member_cursor_write(StringInfo buf, const MemberPlace *places, int n);

/* Read one, sorted by currency; raises cursor_refused if it is none of ours */
extern MemberPlace *member_cursor_parse(const char *text, int *n);

#endif							/* REBATE_CURSOR_H */
