/*
 * person.c
 *	  Who acts: the login, and the person that a gateway says it acts for.
 *
 * An application that people share logs in as one role, so the login does not
 * tell who of them it is.  rebate.on_behalf_of() lets a gateway, and nobody else,
 * say so; what it says is kept in memory until the transaction ends, and goes into
 * the records beside the login.  No setting is used: any role can set those, and
 * they stay behind in a pooled connection.
 */
#include "rebate.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "api.h"
#include "collect.h"
#include "person.h"
#include "rights.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_on_behalf_of);

/* The person named in this transaction, and the subtransaction level of that */
static char claimed[NAMEDATALEN] = "";
static int	claimed_level = 0;

Person
person_now(void)
{
	Person		person;

	person.login_id = GetSessionUserId();
	person.login = GetUserNameFromId(person.login_id, false);
	person.claim = claimed[0] ? pstrdup(claimed) : NULL;
	return person;
}

/*
 * A person who logs in himself and through a gateway has the same name both times.
 * A role that was renamed has the same OID, one that was made again the same name.
 */
bool
person_same(const Person *a, const Person *b)
{
	const char *name_a = a->claim ? a->claim : a->login;
	const char *name_b = b->claim ? b->claim : b->login;

	if (strcmp(name_a, name_b) == 0)
		return true;
	return (a->claim == NULL || b->claim == NULL) &&
		(a->login_id == b->login_id || strcmp(a->login, b->login) == 0);
}

char *
person_text(const Person *person)
{
	return person->claim ? psprintf("%s, for %s", person->login, person->claim) : pstrdup(person->login);
}

/* What was said in a subtransaction holds after it. */
void
person_at_subcommit(void)
{
	claimed_level = Min(claimed_level, GetCurrentTransactionNestLevel() - 1);
}

/*
 * What was said in a subtransaction that is undone is forgotten, with what was said
 * before it: who means to act for somebody says it again.
 */
void
person_at_subabort(void)
{
	if (claimed_level >= GetCurrentTransactionNestLevel())
		person_at_xact_end();
}

void
person_at_xact_end(void)
{
	claimed[0] = '\0';
	claimed_level = 0;
}

/*
 * rebate.on_behalf_of(person): until this transaction ends the acts of this session
 * are recorded as those of a person that the application knows; NULL: no longer.
 */
Datum
rebate_on_behalf_of(PG_FUNCTION_ARGS)
{
	char	   *person;

	(void) collect_flush();
	rights_check(store_get(false), RIGHT_GATEWAY, "rebate.on_behalf_of");
	person = api_text(fcinfo, 0);
	if (person)
		api_check_name(ERRCODE_INVALID_PARAMETER_VALUE, "person", person);
	strlcpy(claimed, person ? person : "", sizeof(claimed));
	claimed_level = GetCurrentTransactionNestLevel();
	PG_RETURN_VOID();
}
