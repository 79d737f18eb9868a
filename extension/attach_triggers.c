/*
 * attach_triggers.c
 *	  The triggers of an attached table: locking it briefly, making, dropping.
 */
#include "rebate.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
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

/* Our triggers; those of a row are made where the table is attached, and cloned below */
static const struct
{
	const char *name;
	const char *function;
	int16		timing;
	int16		event;
	bool		old;			/* transition tables */
	bool		new;
	bool		row;
	bool		replica;		/* fires where changes are replicated, and only there */
}			trigger_kinds[] =
{
	{"rebate_insert", "collect", TRIGGER_TYPE_AFTER, TRIGGER_TYPE_INSERT, false, true, false, false},
	{"rebate_update", "collect", TRIGGER_TYPE_AFTER, TRIGGER_TYPE_UPDATE, true, true, false, false},
	{"rebate_delete", "collect", TRIGGER_TYPE_AFTER, TRIGGER_TYPE_DELETE, true, false, false, false},
	{"rebate_truncate", "collect_truncate", TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_TRUNCATE, false, false, false, false},
	{"rebate_replica_insert", "collect_row", TRIGGER_TYPE_AFTER, TRIGGER_TYPE_INSERT, false, false, true, true},
	{"rebate_replica_update", "collect_row", TRIGGER_TYPE_AFTER, TRIGGER_TYPE_UPDATE, false, false, true, true},
	{"rebate_replica_delete", "collect_row", TRIGGER_TYPE_AFTER, TRIGGER_TYPE_DELETE, false, false, true, true},
	{"rebate_replica_truncate", "collect_truncate", TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_TRUNCATE, false, false, false, true},
};

#define NUM_TRIGGERS ((int) lengthof(trigger_kinds))

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
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	char	   *name = get_rel_name(relid);
	/* it may be dropped by now */
	char	   *table = schema && name ? quote_qualified_identifier(schema, name) :
		psprintf("with OID %u", relid);

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
static void
lock_table(Oid relid, LOCKMODE mode, const char *function)
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

/* The table and all partitions below it, in the order in which others lock them */
static List *
tree_of(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
}

void
triggers_lock_tree(Oid relid, LOCKMODE mode, const char *function)
{
	ListCell   *lc;

	/* the table first: then nothing is attached below it any more */
	lock_table(relid, mode, function);
	foreach(lc, tree_of(relid))
		if (lfirst_oid(lc) != relid)
			lock_table(lfirst_oid(lc), mode, function);
}

/*
 * Which of our triggers has the table?  Fills ids[] and clones[]; raises if a
 * trigger of that name is not ours.
 */
static void
find_triggers(Relation rel, Oid *ids, bool *clones)
{
	memset(ids, 0, sizeof(Oid) * NUM_TRIGGERS);
	memset(clones, 0, sizeof(bool) * NUM_TRIGGERS);
	for (int j = 0; rel->trigdesc && j < rel->trigdesc->numtriggers; j++)
	{
		Trigger    *t = &rel->trigdesc->triggers[j];

		for (int i = 0; i < NUM_TRIGGERS; i++)
		{
			char	   *function,
					   *schema;

			if (strcmp(t->tgname, trigger_kinds[i].name) != 0)
				continue;
			function = get_func_name(t->tgfoid);
			schema = get_namespace_name(get_func_namespace(t->tgfoid));
			if (function == NULL || schema == NULL || strcmp(schema, "rebate") != 0 ||
				strcmp(function, trigger_kinds[i].function) != 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_OBJECT),
						 errmsg("table \"%s\" has a trigger \"%s\" that is not ours",
								RelationGetRelationName(rel), t->tgname),
						 errhint("Rename that trigger.")));
			ids[i] = t->tgoid;
			clones[i] = t->tgisclone;
		}
	}
}

/* Should a table have a trigger?  "root": it is the attached table itself. */
static bool
is_wanted(int kind, bool root, bool row_triggers)
{
	if (trigger_kinds[kind].replica && !row_triggers)
		return false;
	return root || !trigger_kinds[kind].row;
}

bool
triggers_complete(Oid relid, bool row_triggers)
{
	Oid			ids[NUM_TRIGGERS];
	bool		clones[NUM_TRIGGERS];
	ListCell   *lc;

	foreach(lc, tree_of(relid))
	{
		Relation	rel = relation_open(lfirst_oid(lc), AccessShareLock);
		bool		complete = true;

		find_triggers(rel, ids, clones);
		for (int i = 0; i < NUM_TRIGGERS; i++)
			if (!OidIsValid(ids[i]) && is_wanted(i, lfirst_oid(lc) == relid, row_triggers))
				complete = false;
		relation_close(rel, NoLock);
		if (!complete)
			return false;
	}
	return true;
}

