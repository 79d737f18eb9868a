/*
 * links.c
 *	  Orders that are about another order of their table: what is recorded of it
 *	  in rebate_data.link, and the locks that keep it true.
 *
 * The table is there so that deciding an order never has to look for others in
 * the user's table, which may have no index for that.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "arith.h"
#include "links.h"
#include "store_table.h"

/* Orders locked one by one in a transaction; beyond, the whole source is locked */
#define MAX_KEY_LOCKS 256

/* Classes of our advisory locks, apart from those of SQL, which are 1 and 2 */
#define LOCK_CLASS_SOURCE	0x5201
#define LOCK_CLASS_ORDER	0x5202

/* Columns of rebate_data.link */
enum
{
	LC_SOURCE_ID = 1, LC_ORDER_KEY, LC_KIND, LC_TARGET_KEY, LC_CURRENCY, LC_AMOUNT, LC_QUANTITY,
	LC_NATTS = LC_QUANTITY
};

/* Locks of orders that this transaction has taken */
static int	nkey_locks = 0;

static void
read_link(HeapTuple tuple, TupleDesc desc, Link *link)
{
	Datum		values[LC_NATTS];
	bool		nulls[LC_NATTS];

	heap_deform_tuple(tuple, desc, values, nulls);
	link->key = TextDatumGetCString(values[LC_ORDER_KEY - 1]);
	link->kind = DatumGetChar(values[LC_KIND - 1]);
	link->target = TextDatumGetCString(values[LC_TARGET_KEY - 1]);
	link->currency = TextDatumGetCString(values[LC_CURRENCY - 1]);
	link->amount = DatumGetNumericCopy(values[LC_AMOUNT - 1]);
	link->quantity = nulls[LC_QUANTITY - 1] ? NULL : DatumGetNumericCopy(values[LC_QUANTITY - 1]);
	link->tid = tuple->t_self;
}

/* The links whose key, or target, this is; key NULL: all of the source */
static List *
find_links(Store *store, int32 source_id, AttrNumber column, StoreIndex index, const char *key,
		   char kind, Snapshot snapshot)
{
	Relation	rel = store_open(store, ST_LINK, AccessShareLock);
	List	   *result = NIL;
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], LC_SOURCE_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(source_id));
	if (key)
	{
		ScanKeyInit(&keys[1], column, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(key));
		ScanKeyInit(&keys[2], LC_KIND, BTEqualStrategyNumber, F_CHAREQ, CharGetDatum(kind));
	}
	scan = systable_beginscan(rel, store->indexes[index], true, snapshot, key ? 3 : 1, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Link	   *link = palloc(sizeof(Link));

		read_link(tuple, RelationGetDescr(rel), link);
		result = lappend(result, link);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

bool
links_of(Store *store, int32 source_id, const char *key, char kind, Snapshot snapshot, Link *link)
{
	List	   *found = find_links(store, source_id, LC_ORDER_KEY, SI_LINK, key, kind, snapshot);

	if (found == NIL)
		return false;
	*link = *(Link *) linitial(found);
	return true;
}

List *
links_of_source(Store *store, int32 source_id, Snapshot snapshot)
{
	return find_links(store, source_id, LC_ORDER_KEY, SI_LINK, NULL, 0, snapshot);
}

static int
compare_links(const ListCell *a, const ListCell *b)
{
	return strcmp(((const Link *) lfirst(a))->key, ((const Link *) lfirst(b))->key);
}

List *
links_to(Store *store, int32 source_id, const char *target, char kind, Snapshot snapshot)
{
	List	   *found = find_links(store, source_id, LC_TARGET_KEY, SI_LINK_TARGET, target, kind,
									snapshot);

	list_sort(found, compare_links);
	return found;
}

static bool
same_number(Numeric a, Numeric b)
{
	return a == NULL || b == NULL ? a == b : arith_cmp(a, b) == 0;
}

bool
links_agree(char kind, const Link *link, const Decision *d)
{
	if (kind == LINK_REPLACES)
		return link && d->replaces ? strcmp(link->target, d->replaces) == 0 :
			link == NULL && d->replaces == NULL;
	if (link == NULL || d->original == NULL)
		return link == NULL && d->original == NULL;
	return strcmp(link->target, d->original) == 0 &&
		strcmp(link->currency, d->currency.code) == 0 &&
		same_number(link->amount, d->returned) &&
		same_number(link->quantity, d->returned_quantity);
}

void
links_write(Store *store, int32 source_id, const char *key, char kind, const Link *old,
			const Decision *d)
{
	const char *target = kind == LINK_RETURN ? d->original : d->replaces;
	StoreTableDesc table;
	HeapTuple	tuple = NULL;

	table_begin(&table, store, ST_LINK);
	if (target)
	{
		Datum		values[LC_NATTS];
		bool		nulls[LC_NATTS] = {false};
		bool		takes = kind == LINK_RETURN;

		values[LC_SOURCE_ID - 1] = Int32GetDatum(source_id);
		values[LC_ORDER_KEY - 1] = CStringGetTextDatum(key);
		values[LC_KIND - 1] = CharGetDatum(kind);
		values[LC_TARGET_KEY - 1] = CStringGetTextDatum(target);
		values[LC_CURRENCY - 1] = CStringGetTextDatum(takes ? d->currency.code : "");
		values[LC_AMOUNT - 1] = NumericGetDatum(takes ? d->returned : arith_from_int64(0));
		nulls[LC_QUANTITY - 1] = !takes || d->returned_quantity == NULL;
		values[LC_QUANTITY - 1] = NumericGetDatum(d->returned_quantity);
		tuple = heap_form_tuple(RelationGetDescr(table.rel), values, nulls);
	}
	if (old == NULL)
		table_insert(&table, tuple);
	else if (tuple == NULL)
	{
		ItemPointerData tid = old->tid;

		simple_heap_delete(table.rel, &tid);
	}
	else
	{
		ItemPointerData tid = old->tid;

		/* we hold the order's lock: nobody else has changed it */
		if (table_replace(&table, &tid, tuple) != TM_Ok)
			table_conflict();
	}
	table_end(&table);
	CommandCounterIncrement();
}

/* What a return needs to know of the order that it returns */
static OriginalState
judge_original(Store *store, Source *source, Relation rel, OrderImage *image, Snapshot snapshot)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	OriginalState result = ORIGINAL_MISSING;

	if (facts_fetch_row(source, rel, image->original, snapshot, slot))
	{
		OrderImage	original;

		image_read_link(store, source, slot, &original);
		if (original.original)
			result = ORIGINAL_IS_RETURN;
		else if (image->currency && original.currency &&
				 strcmp(original.currency->code, image->currency->code) != 0)
			result = ORIGINAL_OTHER_CURRENCY;
		else
			result = ORIGINAL_THERE;
	}
	ExecDropSingleTupleTableSlot(slot);
	return result;
}

