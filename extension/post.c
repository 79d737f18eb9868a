/*
 * post.c
 *	  Posts decisions: the only writer of accounts, accruals and entries.
 *
 * A posting goes through its accounts in the order of their ids, after making
 * those that are missing in the order of their names.  So two postings never
 * wait for each other in a circle, unless a transaction has so many orders that it
 * posts them in parts.  Where accruals exist already, all accounts
 * are locked first and the accruals read again under a snapshot taken after the
 * locks: the clock or a person may have moved their money meanwhile.  Where none
 * exist (new orders) the update of the account is the lock: what it is based on
 * is computed again if somebody was faster.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "counters.h"
#include "post_internal.h"
#include "rules.h"

/* The day of a moment in the programme's zone */
DateADT
post_local_date(Posting *p, TimestampTz moment)
{
	int			tz;
	struct pg_tm tm;
	fsec_t		fsec;

	if (moment != p->last_event)
	{
		if (timestamp2tm(moment, &tz, &tm, &fsec, NULL, p->store->zone) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					 errmsg("timestamp out of range")));
		p->last_date = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
		p->last_event = moment;
	}
	return p->last_date;
}

/*----------------------------------------------------------------------------
 * From decisions to movements
 *----------------------------------------------------------------------------
 */

void
post_add_movement(PostAccount *account, const Movement *what, char kind, int from, int to,
				  int32 house, int64 amount)
{
	Movement   *m = palloc(sizeof(Movement));

	*m = *what;
	m->next = NULL;
	m->kind = kind;
	m->from = from;
	m->to = to;
	m->house = house;
	m->amount = amount;
	if (account->last)
		account->last->next = m;
	else
		account->first = m;
	account->last = m;
}

/*
 * The movements that take an accrual from "posted" in bucket "from" to "target"
 * in bucket "to".  What is earned less leaves first, then the rest moves, then
 * what is earned more comes ("what" names order, accrual and posting).  Tracked
 * money is a memo: it never moves into a liability but is taken back there and
 * earned here.
 */
static void
move_accrual(PostAccount *account, const Movement *what, int64 posted, int from, int64 target,
			 int to, int32 expense)
{
	int64		delta;

	if (posted != 0 && target != 0 && from != to &&
		(from == BUCKET_TRACKED || to == BUCKET_TRACKED || (posted > 0) != (target > 0)))
	{
		move_accrual(account, what, posted, from, 0, from, expense);
		move_accrual(account, what, 0, to, target, to, expense);
		return;
	}
	if (posted == 0)
		from = to;
	if (target == 0)
		to = from;

	/* both fit, so their difference can only be too large if the signs differ */
	if (pg_sub_s64_overflow(target, posted, &delta))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("the rebate is out of range")));

	if (delta < 0)
		post_add_movement(account, what, ENTRY_REVERSE, from, -1,
						  from == BUCKET_TRACKED ? LEDGER_MEMO : expense, -delta);
	if (from != to)
		post_add_movement(account, what, ENTRY_MOVE, from, to, 0, Min(posted, target));
	if (delta > 0)
		post_add_movement(account, what, ENTRY_ACCRUE, -1, to,
						  to == BUCKET_TRACKED ? LEDGER_MEMO : expense, delta);
}

