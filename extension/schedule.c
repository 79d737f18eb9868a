/*
 * schedule.c
 *	  Registers the jobs of the clock with pg_cron.
 *
 * pg_cron is another extension, which need not be there: it lives in one database
 * of the cluster, and runs each job as the role that registered it.  So nothing
 * of it is read or called unless the extension is in this database, and always as
 * the caller.
 */
#include "rebate.h"

#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "rights.h"
#include "schedule.h"
#include "store_shape.h"

PG_FUNCTION_INFO_V1(rebate_schedule);
PG_FUNCTION_INFO_V1(rebate_unschedule);
PG_FUNCTION_INFO_V1(rebate_schedules);

/* Names of our jobs in pg_cron begin with this */
#define JOB_PREFIX	"rebate "

typedef struct ScheduledJob
{
	const char *name;
	const char *schedule;		/* of pg_cron, in GMT */
	const char *command;
} ScheduledJob;

static const ScheduledJob jobs[] = {
	{"mature", "* * * * *", "CALL rebate.mature()"},
	{"age", "*/10 * * * *", "CALL rebate.age()"},
	{"fold", "37 * * * *", "CALL rebate.fold()"},
	{"retry_failures", "23 * * * *", "CALL rebate.retry_failures()"},
	{"run_audit", "17 3 * * *", "CALL rebate.run_audit()"},
	{"prune", "47 3 * * *", "CALL rebate.prune()"},
};

static const ScheduledJob *
find_job(const char *name)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < (int) lengthof(jobs); i++)
	{
		if (strcmp(jobs[i].name, name) == 0)
			return &jobs[i];
		appendStringInfo(&list, "%s\"%s\"", i ? ", " : "", jobs[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no job \"%s\"", name),
			 errhint("It is one of %s.", list.data)));
	return NULL;				/* keep compiler quiet */
}

/* The statements that register the jobs from the database of pg_cron */
static char *
remote_statements(const char *database, const char *role)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < (int) lengthof(jobs); i++)
		appendStringInfo(&buf, "\nSELECT cron.schedule_in_database(%s, %s, %s, %s, %s);",
						 quote_literal_cstr(psprintf(JOB_PREFIX "%s (%s)", jobs[i].name, database)),
						 quote_literal_cstr(jobs[i].schedule),
						 quote_literal_cstr(jobs[i].command), quote_literal_cstr(database),
						 quote_literal_cstr(role));
	return buf.data;
}

/* Raise, saying what to do, unless pg_cron is in this database. */
static void
check_pg_cron(void)
{
	const char *database = get_database_name(MyDatabaseId);
	const char *role = GetUserNameFromId(GetUserId(), false);
	const char *home = GetConfigOption("cron.database_name", true, false);

	if (home == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_cron is not loaded"),
				 errhint("Install it, set shared_preload_libraries = 'pg_cron' (behind others with a comma), "
						 "cron.database_name = %s and cron.use_background_workers = on, restart, and call "
						 "CREATE EXTENSION pg_cron. Or let any other scheduler run psql -c 'CALL rebate.mature()' each minute.",
						 quote_literal_cstr(database))));
	if (strcmp(home, database) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_cron is in database \"%s\", not in this one", home),
				 errdetail("A cluster has one pg_cron; it can run jobs in other databases."),
				 errhint("As superuser, call in database \"%s\":%s", home,
						 remote_statements(database, role))));
	if (!OidIsValid(get_extension_oid("pg_cron", true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"pg_cron\" is not installed"),
				 errhint("As superuser, call CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO %s;",
						 quote_identifier(role))));
	if (pg_namespace_aclcheck_compat(get_namespace_oid("cron", false), GetUserId(), ACL_USAGE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema cron"),
				 errhint("As superuser, call GRANT USAGE ON SCHEMA cron TO %s;",
						 quote_identifier(role))));
}

