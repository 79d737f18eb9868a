/*
 * person.h
 *	  Who acts: the login, and the person that a gateway says it acts for.
 */
#ifndef REBATE_PERSON_H
#define REBATE_PERSON_H

#include "rebate.h"

typedef struct Person
{
	char	   *login;			/* session_user, and its OID */
	Oid			login_id;
	char	   *claim;			/* the person named by a gateway; NULL: none */
} Person;

/* Who acts now, in the current memory context */
extern Person person_now(void);

/*
 * Are these one and the same, as far as we can tell?  Two persons behind one
 * login are told apart only if both were named.
 */
extern bool person_same(const Person *a, const Person *b);

/* For messages: the login, with the person behind it */
extern char *person_text(const Person *person);

extern void person_at_subcommit(void);
extern void person_at_subabort(void);
extern void person_at_xact_end(void);

#endif							/* REBATE_PERSON_H */
