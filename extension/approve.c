/*
 * approve.c
 *	  rebate.approve_rule(), rebate.reject_rule(), rebate.withdraw_rule().
 *
 * Two persons change what is paid: one writes, another approves.  What is approved
 * becomes a version at that moment, under a generation of its own, exactly as
 * rebate.set_rule() would have written it then.
 */
#include "rebate.h"

#include "executor/spi.h"
#include "utils/builtins.h"

#include "api.h"
#include "collect.h"
#include "draft.h"
#include "rights.h"
#include "rule_api.h"
#include "rule_control.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_approve_rule);
PG_FUNCTION_INFO_V1(rebate_reject_rule);
PG_FUNCTION_INFO_V1(rebate_withdraw_rule);

/* What every function of this file begins with; to approve is nobody's by being the owner. */
static Store *
begin_call(const char *function, int rights)
{
	Store	   *store;

	(void) collect_flush();
	store = store_get(false);
	if (rights == RIGHT_APPROVER)
		rights_check_granted(store, RIGHT_APPROVER, function);
	else
		rights_check(store, rights, function);
	store_require(store, CONTROL_STORE_VERSION, function);
	return store;
}

/* The open draft that the first argument names; the configuration is locked from here on. */
static Draft *
draft_argument(FunctionCallInfo fcinfo, Store *store)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	Draft	   *draft;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("draft must not be null")));
	api_lock_configuration(store);
	store_spi_begin(store, &scope);
	draft = draft_read(PG_GETARG_INT32(0), context);
	store_spi_end(&scope);
	return draft;
}

/* Lock the tables that a draft of a rule applies to. */
static void
lock_tables_of(Store *store, int32 draft_id)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	bool		found;
	bool		isnull = true;
	Oid			source = InvalidOid;

	sql_int(&params, draft_id);
	store_spi_begin(store, &scope);
	found = sql_run("SELECT s.relation::oid FROM rebate_data.draft d"
					"  LEFT JOIN rebate_data.source s ON s.source_id = d.source_id"
					" WHERE d.draft_id = $1 AND d.kind = 'rule' AND d.state = 'open'",
					&params, SPI_OK_SELECT) == 1;
	if (found)
		source = DatumGetObjectId(sql_get(0, 1, &isnull));
	store_spi_end(&scope);
	if (found)
		rule_lock_tables(store, isnull ? InvalidOid : source);
}

/*
 * rebate.approve_rule(draft, comment, allow_stale): makes a draft of somebody else
 * the next version.  Returns its number, or null for what is no version of one rule.
 */
Datum
rebate_approve_rule(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call("rebate.approve_rule", RIGHT_APPROVER);
	Draft	   *draft;
	Person		person = person_now();
	StoreSpi	scope;
	DraftResult result;

	if (!PG_ARGISNULL(0))
		lock_tables_of(store, PG_GETARG_INT32(0));
	draft = draft_argument(fcinfo, store);
	if (person_same(&draft->author, &person))
		ereport(ERROR,
				(errcode(ERRCODE_RB_APPROVAL),
				 errmsg("draft %d was written by the same person", draft->draft_id),
				 errdetail("Its author is %s; you are %s.", person_text(&draft->author),
						   person_text(&person)),
				 errhint("Somebody else must approve it.")));
	result = draft_apply(store, draft, !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));

	store_spi_begin(store, &scope);
	draft_decide(draft, "approved", api_text(fcinfo, 1), result.generation, result.version);
	store_spi_end(&scope);
	store_rules_changed(store);
	if (result.version == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(result.version);
}

/* rebate.reject_rule(draft, reason): a draft will not take effect. */
Datum
rebate_reject_rule(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call("rebate.reject_rule", RIGHT_APPROVER);
	char	   *reason = api_text(fcinfo, 1);
	Draft	   *draft;
	StoreSpi	scope;

	if (reason == NULL || reason[strspn(reason, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason must be given"),
				 errhint("The author of the draft will want to know.")));
	draft = draft_argument(fcinfo, store);
	store_spi_begin(store, &scope);
	draft_decide(draft, "rejected", reason, 0, 0);
	store_spi_end(&scope);
	PG_RETURN_VOID();
}

/* rebate.withdraw_rule(draft): its author takes a draft back. */
Datum
rebate_withdraw_rule(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call("rebate.withdraw_rule", RIGHT_AUTHOR | RIGHT_ADMIN);
	Draft	   *draft = draft_argument(fcinfo, store);
	Person		person = person_now();
	StoreSpi	scope;

	if (!person_same(&draft->author, &person))
		ereport(ERROR,
				(errcode(ERRCODE_RB_APPROVAL),
				 errmsg("draft %d was written by somebody else", draft->draft_id),
				 errdetail("Its author is %s; you are %s.", person_text(&draft->author),
						   person_text(&person)),
				 errhint("Who may approve it may reject it with rebate.reject_rule().")));
	store_spi_begin(store, &scope);
	draft_decide(draft, "withdrawn", NULL, 0, 0);
	store_spi_end(&scope);
	PG_RETURN_VOID();
}
