/*
 * doctor_orders.c
 *	  For rebate.doctor(): orders that were never decided, and mappings that no
 *	  longer fit their tables.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "audit.h"
#include "doctor.h"
#include "guard.h"
#include "order.h"
#include "partition.h"

/*
 * Pages at each end of a table whose rows are looked at: what came while nobody
 * looked is at its end, or all of it.
 */
#define PAGES_LOOKED_AT 8

/* Whether the row in a slot leaves no trace; runs under guard */
typedef struct OldRow
{
	Source	   *source;
	TupleTableSlot *slot;
	bool		is_old;
} OldRow;

static void
look_at_time(void *arg)
{
	OldRow	   *row = arg;

	expr_reset();
	row->is_old = image_is_old(row->source, row->slot);
}

/* Rows of these pages of a table: how many of them were not decided? */
static void
look_at_pages(Store *store, Source *source, Relation rel, Relation accrual, Snapshot snapshot,
			  BlockNumber from, BlockNumber to, int64 *looked_at, int64 *undecided)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate doctor",
												  ALLOCSET_DEFAULT_SIZES);
	SourcePart *part = source_part_of(source, rel);
	PartReader	reader;
	TableScanDesc scan;
	ItemPointerData first,
				last;

	part_reader_begin(&reader, part, RelationGetDescr(rel), table_slot_callbacks(rel));
	ItemPointerSet(&first, from, FirstOffsetNumber);
	ItemPointerSet(&last, to, MaxOffsetNumber);
	scan = table_beginscan_tidrange_compat(rel, snapshot, &first, &last);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, reader.raw))
	{
		MemoryContext caller = MemoryContextSwitchTo(context);
		OldRow		row = {.source = source,.slot = part_reader_convert(&reader)};
		OrderFacts	facts;

		CHECK_FOR_INTERRUPTS();
		facts_read(store, accrual, source->source_id, image_key(source, row.slot), snapshot,
				   &facts);
		(*looked_at)++;
		if (!facts.seen && !facts.deferred &&
			(run_guarded(store, look_at_time, &row) != NULL || !row.is_old))
			(*undecided)++;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
	}
	table_endscan(scan);
	part_reader_end(&reader);
	MemoryContextDelete(context);
}

/* The first and the last pages of a table that holds rows */
static void
look_at_ends(Store *store, Source *source, Relation rel, Relation accrual, Snapshot snapshot,
			 int64 *looked_at, int64 *undecided)
{
	BlockNumber pages = RelationGetNumberOfBlocks(rel);

	if (pages > 2 * PAGES_LOOKED_AT)
		look_at_pages(store, source, rel, accrual, snapshot, 0, PAGES_LOOKED_AT - 1,
					  looked_at, undecided);
	if (pages > 0)
		look_at_pages(store, source, rel, accrual, snapshot,
					  pages > 2 * PAGES_LOOKED_AT ? pages - PAGES_LOOKED_AT : 0, pages - 1,
					  looked_at, undecided);
}

static void
count_order(void *arg, Source *source, const char *key, const char *violation, const char *detail)
{
	(*(int64 *) arg)++;
}

