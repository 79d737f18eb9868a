/*
 * freeze.c
 *	  rebate.freeze() and unfreeze(): disputes and reviews stop the clock.
 *
 * A freeze is a recorded fact of an order, and moves no money: what it stops is
 * the clock.  While an order is frozen for any reason its maturing rebates are due
 * at infinity, and afterwards later by the time that it was frozen.  Flag
 * ORDER_FROZEN in the order's rows says that there are records to be looked for,
 * so that other orders pay nothing.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api.h"
#include "freeze.h"
#include "order.h"
#include "post_clock.h"
#include "read.h"
#include "reconcile.h"
#include "rights.h"
#include "rules.h"

PG_FUNCTION_INFO_V1(rebate_freeze);
PG_FUNCTION_INFO_V1(rebate_unfreeze);

/* Columns of rebate_data.freeze */
enum
{
	FC_SOURCE_ID = 1, FC_ORDER_KEY, FC_FROZEN_AT, FC_REASON, FC_FROZEN_BY, FC_UNFROZEN_AT,
	FC_UNFROZEN_BY
};

void
freezes_read(Store *store, int32 source_id, const char *key, Snapshot snapshot, Freezes *freezes)
{
	Relation	rel = store_open(store, ST_FREEZE, AccessShareLock);
	Relation	index;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	int			allocated = 0;

	freezes->n = 0;
	freezes->items = NULL;
	ScanKeyInit(&keys[0], FC_SOURCE_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(source_id));
	ScanKeyInit(&keys[1], FC_ORDER_KEY, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(key));
	/* in the order of the index, which goes on with the beginning */
	index = index_open(store->indexes[SI_FREEZE], AccessShareLock);
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		Datum		until;
		bool		isnull;

		if (freezes->n == allocated)
		{
			allocated = Max(4, allocated * 2);
			freezes->items = freezes->items ?
				repalloc(freezes->items, sizeof(Freeze) * allocated) :
				palloc(sizeof(Freeze) * allocated);
		}
		freezes->items[freezes->n].from =
			DatumGetTimestampTz(heap_getattr(tuple, FC_FROZEN_AT, desc, &isnull));
		until = heap_getattr(tuple, FC_UNFROZEN_AT, desc, &isnull);
		freezes->items[freezes->n++].until = isnull ? DT_NOEND : DatumGetTimestampTz(until);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

TimestampTz
freezes_due(const Freezes *freezes, TimestampTz since, TimestampTz due)
{
	TimestampTz counted = since;	/* all before is in "due" already */
	bool		at_once = due == since;

	/* whenever it was due, the clock has not come to it */
	for (int i = 0; i < freezes->n; i++)
		if (TIMESTAMP_IS_NOEND(freezes->items[i].until))
			return DT_NOEND;
	for (int i = 0; i < freezes->n; i++)
	{
		TimestampTz from = Max(freezes->items[i].from, counted);

		/* by then it was due; where nothing is waited for, a freeze of that moment is first */
		if (at_once ? from > due : from >= due)
			break;
		if (freezes->items[i].until <= from)
			continue;
		due += freezes->items[i].until - from;
		counted = freezes->items[i].until;
	}
	return due;
}

void
freezes_rekey(Store *store, int32 source_id, const char *oldkey, const char *newkey)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_int(&params, source_id);
	sql_text(&params, oldkey);
	sql_text(&params, newkey);
	store_spi_begin(store, &scope);
	sql_run("UPDATE rebate_data.freeze SET order_key = $3 WHERE source_id = $1 AND order_key = $2 COLLATE \"C\"",
			&params, SPI_OK_UPDATE);
	store_spi_end(&scope);
}

/* A call of freeze() or unfreeze(), once its arguments are read */
typedef struct FreezeCall
{
	Store	   *store;
	Source	   *source;
	char	   *key;
	char	   *reason;			/* NULL: any */
	TimestampTz at;
	bool		ends;
	int64		changed;		/* records made or ended */
} FreezeCall;

