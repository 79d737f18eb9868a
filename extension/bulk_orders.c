/*
 * bulk_orders.c
 *	  Orders of a large statement, packed, and brought into the order of accounts.
 *
 * An order is packed once, and stays where it is while the orders of the statement
 * fit into maintenance_work_mem: those of an account are a list, so that only
 * accounts are to be sorted.  Beyond that they go through a tuplesort.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"

#include "bulk_orders.h"
#include "order_keys.h"

/*
 * A decision in one piece: this, the wishes, their bases, the key.  What is the
 * same for all orders of the statement is not in it.
 */
struct PackedOrder
{
	int32		vl_len_;		/* a bytea, for the tuplesort */
	int32		nwishes;
	PackedOrder *next;			/* of its account */
	BulkAccount *account;		/* NULL: none, and no wishes */
	TimestampTz order_time;
	TimestampTz confirmed_at;
	int16		flags;
	char		phase;
	bool		has_confirmed_at;
};

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

#define PACKED_WISHES(order)	((PackedWish *) ((char *) (order) + MAXALIGN(sizeof(PackedOrder))))

/* Memory is taken from the server in pieces of this size */
#define BLOCK_SIZE	(256 * 1024)

struct BulkOrders
{
	MemoryContext context;
	int64		norders;		/* kept */

	/* packed orders: all, or those of the run */
	MemoryContext packed;
	char	   *at;				/* where the next one goes */
	Size		room;
	int64		used;			/* bytes */
	BulkAccount *bare;			/* stands for none */

	/* in memory: the accounts by their ids, and whose turn it is */
	BulkAccount **accounts;
	int			naccounts;
	int			turn;
	const PackedOrder *next;

	/* on disk */
	Tuplesortstate *sort;		/* NULL: in memory */
	TupleDesc	desc;
	TupleTableSlot *slot;
	TupleTableSlot *sorted;
	int64		nsorted;
};

BulkOrders *
bulk_orders_begin(void)
{
	BulkOrders *orders = palloc0(sizeof(BulkOrders));

	orders->context = CurrentMemoryContext;
	orders->bare = palloc0(sizeof(BulkAccount));
	orders->packed = AllocSetContextCreate(CurrentMemoryContext, "rebate packed orders",
										   ALLOCSET_DEFAULT_SIZES);
	return orders;
}

void
bulk_orders_end(BulkOrders *orders)
{
	if (orders->sort)
	{
		tuplesort_end(orders->sort);
		ExecDropSingleTupleTableSlot(orders->slot);
		ExecDropSingleTupleTableSlot(orders->sorted);
	}
	MemoryContextDelete(orders->packed);
}

int64
bulk_orders_count(BulkOrders *orders)
{
	return orders->norders;
}

bool
bulk_orders_in_memory(BulkOrders *orders)
{
	return orders->sort == NULL;
}

/*----------------------------------------------------------------------------
 * Packing
 *----------------------------------------------------------------------------
 */

static void *
take_room(BulkOrders *orders, Size size)
{
	void	   *result;

	size = MAXALIGN(size);
	if (size > orders->room)
	{
		orders->room = Max(size, BLOCK_SIZE);
		orders->at = MemoryContextAlloc(orders->packed, orders->room);
		orders->used += orders->room;
	}
	result = orders->at;
	orders->at += size;
	orders->room -= size;
	return result;
}

/* Forget all packed orders. */
static void
give_room(BulkOrders *orders)
{
	MemoryContextReset(orders->packed);
	orders->room = 0;
	orders->used = 0;
}

