/*
 * draft_apply.c
 *	  Writes what a draft says, after checking it again.
 *
 * Tables, types, rights and other rules may have changed since the draft was
 * written, so each argument goes through the checks of rebate.set_rule() once more.
 * Expressions are analysed with their author's rights and nobody else's: to read a
 * literal can run code of types, which must not get those of who approves.  They are
 * read from the text that was stored, where every name is qualified, and must still
 * mean what was shown.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "api.h"
#include "draft.h"
#include "rights.h"
#include "rule_control.h"
#include "session.h"

static void
draft_error_context(void *arg)
{
	Draft	   *draft = arg;

	errcontext("draft %d, with the rights of its author \"%s\"", draft->draft_id, draft->author_role);
}

/* Raise if the draft was not written against what is current now. */
static void
check_base(const Draft *draft, const RuleTarget *target, bool allow_stale)
{
	if (target->same)
		ereport(ERROR,
				(errcode(ERRCODE_RB_APPROVAL),
				 errmsg("draft %d would change nothing any more", draft->draft_id),
				 errhint("Reject it, or let its author withdraw it.")));
	if (target->version == draft->base_version || allow_stale)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_RB_APPROVAL),
			 errmsg("\"%s\" has changed since draft %d was written", draft->name, draft->draft_id),
			 strcmp(draft->kind, DRAFT_GROUP) == 0 ? 0 :
			 errdetail("The draft was written when its version was %d, now it is %d.",
					   draft->base_version, target->version),
			 errhint("Look at what changes in rebate.rule_drafts; if it is still meant so, approve it with allow_stale => true.")));
}

/*
 * The arguments of rebate.set_rule() as the draft has them, read and checked each
 * for itself.
 */
static void
read_arguments(Store *store, const Draft *draft, RuleArgs *args)
{
	LOCAL_FCINFO(call, RULE_NARGS);
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	TupleDesc	desc;

	InitFunctionCallInfoData(*call, NULL, RULE_NARGS, InvalidOid, NULL, NULL);
	store_spi_begin(store, &scope);
	sql_int(&params, draft->draft_id);

	/* in the order of the function's arguments; max_percent has been agreed to */
	sql_run("SELECT d.name, (a ->> 'percent')::numeric, (a ->> 'fixed')::numeric,"
			"       (a ->> 'per_unit')::numeric, a ->> 'currency', a -> 'scope', d.condition, d.base,"
			"       (a ->> 'minimum')::numeric, (a ->> 'max_per_order')::numeric, a ->> 'limit_mode',"
			"       a ->> 'rounding', a ->> 'refund', a ->> 'unlinked_return', (a ->> 'hold')::interval,"
			"       (a ->> 'priority')::integer, a ->> 'rule_group', (a ->> 'valid_from')::timestamptz,"
			"       (a ->> 'valid_to')::timestamptz, s.relation::oid, a ->> 'campaign',"
			"       GREATEST(100, (a ->> 'percent')::numeric)"
			"  FROM (SELECT *, arguments AS a FROM rebate_data.draft) d"
			"  LEFT JOIN rebate_data.source s ON s.source_id = d.source_id"
			" WHERE d.draft_id = $1", &params, SPI_OK_SELECT);
	desc = SPI_tuptable->tupdesc;
	Assert(desc->natts == RULE_NARGS);
	for (int i = 0; i < RULE_NARGS; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		NullableDatum *arg = &call->args[i];

		arg->value = sql_get(0, i + 1, &arg->isnull);
		if (!arg->isnull)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			arg->value = datumCopy(arg->value, att->attbyval, att->attlen);
			MemoryContextSwitchTo(old);
		}
	}
	store_spi_end(&scope);

	rule_args_read(call, args);
	if (OidIsValid(args->source) && get_rel_name(args->source) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_NOT_ATTACHED),
				 errmsg("the table of draft %d is gone", draft->draft_id)));
}

/* Does the rule mean what its draft said?  Arguments without what is compared apart. */
static bool
means_the_same(Store *store, const Draft *draft, const RuleArgs *args)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	bool		isnull;
	bool		result;

	store_spi_begin(store, &scope);
	sql_param(&params, JSONBOID, draft->arguments, false);
	sql_param(&params, JSONBOID, rule_args_json(args), false);
	sql_text(&params, draft->condition);
	sql_text(&params, args->condition_text);
	sql_text(&params, draft->base);
	sql_text(&params, args->base_text);
	sql_run("SELECT $1 - '{condition,base,source}'::text[] = $2 - '{condition,base,source}'::text[]"
			"   AND $3 IS NOT DISTINCT FROM $4 AND $5 IS NOT DISTINCT FROM $6", &params, SPI_OK_SELECT);
	result = DatumGetBool(sql_get(0, 1, &isnull));
	store_spi_end(&scope);
	return result;
}

