/*
 * source.h
 *	  Attached tables as the backend knows them: the mapping, compiled.
 */
#ifndef REBATE_SOURCE_H
#define REBATE_SOURCE_H

#include "rebate.h"
#include "access/attmap.h"
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
	TupleDesc	desc;			/* of its rows */
	bool		partitioned;
	struct HTAB *parts;			/* partitions met, SourcePart by relid */

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
	OrderExpr  *original;		/* key of the order that a row returns; NULL: not mapped */
	OrderExpr  *replaces;		/* key of the order that a row was split from, or replaces */
	bool		linked;			/* its rows can be about other orders */
	int			nphases;		/* 0: the names of the phases themselves */
	PhaseName  *phases;
	int			nattributes;
	SourceAttribute *attributes;	/* sorted by name (strcmp) */

	TimestampTz since;
	bool		has_max_backdate,
				has_max_future;
	Interval	max_backdate;
	Interval	max_future;
	bool		has_auto_confirm,
				has_give_up;
	Interval	auto_confirm;	/* from the order time */
	Interval	give_up;
	LeaveAction on_delete;
	LeaveAction on_truncate;
	bool		abort_on_error;
	bool		has_expressions;	/* any mapping that is not a plain column */
	Bitmapset  *mapped;			/* attnos whose change matters, without rules */
} Source;

/*
 * A relation that holds or routes orders of a source: the attached table, or a
 * partition below it with columns in an order of its own.  Lives with its source.
 */
typedef struct SourcePart
{
	Oid			relid;			/* hash key */
	Source	   *source;
	AttrMap    *to_source;		/* makes rows those of the source; NULL: they are */
	AttrNumber *key_attnos;		/* as in source; NULL if the key is broken */
	Oid			key_index;		/* none for a partitioned table */
} SourcePart;

/* The column of a part that is the source's column "attno" */
static inline AttrNumber
part_attno(const SourcePart *part, AttrNumber attno)
{
	return part->to_source ? part->to_source->attnums[attno - 1] : attno;
}

/*
 * The source of a relation, or NULL if it is not attached.  The pointer stays
 * good until the end of the transaction: invalidation only marks, and what is
 * replaced is freed then.
 */
extern Source *source_get(Store *store, Oid relid);

/* The source that a relation is attached as, or is a partition of, or NULL */
extern Source *source_above(Store *store, Oid relid);

/* A relation as a part of the source that it is or is below, or NULL */
extern SourcePart *source_part(Store *store, Relation rel);

/* The same for a relation that is known to belong to the source */
extern SourcePart *source_part_of(Source *source, Relation rel);

/* Attribute by name, or NULL */
extern SourceAttribute *source_attribute(Source *source, const char *name);

/* The same without remembering it: for one that was detached from the source */
extern SourcePart *source_part_new(Source *source, Relation rel);

/* Whether an index promises that no two rows have the same key */
extern bool index_is_key(Relation index, const AttrNumber *attnos, int n);

extern void source_init(void);
/* Free what this transaction replaced */
extern void source_at_xact_end(void);

#endif							/* REBATE_SOURCE_H */
