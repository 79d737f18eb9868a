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
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api.h"
#include "channel.h"
#include "delivery.h"
#include "wal_flush.h"
#include "xid_index.h"

PGDLLEXPORT void rebate_publisher_main(Datum arg);

#define LOOK_INTERVAL_MS	1000
#define MIN_PACE_MS			1
#define MAX_PACE_MS			100
/* A notification may take this part of the time: its cost to listeners is some ten times as much */
#define PACE_FACTOR			50

/* Accounts in one notification; what is more waits for the next */
#define MAX_ROUND			4096

/* Accounts whose last announced entry is remembered; then all are forgotten */
#define MAX_ANNOUNCED		200000

typedef struct Announced
{
	int64		account_id;
	uint32		hash;
	char		status;
	int64		last;			/* announced up to here */
	int64		first;			/* of this round; 0: not in it */
	pg_uuid_t	handle;
} Announced;

#define SH_PREFIX announced
#define SH_ELEMENT_TYPE Announced
#define SH_KEY_TYPE int64
#define SH_KEY account_id
#define SH_HASH_KEY(tb, k) hash_bytes_uint32((uint32) (k) ^ (uint32) ((k) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

static RingDatabase *db = NULL;
static MemoryContext memory = NULL;
static announced_hash *announced = NULL;

/* Accounts of this round, in the order in which they came */
static int64 round_accounts[MAX_ROUND];
static int	nround = 0;
static TimestampTz oldest = 0;	/* commit of the first hint of the round */

static Oid	account_table = InvalidOid;	/* of the store that this is about */
static TimestampTz last_look = 0;
static int	look_interval_ms = LOOK_INTERVAL_MS;
static SeenSnapshot looking_from;	/* when the look at hand began */
static int64 looked_upto = 0;	/* the account that it has come to */

static double notify_us = 0;	/* what a notification costs, smoothed */

/* Entries first to last of an account are to be announced, if they are news. */
static void
announce(int64 account_id, const pg_uuid_t *handle, int64 first, int64 last)
{
	Announced  *a;
	bool		found;

	a = announced_insert(announced, account_id, &found);
	if (!found)
	{
		a->last = first - 1;
		a->first = 0;
	}
	if (last <= a->last)
		return;
	if (a->first == 0)
	{
		/* a later commit may have come first, then this one is announced with it */
		a->first = a->last + 1;
		round_accounts[nround++] = account_id;
	}
	a->handle = *handle;
	a->last = last;
}

static void
take_hints(void)
{
	Hint		hint;
	TimestampTz committed_at;

	while (nround < MAX_ROUND && ring_pop(db, &hint, &committed_at))
	{
		if (oldest == 0)
			oldest = committed_at;
		announce(hint.account_id, &hint.handle, hint.first, hint.last);
		pg_atomic_fetch_add_u64(&db->hints, 1);
	}
}

/* The snapshot as it will be remembered; false if it has too many transactions */
static bool
describe_snapshot(Snapshot snapshot, SeenSnapshot *seen)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		epoch = EpochFromFullTransactionId(next);
	uint32		next_xid = XidFromFullTransactionId(next);

#define FULL_XID(xid) (((uint64) ((xid) > next_xid ? epoch - 1 : epoch) << 32) | (xid))
	seen->valid = snapshot->xcnt <= MAX_REMEMBERED_XIDS;
	seen->xmin = FULL_XID(snapshot->xmin);
	seen->xmax = FULL_XID(snapshot->xmax);
	seen->nxip = seen->valid ? snapshot->xcnt : 0;
	for (int i = 0; i < seen->nxip; i++)
		seen->xip[i] = FULL_XID(snapshot->xip[i]);
#undef FULL_XID
	return seen->valid;
}

/*
 * Look for entries that are committed now and were not when we looked last: at
 * most a round of accounts, in the order of their ids.  Returns whether that was
 * all; "seen" is then what this look saw when it began.
 */
