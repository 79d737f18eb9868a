/*
 * trigger.c
 *	  The trigger functions on order tables: they hand rows to the collection.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
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

/*
 * Whether an UPDATE can have changed something that rebates depend on.  The
 * columns it names tell, unless a BEFORE trigger can change more.
 */
static bool
update_matters(Source *source, TriggerData *trigger)
{
	TriggerDesc *triggers = trigger->tg_relation->trigdesc;
	RuleScope  *scopes;
	int			n;
	int			attno = -1;

	if (triggers && triggers->trig_update_before_row)
		return true;
	/* which columns conditions read is known only when they are compiled */
	if (rules_have_expressions())
		return true;
	n = rules_scopes(source, &scopes);
	while ((attno = bms_next_member(trigger->tg_updatedcols, attno)) >= 0)
	{
		int			column = attno + FirstLowInvalidHeapAttributeNumber;

		if (column == 0 || bms_is_member(column, source->mapped))
			return true;
		for (int i = 0; i < n; i++)
			for (int j = 0; j < scopes[i].nattributes; j++)
				if (scopes[i].attributes[j] &&
					bms_is_member(column, scopes[i].attributes[j]->expr.attnos))
					return true;
	}
	return false;
}

/* Whether an UPDATE can have changed keys */
static bool
keys_may_change(Source *source, TriggerData *trigger)
{
	TriggerDesc *triggers = trigger->tg_relation->trigdesc;
	int			attno = -1;

	if (triggers && triggers->trig_update_before_row)
		return true;
	while ((attno = bms_next_member(trigger->tg_updatedcols, attno)) >= 0)
		if (bms_is_member(attno + FirstLowInvalidHeapAttributeNumber, source->key_columns))
			return true;
	return false;
}

/*
 * Match OLD and NEW by key.  One order that left and one that arrived are the
 * same order under a new key.  Of several it is not known which became which:
 * they fail.  What only left is deleted.
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
	{
		if (!collect_rekey(store, source, left, arrived))
		{
			collect_touch(store, source, left, false);
			collect_touch(store, source, arrived, true);
		}
	}
	else if (nleft > 0 || narrived > 0)
	{
		const char *error = "several keys changed in one statement";
		const char *detail = "It is not known which order became which.";

		foreach(lc, arrivals)
			collect_failure(store, source, lfirst(lc), ERRCODE_RB_AMBIGUOUS_REKEY, error, detail);
		keyset_start_iterate(before, &iterator);
		while ((entry = keyset_iterate(before, &iterator)) != NULL)
			if (!entry->matched)
				collect_failure(store, source, entry->key, ERRCODE_RB_AMBIGUOUS_REKEY, error, detail);
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

	if (rebate_mode == MODE_OFF)
		return PointerGetDatum(NULL);

	batch.source = trigger_source(fcinfo, &batch.store);
	if (batch.source == NULL)
		return PointerGetDatum(NULL);

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		batch.event = COLLECT_INSERT;
		batch.next_arg = trigger->tg_newtable;
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		batch.event = COLLECT_UPDATE;
		batch.next_arg = trigger->tg_newtable;
		(void) rules_generation(batch.store);
		if (!update_matters(batch.source, trigger))
			return PointerGetDatum(NULL);
	}
	else
	{
		batch.event = COLLECT_DELETE;
		batch.next_arg = trigger->tg_oldtable;
	}
	if (batch.next_arg == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" has no transition table", trigger->tg_trigger->tgname),
				 errhint("rebate.attach() creates the triggers.")));

	batch.next = transition_next;
	batch.slot = MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation),
										  &TTSOpsMinimalTuple);
	if (batch.event == COLLECT_UPDATE && keys_may_change(batch.source, trigger))
		match_keys(batch.store, batch.source, trigger, batch.slot);
	rewind_transition((Tuplestorestate *) batch.next_arg);
	collect_rows(&batch);
	ExecDropSingleTupleTableSlot(batch.slot);
	after_statement();
	return PointerGetDatum(NULL);
}

/*
 * rebate.collect_truncate(): BEFORE TRUNCATE.  Refuses, or takes the orders
 * recorded so far as deleted one by one.
 */
Datum
rebate_collect_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Store	   *store;
	Source	   *source;
	Relation	rel;
	Snapshot	snapshot;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (rebate_mode == MODE_OFF)
		return PointerGetDatum(NULL);
	source = trigger_source(fcinfo, &store);
	if (source == NULL)
		return PointerGetDatum(NULL);
	if (source->on_truncate == LEAVE_REFUSE)
		ereport(ERROR,
				(errcode(ERRCODE_RB_TRUNCATE_REFUSED),
				 errmsg("cannot truncate table \"%s\" because rebates are attached to it",
						RelationGetRelationName(trigger->tg_relation)),
				 errdetail("A TRUNCATE would take the orders away and leave their rebates."),
				 errhint("Use DELETE, or attach with on_truncate => 'void' or 'keep'.")));
	if (source->on_truncate == LEAVE_KEEP)
		return PointerGetDatum(NULL);

	/* the rows are still there: post what waits, then touch all that earned */
	collect_flush();
	rel = table_open(store->tables[ST_ACCRUAL], AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, ACC_SOURCE_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(source->source_id));
	scan = systable_beginscan(rel, store->indexes[SI_ACCRUAL_ORDER], true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		if (((Form_accrual) GETSTRUCT(tuple))->earned != 0)
			collect_touch(store, source,
						  TextDatumGetCString(heap_getattr(tuple, ACC_ORDER_KEY,
														   RelationGetDescr(rel), &isnull)),
						  false);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return PointerGetDatum(NULL);
}
