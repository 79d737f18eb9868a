/*
 * source.c
 *	  Attached tables, their mapping compiled for this backend.
 *
 * An entry is built aside and becomes valid last.  Replaced entries stay until
 * the end of the transaction, since somebody up the stack may hold them.
 */
#include "rebate.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "guard.h"
#include "source.h"

typedef struct SourceEntry
{
	Oid			relid;			/* hash key */
	Source	   *source;
	Oid			root;			/* of a partition: the attached table above it */
} SourceEntry;

static HTAB *sources = NULL;
static uint64 next_build = 1;

/* contexts of replaced entries, freed at the end of the transaction */
static List *graveyard = NIL;

/* A relation changed: mark, never free or read here. */
static void
relcache_callback(Datum arg, Oid relid)
{
	SourceEntry *entry;

	if (sources == NULL)
		return;
	if (OidIsValid(relid))
	{
		entry = hash_search(sources, &relid, HASH_FIND, NULL);
		if (entry == NULL)
			return;
		if (entry->source)
			entry->source->valid = false;
		if (OidIsValid(entry->root))
		{
			/* a source is compiled again with each of its partitions */
			relid = entry->root;
			entry->root = InvalidOid;
			entry = hash_search(sources, &relid, HASH_FIND, NULL);
			if (entry && entry->source)
				entry->source->valid = false;
		}
	}
	else
	{
		HASH_SEQ_STATUS status;

		hash_seq_init(&status, sources);
		while ((entry = hash_seq_search(&status)) != NULL)
		{
			entry->root = InvalidOid;
			if (entry->source)
				entry->source->valid = false;
		}
	}
}

void
source_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

void
source_at_xact_end(void)
{
	ListCell   *lc;

	foreach(lc, graveyard)
		MemoryContextDelete((MemoryContext) lfirst(lc));
	list_free(graveyard);
	graveyard = NIL;
}

/* Text column "attno" of an SPI row, copied; NULL if null */
static char *
text_column(HeapTuple row, TupleDesc desc, const char *name)
{
	return SPI_getvalue(row, desc, SPI_fnumber(desc, name));
}

/* Load one optional expression of the mapping; returns whether it is mapped. */
static bool
load_mapping(Source *source, Relation rel, HeapTuple row, TupleDesc desc,
			 const char *name, Oid want, OrderExpr *expr)
{
	char	   *text = text_column(row, desc, name);

	if (text == NULL)
		return false;
	expr_load(rel, name, text, want, expr);
	source->mapped = bms_add_members(source->mapped, expr->attnos);
	if (expr->tree)
		source->has_expressions = true;
	return true;
}

static void
canon_or_error(CanonType *canon, Oid type, Oid collation, const char *what)
{
	char	   *why;

	if (!canon_type_init(canon, type, collation, &why))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("%s cannot be used: %s", what, why),
				 errhint("Call rebate.attach() with replace => true.")));
}

bool
index_is_key(Relation index, const AttrNumber *attnos, int n)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indisvalid || !form->indimmediate ||
		form->indnkeyatts != n || RelationGetIndexPredicate(index) != NIL ||
		RelationGetIndexExpressions(index) != NIL)
		return false;
	for (int i = 0; i < n; i++)
	{
		bool		found = false;

		for (int j = 0; j < n; j++)
			found = found || form->indkey.values[j] == attnos[i];
		if (!found)
			return false;
	}
	return true;
}

/* The unique index over exactly these columns, or InvalidOid */
static Oid
find_key_index(Relation rel, const AttrNumber *attnos, int n)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			result = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (!OidIsValid(result) && index_is_key(index, attnos, n))
			result = RelationGetRelid(index);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return result;
}

