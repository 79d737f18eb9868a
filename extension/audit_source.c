/*
 * audit_source.c
 *	  The source part of the audit: every order of every attached table is decided
 *	  again from its row and its recorded facts, and compared with what is posted.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "audit.h"
#include "guard.h"
#include "links.h"
#include "order.h"
#include "partition.h"
#include "rules.h"

typedef struct SourceAudit
{
	AuditOrder	report;
	void	   *report_arg;
	Store	   *store;
	Source	   *source;
	Relation	rel;
	Relation	accrual;
	Relation	account;
	Snapshot	snapshot;
	LinkGroups *groups;
	TupleTableSlot *slot;
	/* of the row at hand */
	char	   *key;
	OrderFacts	facts;
	Decision   *decision;
} SourceAudit;

static void
report_order(SourceAudit *a, const char *key, const char *violation, const char *detail)
{
	a->report(a->report_arg, a->source, key, violation, detail);
}

/* Account of a member in a currency; 0 if there is none */
static int64
find_account_id(SourceAudit *a, const char *member, const char *currency)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	int64		result = 0;

	ScanKeyInit(&keys[0], AC_MEMBER, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(member));
	ScanKeyInit(&keys[1], AC_CURRENCY, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(currency));
	scan = systable_beginscan(a->account, a->store->indexes[SI_ACCOUNT_MEMBER], true, a->snapshot,
							  2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_account) GETSTRUCT(tuple))->account_id;
	systable_endscan(scan);
	return result;
}

/* Decide the row in a->slot; runs under guard. */
static void
decide_row(void *arg)
{
	SourceAudit *a = arg;
	OrderImage	image;
	DecideContext context = {
		.store = a->store,
		.source = a->source,
		.now = GetCurrentTransactionStartTimestamp(),
		.any_backdate = true
	};

	image_read(a->store, a->source, a->slot, &image);
	links_judge(a->store, a->source, a->rel, &image, a->snapshot, a->groups, &context.links, NULL);
	a->decision = decide(&context, &image, &a->facts);
}

/* What is recorded that the row at hand says of another order (d NULL: it says nothing) */
static void
compare_link(SourceAudit *a, const Decision *d)
{
	static const Decision nothing = {0};
	Link		link;
	bool		found;

	if (!a->source->linked)
		return;
	found = links_of(a->store, a->source->source_id, a->key, LINK_RETURN, a->snapshot,
					 &link);
	if (!links_agree(LINK_RETURN, found ? &link : NULL, d ? d : &nothing))
		report_order(a, a->key, "what it returns is recorded otherwise than its row says",
					 found ? psprintf("Recorded is a return of order %s.", link.target) :
					 psprintf("It is a return of order %s.", d->original));
	if (d == NULL || !d->has_row)
		return;
	found = links_of(a->store, a->source->source_id, a->key, LINK_REPLACES, a->snapshot, &link);
	if (!links_agree(LINK_REPLACES, found ? &link : NULL, d))
		report_order(a, a->key, "what it replaces is recorded otherwise than its row says",
					 found ? psprintf("Recorded is order %s.", link.target) :
					 psprintf("It replaces order %s.", d->replaces));
}

/* When the clock comes to an accrual, later if it was frozen */
static void
compare_due(SourceAudit *a, HeapTuple tuple, const Wish *wish)
{
	bool		isnull;
	Datum		due = heap_getattr(tuple, ACC_DUE, RelationGetDescr(a->accrual), &isnull);

	if (isnull != !wish->has_due ||
		(!isnull && DatumGetTimestampTz(due) !=
		 freezes_due(&a->facts.freezes, wish->bucket == BUCKET_MATURING ?
					 a->decision->confirmed_at : a->decision->order_time, wish->due)))
		report_order(a, a->key, "rebate is due at another time than its order says",
					 psprintf("Accrual " INT64_FORMAT ".", ((Form_accrual) GETSTRUCT(tuple))->accrual_id));
}

/* Compare one order's decision with its accruals. */
static void
compare_order(SourceAudit *a)
{
	Decision   *d = a->decision;
	int64		account_id = d->nwishes > 0 ?
		find_account_id(a, d->member, d->currency.code) : 0;

	for (int i = 0; i < a->facts.nrows; i++)
	{
		Form_accrual row = (Form_accrual) GETSTRUCT(a->facts.rows[i]);
		Wish	   *wish = NULL;
		int64		target;

		if (row->rule_id == 0)
			continue;
		for (int j = 0; j < d->nwishes && wish == NULL; j++)
			if (d->wishes[j].rule_id == row->rule_id && row->account_id == account_id)
				wish = &d->wishes[j];
		target = wish ? wish->amount : 0;
		if (row->earned != target)
			report_order(a, a->key, "rebate differs from its target",
						 psprintf("Accrual " INT64_FORMAT " has " INT64_FORMAT " minor units, the target is " INT64_FORMAT ".",
								  row->accrual_id, row->earned, target));
		else if (target != 0 && row->bucket != '0' + (int) wish->bucket &&
				 !(wish->bucket == BUCKET_MATURING && row->bucket == '0' + BUCKET_AVAILABLE))
			report_order(a, a->key, "rebate is in another bucket than its order's phase says",
						 psprintf("Accrual " INT64_FORMAT ".", row->accrual_id));
		else if (target != 0 && row->bucket <= '0' + BUCKET_MATURING)
			compare_due(a, a->facts.rows[i], wish);
		if (wish)
			wish->amount = 0;	/* accounted for */
	}
	for (int j = 0; j < d->nwishes; j++)
		if (d->wishes[j].amount != 0)
			report_order(a, a->key, "rebate is missing",
						 psprintf("Rule %d should have paid " INT64_FORMAT " minor units.",
								  d->wishes[j].rule_id, d->wishes[j].amount));
}

