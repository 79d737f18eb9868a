/*
 * attach_triggers.c
 *	  The triggers of an attached table: locking it briefly, making, dropping.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

#include "api.h"
#include "attach.h"

#define LOCK_TRIES			5
#define LOCK_TIMEOUT_MS		1000
#define FIRST_PAUSE_MS		100

static const struct
{
	const char *name;
	const char *event;			/* after CREATE TRIGGER name */
	const char *referencing;
	const char *function;
}			trigger_kinds[] =
{
	{"rebate_insert", "AFTER INSERT", "REFERENCING NEW TABLE AS rebate_new", "collect"},
	{"rebate_update", "AFTER UPDATE", "REFERENCING OLD TABLE AS rebate_old NEW TABLE AS rebate_new", "collect"},
	{"rebate_delete", "AFTER DELETE", "REFERENCING OLD TABLE AS rebate_old", "collect"},
	{"rebate_truncate", "BEFORE TRUNCATE", "", "collect_truncate"},
};

/*
 * Wait for a lock for LOCK_TIMEOUT_MS, or the session's lock_timeout if that is
 * shorter.  Returns whether it was granted; then it lasts to the end of the
 * transaction.
 */
static bool
try_lock(Oid relid, LOCKMODE mode)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool locked = true;

	/* A timeout is an error, and only a subtransaction survives an error. */
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			level = NewGUCNestLevel();

		if (LockTimeout == 0 || LockTimeout > LOCK_TIMEOUT_MS)
			(void) set_config_option("lock_timeout", psprintf("%d", LOCK_TIMEOUT_MS),
									 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		LockRelationOid(relid, mode);
		AtEOXact_GUC(true, level);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (edata->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		FlushErrorState();
		FreeErrorData(edata);
		RollbackAndReleaseCurrentSubTransaction();
		locked = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return locked;
}

/*
 * Raise RB006, naming a session that holds a conflicting lock, if it is still
 * there.
 */
static void
report_busy(Oid relid, LOCKMODE mode, const char *function)
{
	MemoryContext context = CurrentMemoryContext;
	SqlParams	params = {0};
	int			level;
	char	   *pid = NULL;
	char	   *detail = NULL;
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												   get_rel_name(relid));

	level = sql_begin();
	sql_param(&params, OIDOID, ObjectIdGetDatum(relid), false);
	sql_param(&params, BOOLOID, BoolGetDatum(mode == AccessExclusiveLock), false);
	if (sql_run("SELECT l.pid::text, format('Process %s (user \"%s\", state \"%s\", query started %s) holds %s.',"
				"        COALESCE(l.pid::text, 'of a prepared transaction'), COALESCE(a.usename, '?'), COALESCE(a.state, '?'),"
				"        COALESCE(to_char(a.query_start, 'YYYY-MM-DD HH24:MI:SS TZ'), '?'), l.mode)"
				"  FROM pg_locks l"
				"  LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
				" WHERE l.locktype = 'relation' AND l.granted"
				"   AND l.relation = $1"
				"   AND l.database = (SELECT d.oid FROM pg_database d"
				"		WHERE d.datname = current_database())"
				"   AND ($2 OR l.mode <> ALL (ARRAY['AccessShareLock', 'RowShareLock']))"
				"   AND l.pid IS DISTINCT FROM pg_backend_pid()"
				" ORDER BY a.xact_start NULLS LAST, l.pid LIMIT 1", &params, SPI_OK_SELECT) == 1)
	{
		pid = sql_get_text(0, 1, context);
		detail = sql_get_text(0, 2, context);
	}
	sql_end(level);

	ereport(ERROR,
			(errcode(ERRCODE_RB_TABLE_BUSY),
			 errmsg("table %s is busy: no lock in %d attempts of %d s",
					table, LOCK_TRIES, LOCK_TIMEOUT_MS / 1000),
			 detail ? errdetail_internal("%s", detail) : 0,
			 pid ? errhint("Wait for that transaction to end, or end it with SELECT pg_terminate_backend(%s), then call %s() again.",
						   pid, function) :
			 errhint("Call %s() again.", function)));
}

