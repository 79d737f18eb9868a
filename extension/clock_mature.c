/*
 * clock_mature.c
 *	  The job that makes maturing money available when it is due.
 *
 * A look at the index of what is due collects as many accruals as fit into
 * maintenance_work_mem, and sorts them by account, so that each account is
 * updated once for several of them.  Then window after window of them is posted,
 * by this process and, if it has much to do, by workers.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "clock.h"
#include "clock_share.h"
#include "clock_window.h"
#include "ledger.h"

/* Looks at the index in a run, for what was left to others */
#define MAX_LOOKS		3
#define LOOK_PAUSE		200		/* milliseconds */

/* With no more rows than these the run needs no help: to start a worker takes its time, too */
#define MIN_ROWS_TO_SHARE	20000

/* Rows of a window at least, where there are workers */
#define MIN_WINDOW		4096

/* At the longest, in milliseconds, until the end of a worker is noticed */
#define WORKER_PAUSE	20

typedef struct Mature
{
	DueRow	   *rows;			/* account after account */
	int64		nrows;
	int64		next;			/* those before it are in windows, or done */
	bool		more;			/* the index has more than fitted in */
	TimestampTz last_due;		/* of the rows */
	bool		asked;			/* for workers */
	ClockCrew  *crew;			/* NULL: the run is alone */
	DueWindow  *window;			/* that the run is at; NULL: none */
	ClockBatch	batch;
	int64		done_before;	/* of the run, when the rows were collected */
	int			looks;
} Mature;

