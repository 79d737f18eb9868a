/*
 * decide_rules.c
 *	  Which rules apply to an order, what each pays before refunds, and which of
 *	  them do.
 */
#include "rebate.h"

#include "utils/timestamp.h"

#include "decide_internal.h"

DecideTrace decide_trace = NULL;
void	   *decide_trace_arg = NULL;

void
decide_tell(RuleVersion *v, const char *outcome, Numeric amount, const char *detail)
{
	if (decide_trace)
		decide_trace(decide_trace_arg, v->rule_id, v->version, outcome, amount, detail);
}

/*
 * The version of a rule that applies to an order first evaluated under
 * "generation": of those not written later whose validity holds the order time,
 * the last written.  A date counts if any moment of its day, which ends at
 * "until", is valid; for a moment they are the same.
 */
static RuleVersion *
applicable_version(Rule *rule, int32 generation, TimestampTz order_time, TimestampTz until)
{
	for (int i = rule->nversions - 1; i >= 0; i--)
	{
		RuleVersion *v = rule->versions[i];

		if (v->generation <= generation && v->valid_from <= until && order_time < v->valid_to)
			return v;
	}
	return NULL;
}

/* Apply max_per_order to an exact result; NULL if the limit rejects it. */
Numeric
decide_limited(RuleVersion *v, Numeric exact)
{
	if (v->max_per_order == NULL || arith_cmp(exact, v->max_per_order) <= 0)
		return exact;
	return v->reject_over_limit ? NULL : v->max_per_order;
}

/* Rules whose result is one for all orders that were split from the same one */
bool
decide_counts_once(const RuleVersion *v)
{
	return v->formula == FORMULA_FIXED || v->minimum || v->max_per_order;
}

/*
 * Whether a version whose scope and validity fit applies to an order; not "alone":
 * whatever its minimum, which is judged for its group as a whole.
 */
static bool
applies(Source *source, OrderImage *image, RuleVersion *v, bool alone)
{
	bool		isnull;

	if (v->source_id != 0 && v->source_id != source->source_id)
		return false;
	if (v->formula == FORMULA_NONE)
	{
		decide_tell(v, "ended", NULL, NULL);
		return false;
	}
	if (v->currency && strcmp(v->currency, image->currency->code) != 0)
	{
		decide_tell(v, "other currency", NULL, v->currency);
		return false;
	}
	if (v->ignore_returns && arith_sign(image->amount) < 0)
	{
		decide_tell(v, "returns are ignored", NULL, NULL);
		return false;
	}
	if (v->condition || v->base)
		rules_compile(v, source);
	if (v->condition)
	{
		Datum		holds = expr_eval(&v->condition_expr, image->slot, &isnull);

		if (isnull || !DatumGetBool(holds))
		{
			decide_tell(v, "condition not met", NULL, v->condition);
			return false;
		}
	}
	if (alone && v->minimum && arith_cmp(arith_abs(image->amount), v->minimum) < 0)
	{
		decide_tell(v, "below the minimum", v->minimum, NULL);
		return false;
	}
	return true;
}

/* What a percentage is paid on, absolute; NULL: its base is null */
static Numeric
base_of(OrderImage *image, RuleVersion *v)
{
	Numeric		base;
	bool		isnull;
	Datum		value;

	if (v->base == NULL)
		return arith_abs(image->amount);
	value = expr_eval(&v->base_expr, image->slot, &isnull);
	if (isnull)
		return NULL;
	base = DatumGetNumericCopy(value);
	if (!arith_is_finite(base) || !arith_is_bounded(base))
		ereport(ERROR,
				(errcode(ERRCODE_RB_ORDER_FAILED),
				 errmsg("the base of a rule is not a finite number of sane size"),
				 errdetail("The base is %s.", v->base)));
	/* a base of the other sign than the amount counts as zero */
	return arith_sign(base) * arith_sign(image->amount) < 0 ? arith_from_int64(0) : arith_abs(base);
}

/*
 * What a version that applies pays before refunds; false: nothing can be said.
 * Not "alone": before its limit.  Numbers are absolute; for a negative row they
 * are negated in the end.
 */
static bool
evaluate(OrderImage *image, RuleVersion *v, bool alone, Applicable *result)
{
	Numeric		exact;

	result->version = v;
	result->base = NULL;
	result->exact = NULL;
	result->chosen = result->shared = false;

	switch (v->formula)
	{
		case FORMULA_PERCENT:
			result->base = base_of(image, v);
			if (result->base == NULL)
			{
				decide_tell(v, "base is null", NULL, v->base);
				return false;
			}
			exact = arith_mul(result->base, v->rate);
			break;
		case FORMULA_FIXED:
			exact = v->rate;
			break;
		default:
			if (image->quantity == NULL)
			{
				decide_tell(v, "no quantity", NULL, NULL);
				return false;
			}
			/* a return may carry its quantity with either sign */
			if (arith_sign(image->amount) > 0 && arith_sign(image->quantity) < 0)
				exact = arith_from_int64(0);
			else
				exact = arith_mul(arith_abs(image->quantity), v->rate);
			break;
	}

	result->exact = alone ? decide_limited(v, exact) : exact;
	if (result->exact == NULL)
	{
		decide_tell(v, "over the limit", exact, NULL);
		return false;
	}
	return true;
}

