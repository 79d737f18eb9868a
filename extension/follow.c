/*
 * follow.c
 *	  Follows DDL on attached tables: partitions that are created, attached,
 *	  detached and dropped, and what is renamed.
 *
 * This runs in everybody's DDL.  What is not about an attached table is known by
 * the parse tree, or by a look at rebate_data.source, and costs nothing more.
 * Triggers are put on partitions with higher rights than the user's, but only
 * where the table above has ours already, which its owner let happen.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/partition.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lock.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "attach.h"
#include "collect.h"
#include "follow.h"
#include "partition.h"
#include "session.h"
#include "source.h"
#include "store.h"
#include "store_guard.h"

PG_FUNCTION_INFO_V1(rebate_follow_partitions);
PG_FUNCTION_INFO_V1(rebate_watch_drops);

/* A DROP may be under way in this transaction */
static bool watching_drops = false;
static object_access_hook_type next_object_access_hook = NULL;

/* Columns of rebate_data.source */
#define SOURCE_RELATION	2

/*
 * Whether a relation is attached; InvalidOid: whether any is.  Of a store that is
 * ours looks at rebate_data.source and at nothing else, since it may be half
 * restored.  A schema that somebody planted is not touched: to wait for a lock
 * on his table would keep everybody from DDL.
 */
static bool
is_attached(Oid relid)
{
	Oid			nspid = get_namespace_oid(STORE_SCHEMA, true);
	Oid			table = OidIsValid(nspid) ? get_relname_relid("source", nspid) : InvalidOid;
	Relation	rel;
	bool		found = false;

	if (!OidIsValid(table) || get_rel_relkind(table) != RELKIND_RELATION || !store_guarded())
		return false;
	rel = table_open(table, AccessShareLock);
	if (RelationGetNumberOfAttributes(rel) >= SOURCE_RELATION &&
		TupleDescAttr(RelationGetDescr(rel), SOURCE_RELATION - 1)->atttypid == REGCLASSOID)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		ScanKeyData key;
		SysScanDesc scan;

		ScanKeyInit(&key, SOURCE_RELATION, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(relid));
		scan = systable_beginscan(rel, InvalidOid, false, snapshot, OidIsValid(relid) ? 1 : 0, &key);
		found = HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
		UnregisterSnapshot(snapshot);
	}
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * The source of an attached table with our triggers on it; NULL otherwise.
 */
static Source *
followed_source(Oid relid, Store **store)
{
	/* pg_restore drops and makes parts of the store in any order */
	if (!is_attached(relid) || !triggers_on(relid, NULL) || !store_is_whole())
		return NULL;
	*store = store_get(true);
	return *store ? source_get(*store, relid) : NULL;
}

/* The source above a partition that is followed, or NULL */
static Source *
followed_above(Oid relid, Store **store)
{
	Source	   *source = NULL;
	ListCell   *lc;

	if (get_rel_relispartition(relid))
		foreach(lc, get_partition_ancestors(relid))
			if ((source = followed_source(lfirst_oid(lc), store)) != NULL)
				break;
	return source;
}

