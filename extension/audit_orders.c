/*
 * audit_orders.c
 *	  Every order of an attached table is decided again from its row and its
 *	  recorded facts, and compared with what is posted.
 *
 * Orders are taken a batch at a time, as the table has them: what is recorded of
 * a batch is read in one walk along the index of orders.  Rebates without an order
 * are then looked for only if not all that have money were met.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "audit.h"
#include "guard.h"
#include "links.h"
#include "order.h"
#include "partition.h"
#include "rules.h"

/* Orders of a batch, and the bytes of their rows after which no more are taken */
#define MAX_BATCH_ROWS	1000
#define MAX_BATCH_BYTES	(1024 * 1024)

/* Accounts whose ids are remembered; then all are forgotten */
#define MAX_ACCOUNTS	100000

/* An order of the batch */
typedef struct AuditRow
{
	HeapTuple	tuple;			/* a row of the attached table */
	char	   *key;
	OrderFacts	facts;
	bool		decides;		/* it is to be decided */
	Decision   *decision;
	ErrorData  *error;			/* why it could not be */
} AuditRow;

typedef struct AccountName
{
	const char *member;
	const char *currency;
} AccountName;

typedef struct AccountOf
{
	AccountName name;
	uint32		hash;
	char		status;
	int64		account_id;		/* 0: there is none */
} AccountOf;

static inline uint32
hash_account_name(AccountName name)
{
	return hash_combine(hash_bytes((const unsigned char *) name.member, strlen(name.member)),
						hash_bytes((const unsigned char *) name.currency, strlen(name.currency)));
}

#define SH_PREFIX accounts
#define SH_ELEMENT_TYPE AccountOf
#define SH_KEY_TYPE AccountName
#define SH_KEY name
#define SH_HASH_KEY(tb, k) hash_account_name(k)
#define SH_EQUAL(tb, a, b) \
	(strcmp((a).member, (b).member) == 0 && strcmp((a).currency, (b).currency) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

typedef struct SourceAudit
{
	AuditOrder	report;
	void	   *report_arg;
	Store	   *store;
	Source	   *source;
	Relation	rel;
	Relation	accrual;
	Snapshot	snapshot;
	LinkGroups *groups;
	TupleTableSlot *slot;		/* for a row of the table */
	/* accounts that were looked for */
	Relation	account;
	Relation	account_index;
	IndexScanDesc account_scan;
	MemoryContext scan_memory;	/* in which the scan keeps what it needs on the way */
	TupleTableSlot *account_slot;
	MemoryContext account_memory;
	accounts_hash *accounts;
	/* the batch */
	MemoryContext memory;
	AuditRow   *rows;
	int			nrows;
	/* of all batches */
	int64		norders;
	int64		nmet;			/* rows of orders that are there */
	int64		nmoney;			/* those of them that need an order */
	bool		doubles;		/* two orders with one key were met */
} SourceAudit;

static void
report_order(SourceAudit *a, const char *key, const char *violation, const char *detail)
{
	a->report(a->report_arg, a->source, key, violation, detail);
}

static void
accounts_begin(SourceAudit *a)
{
	a->account = store_open(a->store, ST_ACCOUNT, AccessShareLock);
	a->account_index = index_open(a->store->indexes[SI_ACCOUNT_MEMBER], AccessShareLock);
	a->account_scan = index_beginscan_compat(a->account, a->account_index, a->snapshot, 2);
	a->scan_memory = CurrentMemoryContext;
	a->account_slot = table_slot_create(a->account, NULL);
	a->account_memory = AllocSetContextCreate(CurrentMemoryContext, "rebate audit accounts",
											  ALLOCSET_DEFAULT_SIZES);
	a->accounts = accounts_create(a->account_memory, 1024, NULL);
}

static void
accounts_end(SourceAudit *a)
{
	MemoryContextDelete(a->account_memory);
	ExecDropSingleTupleTableSlot(a->account_slot);
	index_endscan(a->account_scan);
	index_close(a->account_index, AccessShareLock);
	table_close(a->account, AccessShareLock);
}

/* Account of a member in a currency, from the table; 0 if there is none */
static int64
read_account_id(SourceAudit *a, AccountName name)
{
	ScanKeyData keys[2];
	int64		result = 0;
	bool		isnull;
	MemoryContext old;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(name.member));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(name.currency));
	old = MemoryContextSwitchTo(a->scan_memory);
	index_rescan(a->account_scan, keys, 2, NULL, 0);
	if (index_getnext_slot(a->account_scan, ForwardScanDirection, a->account_slot))
		result = DatumGetInt64(slot_getattr(a->account_slot, AC_ACCOUNT_ID, &isnull));
	ExecClearTuple(a->account_slot);
	MemoryContextSwitchTo(old);
	return result;
}

