/*
 * post_internal.h
 *	  What the two halves of the writer share: accounts, and the rest.
 */
#ifndef REBATE_POST_INTERNAL_H
#define REBATE_POST_INTERNAL_H

#include "access/htup_details.h"
#include "ledger.h"
#include "order_keys.h"
#include "post.h"
#include "store_table.h"

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
	int			opens;			/* the write whose accrual it opens, or -1 */
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
	HeapTuple	newtuple;		/* NULL: formed with its opening entry */
	/* of a new one */
	PostOrder  *order;
	Wish	   *wish;			/* NULL: the bare decision */
	int64		accrual_id;
	int			part;
	int64		account_id;		/* and the entry that opens it; 0: none */
	int64		seq;
} AccrualWrite;

/* A row of entries to be inserted, and its key */
typedef struct EntryWrite
{
	HeapTuple	tuple;
	int64		account_id;
	int64		seq;
} EntryWrite;

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
	OrderKeys  *keys;			/* not NULL: orders come in the order of accounts, */
	int			at;				/* whose turn it is at this one, -1 before the first */
	AccrualWrite *writes;
	int			nwrites;
	int			allocated_writes;
	EntryWrite *entries;		/* to be inserted, account after account */
	int			nentries;
	int			allocated_entries;
	TimestampTz last_event;		/* memo of local_date() */
	DateADT		last_date;
} Posting;

/* post.c: the day of a moment in the programme's zone */
extern DateADT post_local_date(Posting *p, TimestampTz moment);

/* post.c: list a movement of an account */
extern void post_add_movement(PostAccount *account, const Movement *what, char kind, int from,
							  int to, int32 house, int64 amount);

/* post_accrual.c: list what is to be written of accruals */
extern int	post_new_accrual(Posting *p, PostOrder *order, int64 accrual_id, Wish *wish, int part);
extern void post_update_accrual(Posting *p, PostOrder *order, HeapTuple oldtuple, Wish *wish,
								int64 earned, char bucket);
extern void post_update_flags(Posting *p, PostOrder *order);
extern void post_replace_accrual(Posting *p, HeapTuple oldtuple, HeapTuple newtuple);

/* Form the row of a new accrual with the entry that opens it */
extern HeapTuple post_form_accrual(Posting *p, const AccrualWrite *write, const EntryFields *entry,
								   int64 check, const int64 *balance);

/* Write what was listed */
extern void post_write_accruals(Posting *p);

/*
 * The same for an order that is assumed to be new: make its rows, findable by
 * their order only.  Returns false, having withdrawn them, if the order is known.
 */
extern bool post_try_accruals(Posting *p);
extern void post_withdraw_accruals(Posting *p);
extern void post_finish_accruals(Posting *p);

/* post_waiting.c: after accruals were written, what waits for the clock follows */
extern void post_write_waiting(Posting *p);

/*
 * post_entry.c: form the entries of one account, and bring its row along.  The
 * second returns false if somebody was faster: the account is then as he left it,
 * and its entries are to be formed again.
 */
extern HeapTuple post_form_entries(Posting *p, PostAccount *account);
extern bool post_replace_account(Posting *p, PostAccount *account, HeapTuple newtuple);
extern void post_write_entries(Posting *p);

/* Whether its member was erased, as far as we know */
static inline bool
post_account_is_erased(const PostAccount *account)
{
	return ((Form_account) GETSTRUCT(account->tuple))->status == ACCOUNT_ERASED;
}

/*
 * The member of an account was erased after his orders had been planned: they are
 * recorded, and earn nothing.
 */
extern void post_erase_account(Posting *p, PostAccount *account);

/* List, find or make, and sort the accounts that the orders touch */
extern void post_resolve_accounts(Posting *p);

/* List the accounts of orders that come in their order, and find them */
extern void post_list_accounts(Posting *p);

/* Lock all of them, in order, and bring them up to date */
extern void post_lock_accounts(Posting *p);

extern PostAccount *post_account_by_id(Posting *p, int64 account_id);
extern PostAccount *post_account_of(Posting *p, const char *member, const char *currency);

/* Newest version of an account by id or name under "snapshot"; NULL if none */
extern HeapTuple post_find_account(Posting *p, PostAccount *account, Snapshot snapshot);

#endif							/* REBATE_POST_INTERNAL_H */
