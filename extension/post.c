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

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "arith.h"
#include "post_internal.h"
#include "rules.h"

/*
 * The check of an entry: hashint8extended() chained over its fields, so that it
 * can be recomputed in SQL, on any machine.
 */
static inline uint64
chain(uint64 seed, int64 value)
{
	uint32		lo = (uint32) value;
	uint32		hi = (uint32) (value >> 32);

	lo ^= (value >= 0) ? hi : ~hi;
	return DatumGetUInt64(hash_uint32_extended(lo, seed));
}

int64
entry_check(int64 previous, const EntryFields *e)
{
	uint64		check = (uint64) previous;

	check = chain(check, e->account_id);
	check = chain(check, e->seq);
	check = chain(check, e->posting_id);
	check = chain(check, e->amount);
	check = chain(check, e->posted_at);
	check = chain(check, e->event_at);
	check = chain(check, e->xid);
	check = chain(check, e->debit);
	check = chain(check, e->credit);
	check = chain(check, e->epoch);
	check = chain(check, e->effective_date);
	check = chain(check, e->book_date);
	check = chain(check, e->rule_id);
	check = chain(check, e->kind);
	check = chain(check, e->accrual_id);
	check = chain(check, e->payout_id);
	return (int64) check;
}

/* The day of a moment in the programme's zone */
static DateADT
local_date(Posting *p, TimestampTz moment)
{
	int			tz;
	struct pg_tm tm;
	fsec_t		fsec;

	if (moment != p->last_event)
	{
		if (timestamp2tm(moment, &tz, &tm, &fsec, NULL, pg_tzset(p->store->time_zone)) != 0)
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

static void
add_movement(PostAccount *account, const Movement *what, char kind, int from, int to,
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
		add_movement(account, what, ENTRY_REVERSE, from, -1,
					 from == BUCKET_TRACKED ? LEDGER_MEMO : expense, -delta);
	if (from != to)
		add_movement(account, what, ENTRY_MOVE, from, to, 0, Min(posted, target));
	if (delta > 0)
		add_movement(account, what, ENTRY_ACCRUE, -1, to,
					 to == BUCKET_TRACKED ? LEDGER_MEMO : expense, delta);
}

static void
add_write(Posting *p, HeapTuple oldtuple, HeapTuple newtuple)
{
	if (p->nwrites == p->allocated_writes)
	{
		p->allocated_writes = Max(16, p->allocated_writes * 2);
		p->writes = p->writes ? repalloc(p->writes, sizeof(AccrualWrite) * p->allocated_writes)
			: palloc(sizeof(AccrualWrite) * p->allocated_writes);
	}
	p->writes[p->nwrites].oldtuple = oldtuple;
	p->writes[p->nwrites++].newtuple = newtuple;
}

/* A new row of rebate_data.accrual; wish NULL: the bare decision */
static HeapTuple
form_accrual(Posting *p, PostOrder *order, int64 accrual_id, int64 account_id, Wish *wish)
{
	Decision   *d = order->decision;
	Datum		values[ACC_NATTS];
	bool		nulls[ACC_NATTS];
	bool		has_money = wish && wish->amount != 0;

	memset(nulls, false, sizeof(nulls));
	values[ACC_ACCRUAL_ID - 1] = Int64GetDatum(accrual_id);
	values[ACC_ACCOUNT_ID - 1] = Int64GetDatum(account_id);
	values[ACC_SOURCE_ID - 1] = Int32GetDatum(order->source_id);
	values[ACC_RULE_ID - 1] = Int32GetDatum(wish ? wish->rule_id : 0);
	values[ACC_VERSION - 1] = Int32GetDatum(wish ? wish->version : 0);
	values[ACC_GENERATION - 1] = Int32GetDatum(d->generation);
	values[ACC_FIRST_SEEN - 1] = TimestampTzGetDatum(d->first_seen);
	values[ACC_ORDER_TIME - 1] = TimestampTzGetDatum(d->order_time);
	values[ACC_EARNED - 1] = Int64GetDatum(wish ? wish->amount : 0);
	values[ACC_BUCKET - 1] = CharGetDatum(has_money ? '0' + wish->bucket : BUCKET_NONE);
	values[ACC_PHASE - 1] = CharGetDatum(d->phase);
	values[ACC_FLAGS - 1] = Int16GetDatum(d->flags);
	values[ACC_ORDER_KEY - 1] = CStringGetTextDatum(order->key);
	nulls[ACC_BASE - 1] = wish == NULL || wish->base == NULL;
	values[ACC_BASE - 1] = nulls[ACC_BASE - 1] ? (Datum) 0 : NumericGetDatum(wish->base);
	nulls[ACC_CONFIRMED_AT - 1] = !d->has_confirmed_at;
	values[ACC_CONFIRMED_AT - 1] = TimestampTzGetDatum(d->confirmed_at);
	nulls[ACC_DUE - 1] = !(has_money && wish->has_due);
	values[ACC_DUE - 1] = nulls[ACC_DUE - 1] ? (Datum) 0 : TimestampTzGetDatum(wish->due);
	nulls[ACC_GRANTED - 1] = nulls[ACC_LEVEL - 1] = nulls[ACC_LOOKED_UP - 1] = true;

	return heap_form_tuple(RelationGetDescr(p->accrual_table.rel), values, nulls);
}

/* Whether two nullable times differ */
static inline bool
differs(Datum a, bool anull, Datum b, bool bnull)
{
	return anull != bnull ||
		(!anull && DatumGetTimestampTz(a) != DatumGetTimestampTz(b));
}

/*
 * Bring a row of rebate_data.accrual to the decision.  wish NULL: nothing is
 * earned under its rule, or it is the bare decision.  Writes only if something
 * differs.
 */
static void
update_accrual(Posting *p, PostOrder *order, HeapTuple oldtuple, Wish *wish, int64 earned,
			   char bucket)
{
	Decision   *d = order->decision;
	TupleDesc	desc = RelationGetDescr(p->accrual_table.rel);
	Form_accrual old = (Form_accrual) GETSTRUCT(oldtuple);
	Datum		values[ACC_NATTS];
	bool		nulls[ACC_NATTS];
	Datum		confirmed = TimestampTzGetDatum(d->confirmed_at);
	bool		confirmed_null = !d->has_confirmed_at;
	Datum		due = wish ? TimestampTzGetDatum(wish->due) : (Datum) 0;
	bool		due_null = wish == NULL || !wish->has_due || earned == 0;
	bool		base_changed;
	HeapTuple	newtuple;

	heap_deform_tuple(oldtuple, desc, values, nulls);
	base_changed = wish && wish->base &&
		(nulls[ACC_BASE - 1] || arith_cmp(DatumGetNumeric(values[ACC_BASE - 1]), wish->base) != 0);
	if (old->earned == earned && old->bucket == bucket && old->phase == d->phase &&
		old->flags == d->flags && old->order_time == d->order_time &&
		(wish == NULL || old->version == wish->version) && !base_changed &&
		!differs(values[ACC_CONFIRMED_AT - 1], nulls[ACC_CONFIRMED_AT - 1], confirmed, confirmed_null) &&
		!differs(values[ACC_DUE - 1], nulls[ACC_DUE - 1], due, due_null))
		return;

	values[ACC_EARNED - 1] = Int64GetDatum(earned);
	values[ACC_BUCKET - 1] = CharGetDatum(bucket);
	values[ACC_PHASE - 1] = CharGetDatum(d->phase);
	values[ACC_FLAGS - 1] = Int16GetDatum(d->flags);
	values[ACC_ORDER_TIME - 1] = TimestampTzGetDatum(d->order_time);
	if (wish)
		values[ACC_VERSION - 1] = Int32GetDatum(wish->version);
	if (base_changed)
	{
		values[ACC_BASE - 1] = NumericGetDatum(wish->base);
		nulls[ACC_BASE - 1] = false;
	}
	values[ACC_CONFIRMED_AT - 1] = confirmed;
	nulls[ACC_CONFIRMED_AT - 1] = confirmed_null;
	values[ACC_DUE - 1] = due;
	nulls[ACC_DUE - 1] = due_null;
	newtuple = heap_form_tuple(desc, values, nulls);
	add_write(p, oldtuple, newtuple);
}

/* Only the flags change: the order failed, or its row left and the money stays. */
static void
update_flags(Posting *p, PostOrder *order)
{
	for (int i = 0; i < order->facts->nrows; i++)
	{
		HeapTuple	oldtuple = order->facts->rows[i];
		int			flags = ((Form_accrual) GETSTRUCT(oldtuple))->flags | order->decision->flags;

		if (flags != ((Form_accrual) GETSTRUCT(oldtuple))->flags)
		{
			HeapTuple	newtuple = heap_copytuple(oldtuple);

			((Form_accrual) GETSTRUCT(newtuple))->flags = flags;
			add_write(p, oldtuple, newtuple);
		}
	}
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
		.effective_date = local_date(p, d->order_time)
	};
	bool		recorded = facts->nrows > 0;
	bool	   *taken = NULL;

	if (d->keep)
	{
		update_flags(p, order);
		if (!recorded)
			add_write(p, NULL, form_accrual(p, order, store_next_id(p->store), 0, NULL));
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
			update_accrual(p, order, oldtuple, NULL, 0, BUCKET_NONE);
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
		/* what the clock has matured stays so while the order stays confirmed */
		if (wish && to == BUCKET_MATURING && from == BUCKET_AVAILABLE &&
			row->phase == PHASE_CONFIRMED && d->phase == PHASE_CONFIRMED &&
			!heap_attisnull(oldtuple, ACC_DUE, RelationGetDescr(p->accrual_table.rel)))
			to = BUCKET_AVAILABLE;

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
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not serialize access due to concurrent update of a rebate"),
						 errhint("Try the transaction again.")));
			move_accrual(account, &what, row->earned, from < 0 ? to : from, target, to, expense);
		}
		update_accrual(p, order, oldtuple, wish, target,
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
		add_write(p, NULL, form_accrual(p, order, accrual_id, member_account->account_id, wish));
		move_accrual(member_account, &what, 0, wish->bucket, wish->amount, wish->bucket,
					 wish->expense);
		recorded = true;
	}

	if (!recorded)
		add_write(p, NULL, form_accrual(p, order, store_next_id(p->store), 0, NULL));
}

