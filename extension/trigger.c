/*
 * trigger.c
 *	  The trigger functions on order tables: they hand rows to the collection.
 */
#include "rebate.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "collect.h"
#include "counters.h"
#include "partition.h"
#include "rules.h"
#include "trigger.h"
#include "truncating.h"

PG_FUNCTION_INFO_V1(rebate_collect);
PG_FUNCTION_INFO_V1(rebate_collect_truncate);

/* Keys of one side of an UPDATE */
typedef struct KeySlot
{
	const char *key;
	uint32		hash;
	char		status;
	bool		matched;
} KeySlot;

#define SH_PREFIX keyset
#define SH_ELEMENT_TYPE KeySlot
#define SH_KEY_TYPE const char *
#define SH_KEY key
#define SH_HASH_KEY(tb, k) hash_bytes((const unsigned char *) (k), strlen(k))
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/*
 * The database was made by a dump without data, as test databases are: it takes
 * orders as if nothing was attached, with one WARNING a session.
 */
static void
warn_empty(void)
{
	static bool warned = false;

	if (!warned)
		ereport(WARNING,
				(errcode(ERRCODE_RB_NO_STORE),
				 errmsg("orders get no rebates, since the rebate store of this database is empty"),
				 errdetail("Its tables have no rows, as after the restore of a dump without data."),
				 errhint("Restore the data of the dump, or call rebate.adopt_store() and rebate.attach() to begin a new ledger.")));
	warned = true;
}

SourcePart *
trigger_part(FunctionCallInfo fcinfo, bool for_row, Store **store)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	SourcePart *part = NULL;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function was not called by a trigger"),
				 errhint("rebate.attach() creates the triggers.")));
	if ((TRIGGER_FIRED_FOR_ROW(trigger->tg_event) != 0) != for_row)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired for each %s",
						trigger->tg_trigger->tgname, for_row ? "row" : "statement"),
				 errhint("rebate.attach() creates the triggers.")));

	*store = store_get(true);
	if (*store)
		part = source_part(*store, trigger->tg_relation);
	else if (store_is_empty())
	{
		warn_empty();
		return NULL;
	}
	if (part == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_RB_NOT_ATTACHED),
				 errmsg("trigger \"%s\" of table \"%s\" does nothing, since the table is not attached",
						trigger->tg_trigger->tgname,
						RelationGetRelationName(trigger->tg_relation)),
				 errhint("Drop the trigger, or attach the table with rebate.attach().")));
	return part;
}

Source *
trigger_source_with_key(SourcePart *part)
{
	Source	   *source = part->source;

	if (!source->key_broken)
		return source;
	ereport(source->abort_on_error ? ERROR : WARNING,
			(errcode(ERRCODE_RB_INVALID_MAPPING),
			 errmsg("orders of %s go without a rebate, since their key no longer fits the table",
					source->name),
			 errdetail("%s.", source->broken),
			 errhint("Call rebate.attach() with replace => true; rebate.audit() lists the orders.")));
	return NULL;
}

/* A transition table, read through a pointer of our own */
typedef struct Transition
{
	Tuplestorestate *table;
	PartReader	reader;
} Transition;

static void
transition_begin(Transition *t, Tuplestorestate *table, SourcePart *part, Relation rel)
{
	t->table = table;
	part_reader_begin(&t->reader, part, RelationGetDescr(rel), &TTSOpsMinimalTuple);
}

static void
transition_end(Transition *t)
{
	part_reader_end(&t->reader);
}

