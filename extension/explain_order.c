/*
 * explain_order.c
 *	  The lines about the order itself, for explain() and preview().
 */
#include "rebate.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "arith.h"
#include "explain_internal.h"
#include "links.h"

/* Lines about returns of the order; beyond, their number */
#define MAX_RETURN_LINES 20

/* Other orders of its group named in its line */
#define MAX_GROUP_KEYS 10

void
explain_line(Explain *e, const char *topic, const char *subject, const char *outcome,
			 Numeric amount, const char *detail)
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

void
explain_remark(StringInfo buf, const char *format,...)
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

Numeric
explain_number(Numeric value, int scale)
{
	Datum		result = DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(value));

	if (scale > 0 && DatumGetInt32(DirectFunctionCall1(numeric_scale, result)) < scale)
		result = DirectFunctionCall2(numeric_round, result, Int32GetDatum(scale));
	return DatumGetNumeric(result);
}

char *
explain_number_text(Numeric value, int scale)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(explain_number(value, scale))));
}

char *
explain_time_text(TimestampTz t)
{
	return DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(t)));
}

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
		explain_remark(detail, "%s", text);
	return text != NULL;
}

static void
error_text(StringInfo detail, int sqlerrcode, const char *message, const char *more)
{
	explain_remark(detail, "%s: %s", unpack_sql_state(sqlerrcode), message);
	if (more)
		appendStringInfo(detail, " (%s)", more);
}

/* The returns of an order, each with what it takes */
static void
explain_returns(Explain *e)
{
	List	   *returns = links_to(e->store, e->source->source_id, e->key, LINK_RETURN,
								   e->snapshot);
	int			n = 0;
	ListCell   *lc;

	foreach(lc, returns)
	{
		Link	   *link = lfirst(lc);

		if (n++ == MAX_RETURN_LINES)
		{
			explain_line(e, "order", NULL,
						 psprintf("%d more", list_length(returns) - MAX_RETURN_LINES), NULL,
						 "returns are not all shown");
			break;
		}
		explain_line(e, "order", link->key, "return of it", explain_number(link->amount, e->scale),
					 link->quantity ? psprintf("quantity %s", explain_number_text(link->quantity, 0)) : NULL);
	}
}

/* With which orders the order shares what counts once for all of them */
static void
explain_group(Explain *e, StringInfo detail)
{
	const OrderPeers *peers = e->links.peers;
	int			shown = 0;

	for (int i = 0; peers && i < peers->n && shown < MAX_GROUP_KEYS; i++)
	{
		const char *key = peers->members[i].key;

		if (strcmp(key, e->key) != 0)
			explain_remark(detail, shown++ == 0 ?
						   "fixed amounts, minimums and limits shared with order %s" : "%s", key);
	}
	if (peers && peers->n - 1 > shown)
		explain_remark(detail, "%d more", peers->n - 1 - shown);
}

/*
 * The line of the order itself, and that of its refunds.  Returns whether its
 * rules were looked at.
 */
