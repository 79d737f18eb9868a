/*
 * facts.c
 *	  What is recorded of an order, and its row as the table has it now.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "defer.h"
#include "order.h"
#include "partition.h"
#include "truncating.h"

/*
 * Add a row of an order, which is a copy.  The facts of an order are in each of
 * its rows; those that differ (a fact came later) are merged.
 */
void
facts_add_row(OrderFacts *facts, Relation accrual, HeapTuple tuple)
{
	Form_accrual row = (Form_accrual) GETSTRUCT(tuple);
	bool		isnull;
	Datum		confirmed = heap_getattr(tuple, ACC_CONFIRMED_AT, RelationGetDescr(accrual), &isnull);

	if (!facts->seen || row->generation < facts->generation)
		facts->generation = row->generation;
	if (!facts->seen || row->first_seen < facts->first_seen)
		facts->first_seen = row->first_seen;
	facts->seen = true;
	facts->order_time = row->order_time;
	facts->flags |= row->flags;
	facts->next_part = Max(facts->next_part, row->part + 1);
	facts->phase = row->phase;
	if (!isnull)
	{
		facts->has_confirmed_at = true;
		facts->confirmed_at = DatumGetTimestampTz(confirmed);
	}
	/* room for 4, 8, 16 ... */
	if (facts->nrows == 0)
		facts->rows = palloc(sizeof(HeapTuple) * 4);
	else if (facts->nrows >= 4 && (facts->nrows & (facts->nrows - 1)) == 0)
		facts->rows = repalloc(facts->rows, sizeof(HeapTuple) * facts->nrows * 2);
	facts->rows[facts->nrows++] = tuple;
}

/* What is recorded of an order elsewhere, when its rows are there */
void
facts_complete(Store *store, int32 source_id, const char *key, Snapshot snapshot, OrderFacts *facts)
{
	if (facts->flags & ORDER_FROZEN)
		freezes_read(store, source_id, key, snapshot, &facts->freezes);
	if (store->maybe_deferred)
		defer_read(store, source_id, key, snapshot, facts);
}

/* Read the rows of an order from rebate_data.accrual under "snapshot". */
void
facts_read(Store *store, Relation accrual, int32 source_id, const char *key,
		   Snapshot snapshot, OrderFacts *facts)
{
	ScanKeyData keys[2];
	/* the lock that posting takes: one a transaction, not two */
	Relation	index = index_open(store->indexes[SI_ACCRUAL_ORDER],
								   RecoveryInProgress() ? AccessShareLock : RowExclusiveLock);
	IndexScanDesc scan;
	TupleTableSlot *slot = NULL;
	Datum		keytext = CStringGetTextDatum(key);

	memset(facts, 0, sizeof(*facts));
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(source_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, keytext);
	scan = index_beginscan_compat(accrual, index, snapshot, 2);
	index_rescan(scan, keys, 2, NULL, 0);

	/* most orders are new: make the slot when there is something to put in */
	while (index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		if (slot == NULL)
			slot = table_slot_create(accrual, NULL);
		if (index_fetch_heap(scan, slot))
			facts_add_row(facts, accrual, ExecCopySlotHeapTuple(slot));
	}
	if (slot)
		ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	index_close(index, NoLock);
	pfree(DatumGetPointer(keytext));
	facts_complete(store, source_id, key, snapshot, facts);
}

/* Orders to be looked for in the unique index of orders */
typedef struct Probe
{
	Relation	accrual;
	Relation	index;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	ScanKeyData keys[2];		/* from this key on */
	ScanKeyData exact[2];		/* this key */
} Probe;

/* Entries that are passed over before it is better to look for the next key from the root */
#define MAX_STEPS	16

/*
 * A walk reads the rest of a page of the index.  If it tells of fewer keys than
 * the first, known ones are many or the keys far apart, and so many are asked for
 * one by one before the next walk.
 */
#define MIN_WALKED	4
#define ASKED_BETWEEN	64

/*
 * Go on in the index from where the first of the keys is or would be, and tell of
 * as many of them as that shows; returns their number, at least one.
 */
static int
probe_from(Probe *probe, IndexScanDesc scan, const char **keys, int n, bool *known)
{
	Datum		first = CStringGetTextDatum(keys[0]);
	int			done = 0;

	probe->keys[1].sk_argument = first;
	index_rescan(scan, probe->keys, 2, NULL, 0);
	for (int steps = 0; done == 0 || steps < MAX_STEPS; steps++)
	{
		text	   *found;
		bool		isnull;
		int			len;

		if (index_getnext_tid(scan, ForwardScanDirection) == NULL)
		{
			done = n;
			break;
		}
		found = DatumGetTextPP(index_getattr(scan->xs_itup, 2, scan->xs_itupdesc, &isnull));
		len = VARSIZE_ANY_EXHDR(found);
		while (done < n)
		{
			int			keylen = strlen(keys[done]);
			int			cmp = memcmp(keys[done], VARDATA_ANY(found), Min(keylen, len));

			if (cmp > 0 || (cmp == 0 && keylen > len))
				break;
			if (cmp == 0 && keylen == len)
			{
				/* there may be several, of which this one was taken back */
				known[done] |= index_fetch_heap(scan, probe->slot);
				break;
			}
			done++;
		}
		if (done == n)
			break;
	}
	pfree(DatumGetPointer(first));
	return done;
}

