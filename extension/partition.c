/*
 * partition.c
 *	  Reading a source that may be partitioned.
 *
 * A partition may have its columns in another order than the table above it, and
 * holes where columns were dropped.  Everything behind the triggers knows the
 * attached table's rows only, so what a partition holds is converted here.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/partcache.h"
#include "utils/rel.h"

#include "partition.h"

void
part_reader_begin(PartReader *reader, SourcePart *part, TupleDesc desc,
				  const TupleTableSlotOps *ops)
{
	reader->part = part;
	reader->raw = MakeSingleTupleTableSlot(desc, ops);
	reader->slot = part->to_source ?
		MakeSingleTupleTableSlot(part->source->desc, &TTSOpsVirtual) : reader->raw;
}

void
part_reader_end(PartReader *reader)
{
	if (reader->slot != reader->raw)
		ExecDropSingleTupleTableSlot(reader->slot);
	ExecDropSingleTupleTableSlot(reader->raw);
}

TupleTableSlot *
part_reader_convert(PartReader *reader)
{
	if (reader->slot != reader->raw)
		(void) execute_attr_map_slot(reader->part->to_source, reader->raw, reader->slot);
	return reader->slot;
}

struct SourceScan
{
	Source	   *source;
	Snapshot	snapshot;
	List	   *relids;			/* with storage, still to be scanned */
	TupleTableSlot *slot;
	bool		single;			/* slot is raw */
	/* of the relation at hand */
	Relation	rel;
	SourcePart *part;
	TupleTableSlot *raw;
	TableScanDesc scan;
};

SourceScan *
source_scan_begin(Source *source, Relation rel, Snapshot snapshot)
{
	SourceScan *scan = palloc0(sizeof(SourceScan));

	scan->source = source;
	scan->snapshot = snapshot;
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		scan->relids = find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL);
	else
		scan->relids = list_make1_oid(RelationGetRelid(rel));
	scan->single = RelationGetRelid(rel) == source->relid && !source->partitioned;
	scan->slot = scan->single ? table_slot_create(rel, NULL) :
		MakeSingleTupleTableSlot(source->desc, &TTSOpsVirtual);
	return scan;
}

TupleTableSlot *
source_scan_slot(SourceScan *scan)
{
	return scan->slot;
}

/* Leave the relation at hand. */
static void
close_relation(SourceScan *scan)
{
	if (scan->rel == NULL)
		return;
	ExecClearTuple(scan->slot);
	table_endscan(scan->scan);
	if (!scan->single)
		ExecDropSingleTupleTableSlot(scan->raw);
	table_close(scan->rel, NoLock);
	scan->rel = NULL;
}

/* Begin with the next relation that has rows of its own; false if there is none. */
static bool
open_relation(SourceScan *scan)
{
	while (scan->relids != NIL)
	{
		Oid			relid = linitial_oid(scan->relids);

		scan->relids = list_delete_first(scan->relids);
		scan->rel = table_open(relid, AccessShareLock);
		if (scan->rel->rd_rel->relkind == RELKIND_RELATION)
		{
			scan->part = source_part_new(scan->source, scan->rel);
			scan->raw = scan->single ? scan->slot : table_slot_create(scan->rel, NULL);
			scan->scan = table_beginscan_compat(scan->rel, scan->snapshot);
			return true;
		}
		table_close(scan->rel, NoLock);
		scan->rel = NULL;
	}
	return false;
}

bool
source_scan_next(SourceScan *scan)
{
	for (;;)
	{
		if (scan->rel == NULL && !open_relation(scan))
			return false;
		if (table_scan_getnextslot(scan->scan, ForwardScanDirection, scan->raw))
			break;
		close_relation(scan);
	}
	if (scan->single)
		return true;
	if (scan->part->to_source)
		(void) execute_attr_map_slot(scan->part->to_source, scan->raw, scan->slot);
	else
	{
		/* values only: what one partition stores short another may complete otherwise */
		int			natts = scan->slot->tts_tupleDescriptor->natts;

		slot_getallattrs(scan->raw);
		ExecClearTuple(scan->slot);
		memcpy(scan->slot->tts_values, scan->raw->tts_values, sizeof(Datum) * natts);
		memcpy(scan->slot->tts_isnull, scan->raw->tts_isnull, sizeof(bool) * natts);
		ExecStoreVirtualTuple(scan->slot);
	}
	return true;
}