static bool
look(Store *store)
{
	SeenSnapshot *before = &db->seen;
	Datum	   *xids = palloc(sizeof(Datum) * Max(before->nxip, 1));
	Oid			argtypes[5] = {INT8OID, INT8OID, INT8ARRAYOID, INT4OID, INT8OID};
	Datum		values[5];
	StoreSpi	scope;
	bool		all = true;

	store_spi_begin(store, &scope);
	if (looked_upto == 0)
		describe_snapshot(GetActiveSnapshot(), &looking_from);
	if (before->valid)
	{
		for (int i = 0; i < before->nxip; i++)
			xids[i] = Int64GetDatum((int64) before->xip[i]);
		values[0] = Int64GetDatum((int64) before->xmin);
		values[1] = Int64GetDatum((int64) before->xmax);
		values[2] = PointerGetDatum(construct_array(xids, before->nxip, INT8OID, 8,
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		values[3] = Int32GetDatum(store->epoch);
		values[4] = Int64GetDatum(looked_upto);
		(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		if (SPI_execute_with_args("SELECT e.account_id, a.handle, min(e.seq), max(e.seq)"
								  "  FROM (SELECT account_id, seq, xid, epoch FROM rebate_data.accrual"
								  "         WHERE xid >= $1 AND seq IS NOT NULL"
								  "        UNION ALL"
								  "        SELECT account_id, seq, xid, epoch FROM rebate_data.entry"
								  "         WHERE xid >= $1) e"
								  "  JOIN rebate_data.account a ON a.account_id = e.account_id"
								  " WHERE e.epoch = $4 AND (e.xid >= $2 OR e.xid = ANY ($3))"
								  "   AND e.account_id > $5"
								  " GROUP BY e.account_id, a.handle ORDER BY e.account_id",
								  5, argtypes, values, NULL, true, MAX_ROUND) != SPI_OK_SELECT)
			elog(ERROR, "could not look for entries");
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool		isnull;

			looked_upto = DatumGetInt64(sql_get(i, 1, &isnull));
			announce(looked_upto, DatumGetUUIDP(sql_get(i, 2, &isnull)),
					 DatumGetInt64(sql_get(i, 3, &isnull)),
					 DatumGetInt64(sql_get(i, 4, &isnull)));
		}
		all = SPI_processed < MAX_ROUND;
		pg_atomic_fetch_add_u64(&db->sweeps, 1);
	}
	store_spi_end(&scope);
	return all;
}

/* Whether it is time to look, and there may be something to see */
static bool
look_is_due(void)
{
	if (pg_atomic_read_u32(&db->look) != 0)
		return true;
	return TimestampDifferenceExceeds(last_look, GetCurrentTimestamp(), look_interval_ms) &&
		(!db->seen.valid || db->seen.nxip > 0 ||
		 db->seen.xmax != U64FromFullTransactionId(ReadNextFullTransactionId()));
}

/* Send what the round has. */
static void
notify_round(Store *store)
{
	Hint	   *members = palloc(sizeof(Hint) * nround);
	SharedPayload *payload = palloc0(sizeof(SharedPayload));
	int64		published = 0;

	for (int i = 0; i < nround; i++)
	{
		Announced  *a = announced_lookup(announced, round_accounts[i]);

		shared_payload_add(payload, &a->handle, a->last);
		members[i].account_id = a->account_id;
		members[i].handle = a->handle;
		members[i].first = a->first;
		members[i].last = a->last;
		published += a->last - a->first + 1;
	}
	shared_payload_send(payload);
	(void) channel_notify(store, members, nround);
	pg_atomic_fetch_add_u64(&db->published, published);
	pg_atomic_fetch_add_u64(&db->notifications, 1);
}

static void
forget_round(void)
{
	for (int i = 0; i < nround; i++)
	{
		Announced  *a = announced_lookup(announced, round_accounts[i]);

		if (a)
			a->first = 0;
	}
	nround = 0;
	oldest = 0;
	if (announced->members > MAX_ANNOUNCED)
	{
		announced_destroy(announced);
		announced = announced_create(memory, 1024, NULL);
	}
}

/*
 * One round: take hints, look if it is time, notify.  Returns whether there was
 * anything.  Without a store the worker ends.
 */
static bool
publish(void)
{
	bool		looking = look_is_due();
	bool		looked_all = true;
	bool		keep_up = false;
	TimestampTz started;
	Store	   *store;

	if (rebate_delivery != DELIVERY_WORKER)
	{
		/* nobody is told of what was committed meanwhile */
		nround = 0;
		while (ring_used(db) > 0)
		{
			take_hints();
			forget_round();
		}
		db->seen.valid = false;
		pg_atomic_write_u32(&db->look, 0);
		return false;
	}
	if (!looking && ring_used(db) == 0)
		return false;

	started = GetCurrentTimestamp();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	store = store_get(true);
	if (store == NULL)
	{
		AbortCurrentTransaction();
		proc_exit(0);
	}
	if (store->tables[ST_ACCOUNT] != account_table)
	{
		/* another store, whose accounts may have the same ids */
		announced_reset(announced);
		account_table = store->tables[ST_ACCOUNT];
	}
	/* a look fills a round by itself */
	if (!looking)
		take_hints();
	if (looking)
	{
		pg_atomic_write_u32(&db->look, 0);
		looked_all = look(store);
		last_look = GetCurrentTimestamp();
		/* a fiftieth of the time at most, however much there is to see */
		look_interval_ms = Max(LOOK_INTERVAL_MS, (int) ((last_look - started) / 20));
	}
	if (nround > 0)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		wal_flush_inserted();
		started = GetCurrentTimestamp();
		notify_round(store);
		PopActiveSnapshot();
	}
	CommitTransactionCommand();

	if (looking && looked_all)
	{
		db->seen = looking_from;
		looked_upto = 0;
		keep_up = true;
	}
	else if (looking)
		ring_look(db);
	if (nround > 0)
	{
		TimestampTz finished = GetCurrentTimestamp();

		notify_us = notify_us * 0.9 + (finished - started) * 0.1;
		if (oldest != 0)
			pg_atomic_write_u64(&db->lag_us, finished - oldest);
	}
	looking = nround > 0;
	forget_round();
	if (keep_up)
		xid_index_keep_up();
	return looking;
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
	FreeErrorData(error);
	AbortCurrentTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	/* what was taken is looked for again */
	forget_round();
	announced_reset(announced);
	looked_upto = 0;
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

/* Wait until hints come, the next look is due, or a notification may be sent again. */
static void
wait_for_work(bool busy)
{
	long		timeout = LOOK_INTERVAL_MS;

	if (busy)
	{
		/* nobody needs to wake us */
		timeout = Min(Max((long) (notify_us * PACE_FACTOR / 1000), MIN_PACE_MS), MAX_PACE_MS);
	}
	else
	{
		pg_atomic_write_u32(&db->sleeping, 1);
		pg_memory_barrier();
		if (ring_used(db) > 0 || pg_atomic_read_u32(&db->look) != 0)
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
	announced = announced_create(memory, 1024, NULL);
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
		busy = publish();
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
	Snapshot	snapshot;

	if (mine == NULL || mine->seen.valid || mine->worker_pid != 0)
		return;
	snapshot = GetLatestSnapshot();
	ring_lock(true);
	if (!mine->seen.valid && mine->worker_pid == 0)
		describe_snapshot(snapshot, &mine->seen);
	ring_unlock();
}
