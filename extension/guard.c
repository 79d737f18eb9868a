/*
 * guard.c
 *	  Runs what may raise for a row without taking the statement down.
 */
#include "rebate.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "expr.h"
#include "guard.h"

static bool rolling_back = false;

bool
guard_rolling_back(void)
{
	return rolling_back;
}

/* Errors of a row; all others are of the system and stop the statement */
static bool
may_set_aside(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_INVALID_TRANSACTION_STATE:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
	}
	return sqlerrcode != ERRCODE_STATEMENT_TOO_COMPLEX &&
		sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		sqlerrcode != ERRCODE_RB_STORE_DAMAGED;
}

/* An error may quote the whole value that it is about. */
static void
clip(char *text)
{
	if (text)
		text[pg_mbcliplen(text, strlen(text), MAX_MESSAGE_LENGTH)] = '\0';
}

/*
 * Run fn(arg), which evaluates expressions, as the store's owner in a
 * subtransaction (that gets no transaction id, since nothing is written).
 * Returns NULL, or the error of a row in the current context.
 */
ErrorData *
run_guarded(Store *store, void (*fn) (void *), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		ExprScope	scope;

		expr_begin(&scope, store->owner, store->time_zone);
		fn(arg);
		expr_end(&scope);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		rolling_back = true;
		RollbackAndReleaseCurrentSubTransaction();
		rolling_back = false;
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (!may_set_aside(error->sqlerrcode))
			ReThrowError(error);
		clip(error->message);
		clip(error->detail);
	}
	PG_END_TRY();
	return error;
}

/*
 * As the executor decides it for its own error details: all columns, and no
 * policy that could hide the row.
 */
bool
may_see_rows(Oid relid)
{
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) ||
		check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		return false;
	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT, ACLMASK_ALL) == ACLCHECK_OK;
}
