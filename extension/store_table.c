/*
 * store_table.c
 *	  Direct writes to the tables of the store.
 *
 * The tables have no triggers of their own but the guards, no generated columns,
 * no checks beyond NOT NULL that the writer could violate, and plain indexes, so
 * a write is the tuple and its index entries.  No privilege is asked for: who
 * inserts an order needs none.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "counters.h"
#include "ledger.h"
#include "store_table.h"

void
table_begin(StoreTableDesc *table, Store *store, StoreTable which)
{
	table->rel = store_open(store, which, RowExclusiveLock);

	/*
	 * New rebates go to the end of their table.  Updates leave room all over it; a
	 * new row in each such place would make the index by transaction id lead to
	 * all pages.  The next updates take the room.
	 */
	table->options = which == ST_ACCRUAL ? HEAP_INSERT_SKIP_FSM : 0;
	table->nindexes = -1;
	table->indexes = NULL;
	table->infos = NULL;
	table->slot = NULL;
	table->estate = NULL;
	table->store = store;
	table->key = InvalidOid;
	table->nown = 0;
}

/* Indexes are opened when the first index entry is made: a HOT update makes none. */
static void
open_indexes(StoreTableDesc *table)
{
	List	   *oids = RelationGetIndexList(table->rel);
	ListCell   *lc;
	int			i = 0;

	table->nindexes = list_length(oids);
	table->indexes = palloc(sizeof(Relation) * Max(table->nindexes, 1));
	table->infos = palloc(sizeof(IndexInfo *) * Max(table->nindexes, 1));
	foreach(lc, oids)
	{
		table->indexes[i] = index_open(lfirst_oid(lc), RowExclusiveLock);
		table->infos[i] = BuildIndexInfo(table->indexes[i]);
		i++;
	}
	list_free(oids);
	table->slot = MakeSingleTupleTableSlot(RelationGetDescr(table->rel), &TTSOpsHeapTuple);
}

void
table_end(StoreTableDesc *table)
{
	if (table->estate)
		FreeExecutorState(table->estate);
	if (table->slot)
		ExecDropSingleTupleTableSlot(table->slot);
	for (int i = 0; i < table->nindexes; i++)
	{
		index_insert_cleanup_compat(table->indexes[i], table->infos[i]);
		index_close(table->indexes[i], NoLock);
	}
	/* locks stay until the end of the transaction, as after any write */
	table_close(table->rel, NoLock);
}

/*
 * Has an index expressions that are not ours?  They are the store owner's, and
 * run as he, never as who inserts an order.
 */
static bool
index_is_foreign(StoreTableDesc *table, int i)
{
	IndexInfo  *info = table->infos[i];

	return (info->ii_Predicate != NIL || info->ii_Expressions != NIL) &&
		RelationGetRelid(table->indexes[i]) != table->store->indexes[SI_ACCRUAL_SEQ];
}

/*
 * Whether the row in the slot is one that a partial index holds.  Of ours there
 * is one, which needs no executor; others are the user's.
 */
static bool
index_holds(StoreTableDesc *table, int i)
{
	IndexInfo  *info = table->infos[i];
	ExprContext *context;

	if (info->ii_Predicate == NIL && info->ii_Expressions == NIL)
		return true;
	if (RelationGetRelid(table->indexes[i]) == table->store->indexes[SI_ACCRUAL_SEQ])
		return !slot_attisnull(table->slot, ACC_ENTRY(EC_SEQ));

	/* FormIndexDatum() will use it, too */
	if (table->estate == NULL)
		table->estate = CreateExecutorState();
	context = GetPerTupleExprContext(table->estate);
	ResetExprContext(context);
	context->ecxt_scantuple = table->slot;
	if (info->ii_Predicate == NIL)
		return true;
	if (info->ii_PredicateState == NULL)
		info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, table->estate);
	return ExecQual(info->ii_PredicateState, context);
}

/* Fill what an index keeps of the row in the slot; false if that is nothing. */
static bool
form_entry(StoreTableDesc *table, int i, Datum *values, bool *isnull)
{
	if (!index_holds(table, i))
		return false;
	FormIndexDatum(table->infos[i], table->slot, table->estate, values, isnull);
	return true;
}

