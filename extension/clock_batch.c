/*
 * clock_batch.c
 *	  How much a batch of the clock does before it lets go of its locks.
 *
 * An order of a member whose money is being moved waits for the batch.  So the
 * time of a batch counts from its first lock, and is looked at after each row:
 * when it is over the batch ends, whatever was meant to be in it.  What a batch
 * needs to write down its work comes on top, and is about as much again; that,
 * and not to begin what will not be ended, is why the next batch is made as
 * large as this one says.
 *
 * While others write, orders among them, a batch has a part of its time only:
 * an order that begins on the clock's processor waits for the batch to end,
 * whosever it is.  That others write is told by the transaction ids that are
 * gone beside the one of each batch.  So a worker that helps is one of them, and
 * so is the one that delivers, whose notifications take an id, while anybody
 * listens.
 */
#include "rebate.h"

#include "utils/guc.h"

#include "clock_batch.h"

/* A batch is never meant to be smaller than this: rows that find their accounts busy cost nothing */
#define MIN_ROWS	8

/*
 * Between two batches, in microseconds: whoever waits for the processor has it
 * then, and not only when the system takes it from us.  A sleep, and not a yield,
 * which a scheduler with groups of processes may take for a yield within our own;
 * the shortest does, and takes some 50 on Linux.
 */
#define BATCH_PAUSE	1

/* What part of its time a batch has while others write, and for so long after they did, in microseconds */
#define SHORTER			4
#define STAYS_SHORTER	1000000

double		rebate_clock_batch_time = 1;

static int64
usecs_since(instr_time since)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, since);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

void
clock_batch_init(ClockBatch *batch, int rows, int most)
{
	batch->rows = rows;
	batch->most = most;
	batch->holding = false;
	batch->next_xid = InvalidFullTransactionId;
	batch->others_write = false;
}

/* To be called before each lock: the time of the batch begins with the first. */
void
clock_batch_locks(ClockBatch *batch)
{
	if (batch->holding)
		return;
	batch->holding = true;
	INSTR_TIME_SET_CURRENT(batch->since);
}

static int64
limit_usecs(const ClockBatch *batch)
{
	return (int64) (rebate_clock_batch_time * 1000) / (batch->others_write ? SHORTER : 1);
}

/* Learn whether others have begun to write since the batch before. */
static void
look_for_others(ClockBatch *batch)
{
	FullTransactionId next = ReadNextFullTransactionId();

	/* one is the batch's own */
	if (FullTransactionIdIsValid(batch->next_xid) &&
		U64FromFullTransactionId(next) > U64FromFullTransactionId(batch->next_xid) + 1)
	{
		batch->others_write = true;
		INSTR_TIME_SET_CURRENT(batch->others_wrote);
	}
	else if (batch->others_write && usecs_since(batch->others_wrote) > STAYS_SHORTER)
		batch->others_write = false;
	batch->next_xid = next;
}

/* Must the batch end after the row that it has just done? */
bool
clock_batch_is_over(const ClockBatch *batch)
{
	return batch->holding && usecs_since(batch->since) >= limit_usecs(batch);
}

/*
 * The batch has done its work on so many rows, and is about to commit.  The next
 * is made as large as would have fitted into the time; if this one was full it may
 * be larger, by half at most.
 */
void
clock_batch_end(ClockBatch *batch, int rows)
{
	int64		held = batch->holding ? usecs_since(batch->since) : 0;
	int64		limit;
	int64		fits;

	look_for_others(batch);
	limit = limit_usecs(batch);
	fits = rows * limit / Max(held, 1);
	batch->holding = false;
	if (held > limit)
		batch->rows = Max(Min(MIN_ROWS, batch->most), (int) Min(rows, fits));
	else if (rows == batch->rows)
		batch->rows = Min(batch->most, (int) Min(Max(fits, rows + 1), rows + Max(rows / 2, 1)));
}

/* To be called between two batches, without locks */
void
clock_batch_pause(void)
{
	pg_usleep(BATCH_PAUSE);
}

/* A plan for many entries would read all of them for the few of a batch. */
void
clock_batch_plan(void)
{
	static const char *const off[] = {"enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"};

	for (size_t i = 0; i < lengthof(off); i++)
		(void) set_config_option(off[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
}
