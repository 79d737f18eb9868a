/*
 * audit_carried.c
 *	  Rebates whose oldest entries were dropped.
 *
 * What dropped entries did to each rebate is not known any more, but a sum of
 * hashes over them is, by account.  With the entries that are there it must give
 * what the account's rebates say.  It does not tell which rebate is wrong.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "archive.h"
#include "audit.h"
#include "ledger_rows.h"

typedef struct CarriedSum
{
	int64		account_id;		/* hash key */
	LedgerDigest digest;		/* of rebates less entries: zero in the end */
} CarriedSum;

static HTAB *
read_carried(Store *store, Snapshot snapshot)
{
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(CarriedSum),.hcxt = CurrentMemoryContext};
	HTAB	   *sums = hash_create("rebate carried sums", 1024, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	Relation	rel = store_open(store, ST_CARRIED, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		int64		id;
		Carried		carried;
		CarriedSum *sum;

		slot_getallattrs(slot);
		carried = archive_carried_row(slot, &id);
		sum = hash_search(sums, &id, HASH_ENTER, NULL);
		sum->digest.high = -carried.digest.high;
		sum->digest.low = -carried.digest.low;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return sums;
}

/* Add what a row says, if it is about one of the accounts. */
static void
add_row(HTAB *sums, const LedgerRow *row)
{
	const FormData_accrual *x = row->accrual;
	const EntryFields *e = &row->entry.fields;
	uint64		value;
	CarriedSum *sum;

	if (!row->has_entry)
		return;
	sum = hash_search(sums, &e->account_id, HASH_FIND, NULL);
	if (sum == NULL)
		return;
	value = -digest_movement(&kept_digest_key, e);
	if (x && x->bucket >= '0' && x->bucket < '0' + NUM_BUCKETS)
		value += (uint64) x->earned * kept_digest_key.weights[x->bucket - '0'];
	digest_add(&sum->digest, &kept_digest_key, e->accrual_id, e->account_id, value);
}

void
audit_carried(Store *store, ReturnSetInfo *result, Snapshot snapshot)
{
	HTAB	   *sums;
	HASH_SEQ_STATUS status;
	CarriedSum *sum;

	if (!archive_exists(store))
		return;
	sums = read_carried(store, snapshot);
	if (hash_get_num_entries(sums) > 0)
	{
		LedgerRows *rows = ledger_rows_begin(store, snapshot);
		const LedgerRow *row;

		while ((row = ledger_rows_next(rows)) != NULL)
		{
			CHECK_FOR_INTERRUPTS();
			add_row(sums, row);
		}
		ledger_rows_end(rows);
	}
	hash_seq_init(&status, sums);
	while ((sum = hash_seq_search(&status)) != NULL)
		if (sum->digest.high != 0 || sum->digest.low != 0)
			audit_report(result, "ledger", "rebates and entries differ",
						 psprintf("account " INT64_FORMAT, sum->account_id),
						 "Some of the entries were dropped, so it is not known which rebate it is.");
	hash_destroy(sums);
}
