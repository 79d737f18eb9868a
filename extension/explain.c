/*
 * explain.c
 *	  rebate.explain(): one order, decided once more with every rule that was
 *	  looked at, and what the ledger has of it.  Writes nothing.
 *
 * The decision is the engine's own: decide() reports the rules it meets.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "archive.h"
#include "explain_internal.h"
#include "guard.h"
#include "links.h"
#include "read.h"
#include "rights.h"
#include "rules.h"

PG_FUNCTION_INFO_V1(rebate_explain);

/* A DecideTrace: remember a rule that decide() met. */
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

ErrorData *
explain_decide(Explain *e, void (*decide_order) (void *arg))
{
	ErrorData  *volatile error = NULL;

	decide_trace = keep_trace;
	decide_trace_arg = e;
	PG_TRY();
	{
		error = run_guarded(e->store, decide_order, e);
	}
	PG_FINALLY();
	{
		decide_trace = NULL;
		decide_trace_arg = NULL;
	}
	PG_END_TRY();
	return error;
}

/* Decide the order from its row as it is now; runs under guard. */
static void
decide_order(void *arg)
{
	Explain    *e = arg;
	DecideContext context = {
		.store = e->store,
		.source = e->source,
		.now = GetCurrentTransactionStartTimestamp(),
		.old_order = e->facts.deferred_old,
		.archived = (e->facts.flags & ORDER_ARCHIVED) != 0 || e->facts.deferred_archived
	};

	e->row_there = facts_fetch_row(e->source, e->rel, e->key, e->snapshot, e->slot);
	expr_reset();
	if (e->row_there)
	{
		image_read(e->store, e->source, e->slot, &e->image);
		e->image_read = true;
		/* the groups live as long as the links, which tell of them */
		links_judge(e->store, e->source, e->rel, &e->image, e->snapshot,
					link_groups_create(e->store, e->snapshot), &context.links, NULL);
		e->links = context.links;
		if (e->image.currency)
			e->scale = e->image.currency->scale;
	}
	if (e->facts.seen || e->facts.deferred)
		e->decision = decide(&context, e->row_there ? &e->image : NULL, &e->facts);
}

/* What the ledger has of the order */
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
			"        || CASE x.due WHEN 'infinity' THEN ', frozen' ELSE COALESCE(', due ' || x.due, '') END"
			"  FROM rebate_data.accrual x"
			"  JOIN rebate_data.account a ON a.account_id = x.account_id"
			"  JOIN rebate_data.currency c ON c.code = a.currency"
			"  JOIN rebate_data.rule r ON r.rule_id = x.rule_id"
			" WHERE x.source_id = $1 AND x.order_key = $2 COLLATE \"C\""
			" ORDER BY x.rule_id, a.opened_at, a.member, a.currency", &params, SPI_OK_SELECT);
	read_return_spi(e->rsinfo);

	sql_run("SELECT 'freeze'::text, reason, CASE WHEN unfrozen_at IS NULL THEN 'frozen' ELSE 'ended' END, NULL::numeric,"
			"       'since ' || frozen_at || ' by ' || frozen_by || COALESCE(', until ' || unfrozen_at || ' by ' || unfrozen_by, '')"
			"  FROM rebate_data.freeze WHERE source_id = $1 AND order_key = $2 COLLATE \"C\""
			" ORDER BY frozen_at, reason", &params, SPI_OK_SELECT);
	read_return_spi(e->rsinfo);

	/* an order that was given another key takes its accruals along */
	sql_run("SELECT 'entry'::text, 'seq ' || e.seq,"
			"       CASE e.kind WHEN 'a' THEN 'accrue' WHEN 'r' THEN 'reverse' WHEN 'm' THEN 'move'"
			"            WHEN 'w' THEN 'write_off' ELSE e.kind::text END,"
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
	if (archive_exists(e->store))
	{
		sql_run("SELECT 'entry'::text, 'up to seq ' || c.seq, 'dropped'::text, NULL::numeric,"
				"       'later movements up to there were exported and dropped, member ' || a.member || ', posted until ' || c.posted_at"
				"  FROM rebate_data.carried c"
				"  JOIN rebate_data.account a ON a.account_id = c.account_id"
				" WHERE EXISTS (SELECT FROM rebate_data.accrual x WHERE x.source_id = $1 AND x.order_key = $2 COLLATE \"C\""
				"                  AND x.account_id = c.account_id AND x.seq <= c.seq)"
				" ORDER BY c.account_id", &params, SPI_OK_SELECT);
		read_return_spi(e->rsinfo);
	}
	store_spi_end(&scope);
}

/* rebate.explain(source, key...) */
Datum
rebate_explain(PG_FUNCTION_ARGS)
{
	Explain		e = {.scale = -1};
	Relation	accrual;
	ErrorData  *error = NULL;

	e.source = read_visible_source(fcinfo, &e.store, RIGHT_AUDITOR, "rebate.explain");
	e.key = read_key(fcinfo, e.source);
	InitMaterializedSRF(fcinfo, 0);
	e.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	(void) rules_generation(e.store);
	e.rel = table_open(e.source->relid, AccessShareLock);
	accrual = store_open(e.store, ST_ACCRUAL, AccessShareLock);
	e.snapshot = RegisterSnapshot(GetLatestSnapshot());
	e.slot = table_slot_create(e.rel, NULL);
	facts_read(e.store, accrual, e.source->source_id, e.key, e.snapshot, &e.facts);

	error = explain_decide(&e, decide_order);
	if (explain_order(&e, error))
		explain_rules(&e);
	explain_ledger(&e);

	ExecDropSingleTupleTableSlot(e.slot);
	UnregisterSnapshot(e.snapshot);
	table_close(accrual, AccessShareLock);
	table_close(e.rel, NoLock);
	return (Datum) 0;
}
