/*
 * audit_pass.h
 *	  Whether anything may be wrong with the ledger.
 */
#ifndef REBATE_AUDIT_PASS_H
#define REBATE_AUDIT_PASS_H

#include "rebate.h"
#include "store.h"

/* What the audit has to look at more closely */
typedef struct LedgerDoubt
{
	bool		any;			/* something may be wrong */
	bool		erased;			/* members are erased, or something was written off */
	bool		frozen;			/* there are frozen orders */
} LedgerDoubt;

extern LedgerDoubt audit_pass(Store *store, Snapshot snapshot);

#endif							/* REBATE_AUDIT_PASS_H */
