/*
 * post_member.c
 *	  What a change of a member's key does to his accounts, and an erasure to his
 *	  rebates.
 *
 * Entries name accounts, so that another key changes none of them.  An order that
 * waits for an account finds it by its number afterwards, and sees that it is
 * closed.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api.h"
#include "counters.h"
#include "delivery.h"
#include "post_internal.h"
#include "post_member.h"

#define AC_STATUS	10
#define AC_NATTS	AC_HANDLE

/* The accounts of a member, in the order of their ids, locked */
static void
lock_accounts(Posting *p, const char *member)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	Snapshot	snapshot;

	sql_text(&params, member);
	store_spi_begin(p->store, &scope);
	p->naccounts = (int) sql_run("SELECT account_id FROM rebate_data.account"
								 " WHERE member = $1 COLLATE \"C\" ORDER BY account_id",
								 &params, SPI_OK_SELECT);
	p->accounts = MemoryContextAllocZero(context, sizeof(PostAccount) * Max(p->naccounts, 1));
	for (int i = 0; i < p->naccounts; i++)
	{
		bool		isnull;

		p->accounts[i].account_id = DatumGetInt64(sql_get(i, 1, &isnull));
	}
	store_spi_end(&scope);

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < p->naccounts; i++)
	{
		p->accounts[i].tuple = post_find_account(p, &p->accounts[i], snapshot);
		if (p->accounts[i].tuple == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("account " INT64_FORMAT " is missing", p->accounts[i].account_id),
					 errhint("Restore it; rebate.audit() lists what is wrong.")));
	}
	UnregisterSnapshot(snapshot);
	post_lock_accounts(p);
}

/*----------------------------------------------------------------------------
 * Rebates of an erased member
 *----------------------------------------------------------------------------
 */

static char *
account_currency(Posting *p, HeapTuple tuple)
{
	bool		isnull;

	return TextDatumGetCString(heap_getattr(tuple, AC_CURRENCY,
											RelationGetDescr(p->account_table.rel), &isnull));
}

static bool
has_balance(HeapTuple account)
{
	Form_account row = (Form_account) GETSTRUCT(account);

	for (int b = 0; b < NUM_BUCKETS; b++)
		if (row->balance[b] != 0)
			return true;
	return false;
}

/* Raise for balances, naming each. */
static void
refuse_balances(Posting *p)
{
	StringInfoData detail;

	initStringInfo(&detail);
	for (int i = 0; i < p->naccounts; i++)
	{
		Form_account row = (Form_account) GETSTRUCT(p->accounts[i].tuple);
		char	   *code = account_currency(p, p->accounts[i].tuple);
		CurrencyInfo *currency = store_currency(p->store, code);

		for (int b = 0; b < NUM_BUCKETS; b++)
		{
			if (row->balance[b] == 0)
				continue;
			if (detail.len > 0)
				appendStringInfoString(&detail, ", ");
			appendStringInfo(&detail, "%s %s %s", bucket_names[b],
							 DatumGetCString(DirectFunctionCall1(numeric_out,
																 NumericGetDatum(int64_div_fast_to_numeric(row->balance[b],
																										   currency ? currency->scale : 0)))),
							 code);
		}
	}
	if (detail.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_ERASURE_REFUSED),
				 errmsg("the member has a balance"),
				 errdetail("It is %s.", detail.data),
				 errhint("Wait until it is gone; or let one person call rebate.request_erasure(), and another one rebate.erase_member() with write_off => true.")));
}

/*
 * Whether an order is the member's, of whose account "tuple" is a rebate: not if
 * it has been given to somebody else since.
 */
static bool
is_his_order(HeapTuple tuple, const OrderFacts *facts)
{
	Form_accrual own = (Form_accrual) GETSTRUCT(tuple);

	for (int i = 0; i < facts->nrows; i++)
	{
		Form_accrual other = (Form_accrual) GETSTRUCT(facts->rows[i]);

		if (other->rule_id == 0 || other->account_id == own->account_id)
			continue;
		if (other->earned != 0 || (own->earned == 0 && other->part > own->part))
			return false;
	}
	return true;
}

/* The house account of what is written off is there once anything was. */
static void
make_house_account(Store *store)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_int(&params, LEDGER_WRITE_OFF);
	store_spi_begin(store, &scope);
	sql_run("INSERT INTO rebate_data.ledger_account (ledger_account_id, code, kind, description)"
			" VALUES ($1, 'house:write-off', 'house', 'balances of erased members that were written off')"
			" ON CONFLICT DO NOTHING", &params, SPI_OK_INSERT);
	store_spi_end(&scope);
}

/* List the entry that takes a rebate off the books. */
static void
write_off(Posting *p, PostAccount *account, Form_accrual row, const char *order_key)
{
	TimestampTz now = GetCurrentTimestamp();
	int			bucket = row->bucket - '0';
	int32		house = bucket == BUCKET_TRACKED ? LEDGER_MEMO : LEDGER_WRITE_OFF;
	Movement	what = {
		.posting_id = account->last ? account->last->posting_id : store_next_id(p->store),
		.accrual_id = row->accrual_id,
		.rule_id = row->rule_id,
		.source_id = row->source_id,
		.order_key = order_key,
		.event_at = account->last ? account->last->event_at : now,
		.opens = -1
	};

	what.effective_date = post_local_date(p, what.event_at);
	counters_add_of(p->store, row->source_id, CT_ENTRIES, 1);
	if (row->earned > 0)
		post_add_movement(account, &what, ENTRY_WRITE_OFF, bucket, -1, house, row->earned);
	else
		post_add_movement(account, &what, ENTRY_WRITE_OFF, -1, bucket, house, -row->earned);
}

