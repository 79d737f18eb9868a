/*
 * decide_internal.h
 *	  What the modules share that decide an order.
 */
#ifndef REBATE_DECIDE_INTERNAL_H
#define REBATE_DECIDE_INTERNAL_H

#include "arith.h"
#include "order.h"
#include "rules.h"

/* A rule that applies to the order, and what it pays before refunds */
typedef struct Applicable
{
	RuleVersion *version;
	Numeric		base;			/* V, absolute; NULL: not a percentage */
	Numeric		exact;			/* A, absolute, after the limit */
	bool		chosen;
	bool		shared;			/* its part of what the orders of its group get together */
} Applicable;

/* decide.c: what is posted stays, and the order is set aside */
extern void decide_fail(Decision *d, int sqlerrcode, const char *error, const char *detail);

/* decide_time.c: rules on how far from now an order time may be; false: it failed */
extern bool decide_time_allowed(DecideContext *context, OrderImage *image, OrderFacts *facts,
								Decision *d);

/* When the clock comes to an order that is not confirmed, frozen time not counted */
extern bool decide_next_ageing(DecideContext *context, const Decision *d, TimestampTz *at);

/* What the clock did to an order, and does now if it is the clock that has it decided */
extern void decide_by_clock(DecideContext *context, const OrderFacts *facts, Decision *d);

/* decide_rules.c: the rules that apply; of "d" only generation and order time are read */
extern int	decide_find_rules(DecideContext *context, OrderImage *image, Decision *d,
							  Applicable **result);

/* Set the order aside if a rule that paid is lost because the table changed */
extern bool decide_scope_lost(DecideContext *context, const OrderFacts *facts, Decision *d,
							  const Applicable *rules, int n);

/* Mark the rules that pay: all of a stack, one of an exclusive group */
extern void decide_choose(Applicable *rules, int n);

/* Whether a rule's result is one for all orders that were split from the same one */
extern bool decide_counts_once(const RuleVersion *v);

/* Apply max_per_order to an exact result; NULL if the limit rejects it */
extern Numeric decide_limited(RuleVersion *v, Numeric exact);

/* Tell whoever explains the order what became of a rule */
extern void decide_tell(RuleVersion *v, const char *outcome, Numeric amount, const char *detail);

/* decide_group.c: replace what counts once by the order's share; the rules that are left */
extern int	decide_share_rules(DecideContext *context, OrderImage *image, const Decision *d,
							   Applicable *rules, int n);

/* decide_wishes.c: turn the rules that pay into wishes */
extern void decide_wishes(DecideContext *context, OrderImage *image, Decision *d,
						  Applicable *rules, int n);

#endif							/* REBATE_DECIDE_INTERNAL_H */
