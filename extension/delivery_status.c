/*
 * delivery_status.c
 *	  The row of rebate.delivery_status.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "delivery.h"

PG_FUNCTION_INFO_V1(rebate_delivery_status);

/* rebate.get_delivery_status() */
Datum
rebate_delivery_status(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[15] = {0};
	bool		nulls[15];
	const char *reason;
	DeliveryMode mode = delivery_mode(&reason);
	RingDatabase *db = ring_database();

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	memset(nulls, true, sizeof(nulls));
#define SET(i, v) (values[i] = (v), nulls[i] = false)
	SET(0, CStringGetTextDatum(delivery_mode_name(rebate_delivery)));
	SET(1, CStringGetTextDatum(delivery_mode_name(mode)));
	if (reason)
		SET(2, CStringGetTextDatum(reason));
	if (db)
	{
		if (db->worker_pid != 0)
			SET(3, Int32GetDatum(db->worker_pid));
		SET(4, Int32GetDatum(rebate_ring_size));
		SET(5, Int64GetDatum((int64) ring_used(db)));
		SET(6, Int64GetDatum((int64) pg_atomic_read_u64(&db->overflows)));
		SET(7, Int64GetDatum((int64) pg_atomic_read_u64(&db->sweeps)));
		SET(8, Int64GetDatum((int64) pg_atomic_read_u64(&db->hints)));
		SET(9, Int64GetDatum((int64) pg_atomic_read_u64(&db->published)));
		SET(10, Int64GetDatum((int64) pg_atomic_read_u64(&db->notifications)));
		if (pg_atomic_read_u64(&db->notifications) > 0)
		{
			Interval   *lag = palloc0(sizeof(Interval));

			lag->time = (int64) pg_atomic_read_u64(&db->lag_us);
			SET(11, IntervalPGetDatum(lag));
		}
		if (db->last_error[0] != '\0')
		{
			SET(13, CStringGetTextDatum(db->last_error));
			SET(14, TimestampTzGetDatum(db->last_error_at));
		}
	}
	SET(12, OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE));
#undef SET
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
