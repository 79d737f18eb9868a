/*
 * defer.c
 *	  rebate.mode = defer: the keys of orders are recorded, and nothing is decided.
 *
 * One row of rebate_data.deferred for each order touched, whatever the number of
 * touches, with the facts of the first: without them an order that came
 * meanwhile could not be told from one older than the attachment.  Each touch
 * locks the row, so that reconcile() cannot take an order for done while a
 * transaction that changes it is on its way.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "collect_internal.h"
#include "defer.h"
#include "post.h"
#include "rules.h"

/* Keys written by one statement */
#define KEYS_PER_WRITE 1000

/* Columns of rebate_data.deferred */
enum
{
	DC_SOURCE_ID = 1, DC_ORDER_KEY, DC_FIRST_SEEN, DC_TOUCHED_AT, DC_GENERATION, DC_OLD,
	DC_AMBIGUOUS, DC_ARCHIVED
};

/* Keys on their way into the table */
typedef struct Keys
{
	Store	   *store;
	Source	   *source;
	bool		archived;
	bool		ambiguous;
	int			n;
	Datum	   *keys;			/* text */
	Datum	   *old;			/* boolean */
	MemoryContext context;
} Keys;

/* Of this firing a statement's rows are said to be ambiguous */
static uint64 ambiguous_firing = 0;

bool
defer_active(void)
{
	return rebate_mode == MODE_DEFER && collect_run == NULL;
}

static Datum
bool_array(const Datum *elems, int n)
{
	return PointerGetDatum(construct_array((Datum *) elems, n, BOOLOID, 1, true, TYPALIGN_CHAR));
}

