/*
 * decide.c
 *	  What the rebates of an order should be: a function of its row, the rules
 *	  and the facts recorded of it.  Writes nothing.
 *
 * Everything up to the choice of the rules that pay is judged on the row before
 * refunds, so that a refund never changes a rate; see docs/reference.md, "How an
 * order is decided".
 */
#include "rebate.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "arith.h"
#include "order.h"
#include "rules.h"

/*
 * The largest rebate, in minor units: thousands of them fit into a balance, so
 * that one mistyped order does not block its member.
 */
#define MAX_REBATE INT64CONST(1000000000000000)

DecideTrace decide_trace = NULL;
void	   *decide_trace_arg = NULL;
TimestampTz decide_clock = DT_NOBEGIN;

/* A rule that applies to the order, and what it pays before refunds */
typedef struct Applicable
{
	RuleVersion *version;
	Numeric		base;			/* V, absolute; NULL: not a percentage */
	Numeric		exact;			/* A, absolute, after the limit */
	bool		chosen;
	bool		shared;			/* its part of what the orders of its group get together */
} Applicable;

static void
trace(RuleVersion *v, const char *outcome, Numeric amount, const char *detail)
{
	if (decide_trace)
		decide_trace(decide_trace_arg, v->rule_id, v->version, outcome, amount, detail);
}

/* A moment plus an interval in the programme's zone, back to an instant */
TimestampTz
decide_local_plus(Store *store, TimestampTz moment, Interval *span)
{
	Datum		zone = CStringGetTextDatum(store->time_zone);
	Datum		local = DirectFunctionCall2(timestamptz_zone, zone, TimestampTzGetDatum(moment));

	local = DirectFunctionCall2(timestamp_pl_interval, local, IntervalPGetDatum(span));
	return DatumGetTimestampTz(DirectFunctionCall2(timestamp_zone, zone, local));
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
static Numeric
limited(RuleVersion *v, Numeric exact)
{
	if (v->max_per_order == NULL || arith_cmp(exact, v->max_per_order) <= 0)
		return exact;
	return v->reject_over_limit ? NULL : v->max_per_order;
}

/* Rules whose result is one for all orders that were split from the same one */
static bool
counts_once(const RuleVersion *v)
{
	return v->formula == FORMULA_FIXED || v->minimum || v->max_per_order;
}

/*
 * Whether a version applies to an order, and what it pays before refunds; not
 * "alone": before minimum and limit, which are judged for its group as a whole.
 * Numbers are absolute; the caller negates for a negative row.
 */
static bool
evaluate(Source *source, OrderImage *image, RuleVersion *v, bool alone, Applicable *result)
{
	int			sign = arith_sign(image->amount);
	Numeric		amount = arith_abs(image->amount);
	Numeric		exact;
	bool		isnull;

	result->version = v;
	result->base = NULL;
	result->exact = NULL;
	result->chosen = result->shared = false;

	if (v->source_id != 0 && v->source_id != source->source_id)
		return false;
	if (v->formula == FORMULA_NONE)
	{
		trace(v, "ended", NULL, NULL);
		return false;
	}
	if (v->currency && strcmp(v->currency, image->currency->code) != 0)
	{
		trace(v, "other currency", NULL, v->currency);
		return false;
	}
	if (sign < 0 && v->ignore_returns)
	{
		trace(v, "returns are ignored", NULL, NULL);
		return false;
	}
	if (v->condition || v->base)
		rules_compile(v, source);
	if (v->condition)
	{
		Datum		holds = expr_eval(&v->condition_expr, image->slot, &isnull);

		if (isnull || !DatumGetBool(holds))
		{
			trace(v, "condition not met", NULL, v->condition);
			return false;
		}
	}
	if (alone && v->minimum && arith_cmp(amount, v->minimum) < 0)
	{
		trace(v, "below the minimum", v->minimum, NULL);
		return false;
	}

	switch (v->formula)
	{
		case FORMULA_PERCENT:
			result->base = amount;
			if (v->base)
			{
				Datum		base = expr_eval(&v->base_expr, image->slot, &isnull);

				if (isnull)
				{
					trace(v, "base is null", NULL, v->base);
					return false;
				}
				result->base = DatumGetNumericCopy(base);
				if (!arith_is_finite(result->base) || !arith_is_bounded(result->base))
					ereport(ERROR,
							(errcode(ERRCODE_RB_ORDER_FAILED),
							 errmsg("the base of a rule is not a finite number of sane size"),
							 errdetail("The base is %s.", v->base)));
				/* a base of the other sign than the amount counts as zero */
				result->base = arith_sign(result->base) * sign < 0 ?
					arith_from_int64(0) : arith_abs(result->base);
			}
			exact = arith_mul(result->base, v->rate);
			break;
		case FORMULA_FIXED:
			exact = v->rate;
			break;
		default:
			if (image->quantity == NULL)
			{
				trace(v, "no quantity", NULL, NULL);
				return false;
			}
			/* a return may carry its quantity with either sign */
			if (sign > 0 && arith_sign(image->quantity) < 0)
				exact = arith_from_int64(0);
			else
				exact = arith_mul(arith_abs(image->quantity), v->rate);
			break;
	}

	result->exact = alone ? limited(v, exact) : exact;
	if (result->exact == NULL)
	{
		trace(v, "over the limit", exact, NULL);
		return false;
	}
	return true;
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
static void
choose(Applicable *rules, int n)
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
			trace(v, "another rule of its group pays", rules[i].exact, NULL);
	}
}

