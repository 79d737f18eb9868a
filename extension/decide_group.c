/*
 * decide_group.c
 *	  Rules whose result is one for all orders that were split from the same one.
 */
#include "rebate.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "decide_internal.h"

/*
 * The part of "whole" minor units that goes to weights[0]: truncate, then one
 * unit each by largest fraction, ties by key.
 */
static int64
largest_remainder(int64 whole, Numeric *weights, const char **keys, int n)
{
	Numeric		total = weights[0];
	int64		left = whole;
	int64		result = 0;
	int			before = 0;
	Numeric	   *rest = palloc(sizeof(Numeric) * n);

	for (int i = 1; i < n; i++)
		total = arith_add(total, weights[i]);
	for (int i = 0; i < n; i++)
	{
		Datum		share = NumericGetDatum(arith_mul(arith_from_int64(whole), weights[i]));
		Datum		part = DirectFunctionCall2(numeric_div_trunc, share, NumericGetDatum(total));
		int64		units = DatumGetInt64(DirectFunctionCall1(numeric_int8, part));

		rest[i] = DatumGetNumeric(DirectFunctionCall2(numeric_mod, share, NumericGetDatum(total)));
		left -= units;
		if (i == 0)
			result = units;
	}
	for (int i = 1; i < n; i++)
	{
		int			cmp = arith_cmp(rest[i], rest[0]);

		before += cmp > 0 || (cmp == 0 && strcmp(keys[i], keys[0]) < 0);
	}
	return result + (before < left ? 1 : 0);
}

/*
 * Judge a rule once for the orders of a group that it applies to, and replace the
 * order's own result by its share; false if it pays nothing.
 */
static bool
share_rule(OrderImage *image, Applicable *rule, List *others, const Applicable *const *theirs,
		   const int *ntheirs)
{
	RuleVersion *v = rule->version;
	int			max = list_length(others) + 1;
	Numeric	   *weights = palloc(sizeof(Numeric) * max);
	const char **keys = palloc(sizeof(char *) * max);
	Numeric		total = arith_abs(image->amount);
	Numeric		exact = rule->exact;
	Fraction	result = {0};
	int64		whole;
	int			n = 1;

	weights[0] = total;
	keys[0] = image->key;
	for (int i = 0; i < list_length(others); i++)
	{
		GroupMember *other = list_nth(others, i);

		for (int j = 0; j < ntheirs[i]; j++)
		{
			if (theirs[i][j].version != v)
				continue;
			weights[n] = arith_abs(other->image.amount);
			keys[n] = other->key;
			total = arith_add(total, weights[n++]);
			if (v->formula != FORMULA_FIXED)
				exact = arith_add(exact, theirs[i][j].exact);
		}
	}
	if (v->minimum && arith_cmp(total, v->minimum) < 0)
	{
		decide_tell(v, "below the minimum", v->minimum, NULL);
		return false;
	}
	result.num = decide_limited(v, exact);
	if (result.num == NULL)
	{
		decide_tell(v, "over the limit", exact, NULL);
		return false;
	}
	rule->shared = n > 1;
	rule->exact = result.num;
	/* what is out of range is told when the wish is made */
	if (n > 1 && arith_round(result, image->currency->scale, v->rounding, &whole))
		rule->exact = int64_div_fast_to_numeric(largest_remainder(whole, weights, keys, n),
												image->currency->scale);
	return true;
}

/* What counts once for all orders that were split from the same one; the rules that are left */
int
decide_share_rules(DecideContext *context, OrderImage *image, const Decision *d, Applicable *rules, int n)
{
	List	   *others = context->links.group;
	const Applicable **theirs = palloc(sizeof(Applicable *) * Max(list_length(others), 1));
	int		   *ntheirs = palloc(sizeof(int) * Max(list_length(others), 1));
	DecideTrace tracing = decide_trace;
	bool		any = false;
	int			left = 0;

	for (int i = 0; i < n; i++)
		any |= decide_counts_once(rules[i].version);
	if (!any)
		return n;

	/* the rules of others are theirs to tell */
	decide_trace = NULL;
	for (int i = 0; i < list_length(others); i++)
	{
		GroupMember *other = list_nth(others, i);
		Decision	as = {.generation = d->generation};
		Applicable *found;

		as.order_time = other->image.has_order_time ? other->image.order_time :
			context->source->has_order_time ? d->order_time : d->first_seen;
		ntheirs[i] = decide_find_rules(context, &other->image, &as, &found);
		theirs[i] = found;
	}
	decide_trace = tracing;
	for (int i = 0; i < n; i++)
	{
		if (decide_counts_once(rules[i].version) &&
			!share_rule(image, &rules[i], others, theirs, ntheirs))
			continue;
		rules[left++] = rules[i];
	}
	return left;
}
