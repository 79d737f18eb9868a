/*
 * programme.c
 *	  rebate.set_programme() and rebate.add_currency().
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "attach.h"
#include "collect.h"
#include "create_store.h"
#include "rights.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_set_programme);
PG_FUNCTION_INFO_V1(rebate_add_currency);

#define MAX_SCALE 12			/* as the CHECK of rebate_data.currency */

/* Whether any order is recorded, as committed by now */
static bool
orders_recorded(Store *store)
{
	Relation	rel = store_open(store, ST_ACCRUAL, AccessShareLock);
	/* also where the transaction's own snapshot is an old one */
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	bool		result = HeapTupleIsValid(systable_getnext(scan));

	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

/* Keep orders out of all attached tables until the end of the transaction. */
static void
lock_sources(Store *store)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	Oid		   *relids;
	int			n;

	store_spi_begin(store, &scope);
	n = (int) sql_run("SELECT relation::oid FROM rebate_data.source WHERE detached_at IS NULL"
					  " ORDER BY source_id", NULL, SPI_OK_SELECT);
	relids = MemoryContextAlloc(context, sizeof(Oid) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(sql_get(i, 1, &isnull));
	}
	store_spi_end(&scope);
	for (int i = 0; i < n; i++)
		/* one that is gone takes no orders */
		if (get_rel_relkind(relids[i]) == RELKIND_RELATION ||
			get_rel_relkind(relids[i]) == RELKIND_PARTITIONED_TABLE)
			triggers_lock_tree(relids[i], ShareRowExclusiveLock, "rebate.set_programme");
}

/*
 * The zone cannot change once there are orders: each would be read in the new one
 * at its next touch, and its money moved.  An order that is not committed yet, or
 * not even posted, must not slip through: it holds the lock of its table, and who
 * posts that of the accruals.
 */
static void
check_no_orders(Store *store)
{
	bool		recorded = orders_recorded(store);

	if (!recorded)
	{
		lock_sources(store);
		api_lock_configuration(store);
		/* those attached meanwhile */
		lock_sources(store);
		triggers_lock_tree(store->tables[ST_ACCRUAL], ShareLock, "rebate.set_programme");
		recorded = orders_recorded(store);
	}
	if (recorded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the time zone is \"%s\" and cannot be changed any more", store->time_zone),
				 errdetail("Orders are recorded, whose times were read in it."),
				 errhint("Set it before the first order.")));
}

/*
 * rebate.set_programme(time_zone): the zone in which times without zone, dates
 * and holds are read.
 */
Datum
rebate_set_programme(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *given = api_text(fcinfo, 0);
	char	   *zone = NULL;
	Store	   *store;
	StoreSpi	scope;
	SqlParams	params = {0};
	uint64		updated;

	(void) collect_flush();
	(void) create_store_if_missing();
	store = store_get(false);
	rights_check(store, RIGHT_ADMIN, "rebate.set_programme");
	if (given == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("time_zone must not be null")));

	/*
	 * A name of the zone database only: what else the server takes for a zone
	 * (a POSIX string, an offset) accepts nearly every misspelling.
	 */
	store_spi_begin(store, &scope);
	sql_text(&params, given);
	if (strlen(given) < sizeof(store->time_zone) &&
		sql_run("SELECT name FROM pg_timezone_names WHERE lower(name) = lower($1)", &params,
				SPI_OK_SELECT) > 0)
		zone = sql_get_text(0, 1, context);
	store_spi_end(&scope);
	if (zone == NULL || pg_tzset(zone) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", given),
				 errhint("Use a name of pg_timezone_names, for example 'Europe/Berlin'.")));

	if (strcmp(zone, store->time_zone) != 0)
		check_no_orders(store);
	store_spi_begin(store, &scope);
	params.n = 0;
	sql_text(&params, zone);
	updated = sql_run("UPDATE rebate_data.programme SET time_zone = $1"
					  " WHERE programme_id = 1 AND time_zone <> $1", &params, SPI_OK_UPDATE);
	store_spi_end(&scope);
	if (updated == 0)
		ereport(NOTICE,
				(errmsg("the time zone is \"%s\" already, nothing changed", zone)));
	else
		store_rules_changed(store);
	PG_RETURN_VOID();
}

/* Raise unless "code" can be a currency's: capitals, digits, underscores. */
static void
check_code(Store *store, const char *code)
{
	bool		ok = code[0] >= 'A' && code[0] <= 'Z' &&
		strlen(code) < sizeof(((CurrencyInfo *) NULL)->code);

	for (const char *p = code; *p; p++)
		ok = ok && ((*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_');
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be a currency code", code),
				 errhint("Use capital letters, digits and underscores, beginning with a letter, at most %d in all.",
						 (int) sizeof(((CurrencyInfo *) NULL)->code) - 1)));
}

/*
 * rebate.add_currency(code, scale): a unit of account.  The scale of one that
 * an account uses is fixed for good, since balances are kept in minor units.
 */
Datum
rebate_add_currency(PG_FUNCTION_ARGS)
{
	char	   *code = api_text(fcinfo, 0);
	int32		scale;
	Store	   *store;
	StoreSpi	scope;
	SqlParams	params = {0};
	bool		exists;
	int32		old_scale = -1;

	(void) collect_flush();
	(void) create_store_if_missing();
	store = store_get(false);
	rights_check(store, RIGHT_ADMIN, "rebate.add_currency");
	if (code == NULL || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", code == NULL ? "code" : "scale")));
	scale = PG_GETARG_INT32(1);
	check_code(store, code);
	if (scale < 0 || scale > MAX_SCALE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("scale must be between 0 and %d", MAX_SCALE)));

	store_spi_begin(store, &scope);
	sql_run("LOCK TABLE rebate_data.currency IN SHARE ROW EXCLUSIVE MODE", NULL, SPI_OK_UTILITY);
	sql_text(&params, code);
	exists = sql_run("SELECT scale::integer FROM rebate_data.currency WHERE code = $1", &params,
					 SPI_OK_SELECT) > 0;
	if (exists)
		old_scale = sql_get_int(0, 1, -1);
	if (old_scale != scale)
	{
		if (exists)
		{
			/* Nobody may open the first account of it while we look. */
			sql_run("LOCK TABLE rebate_data.account IN SHARE MODE", NULL, SPI_OK_UTILITY);
			if (sql_run("SELECT FROM rebate_data.account WHERE currency = $1 LIMIT 1", &params,
						SPI_OK_SELECT) > 0)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_IN_USE),
						 errmsg("the scale of currency \"%s\" is %d and cannot be changed any more",
								code, old_scale),
						 errdetail("There are accounts in it.")));
		}
		sql_int(&params, scale);
		if (exists)
			sql_run("UPDATE rebate_data.currency SET scale = $2, unit = ('1e-' || $2)::numeric"
					" WHERE code = $1", &params, SPI_OK_UPDATE);
		else
			sql_run("INSERT INTO rebate_data.currency (code, scale, unit)"
					" VALUES ($1, $2, ('1e-' || $2)::numeric)", &params, SPI_OK_INSERT);
	}
	store_spi_end(&scope);
	if (old_scale == scale)
		ereport(NOTICE,
				(errmsg("currency \"%s\" has scale %d already, nothing changed", code, scale)));
	else
		store_rules_changed(store);
	PG_RETURN_VOID();
}