/*----------------------------------------------------------------------------
 * Writing
 *----------------------------------------------------------------------------
 */

/* Add to a bucket; a balance that does not fit is an error of the posting. */
static void
add_to_balance(FormData_account *account, int bucket, int64 amount)
{
	if (pg_add_s64_overflow(account->balance[bucket], amount, &account->balance[bucket]))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("the balance of an account is out of range")));
}

/*
 * Append the movements of one account to its entries: "state" goes from before
 * to after them.  Fills *entries with tuples to insert.
 */
static void
form_entries(Posting *p, PostAccount *account, FormData_account *state, HeapTuple *entries)
{
	TupleDesc	desc = RelationGetDescr(p->entry_table.rel);
	int64		xid = (int64) U64FromFullTransactionId(GetTopFullTransactionId());
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	/* the clock may step back; posted times never do */
	if (state->last_entry > 0 && now < state->last_posted)
		now = state->last_posted;

	for (Movement *m = account->first; m; m = m->next)
	{
		Datum		values[EN_NATTS];
		bool		nulls[EN_NATTS];
		EntryFields e;

		if (m->from >= 0)
			add_to_balance(state, m->from, -m->amount);
		if (m->to >= 0)
			add_to_balance(state, m->to, m->amount);

		e.account_id = account->account_id;
		e.seq = ++state->last_entry;
		e.posting_id = m->posting_id;
		e.amount = m->amount;
		e.posted_at = now;
		e.event_at = m->event_at;
		e.xid = xid;
		e.debit = m->from >= 0 ? LEDGER_BUCKET(m->from) : m->house;
		e.credit = m->to >= 0 ? LEDGER_BUCKET(m->to) : m->house;
		e.epoch = p->store->epoch;
		e.effective_date = m->effective_date;
		e.book_date = m->effective_date;
		e.rule_id = m->rule_id;
		e.kind = m->kind;
		e.accrual_id = m->accrual_id;
		e.payout_id = 0;
		state->last_check = entry_check(state->last_check, &e);

		memset(nulls, false, sizeof(nulls));
		values[EN_ACCOUNT_ID - 1] = Int64GetDatum(e.account_id);
		values[EN_SEQ - 1] = Int64GetDatum(e.seq);
		/* the first posting of an accrual shares its number */
		nulls[EN_POSTING_ID - 1] = e.posting_id == e.accrual_id;
		values[EN_POSTING_ID - 1] = Int64GetDatum(e.posting_id);
		values[EN_AMOUNT - 1] = Int64GetDatum(e.amount);
		values[EN_POSTED_AT - 1] = TimestampTzGetDatum(e.posted_at);
		values[EN_EVENT_AT - 1] = TimestampTzGetDatum(e.event_at);
		values[EN_XID - 1] = Int64GetDatum(e.xid);
		values[EN_CHECK - 1] = Int64GetDatum(state->last_check);
		values[EN_DEBIT - 1] = Int32GetDatum(e.debit);
		values[EN_CREDIT - 1] = Int32GetDatum(e.credit);
		values[EN_EPOCH - 1] = Int32GetDatum(e.epoch);
		values[EN_EFFECTIVE_DATE - 1] = DateADTGetDatum(e.effective_date);
		values[EN_BOOK_DATE - 1] = DateADTGetDatum(e.book_date);
		values[EN_RULE_ID - 1] = Int32GetDatum(e.rule_id);
		values[EN_KIND - 1] = CharGetDatum(e.kind);
		values[EN_ACCRUAL_ID - 1] = Int64GetDatum(e.accrual_id);
		nulls[EN_PAYOUT_ID - 1] = true;
		for (int b = 0; b < NUM_BUCKETS; b++)
		{
			nulls[EN_TRACKED - 1 + b] = state->balance[b] == 0;
			values[EN_TRACKED - 1 + b] = Int64GetDatum(state->balance[b]);
		}
		values[EN_SOURCE_ID - 1] = Int32GetDatum(m->source_id);
		values[EN_ORDER_KEY - 1] = CStringGetTextDatum(m->order_key);
		entries[n++] = heap_form_tuple(desc, values, nulls);
	}
	state->last_posted = now;
}

