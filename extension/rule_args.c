/*
 * rule_args.c
 *	  The arguments of rebate.set_rule(): each alone, then against the attached
 *	  tables.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api.h"
#include "arith.h"
#include "expr.h"
#include "rule_api.h"

/* Arguments of rebate.set_rule(), in their order */
enum
{
	ARG_NAME, ARG_PERCENT, ARG_FIXED, ARG_PER_UNIT, ARG_CURRENCY, ARG_SCOPE,
	ARG_CONDITION, ARG_BASE, ARG_MINIMUM, ARG_MAX_PER_ORDER, ARG_LIMIT_MODE,
	ARG_ROUNDING, ARG_REFUND, ARG_UNLINKED_RETURN, ARG_HOLD, ARG_PRIORITY,
	ARG_RULE_GROUP, ARG_VALID_FROM, ARG_VALID_TO, ARG_SOURCE, ARG_CAMPAIGN,
	ARG_MAX_PERCENT
};

StaticAssertDecl(ARG_MAX_PERCENT == RULE_NARGS - 1, "RULE_NARGS counts the arguments");

/* Bounds far beyond any use that keep results inside what can be posted */
#define MAX_VALUE		INT64CONST(1000000000000000)
#define MAX_DECIMALS	30
#define MAX_HOLD_YEARS	100

/* Raise if a number cannot be used: NaN, infinite, negative, without measure. */
static void
check_number(const char *argument, Numeric value)
{
	if (value == NULL)
		return;
	if (!arith_is_finite(value))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("%s must be a finite number", argument)));
	if (arith_sign(value) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("%s must not be negative", argument)));
	if (arith_cmp(value, arith_from_int64(MAX_VALUE)) >= 0 ||
		DatumGetInt32(DirectFunctionCall1(numeric_scale, NumericGetDatum(value))) > MAX_DECIMALS)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("%s is too large or has more than %d decimals", argument, MAX_DECIMALS)));
}

static char *
numeric_text(Numeric value)
{
	return value ? DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value))) : NULL;
}

/* Exactly one of percent, fixed and per_unit. */
static void
read_formula(FunctionCallInfo fcinfo, RuleArgs *args)
{
	static const char *const names[] = {"percent", "fixed", "per_unit"};
	Numeric		max_percent = api_numeric(fcinfo, ARG_MAX_PERCENT);
	int			given = 0;

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		Numeric		value = api_numeric(fcinfo, ARG_PERCENT + i);

		if (value == NULL)
			continue;
		given++;
		check_number(names[i], value);
		args->formula = names[i];
		args->rate = value;
	}
	if (given != 1)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg(given ? "only one of percent, fixed and per_unit can be given" :
						"one of percent, fixed and per_unit must be given"),
				 errhint("For example rebate.set_rule('welcome', percent => 5).")));

	if (max_percent == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("max_percent must not be null")));
	check_number("max_percent", max_percent);
	if (strcmp(args->formula, "percent") == 0 && arith_cmp(args->rate, max_percent) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("percent is %s, more than max_percent, %s", numeric_text(args->rate),
						numeric_text(max_percent)),
				 errhint("If it is meant so, give max_percent => %s.", numeric_text(args->rate))));
}

/* hold: neither negative nor endless. */
static void
check_hold(const Interval *hold)
{
	if (hold == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("hold must not be null"),
				 errhint("No hold is hold => '0'.")));
	if (hold->month < 0 || hold->day < 0 || hold->time < 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("hold must not be negative")));
	if (hold->month > MAX_HOLD_YEARS * MONTHS_PER_YEAR || hold->day > MAX_HOLD_YEARS * 366 ||
		hold->time > MAX_HOLD_YEARS * 366 * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("hold is longer than %d years", MAX_HOLD_YEARS)));
}

/* valid_from and valid_to; an infinite end is an open one. */
static void
read_validity(FunctionCallInfo fcinfo, RuleArgs *args)
{
	if (!PG_ARGISNULL(ARG_VALID_FROM))
	{
		args->has_valid_from = true;
		args->valid_from = PG_GETARG_TIMESTAMPTZ(ARG_VALID_FROM);
		if (TIMESTAMP_IS_NOEND(args->valid_from))
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("valid_from must not be infinity")));
	}
	if (!PG_ARGISNULL(ARG_VALID_TO))
	{
		args->valid_to = PG_GETARG_TIMESTAMPTZ(ARG_VALID_TO);
		args->has_valid_to = !TIMESTAMP_IS_NOEND(args->valid_to);
	}
	if (args->has_valid_from && args->has_valid_to && args->valid_to <= args->valid_from)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("valid_to must be later than valid_from")));
}