/* Compare one order's decision with what is posted, and list what is to be done. */
static void
plan_order(Posting *p, PostOrder *order)
{
	Decision   *d = order->decision;
	OrderFacts *facts = order->facts;
	PostAccount *member_account = NULL;
	Movement	what = {
		.source_id = order->source_id,
		.order_key = order->key,
		.event_at = d->order_time,
		.effective_date = post_local_date(p, d->order_time),
		.opens = -1
	};
	bool		recorded = facts->nrows > 0;
	bool	   *taken = NULL;
	int			nopened = 0;

	/* what was recorded while it was decided */
	if (ORDER_IS_SETTLED(facts->flags))
		decide_settled(facts, d);
	d->flags = (d->flags & ~ORDER_FROZEN) | (facts->flags & ORDER_FROZEN);
	decide_frozen(facts, d);

	if (d->keep)
	{
		post_update_flags(p, order);
		if (!recorded)
			post_new_accrual(p, order, store_next_id(p->store), NULL, 0);
		return;
	}

	if (d->nwishes > 0)
	{
		member_account = post_account_of(p, d->member, d->currency.code);
		taken = palloc0(sizeof(bool) * d->nwishes);
	}

	/* what is posted already */
	for (int i = 0; i < facts->nrows; i++)
	{
		HeapTuple	oldtuple = facts->rows[i];
		Form_accrual row = (Form_accrual) GETSTRUCT(oldtuple);
		Wish	   *wish = NULL;
		int			from = row->bucket == BUCKET_NONE ? -1 : row->bucket - '0';
		int			to;
		int64		target;

		if (row->rule_id == 0)
		{
			post_update_accrual(p, order, oldtuple, NULL, 0, BUCKET_NONE);
			continue;
		}
		for (int j = 0; j < d->nwishes && wish == NULL; j++)
		{
			if (!taken[j] && d->wishes[j].rule_id == row->rule_id && member_account &&
				member_account->account_id == row->account_id)
			{
				wish = &d->wishes[j];
				taken[j] = true;
			}
		}
		target = wish ? wish->amount : 0;
		to = wish ? (int) wish->bucket : from;
		/* what has matured stays so while the order stays confirmed */
		if (wish && to == BUCKET_MATURING && from == BUCKET_AVAILABLE && row->earned > 0 &&
			row->phase == PHASE_CONFIRMED && d->phase == PHASE_CONFIRMED)
		{
			bool		isnull;
			Datum		due = heap_getattr(oldtuple, ACC_DUE,
										   RelationGetDescr(p->accrual_table.rel), &isnull);

			/* by the clock, or at once */
			if (!isnull || wish->at_once)
			{
				to = BUCKET_AVAILABLE;
				wish->has_due = !isnull;
				wish->due = isnull ? 0 : DatumGetTimestampTz(due);
			}
		}

		if (target != row->earned || (target != 0 && to != from))
		{
			PostAccount *account;
			int32		expense;

			if (wish)
				expense = wish->expense;
			else
				expense = rules_expense(p->store, row->rule_id, row->version);
			if (what.posting_id == 0)
				what.posting_id = store_next_id(p->store);
			what.accrual_id = row->accrual_id;
			what.rule_id = row->rule_id;
			account = post_account_by_id(p, row->account_id);
			if (account == NULL)
				table_conflict();
			move_accrual(account, &what, row->earned, from < 0 ? to : from, target, to, expense);
		}
		post_update_accrual(p, order, oldtuple, wish, target,
							target == 0 ? BUCKET_NONE : '0' + to);
	}

	/* what is new */
	for (int j = 0; j < d->nwishes; j++)
	{
		Wish	   *wish = &d->wishes[j];
		int64		accrual_id;

		if (taken[j] || wish->amount == 0)
			continue;
		accrual_id = store_next_id(p->store);
		/* the first posting of an order can share its number */
		if (what.posting_id == 0)
			what.posting_id = accrual_id;
		what.accrual_id = accrual_id;
		what.rule_id = wish->rule_id;
		what.opens = post_new_accrual(p, order, accrual_id, wish, facts->next_part + nopened++);
		move_accrual(member_account, &what, 0, wish->bucket, wish->amount, wish->bucket,
					 wish->expense);
		recorded = true;
	}

	if (!recorded)
		post_new_accrual(p, order, store_next_id(p->store), NULL, 0);
}

static void
begin_posting(Posting *p, Store *store, PostOrder *orders, int n, OrderKeys *keys)
{
	store_ensure_epoch(store);
	memset(p, 0, sizeof(*p));
	p->store = store;
	p->orders = orders;
	p->norders = n;
	p->last_event = PG_INT64_MIN;
	table_begin(&p->account_table, store, ST_ACCOUNT);
	table_begin(&p->accrual_table, store, ST_ACCRUAL);
	p->keys = keys;
	if (keys)
		post_list_accounts(p);
	else
		post_resolve_accounts(p);
}

static void
end_posting(Posting *p)
{
	table_end(&p->accrual_table);
	table_end(&p->account_table);
	CommandCounterIncrement();
}

/*
 * Take the accounts through what the orders ask for, one after the other, and
 * write the rows.
 */
static void
write_posting(Posting *p)
{
	for (int i = 0; i < p->norders; i++)
		plan_order(p, &p->orders[i]);
	for (int i = 0; i < p->naccounts; i++)
	{
		PostAccount *account = &p->accounts[i];
		int			nentries = p->nentries;

		if (account->first == NULL)
			continue;
		while (account->first && !post_replace_account(p, account, post_form_entries(p, account)))
		{
			p->nentries = nentries;
			if (account->member && post_account_is_erased(account))
				post_erase_account(p, account);
		}
	}
	post_write_accruals(p);
	post_write_waiting(p);
	post_write_entries(p);
}

