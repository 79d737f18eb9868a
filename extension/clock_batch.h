/*
 * clock_batch.h
 *	  How much a batch of the clock does before it lets go of its locks.
 */
#ifndef REBATE_CLOCK_BATCH_H
#define REBATE_CLOCK_BATCH_H

#include "rebate.h"
#include "access/transam.h"
#include "portability/instr_time.h"

/* What a run knows of its batches; lives as long as the run */
typedef struct ClockBatch
{
	int			rows;			/* at most so many in the next one */
	int			most;			/* and never more than these */
	bool		holding;		/* locks that others may wait for, since: */
	instr_time	since;
	FullTransactionId next_xid; /* the next one at the end of the last batch; invalid before */
	bool		others_write;	/* or did just now: */
	instr_time	others_wrote;
} ClockBatch;

/* GUC rebate.clock_batch_time: milliseconds */
extern double rebate_clock_batch_time;

extern void clock_batch_init(ClockBatch *batch, int rows, int most);
extern void clock_batch_locks(ClockBatch *batch);
extern bool clock_batch_is_over(const ClockBatch *batch);
extern void clock_batch_end(ClockBatch *batch, int rows);
extern void clock_batch_pause(void);

/* Plan queries for the few rows of a batch, until settings are what they were */
extern void clock_batch_plan(void);

#endif							/* REBATE_CLOCK_BATCH_H */