/* Settle one rebate: its money is gone or stays, and its order moves none any more. */
static void
settle_rebate(Posting *p, PostAccount *account, HeapTuple oldtuple, Snapshot snapshot)
{
	TupleDesc	desc = RelationGetDescr(p->accrual_table.rel);
	Form_accrual old = (Form_accrual) GETSTRUCT(oldtuple);
	Datum		values[ACC_NATTS];
	bool		nulls[ACC_NATTS];
	bool		off = old->earned != 0 && has_balance(account->tuple);
	char	   *order_key;
	OrderFacts	facts;

	store_deform_row(oldtuple, desc, values, nulls, ACC_NATTS);
	order_key = TextDatumGetCString(values[ACC_ORDER_KEY - 1]);
	facts_read(p->store, p->accrual_table.rel, old->source_id, order_key, snapshot, &facts);
	if (is_his_order(oldtuple, &facts))
		values[ACC_FLAGS - 1] = Int16GetDatum((old->flags | ORDER_SETTLED) & ~ORDER_FAILED);
	else if (!off)
		return;
	if (off)
	{
		write_off(p, account, old, order_key);
		/* the opening entry stays as it was posted */
		if (nulls[ACC_ENTRY(EC_AMOUNT) - 1])
		{
			values[ACC_ENTRY(EC_AMOUNT) - 1] = Int64GetDatum(ledger_abs(old->earned));
			nulls[ACC_ENTRY(EC_AMOUNT) - 1] = false;
		}
		values[ACC_EARNED - 1] = Int64GetDatum(0);
		values[ACC_BUCKET - 1] = CharGetDatum(BUCKET_NONE);
		nulls[ACC_DUE - 1] = true;
	}
	post_replace_accrual(p, oldtuple, store_form_row(desc, values, nulls, ACC_NATTS));
}

/* Settle all rebates of an account. */
static void
settle_account(Posting *p, PostAccount *account)
{
	Relation	rel = p->accrual_table.rel;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, ACC_ACCOUNT_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(account->account_id));
	scan = systable_beginscan(rel, p->store->indexes[SI_ACCRUAL_SEQ], true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		settle_rebate(p, account, heap_copytuple(tuple), snapshot);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/*----------------------------------------------------------------------------
 * The accounts themselves
 *----------------------------------------------------------------------------
 */

/* Write the account's row with its new key. */
static void
rename_account(Posting *p, PostAccount *account, const MemberChange *change)
{
	TupleDesc	desc = RelationGetDescr(p->account_table.rel);
	HeapTuple	newtuple = account->first ? post_form_entries(p, account) : account->tuple;
	Datum		values[AC_NATTS];
	bool		nulls[AC_NATTS];

	if (change->erase && has_balance(newtuple))
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("the rebates of account " INT64_FORMAT " do not make up its balance",
						account->account_id),
				 errhint("rebate.audit() lists what is wrong.")));
	store_deform_row(newtuple, desc, values, nulls, AC_NATTS);
	values[AC_MEMBER - 1] = CStringGetTextDatum(change->now);
	if (change->erase)
	{
		/* whoever followed the account does not any more */
		values[AC_STATUS - 1] = CharGetDatum(ACCOUNT_ERASED);
		values[AC_HANDLE - 1] = OidFunctionCall0(F_GEN_RANDOM_UUID);
	}
	newtuple = store_form_row(desc, values, nulls, AC_NATTS);
	if (table_replace(&p->account_table, &account->tuple->t_self, newtuple) != TM_Ok)
		elog(ERROR, "account was changed by others while it was locked");
	if (account->first)
	{
		int64		before = ((Form_account) GETSTRUCT(account->tuple))->last_entry;
		int64		last = ((Form_account) GETSTRUCT(newtuple))->last_entry;
		HeapTuple	announced = heap_copytuple(newtuple);

		/* as it was before, but by the handle of today */
		((Form_account) GETSTRUCT(announced))->last_entry = before;
		delivery_posted(p->account_table.rel, account->account_id, announced, last);
	}
}

void
post_change_member(Store *store, MemberChange *change)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate posting",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Posting		p = {.store = store,.last_event = PG_INT64_MIN};

	store_ensure_epoch(store);
	table_begin(&p.account_table, store, ST_ACCOUNT);
	table_begin(&p.accrual_table, store, ST_ACCRUAL);
	lock_accounts(&p, change->member);
	if (change->erase && !change->write_off)
		refuse_balances(&p);
	for (int i = 0; i < p.naccounts; i++)
	{
		if (change->erase)
			settle_account(&p, &p.accounts[i]);
		change->written_off |= p.accounts[i].first != NULL;
		rename_account(&p, &p.accounts[i], change);
	}
	if (change->written_off)
		make_house_account(store);
	post_write_accruals(&p);
	post_write_waiting(&p);
	post_write_entries(&p);
	change->naccounts = p.naccounts;
	table_end(&p.accrual_table);
	table_end(&p.account_table);
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
