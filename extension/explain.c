/*
 * explain.c
 *	  rebate.explain(): one order, decided once more with every rule that was
 *	  looked at, and what the ledger has of it.  Writes nothing.
 *
 * The decision is the engine's own: decide() reports the rules it meets.  Rules
 * that it never met, since the index of scopes did not lead to them, are
 * classified here in one query.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "arith.h"
#include "collect.h"
#include "guard.h"
#include "order.h"
#include "read.h"
#include "rules.h"

PG_FUNCTION_INFO_V1(rebate_explain);

/* Lines about rules; beyond, their number */
#define MAX_RULE_LINES 100

/* A rule that the decision met */
typedef struct Traced
{
	int32		rule_id;
	int32		version;
	const char *outcome;
	Numeric		amount;			/* exact, absolute, before refunds */
	const char *detail;
} Traced;

/* What the guarded part finds */
typedef struct Explain
{
	Store	   *store;
	Source	   *source;
	const char *key;
	ReturnSetInfo *rsinfo;
	OrderFacts	facts;
	bool		row_there;
	bool		image_read;
	OrderImage	image;
	Decision   *decision;
	List	   *traced;			/* of Traced */
	StringInfoData attributes;	/* JSON of the values that scopes can name */
	int			scale;			/* of the order's currency; -1: unknown */
	Relation	rel;
	Snapshot	snapshot;
	TupleTableSlot *slot;
} Explain;

/*----------------------------------------------------------------------------
 * Lines and texts
 *----------------------------------------------------------------------------
 */

static void
add_line(Explain *e, const char *topic, const char *subject, const char *outcome, Numeric amount,
		 const char *detail)
{
	Datum		values[5];
	bool		nulls[5];

	values[0] = CStringGetTextDatum(topic);
	nulls[0] = false;
	nulls[1] = subject == NULL;
	values[1] = subject ? CStringGetTextDatum(subject) : (Datum) 0;
	nulls[2] = outcome == NULL;
	values[2] = outcome ? CStringGetTextDatum(outcome) : (Datum) 0;
	nulls[3] = amount == NULL;
	values[3] = amount ? NumericGetDatum(amount) : (Datum) 0;
	nulls[4] = detail == NULL || detail[0] == '\0';
	values[4] = nulls[4] ? (Datum) 0 : CStringGetTextDatum(detail);
	tuplestore_putvalues(e->rsinfo->setResult, e->rsinfo->setDesc, values, nulls);
}

/* Append to a list of remarks. */
static void pg_attribute_printf(2, 3)
remark(StringInfo buf, const char *format,...)
{
	if (buf->len > 0)
		appendStringInfoString(buf, ", ");
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(buf, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(buf, needed);
	}
}

/* A number without idle zeros, with the decimals of "scale" at least */
static Numeric
shown(Numeric value, int scale)
{
	Datum		result = DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(value));

	if (scale > 0 && DatumGetInt32(DirectFunctionCall1(numeric_scale, result)) < scale)
		result = DirectFunctionCall2(numeric_round, result, Int32GetDatum(scale));
	return DatumGetNumeric(result);
}

static char *
shown_text(Numeric value, int scale)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(shown(value, scale))));
}

static char *
time_text(TimestampTz t)
{
	return DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(t)));
}

static const char *
phase_text(char phase)
{
	switch (phase)
	{
		case PHASE_TRACKED:
			return "tracked";
		case PHASE_PENDING:
			return "pending";
		case PHASE_CONFIRMED:
			return "confirmed";
		default:
			return "void";
	}
}

/*----------------------------------------------------------------------------
 * Deciding once more, guarded
 *----------------------------------------------------------------------------
 */

static void
keep_trace(void *arg, int32 rule_id, int32 version, const char *outcome, Numeric amount,
		   const char *detail)
{
	Explain    *e = arg;
	Traced	   *t = palloc(sizeof(Traced));

	t->rule_id = rule_id;
	t->version = version;
	t->outcome = outcome;
	t->amount = amount ? DatumGetNumericCopy(NumericGetDatum(amount)) : NULL;
	t->detail = detail ? pstrdup(detail) : NULL;
	e->traced = lappend(e->traced, t);
}

static void
decide_order(void *arg)
{
	Explain    *e = arg;
	DecideContext context = {
		.store = e->store,
		.source = e->source,
		.now = GetCurrentTransactionStartTimestamp(),
		.archived = (e->facts.flags & ORDER_ARCHIVED) != 0
	};

	e->row_there = facts_fetch_row(e->source, e->rel, e->key, e->snapshot, e->slot);
	expr_reset();
	if (e->row_there)
	{
		image_read(e->store, e->source, e->slot, &e->image);
		e->image_read = true;
		if (e->image.currency)
			e->scale = e->image.currency->scale;
	}
	if (e->facts.seen)
		e->decision = decide(&context, e->row_there ? &e->image : NULL, &e->facts);
}

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
			if (isnull)
				json_add_raw(&buf, attribute->name, "null");
			else
				json_add_text(&buf, attribute->name, canon_text(&attribute->canon, value));
		}
	}
	appendStringInfoChar(&buf, '}');
	e->attributes = buf;
}

