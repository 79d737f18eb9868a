/*
 * member_views.c
 *	  The rows of rebate.my_balance, my_rebates and my_entries.
 *
 * Each is one function that reads the current member's rows by his accounts, and
 * no others: there is no plan to choose that would touch them, no condition of
 * the reader that could come first, and nothing of them in EXPLAIN.  What is not
 * the member's business is left out: campaigns and house accounts, what a rebate
 * was computed from, ids that tell how much is posted for others.
 *
 * Like all views they show what is posted, as the query's snapshot sees it.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "archive.h"
#include "event.h"
#include "identity.h"
#include "member_account.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(rebate_get_my_balance);
PG_FUNCTION_INFO_V1(rebate_get_my_rebates);
PG_FUNCTION_INFO_V1(rebate_get_my_entries);

/* Columns of rebate_data.rule and rebate_data.source */
#define RULE_NAME				2
#define SOURCE_RELATION_NAME	3

/* The columns of rebate.my_balance, my_rebates, my_entries */
enum BalanceColumn
{
	BA_CURRENCY, BA_BUCKETS, BA_LAST_ENTRY = BA_BUCKETS + NUM_BUCKETS, BA_POSTED_AT, BA_NATTS
};

enum RebateColumn
{
	RE_CURRENCY, RE_SEQ, RE_SOURCE, RE_ORDER_KEY, RE_RULE, RE_PHASE, RE_BUCKET, RE_EARNED,
	RE_ORDER_TIME, RE_CONFIRMED_AT, RE_DUE, RE_POSTED_AT, RE_NATTS
};

enum MyEntryColumn
{
	ME_CURRENCY, ME_SEQ, ME_KIND, ME_FROM, ME_TO, ME_AMOUNT, ME_SOURCE, ME_ORDER_KEY, ME_RULE,
	ME_BUCKETS, ME_EVENT_AT = ME_BUCKETS + NUM_BUCKETS, ME_EFFECTIVE_DATE, ME_BOOK_DATE,
	ME_POSTED_AT, ME_NATTS
};

/* The name of a rule or of an order table, by id */
typedef struct Label
{
	int32		id;				/* hash key */
	Datum		name;			/* text; 0: there is none */
} Label;

/* A call of one of the functions */
typedef struct View
{
	Store	   *store;
	ReturnSetInfo *result;
	Snapshot	snapshot;
	MemoryContext context;		/* of the call */
	MemoryContext row_context;	/* emptied after each row */
	MemberAccount *accounts;
	int			naccounts;
	Datum		currency;		/* of the account whose rows come */
	int			scale;
	HTAB	   *rules;
	HTAB	   *sources;
} View;

static Datum bucket_texts[NUM_BUCKETS];

/* Texts that are the same in all rows, made once in a process */
static void
make_bucket_texts(void)
{
	MemoryContext old;

	if (bucket_texts[NUM_BUCKETS - 1] != (Datum) 0)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	for (int b = 0; b < NUM_BUCKETS; b++)
		if (bucket_texts[b] == (Datum) 0)
			bucket_texts[b] = CStringGetTextDatum(bucket_names[b]);
	MemoryContextSwitchTo(old);
}

/*
 * What each function begins with: checks the caller, and finds the accounts of
 * the current member, none if there is none.
 */
static void
begin_view(View *view, FunctionCallInfo fcinfo, const char *function)
{
	char	   *member;

	memset(view, 0, sizeof(*view));
	identity_refuse_parallel();
	view->store = store_get(false);
	rights_check(view->store, RIGHT_MEMBER | RIGHT_GATEWAY, function);
	member = identity_member(view->store);
	InitMaterializedSRF(fcinfo, 0);
	view->result = (ReturnSetInfo *) fcinfo->resultinfo;
	view->snapshot = GetActiveSnapshot();
	view->context = CurrentMemoryContext;
	view->row_context = AllocSetContextCreate(CurrentMemoryContext, "rebate row",
											  ALLOCSET_SMALL_SIZES);
	make_bucket_texts();
	if (member)
		view->accounts = member_accounts(view->store, view->snapshot, member, &view->naccounts);
}

static void
use_account(View *view, const MemberAccount *account)
{
	CurrencyInfo *currency = store_currency(view->store, account->currency);

	if (currency == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("currency \"%s\" is missing", account->currency),
				 errhint("Restore it in table \"%s.currency\".", STORE_SCHEMA)));
	view->currency = CStringGetTextDatum(account->currency);
	view->scale = currency->scale;
}

static Datum
money(const View *view, int64 amount)
{
	return NumericGetDatum(int64_div_fast_to_numeric(amount, view->scale));
}

/* Between the two a row is made in memory of its own: a member may have many. */
static void
begin_row(View *view)
{
	MemoryContextSwitchTo(view->row_context);
}

static void
end_row(View *view, Datum *values, bool *nulls)
{
	tuplestore_putvalues(view->result->setResult, view->result->setDesc, values, nulls);
	MemoryContextSwitchTo(view->context);
	MemoryContextReset(view->row_context);
}

