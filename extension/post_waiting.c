/*
 * post_waiting.c
 *	  The rows of rebate_data.waiting follow those of rebate_data.accrual.
 *
 * What waits for the clock is in a table of its own and not in an index of
 * accruals, since an accrual that left an index would need new entries in all
 * others.  A row is written under the lock of its account.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "post_internal.h"

/* The row of an accrual that waits; false if it does not, or there is none. */
static bool
is_waiting(Posting *p, HeapTuple tuple, FormData_waiting *row)
{
	TupleDesc	desc = RelationGetDescr(p->accrual_table.rel);
	Form_accrual accrual;
	bool		isnull;

	if (tuple == NULL)
		return false;
	accrual = (Form_accrual) GETSTRUCT(tuple);
	if (accrual->bucket < '0' || accrual->bucket > '0' + BUCKET_MATURING ||
		heap_attisnull(tuple, ACC_DUE, desc))
		return false;
	row->bucket = accrual->bucket;
	row->due = DatumGetTimestampTz(heap_getattr(tuple, ACC_DUE, desc, &isnull));
	row->account_id = accrual->account_id;
	row->seq = DatumGetInt64(heap_getattr(tuple, ACC_ENTRY(EC_SEQ), desc, &isnull));
	return !isnull;
}

/* One that the clock was faster with is not there. */
static void
remove_row(StoreTableDesc *table, const FormData_waiting *row)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData keys[4];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_CHAREQ, CharGetDatum(row->bucket));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				TimestampTzGetDatum(row->due));
	ScanKeyInit(&keys[2], 3, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(row->account_id));
	ScanKeyInit(&keys[3], 4, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(row->seq));
	scan = systable_beginscan(table->rel, table->store->indexes[SI_WAITING], true, snapshot, 4,
							  keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		table_delete(table, &tuple->t_self);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
}

static void
insert_row(StoreTableDesc *table, const FormData_waiting *row)
{
	Datum		values[4] = {
		CharGetDatum(row->bucket), TimestampTzGetDatum(row->due), Int64GetDatum(row->account_id),
		Int64GetDatum(row->seq)
	};
	bool		nulls[4] = {false, false, false, false};

	table_insert(table, store_form_row(RelationGetDescr(table->rel), values, nulls, lengthof(values)));
}

void
post_write_waiting(Posting *p)
{
	StoreTableDesc table = {0};

	for (int i = 0; i < p->nwrites; i++)
	{
		AccrualWrite *write = &p->writes[i];
		FormData_waiting before = {0},
					after = {0};
		bool		waited = is_waiting(p, write->oldtuple, &before);
		bool		waits = is_waiting(p, write->newtuple, &after);

		if (waited && waits && before.bucket == after.bucket && before.due == after.due)
			continue;
		if (!waited && !waits)
			continue;
		if (table.rel == NULL)
			table_begin(&table, p->store, ST_WAITING);
		if (waited)
			remove_row(&table, &before);
		if (waits)
			insert_row(&table, &after);
	}
	if (table.rel)
		table_end(&table);
}
