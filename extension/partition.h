/*
 * partition.h
 *	  Reading a source that may be partitioned: rows of its partitions come as
 *	  rows of the attached table.
 */
#ifndef REBATE_PARTITION_H
#define REBATE_PARTITION_H

#include "rebate.h"
#include "executor/tuptable.h"
#include "source.h"
#include "utils/snapshot.h"

/* Rows of one part, as rows of its source */
typedef struct PartReader
{
	SourcePart *part;
	TupleTableSlot *raw;		/* to be filled by the caller */
	TupleTableSlot *slot;		/* the same row as the source's; may be raw itself */
} PartReader;

extern void part_reader_begin(PartReader *reader, SourcePart *part, TupleDesc desc,
							  const TupleTableSlotOps *ops);
extern void part_reader_end(PartReader *reader);

/* A row is in reader->raw: show it in reader->slot */
extern TupleTableSlot *part_reader_convert(PartReader *reader);

/*
 * All rows under a snapshot of a source, or of a part of it: a partition with
 * all below it, also one that was just detached.  The slot stays the same.
 */
typedef struct SourceScan SourceScan;

extern SourceScan *source_scan_begin(Source *source, Relation rel, Snapshot snapshot);
extern TupleTableSlot *source_scan_slot(SourceScan *scan);
extern bool source_scan_next(SourceScan *scan);
extern void source_scan_end(SourceScan *scan);

/*
 * The leaf partition that a row with these key values (in the order of
 * source->key_attnos) belongs to, opened with AccessShareLock; NULL if there is
 * none.
 */
extern Relation partition_of_key(Source *source, Relation root, const Datum *values);

/* Which columns of the key are the table's own partition key */
extern bool *partition_key_parts(Source *source);

#endif							/* REBATE_PARTITION_H */
