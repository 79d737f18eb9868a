/*
 * explain_rules.c
 *	  The lines about rules, for explain() and preview(): those that the decision
 *	  met, and the others, which the index of scopes did not lead to, classified in
 *	  one query.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api.h"
#include "arith.h"
#include "explain_internal.h"
#include "guard.h"
#include "rule_control.h"
#include "rules.h"

/* Lines about rules; beyond, their number */
#define MAX_RULE_LINES 100

/* The values that scopes name, as JSON; a null is a member with value null. */
static void
read_attributes(void *arg)
{
	Explain    *e = arg;
	RuleScope  *scopes;
	int			nscopes = rules_scopes(e->source, &scopes);
	Bitmapset  *done = NULL;
	StringInfoData buf;

	json_begin(&buf);
	for (int i = 0; i < nscopes; i++)
	{
		for (int j = 0; scopes[i].usable && j < scopes[i].nattributes; j++)
		{
			SourceAttribute *attribute = scopes[i].attributes[j];
			int			number = (int) (attribute - e->source->attributes);
			bool		isnull;
			Datum		value;

			if (bms_is_member(number, done))
				continue;
			done = bms_add_member(done, number);
			value = expr_eval(&attribute->expr, e->slot, &isnull);
			if (isnull || canon_is_huge(&attribute->canon, value))
				json_add_raw(&buf, attribute->name, "null");
			else
				json_add_text(&buf, attribute->name, canon_text(&attribute->canon, value));
		}
	}
	appendStringInfoChar(&buf, '}');
	e->attributes = buf;
}

/* Columns of the query about the rules that were met */
enum
{
	MET_NAME = 1, MET_FORMULA, MET_RATE, MET_BASE, MET_MINIMUM, MET_MAX_PER_ORDER, MET_LIMIT_MODE,
	MET_ROUNDING, MET_REFUND, MET_HOLD, MET_PRIORITY, MET_GROUP, MET_GROUP_MODE, MET_GENERATION,
	MET_APPROVAL
};

char *
explain_version(Explain *e, const char *rule, int32 version, int32 generation)
{
	if (e->draft_id != 0 && generation == e->draft_generation)
		return psprintf("%s draft %d", rule, e->draft_id);
	return psprintf("%s v%d", rule, version);
}

static Numeric
get_numeric(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sql_get(row, column, &isnull);

	return isnull ? NULL : DatumGetNumeric(value);
}

/* "5 % of 199.90", with the base as it was when the rule pays */
static void
remark_formula(Explain *e, StringInfo detail, uint64 row, Wish *wish, MemoryContext context)
{
	char	   *formula = sql_get_text(row, MET_FORMULA, context);
	char	   *base = sql_get_text(row, MET_BASE, context);
	Numeric		rate = get_numeric(row, MET_RATE);

	if (strcmp(formula, "percent") == 0)
	{
		explain_remark(detail, "%s %% of ", explain_number_text(rate, 0));
		if (wish && wish->base)
			appendStringInfoString(detail, explain_number_text(wish->base, e->scale));
		else if (base == NULL)
			appendStringInfoString(detail, explain_number_text(arith_abs(e->image.amount), e->scale));
		if (base)
			appendStringInfo(detail, wish && wish->base ? " (%s)" : "%s", base);
	}
	else if (strcmp(formula, "fixed") == 0)
		explain_remark(detail, "%s an order", explain_number_text(rate, e->scale));
	else if (e->image.quantity)
		explain_remark(detail, "%s x %s", explain_number_text(arith_abs(e->image.quantity), 0),
					   explain_number_text(rate, e->scale));
	else
		explain_remark(detail, "%s a unit", explain_number_text(rate, e->scale));
}

/* What is left of the order after refunds, and the rule's view of them */
static void
remark_refunds(Explain *e, StringInfo detail, const char *mode)
{
	OrderImage *image = &e->image;

	if (arith_sign(image->amount) < 0)
		return;
	if (image->refunded && arith_sign(image->refunded) > 0)
	{
		Numeric		net = arith_sub(image->amount, arith_min(image->refunded, image->amount));

		explain_remark(detail, "%s of %s left after refunds, refund %s", explain_number_text(net, e->scale),
					   explain_number_text(image->amount, e->scale), mode);
	}
	else if (image->refunded_quantity && arith_sign(image->refunded_quantity) > 0 && image->quantity)
		explain_remark(detail, "quantity %s of %s returned, refund %s",
					   explain_number_text(image->refunded_quantity, 0), explain_number_text(image->quantity, 0), mode);
}

static int
compare_traced(const ListCell *a, const ListCell *b)
{
	const Traced *x = lfirst(a);
	const Traced *y = lfirst(b);
	bool		xpays = strncmp(x->outcome, "pays", 4) == 0;
	bool		ypays = strncmp(y->outcome, "pays", 4) == 0;

	if (xpays != ypays)
		return ypays - xpays;
	return (x->rule_id > y->rule_id) - (x->rule_id < y->rule_id);
}