/* Key columns by name, and the unique index over exactly them. */
static void
load_key(Source *source, Relation rel, Datum names)
{
	Datum	   *elems;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(names), TEXTOID, -1, false, TYPALIGN_INT,
					  &elems, NULL, &n);
	source->nkeys = n;
	source->key_attnos = palloc(sizeof(AttrNumber) * n);
	source->key_canon = palloc(sizeof(CanonType) * n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(elems[i]);
		AttrNumber	attno = get_attnum(RelationGetRelid(rel), name);
		Form_pg_attribute att;

		if (attno <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("key column \"%s\" of table %s is gone", name, source->name),
					 errhint("Call rebate.attach() with replace => true.")));
		att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
		source->key_attnos[i] = attno;
		canon_or_error(&source->key_canon[i], att->atttypid, att->attcollation, name);
		source->mapped = bms_add_member(source->mapped, attno);
		source->key_columns = bms_add_member(source->key_columns, attno);
	}

	source->key_index = find_key_index(rel, source->key_attnos, n);
	if (!OidIsValid(source->key_index))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("table %s has no unique index over its key any more", source->name),
				 errhint("Create it again, or call rebate.attach() with replace => true.")));
}

/* The map from the table's own status values to phases. */
static void
load_phases(Source *source, Jsonb *jb)
{
	JsonbIterator *it = JsonbIteratorInit(&jb->root);
	JsonbValue	v;
	JsonbIteratorToken tok;
	int			n = 0;

	source->phases = palloc(sizeof(PhaseName) * JB_ROOT_COUNT(jb));
	while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (tok == WJB_KEY)
			source->phases[n].status = pnstrdup(v.val.string.val, v.val.string.len);
		else if (tok == WJB_VALUE)
			source->phases[n++].phase = (Phase) v.val.string.val[0];
	}
	source->nphases = n;
}

static int
attribute_cmp(const void *a, const void *b)
{
	return strcmp(((const SourceAttribute *) a)->name, ((const SourceAttribute *) b)->name);
}

/* Attributes for scopes: as mapped, or all columns by name. */
static void
load_attributes(Source *source, Relation rel, Jsonb *jb)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			n = 0;
	char	   *why;

	if (jb)
	{
		JsonbIterator *it = JsonbIteratorInit(&jb->root);
		JsonbValue	v;
		JsonbIteratorToken tok;

		source->attributes = palloc0(sizeof(SourceAttribute) * JB_ROOT_COUNT(jb));
		while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		{
			SourceAttribute *attr = &source->attributes[n];

			if (tok == WJB_KEY)
				attr->name = pnstrdup(v.val.string.val, v.val.string.len);
			else if (tok == WJB_VALUE)
			{
				expr_load(rel, attr->name, pnstrdup(v.val.string.val, v.val.string.len),
						  InvalidOid, &attr->expr);
				n++;
			}
		}
	}
	else
	{
		source->attributes = palloc0(sizeof(SourceAttribute) * desc->natts);
		for (int i = 0; i < desc->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, i);
			SourceAttribute *attr = &source->attributes[n];

			if (att->attisdropped)
				continue;
			attr->name = pstrdup(NameStr(att->attname));
			attr->expr.attno = att->attnum;
			attr->expr.type = att->atttypid;
			attr->expr.typmod = att->atttypmod;
			attr->expr.collation = att->attcollation;
			attr->expr.attnos = bms_make_singleton(att->attnum);
			n++;
		}
	}
	source->nattributes = n;
	for (int i = 0; i < n; i++)
	{
		SourceAttribute *attr = &source->attributes[i];

		attr->usable = canon_type_init(&attr->canon, attr->expr.type, attr->expr.collation, &why);
	}
	qsort(source->attributes, n, sizeof(SourceAttribute), attribute_cmp);
}