/* Run fn with the rights that creating and dropping triggers takes. */
static void
with_all_rights(void (*fn) (Oid relid, bool row_triggers), Oid relid, bool row_triggers)
{
	Oid			userid;
	int			context;

	GetUserIdAndSecContext(&userid, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	fn(relid, row_triggers);
	SetUserIdAndSecContext(userid, context);
}

static void
drop_triggers(Oid relid, bool row_triggers)
{
	triggers_drop(relid);
}

/* Has a table a row? */
static bool
has_rows(Source *source, Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SourceScan *scan = source_scan_begin(source, rel, snapshot);
	bool		found = source_scan_next(scan);

	source_scan_end(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

/* An attached table that becomes a partition would not see the rows from above. */
static void
refuse_attached(Oid relid)
{
	if (is_attached(relid) && source_get(store_get(false), relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" is attached to rebates by itself and cannot become a partition",
						get_rel_name(relid)),
				 errdetail("Statements on the table above it would not fire its triggers."),
				 errhint("Call rebate.detach() for it first, and attach the table above.")));
}

/* A relation became a partition: by CREATE, or by ATTACH with what it holds. */
static void
partition_came(Oid relid, bool attached)
{
	Store	   *store;
	Source	   *source;
	bool		row_triggers;
	ListCell   *lc;

	refuse_attached(relid);
	source = followed_above(relid, &store);
	if (source == NULL)
		return;
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Relation	rel = relation_open(lfirst_oid(lc), NoLock);

		attach_check_partition(rel, get_rel_name(source->relid));
		relation_close(rel, NoLock);
		CacheInvalidateRelcacheByRelid(lfirst_oid(lc));
	}
	(void) triggers_on(source->relid, &row_triggers);
	with_all_rights(triggers_create, relid, row_triggers);
	CommandCounterIncrement();
	if (attached && has_rows(source, relid))
		ereport(NOTICE,
				(errmsg("orders of partition \"%s\" are not decided yet", get_rel_name(relid)),
				 errhint("SELECT rebate.reconcile('%s').", source->name)));
}

/*
 * A partition left an attached table, with its rows still in it: their rebates
 * stay, and are marked as archived.
 */
static void
archive_rows(Store *store, Source *source, Oid relid, LOCKMODE lock)
{
	CollectBatch batch = {
		.store = store,
		.source = source,
		.event = COLLECT_DELETE,
		.archived = true,
		.only_known = true
	};
	Relation	rel;

	if (source->key_broken)
	{
		ereport(WARNING,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("rebates of the orders in \"%s\" cannot be marked as archived, since their key no longer fits the table",
						get_rel_name(relid)),
				 errdetail("%s.", source->broken)));
		return;
	}
	collect_firing();
	rel = table_open(relid, lock);
	collect_table(&batch, rel);
	table_close(rel, NoLock);
}

/* A partition was detached from "parent". */
static void
partition_left(Oid relid, Oid parent)
{
	Store	   *store;
	Source	   *source = followed_source(parent, &store);
	ListCell   *lc;

	if (source == NULL)
		source = followed_above(parent, &store);
	if (source == NULL || get_rel_relispartition(relid))
		return;
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		CacheInvalidateRelcacheByRelid(lfirst_oid(lc));
	archive_rows(store, source, relid, AccessShareLock);
	with_all_rights(drop_triggers, relid, false);
}

/* A table is an inheritance child or parent now: of attached ones neither works. */
static void
refuse_inheritance(Oid child)
{
	Oid			parent = InvalidOid;
	int			level;

	if (is_attached(child) && source_get(store_get(false), child))
		parent = child;
	else
	{
		SqlParams	params = {0};

		level = sql_begin();
		sql_param(&params, OIDOID, ObjectIdGetDatum(child), false);
		for (uint64 row = 0, n = sql_run("SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = $1",
										 &params, SPI_OK_SELECT);
			 row < n && !OidIsValid(parent); row++)
		{
			bool		isnull;
			Oid			candidate = DatumGetObjectId(sql_get(row, 1, &isnull));

			if (is_attached(candidate))
				parent = candidate;
		}
		sql_end(level);
		if (OidIsValid(parent) && source_get(store_get(false), parent) == NULL)
			parent = InvalidOid;
	}
	if (OidIsValid(parent))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" is attached to rebates and cannot take part in inheritance",
						get_rel_name(parent)),
				 errdetail("Statements on the parent change rows of the child, and their keys need not be unique."),
				 errhint("Use partitions, or call rebate.detach() first.")));
}

/* A table of a source can be emptied by a crash now. */
static void
refuse_unlogged(Oid relid)
{
	Store	   *store;
	Source	   *source = followed_source(relid, &store);
	Relation	rel;

	if (source == NULL)
		source = followed_above(relid, &store);
	if (source == NULL)
		return;
	rel = relation_open(relid, NoLock);
	attach_check_partition(rel, get_rel_name(source->relid));
	relation_close(rel, NoLock);
}

