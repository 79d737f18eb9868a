/*
 * expr_check.h
 *	  Which SQL an expression over an order may use.
 */
#ifndef REBATE_EXPR_CHECK_H
#define REBATE_EXPR_CHECK_H

#include "rebate.h"
#include "parser/parse_node.h"

/*
 * Refuse, before analysis, what analysis alone could act on: subqueries,
 * parameters, and casts to types whose input functions may run foreign code.
 */
extern void expr_forbid_raw(ParseState *pstate, Node *raw);

/*
 * Refuse (RB004) every construct and function that is not on the allow list.
 * Returns the columns read, as plain attribute numbers, and in *max_length the
 * greatest length in bytes that a value of them may have.
 */
extern Bitmapset *expr_forbid(ParseState *pstate, Node *tree, int *max_length);

/*
 * Refuse (RB004) what is nested so deep that an order, in a session with less stack
 * left than its author had, would fail by it.  Asked of its author only: a rule that is
 * there goes on.
 */
extern void expr_check_depth(Node *tree);

/*
 * Does a type hold domains inside, as elements, fields or bounds?  To read a
 * literal of it runs their checks, which may call anybody's functions.
 */
extern bool type_hides_domain(Oid typid);

#endif							/* REBATE_EXPR_CHECK_H */
