/*
 * ledger_rows.h
 *	  All rows of the ledger as they lie on disk, for who reads all of them.
 */
#ifndef REBATE_LEDGER_ROWS_H
#define REBATE_LEDGER_ROWS_H

#include "rebate.h"
#include "utils/snapshot.h"

#include "ledger_scan.h"

typedef struct LedgerRows LedgerRows;

/* A row of rebate_data.accrual, of rebate_data.entry or of the archive */
typedef struct LedgerRow
{
	/* of an accrual; NULL: it is a row of entries */
	const FormData_accrual *accrual;
	const text *order_key;
	bool		has_due;
	TimestampTz due;
	/* of an accrual without an opening there is no entry */
	bool		has_entry;
	LedgerEntry entry;
} LedgerRow;

extern LedgerRows *ledger_rows_begin(Store *store, Snapshot snapshot);

/* The next row, or NULL; it is good until the next call */
extern const LedgerRow *ledger_rows_next(LedgerRows *rows);
extern void ledger_rows_end(LedgerRows *rows);

#endif							/* REBATE_LEDGER_ROWS_H */
