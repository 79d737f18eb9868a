/*
 * statistics_store.c
 *	  The views rebate.stat_jobs, stat_backlog and stat_tables, which read the store.
 *
 * They are read each few seconds for years, so each figure comes by an index,
 * and no more than BACKLOG_COUNTED rows of anything are counted.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "clock.h"
#include "counters.h"
#include "read.h"
#include "statistics.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_stat_jobs);
PG_FUNCTION_INFO_V1(rebate_stat_backlog);
PG_FUNCTION_INFO_V1(rebate_stat_tables);

/*
 * Run a query as the store's owner and return its rows.  Indexes are used whatever
 * is known of the tables: they may have grown since, or have just been emptied.
 */
static void
return_query(FunctionCallInfo fcinfo, Store *store, const char *sql, SqlParams *params)
{
	static const char *const off[] = {"enable_seqscan", "enable_bitmapscan", "enable_sort", "jit"};
	int			level = NewGUCNestLevel();
	StoreSpi	scope;

	for (int i = 0; i < (int) lengthof(off); i++)
		(void) set_config_option(off[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true,
								 0, false);
	store_spi_begin(store, &scope);
	sql_run(sql, params, SPI_OK_SELECT);
	read_return_spi((ReturnSetInfo *) fcinfo->resultinfo);
	store_spi_end(&scope);
	AtEOXact_GUC(true, level);
}

/* A job that never ran has a row, too.  State: as in view rebate.jobs */
#define JOBS(totals) \
	"SELECT n.job, s.state, j.started_at, j.progress_at, j.finished_at, j.batches, j.done, " totals \
	"  FROM unnest($1) WITH ORDINALITY n(job, place)" \
	"  LEFT JOIN rebate_data.job j ON j.job = n.job COLLATE \"C\"" \
	" CROSS JOIN LATERAL (SELECT" \
	"       CASE WHEN j.job IS NULL THEN 'never'" \
	"            WHEN EXISTS (SELECT FROM pg_locks l" \
	"                          WHERE l.locktype = 'advisory' AND l.objsubid = 20995 AND l.granted" \
	"                            AND l.database = (SELECT d.oid FROM pg_database d" \
	"                                               WHERE d.datname = current_database())" \
	"                            AND l.pid = j.pid AND l.objid::bigint = j.lock_key) THEN 'running'" \
	"            WHEN j.finished_at IS NOT NULL THEN 'finished' ELSE 'stopped' END AS state) s" \
	" ORDER BY n.place"

/* rebate.get_stat_jobs() */
Datum
rebate_stat_jobs(PG_FUNCTION_ARGS)
{
	SqlParams	params = {0};
	Datum		names[16];
	Store	   *store;
	int			n = 0;

	statistics_check_user("rebate.stat_jobs");
	InitMaterializedSRF(fcinfo, 0);
	store = store_get(true);
	if (store == NULL)
		return (Datum) 0;
	while (n < (int) lengthof(names) && clock_job_name(n))
	{
		names[n] = CStringGetTextDatum(clock_job_name(n));
		n++;
	}
	sql_param(&params, TEXTARRAYOID,
			  PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT)), false);
	return_query(fcinfo, store,
				 store->version >= 2 ? JOBS("COALESCE(j.finished_runs, 0),"
					  " COALESCE(j.stopped_runs, 0) + (s.state = 'stopped')::integer,"
					  " COALESCE(j.total_done, 0)") :
				 JOBS("NULL::bigint, NULL::bigint, NULL::bigint"), &params);
	return (Datum) 0;
}

#define BACKLOG_COUNTED	"10000"

/* Rows of a table that fulfil a condition: how many (not more than so many), and the oldest moment */
#define COUNT(table, condition) \
	"(SELECT count(*) FROM (SELECT FROM " table " w WHERE " condition " LIMIT " BACKLOG_COUNTED ") c)"
#define OLDEST(table, moment, condition) \
	"(SELECT w." moment " FROM " table " w WHERE " condition " ORDER BY w." moment " LIMIT 1)"

