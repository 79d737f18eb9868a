/*
 * member_account.c
 *	  The accounts of one member.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "archive.h"
#include "ledger.h"
#include "member_account.h"

MemberAccount *
member_accounts(Store *store, Snapshot snapshot, const char *member, int *n)
{
	Relation	rel = store_open(store, ST_ACCOUNT, AccessShareLock);
	Relation	index = index_open(store->indexes[SI_ACCOUNT_MEMBER], AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = index_beginscan_compat(rel, index, snapshot, 1);
	int			allocated = 4;
	MemberAccount *accounts = palloc(sizeof(MemberAccount) * allocated);
	ScanKeyData key;

	*n = 0;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(member));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		MemberAccount *account;
		Form_account row;

		if (*n == allocated)
			accounts = repalloc(accounts, sizeof(MemberAccount) * (allocated *= 2));
		slot_getallattrs(slot);
		row = (Form_account) GETSTRUCT(ExecFetchSlotHeapTuple(slot, false, NULL));
		account = &accounts[(*n)++];
		account->account_id = row->account_id;
		account->last_entry = row->last_entry;
		memcpy(account->balance, row->balance, sizeof(account->balance));
		account->last_posted = row->last_posted;
		account->currency = TextDatumGetCString(slot->tts_values[AC_CURRENCY - 1]);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return accounts;
}

/* What member_account_at() is told of an entry */
static void
keep_entry(void *arg, const EventRow *row)
{
	MemberAccount *at = arg;

	at->last_posted = row->fields.posted_at;
	memcpy(at->balance, row->balance, sizeof(at->balance));
}

/*
 * Posted times never decrease along the sequence, so a binary search finds the
 * entry.  Where the oldest were dropped it begins behind them; before that nothing
 * is known any more.
 */
void
member_account_at(Store *store, Snapshot snapshot, EventScan *scan, MemberAccount *account,
				  TimestampTz moment)
{
	Carried		carried = archive_carried(store, snapshot, account->account_id);
	MemberAccount before = {.last_posted = carried.posted_at};
	int64		low = carried.seq,
				high = account->last_entry;

	if (carried.seq > 0 && moment < carried.posted_at)
		archive_refuse_moment(&carried, account->currency);
	memcpy(before.balance, carried.balance, sizeof(before.balance));

	while (low < high)
	{
		MemberAccount at = {0};
		int64		middle = low + (high - low + 1) / 2;

		if (event_range(scan, account->account_id, middle - 1, middle, 1, keep_entry, &at) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("entry " INT64_FORMAT " of an account in %s is missing", middle,
							account->currency),
					 errhint("Restore it; rebate.audit() lists what is wrong.")));
		if (at.last_posted <= moment)
		{
			low = middle;
			before = at;
		}
		else
			high = middle - 1;
	}
	account->last_entry = low;
	account->last_posted = before.last_posted;
	memcpy(account->balance, before.balance, sizeof(account->balance));
}