/* Wishes that are all for nothing leave no more trace than none. */
PackedOrder *
bulk_orders_pack(BulkOrders *orders, const char *key, const Decision *d, BulkAccount *account,
				 const char **packed_key)
{
	int			nwishes = account ? d->nwishes : 0;
	Size		keylen = strlen(key) + 1;
	Size		size = MAXALIGN(sizeof(PackedOrder)) + sizeof(PackedWish) * nwishes + keylen;
	PackedOrder *order;
	PackedWish *wishes;
	char	   *at;

	for (int i = 0; i < nwishes; i++)
		size += d->wishes[i].base ? INTALIGN(VARSIZE(d->wishes[i].base)) : 0;
	order = take_room(orders, size);
	SET_VARSIZE(order, size);
	order->nwishes = nwishes;
	order->next = NULL;
	order->account = account;
	order->order_time = d->order_time;
	order->confirmed_at = d->confirmed_at;
	order->flags = d->flags;
	order->phase = d->phase;
	order->has_confirmed_at = d->has_confirmed_at;

	wishes = PACKED_WISHES(order);
	at = (char *) (wishes + nwishes);
	for (int i = 0; i < nwishes; i++)
	{
		const Wish *wish = &d->wishes[i];

		wishes[i] = (PackedWish)
		{
			.amount = wish->amount,
			.due = wish->due,
			.rule_id = wish->rule_id,
			.version = wish->version,
			.expense = wish->expense,
			.bucket = wish->bucket,
			.has_due = wish->has_due,
			.has_base = wish->base != NULL
		};
		if (wish->base)
		{
			memcpy(at, wish->base, VARSIZE(wish->base));
			at += INTALIGN(VARSIZE(wish->base));
		}
	}
	memcpy(at, key, keylen);
	*packed_key = at;
	return order;
}

void
bulk_orders_unpack(const PackedOrder *order, PostOrder *result)
{
	static OrderFacts none = {0};
	Decision   *d = palloc0(sizeof(Decision));
	const PackedWish *wishes = PACKED_WISHES(order);
	char	   *at = (char *) (wishes + order->nwishes);

	d->flags = order->flags;
	d->phase = order->phase;
	d->first_seen = GetCurrentTransactionStartTimestamp();
	d->order_time = order->order_time;
	d->has_confirmed_at = order->has_confirmed_at;
	d->confirmed_at = order->confirmed_at;
	d->nwishes = order->nwishes;
	if (d->nwishes > 0)
	{
		d->member = order->account->member;
		d->currency = *order->account->currency;
		d->wishes = palloc0(sizeof(Wish) * d->nwishes);
	}
	for (int i = 0; i < d->nwishes; i++)
	{
		Wish	   *wish = &d->wishes[i];

		wish->rule_id = wishes[i].rule_id;
		wish->version = wishes[i].version;
		wish->expense = wishes[i].expense;
		wish->amount = wishes[i].amount;
		wish->bucket = wishes[i].bucket;
		wish->has_due = wishes[i].has_due;
		wish->due = wishes[i].due;
		if (wishes[i].has_base)
		{
			wish->base = (Numeric) at;
			at += INTALIGN(VARSIZE(at));
		}
	}
	result->key = at;
	result->decision = d;
	result->facts = &none;
}

/*----------------------------------------------------------------------------
 * The order of accounts
 *----------------------------------------------------------------------------
 */

static void
put_on_disk(BulkOrders *orders, PackedOrder *order)
{
	TupleTableSlot *slot = orders->slot;

	ExecClearTuple(slot);
	slot->tts_values[0] = Int64GetDatum(order->account ? order->account->account_id : 0);
	slot->tts_values[1] = Int64GetDatum(orders->nsorted++);
	slot->tts_values[2] = PointerGetDatum(order);
	memset(slot->tts_isnull, false, sizeof(bool) * 3);
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(orders->sort, slot);
	ExecClearTuple(slot);
}

/* All orders of an account, whose list is empty after it */
static void
put_list_on_disk(BulkOrders *orders, BulkAccount *account)
{
	for (PackedOrder *order = account->first; order; order = order->next)
		put_on_disk(orders, order);
	account->first = account->last = NULL;
}

