/*
 * adopt_store.c
 *	  Takes over a store that outlived a DROP EXTENSION, or came by a dump.
 *
 * It may be anybody's work: a schema of that name, with tables, triggers and
 * views of his own, waiting for a superuser.  So its owner is named on purpose,
 * it must have exactly the shape that we would give it, and nothing of others
 * may hang on it.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "api.h"
#include "attach.h"
#include "collect.h"
#include "create_store.h"
#include "source.h"
#include "store.h"
#include "store_guard.h"

PG_FUNCTION_INFO_V1(rebate_adopt_store);

/* Where the store that is there waits while we make one beside it */
#define ASIDE	"rebate_data_aside"

/* Differences named in an error; more are counted */
#define MAX_LINES	10

/* The owner of the store's schema, if he is the one meant and the caller may act for him. */
static Oid
check_owner(const char *name)
{
	SqlParams	params = {0};
	Oid			owner;
	char	   *owner_name;

	sql_text(&params, STORE_SCHEMA);
	owner_name = run_query(GetUserId(), "SELECT pg_catalog.pg_get_userbyid(nspowner)"
						   "  FROM pg_catalog.pg_namespace WHERE nspname = $1::pg_catalog.name", &params);
	if (owner_name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_NO_STORE),
				 errmsg("there is no rebate store in this database"),
				 errhint("Attach a table with rebate.attach(), or call rebate.create_store().")));
	owner = get_role_oid(owner_name, false);

	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for rebate.adopt_store"),
				 errdetail("The store belongs to role \"%s\".", owner_name)));
	if (name ? strcmp(name, owner_name) != 0 :
		owner != GetUserId() && strcmp(owner_name, DEFAULT_OWNER) != 0 && !store_guarded())
		ereport(ERROR,
				(errcode(ERRCODE_RB_NO_STORE),
				 errmsg("the store belongs to role \"%s\"", owner_name),
				 errhint("If that is the role that shall own the ledger, call rebate.adopt_store(%s).",
						 quote_literal_cstr(owner_name))));
	return owner;
}

/* Raise RB011 with the lines of what is wrong with the store; NULL: nothing. */
static void
refuse_lines(char *lines)
{
	StringInfoData detail;
	int			n = 0;

	if (lines == NULL)
		return;
	initStringInfo(&detail);
	for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n"))
	{
		if (n++ < MAX_LINES)
			appendStringInfo(&detail, "%s%s", n > 1 ? "\n" : "", line);
	}
	if (n > MAX_LINES)
		appendStringInfo(&detail, "\nand %d more", n - MAX_LINES);
	ereport(ERROR,
			(errcode(ERRCODE_RB_STORE_DAMAGED),
			 errmsg("the store cannot be adopted: it is not as rebate.create_store() made it"),
			 errdetail_internal("%s", detail.data),
			 errhint("Drop what does not belong to it, or restore what is missing, then call rebate.adopt_store() again.")));
}

/* The version that the store says it has, read as its owner; 0: it has no rows */
static int32
read_version(Oid owner)
{
	char	   *version = run_query(owner, "SELECT store_version FROM " STORE_SCHEMA ".store", NULL);

	return version ? pg_strtoint32(version) : 0;
}

/*
 * The shape of a store of this version that we make ourselves, in a
 * subtransaction that leaves nothing behind.
 */
static char *
wanted_shape(Oid extowner, Oid owner, int32 version)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resowner = CurrentResourceOwner;
	char	   *shape;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	run_script(extowner, "ALTER SCHEMA " STORE_SCHEMA " RENAME TO " ASIDE);
	make_store(extowner, owner, version);
	shape = script_text(extowner, "store_shape", NULL);
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resowner;
	return shape;
}

/* Raise unless the store is as we make it, with nothing of others on it. */
static void
check_store(Oid extowner, Oid owner, int32 version)
{
	SqlParams	params = {0};

	sql_text(&params, GetUserNameFromId(owner, false));
	refuse_lines(run_query(extowner, "SELECT rebate.store_foreign($1::pg_catalog.name)", &params));

	params.n = 0;
	sql_text(&params, script_text(extowner, "store_shape", NULL));
	sql_text(&params, wanted_shape(extowner, owner, version));
	refuse_lines(run_query(extowner, "SELECT rebate.store_difference($1, $2)", &params));
}

/* A store whose tables came without rows begins anew. */
static void
fill_empty(Oid extowner, Oid owner, int32 version)
{
	Store		unknown = {.owner = owner};
	StoreSpi	scope;

	if (run_query(owner, "SELECT 'rows' WHERE EXISTS (SELECT FROM rebate_data.account)"
				  " OR EXISTS (SELECT FROM rebate_data.accrual) OR EXISTS (SELECT FROM rebate_data.entry)"
				  " OR EXISTS (SELECT FROM rebate_data.source)", NULL) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("the store has orders, but no version"),
				 errhint("Restore table rebate_data.store from the backup.")));
	store_spi_begin(&unknown, &scope);
	fill_store(extowner, owner);
	run_script(owner, psprintf("UPDATE " STORE_SCHEMA ".store SET store_version = %d", version));
	store_spi_end(&scope);
}

/*
 * A store of an earlier version goes on as the one that views and grants of this
 * SQL are for.
 */
