/*
 * doctor.c
 *	  rebate.doctor(): whether all is as it should be, and what to call if not.
 *
 * Quick enough for each minute: it reads catalogs, what waits in the store, and
 * of each table some pages.  Whether the money is right the audit tells.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"

#include "api.h"
#include "collect.h"
#include "counters.h"
#include "delivery.h"
#include "doctor.h"
#include "rights.h"
#include "ring.h"
#include "rules.h"
#include "schedule.h"
#include "store_shape.h"

PG_FUNCTION_INFO_V1(rebate_doctor);

/* A worker that leaves a hint so long does not work */
#define HINT_PATIENCE_MS	60000

void
doctor_say(ReturnSetInfo *result, const char *check, const char *subject, const char *status,
		   const char *detail, const char *remedy)
{
	const char *texts[5] = {check, subject, status, detail, remedy};
	Datum		values[5];
	bool		nulls[5];

	for (int i = 0; i < 5; i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = texts[i] ? CStringGetTextDatum(texts[i]) : (Datum) 0;
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* The attached tables: an array of OIDs, also for queries that run as the caller */
static Datum
attached_relations(Store *store)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext old;
	StoreSpi	scope;
	bool		isnull;
	Datum		relids;

	store_spi_begin(store, &scope);
	sql_run("SELECT ARRAY(SELECT relation::oid FROM rebate_data.source WHERE detached_at IS NULL"
			"             ORDER BY source_id)",
			NULL, SPI_OK_SELECT);
	relids = sql_get(0, 1, &isnull);
	old = MemoryContextSwitchTo(context);
	relids = PointerGetDatum(PG_DETOAST_DATUM_COPY(relids));
	MemoryContextSwitchTo(old);
	store_spi_end(&scope);
	return relids;
}

/* The rows of one query; returns their number. */
static uint64
run_query(Store *store, ReturnSetInfo *result, const DoctorQuery *query, Datum relids)
{
	MemoryContext context = CurrentMemoryContext;
	SqlParams	params = {0};
	StoreSpi	scope;
	int			level = 0;
	uint64		n;

	if (query->as_caller)
		level = sql_begin();
	else
		store_spi_begin(store, &scope);
	sql_param(&params, OIDARRAYOID, relids, false);
	n = sql_run(query->sql, query->as_caller ? &params : NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		doctor_say(result, query->check, sql_get_text(row, 1, context),
				   sql_get_text(row, 2, context), sql_get_text(row, 3, context),
				   sql_get_text(row, 4, context));
		MemoryContextSwitchTo(old);
	}
	if (query->as_caller)
		sql_end(level);
	else
		store_spi_end(&scope);
	return n;
}

/* The queries of one check, from "query" on; returns the first of the next. */
static const DoctorQuery *
run_check(Store *store, ReturnSetInfo *result, const DoctorQuery *query, Datum relids, bool *fine)
{
	const char *check = query->check;

	for (*fine = true; query->check && strcmp(query->check, check) == 0; query++)
		if (run_query(store, result, query, relids) > 0)
			*fine = false;
	return query;
}

/* What makes the server load the library when it starts */
static char *
preload_command(void)
{
	char	   *names = pstrdup(GetConfigOption("shared_preload_libraries", false, false));
	List	   *list;
	ListCell   *lc;
	StringInfoData command;

	initStringInfo(&command);
	appendStringInfoString(&command, "ALTER SYSTEM SET shared_preload_libraries = ");
	if (SplitDirectoriesString(names, ',', &list))
		foreach(lc, list)
			appendStringInfo(&command, "%s, ", quote_literal_cstr(lfirst(lc)));
	appendStringInfoString(&command, "'rebate' -- and restart");
	return command.data;
}

/* Whether clients are told as they should be */
static bool
check_delivery(ReturnSetInfo *result)
{
	const char *reason;
	DeliveryMode mode = delivery_mode(&reason);
	RingDatabase *db = ring_exists() ? ring_database() : NULL;
	bool		fine = true;

	if (mode != (DeliveryMode) rebate_delivery)
	{
		doctor_say(result, "delivery", "rebate.delivery", "notice", reason,
				   !ring_exists() ? preload_command() :
				   db == NULL ?
				   psprintf("ALTER SYSTEM SET rebate.max_databases = %d -- and restart",
							2 * rebate_max_databases) :
				   psprintf("ALTER SYSTEM SET max_worker_processes = %d -- and restart",
							max_worker_processes + 8));
		fine = false;
	}
	else if (mode == DELIVERY_OFF)
	{
		doctor_say(result, "delivery", "rebate.delivery", "notice", "nobody is notified",
				   "ALTER SYSTEM SET rebate.delivery = worker -- then SELECT pg_reload_conf()");
		fine = false;
	}
	if (db && pg_atomic_read_u64(&db->overflows) > 0)
	{
		doctor_say(result, "delivery", "rebate.ring_size", "notice",
				   psprintf(UINT64_FORMAT " times the ring was full; the worker's looks found what did not fit in",
							pg_atomic_read_u64(&db->overflows)),
				   psprintf("ALTER SYSTEM SET rebate.ring_size = %d -- and restart",
							Min(4 * rebate_ring_size, 1048576)));
		fine = false;
	}
	if (db && mode == DELIVERY_WORKER)
	{
		TimestampTz oldest = ring_oldest(db);
		pid_t		pid = db->worker_pid;

		if (oldest != 0 && TimestampDifferenceExceeds(oldest, GetCurrentTimestamp(), HINT_PATIENCE_MS))
		{
			doctor_say(result, "delivery", "worker", "problem",
					   psprintf("%s: the first of " UINT64_FORMAT " hints waits since %s",
								pid != 0 ? "it does not work" : "it is not there", ring_used(db),
								timestamptz_to_str(oldest)),
					   pid != 0 ? psprintf("SELECT pg_terminate_backend(%d) -- another one comes", (int) pid) :
					   "SELECT * FROM rebate.delivery_status -- the next order asks for it again; the server's log says why it ends");
			fine = false;
		}
	}
	if (db && db->last_error[0] != '\0')
	{
		doctor_say(result, "delivery", "worker", "notice",
				   psprintf("its last error, %s: %s", timestamptz_to_str(db->last_error_at),
							db->last_error),
				   "SELECT * FROM rebate.delivery_status -- it goes on by itself");
		fine = false;
	}
	return fine;
}

/* Whether all attached tables have a place among the counters */
static void
check_statistics(Store *store, ReturnSetInfo *result)
{
	int			left_out = 0;

	if (ring_exists() && ring_database())
	{
		StoreSpi	scope;
		uint64		n;

		store_spi_begin(store, &scope);
		n = sql_run("SELECT source_id FROM rebate_data.source WHERE detached_at IS NULL", NULL,
					SPI_OK_SELECT);
		for (uint64 row = 0; row < n; row++)
		{
			uint64		totals[NUM_TABLE_COUNTERS];
			TimestampTz last_order;

			left_out += !counters_read_of(store, sql_get_int(row, 1, 0), totals, &last_order);
		}
		store_spi_end(&scope);
	}
	if (left_out > 0)
		doctor_say(result, "statistics", "rebate.counted_tables", "notice",
				   psprintf("attached tables that rebate.stat_tables does not count: %d; all places are taken",
							left_out),
				   psprintf("ALTER SYSTEM SET rebate.counted_tables = %d -- and restart",
							Min(2 * rebate_counted_tables, 65536)));
	else
		doctor_say(result, "statistics", NULL, "ok", NULL, NULL);
}

static void
say_clock(void *arg, const char *subject, const char *status, const char *detail,
		  const char *remedy)
{
	doctor_say(arg, "clock", subject, status, detail, remedy);
}

/* Each check of a list, those with a part in C too: its lines, or one that all is well */
static void
run_checks(Store *store, ReturnSetInfo *result, const DoctorQuery *query, Datum relids)
{
	while (query->check)
	{
		const char *check = query->check;
		bool		fine;

		query = run_check(store, result, query, relids, &fine);
		if (strcmp(check, "clock") == 0)
			fine &= schedule_check(say_clock, result);
		else if (strcmp(check, "delivery") == 0)
			fine &= check_delivery(result);
		if (fine)
			doctor_say(result, check, NULL, "ok", NULL, NULL);
	}
}

/* rebate.doctor(thorough) */
Datum
rebate_doctor(PG_FUNCTION_ARGS)
{
	bool		thorough = !PG_ARGISNULL(0) && PG_GETARG_BOOL(0);
	ErrorData  *damage;
	Store	   *store = doctor_find_store(&damage);
	ReturnSetInfo *result;
	Datum		relids;
	int			level;

	if (store)
	{
		rights_check(store, RIGHT_OPERATOR, "rebate.doctor");
		collect_flush();
	}
	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (damage)
	{
		doctor_damage(result, damage);
		return (Datum) 0;
	}
	if (store == NULL)
	{
		if (store_is_empty())
			doctor_say(result, "store", "rebate_data", "problem",
					   "the store is empty, as after the restore of a dump without data",
					   "SELECT rebate.adopt_store('rebate_owner') -- to begin a new ledger, or restore the data");
		else
			doctor_say(result, "store", "rebate_data", "notice", "there is no store yet",
					   "SELECT rebate.create_store() -- or rebate.attach(), which makes it");
		return (Datum) 0;
	}
	(void) rules_generation(store);

	/* the planner takes catalogs for large, and compiling would take seconds */
	level = NewGUCNestLevel();
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
	relids = attached_relations(store);
	if (store->sandbox)
		doctor_say(result, "sandbox", STORE_SCHEMA, "notice",
				   "made as a sandbox: rebate.reset() empties its ledger", NULL);
	run_checks(store, result, doctor_server_queries, relids);
	check_statistics(store, result);
	if (store->version >= shape_table_since(ST_GRANTED_RIGHT))
		run_checks(store, result, doctor_rights_queries, relids);
	run_checks(store, result, doctor_table_queries, relids);
	doctor_orders(store, result, relids, thorough);
	AtEOXact_GUC(true, level);
	return (Datum) 0;
}