/*----------------------------------------------------------------------------
 * The order
 *----------------------------------------------------------------------------
 */

/* What was written down when the order failed; false if it is not there now. */
static bool
failure_text(Explain *e, StringInfo detail)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *text = NULL;

	store_spi_begin(e->store, &scope);
	sql_int(&params, e->source->source_id);
	sql_text(&params, e->key);
	if (sql_run("SELECT sqlstate || ': ' || message || COALESCE(' (' || detail || ')', '')"
				"  FROM rebate_data.failure WHERE source_id = $1 AND order_key = $2",
				&params, SPI_OK_SELECT) > 0)
		text = sql_get_text(0, 1, context);
	store_spi_end(&scope);
	if (text)
		remark(detail, "%s", text);
	return text != NULL;
}

static void
error_text(StringInfo detail, int sqlerrcode, const char *message, const char *more)
{
	remark(detail, "%s: %s", unpack_sql_state(sqlerrcode), message);
	if (more)
		appendStringInfo(detail, " (%s)", more);
}

/*
 * The line of the order itself, and that of its refunds.  Returns whether its
 * rules were looked at.
 */
static bool
explain_order(Explain *e, ErrorData *error)
{
	OrderFacts *facts = &e->facts;
	OrderImage *image = e->image_read ? &e->image : NULL;
	Decision   *d = e->decision;
	bool		readable = image && image->sqlerrcode == 0;
	bool		looked = false;
	const char *outcome;
	StringInfoData detail;

	initStringInfo(&detail);
	if (!facts->seen)
	{
		outcome = "not seen";
		remark(&detail, e->row_there ? "the row came while nothing was collected" :
			   "there is no such row");
	}
	else if ((facts->flags & ORDER_FAILED) || error || (d && d->failed))
	{
		outcome = "failed";
		if ((facts->flags & ORDER_FAILED) && failure_text(e, &detail))
			;
		else if (error)
			error_text(&detail, error->sqlerrcode, error->message, error->detail);
		else if (d && d->failed)
			error_text(&detail, d->sqlerrcode, d->error, d->error_detail);
	}
	else if (facts->flags & ORDER_BEFORE_ATTACHMENT)
	{
		outcome = "before attachment";
		remark(&detail, "an old order earns nothing");
		if (!e->row_there)
			remark(&detail, "its row is gone");
	}
	else if (!e->row_there)
	{
		outcome = "deleted";
		if (facts->flags & ORDER_ARCHIVED)
			remark(&detail, "its rebates stay");
	}
	else if (d->flags & ORDER_GUEST)
		outcome = "guest";
	else if (d->phase == PHASE_VOID)
		outcome = "void";
	else
	{
		looked = arith_sign(image->amount) != 0;
		outcome = d->nwishes > 0 ? "accrued" : "no rule";
		if (!looked)
			remark(&detail, "an amount of zero earns nothing");
		if (d->flags & ORDER_UNPHASED_RETURN)
			remark(&detail, "a return takes nothing before it is pending");
	}

	if (image && image->member)
		remark(&detail, "member %s", image->member);
	if (image && image->currency)
		remark(&detail, "currency %s", image->currency->code);
	if (readable)
		remark(&detail, "phase %s", phase_text(image->phase));
	else if (facts->seen)
		remark(&detail, "phase %s", phase_text(facts->phase));
	if (readable && image->quantity)
		remark(&detail, "quantity %s", shown_text(image->quantity, 0));
	if (facts->seen)
	{
		remark(&detail, "generation %d of the rules", facts->generation);
		remark(&detail, "order time %s", time_text(facts->order_time));
		remark(&detail, "first seen %s", time_text(facts->first_seen));
		if (facts->has_confirmed_at)
			remark(&detail, "confirmed %s", time_text(facts->confirmed_at));
	}
	add_line(e, "order", e->key, outcome,
			 image && image->amount ? shown(image->amount, e->scale) : NULL, detail.data);

	if (readable && ((image->refunded && arith_sign(image->refunded) > 0) ||
					 (image->refunded_quantity && arith_sign(image->refunded_quantity) > 0)))
	{
		int			cmp = image->refunded ? arith_cmp(image->refunded, image->amount) : -1;

		resetStringInfo(&detail);
		if (arith_sign(image->amount) <= 0)
		{
			outcome = "not read";
			remark(&detail, "refunds of a return are not read");
		}
		else
		{
			outcome = cmp > 0 ? "refunded too much" : cmp == 0 ? "refunded in full" : "refunded in part";
			if (cmp > 0)
				remark(&detail, "counts as %s", shown_text(image->amount, e->scale));
			else if (image->refunded && cmp < 0)
				remark(&detail, "%s of %s left",
					   shown_text(arith_sub(image->amount, image->refunded), e->scale),
					   shown_text(image->amount, e->scale));
		}
		if (image->refunded_quantity && image->quantity)
			remark(&detail, "quantity %s of %s", shown_text(image->refunded_quantity, 0),
				   shown_text(image->quantity, 0));
		add_line(e, "order", e->key, outcome,
				 image->refunded ? shown(image->refunded, e->scale) : NULL, detail.data);
	}
	return looked;
}

