/*
 * rule_write.c
 *	  Versions of rules as they are written: by rebate.set_rule() and its like at
 *	  once, or when a draft is approved.
 *
 * A version is never changed.  Each write takes the next number of
 * rebate_data.generation, so an order that notes the number it saw knows which
 * versions there were.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "api.h"
#include "arith.h"
#include "rule_api.h"

/* Columns of a version that a copy of it keeps */
#define COPIED_COLUMNS \
	"source_id, scope_id, scope, currency, limit_mode, rounding, refund," \
	" unlinked_return, hold, priority, group_id, campaign_id, expense_account"

/*
 * Take the next generation.  "expressions": what is written under it can raise for
 * a row.
 */
int32
rule_next_generation(bool expressions)
{
	SqlParams	params = {0};

	sql_param(&params, BOOLOID, BoolGetDatum(expressions), false);
	sql_run("UPDATE rebate_data.generation SET generation = generation + 1, changed_at = now(),"
			" expressions = expressions OR $1 RETURNING generation",
			&params, SPI_OK_UPDATE_RETURNING);
	return sql_get_int(0, 1, 0);
}

/*
 * Raise if a percentage is above what is allowed at most, whatever its author says;
 * NULL: anything.
 */
void
rule_check_ceiling(const RuleArgs *args, Numeric max_percent)
{
	char	   *rate;

	if (max_percent == NULL || strcmp(args->formula, "percent") != 0 ||
		arith_cmp(args->rate, max_percent) <= 0)
		return;
	rate = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(args->rate)));
	ereport(ERROR,
			(errcode(ERRCODE_RB_INVALID_RULE),
			 errmsg("percent is %s, more than rules may have, %s", rate,
					DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(max_percent)))),
			 errhint("If it is meant so, an administrator calls rebate.set_max_percent(%s) first.", rate)));
}

/*
 * The group and campaign of a rule; raises if they do not exist.
 */
RulePlace
rule_find_place(const RuleArgs *args)
{
	/* A rule without a group competes with nobody. */
	RulePlace	place = {0, "stack", 0, 0};
	SqlParams	params = {0};

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
		place.group_id = sql_get_int(0, 1, 0);
		place.group_mode = sql_get_text(0, 2, CurrentMemoryContext);
	}

	params.n = 0;
	sql_text(&params, args->campaign);
	if (sql_run("SELECT campaign_id, expense_account FROM rebate_data.campaign WHERE name = $1",
				&params, SPI_OK_SELECT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("campaign \"%s\" does not exist", args->campaign)));
	place.campaign_id = sql_get_int(0, 1, 0);
	place.expense_account = sql_get_int(0, 2, 0);
	return place;
}

/*
 * The last version of the rule named, and whether these arguments are what it
 * says already.  Expressions are compared by what they mean, so that a changed
 * column type makes a new version.
 */
RuleTarget
rule_find(const RuleArgs *args, Datum arguments)
{
	RuleTarget	target = {0};
	SqlParams	params = {0};
	bool		isnull;

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
		target.rule_id = sql_get_int(0, 1, 0);
		target.version = sql_get_int(0, 2, 0);
		target.same = DatumGetBool(sql_get(0, 3, &isnull)) && !isnull;
	}
	return target;
}

/* Write the next version of a rule, and the rule if there is none. */
int32
rule_write(const RuleArgs *args, Datum arguments, RuleTarget *target, const RulePlace *place,
		   const char *author)
{
	SqlParams	params = {0};
	int32		generation = rule_next_generation(args->condition_text || args->base_text);
	int32		scope_id;

	if (target->rule_id == 0)
	{
		sql_text(&params, args->name);
		sql_run("INSERT INTO rebate_data.rule (rule_id, name, programme_id)"
				" SELECT COALESCE(max(rule_id), 0) + 1, $1, 1 FROM rebate_data.rule RETURNING rule_id",
				&params, SPI_OK_INSERT_RETURNING);
		target->rule_id = sql_get_int(0, 1, 0);
		params.n = 0;
	}
	target->version++;
	scope_id = scope_write(args->scope, target->rule_id, target->version);

	sql_int(&params, target->rule_id);
	sql_int(&params, target->version);
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
	sql_int(&params, place->group_id);
	sql_text(&params, place->group_mode);
	sql_int(&params, place->campaign_id);
	sql_int(&params, place->expense_account);
	sql_param(&params, JSONBOID, arguments, false);
	sql_text(&params, author);
	sql_run("INSERT INTO rebate_data.rule_version (rule_id, version, generation, valid_from, valid_to,"
			"  source_id, scope_id, scope, condition, formula, rate, base, currency, minimum,"
			"  max_per_order, limit_mode, rounding, refund, unlinked_return, hold, priority, group_id,"
			"  group_mode, campaign_id, expense_account, arguments, created_by)"
			" VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12, $13, $14, $15, $16,"
			"  $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, COALESCE($27, session_user))",
			&params, SPI_OK_INSERT);
	return generation;
}

