/*
 * post_accrual.c
 *	  The rows of rebate_data.accrual that a posting makes and changes.
 *
 * The entry that opens a rebate is part of its row and never changes: what the
 * row has of it in other columns is kept before those change.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "arith.h"
#include "counters.h"
#include "post_internal.h"

static AccrualWrite *
add_write(Posting *p)
{
	AccrualWrite *write;

	if (p->nwrites == p->allocated_writes)
	{
		p->allocated_writes = Max(16, p->allocated_writes * 2);
		p->writes = p->writes ? repalloc(p->writes, sizeof(AccrualWrite) * p->allocated_writes)
			: palloc(sizeof(AccrualWrite) * p->allocated_writes);
	}
	write = &p->writes[p->nwrites++];
	memset(write, 0, sizeof(*write));
	return write;
}

/* List a new version of an accrual. */
void
post_replace_accrual(Posting *p, HeapTuple oldtuple, HeapTuple newtuple)
{
	AccrualWrite *write = add_write(p);

	write->oldtuple = oldtuple;
	write->newtuple = newtuple;
}

/*
 * List a new accrual; wish NULL: the bare decision.  Returns its place in the
 * list, for the movement that opens it.
 */
int
post_new_accrual(Posting *p, PostOrder *order, int64 accrual_id, Wish *wish, int part)
{
	AccrualWrite *write = add_write(p);

	write->order = order;
	write->accrual_id = accrual_id;
	write->wish = wish;
	write->part = part;
	if (wish == NULL)
		write->newtuple = post_form_accrual(p, write, NULL, 0, NULL);
	return p->nwrites - 1;
}

