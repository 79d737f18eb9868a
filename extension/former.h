/*
 * former.h
 *	  Keys that members had: replaced by another one, or erased.
 */
#ifndef REBATE_FORMER_H
#define REBATE_FORMER_H

#include "rebate.h"
#include "store.h"

typedef enum FormerKind
{
	FORMER_NOT,					/* a key like any other */
	FORMER_REPLACED,			/* its member has another one now */
	FORMER_ERASED				/* its member is erased */
} FormerKind;

#define FORMER_HASH_LENGTH	32

/* Read the secret of the hashes, for store_get() */
extern void former_read_key(Store *store);

/*
 * What became of a key, as it is committed now.  Of one that was replaced *now is
 * the member's key of today, in the current context.
 */
extern FormerKind former_find(Store *store, const char *key, char **now);

/*
 * The same when the store was looked up before a lock: it may know of none yet.
 * The first tells whether there are any at all.
 */
extern bool former_any_now(Store *store);
extern FormerKind former_find_now(Store *store, const char *key, char **now);

/* Raise unless the key is one of today: not that of an erased member, nor replaced. */
extern void former_check(Store *store, const char *key);

/* Record, in one call of the functions below, what became of a key */
extern void former_record(Store *store, const char *key, const char *now);

/* Who had a key that led here has this one now (NULL: is erased) */
extern void former_redirect(Store *store, const char *member, const char *now);

/* The key is its member's again */
extern void former_forget(Store *store, const char *key);

/*
 * Whoever opens accounts for these keys keeps them, until his transaction ends,
 * from being replaced or erased; the other waits for those who opened any.
 */
extern void former_lock_open(Store *store, const char *const *keys, int n);
extern void former_lock_change(Store *store, const char *const *keys, int n);

/* End of the transaction */
extern void former_at_xact_end(void);

#endif							/* REBATE_FORMER_H */
