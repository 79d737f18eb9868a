/*
 * post_clock.c
 *	  Posts what the clock does: maturing money becomes available.
 *
 * A batch locks account after account, in any order, and reads the accruals of
 * each again under a snapshot taken after its lock: orders may have
 * changed them since they were found.  It waits for nobody, since whoever writes an order
 * of a member of the batch waits for it.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "post_clock.h"
#include "post_internal.h"

/* The accounts of the rows, without doubles, as they were before they are locked */
static void
list_accounts(Posting *p, const DueRow *rows, int n)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	p->accounts = palloc0(sizeof(PostAccount) * n);
	for (int i = 0; i < n; i++)
	{
		PostAccount *account = &p->accounts[p->naccounts];

		if (i > 0 && rows[i].account_id == rows[i - 1].account_id)
			continue;
		account->account_id = rows[i].account_id;
		account->tuple = post_find_account(p, account, snapshot);
		if (account->tuple == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("account " INT64_FORMAT " is missing", account->account_id),
					 errhint("Restore it; rebate.audit() lists what is wrong.")));
		p->naccounts++;
	}
	UnregisterSnapshot(snapshot);
}

/* Lock an account, unless somebody else has it; its tuple is NULL then. */
static void
lock_free_account(Posting *p, PostAccount *account)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	account->tuple = table_lock_nowait(&p->account_table, &account->tuple->t_self, snapshot);
	UnregisterSnapshot(snapshot);
}

/* Does the row wait as it did when it was found? */
static bool
still_waits(Relation rel, const DueRow *row, Snapshot snapshot)
{
	HeapTupleData tuple = {.t_self = row->tid};
	Buffer		buffer;
	Form_waiting waiting;
	bool		waits;

	if (!heap_fetch(rel, snapshot, &tuple, &buffer, false))
		return false;
	waiting = (Form_waiting) GETSTRUCT(&tuple);
	waits = waiting->bucket == '0' + BUCKET_MATURING && waiting->due == row->due &&
		waiting->account_id == row->account_id && waiting->seq == row->seq;
	ReleaseBuffer(buffer);
	return waits;
}

/* A walk along the index of opening entries, account after account */
typedef struct AccrualWalk
{
	Relation	rel;
	IndexScanDesc scan;
	bool		more;			/* it is at an entry, of this sequence: */
	int64		seq;
} AccrualWalk;

/* Entries that are passed over before it is better to look for the next from the root */
#define MAX_STEPS	16

static void
walk_next(AccrualWalk *walk)
{
	walk->more = index_getnext_tid(walk->scan, ForwardScanDirection) != NULL;
	if (walk->more)
	{
		bool		isnull;

		walk->seq = DatumGetInt64(index_getattr(walk->scan->xs_itup, 2, walk->scan->xs_itupdesc,
												&isnull));
	}
}

/* Go to where the entry of a row is or would be, within its account. */
static void
walk_begin(AccrualWalk *walk, const DueRow *row)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(row->account_id));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(row->seq));
	index_rescan(walk->scan, keys, 2, NULL, 0);
	walk_next(walk);
}

/*
 * A copy of the version of a row that "snapshot" sees.  A page without room for
 * another version is pruned, so that the new version stays in it; an index scan
 * would prune at each visit.
 */
static HeapTuple
fetch_version(Relation rel, ItemPointerData place, Snapshot snapshot)
{
	Buffer		buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(&place));
	HeapTupleData tuple;
	HeapTuple	copy = NULL;
	Size		room;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (heap_hot_search_buffer(&place, rel, buffer, snapshot, &tuple, NULL, true))
		copy = heap_copytuple(&tuple);
	room = PageGetHeapFreeSpace(BufferGetPage(buffer));
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (copy && room < MAXALIGN(copy->t_len))
		heap_page_prune_opt_compat(rel, buffer);
	ReleaseBuffer(buffer);
	return copy;
}

/*
 * A copy of the accrual that an entry opened, if it is maturing and due then.  The
 * walk was begun for the account, and goes on from its row before.
 */
static HeapTuple
fetch_accrual(AccrualWalk *walk, const DueRow *row, Snapshot snapshot)
{
	HeapTuple	copy = NULL;

	for (int steps = 0; walk->more && walk->seq < row->seq; steps++)
	{
		if (steps < MAX_STEPS)
			walk_next(walk);
		else
			walk_begin(walk, row);
	}
	/* an update that left its page has an entry of its own */
	for (; copy == NULL && walk->more && walk->seq == row->seq; walk_next(walk))
		copy = fetch_version(walk->rel, walk->scan->xs_heaptid, snapshot);
	if (copy)
	{
		Form_accrual accrual = (Form_accrual) GETSTRUCT(copy);
		bool		isnull;
		Datum		due = heap_getattr(copy, ACC_DUE, RelationGetDescr(walk->rel), &isnull);

		/* else it is damaged, and the audit tells */
		if (accrual->bucket != '0' + BUCKET_MATURING || accrual->earned <= 0 || isnull ||
			DatumGetTimestampTz(due) != row->due)
			return NULL;
	}
	return copy;
}

