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

/* Raise 42501 unless the current user has one of the rights */
extern void rights_check(Store *store, int rights, const char *function);

/* Has he?  Has another role? */
extern bool rights_have(Store *store, int rights);
extern bool rights_of(Store *store, Oid role, int rights);

#endif							/* REBATE_RIGHTS_H */
