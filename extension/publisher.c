/*
 * publisher.c
 *	  The background worker of a database: tells clients of what was committed.
 *
 * It takes the hints that committed transactions left in the ring, and looks for
 * committed entries itself where hints may be missing: when it starts, when a
 * ring was full or a transaction had too many accounts, after COMMIT PREPARED,
 * and each second in which transactions were committed.  What it announces is
 * flushed, so that no crash can take it back.
 *
 * A notification wakes every listener of the database (before PostgreSQL 19), so
 * the more one costs the fewer are sent: what comes meanwhile is announced with
 * the next.
 */
#include "rebate.h"

#include "access/transam.h"
#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "look.h"
#include "round.h"
#include "store_guard.h"
#include "wal_flush.h"
#include "xid_index.h"

PGDLLEXPORT void rebate_publisher_main(Datum arg);

#define LOOK_INTERVAL_MS	1000
#define MAX_LOOK_INTERVAL_MS	60000

/*
 * Milliseconds between two notifications: the square of those that one costs, or
 * half the square of the entries that come in one, in these limits.  The first
 * keeps the worker and the listeners that it wakes from taking the machine from
 * those who write: a notification takes longer the more listeners there are, and
 * the busier the machine is, and both count.  The second keeps the worker from
 * being busy with the waking: the more comes, the more goes into one message.
 */
#define MIN_PACE_MS			2
#define MAX_PACE_MS			250

/* So many rounds without news before it waits to be woken */
#define QUIET_ROUNDS		5

static RingDatabase *db = NULL;
static MemoryContext memory = NULL;

static TimestampTz oldest = 0;	/* commit of the first hint of the round */
static Oid	account_table = InvalidOid;	/* of the store that this is about */
static double last_look = 0;	/* by now_ms(), as all intervals */
static double look_interval_ms = LOOK_INTERVAL_MS;

/* Commits counted in async_begun that are all known to be flushed */
static uint64 async_flushed = PG_UINT64_MAX;

/* Of rounds, smoothed: the cost of a notification, and the entries that come in a millisecond */
static double cost_ms = 0;
static double entries_per_ms = 0;
static double last_round = 0;

/* What was committed at the last step of follow_silently() */
static SeenSnapshot passed;

/* Milliseconds of a clock that nobody sets back */
static double
now_ms(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MILLISEC(now);
}

static void
take_hints(void)
{
	Hint		hint;
	TimestampTz committed_at;

	while (round_accounts() < MAX_ROUND && ring_pop(db, &hint, &committed_at))
	{
		/* a store that was dropped had other accounts with the same ids */
		if (hint.accounts != account_table)
			continue;
		if (oldest == 0)
			oldest = committed_at;
		round_add(hint.account_id, &hint.handle, hint.first, hint.last);
		pg_atomic_fetch_add_u64(&db->hints, 1);
	}
}

/* Nobody is to be told of what waits in the ring. */
static void
drop_hints(void)
{
	Hint		hint;
	TimestampTz committed_at;

	while (ring_pop(db, &hint, &committed_at))
		;
}

/* Whether it is time to look, and there may be something to see */
static bool
look_is_due(void)
{
	if (pg_atomic_read_u32(&db->look) != 0)
		return true;
	return now_ms() - last_look >= look_interval_ms &&
		(!db->seen.valid || db->seen.nxip > 0 ||
		 db->seen.xmax != U64FromFullTransactionId(ReadNextFullTransactionId()));
}

/*
 * Flush what the active snapshot sees and a crash could take back: commits that
 * did not wait for the disk.  Those that did are not flushed again, since the
 * next commit of a shop with one writer would wait for that.
 */
static void
flush_visible(bool looked)
{
	/* in this order: if they are equal, all that have begun had ended */
	uint64		ended = pg_atomic_read_u64(&db->async_ended);
	uint64		begun;

	pg_memory_barrier();
	begun = pg_atomic_read_u64(&db->async_begun);
	if (begun == async_flushed && !looked)
		return;
	wal_flush_inserted();
	if (begun == ended)
		async_flushed = begun;
}

/*
 * In another mode nobody is told.  The place to look from goes along, some way
 * behind: sessions that return to the worker before it does leave hints that are
 * dropped here, and found by its next look.
 */