#define ST_SORT sort_rows
#define ST_ELEMENT_TYPE DueRow
#define ST_COMPARE(a, b) \
	((a)->account_id != (b)->account_id ? \
	 ((a)->account_id > (b)->account_id) - ((a)->account_id < (b)->account_id) : \
	 ((a)->seq > (b)->seq) - ((a)->seq < (b)->seq))
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* Collect what is due, from a moment on. */
static void
look(Store *store, ClockRun *run, Mature *m, TimestampTz from)
{
	Relation	rel = store_open(store, ST_WAITING, AccessShareLock);
	Relation	index = index_open(store->indexes[SI_WAITING], AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = index_beginscan_compat(rel, index, snapshot, 3);
	int64		limit = Min((int64) maintenance_work_mem * 1024, (int64) MaxAllocSize / 2) / sizeof(DueRow);
	int64		allocated = 1024;
	ScanKeyData keys[3];
	ItemPointer tid;

	if (m->rows)
		pfree(m->rows);
	m->rows = MemoryContextAlloc(run->context, sizeof(DueRow) * allocated);
	m->nrows = m->next = 0;
	m->more = false;
	m->done_before = run->done;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_CHAREQ, CharGetDatum('0' + BUCKET_MATURING));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE, TimestampTzGetDatum(from));
	ScanKeyInit(&keys[2], 2, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(run->upto));
	index_rescan(scan, keys, 3, NULL, 0);
	while ((tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		ItemPointerData place = *tid;
		Form_waiting waiting;

		CHECK_FOR_INTERRUPTS();
		if (!index_fetch_heap(scan, slot))
			continue;
		waiting = (Form_waiting) GETSTRUCT(ExecFetchSlotHeapTuple(slot, false, NULL));
		if (m->nrows == limit)
		{
			m->more = true;
			m->last_due = waiting->due;
			break;
		}
		if (m->nrows == allocated)
		{
			allocated = Min(allocated * 2, limit);
			m->rows = repalloc(m->rows, sizeof(DueRow) * allocated);
		}
		m->rows[m->nrows++] = (DueRow)
		{
			waiting->account_id, waiting->seq, waiting->due, place
		};
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	sort_rows(m->rows, m->nrows);
}

/*
 * How many of the rows that are left make a window.  Towards the end they become
 * smaller where there are workers, so that all are done at about the same time.
 */
static int64
window_size(const Mature *m)
{
	int64		left = m->nrows - m->next;
	int64		parts = (left + MAX_WINDOW - 1) / MAX_WINDOW;

	if (m->crew)
		parts = Max(parts, Min(2 * (crew_size(m->crew) + 1), left / MIN_WINDOW));
	parts = Max(parts, 1);
	return (left + parts - 1) / parts;
}

static void
fill_window(Mature *m, DueWindow *window)
{
	m->next += window_fill(window, &m->rows[m->next], m->nrows - m->next, window_size(m));
}

/* Hand out windows until workers have enough of them. */
static void
hand_out(Mature *m)
{
	DueWindow  *window;

	while (m->next < m->nrows && (window = crew_free_window(m->crew)) != NULL)
	{
		fill_window(m, window);
		crew_hand_out(m->crew, window);
	}
}

/* The window that this process is at, or the next one; NULL if there is none. */
static DueWindow *
current_window(Mature *m)
{
	if (m->crew)
	{
		if (m->window && window_is_done(m->window))
		{
			share_release(m->window);
			m->window = NULL;
		}
		hand_out(m);
		if (m->window == NULL)
			m->window = crew_take(m->crew);
		return m->window;
	}
	if (m->window == NULL)
	{
		m->window = MemoryContextAlloc(GetMemoryChunkContext(m), sizeof(DueWindow));
		m->window->nrows = m->window->next = 0;
	}
	if (window_is_done(m->window) && m->next < m->nrows)
		fill_window(m, m->window);
	return window_is_done(m->window) ? NULL : m->window;
}

/* Is anything left of what was collected, here, with a worker or for one? */
static bool
is_at_work(ClockRun *run, const Mature *m)
{
	bool		working = m->next < m->nrows || (m->window && !window_is_done(m->window)) ||
		(m->crew && crew_has_work(m->crew));

	/* in this order: who has just ended has told before what he did */
	if (m->crew)
		crew_count(m->crew, run);
	return working;
}

static void
sleep_ms(long timeout)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* A batch of what was collected.  Returns whether there may be more of it. */
static bool
next_batch(Store *store, ClockRun *run, Mature *m)
{
	DueWindow  *window = current_window(m);
	PostedDue	posted = {0};
	bool		more;

	if (window)
	{
		window->next += window_post(store, window, &m->batch, &posted);
		run->done += posted.ndone;
		run->busy += posted.nbusy;
	}
	more = is_at_work(run, m);
	/* who wakes us is done with a window; who is gone wakes nobody */
	if (more && window == NULL)
		sleep_ms(WORKER_PAUSE);
	return more;
}

bool
clock_mature_step(Store *store, ClockRun *run)
{
	Mature	   *m = run->state;

	if (m == NULL)
	{
		m = run->state = MemoryContextAllocZero(run->context, sizeof(Mature));
		window_batch_init(&m->batch);
		look(store, run, m, PG_INT64_MIN + 1);
	}
	if (!m->asked && m->nrows > MIN_ROWS_TO_SHARE)
	{
		m->crew = crew_begin(run, rebate_clock_workers);
		m->asked = true;
	}
	if (next_batch(store, run, m))
		return true;
	if (m->more && run->done > m->done_before)
	{
		/* several may have the last moment: it is looked at again */
		look(store, run, m, m->last_due);
		return true;
	}
	if (run->busy > 0 && ++m->looks < MAX_LOOKS)
	{
		sleep_ms(LOOK_PAUSE);
		run->busy = 0;
		look(store, run, m, PG_INT64_MIN + 1);
		return true;
	}
	if (m->crew)
		crew_report(m->crew);
	if (run->busy > 0)
		ereport(NOTICE,
				(errmsg_plural(INT64_FORMAT " rebate was left to the next run",
							   INT64_FORMAT " rebates were left to the next run",
							   run->busy, run->busy),
				 errdetail("Open transactions hold their accounts.")));
	return false;
}
