/*
 * audit_names.c
 *	  What accounts and entries may name: the small tables beside the ledger.
 */
#include "rebate.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "audit_names.h"

static int
compare_numbers(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

bool
names_search(NumberSet *set, int64 number)
{
	if (bsearch(&number, set->numbers, set->n, sizeof(int64), compare_numbers) == NULL)
		return false;
	set->last = number;
	set->has_last = true;
	return true;
}

/* The same number that the query makes of a rule's version */
bool
names_know_version(LedgerNames *names, int32 rule_id, int32 version)
{
	return names_know(&names->versions,
					  (int64) (((uint64) (uint32) rule_id << 32) | (uint32) version));
}

static int
compare_codes(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

int
names_currency(const LedgerNames *names, const char *code)
{
	char	  **found = bsearch(&code, names->currencies, names->ncurrencies, sizeof(char *),
								compare_codes);

	return found ? found - names->currencies : -1;
}

uint64
names_query(const char *sql)
{
	if (SPI_execute(sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read what the audit compares");
	return SPI_processed;
}

Datum
names_value(uint64 row, int column)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
}

static void
read_numbers(NumberSet *set, MemoryContext context, const char *sql)
{
	set->n = names_query(sql);
	set->numbers = MemoryContextAllocHuge(context, sizeof(int64) * Max(set->n, 1));
	memset(set->small, false, sizeof(set->small));
	for (uint64 i = 0; i < set->n; i++)
	{
		int64		number = DatumGetInt64(names_value(i, 1));

		set->numbers[i] = number;
		if (number >= 0 && number < SMALL_NUMBERS)
			set->small[number] = true;
	}
	qsort(set->numbers, set->n, sizeof(int64), compare_numbers);
	set->has_last = false;
}

void
names_read(LedgerNames *names, MemoryContext context)
{
	uint64		n;

	read_numbers(&names->ledger_accounts, context,
				 "SELECT ledger_account_id::bigint FROM rebate_data.ledger_account");
	read_numbers(&names->sources, context, "SELECT source_id::bigint FROM rebate_data.source");
	read_numbers(&names->versions, context,
				 "SELECT (rule_id::bigint << 32) | version FROM rebate_data.rule_version");

	n = names_query("SELECT code FROM rebate_data.currency");
	names->currencies = MemoryContextAlloc(context, sizeof(char *) * Max(n, 1));
	names->ncurrencies = (int) n;
	for (uint64 i = 0; i < n; i++)
		names->currencies[i] = MemoryContextStrdup(context, TextDatumGetCString(names_value(i, 1)));
	qsort(names->currencies, n, sizeof(char *), compare_codes);
}
