/*
 * ledger_scan.h
 *	  All entries in the order of account and sequence, from the two tables that
 *	  hold them.
 */
#ifndef REBATE_LEDGER_SCAN_H
#define REBATE_LEDGER_SCAN_H

#include "rebate.h"
#include "ledger.h"
#include "store.h"

typedef struct LedgerScan LedgerScan;

/* One entry, with what its row says besides */
typedef struct LedgerEntry
{
	EntryFields fields;
	int64		check;
	int64		balance[NUM_BUCKETS];
} LedgerEntry;

extern LedgerScan *ledger_scan_begin(Store *store, Snapshot snapshot);

/* The next entry, or NULL; good until the next call */
extern const LedgerEntry *ledger_scan_next(LedgerScan *scan);

extern void ledger_scan_end(LedgerScan *scan);

#endif							/* REBATE_LEDGER_SCAN_H */