static Datum
int_array(List *traced, bool versions)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(list_length(traced), 1));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, traced)
	{
		Traced	   *t = lfirst(lc);

		elems[n++] = Int32GetDatum(versions ? t->version : t->rule_id);
	}
	return PointerGetDatum(construct_array(elems, n, INT4OID, 4, true, TYPALIGN_INT));
}

/* One rule that was met; the query's row has what it says. */
static void
explain_met_rule(Explain *e, Traced *t, uint64 row)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *group = sql_get_text(row, MET_GROUP, context);
	char	   *hold = sql_get_text(row, MET_HOLD, context);
	Numeric		limit = get_numeric(row, MET_MAX_PER_ORDER);
	bool		judged = t->amount != NULL && strcmp(t->outcome, "below the minimum") != 0;
	Numeric		amount = NULL;
	Wish	   *wish = NULL;
	StringInfoData detail;

	for (int i = 0; e->decision && i < e->decision->nwishes; i++)
		if (e->decision->wishes[i].rule_id == t->rule_id)
			wish = &e->decision->wishes[i];

	initStringInfo(&detail);
	if (strcmp(t->outcome, "below the minimum") == 0)
		explain_remark(&detail, "the minimum is %s", explain_number_text(get_numeric(row, MET_MINIMUM), e->scale));
	else if (strcmp(t->outcome, "other currency") == 0)
		explain_remark(&detail, "the rule is in %s", t->detail);
	else if (t->detail)
		explain_remark(&detail, "%s", t->detail);
	if (judged)
	{
		amount = arith_sign(e->image.amount) < 0 ? arith_neg(t->amount) : t->amount;
		amount = explain_number(amount, e->scale);
		remark_formula(e, &detail, row, wish, context);
		if (limit)
			explain_remark(&detail, "at most %s an order", explain_number_text(limit, e->scale));
		if (group)
			explain_remark(&detail, "group %s (%s), priority %d", group,
						   sql_get_text(row, MET_GROUP_MODE, context), sql_get_int(row, MET_PRIORITY, 0));
		if (wish)
		{
			remark_refunds(e, &detail, sql_get_text(row, MET_REFUND, context));
			explain_remark(&detail, "rounded %s", sql_get_text(row, MET_ROUNDING, context));
			if (hold && arith_sign(e->image.amount) > 0)
				explain_remark(&detail, "hold %s", hold);
		}
	}
	if (sql_get_text(row, MET_APPROVAL, context))
		explain_remark(&detail, "%s", sql_get_text(row, MET_APPROVAL, context));
	explain_line(e, "rule",
				 explain_version(e, sql_get_text(row, MET_NAME, context), t->version,
								 sql_get_int(row, MET_GENERATION, 0)),
				 t->outcome, amount, detail.data);
}

/* The rules that the decision met; returns the number of lines left. */
static int
explain_met_rules(Explain *e)
{
	static const char approval[] =
		"(SELECT 'draft ' || d.draft_id || ', approved by ' || COALESCE(d.decided_claim, d.decided_by)"
		"   FROM rebate_data.draft d"
		"  WHERE d.generation = v.generation AND d.state = 'approved')";
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	ListCell   *lc;
	uint64		row = 0;

	if (e->traced == NIL)
		return MAX_RULE_LINES;
	list_sort(e->traced, compare_traced);
	store_spi_begin(e->store, &scope);
	sql_param(&params, INT4ARRAYOID, int_array(e->traced, false), false);
	sql_param(&params, INT4ARRAYOID, int_array(e->traced, true), false);
	sql_run(psprintf("SELECT r.name, v.formula, v.rate, v.base, v.minimum, v.max_per_order, v.limit_mode,"
					 "       replace(v.rounding, '_', ' '), replace(v.refund, '_', ' '),"
					 "       CASE WHEN v.hold <> '0' THEN v.hold::text END, v.priority, g.name, v.group_mode,"
					 "       v.generation, %s"
					 "  FROM unnest($1, $2) WITH ORDINALITY u(rule_id, version, place)"
					 "  JOIN rebate_data.rule r ON r.rule_id = u.rule_id"
					 "  JOIN rebate_data.rule_version v ON v.rule_id = u.rule_id AND v.version = u.version"
					 "  LEFT JOIN rebate_data.rule_group g ON g.group_id = v.group_id"
					 " ORDER BY u.place",
					 e->store->version >= CONTROL_STORE_VERSION ? approval : "NULL::text"),
			&params, SPI_OK_SELECT);
	foreach(lc, e->traced)
	{
		MemoryContext old;

		if (row == Min(SPI_processed, MAX_RULE_LINES))
			break;
		old = MemoryContextSwitchTo(context);
		explain_met_rule(e, lfirst(lc), row++);
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);
	return MAX_RULE_LINES - (int) row;
}

/*
 * The other rules: of each the version that applies, or why none does.  Those
 * that were written for such orders come first.
 */