/*----------------------------------------------------------------------------
 * Rules
 *----------------------------------------------------------------------------
 */

/* Columns of the query about the rules that were met */
enum
{
	MET_NAME = 1, MET_FORMULA, MET_RATE, MET_BASE, MET_MINIMUM, MET_MAX_PER_ORDER, MET_LIMIT_MODE,
	MET_ROUNDING, MET_REFUND, MET_HOLD, MET_PRIORITY, MET_GROUP, MET_GROUP_MODE
};

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
		remark(detail, "%s %% of ", shown_text(rate, 0));
		if (wish && wish->base)
			appendStringInfoString(detail, shown_text(wish->base, e->scale));
		else if (base == NULL)
			appendStringInfoString(detail, shown_text(arith_abs(e->image.amount), e->scale));
		if (base)
			appendStringInfo(detail, wish && wish->base ? " (%s)" : "%s", base);
	}
	else if (strcmp(formula, "fixed") == 0)
		remark(detail, "%s an order", shown_text(rate, e->scale));
	else if (e->image.quantity)
		remark(detail, "%s x %s", shown_text(arith_abs(e->image.quantity), 0),
			   shown_text(rate, e->scale));
	else
		remark(detail, "%s a unit", shown_text(rate, e->scale));
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

		remark(detail, "%s of %s left after refunds, refund %s", shown_text(net, e->scale),
			   shown_text(image->amount, e->scale), mode);
	}
	else if (image->refunded_quantity && arith_sign(image->refunded_quantity) > 0 && image->quantity)
		remark(detail, "quantity %s of %s returned, refund %s",
			   shown_text(image->refunded_quantity, 0), shown_text(image->quantity, 0), mode);
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
		remark(&detail, "the minimum is %s", shown_text(get_numeric(row, MET_MINIMUM), e->scale));
	else if (strcmp(t->outcome, "other currency") == 0)
		remark(&detail, "the rule is in %s", t->detail);
	else if (t->detail)
		remark(&detail, "%s", t->detail);
	if (judged)
	{
		amount = arith_sign(e->image.amount) < 0 ? arith_neg(t->amount) : t->amount;
		amount = shown(amount, e->scale);
		remark_formula(e, &detail, row, wish, context);
		if (limit)
			remark(&detail, "at most %s an order", shown_text(limit, e->scale));
		if (group)
			remark(&detail, "group %s (%s), priority %d", group,
				   sql_get_text(row, MET_GROUP_MODE, context), sql_get_int(row, MET_PRIORITY, 0));
		if (wish)
		{
			remark_refunds(e, &detail, sql_get_text(row, MET_REFUND, context));
			remark(&detail, "rounded %s", sql_get_text(row, MET_ROUNDING, context));
			if (hold && arith_sign(e->image.amount) > 0)
				remark(&detail, "hold %s", hold);
		}
	}
	add_line(e, "rule", psprintf("%s v%d", sql_get_text(row, MET_NAME, context), t->version),
			 t->outcome, amount, detail.data);
}

/* The rules that the decision met; returns the number of lines left. */
static int
explain_met_rules(Explain *e)
{
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
	sql_run("SELECT r.name, v.formula, v.rate, v.base, v.minimum, v.max_per_order, v.limit_mode,"
			"       replace(v.rounding, '_', ' '), replace(v.refund, '_', ' '),"
			"       CASE WHEN v.hold <> '0' THEN v.hold::text END, v.priority, g.name, v.group_mode"
			"  FROM unnest($1, $2) WITH ORDINALITY u(rule_id, version, place)"
			"  JOIN rebate_data.rule r ON r.rule_id = u.rule_id"
			"  JOIN rebate_data.rule_version v ON v.rule_id = u.rule_id AND v.version = u.version"
			"  LEFT JOIN rebate_data.rule_group g ON g.group_id = v.group_id"
			" ORDER BY u.place", &params, SPI_OK_SELECT);
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
			" SELECT o.name || ' v' || o.version,"
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

			more += (int) DatumGetInt64(sql_get(row, 4, &isnull)) - Min((int) SPI_processed, room);
		}
		if ((int) row < room)
			add_line(e, "rule", sql_get_text(row, 1, context), sql_get_text(row, 2, context), NULL,
					 sql_get_text(row, 3, context));
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);
	if (more > 0)
		add_line(e, "rule", NULL, psprintf("%d more", more), NULL,
				 "rules that were not met are not all shown");
}

