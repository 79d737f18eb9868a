/*
 * rights.c
 *	  Who may call what.
 */
#include "rights.h"

#include "miscadmin.h"
#include "utils/acl.h"

bool
rights_have(Store *store, int rights)
{
	return has_privs_of_role(GetUserId(), store->owner);
}

void
rights_check(Store *store, int rights, const char *function)
{
	if (!rights_have(store, rights))
		store_check_user(store, function);
}
