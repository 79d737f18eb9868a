/*
 * post_account.c
 *	  The accounts that a posting touches: found, made, locked in one order.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "account_memo.h"
#include "former.h"
#include "post_internal.h"

static int
compare_by_name(const void *a, const void *b)
{
	const PostAccount *x = a;
	const PostAccount *y = b;
	int			cmp;

	/* those found by id come last */
	if (x->member == NULL || y->member == NULL)
		return (x->member == NULL) - (y->member == NULL);
	cmp = strcmp(x->member, y->member);
	return cmp != 0 ? cmp : strcmp(x->currency, y->currency);
}

static int
compare_name_pointers(const void *a, const void *b)
{
	return compare_by_name(*(PostAccount *const *) a, *(PostAccount *const *) b);
}

static int
compare_by_id(const void *a, const void *b)
{
	int64		x = ((const PostAccount *) a)->account_id;
	int64		y = ((const PostAccount *) b)->account_id;

	return (x > y) - (x < y);
}

static uint32
hash_account(const PostAccount *account)
{
	if (account->account_id != 0)
		return hash_bytes((const unsigned char *) &account->account_id, sizeof(int64));
	return hash_combine(hash_bytes((const unsigned char *) account->member, strlen(account->member)),
						hash_bytes((const unsigned char *) account->currency,
								   strlen(account->currency)));
}

static bool
attribute_is(HeapTuple tuple, int attno, TupleDesc desc, const char *value)
{
	bool		isnull;
	text	   *found = DatumGetTextPP(heap_getattr(tuple, attno, desc, &isnull));
	size_t		len = strlen(value);

	return VARSIZE_ANY_EXHDR(found) == len && memcmp(VARDATA_ANY(found), value, len) == 0;
}

/* Whether a tuple is of the account that is looked for */
static bool
is_account(Posting *p, const PostAccount *account, HeapTuple tuple)
{
	TupleDesc	desc = RelationGetDescr(p->account_table.rel);

	if (account->account_id != 0)
		return ((Form_account) GETSTRUCT(tuple))->account_id == account->account_id;
	return attribute_is(tuple, AC_MEMBER, desc, account->member) &&
		attribute_is(tuple, AC_CURRENCY, desc, account->currency);
}

/*
 * A copy of the version of an account that "snapshot" sees, in the chain of
 * updates that begins at "tid" on a pinned page; NULL if there is none, or
 * another account.  Unpins.
 *
 * An index scan would prune the page at each visit, since a page of accounts has
 * no more free space than its fillfactor left it.  Here it is pruned when it has
 * no room for some more versions, so once in many updates.
 */
static HeapTuple
fetch_account(Posting *p, const PostAccount *account, ItemPointer tid, Buffer buffer,
			  Snapshot snapshot)
{
	Relation	rel = p->account_table.rel;
	ItemPointerData here = *tid;
	HeapTupleData tuple;
	HeapTuple	copy = NULL;
	Size		room;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (heap_hot_search_buffer(&here, rel, buffer, snapshot, &tuple, NULL, true) &&
		is_account(p, account, &tuple))
		copy = heap_copytuple(&tuple);
	room = PageGetHeapFreeSpace(BufferGetPage(buffer));
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (copy && room < 4 * MAXALIGN(copy->t_len))
		heap_page_prune_opt_compat(rel, buffer);
	ReleaseBuffer(buffer);
	return copy;
}

/*
 * Newest version of an account by name or id under "snapshot"; NULL if none.
 * Looks where it was the last time, and in the index if it is not there.
 */
HeapTuple
post_find_account(Posting *p, PostAccount *account, Snapshot snapshot)
{
	Relation	rel = p->account_table.rel;
	uint32		hash = hash_account(account);
	ItemPointerData place;
	Buffer		buffer = account_memo_read(rel, hash, &place);
	ScanKeyData keys[2];
	Relation	index;
	IndexScanDesc scan;
	ItemPointer tid;
	HeapTuple	tuple = NULL;
	int			nkeys;

	if (BufferIsValid(buffer))
		tuple = fetch_account(p, account, &place, buffer, snapshot);
	if (tuple)
		return tuple;

	if (account->account_id != 0)
	{
		index = index_open(p->store->indexes[SI_ACCOUNT_ID], RowExclusiveLock);
		nkeys = 1;
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ,
					Int64GetDatum(account->account_id));
	}
	else
	{
		index = index_open(p->store->indexes[SI_ACCOUNT_MEMBER], RowExclusiveLock);
		nkeys = 2;
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ,
					CStringGetTextDatum(account->member));
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
					CStringGetTextDatum(account->currency));
	}
	scan = index_beginscan_compat(rel, index, snapshot, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (tuple == NULL && (tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(tid));
		tuple = fetch_account(p, account, tid, buffer, snapshot);
		if (tuple)
			account_memo_keep(hash, tid, buffer);
	}
	index_endscan(scan);
	index_close(index, NoLock);
	return tuple;
}