/* form_entry() as the store's owner; an error restores the user. */
static bool
form_as_owner(StoreTableDesc *table, int i, Datum *values, bool *isnull)
{
	Oid			save_userid;
	int			save_sec_context;
	bool		result;

	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(table->store->owner, save_sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	result = form_entry(table, i, values, isnull);
	SetUserIdAndSecContext(save_userid, save_sec_context);
	return result;
}

/* Which index entries to make for a row */
typedef enum EntriesFor
{
	ALL_INDEXES,
	SUMMARIZING_INDEXES,
	KEY_INDEX,					/* that of table->key */
	KEY_INDEX_UNIQUE,			/* the same, and an equal key is an error */
	OTHER_INDEXES,
	FOREIGN_INDEXES				/* those not in table->own */
} EntriesFor;

static bool
is_own(StoreTableDesc *table, int i)
{
	for (int j = 0; j < table->nown; j++)
		if (RelationGetRelid(table->indexes[i]) == table->own[j])
			return true;
	return false;
}

/*
 * Returns false if KEY_INDEX may have an entry of the same key; the new one is
 * there all the same.
 */
static bool
insert_index_entries(StoreTableDesc *table, HeapTuple tuple, EntriesFor which)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	bool		is_new = true;

	if (table->nindexes < 0)
		open_indexes(table);
	ExecStoreHeapTuple(tuple, table->slot, false);
	for (int i = 0; i < table->nindexes; i++)
	{
		Relation	index = table->indexes[i];
		bool		is_key = which >= KEY_INDEX && RelationGetRelid(index) == table->key;

		if (!table->infos[i]->ii_ReadyForInserts ||
			(which == SUMMARIZING_INDEXES && !index_is_summarizing(table->infos[i])) ||
			((which == KEY_INDEX || which == KEY_INDEX_UNIQUE) && !is_key) ||
			(which == OTHER_INDEXES && is_key) || (which == FOREIGN_INDEXES && is_own(table, i)))
			continue;
		if (index_is_foreign(table, i) ? !form_as_owner(table, i, values, isnull) :
			!form_entry(table, i, values, isnull))
			continue;
		is_new &= index_insert(index, values, isnull, &tuple->t_self, table->rel,
							   !index->rd_index->indisunique ? UNIQUE_CHECK_NO :
							   which == KEY_INDEX ? UNIQUE_CHECK_PARTIAL : UNIQUE_CHECK_YES,
							   false, table->infos[i]) ||
			!index->rd_index->indisunique;
	}
	ExecClearTuple(table->slot);
	return is_new;
}

void
table_insert(StoreTableDesc *table, HeapTuple tuple)
{
	heap_insert(table->rel, tuple, GetCurrentCommandId(true), table->options, NULL);
	insert_index_entries(table, tuple, ALL_INDEXES);
}

/* Rows that go into a page together, at most */
#define CHUNK 500

/*
 * Insert rows as pages take them.  The slots share a descriptor that nobody counts
 * references of: each would have to be remembered and forgotten.
 */
static void
insert_into_heap(StoreTableDesc *table, HeapTuple *tuples, int n)
{
	TupleTableSlot *slots[CHUNK];
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(table->rel));
	BulkInsertState bistate = n > CHUNK ? GetBulkInsertState() : NULL;
	int			nslots = Min(n, CHUNK);

	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	for (int done = 0; done < n; done += CHUNK)
	{
		int			now = Min(n - done, CHUNK);

		for (int i = 0; i < now; i++)
			ExecStoreHeapTuple(tuples[done + i], slots[i], false);
		heap_multi_insert(table->rel, slots, now, GetCurrentCommandId(true), table->options,
						  bistate);
		for (int i = 0; i < now; i++)
		{
			tuples[done + i]->t_self = slots[i]->tts_tid;
			ExecClearTuple(slots[i]);
		}
	}
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	FreeTupleDesc(desc);
	if (bistate)
		FreeBulkInsertState(bistate);
}

void
table_insert_many(StoreTableDesc *table, HeapTuple *tuples, int n, Oid key, HeapTuple *by_key)
{
	insert_into_heap(table, tuples, n);
	table->key = key;
	for (int i = 0; i < n; i++)
		insert_index_entries(table, tuples[i], OTHER_INDEXES);
	for (int i = 0; i < n; i++)
		insert_index_entries(table, by_key[i], KEY_INDEX_UNIQUE);
}