/* All of a table as the audit looks at it, or some of its pages */
static bool
check_orders(Store *store, ReturnSetInfo *result, Source *source, bool thorough)
{
	int64		looked_at = 0;
	int64		undecided = 0;
	Relation	accrual;
	Snapshot	snapshot;
	ListCell   *lc;
	char	   *remedy = psprintf("SELECT rebate.reconcile(%s)", quote_literal_cstr(source->name));

	if (thorough)
	{
		audit_orders(store, source, count_order, &undecided);
		if (undecided > 0)
			doctor_say(result, "orders", source->name, "problem",
				psprintf(INT64_FORMAT " places where the ledger is not as the orders say", undecided),
				remedy);
		return undecided == 0;
	}

	accrual = store_open(store, ST_ACCRUAL, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	foreach(lc, find_all_inheritors(source->relid, AccessShareLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION &&
			(source->partitioned || RelationGetRelid(rel) == source->relid))
			look_at_ends(store, source, rel, accrual, snapshot, &looked_at, &undecided);
		table_close(rel, NoLock);
	}
	UnregisterSnapshot(snapshot);
	table_close(accrual, AccessShareLock);
	if (undecided > 0)
		doctor_say(result, "orders", source->name, "problem",
			psprintf(INT64_FORMAT " of " INT64_FORMAT " orders looked at were never decided",
					 undecided, looked_at), remedy);
	return undecided == 0;
}

/*
 * What mends a mapping that no longer fits: the index that the key had, or the
 * attachment as it should be now.
 */
static char *
mapping_remedy(Store *store, Source *source)
{
	MemoryContext context = CurrentMemoryContext;
	SqlParams	params = {0};
	StoreSpi	scope;
	char	   *remedy;

	sql_param(&params, OIDOID, ObjectIdGetDatum(source->relid), false);
	store_spi_begin(store, &scope);
	sql_run(WITH_ATTACHED
			", key AS ("
			"  SELECT s.relation, s.again, s.relation_name, s.key_columns, k.attnums,"
			"         cardinality(s.key_columns) = cardinality(k.attnums) AS there"
			"    FROM attached s"
			"   CROSS JOIN LATERAL (SELECT ARRAY(SELECT a.attnum FROM pg_attribute a"
			"                                     WHERE a.attrelid = s.relation AND a.attname = ANY (s.key_columns)"
			"                                       AND NOT a.attisdropped ORDER BY a.attnum) AS attnums) k"
			"   WHERE s.relation::oid = $1),"
			" fits AS ("
			"  SELECT i.indexrelid, i.indisvalid FROM pg_index i, key k"
			"   WHERE k.there AND i.indrelid = k.relation AND i.indisunique AND i.indimmediate"
			"     AND i.indpred IS NULL AND i.indexprs IS NULL"
			"     AND ARRAY(SELECT n FROM unnest(i.indkey::int2[]) WITH ORDINALITY u(n, o)"
			"                WHERE u.o <= i.indnkeyatts ORDER BY n) = k.attnums)"
			"SELECT CASE WHEN NOT k.there OR EXISTS (SELECT FROM fits f WHERE f.indisvalid)"
			"              THEN k.again || ' -- with what has changed'"
			"            WHEN EXISTS (SELECT FROM fits) THEN"
			"              format('REINDEX INDEX CONCURRENTLY %s', (SELECT min(f.indexrelid)::regclass FROM fits f))"
			"            ELSE format('CREATE UNIQUE INDEX %sON %s (%s)',"
			"                        CASE c.relkind WHEN 'p' THEN '' ELSE 'CONCURRENTLY ' END, k.relation,"
			"                        (SELECT string_agg(quote_ident(n), ', ') FROM unnest(k.key_columns) n)) END"
			"  FROM key k JOIN pg_class c ON c.oid = k.relation", &params, SPI_OK_SELECT);
	remedy = sql_get_text(0, 1, context);
	store_spi_end(&scope);
	return remedy;
}

/* The tables that are attached, and their orders */
void
doctor_orders(Store *store, ReturnSetInfo *result, Datum relids, bool thorough)
{
	bool		fine = true;
	Datum	   *elems;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(relids), OIDOID, sizeof(Oid), true, TYPALIGN_INT,
					  &elems, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		char		relkind = get_rel_relkind(DatumGetObjectId(elems[i]));
		Source	   *source;

		if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
			continue;
		source = source_get(store, DatumGetObjectId(elems[i]));
		if (source == NULL)
			continue;
		if (source->broken)
		{
			doctor_say(result, "orders", source->name, "problem",
					   psprintf("the mapping no longer fits the table: %s", source->broken),
					   mapping_remedy(store, source));
			fine = false;
		}
		else
			fine &= check_orders(store, result, source, thorough);
	}
	if (fine)
		doctor_say(result, "orders", NULL, "ok", NULL, NULL);
}

