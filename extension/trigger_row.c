/*
 * trigger_row.c
 *	  The row trigger on order tables of a subscriber: where changes are
 *	  replicated no statement triggers fire.
 *
 * It is enabled for session_replication_role = replica only, where the statement
 * triggers are not, so that no row comes twice.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "collect.h"
#include "counters.h"
#include "partition.h"
#include "rules.h"
#include "trigger.h"
#include "truncating.h"

PG_FUNCTION_INFO_V1(rebate_collect_row);

/*
 * A row that an UPDATE is moving to another partition: for triggers it is a
 * DELETE there, and the next INSERT here by the same command.  There is none if a
 * BEFORE trigger of the partition it comes to keeps it out; and between the two,
 * triggers of the user's may run commands that move other rows.
 */
typedef struct Moving
{
	int32		source_id;
	CommandId	command;
	char	   *key;
} Moving;

static List *moving = NIL;		/* in TopTransactionContext; commands inside others last */

void
trigger_at_xact_end(void)
{
	moving = NIL;
}

/* The only row of a batch is in its slot already */
static bool
row_next(CollectBatch *batch)
{
	bool	   *there = batch->next_arg;
	bool		result = *there;

	*there = false;
	return result;
}

/* A copy of a row of "part" as the source's, in a slot of our own */
static TupleTableSlot *
source_row(SourcePart *part, TupleTableSlot *row)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(part->source->desc, &TTSOpsVirtual);

	if (part->to_source)
		return execute_attr_map_slot(part->to_source, row, slot);
	return ExecCopySlot(slot, row);
}

/* A row that left its partition: its order is read again, under the next key if one comes. */
static void
row_leaves(Store *store, Source *source, TupleTableSlot *row, CommandId command)
{
	char	   *key = image_key(source, row);
	MemoryContext old;
	Moving	   *m;

	collect_touch(store, source, key);

	/* later commands are over, and so is what this one moved before */
	while (moving != NIL && ((Moving *) llast(moving))->command >= command)
		moving = list_delete_last(moving);
	old = MemoryContextSwitchTo(TopTransactionContext);
	m = palloc(sizeof(Moving));
	m->source_id = source->source_id;
	m->command = command;
	m->key = pstrdup(key);
	moving = lappend(moving, m);
	MemoryContextSwitchTo(old);
}

/* A row that arrived: it may be the one that left another partition just now. */
static bool
row_arrives(Store *store, Source *source, TupleTableSlot *row, CommandId command)
{
	char	   *left = NULL;
	char	   *key;
	ListCell   *lc;

	foreach(lc, moving)
	{
		Moving	   *m = lfirst(lc);

		if (m->source_id == source->source_id && m->command == command)
		{
			left = m->key;
			moving = foreach_delete_current(moving, lc);
		}
	}
	if (left == NULL)
		return false;
	key = image_key(source, row);
	if (strcmp(left, key) == 0)
		collect_touch(store, source, key);
	else
		collect_rekey(store, source, left, key);
	return true;
}

/* rebate.collect_row(): AFTER INSERT, UPDATE or DELETE, for each row */
Datum
rebate_collect_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	CollectBatch batch = {0};
	SourcePart *part;
	Source	   *source;
	TupleTableSlot *old = NULL;
	bool		there = true;

	if (rebate_mode == MODE_OFF && CALLED_AS_TRIGGER(fcinfo))
		return PointerGetDatum(NULL);
	part = trigger_part(fcinfo, true, &batch.store);
	if (part == NULL || trigger_source_with_key(part) == NULL)
		return PointerGetDatum(NULL);
	source = part->source;
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired after the event",
						trigger->tg_trigger->tgname),
				 errhint("rebate.attach() creates the triggers.")));

	counters_add(CT_STATEMENTS, 1);
	collect_firing();
	truncating_end(source->source_id);
	batch.source = source;
	batch.slot = source_row(part, TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
							trigger->tg_newslot : trigger->tg_trigslot);
	batch.next = row_next;
	batch.next_arg = &there;

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		batch.event = COLLECT_INSERT;
		if (moving != NIL &&
			row_arrives(batch.store, source, batch.slot,
						HeapTupleHeaderGetCmin(trigger->tg_trigtuple->t_data)))
			return PointerGetDatum(NULL);
		batch.assume_new = collect_is_empty() && !source->linked;
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
	{
		batch.event = COLLECT_DELETE;
		batch.archived = source->on_delete == LEAVE_KEEP;
		if (HeapTupleHeaderIndicatesMovedPartitions(trigger->tg_trigtuple->t_data))
		{
			row_leaves(batch.store, source, batch.slot,
					   HeapTupleHeaderGetCmax(trigger->tg_trigtuple->t_data));
			return PointerGetDatum(NULL);
		}
	}
	else
	{
		Bitmapset  *columns;

		(void) rules_generation(batch.store);
		batch.event = COLLECT_UPDATE;
		old = source_row(part, trigger->tg_trigslot);
		columns = trigger_columns(source);
		if (trigger_any_differs(source, source->key_columns, old, batch.slot))
		{
			char	   *oldkey = image_key(source, old);
			char	   *newkey = image_key(source, batch.slot);

			if (strcmp(oldkey, newkey) != 0)
			{
				collect_rekey(batch.store, source, oldkey, newkey);
				batch.keys_changed = true;
			}
		}
		else if (!source->broken && !trigger_names(part, columns, trigger) &&
				 !trigger_any_differs(source, columns, old, batch.slot))
			return PointerGetDatum(NULL);
	}
	collect_rows(&batch);
	trigger_after_statement();
	return PointerGetDatum(NULL);
}