static Datum
text_array(const Datum *elems, int n)
{
	return PointerGetDatum(construct_array((Datum *) elems, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * Other sessions look for deferred orders only if there may be any: with the
 * first they are told.
 */
static void
first_deferred(Store *store)
{
	if (store->maybe_deferred)
		return;
	CacheInvalidateRelcacheByRelid(store->tables[ST_DEFERRED]);
	store->maybe_deferred = true;
}

/* Write the keys down.  The first touch of an order says what its facts are. */
static void
write_keys(Keys *k)
{
	static SPIPlanPtr plan = NULL;
	bool		keep = collection.firing == ambiguous_firing && !k->ambiguous;
	StoreSpi	scope;
	Datum		values[7];

	if (k->n == 0)
		return;
	values[0] = Int32GetDatum(k->source->source_id);
	values[1] = Int32GetDatum(rules_generation(k->store));
	values[2] = text_array(k->keys, k->n);
	values[3] = bool_array(k->old, k->n);
	values[4] = BoolGetDatum(k->ambiguous);
	values[5] = BoolGetDatum(k->archived);
	values[6] = BoolGetDatum(keep);
	store_spi_begin(k->store, &scope);
	if (plan == NULL)
	{
		Oid			argtypes[7] = {
			INT4OID, INT4OID, TEXTARRAYOID, BOOLARRAYOID, BOOLOID, BOOLOID, BOOLOID
		};

		plan = SPI_prepare("INSERT INTO rebate_data.deferred AS d"
						   " SELECT $1, u.k, now(), now(), $2, bool_or(u.old), $5, $6"
						   "   FROM unnest($3, $4) u(k, old) GROUP BY u.k"
						   " ON CONFLICT (source_id, order_key) DO UPDATE SET"
						   "  touched_at = excluded.touched_at, archived = excluded.archived,"
						   "  ambiguous = excluded.ambiguous OR d.ambiguous AND $7",
						   7, argtypes);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare to defer orders");
	}
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not defer orders");
	store_spi_end(&scope);
	first_deferred(k->store);
	k->n = 0;
	MemoryContextReset(k->context);
}

static void
begin_keys(Keys *k, Store *store, Source *source)
{
	memset(k, 0, sizeof(*k));
	k->store = store;
	k->source = source;
	k->keys = palloc(sizeof(Datum) * KEYS_PER_WRITE);
	k->old = palloc(sizeof(Datum) * KEYS_PER_WRITE);
	k->context = AllocSetContextCreate(CurrentMemoryContext, "rebate deferred keys",
									   ALLOCSET_SMALL_SIZES);
}

static void
end_keys(Keys *k)
{
	write_keys(k);
	MemoryContextDelete(k->context);
	pfree(k->keys);
	pfree(k->old);
}

/* Add a key; "old": if nothing is known of the order, it is older than the attachment. */
static void
add_key(Keys *k, const char *key, bool old)
{
	MemoryContext caller = MemoryContextSwitchTo(k->context);

	k->keys[k->n] = CStringGetTextDatum(key);
	MemoryContextSwitchTo(caller);
	k->old[k->n++] = BoolGetDatum(old);
	if (k->n == KEYS_PER_WRITE)
		write_keys(k);
}

/*
 * The rows of a statement.  Of a row that was changed or left it is looked up
 * whether it was there before this transaction; no other is looked at beyond its
 * key.
 */
void
defer_rows(CollectBatch *batch)
{
	Keys		k;
	Relation	rel = NULL;
	MemoryContext context;

	begin_keys(&k, batch->store, batch->source);
	k.archived = batch->archived;
	if (batch->event != COLLECT_INSERT)
		rel = table_open(batch->source->relid, AccessShareLock);
	context = AllocSetContextCreate(CurrentMemoryContext, "rebate row", ALLOCSET_DEFAULT_SIZES);
	while (batch->next(batch))
	{
		MemoryContext caller = MemoryContextSwitchTo(context);
		char	   *key;

		CHECK_FOR_INTERRUPTS();
		key = image_key(batch->source, batch->slot);
		add_key(&k, key, rel && existed_before(batch->source, rel, key));
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
		batch->ncollected++;
	}
	end_keys(&k);
	MemoryContextDelete(context);
	if (rel)
		table_close(rel, NoLock);
}

static void
defer_one(Store *store, Source *source, const char *key, bool old, bool ambiguous)
{
	Keys		k;

	begin_keys(&k, store, source);
	k.ambiguous = ambiguous;
	add_key(&k, key, old);
	end_keys(&k);
}

/* An order whose row left or came back under its own key */
void
defer_touch(Store *store, Source *source, const char *key)
{
	Relation	rel = table_open(source->relid, AccessShareLock);

	defer_one(store, source, key, existed_before(source, rel, key), false);
	table_close(rel, NoLock);
}

/*
 * An UPDATE took an order to another key: its facts and rebates, and what is
 * recorded of it here, move at once, unless the other key has a history.  What
 * came from an old row is old.
 */
void
defer_rekey(Store *store, Source *source, const char *oldkey, const char *newkey)
{
	Relation	accrual = store_open(store, ST_ACCRUAL, RowExclusiveLock);
	Relation	rel = table_open(source->relid, AccessShareLock);
	Snapshot	snapshot;
	OrderFacts	oldfacts;
	OrderFacts	newfacts;
	bool		is_old;

	/* what this transaction collected before belongs to its keys of then */
	collect_flush();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	facts_read(store, accrual, source->source_id, oldkey, snapshot, &oldfacts);
	facts_read(store, accrual, source->source_id, newkey, snapshot, &newfacts);
	UnregisterSnapshot(snapshot);
	is_old = oldfacts.deferred_old ||
		(!oldfacts.seen && !oldfacts.deferred && existed_before(source, rel, oldkey));
	table_close(rel, NoLock);
	table_close(accrual, NoLock);

	if (!newfacts.seen && !newfacts.deferred && post_rekey(store, source->source_id, oldkey, newkey))
	{
		StoreSpi	scope;
		SqlParams	params = {0};

		sql_int(&params, source->source_id);
		sql_text(&params, oldkey);
		sql_text(&params, newkey);
		store_spi_begin(store, &scope);
		sql_run("UPDATE rebate_data.deferred SET order_key = $3"
				" WHERE source_id = $1 AND order_key = $2 COLLATE \"C\"", &params, SPI_OK_UPDATE);
		store_spi_end(&scope);
	}
	else
		defer_one(store, source, oldkey, is_old, false);
	defer_one(store, source, newkey, is_old, false);
}

/*
 * An order whose key changed together with others: reconcile() sets it aside.
 * Under a key that nothing is known of it earns nothing.
 */
void
defer_ambiguous(Store *store, Source *source, const char *key)
{
	defer_one(store, source, key, true, true);
	ambiguous_firing = collection.firing;
}

void
defer_read(Store *store, int32 source_id, const char *key, Snapshot snapshot, OrderFacts *facts)
{
	Relation	rel = store_open(store, ST_DEFERRED, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], DC_SOURCE_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(source_id));
	ScanKeyInit(&keys[1], DC_ORDER_KEY, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(key));
	scan = systable_beginscan(rel, store->indexes[SI_DEFERRED], true, snapshot, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Datum		values[DC_ARCHIVED];
		bool		nulls[DC_ARCHIVED];

		store_deform_row(tuple, RelationGetDescr(rel), values, nulls, DC_ARCHIVED);
		facts->deferred = true;
		facts->deferred_old = !facts->seen && DatumGetBool(values[DC_OLD - 1]);
		facts->deferred_archived = DatumGetBool(values[DC_ARCHIVED - 1]);
		facts->ambiguous = DatumGetBool(values[DC_AMBIGUOUS - 1]);
		facts->touched_at = DatumGetTimestampTz(values[DC_TOUCHED_AT - 1]);
		if (!facts->seen)
		{
			facts->first_seen = DatumGetTimestampTz(values[DC_FIRST_SEEN - 1]);
			facts->generation = DatumGetInt32(values[DC_GENERATION - 1]);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}