/* The key of another order, an expression for each key column; NULL if not mapped */
static OrderExpr *
load_other_key(Source *source, Relation rel, HeapTuple row, TupleDesc desc, const char *name)
{
	bool		isnull;
	Datum		d = SPI_getbinval(row, desc, SPI_fnumber(desc, name), &isnull);
	Datum	   *elems;
	int			n;
	OrderExpr  *exprs;

	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(d), TEXTOID, -1, false, TYPALIGN_INT, &elems, NULL, &n);
	if (n != source->nkeys)
		elog(ERROR, "malformed mapping %s of source %d", name, source->source_id);
	exprs = palloc0(sizeof(OrderExpr) * n);
	for (int i = 0; i < n; i++)
	{
		expr_load(rel, name, TextDatumGetCString(elems[i]), source->key_canon[i].typid, &exprs[i]);
		source->mapped = bms_add_members(source->mapped, exprs[i].attnos);
		if (exprs[i].tree)
			source->has_expressions = true;
	}
	return exprs;
}

static LeaveAction
leave_action(const char *name)
{
	return strcmp(name, "void") == 0 ? LEAVE_VOID :
		strcmp(name, "keep") == 0 ? LEAVE_KEEP : LEAVE_REFUSE;
}

/* What a mapping is compiled from */
typedef struct Load
{
	Source	   *source;
	Relation	rel;
	HeapTuple	row;
	TupleDesc	desc;
} Load;

#define COLUMN(name) SPI_getbinval(row, desc, SPI_fnumber(desc, name), &isnull)

/* What does not depend on the table's columns */
static void
load_options(Source *source, HeapTuple row, TupleDesc desc)
{
	Datum		d;
	bool		isnull;

	source->source_id = DatumGetInt32(COLUMN("source_id"));
	source->name = text_column(row, desc, "relation_name");
	source->currency_code = text_column(row, desc, "currency_code");
	d = COLUMN("phases");
	if (!isnull)
		load_phases(source, DatumGetJsonbPCopy(d));
	source->since = DatumGetTimestampTz(COLUMN("since"));
	d = COLUMN("max_backdate");
	source->has_max_backdate = !isnull;
	if (!isnull)
		source->max_backdate = *DatumGetIntervalP(d);
	d = COLUMN("max_future");
	source->has_max_future = !isnull;
	if (!isnull)
		source->max_future = *DatumGetIntervalP(d);
	d = COLUMN("auto_confirm_after");
	source->has_auto_confirm = !isnull;
	if (!isnull)
		source->auto_confirm = *DatumGetIntervalP(d);
	d = COLUMN("give_up_after");
	source->has_give_up = !isnull;
	if (!isnull)
		source->give_up = *DatumGetIntervalP(d);
	source->on_delete = leave_action(text_column(row, desc, "on_delete"));
	source->on_truncate = leave_action(text_column(row, desc, "on_truncate"));
	(void) COLUMN("original");
	source->linked = !isnull;
	(void) COLUMN("replaces");
	source->linked |= !isnull;
	source->abort_on_error = strcmp(text_column(row, desc, "on_error"), "abort") == 0;
}

/* The key; runs under guard. */
static void
load_keys(void *arg)
{
	Load	   *load = arg;
	HeapTuple	row = load->row;
	TupleDesc	desc = load->desc;
	bool		isnull;
	MemoryContext old = MemoryContextSwitchTo(load->source->context);

	load_key(load->source, load->rel, COLUMN("key_columns"));
	MemoryContextSwitchTo(old);
}