static bool
can_log_in(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		result = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/* Raise unless jobs of the current user can run, with no more rights than they need. */
static void
check_role(Store *store)
{
	const char *right = store->version < shape_table_since(ST_GRANTED_RIGHT) ?
		psprintf("GRANT %s TO rebate_clock;", quote_identifier(GetUserNameFromId(store->owner, false))) :
		"SELECT rebate.grant_right('operator', 'rebate_clock');";
	const char *hint = psprintf("CREATE ROLE rebate_clock LOGIN; %s GRANT USAGE ON SCHEMA cron TO rebate_clock; "
								"SET ROLE rebate_clock; SELECT * FROM rebate.schedule();", right);

	if (superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("jobs must not be registered by a superuser"),
				 errdetail("They run with the rights of who registers them, and need no more than the right \"operator\"."),
				 errhint("%s", hint)));
	if (!can_log_in(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("jobs must be registered by a role that can log in"),
				 errdetail("pg_cron connects as role \"%s\".", GetUserNameFromId(GetUserId(), false)),
				 errhint("%s", hint)));
}

/* Say how pg_cron will connect, where that can fail. */
static void
tell_connection(void)
{
	const char *workers = GetConfigOption("cron.use_background_workers", true, false);
	const char *host = GetConfigOption("cron.host", true, false);

	if (workers && strcmp(workers, "on") == 0)
		return;
	ereport(NOTICE,
			(errmsg("pg_cron will connect to host \"%s\" as role \"%s\"", host ? host : "localhost",
					GetUserNameFromId(GetUserId(), false)),
			 errhint("If that takes a password its runs fail (see rebate.schedules()): let the role in by pg_hba.conf "
					 "or a password file, or set cron.use_background_workers = on and restart.")));
}

