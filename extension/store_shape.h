/*
 * store_shape.h
 *	  What the tables of the store look like, and whether those that are there do.
 */
#ifndef REBATE_STORE_SHAPE_H
#define REBATE_STORE_SHAPE_H

#include "rebate.h"
#include "store.h"

extern const char *shape_table_name(StoreTable which);

/* The version of the store that a table came with */
extern int32 shape_table_since(StoreTable which);

/* The number of columns of a table that may have no others; 0: it may */
extern int	shape_exact_columns(StoreTable which);

extern const char *shape_index_name(StoreIndex which);

/* The table that an index is of */
extern StoreTable shape_index_table(StoreIndex which);

/* Raise RB011 unless the relation is as rebate.create_store() makes it for "owner" */
extern void shape_check_table(Relation rel, StoreTable which, Oid owner);
/* The same of the columns that a later version added to it */
extern void shape_check_added(Relation rel, StoreTable which, int32 version);

extern void shape_check_index(Oid indexid, StoreIndex which, Relation table);
extern void shape_check_sequence(Oid relid, Oid owner);

#endif							/* REBATE_STORE_SHAPE_H */