/* Whether each refund tells its units, be it a column or a return */
static bool
units_are_refunded(Source *source)
{
	return source->has_refunded_quantity ||
		(source->original && source->has_quantity && !source->has_refunded);
}

/*
 * What is left of an exact result after refunds; false: nothing.  The part that
 * is left of an order is net / amount, for units whose refunds are mapped
 * (quantity - refunded quantity) / quantity.
 */
static bool
after_refunds(Source *source, OrderImage *image, Applicable *rule, Numeric refunded, Numeric net,
			  Fraction *result)
{
	RuleVersion *v = rule->version;
	Numeric		part = net;
	Numeric		whole = image->amount;
	bool		any = refunded != NULL;

	result->num = rule->exact;
	result->den = NULL;

	/* refunds of a negative row are not read; a full refund leaves nothing */
	if (arith_sign(image->amount) < 0)
		return true;
	if (any && arith_sign(net) <= 0)
		return false;

	if (v->formula == FORMULA_PER_UNIT && units_are_refunded(source))
	{
		any = image->refunded_quantity && arith_sign(image->refunded_quantity) > 0;
		whole = image->quantity;
		part = any ? arith_sub(whole, image->refunded_quantity) : whole;
		if (any && arith_sign(part) <= 0)
			return false;
	}
	if (!any)
		return true;

	/* what a group gets together is not judged again for one of its orders */
	switch (rule->shared && v->refund == REFUND_REJUDGE ? REFUND_PRO_RATA : v->refund)
	{
		case REFUND_ALL:
			return false;
		case REFUND_KEEP_UNTIL_FULL:
			return true;
		case REFUND_REJUDGE:
			if (v->minimum &&
				arith_cmp(arith_mul(image->amount, part), arith_mul(v->minimum, whole)) < 0)
				return false;
			if (v->formula == FORMULA_FIXED)
				return true;
			result->num = arith_mul(v->formula == FORMULA_PERCENT ? rule->base :
									arith_abs(image->quantity), arith_mul(v->rate, part));
			result->den = whole;
			if (v->max_per_order &&
				arith_cmp(result->num, arith_mul(v->max_per_order, whole)) > 0)
			{
				result->num = v->max_per_order;
				result->den = NULL;
				return !v->reject_over_limit;
			}
			return true;
		default:
			result->num = arith_mul(rule->exact, part);
			result->den = whole;
			return true;
	}
}

/* What is posted stays, and the order is set aside. */
static void
fail(Decision *d, int sqlerrcode, const char *error, const char *detail)
{
	d->keep = d->failed = true;
	d->flags |= ORDER_FAILED;
	d->sqlerrcode = sqlerrcode;
	d->error = error;
	d->error_detail = detail;
}

/*
 * Surely longer than an hour, whatever months and zones do.  Most orders are of
 * the last hour, and need no calendar.
 */
static inline bool
longer_than_hour(const Interval *span)
{
	return span->month >= 0 && span->day >= 0 && span->time >= 0 &&
		(span->month > 0 || span->day > 1 || span->time > USECS_PER_HOUR);
}