/*
 * Take out the accounts of members who have another key now, or are erased, and
 * keep those that are left from it until the end of the transaction.
 */
static int
drop_former(Store *store, AccountToFind *accounts, int n)
{
	const char **keys;
	int			left = 0;

	if (store->version < 2)
		return n;
	keys = palloc(sizeof(char *) * n);
	for (int i = 0; i < n; i++)
		keys[i] = accounts[i].member;
	former_lock_open(store, keys, n);
	pfree(keys);
	if (!former_any_now(store))
		return n;
	for (int i = 0; i < n; i++)
	{
		char	   *now;

		if (former_find(store, accounts[i].member, &now) == FORMER_NOT)
			accounts[left++] = accounts[i];
	}
	return left;
}

void
post_create_accounts(Store *store, AccountToFind *accounts, int n)
{
	static SPIPlanPtr plan = NULL;
	StoreSpi	scope;
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum	   *members = palloc(sizeof(Datum) * n);
	Datum	   *currencies = palloc(sizeof(Datum) * n);
	Datum		values[3];
	Oid			argtypes[3] = {INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID};

	n = drop_former(store, accounts, n);
	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
	{
		ids[i] = Int64GetDatum(accounts[i].account_id);
		members[i] = CStringGetTextDatum(accounts[i].member);
		currencies[i] = CStringGetTextDatum(accounts[i].currency);
	}
	values[0] = PointerGetDatum(construct_array(ids, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = PointerGetDatum(construct_array(members, n, TEXTOID, -1, false, TYPALIGN_INT));
	values[2] = PointerGetDatum(construct_array(currencies, n, TEXTOID, -1, false, TYPALIGN_INT));

	store_spi_begin(store, &scope);
	if (plan == NULL)
	{
		plan = SPI_prepare("INSERT INTO rebate_data.account (account_id, last_entry, tracked, pending,"
						   " maturing, available, held, last_check, last_posted, status, currency,"
						   " member, opened_at, handle)"
						   " SELECT u.account_id, 0, 0, 0, 0, 0, 0, 0, now(), 'a', u.currency, u.member,"
						   "        now(), gen_random_uuid()"
						   "   FROM unnest($1, $2, $3) WITH ORDINALITY u(account_id, member, currency, place)"
						   "  ORDER BY u.place"
						   " ON CONFLICT (member, currency) DO NOTHING",
						   3, argtypes);
		if (plan == NULL)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
	}
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not create accounts");
	store_spi_end(&scope);
	CommandCounterIncrement();
}

/* Make the accounts that are missing, in the order of their names. */
static void
create_missing(Posting *p, PostAccount **missing, int n)
{
	AccountToFind *accounts = palloc(sizeof(AccountToFind) * n);

	for (int i = 0; i < n; i++)
	{
		accounts[i].member = missing[i]->member;
		accounts[i].currency = missing[i]->currency;
		accounts[i].account_id = store_next_id(p->store);
	}
	post_create_accounts(p->store, accounts, n);
}

/* Whether a decision is about money of the account of this name */
static bool
is_of(const Decision *d, const PostAccount *account)
{
	return (d->member == account->member || strcmp(d->member, account->member) == 0) &&
		strcmp(d->currency.code, account->currency) == 0;
}

/* Orders of an erased member are recorded, and earn nothing. */
static void
erase_wishes(Posting *p, const PostAccount *account)
{
	for (int i = 0; i < p->norders; i++)
	{
		Decision   *d = p->orders[i].decision;

		if (d->nwishes > 0 && is_of(d, account))
		{
			d->nwishes = 0;
			d->flags |= ORDER_ERASED;
		}
	}
}

/*
 * An account can neither be found nor opened: since the orders were decided its
 * member was erased, or given another key, which they are posted under then.
 */
static void
follow_member(Posting *p, const PostAccount *account)
{
	char	   *now;

	switch (former_find_now(p->store, account->member, &now))
	{
		case FORMER_ERASED:
			erase_wishes(p, account);
			break;
		case FORMER_REPLACED:
			/* the decision may outlive this posting */
			for (int i = 0; i < p->norders; i++)
			{
				Decision   *d = p->orders[i].decision;

				if (d->nwishes > 0 && is_of(d, account))
					d->member = MemoryContextStrdup(GetMemoryChunkContext(d), now);
			}
			break;
		default:
			elog(ERROR, "account was created but is not there");
	}
}

void
post_erase_account(Posting *p, PostAccount *account)
{
	int		   *places = palloc(sizeof(int) * Max(p->nwrites, 1));
	int			n = 0;

	erase_wishes(p, account);
	account->first = account->last = NULL;

	/* of what it had to write for an order only the bare decision is left */
	for (int i = 0; i < p->nwrites; i++)
	{
		AccrualWrite *write = &p->writes[i];

		if (write->wish && write->order->decision->nwishes == 0)
		{
			if (write->part > 0)
				continue;
			write->wish = NULL;
			write->account_id = write->seq = 0;
			write->newtuple = post_form_accrual(p, write, NULL, 0, NULL);
		}
		places[i] = n;
		p->writes[n++] = *write;
	}
	p->nwrites = n;
	for (int i = 0; i < p->naccounts; i++)
		for (Movement *m = p->accounts[i].first; m; m = m->next)
			if (m->opens >= 0)
				m->opens = places[m->opens];
	pfree(places);
}

/*
 * List the accounts of all orders: those that wishes name and those that hold
 * accruals.  Then find or make them, and sort them by id without doubles.  Returns
 * false if members were found to have other keys than the orders say: they are to
 * be listed again.
 */
static bool
resolve_accounts(Posting *p)
{
	int			allocated = Max(8, p->norders * 2);
	PostAccount **missing;
	int			nmissing = 0,
				n = 0;
	bool		followed = false;
	Snapshot	snapshot;

	p->accounts = palloc0(sizeof(PostAccount) * allocated);
	for (int i = 0; i < p->norders; i++)
	{
		Decision   *d = p->orders[i].decision;
		OrderFacts *facts = p->orders[i].facts;

		if (n + 1 + facts->nrows > allocated)
		{
			int			grown = (n + 1 + facts->nrows) * 2;

			p->accounts = repalloc(p->accounts, sizeof(PostAccount) * grown);
			memset(p->accounts + n, 0, sizeof(PostAccount) * (grown - n));
			allocated = grown;
		}
		for (int j = 0; j < d->nwishes; j++)
		{
			/* a rebate of nothing opens no account */
			if (d->wishes[j].amount == 0)
				continue;
			p->accounts[n].member = d->member;
			p->accounts[n++].currency = d->currency.code;
			break;
		}
		for (int j = 0; j < facts->nrows; j++)
		{
			Form_accrual row = (Form_accrual) GETSTRUCT(facts->rows[j]);

			if (row->account_id != 0 && !d->keep)
				p->accounts[n++].account_id = row->account_id;
		}
	}

	/* names: sort, drop doubles, find */
	qsort(p->accounts, n, sizeof(PostAccount), compare_by_name);
	p->naccounts = 0;
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && p->accounts[i].member &&
			compare_by_name(&p->accounts[p->naccounts - 1], &p->accounts[i]) == 0)
			continue;
		p->accounts[p->naccounts++] = p->accounts[i];
	}

	missing = palloc(sizeof(PostAccount *) * Max(p->naccounts, 1));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < p->naccounts; i++)
	{
		PostAccount *account = &p->accounts[i];

		account->tuple = post_find_account(p, account, snapshot);
		if (account->tuple == NULL)
		{
			if (account->member == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_RB_STORE_DAMAGED),
						 errmsg("account " INT64_FORMAT " is missing", account->account_id),
						 errhint("Restore it; rebate.audit() lists what is wrong.")));
			missing[nmissing++] = account;
		}
	}
	UnregisterSnapshot(snapshot);

	if (nmissing > 0)
	{
		create_missing(p, missing, nmissing);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		for (int i = 0; i < nmissing; i++)
		{
			missing[i]->tuple = post_find_account(p, missing[i], snapshot);
			if (missing[i]->tuple == NULL)
			{
				follow_member(p, missing[i]);
				followed = true;
			}
		}
		UnregisterSnapshot(snapshot);
		if (followed)
			return false;
	}

	/* ids: sort, drop doubles, keep the names */
	for (int i = 0; i < p->naccounts; i++)
		p->accounts[i].account_id = ((Form_account) GETSTRUCT(p->accounts[i].tuple))->account_id;
	qsort(p->accounts, p->naccounts, sizeof(PostAccount), compare_by_id);
	n = p->naccounts;
	p->naccounts = 0;
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && p->accounts[p->naccounts - 1].account_id == p->accounts[i].account_id)
		{
			if (p->accounts[i].member)
			{
				p->accounts[p->naccounts - 1].member = p->accounts[i].member;
				p->accounts[p->naccounts - 1].currency = p->accounts[i].currency;
			}
			continue;
		}
		p->accounts[p->naccounts++] = p->accounts[i];
	}

	p->by_name = palloc(sizeof(PostAccount *) * Max(p->naccounts, 1));
	p->nby_name = 0;
	for (int i = 0; i < p->naccounts; i++)
		if (p->accounts[i].member)
			p->by_name[p->nby_name++] = &p->accounts[i];
	qsort(p->by_name, p->nby_name, sizeof(PostAccount *), compare_name_pointers);
	return true;
}

