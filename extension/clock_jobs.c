/*
 * clock_jobs.c
 *	  The jobs besides those that move money: failures, the audit, histories.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api.h"
#include "clock.h"
#include "clock_batch.h"
#include "reconcile.h"
#include "rules.h"
#include "schedule.h"

/* Failures of the first batch, and at most of one: the rows of all are locked while it lasts */
#define FIRST_RETRY_BATCH	10
#define MAX_RETRY_BATCH		50

/* Rows of a history deleted at once */
#define PRUNE_BATCH	1000

/* The last failure looked at */
typedef struct Retry
{
	ClockBatch	batch;
	int32		source_id;
	char	   *key;			/* NULL: none yet */
} Retry;

/*
 * Decide again what was set aside, in the order of tables and keys, those that
 * failed last not later than "upto".
 */
bool
clock_retry_step(Store *store, ClockRun *run)
{
	MemoryContext caller = CurrentMemoryContext;
	Retry	   *retry = run->state;
	Reconciled	result = {0};
	List	   *keys = NIL;
	Oid			relid = InvalidOid;
	StoreSpi	scope;
	SqlParams	params = {0};
	Source	   *source;
	int			n;

	if (retry == NULL)
	{
		retry = run->state = MemoryContextAllocZero(run->context, sizeof(Retry));
		clock_batch_init(&retry->batch, FIRST_RETRY_BATCH, MAX_RETRY_BATCH);
	}
	sql_int(&params, retry->source_id);
	sql_text(&params, retry->key ? retry->key : "");
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(run->upto), false);
	sql_int(&params, retry->batch.rows);
	store_spi_begin(store, &scope);
	/* of an ambiguous change of keys only a person knows which became which */
	n = (int) sql_run("SELECT f.source_id, s.relation::oid, f.order_key"
					  "  FROM rebate_data.failure f"
					  "  JOIN rebate_data.source s ON s.source_id = f.source_id AND s.detached_at IS NULL"
					  " WHERE (f.source_id, f.order_key) > ($1, $2 COLLATE \"C\") AND f.sqlstate <> 'RB012'"
					  "   AND f.last_failed_at <= $3"
					  " ORDER BY f.source_id, f.order_key LIMIT $4", &params, SPI_OK_SELECT);
	for (int row = 0; row < n; row++)
	{
		bool		isnull;
		Oid			of_row = DatumGetObjectId(sql_get(row, 2, &isnull));
		MemoryContext old;

		/* one table a step */
		if (row > 0 && of_row != relid)
			break;
		relid = of_row;
		retry->source_id = sql_get_int(row, 1, 0);
		old = MemoryContextSwitchTo(caller);
		keys = lappend(keys, sql_get_text(row, 3, caller));
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);
	if (n == 0)
		return false;
	if (retry->key)
		pfree(retry->key);
	retry->key = MemoryContextStrdup(run->context, llast(keys));

	(void) rules_generation(store);
	source = source_get(store, relid);
	if (source == NULL || source->broken)
		return true;
	clock_batch_locks(&retry->batch);
	reconcile_keys(store, source, keys, false, &result);
	clock_batch_end(&retry->batch, list_length(keys));
	run->done += result.ndecided - result.nfailed;
	run->busy += result.nbusy;
	return true;
}

/* The audit, whose findings are kept until the next. */
bool
clock_audit_step(Store *store, ClockRun *run)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	int			level;
	char	  **texts;
	uint64		n;

	/* as the caller, and with the guards up: the audit evaluates expressions */
	level = sql_begin();
	n = sql_run("SELECT part, violation, subject, detail FROM rebate.audit()", NULL, SPI_OK_SELECT);
	texts = MemoryContextAllocHuge(context, sizeof(char *) * 4 * Max(n, 1));
	for (uint64 row = 0; row < n; row++)
		for (int i = 0; i < 4; i++)
			texts[row * 4 + i] = sql_get_text(row, i + 1, context);
	sql_end(level);

	store_spi_begin(store, &scope);
	sql_run("DELETE FROM rebate_data.finding", NULL, SPI_OK_DELETE);
	for (uint64 row = 0; row < n; row++)
	{
		SqlParams	params = {0};

		sql_param(&params, INT8OID, Int64GetDatum((int64) row + 1), false);
		for (int i = 0; i < 4; i++)
			sql_text(&params, texts[row * 4 + i]);
		sql_run("INSERT INTO rebate_data.finding (finding, found_at, part, violation, subject, detail)"
				" VALUES ($1, now(), $2, $3, $4, $5)", &params, SPI_OK_INSERT);
	}
	store_spi_end(&scope);
	run->done = (int64) n;
	if (n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg_plural("the audit found " INT64_FORMAT " violation",
							   "the audit found " INT64_FORMAT " violations",
							   run->done, run->done),
				 errhint("See rebate.findings.")));
	return false;
}

/* What pg_cron keeps of our jobs' runs, but for the last week before "upto" */
bool
clock_prune_step(Store *store, ClockRun *run)
{
	int64		n = schedule_prune(run->upto, PRUNE_BATCH);

	run->done += n;
	return n == PRUNE_BATCH;
}
