/*
 * identity.h
 *	  The member that a transaction, or a login, sees the rows of.
 */
#ifndef REBATE_IDENTITY_H
#define REBATE_IDENTITY_H

#include "rebate.h"
#include "store.h"

/*
 * The member that the current user sees the rows of, in the current memory
 * context: the one that the transaction acts for, else the one that the user is
 * mapped to.  NULL: nobody.
 */
extern char *identity_member(Store *store);

/*
 * Raise in a parallel operation: workers do not know whom their leader acts for.
 * Comes first, since the store cannot be looked for there.
 */
extern void identity_refuse_parallel(void);

/* Raise unless "member" can be the key of one */
extern void identity_check_member(const char *member);

/* logins.c: the member that a role is mapped to; NULL: none */
extern char *login_member(Store *store, Oid role);

/* Callbacks of transaction and subtransaction, from rebate.c */
extern void identity_at_xact_end(void);
extern void identity_at_subcommit(SubTransactionId my, SubTransactionId parent);
extern void identity_at_subabort(SubTransactionId my);

#endif							/* REBATE_IDENTITY_H */
