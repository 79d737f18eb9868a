/*
 * reconcile.c
 *	  Orders that no trigger decided: those that were there when a table was
 *	  attached, those that were deferred, those that came behind our back.
 *
 * An order is decided under the lock of its row, so that whoever changes it
 * meanwhile comes before or after, and never in between.  Rows that somebody is
 * changing are left to him: nobody waits for us who need not, nor we for him.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "audit.h"
#include "collect.h"
#include "order.h"
#include "read.h"
#include "reconcile.h"
#include "rights.h"
#include "rules.h"

PG_FUNCTION_INFO_V1(rebate_reconcile);

int64
reconcile_attach(Oid relid, bool record_all_existing, bool again)
{
	Store	   *store = store_get(false);
	CollectBatch batch = {0};
	CollectRun	run = {0};
	Relation	rel;

	collect_flush();
	batch.store = store;
	batch.source = source_get(store, relid);
	if (batch.source == NULL)
		elog(ERROR, "relation %u is not attached", relid);
	batch.only_unseen = !again;
	batch.any_backdate = true;
	batch.event = record_all_existing ? COLLECT_UPDATE : COLLECT_INSERT;
	batch.all_old = record_all_existing;
	batch.skip_old = !record_all_existing;

	rel = table_open(relid, AccessShareLock);
	/* with rebate.mode = defer, too, they are decided at once */
	if (rebate_mode == MODE_DEFER)
		collect_run = &run;
	PG_TRY();
	{
		collect_table(&batch, rel);
		collect_flush();
	}
	PG_FINALLY();
	{
		collect_run = NULL;
	}
	PG_END_TRY();
	table_close(rel, NoLock);
	return batch.ncollected;
}

/* Keys of a list for SPI, in the current context */
static Datum
key_array(List *keys)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(list_length(keys), 1));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, keys)
		elems[n++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * What the store knows of keys: the deferred ones, whose rows are locked here,
 * and those set aside as ambiguous.
 */
typedef struct Known
{
	const char *key;
	bool		deferred;
	bool		held;			/* a deferred one that somebody else is touching */
	bool		ambiguous;
} Known;

static pg_noinline Known *
read_known(Store *store, Source *source, List *keys)
{
	MemoryContext context = CurrentMemoryContext;
	int			n = list_length(keys);
	Known	   *known = palloc0(sizeof(Known) * Max(n, 1));
	StoreSpi	scope;
	SqlParams	params = {0};
	ListCell   *lc;
	int			i = 0;

	foreach(lc, keys)
		known[i++].key = lfirst(lc);
	sql_int(&params, source->source_id);
	sql_param(&params, TEXTARRAYOID, key_array(keys), false);
	store_spi_begin(store, &scope);
	sql_run("SELECT k.place::int, 1 FROM unnest($2) WITH ORDINALITY k(key, place)"
			"  JOIN rebate_data.deferred d ON d.source_id = $1 AND d.order_key = k.key COLLATE \"C\""
			" UNION ALL "
			"SELECT k.place::int, 2 FROM unnest($2) WITH ORDINALITY k(key, place)"
			"  JOIN rebate_data.failure f ON f.source_id = $1 AND f.order_key = k.key COLLATE \"C\""
			" WHERE f.sqlstate = 'RB012'", &params, SPI_OK_SELECT);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Known	   *k = &known[sql_get_int(row, 1, 0) - 1];

		if (sql_get_int(row, 2, 0) == 1)
			k->deferred = k->held = true;
		else
			k->ambiguous = true;
	}
	sql_run("SELECT k.place::int FROM unnest($2) WITH ORDINALITY k(key, place)"
			"  JOIN rebate_data.deferred d ON d.source_id = $1 AND d.order_key = k.key COLLATE \"C\""
			" ORDER BY d.order_key FOR UPDATE OF d SKIP LOCKED", &params, SPI_OK_SELECT);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Known	   *k = &known[sql_get_int(row, 1, 0) - 1];

		k->deferred = true;
		k->held = false;
	}
	store_spi_end(&scope);
	MemoryContextSwitchTo(context);
	return known;
}

static void
forget_deferred(Store *store, Source *source, List *keys)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	if (keys == NIL)
		return;
	sql_int(&params, source->source_id);
	sql_param(&params, TEXTARRAYOID, key_array(keys), false);
	store_spi_begin(store, &scope);
	sql_run("DELETE FROM rebate_data.deferred WHERE source_id = $1 AND order_key = ANY ($2)",
			&params, SPI_OK_DELETE);
	store_spi_end(&scope);
}