static void
read_call(FunctionCallInfo fcinfo, const char *function, FreezeCall *call)
{
	char	   *key;

	PreventCommandIfReadOnly(function);
	call->source = read_source(fcinfo, &call->store, RIGHT_OPERATOR, function);
	key = api_text(fcinfo, 1);
	call->reason = api_text(fcinfo, 2);
	if (key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("order_key must not be null")));
	if (call->reason || !call->ends)
		api_check_name(ERRCODE_INVALID_PARAMETER_VALUE, "reason", call->reason);
	call->key = reconcile_key(call->source, key);
	call->at = PG_ARGISNULL(3) ? GetCurrentTransactionStartTimestamp() : PG_GETARG_TIMESTAMPTZ(3);
	if (TIMESTAMP_NOT_FINITE(call->at) || call->at > GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"at\" must be finite, and not in the future")));
}

/* Write the record, once the order and its accounts are locked. */
static void
record(void *arg)
{
	FreezeCall *call = arg;
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_int(&params, call->source->source_id);
	sql_text(&params, call->key);
	sql_text(&params, call->reason);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(call->at), false);
	store_spi_begin(call->store, &scope);
	if (!call->ends)
		call->changed = (int64)
			sql_run("INSERT INTO rebate_data.freeze (source_id, order_key, frozen_at, reason, frozen_by)"
					" SELECT $1, $2, $4, $3, session_user"
					"  WHERE NOT EXISTS (SELECT FROM rebate_data.freeze"
					"                     WHERE source_id = $1 AND order_key = $2 COLLATE \"C\" AND reason = $3"
					"                       AND (unfrozen_at IS NULL OR frozen_at = $4))",
					&params, SPI_OK_INSERT);
	else
	{
		if (sql_run("SELECT FROM rebate_data.freeze"
					" WHERE source_id = $1 AND order_key = $2 COLLATE \"C\" AND ($3 IS NULL OR reason = $3)"
					"   AND unfrozen_at IS NULL AND frozen_at > $4", &params, SPI_OK_SELECT) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("order %s was frozen later than that", call->key)));
		call->changed = (int64)
			sql_run("UPDATE rebate_data.freeze SET unfrozen_at = $4, unfrozen_by = session_user"
					" WHERE source_id = $1 AND order_key = $2 COLLATE \"C\" AND ($3 IS NULL OR reason = $3)"
					"   AND unfrozen_at IS NULL", &params, SPI_OK_UPDATE);
	}
	store_spi_end(&scope);
}

/*
 * Lock the order's row, so that nobody decides the order meanwhile, then its
 * accounts, and bring its rebates to what is recorded.
 */
static void
change(FreezeCall *call)
{
	Relation	rel = table_open(call->source->relid, RowShareLock);

	(void) rules_generation(call->store);
	if (!call->source->broken)
		(void) facts_wait_row(call->source, rel, call->key);
	if (!post_freezes(call->store, call->source->source_id, call->key, record, call))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("order %s of %s is not known", call->key, call->source->name),
				 errhint("rebate.order_key() makes the key, rebate.explain() says what is known.")));
	table_close(rel, NoLock);

	/* what waits to be confirmed or given up follows when it is decided again */
	if (!call->source->broken && (call->source->has_auto_confirm || call->source->has_give_up))
	{
		Reconciled	result = {0};

		reconcile_keys(call->store, call->source, list_make1(call->key), false, &result);
	}
}

/* rebate.freeze(source, order_key, reason, at): false if it is frozen already */
Datum
rebate_freeze(PG_FUNCTION_ARGS)
{
	FreezeCall	call = {0};

	read_call(fcinfo, "rebate.freeze", &call);
	change(&call);
	if (call.changed == 0)
		ereport(NOTICE,
				(errmsg("order %s is frozen for this reason already", call.key)));
	PG_RETURN_BOOL(call.changed > 0);
}

/* rebate.unfreeze(source, order_key, reason, at): how many freezes it ended */
Datum
rebate_unfreeze(PG_FUNCTION_ARGS)
{
	FreezeCall	call = {.ends = true};

	read_call(fcinfo, "rebate.unfreeze", &call);
	change(&call);
	if (call.changed == 0)
		ereport(NOTICE,
				(errmsg("order %s is not frozen", call.key)));
	PG_RETURN_INT32((int32) call.changed);
}