/* The same, remembered */
static int64
find_account_id(SourceAudit *a, const char *member, const char *currency)
{
	AccountName name = {member, currency};
	AccountOf  *account = accounts_lookup(a->accounts, name);
	bool		found;

	if (account)
		return account->account_id;
	if (a->accounts->members >= MAX_ACCOUNTS)
	{
		MemoryContextReset(a->account_memory);
		a->accounts = accounts_create(a->account_memory, 1024, NULL);
	}
	name.member = MemoryContextStrdup(a->account_memory, member);
	name.currency = MemoryContextStrdup(a->account_memory, currency);
	account = accounts_insert(a->accounts, name, &found);
	account->account_id = read_account_id(a, name);
	return account->account_id;
}

/* An order to be decided, for what runs under guard */
typedef struct AuditTask
{
	SourceAudit *audit;
	AuditRow   *row;
} AuditTask;

static void
decide_row(void *arg)
{
	AuditTask  *task = arg;
	SourceAudit *a = task->audit;
	AuditRow   *row = task->row;
	OrderImage	image;
	DecideContext context = {
		.store = a->store,
		.source = a->source,
		.now = GetCurrentTransactionStartTimestamp(),
		.any_backdate = true
	};

	ExecForceStoreHeapTuple(row->tuple, a->slot, false);
	image_read(a->store, a->source, a->slot, row->key, &image);
	links_judge(a->store, a->source, a->rel, &image, a->snapshot, a->groups, &context.links, NULL);
	row->decision = decide(&context, &image, &row->facts);
	decide_frozen(&row->facts, row->decision);
}

/* Decide what is to be decided of the batch, from where it came to. */
static void
decide_rows(void *arg)
{
	SourceAudit *a = arg;

	for (int i = 0; i < a->nrows; i++)
	{
		AuditTask	task = {a, &a->rows[i]};

		CHECK_FOR_INTERRUPTS();
		if (task.row->decides && task.row->decision == NULL)
			decide_row(&task);
	}
}

/*
 * Decide the batch.  What evaluates expressions runs under guard: once for all,
 * and if one of them raises, for each order that is left.
 */
static void
decide_batch(SourceAudit *a, bool guarded)
{
	if (!guarded)
	{
		decide_rows(a);
		return;
	}
	if (run_guarded(a->store, decide_rows, a) == NULL)
		return;
	for (int i = 0; i < a->nrows; i++)
	{
		AuditTask	task = {a, &a->rows[i]};

		if (task.row->decides && task.row->decision == NULL)
			task.row->error = run_guarded(a->store, decide_row, &task);
	}
}

