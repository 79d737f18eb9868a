/*
 * wal_flush.c
 *	  Nothing is told to anybody that a crash could take back.
 */
#include "rebate.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"

#include "wal_flush.h"

/*
 * The position of the next record lies behind a page's header if the last record
 * ended with a page; nothing can be flushed up to there before something follows.
 */
static XLogRecPtr
end_of_last_record(void)
{
	XLogRecPtr	next = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(next, wal_segment_size) == SizeOfXLogLongPHD)
		return next - SizeOfXLogLongPHD;
	if (next % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return next - SizeOfXLogShortPHD;
	return next;
}

void
wal_flush_inserted(void)
{
	XLogRecPtr	end;

	if (RecoveryInProgress())
		return;
	end = end_of_last_record();
	if (XLogNeedsFlush(end))
		XLogFlush(end);
}
