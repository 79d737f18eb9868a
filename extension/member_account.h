/*
 * member_account.h
 *	  The accounts of one member.
 */
#ifndef REBATE_MEMBER_ACCOUNT_H
#define REBATE_MEMBER_ACCOUNT_H

#include "rebate.h"
#include "store.h"
#include "utils/snapshot.h"

typedef struct MemberAccount
{
	int64		account_id;
	int64		last_entry;
	int64		balance[NUM_BUCKETS];
	TimestampTz last_posted;
	char	   *currency;
} MemberAccount;

/* The member's accounts as a snapshot sees them, in the order of their currencies */
extern MemberAccount *member_accounts(Store *store, Snapshot snapshot, const char *member, int *n);

#endif							/* REBATE_MEMBER_ACCOUNT_H */