/* What is recorded that a row says of another order (d NULL: it says nothing) */
static void
compare_link(SourceAudit *a, const AuditRow *row, const Decision *d)
{
	static const Decision nothing = {0};
	Link		link;
	bool		found;

	if (!a->source->linked)
		return;
	found = links_of(a->store, a->source->source_id, row->key, LINK_RETURN, a->snapshot,
					 &link);
	if (!links_agree(LINK_RETURN, found ? &link : NULL, d ? d : &nothing))
		report_order(a, row->key, "what it returns is recorded otherwise than its row says",
					 found ? psprintf("Recorded is a return of order %s.", link.target) :
					 psprintf("It is a return of order %s.", d->original));
	if (d == NULL || !d->has_row)
		return;
	found = links_of(a->store, a->source->source_id, row->key, LINK_REPLACES, a->snapshot, &link);
	if (!links_agree(LINK_REPLACES, found ? &link : NULL, d))
		report_order(a, row->key, "what it replaces is recorded otherwise than its row says",
					 found ? psprintf("Recorded is order %s.", link.target) :
					 psprintf("It replaces order %s.", d->replaces));
}

/* When the clock comes to an accrual */
static void
compare_due(SourceAudit *a, const AuditRow *row, HeapTuple tuple, const Wish *wish)
{
	bool		isnull;
	Datum		due = heap_getattr(tuple, ACC_DUE, RelationGetDescr(a->accrual), &isnull);

	if (isnull != !wish->has_due || (!isnull && DatumGetTimestampTz(due) != wish->due))
		report_order(a, row->key, "rebate is due at another time than its order says",
					 psprintf("Accrual " INT64_FORMAT ".", ((Form_accrual) GETSTRUCT(tuple))->accrual_id));
}

/* Compare one order's decision with its accruals. */
static void
compare_order(SourceAudit *a, const AuditRow *row)
{
	Decision   *d = row->decision;
	int64		account_id = d->nwishes > 0 ?
		find_account_id(a, d->member, d->currency.code) : 0;

	for (int i = 0; i < row->facts.nrows; i++)
	{
		Form_accrual accrual = (Form_accrual) GETSTRUCT(row->facts.rows[i]);
		Wish	   *wish = NULL;
		int64		target;

		if (accrual->rule_id == 0)
			continue;
		for (int j = 0; j < d->nwishes && wish == NULL; j++)
			if (d->wishes[j].rule_id == accrual->rule_id && accrual->account_id == account_id)
				wish = &d->wishes[j];
		target = wish ? wish->amount : 0;
		if (accrual->earned != target)
			report_order(a, row->key, "rebate differs from its target",
						 psprintf("Accrual " INT64_FORMAT " has " INT64_FORMAT " minor units, the target is " INT64_FORMAT ".",
								  accrual->accrual_id, accrual->earned, target));
		else if (target != 0 && accrual->bucket != '0' + (int) wish->bucket &&
				 !(wish->bucket == BUCKET_MATURING && accrual->bucket == '0' + BUCKET_AVAILABLE))
			report_order(a, row->key, "rebate is in another bucket than its order's phase says",
						 psprintf("Accrual " INT64_FORMAT ".", accrual->accrual_id));
		else if (target != 0 && accrual->bucket <= '0' + BUCKET_MATURING)
			compare_due(a, row, row->facts.rows[i], wish);
		if (wish)
			wish->amount = 0;	/* accounted for */
	}
	for (int j = 0; j < d->nwishes; j++)
		if (d->wishes[j].amount != 0)
			report_order(a, row->key, "rebate is missing",
						 psprintf("Rule %d should have paid " INT64_FORMAT " minor units.",
								  d->wishes[j].rule_id, d->wishes[j].amount));
}

/* An accrual with money needs an order, unless that left or was set aside. */
static inline bool
needs_order(Form_accrual row)
{
	return row->earned != 0 && !(row->flags & (ORDER_ARCHIVED | ORDER_FAILED));
}

/* What is recorded of an order is known: is it to be decided? */
static void
meet_row(SourceAudit *a, AuditRow *row)
{
	a->nmet += row->facts.nrows;
	for (int i = 0; i < row->facts.nrows; i++)
		a->nmoney += needs_order((Form_accrual) GETSTRUCT(row->facts.rows[i])) ? 1 : 0;

	/* of what is deferred, reconcile() will decide it */
	row->decides = !row->facts.deferred && !ORDER_IS_SETTLED(row->facts.flags) &&
		!(row->facts.seen && (row->facts.flags & (ORDER_BEFORE_ATTACHMENT | ORDER_FAILED)));
}

