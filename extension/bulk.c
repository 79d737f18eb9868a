/*
 * bulk.c
 *	  A statement that brings more new orders than the collection holds.
 *
 * Its orders are decided as new, packed, brought into the order of accounts and
 * posted at the end of the statement, so that each account is found, locked and
 * brought along once, in the order of ids, and its entries come together.  Nobody
 * waits for the locks while the orders are decided.
 *
 * Orders go through a buffer first, a run, where those are found that are known
 * all the same (they were deleted and inserted again, or a trigger has touched
 * them); they are left to the collection, which decides them from their rows.
 * Nobody else can make facts of an order between that look and the posting, since
 * he would have to have its row, whose key is ours.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "bulk.h"
#include "bulk_orders.h"
#include "collect_internal.h"
#include "counters.h"
#include "post.h"
#include "rules.h"

/*
 * A run has as many orders as the collection may hold, and about half of them are
 * posted at a time.  With orders of very many accounts a statement is posted in
 * pieces, since accounts are kept in memory.
 */
#define PART_SIZE(bulk)		Max((bulk)->limit / 2, 1)
#define MAX_ACCOUNTS(bulk)	((bulk)->limit * 64)

typedef struct AccountName
{
	const char *member;
	const char *currency;
} AccountName;

typedef struct AccountEntry
{
	AccountName name;
	uint32		hash;
	char		status;
	BulkAccount *account;
} AccountEntry;

static inline uint32
hash_name(AccountName name)
{
	return hash_bytes((const unsigned char *) name.member, strlen(name.member)) ^
		hash_bytes((const unsigned char *) name.currency, strlen(name.currency));
}

#define SH_PREFIX namehash
#define SH_ELEMENT_TYPE AccountEntry
#define SH_KEY_TYPE AccountName
#define SH_KEY name
#define SH_HASH_KEY(tb, k) hash_name(k)
#define SH_EQUAL(tb, a, b) (strcmp((a).member, (b).member) == 0 && strcmp((a).currency, (b).currency) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* An order of the run */
typedef struct RunOrder
{
	uint64		prefix;			/* of the key, to be compared first */
	const char *key;			/* in the packed order */
	PackedOrder *packed;
	bool		left;			/* to the collection */
} RunOrder;

struct Bulk
{
	Store	   *store;
	Source	   *source;
	int32		generation;
	int			limit;			/* rebate.collect_limit as it was at the start */
	MemoryContext context;

	MemoryContext run_context;
	RunOrder   *run;
	int			nrun;

	namehash_hash *names;
	BulkAccount **accounts;
	int			naccounts;
	int			nfound;			/* those before it have an id */
	int			allocated_accounts;
	List	   *currencies;		/* of CurrencyInfo: those met */

	BulkOrders *orders;			/* those to be posted */
};

/*----------------------------------------------------------------------------
 * Collecting
 *----------------------------------------------------------------------------
 */

/* No account is known yet, and no order kept. */
static void
begin_piece(Bulk *bulk)
{
	MemoryContext old = MemoryContextSwitchTo(bulk->context);

	bulk->names = namehash_create(bulk->context, 1024, NULL);
	bulk->allocated_accounts = 1024;
	bulk->accounts = palloc(sizeof(BulkAccount *) * bulk->allocated_accounts);
	bulk->naccounts = bulk->nfound = 0;
	bulk->currencies = NIL;
	bulk->run_context = AllocSetContextCreate(bulk->context, "rebate bulk run",
											  ALLOCSET_DEFAULT_SIZES);
	bulk->run = MemoryContextAllocHuge(bulk->context, sizeof(RunOrder) * bulk->limit);
	bulk->nrun = 0;
	bulk->orders = bulk_orders_begin();
	MemoryContextSwitchTo(old);
}

Bulk *
bulk_begin(Store *store, Source *source, int32 generation)
{
	Bulk	   *bulk = palloc0(sizeof(Bulk));

	bulk->store = store;
	bulk->source = source;
	bulk->generation = generation;
	bulk->limit = rebate_collect_limit;
	bulk->context = AllocSetContextCreate(CurrentMemoryContext, "rebate bulk",
										  ALLOCSET_DEFAULT_SIZES);
	begin_piece(bulk);
	return bulk;
}

static const CurrencyInfo *
keep_currency(Bulk *bulk, const CurrencyInfo *currency)
{
	CurrencyInfo *copy;
	ListCell   *lc;

	foreach(lc, bulk->currencies)
	{
		copy = lfirst(lc);
		if (strcmp(copy->code, currency->code) == 0)
			return copy;
	}
	copy = palloc(sizeof(CurrencyInfo));
	*copy = *currency;
	bulk->currencies = lappend(bulk->currencies, copy);
	return copy;
}

