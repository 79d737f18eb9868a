/*
 * decide_wishes.c
 *	  What the rules that pay come to: after refunds, rounded, and in which bucket.
 */
#include "rebate.h"

#include "decide_internal.h"

/*
 * The largest rebate, in minor units: thousands of them fit into a balance, so
 * that one mistyped order does not block its member.
 */
#define MAX_REBATE INT64CONST(1000000000000000)

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

/*
 * What is refunded of an order, NULL if nothing, and what is left.  More than all
 * counts as all; refunds of a negative row are not read.
 */
static Numeric
refunded_of(OrderImage *image, Decision *d, Numeric *net)
{
	Numeric		refunded = image->refunded;

	*net = image->amount;
	if (arith_sign(image->amount) < 0 || refunded == NULL || arith_sign(refunded) <= 0)
		return NULL;
	if (arith_cmp(refunded, image->amount) > 0)
	{
		d->flags |= ORDER_OVER_REFUNDED;
		refunded = image->amount;
	}
	*net = arith_sub(image->amount, refunded);
	return refunded;
}

/* Where the money of a positive order stands, and what it waits for */
static void
place_wish(DecideContext *context, const Decision *d, RuleVersion *v, Wish *wish)
{
	if (d->phase == PHASE_TRACKED || d->phase == PHASE_PENDING)
	{
		wish->bucket = d->phase == PHASE_TRACKED ? BUCKET_TRACKED : BUCKET_PENDING;
		wish->has_due = decide_next_ageing(context, d, &wish->due);
	}
	else if (v->has_hold)
	{
		wish->bucket = BUCKET_MATURING;
		wish->has_due = true;
		wish->due = decide_local_plus(context->store, d->confirmed_at, &v->hold);
	}
	else
	{
		wish->bucket = BUCKET_AVAILABLE;
		wish->at_once = true;
	}
}

/* A negative row takes from what is available, at once */
static void
negate_wish(Decision *d, Wish *wish)
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

/*
 * Turn the rules that pay into wishes.  One that is out of range fails the order.
 */
void
decide_wishes(DecideContext *context, OrderImage *image, Decision *d, Applicable *rules, int n)
{
	Numeric		net;
	Numeric		refunded = refunded_of(image, d, &net);

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
		if (after_refunds(context->source, image, &rules[i], refunded, net, &exact) &&
			(!arith_round(exact, image->currency->scale, v->rounding, &wish->amount) ||
			 wish->amount > MAX_REBATE))
		{
			d->nwishes = 0;
			decide_fail(d, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "the rebate is out of range", NULL);
			return;
		}
		if (arith_sign(image->amount) < 0)
			negate_wish(d, wish);
		else
			place_wish(context, d, v, wish);
		decide_tell(v, wish->amount != 0 ? "pays" : "pays nothing after refunds", rules[i].exact,
					NULL);
		d->nwishes++;
	}
}