/* Report what is wrong with an order. */
static void
check_row(SourceAudit *a, const AuditRow *row)
{
	/* what is posted of an erased member's order has no target any more */
	if (row->facts.deferred || ORDER_IS_SETTLED(row->facts.flags))
		return;
	if (!row->decides)
	{
		if (row->facts.flags & ORDER_BEFORE_ATTACHMENT)
			for (int i = 0; i < row->facts.nrows; i++)
				if (((Form_accrual) GETSTRUCT(row->facts.rows[i]))->earned != 0)
					report_order(a, row->key, "rebate of an order older than the attachment", NULL);
		compare_link(a, row, NULL);
		return;
	}
	if (!row->facts.seen)
	{
		/* rows older than the attachment leave no trace */
		if (row->error || !(row->decision->flags & ORDER_BEFORE_ATTACHMENT))
			report_order(a, row->key, "order without a decision",
						 "It came while the triggers were off, or by a way that they do not see.");
		return;
	}
	if (row->error || row->decision->failed)
		report_order(a, row->key, "order cannot be decided and is not set aside",
		/* the message has values of the row */
					 !may_see_rows(a->source->relid) ?
					 psprintf("SQLSTATE %s", unpack_sql_state(row->error ? row->error->sqlerrcode :
															  row->decision->sqlerrcode)) :
					 row->error ? row->error->message : row->decision->error);
	else
	{
		compare_order(a, row);
		compare_link(a, row, row->decision);
	}
}

/* Take the next orders of the table; false if there are none. */
static bool
fill_batch(SourceAudit *a, SourceScan *scan)
{
	TupleTableSlot *slot = source_scan_slot(scan);
	Size		bytes = 0;

	a->nrows = 0;
	/* the scan outlives the batch */
	while (a->nrows < MAX_BATCH_ROWS && bytes < MAX_BATCH_BYTES && source_scan_next(scan))
	{
		AuditRow   *row = &a->rows[a->nrows++];
		MemoryContext old = MemoryContextSwitchTo(a->memory);

		CHECK_FOR_INTERRUPTS();
		memset(row, 0, sizeof(*row));
		row->tuple = ExecCopySlotHeapTuple(slot);
		row->key = image_key(a->source, slot);
		bytes += row->tuple->t_len;
		MemoryContextSwitchTo(old);
	}
	a->norders += a->nrows;
	return a->nrows > 0;
}

/* Read what is recorded of the orders of the batch. */
static void
read_batch(SourceAudit *a)
{
	OrderWanted *wanted = palloc(sizeof(OrderWanted) * a->nrows);

	for (int i = 0; i < a->nrows; i++)
	{
		wanted[i].key = a->rows[i].key;
		wanted[i].facts = &a->rows[i].facts;
	}
	if (!facts_read_many(a->store, a->accrual, a->source->source_id, wanted, a->nrows, a->snapshot))
		a->doubles = true;
	for (int i = 0; i < a->nrows; i++)
		meet_row(a, &a->rows[i]);
}

static bool
is_deferred(SourceAudit *a, const char *key, OrderFacts *facts)
{
	facts_read(a->store, a->accrual, a->source->source_id, key, a->snapshot, facts);
	return facts->deferred;
}

/*
 * How many of the source's accruals need an order.  Unless they are few in a large
 * table, it is read as it lies on disk.
 */
static int64
count_needs_order(SourceAudit *a)
{
	bool		few = a->nmet < RelationGetNumberOfBlocks(a->accrual);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int64		n = 0;

	ScanKeyInit(&key, ACC_SOURCE_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(a->source->source_id));
	scan = systable_beginscan(a->accrual, a->store->indexes[SI_ACCRUAL_ORDER], few, a->snapshot, 1,
							  &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		n += needs_order((Form_accrual) GETSTRUCT(tuple)) ? 1 : 0;
	}
	systable_endscan(scan);
	return n;
}