/*
 * The last version of a rule that is to end, and whether it ends the rule already:
 * "arguments" have the moment, if one was given.
 */
RuleTarget
rule_find_end(const char *name, Datum arguments)
{
	RuleTarget	target;
	SqlParams	params = {0};
	bool		isnull;

	sql_text(&params, name);
	sql_param(&params, JSONBOID, arguments, false);
	if (sql_run("SELECT v.rule_id, v.version, v.formula = 'none'"
				"       AND CASE WHEN $2 ? 'at' THEN v.valid_from = ($2 ->> 'at')::timestamptz"
				"                ELSE v.valid_from <= now() END"
				"  FROM rebate_data.rule r JOIN rebate_data.rule_version v USING (rule_id)"
				" WHERE r.name = $1 ORDER BY v.version DESC LIMIT 1", &params, SPI_OK_SELECT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("rule \"%s\" does not exist", name)));
	target.rule_id = sql_get_int(0, 1, 0);
	target.version = sql_get_int(0, 2, 0);
	target.same = DatumGetBool(sql_get(0, 3, &isnull));
	return target;
}

/* Write a version that pays nothing from a moment on, now if none was given. */
int32
rule_write_end(Datum arguments, RuleTarget *target, const char *author)
{
	SqlParams	params = {0};
	int32		generation = rule_next_generation(false);

	sql_int(&params, target->rule_id);
	sql_int(&params, target->version);
	sql_int(&params, generation);
	sql_param(&params, JSONBOID, arguments, false);
	sql_text(&params, author);

	/* No rows in rule_scope: orders find the rule by its other versions. */
	sql_run("INSERT INTO rebate_data.rule_version (rule_id, version, generation, valid_from,"
			"  formula, rate, group_mode, arguments, created_by, " COPIED_COLUMNS ")"
			" SELECT rule_id, version + 1, $3, COALESCE(($4 ->> 'at')::timestamptz, now()), 'none', 0,"
			"  group_mode, $4, COALESCE($5, session_user), " COPIED_COLUMNS
			"  FROM rebate_data.rule_version WHERE rule_id = $1 AND version = $2",
			&params, SPI_OK_INSERT);
	target->version++;
	return generation;
}

/* A group, and whether it has a mode already; rule_id 0: there is none. */
RuleTarget
rule_find_group(const char *name, const char *mode)
{
	RuleTarget	target = {0};
	SqlParams	params = {0};
	bool		isnull;

	sql_text(&params, name);
	sql_text(&params, mode);
	if (sql_run("SELECT group_id, generation, mode = $2 FROM rebate_data.rule_group WHERE name = $1",
				&params, SPI_OK_SELECT) > 0)
	{
		target.rule_id = sql_get_int(0, 1, 0);
		target.version = sql_get_int(0, 2, 0);
		target.same = DatumGetBool(sql_get(0, 3, &isnull));
	}
	return target;
}

/*
 * Make a group, or change its mode.  The mode is pinned in versions, so a change
 * writes a new one of each rule of the group.
 */
int32
rule_write_group(const char *name, const char *mode, const char *author)
{
	SqlParams	params = {0};
	int32		generation = rule_next_generation(false);

	sql_text(&params, name);
	sql_text(&params, mode);
	sql_int(&params, generation);
	if (sql_run("UPDATE rebate_data.rule_group SET mode = $2, generation = $3 WHERE name = $1",
				&params, SPI_OK_UPDATE) == 0)
		sql_run("INSERT INTO rebate_data.rule_group (group_id, name, mode, generation)"
				" SELECT COALESCE(max(group_id), 0) + 1, $1, $2, $3 FROM rebate_data.rule_group",
				&params, SPI_OK_INSERT);
	else
	{
		sql_text(&params, author);
		sql_run("WITH made AS ("
				"  INSERT INTO rebate_data.rule_version (rule_id, version, generation, valid_from,"
				"    valid_to, condition, formula, rate, base, minimum, max_per_order, group_mode,"
				"    arguments, created_by, " COPIED_COLUMNS ")"
				"  SELECT rule_id, version + 1, $3, valid_from, valid_to, condition, formula, rate,"
				"    base, minimum, max_per_order, $2, arguments,"
				"    COALESCE($4, session_user), " COPIED_COLUMNS
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
	return generation;
}
