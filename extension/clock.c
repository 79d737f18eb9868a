/*
 * clock.c
 *	  The runs of the jobs: one of each at a time, step by step, with progress.
 *
 * A run is a procedure that calls rebate.clock_step() and commits, until there is
 * no more to do.  What is to be done is told by the ledger itself, so that a run
 * may end anywhere; what a run remembers between its steps are hints, and lost
 * with the first error.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api.h"
#include "clock.h"
#include "clock_batch.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(rebate_clock_step);

/* The class of our advisory locks; those of users are 1 and 2.  View rebate.jobs has it, too. */
#define LOCK_CLASS_JOB	0x5203

/* Another one, of those that change what is archived */
#define LOCK_CLASS_ARCHIVE	0x5206

/* Between two writes of the progress, in milliseconds */
#define PROGRESS_INTERVAL	1000

static const ClockJob jobs[] = {
	{"mature", RIGHT_OPERATOR, false, clock_mature_step},
	{"age", RIGHT_OPERATOR, false, clock_age_step},
	{"retry_failures", RIGHT_OPERATOR, false, clock_retry_step},
	{"run_audit", RIGHT_OPERATOR, false, clock_audit_step},
	{"prune", RIGHT_OPERATOR, false, clock_prune_step},
	{"fold", RIGHT_OPERATOR, false, clock_fold_step},
	{"archive", RIGHT_OPERATOR, true, clock_archive_step},
	{"drop_archived", RIGHT_ADMIN, true, clock_drop_step},
};

static ClockRun *current = NULL;

const char *
clock_job_name(int i)
{
	return i < (int) lengthof(jobs) ? jobs[i].name : NULL;
}

static uint32
lock_key(const ClockJob *job)
{
	return hash_bytes((const unsigned char *) job->name, strlen(job->name));
}

static void
set_lock_tag(LOCKTAG *tag, const ClockJob *job)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, lock_key(job), LOCK_CLASS_JOB);
}

/* Take the locks of a run; false if another one has them. */
static bool
lock_job(const ClockJob *job)
{
	LOCKTAG		tag;
	LOCKTAG		archive;

	set_lock_tag(&tag, job);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	SET_LOCKTAG_ADVISORY(archive, MyDatabaseId, 0, 0, LOCK_CLASS_ARCHIVE);
	if (!job->archive || LockAcquire(&archive, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL)
		return true;
	(void) LockRelease(&tag, ExclusiveLock, true);
	return false;
}

static void
unlock_job(const ClockJob *job)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, job);
	(void) LockRelease(&tag, ExclusiveLock, true);
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, LOCK_CLASS_ARCHIVE);
	if (job->archive)
		(void) LockRelease(&tag, ExclusiveLock, true);
}

/* The run is over, however it ended. */
static void
end_run(void)
{
	ClockRun   *run = current;

	if (run == NULL)
		return;
	current = NULL;
	unlock_job(run->job);
	MemoryContextDelete(run->context);
}

void
clock_at_abort(void)
{
	end_run();
}

/*
 * Begin a run, unless one is on: its lock is the session's, since it outlives the
 * transactions of the run.
 */
static bool
begin_run(const ClockJob *job, TimestampTz upto, const char *note, int64 expected)
{
	MemoryContext context;

	if (!lock_job(job))
	{
		ereport(NOTICE,
				(job->archive ? errmsg("a run of rebate.archive() or rebate.drop_archived() is on") :
				 errmsg("another run of rebate.%s() is on", job->name),
				 errdetail("This one does nothing."),
				 errhint("See rebate.jobs.")));
		return false;
	}
	context = AllocSetContextCreate(TopMemoryContext, "rebate clock", ALLOCSET_DEFAULT_SIZES);
	current = MemoryContextAllocZero(context, sizeof(ClockRun));
	current->context = context;
	current->job = job;
	current->upto = upto;
	current->note = note ? MemoryContextStrdup(context, note) : NULL;
	current->expected = expected;
	return true;
}

/*
 * Of all runs of the job so far: those that ended, those that broke off, which
 * shows when the next begins, and what they did.  Before the row is brought along.
 */
static void
count_run(const ClockRun *run, bool finished)
{
	SqlParams	params = {0};

	sql_text(&params, run->job->name);
	sql_param(&params, BOOLOID, BoolGetDatum(run->progress_at == 0), false);
	sql_param(&params, BOOLOID, BoolGetDatum(finished), false);
	sql_param(&params, INT8OID, Int64GetDatum(run->done), false);
	sql_run("UPDATE rebate_data.job SET finished_runs = finished_runs + $3::integer,"
			"       stopped_runs = stopped_runs + ($2 AND finished_at IS NULL)::integer,"
			"       total_done = total_done + $4 - CASE WHEN $2 THEN 0 ELSE done END"
			" WHERE job = $1", &params, SPI_OK_UPDATE);
}

