/*
 * ageing.c
 *	  rebate.set_ageing(): orders that the clock confirms or gives up.
 */
#include "rebate.h"

#include "access/genam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api.h"
#include "attach.h"
#include "read.h"
#include "reconcile.h"
#include "rights.h"
#include "rules.h"

PG_FUNCTION_INFO_V1(rebate_set_ageing);

/* A positive interval, or none */
static Interval *
get_interval(FunctionCallInfo fcinfo, int argno, const char *name)
{
	Interval	zero = {0};

	if (PG_ARGISNULL(argno))
		return NULL;
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, PG_GETARG_DATUM(argno),
										  IntervalPGetDatum(&zero))) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("%s must be positive", name)));
	return PG_GETARG_INTERVAL_P(argno);
}

/* Decide the orders again that wait, or may wait now. */
static int64
decide_waiting(Store *store, Source *source)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate ageing",
												  ALLOCSET_DEFAULT_SIZES);
	Reconciled	result = {0};
	char	   *last = NULL;
	int			n;

	do
	{
		MemoryContext caller = MemoryContextSwitchTo(context);
		List	   *keys = NIL;
		StoreSpi	scope;
		SqlParams	params = {0};

		sql_int(&params, source->source_id);
		sql_text(&params, last);
		sql_int(&params, RECONCILE_BATCH);
		store_spi_begin(store, &scope);
		n = (int) sql_run("SELECT DISTINCT order_key FROM rebate_data.accrual"
						  " WHERE source_id = $1 AND ($2 IS NULL OR order_key > $2 COLLATE \"C\")"
						  "   AND bucket IN ('0', '1') ORDER BY order_key LIMIT $3", &params, SPI_OK_SELECT);
		MemoryContextSwitchTo(context);
		for (int row = 0; row < n; row++)
			keys = lappend(keys, sql_get_text(row, 1, context));
		store_spi_end(&scope);
		MemoryContextSwitchTo(caller);
		if (n > 0)
		{
			reconcile_keys(store, source, keys, false, &result);
			last = pstrdup(llast(keys));
		}
		MemoryContextReset(context);
	} while (n == RECONCILE_BATCH);
	MemoryContextDelete(context);
	return result.ndecided;
}

/*
 * rebate.set_ageing(source, auto_confirm_after, give_up_after): returns the number
 * of orders that were decided again.
 */
Datum
rebate_set_ageing(PG_FUNCTION_ARGS)
{
	Store	   *store;
	Source	   *source;
	Oid			relid;
	Interval   *confirm;
	Interval   *give_up;
	StoreSpi	scope;
	SqlParams	params = {0};

	PreventCommandIfReadOnly("rebate.set_ageing()");
	source = read_source(fcinfo, &store, RIGHT_ADMIN, "rebate.set_ageing");
	relid = source->relid;
	if (!pg_class_ownercheck_compat(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
	reconcile_check_source(source);
	confirm = get_interval(fcinfo, 1, "auto_confirm_after");
	give_up = get_interval(fcinfo, 2, "give_up_after");
	/* those decided meanwhile would not know of the change */
	triggers_lock_tree(source->relid, ShareRowExclusiveLock, "rebate.set_ageing");
	api_lock_configuration(store);
	sql_int(&params, source->source_id);
	sql_param(&params, INTERVALOID, IntervalPGetDatum(confirm), confirm == NULL);
	sql_param(&params, INTERVALOID, IntervalPGetDatum(give_up), give_up == NULL);
	store_spi_begin(store, &scope);
	sql_run("UPDATE rebate_data.source SET auto_confirm_after = $2, give_up_after = $3"
			" WHERE source_id = $1", &params, SPI_OK_UPDATE);
	store_spi_end(&scope);
	store_rules_changed(store);
	CommandCounterIncrement();

	store = store_get(false);
	(void) rules_generation(store);
	source = source_get(store, relid);
	PG_RETURN_INT64(decide_waiting(store, source));
}