/*
 * Post the movements of one account: its row first, since the update is what
 * serialises postings of the account, then its entries.
 */
static void
write_account(Posting *p, PostAccount *account)
{
	HeapTuple  *entries;
	int			n = 0;

	for (Movement *m = account->first; m; m = m->next)
		n++;
	if (n == 0)
		return;
	entries = palloc(sizeof(HeapTuple) * n);

	for (;;)
	{
		HeapTuple	newtuple = heap_copytuple(account->tuple);
		TM_Result	result;
		Snapshot	snapshot;

		form_entries(p, account, (FormData_account *) GETSTRUCT(newtuple), entries);
		result = table_replace(&p->account_table, &account->tuple->t_self, newtuple);
		if (result == TM_Ok)
			break;
		if (result != TM_Updated && result != TM_Deleted)
			elog(ERROR, "unexpected result %d of an account's update", (int) result);

		/* somebody was faster and has committed: begin again from there */
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		account->tuple = post_find_account(p, account, snapshot);
		UnregisterSnapshot(snapshot);
		if (account->tuple == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("account " INT64_FORMAT " was deleted", account->account_id),
					 errhint("Restore it; rebate.audit() lists what is wrong.")));
	}
	for (int i = 0; i < n; i++)
		table_insert(&p->entry_table, entries[i]);
}