/* Rules on how far from now an order time may be, in the programme's zone. */
static bool
order_time_allowed(DecideContext *context, OrderImage *image, OrderFacts *facts, Decision *d)
{
	Source	   *source = context->source;

	if (!image->has_order_time)
		return true;
	/* what an order was split from was judged already */
	if (source->has_max_backdate && !context->any_backdate &&
		!(image->replaces && (context->links.root_known || !context->links.judged)) &&
		(!facts->seen || (facts->flags & ORDER_FAILED)) &&
		!(image->order_time > d->first_seen - USECS_PER_HOUR &&
		  longer_than_hour(&source->max_backdate)))
	{
		Interval	back = {
			.time = -source->max_backdate.time,
			.day = -source->max_backdate.day,
			.month = -source->max_backdate.month
		};
		TimestampTz limit = decide_local_plus(context->store, d->first_seen, &back);

		if (image->order_time < limit)
		{
			fail(d, ERRCODE_RB_ORDER_FAILED, "the order time is too far back",
				 "It is further back than max_backdate allows.");
			return false;
		}
	}
	if (source->has_max_future && image->order_time > context->now)
	{
		TimestampTz limit = decide_local_plus(context->store, context->now, &source->max_future);

		if (image->order_time > limit)
		{
			fail(d, ERRCODE_RB_ORDER_FAILED, "the order time is too far ahead",
				 "It is further ahead than max_future allows.");
			return false;
		}
	}
	return true;
}

/* Find the rules that apply to the order; returns their number. */
static int
find_rules(DecideContext *context, OrderImage *image, Decision *d, Applicable **result)
{
	Source	   *source = context->source;
	RuleScope  *scopes;
	int			nscopes = rules_scopes(source, &scopes);
	Applicable *rules = NULL;
	int			n = 0,
				allocated = 0;
	StringInfoData key;
	TimestampTz until = d->order_time;
	Interval	day = {.day = 1};

	if (source->order_time_is_date)
		until = decide_local_plus(context->store, d->order_time, &day) - 1;
	initStringInfo(&key);
	for (int i = 0; i < nscopes; i++)
	{
		RuleScope  *scope = &scopes[i];
		RuleCandidates *candidates;
		bool		isnull = false;

		if (!scope->usable)
			continue;
		resetStringInfo(&key);
		for (int j = 0; j < scope->nattributes && !isnull; j++)
		{
			SourceAttribute *attribute = scope->attributes[j];
			Datum		value = expr_eval(&attribute->expr, image->slot, &isnull);

			if (!isnull && canon_is_huge(&attribute->canon, value))
				isnull = true;
			if (!isnull)
				canon_append_scope(&key, canon_text(&attribute->canon, value));
		}
		if (isnull)
			continue;			/* a null attribute matches nothing */

		candidates = rules_lookup(context->store, scope->scope_id, key.data, key.len);
		for (int j = 0; j < candidates->n; j++)
		{
			RuleCandidate *c = &candidates->items[j];
			RuleVersion *v = applicable_version(c->rule, d->generation, d->order_time, until);

			/* the rule may apply in a version with another scope */
			if (v == NULL || v->version != c->version)
				continue;
			if (n == allocated)
			{
				allocated = Max(4, allocated * 2);
				rules = rules ? repalloc(rules, sizeof(Applicable) * allocated)
					: palloc(sizeof(Applicable) * allocated);
			}
			if (evaluate(source, image, v, context->links.group == NIL || !counts_once(v),
						 &rules[n]))
				n++;
		}
	}
	*result = rules;
	return n;
}

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
		trace(v, "below the minimum", v->minimum, NULL);
		return false;
	}
	result.num = limited(v, exact);
	if (result.num == NULL)
	{
		trace(v, "over the limit", exact, NULL);
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
static int
share_rules(DecideContext *context, OrderImage *image, const Decision *d, Applicable *rules, int n)
{
	List	   *others = context->links.group;
	const Applicable **theirs = palloc(sizeof(Applicable *) * Max(list_length(others), 1));
	int		   *ntheirs = palloc(sizeof(int) * Max(list_length(others), 1));
	DecideTrace tracing = decide_trace;
	bool		any = false;
	int			left = 0;

	for (int i = 0; i < n; i++)
		any |= counts_once(rules[i].version);
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
		ntheirs[i] = find_rules(context, &other->image, &as, &found);
		theirs[i] = found;
	}
	decide_trace = tracing;
	for (int i = 0; i < n; i++)
	{
		if (counts_once(rules[i].version) &&
			!share_rule(image, &rules[i], others, theirs, ntheirs))
			continue;
		rules[left++] = rules[i];
	}
	return left;
}

