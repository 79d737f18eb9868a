/*
 * audit_folded.h
 *	  Whether what was folded is what the entries give, as the audit's pass asks.
 */
#ifndef REBATE_AUDIT_FOLDED_H
#define REBATE_AUDIT_FOLDED_H

#include "rebate.h"

#include "audit_names.h"
#include "ledger.h"
#include "store.h"

/* One ledger account in one currency: debits less credits as folded, less what was met: zero in the end */
typedef struct FoldedSum
{
	uint64		key;			/* ledger account and currency */
	uint32		hash;
	char		status;
	int64		rest;
} FoldedSum;

/* The sums of one kind, with their mark */
typedef struct FoldedSums
{
	int32		epoch;
	int64		xid;
	struct folded_hash *sums;
	FoldedSum  *last;			/* asked for; NULL: none, or moved since */
} FoldedSums;

/* Read them; inside SPI, under the active snapshot.  False if there is no mark. */
extern bool folded_read(FoldedSums *folded, const LedgerNames *names, MemoryContext context,
						const char *sums, const char *epoch, const char *xid);

/* Take the sums of another table from them: of entries that are there no more */
extern void folded_take(FoldedSums *folded, const LedgerNames *names, const char *sums);

/* Was nothing left over? */
extern bool folded_agree(FoldedSums *folded);

extern FoldedSum *folded_find(FoldedSums *folded, uint64 key);

/* Was the entry folded? */
static inline bool
folded_has(const FoldedSums *folded, const EntryFields *e)
{
	return e->epoch < folded->epoch || (e->epoch == folded->epoch && e->xid < folded->xid);
}

/* Take from a sum what was met of it. */
static inline void
folded_meet(FoldedSums *folded, int32 ledger_account, int currency, int64 amount)
{
	uint64		key = ((uint64) (uint32) ledger_account << 32) | (uint32) currency;
	FoldedSum  *sum = folded->last && folded->last->key == key ? folded->last :
		folded_find(folded, key);

	/* damaged amounts may overflow: wrap, the comparison will tell */
	sum->rest = (int64) ((uint64) sum->rest - (uint64) amount);
}

#endif							/* REBATE_AUDIT_FOLDED_H */