/* The mapping; runs under guard. */
static void
load_mappings(void *arg)
{
	Load	   *load = arg;
	Source	   *source = load->source;
	Relation	rel = load->rel;
	HeapTuple	row = load->row;
	TupleDesc	desc = load->desc;
	Datum		d;
	bool		isnull;
	OrderExpr	raw_time;
	MemoryContext old = MemoryContextSwitchTo(source->context);

	load_mapping(source, rel, row, desc, "member", InvalidOid, &source->member);
	canon_or_error(&source->member_canon, source->member.type, source->member.collation,
				   "the member");
	load_mapping(source, rel, row, desc, "amount", NUMERICOID, &source->amount);
	source->has_currency_expr = load_mapping(source, rel, row, desc, "currency", TEXTOID,
											 &source->currency);
	source->has_quantity = load_mapping(source, rel, row, desc, "quantity", NUMERICOID,
										&source->quantity);
	source->has_order_time = load_mapping(source, rel, row, desc, "order_time", TIMESTAMPTZOID,
										  &source->order_time);
	if (source->has_order_time)
	{
		/* its own type tells whether it is a day */
		expr_load(rel, "order_time", text_column(row, desc, "order_time"), InvalidOid, &raw_time);
		source->order_time_is_date = raw_time.type == DATEOID;
	}
	source->has_status = load_mapping(source, rel, row, desc, "status", TEXTOID, &source->status);
	source->has_confirmed_at = load_mapping(source, rel, row, desc, "confirmed_at", TIMESTAMPTZOID,
											&source->confirmed_at);
	source->has_refunded = load_mapping(source, rel, row, desc, "refunded", NUMERICOID,
										&source->refunded);
	source->has_refunded_quantity = load_mapping(source, rel, row, desc, "refunded_quantity",
												 NUMERICOID, &source->refunded_quantity);
	source->original = load_other_key(source, rel, row, desc, "original");
	source->replaces = load_other_key(source, rel, row, desc, "replaces");
	d = COLUMN("attributes");
	load_attributes(source, rel, isnull ? NULL : DatumGetJsonbPCopy(d));
	MemoryContextSwitchTo(old);
}
#undef COLUMN

/*
 * Compile one row of rebate_data.source.  A table that was changed so that the
 * mapping no longer fits gives a broken source: its orders are set aside.
 */
static void
load_source(Store *store, Source *source, Relation rel, HeapTuple row, TupleDesc desc)
{
	Load		load = {source, rel, row, desc};
	MemoryContext old = MemoryContextSwitchTo(source->context);
	ErrorData  *error;

	load_options(source, row, desc);
	source->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	source->partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	MemoryContextSwitchTo(old);
	error = run_guarded(store, load_keys, &load);
	if (error)
		source->key_broken = true;
	else
		error = run_guarded(store, load_mappings, &load);
	if (error)
		source->broken = MemoryContextStrdup(source->context, error->message);
}

static bool
is_attached(HeapTuple row, TupleDesc desc)
{
	bool		isnull;

	(void) SPI_getbinval(row, desc, SPI_fnumber(desc, "detached_at"), &isnull);
	return isnull;
}

/*
 * Build the entry of a relation: read its row with the newest snapshot, since the
 * triggers of an attachment are visible at once too.
 */