/* When the clock confirms the order as it stands; false if it does not. */
static bool
confirms_at(DecideContext *context, const Decision *d, TimestampTz *at)
{
	if (!context->source->has_auto_confirm || d->phase != PHASE_PENDING)
		return false;
	*at = decide_local_plus(context->store, d->order_time, &context->source->auto_confirm);
	return true;
}

/* When the clock gives the order up; once revived, it does not again. */
static bool
gives_up_at(DecideContext *context, const Decision *d, TimestampTz *at)
{
	if (!context->source->has_give_up || (d->flags & ORDER_REVIVED) ||
		(d->phase != PHASE_PENDING && d->phase != PHASE_TRACKED))
		return false;
	*at = decide_local_plus(context->store, d->order_time, &context->source->give_up);
	return true;
}

/* When the clock comes to an order that is not confirmed, frozen time not counted */
static bool
next_ageing(DecideContext *context, const Decision *d, TimestampTz *at)
{
	TimestampTz confirm = 0,
				give_up = 0;
	bool		confirms = confirms_at(context, d, &confirm);
	bool		gives_up = gives_up_at(context, d, &give_up);

	*at = confirms && gives_up ? Min(confirm, give_up) : confirms ? confirm : give_up;
	return confirms || gives_up;
}

/*
 * What the clock did to an order, and does now if it is the clock that has it
 * decided.  What comes first is done; a change of the phase revives what was given
 * up.
 */
static void
apply_clock(DecideContext *context, const OrderFacts *facts, Decision *d)
{
	TimestampTz confirm,
				give_up;
	bool		confirms;
	bool		gives_up;

	if (facts->flags & ORDER_GIVEN_UP)
		d->flags |= d->phase == facts->phase ? ORDER_GIVEN_UP : ORDER_REVIVED;
	if ((d->flags & ORDER_AUTO_CONFIRMED) && d->phase == PHASE_PENDING)
		d->phase = PHASE_CONFIRMED;
	if (TIMESTAMP_IS_NOBEGIN(decide_clock) || (d->flags & ORDER_GIVEN_UP))
		return;
	confirms = confirms_at(context, d, &confirm);
	gives_up = gives_up_at(context, d, &give_up);
	if (confirms)
		confirm = freezes_due(&facts->freezes, d->order_time, confirm);
	if (gives_up)
		give_up = freezes_due(&facts->freezes, d->order_time, give_up);
	if (confirms && confirm <= decide_clock && (!gives_up || confirm <= give_up))
	{
		d->flags |= ORDER_AUTO_CONFIRMED;
		d->phase = PHASE_CONFIRMED;
		if (!d->has_confirmed_at)
		{
			d->has_confirmed_at = true;
			d->confirmed_at = confirm;
		}
	}
	else if (gives_up && give_up <= decide_clock)
		d->flags |= ORDER_GIVEN_UP;
}