static void
check_row(SourceAudit *a, bool guarded)
{
	ErrorData  *error = NULL;

	a->key = image_key(a->source, a->slot);
	facts_read(a->store, a->accrual, a->source->source_id, a->key, a->snapshot, &a->facts);
	/* reconcile() will decide it */
	if (a->facts.deferred)
		return;
	if (a->facts.seen && (a->facts.flags & (ORDER_BEFORE_ATTACHMENT | ORDER_FAILED)))
	{
		if (a->facts.flags & ORDER_BEFORE_ATTACHMENT)
			for (int i = 0; i < a->facts.nrows; i++)
				if (((Form_accrual) GETSTRUCT(a->facts.rows[i]))->earned != 0)
					report_order(a, a->key, "rebate of an order older than the attachment", NULL);
		compare_link(a, NULL);
		return;
	}

	if (guarded)
		error = run_guarded(a->store, decide_row, a);
	else
		decide_row(a);

	if (!a->facts.seen)
	{
		/* rows older than the attachment leave no trace */
		if (error || !(a->decision->flags & ORDER_BEFORE_ATTACHMENT))
			report_order(a, a->key, "order without a decision",
						 "It came while the triggers were off, or by a way that they do not see.");
		return;
	}
	if (error || a->decision->failed)
		report_order(a, a->key, "order cannot be decided and is not set aside",
					 error ? error->message : a->decision->error);
	else
	{
		compare_order(a);
		compare_link(a, a->decision);
	}
}

static bool
is_deferred(SourceAudit *a, const char *key)
{
	facts_read(a->store, a->accrual, a->source->source_id, key, a->snapshot, &a->facts);
	return a->facts.deferred;
}

/* Accruals that still have money need their row. */
static void
check_orphans(SourceAudit *a, MemoryContext context)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, ACC_SOURCE_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(a->source->source_id));
	scan = systable_beginscan(a->accrual, a->store->indexes[SI_ACCRUAL_ORDER], true, a->snapshot,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_accrual row = (Form_accrual) GETSTRUCT(tuple);
		MemoryContext old;
		bool		isnull;
		char	   *order_key;

		CHECK_FOR_INTERRUPTS();
		if (row->earned == 0 || (row->flags & (ORDER_ARCHIVED | ORDER_FAILED)))
			continue;
		MemoryContextReset(context);
		old = MemoryContextSwitchTo(context);
		order_key = TextDatumGetCString(heap_getattr(tuple, ACC_ORDER_KEY,
													 RelationGetDescr(a->accrual), &isnull));
		if (!facts_fetch_row(a->source, a->rel, order_key, a->snapshot, a->slot) &&
			!is_deferred(a, order_key))
			report_order(a, order_key, "rebate without its order",
						 psprintf("Accrual " INT64_FORMAT " has " INT64_FORMAT " minor units.",
								  row->accrual_id, row->earned));
		MemoryContextSwitchTo(old);
	}
	systable_endscan(scan);
}

/* Returns that count need their row, unless it left and its money stays. */
static void
check_orphan_links(SourceAudit *a)
{
	List	   *links = a->source->linked ?
		links_of_source(a->store, a->source->source_id, a->snapshot) : NIL;
	ListCell   *lc;

	foreach(lc, links)
	{
		Link	   *link = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		/* what a row replaced stays known when it is gone */
		if (link->kind == LINK_REPLACES ||
			facts_fetch_row(a->source, a->rel, link->key, a->snapshot, a->slot) ||
			is_deferred(a, link->key) || (a->facts.flags & ORDER_ARCHIVED))
			continue;
		report_order(a, link->key, "return without its row",
					 psprintf("It takes %s of order %s.",
							  DatumGetCString(DirectFunctionCall1(numeric_out,
																  NumericGetDatum(link->amount))),
							  link->target));
	}
}

