/*
 * decide_group.c
 *	  Rules whose result is one for all orders that were split from the same one.
 *
 * Such a rule is judged once for all orders that it applies to, and each gets its
 * share.  The others are judged by the facts of the order that is decided, which
 * are mostly those of all of them: what was found then serves them all.
 */
#include "rebate.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "decide_internal.h"
#include "links.h"

/* A rule that applies to one of the orders, and what it pays alone */
typedef struct PeerRule
{
	int32		rule_id;
	int32		version;
	Numeric		exact;			/* before minimum and limit */
} PeerRule;

/* What a rule gives the orders together */
typedef struct GroupShare
{
	int32		rule_id;
	int32		version;
	const char *refused;		/* why it pays nothing; NULL: it pays */
	Numeric		amount;			/* that goes with it */
	int			n;				/* orders that it applies to */
	Numeric    *parts;			/* by the place of the order; NULL: not allocated */
	Numeric		whole;			/* what is not allocated */
} GroupShare;

/* The orders as they are judged by the facts of one of them */
typedef struct GroupView
{
	int32		generation;
	TimestampTz order_time;		/* where none is mapped */
	int			njudged;		/* rules are found of so many orders */
	List	  **rules;			/* of PeerRule, by the place of the order */
	List	   *shares;			/* of GroupShare */
} GroupView;

/* The view that an order has of its peers */
static GroupView *
find_view(OrderPeers *peers, int32 generation, TimestampTz order_time)
{
	MemoryContext old;
	GroupView  *view;
	ListCell   *lc;

	foreach(lc, peers->views)
	{
		view = lfirst(lc);
		if (view->generation == generation && view->order_time == order_time)
			return view;
	}
	old = MemoryContextSwitchTo(peers->context);
	view = palloc0(sizeof(GroupView));
	view->generation = generation;
	view->order_time = order_time;
	view->rules = palloc0(sizeof(List *) * peers->n);
	peers->views = lappend(peers->views, view);
	MemoryContextSwitchTo(old);
	return view;
}

static Numeric
keep_number(MemoryContext context, Numeric number)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Numeric		result = DatumGetNumericCopy(NumericGetDatum(number));

	MemoryContextSwitchTo(old);
	return result;
}

/* Remember which of the rules found for an order count once. */
static List *
keep_rules(MemoryContext context, const Applicable *found, int n)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *result = NIL;

	for (int i = 0; i < n; i++)
	{
		PeerRule   *rule;

		if (!decide_counts_once(found[i].version))
			continue;
		rule = palloc(sizeof(PeerRule));
		rule->rule_id = found[i].version->rule_id;
		rule->version = found[i].version->version;
		rule->exact = keep_number(context, found[i].exact);
		result = lappend(result, rule);
	}
	MemoryContextSwitchTo(old);
	return result;
}

/*
 * Find the rules of all orders, from where an earlier call came to: one whose
 * expressions raise stops it, and fails whoever asks.
 */
static void
judge_peers(DecideContext *context, OrderPeers *peers, GroupView *view)
{
	DecideTrace tracing = decide_trace;

	/* the rules of others are theirs to tell */
	decide_trace = NULL;
	for (; view->njudged < peers->n; view->njudged++)
	{
		GroupMember *m = &peers->members[view->njudged];
		Decision	as = {.generation = view->generation};
		Applicable *found;
		int			n;

		CHECK_FOR_INTERRUPTS();
		as.order_time = m->image.has_order_time ? m->image.order_time : view->order_time;
		n = decide_find_rules(context, &m->image, &as, &found);
		view->rules[view->njudged] = keep_rules(peers->context, found, n);
	}
	decide_trace = tracing;
}

static PeerRule *
find_rule(GroupView *view, int place, const RuleVersion *v)
{
	ListCell   *lc;

	foreach(lc, view->rules[place])
	{
		PeerRule   *rule = lfirst(lc);

		if (rule->rule_id == v->rule_id && rule->version == v->version)
			return rule;
	}
	return NULL;
}

/* An order's part while an amount is allocated */
typedef struct Part
{
	int			place;
	int64		units;
	Numeric		rest;
} Part;

/* By largest rest, ties by key */
static int
compare_parts(const void *a, const void *b)
{
	const Part *x = a;
	const Part *y = b;
	int			cmp = arith_cmp(y->rest, x->rest);

	return cmp != 0 ? cmp : x->place - y->place;
}

/*
 * Allocate "whole" minor units by amount: truncate, then one unit each by largest
 * fraction.
 */
