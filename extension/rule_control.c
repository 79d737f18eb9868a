/*
 * rule_control.c
 *	  rebate.require_approval() and rebate.set_max_percent(): what changes of rules
 *	  are held to.
 *
 * Controls are kept by generation, like the rules themselves, and never changed: so
 * the audit knows what was asked of each version when it was written.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api.h"
#include "arith.h"
#include "draft.h"
#include "rights.h"
#include "rule_api.h"
#include "rule_control.h"

PG_FUNCTION_INFO_V1(rebate_require_approval);
PG_FUNCTION_INFO_V1(rebate_set_max_percent);

RuleControl
rule_control(Store *store)
{
	RuleControl control = {false, NULL};
	Datum		max_percent;
	bool		isnull;

	if (store->version < CONTROL_STORE_VERSION ||
		sql_run("SELECT approval, max_percent FROM rebate_data.rule_control"
				" ORDER BY generation DESC LIMIT 1", NULL, SPI_OK_SELECT) == 0)
		return control;
	control.approval = DatumGetBool(sql_get(0, 1, &isnull));
	max_percent = sql_get(0, 2, &isnull);
	if (!isnull)
		control.max_percent = DatumGetNumericCopy(max_percent);
	return control;
}

int32
rule_control_write(const RuleControl *control, const Person *by)
{
	SqlParams	params = {0};
	int32		generation = rule_next_generation(false);

	sql_int(&params, generation);
	sql_param(&params, BOOLOID, BoolGetDatum(control->approval), false);
	sql_param(&params, NUMERICOID, control->max_percent ? NumericGetDatum(control->max_percent) : (Datum) 0,
			  control->max_percent == NULL);
	sql_text(&params, by->login);
	sql_text(&params, by->claim);
	sql_run("INSERT INTO rebate_data.rule_control (generation, approval, max_percent, changed_by, changed_claim)"
			" VALUES ($1, $2, $3, $4, $5)", &params, SPI_OK_INSERT);
	return generation;
}

/* What the functions of this file begin with: the configuration is locked then. */
static Store *
begin_call(const char *function)
{
	Store	   *store = rule_begin_call(RIGHT_ADMIN, function);

	store_require(store, CONTROL_STORE_VERSION, function);
	return store;
}

/*
 * rebate.require_approval(required): from now on changes of rules need a second
 * person; or no longer, which itself needs one.  Returns the draft of that, if there
 * is one.
 */
Datum
rebate_require_approval(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call("rebate.require_approval");
	Draft		draft = {.kind = DRAFT_APPROVAL,.name = "rebate.require_approval"};
	RuleControl control;
	StoreSpi	scope;
	StringInfoData json;
	bool		required;
	bool		same;
	bool		found = false;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("required must not be null")));
	required = PG_GETARG_BOOL(0);
	api_lock_configuration(store);
	json_begin(&json);
	json_add_raw(&json, "required", "false");
	draft.arguments = json_end(&json);
	draft.author_role = GetUserNameFromId(GetUserId(), false);

	store_spi_begin(store, &scope);
	control = rule_control(store);
	same = control.approval == required;
	if (!same && required)
	{
		Person		person = person_now();

		control.approval = true;
		rule_control_write(&control, &person);
	}
	else if (!same)
		draft_write(&draft, &found);
	store_spi_end(&scope);

	if (same)
		ereport(NOTICE,
				(required ? errmsg("approval is required already, nothing changed") :
				 errmsg("approval is not required, nothing changed")));
	else if (draft.draft_id)
		draft_notice(&draft, found);
	else
		store_rules_changed(store);
	if (draft.draft_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(draft.draft_id);
}

/*
 * rebate.set_max_percent(max_percent): the greatest percentage of a version that is
 * written from now on, also where its author allows himself more with the argument of
 * rebate.set_rule().  NULL: none.  Versions that are there stay.
 */
Datum
rebate_set_max_percent(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call("rebate.set_max_percent");
	Numeric		max_percent = api_numeric(fcinfo, 0);
	RuleControl control;
	StoreSpi	scope;
	bool		same;

	if (max_percent && (!arith_is_finite(max_percent) || arith_sign(max_percent) < 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_percent must be a number that is not negative")));

	api_lock_configuration(store);
	store_spi_begin(store, &scope);
	control = rule_control(store);
	same = max_percent && control.max_percent ?
		arith_cmp(max_percent, control.max_percent) == 0 : max_percent == control.max_percent;
	if (!same)
	{
		Person		person = person_now();

		control.max_percent = max_percent;
		rule_control_write(&control, &person);
	}
	store_spi_end(&scope);

	if (same)
		ereport(NOTICE,
				(errmsg("max_percent is that already, nothing changed")));
	else
		store_rules_changed(store);
	PG_RETURN_VOID();
}