void
audit_orders(Store *store, Source *source, AuditOrder report, void *report_arg)
{
	SourceAudit a = {
		.report = report,.report_arg = report_arg,.store = store,.source = source
	};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate audit",
												  ALLOCSET_DEFAULT_SIZES);
	SourceScan *scan;
	TupleTableSlot *slot;
	bool		guarded;

	a.rel = table_open(source->relid, AccessShareLock);
	a.accrual = store_open(store, ST_ACCRUAL, AccessShareLock);
	a.account = store_open(store, ST_ACCOUNT, AccessShareLock);
	a.snapshot = RegisterSnapshot(GetLatestSnapshot());
	a.groups = link_groups_create(store, a.snapshot);

	/* rules are at least as new as the orders that the snapshot sees */
	(void) rules_generation(store);
	guarded = source->has_expressions || rules_have_expressions();
	slot = table_slot_create(a.rel, NULL);
	scan = source_scan_begin(source, a.rel, a.snapshot);
	a.slot = source_scan_slot(scan);
	while (source_scan_next(scan))
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		expr_reset();
		old = MemoryContextSwitchTo(context);
		check_row(&a, guarded);
		MemoryContextSwitchTo(old);
	}
	source_scan_end(scan);
	a.slot = slot;
	check_orphans(&a, context);
	check_orphan_links(&a);
	ExecDropSingleTupleTableSlot(slot);
	link_groups_delete(a.groups);
	UnregisterSnapshot(a.snapshot);
	table_close(a.account, AccessShareLock);
	table_close(a.accrual, AccessShareLock);
	table_close(a.rel, AccessShareLock);
	MemoryContextDelete(context);
}

/* For the audit itself: a line an order */
static void
report_violation(void *arg, Source *source, const char *key, const char *violation,
				 const char *detail)
{
	audit_report(arg, "source", violation, psprintf("%s, order %s", source->name, key), detail);
}

/* Orders that wait are no damage, but until then the ledger is behind. */
static void
report_deferred(Store *store, ReturnSetInfo *result, Source *source)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *n;

	store_spi_begin(store, &scope);
	sql_int(&params, source->source_id);
	(void) sql_run("SELECT NULLIF(count(*), 0)::text FROM rebate_data.deferred WHERE source_id = $1",
				   &params, SPI_OK_SELECT);
	n = sql_get_text(0, 1, context);
	store_spi_end(&scope);
	if (n)
		audit_report(result, "source", "orders are deferred", source->name,
					 psprintf("%s wait for rebate.reconcile().", n));
}

/* Triggers of one table that attach() made and that somebody dropped or disabled */
static void
check_triggers_of(ReturnSetInfo *result, Source *source, Relation rel)
{
	static const char *const names[] = {"rebate_insert", "rebate_update", "rebate_delete",
	"rebate_truncate"};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		bool		works = false;

		for (int j = 0; rel->trigdesc && j < rel->trigdesc->numtriggers; j++)
		{
			Trigger    *t = &rel->trigdesc->triggers[j];

			if (strcmp(t->tgname, names[i]) == 0)
				works = t->tgenabled == TRIGGER_FIRES_ON_ORIGIN || t->tgenabled == TRIGGER_FIRES_ALWAYS;
		}
		if (!works)
			audit_report(result, "source", "trigger is missing or disabled",
						 RelationGetRelid(rel) == source->relid ?
						 psprintf("%s, trigger %s", source->name, names[i]) :
						 psprintf("%s, partition %s, trigger %s", source->name,
								  quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
															 RelationGetRelationName(rel)),
								  names[i]),
						 "Call rebate.attach() with replace => true, or enable it.");
	}
}

/* The same for the attached table and all partitions below it */
static void
check_triggers(ReturnSetInfo *result, Source *source)
{
	ListCell   *lc;

	foreach(lc, source->partitioned ? find_all_inheritors(source->relid, AccessShareLock, NULL) :
			list_make1_oid(source->relid))
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);

		check_triggers_of(result, source, rel);
		table_close(rel, AccessShareLock);
	}
}

void
audit_sources(Store *store, ReturnSetInfo *result)
{
	StoreSpi	scope;
	Oid		   *relids;
	char	  **names;
	int			n;
	MemoryContext context = CurrentMemoryContext;

	store_spi_begin(store, &scope);
	n = (int) sql_run("SELECT relation::oid, relation_name FROM rebate_data.source"
					  " WHERE detached_at IS NULL ORDER BY source_id", NULL, SPI_OK_SELECT);
	relids = MemoryContextAlloc(context, sizeof(Oid) * Max(n, 1));
	names = MemoryContextAlloc(context, sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(sql_get(i, 1, &isnull));
		names[i] = sql_get_text(i, 2, context);
	}
	store_spi_end(&scope);

	for (int i = 0; i < n; i++)
	{
		Source	   *source;

		if (get_rel_relkind(relids[i]) != RELKIND_RELATION &&
			get_rel_relkind(relids[i]) != RELKIND_PARTITIONED_TABLE)
		{
			audit_report(result, "source", "attached table is gone", names[i],
						 "Its rebates stay as they are.");
			continue;
		}
		source = source_get(store, relids[i]);
		if (source == NULL)
			continue;
		check_triggers(result, source);
		if (source->broken)
		{
			audit_report(result, "source", "mapping does not fit the table", names[i],
						 source->broken);
			continue;
		}
		audit_orders(store, source, report_violation, result);
		report_deferred(store, result, source);
	}
}