/* Tell how far the run is. */
static void
write_progress(Store *store, const ClockRun *run, bool finished)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_text(&params, run->job->name);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(run->upto), false);
	sql_param(&params, BOOLOID, BoolGetDatum(finished), false);
	sql_param(&params, INT8OID, Int64GetDatum(run->batches), false);
	sql_param(&params, INT8OID, Int64GetDatum(run->done), false);
	sql_int(&params, MyProcPid);
	sql_param(&params, INT8OID, Int64GetDatum((int64) lock_key(run->job)), false);
	sql_param(&params, BOOLOID, BoolGetDatum(run->progress_at == 0), false);
	store_spi_begin(store, &scope);
	if (store->version >= 2)
		count_run(run, finished);
	sql_run("INSERT INTO rebate_data.job AS j (job, upto, started_at, progress_at, finished_at, batches,"
			"                                  done, pid, lock_key, started_by)"
			" VALUES ($1, $2, clock_timestamp(), clock_timestamp(),"
			"         CASE WHEN $3 THEN clock_timestamp() END, $4, $5, $6, $7, session_user)"
			" ON CONFLICT (job) DO UPDATE SET upto = excluded.upto,"
			"   started_at = CASE WHEN $8 THEN excluded.started_at ELSE j.started_at END,"
			"   progress_at = excluded.progress_at, finished_at = excluded.finished_at,"
			"   batches = excluded.batches, done = excluded.done, pid = excluded.pid,"
			"   lock_key = excluded.lock_key, started_by = excluded.started_by",
			&params, SPI_OK_INSERT);
	store_spi_end(&scope);
}

/* The job of this name that takes this right */
static const ClockJob *
find_job(const char *name, int right)
{
	for (int i = 0; i < (int) lengthof(jobs); i++)
		if (jobs[i].right == right && strcmp(jobs[i].name, name) == 0)
			return &jobs[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no job \"%s\"", name)));
	return NULL;				/* keep compiler quiet */
}

/* Does the caller go on with the run? */
static bool
is_run_of(const ClockRun *run, const ClockJob *job, TimestampTz upto, const char *note,
		  int64 expected)
{
	return run->job == job && run->upto == upto && run->expected == expected &&
		(run->note == NULL ? note == NULL : note != NULL && strcmp(run->note, note) == 0);
}

/*
 * One step of a run; false when it is over.  The first tells in rebate.jobs that
 * the run is on, each of the others is a batch.  The transaction is the
 * procedure's, which commits it.  The caller has been checked.
 */
bool
clock_run_step(Store *store, int right, const char *name, TimestampTz upto, const char *note,
			   int64 expected)
{
	const ClockJob *job = find_job(name, right);
	TimestampTz now = GetCurrentTimestamp();
	bool		more;

	PreventCommandIfReadOnly("a job of rebate");
	if (TIMESTAMP_NOT_FINITE(upto))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the moment of rebate.%s() must be finite", job->name)));
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("rebate.%s() cannot run inside a transaction block", job->name),
				 errdetail("It commits after each batch, so that nobody waits for it.")));

	/* what another procedure left behind is not gone on with */
	if (current && !is_run_of(current, job, upto, note, expected))
		end_run();
	if (current == NULL && !begin_run(job, upto, note, expected))
		return false;

	/* what a crash takes back is done again, so no flush is waited for under locks */
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	if (current->progress_at == 0)
	{
		/* committed before the first batch, it shows a run that comes no further than that */
		write_progress(store, current, false);
		current->progress_at = now;
		return true;
	}
	if (current->batches > 0)
		clock_batch_pause();
	more = job->step(store, current);
	current->batches++;
	if (!more || TimestampDifferenceExceeds(current->progress_at, now, PROGRESS_INTERVAL))
	{
		write_progress(store, current, !more);
		current->progress_at = now;
	}
	if (!more)
		end_run();
	return more;
}

/* rebate.clock_step(job, upto): a step of a job of the clock */
Datum
rebate_clock_step(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	char	   *job = api_text(fcinfo, 0);

	rights_check(store, RIGHT_OPERATOR, "the jobs of rebate");
	if (job == NULL || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 job == NULL ? errmsg("the job must not be null") :
				 errmsg("the moment of rebate.%s() must not be null", job)));
	PG_RETURN_BOOL(clock_run_step(store, RIGHT_OPERATOR, job, PG_GETARG_TIMESTAMPTZ(1), NULL,
								  -1));
}