/* Stand at its start; others read it too. */
static void
transition_rewind(Transition *t)
{
	int			pointer = tuplestore_alloc_read_pointer(t->table, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(t->table, pointer);
	tuplestore_rescan(t->table);
}

/* Next row into t->reader.slot; false, and an empty slot, at the end */
static bool
transition_row(Transition *t)
{
	if (!tuplestore_gettupleslot(t->table, true, false, t->reader.raw))
	{
		ExecClearTuple(t->reader.slot);
		return false;
	}
	(void) part_reader_convert(&t->reader);
	return true;
}

static bool
transition_next(CollectBatch *batch)
{
	return transition_row((Transition *) batch->next_arg);
}

Bitmapset *
trigger_columns(Source *source)
{
	Bitmapset  *columns = bms_copy(source->mapped);
	RuleScope  *scopes;
	int			n = rules_scopes(source, &scopes);

	for (int i = 0; i < n; i++)
		for (int j = 0; j < scopes[i].nattributes; j++)
			if (scopes[i].attributes[j])
				columns = bms_add_members(columns, scopes[i].attributes[j]->expr.attnos);

	/* which columns conditions read is known only when they are compiled */
	if (rules_have_expressions())
		columns = bms_add_range(columns, 1, source->desc->natts);
	return columns;
}

bool
trigger_any_differs(Source *source, Bitmapset *columns, TupleTableSlot *a, TupleTableSlot *b)
{
	int			attno = -1;

	while ((attno = bms_next_member(columns, attno)) >= 0)
	{
		Form_pg_attribute att = TupleDescAttr(source->desc, attno - 1);
		bool		anull,
					bnull;
		Datum		x,
					y;

		if (att->attisdropped)
			continue;
		x = slot_getattr(a, attno, &anull);
		y = slot_getattr(b, attno, &bnull);
		if (anull != bnull || (!anull && !datum_image_eq(x, y, att->attbyval, att->attlen)))
			return true;
	}
	return false;
}

bool
trigger_names(SourcePart *part, Bitmapset *columns, TriggerData *trigger)
{
	int			attno = -1;

	while ((attno = bms_next_member(columns, attno)) >= 0)
	{
		AttrNumber	own = part_attno(part, attno);

		/* a dropped column has no counterpart */
		if (own > 0 && bms_is_member(own - FirstLowInvalidHeapAttributeNumber,
									 trigger->tg_updatedcols))
			return true;
	}
	return false;
}

/*
 * What an UPDATE changed: whether anything that rebates depend on, and whether a
 * key.  To name a mapped column is enough, so that a person can have an order
 * decided again.  Not to name one is not: a BEFORE trigger may change more, and
 * of a statement that updates the table in two places the trigger is told those
 * of one.  Both transition tables have their rows in one order; if not, a key
 * differs, and they are matched by key.
 */
static void
compare_images(SourcePart *part, TriggerData *trigger, Transition *old, Transition *new,
			   bool *matters, bool *keys)
{
	Source	   *source = part->source;
	Bitmapset  *columns = trigger_columns(source);

	*keys = false;
	*matters = source->broken || trigger_names(part, columns, trigger);
	transition_rewind(old);
	transition_rewind(new);
	while (!*keys)
	{
		bool		have_old = transition_row(old);
		bool		have_new = transition_row(new);

		if (!have_old && !have_new)
			break;
		if (have_old != have_new ||
			trigger_any_differs(source, source->key_columns, old->reader.slot, new->reader.slot))
			*matters = *keys = true;
		else if (!*matters &&
				 trigger_any_differs(source, columns, old->reader.slot, new->reader.slot))
			*matters = true;
	}
	ExecClearTuple(old->reader.slot);
	ExecClearTuple(new->reader.slot);
}

/* An order that left its key or arrived at one in an UPDATE */
typedef struct Mover
{
	const char *key;
	const char *identity;		/* what it keeps in another partition */
} Mover;

static int
compare_movers(const void *a, const void *b)
{
	return strcmp(((const Mover *) a)->identity, ((const Mover *) b)->identity);
}

/*
 * Which became which, where orders moved to other partitions: those that agree in
 * the key columns that are no partition key, if nobody else does.  False if that
 * does not tell.
 */
static bool
pair_movers(Mover *left, Mover *arrived, int n)
{
	qsort(left, n, sizeof(Mover), compare_movers);
	qsort(arrived, n, sizeof(Mover), compare_movers);
	for (int i = 0; i < n; i++)
		if (strcmp(left[i].identity, arrived[i].identity) != 0 ||
			(i > 0 && strcmp(left[i].identity, left[i - 1].identity) == 0))
			return false;
	return true;
}

/* What tells a row of a partitioned source apart in whatever partition; NULL: nothing */
static char *
row_identity(Source *source, const bool *is_partition_key, TupleTableSlot *slot)
{
	char	  **parts = palloc(sizeof(char *) * source->nkeys);
	int			n = 0;

	for (int i = 0; i < source->nkeys; i++)
	{
		bool		isnull;
		Datum		value;

		if (is_partition_key[i])
			continue;
		value = slot_getattr(slot, source->key_attnos[i], &isnull);
		parts[n++] = isnull ? pstrdup("") : canon_text(&source->key_canon[i], value);
	}
	return n > 0 ? canon_key(n, parts) : NULL;
}

/* The orders among the rows of a transition table that the other one has not */
static Mover *
find_movers(Source *source, Transition *t, keyset_hash *others, const bool *is_partition_key,
			int *n)
{
	int			allocated = 16;
	Mover	   *movers = palloc(sizeof(Mover) * allocated);

	*n = 0;
	transition_rewind(t);
	while (transition_row(t))
	{
		char	   *key = image_key(source, t->reader.slot);
		KeySlot    *entry = keyset_lookup(others, key);

		if (entry)
		{
			entry->matched = true;
			continue;
		}
		if (*n == allocated)
		{
			allocated *= 2;
			movers = repalloc_huge(movers, sizeof(Mover) * allocated);
		}
		movers[*n].key = key;
		movers[*n].identity = is_partition_key ?
			row_identity(source, is_partition_key, t->reader.slot) : NULL;
		(*n)++;
	}
	return movers;
}

static keyset_hash *
read_keys(Source *source, Transition *t, MemoryContext context)
{
	keyset_hash *keys = keyset_create(context, 256, NULL);
	bool		found;

	transition_rewind(t);
	while (transition_row(t))
		keyset_insert(keys, image_key(source, t->reader.slot), &found)->matched = false;
	return keys;
}

/* Several keys changed, and it is not known how. */
static void
fail_movers(Store *store, Source *source, Mover *left, int nleft, Mover *arrived, int narrived)
{
	const char *error = "several keys changed in one statement";
	const char *detail = "It is not known which order became which.";
	int			nunknown = 0;

	/* what waits is posted under the keys it had */
	if (narrived > 0)
		collect_flush();
	for (int i = 0; i < narrived; i++)
	{
		if (collect_knows(store, source, arrived[i].key))
			collect_touch(store, source, arrived[i].key);
		else
		{
			collect_failure(store, source, arrived[i].key, ERRCODE_RB_AMBIGUOUS_REKEY, error,
							detail);
			nunknown++;
		}
	}
	for (int i = 0; i < nleft; i++)
	{
		/* with all arrivals known, who left is known too */
		if (nunknown == 0)
			collect_touch(store, source, left[i].key);
		else
			collect_failure(store, source, left[i].key, ERRCODE_RB_AMBIGUOUS_REKEY, error,
							detail);
	}
}

/*
 * Match OLD and NEW by key.  One order that left and one that arrived are the
 * same order under a new key.  Of several it is not known which became which,
 * unless they moved to other partitions: they fail, unless each arrival is an
 * order that was there before.
 */
static void
match_keys(Store *store, Source *source, Transition *old, Transition *new)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate keys",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	bool	   *is_partition_key = source->partitioned ? partition_key_parts(source) : NULL;
	int			nleft,
				narrived;
	Mover	   *arrived = find_movers(source, new, read_keys(source, old, context),
									  is_partition_key, &narrived);
	Mover	   *left = find_movers(source, old, read_keys(source, new, context),
								   is_partition_key, &nleft);

	if (nleft == 1 && narrived == 1)
		collect_rekey(store, source, left[0].key, arrived[0].key);
	else if (is_partition_key && nleft == narrived && nleft > 0 && left[0].identity &&
			 pair_movers(left, arrived, nleft))
		for (int i = 0; i < nleft; i++)
			collect_rekey(store, source, left[i].key, arrived[i].key);
	else
		fail_movers(store, source, left, nleft, arrived, narrived);
	ExecClearTuple(old->reader.slot);
	ExecClearTuple(new->reader.slot);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/*
 * With rebate.posting = statement, post at the end of the outermost statement.
 * A statement inside a trigger may be about rows whose own statement has not
 * reached us yet; what is left when no outer one of ours follows is posted
 * before the commit.
 */
void
trigger_after_statement(void)
{
	if (rebate_posting == POSTING_STATEMENT &&
		DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0)) <= 1)
		collect_flush();
}