static void
follow_silently(void)
{
	drop_hints();
	pg_atomic_write_u32(&db->look, 0);
	if (db->seen.valid && now_ms() - last_look < LOOK_INTERVAL_MS)
		return;

	last_look = now_ms();
	look_again();
	if (passed.valid)
		db->seen = passed;
	StartTransactionCommand();
	seen_snapshot(GetLatestSnapshot(), &passed);
	CommitTransactionCommand();
	if (!db->seen.valid)
		db->seen = passed;
}

/*
 * The store; the worker ends without one, and leaves alone one that outlived a DROP
 * EXTENSION or is somebody else's.
 */
static Store *
publisher_store(void)
{
	Store	   *store = store_guarded() ? store_get(true) : NULL;

	if (store == NULL)
	{
		/* nobody is to be told; the next worker looks from where this one was */
		drop_hints();
		AbortCurrentTransaction();
		proc_exit(0);
	}
	if (store->tables[ST_ACCOUNT] != account_table)
	{
		/* another store, whose accounts may have the same ids */
		round_reset();
		look_again();
		account_table = store->tables[ST_ACCOUNT];
	}
	return store;
}

/* Look for entries that nobody announced.  Returns whether the look is complete. */
static bool
look_by_ourselves(Store *store, SeenSnapshot *seen)
{
	double		started = now_ms();
	bool		all;

	pg_atomic_write_u32(&db->look, 0);
	all = look(store, db, seen);
	last_look = now_ms();
	/* a tenth of the time at most, unless there is very much to see */
	look_interval_ms = Min(Max((last_look - started) * 10, LOOK_INTERVAL_MS), MAX_LOOK_INTERVAL_MS);
	return all;
}

/* Learn from a notification that was sent how long to wait for the next. */
static void
learn_pace(double started, double sent, int64 entries)
{
	double		passed_ms = Max(sent - last_round, 0.001);

	cost_ms = cost_ms * 0.8 + (sent - started) * 0.2;
	entries_per_ms = entries_per_ms * 0.9 + entries / passed_ms * 0.1;
	last_round = sent;
}

static long
pace_ms(void)
{
	double		pace = Max(cost_ms * cost_ms, entries_per_ms * entries_per_ms / 2);

	return (long) Min(Max(pace, MIN_PACE_MS), MAX_PACE_MS);
}

/*
 * One round: take hints, or look for what has none, and notify.  Returns whether
 * there was anything.
 */
static bool
publish(bool looking)
{
	bool		looked_all = false;
	bool		any;
	int64		entries = 0;
	static SeenSnapshot seen;	/* large */
	double		started;
	double		sent;
	Store	   *store;

	if (rebate_delivery != DELIVERY_WORKER)
	{
		follow_silently();
		return false;
	}
	passed.valid = false;
	if (!looking && !ring_ready(db))
		return false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	store = publisher_store();
	/* a look fills a round by itself */
	if (looking)
		looked_all = look_by_ourselves(store, &seen);
	else
		take_hints();
	any = round_accounts() > 0;
	if (any)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		flush_visible(looking);
		entries = round_send(store);
		PopActiveSnapshot();
	}
	/* what it costs to wake listeners, not to write what they are told */
	started = now_ms();
	CommitTransactionCommand();
	sent = now_ms();

	if (looked_all)
		db->seen = seen;
	else if (looking)
		ring_look(db);
	if (any)
	{
		learn_pace(started, sent, entries);
		pg_atomic_fetch_add_u64(&db->published, entries);
		pg_atomic_fetch_add_u64(&db->notifications, 1);
		if (oldest != 0)
			pg_atomic_write_u64(&db->lag_us, Max(GetCurrentTimestamp() - oldest, 0));
	}
	oldest = 0;
	round_end();
	if (looked_all)
		xid_index_keep_up();
	return any;
}

/* Remember an error, and go on after a while. */
static void
remember_error(void)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	EmitErrorReport();
	MemoryContextSwitchTo(memory);
	error = CopyErrorData();
	strlcpy(db->last_error, error->message ? error->message : "", sizeof(db->last_error));
	db->last_error_at = GetCurrentTimestamp();
	pg_atomic_fetch_add_u64(&db->errors, 1);
	FreeErrorData(error);
	AbortCurrentTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	/* what was taken is looked for again */
	oldest = 0;
	round_reset();
	look_again();
	ring_look(db);
}