/*
 * Lock a table to the end of the transaction.  Whoever waits for a lock makes
 * all later ones wait behind him, so the shop would stand still behind one long
 * transaction: we wait briefly, leave the queue, pause, and give up in the end.
 */
void
triggers_lock_table(Oid relid, LOCKMODE mode, const char *function)
{
	long		pause = FIRST_PAUSE_MS;

	if (ConditionalLockRelationOid(relid, mode))
		return;
	for (int i = 0; i < LOCK_TRIES; i++)
	{
		if (i > 0)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 pause, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
			pause *= 2;
		}
		if (try_lock(relid, mode))
			return;
	}
	report_busy(relid, mode, function);
}

/*
 * Which of our triggers has the table?  Fills found[]; raises if a trigger of
 * that name is not ours.
 */
static void
find_triggers(Oid relid, bool *found)
{
	SqlParams	params = {0};
	MemoryContext context = CurrentMemoryContext;
	int			level;
	uint64		n;

	memset(found, 0, sizeof(bool) * lengthof(trigger_kinds));
	level = sql_begin();
	sql_param(&params, OIDOID, ObjectIdGetDatum(relid), false);
	n = sql_run("SELECT t.tgname::text, n.nspname = 'rebate', p.proname::text"
				"  FROM pg_trigger t"
				"  JOIN pg_proc p ON p.oid = t.tgfoid"
				"  JOIN pg_namespace n ON n.oid = p.pronamespace"
				" WHERE t.tgrelid = $1 AND NOT t.tgisinternal"
				" ORDER BY t.tgname", &params, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
	{
		char	   *name = sql_get_text(row, 1, context);
		char	   *function = sql_get_text(row, 3, context);
		bool		isnull;

		for (int i = 0; i < (int) lengthof(trigger_kinds); i++)
		{
			if (strcmp(name, trigger_kinds[i].name) != 0)
				continue;
			if (!DatumGetBool(sql_get(row, 2, &isnull)) ||
				strcmp(function, trigger_kinds[i].function) != 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_OBJECT),
						 errmsg("table \"%s\" has a trigger \"%s\" that is not ours",
								get_rel_name(relid), name),
						 errhint("Rename that trigger.")));
			found[i] = true;
		}
	}
	sql_end(level);
}

/* Has the table all of our triggers? */
bool
triggers_complete(Oid relid)
{
	bool		found[lengthof(trigger_kinds)];

	find_triggers(relid, found);
	for (int i = 0; i < (int) lengthof(trigger_kinds); i++)
		if (!found[i])
			return false;
	return true;
}

/* Run a utility command as the caller, names in pg_catalog only. */
static void
run_utility(const char *sql)
{
	int			level = sql_begin();

	sql_run(sql, NULL, SPI_OK_UTILITY);
	sql_end(level);
}

/* The table's qualified and quoted name. */
static char *
table_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/*
 * Create the triggers that are missing, as the caller.  The table is locked, so
 * this waits for nobody.
 */
void
triggers_create(Relation rel)
{
	bool		found[lengthof(trigger_kinds)];
	char	   *table = table_name(rel);

	find_triggers(RelationGetRelid(rel), found);
	for (int i = 0; i < (int) lengthof(trigger_kinds); i++)
	{
		if (found[i])
			continue;
		run_utility(psprintf("CREATE TRIGGER %s %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION rebate.%s()",
							 trigger_kinds[i].name, trigger_kinds[i].event, table,
							 trigger_kinds[i].referencing, trigger_kinds[i].function));
		run_utility(psprintf("COMMENT ON TRIGGER %s ON %s IS 'rebates of these orders; see rebate.sources'",
							 trigger_kinds[i].name, table));
	}
}

/* Drop the triggers that are there, as the caller. */
void
triggers_drop(Relation rel)
{
	bool		found[lengthof(trigger_kinds)];
	char	   *table = table_name(rel);

	find_triggers(RelationGetRelid(rel), found);
	for (int i = 0; i < (int) lengthof(trigger_kinds); i++)
		if (found[i])
			run_utility(psprintf("DROP TRIGGER %s ON %s", trigger_kinds[i].name, table));
}