HeapTuple
post_form_accrual(Posting *p, const AccrualWrite *write, const EntryFields *entry, int64 check,
				  const int64 *balance)
{
	Decision   *d = write->order->decision;
	Wish	   *wish = write->wish;
	Datum		values[ACC_NATTS];
	bool		nulls[ACC_NATTS];

	memset(nulls, false, sizeof(nulls));
	values[ACC_ACCRUAL_ID - 1] = Int64GetDatum(write->accrual_id);
	values[ACC_ACCOUNT_ID - 1] = Int64GetDatum(entry ? entry->account_id : 0);
	values[ACC_SOURCE_ID - 1] = Int32GetDatum(write->order->source_id);
	values[ACC_RULE_ID - 1] = Int32GetDatum(wish ? wish->rule_id : 0);
	values[ACC_VERSION - 1] = Int32GetDatum(wish ? wish->version : 0);
	values[ACC_GENERATION - 1] = Int32GetDatum(d->generation);
	values[ACC_FIRST_SEEN - 1] = TimestampTzGetDatum(d->first_seen);
	values[ACC_ORDER_TIME - 1] = TimestampTzGetDatum(d->order_time);
	values[ACC_EARNED - 1] = Int64GetDatum(wish ? wish->amount : 0);
	values[ACC_BUCKET - 1] = CharGetDatum(wish ? '0' + wish->bucket : BUCKET_NONE);
	values[ACC_PHASE - 1] = CharGetDatum(d->phase);
	values[ACC_FLAGS - 1] = Int16GetDatum(d->flags);
	values[ACC_PART - 1] = Int16GetDatum(write->part);
	if (entry)
	{
		entry_to_columns(entry, check, balance, &values[ACC_KIND - 1], &nulls[ACC_KIND - 1]);
		/* as long as the rest of the row says the same */
		nulls[ACC_ENTRY(EC_AMOUNT) - 1] = nulls[ACC_ENTRY(EC_EVENT_AT) - 1] = true;
	}
	else
		memset(&nulls[ACC_KIND - 1], true, sizeof(bool) * NUM_ENTRY_COLUMNS);
	nulls[ACC_CONFIRMED_AT - 1] = !d->has_confirmed_at;
	values[ACC_CONFIRMED_AT - 1] = TimestampTzGetDatum(d->confirmed_at);
	nulls[ACC_DUE - 1] = !(wish && wish->has_due);
	values[ACC_DUE - 1] = nulls[ACC_DUE - 1] ? (Datum) 0 : TimestampTzGetDatum(wish->due);
	values[ACC_ORDER_KEY - 1] = CStringGetTextDatum(write->order->key);
	nulls[ACC_BASE - 1] = wish == NULL || wish->base == NULL;
	values[ACC_BASE - 1] = nulls[ACC_BASE - 1] ? (Datum) 0 : NumericGetDatum(wish->base);
	nulls[ACC_GRANTED - 1] = nulls[ACC_LEVEL - 1] = nulls[ACC_LOOKED_UP - 1] = true;

	return store_form_row(RelationGetDescr(p->accrual_table.rel), values, nulls, ACC_NATTS);
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
void
post_update_accrual(Posting *p, PostOrder *order, HeapTuple oldtuple, Wish *wish, int64 earned,
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
	bool		opened;

	store_deform_row(oldtuple, desc, values, nulls, ACC_NATTS);
	base_changed = wish && wish->base &&
		(nulls[ACC_BASE - 1] || arith_cmp(DatumGetNumeric(values[ACC_BASE - 1]), wish->base) != 0);
	if (old->earned == earned && old->bucket == bucket && old->phase == d->phase &&
		old->flags == d->flags && old->order_time == d->order_time &&
		(wish == NULL || old->version == wish->version) && !base_changed &&
		!differs(values[ACC_CONFIRMED_AT - 1], nulls[ACC_CONFIRMED_AT - 1], confirmed, confirmed_null) &&
		!differs(values[ACC_DUE - 1], nulls[ACC_DUE - 1], due, due_null))
		return;

	/* the opening entry stays as it was posted */
	opened = !nulls[ACC_ENTRY(EC_SEQ) - 1];
	if (opened && nulls[ACC_ENTRY(EC_AMOUNT) - 1] && old->earned != earned)
	{
		values[ACC_ENTRY(EC_AMOUNT) - 1] = Int64GetDatum(ledger_abs(old->earned));
		nulls[ACC_ENTRY(EC_AMOUNT) - 1] = false;
	}
	if (opened && nulls[ACC_ENTRY(EC_EVENT_AT) - 1] && old->order_time != d->order_time)
	{
		values[ACC_ENTRY(EC_EVENT_AT) - 1] = TimestampTzGetDatum(old->order_time);
		nulls[ACC_ENTRY(EC_EVENT_AT) - 1] = false;
	}

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
	post_replace_accrual(p, oldtuple, store_form_row(desc, values, nulls, ACC_NATTS));
}

/* Only the flags change: the order failed, or its row left and the money stays. */
void
post_update_flags(Posting *p, PostOrder *order)
{
	for (int i = 0; i < order->facts->nrows; i++)
	{
		HeapTuple	oldtuple = order->facts->rows[i];
		int			flags = ((Form_accrual) GETSTRUCT(oldtuple))->flags | order->decision->flags;

		if (flags != ((Form_accrual) GETSTRUCT(oldtuple))->flags)
		{
			HeapTuple	newtuple = heap_copytuple(oldtuple);

			((Form_accrual) GETSTRUCT(newtuple))->flags = flags;
			post_replace_accrual(p, oldtuple, newtuple);
		}
	}
}

/* Fewer new rows than these are inserted one by one */
#define MANY 32

static int
compare_by_order(const void *a, const void *b)
{
	const AccrualWrite *x = *(AccrualWrite *const *) a;
	const AccrualWrite *y = *(AccrualWrite *const *) b;
	int			cmp;

	if (x->order->source_id != y->order->source_id)
		return x->order->source_id < y->order->source_id ? -1 : 1;
	cmp = strcmp(x->order->key, y->order->key);
	return cmp != 0 ? cmp : x->part - y->part;
}

static int
compare_by_seq(const void *a, const void *b)
{
	const AccrualWrite *x = *(AccrualWrite *const *) a;
	const AccrualWrite *y = *(AccrualWrite *const *) b;

	if (x->account_id != y->account_id)
		return x->account_id < y->account_id ? -1 : 1;
	return (x->seq > y->seq) - (x->seq < y->seq);
}

/* The rows of writes, in this order */
static HeapTuple *
sorted_rows(AccrualWrite **writes, int n, int (*compare) (const void *, const void *))
{
	HeapTuple  *rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(HeapTuple) * n);

	qsort(writes, n, sizeof(AccrualWrite *), compare);
	for (int i = 0; i < n; i++)
		rows[i] = writes[i]->newtuple;
	return rows;
}

static void
insert_accruals(Posting *p, int n)
{
	AccrualWrite **new = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(AccrualWrite *) * n);
	HeapTuple  *by_order;
	HeapTuple  *by_seq;

	for (int i = 0, j = 0; i < p->nwrites; i++)
	{
		if (p->writes[i].oldtuple == NULL)
			new[j++] = &p->writes[i];
	}
	by_seq = sorted_rows(new, n, compare_by_seq);
	by_order = sorted_rows(new, n, compare_by_order);
	table_insert_many(&p->accrual_table, by_order, n, p->store->indexes[SI_ACCRUAL_SEQ], by_seq);
}

