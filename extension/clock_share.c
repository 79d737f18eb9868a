/*
 * clock_share.c
 *	  The run's side of what it shares with its workers.
 *
 * The run hands out windows of what is due, a few at a time, and posts some itself.  A worker that ends, for whatever reason, is missed only
 * by speed: its window's place tells what it has committed, and the run goes on
 * there.  So the run waits for no worker but one that is alive, and at work.
 *
 * The run's end of the shared memory lives as long as the run, or its process: its
 * detaching tells the workers to stop.
 */
#include "rebate.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "clock_share.h"

/* Windows in hand: those that they are at, and one more for each worker */
#define NUM_SLOTS(nworkers)	(2 * (nworkers) + 1)

struct ClockCrew
{
	dsm_segment *segment;
	ClockShare *share;
	int			nworkers;		/* that there were places for */
	BackgroundWorkerHandle *handles[MAX_CLOCK_WORKERS];
};

int			rebate_clock_workers = 0;

/* Take a window that waits. */
DueWindow *
share_take(ClockShare *share, uint32 taker)
{
	for (int i = 0; i < share->nslots; i++)
	{
		uint32		waits = SLOT_WAITS;

		if (pg_atomic_compare_exchange_u32(&share->slots[i].state, &waits, taker))
			return &share->slots[i].window;
	}
	return NULL;
}

static ShareSlot *
slot_of(DueWindow *window)
{
	return (ShareSlot *) ((char *) window - offsetof(ShareSlot, window));
}

void
share_release(DueWindow *window)
{
	pg_atomic_exchange_u32(&slot_of(window)->state, SLOT_FREE);
}

/* There is something to do, or no more.  A worker that is gone leaves a latch that may be woken. */
static void
wake_workers(ClockShare *share)
{
	for (int i = 0; i < MAX_CLOCK_WORKERS; i++)
		if (share->workers[i])
			SetLatch(share->workers[i]);
}

/* The run or its process ends: workers stop after their batch. */
static void
tell_over(dsm_segment *segment, Datum arg)
{
	ClockShare *share = (ClockShare *) DatumGetPointer(arg);

	pg_atomic_exchange_u32(&share->over, 1);
	wake_workers(share);
}

/* The context of the run is deleted. */
static void
detach_crew(void *arg)
{
	ClockCrew  *crew = arg;

	if (crew->segment)
		dsm_detach(crew->segment);
}

/*
 * Shared memory for a crew, which stays mapped after this transaction; NULL if
 * there is no room for it.
 */
static dsm_segment *
create_segment(Size size)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	dsm_segment *volatile segment = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
		if (segment)
			dsm_pin_mapping(segment);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		CurrentResourceOwner = owner;
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INSUFFICIENT_RESOURCES)
			ReThrowError(error);
		segment = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return segment;
}

/* What the workers are to be, and nothing to do yet */
static void
init_share(ClockShare *share, int nslots)
{
	memset(share, 0, offsetof(ClockShare, slots));
	strlcpy(share->version, REBATE_VERSION, sizeof(share->version));
	share->dbid = MyDatabaseId;
	share->session_user = GetSessionUserId();
	share->user = GetUserId();
	share->batch_time = rebate_clock_batch_time;
	share->run = MyLatch;
	pg_atomic_init_u32(&share->over, 0);
	pg_atomic_init_u64(&share->done, 0);
	pg_atomic_init_u64(&share->busy, 0);
	pg_atomic_init_u64(&share->batches, 0);
	share->nslots = nslots;
	for (int i = 0; i < nslots; i++)
		pg_atomic_init_u32(&share->slots[i].state, SLOT_FREE);
}

/* Ask the postmaster for a worker; false if there is no place for it. */
static bool
start_worker(ClockCrew *crew, int which)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "rebate", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "rebate_clock_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "rebate clock worker for PID %d", MyProcPid);
	strlcpy(worker.bgw_type, "rebate clock worker", BGW_MAXLEN);
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(crew->segment));
	memcpy(worker.bgw_extra, &which, sizeof(which));
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, &crew->handles[which]);
}