/* The orders of a posting, for the statistics; those of a table mostly stand together */
static void
count_orders(const Posting *p)
{
	int			n = 0;

	for (int i = 0; i < p->norders; i++)
	{
		n++;
		if (i + 1 == p->norders || p->orders[i + 1].source_id != p->orders[i].source_id)
		{
			counters_add_of(p->store, p->orders[i].source_id, CT_POSTED, n);
			n = 0;
		}
	}
}

void
post_orders(Store *store, PostOrder *orders, int n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate posting",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Posting		p;
	bool		known = false;

	begin_posting(&p, store, orders, n, NULL);
	for (int i = 0; i < n; i++)
		known |= orders[i].facts->nrows > 0;
	if (known)
	{
		Snapshot	snapshot;

		post_lock_accounts(&p);

		/* what was posted may have moved before we had the locks */
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		for (int i = 0; i < n; i++)
		{
			if (orders[i].facts->nrows > 0)
				facts_read(store, p.accrual_table.rel, orders[i].source_id, orders[i].key,
						   snapshot, orders[i].facts);
		}
		UnregisterSnapshot(snapshot);
	}

	write_posting(&p);
	end_posting(&p);
	count_orders(&p);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

void
post_sorted_orders(Store *store, PostOrder *orders, int n, OrderKeys *keys)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate posting",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Posting		p;

	begin_posting(&p, store, orders, n, keys);
	write_posting(&p);
	end_posting(&p);
	count_orders(&p);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * The rows of the order go first: the unique index of orders tells whether it is
 * known, and then nothing else has been touched yet.
 */
bool
post_new_order(Store *store, PostOrder *order)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate posting",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Posting		p;
	PostAccount *account;
	bool		is_new;

	begin_posting(&p, store, order, 1, NULL);
	plan_order(&p, order);
	account = p.naccounts > 0 && p.accounts[0].first ? &p.accounts[0] : NULL;
	for (;;)
	{
		HeapTuple	newtuple = account ? post_form_entries(&p, account) : NULL;

		is_new = post_try_accruals(&p);
		if (!is_new || account == NULL || post_replace_account(&p, account, newtuple))
			break;
		post_withdraw_accruals(&p);
		if (account->member && post_account_is_erased(account))
		{
			post_erase_account(&p, account);
			account = NULL;
		}
	}
	if (is_new)
	{
		post_finish_accruals(&p);
		post_write_waiting(&p);
		count_orders(&p);
	}

	end_posting(&p);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return is_new;
}

/* Give the rows of an order another key; false if the clock was faster with one. */
static bool
rekey_rows(StoreTableDesc *table, const OrderFacts *facts, const char *newkey)
{
	TupleDesc	desc = RelationGetDescr(table->rel);

	for (int i = 0; i < facts->nrows; i++)
	{
		Datum		values[ACC_NATTS];
		bool		nulls[ACC_NATTS];
		TM_Result	result;

		store_deform_row(facts->rows[i], desc, values, nulls, ACC_NATTS);
		values[ACC_ORDER_KEY - 1] = CStringGetTextDatum(newkey);
		result = table_replace(table, &facts->rows[i]->t_self,
							   store_form_row(desc, values, nulls, ACC_NATTS));
		if (result == TM_Updated)
			return false;
		if (result != TM_Ok)
			table_conflict();
	}
	return true;
}

bool
post_rekey(Store *store, int32 source_id, const char *oldkey, const char *newkey)
{
	StoreTableDesc table;
	OrderFacts	facts;
	Snapshot	snapshot;
	bool		moved = false;
	bool		done = false;

	table_begin(&table, store, ST_ACCRUAL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	facts_read(store, table.rel, source_id, newkey, snapshot, &facts);
	if (facts.nrows == 0)
	{
		moved = true;
		while (!done)
		{
			/* those that have the new key already are not found again */
			facts_read(store, table.rel, source_id, oldkey, snapshot, &facts);
			if (facts.flags & ORDER_FROZEN)
				freezes_rekey(store, source_id, oldkey, newkey);
			done = rekey_rows(&table, &facts, newkey);
			CommandCounterIncrement();
			UnregisterSnapshot(snapshot);
			snapshot = RegisterSnapshot(GetLatestSnapshot());
		}
	}
	UnregisterSnapshot(snapshot);
	table_end(&table);
	CommandCounterIncrement();
	return moved;
}