void
post_resolve_accounts(Posting *p)
{
	while (!resolve_accounts(p))
		;
}

/* Whether an account is in the list already, under the key that its member had before */
static bool
is_listed(const Posting *p, const PostAccount *account)
{
	for (int i = 0; i < p->naccounts; i++)
		if (p->accounts[i].account_id == ((Form_account) GETSTRUCT(account->tuple))->account_id)
			return true;
	return false;
}

void
post_list_accounts(Posting *p)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	p->accounts = palloc0(sizeof(PostAccount) * Max(p->norders, 1));
	p->at = -1;
	for (int i = 0; i < p->norders; i++)
	{
		const Decision *d = p->orders[i].decision;
		PostAccount *account = &p->accounts[p->naccounts];

		if (d->nwishes == 0 || (p->naccounts > 0 && is_of(d, account - 1)))
			continue;
		account->member = d->member;
		account->currency = d->currency.code;
		account->tuple = post_find_account(p, account, snapshot);
		if (account->tuple == NULL)
		{
			/* orders of a member who was erased meanwhile have no wishes any more */
			follow_member(p, account);
			if (d->nwishes == 0)
				continue;
			account->member = d->member;
			account->tuple = post_find_account(p, account, snapshot);
			if (account->tuple == NULL || is_listed(p, account))
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not serialize access since a member was given another key"),
						 errhint("Try the transaction again.")));
		}
		account->account_id = ((Form_account) GETSTRUCT(account->tuple))->account_id;
		p->naccounts++;
	}
	UnregisterSnapshot(snapshot);
}