/* rebate.collect(): AFTER INSERT, UPDATE or DELETE, for each statement */
Datum
rebate_collect(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	CollectBatch batch = {0};
	SourcePart *part;
	Transition	rows;
	Tuplestorestate *table;
	bool		matters = true;
	bool		keys = false;
	Activity	around;

	if (rebate_mode == MODE_OFF && CALLED_AS_TRIGGER(fcinfo))
		return PointerGetDatum(NULL);

	part = trigger_part(fcinfo, false, &batch.store);
	if (part == NULL)
		return PointerGetDatum(NULL);
	batch.source = part->source;

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		batch.event = COLLECT_INSERT;
		table = trigger->tg_newtable;
		/* the usual transaction of a shop: one order, never seen before */
		batch.assume_new = trigger->tg_newtable && collect_is_empty() && !part->source->linked &&
			tuplestore_tuple_count(trigger->tg_newtable) == 1;
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		batch.event = COLLECT_UPDATE;
		table = trigger->tg_newtable;
	}
	else
	{
		batch.event = COLLECT_DELETE;
		table = trigger->tg_oldtable;
		batch.archived = batch.source->on_delete == LEAVE_KEEP;
	}
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event) || table == NULL ||
		(batch.event == COLLECT_UPDATE && trigger->tg_oldtable == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired after the event, with transition tables",
						trigger->tg_trigger->tgname),
				 errhint("rebate.attach() creates the triggers.")));
	if (trigger_source_with_key(part) == NULL)
		return PointerGetDatum(NULL);
	batch.many = !part->source->linked && tuplestore_tuple_count(table) > rebate_collect_limit;

	around = counters_enter(ACTIVITY_COLLECT);
	counters_add(CT_STATEMENTS, 1);
	collect_firing();
	truncating_end(part->source->source_id);
	transition_begin(&rows, table, part, trigger->tg_relation);
	if (batch.event == COLLECT_UPDATE)
	{
		Transition	old;

		(void) rules_generation(batch.store);
		transition_begin(&old, trigger->tg_oldtable, part, trigger->tg_relation);
		compare_images(part, trigger, &old, &rows, &matters, &keys);
		batch.keys_changed = keys;
		if (keys)
			match_keys(batch.store, batch.source, &old, &rows);
		transition_end(&old);
	}
	if (matters)
	{
		transition_rewind(&rows);
		batch.slot = rows.reader.slot;
		batch.next = transition_next;
		batch.next_arg = &rows;
		collect_rows(&batch);
	}
	transition_end(&rows);
	counters_leave(around);
	trigger_after_statement();
	return PointerGetDatum(NULL);
}