Datum
rebate_schedule(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	char	   *name = api_text(fcinfo, 0);
	char	   *schedule = api_text(fcinfo, 1);
	const ScheduledJob *only = NULL;
	ReturnSetInfo *result;
	int			level;

	rights_check(store, RIGHT_OPERATOR, "rebate.schedule");
	check_role(store);
	if (name)
		only = find_job(name);
	else if (schedule)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a schedule goes with the name of a job")));
	check_pg_cron();
	tell_connection();

	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;
	level = sql_begin();
	for (int i = 0; i < (int) lengthof(jobs); i++)
	{
		SqlParams	params = {0};
		Datum		values[3];
		bool		nulls[3] = {false, false, false};
		const char *at = schedule ? schedule : jobs[i].schedule;

		if (only && only != &jobs[i])
			continue;
		sql_text(&params, psprintf(JOB_PREFIX "%s", jobs[i].name));
		sql_text(&params, at);
		sql_text(&params, jobs[i].command);
		sql_run("SELECT cron.schedule($1, $2, $3)", &params, SPI_OK_SELECT);
		values[0] = CStringGetTextDatum(jobs[i].name);
		values[1] = CStringGetTextDatum(at);
		values[2] = CStringGetTextDatum(jobs[i].command);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	sql_end(level);
	return (Datum) 0;
}

Datum
rebate_unschedule(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	char	   *name = api_text(fcinfo, 0);
	SqlParams	params = {0};
	int			level;
	uint64		n;

	rights_check(store, RIGHT_OPERATOR, "rebate.unschedule");
	if (name)
		(void) find_job(name);
	check_pg_cron();
	sql_text(&params, name ? psprintf(JOB_PREFIX "%s", name) : NULL);
	level = sql_begin();
	n = sql_run("SELECT cron.unschedule(j.jobid) FROM cron.job j"
				" WHERE j.username = current_user AND j.database = current_database()"
				"   AND CASE WHEN $1 IS NULL THEN starts_with(j.jobname::text, '" JOB_PREFIX "')"
				"       ELSE j.jobname::text = $1 END", &params, SPI_OK_SELECT);
	sql_end(level);
	PG_RETURN_INT32((int32) n);
}

/* Is pg_cron in this database, and may the current user look? */
static bool
can_look(void)
{
	Oid			nspid = get_namespace_oid("cron", true);

	return OidIsValid(get_extension_oid("pg_cron", true)) && OidIsValid(nspid) &&
		pg_namespace_aclcheck_compat(nspid, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
}

/* The jobs with their last runs; columns as those of rebate.schedules() */
#define SCHEDULES \
	"SELECT substr(j.jobname::text, 8), j.schedule, j.username, j.active, d.start_time, d.status, d.return_message, j.jobid" \
	"  FROM cron.job j LEFT JOIN LATERAL (" \
	"       SELECT r.* FROM cron.job_run_details r WHERE r.jobid = j.jobid AND r.status IN ('succeeded', 'failed')" \
	"        ORDER BY r.runid DESC LIMIT 1) d ON true" \
	" WHERE starts_with(j.jobname::text, '" JOB_PREFIX "') AND j.database = current_database()" \
	" ORDER BY 1, 3"

Datum
rebate_schedules(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int			level;
	uint64		n;

	rights_check(store, RIGHT_OPERATOR, "rebate.schedules");
	InitMaterializedSRF(fcinfo, 0);
	if (!can_look())
		return (Datum) 0;
	level = sql_begin();
	n = sql_run(SCHEDULES, NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
	{
		Datum		values[7];
		bool		nulls[7];

		for (int i = 0; i < 7; i++)
			values[i] = sql_get(row, i + 1, &nulls[i]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	sql_end(level);
	return (Datum) 0;
}

int64
schedule_prune(TimestampTz upto, int limit)
{
	SqlParams	params = {0};
	int			level;
	uint64		n;

	if (!can_look())
		return 0;
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(upto), false);
	sql_int(&params, limit);
	level = sql_begin();
	n = sql_run("DELETE FROM cron.job_run_details WHERE runid IN ("
				"  SELECT d.runid FROM cron.job_run_details d JOIN cron.job j ON j.jobid = d.jobid"
				"   WHERE starts_with(j.jobname::text, '" JOB_PREFIX "') AND d.end_time < $1 - interval '7 days'"
				"   ORDER BY d.runid LIMIT $2)", &params, SPI_OK_DELETE);
	sql_end(level);
	return (int64) n;
}

/* Whether pg_cron has jobs to run and no process that would; not known to everybody */
static bool
launcher_is_gone(void)
{
	bool		isnull;

	sql_run("SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AND NOT pg_is_in_recovery()"
			"   AND EXISTS (SELECT FROM cron.job WHERE active)"
			"   AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher')",
			NULL, SPI_OK_SELECT);
	return DatumGetBool(sql_get(0, 1, &isnull));
}

/* Jobs of ours for a database that there is none of, with the name of this one */
#define LOST_JOBS \
	"SELECT substr(j.jobname::text, 8), j.database, j.jobid, quote_literal(current_database())" \
	"  FROM cron.job j" \
	" WHERE starts_with(j.jobname::text, '" JOB_PREFIX "')" \
	"   AND NOT EXISTS (SELECT FROM pg_database d WHERE d.datname::text = j.database)" \
	" ORDER BY 1, 3"

/* What ends the failures of a job, by what its last run said; a setting of the role in the database goes before others. */
static const char *
remedy_of_failure(const char *role, const char *message)
{
	static const struct
	{
		const char *said;
		const char *setting;
	}			by_setting[] = {
		{"statement timeout", "statement_timeout = 0"},
		{"lock timeout", "lock_timeout = 0"},
		{"read-only transaction", "default_transaction_read_only = off"},
	};

	if (strstr(message, "connection failed"))
		return "ALTER SYSTEM SET cron.use_background_workers = on -- and restart, or let its role in by pg_hba.conf";
	for (int i = 0; i < (int) lengthof(by_setting); i++)
		if (strstr(message, by_setting[i].said))
			return psprintf("ALTER ROLE %s IN DATABASE %s SET %s", quote_identifier(role),
							quote_identifier(get_database_name(MyDatabaseId)), by_setting[i].setting);
	return "SELECT * FROM rebate.schedules()";
}

/*
 * For the doctor: jobs that are not registered, not active or whose last run
 * failed, as far as the current user may see them.  Whoever may use pg_cron can
 * give a job of his any name that begins as ours do: no remedy grants him a right,
 * and none has the name of a job.
 */
bool
schedule_check(ScheduleReport report, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	Store	   *store = store_get(false);
	bool		fine = true;
	bool		found[lengthof(jobs)] = {false};
	int			level;
	uint64		n;

	if (!can_look())
	{
		if (OidIsValid(get_extension_oid("pg_cron", true)))
			report(arg, "pg_cron", "notice", "this role may not see its jobs",
				   psprintf("GRANT USAGE ON SCHEMA cron TO %s",
							quote_identifier(GetUserNameFromId(GetUserId(), false))));
		else
			report(arg, "pg_cron", "notice",
				   "it is not in this database: another scheduler must call the procedures that wait for a time",
				   "SELECT * FROM rebate.schedule() -- says what to do");
		return false;
	}
	level = sql_begin();
	if (launcher_is_gone())
	{
		report(arg, "pg_cron", "problem", "its launcher does not run: nobody calls its jobs",
			   "-- see the server's log for pg_cron, and restart the server");
		fine = false;
	}
	n = sql_run(LOST_JOBS, NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
		report(arg, sql_get_text(row, 1, context), "problem",
			   psprintf("its job in pg_cron is for database \"%s\", which is not there: was this one renamed?",
						sql_get_text(row, 2, context)),
			   psprintf("SELECT cron.alter_job(%s, database => %s) -- or cron.unschedule(%s)",
						sql_get_text(row, 3, context), sql_get_text(row, 4, context),
						sql_get_text(row, 3, context)));
	fine &= n == 0;
	n = sql_run(SCHEDULES, NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
	{
		char	   *name = sql_get_text(row, 1, context);
		char	   *role = sql_get_text(row, 3, context);
		char	   *status = sql_get_text(row, 6, context);
		char	   *message = sql_get_text(row, 7, context);
		bool		isnull;

		for (int i = 0; i < (int) lengthof(jobs); i++)
			if (strcmp(jobs[i].name, name) == 0)
				found[i] = true;
		if (!DatumGetBool(sql_get(row, 4, &isnull)))
		{
			report(arg, name, "notice", "its job in pg_cron is not active",
				   psprintf("SELECT cron.alter_job(%s, active => true)", sql_get_text(row, 8, context)));
			fine = false;
		}
		if (!OidIsValid(get_role_oid(role, true)))
		{
			report(arg, name, "problem", psprintf("its role \"%s\" is no more, so pg_cron cannot run it", role),
				   psprintf("SELECT cron.unschedule(%s) -- then rebate.schedule(), as a role that can log in",
							sql_get_text(row, 8, context)));
			fine = false;
		}
		else if (!rights_of(store, get_role_oid(role, false), RIGHT_OPERATOR))
		{
			report(arg, name, "problem", psprintf("its role \"%s\" has not the right \"operator\"", role),
				   psprintf("SELECT cron.unschedule(%s) -- or grant it the right, if the job is yours",
							sql_get_text(row, 8, context)));
			fine = false;
		}
		else if (status && strcmp(status, "failed") == 0)
		{
			report(arg, name, "problem",
				   psprintf("its last run by pg_cron failed: %s", message ? message : "no message"),
				   remedy_of_failure(role, message ? message : ""));
			fine = false;
		}
	}
	sql_end(level);
	for (int i = 0; i < (int) lengthof(jobs); i++)
	{
		if (found[i])
			continue;
		report(arg, jobs[i].name, "notice", "pg_cron has no job for it",
			   psprintf("SELECT * FROM rebate.schedule('%s') -- as a role that can log in", jobs[i].name));
		fine = false;
	}
	return fine;
}