static void
leave(int code, Datum arg)
{
	ring_lock(true);
	db->worker_pid = 0;
	db->latch = NULL;
	/* a worker that failed is started again by the postmaster */
	db->asked_at = code == 0 ? 0 : GetCurrentTimestamp();
	ring_unlock();
}

/*
 * Wait until hints come, the next look is due, or a notification may be sent
 * again.  While orders come the worker looks for hints by itself: to be woken
 * would cost those who write, and it would run just when and where they do.
 */
static void
wait_for_work(bool busy)
{
	static int	quiet = QUIET_ROUNDS;
	long		timeout = LOOK_INTERVAL_MS;

	quiet = busy ? 0 : Min(quiet + 1, QUIET_ROUNDS);
	if (quiet < QUIET_ROUNDS)
		timeout = pace_ms();
	else
	{
		pg_atomic_write_u32(&db->sleeping, 1);
		pg_memory_barrier();
		if (ring_ready(db) || pg_atomic_read_u32(&db->look) != 0)
			timeout = 0;
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 PG_WAIT_EXTENSION);
	pg_atomic_write_u32(&db->sleeping, 0);
	ResetLatch(MyLatch);
}

/* The background worker */
void
rebate_publisher_main(Datum arg)
{
	Oid			dbid = DatumGetObjectId(arg);
	sigjmp_buf	jump;

	db = ring_find(dbid);
	if (db == NULL)
		proc_exit(0);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	ring_lock(true);
	if (db->dbid != dbid || db->keep_away || db->worker_pid != 0)
	{
		/* who comes next need not wait for the worker that was asked for */
		if (db->dbid == dbid && db->worker_pid == 0)
			db->asked_at = 0;
		ring_unlock();
		proc_exit(0);
	}
	db->worker_pid = MyProcPid;
	db->latch = MyLatch;
	ring_unlock();
	before_shmem_exit(leave, (Datum) 0);

	BackgroundWorkerInitializeConnectionByOid(dbid, InvalidOid, 0);
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	pgstat_report_appname("rebate publisher");
	pgstat_report_activity(STATE_IDLE, NULL);
	memory = AllocSetContextCreate(TopMemoryContext, "rebate publisher", ALLOCSET_DEFAULT_SIZES);
	round_init(memory);
	ring_look(db);

	if (sigsetjmp(jump, 1) != 0)
	{
		error_context_stack = NULL;
		remember_error();
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1000L, PG_WAIT_EXTENSION);
	}
	PG_exception_stack = &jump;
	for (;;)
	{
		bool		busy;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (db->keep_away)
			proc_exit(0);
		/* hints first, so that a look finds nothing but what has none */
		busy = publish(false);
		if (look_is_due())
			busy |= publish(true);
		wait_for_work(busy);
	}
}

/*
 * Somebody wants a database for himself: its worker ends, and no other comes
 * before publisher_let_back().
 */
void
publisher_keep_away(Oid dbid)
{
	RingDatabase *other = ring_find(dbid);

	if (other == NULL)
		return;
	ring_lock(true);
	other->keep_away = true;
	pg_atomic_write_u32(&other->sleeping, 0);
	if (other->latch)
		SetLatch(other->latch);
	ring_unlock();

	/* it looks at least once a second; a session that ends takes a moment */
	for (int i = 0; i < 500 && other->worker_pid != 0; i++)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(10000L);
	}
	pg_usleep(20000L);
}

/*
 * The worker may come back; if there was one it does, since it may have left
 * hints unread.
 */
void
publisher_let_back(Oid dbid)
{
	RingDatabase *other = ring_find(dbid);

	if (other == NULL)
		return;
	other->keep_away = false;
	if (other->seen.valid || ring_used(other) > 0)
		(void) delivery_register_worker(other, dbid);
}

void
publisher_remember_snapshot(void)
{
	RingDatabase *mine = ring_database();
	static SeenSnapshot now;	/* large */

	if (mine == NULL || mine->seen.valid || mine->worker_pid != 0)
		return;
	seen_snapshot(GetLatestSnapshot(), &now);
	ring_lock(true);
	if (!mine->seen.valid && mine->worker_pid == 0)
		mine->seen = now;
	ring_unlock();
}