/* There is no more room: what was kept goes into a tuplesort, and all that follows, too. */
static void
go_to_disk(BulkOrders *orders, BulkAccount **accounts, int naccounts)
{
	AttrNumber	attnos[2] = {1, 2};
	Oid			operators[2] = {Int8LessOperator, Int8LessOperator};
	Oid			collations[2] = {InvalidOid, InvalidOid};
	bool		nulls_first[2] = {false, false};
	MemoryContext old = MemoryContextSwitchTo(orders->context);
	TupleDesc	desc = CreateTemplateTupleDesc(3);

	TupleDescInitEntry(desc, 1, "account_id", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 2, "number", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 3, "packed", BYTEAOID, -1, 0);
	/* a copy is complete in all majors, without another call */
	orders->desc = CreateTupleDescCopy(desc);
	orders->slot = MakeSingleTupleTableSlot(orders->desc, &TTSOpsVirtual);
	orders->sorted = MakeSingleTupleTableSlot(orders->desc, &TTSOpsMinimalTuple);
	orders->sort = tuplesort_begin_heap(orders->desc, 2, attnos, operators, collations,
										nulls_first, maintenance_work_mem, NULL, TUPLESORT_NONE);
	put_list_on_disk(orders, orders->bare);
	for (int i = 0; i < naccounts; i++)
		put_list_on_disk(orders, accounts[i]);
	MemoryContextSwitchTo(old);
}

void
bulk_orders_keep(BulkOrders *orders, PackedOrder *order)
{
	BulkAccount *account = order->account ? order->account : orders->bare;

	orders->norders++;
	if (orders->sort)
		put_on_disk(orders, order);
	else
	{
		if (account->last)
			account->last->next = order;
		else
			account->first = order;
		account->last = order;
	}
}

void
bulk_orders_end_run(BulkOrders *orders, BulkAccount **accounts, int naccounts)
{
	if (orders->sort == NULL &&
		orders->used + orders->norders * ORDER_KEY_SIZE > maintenance_work_mem * (int64) 1024)
		go_to_disk(orders, accounts, naccounts);
	if (orders->sort)
		give_room(orders);
}

static int
compare_ids(const void *a, const void *b)
{
	int64		x = (*(BulkAccount *const *) a)->account_id;
	int64		y = (*(BulkAccount *const *) b)->account_id;

	return (x > y) - (x < y);
}

void
bulk_orders_sort(BulkOrders *orders, BulkAccount **accounts, int naccounts)
{
	if (orders->sort)
	{
		tuplesort_performsort(orders->sort);
		return;
	}
	orders->accounts = MemoryContextAllocHuge(orders->context, sizeof(BulkAccount *) * naccounts);
	memcpy(orders->accounts, accounts, sizeof(BulkAccount *) * naccounts);
	qsort(orders->accounts, naccounts, sizeof(BulkAccount *), compare_ids);
	orders->naccounts = naccounts;
	orders->next = orders->bare->first;
}

/* The order that stands in the slot, whatever header it has there */
static void
copy_packed(struct varlena *found, PackedOrder *result, Size size)
{
	SET_VARSIZE(result, size);
	memcpy(VARDATA(result), VARDATA_ANY(found), size - VARHDRSZ);
}

static struct varlena *
packed_in_slot(BulkOrders *orders)
{
	bool		isnull;

	return (struct varlena *) DatumGetPointer(slot_getattr(orders->sorted, 3, &isnull));
}

bool
bulk_orders_more(BulkOrders *orders, const BulkAccount **account)
{
	if (orders->sort)
	{
		PackedOrder head;

		if (TupIsNull(orders->sorted) &&
			!tuplesort_gettupleslot(orders->sort, true, false, orders->sorted, NULL))
			return false;
		copy_packed(packed_in_slot(orders), &head, sizeof(head));
		*account = head.account;
		return true;
	}
	while (orders->next == NULL && orders->turn < orders->naccounts)
		orders->next = orders->accounts[orders->turn++]->first;
	if (orders->next == NULL)
		return false;
	*account = orders->next->account;
	return true;
}

const PackedOrder *
bulk_orders_take(BulkOrders *orders)
{
	const PackedOrder *result = orders->next;

	if (orders->sort)
	{
		struct varlena *found = packed_in_slot(orders);
		Size		size = VARHDRSZ + VARSIZE_ANY_EXHDR(found);
		PackedOrder *copy = palloc(size);

		copy_packed(found, copy, size);
		ExecClearTuple(orders->sorted);
		return copy;
	}
	orders->next = result->next;
	return result;
}
