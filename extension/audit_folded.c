/*
 * audit_folded.c
 *	  What was folded of ledger accounts, for the audit's pass.
 */
#include "rebate.h"

#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "audit_folded.h"

#define SH_PREFIX folded
#define SH_ELEMENT_TYPE FoldedSum
#define SH_KEY_TYPE uint64
#define SH_KEY key
#define SH_HASH_KEY(tb, k) hash_bytes_uint32((uint32) (k) ^ (uint32) ((k) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

FoldedSum *
folded_find(FoldedSums *folded, uint64 key)
{
	bool		found;
	FoldedSum  *sum = folded_insert(folded->sums, key, &found);

	if (!found)
		sum->rest = 0;
	folded->last = sum;
	return sum;
}

bool
folded_read(FoldedSums *folded, const LedgerNames *names, MemoryContext context,
			const char *sums, const char *epoch, const char *xid)
{
	uint64		n;

	folded->sums = folded_create(context, 64, NULL);
	folded->last = NULL;
	if (names_query(psprintf("SELECT %s, %s FROM rebate_data.fold", epoch, xid)) != 1)
		return false;
	folded->epoch = DatumGetInt32(names_value(0, 1));
	folded->xid = DatumGetInt64(names_value(0, 2));
	n = names_query(psprintf("SELECT ledger_account_id, amount, currency FROM rebate_data.%s", sums));
	for (uint64 i = 0; i < n; i++)
		folded_meet(folded, DatumGetInt32(names_value(i, 1)),
					names_currency(names, TextDatumGetCString(names_value(i, 3))),
					-DatumGetInt64(names_value(i, 2)));
	return true;
}

void
folded_take(FoldedSums *folded, const LedgerNames *names, const char *sums)
{
	uint64		n = names_query(psprintf("SELECT ledger_account_id, amount, currency FROM rebate_data.%s", sums));

	for (uint64 i = 0; i < n; i++)
		folded_meet(folded, DatumGetInt32(names_value(i, 1)),
					names_currency(names, TextDatumGetCString(names_value(i, 3))),
					DatumGetInt64(names_value(i, 2)));
}

bool
folded_agree(FoldedSums *folded)
{
	folded_iterator i;
	FoldedSum  *sum;

	folded_start_iterate(folded->sums, &i);
	while ((sum = folded_iterate(folded->sums, &i)) != NULL)
		if (sum->rest != 0)
			return false;
	return true;
}