/*
 * Move one accrual, and list its entry.  Returns false if somebody has locked
 * its row without its account: he is giving the order another key.
 */
static bool
mature_accrual(Posting *p, PostAccount *account, HeapTuple tuple, const DueRow *row,
			   StoreTableDesc *waiting)
{
	TupleDesc	desc = RelationGetDescr(p->accrual_table.rel);
	Form_accrual accrual = (Form_accrual) GETSTRUCT(tuple);
	ItemPointerData place = tuple->t_self;
	bool		isnull;
	Movement	what = {
		.accrual_id = accrual->accrual_id,
		.rule_id = accrual->rule_id,
		.source_id = accrual->source_id,
		.event_at = row->due,
		.effective_date = post_local_date(p, row->due),
		.opens = -1
	};

	accrual->bucket = '0' + BUCKET_AVAILABLE;
	if (table_replace_nowait(&p->accrual_table, &place, tuple) != TM_Ok)
		return false;
	table_delete(waiting, (ItemPointer) &row->tid);
	what.order_key = TextDatumGetCString(heap_getattr(tuple, ACC_ORDER_KEY, desc, &isnull));
	/* what a member is moved at once is one posting */
	what.posting_id = account->last ? account->last->posting_id : store_next_id(p->store);
	post_add_movement(account, &what, ENTRY_MOVE, BUCKET_MATURING, BUCKET_AVAILABLE, 0,
					  accrual->earned);
	return true;
}

/*
 * Move what is due of one account, its rows beginning at "first", until another
 * account's or the end of the batch's time.  Returns the number of rows looked at.
 */
static int
mature_account(Posting *p, PostAccount *account, const DueRow *first, int n,
			   AccrualWalk *walk, StoreTableDesc *waiting, ClockBatch *batch,
			   PostedDue *result)
{
	Snapshot	snapshot;
	int			i = 0;

	clock_batch_locks(batch);
	lock_free_account(p, account);
	/* taken after the lock, it sees all that was posted for the account */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (account->tuple)
		walk_begin(walk, first);
	do
	{
		const DueRow *row = &first[i++];
		HeapTuple	tuple;

		if (account->tuple == NULL)
			result->nbusy++;
		else if (still_waits(waiting->rel, row, snapshot) &&
				 (tuple = fetch_accrual(walk, row, snapshot)) != NULL)
		{
			if (mature_accrual(p, account, tuple, row, waiting))
				result->ndone++;
			else
				result->nbusy++;
		}
	} while (i < n && first[i].account_id == account->account_id && !clock_batch_is_over(batch));
	UnregisterSnapshot(snapshot);
	return i;
}

int
post_mature(Store *store, const DueRow *rows, int n, ClockBatch *batch, PostedDue *result)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate posting",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Posting		p = {.store = store,.last_event = PG_INT64_MIN};
	StoreTableDesc waiting;
	Relation	index;
	AccrualWalk walk;
	Snapshot	snapshot;
	int			done = 0;
	int			naccounts = 0;

	store_ensure_epoch(store);
	table_begin(&p.account_table, store, ST_ACCOUNT);
	table_begin(&p.accrual_table, store, ST_ACCRUAL);
	table_begin(&waiting, store, ST_WAITING);
	index = index_open(store->indexes[SI_ACCRUAL_SEQ], RowExclusiveLock);
	list_accounts(&p, rows, n);

	/* places are taken from the index as it is; which version counts is told by a later snapshot */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	walk.rel = p.accrual_table.rel;
	walk.scan = index_beginscan_compat(walk.rel, index, snapshot, 2);
	walk.scan->xs_want_itup = true;
	do
	{
		done += mature_account(&p, &p.accounts[naccounts], &rows[done], n - done, &walk, &waiting,
							   batch, result);
		naccounts++;
	} while (done < n && !clock_batch_is_over(batch));
	index_endscan(walk.scan);
	UnregisterSnapshot(snapshot);

	for (int i = 0; i < naccounts; i++)
		if (p.accounts[i].first &&
			!post_replace_account(&p, &p.accounts[i], post_form_entries(&p, &p.accounts[i])))
			elog(ERROR, "account was changed by others while it was locked");
	post_write_entries(&p);

	index_close(index, NoLock);
	table_end(&waiting);
	table_end(&p.accrual_table);
	table_end(&p.account_table);
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return done;
}
