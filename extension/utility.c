/*
 * utility.c
 *	  Commands that concern a publisher: it gets out of the way of those that want
 *	  a database for themselves, and looks for what COMMIT PREPARED committed.
 *
 * Only in a preloaded library: without one there is no publisher.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "delivery.h"
#include "utility.h"

static ProcessUtility_hook_type previous_hook = NULL;

static void
call_previous(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			  ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
			  DestReceiver *dest, QueryCompletion *qc)
{
	if (previous_hook)
		previous_hook(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

/* The database that a command wants for itself; invalid if none */
static Oid
wanted_database(Node *command)
{
	const char *name = NULL;
	ListCell   *lc;

	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) command)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) command)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) command)->subname;
			break;
		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) command)->options)
				if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) command)->dbname;
			break;
		case T_CreatedbStmt:
			foreach(lc, ((CreatedbStmt *) command)->options)
			{
				DefElem    *option = lfirst_node(DefElem, lc);

				if (strcmp(option->defname, "template") == 0 && option->arg &&
					IsA(option->arg, String))
					name = strVal(option->arg);
			}
			break;
		default:
			break;
	}
	return name ? get_database_oid(name, true) : InvalidOid;
}

/* Whether a database may be copied by who does not own it */
static bool
may_copy(Oid dbid)
{
	HeapTuple	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	HeapTuple	database = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dbid));
	bool		may = HeapTupleIsValid(role) && HeapTupleIsValid(database) &&
		((Form_pg_authid) GETSTRUCT(role))->rolcreatedb &&
		((Form_pg_database) GETSTRUCT(database))->datistemplate;

	if (HeapTupleIsValid(role))
		ReleaseSysCache(role);
	if (HeapTupleIsValid(database))
		ReleaseSysCache(database);
	return may;
}

/*
 * Whether the command will not be refused for want of a right: nobody else sends a
 * worker away, for which it would be enough to try, again and again.
 */
static bool
may_want(Oid dbid, Node *command)
{
	return pg_database_ownercheck_compat(dbid, GetUserId()) ||
		(IsA(command, CreatedbStmt) && may_copy(dbid));
}

static void
let_back(int code, Datum dbid)
{
	publisher_let_back(DatumGetObjectId(dbid));
}

static void
rebate_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			   ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
			   DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *command = pstmt->utilityStmt;
	Oid			dbid = wanted_database(command);
	bool		dropped = IsA(command, DropdbStmt);
	bool		prepared;

	if (OidIsValid(dbid) && may_want(dbid, command))
	{
		/* also if the session ends in the middle of it */
		PG_ENSURE_ERROR_CLEANUP(let_back, ObjectIdGetDatum(dbid));
		{
			publisher_keep_away(dbid);
			call_previous(pstmt, query, read_only_tree, context, params, env, dest, qc);
		}
		PG_END_ENSURE_ERROR_CLEANUP(let_back, ObjectIdGetDatum(dbid));
		/* in this order: a worker for what is dropped would keep its place */
		if (dropped)
			ring_forget(dbid);
		publisher_let_back(dbid);
		return;
	}

	/* the session that commits what another prepared knows nothing of its entries */
	prepared = IsA(command, TransactionStmt) &&
		((TransactionStmt *) command)->kind == TRANS_STMT_COMMIT_PREPARED &&
		rebate_delivery == DELIVERY_WORKER &&
		OidIsValid(get_namespace_oid(STORE_SCHEMA, true));
	if (prepared)
		publisher_remember_snapshot();

	call_previous(pstmt, query, read_only_tree, context, params, env, dest, qc);

	if (prepared && delivery_start_worker())
	{
		ring_look(ring_database());
		ring_wake(ring_database());
	}
}

void
utility_init(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = rebate_utility;
}