/* Whether there is a row of one order. */
static bool
probe_one(Probe *probe, IndexScanDesc scan, const char *key)
{
	Datum		text = CStringGetTextDatum(key);
	bool		found = false;

	probe->exact[1].sk_argument = text;
	index_rescan(scan, probe->exact, 2, NULL, 0);
	while (!found && index_getnext_tid(scan, ForwardScanDirection) != NULL)
		found = index_fetch_heap(scan, probe->slot);
	pfree(DatumGetPointer(text));
	return found;
}

void
facts_probe(Store *store, int32 source_id, const char **keys, int n, bool *known)
{
	Probe		probe;
	IndexScanDesc scan;
	IndexScanDesc exact;
	int			at = 0;

	probe.accrual = store_open(store, ST_ACCRUAL, RowExclusiveLock);
	probe.index = index_open(store->indexes[SI_ACCRUAL_ORDER], RowExclusiveLock);
	probe.snapshot = RegisterSnapshot(GetLatestSnapshot());
	probe.slot = table_slot_create(probe.accrual, NULL);
	ScanKeyInit(&probe.keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(source_id));
	ScanKeyInit(&probe.keys[1], 2, BTGreaterEqualStrategyNumber, F_TEXT_GE, (Datum) 0);
	scan = index_beginscan_compat(probe.accrual, probe.index, probe.snapshot, 2);
	scan->xs_want_itup = true;
	probe.exact[0] = probe.keys[0];
	ScanKeyInit(&probe.exact[1], 2, BTEqualStrategyNumber, F_TEXTEQ, (Datum) 0);
	exact = index_beginscan_compat(probe.accrual, probe.index, probe.snapshot, 2);
	while (at < n)
	{
		int			walked = probe_from(&probe, scan, keys + at, n - at, known + at);
		int			until = walked < MIN_WALKED ? Min(at + walked + ASKED_BETWEEN, n) : 0;

		CHECK_FOR_INTERRUPTS();
		for (at += walked; at < until; at++)
			known[at] = probe_one(&probe, exact, keys[at]);
	}
	index_endscan(exact);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(probe.slot);
	UnregisterSnapshot(probe.snapshot);
	index_close(probe.index, NoLock);
	table_close(probe.accrual, NoLock);
}

/* The texts of a canonical key, in the order of the key columns */
static char **
key_parts(Source *source, const char *key)
{
	char	  **parts = palloc(sizeof(char *) * source->nkeys);
	Jsonb	   *jb;

	if (source->nkeys == 1)
	{
		parts[0] = pstrdup(key);
		return parts;
	}
	jb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(key)));
	for (int i = 0; i < source->nkeys; i++)
	{
		JsonbValue *v = getIthJsonbValueFromContainer(&jb->root, i);

		if (v == NULL || v->type != jbvString)
			elog(ERROR, "malformed order key \"%s\"", key);
		parts[i] = pnstrdup(v->val.string.val, v->val.string.len);
	}
	return parts;
}

/* The values of a canonical key, in the order of the key columns */
static void
key_values(Source *source, const char *key, Datum *values)
{
	char	  **parts = key_parts(source, key);

	for (int i = 0; i < source->nkeys; i++)
	{
		Oid			typinput,
					typioparam;

		getTypeInputInfo(source->key_canon[i].typid, &typinput, &typioparam);
		values[i] = OidInputFunctionCall(typinput, parts[i], typioparam, -1);
	}
}

/*
 * Fetch the row with these key values through a unique index over the key
 * columns, which are attnos[] in "rel".
 *
 * The equality of the index may be coarser than that of the canonical texts
 * (never finer), and the index has at most one match.
 */
static bool
fetch_by_index(Relation rel, Oid indexid, int nkeys, const AttrNumber *attnos,
			   const Datum *values, Snapshot snapshot, TupleTableSlot *slot)
{
	Relation	index = index_open(indexid, AccessShareLock);
	ScanKeyData keys[INDEX_MAX_KEYS];
	IndexScanDesc scan;
	bool		found;

	for (int i = 0; i < nkeys; i++)
	{
		Oid			opcintype = index->rd_opcintype[i];
		Oid			operator = get_opfamily_member(index->rd_opfamily[i], opcintype, opcintype,
												   BTEqualStrategyNumber);
		int			part = 0;

		while (part < nkeys && attnos[part] != index->rd_index->indkey.values[i])
			part++;
		if (part == nkeys)
			elog(ERROR, "index \"%s\" is not over the key", RelationGetRelationName(index));
		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber, opcintype,
							   index->rd_indcollation[i], get_opcode(operator), values[part]);
	}

	scan = index_beginscan_compat(rel, index, snapshot, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
		ExecMaterializeSlot(slot);
	index_endscan(scan);
	index_close(index, AccessShareLock);
	return found;
}