/* The account of a decision; NULL if it touches none. */
static BulkAccount *
account_of(Bulk *bulk, const Decision *d)
{
	AccountName name = {d->member, d->currency.code};
	AccountEntry *entry;
	bool		found;
	bool		money = false;

	/* a rebate of nothing opens no account */
	for (int i = 0; i < d->nwishes; i++)
		money |= d->wishes[i].amount != 0;
	if (!money)
		return NULL;

	entry = namehash_insert(bulk->names, name, &found);
	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(bulk->context);
		Size		len = strlen(d->member) + 1;
		BulkAccount *account = palloc0(offsetof(BulkAccount, member) + len);

		memcpy(account->member, d->member, len);
		account->currency = keep_currency(bulk, &d->currency);
		if (bulk->naccounts == bulk->allocated_accounts)
		{
			bulk->allocated_accounts *= 2;
			bulk->accounts = repalloc_huge(bulk->accounts,
										   sizeof(BulkAccount *) * bulk->allocated_accounts);
		}
		bulk->accounts[bulk->naccounts++] = account;
		entry->account = account;
		entry->name.member = account->member;
		entry->name.currency = account->currency->code;
		MemoryContextSwitchTo(old);
	}
	return entry->account;
}

static int
compare_run(const void *a, const void *b)
{
	const RunOrder *x = *(RunOrder *const *) a;
	const RunOrder *y = *(RunOrder *const *) b;

	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	return strcmp(x->key, y->key);
}

/* Leave the orders of the run to the collection that have facts, or come twice. */
static void
leave_known(Bulk *bulk)
{
	int			n = bulk->nrun;
	RunOrder  **by_key = palloc(sizeof(RunOrder *) * n);
	const char **keys = palloc(sizeof(char *) * n);
	bool	   *known = palloc0(sizeof(bool) * n);

	for (int i = 0; i < n; i++)
		by_key[i] = &bulk->run[i];
	qsort(by_key, n, sizeof(RunOrder *), compare_run);
	for (int i = 0; i < n; i++)
		keys[i] = by_key[i]->key;
	facts_probe(bulk->store, bulk->source->source_id, keys, n, known);
	for (int i = 0; i < n; i++)
	{
		if (known[i] || (i > 0 && strcmp(keys[i], keys[i - 1]) == 0) ||
			(i < n - 1 && strcmp(keys[i], keys[i + 1]) == 0))
		{
			collect_touch(bulk->store, bulk->source, keys[i]);
			by_key[i]->left = true;
		}
	}
}

static int
compare_accounts(const void *a, const void *b)
{
	const BulkAccount *x = *(BulkAccount *const *) a;
	const BulkAccount *y = *(BulkAccount *const *) b;
	int			cmp = strcmp(x->member, y->member);

	return cmp != 0 ? cmp : strcmp(x->currency->code, y->currency->code);
}

/*
 * Find the ids of the accounts that the run has brought, in the order of their
 * names.  Those that are missing are given one, and made when their time has come.
 */
static void
find_accounts(Bulk *bulk)
{
	int			n = bulk->naccounts - bulk->nfound;
	BulkAccount **sorted;
	AccountToFind *wanted;

	if (n == 0)
		return;
	sorted = palloc(sizeof(BulkAccount *) * n);
	wanted = palloc0(sizeof(AccountToFind) * n);
	memcpy(sorted, bulk->accounts + bulk->nfound, sizeof(BulkAccount *) * n);
	qsort(sorted, n, sizeof(BulkAccount *), compare_accounts);
	for (int i = 0; i < n; i++)
	{
		wanted[i].member = sorted[i]->member;
		wanted[i].currency = sorted[i]->currency->code;
	}
	post_find_ids(bulk->store, wanted, n);
	for (int i = 0; i < n; i++)
	{
		sorted[i]->missing = wanted[i].account_id == 0;
		sorted[i]->account_id = sorted[i]->missing ? store_next_id(bulk->store) :
			wanted[i].account_id;
	}
	bulk->nfound = bulk->naccounts;
}

static void post_piece(Bulk *bulk);