static void
explain_other_rules(Explain *e, int room)
{
	MemoryContext context = CurrentMemoryContext;
	Decision   *d = e->decision;
	TimestampTz latest = e->source->order_time_is_date ? d->order_time + USECS_PER_DAY - 1 : d->order_time;
	int			more = list_length(e->traced) - (MAX_RULE_LINES - room);
	StoreSpi	scope;
	SqlParams	params = {0};

	store_spi_begin(e->store, &scope);
	sql_int(&params, e->source->source_id);
	sql_int(&params, d->generation);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(d->order_time), false);
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(latest), false);
	sql_param(&params, INT4ARRAYOID, int_array(e->traced, false), false);
	sql_text(&params, e->attributes.data);
	sql_int(&params, room);
	sql_run("WITH other AS ("
			"  SELECT r.rule_id, r.name, COALESCE(a.version, k.version, l.version) AS version,"
			"         a.scope, a.source_id, k.valid_from, k.valid_to, l.generation,"
			"         COALESCE(a.generation, k.generation, l.generation) AS made_by,"
			"         CASE WHEN a.formula = 'none' THEN 5"
			"              WHEN a.source_id <> $1 THEN 4"
			"              WHEN a.version IS NOT NULL THEN 1"
			"              WHEN k.version IS NOT NULL THEN 2"
			"              ELSE 3 END AS class"
			"    FROM rebate_data.rule r"
			"    JOIN rebate_data.source s ON s.programme_id = r.programme_id AND s.source_id = $1"
			/* the version that applies */
			"    LEFT JOIN LATERAL ("
			"      SELECT * FROM rebate_data.rule_version v"
			"       WHERE v.rule_id = r.rule_id AND v.generation <= $2"
			"         AND v.valid_from <= $4 AND (v.valid_to IS NULL OR v.valid_to > $3)"
			"       ORDER BY v.version DESC LIMIT 1) a ON true"
			/* the last that was known */
			"    LEFT JOIN LATERAL ("
			"      SELECT * FROM rebate_data.rule_version v"
			"       WHERE v.rule_id = r.rule_id AND v.generation <= $2"
			"       ORDER BY v.version DESC LIMIT 1) k ON true"
			"    LEFT JOIN LATERAL ("
			"      SELECT * FROM rebate_data.rule_version v"
			"       WHERE v.rule_id = r.rule_id"
			"       ORDER BY v.version LIMIT 1) l ON true"
			"   WHERE r.rule_id <> ALL ($5)),"
			" counted AS (SELECT *, count(*) OVER () AS n FROM other ORDER BY class, rule_id LIMIT $7 + 1)"
			" SELECT o.name, o.version, o.made_by,"
			"        (ARRAY['scope does not match', 'not valid at the order time',"
			"               'written after the order was first seen', 'another table', 'ended'])[o.class],"
			"        CASE o.class"
			"         WHEN 1 THEN ("
			"          SELECT CASE WHEN $6 IS NULL OR NOT ($6::jsonb ? x.key)"
			"                      THEN 'the table has no attribute ' || x.key"
			"                      ELSE x.key || ' is ' || COALESCE($6::jsonb ->> x.key, 'null') ||"
			"                           ', the scope wants ' || CASE jsonb_typeof(x.value)"
			"                            WHEN 'array' THEN (SELECT string_agg(w, ' or ' ORDER BY w COLLATE \"C\")"
			"                                                 FROM jsonb_array_elements_text(x.value) w)"
			"                            ELSE x.value #>> '{}' END END"
			"            FROM jsonb_each(o.scope) x"
			"           WHERE NOT COALESCE(CASE jsonb_typeof(x.value)"
			"                     WHEN 'array' THEN x.value @> ($6::jsonb -> x.key)"
			"                     ELSE x.value = ($6::jsonb -> x.key) END, false)"
			"           ORDER BY x.key COLLATE \"C\" LIMIT 1)"
			"         WHEN 2 THEN 'valid from ' || o.valid_from || COALESCE(' to ' || o.valid_to, '')"
			"         WHEN 3 THEN 'generation ' || o.generation"
			"         WHEN 4 THEN (SELECT s.relation_name FROM rebate_data.source s"
			"                       WHERE s.source_id = o.source_id)"
			"        END, o.n"
			"   FROM counted o ORDER BY o.class, o.rule_id", &params, SPI_OK_SELECT);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		if (row == 0)
		{
			bool		isnull;

			more += (int) DatumGetInt64(sql_get(row, 6, &isnull)) - Min((int) SPI_processed, room);
		}
		if ((int) row < room)
			explain_line(e, "rule",
						 explain_version(e, sql_get_text(row, 1, context), sql_get_int(row, 2, 0),
										 sql_get_int(row, 3, 0)),
						 sql_get_text(row, 4, context), NULL, sql_get_text(row, 5, context));
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);
	if (more > 0)
		explain_line(e, "rule", NULL, psprintf("%d more", more), NULL,
					 "rules that were not met are not all explain_number");
}

void
explain_rules(Explain *e)
{
	int			room = explain_met_rules(e);

	if (run_guarded(e->store, read_attributes, e) != NULL)
		e->attributes.data = NULL;
	explain_other_rules(e, room);
}
