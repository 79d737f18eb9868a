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
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "audit.h"
#include "guard.h"
#include "order.h"
#include "rules.h"

typedef struct SourceAudit
{
	ReturnSetInfo *result;
	Store	   *store;
	Source	   *source;
	Relation	rel;
	Relation	accrual;
	Relation	account;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	/* of the row at hand */
	char	   *key;
	OrderFacts	facts;
	Decision   *decision;
} SourceAudit;

static void
report_order(SourceAudit *a, const char *key, const char *violation, const char *detail)
{
	audit_report(a->result, "source", violation, psprintf("%s, order %s", a->source->name, key),
				 detail);
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
	a->decision = decide(&context, &image, &a->facts);
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
	if (a->facts.seen && (a->facts.flags & (ORDER_BEFORE_ATTACHMENT | ORDER_FAILED)))
	{
		if (a->facts.flags & ORDER_BEFORE_ATTACHMENT)
			for (int i = 0; i < a->facts.nrows; i++)
				if (((Form_accrual) GETSTRUCT(a->facts.rows[i]))->earned != 0)
					report_order(a, a->key, "rebate of an order older than the attachment", NULL);
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
		compare_order(a);
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
		if (!facts_fetch_row(a->source, a->rel, order_key, a->snapshot, a->slot))
			report_order(a, order_key, "rebate without its order",
						 psprintf("Accrual " INT64_FORMAT " has " INT64_FORMAT " minor units.",
								  row->accrual_id, row->earned));
		MemoryContextSwitchTo(old);
	}
	systable_endscan(scan);
}

static void
audit_source(Store *store, ReturnSetInfo *result, Source *source)
{
	SourceAudit a = {.result = result, .store = store, .source = source};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate audit",
												  ALLOCSET_DEFAULT_SIZES);
	TableScanDesc scan;
	bool		guarded;

	a.rel = table_open(source->relid, AccessShareLock);
	a.accrual = table_open(store->tables[ST_ACCRUAL], AccessShareLock);
	a.account = table_open(store->tables[ST_ACCOUNT], AccessShareLock);
	a.snapshot = RegisterSnapshot(GetLatestSnapshot());

	/* rules are at least as new as the orders that the snapshot sees */
	(void) rules_generation(store);
	guarded = source->has_expressions || rules_have_expressions();
	a.slot = table_slot_create(a.rel, NULL);
	scan = table_beginscan(a.rel, a.snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, a.slot))
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		expr_reset();
		old = MemoryContextSwitchTo(context);
		check_row(&a, guarded);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	check_orphans(&a, context);
	ExecDropSingleTupleTableSlot(a.slot);
	UnregisterSnapshot(a.snapshot);
	table_close(a.account, AccessShareLock);
	table_close(a.accrual, AccessShareLock);
	table_close(a.rel, AccessShareLock);
	MemoryContextDelete(context);
}

/* Triggers that attach() made and that somebody dropped or disabled */
static void
check_triggers(ReturnSetInfo *result, Source *source)
{
	Relation	rel = table_open(source->relid, AccessShareLock);
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
						 psprintf("%s, trigger %s", source->name, names[i]),
						 "Call rebate.attach() with replace => true, or enable it.");
	}
	table_close(rel, AccessShareLock);
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

		if (get_rel_relkind(relids[i]) != RELKIND_RELATION)
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
		audit_source(store, result, source);
	}
}
