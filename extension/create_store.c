/*
 * create_store.c
 *	  Makes the store: schema, tables, currencies, guards, views, grants.
 *
 * The store is made of ordinary objects of an ordinary role.  The DDL is text
 * of the install script; here is only who runs which part of it:
 *
 *		the caller				a superuser, or a member of the owner's role
 *								with CREATE on the database
 *		the extension's owner	makes the schema and the views, grants
 *		the store's owner		makes tables and guards
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api.h"
#include "collect.h"
#include "create_store.h"
#include "rights.h"
#include "session.h"
#include "store.h"
#include "store_guard.h"

PG_FUNCTION_INFO_V1(rebate_create_store);

Oid
extension_owner(Oid *extension)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	*extension = get_extension_oid("rebate", false);
	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(*extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(owner))
		elog(ERROR, "extension with OID %u does not exist", *extension);
	return owner;
}

int
begin_scripts(void)
{
	int			level = session_pin();

	/* The caller's taste must not become the shape of the store. */
	(void) set_config_option("default_tablespace", "", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("default_table_access_method", "heap", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

void
end_scripts(int level)
{
	AtEOXact_GUC(true, level);
}

/*
 * An error restores user and settings with the transaction.  Each statement sees
 * the one before it.
 */
void
run_script(Oid role, const char *script)
{
	Oid			save_userid;
	int			save_sec_context;

	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(role, save_sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute(script, false, 0) < 0)
		elog(ERROR, "could not run a script of the store");
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	SetUserIdAndSecContext(save_userid, save_sec_context);
	CommandCounterIncrement();
}

char *
run_query(Oid role, const char *sql, SqlParams *params)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			save_userid;
	int			save_sec_context;
	char	   *result = NULL;

	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(role, save_sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (sql_run(sql, params, SPI_OK_SELECT) > 0)
		result = sql_get_text(0, 1, context);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	SetUserIdAndSecContext(save_userid, save_sec_context);
	return result;
}

char *
script_text(Oid extowner, const char *function, const char *argument)
{
	SqlParams	params = {0};
	char	   *result;

	if (argument)
		sql_text(&params, argument);
	result = run_query(extowner, psprintf("SELECT rebate.%s(%s)", quote_identifier(function),
										  argument ? "$1::pg_catalog.name" : ""), &params);
	if (result == NULL)
		elog(ERROR, "rebate.%s returned null", function);
	return result;
}

void
make_ours(Oid extowner, Oid owner)
{
	char	   *name = GetUserNameFromId(owner, false);

	run_script(extowner, script_text(extowner, "store_grants", name));
	run_script(extowner, script_text(extowner, "store_views", NULL));
	run_script(extowner, script_text(extowner, "store_view_owner", name));
	rights_restore(extowner, owner);

	/* Last: from here on only the engine writes. */
	run_script(owner, script_text(extowner, "store_guards", NULL));
}

void
fill_store(Oid extowner, Oid owner)
{
	run_script(owner, script_text(extowner, "store_rows", NULL));
	run_script(owner, script_text(extowner, "store_currencies", NULL));
	run_script(owner,
			   psprintf("INSERT INTO " STORE_SCHEMA ".epoch (epoch, system_identifier, database_oid, account_oid)"
						" VALUES (1, " INT64_FORMAT ", %u, '" STORE_SCHEMA ".account'::pg_catalog.regclass)",
						(int64) GetSystemIdentifier(), MyDatabaseId));
}

/*
 * A store is made as version 1 and brought up step by step, so that a new one is
 * the same as one that was upgraded.
 */
void
make_store(Oid extowner, Oid owner, int32 version)
{
	run_script(extowner,
			   psprintf("CREATE SCHEMA " STORE_SCHEMA " AUTHORIZATION %s;"
						"COMMENT ON SCHEMA " STORE_SCHEMA " IS 'the store of extension rebate: rules, accruals and the ledger'",
						quote_identifier(GetUserNameFromId(owner, false))));
	run_script(owner, script_text(extowner, "store_tables", NULL));
	fill_store(extowner, owner);
	for (int32 step = 2; step <= version; step++)
		upgrade_step(extowner, owner, step);
}

/*
 * The role that shall own the store: "name", or by default the caller, or for
 * a superuser a role without login that is made if missing.  Raises unless the
 * caller may act for it.
 */
static Oid
choose_owner(const char *name)
{
	Oid			owner;

	if (name)
		owner = get_role_oid(name, false);
	else if (!superuser())
		owner = GetUserId();
	else
	{
		owner = get_role_oid(DEFAULT_OWNER, true);
		if (!OidIsValid(owner))
		{
			run_script(GetUserId(),
					   "CREATE ROLE " DEFAULT_OWNER " NOLOGIN;"
					   "COMMENT ON ROLE " DEFAULT_OWNER " IS 'owns the stores of extension rebate'");
			owner = get_role_oid(DEFAULT_OWNER, false);
		}
	}

	if (!superuser())
	{
		if (!has_privs_of_role(GetUserId(), owner))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("must be a member of role \"%s\" to create a store for it",
							GetUserNameFromId(owner, false))));
		if (!DatumGetBool(DirectFunctionCall2(has_database_privilege_id,
											  ObjectIdGetDatum(MyDatabaseId),
											  CStringGetTextDatum("CREATE"))))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to create the store"),
					 errdetail("That needs the CREATE privilege on the database.")));
	}
	return owner;
}

