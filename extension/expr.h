/*
 * expr.h
 *	  SQL expressions over an order row: checked once under their author's
 *	  search_path, stored deparsed and fully qualified, run under pinned settings.
 */
#ifndef REBATE_EXPR_H
#define REBATE_EXPR_H

#include "rebate.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"

/* A parsed and planned expression over the rows of one relation */
typedef struct OrderExpr
{
	AttrNumber	attno;			/* a plain column, else 0 */
	Oid			type;
	int32		typmod;
	Oid			collation;
	Expr	   *tree;			/* planned; NULL for a plain column */
	Bitmapset  *attnos;			/* columns read, as plain attribute numbers */
	AttrNumber *long_attnos;	/* of these, columns whose values can be long */
	int			nlong;
	int			max_length;		/* the greatest length they may have */
	const char *what;			/* the argument it was given as, and its text */
	const char *text;
	bool		too_slow;		/* it was; not evaluated again */
	ExprState  *state;			/* made on first use in a transaction */
	uint64		state_xact;		/* which transaction that was, see expr.c */
} OrderExpr;

/*
 * Parse what a person wrote for argument "what" of attach() or set_rule():
 * checks allowed constructs (RB004 naming the function or construct), that it
 * refers to columns of "rel" only, that the current user may SELECT the
 * columns it reads, and coerces to "want" (InvalidOid: any) by assignment or
 * implicit cast, with the error position inside "text".  Returns the deparsed,
 * fully qualified text (a plain column: its quoted name), and fills *result
 * (may be NULL) in the current memory context.  Times without zone in literals
 * are read in the TimeZone of the caller, and stored with their zone.
 */
extern char *expr_check(Relation rel, const char *what, const char *text,
						Oid want, OrderExpr *result);

/*
 * Parse a stored (deparsed) text for "rel", under search_path pg_catalog.
 * Allocates in the current context.  Raises RB003 with a hint to attach with
 * replace if the table changed so that it no longer fits.
 */
extern void expr_load(Relation rel, const char *what, const char *text,
					  Oid want, OrderExpr *result);

/*
 * Value of an expression for the row in "slot".  A plain column costs an
 * attribute fetch.  The caller holds expr_begin() if the tree is not NULL.
 * The result lives in the per-tuple memory until expr_reset().  Raises RB010
 * for a value that is too long for an expression, and for an expression that
 * takes too long, then and for all rows that come.
 */
extern Datum expr_eval(OrderExpr *expr, TupleTableSlot *slot, bool *isnull);

/*
 * Pin the settings that an allowed expression can read (TimeZone to
 * "time_zone", DateStyle, IntervalStyle, extra_float_digits, bytea_output,
 * timezone_abbreviations) and run as "owner" under
 * SECURITY_RESTRICTED_OPERATION until expr_end(); an error unwinds by itself
 * with the (sub)transaction for settings, and the caller's (sub)transaction
 * abort restores the user.  Settings are compared first and set only when they
 * differ.
 */
typedef struct ExprScope
{
	Oid			save_userid;
	int			save_sec_context;
	int			guc_nestlevel;	/* 0: nothing was set */
} ExprScope;

extern void expr_begin(ExprScope *scope, Oid owner, const char *time_zone);
extern void expr_end(ExprScope *scope);

/* Free per-row memory of the last evaluations */
extern void expr_reset(void);

/* At end of transaction: forget states and per-transaction executor memory */
extern void expr_at_xact_end(void);

#endif							/* REBATE_EXPR_H */