/* Put one order into the collection, unless there is nothing to decide. */
static void
take_order(Store *store, Source *source, Relation rel, Relation accrual, Snapshot snapshot,
		   const Known *known, Reconciled *result, List **done)
{
	OrderFacts	facts;
	RowLock		lock;

	if (known->held || (lock = facts_lock_row(source, rel, known->key)) == ROW_BUSY)
	{
		result->nbusy++;
		return;
	}
	facts_read(store, accrual, source->source_id, known->key, snapshot, &facts);
	if (lock == ROW_GONE && !facts.seen && !facts.deferred)
		return;
	if (known->deferred)
		*done = lappend(*done, (void *) known->key);
	if (facts.ambiguous)
		collect_failure(store, source, known->key, ERRCODE_RB_AMBIGUOUS_REKEY,
						"several keys changed in one statement",
						"It is not known which order became which.");
	else
		collect_again(store, source, known->key,
					  facts.deferred ? facts.deferred_archived : source->on_delete == LEAVE_KEEP);
	result->ndecided++;
}

void
reconcile_keys(Store *store, Source *source, List *keys, bool named, Reconciled *result)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate reconcile",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	CollectRun	run = {0};
	Relation	rel = table_open(source->relid, RowShareLock);
	Relation	accrual = store_open(store, ST_ACCRUAL, RowExclusiveLock);
	Known	   *known = read_known(store, source, keys);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *done = NIL;

	collect_run = &run;
	PG_TRY();
	{
		for (int i = 0; i < list_length(keys); i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (known[i].ambiguous && !known[i].deferred && !named)
				continue;
			take_order(store, source, rel, accrual, snapshot, &known[i], result, &done);
		}
		collect_flush();
	}
	PG_FINALLY();
	{
		collect_run = NULL;
	}
	PG_END_TRY();
	result->nfailed += run.nfailed;
	UnregisterSnapshot(snapshot);
	forget_deferred(store, source, done);
	table_close(accrual, NoLock);
	table_close(rel, NoLock);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

void
reconcile_check_source(Source *source)
{
	if (source->broken)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("the mapping of %s no longer fits the table", source->name),
				 errdetail("%s.", source->broken),
				 errhint("Call rebate.attach() with replace => true.")));
}

/* What is deferred, in the order of keys, at most "limit" orders (0: all) */
static void
reconcile_deferred(Store *store, Source *source, int64 limit, Reconciled *result)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate deferred",
												  ALLOCSET_DEFAULT_SIZES);
	char	   *last = NULL;
	int64		taken = 0;

	for (;;)
	{
		MemoryContext caller = MemoryContextSwitchTo(context);
		int			batch = RECONCILE_BATCH;
		List	   *keys = NIL;
		StoreSpi	scope;
		SqlParams	params = {0};
		int			n;

		if (limit > 0 && limit - taken < batch)
			batch = (int) (limit - taken);
		sql_int(&params, source->source_id);
		sql_text(&params, last);
		sql_int(&params, batch);
		store_spi_begin(store, &scope);
		n = (int) sql_run("SELECT order_key FROM rebate_data.deferred"
						  " WHERE source_id = $1 AND ($2 IS NULL OR order_key > $2 COLLATE \"C\")"
						  " ORDER BY order_key LIMIT $3", &params, SPI_OK_SELECT);
		MemoryContextSwitchTo(context);
		for (int row = 0; row < n; row++)
			keys = lappend(keys, sql_get_text(row, 1, context));
		store_spi_end(&scope);
		MemoryContextSwitchTo(caller);
		if (n > 0)
		{
			reconcile_keys(store, source, keys, false, result);
			last = pstrdup(llast(keys));
			taken += n;
		}
		MemoryContextReset(context);
		if (n < batch || taken == limit)
			break;
	}
	MemoryContextDelete(context);
}

/* Orders that the audit objects to, on their way to be decided */
typedef struct Objected
{
	Store	   *store;
	MemoryContext context;
	List	   *keys;
	Reconciled *result;
} Objected;

static void
decide_objected(Objected *o, Source *source)
{
	reconcile_keys(o->store, source, o->keys, false, o->result);
	o->keys = NIL;
	MemoryContextReset(o->context);
}

static void
keep_objected(void *arg, Source *source, const char *key, const char *violation,
			  const char *detail)
{
	Objected   *o = arg;
	MemoryContext caller;

	/* an order can have several */
	if (o->keys != NIL && strcmp(llast(o->keys), key) == 0)
		return;
	caller = MemoryContextSwitchTo(o->context);
	o->keys = lappend(o->keys, pstrdup(key));
	MemoryContextSwitchTo(caller);
	if (list_length(o->keys) == RECONCILE_BATCH)
		decide_objected(o, source);
}

/*
 * The whole table: each order is looked at as the audit does, and what the audit
 * objects to is decided.
 */