void
post_find_ids(Store *store, AccountToFind *accounts, int n)
{
	Posting		p = {.store = store};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	table_begin(&p.account_table, store, ST_ACCOUNT);
	for (int i = 0; i < n; i++)
	{
		PostAccount account = {.member = accounts[i].member, .currency = accounts[i].currency};
		HeapTuple	tuple = post_find_account(&p, &account, snapshot);

		accounts[i].account_id = tuple ? ((Form_account) GETSTRUCT(tuple))->account_id : 0;
		if (tuple)
			heap_freetuple(tuple);
	}
	table_end(&p.account_table);
	UnregisterSnapshot(snapshot);
}

/*
 * Lock the accounts in the order of their ids, and read their newest versions.
 * Held until the end of the transaction.
 */
void
post_lock_accounts(Posting *p)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	for (int i = 0; i < p->naccounts; i++)
	{
		PostAccount *account = &p->accounts[i];

		account->tuple = table_lock(&p->account_table, &account->tuple->t_self, snapshot);
		if (account->tuple == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("account " INT64_FORMAT " was deleted", account->account_id),
					 errhint("Restore it; rebate.audit() lists what is wrong.")));
		if (account->member && post_account_is_erased(account))
			erase_wishes(p, account);
	}
	UnregisterSnapshot(snapshot);
}

PostAccount *
post_account_by_id(Posting *p, int64 account_id)
{
	PostAccount key = {.account_id = account_id};

	return bsearch(&key, p->accounts, p->naccounts, sizeof(PostAccount), compare_by_id);
}

PostAccount *
post_account_of(Posting *p, const char *member, const char *currency)
{
	PostAccount key = {.member = member, .currency = currency};
	PostAccount *probe = &key;
	PostAccount **found;

	if (p->keys)
	{
		/* it is the turn of this one or of the next */
		for (int i = Max(p->at, 0); i <= p->at + 1 && i < p->naccounts; i++)
		{
			if (strcmp(p->accounts[i].member, member) == 0 &&
				strcmp(p->accounts[i].currency, currency) == 0)
			{
				p->at = i;
				return &p->accounts[i];
			}
		}
		return NULL;
	}
	found = bsearch(&probe, p->by_name, p->nby_name, sizeof(PostAccount *),
								  compare_name_pointers);

	return found ? *found : NULL;
}