/* Accruals that still have money need their row. */
static void
check_orphans(SourceAudit *a)
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
		OrderFacts	facts;
		bool		isnull;
		char	   *order_key;

		CHECK_FOR_INTERRUPTS();
		if (!needs_order(row))
			continue;
		MemoryContextReset(a->memory);
		old = MemoryContextSwitchTo(a->memory);
		order_key = TextDatumGetCString(heap_getattr(tuple, ACC_ORDER_KEY,
													 RelationGetDescr(a->accrual), &isnull));
		if (!facts_fetch_row(a->source, a->rel, order_key, a->snapshot, a->slot) &&
			!is_deferred(a, order_key, &facts))
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
		OrderFacts	facts;

		CHECK_FOR_INTERRUPTS();
		/* what a row replaced stays known when it is gone */
		if (link->kind == LINK_REPLACES ||
			facts_fetch_row(a->source, a->rel, link->key, a->snapshot, a->slot) ||
			is_deferred(a, link->key, &facts) || (facts.flags & ORDER_ARCHIVED))
			continue;
		report_order(a, link->key, "return without its row",
					 psprintf("It takes %s of order %s.",
							  DatumGetCString(DirectFunctionCall1(numeric_out,
																  NumericGetDatum(link->amount))),
							  link->target));
	}
}

/* Check all orders, a batch at a time. */
static void
check_batches(SourceAudit *a)
{
	SourceScan *scan = source_scan_begin(a->source, a->rel, a->snapshot);
	bool		guarded = a->source->has_expressions || rules_have_expressions();

	a->rows = palloc(sizeof(AuditRow) * MAX_BATCH_ROWS);
	a->slot = MakeSingleTupleTableSlot(source_scan_slot(scan)->tts_tupleDescriptor,
									   &TTSOpsHeapTuple);
	while (fill_batch(a, scan))
	{
		MemoryContext old = MemoryContextSwitchTo(a->memory);

		read_batch(a);
		decide_batch(a, guarded);
		for (int i = 0; i < a->nrows; i++)
			check_row(a, &a->rows[i]);
		ExecClearTuple(a->slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(a->memory);
		expr_reset();
	}
	ExecDropSingleTupleTableSlot(a->slot);
	source_scan_end(scan);
	pfree(a->rows);
}

void
audit_orders(Store *store, Source *source, AuditOrder report, void *report_arg)
{
	SourceAudit a = {
		.report = report,.report_arg = report_arg,.store = store,.source = source
	};
	TimestampTz begin = GetCurrentTimestamp();

	a.memory = AllocSetContextCreate(CurrentMemoryContext, "rebate audit", ALLOCSET_DEFAULT_SIZES);
	a.rel = table_open(source->relid, AccessShareLock);
	a.accrual = store_open(store, ST_ACCRUAL, AccessShareLock);
	a.snapshot = RegisterSnapshot(GetLatestSnapshot());
	a.groups = link_groups_create(store, a.snapshot);
	accounts_begin(&a);

	/* rules are at least as new as the orders that the snapshot sees */
	(void) rules_generation(store);
	check_batches(&a);

	a.slot = table_slot_create(a.rel, NULL);
	if (a.doubles || count_needs_order(&a) != a.nmoney)
		check_orphans(&a);
	check_orphan_links(&a);
	ExecDropSingleTupleTableSlot(a.slot);

	accounts_end(&a);
	link_groups_delete(a.groups);
	UnregisterSnapshot(a.snapshot);
	table_close(a.accrual, AccessShareLock);
	table_close(a.rel, AccessShareLock);
	MemoryContextDelete(a.memory);
	ereport(DEBUG1,
			(errmsg_internal("audit of %s: " INT64_FORMAT " orders in %ld ms", source->name,
							 a.norders,
							 TimestampDifferenceMilliseconds(begin, GetCurrentTimestamp()))));
}
