/*
 * truncating.c
 *	  Tables that a TRUNCATE is about to empty.
 *
 * Our trigger fires while the rows are still there, and takes them as deleted.
 * Whoever posts between it and the TRUNCATE itself would find them again, and no
 * trigger fires afterwards that could correct it: a collection that is full, the
 * next table of the same command, a trigger of the user's that calls
 * rebate.flush().  So from the trigger on, the rows of the table count as gone.
 *
 * Nobody tells us when they are.  Then the table has another file; or, if this
 * transaction has made the one it had, the same file, and is empty until
 * somebody inserts, whose triggers end it.
 */
#include "rebate.h"

#include "access/xact.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "truncating.h"

typedef struct Truncated
{
	int32		source_id;
	Oid			relid;
	Oid			file;			/* pg_class.relfilenode of before */
	SubTransactionId sub;
} Truncated;

static List *tables = NIL;		/* in TopTransactionContext */

void
truncating_begin(int32 source_id, Relation rel)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Truncated  *t = palloc(sizeof(Truncated));

	t->source_id = source_id;
	t->relid = RelationGetRelid(rel);
	t->file = rel->rd_rel->relfilenode;
	t->sub = GetCurrentSubTransactionId();
	tables = lappend(tables, t);
	MemoryContextSwitchTo(old);
}

void
truncating_end(int32 source_id)
{
	ListCell   *lc;

	foreach(lc, tables)
		if (((Truncated *) lfirst(lc))->source_id == source_id)
			tables = foreach_delete_current(tables, lc);
}

bool
truncating(Relation rel)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		Truncated  *t = lfirst(lc);

		if (t->relid == RelationGetRelid(rel) && t->file == rel->rd_rel->relfilenode)
			return true;
	}
	return false;
}

void
truncating_at_xact_end(void)
{
	tables = NIL;
}

void
truncating_at_subcommit(SubTransactionId my, SubTransactionId parent)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		Truncated  *t = lfirst(lc);

		if (t->sub == my)
			t->sub = parent;
	}
}

/* The rows are back */
void
truncating_at_subabort(SubTransactionId my)
{
	ListCell   *lc;

	foreach(lc, tables)
		if (((Truncated *) lfirst(lc))->sub == my)
			tables = foreach_delete_current(tables, lc);
}
