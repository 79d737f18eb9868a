/*
 * rule_api.c
 *	  rebate.set_rule(), rebate.end_rule(), rebate.set_group().
 *
 * Every write of rules locks the one row of rebate_data.generation before it
 * reads anything, and takes the next number from it: so writes come one after
 * another, and an order that notes the number it saw knows which versions there
 * were.  Orders take no lock.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "api.h"
#include "collect.h"
#include "create_store.h"
#include "rights.h"
#include "rule_api.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_set_rule);
PG_FUNCTION_INFO_V1(rebate_end_rule);
PG_FUNCTION_INFO_V1(rebate_set_group);

/* Columns of a version that a copy of it keeps */
#define COPIED_COLUMNS \
	"source_id, scope_id, scope, currency, limit_mode, rounding, refund," \
	" unlinked_return, hold, priority, group_id, campaign_id, expense_account"

/* What every function of this file begins with. */
static Store *
begin_call(const char *function)
{
	Store	   *store;

	(void) collect_flush();
	(void) create_store_if_missing();
	store = store_get(false);
	rights_check(store, RIGHT_AUTHOR, function);
	return store;
}

/*
 * Take the next generation; inside SPI as the store's owner.  "expressions": what
 * is written under it can raise for a row.
 */
static int32
next_generation(bool expressions)
{
	SqlParams	params = {0};

	sql_param(&params, BOOLOID, BoolGetDatum(expressions), false);
	sql_run("UPDATE rebate_data.generation SET generation = generation + 1, changed_at = now(),"
			" expressions = expressions OR $1 RETURNING generation",
			&params, SPI_OK_UPDATE_RETURNING);
	return sql_get_int(0, 1, 0);
}

/* The last version of a rule */
typedef struct LastVersion
{
	int32		rule_id;		/* 0: no such rule */
	int32		version;
} LastVersion;

/*
 * The group and campaign of a rule; raises if they do not exist.  Inside SPI.
 */
static void
find_group_and_campaign(const RuleArgs *args, int32 *group_id, char **group_mode,
						int32 *campaign_id, int32 *expense_account)
{
	SqlParams	params = {0};

	/* A rule without a group competes with nobody. */
	*group_id = 0;
	*group_mode = "stack";
	if (args->rule_group)
	{
		sql_text(&params, args->rule_group);
		if (sql_run("SELECT group_id, mode FROM rebate_data.rule_group WHERE name = $1", &params,
					SPI_OK_SELECT) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("rule_group \"%s\" does not exist", args->rule_group),
					 errhint("Make it first: SELECT rebate.set_group(%s, 'first').",
							 quote_literal_cstr(args->rule_group))));
		*group_id = sql_get_int(0, 1, 0);
		*group_mode = sql_get_text(0, 2, CurrentMemoryContext);
	}

	params.n = 0;
	sql_text(&params, args->campaign);
	if (sql_run("SELECT campaign_id, expense_account FROM rebate_data.campaign WHERE name = $1",
				&params, SPI_OK_SELECT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("campaign \"%s\" does not exist", args->campaign)));
	*campaign_id = sql_get_int(0, 1, 0);
	*expense_account = sql_get_int(0, 2, 0);
}

/*
 * The last version of the rule named, and whether these arguments are what it
 * says already.  Expressions are compared by what they mean, so that a changed
 * column type makes a new version.  Inside SPI.
 */