bool
explain_order(Explain *e, ErrorData *error)
{
	OrderFacts *facts = &e->facts;
	OrderImage *image = e->image_read ? &e->image : NULL;
	Decision   *d = e->decision;
	bool		readable = image && image->sqlerrcode == 0;
	bool		erased = error == NULL && d && (d->flags & ORDER_ERASED);
	bool		looked = false;
	const char *outcome;
	StringInfoData detail;

	initStringInfo(&detail);
	if (!facts->seen && !facts->deferred && !e->preview)
	{
		outcome = "not seen";
		explain_remark(&detail, e->row_there ? "the row came while nothing was collected" :
					   "there is no such row");
	}
	else if (erased)
	{
		outcome = "erased";
		explain_remark(&detail, ORDER_IS_SETTLED(d->flags) ?
					   "what was posted before its member was erased stays" :
					   "its member is erased: it earns nothing");
		if (!e->row_there)
			explain_remark(&detail, "its row is gone");
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
	else if (d->flags & ORDER_BEFORE_ATTACHMENT)
	{
		outcome = "before attachment";
		explain_remark(&detail, "an old order earns nothing");
		if (!e->row_there)
			explain_remark(&detail, "its row is gone");
	}
	else if (!e->row_there)
	{
		outcome = "deleted";
		if (facts->flags & ORDER_ARCHIVED)
			explain_remark(&detail, "its rebates stay");
	}
	else if (d->flags & ORDER_RETURN)
	{
		outcome = d->phase == PHASE_VOID ? "void" :
			d->original && e->links.original == ORIGINAL_MISSING ? "waits for its original" : "return";
		explain_remark(&detail, "returns order %s", image->original);
		if (d->flags & ORDER_UNPHASED_RETURN)
			explain_remark(&detail, "a return takes nothing before it is pending");
		else if (arith_sign(image->amount) == 0)
			explain_remark(&detail, "an amount of zero takes nothing");
	}
	else if (d->flags & ORDER_GUEST)
		outcome = "guest";
	else if (d->phase == PHASE_VOID)
		outcome = "void";
	else if (d->flags & ORDER_GIVEN_UP)
	{
		outcome = "given up";
		explain_remark(&detail, "by the clock, until its phase changes");
	}
	else
	{
		looked = arith_sign(image->amount) != 0;
		outcome = d->nwishes > 0 ? "accrued" : "no rule";
		if (!looked)
			explain_remark(&detail, "an amount of zero earns nothing");
		if (d->flags & ORDER_UNPHASED_RETURN)
			explain_remark(&detail, "a return takes nothing before it is pending");
	}

	if (e->links.root)
		explain_remark(&detail, "split from order %s", e->links.root);
	explain_group(e, &detail);
	if (image && image->member && !erased)
		explain_remark(&detail, "member %s", image->member);
	if (image && image->currency)
		explain_remark(&detail, "currency %s", image->currency->code);
	if (readable)
		explain_remark(&detail, "phase %s", phase_name(image->phase));
	else if (facts->seen)
		explain_remark(&detail, "phase %s", phase_name(facts->phase));
	if (d && (d->flags & ORDER_AUTO_CONFIRMED))
		explain_remark(&detail, "confirmed by the clock");
	if (readable && image->quantity)
		explain_remark(&detail, "quantity %s", explain_number_text(image->quantity, 0));
	if (facts->seen || d)
	{
		explain_remark(&detail, "generation %d of the rules",
					   facts->seen ? facts->generation : d->generation);
		explain_remark(&detail, "order time %s",
					   explain_time_text(facts->seen ? facts->order_time : d->order_time));
		if (!e->preview)
			explain_remark(&detail, "first seen %s", explain_time_text(facts->first_seen));
		if (facts->has_confirmed_at)
			explain_remark(&detail, "confirmed %s", explain_time_text(facts->confirmed_at));
	}
	/* decided, but not posted yet */
	if (facts->deferred && !facts->seen)
		outcome = "deferred";
	if (facts->deferred)
		explain_remark(&detail, "touched %s while orders were deferred, waits for rebate.reconcile()",
					   explain_time_text(facts->touched_at));
	explain_line(e, "order", e->key, outcome,
				 image && image->amount ? explain_number(image->amount, e->scale) : NULL, detail.data);

	if (readable && ((image->refunded && arith_sign(image->refunded) > 0) ||
					 (image->refunded_quantity && arith_sign(image->refunded_quantity) > 0)))
	{
		int			cmp = image->refunded ? arith_cmp(image->refunded, image->amount) : -1;

		resetStringInfo(&detail);
		if (arith_sign(image->amount) <= 0)
		{
			outcome = "not read";
			explain_remark(&detail, "refunds of a return are not read");
		}
		else
		{
			outcome = cmp > 0 ? "refunded too much" : cmp == 0 ? "refunded in full" : "refunded in part";
			if (cmp > 0)
				explain_remark(&detail, "counts as %s", explain_number_text(image->amount, e->scale));
			else if (image->refunded && cmp < 0)
				explain_remark(&detail, "%s of %s left",
							   explain_number_text(arith_sub(image->amount, image->refunded), e->scale),
							   explain_number_text(image->amount, e->scale));
		}
		if (image->refunded_quantity && image->quantity)
			explain_remark(&detail, "quantity %s of %s", explain_number_text(image->refunded_quantity, 0),
						   explain_number_text(image->quantity, 0));
		if (e->links.returned)
			explain_remark(&detail, "%s of it by returns",
						   explain_number_text(e->links.returned, e->scale));
		explain_line(e, "order", e->key, outcome,
					 image->refunded ? explain_number(image->refunded, e->scale) : NULL, detail.data);
	}
	if (e->links.returned)
		explain_returns(e);
	return looked;
}