void
table_insert_rows(StoreTableDesc *table, HeapTuple *tuples, int n, const Oid *own, int nown)
{
	bool		others = false;

	insert_into_heap(table, tuples, n);
	if (table->nindexes < 0)
		open_indexes(table);
	table->nown = nown;
	memcpy(table->own, own, sizeof(Oid) * nown);
	for (int i = 0; i < table->nindexes; i++)
		others |= !is_own(table, i);
	for (int i = 0; others && i < n; i++)
		insert_index_entries(table, tuples[i], FOREIGN_INDEXES);
}

void
table_index_entry(StoreTableDesc *table, Oid index, Datum *values, bool *isnull, ItemPointer tid)
{
	if (table->nindexes < 0)
		open_indexes(table);
	for (int i = 0; i < table->nindexes; i++)
	{
		Relation	rel = table->indexes[i];

		if (RelationGetRelid(rel) == index && table->infos[i]->ii_ReadyForInserts)
			index_insert(rel, values, isnull, tid, table->rel,
						 rel->rd_index->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false,
						 table->infos[i]);
	}
}

bool
table_insert_key(StoreTableDesc *table, HeapTuple tuple, Oid key)
{
	table->key = key;
	heap_insert(table->rel, tuple, GetCurrentCommandId(true), table->options, NULL);
	return insert_index_entries(table, tuple, KEY_INDEX);
}

void
table_insert_rest(StoreTableDesc *table, HeapTuple tuple, Oid key)
{
	table->key = key;
	insert_index_entries(table, tuple, OTHER_INDEXES);
}

void
table_withdraw(StoreTableDesc *table, HeapTuple tuple)
{
	/* a command cannot delete what it has inserted itself */
	CommandCounterIncrement();
	simple_heap_delete(table->rel, &tuple->t_self);
}

void
table_conflict(void)
{
	counters_add(CT_CONFLICTS, 1);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent update of a rebate"),
			 errhint("Try the transaction again.")));
}

static TM_Result
replace(StoreTableDesc *table, ItemPointer tid, HeapTuple tuple, bool wait)
{
	TM_FailureData tmfd;
	LockTupleMode lockmode;
	TM_Result	result;
	int			update_indexes;

	/*
	 * With a snapshot of the whole transaction, what it cannot see must not be
	 * updated: it would then see both versions.
	 */
	result = heap_update_compat(table->rel, tid, tuple, GetCurrentCommandId(true),
								IsolationUsesXactSnapshot() ? GetTransactionSnapshot() :
								InvalidSnapshot,
								wait, &tmfd, &lockmode, &update_indexes);
	if (result == TM_Ok && update_indexes != UPDATE_NO_INDEX)
		insert_index_entries(table, tuple, update_indexes == UPDATE_SUMMARIZING_INDEXES ?
							 SUMMARIZING_INDEXES : ALL_INDEXES);
	if (result == TM_Updated && IsolationUsesXactSnapshot())
		table_conflict();
	return result;
}

TM_Result
table_replace(StoreTableDesc *table, ItemPointer tid, HeapTuple tuple)
{
	return replace(table, tid, tuple, true);
}

TM_Result
table_replace_nowait(StoreTableDesc *table, ItemPointer tid, HeapTuple tuple)
{
	return replace(table, tid, tuple, false);
}

void
table_delete(StoreTableDesc *table, ItemPointer tid)
{
	simple_heap_delete(table->rel, tid);
}

static HeapTuple
lock(StoreTableDesc *table, ItemPointer tid, Snapshot snapshot, LockWaitPolicy policy)
{
	TupleTableSlot *slot = table_slot_create(table->rel, NULL);
	TM_FailureData tmfd;
	TM_Result	result;
	HeapTuple	tuple = NULL;

	result = table_tuple_lock(table->rel, tid, snapshot, slot, GetCurrentCommandId(false),
							  LockTupleNoKeyExclusive, policy,
							  TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &tmfd);
	if (result == TM_Ok)
		tuple = ExecCopySlotHeapTuple(slot);
	else if (result != TM_Deleted && result != TM_WouldBlock)
		elog(ERROR, "unexpected result %d of a row lock", (int) result);
	ExecDropSingleTupleTableSlot(slot);
	return tuple;
}

HeapTuple
table_lock(StoreTableDesc *table, ItemPointer tid, Snapshot snapshot)
{
	return lock(table, tid, snapshot, LockWaitBlock);
}

HeapTuple
table_lock_nowait(StoreTableDesc *table, ItemPointer tid, Snapshot snapshot)
{
	return lock(table, tid, snapshot, LockWaitSkip);
}