/* Tell whoever changes a table now, not only the next order, that the mapping broke. */
static void
warn_broken(Oid relid)
{
	Store	   *store;
	Source	   *source = followed_source(relid, &store);

	if (source && source->broken)
		ereport(WARNING,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("the mapping of %s no longer fits the table: its orders will not be decided",
						source->name),
				 errdetail("%s.", source->broken),
				 errhint("Call rebate.attach() with replace => true.")));
}

/* A column was renamed. */
static void
column_renamed(Oid relid, const char *oldname, const char *newname)
{
	Store	   *store;

	if (followed_source(relid, &store) == NULL)
		return;
	record_rename_column(store, relid, oldname, newname);
	warn_broken(relid);
}

/*
 * The partition that a subcommand attached or detached.  Before 16 only the name
 * tells, as the command read it; it holds a lock on what it found.
 */
static Oid
partition_of_command(CollectedATSubcmd *sub)
{
	Oid			relid = sub->address.classId == RelationRelationId ?
		sub->address.objectId : InvalidOid;
	PartitionCmd *def = (PartitionCmd *) ((AlterTableCmd *) sub->parsetree)->def;

	if (!OidIsValid(relid))
	{
		LOCKTAG		tag;

		relid = RangeVarGetRelid(def->name, NoLock, true);
		if (!OidIsValid(relid))
			return InvalidOid;
		SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
		if (!lock_held_by_me(&tag, AccessExclusiveLock))
			return InvalidOid;
	}
	return get_rel_relkind(relid) == RELKIND_INDEX ||
		get_rel_relkind(relid) == RELKIND_PARTITIONED_INDEX ? InvalidOid : relid;
}

/* What one command of the statement did, if it is about partitions or names */
static void
follow_command(Oid relid, CollectedCommand *command)
{
	ListCell   *lc;

	if (command->type == SCT_AlterTable)
	{
		bool		columns = false;

		foreach(lc, command->d.alterTable.subcmds)
		{
			CollectedATSubcmd *sub = lfirst(lc);
			Oid			other;

			if (!IsA(sub->parsetree, AlterTableCmd))
				continue;
			switch (((AlterTableCmd *) sub->parsetree)->subtype)
			{
				case AT_AttachPartition:
					other = partition_of_command(sub);
					if (OidIsValid(other))
						partition_came(other, true);
					break;
				case AT_DetachPartition:
				case AT_DetachPartitionFinalize:
					other = partition_of_command(sub);
					if (OidIsValid(other))
						partition_left(other, relid);
					break;
				case AT_AddInherit:
					refuse_inheritance(relid);
					break;
				case AT_SetUnLogged:
					refuse_unlogged(relid);
					break;
				default:
					columns = true;
					break;
			}
		}
		if (columns)
			warn_broken(relid);
	}
	else if (IsA(command->parsetree, CreateStmt) ||
			 IsA(command->parsetree, CreateForeignTableStmt))
	{
		if (get_rel_relispartition(relid))
			partition_came(relid, false);
		else if (((CreateStmt *) command->parsetree)->inhRelations != NIL)
			refuse_inheritance(relid);
	}
	else if (IsA(command->parsetree, RenameStmt))
	{
		RenameStmt *rename = (RenameStmt *) command->parsetree;

		if (rename->renameType == OBJECT_COLUMN)
			column_renamed(relid, rename->subname, rename->newname);
	}
}

