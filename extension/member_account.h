/*
 * member_account.h
 *	  The accounts of one member.
 */
#ifndef REBATE_MEMBER_ACCOUNT_H
#define REBATE_MEMBER_ACCOUNT_H

#include "rebate.h"
#include "event.h"
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

/*
 * Bring an account back to how it was after its last entry that was posted not
 * later than a moment; the scan is of event_ranges_begin().
 */
extern void member_account_at(Store *store, Snapshot snapshot, EventScan *scan,
							  MemberAccount *account, TimestampTz moment);

#endif							/* REBATE_MEMBER_ACCOUNT_H */
