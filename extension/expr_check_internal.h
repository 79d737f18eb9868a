/*
 * expr_check_internal.h
 *	  What the parts of the check of expressions share.
 */
#ifndef REBATE_EXPR_CHECK_INTERNAL_H
#define REBATE_EXPR_CHECK_INTERNAL_H

#include "expr_check.h"

/* Greatest length of a value in an expression, in bytes */
#define MAX_VALUE_LENGTH	65536

typedef struct CheckContext
{
	ParseState *pstate;
	Bitmapset  *attnos;
	int			growing;
	int			max_length;
	Node	   *node;			/* whose functions are being checked */
	int			depth;			/* of the walk by expr_check_depth() */
} CheckContext;

/* Is a name in a list?  All lists of names are sorted. */
#define IN_LIST(name, list) expr_in_list(name, list, lengthof(list))

extern bool expr_in_list(const char *name, const char *const *list, size_t length);

/* Raise RB004 for the function behind a node, under the name its author used */
extern void expr_forbid_function(CheckContext *context, Oid funcid, const char *detail);

/*
 * expr_types.c: types whose input and output functions are harmless; the second
 * takes arrays of such and built-in ranges as well.
 */
extern bool expr_scalar_is_allowed(Oid typid);
extern bool expr_type_is_allowed(Oid typid);

/*
 * expr_arguments.c: refuse a function of the list with arguments that make it
 * slow, its result huge, or either depend on the session.
 */
extern void expr_check_arguments(CheckContext *context, Oid funcid, const char *name,
								 bool builtin, Oid first_type, List *args);

/* Count a step that multiplies its input; raise if there are too many */
extern void expr_count_growing(CheckContext *context);

#endif							/* REBATE_EXPR_CHECK_INTERNAL_H */
