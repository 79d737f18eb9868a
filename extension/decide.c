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

#include "decide_internal.h"

/* What is posted stays, and the order is set aside. */
void
decide_fail(Decision *d, int sqlerrcode, const char *error, const char *detail)
{
	d->keep = d->failed = true;
	d->flags |= ORDER_FAILED;
	d->sqlerrcode = sqlerrcode;
	d->error = error;
	d->error_detail = detail;
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
		decide_fail(d, ERRCODE_RB_ORDER_FAILED, "an order cannot return itself", NULL);
	else if (arith_sign(image->amount) > 0)
		decide_fail(d, ERRCODE_RB_ORDER_FAILED, "the amount of a return is positive",
			 psprintf("It returns order %s.", image->original));
	else if (context->links.original == ORIGINAL_IS_RETURN)
		decide_fail(d, ERRCODE_RB_ORDER_FAILED, "the order that it returns is a return itself",
			 psprintf("It returns order %s.", image->original));
	else if (context->links.original == ORIGINAL_OTHER_CURRENCY)
		decide_fail(d, ERRCODE_RB_ORDER_FAILED, "the order that it returns is in another currency",
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
 * The facts that a decision rests on, as they are recorded, or as they are at the
 * first evaluation: then an order inherits those of what it was split from.
 */
static Decision *
decision_from_facts(DecideContext *context, OrderImage *image, OrderFacts *facts)
{
	Decision   *d = palloc0(sizeof(Decision));
	bool		known = facts->seen || facts->deferred;

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
	return d;
}

/*
 * The member is erased whose order it was: nothing that its row says, or the shop
 * does with it, moves any money.
 */
void
decide_settled(const OrderFacts *facts, Decision *d)
{
	d->keep = true;
	d->failed = false;
	d->phase = facts->phase;
	d->flags = facts->flags;
}

/* The row of an order is gone: its money goes with it, or stays for good. */
static void
decide_gone(DecideContext *context, OrderFacts *facts, Decision *d)
{
	if (context->archived)
	{
		d->keep = true;
		d->phase = facts->seen ? facts->phase : PHASE_VOID;
		d->flags = facts->flags | d->flags | ORDER_ARCHIVED;
	}
	else
		d->flags |= ORDER_DELETED;
}

/* The time of an order; returns whether its row is of before the attachment. */
static bool
decide_order_time(DecideContext *context, OrderImage *image, OrderFacts *facts, Decision *d)
{
	bool		too_old = false;

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
	return too_old;
}

/* Whether the row can be judged at all; if not, the order is set aside. */
static bool
decide_readable(DecideContext *context, OrderImage *image, OrderFacts *facts, Decision *d)
{
	if (image->sqlerrcode != 0)
		decide_fail(d, image->sqlerrcode, image->error, image->error_detail);
	else if (context->links.cycle)
		decide_fail(d, ERRCODE_RB_ORDER_FAILED, "what it replaces leads back to it", NULL);
	else
		return decide_time_allowed(context, image, facts, d);
	return false;
}

/* Where the order stands: what its row says, and what the clock did to it */
static void
decide_phase(DecideContext *context, OrderImage *image, OrderFacts *facts, Decision *d)
{
	d->phase = image->phase;
	if (image->has_confirmed_at)
	{
		d->has_confirmed_at = true;
		d->confirmed_at = image->confirmed_at;
	}
	if (d->phase == PHASE_TRACKED || d->phase == PHASE_PENDING || (facts->flags & ORDER_GIVEN_UP))
		decide_by_clock(context, facts, d);
	if (d->phase == PHASE_CONFIRMED && !d->has_confirmed_at)
	{
		d->has_confirmed_at = true;
		d->confirmed_at = facts->deferred ? facts->touched_at : context->now;
	}
}

/* What the rules pay for an order that counts */
static void
decide_money(DecideContext *context, OrderImage *image, OrderFacts *facts, Decision *d)
{
	Applicable *rules;
	int			n = decide_find_rules(context, image, d, &rules);

	if (facts->nrows > 0 && decide_scope_lost(context, facts, d, rules, n))
		return;
	if (context->links.peers)
		n = decide_share_rules(context, image, d, rules, n);
	if (n == 0)
	{
		d->flags |= ORDER_NO_RULE;
		return;
	}
	decide_choose(rules, n);
	d->member = image->member;
	d->currency = *image->currency;
	decide_wishes(context, image, d, rules, n);
}

/*
 * Decide an order.  "image" is NULL when its row is gone.  The result is in the
 * current memory context and may point into the image.  Raises only what
 * expressions raise.
 */
Decision *
decide(DecideContext *context, OrderImage *image, OrderFacts *facts)
{
	Decision   *d = decision_from_facts(context, image, facts);
	bool		too_old;

	if (ORDER_IS_SETTLED(facts->flags))
	{
		decide_settled(facts, d);
		return d;
	}
	if (image == NULL)
	{
		decide_gone(context, facts, d);
		return d;
	}
	too_old = decide_order_time(context, image, facts, d);
	if (d->flags & ORDER_BEFORE_ATTACHMENT)
		return d;
	/* a row that cannot be judged leaves the order where it stood */
	d->phase = facts->seen ? facts->phase : PHASE_VOID;
	if (image->erased)
	{
		d->flags |= ORDER_ERASED;
		return d;
	}
	if (!decide_readable(context, image, facts, d))
		return d;
	decide_phase(context, image, facts, d);

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
	if (d->phase != PHASE_VOID && !too_old && arith_sign(image->amount) != 0 &&
		!(d->flags & ORDER_GIVEN_UP))
		decide_money(context, image, facts, d);
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
