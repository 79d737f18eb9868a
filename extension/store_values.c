/*
 * store_values.c
 *	  Single values that the order path takes from the store: ids, and the scales
 *	  of currencies; and rows as values.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "store.h"

static HTAB *currencies = NULL;
static uint64 currencies_counter = 0;

/* ids taken from the sequence and not given out yet */
static Oid	ids_sequence = InvalidOid;
static int64 ids_next = 0;
static int64 ids_end = 0;

int64
store_next_id(Store *s)
{
	if (ids_next == ids_end || ids_sequence != s->id_sequence)
	{
		int64		last = nextval_internal(s->id_sequence, false);

		ids_sequence = s->id_sequence;
		ids_next = last;
		ids_end = last + IDS_PER_CALL;
	}
	return ids_next++;
}

CurrencyInfo *
store_currency(Store *s, const char *code)
{
	CurrencyInfo *info;
	char		key[sizeof(info->code)];
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	ScanKeyData scankey;
	HeapTuple	tuple;
	bool		found,
				isnull;
	int			scale = -1;

	if (strlen(code) >= sizeof(key))
		return NULL;
	if (currencies == NULL || currencies_counter != store_epoch_of_rules())
	{
		HASHCTL		ctl;

		if (currencies)
			hash_destroy(currencies);
		ctl.keysize = sizeof(key);
		ctl.entrysize = sizeof(CurrencyInfo);
		currencies = hash_create("rebate currencies", 16, &ctl, HASH_ELEM | HASH_STRINGS);
		currencies_counter = store_epoch_of_rules();
	}

	info = hash_search(currencies, code, HASH_FIND, NULL);
	if (info)
		return info;

	/* without SPI: a new connection's first order pays for this */
	rel = store_open(s, ST_CURRENCY, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&scankey, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(code));
	scan = systable_beginscan(rel, s->indexes[SI_CURRENCY], true, snapshot, 1, &scankey);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		scale = DatumGetInt16(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	/* Unknown codes are not remembered: they come from rows and could be many */
	if (scale < 0)
		return NULL;
	info = hash_search(currencies, code, HASH_ENTER, &found);
	info->scale = scale;
	return info;
}

HeapTuple
store_form_row(TupleDesc desc, const Datum *values, const bool *nulls, int n)
{
	Datum	   *all_values;
	bool	   *all_nulls;

	if (desc->natts <= n)
		return heap_form_tuple(desc, (Datum *) values, (bool *) nulls);
	all_values = palloc0(sizeof(Datum) * desc->natts);
	all_nulls = palloc(sizeof(bool) * desc->natts);
	memcpy(all_values, values, sizeof(Datum) * n);
	memset(all_nulls, true, sizeof(bool) * desc->natts);
	memcpy(all_nulls, nulls, sizeof(bool) * n);
	return heap_form_tuple(desc, all_values, all_nulls);
}

void
store_deform_row(HeapTuple tuple, TupleDesc desc, Datum *values, bool *nulls, int n)
{
	Datum	   *all_values;
	bool	   *all_nulls;

	if (desc->natts <= n)
	{
		heap_deform_tuple(tuple, desc, values, nulls);
		return;
	}
	all_values = palloc(sizeof(Datum) * desc->natts);
	all_nulls = palloc(sizeof(bool) * desc->natts);
	heap_deform_tuple(tuple, desc, all_values, all_nulls);
	memcpy(values, all_values, sizeof(Datum) * n);
	memcpy(nulls, all_nulls, sizeof(bool) * n);
}
