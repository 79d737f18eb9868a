/*
 * statistics.c
 *	  The views rebate.stat_engine and rebate.stat_delivery, and their reset.
 *
 * They read shared memory and no table, so that they also work where the store
 * is damaged.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "collect.h"
#include "counters.h"
#include "delivery.h"
#include "rights.h"
#include "statistics.h"

PG_FUNCTION_INFO_V1(rebate_stat_engine);
PG_FUNCTION_INFO_V1(rebate_stat_delivery);
PG_FUNCTION_INFO_V1(rebate_stat_reset);

/*
 * Raise 42501 unless the current user may see statistics: members of pg_monitor,
 * superusers, and those who may see more anyway.
 */
void
statistics_check_user(const char *function)
{
	Store	   *store;

	if (has_privs_of_role(GetUserId(), ROLE_PG_MONITOR))
		return;
	store = store_get(true);
	if (store)
		rights_check(store, RIGHT_ADMIN | RIGHT_AUDITOR | RIGHT_OPERATOR, function);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", function),
				 errhint("GRANT pg_monitor TO %s.",
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

static TupleDesc
row_type(FunctionCallInfo fcinfo)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return BlessTupleDesc(desc);
}

/* rebate.get_stat_engine() */
Datum
rebate_stat_engine(PG_FUNCTION_ARGS)
{
	static const Counter columns[] = {
		CT_TRANSACTIONS, CT_ROLLED_BACK, CT_STATEMENTS, CT_BULK_STATEMENTS, CT_INSERTED,
		CT_UPDATED, CT_DELETED, CT_DEFERRED, CT_POSTED, CT_FAILED, CT_REBATES, CT_ENTRIES,
		CT_RETRIES, CT_CONFLICTS, CT_RULE_BUILDS, CT_COLLECT_TIME, CT_DECIDE_TIME, CT_POST_TIME
	};
	uint64		totals[NUM_COUNTERS];
	TimestampTz since;
	Datum		values[lengthof(columns) + 2];
	bool		nulls[lengthof(columns) + 2] = {0};
	int			n = 0;

	StaticAssertStmt(lengthof(columns) == NUM_COUNTERS, "each counter has a column");
	statistics_check_user("rebate.stat_engine");
	values[n++] = CStringGetTextDatum(counters_read(totals, &since) ? "database" : "session");
	for (int i = 0; i < (int) lengthof(columns); i++)
		values[n++] = columns[i] >= CT_COLLECT_TIME ?
			Float8GetDatum(totals[columns[i]] / 1e6) : Int64GetDatum((int64) totals[columns[i]]);
	values[n] = TimestampTzGetDatum(since);
	return HeapTupleGetDatum(heap_form_tuple(row_type(fcinfo), values, nulls));
}

/* rebate.get_stat_delivery() */
Datum
rebate_stat_delivery(PG_FUNCTION_ARGS)
{
	Datum		values[15] = {0};
	bool		nulls[15];
	RingDatabase *db;

	statistics_check_user("rebate.stat_delivery");
	memset(nulls, true, sizeof(nulls));
#define SET(i, v) (values[i] = (v), nulls[i] = false)
	SET(0, CStringGetTextDatum(delivery_mode_name(delivery_mode(NULL))));
	SET(13, OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE));
	db = ring_database();
	if (db)
	{
		TimestampTz oldest = ring_oldest(db);

		SET(2, Int64GetDatum((int64) ring_used(db)));
		SET(3, Int32GetDatum(rebate_ring_size));
		SET(4, Int64GetDatum((int64) pg_atomic_read_u64(&db->hints)));
		SET(5, Int64GetDatum((int64) pg_atomic_read_u64(&db->sweeps)));
		SET(6, Int64GetDatum((int64) pg_atomic_read_u64(&db->overflows)));
		SET(7, Int64GetDatum((int64) pg_atomic_read_u64(&db->published)));
		SET(8, Int64GetDatum((int64) pg_atomic_read_u64(&db->notifications)));
		SET(9, Int64GetDatum((int64) pg_atomic_read_u64(&db->errors)));
		if (pg_atomic_read_u64(&db->notifications) > 0)
			SET(11, Float8GetDatum(pg_atomic_read_u64(&db->lag_us) / 1000.0));
		if (oldest != 0)
			SET(12, TimestampTzGetDatum(oldest));
		ring_lock(false);
		SET(1, BoolGetDatum(db->worker_pid != 0));
		if (pg_atomic_read_u64(&db->errors) > 0)
			SET(10, TimestampTzGetDatum(db->last_error_at));
		SET(14, TimestampTzGetDatum(db->counting_since));
		ring_unlock();
	}
#undef SET
	return HeapTupleGetDatum(heap_form_tuple(row_type(fcinfo), values, nulls));
}

/* rebate.stat_reset() */
Datum
rebate_stat_reset(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(true);

	if (store)
		rights_check(store, RIGHT_ADMIN | RIGHT_OPERATOR, "rebate.stat_reset");
	else if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for rebate.stat_reset")));
	(void) collect_flush();
	counters_reset();
	PG_RETURN_VOID();
}
