/*
 * decide_time.c
 *	  What time means for an order: how far from now it may be, and what the
 *	  clock makes of one that nobody confirmed.
 */
#include "rebate.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "decide_internal.h"

TimestampTz decide_clock = DT_NOBEGIN;

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
bool
decide_time_allowed(DecideContext *context, OrderImage *image, OrderFacts *facts, Decision *d)
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
			decide_fail(d, ERRCODE_RB_ORDER_FAILED, "the order time is too far back",
				 "It is further back than max_backdate allows.");
			return false;
		}
	}
	if (source->has_max_future && image->order_time > context->now)
	{
		TimestampTz limit = decide_local_plus(context->store, context->now, &source->max_future);

		if (image->order_time > limit)
		{
			decide_fail(d, ERRCODE_RB_ORDER_FAILED, "the order time is too far ahead",
				 "It is further ahead than max_future allows.");
			return false;
		}
	}
	return true;
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
bool
decide_next_ageing(DecideContext *context, const Decision *d, TimestampTz *at)
{
	TimestampTz confirm = 0,
				give_up = 0;
	bool		confirms = confirms_at(context, d, &confirm);
	bool		gives_up = gives_up_at(context, d, &give_up);

	*at = confirms && gives_up ? Min(confirm, give_up) : confirms ? confirm : give_up;
	return confirms || gives_up;
}

/*
 * The clock stands still for a frozen order: what it waits for comes later.  A
 * rebate without a hold is due when its order is confirmed.  Once that was ever
 * frozen it waits for the clock like the others, so that where it stands does not
 * depend on whether it was decided before the freeze ended or after.
 */
void
decide_frozen(const OrderFacts *facts, Decision *d)
{
	const Freezes *freezes = &facts->freezes;

	for (int i = 0; i < d->nwishes && freezes->n > 0; i++)
	{
		Wish	   *wish = &d->wishes[i];

		if (wish->at_once && wish->amount > 0)
		{
			wish->bucket = BUCKET_MATURING;
			wish->has_due = true;
			wish->due = d->confirmed_at;
		}
		if (wish->has_due)
			wish->due = freezes_due(freezes, wish->bucket == BUCKET_MATURING ?
									d->confirmed_at : d->order_time, wish->due);
	}
}

/*
 * What the clock did to an order, and does now if it is the clock that has it
 * decided.  What comes first is done; a change of the phase revives what was given
 * up.
 */
void
decide_by_clock(DecideContext *context, const OrderFacts *facts, Decision *d)
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