/* What others return of an order; a return, and one in another currency, takes nothing of it. */
static void
sum_returned(OrderLinks *links, const OrderImage *image, List *returns, List **mistaken)
{
	ListCell   *lc;

	foreach(lc, returns)
	{
		Link	   *link = lfirst(lc);

		if (image->original ||
			(image->currency && strcmp(image->currency->code, link->currency) != 0))
		{
			if (mistaken)
				*mistaken = lappend(*mistaken, link->key);
			continue;
		}
		links->returned = links->returned ?
			arith_add(links->returned, link->amount) : link->amount;
		if (link->quantity)
			links->returned_quantity = links->returned_quantity ?
				arith_add(links->returned_quantity, link->quantity) : link->quantity;
	}
}

void
links_judge(Store *store, Source *source, Relation rel, OrderImage *image, Snapshot snapshot,
			LinkGroups *groups, OrderLinks *links, List **mistaken)
{
	memset(links, 0, sizeof(*links));
	if (!source->linked || image->sqlerrcode != 0 || image->erased)
		return;
	links->judged = true;
	if (image->original && strcmp(image->original, image->key) != 0)
		links->original = judge_original(store, source, rel, image, snapshot);
	if (source->original)
		sum_returned(links, image, links_to(store, source->source_id, image->key, LINK_RETURN,
											snapshot), mistaken);
	if (source->replaces && !image->original && groups)
		link_groups_judge(groups, source, rel, image, links);
}

/*----------------------------------------------------------------------------
 * Locks
 *----------------------------------------------------------------------------
 */

static LOCKTAG
order_lock(uint64 hash)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, LOCK_CLASS_ORDER);
	return tag;
}

/* Wait for a lock; false if we have it already. */
static bool
acquire(const LOCKTAG *tag, LOCKMODE mode)
{
	return LockAcquire(tag, mode, false, false) != LOCKACQUIRE_ALREADY_HELD;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return (x > y) - (x < y);
}

/* The hashes of keys, sorted, without doubles and those that we have locked; returns their number. */
static int
hashes_to_lock(int32 source_id, const char **keys, int n, uint64 *hashes)
{
	int			left = 0;

	for (int i = 0; i < n; i++)
		hashes[i] = hash_bytes_extended((const unsigned char *) keys[i], strlen(keys[i]),
										(uint64) source_id);
	qsort(hashes, n, sizeof(uint64), compare_hashes);
	for (int i = 0; i < n; i++)
	{
		LOCKTAG		tag = order_lock(hashes[i]);

		if ((i == 0 || hashes[i] != hashes[i - 1]) && !lock_held_by_me(&tag, ExclusiveLock))
			hashes[left++] = hashes[i];
	}
	return left;
}

/*
 * Orders are locked by the hash of their key: two with one hash share a lock, and
 * wait for each other in vain at worst.  What is locked already is not counted
 * again: who first locked orders and then the whole source would wait for all
 * others, and they for him.
 */
bool
links_lock(int32 source_id, const char **keys, int n)
{
	uint64	   *hashes = palloc(sizeof(uint64) * Max(n, 1));
	LOCKTAG		source;
	bool		whole;
	bool		taken;

	n = hashes_to_lock(source_id, keys, n, hashes);
	whole = nkey_locks + n > MAX_KEY_LOCKS;
	SET_LOCKTAG_ADVISORY(source, MyDatabaseId, (uint32) source_id, 0, LOCK_CLASS_SOURCE);
	taken = acquire(&source, whole ? ExclusiveLock : RowExclusiveLock);
	for (int i = 0; !whole && i < n; i++)
	{
		LOCKTAG		tag = order_lock(hashes[i]);

		taken |= acquire(&tag, ExclusiveLock);
		nkey_locks++;
	}
	pfree(hashes);
	return taken;
}

void
links_at_xact_end(void)
{
	nkey_locks = 0;
}