/* Whether a statement can be about partitions, inheritance or names at all */
static bool
may_concern_us(Node *parsetree)
{
	ListCell   *lc;

	switch (nodeTag(parsetree))
	{
		case T_CreateStmt:
		case T_CreateForeignTableStmt:
			return ((CreateStmt *) parsetree)->partbound != NULL ||
				((CreateStmt *) parsetree)->inhRelations != NIL;
		case T_CreateSchemaStmt:
			return ((CreateSchemaStmt *) parsetree)->schemaElts != NIL;
		case T_AlterTableStmt:
			foreach(lc, ((AlterTableStmt *) parsetree)->cmds)
			{
				switch (lfirst_node(AlterTableCmd, lc)->subtype)
				{
					case AT_AttachPartition:
					case AT_DetachPartition:
					case AT_DetachPartitionFinalize:
					case AT_AddInherit:
					case AT_SetUnLogged:
					case AT_DropColumn:
					case AT_AlterColumnType:
					case AT_DropConstraint:
						return true;
					default:
						break;
				}
			}
			return false;
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
			return true;
		default:
			return false;
	}
}

/* Names of tables or of their schemas changed. */
static bool
changes_names(Node *parsetree)
{
	if (IsA(parsetree, RenameStmt))
		return ((RenameStmt *) parsetree)->renameType == OBJECT_TABLE ||
			((RenameStmt *) parsetree)->renameType == OBJECT_SCHEMA;
	return IsA(parsetree, AlterObjectSchemaStmt);
}

/* rebate.follow_partitions(): event trigger, at the end of a DDL command */
Datum
rebate_follow_partitions(PG_FUNCTION_ARGS)
{
	EventTriggerData *data = (EventTriggerData *) fcinfo->context;
	MemoryContext context = CurrentMemoryContext;
	int			level;
	int			n;
	Oid		   *relids;
	CollectedCommand **commands;
	bool		pushed = false;
	int			pins;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function was not called by an event trigger")));
	if (!may_concern_us(data->parsetree) || !is_attached(InvalidOid))
		PG_RETURN_NULL();

	/* names that are recorded do not depend on who changes them */
	pins = session_pin_names();

	/* DETACH CONCURRENTLY comes in a transaction of its own, without a snapshot */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	level = sql_begin();
	n = (int) sql_run("SELECT c.objid, c.command FROM pg_event_trigger_ddl_commands() c"
					  " WHERE c.classid = 'pg_class'::regclass", NULL, SPI_OK_SELECT);
	relids = MemoryContextAlloc(context, sizeof(Oid) * Max(n, 1));
	commands = MemoryContextAlloc(context, sizeof(CollectedCommand *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(sql_get(i, 1, &isnull));
		commands[i] = (CollectedCommand *) DatumGetPointer(sql_get(i, 2, &isnull));
	}
	sql_end(level);

	for (int i = 0; i < n; i++)
		follow_command(relids[i], commands[i]);
	if (changes_names(data->parsetree) && store_is_whole())
		record_rename_tables();
	if (pushed)
		PopActiveSnapshot();
	AtEOXact_GUC(true, pins);
	PG_RETURN_NULL();
}

/*
 * A partition is about to be dropped, and its rows can still be read.  Of its
 * dependents the indexes and what is stored outside of the rows are gone.
 */
static void
object_access(ObjectAccessType access, Oid classid, Oid objid, int subid, void *arg)
{
	Store	   *store;
	Source	   *source;

	if (next_object_access_hook)
		next_object_access_hook(access, classid, objid, subid, arg);
	if (access != OAT_DROP || !watching_drops || classid != RelationRelationId || subid != 0 ||
		get_rel_relkind(objid) != RELKIND_RELATION || !get_rel_relispartition(objid))
		return;
	source = followed_above(objid, &store);
	if (source)
	{
		archive_rows(store, source, objid, NoLock);
		/* the next thing that is dropped may be the store */
		(void) collect_flush();
	}
}

/* rebate.watch_drops(): event trigger, before DROP TABLE, DROP SCHEMA and DROP OWNED */
Datum
rebate_watch_drops(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function was not called by an event trigger")));
	watching_drops = true;
	PG_RETURN_NULL();
}

void
follow_at_xact_end(void)
{
	watching_drops = false;
}

void
follow_init(void)
{
	next_object_access_hook = object_access_hook;
	object_access_hook = object_access;
}