/* Read the name in the row with this id, its first column, of a small table. */
static Datum
read_label(Store *store, int32 id, StoreTable table, StoreIndex primary_key, int column)
{
	Relation	rel = store_open(store, table, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	Datum		name = (Datum) 0;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, store->indexes[primary_key], true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

		if (!isnull)
			name = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return name;
}

/* The name of a rule or source, looked up once a call; 0: there is none. */
static Datum
label(View *view, bool is_rule, int32 id)
{
	HTAB	  **table = is_rule ? &view->rules : &view->sources;
	MemoryContext old;
	Label	   *found;
	Datum		name;

	if (id == 0)
		return (Datum) 0;
	if (*table == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(int32);
		ctl.entrysize = sizeof(Label);
		ctl.hcxt = view->context;
		*table = hash_create("rebate names", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	found = hash_search(*table, &id, HASH_FIND, NULL);
	if (found)
		return found->name;
	old = MemoryContextSwitchTo(view->context);
	name = is_rule ? read_label(view->store, id, ST_RULE, SI_RULE, RULE_NAME) :
		read_label(view->store, id, ST_SOURCE, SI_SOURCE, SOURCE_RELATION_NAME);
	MemoryContextSwitchTo(old);
	found = hash_search(*table, &id, HASH_ENTER, NULL);
	found->name = name;
	return name;
}

/* Set a text that may be missing. */
static void
set_label(Datum *values, bool *nulls, int column, Datum name)
{
	values[column] = name;
	nulls[column] = name == (Datum) 0;
}

/* A row for each account */
static void
put_balances(View *view)
{
	for (int i = 0; i < view->naccounts; i++)
	{
		const MemberAccount *account = &view->accounts[i];
		Datum		values[BA_NATTS];
		bool		nulls[BA_NATTS] = {0};

		use_account(view, account);
		begin_row(view);
		values[BA_CURRENCY] = view->currency;
		for (int b = 0; b < NUM_BUCKETS; b++)
			values[BA_BUCKETS + b] = money(view, account->balance[b]);
		values[BA_LAST_ENTRY] = Int64GetDatum(account->last_entry);
		values[BA_POSTED_AT] = TimestampTzGetDatum(account->last_posted);
		nulls[BA_POSTED_AT] = account->last_entry == 0;
		end_row(view, values, nulls);
	}
}

/* rebate.get_my_balance(at): now, or at a moment */
Datum
rebate_get_my_balance(PG_FUNCTION_ARGS)
{
	View		view;

	begin_view(&view, fcinfo, "rebate.get_my_balance");
	if (!PG_ARGISNULL(0) && view.naccounts > 0)
	{
		EventScan  *scan = event_ranges_begin(view.store, view.snapshot);

		for (int i = 0; i < view.naccounts; i++)
			member_account_at(view.store, view.snapshot, scan, &view.accounts[i],
							  PG_GETARG_TIMESTAMPTZ(0));
		event_scan_end(scan);
	}
	put_balances(&view);
	return (Datum) 0;
}

/* Which rows of each account a caller wants: the last "limit" before a sequence */
typedef struct Wanted
{
	char	   *currency;		/* NULL: all */
	int64		before;
	int64		limit;
} Wanted;

/* Arguments 0 to 2: currency, before, limit */
static void
wanted_arguments(FunctionCallInfo fcinfo, Wanted *wanted)
{
	wanted->currency = api_text(fcinfo, 0);
	wanted->before = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT64(1);
	wanted->limit = PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT32(2);
	if (!PG_ARGISNULL(1) && wanted->currency == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a sequence number counts in one currency"),
				 errhint("Name the currency, too.")));
	if (wanted->limit < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the limit must be at least 1")));
}

static bool
wants(const Wanted *wanted, const MemberAccount *account)
{
	return wanted->currency == NULL || strcmp(wanted->currency, account->currency) == 0;
}

/* Return a rebate, a row of rebate_data.accrual. */
static void
put_rebate(View *view, TupleTableSlot *slot)
{
	const Datum *v = slot->tts_values;
	const bool *n = slot->tts_isnull;
	char		bucket = DatumGetChar(v[ACC_BUCKET - 1]);
	Datum		values[RE_NATTS];
	bool		nulls[RE_NATTS] = {0};

	begin_row(view);
	values[RE_CURRENCY] = view->currency;
	values[RE_SEQ] = v[ACC_ENTRY(EC_SEQ) - 1];
	set_label(values, nulls, RE_SOURCE, label(view, false, DatumGetInt32(v[ACC_SOURCE_ID - 1])));
	values[RE_ORDER_KEY] = v[ACC_ORDER_KEY - 1];
	set_label(values, nulls, RE_RULE, label(view, true, DatumGetInt32(v[ACC_RULE_ID - 1])));
	values[RE_PHASE] = CStringGetTextDatum(phase_name(DatumGetChar(v[ACC_PHASE - 1])));
	set_label(values, nulls, RE_BUCKET,
			  bucket >= '0' && bucket < '0' + NUM_BUCKETS ? bucket_texts[bucket - '0'] : (Datum) 0);
	values[RE_EARNED] = money(view, DatumGetInt64(v[ACC_EARNED - 1]));
	values[RE_ORDER_TIME] = v[ACC_ORDER_TIME - 1];
	values[RE_CONFIRMED_AT] = v[ACC_CONFIRMED_AT - 1];
	nulls[RE_CONFIRMED_AT] = n[ACC_CONFIRMED_AT - 1];
	values[RE_DUE] = v[ACC_DUE - 1];
	nulls[RE_DUE] = n[ACC_DUE - 1];
	values[RE_POSTED_AT] = v[ACC_ENTRY(EC_POSTED_AT) - 1];
	end_row(view, values, nulls);
}

/*
 * rebate.get_my_rebates(currency, before, limit): the last rebates in each
 * currency, newest first, by walking the index of opening entries backward.
 */
Datum
rebate_get_my_rebates(PG_FUNCTION_ARGS)
{
	View		view;
	Wanted		wanted;
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;

	begin_view(&view, fcinfo, "rebate.get_my_rebates");
	wanted_arguments(fcinfo, &wanted);
	if (view.naccounts == 0)
		return (Datum) 0;

	rel = store_open(view.store, ST_ACCRUAL, AccessShareLock);
	index = index_open(view.store->indexes[SI_ACCRUAL_SEQ], AccessShareLock);
	slot = table_slot_create(rel, NULL);
	scan = index_beginscan_compat(rel, index, view.snapshot, 2);
	for (int i = 0; i < view.naccounts; i++)
	{
		ScanKeyData keys[2];

		if (!wants(&wanted, &view.accounts[i]))
			continue;
		use_account(&view, &view.accounts[i]);
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ,
					Int64GetDatum(view.accounts[i].account_id));
		ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(wanted.before));
		index_rescan(scan, keys, 2, NULL, 0);
		for (int64 left = wanted.limit;
			 left > 0 && index_getnext_slot(scan, BackwardScanDirection, slot); left--)
		{
			CHECK_FOR_INTERRUPTS();
			slot_getallattrs(slot);
			put_rebate(&view, slot);
		}
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return (Datum) 0;
}

/* The bucket on one side of an entry; 0: it is outside the account. */
static Datum
bucket_of(int32 ledger_account)
{
	if (!ledger_is_bucket(ledger_account))
		return (Datum) 0;
	return bucket_texts[ledger_account - LEDGER_BUCKET(0)];
}

/* Return an entry. */
static void
put_entry(void *arg, const EventRow *row)
{
	View	   *view = arg;
	const EntryFields *e = &row->fields;
	Datum		values[ME_NATTS];
	bool		nulls[ME_NATTS] = {0};

	CHECK_FOR_INTERRUPTS();
	begin_row(view);
	values[ME_CURRENCY] = view->currency;
	values[ME_SEQ] = Int64GetDatum(e->seq);
	values[ME_KIND] = CStringGetTextDatum(entry_kind_name(e->kind));
	set_label(values, nulls, ME_FROM, bucket_of(e->debit));
	set_label(values, nulls, ME_TO, bucket_of(e->credit));
	values[ME_AMOUNT] = money(view, e->amount);
	set_label(values, nulls, ME_SOURCE, label(view, false, row->source_id));
	set_label(values, nulls, ME_ORDER_KEY,
			  row->order_key ? CStringGetTextDatum(row->order_key) : (Datum) 0);
	set_label(values, nulls, ME_RULE, label(view, true, e->rule_id));
	for (int b = 0; b < NUM_BUCKETS; b++)
		values[ME_BUCKETS + b] = money(view, row->balance[b]);
	values[ME_EVENT_AT] = TimestampTzGetDatum(e->event_at);
	values[ME_EFFECTIVE_DATE] = DateADTGetDatum(e->effective_date);
	values[ME_BOOK_DATE] = DateADTGetDatum(e->book_date);
	values[ME_POSTED_AT] = TimestampTzGetDatum(e->posted_at);
	end_row(view, values, nulls);
}

/*
 * rebate.get_my_entries(currency, before, limit): the last entries in each
 * currency.  Sequences are dense, so it is known where they begin.  Where the oldest
 * were dropped the first is the one behind them.
 */
Datum
rebate_get_my_entries(PG_FUNCTION_ARGS)
{
	View		view;
	Wanted		wanted;
	EventScan  *scan;

	begin_view(&view, fcinfo, "rebate.get_my_entries");
	wanted_arguments(fcinfo, &wanted);
	if (view.naccounts == 0)
		return (Datum) 0;

	scan = event_ranges_begin(view.store, view.snapshot);
	for (int i = 0; i < view.naccounts; i++)
	{
		const MemberAccount *account = &view.accounts[i];
		int64		upto = Min(account->last_entry, Max(wanted.before, 1) - 1);
		int64		dropped;

		if (!wants(&wanted, account))
			continue;
		use_account(&view, account);
		dropped = archive_carried(view.store, view.snapshot, account->account_id).seq;
		(void) event_range(scan, account->account_id, Max(upto - wanted.limit, dropped), upto,
						   wanted.limit, put_entry, &view);
	}
	event_scan_end(scan);
	return (Datum) 0;
}