static LastVersion
find_last_version(const RuleArgs *args, Datum arguments, bool *same)
{
	LastVersion last = {0, 0};
	SqlParams	params = {0};
	bool		isnull;

	*same = false;
	sql_text(&params, args->name);
	sql_param(&params, JSONBOID, arguments, false);
	sql_text(&params, args->condition_text);
	sql_text(&params, args->base_text);
	sql_int(&params, args->source_id);
	if (sql_run("SELECT r.rule_id, v.version,"
				"       v.arguments - '{condition,base,source,valid_from}'::text[]"
				"         = $2 - '{condition,base,source,valid_from}'::text[]"
				"       AND (NOT $2 ? 'valid_from' OR v.arguments -> 'valid_from' IS NOT DISTINCT FROM $2 -> 'valid_from')"
				"       AND ($2 ? 'valid_from' OR v.valid_from <= now())"
				"       AND v.condition IS NOT DISTINCT FROM $3 AND v.base IS NOT DISTINCT FROM $4"
				"       AND COALESCE(v.source_id, 0) = $5"
				"  FROM rebate_data.rule r"
				"  LEFT JOIN LATERAL (SELECT * FROM rebate_data.rule_version l"
				"    WHERE l.rule_id = r.rule_id ORDER BY l.version DESC LIMIT 1) v ON true"
				" WHERE r.name = $1", &params, SPI_OK_SELECT) > 0)
	{
		last.rule_id = sql_get_int(0, 1, 0);
		last.version = sql_get_int(0, 2, 0);
		*same = DatumGetBool(sql_get(0, 3, &isnull)) && !isnull;
	}
	return last;
}

/* Write a version; inside SPI, with the generation locked. */
static void
write_version(const RuleArgs *args, Datum arguments, LastVersion *last, int32 group_id,
			  const char *group_mode, int32 campaign_id, int32 expense_account)
{
	SqlParams	params = {0};
	int32		generation = next_generation(args->condition_text || args->base_text);
	int32		scope_id;

	if (last->rule_id == 0)
	{
		sql_text(&params, args->name);
		sql_run("INSERT INTO rebate_data.rule (rule_id, name, programme_id)"
				" SELECT COALESCE(max(rule_id), 0) + 1, $1, 1 FROM rebate_data.rule RETURNING rule_id",
				&params, SPI_OK_INSERT_RETURNING);
		last->rule_id = sql_get_int(0, 1, 0);
		params.n = 0;
	}
	last->version++;
	scope_id = scope_write(args->scope, last->rule_id, last->version);

	sql_int(&params, last->rule_id);
	sql_int(&params, last->version);
	sql_int(&params, generation);
	sql_param(&params, TIMESTAMPTZOID,
			  TimestampTzGetDatum(args->has_valid_from ? args->valid_from :
								  GetCurrentTransactionStartTimestamp()), false);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(args->valid_to), !args->has_valid_to);
	sql_param(&params, INT4OID, Int32GetDatum(args->source_id), args->source_id == 0);
	sql_int(&params, scope_id);
	sql_text(&params, args->scope ? scope_json(args->scope) : NULL);
	sql_text(&params, args->condition_text);
	sql_text(&params, args->formula);
	sql_param(&params, NUMERICOID, NumericGetDatum(args->rate), false);
	sql_text(&params, args->base_text);
	sql_text(&params, args->currency);
	sql_param(&params, NUMERICOID, NumericGetDatum(args->minimum), args->minimum == NULL);
	sql_param(&params, NUMERICOID, NumericGetDatum(args->max_per_order),
			  args->max_per_order == NULL);
	sql_text(&params, args->limit_mode);
	sql_text(&params, args->rounding);
	sql_text(&params, args->refund);
	sql_text(&params, args->unlinked_return);
	sql_param(&params, INTERVALOID, IntervalPGetDatum(args->hold), false);
	sql_int(&params, args->priority);
	sql_int(&params, group_id);
	sql_text(&params, group_mode);
	sql_int(&params, campaign_id);
	sql_int(&params, expense_account);
	sql_param(&params, JSONBOID, arguments, false);
	sql_run("INSERT INTO rebate_data.rule_version (rule_id, version, generation, valid_from, valid_to,"
			"  source_id, scope_id, scope, condition, formula, rate, base, currency, minimum,"
			"  max_per_order, limit_mode, rounding, refund, unlinked_return, hold, priority, group_id,"
			"  group_mode, campaign_id, expense_account, arguments)"
			" VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12, $13, $14, $15, $16,"
			"  $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)", &params, SPI_OK_INSERT);
}

