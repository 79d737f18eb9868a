/*
 * bulk.c
 *	  A statement that brings more new orders than the collection holds.
 *
 * Its orders are decided as new, packed, sorted by their accounts and posted at
 * the end of the statement, so that each account is found, locked and brought
 * along once, in the order of ids, and its entries come together.  Nobody waits
 * for the locks while the orders are decided.
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
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"

#include "bulk.h"
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

/* A member in a currency */
typedef struct BulkAccount
{
	int64		account_id;		/* 0: not looked for; of a missing one: to be */
	uint32		number;			/* its place in Bulk.accounts */
	bool		missing;
	const CurrencyInfo *currency;
	char		member[FLEXIBLE_ARRAY_MEMBER];
} BulkAccount;

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

/*
 * A decision as it is sorted: this, the wishes, their bases, the key.  What is
 * the same for all orders of the statement is not in it.
 */
typedef struct PackedOrder
{
	TimestampTz order_time;
	TimestampTz confirmed_at;
	uint32		account;		/* number, if there are wishes */
	int32		nwishes;
	int16		flags;
	char		phase;
	bool		has_confirmed_at;
} PackedOrder;

typedef struct PackedWish
{
	int64		amount;
	TimestampTz due;
	int32		rule_id;
	int32		version;
	int32		expense;
	char		bucket;
	bool		has_due;
	bool		has_base;
} PackedWish;

/* An order of the run */
typedef struct RunOrder
{
	uint64		prefix;			/* of the key, to be compared first */
	const char *key;			/* in the packed order */
	struct varlena *packed;
	BulkAccount *account;		/* NULL: it touches none */
	int64		number;			/* of the order in the statement */
} RunOrder;

struct Bulk
{
	Store	   *store;
	Source	   *source;
	int32		generation;
	int			limit;			/* rebate.collect_limit as it was at the start */
	MemoryContext context;
	int64		norders;

	MemoryContext run_context;
	RunOrder   *run;
	int			nrun;

	namehash_hash *names;
	BulkAccount **accounts;
	int			naccounts;
	int			nfound;			/* those before it have an id */
	int			allocated_accounts;
	List	   *currencies;		/* of CurrencyInfo: those met */

	Tuplesortstate *sort;		/* NULL: nothing to post yet */
	TupleDesc	desc;
	TupleTableSlot *slot;
	TupleTableSlot *sorted;
};

/*----------------------------------------------------------------------------
 * Collecting
 *----------------------------------------------------------------------------
 */

/* No account is known yet, and no order sorted. */
static void
begin_piece(Bulk *bulk)
{
	MemoryContext old = MemoryContextSwitchTo(bulk->context);

	bulk->names = namehash_create(bulk->context, 1024, NULL);
	bulk->allocated_accounts = 1024;
	bulk->accounts = palloc(sizeof(BulkAccount *) * bulk->allocated_accounts);
	bulk->naccounts = bulk->nfound = 0;
	bulk->currencies = NIL;
	bulk->sort = NULL;
	bulk->run_context = AllocSetContextCreate(bulk->context, "rebate bulk run",
											  ALLOCSET_DEFAULT_SIZES);
	bulk->run = MemoryContextAllocHuge(bulk->context, sizeof(RunOrder) * bulk->limit);
	bulk->nrun = 0;
	bulk->desc = CreateTemplateTupleDesc(3);
	TupleDescInitEntry(bulk->desc, 1, "account_id", INT8OID, -1, 0);
	TupleDescInitEntry(bulk->desc, 2, "number", INT8OID, -1, 0);
	TupleDescInitEntry(bulk->desc, 3, "packed", BYTEAOID, -1, 0);
	/* a copy is complete in all majors, without another call */
	bulk->desc = CreateTupleDescCopy(bulk->desc);
	bulk->slot = MakeSingleTupleTableSlot(bulk->desc, &TTSOpsVirtual);
	bulk->sorted = MakeSingleTupleTableSlot(bulk->desc, &TTSOpsMinimalTuple);
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
		account->number = bulk->naccounts;
		bulk->accounts[bulk->naccounts++] = account;
		entry->account = account;
		entry->name.member = account->member;
		entry->name.currency = account->currency->code;
		MemoryContextSwitchTo(old);
	}
	return entry->account;
}

/*
 * A decision in one piece, in the current context; *packed_key points to its key.
 * Wishes that are all for nothing leave no more trace than none.
 */
