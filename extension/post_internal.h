/*
 * post_internal.h
 *	  What the two halves of the writer share: accounts, and the rest.
 */
#ifndef REBATE_POST_INTERNAL_H
#define REBATE_POST_INTERNAL_H

#include "post.h"
#include "store_table.h"
#include "utils/date.h"

/* The start of the tuples of rebate_data.account */
typedef struct FormData_account
{
	int64		account_id;
	int64		last_entry;
	int64		balance[NUM_BUCKETS];
	int64		last_check;
	TimestampTz last_posted;
	char		status;
} FormData_account;

typedef FormData_account *Form_account;

enum AccountColumn
{
	AC_ACCOUNT_ID = 1, AC_CURRENCY = 11, AC_MEMBER = 12
};

enum EntryColumn
{
	EN_ACCOUNT_ID = 1, EN_SEQ, EN_AMOUNT, EN_POSTED_AT, EN_EVENT_AT, EN_XID, EN_CHECK,
	EN_DEBIT, EN_CREDIT, EN_EPOCH, EN_EFFECTIVE_DATE, EN_BOOK_DATE, EN_RULE_ID,
	EN_SOURCE_ID, EN_KIND, EN_ACCRUAL_ID, EN_POSTING_ID, EN_PAYOUT_ID, EN_TRACKED,
	EN_ORDER_KEY = EN_TRACKED + NUM_BUCKETS
};
#define EN_NATTS EN_ORDER_KEY

/* One entry to be: which of the account's buckets it takes from and gives to */
typedef struct Movement
{
	struct Movement *next;
	char		kind;
	int			from;			/* Bucket, or -1: the other side is "house" */
	int			to;
	int32		house;			/* ledger account of the other side */
	int64		amount;			/* > 0 */
	int64		posting_id;
	int64		accrual_id;
	int32		rule_id;
	int32		source_id;
	const char *order_key;
	TimestampTz event_at;
	DateADT		effective_date;
} Movement;

/* An account that this posting touches */
typedef struct PostAccount
{
	int64		account_id;		/* 0: not known yet */
	const char *member;			/* NULL: found by id */
	const char *currency;
	HeapTuple	tuple;			/* its newest version, as far as we know */
	Movement   *first;
	Movement   *last;
} PostAccount;

/* A version of an accrual to be written */
typedef struct AccrualWrite
{
	HeapTuple	oldtuple;		/* NULL: insert */
	HeapTuple	newtuple;
} AccrualWrite;

typedef struct Posting
{
	Store	   *store;
	StoreTableDesc account_table;
	StoreTableDesc accrual_table;
	StoreTableDesc entry_table;
	PostOrder  *orders;
	int			norders;
	PostAccount *accounts;		/* sorted by id once resolved */
	int			naccounts;
	PostAccount **by_name;		/* those found by name, sorted by name */
	int			nby_name;
	AccrualWrite *writes;
	int			nwrites;
	int			allocated_writes;
	TimestampTz last_event;		/* memo of local_date() */
	DateADT		last_date;
} Posting;

/* List, find or make, and sort the accounts that the orders touch */
extern void post_resolve_accounts(Posting *p);

/* Lock all of them, in order, and bring them up to date */
extern void post_lock_accounts(Posting *p);

extern PostAccount *post_account_by_id(Posting *p, int64 account_id);
extern PostAccount *post_account_of(Posting *p, const char *member, const char *currency);

/* Newest version of an account by id or name under "snapshot"; NULL if none */
extern HeapTuple post_find_account(Posting *p, PostAccount *account, Snapshot snapshot);

#endif							/* REBATE_POST_INTERNAL_H */
