/*
 * audit_names.h
 *	  What accounts and entries may name, as the audit's pass asks for it.
 */
#ifndef REBATE_AUDIT_NAMES_H
#define REBATE_AUDIT_NAMES_H

#include "rebate.h"

/* Below it a number is looked up by itself */
#define SMALL_NUMBERS	512

/* Numbers that are known, sorted, and the last one that was asked for */
typedef struct NumberSet
{
	int64	   *numbers;
	uint64		n;
	int64		last;			/* is one of them */
	bool		has_last;
	bool		small[SMALL_NUMBERS];	/* which of the small ones are there */
} NumberSet;

typedef struct LedgerNames
{
	char	  **currencies;		/* sorted */
	int			ncurrencies;
	NumberSet	ledger_accounts;
	NumberSet	sources;
	NumberSet	versions;		/* rule and version */
} LedgerNames;

/* Read all of it into "context"; inside SPI, under the active snapshot */
extern void names_read(LedgerNames *names, MemoryContext context);
extern bool names_search(NumberSet *set, int64 number);
extern bool names_know_version(LedgerNames *names, int32 rule_id, int32 version);

/* Is the number one of the set? */
static inline bool
names_know(NumberSet *set, int64 number)
{
	if (number >= 0 && number < SMALL_NUMBERS)
		return set->small[number];
	return (set->has_last && set->last == number) || names_search(set, number);
}

/* Place of a currency in the list; -1: unknown */
extern int	names_currency(const LedgerNames *names, const char *code);

/* A query under the active snapshot: its rows, and one of their values, which is not null */
extern uint64 names_query(const char *sql);
extern Datum names_value(uint64 row, int column);

#endif							/* REBATE_AUDIT_NAMES_H */