bool
store_exists(void)
{
	Oid			nspid = get_namespace_oid(STORE_SCHEMA, true);

	if (!OidIsValid(nspid))
		return false;
	if (!OidIsValid(get_relname_relid("store", nspid)))
		ereport(ERROR,
				(errcode(ERRCODE_RB_NO_STORE),
				 errmsg("schema \"%s\" exists but is not a store of rebate", STORE_SCHEMA),
				 errhint("Drop or rename that schema, then try again.")));
	return true;
}

/*
 * Create the store unless somebody else was faster, and return its owner.
 * *created tells which.  That it is a sandbox is written before the guards stand,
 * and nothing of ours writes it again.
 */
static Oid
create_store(const char *name, bool sandbox, bool *created)
{
	Oid			extension;
	Oid			extowner = extension_owner(&extension);
	Oid			owner;
	int			level;

	/* Two first calls at once: the second waits here and finds the store. */
	LockDatabaseObject(ExtensionRelationId, extension, 0, ShareUpdateExclusiveLock);
	*created = !store_exists();
	if (!*created)
		return store_get(false)->owner;

	owner = choose_owner(name);
	level = begin_scripts();
	make_store(extowner, owner, upgrade_latest(extowner));
	if (sandbox)
		run_script(owner, "UPDATE " STORE_SCHEMA ".store SET sandbox = true");
	make_ours(extowner, owner);
	end_scripts(level);
	return owner;
}

Oid
create_store_if_missing(void)
{
	Oid			owner;
	bool		created;

	if (store_exists())
		return store_get(false)->owner;

	owner = create_store(NULL, false, &created);
	if (created)
		ereport(NOTICE,
				(errmsg("store created, owned by role \"%s\"", GetUserNameFromId(owner, false)),
				 errdetail("Its tables are in schema \"%s\", its views in schema \"rebate\".",
						   STORE_SCHEMA)));
	return owner;
}

/*
 * rebate.create_store(owner, sandbox): creates the store and its views, returns
 * the owner.  A store that is there is left alone; it does not become a sandbox.
 */
Datum
rebate_create_store(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : pstrdup(NameStr(*PG_GETARG_NAME(0)));
	/* the function of 0.1 has one argument */
	bool		sandbox = PG_NARGS() > 1 && !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	Name		result = palloc0(NAMEDATALEN);
	Oid			owner;
	bool		created;

	(void) collect_flush();
	owner = create_store(name, sandbox, &created);
	namestrcpy(result, GetUserNameFromId(owner, false));
	if (created)
		PG_RETURN_NAME(result);

	if (name && strcmp(name, NameStr(*result)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("the store exists already, owned by role \"%s\"", NameStr(*result))));
	if (sandbox && !store_get(false)->sandbox)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("the store exists already, and is no sandbox"),
				 errdetail("A store is made a sandbox when it is created, or never."),
				 errhint("Make the sandbox in a database of its own.")));

	ereport(NOTICE,
			(errmsg("the store exists already, owned by role \"%s\"", NameStr(*result))));
	PG_RETURN_NAME(result);
}