static void
bring_up(Oid extowner, Oid owner, int32 version)
{
	Store		unknown = {.owner = owner};
	StoreSpi	scope;
	int32		latest = upgrade_latest(extowner);

	store_spi_begin(&unknown, &scope);
	while (version < latest)
		upgrade_step(extowner, owner, ++version);
	store_spi_end(&scope);
}

/* The qualified name of a table that is there, NULL if it is gone */
static char *
qualified_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name) : NULL;
}

static bool
owns_table(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		owns;

	if (!HeapTupleIsValid(tuple))
		return false;
	owns = has_privs_of_role(GetUserId(), ((Form_pg_class) GETSTRUCT(tuple))->relowner);
	ReleaseSysCache(tuple);
	return owns;
}

/*
 * Post what happened to the orders of a source while it had no triggers; the
 * table is locked.  Returns the number of orders decided.
 */
static int64
catch_up(Oid relid)
{
	Source	   *source = source_get(store_get(false), relid);
	SqlParams	params = {0};
	int64		n;
	int			level;
	bool		isnull;

	if (source == NULL || source->broken)
	{
		ereport(WARNING,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("the orders of table %s wait, since its mapping no longer fits",
						qualified_name(relid)),
				 source ? errdetail_internal("%s.", source->broken) : 0,
				 errhint("Call rebate.attach() with replace => true.")));
		return 0;
	}
	level = sql_begin();
	sql_param(&params, OIDOID, ObjectIdGetDatum(relid), false);
	sql_run("SELECT rebate.reconcile($1::regclass)", &params, SPI_OK_SELECT);
	n = DatumGetInt64(sql_get(0, 1, &isnull));
	sql_end(level);
	return n;
}

/*
 * Create the triggers of a source again, if they are gone, and post what happened
 * to its orders meanwhile.  What cannot be done gets a WARNING: the store is
 * adopted all the same.
 */
static void
adopt_source(Oid relid, const char *recorded_name, bool row_triggers)
{
	char	   *name = qualified_name(relid);
	const char *why = NULL;
	const char *hint = NULL;
	int64		n;

	if (name == NULL)
		why = "The table is gone.";
	else if (strcmp(name, recorded_name) != 0)
	{
		why = psprintf("The table is now named %s.", name);
		hint = "If it is the same table, attach it again.";
	}
	else if (!owns_table(relid))
	{
		why = "Only the owner of the table can create triggers on it.";
		hint = "Let a superuser, or its owner, call rebate.attach() or rebate.adopt_store().";
	}
	if (why)
	{
		ereport(WARNING,
				(errcode(ERRCODE_RB_NOT_ATTACHED),
				 errmsg("table %s stays without triggers", recorded_name),
				 errdetail_internal("%s", why),
				 hint ? errhint("%s", hint) : 0));
		return;
	}
	if (triggers_complete(relid, row_triggers))
		return;

	triggers_lock_tree(relid, ShareRowExclusiveLock, "rebate.adopt_store");
	triggers_create(relid, row_triggers);
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
	store_rules_changed(store_get(false));
	n = catch_up(relid);
	ereport(NOTICE,
			(errmsg("table %s is attached again, " INT64_FORMAT " orders were posted", name, n)));
}

static void
adopt_sources(void)
{
	MemoryContext context = CurrentMemoryContext;
	Store	   *store = store_get(false);
	StoreSpi	scope;
	uint64		n;
	Oid		   *relids;
	char	  **names;
	bool	   *row_triggers;

	store_spi_begin(store, &scope);
	n = sql_run("SELECT relation::oid, relation_name, COALESCE(arguments ->> 'row_triggers', 'false')::boolean"
				"  FROM rebate_data.source"
				" WHERE detached_at IS NULL ORDER BY source_id", NULL, SPI_OK_SELECT);
	relids = MemoryContextAlloc(context, sizeof(Oid) * Max(n, 1));
	names = MemoryContextAlloc(context, sizeof(char *) * Max(n, 1));
	row_triggers = MemoryContextAlloc(context, sizeof(bool) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(sql_get(i, 1, &isnull));
		names[i] = sql_get_text(i, 2, context);
		row_triggers[i] = DatumGetBool(sql_get(i, 3, &isnull));
	}
	store_spi_end(&scope);

	for (uint64 i = 0; i < n; i++)
		adopt_source(relids[i], names[i], row_triggers[i]);
}

/*
 * rebate.adopt_store(owner): make the store that is there ours again, and return
 * its owner.  Called for a store that is ours it puts back what is missing:
 * views, guards, grants, triggers.
 */
Datum
rebate_adopt_store(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : pstrdup(NameStr(*PG_GETARG_NAME(0)));
	Name		result = palloc0(NAMEDATALEN);
	Oid			extension;
	Oid			extowner = extension_owner(&extension);
	Oid			owner;
	int32		version;
	int			level;

	(void) collect_flush();
	LockDatabaseObject(ExtensionRelationId, extension, 0, ShareUpdateExclusiveLock);
	owner = check_owner(name);
	(void) store_exists();
	namestrcpy(result, GetUserNameFromId(owner, false));

	level = begin_scripts();
	version = read_version(owner);
	check_store(extowner, owner, version > 0 ? version : upgrade_latest(extowner));
	if (version == 0)
		fill_empty(extowner, owner, upgrade_latest(extowner));
	else
		bring_up(extowner, owner, version);
	make_ours(extowner, owner);
	adopt_sources();
	end_scripts(level);
	PG_RETURN_NAME(result);
}
