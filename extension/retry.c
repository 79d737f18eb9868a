/*
 * retry.c
 *	  rebate.retry(): orders that were set aside are decided again.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api.h"
#include "collect.h"
#include "read.h"
#include "reconcile.h"
#include "rights.h"
#include "rules.h"

PG_FUNCTION_INFO_V1(rebate_retry);

/* What became of all of them */
typedef struct Retried
{
	int64		looked_at;
	Reconciled	result;
} Retried;

/* A stretch of the failures of a source, in the order of keys, after "last" */
static List *
next_failures(Store *store, int32 source_id, const char *last, int n, MemoryContext context)
{
	List	   *keys = NIL;
	StoreSpi	scope;
	SqlParams	params = {0};
	MemoryContext old = MemoryContextSwitchTo(context);

	sql_int(&params, source_id);
	sql_text(&params, last);
	sql_int(&params, n);
	store_spi_begin(store, &scope);
	/* of an ambiguous change of keys only a person knows which became which */
	n = (int) sql_run("SELECT order_key FROM rebate_data.failure"
					  " WHERE source_id = $1 AND ($2 IS NULL OR order_key > $2 COLLATE \"C\")"
					  "   AND sqlstate <> 'RB012'"
					  " ORDER BY order_key LIMIT $3", &params, SPI_OK_SELECT);
	MemoryContextSwitchTo(context);
	for (int row = 0; row < n; row++)
		keys = lappend(keys, sql_get_text(row, 1, context));
	store_spi_end(&scope);
	MemoryContextSwitchTo(old);
	return keys;
}

static void
retry_source(Store *store, Source *source, int64 limit, Retried *retried)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate retry",
												  ALLOCSET_DEFAULT_SIZES);
	char	   *last = NULL;

	(void) rules_generation(store);
	for (;;)
	{
		int			batch = RECONCILE_BATCH;
		List	   *keys;

		if (limit > 0 && limit - retried->looked_at < batch)
			batch = (int) (limit - retried->looked_at);
		if (batch == 0)
			break;
		keys = next_failures(store, source->source_id, last, batch, context);
		if (keys == NIL)
			break;
		reconcile_keys(store, source, keys, false, &retried->result);
		retried->looked_at += list_length(keys);
		last = pstrdup(llast(keys));
		if (list_length(keys) < batch)
			break;
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}

/* The attached tables that have failures */
static List *
sources_with_failures(Store *store)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *relids = NIL;
	StoreSpi	scope;
	int			n;

	store_spi_begin(store, &scope);
	n = (int) sql_run("SELECT s.relation::oid FROM rebate_data.source s"
					  " WHERE s.detached_at IS NULL AND EXISTS"
					  "  (SELECT FROM rebate_data.failure f WHERE f.source_id = s.source_id)"
					  " ORDER BY s.source_id", NULL, SPI_OK_SELECT);
	for (int row = 0; row < n; row++)
	{
		bool		isnull;
		Oid			relid = DatumGetObjectId(sql_get(row, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(context);

		relids = lappend_oid(relids, relid);
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);
	return relids;
}

/*
 * rebate.retry(source, limit): healed, still failing, and left to transactions
 * that are changing them.
 */
Datum
rebate_retry(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	Retried		retried = {0};
	int64		limit = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	PreventCommandIfReadOnly("rebate.retry()");
	rights_check(store, RIGHT_OPERATOR, "rebate.retry");
	if (limit < 0 || (!PG_ARGISNULL(1) && limit == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("limit must be positive")));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (!PG_ARGISNULL(0))
	{
		Source	   *source = read_source(fcinfo, &store, RIGHT_OPERATOR, "rebate.retry");

		reconcile_check_source(source);
		retry_source(store, source, limit, &retried);
	}
	else
	{
		ListCell   *lc;

		collect_flush();
		foreach(lc, sources_with_failures(store))
		{
			Source	   *source = source_get(store, lfirst_oid(lc));

			if (source == NULL)
				continue;
			if (source->broken)
			{
				ereport(WARNING,
						(errcode(ERRCODE_RB_INVALID_MAPPING),
						 errmsg("orders of %s stay as they are, since the mapping no longer fits the table",
								source->name),
						 errdetail("%s.", source->broken),
						 errhint("Call rebate.attach() with replace => true.")));
				continue;
			}
			retry_source(store, source, limit, &retried);
		}
	}
	values[0] = Int64GetDatum(retried.result.ndecided - retried.result.nfailed);
	values[1] = Int64GetDatum(retried.result.nfailed);
	values[2] = Int64GetDatum(retried.result.nbusy);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