static Source *
build_source(Store *store, Oid relid)
{
	MemoryContext context = AllocSetContextCreate(CacheMemoryContext, "rebate source",
												  ALLOCSET_SMALL_SIZES);
	Source	   *source;
	Relation	table;
	Snapshot	snapshot;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	row;
	uint64		counter = store_epoch_of_rules();

	source = MemoryContextAllocZero(context, sizeof(Source));
	source->relid = relid;
	source->context = context;
	source->build = next_build++;

	PG_TRY();
	{
		/* without SPI: a new connection's first order pays for this */
		table = store_open(store, ST_SOURCE, AccessShareLock);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		ScanKeyInit(&key, 2, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
		scan = systable_beginscan(table, store->indexes[SI_SOURCE_RELATION], true, snapshot, 1,
								  &key);
		row = systable_getnext(scan);
		if (HeapTupleIsValid(row) && is_attached(row, RelationGetDescr(table)))
		{
			Relation	rel = try_relation_open(relid, AccessShareLock);

			if (rel)
			{
				load_source(store, source, rel, row, RelationGetDescr(table));
				relation_close(rel, NoLock);
				source->attached = true;
			}
		}
		systable_endscan(scan);
		UnregisterSnapshot(snapshot);
		table_close(table, AccessShareLock);
	}
	PG_CATCH();
	{
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();

	source->counter = counter;
	source->valid = true;
	return source;
}

/* The entry of a relation, made if there is none */
static SourceEntry *
make_entry(Oid relid)
{
	SourceEntry *entry;
	bool		found;

	entry = hash_search(sources, &relid, HASH_ENTER, &found);
	if (!found)
	{
		entry->source = NULL;
		entry->root = InvalidOid;
	}
	return entry;
}

Source *
source_get(Store *store, Oid relid)
{
	SourceEntry *entry;
	Source	   *source;

	if (sources == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(SourceEntry);
		sources = hash_create("rebate sources", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}

	entry = hash_search(sources, &relid, HASH_FIND, NULL);
	if (entry && entry->source && entry->source->valid &&
		entry->source->counter == store_epoch_of_rules())
		return entry->source->attached ? entry->source : NULL;

	source = build_source(store, relid);

	entry = make_entry(relid);
	if (entry->source)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		graveyard = lappend(graveyard, entry->source->context);
		MemoryContextSwitchTo(old);
	}
	entry->source = source;
	return source->attached ? source : NULL;
}

Source *
source_above(Store *store, Oid relid)
{
	Source	   *source = source_get(store, relid);
	ListCell   *lc;

	if (source || !get_rel_relispartition(relid))
		return source;
	foreach(lc, get_partition_ancestors(relid))
	{
		source = source_get(store, lfirst_oid(lc));
		if (source)
			break;
	}
	return source;
}

/* What of a relation belongs to which column of its source; raises if it does not fit. */
static void
fill_part(SourcePart *part, Source *source, Relation rel)
{
	part->relid = RelationGetRelid(rel);
	part->source = source;
	part->to_source = part->relid == source->relid ? NULL :
		attrmap_by_name_compat(RelationGetDescr(rel), source->desc);
	part->key_attnos = NULL;
	part->key_index = InvalidOid;
	if (source->key_broken)
		return;
	part->key_attnos = palloc(sizeof(AttrNumber) * source->nkeys);
	for (int i = 0; i < source->nkeys; i++)
		part->key_attnos[i] = part_attno(part, source->key_attnos[i]);
	if (rel->rd_rel->relkind == RELKIND_RELATION)
		part->key_index = find_key_index(rel, part->key_attnos, source->nkeys);
}

SourcePart *
source_part_new(Source *source, Relation rel)
{
	SourcePart *part = palloc(sizeof(SourcePart));

	fill_part(part, source, rel);
	return part;
}

SourcePart *
source_part_of(Source *source, Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	SourcePart	filled;
	SourcePart *part;
	MemoryContext old;

	/* of a source that is about to be replaced nothing is remembered */
	if (!source->valid)
		return source_part_new(source, rel);
	part = source->parts ? hash_search(source->parts, &relid, HASH_FIND, NULL) : NULL;
	if (part)
		return part;

	old = MemoryContextSwitchTo(source->context);
	if (source->parts == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(SourcePart);
		ctl.hcxt = source->context;
		source->parts = hash_create("rebate partitions", 16, &ctl,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	/* an invalidation that arrives while we look must find the way */
	if (relid != source->relid)
		make_entry(relid)->root = source->relid;
	fill_part(&filled, source, rel);
	part = hash_search(source->parts, &relid, HASH_ENTER, NULL);
	*part = filled;
	MemoryContextSwitchTo(old);
	return part;
}

SourcePart *
source_part(Store *store, Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	SourceEntry *entry = sources ? hash_search(sources, &relid, HASH_FIND, NULL) : NULL;
	Source	   *source = NULL;

	if (entry && OidIsValid(entry->root))
		source = source_get(store, entry->root);
	if (source == NULL)
		source = source_above(store, relid);
	return source ? source_part_of(source, rel) : NULL;
}

SourceAttribute *
source_attribute(Source *source, const char *name)
{
	SourceAttribute key;

	key.name = unconstify(char *, name);
	return bsearch(&key, source->attributes, source->nattributes, sizeof(SourceAttribute),
				   attribute_cmp);
}