static void
write_accruals(Posting *p)
{
	for (int i = 0; i < p->nwrites; i++)
	{
		AccrualWrite *w = &p->writes[i];

		if (w->oldtuple == NULL)
			table_insert(&p->accrual_table, w->newtuple);
		else if (table_replace(&p->accrual_table, &w->oldtuple->t_self, w->newtuple) != TM_Ok)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update of a rebate"),
					 errhint("Try the transaction again.")));
	}
}

void
post_orders(Store *store, PostOrder *orders, int n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate posting",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Posting		p = {0};
	bool		known = false;

	store_ensure_epoch(store);
	p.store = store;
	p.orders = orders;
	p.norders = n;
	p.last_event = PG_INT64_MIN;
	table_begin(&p.account_table, store, ST_ACCOUNT);
	table_begin(&p.accrual_table, store, ST_ACCRUAL);
	table_begin(&p.entry_table, store, ST_ENTRY);

	post_resolve_accounts(&p);
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

	for (int i = 0; i < n; i++)
		plan_order(&p, &orders[i]);
	for (int i = 0; i < p.naccounts; i++)
		write_account(&p, &p.accounts[i]);
	write_accruals(&p);

	table_end(&p.entry_table);
	table_end(&p.accrual_table);
	table_end(&p.account_table);
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

bool
post_rekey(Store *store, int32 source_id, const char *oldkey, const char *newkey)
{
	StoreTableDesc table;
	OrderFacts	facts;
	Snapshot	snapshot;

	table_begin(&table, store, ST_ACCRUAL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	facts_read(store, table.rel, source_id, newkey, snapshot, &facts);
	if (facts.nrows == 0)
	{
		facts_read(store, table.rel, source_id, oldkey, snapshot, &facts);
		for (int i = 0; i < facts.nrows; i++)
		{
			Datum		values[ACC_NATTS];
			bool		nulls[ACC_NATTS];

			heap_deform_tuple(facts.rows[i], RelationGetDescr(table.rel), values, nulls);
			values[ACC_ORDER_KEY - 1] = CStringGetTextDatum(newkey);
			if (table_replace(&table, &facts.rows[i]->t_self,
							  heap_form_tuple(RelationGetDescr(table.rel), values, nulls)) != TM_Ok)
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not serialize access due to concurrent update of a rebate"),
						 errhint("Try the transaction again.")));
		}
		facts.seen = true;
	}
	else
		facts.seen = false;
	UnregisterSnapshot(snapshot);
	table_end(&table);
	CommandCounterIncrement();
	return facts.seen;
}
