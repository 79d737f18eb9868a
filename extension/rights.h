/*
 * rights.h
 *	  Who may call what.
 */
#ifndef REBATE_RIGHTS_H
#define REBATE_RIGHTS_H

#include "rebate.h"
#include "store.h"

/*
 * What a role can be granted.  Members of the store owner's role and superusers
 * have all of them but those that take two persons.
 */
typedef enum Right
{
	RIGHT_ADMIN = 1 << 0,		/* attach tables, run the engine */
	RIGHT_AUTHOR = 1 << 1,		/* write rules */
	RIGHT_APPROVER = 1 << 2,	/* let what others wrote take effect */
	RIGHT_AUDITOR = 1 << 3,		/* read everything, run the audit */
	RIGHT_OPERATOR = 1 << 4,	/* failures, freezes, jobs, delivery */
	RIGHT_GATEWAY = 1 << 5,		/* act for members */
	RIGHT_MEMBER = 1 << 6		/* see what is his own */
} Right;

#define NUM_RIGHTS		7
#define RIGHTS_OWNER	0		/* no right: members of the owner's role only */

/* Their names in the order of their bits, then NULL */
extern const char *const right_names[NUM_RIGHTS + 1];

/* Raise 42501 unless the current user has one of the rights */
extern void rights_check(Store *store, int rights, const char *function);

/* Has he?  Has another role? */
extern bool rights_have(Store *store, int rights);
extern bool rights_of(Store *store, Oid role, int rights);

/*
 * The same for what takes two persons: raise 42501 unless the current user has the
 * right by rebate.grant_right(), by himself or as a member of a role.  Being the
 * owner does not suffice.
 */
extern void rights_check_granted(Store *store, Right right, const char *function);

/*
 * rights_api.c: rights_check() before anything else, if there is a store; who
 * makes one is checked then
 */
extern void rights_check_early(int rights, const char *function);

/* Grant again what the table says, to functions and views that are new */
extern void rights_restore(Oid extowner, Oid owner);

/* Set-up in _PG_init */
extern void rights_init(void);

#endif							/* REBATE_RIGHTS_H */