/*
 * rebate.set_rule(): writes the next version of a rule, unless its last version
 * says the same.  Returns the version.
 */
Datum
rebate_set_rule(PG_FUNCTION_ARGS)
{
	RuleArgs	args;
	Store	   *store;
	StoreSpi	scope;
	Datum		arguments;
	LastVersion last;
	bool		same;
	int32		group_id;
	int32		campaign_id;
	int32		expense_account;
	char	   *group_mode;

	rights_check_early(RIGHT_AUTHOR, "rebate.set_rule");
	rule_args_read(fcinfo, &args);
	store = begin_call("rebate.set_rule");
	api_lock_configuration(store);
	rule_args_bind(&args, store);
	arguments = rule_args_json(&args);

	if (args.has_valid_to && !args.has_valid_from &&
		args.valid_to <= GetCurrentTransactionStartTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("valid_to is in the past, and valid_from is now"),
				 errhint("Give valid_from, or end the rule with rebate.end_rule().")));

	store_spi_begin(store, &scope);
	find_group_and_campaign(&args, &group_id, &group_mode, &campaign_id, &expense_account);
	last = find_last_version(&args, arguments, &same);
	if (!same)
		write_version(&args, arguments, &last, group_id, group_mode, campaign_id, expense_account);
	store_spi_end(&scope);

	if (same)
		ereport(NOTICE,
				(errmsg("rule \"%s\" has these arguments already, nothing changed", args.name)));
	else
		store_rules_changed(store);
	PG_RETURN_INT32(last.version);
}

/*
 * rebate.end_rule(): writes a version that pays nothing from a moment on.
 * Returns the version.
 */
Datum
rebate_end_rule(PG_FUNCTION_ARGS)
{
	char	   *name = api_text(fcinfo, 0);
	bool		has_at = !PG_ARGISNULL(1);
	TimestampTz at = has_at ? PG_GETARG_TIMESTAMPTZ(1) : GetCurrentTransactionStartTimestamp();
	Store	   *store;
	StoreSpi	scope;
	SqlParams	params = {0};
	StringInfoData json;
	int32		rule_id;
	int32		version;
	bool		isnull;
	bool		same;

	rights_check_early(RIGHT_AUTHOR, "rebate.end_rule");
	api_check_name(ERRCODE_RB_INVALID_RULE, "name", name);
	if (TIMESTAMP_IS_NOEND(at))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("at must not be infinity")));
	store = begin_call("rebate.end_rule");
	api_lock_configuration(store);

	store_spi_begin(store, &scope);
	sql_text(&params, name);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sql_param(&params, BOOLOID, BoolGetDatum(has_at), false);
	if (sql_run("SELECT v.rule_id, v.version, v.formula = 'none'"
				"       AND CASE WHEN $3 THEN v.valid_from = $2 ELSE v.valid_from <= $2 END"
				"  FROM rebate_data.rule r JOIN rebate_data.rule_version v USING (rule_id)"
				" WHERE r.name = $1 ORDER BY v.version DESC LIMIT 1", &params, SPI_OK_SELECT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("rule \"%s\" does not exist", name)));
	rule_id = sql_get_int(0, 1, 0);
	version = sql_get_int(0, 2, 0);
	same = DatumGetBool(sql_get(0, 3, &isnull));
	if (!same)
	{
		json_begin(&json);
		json_add_raw(&json, "end", "true");
		if (has_at)
			json_add_text(&json, "at", api_timestamptz_text(at));

		params.n = 0;
		sql_int(&params, rule_id);
		sql_int(&params, version);
		sql_int(&params, next_generation(false));
		sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
		sql_param(&params, JSONBOID, json_end(&json), false);

		/* No rows in rule_scope: orders find the rule by its other versions. */
		sql_run("INSERT INTO rebate_data.rule_version (rule_id, version, generation, valid_from,"
				"  formula, rate, group_mode, arguments, " COPIED_COLUMNS ")"
				" SELECT rule_id, version + 1, $3, $4, 'none', 0, group_mode, $5, " COPIED_COLUMNS
				"  FROM rebate_data.rule_version WHERE rule_id = $1 AND version = $2",
				&params, SPI_OK_INSERT);
		version++;
	}
	store_spi_end(&scope);

	if (same)
		ereport(NOTICE,
				(errmsg("rule \"%s\" is ended already, nothing changed", name)));
	else
		store_rules_changed(store);
	PG_RETURN_INT32(version);
}