static struct varlena *
pack(const char *key, const Decision *d, const BulkAccount *account, const char **packed_key)
{
	int			nwishes = account ? d->nwishes : 0;
	PackedOrder order = {
		.order_time = d->order_time,
		.confirmed_at = d->confirmed_at,
		.account = account ? account->number : 0,
		.nwishes = nwishes,
		.flags = d->flags,
		.phase = d->phase,
		.has_confirmed_at = d->has_confirmed_at
	};
	Size		keylen = strlen(key) + 1;
	Size		size = VARHDRSZ + sizeof(PackedOrder) + sizeof(PackedWish) * nwishes + keylen;
	struct varlena *result;
	char	   *at;

	for (int i = 0; i < nwishes; i++)
		size += d->wishes[i].base ? VARSIZE(d->wishes[i].base) : 0;
	result = palloc(size);
	SET_VARSIZE(result, size);
	at = VARDATA(result);
	memcpy(at, &order, sizeof(order));
	at += sizeof(order);
	for (int i = 0; i < nwishes; i++)
	{
		const Wish *wish = &d->wishes[i];
		PackedWish	packed = {
			.amount = wish->amount,
			.due = wish->due,
			.rule_id = wish->rule_id,
			.version = wish->version,
			.expense = wish->expense,
			.bucket = wish->bucket,
			.has_due = wish->has_due,
			.has_base = wish->base != NULL
		};

		memcpy(at, &packed, sizeof(packed));
		at += sizeof(packed);
	}
	for (int i = 0; i < nwishes; i++)
	{
		if (d->wishes[i].base)
		{
			memcpy(at, d->wishes[i].base, VARSIZE(d->wishes[i].base));
			at += VARSIZE(d->wishes[i].base);
		}
	}
	memcpy(at, key, keylen);
	*packed_key = at;
	return result;
}

/* The same again as an order to be posted, in the current context */
static void
unpack(Bulk *bulk, const struct varlena *packed, PostOrder *result)
{
	static OrderFacts none = {0};
	Decision   *d = palloc0(sizeof(Decision));
	const char *at = VARDATA_ANY(packed);
	PackedOrder order;

	memcpy(&order, at, sizeof(order));
	at += sizeof(order);
	d->flags = order.flags;
	d->phase = order.phase;
	d->generation = bulk->generation;
	d->first_seen = GetCurrentTransactionStartTimestamp();
	d->order_time = order.order_time;
	d->has_confirmed_at = order.has_confirmed_at;
	d->confirmed_at = order.confirmed_at;
	d->nwishes = order.nwishes;
	if (d->nwishes > 0)
	{
		const char *bases = at + sizeof(PackedWish) * d->nwishes;

		d->member = bulk->accounts[order.account]->member;
		d->currency = *bulk->accounts[order.account]->currency;
		d->wishes = palloc0(sizeof(Wish) * d->nwishes);
		for (int i = 0; i < d->nwishes; i++)
		{
			Wish	   *wish = &d->wishes[i];
			PackedWish	w;

			memcpy(&w, at, sizeof(w));
			at += sizeof(w);
			wish->rule_id = w.rule_id;
			wish->version = w.version;
			wish->expense = w.expense;
			wish->amount = w.amount;
			wish->bucket = w.bucket;
			wish->has_due = w.has_due;
			wish->due = w.due;
			if (w.has_base)
			{
				uint32		header;
				Size		size;

				memcpy(&header, bases, sizeof(header));
				size = VARSIZE(&header);
				wish->base = palloc(size);
				memcpy(wish->base, bases, size);
				bases += size;
			}
		}
		at = bases;
	}
	result->source_id = bulk->source->source_id;
	result->key = pstrdup(at);
	result->decision = d;
	result->facts = &none;
}

static int
compare_run(const void *a, const void *b)
{
	const RunOrder *x = a;
	const RunOrder *y = b;

	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	return strcmp(x->key, y->key);
}

