/*
 * clock_mature.c
 *	  The job that makes maturing money available when it is due.
 *
 * A look at the index of what is due collects as many accruals as fit into
 * maintenance_work_mem, and sorts them by account, so that each account is
 * updated once for several of them.  Then batch after batch is posted.
 *
 * What is more than one batch does not come in the order of accounts.  A large
 * statement wrote the rebates of an account, and those of its neighbours, into one
 * page, which has room for few new versions at a time; after a commit it is
 * pruned, and has room for the next.  So neighbours are spread over several
 * batches, but not far, since their pages are in the processor's cache then.
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
#include "clock_batch.h"
#include "ledger.h"
#include "post_clock.h"

/* Rows of the first batch, and at most of one */
#define FIRST_BATCH		32
#define MAX_BATCH		2000

/* Accounts of a batch: as many as a commit announces one by one */
#define MAX_ACCOUNTS	250

/* Rows of an account that are moved together if there are many to be moved */
#define UNIT		5

/* Of so many units in a row no two are in one batch; what is spread at once, in rows */
#define SPREAD		32
#define WINDOW		16384

/* Looks at the index in a run, for what was left to others */
#define MAX_LOOKS		3
#define LOOK_PAUSE		200		/* milliseconds */

typedef struct Mature
{
	DueRow	   *rows;			/* account after account */
	int64		nrows;
	int64		next;
	bool		more;			/* the index has more than fitted in */
	TimestampTz last_due;		/* of the rows */
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

/* Does a unit begin with a row, if the one before has so many rows by now? */
static inline bool
unit_begins(const DueRow *row, int in_unit)
{
	return in_unit == UNIT || row->account_id != row[-1].account_id;
}

/*
 * Spread the units of a window: first comes every SPREADth, then every SPREADth
 * from the second one on, and so forth.  Accounts ascend in each of these classes.
 */
static void
spread_window(DueRow *rows, int n, DueRow *copy)
{
	int			places[SPREAD + 1] = {0};
	int			class = 0;
	int			in_unit = 0;

	for (int i = 0; i < n; i++)
	{
		if (i > 0 && unit_begins(&rows[i], in_unit))
		{
			class = (class + 1) % SPREAD;
			in_unit = 0;
		}
		in_unit++;
		places[class + 1]++;
	}
	for (int i = 1; i < SPREAD; i++)
		places[i] += places[i - 1];
	memcpy(copy, rows, sizeof(DueRow) * n);
	class = in_unit = 0;
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && unit_begins(&copy[i], in_unit))
		{
			class = (class + 1) % SPREAD;
			in_unit = 0;
		}
		in_unit++;
		rows[places[class]++] = copy[i];
	}
}

static void
spread(DueRow *rows, int64 n)
{
	int64		nwindows = Max(n / WINDOW, 1);
	DueRow	   *copy = palloc(sizeof(DueRow) * (n / nwindows + 1));

	for (int64 i = 0; i < nwindows; i++)
	{
		int64		from = n * i / nwindows;
		int64		to = n * (i + 1) / nwindows;

		spread_window(rows + from, (int) (to - from), copy);
	}
	pfree(copy);
}

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
	if (m->nrows > MAX_BATCH)
		spread(m->rows, m->nrows);
}

/*
 * How many of the rows that are left go into the next batch.  Accounts ascend in
 * it, so that none comes twice.
 */
static int
next_batch(const Mature *m)
{
	int			naccounts = 0;
	int			n = 0;

	while (n < m->batch.rows && m->next + n < m->nrows)
	{
		const DueRow *row = &m->rows[m->next + n];

		if ((n == 0 || row->account_id != row[-1].account_id) &&
			(++naccounts > MAX_ACCOUNTS || (n > 0 && row->account_id < row[-1].account_id)))
			break;
		n++;
	}
	return n;
}

bool
clock_mature_step(Store *store, ClockRun *run)
{
	Mature	   *m = run->state;
	PostedDue	posted = {0};
	int			n;

	if (m == NULL)
	{
		m = run->state = MemoryContextAllocZero(run->context, sizeof(Mature));
		clock_batch_init(&m->batch, FIRST_BATCH, MAX_BATCH);
		look(store, run, m, PG_INT64_MIN + 1);
	}
	n = next_batch(m);
	if (n > 0)
	{
		n = post_mature(store, &m->rows[m->next], n, &m->batch, &posted);
		m->next += n;
		run->done += posted.ndone;
		run->busy += posted.nbusy;
		clock_batch_end(&m->batch, n);
	}
	if (m->next < m->nrows)
		return true;
	if (m->more && run->done > m->done_before)
	{
		/* several may have the last moment: it is looked at again */
		look(store, run, m, m->last_due);
		return true;
	}
	if (run->busy > 0 && ++m->looks < MAX_LOOKS)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_PAUSE,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		run->busy = 0;
		look(store, run, m, PG_INT64_MIN + 1);
		return true;
	}
	if (run->busy > 0)
		ereport(NOTICE,
				(errmsg_plural(INT64_FORMAT " rebate was left to the next run",
							   INT64_FORMAT " rebates were left to the next run",
							   run->busy, run->busy),
				 errdetail("Open transactions hold their accounts.")));
	return false;
}