/* A text that may be null but not empty */
static char *
text_not_empty(FunctionCallInfo fcinfo, int argno, const char *argument)
{
	char	   *value = api_text(fcinfo, argno);

	if (value && value[strspn(value, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("%s must not be empty", argument)));
	return value;
}

/* Read the arguments and check each for itself and against the others. */
void
rule_args_read(FunctionCallInfo fcinfo, RuleArgs *args)
{
	static const char *const limit_modes[] = {"clip", "reject", NULL};
	static const char *const roundings[] = {"half_up", "half_even", "half_down", "down", "up", NULL};
	static const char *const refunds[] = {"pro_rata", "rejudge", "all", "keep_until_full", NULL};
	static const char *const returns[] = {"today", "ignore", NULL};

	memset(args, 0, sizeof(RuleArgs));
	args->name = api_text(fcinfo, ARG_NAME);
	api_check_name(ERRCODE_RB_INVALID_RULE, "name", args->name);
	read_formula(fcinfo, args);
	args->currency = text_not_empty(fcinfo, ARG_CURRENCY, "currency");
	if (!PG_ARGISNULL(ARG_SCOPE))
		args->scope = scope_parse(PG_GETARG_JSONB_P(ARG_SCOPE));
	args->condition = text_not_empty(fcinfo, ARG_CONDITION, "condition");
	args->base = text_not_empty(fcinfo, ARG_BASE, "base");
	args->minimum = api_numeric(fcinfo, ARG_MINIMUM);
	check_number("minimum", args->minimum);
	args->max_per_order = api_numeric(fcinfo, ARG_MAX_PER_ORDER);
	check_number("max_per_order", args->max_per_order);
	args->limit_mode = api_text(fcinfo, ARG_LIMIT_MODE);
	api_one_of(ERRCODE_RB_INVALID_RULE, "limit_mode", args->limit_mode, limit_modes);
	args->rounding = api_text(fcinfo, ARG_ROUNDING);
	api_one_of(ERRCODE_RB_INVALID_RULE, "rounding", args->rounding, roundings);
	args->refund = api_text(fcinfo, ARG_REFUND);
	api_one_of(ERRCODE_RB_INVALID_RULE, "refund", args->refund, refunds);
	args->unlinked_return = api_text(fcinfo, ARG_UNLINKED_RETURN);
	api_one_of(ERRCODE_RB_INVALID_RULE, "unlinked_return", args->unlinked_return, returns);
	args->hold = PG_ARGISNULL(ARG_HOLD) ? NULL : PG_GETARG_INTERVAL_P(ARG_HOLD);
	check_hold(args->hold);
	if (PG_ARGISNULL(ARG_PRIORITY))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("priority must not be null")));
	args->priority = PG_GETARG_INT32(ARG_PRIORITY);
	args->rule_group = text_not_empty(fcinfo, ARG_RULE_GROUP, "rule_group");
	read_validity(fcinfo, args);
	args->source = PG_ARGISNULL(ARG_SOURCE) ? InvalidOid : PG_GETARG_OID(ARG_SOURCE);
	args->campaign = api_text(fcinfo, ARG_CAMPAIGN);
	api_check_name(ERRCODE_RB_INVALID_RULE, "campaign", args->campaign);

	if (args->currency == NULL)
	{
		const char *needs = strcmp(args->formula, "percent") != 0 ? args->formula :
			args->minimum ? "minimum" : args->max_per_order ? "max_per_order" : NULL;

		if (needs)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("currency is missing: %s is an amount of money", needs),
					 errhint("The rule then applies to orders in that currency only: currency => 'EUR'.")));
	}
	if (args->base && strcmp(args->formula, "percent") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("base is what a percentage is paid on, and %s is none", args->formula)));
}

/* One attached table */
typedef struct AttachedTable
{
	int32		source_id;
	Oid			relid;
	char	   *name;
} AttachedTable;

/* The tables a rule applies to: the one named, or all that are attached. */
static List *
attached_tables(Store *store, Oid only)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	List	   *result = NIL;
	uint64		n;

	store_spi_begin(store, &scope);
	sql_param(&params, OIDOID, ObjectIdGetDatum(only), !OidIsValid(only));
	n = sql_run("SELECT s.source_id, s.relation::oid, s.relation_name FROM rebate_data.source s"
				" WHERE s.detached_at IS NULL AND s.relation::oid = COALESCE($1, s.relation::oid)"
				"   AND EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation::oid)"
				" ORDER BY s.source_id", &params, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		AttachedTable *table = palloc(sizeof(AttachedTable));
		bool		isnull;

		table->source_id = sql_get_int(row, 1, 0);
		table->relid = DatumGetObjectId(sql_get(row, 2, &isnull));
		table->name = sql_get_text(row, 3, context);
		result = lappend(result, table);
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);
	return result;
}

void
rule_lock_tables(Store *store, Oid only)
{
	ListCell   *lc;

	foreach(lc, attached_tables(store, only))
		LockRelationOid(((AttachedTable *) lfirst(lc))->relid, AccessShareLock);
}

/* Where an error of an expression comes from, when there are several tables */
typedef struct BindContext
{
	const char *rule;
	const char *table;
} BindContext;