/* Leave the orders of the run to the collection that have facts, or come twice. */
static void
leave_known(Bulk *bulk)
{
	RunOrder   *run = bulk->run;
	const char **keys = palloc(sizeof(char *) * bulk->nrun);
	bool	   *known = palloc0(sizeof(bool) * bulk->nrun);
	int			n = 0;

	qsort(run, bulk->nrun, sizeof(RunOrder), compare_run);
	for (int i = 0; i < bulk->nrun; i++)
		keys[i] = run[i].key;
	facts_probe(bulk->store, bulk->source->source_id, keys, bulk->nrun, known);
	for (int i = 0; i < bulk->nrun; i++)
	{
		if (known[i] || (i > 0 && strcmp(keys[i], keys[i - 1]) == 0) ||
			(i < bulk->nrun - 1 && strcmp(keys[i], keys[i + 1]) == 0))
			collect_touch(bulk->store, bulk->source, keys[i]);
		else
			run[n++] = run[i];
	}
	bulk->nrun = n;
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

static void
begin_sort(Bulk *bulk)
{
	AttrNumber	attnos[2] = {1, 2};
	Oid			operators[2] = {Int8LessOperator, Int8LessOperator};
	Oid			collations[2] = {InvalidOid, InvalidOid};
	bool		nulls_first[2] = {false, false};
	MemoryContext old = MemoryContextSwitchTo(bulk->context);

	bulk->sort = tuplesort_begin_heap(bulk->desc, 2, attnos, operators, collations, nulls_first,
									  maintenance_work_mem, NULL, TUPLESORT_NONE);
	MemoryContextSwitchTo(old);
}

static void post_piece(Bulk *bulk);

/* Take the orders of the run on their way. */
static void
end_run(Bulk *bulk)
{
	MemoryContext old = MemoryContextSwitchTo(bulk->run_context);

	leave_known(bulk);
	find_accounts(bulk);
	if (bulk->sort == NULL)
		begin_sort(bulk);
	for (int i = 0; i < bulk->nrun; i++)
	{
		RunOrder   *order = &bulk->run[i];
		TupleTableSlot *slot = bulk->slot;

		ExecClearTuple(slot);
		slot->tts_values[0] = Int64GetDatum(order->account ? order->account->account_id : 0);
		slot->tts_values[1] = Int64GetDatum(order->number);
		slot->tts_values[2] = PointerGetDatum(order->packed);
		slot->tts_isnull[0] = slot->tts_isnull[1] = slot->tts_isnull[2] = false;
		ExecStoreVirtualTuple(slot);
		tuplesort_puttupleslot(bulk->sort, slot);
	}
	ExecClearTuple(bulk->slot);
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
	MemoryContext old = MemoryContextSwitchTo(bulk->run_context);
	RunOrder   *order = &bulk->run[bulk->nrun++];

	Assert(d->generation == bulk->generation);
	order->account = account_of(bulk, d);
	order->packed = pack(key, d, order->account, &order->key);
	order->number = bulk->norders++;
	order->prefix = 0;
	for (int i = 0; i < 8; i++)
	{
		order->prefix = order->prefix << 8 | (unsigned char) *key;
		if (*key)
			key++;
	}
	MemoryContextSwitchTo(old);
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

/* Post the sorted orders part by part, which end where an account does if they can. */
static void
post_parts(Bulk *bulk)
{
	MemoryContext context = AllocSetContextCreate(bulk->context, "rebate bulk part",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(bulk->context);
	OrderKeys  *keys = order_keys_begin(bulk->store, bulk->source->source_id);
	bool		more = tuplesort_gettupleslot(bulk->sort, true, false, bulk->sorted, NULL);
	int			size = PART_SIZE(bulk);

	MemoryContextSwitchTo(context);
	while (more)
	{
		PostOrder  *orders = palloc(sizeof(PostOrder) * size * 2);
		Datum		account = 0;
		int			n = 0;

		while (more)
		{
			bool		isnull;
			Datum		next = slot_getattr(bulk->sorted, 1, &isnull);

			CHECK_FOR_INTERRUPTS();
			if (n == size * 2 || (n >= size && next != account))
				break;
			account = next;
			unpack(bulk, (struct varlena *) DatumGetPointer(slot_getattr(bulk->sorted, 3, &isnull)),
				   &orders[n++]);
			more = tuplesort_gettupleslot(bulk->sort, true, false, bulk->sorted, NULL);
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

/* Post what was sorted, and forget it and the accounts. */
static void
post_piece(Bulk *bulk)
{
	bool		read_only = XactReadOnly;
	Activity	around;

	if (bulk->sort)
	{
		/* as in collect_flush() */
		XactReadOnly = false;
		around = counters_enter(ACTIVITY_POST);
		collection.flushing = GetCurrentSubTransactionId();
		tuplesort_performsort(bulk->sort);
		make_accounts(bulk);
		post_parts(bulk);
		tuplesort_end(bulk->sort);
		collection.flushing = InvalidSubTransactionId;
		counters_leave(around);
		XactReadOnly = read_only;
		/* none of them is remembered */
		collection_forgotten(bulk->source->source_id);
	}
	ExecDropSingleTupleTableSlot(bulk->slot);
	ExecDropSingleTupleTableSlot(bulk->sorted);
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
