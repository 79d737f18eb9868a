/*
 * post_entry.c
 *	  The postings of one account: its row brought along, its entries formed.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "counters.h"
#include "delivery.h"
#include "post_internal.h"

/* Add to a bucket; a balance that does not fit is an error of the posting. */
static void
add_to_balance(FormData_account *account, int bucket, int64 amount)
{
	if (pg_add_s64_overflow(account->balance[bucket], amount, &account->balance[bucket]))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("the balance of an account is out of range")));
}

/* A row of rebate_data.entry */
static HeapTuple
form_entry(Posting *p, const Movement *m, const EntryFields *e, const FormData_account *state)
{
	Datum		values[EN_NATTS];
	bool		nulls[EN_NATTS];

	memset(nulls, false, sizeof(nulls));
	values[EN_ACCOUNT_ID - 1] = Int64GetDatum(e->account_id);
	values[EN_ACCRUAL_ID - 1] = Int64GetDatum(e->accrual_id);
	nulls[EN_PAYOUT_ID - 1] = true;
	values[EN_SOURCE_ID - 1] = Int32GetDatum(m->source_id);
	values[EN_RULE_ID - 1] = Int32GetDatum(e->rule_id);
	entry_to_columns(e, state->last_check, state->balance, &values[EN_KIND - 1],
					 &nulls[EN_KIND - 1]);
	values[EN_ORDER_KEY - 1] = CStringGetTextDatum(m->order_key);
	return store_form_row(RelationGetDescr(p->entry_table.rel), values, nulls, EN_NATTS);
}

/* The table is opened for the first: an order seen for the first time has none. */
static void
add_entry(Posting *p, const Movement *m, const EntryFields *e, const FormData_account *state)
{
	if (p->entry_table.rel == NULL)
		table_begin(&p->entry_table, p->store, ST_ENTRY);
	if (p->nentries == p->allocated_entries)
	{
		p->allocated_entries = Max(16, p->allocated_entries * 2);
		p->entries = p->entries ? repalloc(p->entries, sizeof(EntryWrite) * p->allocated_entries)
			: palloc(sizeof(EntryWrite) * p->allocated_entries);
	}
	p->entries[p->nentries++] = (EntryWrite)
	{
		form_entry(p, m, e, state), e->account_id, e->seq
	};
}

/*
 * Take an account through its movements and form the rows of its entries.
 * Returns the account's row as it is after them.
 */
HeapTuple
post_form_entries(Posting *p, PostAccount *account)
{
	HeapTuple	newtuple = heap_copytuple(account->tuple);
	FormData_account *state = (FormData_account *) GETSTRUCT(newtuple);
	int64		xid = (int64) U64FromFullTransactionId(GetTopFullTransactionId());
	TimestampTz now = GetCurrentTimestamp();

	/* the clock may step back; posted times never do */
	if (state->last_entry > 0 && now < state->last_posted)
		now = state->last_posted;

	for (Movement *m = account->first; m; m = m->next)
	{
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

		if (m->opens < 0)
			add_entry(p, m, &e, state);
		else
		{
			AccrualWrite *write = &p->writes[m->opens];

			write->account_id = e.account_id;
			write->seq = e.seq;
			write->newtuple = post_form_accrual(p, write, &e, state->last_check, state->balance);
		}
	}
	state->last_posted = now;
	return newtuple;
}

/* The entries of an account, for the statistics */
static void
count_entries(const Posting *p, const PostAccount *account)
{
	int			n = 0;

	for (const Movement *m = account->first; m; m = m->next)
	{
		n++;
		if (m->next == NULL || m->next->source_id != m->source_id)
		{
			counters_add_of(p->store, m->source_id, CT_ENTRIES, n);
			n = 0;
		}
	}
}

/*
 * Bring the row of an account along.  The update is what serialises postings of
 * the account.
 */
bool
post_replace_account(Posting *p, PostAccount *account, HeapTuple newtuple)
{
	TM_Result	result = table_replace(&p->account_table, &account->tuple->t_self, newtuple);
	Snapshot	snapshot;

	if (result == TM_Ok)
	{
		count_entries(p, account);
		delivery_posted(p->account_table.rel, account->account_id, account->tuple,
						((Form_account) GETSTRUCT(newtuple))->last_entry);
		return true;
	}
	if (result != TM_Updated && result != TM_Deleted)
		elog(ERROR, "unexpected result %d of an account's update", (int) result);

	/* somebody was faster and has committed: it begins again from there */
	counters_add(CT_RETRIES, 1);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	account->tuple = post_find_account(p, account, snapshot);
	UnregisterSnapshot(snapshot);
	if (account->tuple == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("account " INT64_FORMAT " was deleted", account->account_id),
				 errhint("Restore it; rebate.audit() lists what is wrong.")));
	return false;
}

/* Fewer entries than these are inserted one by one */
#define MANY 32

/*
 * Insert many, pages of them at once.  Then come their index entries, which need
 * no look at the rows; of transaction ids one a page is enough, since all have
 * the same.
 */
static void
insert_many(Posting *p)
{
	StoreTableDesc *table = &p->entry_table;
	const Oid	own[] = {p->store->indexes[SI_ENTRY], p->store->indexes[SI_ENTRY_XID]};
	HeapTuple  *rows = palloc(sizeof(HeapTuple) * p->nentries);
	Datum		xid = Int64GetDatum((int64) U64FromFullTransactionId(GetTopFullTransactionId()));
	BlockNumber block = InvalidBlockNumber;
	bool		isnull[2] = {false, false};

	for (int i = 0; i < p->nentries; i++)
		rows[i] = p->entries[i].tuple;
	table_insert_rows(table, rows, p->nentries, own, lengthof(own));
	for (int i = 0; i < p->nentries; i++)
	{
		EntryWrite *entry = &p->entries[i];
		Datum		key[2] = {Int64GetDatum(entry->account_id), Int64GetDatum(entry->seq)};

		table_index_entry(table, p->store->indexes[SI_ENTRY], key, isnull, &rows[i]->t_self);
		if (ItemPointerGetBlockNumber(&rows[i]->t_self) != block)
		{
			block = ItemPointerGetBlockNumber(&rows[i]->t_self);
			table_index_entry(table, p->store->indexes[SI_ENTRY_XID], &xid, isnull,
							  &rows[i]->t_self);
		}
	}
}

void
post_write_entries(Posting *p)
{
	if (p->nentries >= MANY)
		insert_many(p);
	else
		for (int i = 0; i < p->nentries; i++)
			table_insert(&p->entry_table, p->entries[i].tuple);
	if (p->entry_table.rel)
		table_end(&p->entry_table);
}