bool
triggers_on(Oid relid, bool *row_triggers)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	Oid			ids[NUM_TRIGGERS];
	bool		clones[NUM_TRIGGERS];

	find_triggers(rel, ids, clones);
	relation_close(rel, NoLock);
	if (row_triggers)
	{
		*row_triggers = false;
		for (int i = 0; i < NUM_TRIGGERS; i++)
			*row_triggers |= trigger_kinds[i].row && OidIsValid(ids[i]);
	}
	return OidIsValid(ids[0]);
}

static TriggerTransition *
transition(const char *name, bool is_new)
{
	TriggerTransition *result = makeNode(TriggerTransition);

	result->name = pstrdup(name);
	result->isNew = is_new;
	result->isTable = true;
	return result;
}

/*
 * Create one trigger, with the rights of the current user.  Not by a command: in
 * an event trigger that would fire other event triggers.
 */
static void
create_trigger(Oid relid, int kind)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);
	ObjectAddress address;

	stmt->trigname = pstrdup(trigger_kinds[kind].name);
	stmt->funcname = list_make2(makeString("rebate"),
								makeString(pstrdup(trigger_kinds[kind].function)));
	stmt->row = trigger_kinds[kind].row;
	stmt->timing = trigger_kinds[kind].timing;
	stmt->events = trigger_kinds[kind].event;
	if (trigger_kinds[kind].old)
		stmt->transitionRels = lappend(stmt->transitionRels, transition("rebate_old", false));
	if (trigger_kinds[kind].new)
		stmt->transitionRels = lappend(stmt->transitionRels, transition("rebate_new", true));
	address = CreateTriggerFiringOn(stmt, NULL, relid, InvalidOid, InvalidOid, InvalidOid,
									InvalidOid, InvalidOid, NULL, false, false,
									trigger_kinds[kind].replica ? TRIGGER_FIRES_ON_REPLICA :
									TRIGGER_FIRES_ON_ORIGIN);
	CreateComments(address.objectId, TriggerRelationId, 0,
				   "rebates of these orders; see rebate.sources");
	CommandCounterIncrement();
}

static void
drop_trigger(Oid id)
{
	ObjectAddress address;

	ObjectAddressSet(address, TriggerRelationId, id);
	performDeletion(&address, DROP_RESTRICT, 0);
	CommandCounterIncrement();
}

/*
 * Create the triggers that are missing on the table and below it, and drop those
 * of rows if they are not wanted any more.  The tables are locked, so this waits
 * for nobody.
 */
void
triggers_create(Oid relid, bool row_triggers)
{
	Oid			ids[NUM_TRIGGERS];
	bool		clones[NUM_TRIGGERS];
	ListCell   *lc;
	Relation	rel;

	foreach(lc, tree_of(relid))
	{
		Oid			id = lfirst_oid(lc);

		/* a partition gets those of rows from the table above */
		rel = relation_open(id, ShareRowExclusiveLock);
		find_triggers(rel, ids, clones);
		relation_close(rel, NoLock);
		for (int i = 0; i < NUM_TRIGGERS; i++)
		{
			bool		wanted = is_wanted(i, id == relid && !get_rel_relispartition(id),
										   row_triggers);

			if (wanted && !OidIsValid(ids[i]))
				create_trigger(id, i);
			else if (!wanted && OidIsValid(ids[i]) && !row_triggers && !clones[i])
				drop_trigger(ids[i]);
		}
	}
}

/* Drop the triggers that are there; clones go with the table's own. */
void
triggers_drop(Oid relid)
{
	Oid			ids[NUM_TRIGGERS];
	bool		clones[NUM_TRIGGERS];
	ListCell   *lc;
	Relation	rel;

	foreach(lc, tree_of(relid))
	{
		rel = relation_open(lfirst_oid(lc), AccessExclusiveLock);
		find_triggers(rel, ids, clones);
		relation_close(rel, NoLock);
		for (int i = 0; i < NUM_TRIGGERS; i++)
			if (OidIsValid(ids[i]) && !clones[i])
				drop_trigger(ids[i]);
	}
}