/*
 * rebate.set_group(): makes a group of rules, or changes its mode.  The mode is
 * pinned in versions, so a change writes a new one of each rule of the group.
 */
Datum
rebate_set_group(PG_FUNCTION_ARGS)
{
	static const char *const modes[] = {"first", "best", "stack", NULL};
	char	   *name = api_text(fcinfo, 0);
	char	   *mode = api_text(fcinfo, 1);
	MemoryContext context = CurrentMemoryContext;
	Store	   *store;
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *old_mode = NULL;

	rights_check_early(RIGHT_AUTHOR, "rebate.set_group");
	api_check_name(ERRCODE_RB_INVALID_RULE, "name", name);
	api_one_of(ERRCODE_RB_INVALID_RULE, "mode", mode, modes);
	store = begin_call("rebate.set_group");
	api_lock_configuration(store);

	store_spi_begin(store, &scope);
	sql_text(&params, name);
	if (sql_run("SELECT mode FROM rebate_data.rule_group WHERE name = $1", &params, SPI_OK_SELECT) > 0)
		old_mode = sql_get_text(0, 1, context);
	sql_text(&params, mode);
	if (old_mode == NULL)
	{
		sql_int(&params, next_generation(false));
		sql_run("INSERT INTO rebate_data.rule_group (group_id, name, mode, generation)"
				" SELECT COALESCE(max(group_id), 0) + 1, $1, $2, $3 FROM rebate_data.rule_group",
				&params, SPI_OK_INSERT);
	}
	else if (strcmp(old_mode, mode) != 0)
	{
		sql_int(&params, next_generation(false));
		sql_run("UPDATE rebate_data.rule_group SET mode = $2, generation = $3 WHERE name = $1",
				&params, SPI_OK_UPDATE);
		sql_run("WITH made AS ("
				"  INSERT INTO rebate_data.rule_version (rule_id, version, generation, valid_from,"
				"    valid_to, condition, formula, rate, base, minimum, max_per_order, group_mode,"
				"    arguments, " COPIED_COLUMNS ")"
				"  SELECT rule_id, version + 1, $3, valid_from, valid_to, condition, formula, rate,"
				"    base, minimum, max_per_order, $2, arguments, " COPIED_COLUMNS
				"  FROM (SELECT DISTINCT ON (rule_id) * FROM rebate_data.rule_version"
				"         ORDER BY rule_id, version DESC) l"
				"  WHERE l.formula <> 'none'"
				"    AND l.group_id = (SELECT g.group_id FROM rebate_data.rule_group g WHERE g.name = $1)"
				"  RETURNING rule_id, version, scope_id)"
				" INSERT INTO rebate_data.rule_scope (scope_id, scope_key, rule_id, version)"
				" SELECT s.scope_id, s.scope_key, s.rule_id, m.version"
				"  FROM made m JOIN rebate_data.rule_scope s"
				"    ON s.scope_id = m.scope_id AND s.rule_id = m.rule_id AND s.version = m.version - 1",
				&params, SPI_OK_INSERT);
	}
	store_spi_end(&scope);

	if (old_mode && strcmp(old_mode, mode) == 0)
		ereport(NOTICE,
				(errmsg("group \"%s\" has mode \"%s\" already, nothing changed", name, mode)));
	else
		store_rules_changed(store);
	PG_RETURN_VOID();
}
