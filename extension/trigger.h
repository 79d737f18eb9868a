/*
 * trigger.h
 *	  What the trigger functions on order tables share.
 */
#ifndef REBATE_TRIGGER_H
#define REBATE_TRIGGER_H

#include "rebate.h"
#include "commands/trigger.h"
#include "source.h"

/*
 * Raise unless called as a trigger of the expected level; returns what the table
 * is to its source, or NULL with a WARNING if the table is not attached, nor any
 * above it: whoever hangs our function on a table of his own gets nothing.
 */
extern SourcePart *trigger_part(FunctionCallInfo fcinfo, bool for_row, Store **store);

/*
 * The source of a part whose orders can be named; else a WARNING, or with
 * on_error = abort an error, and NULL: the audit will find them.
 */
extern Source *trigger_source_with_key(SourcePart *part);

/* Columns of a source whose change matters under the rules there are */
extern Bitmapset *trigger_columns(Source *source);

/* Whether two rows of the source differ in any of these columns */
extern bool trigger_any_differs(Source *source, Bitmapset *columns, TupleTableSlot *a,
								TupleTableSlot *b);

/* Whether the statement names one of these columns, changed or not */
extern bool trigger_names(SourcePart *part, Bitmapset *columns, TriggerData *trigger);

/* At the end of a firing: post, if the moment for it is the statement */
extern void trigger_after_statement(void);

/* At the end of a transaction: forget a row that is on its way */
extern void trigger_at_xact_end(void);

#endif							/* REBATE_TRIGGER_H */