/* The partition that the key leads to, opened; NULL: there is none */
static Relation
open_partition(Source *source, Relation root, const Datum *values, SourcePart **part)
{
	Relation	leaf = partition_of_key(source, root, values);

	if (leaf == NULL)
		return NULL;
	*part = source_part_of(source, leaf);
	if (!OidIsValid((*part)->key_index))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("partition \"%s\" of %s has no unique index over the key",
						RelationGetRelationName(leaf), source->name)));
	return leaf;
}

/* The same where the table is partitioned: in the partition that the key leads to */
static bool
fetch_from_partition(Source *source, Relation root, const Datum *values, Snapshot snapshot,
					 TupleTableSlot *slot, bool *truncated)
{
	SourcePart *part;
	Relation	leaf = open_partition(source, root, values, &part);
	PartReader	reader;
	bool		found;

	if (leaf == NULL)
		return false;
	part_reader_begin(&reader, part, RelationGetDescr(leaf), table_slot_callbacks(leaf));
	found = fetch_by_index(leaf, part->key_index, source->nkeys, part->key_attnos, values,
						   snapshot, reader.raw);
	if (found)
		ExecCopySlot(slot, part_reader_convert(&reader));
	part_reader_end(&reader);
	*truncated = truncating(leaf);
	table_close(leaf, NoLock);
	return found;
}

/* The row with a canonical key; "truncated" tells whether its table is about to be emptied. */
static bool
fetch_row(Source *source, Relation rel, const char *key, Snapshot snapshot, TupleTableSlot *slot,
		  bool *truncated)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		found;

	*truncated = false;
	if (strncmp(key, LONG_KEY_PREFIX, strlen(LONG_KEY_PREFIX)) == 0)
		return false;
	key_values(source, key, values);
	if (source->partitioned)
		found = fetch_from_partition(source, rel, values, snapshot, slot, truncated);
	else
	{
		found = fetch_by_index(rel, source->key_index, source->nkeys, source->key_attnos, values,
							   snapshot, slot);
		*truncated = truncating(rel);
	}

	/* the key's type may have changed since: then it is another order's row */
	if (found && strcmp(image_key(source, slot), key) != 0)
	{
		ExecClearTuple(slot);
		found = false;
	}
	return found;
}

/*
 * Fetch the row with a canonical key into "slot", which is one of table "rel",
 * the source's own.  Returns false if there is none under "snapshot", or if it is
 * about to go with a TRUNCATE.
 */
bool
facts_fetch_row(Source *source, Relation rel, const char *key, Snapshot snapshot,
				TupleTableSlot *slot)
{
	bool		truncated;

	if (!fetch_row(source, rel, key, snapshot, slot, &truncated))
		return false;
	if (truncated)
		ExecClearTuple(slot);
	return !truncated;
}

/* The same for a look at the past: what a TRUNCATE is about to take was there. */
bool
facts_fetch_past_row(Source *source, Relation rel, const char *key, Snapshot snapshot,
					 TupleTableSlot *slot)
{
	bool		truncated;

	return fetch_row(source, rel, key, snapshot, slot, &truncated);
}

/*
 * The lock is that of an UPDATE which changes no key: whoever refers to the row
 * by a foreign key goes on.
 */
static RowLock
lock_row(Source *source, Relation rel, const char *key, LockWaitPolicy policy)
{
	Datum		values[INDEX_MAX_KEYS];
	Relation	leaf = rel;
	SourcePart *part = NULL;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	RowLock		result = ROW_GONE;

	if (strncmp(key, LONG_KEY_PREFIX, strlen(LONG_KEY_PREFIX)) == 0)
		return ROW_GONE;
	key_values(source, key, values);
	if (source->partitioned)
		leaf = open_partition(source, rel, values, &part);
	if (leaf == NULL)
		return ROW_GONE;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(leaf, NULL);
	if (fetch_by_index(leaf, part ? part->key_index : source->key_index, source->nkeys,
					   part ? part->key_attnos : source->key_attnos, values, snapshot, slot))
	{
		ItemPointerData tid = slot->tts_tid;
		TM_FailureData failure;

		switch (table_tuple_lock(leaf, &tid, snapshot, slot, GetCurrentCommandId(false),
								 LockTupleNoKeyExclusive, policy,
								 TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure))
		{
			case TM_Ok:
			case TM_SelfModified:
				result = ROW_LOCKED;
				break;
			case TM_WouldBlock:
				result = ROW_BUSY;
				break;
			default:
				break;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	if (leaf != rel)
		table_close(leaf, NoLock);
	return result;
}

RowLock
facts_lock_row(Source *source, Relation rel, const char *key)
{
	return lock_row(source, rel, key, LockWaitSkip);
}

RowLock
facts_wait_row(Source *source, Relation rel, const char *key)
{
	return lock_row(source, rel, key, LockWaitBlock);
}