static void
reconcile_table(Store *store, Source *source, Reconciled *result)
{
	Objected	o = {.store = store,.result = result};

	o.context = AllocSetContextCreate(CurrentMemoryContext, "rebate objections",
									  ALLOCSET_DEFAULT_SIZES);
	audit_orders(store, source, keep_objected, &o);
	if (o.keys != NIL)
		decide_objected(&o, source);
	MemoryContextDelete(o.context);
}

char *
reconcile_key(Source *source, const char *text)
{
	char	  **parts = palloc(sizeof(char *) * source->nkeys);
	Jsonb	   *jb;

	if (source->nkeys == 1)
	{
		parts[0] = canon_from_text(&source->key_canon[0], text);
		return canon_key(1, parts);
	}
	jb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	if (!JB_ROOT_IS_ARRAY(jb) || JB_ROOT_IS_SCALAR(jb) || JB_ROOT_COUNT(jb) != (uint32) source->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no key of %s", text, source->name),
				 errdetail("The key has %d columns: give a JSON array of their values.",
						   source->nkeys),
				 errhint("rebate.order_key() makes it.")));
	for (int i = 0; i < source->nkeys; i++)
	{
		JsonbValue *v = getIthJsonbValueFromContainer(&jb->root, i);
		char	   *value = NULL;

		if (v->type == jbvString)
			value = pnstrdup(v->val.string.val, v->val.string.len);
		else if (v->type == jbvNumeric)
			value = DatumGetCString(DirectFunctionCall1(numeric_out,
														NumericGetDatum(v->val.numeric)));
		else if (v->type == jbvBool)
			value = pstrdup(v->val.boolean ? "true" : "false");
		if (value == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" is no key of %s", text, source->name),
					 errdetail("Each of its columns is a text or a number.")));
		parts[i] = canon_from_text(&source->key_canon[i], value);
	}
	return canon_key(source->nkeys, parts);
}

static int
compare_keys(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static List *
keys_from_array(Source *source, ArrayType *array)
{
	List	   *sorted = NIL;
	List	   *keys = NIL;
	Datum	   *elems;
	bool	   *nulls;
	int			n;
	ListCell   *lc;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a key must not be null")));
		sorted = lappend(sorted, reconcile_key(source, TextDatumGetCString(elems[i])));
	}
	list_sort(sorted, compare_keys);
	foreach(lc, sorted)
		if (keys == NIL || strcmp(llast(keys), lfirst(lc)) != 0)
			keys = lappend(keys, lfirst(lc));
	return keys;
}

/*
 * rebate.reconcile(source, keys, deferred_only, limit): decides orders from their
 * rows as they are now, with or without triggers; returns their number.
 */
Datum
rebate_reconcile(PG_FUNCTION_ARGS)
{
	Store	   *store;
	Source	   *source;
	bool		deferred_only = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	Reconciled	result = {0};

	PreventCommandIfReadOnly("rebate.reconcile()");
	source = read_source(fcinfo, &store, RIGHT_OPERATOR, "rebate.reconcile");
	reconcile_check_source(source);
	if (!PG_ARGISNULL(3) && (!deferred_only || PG_GETARG_INT32(3) < 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("limit must be positive, and goes with deferred_only => true")));
	(void) rules_generation(store);

	if (!PG_ARGISNULL(1))
	{
		List	   *keys = keys_from_array(source, PG_GETARG_ARRAYTYPE_P(1));

		if (deferred_only)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("deferred_only does not go with keys")));
		for (int i = 0; i < list_length(keys); i += RECONCILE_BATCH)
		{
			List	   *batch = list_copy_tail(keys, i);

			reconcile_keys(store, source, list_truncate(batch, RECONCILE_BATCH), true, &result);
		}
	}
	else
	{
		reconcile_deferred(store, source, PG_ARGISNULL(3) ? 0 : PG_GETARG_INT32(3), &result);
		if (!deferred_only)
			reconcile_table(store, source, &result);
	}

	if (result.nfailed > 0)
		ereport(WARNING,
				(errcode(ERRCODE_RB_ORDER_FAILED),
				 errmsg_plural(INT64_FORMAT " order of %s could not be decided and was set aside",
							   INT64_FORMAT " orders of %s could not be decided and were set aside",
							   result.nfailed, result.nfailed, source->name),
				 errhint("See rebate.failures.")));
	if (result.nbusy > 0)
		ereport(NOTICE,
				(errmsg_plural(INT64_FORMAT " order of %s was left to the transaction that is changing it",
							   INT64_FORMAT " orders of %s were left to the transactions that are changing them",
							   result.nbusy, result.nbusy, source->name),
				 errhint("Call rebate.reconcile() again.")));
	PG_RETURN_INT64(result.ndecided);
}