#define DUE(bucket)		"w.bucket = '" bucket "' AND w.due <= clock.now"
#define OF_SOURCE		"w.source_id = s.source_id"

/* "more": of what only later versions of the store have */
#define BACKLOG(more) \
"WITH clock AS (SELECT clock_timestamp() AS now)" \
" SELECT 'mature', NULL, " COUNT("rebate_data.waiting", DUE("2")) ", " \
OLDEST("rebate_data.waiting", "due", DUE("2")) " FROM clock" \
" UNION ALL " \
"SELECT 'age', NULL, " \
COUNT("rebate_data.waiting", DUE("0")) " + " COUNT("rebate_data.waiting", DUE("1")) ", LEAST(" \
OLDEST("rebate_data.waiting", "due", DUE("0")) ", " OLDEST("rebate_data.waiting", "due", DUE("1")) ") FROM clock" \
" UNION ALL " \
"SELECT 'failure', s.relation_name, " COUNT("rebate_data.failure", OF_SOURCE) ", " \
OLDEST("rebate_data.failure", "first_failed_at", OF_SOURCE) " FROM rebate_data.source s" \
" UNION ALL " \
"SELECT 'deferred', s.relation_name, " COUNT("rebate_data.deferred", OF_SOURCE) ", " \
OLDEST("rebate_data.deferred", "first_seen", OF_SOURCE) " FROM rebate_data.source s" \
" WHERE s.detached_at IS NULL" more

/* Those that persons decide are few: decided ones are passed over */
#define BACKLOG_OF_PERSONS \
" UNION ALL " \
"SELECT 'draft', NULL, count(*), min(d.written_at) FROM rebate_data.draft d WHERE d.state = 'open'" \
" UNION ALL " \
"SELECT 'erasure', NULL, count(*), min(q.requested_at) FROM rebate_data.erasure_request q"

/* rebate.get_stat_backlog() */
Datum
rebate_stat_backlog(PG_FUNCTION_ARGS)
{
	Store	   *store;

	statistics_check_user("rebate.stat_backlog");
	InitMaterializedSRF(fcinfo, 0);
	store = store_get(true);
	if (store)
		return_query(fcinfo, store, store->version >= 2 ? BACKLOG(BACKLOG_OF_PERSONS) : BACKLOG(""),
					 NULL);
	return (Datum) 0;
}

/* An attached table, and what shared memory tells of it: nothing, if it has no counters */
static void
return_table(ReturnSetInfo *result, Store *store, Datum source, int32 source_id)
{
	uint64		totals[NUM_TABLE_COUNTERS];
	TimestampTz last_order;
	Datum		values[NUM_TABLE_COUNTERS + 2] = {source};
	bool		nulls[NUM_TABLE_COUNTERS + 2];
	bool		counted = counters_read_of(store, source_id, totals, &last_order);

	memset(nulls, !counted, sizeof(nulls));
	nulls[0] = false;
	for (int i = 0; counted && i < NUM_TABLE_COUNTERS; i++)
		values[i + 1] = Int64GetDatum((int64) totals[i]);
	values[NUM_TABLE_COUNTERS + 1] = TimestampTzGetDatum(last_order);
	nulls[NUM_TABLE_COUNTERS + 1] |= last_order == 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* rebate.get_stat_tables(): the columns after the first are in the order of the counters */
Datum
rebate_stat_tables(PG_FUNCTION_ARGS)
{
	Store	   *store;
	StoreSpi	scope;
	uint64		n;

	statistics_check_user("rebate.stat_tables");
	InitMaterializedSRF(fcinfo, 0);
	store = store_get(true);
	if (store == NULL)
		return (Datum) 0;
	store_spi_begin(store, &scope);
	n = sql_run("SELECT relation_name, source_id FROM rebate_data.source WHERE detached_at IS NULL"
				" ORDER BY relation_name COLLATE \"C\"", NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
	{
		bool		isnull;
		Datum		source = sql_get(row, 1, &isnull);

		return_table((ReturnSetInfo *) fcinfo->resultinfo, store, source, sql_get_int(row, 2, 0));
	}
	store_spi_end(&scope);
	return (Datum) 0;
}
