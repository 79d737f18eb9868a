/*
 * post_freeze.c
 *	  What a freeze changes of an order's rebates: no money, but when they are due.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "freeze.h"
#include "post_clock.h"
#include "post_internal.h"
#include "rules.h"

static int
compare_ids(const void *a, const void *b)
{
	int64		x = ((const PostAccount *) a)->account_id;
	int64		y = ((const PostAccount *) b)->account_id;

	return (x > y) - (x < y);
}

/* Lock the accounts of an order's rebates, in the order of their ids. */
static void
lock_accounts(Posting *p, const OrderFacts *facts)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			n = 0;

	p->accounts = palloc0(sizeof(PostAccount) * Max(facts->nrows, 1));
	for (int i = 0; i < facts->nrows; i++)
	{
		int64		account_id = ((Form_accrual) GETSTRUCT(facts->rows[i]))->account_id;

		if (account_id != 0)
			p->accounts[n++].account_id = account_id;
	}
	qsort(p->accounts, n, sizeof(PostAccount), compare_ids);
	for (int i = 0; i < n; i++)
	{
		PostAccount *account = &p->accounts[p->naccounts];

		if (p->naccounts > 0 && p->accounts[i].account_id == account[-1].account_id)
			continue;
		*account = p->accounts[i];
		account->tuple = post_find_account(p, account, snapshot);
		if (account->tuple == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("account " INT64_FORMAT " is missing", account->account_id),
					 errhint("Restore it; rebate.audit() lists what is wrong.")));
		p->naccounts++;
	}
	UnregisterSnapshot(snapshot);
	post_lock_accounts(p);
}

/* Mark a row as one of a frozen order, and move its due if it is maturing. */
static void
update_row(Posting *p, HeapTuple oldtuple, const Freezes *freezes)
{
	TupleDesc	desc = RelationGetDescr(p->accrual_table.rel);
	Form_accrual old = (Form_accrual) GETSTRUCT(oldtuple);
	Datum		values[ACC_NATTS];
	bool		nulls[ACC_NATTS];
	bool		changed = (old->flags & ORDER_FROZEN) == 0;

	store_deform_row(oldtuple, desc, values, nulls, ACC_NATTS);
	values[ACC_FLAGS - 1] = Int16GetDatum(old->flags | ORDER_FROZEN);
	if (old->bucket == '0' + BUCKET_MATURING && !nulls[ACC_DUE - 1] &&
		!nulls[ACC_CONFIRMED_AT - 1])
	{
		Interval	hold = rules_hold(p->store, old->rule_id, old->version);
		TimestampTz confirmed = DatumGetTimestampTz(values[ACC_CONFIRMED_AT - 1]);
		TimestampTz due = freezes_due(freezes, confirmed,
									  decide_local_plus(p->store, confirmed, &hold));

		changed |= due != DatumGetTimestampTz(values[ACC_DUE - 1]);
		values[ACC_DUE - 1] = TimestampTzGetDatum(due);
	}
	if (changed)
		post_replace_accrual(p, oldtuple, store_form_row(desc, values, nulls, ACC_NATTS));
}

bool
post_freezes(Store *store, int32 source_id, const char *key, void (*record) (void *), void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate posting",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Posting		p = {.store = store,.last_event = PG_INT64_MIN};
	OrderFacts	facts;
	Snapshot	snapshot;
	bool		known;

	table_begin(&p.account_table, store, ST_ACCOUNT);
	table_begin(&p.accrual_table, store, ST_ACCRUAL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	facts_read(store, p.accrual_table.rel, source_id, key, snapshot, &facts);
	UnregisterSnapshot(snapshot);
	known = facts.nrows > 0;
	if (known)
	{
		Freezes		freezes;

		lock_accounts(&p, &facts);
		record(arg);
		CommandCounterIncrement();

		/* what the clock did before we had the locks is done */
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		facts_read(store, p.accrual_table.rel, source_id, key, snapshot, &facts);
		freezes_read(store, source_id, key, snapshot, &freezes);
		UnregisterSnapshot(snapshot);
		/* one that was never frozen may have been unfrozen */
		for (int i = 0; i < facts.nrows && freezes.n > 0; i++)
			update_row(&p, facts.rows[i], &freezes);
		post_write_accruals(&p);
		post_write_waiting(&p);
	}
	table_end(&p.accrual_table);
	table_end(&p.account_table);
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return known;
}