/* Take the orders of the run on their way. */
static void
end_run(Bulk *bulk)
{
	MemoryContext old = MemoryContextSwitchTo(bulk->run_context);

	leave_known(bulk);
	find_accounts(bulk);
	for (int i = 0; i < bulk->nrun; i++)
		if (!bulk->run[i].left)
			bulk_orders_keep(bulk->orders, bulk->run[i].packed);
	bulk_orders_end_run(bulk->orders, bulk->accounts, bulk->naccounts);
	bulk->nrun = 0;
	MemoryContextSwitchTo(old);
	MemoryContextReset(bulk->run_context);
	if (bulk->naccounts >= MAX_ACCOUNTS(bulk))
	{
		post_piece(bulk);
		begin_piece(bulk);
	}
}

void
bulk_add(Bulk *bulk, const char *key, const Decision *d)
{
	RunOrder   *order = &bulk->run[bulk->nrun++];

	Assert(d->generation == bulk->generation);
	order->packed = bulk_orders_pack(bulk->orders, key, d, account_of(bulk, d), &order->key);
	order->prefix = order_key_prefix(key);
	order->left = false;
	if (bulk->nrun == bulk->limit)
		end_run(bulk);
}

/*----------------------------------------------------------------------------
 * Posting
 *----------------------------------------------------------------------------
 */

/*
 * Make the missing accounts, in the order of their names.  If another session was
 * faster with one, its orders come where the id was to be that they were sorted
 * by.
 */
static void
make_accounts(Bulk *bulk)
{
	BulkAccount **missing = palloc(sizeof(BulkAccount *) * bulk->naccounts);
	AccountToFind *wanted;
	int			n = 0;

	for (int i = 0; i < bulk->naccounts; i++)
		if (bulk->accounts[i]->missing)
			missing[n++] = bulk->accounts[i];
	qsort(missing, n, sizeof(BulkAccount *), compare_accounts);
	wanted = palloc(sizeof(AccountToFind) * n);
	for (int i = 0; i < n; i++)
	{
		wanted[i].member = missing[i]->member;
		wanted[i].currency = missing[i]->currency->code;
		wanted[i].account_id = missing[i]->account_id;
	}
	for (int done = 0; done < n; done += bulk->limit)
		post_create_accounts(bulk->store, wanted + done, Min(n - done, bulk->limit));
	pfree(wanted);
	pfree(missing);
}

/* Post the orders part by part, which end where an account does if they can. */
static void
post_parts(Bulk *bulk)
{
	MemoryContext context = AllocSetContextCreate(bulk->context, "rebate bulk part",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(bulk->context);
	OrderKeys  *keys = order_keys_begin(bulk->store, bulk->source->source_id,
										bulk_orders_in_memory(bulk->orders) ?
										bulk_orders_count(bulk->orders) : 0);
	int			size = PART_SIZE(bulk);
	const BulkAccount *next;
	bool		more = bulk_orders_more(bulk->orders, &next);

	MemoryContextSwitchTo(context);
	while (more)
	{
		PostOrder  *orders = palloc(sizeof(PostOrder) * size * 2);
		const BulkAccount *account = NULL;
		int			n = 0;

		while (more && n < size * 2 && (n < size || next == account))
		{
			CHECK_FOR_INTERRUPTS();
			account = next;
			bulk_orders_unpack(bulk_orders_take(bulk->orders), &orders[n]);
			orders[n].source_id = bulk->source->source_id;
			orders[n++].decision->generation = bulk->generation;
			more = bulk_orders_more(bulk->orders, &next);
		}
		post_sorted_orders(bulk->store, orders, n, keys);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(bulk->context);
	order_keys_end(keys);
	MemoryContextSwitchTo(old);
	/* they are to be found */
	CommandCounterIncrement();
}

/* Post what was kept, and forget it and the accounts. */
static void
post_piece(Bulk *bulk)
{
	bool		read_only = XactReadOnly;
	Activity	around;

	if (bulk_orders_count(bulk->orders) > 0)
	{
		/* as in collect_flush() */
		XactReadOnly = false;
		around = counters_enter(ACTIVITY_POST);
		collection.flushing = GetCurrentSubTransactionId();
		bulk_orders_sort(bulk->orders, bulk->accounts, bulk->naccounts);
		make_accounts(bulk);
		post_parts(bulk);
		collection.flushing = InvalidSubTransactionId;
		counters_leave(around);
		XactReadOnly = read_only;
		/* none of them is remembered */
		collection_forgotten(bulk->source->source_id);
	}
	bulk_orders_end(bulk->orders);
	MemoryContextReset(bulk->context);
}

void
bulk_end(Bulk *bulk)
{
	if (bulk->nrun > 0)
		end_run(bulk);
	post_piece(bulk);
	counters_add(CT_BULK_STATEMENTS, 1);
	MemoryContextDelete(bulk->context);
	pfree(bulk);
}
