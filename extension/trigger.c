/*
 * trigger.c
 *	  The trigger functions on order tables: they hand rows to the collection.
 */
#include "rebate.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
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
#include "rules.h"

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
 * Raise unless called as a trigger of the expected shape; returns the source,
 * or NULL with a WARNING if the table is not attached: whoever hangs this
 * function on a table of his own gets nothing.
 */
static Source *
trigger_source(FunctionCallInfo fcinfo, Store **store)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Source	   *source = NULL;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function was not called by a trigger"),
				 errhint("rebate.attach() creates the triggers.")));
	if (!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired for each statement",
						trigger->tg_trigger->tgname),
				 errhint("rebate.attach() creates the triggers.")));

	*store = store_get(true);
	if (*store)
		source = source_get(*store, RelationGetRelid(trigger->tg_relation));
	if (source == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_RB_NOT_ATTACHED),
				 errmsg("trigger \"%s\" of table \"%s\" does nothing, since the table is not attached",
						trigger->tg_trigger->tgname,
						RelationGetRelationName(trigger->tg_relation)),
				 errhint("Drop the trigger, or attach the table with rebate.attach().")));
	return source;
}

/* Next row of a transition table, through a read pointer of our own */
static bool
transition_next(CollectBatch *batch)
{
	return tuplestore_gettupleslot((Tuplestorestate *) batch->next_arg, true, false, batch->slot);
}

/* Stand at the start of a transition table that others read too. */
static void
rewind_transition(Tuplestorestate *table)
{
	int			pointer = tuplestore_alloc_read_pointer(table, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(table, pointer);
	tuplestore_rescan(table);
}

/* Columns whose change matters to a source under the rules there are */
static Bitmapset *
columns_that_matter(Source *source, TupleDesc desc)
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
		columns = bms_add_range(columns, 1, desc->natts);
	return columns;
}