/*
 * The key of an order under a scope: its values of the attributes that the scope
 * names.  False if one is null, which matches nothing, as does a huge one.
 */
static bool
scope_key(RuleScope *scope, OrderImage *image, StringInfo key)
{
	resetStringInfo(key);
	for (int i = 0; i < scope->nattributes; i++)
	{
		SourceAttribute *attribute = scope->attributes[i];
		bool		isnull;
		Datum		value = expr_eval(&attribute->expr, image->slot, &isnull);

		if (isnull || canon_is_huge(&attribute->canon, value))
			return false;
		canon_append_scope(key, canon_text(&attribute->canon, value));
	}
	return true;
}

/* The last moment that an order time can mean: a date means its whole day */
static TimestampTz
latest_moment(DecideContext *context, const Decision *d)
{
	Interval	day = {.day = 1};

	return context->source->order_time_is_date ?
		decide_local_plus(context->store, d->order_time, &day) - 1 : d->order_time;
}

/*
 * Find the rules that apply to the order, with what each pays; returns their
 * number.
 */
int
decide_find_rules(DecideContext *context, OrderImage *image, Decision *d, Applicable **result)
{
	Source	   *source = context->source;
	RuleScope  *scopes;
	int			nscopes = rules_scopes(source, &scopes);
	Applicable *rules = NULL;
	int			n = 0,
				allocated = 0;
	StringInfoData key;
	TimestampTz until = latest_moment(context, d);

	initStringInfo(&key);
	for (int i = 0; i < nscopes; i++)
	{
		RuleCandidates *candidates;

		if (!scopes[i].usable || !scope_key(&scopes[i], image, &key))
			continue;
		candidates = rules_lookup(context->store, scopes[i].scope_id, key.data, key.len);
		for (int j = 0; j < candidates->n; j++)
		{
			RuleCandidate *c = &candidates->items[j];
			RuleVersion *v = applicable_version(c->rule, d->generation, d->order_time, until);
			bool		alone;

			/* the rule may apply in a version with another scope */
			if (v == NULL || v->version != c->version)
				continue;
			alone = context->links.peers == NULL || !decide_counts_once(v);
			if (!applies(source, image, v, alone))
				continue;
			if (n == allocated)
			{
				allocated = Max(4, allocated * 2);
				rules = rules ? repalloc(rules, sizeof(Applicable) * allocated)
					: palloc(sizeof(Applicable) * allocated);
			}
			if (evaluate(image, v, alone, &rules[n]))
				n++;
		}
	}
	*result = rules;
	return n;
}

/* Whether a rule is among those that were found */
static bool
is_found(int32 rule_id, const Applicable *rules, int n)
{
	for (int i = 0; i < n; i++)
		if (rules[i].version->rule_id == rule_id)
			return true;
	return false;
}

/*
 * A rule that paid for the order, and would apply to it in the same way if the
 * table still had an attribute that its scope names, sets the order aside: that a
 * column was dropped or renamed takes no money back.  Returns whether it did.
 */
bool
decide_scope_lost(DecideContext *context, const OrderFacts *facts, Decision *d,
				  const Applicable *rules, int n)
{
	for (int i = 0; i < facts->nrows; i++)
	{
		Form_accrual row = (Form_accrual) GETSTRUCT(facts->rows[i]);
		Rule	   *rule;
		RuleVersion *v;
		const char *missing;

		if (row->rule_id == 0 || row->earned == 0 || is_found(row->rule_id, rules, n))
			continue;
		rule = rules_get(context->store, row->rule_id);
		v = rule ? applicable_version(rule, d->generation, d->order_time,
									  latest_moment(context, d)) : NULL;
		if (v == NULL || v->formula == FORMULA_NONE)
			continue;
		missing = rules_missing_attribute(context->source, v->scope_id);
		if (missing == NULL)
			continue;
		decide_tell(v, "scope no longer fits the table", NULL, missing);
		decide_fail(d, ERRCODE_RB_INVALID_MAPPING, "the scope of a rule no longer fits the table",
					psprintf("Rule \"%s\" names the attribute \"%s\", which the table does not have any more.",
							 rules_name(context->store, v->rule_id), missing));
		return true;
	}
	return false;
}

/* Whether a goes before b in a group: priority, then the older rule */
static bool
goes_before(RuleVersion *a, RuleVersion *b)
{
	if (a->priority != b->priority)
		return a->priority > b->priority;
	return a->rule_id < b->rule_id;
}

/* Mark the rules that pay: all of a stack, one of an exclusive group. */
void
decide_choose(Applicable *rules, int n)
{
	for (int i = 0; i < n; i++)
	{
		RuleVersion *v = rules[i].version;
		int			winner = i;

		if (v->group_id == 0 || v->group_mode == GROUP_STACK)
		{
			rules[i].chosen = true;
			continue;
		}
		for (int j = 0; j < n; j++)
		{
			RuleVersion *other = rules[j].version;
			int			cmp = 0;

			if (other->group_id != v->group_id || j == winner)
				continue;
			if (v->group_mode == GROUP_BEST)
				cmp = arith_cmp(rules[j].exact, rules[winner].exact);
			if (cmp > 0 || (cmp == 0 && goes_before(other, rules[winner].version)))
				winner = j;
		}
		rules[i].chosen = winner == i;
		if (winner != i)
			decide_tell(v, "another rule of its group pays", rules[i].exact, NULL);
	}
}
