/*
 * clock_age.c
 *	  The job that confirms pending orders after auto_confirm_after, and gives up
 *	  those that never came on after give_up_after.
 *
 * Each is decided again from its row, by the path of all orders, with the clock at
 * "upto"; what the clock did is recorded with the order as a fact.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api.h"
#include "clock.h"
#include "clock_batch.h"
#include "order.h"
#include "reconcile.h"
#include "rules.h"

/* Orders of the first batch, and at most of one: the rows of all are locked while it lasts */
#define FIRST_BATCH		10
#define MAX_BATCH		50

typedef struct Age
{
	ClockBatch	batch;
	int			bucket;
	/* the place of the last one looked at in the bucket */
	bool		begun;
	TimestampTz due;
	int64		account_id;
	int64		seq;
} Age;

typedef struct AgedOrder
{
	Oid			relid;
	char	   *key;
} AgedOrder;

static int
compare_orders(const ListCell *a, const ListCell *b)
{
	const AgedOrder *x = lfirst(a);
	const AgedOrder *y = lfirst(b);

	if (x->relid != y->relid)
		return x->relid < y->relid ? -1 : 1;
	return strcmp(x->key, y->key);
}

/* The orders of the next accruals that are due */
static List *
next_orders(Store *store, ClockRun *run, Age *age, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *orders = NIL;
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_param(&params, CHAROID, CharGetDatum('0' + age->bucket), false);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(run->upto), false);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(age->begun ? age->due : DT_NOBEGIN), false);
	sql_param(&params, INT8OID, Int64GetDatum(age->account_id), false);
	sql_param(&params, INT8OID, Int64GetDatum(age->seq), false);
	sql_int(&params, age->batch.rows);
	store_spi_begin(store, &scope);
	*n = (int) sql_run("SELECT w.due, w.account_id, w.seq, s.relation::oid, x.order_key"
					   "  FROM (SELECT * FROM rebate_data.waiting"
					   "         WHERE bucket = $1 AND due <= $2 AND (due, account_id, seq) > ($3, $4, $5)"
					   "         ORDER BY due, account_id, seq LIMIT $6) w"
					   "  LEFT JOIN rebate_data.accrual x ON x.account_id = w.account_id AND x.seq = w.seq"
					   "  LEFT JOIN rebate_data.source s ON s.source_id = x.source_id AND s.detached_at IS NULL"
					   " ORDER BY w.due, w.account_id, w.seq", &params, SPI_OK_SELECT);
	for (int row = 0; row < *n; row++)
	{
		bool		isnull;
		Oid			relid;

		age->begun = true;
		age->due = DatumGetTimestampTz(sql_get(row, 1, &isnull));
		age->account_id = DatumGetInt64(sql_get(row, 2, &isnull));
		age->seq = DatumGetInt64(sql_get(row, 3, &isnull));
		relid = DatumGetObjectId(sql_get(row, 4, &isnull));
		if (!isnull)
		{
			MemoryContext old = MemoryContextSwitchTo(context);
			AgedOrder  *order = palloc(sizeof(AgedOrder));

			order->relid = relid;
			order->key = sql_get_text(row, 5, context);
			orders = lappend(orders, order);
			MemoryContextSwitchTo(old);
		}
	}
	store_spi_end(&scope);
	list_sort(orders, compare_orders);
	return orders;
}

static void
age_orders(Store *store, ClockRun *run, Oid relid, List *keys)
{
	Source	   *source = source_get(store, relid);
	Reconciled	result = {0};

	if (source == NULL || source->broken)
	{
		run->busy += list_length(keys);
		return;
	}
	decide_clock = run->upto;
	PG_TRY();
	{
		reconcile_keys(store, source, keys, false, &result);
	}
	PG_FINALLY();
	{
		decide_clock = DT_NOBEGIN;
	}
	PG_END_TRY();
	run->done += result.ndecided;
	run->busy += result.nbusy;
}

bool
clock_age_step(Store *store, ClockRun *run)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate age",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Age		   *age = run->state;
	List	   *orders;
	List	   *keys = NIL;
	ListCell   *lc;
	AgedOrder  *last = NULL;
	int			n;
	bool		full;

	if (age == NULL)
	{
		age = run->state = MemoryContextAllocZero(run->context, sizeof(Age));
		age->bucket = BUCKET_TRACKED;
		clock_batch_init(&age->batch, FIRST_BATCH, MAX_BATCH);
	}
	orders = next_orders(store, run, age, &n);
	full = n == age->batch.rows;
	(void) rules_generation(store);
	clock_batch_locks(&age->batch);
	foreach(lc, orders)
	{
		AgedOrder  *order = lfirst(lc);

		if (last && last->relid != order->relid)
		{
			age_orders(store, run, last->relid, keys);
			keys = NIL;
		}
		if (keys == NIL || strcmp(llast(keys), order->key) != 0)
			keys = lappend(keys, order->key);
		last = order;
	}
	if (last)
		age_orders(store, run, last->relid, keys);
	clock_batch_end(&age->batch, n);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);

	if (full)
		return true;
	if (age->bucket == BUCKET_TRACKED)
	{
		age->begun = false;
		age->account_id = age->seq = 0;
		age->bucket = BUCKET_PENDING;
		return true;
	}
	if (run->busy > 0)
		ereport(NOTICE,
				(errmsg_plural(INT64_FORMAT " order was left to the next run",
							   INT64_FORMAT " orders were left to the next run",
							   run->busy, run->busy),
				 errdetail("Open transactions are changing them, or the mapping of their table no longer fits.")));
	return false;
}