/*----------------------------------------------------------------------------
 * The ledger
 *----------------------------------------------------------------------------
 */

static void
explain_ledger(Explain *e)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	store_spi_begin(e->store, &scope);
	sql_int(&params, e->source->source_id);
	sql_text(&params, e->key);
	sql_run("SELECT 'accrual'::text, r.name || ' v' || x.version,"
			"       CASE x.bucket WHEN '0' THEN 'tracked' WHEN '1' THEN 'pending'"
			"            WHEN '2' THEN 'maturing' WHEN '3' THEN 'available' WHEN '4' THEN 'held'"
			"            ELSE 'nothing' END,"
			"       x.earned * c.unit,"
			"       'member ' || a.member || ', ' || a.currency"
			"        || COALESCE(', base ' ||"
			"                    round(trim_scale(x.base), GREATEST(scale(trim_scale(x.base)), c.scale)), '')"
			"        || COALESCE(', due ' || x.due, '')"
			"  FROM rebate_data.accrual x"
			"  JOIN rebate_data.account a ON a.account_id = x.account_id"
			"  JOIN rebate_data.currency c ON c.code = a.currency"
			"  JOIN rebate_data.rule r ON r.rule_id = x.rule_id"
			" WHERE x.source_id = $1 AND x.order_key = $2 COLLATE \"C\""
			" ORDER BY x.rule_id, a.opened_at, a.member, a.currency", &params, SPI_OK_SELECT);
	read_return_spi(e->rsinfo);

	/* an order that was given another key takes its accruals along */
	sql_run("SELECT 'entry'::text, 'seq ' || e.seq,"
			"       CASE e.kind WHEN 'a' THEN 'accrue' WHEN 'r' THEN 'reverse' WHEN 'm' THEN 'move'"
			"            ELSE e.kind::text END,"
			"       e.amount * c.unit,"
			"       d.code || ' -> ' || k.code || ', member ' || a.member || ', posted ' || e.posted_at"
			"  FROM rebate_data.accrual x"
			"  JOIN rebate_data.account a ON a.account_id = x.account_id"
			"  JOIN rebate_data.currency c ON c.code = a.currency"
			"  JOIN rebate_data.ledger e ON e.account_id = x.account_id AND e.accrual_id = x.accrual_id"
			"  JOIN rebate_data.ledger_account d ON d.ledger_account_id = e.debit"
			"  JOIN rebate_data.ledger_account k ON k.ledger_account_id = e.credit"
			" WHERE x.source_id = $1 AND x.order_key = $2 COLLATE \"C\""
			" ORDER BY e.posted_at, e.account_id, e.seq", &params, SPI_OK_SELECT);
	read_return_spi(e->rsinfo);
	store_spi_end(&scope);
}

/* rebate.explain(source, key...) */
Datum
rebate_explain(PG_FUNCTION_ARGS)
{
	Explain		e = {.scale = -1};
	Relation	accrual;
	ErrorData  *error = NULL;

	e.source = read_source(fcinfo, &e.store, "rebate.explain");
	e.key = read_key(fcinfo, e.source);
	InitMaterializedSRF(fcinfo, 0);
	e.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	(void) rules_generation(e.store);
	e.rel = table_open(e.source->relid, AccessShareLock);
	accrual = table_open(e.store->tables[ST_ACCRUAL], AccessShareLock);
	e.snapshot = RegisterSnapshot(GetLatestSnapshot());
	e.slot = table_slot_create(e.rel, NULL);
	facts_read(e.store, accrual, e.source->source_id, e.key, e.snapshot, &e.facts);

	decide_trace = keep_trace;
	decide_trace_arg = &e;
	PG_TRY();
	{
		error = run_guarded(e.store, decide_order, &e);
	}
	PG_FINALLY();
	{
		decide_trace = NULL;
		decide_trace_arg = NULL;
	}
	PG_END_TRY();

	if (explain_order(&e, error))
	{
		int			room = explain_met_rules(&e);

		if (run_guarded(e.store, read_attributes, &e) != NULL)
			e.attributes.data = NULL;
		explain_other_rules(&e, room);
	}
	explain_ledger(&e);

	ExecDropSingleTupleTableSlot(e.slot);
	UnregisterSnapshot(e.snapshot);
	table_close(accrual, AccessShareLock);
	table_close(e.rel, NoLock);
	return (Datum) 0;
}