static bool
any_differs(Bitmapset *columns, TupleDesc desc, TupleTableSlot *a, TupleTableSlot *b)
{
	int			attno = -1;

	while ((attno = bms_next_member(columns, attno)) >= 0)
	{
		Form_pg_attribute att = TupleDescAttr(desc, attno - 1);
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

/* Whether the statement names one of the columns, changed or not */
static bool
named_columns_matter(Bitmapset *columns, TriggerData *trigger)
{
	int			attno = -1;

	while ((attno = bms_next_member(trigger->tg_updatedcols, attno)) >= 0)
	{
		int			column = attno + FirstLowInvalidHeapAttributeNumber;

		if (column > 0 && bms_is_member(column, columns))
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
compare_images(Source *source, TriggerData *trigger, TupleTableSlot *newslot,
			   bool *matters, bool *keys)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	Bitmapset  *columns = columns_that_matter(source, desc);
	TupleTableSlot *oldslot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

	*keys = false;
	*matters = source->broken || named_columns_matter(columns, trigger);
	rewind_transition(trigger->tg_oldtable);
	rewind_transition(trigger->tg_newtable);
	while (!*keys)
	{
		bool		have_old = tuplestore_gettupleslot(trigger->tg_oldtable, true, false, oldslot);
		bool		have_new = tuplestore_gettupleslot(trigger->tg_newtable, true, false, newslot);

		if (!have_old && !have_new)
			break;
		if (have_old != have_new || any_differs(source->key_columns, desc, oldslot, newslot))
			*matters = *keys = true;
		else if (!*matters && any_differs(columns, desc, oldslot, newslot))
			*matters = true;
	}
	ExecClearTuple(newslot);
	ExecDropSingleTupleTableSlot(oldslot);
}

/*
 * Match OLD and NEW by key.  One order that left and one that arrived are the
 * same order under a new key.  Of several it is not known which became which:
 * they fail, unless each arrival is an order that was there before.
 */
static void
match_keys(Store *store, Source *source, TriggerData *trigger, TupleTableSlot *slot)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate keys",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	keyset_hash *before = keyset_create(context, 256, NULL);
	keyset_iterator iterator;
	KeySlot    *entry;
	const char *arrived = NULL;
	const char *left = NULL;
	int			narrived = 0,
				nleft = 0;
	List	   *arrivals = NIL;
	ListCell   *lc;
	bool		found;

	rewind_transition(trigger->tg_oldtable);
	while (tuplestore_gettupleslot(trigger->tg_oldtable, true, false, slot))
	{
		entry = keyset_insert(before, image_key(source, slot), &found);
		entry->matched = false;
	}
	rewind_transition(trigger->tg_newtable);
	while (tuplestore_gettupleslot(trigger->tg_newtable, true, false, slot))
	{
		char	   *key = image_key(source, slot);

		entry = keyset_lookup(before, key);
		if (entry)
			entry->matched = true;
		else
		{
			arrived = key;
			arrivals = lappend(arrivals, key);
			narrived++;
		}
	}
	keyset_start_iterate(before, &iterator);
	while ((entry = keyset_iterate(before, &iterator)) != NULL)
	{
		if (!entry->matched)
		{
			left = entry->key;
			nleft++;
		}
	}

	if (nleft == 1 && narrived == 1)
		collect_rekey(store, source, left, arrived);
	else
	{
		const char *error = "several keys changed in one statement";
		const char *detail = "It is not known which order became which.";
		int			nunknown = 0;

		/* what waits is posted under the keys it had */
		if (narrived > 0)
			collect_flush();
		foreach(lc, arrivals)
		{
			if (collect_knows(store, source, lfirst(lc)))
				collect_touch(store, source, lfirst(lc));
			else
			{
				collect_failure(store, source, lfirst(lc), ERRCODE_RB_AMBIGUOUS_REKEY, error,
								detail);
				nunknown++;
			}
		}
		keyset_start_iterate(before, &iterator);
		while ((entry = keyset_iterate(before, &iterator)) != NULL)
		{
			if (entry->matched)
				continue;
			/* with all arrivals known, who left is known too */
			if (nunknown == 0)
				collect_touch(store, source, entry->key);
			else
				collect_failure(store, source, entry->key, ERRCODE_RB_AMBIGUOUS_REKEY, error,
								detail);
		}
	}
	ExecClearTuple(slot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * With rebate.posting = statement, post at the end of the outermost statement.
 * A statement inside a trigger may be about rows whose own statement has not
 * reached us yet; what is left when no outer one of ours follows is posted
 * before the commit.
 */
static void
after_statement(void)
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
	bool		matters = true;
	bool		keys = false;

	if (rebate_mode == MODE_OFF && CALLED_AS_TRIGGER(fcinfo))
		return PointerGetDatum(NULL);

	batch.source = trigger_source(fcinfo, &batch.store);
	if (batch.source == NULL)
		return PointerGetDatum(NULL);

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		batch.event = COLLECT_INSERT;
		batch.next_arg = trigger->tg_newtable;
		/* the usual transaction of a shop: one order, never seen before */
		batch.assume_new = trigger->tg_newtable && collect_is_empty() &&
			tuplestore_tuple_count(trigger->tg_newtable) == 1;
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		batch.event = COLLECT_UPDATE;
		batch.next_arg = trigger->tg_newtable;
	}
	else
	{
		batch.event = COLLECT_DELETE;
		batch.next_arg = trigger->tg_oldtable;
		batch.archived = batch.source->on_delete == LEAVE_KEEP;
	}
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event) || batch.next_arg == NULL ||
		(batch.event == COLLECT_UPDATE && trigger->tg_oldtable == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired after the event, with transition tables",
						trigger->tg_trigger->tgname),
				 errhint("rebate.attach() creates the triggers.")));

	if (batch.source->key_broken)
	{
		/* the orders cannot even be named; the audit will find them */
		ereport(batch.source->abort_on_error ? ERROR : WARNING,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("orders of %s go without a rebate, since their key no longer fits the table",
						batch.source->name),
				 errdetail("%s.", batch.source->broken),
				 errhint("Call rebate.attach() with replace => true; rebate.audit() lists the orders.")));
		return PointerGetDatum(NULL);
	}
	collect_firing();
	batch.next = transition_next;
	batch.slot = MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation),
										  &TTSOpsMinimalTuple);
	if (batch.event == COLLECT_UPDATE)
	{
		(void) rules_generation(batch.store);
		compare_images(batch.source, trigger, batch.slot, &matters, &keys);
		batch.keys_changed = keys;
		if (keys)
			match_keys(batch.store, batch.source, trigger, batch.slot);
	}
	if (matters)
	{
		rewind_transition((Tuplestorestate *) batch.next_arg);
		collect_rows(&batch);
	}
	ExecDropSingleTupleTableSlot(batch.slot);
	after_statement();
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
	Source	   *source;
	CollectBatch batch = {0};
	Relation	rel;

	if (rebate_mode == MODE_OFF && CALLED_AS_TRIGGER(fcinfo))
		return PointerGetDatum(NULL);
	source = trigger_source(fcinfo, &store);
	if (source == NULL)
		return PointerGetDatum(NULL);
	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired before TRUNCATE", trigger->tg_trigger->tgname),
				 errhint("rebate.attach() creates the triggers.")));
	rel = trigger->tg_relation;
	if (source->on_truncate == LEAVE_REFUSE)
		ereport(ERROR,
				(errcode(ERRCODE_RB_TRUNCATE_REFUSED),
				 errmsg("cannot truncate table \"%s\" because rebates are attached to it",
						RelationGetRelationName(rel)),
				 errdetail("A TRUNCATE would take the orders away and leave their rebates."),
				 errhint("Use DELETE, or attach with on_truncate => 'void' or 'keep'.")));

	/* the rows are still there: take them as deleted one by one */
	CommandCounterIncrement();
	batch.store = store;
	batch.source = source;
	batch.event = COLLECT_DELETE;
	batch.archived = source->on_truncate == LEAVE_KEEP;
	collect_table(&batch, rel);
	return PointerGetDatum(NULL);
}