void
source_scan_end(SourceScan *scan)
{
	close_relation(scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	pfree(scan);
}

/*
 * The partition of one level that takes these values of the partition key, which
 * are not null.  Returns InvalidOid if none does.
 */
static Oid
partition_for_values(Relation rel, Datum *values)
{
	PartitionKey key = RelationGetPartitionKey(rel);
	/* of one that is half detached the orders are still there */
	PartitionDesc desc = RelationGetPartitionDesc(rel, false);
	PartitionBoundInfo bounds = desc->boundinfo;
	bool		isnull[PARTITION_MAX_KEYS] = {0};
	bool		equal = false;
	int			index = -1;
	int			offset;

	if (desc->nparts == 0)
		return InvalidOid;
	switch (key->strategy)
	{
		case PARTITION_STRATEGY_HASH:
			index = bounds->indexes[compute_partition_hash_value(key->partnatts,
																 key->partsupfunc,
																 key->partcollation, values,
																 isnull) % bounds->nindexes];
			break;
		case PARTITION_STRATEGY_LIST:
			offset = partition_list_bsearch(key->partsupfunc, key->partcollation, bounds,
											values[0], &equal);
			if (offset >= 0 && equal)
				index = bounds->indexes[offset];
			break;
		case PARTITION_STRATEGY_RANGE:
			offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation, bounds,
												   key->partnatts, values, &equal);
			index = bounds->indexes[offset + 1];
			break;
		default:
			elog(ERROR, "unexpected partition strategy: %d", (int) key->strategy);
	}
	if (index < 0)
		index = bounds->default_index;
	return index < 0 ? InvalidOid : desc->oids[index];
}

/*
 * The columns of a partition key are columns of every unique index over the
 * table, so a key of ours tells the partition at each level.
 */
Relation
partition_of_key(Source *source, Relation root, const Datum *values)
{
	Relation	rel = root;

	while (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		PartitionKey key = RelationGetPartitionKey(rel);
		SourcePart *part = source_part_of(source, rel);
		Datum		key_values[PARTITION_MAX_KEYS];
		Oid			next;

		for (int i = 0; i < key->partnatts; i++)
		{
			int			j = 0;

			while (j < source->nkeys && part->key_attnos[j] != key->partattrs[i])
				j++;
			if (j == source->nkeys)
				ereport(ERROR,
						(errcode(ERRCODE_RB_INVALID_MAPPING),
						 errmsg("the key of %s does not contain the partition key of \"%s\"",
								source->name, RelationGetRelationName(rel))));
			key_values[i] = values[j];
		}
		next = partition_for_values(rel, key_values);
		if (rel != root)
			table_close(rel, NoLock);
		rel = OidIsValid(next) ? try_table_open(next, AccessShareLock) : NULL;
		if (rel == NULL)
			return NULL;
	}
	if (rel->rd_rel->relkind != RELKIND_RELATION)
	{
		table_close(rel, NoLock);
		return NULL;
	}
	return rel;
}

bool *
partition_key_parts(Source *source)
{
	bool	   *result = palloc0(sizeof(bool) * source->nkeys);
	Relation	rel = table_open(source->relid, AccessShareLock);
	PartitionKey key = RelationGetPartitionKey(rel);

	for (int i = 0; i < key->partnatts; i++)
		for (int j = 0; j < source->nkeys; j++)
			if (source->key_attnos[j] == key->partattrs[i])
				result[j] = true;
	table_close(rel, NoLock);
	return result;
}