/*
 * Check with the rights of the author, as they are now, what depends on tables; and
 * that he may still write such drafts at all.
 */
static void
bind_as_author(Store *store, Draft *draft, RuleArgs *args)
{
	bool		is_approval = strcmp(draft->kind, DRAFT_APPROVAL) == 0;
	ErrorContextCallback callback = {
		.callback = draft_error_context,.arg = draft,.previous = error_context_stack
	};
	Oid			role = get_role_oid(draft->author_role, true);
	Oid			save_userid;
	int			save_sec_context;
	int			level;

	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_RB_APPROVAL),
				 errmsg("role \"%s\", which wrote draft %d, does not exist any more",
						draft->author_role, draft->draft_id),
				 errhint("Reject the draft, and write it again.")));

	error_context_stack = &callback;
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(role, save_sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	level = session_pin();
	rights_check(store, is_approval ? RIGHT_ADMIN : RIGHT_AUTHOR,
				 is_approval ? "rebate.require_approval" : "rebate.set_rule");
	if (args)
		rule_args_bind(args, store);
	AtEOXact_GUC(false, level);
	SetUserIdAndSecContext(save_userid, save_sec_context);
	error_context_stack = callback.previous;
}

static DraftResult
apply_rule(Store *store, Draft *draft, bool allow_stale)
{
	RuleArgs	args;
	RulePlace	place;
	RuleTarget	target;
	DraftResult result;
	StoreSpi	scope;

	read_arguments(store, draft, &args);
	bind_as_author(store, draft, &args);
	rule_args_check_time(&args);
	if (!means_the_same(store, draft, &args))
		ereport(ERROR,
				(errcode(ERRCODE_RB_APPROVAL),
				 errmsg("draft %d does not mean any more what it meant when it was written",
						draft->draft_id),
				 errdetail("Columns that it names have changed."),
				 errhint("Reject the draft, and write it again.")));

	store_spi_begin(store, &scope);
	rule_check_ceiling(&args, rule_control(store).max_percent);
	place = rule_find_place(&args);
	target = rule_find(&args, draft->arguments);
	check_base(draft, &target, allow_stale);
	result.generation = rule_write(&args, draft->arguments, &target, &place, draft->author.login);
	result.version = target.version;
	store_spi_end(&scope);
	return result;
}

static DraftResult
apply_end(Store *store, Draft *draft, bool allow_stale)
{
	RuleTarget	target;
	DraftResult result;
	StoreSpi	scope;

	store_spi_begin(store, &scope);
	target = rule_find_end(draft->name, draft->arguments);
	check_base(draft, &target, allow_stale);
	result.generation = rule_write_end(draft->arguments, &target, draft->author.login);
	result.version = target.version;
	store_spi_end(&scope);
	return result;
}

static DraftResult
apply_group(Store *store, Draft *draft, bool allow_stale)
{
	RuleTarget	target;
	DraftResult result = {0};
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *mode;

	store_spi_begin(store, &scope);
	sql_param(&params, JSONBOID, draft->arguments, false);
	sql_run("SELECT $1 ->> 'mode'", &params, SPI_OK_SELECT);
	mode = sql_get_text(0, 1, CurrentMemoryContext);
	target = rule_find_group(draft->name, mode);
	check_base(draft, &target, allow_stale);
	result.generation = rule_write_group(draft->name, mode, draft->author.login);
	store_spi_end(&scope);
	return result;
}

/* Approval is required no longer. */
static DraftResult
apply_approval(Store *store, Draft *draft)
{
	RuleTarget	target = {0};
	DraftResult result = {0};
	RuleControl control;
	StoreSpi	scope;

	store_spi_begin(store, &scope);
	control = rule_control(store);
	target.same = !control.approval;
	check_base(draft, &target, true);
	control.approval = false;
	result.generation = rule_control_write(&control, &draft->author);
	store_spi_end(&scope);
	return result;
}

DraftResult
draft_apply(Store *store, Draft *draft, bool allow_stale)
{
	if (strcmp(draft->kind, DRAFT_RULE) == 0)
		return apply_rule(store, draft, allow_stale);
	bind_as_author(store, draft, NULL);
	if (strcmp(draft->kind, DRAFT_APPROVAL) == 0)
		return apply_approval(store, draft);
	if (strcmp(draft->kind, DRAFT_END) == 0)
		return apply_end(store, draft, allow_stale);
	return apply_group(store, draft, allow_stale);
}