/* Turn the rules that pay into wishes. */
static void
make_wishes(DecideContext *context, OrderImage *image, Decision *d, Applicable *rules, int n)
{
	Source	   *source = context->source;
	int			sign = arith_sign(image->amount);
	Numeric		refunded = NULL;
	Numeric		net = image->amount;

	/* refunds of a negative row are not read */
	if (sign > 0 && image->refunded && arith_sign(image->refunded) > 0)
	{
		refunded = image->refunded;
		if (arith_cmp(refunded, image->amount) > 0)
		{
			d->flags |= ORDER_OVER_REFUNDED;
			refunded = image->amount;
		}
		net = arith_sub(image->amount, refunded);
	}

	d->wishes = palloc(sizeof(Wish) * n);
	for (int i = 0; i < n; i++)
	{
		RuleVersion *v = rules[i].version;
		Wish	   *wish = &d->wishes[d->nwishes];
		Fraction	exact;

		if (!rules[i].chosen)
			continue;
		memset(wish, 0, sizeof(*wish));
		wish->rule_id = v->rule_id;
		wish->version = v->version;
		wish->expense = v->expense;
		wish->base = rules[i].base;
		if (after_refunds(source, image, &rules[i], refunded, net, &exact) &&
			(!arith_round(exact, image->currency->scale, v->rounding, &wish->amount) ||
			 wish->amount > MAX_REBATE))
		{
			d->nwishes = 0;
			fail(d, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "the rebate is out of range", NULL);
			return;
		}

		if (sign < 0)
		{
			wish->amount = -wish->amount;
			wish->bucket = BUCKET_AVAILABLE;
			if (d->phase == PHASE_TRACKED)
			{
				/* money that may never come is not taken from a member */
				wish->amount = 0;
				d->flags |= ORDER_UNPHASED_RETURN;
			}
		}
		else if (d->phase == PHASE_TRACKED || d->phase == PHASE_PENDING)
		{
			wish->bucket = d->phase == PHASE_TRACKED ? BUCKET_TRACKED : BUCKET_PENDING;
			wish->has_due = next_ageing(context, d, &wish->due);
		}
		else if (v->has_hold)
		{
			wish->bucket = BUCKET_MATURING;
			wish->has_due = true;
			wish->due = decide_local_plus(context->store, d->confirmed_at, &v->hold);
		}
		else
			wish->bucket = BUCKET_AVAILABLE;

		trace(v, wish->amount != 0 ? "pays" : "pays nothing after refunds", rules[i].exact, NULL);
		d->nwishes++;
	}
}

/*
 * A return of another order has no rebate of its own: what it takes is decided
 * with that order.  It takes nothing before it is pending, and once it is void.
 */
static void
decide_return(DecideContext *context, OrderImage *image, Decision *d)
{
	d->flags |= ORDER_RETURN;
	if (strcmp(image->original, image->key) == 0)
		fail(d, ERRCODE_RB_ORDER_FAILED, "an order cannot return itself", NULL);
	else if (arith_sign(image->amount) > 0)
		fail(d, ERRCODE_RB_ORDER_FAILED, "the amount of a return is positive",
			 psprintf("It returns order %s.", image->original));
	else if (context->links.original == ORIGINAL_IS_RETURN)
		fail(d, ERRCODE_RB_ORDER_FAILED, "the order that it returns is a return itself",
			 psprintf("It returns order %s.", image->original));
	else if (context->links.original == ORIGINAL_OTHER_CURRENCY)
		fail(d, ERRCODE_RB_ORDER_FAILED, "the order that it returns is in another currency",
			 psprintf("It returns order %s.", image->original));
	else if (image->phase == PHASE_TRACKED)
		d->flags |= ORDER_UNPHASED_RETURN;
	else if (image->phase != PHASE_VOID && arith_sign(image->amount) < 0)
	{
		d->original = image->original;
		d->currency = *image->currency;
		d->returned = arith_abs(image->amount);
		if (image->quantity)
			d->returned_quantity = arith_abs(image->quantity);
	}
}

/* What other rows return of an order counts as refunded, with what its own row says. */
static void
add_returned(OrderImage *image, const OrderLinks *links)
{
	if (links->returned)
		image->refunded = image->refunded ?
			arith_add(image->refunded, links->returned) : links->returned;
	if (links->returned_quantity)
		image->refunded_quantity = image->refunded_quantity ?
			arith_add(image->refunded_quantity, links->returned_quantity) :
			links->returned_quantity;
}

/*
 * Decide an order.  "image" is NULL when its row is gone.  The result is in the
 * current memory context and may point into the image.  Raises only what
 * expressions raise.
 */
