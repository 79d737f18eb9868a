/*
 * row_sort.h
 *	  The rows of a large statement, member by member.
 */
#ifndef REBATE_ROW_SORT_H
#define REBATE_ROW_SORT_H

#include "collect.h"

typedef struct RowSort RowSort;

/*
 * Take all rows of a batch, and let it have them again in the order of their
 * members.  NULL, and nothing done, where that takes an expression.
 */
extern RowSort *row_sort_begin(CollectBatch *batch);
extern void row_sort_end(RowSort *sort);

#endif							/* REBATE_ROW_SORT_H */
