/*
 * versions.c
 *	  Versions of library, SQL and store, and the way from one to the next.
 *
 * A package upgrade replaces the library under a running shop: sessions go on
 * with the one they have, new ones load the new one, and the SQL and the store
 * follow when somebody says so.  Orders are taken all the while; only what needs
 * a later version refuses.
 */
#include "rebate.h"

#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "allow.h"
#include "api.h"
#include "collect.h"
#include "create_store.h"
#include "rights.h"
#include "ring.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_upgrade_store);
PG_FUNCTION_INFO_V1(rebate_versions);

/* The step to a version of the store, NULL if this SQL does not know it. */
static char *
upgrade_script(Oid extowner, int32 version)
{
	SqlParams	params = {0};

	sql_int(&params, version);
	return run_query(extowner, "SELECT rebate.store_upgrade($1)", &params);
}

int32
upgrade_latest(Oid extowner)
{
	int32		version = 1;

	while (version < STORE_VERSION && upgrade_script(extowner, version + 1) != NULL)
		version++;
	return version;
}

/* Run the step to a version, the guards being off. */
void
upgrade_step(Oid extowner, Oid owner, int32 version)
{
	char	   *script = upgrade_script(extowner, version);

	if (script == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_OTHER_VERSION),
				 errmsg("version %d of the store is not known to this version of the extension",
						version),
				 errhint("ALTER EXTENSION rebate UPDATE, then try again.")));
	run_script(owner, script);
	run_script(owner, psprintf("UPDATE " STORE_SCHEMA ".store SET store_version = %d", version));
}

/*
 * rebate.upgrade_store(): all steps that are missing, in this transaction.  It
 * fails as a whole or is done; called again it does nothing.
 */
Datum
rebate_upgrade_store(PG_FUNCTION_ARGS)
{
	Store	   *store;
	StoreSpi	scope;
	Oid			extension;
	Oid			extowner = extension_owner(&extension);
	Oid			owner;
	int32		version;
	int			level;

	(void) collect_flush();
	rights_check(store_get(false), RIGHT_ADMIN, "rebate.upgrade_store");
	LockDatabaseObject(ExtensionRelationId, extension, 0, ShareUpdateExclusiveLock);

	/* somebody else may have been at it while we waited */
	store_forget();
	store = store_get(false);
	owner = store->owner;
	version = store->version;
	if (version >= STORE_VERSION)
	{
		ereport(NOTICE,
				(errmsg("the store has version %d already, nothing changed", version)));
		PG_RETURN_INT32(version);
	}

	level = begin_scripts();
	store_spi_begin(store, &scope);
	while (version < STORE_VERSION)
		upgrade_step(extowner, owner, ++version);
	store_spi_end(&scope);
	make_ours(extowner, owner);
	end_scripts(level);
	store = store_get(false);
	allow_seal(store);
	store_rules_changed(store);
	PG_RETURN_INT32(version);
}

/* Compares versions like 0.10.1, part by part */
static int
compare_versions(const char *a, const char *b)
{
	while (*a || *b)
	{
		char	   *aend;
		char	   *bend;
		long		x = strtol(a, &aend, 10);
		long		y = strtol(b, &bend, 10);

		if (x != y)
			return x < y ? -1 : 1;
		if (aend == a || bend == b)
			break;
		a = *aend ? aend + 1 : aend;
		b = *bend ? bend + 1 : bend;
	}
	return strcmp(a, b);
}

static void
put_version(ReturnSetInfo *result, const char *part, const char *version, const char *latest,
			const char *advice)
{
	Datum		values[4] = {0};
	bool		nulls[4] = {false, version == NULL, false, advice == NULL};

	values[0] = CStringGetTextDatum(part);
	if (version)
		values[1] = CStringGetTextDatum(version);
	values[2] = CStringGetTextDatum(latest);
	if (advice)
		values[3] = CStringGetTextDatum(advice);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * rebate.versions(): a row each for library, extension and store, with what to
 * do if one is behind.
 */
Datum
rebate_versions(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(true);
	char	   *installed;
	int			order;
	const char *advice = NULL;
	SqlParams	params = {0};

	if (store)
		rights_check(store, RIGHT_ADMIN | RIGHT_AUDITOR | RIGHT_OPERATOR, "rebate.versions");
	InitMaterializedSRF(fcinfo, 0);
	sql_text(&params, "rebate");
	installed = run_query(GetUserId(), "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = $1",
						  &params);
	if (installed == NULL)
		elog(ERROR, "extension \"rebate\" does not exist");
	order = compare_versions(REBATE_VERSION, installed);

	put_version((ReturnSetInfo *) fcinfo->resultinfo, "library", REBATE_VERSION,
				order < 0 ? installed : REBATE_VERSION,
				order >= 0 ? NULL : ring_exists() ? "restart the server" : "connect again");
	put_version((ReturnSetInfo *) fcinfo->resultinfo, "extension", installed,
				order > 0 ? REBATE_VERSION : installed,
				order > 0 ? "ALTER EXTENSION rebate UPDATE" : NULL);
	if (store && store->version < STORE_VERSION)
		advice = "SELECT rebate.upgrade_store()";
	put_version((ReturnSetInfo *) fcinfo->resultinfo, "store",
				store ? psprintf(store->sandbox ? "%d, sandbox" : "%d", store->version) : NULL,
				psprintf("%d", store ? Max(store->version, STORE_VERSION) : STORE_VERSION), advice);
	return (Datum) 0;
}
