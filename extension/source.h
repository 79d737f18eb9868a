/*
 * source.h
 *	  Attached tables as the backend knows them: the mapping, compiled.
 */
#ifndef REBATE_SOURCE_H
#define REBATE_SOURCE_H

#include "rebate.h"
#include "canon.h"
#include "expr.h"
#include "store.h"

/* What leaves the ledger when a row is deleted, or the table truncated */
typedef enum LeaveAction
{
	LEAVE_VOID,
	LEAVE_KEEP,
	LEAVE_REFUSE
} LeaveAction;

typedef struct PhaseName
{
	char	   *status;
	Phase		phase;
} PhaseName;

typedef struct SourceAttribute
{
	char	   *name;
	OrderExpr		expr;
	CanonType	canon;
	bool		usable;			/* its type has a canonical text */
} SourceAttribute;

/* One attached relation; lives in its own memory context */
typedef struct Source
{
	Oid			relid;			/* hash key */
	bool		valid;			/* cleared by invalidation only */
	bool		attached;		/* false: remembered as not attached */
	uint64		build;			/* differs for each build of an entry */
	uint64		counter;		/* of the configuration when it was built */
	MemoryContext context;
	int32		source_id;
	char	   *name;			/* qualified, for messages */
	char	   *broken;			/* the table no longer fits: what does not */
	bool		key_broken;		/* ... not even its keys can be told */

	int			nkeys;
	AttrNumber *key_attnos;
	Bitmapset  *key_columns;	/* the same as a set */
	CanonType  *key_canon;
	Oid			key_index;		/* unique index over exactly the key columns */

	OrderExpr		member;
	CanonType	member_canon;
	OrderExpr		amount;			/* numeric */
	bool		has_currency_expr;
	OrderExpr		currency;		/* text */
	char	   *currency_code;	/* when constant */
	bool		has_quantity,
				has_order_time,
				has_status,
				has_confirmed_at,
				has_refunded,
				has_refunded_quantity;
	OrderExpr		quantity;
	OrderExpr		order_time;		/* timestamptz, whatever was mapped */
	bool		order_time_is_date;
	OrderExpr		status;			/* text */
	OrderExpr		confirmed_at;
	OrderExpr		refunded;
	OrderExpr		refunded_quantity;
	int			nphases;		/* 0: the names of the phases themselves */
	PhaseName  *phases;
	int			nattributes;
	SourceAttribute *attributes;	/* sorted by name (strcmp) */

	TimestampTz since;
	bool		has_max_backdate,
				has_max_future;
	Interval	max_backdate;
	Interval	max_future;
	LeaveAction on_delete;
	LeaveAction on_truncate;
	bool		abort_on_error;
	bool		has_expressions;	/* any mapping that is not a plain column */
	Bitmapset  *mapped;			/* attnos whose change matters, without rules */
} Source;

/*
 * The source of a relation, or NULL if it is not attached.  The pointer stays
 * good until the end of the transaction: invalidation only marks, and what is
 * replaced is freed then.
 */
extern Source *source_get(Store *store, Oid relid);

/* Attribute by name, or NULL */
extern SourceAttribute *source_attribute(Source *source, const char *name);

extern void source_init(void);
/* Free what this transaction replaced */
extern void source_at_xact_end(void);

#endif							/* REBATE_SOURCE_H */