Decision *
decide(DecideContext *context, OrderImage *image, OrderFacts *facts)
{
	Decision   *d = palloc0(sizeof(Decision));
	Applicable *rules;
	bool		known = facts->seen || facts->deferred;
	bool		too_old = false;
	int			n;

	/* at its first evaluation an order inherits the facts of what it was split from */
	if (known || !context->links.root_known)
	{
		d->generation = known ? facts->generation : context->generation;
		d->first_seen = known ? facts->first_seen : context->now;
	}
	else
	{
		d->generation = context->links.generation;
		d->first_seen = context->links.first_seen;
	}
	d->order_time = facts->seen ? facts->order_time : d->first_seen;
	d->has_confirmed_at = facts->has_confirmed_at;
	d->confirmed_at = facts->confirmed_at;
	d->phase = PHASE_VOID;
	d->flags = facts->flags & (ORDER_BEFORE_ATTACHMENT | ORDER_AUTO_CONFIRMED | ORDER_REVIVED);

	if (!facts->seen && (context->old_order || context->links.root_before))
		d->flags |= ORDER_BEFORE_ATTACHMENT;
	if (image && !context->source->broken)
	{
		d->has_row = true;
		d->replaces = image->replaces;
	}

	if (image == NULL)
	{
		if (context->archived)
		{
			d->keep = true;
			d->phase = facts->seen ? facts->phase : PHASE_VOID;
			d->flags = facts->flags | d->flags | ORDER_ARCHIVED;
		}
		else
			d->flags |= ORDER_DELETED;
		return d;
	}

	if (image->has_order_time)
	{
		d->order_time = image->order_time;
		too_old = image->order_time < context->source->since;
		/* that an order was old when it was first evaluated is a fact */
		if (too_old && !facts->seen && !context->known_new)
			d->flags |= ORDER_BEFORE_ATTACHMENT;
	}
	else if (!context->source->has_order_time)
		d->order_time = d->first_seen;

	if (d->flags & ORDER_BEFORE_ATTACHMENT)
		return d;

	d->phase = facts->seen ? facts->phase : PHASE_VOID;
	if (image->sqlerrcode != 0)
	{
		fail(d, image->sqlerrcode, image->error, image->error_detail);
		return d;
	}
	if (context->links.cycle)
	{
		fail(d, ERRCODE_RB_ORDER_FAILED, "what it replaces leads back to it", NULL);
		return d;
	}
	if (!order_time_allowed(context, image, facts, d))
		return d;

	d->phase = image->phase;
	if (image->has_confirmed_at)
	{
		d->has_confirmed_at = true;
		d->confirmed_at = image->confirmed_at;
	}
	if (d->phase == PHASE_TRACKED || d->phase == PHASE_PENDING || (facts->flags & ORDER_GIVEN_UP))
		apply_clock(context, facts, d);
	if (d->phase == PHASE_CONFIRMED && !d->has_confirmed_at)
	{
		d->has_confirmed_at = true;
		d->confirmed_at = facts->deferred ? facts->touched_at : context->now;
	}

	if (too_old)
		d->flags |= ORDER_TOO_OLD;
	if (image->original)
	{
		if (!too_old)
			decide_return(context, image, d);
		return d;
	}
	if (image->member == NULL)
	{
		d->flags |= ORDER_GUEST;
		return d;
	}
	add_returned(image, &context->links);
	if (d->phase == PHASE_VOID || too_old || arith_sign(image->amount) == 0 ||
		(d->flags & ORDER_GIVEN_UP))
		return d;

	n = find_rules(context, image, d, &rules);
	if (context->links.group != NIL)
		n = share_rules(context, image, d, rules, n);
	if (n == 0)
	{
		d->flags |= ORDER_NO_RULE;
		return d;
	}
	choose(rules, n);
	d->member = image->member;
	d->currency = *image->currency;
	make_wishes(context, image, d, rules, n);
	return d;
}

/* Deep copy of a decision into the current context. */
Decision *
copy_decision(const Decision *d)
{
	Decision   *copy = palloc(sizeof(Decision));

	*copy = *d;
	if (d->member)
		copy->member = pstrdup(d->member);
	if (d->error)
		copy->error = pstrdup(d->error);
	if (d->error_detail)
		copy->error_detail = pstrdup(d->error_detail);
	if (d->original)
	{
		copy->original = pstrdup(d->original);
		copy->returned = DatumGetNumericCopy(NumericGetDatum(d->returned));
		if (d->returned_quantity)
			copy->returned_quantity =
				DatumGetNumericCopy(NumericGetDatum(d->returned_quantity));
	}
	if (d->replaces)
		copy->replaces = pstrdup(d->replaces);
	copy->wishes = NULL;
	if (d->nwishes > 0)
	{
		copy->wishes = palloc(sizeof(Wish) * d->nwishes);
		for (int i = 0; i < d->nwishes; i++)
		{
			copy->wishes[i] = d->wishes[i];
			if (d->wishes[i].base)
				copy->wishes[i].base = DatumGetNumericCopy(NumericGetDatum(d->wishes[i].base));
		}
	}
	return copy;
}