/*
 * rebate.collect_truncate(): BEFORE TRUNCATE.  Refuses, or takes the rows as
 * deleted one by one.
 */
Datum
rebate_collect_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Store	   *store;
	SourcePart *part;
	CollectBatch batch = {0};
	Relation	rel;

	if (rebate_mode == MODE_OFF && CALLED_AS_TRIGGER(fcinfo))
		return PointerGetDatum(NULL);
	part = trigger_part(fcinfo, false, &store);
	if (part == NULL)
		return PointerGetDatum(NULL);
	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired before TRUNCATE", trigger->tg_trigger->tgname),
				 errhint("rebate.attach() creates the triggers.")));
	rel = trigger->tg_relation;
	if (part->source->on_truncate == LEAVE_REFUSE)
		ereport(ERROR,
				(errcode(ERRCODE_RB_TRUNCATE_REFUSED),
				 errmsg("cannot truncate table \"%s\" because rebates are attached to it",
						RelationGetRelationName(rel)),
				 errdetail("A TRUNCATE would take the orders away and leave their rebates."),
				 errhint("Use DELETE, or attach with on_truncate => 'void' or 'keep'.")));

	/* each partition that is truncated with this table fires for itself */
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE || trigger_source_with_key(part) == NULL)
		return PointerGetDatum(NULL);

	counters_add(CT_STATEMENTS, 1);

	/* the rows are still there: take them as deleted one by one */
	CommandCounterIncrement();
	batch.store = store;
	batch.source = part->source;
	batch.event = COLLECT_DELETE;
	batch.archived = part->source->on_truncate == LEAVE_KEEP;
	/* the money that stays is that of the rows as they are */
	if (batch.archived)
		collect_flush();
	truncating_begin(part->source->source_id, rel);
	collect_table(&batch, rel);
	trigger_after_statement();
	return PointerGetDatum(NULL);
}
