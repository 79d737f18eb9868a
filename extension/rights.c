/*
 * rights.c
 *	  Who may call what.
 */
#include "rights.h"

#include "miscadmin.h"
#include "utils/acl.h"

bool
rights_of(Store *store, Oid role, int rights)
{
	return has_privs_of_role(role, store->owner);
}

bool
rights_have(Store *store, int rights)
{
	return rights_of(store, GetUserId(), rights);
}

void
rights_check(Store *store, int rights, const char *function)
{
	if (!rights_have(store, rights))
		store_check_user(store, function);
}
