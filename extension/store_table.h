/*
 * store_table.h
 *	  Direct writes to the tables of the store, for the module that may.
 */
#ifndef REBATE_STORE_TABLE_H
#define REBATE_STORE_TABLE_H

#include "rebate.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "store.h"
#include "utils/rel.h"

typedef struct StoreTableDesc
{
	Store	   *store;
	Relation	rel;
	int			options;		/* of heap_insert() */
	int			nindexes;		/* -1: not opened yet */
	Relation   *indexes;
	IndexInfo **infos;
	TupleTableSlot *slot;
	Oid			key;			/* see table_insert_key() */
	Oid			own[4];			/* see table_insert_rows() */
	int			nown;
	EState	   *estate;			/* for the user's own partial and expression indexes */
} StoreTableDesc;

extern void table_begin(StoreTableDesc *table, Store *store, StoreTable which);
extern void table_end(StoreTableDesc *table);

/* Insert; raises unique_violation as any insert does */
extern void table_insert(StoreTableDesc *table, HeapTuple tuple);

/*
 * Insert many, the rows a page's worth at a time.  The index "key" gets its entries
 * in the order of "by_key", which are the same rows, the others in that of
 * "tuples": an index takes many entries best in its own order.
 */
extern void table_insert_many(StoreTableDesc *table, HeapTuple *tuples, int n, Oid key,
							  HeapTuple *by_key);

/*
 * The same without the entries of the table's own indexes, which the caller makes.
 * An entry gets the values that the index is over; of an index that summarizes
 * pages, entries that are like the one before may be left out.
 */
extern void table_insert_rows(StoreTableDesc *table, HeapTuple *tuples, int n, const Oid *own,
							  int nown);
extern void table_index_entry(StoreTableDesc *table, Oid index, Datum *values, bool *isnull,
							  ItemPointer tid);

/*
 * Insert in two steps.  The first makes the row and its entry in the unique
 * index "key", and returns false if that index may hold the key already; it does
 * not wait, and does not raise.  Then the row is withdrawn, or the other indexes
 * get their entries.
 */
extern bool table_insert_key(StoreTableDesc *table, HeapTuple tuple, Oid key);
extern void table_insert_rest(StoreTableDesc *table, HeapTuple tuple, Oid key);
extern void table_withdraw(StoreTableDesc *table, HeapTuple tuple);

/* Replace the version at *tid; TM_Ok, or what kept it from being replaced */
extern TM_Result table_replace(StoreTableDesc *table, ItemPointer tid, HeapTuple tuple);

/* The same, but TM_BeingModified at once if another transaction has a lock on the row */
extern TM_Result table_replace_nowait(StoreTableDesc *table, ItemPointer tid, HeapTuple tuple);

/* Raise 40001: a row that was read has changed meanwhile, and it is too late to read again */
pg_noreturn extern void table_conflict(void);

/* Delete a row that nobody else changes, since he would have the account's lock */
extern void table_delete(StoreTableDesc *table, ItemPointer tid);

/* Lock the newest version of a row; NULL if it is gone */
extern HeapTuple table_lock(StoreTableDesc *table, ItemPointer tid, Snapshot snapshot);

/* The same without waiting; NULL if it is gone or somebody else's */
extern HeapTuple table_lock_nowait(StoreTableDesc *table, ItemPointer tid, Snapshot snapshot);

#endif							/* REBATE_STORE_TABLE_H */