static void
allocate(OrderPeers *peers, GroupView *view, const RuleVersion *v, int64 whole, Numeric total,
		 GroupShare *share)
{
	Part	   *parts = palloc(sizeof(Part) * share->n);
	int64		left = whole;
	int			n = 0;

	for (int i = 0; i < peers->n; i++)
	{
		Datum		product;
		Datum		units;

		if (find_rule(view, i, v) == NULL)
			continue;
		product = NumericGetDatum(arith_mul(arith_from_int64(whole),
											arith_abs(peers->members[i].image.amount)));
		units = DirectFunctionCall2(numeric_div_trunc, product, NumericGetDatum(total));
		parts[n].place = i;
		parts[n].units = DatumGetInt64(DirectFunctionCall1(numeric_int8, units));
		parts[n].rest = DatumGetNumeric(DirectFunctionCall2(numeric_mod, product,
															NumericGetDatum(total)));
		left -= parts[n++].units;
	}
	qsort(parts, n, sizeof(Part), compare_parts);
	share->parts = MemoryContextAllocZero(peers->context, sizeof(Numeric) * peers->n);
	for (int i = 0; i < n; i++)
		share->parts[parts[i].place] =
			keep_number(peers->context,
						int64_div_fast_to_numeric(parts[i].units + (i < left ? 1 : 0),
												  peers->currency->scale));
	pfree(parts);
}

/* Judge a rule once for the orders that it applies to. */
static void
judge_share(OrderPeers *peers, GroupView *view, RuleVersion *v, GroupShare *share)
{
	Numeric		total = arith_from_int64(0);
	Numeric		exact = v->formula == FORMULA_FIXED ? v->rate : arith_from_int64(0);
	Fraction	result = {0};
	int64		whole;

	for (int i = 0; i < peers->n; i++)
	{
		PeerRule   *rule = find_rule(view, i, v);

		if (rule == NULL)
			continue;
		share->n++;
		total = arith_add(total, arith_abs(peers->members[i].image.amount));
		if (v->formula != FORMULA_FIXED)
			exact = arith_add(exact, rule->exact);
	}
	if (v->minimum && arith_cmp(total, v->minimum) < 0)
	{
		share->refused = "below the minimum";
		share->amount = keep_number(peers->context, v->minimum);
		return;
	}
	result.num = decide_limited(v, exact);
	if (result.num == NULL)
	{
		share->refused = "over the limit";
		share->amount = keep_number(peers->context, exact);
		return;
	}
	share->whole = keep_number(peers->context, result.num);
	/* what is out of range is told when the wish is made */
	if (share->n > 1 && arith_round(result, peers->currency->scale, v->rounding, &whole))
		allocate(peers, view, v, whole, total, share);
}

static GroupShare *
find_share(OrderPeers *peers, GroupView *view, RuleVersion *v)
{
	MemoryContext old;
	GroupShare *share;
	ListCell   *lc;

	foreach(lc, view->shares)
	{
		share = lfirst(lc);
		if (share->rule_id == v->rule_id && share->version == v->version)
			return share;
	}
	share = MemoryContextAllocZero(peers->context, sizeof(GroupShare));
	share->rule_id = v->rule_id;
	share->version = v->version;
	judge_share(peers, view, v, share);
	old = MemoryContextSwitchTo(peers->context);
	view->shares = lappend(view->shares, share);
	MemoryContextSwitchTo(old);
	return share;
}

/* What an order gets of what the orders get together */
static Numeric
part_of(const OrderPeers *peers, const GroupShare *share, const char *key)
{
	int			place = order_peers_find(peers, key);

	if (share->parts == NULL)
		return share->whole;
	if (place < 0 || share->parts[place] == NULL)
		elog(ERROR, "order %s has no share of rule %d", key, share->rule_id);
	return share->parts[place];
}

/*
 * What counts once for all orders that were split from the same one: replace the
 * order's own result by its share; the rules that are left.
 */
int
decide_share_rules(DecideContext *context, OrderImage *image, const Decision *d,
				   Applicable *rules, int n)
{
	OrderPeers *peers = context->links.peers;
	GroupView  *view = NULL;
	int			left = 0;

	for (int i = 0; i < n; i++)
	{
		RuleVersion *v = rules[i].version;
		GroupShare *share;

		if (decide_counts_once(v))
		{
			if (view == NULL)
			{
				view = find_view(peers, d->generation,
								 context->source->has_order_time ? 0 : d->first_seen);
				judge_peers(context, peers, view);
			}
			share = find_share(peers, view, v);
			if (share->refused)
			{
				decide_tell(v, share->refused, share->amount, NULL);
				continue;
			}
			rules[i].shared = share->n > 1;
			rules[i].exact = part_of(peers, share, image->key);
		}
		rules[left++] = rules[i];
	}
	return left;
}
