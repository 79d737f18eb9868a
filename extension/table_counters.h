/*
 * table_counters.h
 *	  What the sessions of a database count of each attached table, in shared
 *	  memory.
 *
 * A table takes one of a fixed number of places with its first order, and keeps it
 * until the server starts again or the database is dropped: so no session can add to
 * a place that has become another table's.
 */
#ifndef REBATE_TABLE_COUNTERS_H
#define REBATE_TABLE_COUNTERS_H

#include "rebate.h"
#include "counters.h"

/* Names an attached table; that of a store which was made anew is another one */
typedef uint64 TableKey;

static inline TableKey
table_key(Store *store, int32 source_id)
{
	return ((TableKey) store->tables[ST_SOURCE] << 32) | (uint32) source_id;
}

/* That of one table; those of a database are an array */
typedef struct TablePlace TablePlace;

extern int	rebate_counted_tables;

extern Size table_counters_size(void);
extern void table_counters_init(TablePlace *places);

/* Add what a transaction did.  Cannot fail, takes no lock. */
extern void table_counters_add(TablePlace *places, TableKey key,
							   const int64 counts[NUM_TABLE_COUNTERS]);

/* As counters_read_of(); a table without orders has zeros while there are free places */
extern bool table_counters_read(TablePlace *places, TableKey key,
								uint64 totals[NUM_TABLE_COUNTERS], TimestampTz *last_order);

/* All at zero, what is added meanwhile is not lost */
extern void table_counters_reset(TablePlace *places);

/* All places are free again: nobody is connected to the database */
extern void table_counters_forget(TablePlace *places);

#endif							/* REBATE_TABLE_COUNTERS_H */