/*
 * The rows of orders that come in the order of their accounts: so are their
 * entries made in the index of accounts, and one a page in that of transaction
 * ids, since they all have the same.
 */
static void
insert_sorted_accruals(Posting *p)
{
	StoreTableDesc *table = &p->accrual_table;
	const Oid	own[] = {p->store->indexes[SI_ACCRUAL_ORDER], p->store->indexes[SI_ACCRUAL_SEQ],
		p->store->indexes[SI_ACCRUAL_XID]};
	HeapTuple  *rows = palloc(sizeof(HeapTuple) * p->nwrites);
	Datum		xid = Int64GetDatum((int64) U64FromFullTransactionId(GetTopFullTransactionIdIfAny()));
	BlockNumber block = InvalidBlockNumber;
	bool		bare = false;

	for (int i = 0; i < p->nwrites; i++)
		rows[i] = p->writes[i].newtuple;
	table_insert_rows(table, rows, p->nwrites, own, lengthof(own));
	for (int i = 0; i < p->nwrites; i++)
	{
		AccrualWrite *write = &p->writes[i];
		ItemPointer tid = &rows[i]->t_self;
		bool		isnull[2] = {false, false};

		if (write->account_id != 0)
		{
			Datum		values[2] = {Int64GetDatum(write->account_id), Int64GetDatum(write->seq)};

			table_index_entry(table, p->store->indexes[SI_ACCRUAL_SEQ], values, isnull, tid);
		}
		if (ItemPointerGetBlockNumber(tid) != block || bare != (write->account_id == 0))
		{
			block = ItemPointerGetBlockNumber(tid);
			bare = isnull[0] = write->account_id == 0;
			table_index_entry(table, p->store->indexes[SI_ACCRUAL_XID], &xid, isnull, tid);
		}
		order_keys_add(p->keys, write->order->key, write->part, tid);
	}
}

/* Rebates that are new, for the statistics: the others' rows have no account */
static void
count_rebates(const Posting *p)
{
	int32		source_id = 0;
	int			n = 0;

	for (int i = 0; i < p->nwrites; i++)
	{
		const AccrualWrite *write = &p->writes[i];

		if (write->oldtuple || write->account_id == 0)
			continue;
		if (write->order->source_id != source_id)
		{
			counters_add_of(p->store, source_id, CT_REBATES, n);
			source_id = write->order->source_id;
			n = 0;
		}
		n++;
	}
	counters_add_of(p->store, source_id, CT_REBATES, n);
}

void
post_write_accruals(Posting *p)
{
	int			nnew = 0;

	count_rebates(p);
	if (p->keys)
	{
		insert_sorted_accruals(p);
		return;
	}

	for (int i = 0; i < p->nwrites; i++)
		nnew += p->writes[i].oldtuple == NULL;
	for (int i = 0; i < p->nwrites; i++)
	{
		AccrualWrite *w = &p->writes[i];

		if (w->oldtuple == NULL)
		{
			if (nnew < MANY)
				table_insert(&p->accrual_table, w->newtuple);
		}
		else if (table_replace(&p->accrual_table, &w->oldtuple->t_self, w->newtuple) != TM_Ok)
			table_conflict();
	}
	if (nnew >= MANY)
		insert_accruals(p, nnew);
}

bool
post_try_accruals(Posting *p)
{
	for (int i = 0; i < p->nwrites; i++)
	{
		if (!table_insert_key(&p->accrual_table, p->writes[i].newtuple,
							  p->store->indexes[SI_ACCRUAL_ORDER]))
		{
			p->nwrites = i + 1;
			post_withdraw_accruals(p);
			return false;
		}
	}
	return true;
}

void
post_withdraw_accruals(Posting *p)
{
	for (int i = 0; i < p->nwrites; i++)
		table_withdraw(&p->accrual_table, p->writes[i].newtuple);
}

void
post_finish_accruals(Posting *p)
{
	count_rebates(p);
	for (int i = 0; i < p->nwrites; i++)
		table_insert_rest(&p->accrual_table, p->writes[i].newtuple,
						  p->store->indexes[SI_ACCRUAL_ORDER]);
}
