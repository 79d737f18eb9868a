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
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "collect.h"
#include "partition.h"
#include "rules.h"
#include "trigger.h"

PG_FUNCTION_INFO_V1(rebate_collect_row);

/*
 * The key of a row that an UPDATE is moving to another partition: for triggers it
 * is a DELETE there, and the next INSERT here.
 */
static int32 moving_source = 0;
static char *moving_key = NULL; /* in TopTransactionContext */

void
trigger_at_xact_end(void)
{
	moving_source = 0;
	moving_key = NULL;
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
row_leaves(Store *store, Source *source, TupleTableSlot *row)
{
	char	   *key = image_key(source, row);

	collect_touch(store, source, key);
	moving_source = source->source_id;
	moving_key = MemoryContextStrdup(TopTransactionContext, key);
}

/* A row that arrived: it may be the one that left another partition just now. */
static bool
row_arrives(Store *store, Source *source, TupleTableSlot *row)
{
	char	   *left = moving_source == source->source_id ? moving_key : NULL;
	char	   *key;

	trigger_at_xact_end();
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

	collect_firing();
	batch.source = source;
	batch.slot = source_row(part, TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
							trigger->tg_newslot : trigger->tg_trigslot);
	batch.next = row_next;
	batch.next_arg = &there;

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		batch.event = COLLECT_INSERT;
		if (row_arrives(batch.store, source, batch.slot))
			return PointerGetDatum(NULL);
		batch.assume_new = collect_is_empty() && !source->linked;
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
	{
		batch.event = COLLECT_DELETE;
		batch.archived = source->on_delete == LEAVE_KEEP;
		if (HeapTupleHeaderIndicatesMovedPartitions(trigger->tg_trigtuple->t_data))
		{
			row_leaves(batch.store, source, batch.slot);
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
