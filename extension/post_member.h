/*
 * post_member.h
 *	  What a change of a member's key does to his accounts.
 */
#ifndef REBATE_POST_MEMBER_H
#define REBATE_POST_MEMBER_H

#include "rebate.h"
#include "store.h"

typedef struct MemberChange
{
	const char *member;
	const char *now;			/* his new key, or the pseudonym of an erased one */
	bool		erase;
	bool		write_off;		/* what he has is written off */
	int			naccounts;		/* out: how many he has */
	bool		written_off;	/* out: there was something */
} MemberChange;

/*
 * Give all accounts of a member another key, under their locks, which are held
 * until the transaction ends.  With "erase" they are closed for orders as well,
 * and his rebates settled; raises RB018 if there is a balance that is not written
 * off.  Nobody may open accounts for either key meanwhile.
 */
extern void post_change_member(Store *store, MemberChange *change);

#endif							/* REBATE_POST_MEMBER_H */
