/*
 * rights_api.c
 *	  rebate.grant_right(), rebate.revoke_right(): what roles may call and read.
 *
 * A right is a row of rebate_data.granted_right, which the functions ask for, and
 * GRANTs on exactly the functions and views that rebate.right_objects() lists for
 * it.  Functions are new objects whenever the extension is created, so that their
 * grants are made again from the rows.
 */
#include "rebate.h"

#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "api.h"
#include "collect.h"
#include "create_store.h"
#include "rights.h"
#include "store_shape.h"

PG_FUNCTION_INFO_V1(rebate_grant_right);
PG_FUNCTION_INFO_V1(rebate_revoke_right);

void
rights_check_early(int rights, const char *function)
{
	if (store_exists())
		rights_check(store_get(false), rights, function);
}

/*
 * Make the grants of "has", and take back those of "had" that are not of "has",
 * too; both are JSON objects of rights by role.  It runs as the extension's
 * owner, to whom the functions belong.
 */
static void
run_grants(Oid extowner, const char *has, const char *had)
{
	SqlParams	params = {0};
	char	   *script;

	sql_text(&params, has);
	sql_text(&params, had);
	script = run_query(extowner, "SELECT rebate.store_right_grants($1::jsonb, $2::jsonb)", &params);
	if (script)
		run_script(extowner, script);
}

/*
 * Whoever dropped and made again what rights are granted on, or restored the rows
 * only, gets the grants back.  Roles that are no more are left to the doctor.
 */
void
rights_restore(Oid extowner, Oid owner)
{
	char	   *all;

	if (!OidIsValid(get_relname_relid(shape_table_name(ST_GRANTED_RIGHT),
									  get_namespace_oid(STORE_SCHEMA, false))))
		return;
	all = run_query(owner, "SELECT jsonb_object_agg(g.role_name, g.rights)::text"
					"  FROM (SELECT role_name, jsonb_agg(right_name) AS rights"
					"          FROM " STORE_SCHEMA ".granted_right GROUP BY role_name) g"
					"  JOIN pg_roles r ON r.rolname = g.role_name", NULL);
	if (all)
		run_grants(extowner, all, "{}");
}

/* The rights of a role as JSON, {"role": [...]}; inside SPI */
static char *
rights_of_role(const char *role, MemoryContext context)
{
	SqlParams	params = {0};

	sql_text(&params, role);
	sql_run("SELECT jsonb_build_object($1, COALESCE(jsonb_agg(right_name), '[]'))::text"
			"  FROM " STORE_SCHEMA ".granted_right WHERE role_name = $1 COLLATE \"C\"", &params,
			SPI_OK_SELECT);
	return sql_get_text(0, 1, context);
}

/* Write or delete the row of a right; returns whether that changed anything. */
static bool
write_right(Store *store, const char *right, const char *role, bool grant, char **had, char **has)
{
	MemoryContext context = CurrentMemoryContext;
	SqlParams	params = {0};
	StoreSpi	scope;
	bool		changed;

	sql_text(&params, role);
	sql_text(&params, right);
	store_spi_begin(store, &scope);
	*had = rights_of_role(role, context);
	if (grant)
		changed = sql_run("INSERT INTO " STORE_SCHEMA ".granted_right (role_name, right_name, granted_by)"
						  " VALUES ($1, $2, session_user) ON CONFLICT DO NOTHING",
						  &params, SPI_OK_INSERT) > 0;
	else
		changed = sql_run("DELETE FROM " STORE_SCHEMA ".granted_right"
						  " WHERE role_name = $1 COLLATE \"C\" AND right_name = $2 COLLATE \"C\"",
						  &params, SPI_OK_DELETE) > 0;
	*has = rights_of_role(role, context);
	store_spi_end(&scope);

	/* all sessions read the table again */
	CacheInvalidateRelcacheByRelid(store->tables[ST_GRANTED_RIGHT]);
	CommandCounterIncrement();
	return changed;
}

/*
 * Both functions.  One at a time, and not while the store is made or adopted: the
 * grants are on the same objects.
 */
static bool
change_right(FunctionCallInfo fcinfo, const char *function, bool grant)
{
	Store	   *store;
	Oid			extension;
	Oid			extowner;
	char	   *right = api_text(fcinfo, 0);
	const char *role;
	char	   *had;
	char	   *has;
	bool		exists;
	bool		changed;
	int			level;

	(void) collect_flush();
	store = store_get(false);
	rights_check(store, RIGHT_ADMIN, function);
	store_require(store, shape_table_since(ST_GRANTED_RIGHT), function);
	api_one_of(ERRCODE_INVALID_PARAMETER_VALUE, "right_name", right, right_names);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("role must not be null")));
	role = pstrdup(NameStr(*PG_GETARG_NAME(1)));
	/* a right outlives its role, and can be taken from it still */
	exists = OidIsValid(get_role_oid(role, !grant));

	extowner = extension_owner(&extension);
	LockDatabaseObject(ExtensionRelationId, extension, 0, ShareUpdateExclusiveLock);
	level = begin_scripts();
	changed = write_right(store, right, role, grant, &had, &has);
	/* what the owner has for being that is not taken from him */
	if (exists && (grant || changed))
		run_grants(extowner, has, get_role_oid(role, false) == store->owner ? "{}" : had);
	end_scripts(level);
	if (!changed)
		ereport(NOTICE,
				(grant ? errmsg("role \"%s\" has the right \"%s\" already", role, right) :
				 errmsg("role \"%s\" does not have the right \"%s\"", role, right)));
	return changed;
}

/* rebate.grant_right(right_name, role): false if the role has it already */
Datum
rebate_grant_right(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(change_right(fcinfo, "rebate.grant_right", true));
}

/* rebate.revoke_right(right_name, role): false if the role had it not */
Datum
rebate_revoke_right(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(change_right(fcinfo, "rebate.revoke_right", false));
}
