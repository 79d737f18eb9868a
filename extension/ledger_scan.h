/*
 * ledger_scan.h
 *	  All entries in the order of account and sequence, from the tables that hold
 *	  them.
 */
#ifndef REBATE_LEDGER_SCAN_H
#define REBATE_LEDGER_SCAN_H

#include "rebate.h"
#include "executor/tuptable.h"
#include "ledger.h"
#include "store.h"

typedef struct LedgerScan LedgerScan;

/* One entry, with what its row says besides */
typedef struct LedgerEntry
{
	EntryFields fields;
	int64		check;
	int64		balance[NUM_BUCKETS];
	bool		opening;		/* it opened a rebate, and is in its row */
} LedgerEntry;

extern LedgerScan *ledger_scan_begin(Store *store, Snapshot snapshot);

/* The next entry, or NULL; good until the next call */
extern const LedgerEntry *ledger_scan_next(LedgerScan *scan);

extern void ledger_scan_end(LedgerScan *scan);

/* The entry in a row of rebate_data.accrual or rebate_data.entry, whose columns are there */
extern void ledger_opening_entry(TupleTableSlot *slot, LedgerEntry *entry);
extern void ledger_later_entry(TupleTableSlot *slot, LedgerEntry *entry);

#endif							/* REBATE_LEDGER_SCAN_H */