ClockCrew *
crew_begin(const ClockRun *run, int nworkers)
{
	MemoryContext old;
	ClockCrew  *crew;
	ClockShare *share;
	MemoryContextCallback *callback;
	int			nslots = NUM_SLOTS(nworkers);
	dsm_segment *segment;

	if (nworkers == 0 || IsBinaryUpgrade)
		return NULL;
	segment = create_segment(offsetof(ClockShare, slots) + sizeof(ShareSlot) * nslots);
	if (segment == NULL)
	{
		ereport(NOTICE,
				(errmsg("there is no shared memory for workers of rebate.mature()"),
				 errdetail("The run goes on without them.")));
		return NULL;
	}

	share = dsm_segment_address(segment);
	init_share(share, nslots);
	on_dsm_detach(segment, tell_over, PointerGetDatum(share));

	old = MemoryContextSwitchTo(run->context);
	crew = palloc0(sizeof(ClockCrew));
	crew->segment = segment;
	crew->share = share;
	callback = palloc0(sizeof(MemoryContextCallback));
	callback->func = detach_crew;
	callback->arg = crew;
	MemoryContextRegisterResetCallback(run->context, callback);
	while (crew->nworkers < nworkers && start_worker(crew, crew->nworkers))
		crew->nworkers++;
	MemoryContextSwitchTo(old);
	if (crew->nworkers < nworkers)
		ereport(NOTICE,
				(errmsg("%d of %d workers found no place", nworkers - crew->nworkers, nworkers),
				 errdetail("The run goes on without them."),
				 errhint("Raise max_worker_processes, or lower rebate.clock_workers.")));
	if (crew->nworkers > 0)
		return crew;
	dsm_detach(segment);
	crew->segment = NULL;
	return NULL;
}

int
crew_size(const ClockCrew *crew)
{
	return crew->nworkers;
}

/* Has a worker ended?  One that has not begun yet may still come. */
static bool
is_gone(const ClockCrew *crew, int which)
{
	pid_t		pid;

	return GetBackgroundWorkerPid(crew->handles[which], &pid) == BGWH_STOPPED;
}

DueWindow *
crew_free_window(ClockCrew *crew)
{
	ClockShare *share = crew->share;

	/* what a worker left behind stays with it until the run takes it */
	for (int i = 0; i < NUM_SLOTS(crew->nworkers); i++)
		if (pg_atomic_read_u32(&share->slots[i].state) == SLOT_FREE)
		{
			pg_read_barrier();
			return &share->slots[i].window;
		}
	return NULL;
}

void
crew_hand_out(ClockCrew *crew, DueWindow *window)
{
	pg_atomic_exchange_u32(&slot_of(window)->state, SLOT_WAITS);
	wake_workers(crew->share);
}

DueWindow *
crew_take(ClockCrew *crew)
{
	DueWindow  *window = share_take(crew->share, SLOT_OF_RUN);

	for (int i = 0; window == NULL && i < crew->share->nslots; i++)
	{
		ShareSlot  *slot = &crew->share->slots[i];
		uint32		state = pg_atomic_read_u32(&slot->state);

		if (state >= SLOT_OF_WORKER && is_gone(crew, state - SLOT_OF_WORKER) &&
			pg_atomic_compare_exchange_u32(&slot->state, &state, SLOT_OF_RUN))
			window = &slot->window;
	}
	return window;
}

void
crew_count(ClockCrew *crew, ClockRun *run)
{
	ClockShare *share = crew->share;

	run->done += pg_atomic_exchange_u64(&share->done, 0);
	run->busy += pg_atomic_exchange_u64(&share->busy, 0);
	run->batches += pg_atomic_exchange_u64(&share->batches, 0);
}

bool
crew_has_work(const ClockCrew *crew)
{
	for (int i = 0; i < crew->share->nslots; i++)
	{
		uint32		state = pg_atomic_read_u32(&crew->share->slots[i].state);

		if (state != SLOT_FREE && state != SLOT_OF_RUN)
			return true;
	}
	return false;
}

void
crew_report(ClockCrew *crew)
{
	int			nleft = 0;

	for (int i = 0; i < crew->nworkers; i++)
		nleft += is_gone(crew, i);
	if (nleft > 0)
		ereport(NOTICE,
				(errmsg("%d of %d workers left before the end of the run", nleft, crew->nworkers),
				 errdetail("The run has done what they left."),
				 errhint("The server's log tells why.")));
}