static void
bind_error_context(void *arg)
{
	BindContext *context = arg;

	errcontext("rule \"%s\", table %s", context->rule, context->table);
}

/* Check an expression against a table; "*text" must be the same for all. */
static void
bind_expression(Relation rel, const char *argument, const char *given, Oid want, char **text)
{
	char	   *deparsed;

	if (given == NULL)
		return;
	deparsed = expr_check(rel, argument, given, want, NULL);
	if (*text && strcmp(*text, deparsed) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("%s means something else in this table than in another", argument),
				 errdetail("Here it is %s, there %s.", deparsed, *text),
				 errhint("Write a rule for each table, with source => '...'.")));
	*text = deparsed;
}

/*
 * Check what depends on tables against each that the rule applies to, and fill
 * in the meaning of source, scope, condition and base.
 */
void
rule_args_bind(RuleArgs *args, Store *store)
{
	List	   *tables = attached_tables(store, args->source);
	bool		quantity = false;
	ListCell   *lc;

	if (args->currency && store_currency(store, args->currency) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("currency \"%s\" is not known", args->currency),
				 errhint("Give a code of ISO 4217 in capitals, or add a unit with rebate.add_currency().")));
	if (OidIsValid(args->source))
	{
		AttachedTable *table;

		if (tables == NIL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_NOT_ATTACHED),
					 errmsg("table \"%s\" is not attached", get_rel_name(args->source)),
					 errhint("Call rebate.attach() first.")));
		table = linitial(tables);
		args->source_id = table->source_id;
		args->source_name = table->name;
	}
	if (tables == NIL)
	{
		const char *needs = args->scope ? "scope" : args->condition ? "condition" :
			args->base ? "base" : NULL;

		/* Unchecked, a misspelling would be a rule that never pays. */
		if (needs)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("%s cannot be checked: no table is attached", needs),
					 errhint("Attach a table first, with rebate.attach().")));
		return;
	}

	foreach(lc, tables)
	{
		AttachedTable *table = lfirst(lc);
		BindContext context = {args->name, table->name};
		ErrorContextCallback callback = {
			.callback = bind_error_context,.arg = &context,.previous = error_context_stack
		};
		Relation	rel;
		Source	   *source;

		if (list_length(tables) > 1)
			error_context_stack = &callback;
		rel = table_open(table->relid, AccessShareLock);
		source = source_get(store, table->relid);
		if (source)
		{
			quantity = quantity || source->has_quantity;
			bind_expression(rel, "condition", args->condition, BOOLOID, &args->condition_text);
			bind_expression(rel, "base", args->base, NUMERICOID, &args->base_text);
			if (args->scope)
				scope_bind(args->scope, source);
		}
		table_close(rel, NoLock);
		if (list_length(tables) > 1)
			error_context_stack = callback.previous;
	}
	if (strcmp(args->formula, "per_unit") == 0 && !quantity)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("per_unit needs a quantity, and no table maps one"),
				 errhint("Attach with quantity => '...', replace => true.")));
}

/* Raise if a rule that begins now would have ended already. */
void
rule_args_check_time(const RuleArgs *args)
{
	if (args->has_valid_to && !args->has_valid_from &&
		args->valid_to <= GetCurrentTransactionStartTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("valid_to is in the past, and valid_from is now"),
				 errhint("Give valid_from, or end the rule with rebate.end_rule().")));
}

/* The arguments as a JSON object, canonical where two spellings mean the same. */
Datum
rule_args_json(const RuleArgs *args)
{
	StringInfoData buf;

	json_begin(&buf);
	json_add_raw(&buf, args->formula, numeric_text(args->rate));
	json_add_text(&buf, "currency", args->currency);
	json_add_raw(&buf, "scope", args->scope ? scope_json(args->scope) : NULL);
	json_add_text(&buf, "condition", args->condition);
	json_add_text(&buf, "base", args->base);
	json_add_raw(&buf, "minimum", numeric_text(args->minimum));
	json_add_raw(&buf, "max_per_order", numeric_text(args->max_per_order));
	json_add_text(&buf, "limit_mode", args->limit_mode);
	json_add_text(&buf, "rounding", args->rounding);
	json_add_text(&buf, "refund", args->refund);
	json_add_text(&buf, "unlinked_return", args->unlinked_return);
	json_add_text(&buf, "hold", api_interval_text(args->hold));
	json_add_raw(&buf, "priority", psprintf("%d", args->priority));
	json_add_text(&buf, "rule_group", args->rule_group);
	if (args->has_valid_from)
		json_add_text(&buf, "valid_from", api_timestamptz_text(args->valid_from));
	if (args->has_valid_to)
		json_add_text(&buf, "valid_to", api_timestamptz_text(args->valid_to));
	json_add_text(&buf, "source", args->source_name);
	json_add_text(&buf, "campaign", args->campaign);
	return json_end(&buf);
}
