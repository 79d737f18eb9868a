/*
 * truncating.h
 *	  Tables that a TRUNCATE is about to empty.
 */
#ifndef REBATE_TRUNCATING_H
#define REBATE_TRUNCATING_H

#include "rebate.h"
#include "utils/rel.h"

/* A table is about to be emptied: its rows count no more */
extern void truncating_begin(int32 source_id, Relation rel);

/* A statement writes rows of a source: what was truncated is empty by now */
extern void truncating_end(int32 source_id);

/* Whether the rows of a table are about to go */
extern bool truncating(Relation rel);

/* Callbacks of transaction and subtransaction, from rebate.c */
extern void truncating_at_xact_end(void);
extern void truncating_at_subcommit(SubTransactionId my, SubTransactionId parent);
extern void truncating_at_subabort(SubTransactionId my);

#endif							/* REBATE_TRUNCATING_H */
