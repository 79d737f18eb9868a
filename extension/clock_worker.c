/*
 * clock_worker.c
 *	  A background worker that helps a run of the clock.
 *
 * It connects as the user of the run's session, is the run's current user, and may
 * do what he may: his right is checked for each batch, as the run's own is.  It
 * runs no statement of anybody.  Whatever goes wrong ends it, with an entry in the
 * server's log: the batch is rolled back, and the run takes its window over.
 */
#include "rebate.h"

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "clock_share.h"
#include "rights.h"

PGDLLEXPORT void rebate_clock_worker_main(Datum arg);

/* Longest sleep, in milliseconds; who has work wakes it */
#define IDLE_TIME	1000

static void
set(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Be as the run is.  Of the settings that its user or database has, none may
 * change what a transaction of the clock is.
 */
static void
connect_as_run(const ClockShare *share)
{
	BackgroundWorkerInitializeConnectionByOid(share->dbid, share->session_user, 0);
	SetUserIdAndSecContext(share->user, 0);
	set("synchronous_commit", "off");
	set("default_transaction_isolation", "read committed");
	set("default_transaction_read_only", "off");
	set("rebate.clock_batch_time", psprintf("%g", share->batch_time));
}

static void
check_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* The next window, when there is one; NULL: the run is over */
static DueWindow *
wait_for_window(ClockShare *share, int me)
{
	for (;;)
	{
		DueWindow  *window;

		ResetLatch(MyLatch);
		check_interrupts();
		if (pg_atomic_read_u32(&share->over) != 0)
			return NULL;
		window = share_take(share, SLOT_OF_WORKER + me);
		if (window)
			return window;
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, IDLE_TIME,
						 PG_WAIT_EXTENSION);
	}
}

/* A batch, in a transaction of its own */
static void
do_batch(ClockShare *share, DueWindow *window, ClockBatch *batch)
{
	PostedDue	posted = {0};
	Store	   *store;
	int			n;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	store = store_get(false);
	rights_check(store, RIGHT_OPERATOR, "the jobs of rebate");
	n = window_post(store, window, batch, &posted);
	PopActiveSnapshot();
	CommitTransactionCommand();

	/* nothing is interrupted here, so that what is committed is counted */
	window->next += n;
	pg_atomic_fetch_add_u64(&share->done, posted.ndone);
	pg_atomic_fetch_add_u64(&share->busy, posted.nbusy);
	pg_atomic_fetch_add_u64(&share->batches, 1);
}

/* The background worker */
void
rebate_clock_worker_main(Datum arg)
{
	dsm_segment *segment;
	ClockShare *share;
	DueWindow  *window;
	ClockBatch	batch;
	int			me;

	memcpy(&me, MyBgworkerEntry->bgw_extra, sizeof(me));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	segment = dsm_attach(DatumGetUInt32(arg));
	/* the run may be over by now, or be of another version of the library */
	if (segment == NULL)
		proc_exit(0);
	share = dsm_segment_address(segment);
	if (strcmp(share->version, REBATE_VERSION) != 0)
		proc_exit(0);
	share->workers[me] = MyLatch;
	connect_as_run(share);

	window_batch_init(&batch);
	while ((window = wait_for_window(share, me)) != NULL)
	{
		pgstat_report_activity(STATE_RUNNING, "rebate.mature()");
		while (!window_is_done(window))
		{
			check_interrupts();
			if (pg_atomic_read_u32(&share->over) != 0)
				proc_exit(0);
			do_batch(share, window, &batch);
			clock_batch_pause();
		}
		share_release(window);
		SetLatch(share->run);
		pgstat_report_stat(false);
	}
	proc_exit(0);
}
