/*
 * rule_api.c
 *	  rebate.set_rule(), rebate.end_rule(), rebate.set_group().
 *
 * Every write of rules locks the one row of rebate_data.generation before it
 * reads anything, and takes the next number from it: so writes come one after
 * another, and an order that notes the number it saw knows which versions there
 * were.  Orders take no lock.  Where changes must be approved, what would be
 * written becomes a draft.
 */
#include "rebate.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api.h"
#include "collect.h"
#include "create_store.h"
#include "draft.h"
#include "rights.h"
#include "rule_api.h"
#include "rule_control.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_set_rule);
PG_FUNCTION_INFO_V1(rebate_end_rule);
PG_FUNCTION_INFO_V1(rebate_set_group);

Store *
rule_begin_call(int right, const char *function)
{
	Store	   *store;

	(void) collect_flush();
	(void) create_store_if_missing();
	store = store_get(false);
	rights_check(store, right, function);
	return store;
}

/* What a change ends with, whether it was made or became a draft. */
static void
end_call(Store *store, const Draft *draft, bool found)
{
	if (draft->draft_id == 0)
		store_rules_changed(store);
	else
		draft_notice(draft, found);
}

/*
 * rebate.set_rule(): writes the next version of a rule, or a draft of it, unless its
 * last version says the same.  Returns the number of the version; where changes must
 * be approved that of the draft, or null if nothing would change.
 */
Datum
rebate_set_rule(PG_FUNCTION_ARGS)
{
	RuleArgs	args;
	Store	   *store;
	StoreSpi	scope;
	Datum		arguments;
	RulePlace	place;
	RuleTarget	target;
	Draft		draft = {.kind = DRAFT_RULE};
	RuleControl control;
	bool		found = false;

	rights_check_early(RIGHT_AUTHOR, "rebate.set_rule");
	rule_args_read(fcinfo, &args);
	store = rule_begin_call(RIGHT_AUTHOR, "rebate.set_rule");
	rule_lock_tables(store, args.source);
	api_lock_configuration(store);
	rule_args_bind(&args, store);
	arguments = rule_args_json(&args);
	rule_args_check_time(&args);
	draft.author_role = GetUserNameFromId(GetUserId(), false);

	store_spi_begin(store, &scope);
	control = rule_control(store);
	rule_check_ceiling(&args, control.max_percent);
	place = rule_find_place(&args);
	target = rule_find(&args, arguments);
	if (!target.same && control.approval)
	{
		draft.name = args.name;
		draft.arguments = arguments;
		draft.condition = args.condition_text;
		draft.base = args.base_text;
		draft.source_id = args.source_id;
		draft.base_version = target.version;
		draft_write(&draft, &found);
	}
	else if (!target.same)
		rule_write(&args, arguments, &target, &place, NULL);
	store_spi_end(&scope);

	if (target.same)
		ereport(NOTICE,
				(errmsg("rule \"%s\" has these arguments already, nothing changed", args.name)));
	else
		end_call(store, &draft, found);
	if (control.approval && target.same)
		PG_RETURN_NULL();
	PG_RETURN_INT32(control.approval ? draft.draft_id : target.version);
}

/*
 * rebate.end_rule(): writes a version that pays nothing from a moment on, or a draft
 * of it.  Returns what rebate.set_rule() does.
 */
Datum
rebate_end_rule(PG_FUNCTION_ARGS)
{
	char	   *name = api_text(fcinfo, 0);
	Store	   *store;
	StoreSpi	scope;
	StringInfoData json;
	RuleTarget	target;
	Draft		draft = {.kind = DRAFT_END};
	bool		required;
	bool		found = false;

	rights_check_early(RIGHT_AUTHOR, "rebate.end_rule");
	api_check_name(ERRCODE_RB_INVALID_RULE, "name", name);
	json_begin(&json);
	json_add_raw(&json, "end", "true");
	if (!PG_ARGISNULL(1))
	{
		if (TIMESTAMP_IS_NOEND(PG_GETARG_TIMESTAMPTZ(1)))
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("at must not be infinity")));
		json_add_text(&json, "at", api_timestamptz_text(PG_GETARG_TIMESTAMPTZ(1)));
	}
	store = rule_begin_call(RIGHT_AUTHOR, "rebate.end_rule");
	api_lock_configuration(store);
	draft.name = name;
	draft.arguments = json_end(&json);
	draft.author_role = GetUserNameFromId(GetUserId(), false);

	store_spi_begin(store, &scope);
	target = rule_find_end(name, draft.arguments);
	draft.base_version = target.version;
	required = rule_control(store).approval;
	if (!target.same && required)
		draft_write(&draft, &found);
	else if (!target.same)
		rule_write_end(draft.arguments, &target, NULL);
	store_spi_end(&scope);

	if (target.same)
		ereport(NOTICE,
				(errmsg("rule \"%s\" is ended already, nothing changed", name)));
	else
		end_call(store, &draft, found);
	if (required && target.same)
		PG_RETURN_NULL();
	PG_RETURN_INT32(required ? draft.draft_id : target.version);
}

/*
 * rebate.set_group(): makes a group of rules, or changes its mode.  A new group has
 * no rules, so it needs nobody's approval.
 */
Datum
rebate_set_group(PG_FUNCTION_ARGS)
{
	static const char *const modes[] = {"first", "best", "stack", NULL};
	char	   *name = api_text(fcinfo, 0);
	char	   *mode = api_text(fcinfo, 1);
	Store	   *store;
	StoreSpi	scope;
	StringInfoData json;
	RuleTarget	target;
	Draft		draft = {.kind = DRAFT_GROUP};
	bool		found = false;

	rights_check_early(RIGHT_AUTHOR, "rebate.set_group");
	api_check_name(ERRCODE_RB_INVALID_RULE, "name", name);
	api_one_of(ERRCODE_RB_INVALID_RULE, "mode", mode, modes);
	json_begin(&json);
	json_add_text(&json, "mode", mode);
	store = rule_begin_call(RIGHT_AUTHOR, "rebate.set_group");
	api_lock_configuration(store);
	draft.name = name;
	draft.arguments = json_end(&json);
	draft.author_role = GetUserNameFromId(GetUserId(), false);

	store_spi_begin(store, &scope);
	target = rule_find_group(name, mode);
	draft.base_version = target.version;
	if (!target.same && target.rule_id != 0 && rule_control(store).approval)
		draft_write(&draft, &found);
	else if (!target.same)
		rule_write_group(name, mode, NULL);
	store_spi_end(&scope);

	if (target.same)
		ereport(NOTICE,
				(errmsg("group \"%s\" has mode \"%s\" already, nothing changed", name, mode)));
	else
		end_call(store, &draft, found);
	PG_RETURN_VOID();
}
