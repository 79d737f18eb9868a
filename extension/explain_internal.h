/*
 * explain_internal.h
 *	  One order explained: what explain() and preview() share.
 */
#ifndef REBATE_EXPLAIN_INTERNAL_H
#define REBATE_EXPLAIN_INTERNAL_H

#include "rebate.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "order.h"

/* A rule that the decision met */
typedef struct Traced
{
	int32		rule_id;
	int32		version;
	const char *outcome;
	Numeric		amount;			/* exact, absolute, before refunds */
	const char *detail;
} Traced;

/* What the guarded part finds */
typedef struct Explain
{
	Store	   *store;
	Source	   *source;
	const char *key;
	ReturnSetInfo *rsinfo;
	OrderFacts	facts;
	bool		row_there;
	bool		image_read;
	OrderImage	image;
	OrderLinks	links;
	Decision   *decision;
	List	   *traced;			/* of Traced */
	StringInfoData attributes;	/* JSON of the values that scopes can name */
	int			scale;			/* of the order's currency; -1: unknown */
	bool		preview;		/* of an order that does not exist */
	int32		draft_id;		/* 0, or the draft that is supposed to be approved */
	int32		draft_generation;	/* and the generation it has then */
	Relation	rel;
	Snapshot	snapshot;
	TupleTableSlot *slot;
} Explain;

/* Add a line to the result */
extern void explain_line(Explain *e, const char *topic, const char *subject, const char *outcome,
						 Numeric amount, const char *detail);

/* Append to a list of remarks */
extern void explain_remark(StringInfo buf, const char *format,...) pg_attribute_printf(2, 3);

/* A number without idle zeros, with the decimals of "scale" at least */
extern Numeric explain_number(Numeric value, int scale);
extern char *explain_number_text(Numeric value, int scale);
extern char *explain_time_text(TimestampTz t);

/*
 * Run "decide_order" under guard while the rules that it meets are kept; returns
 * NULL or the error of the row.
 */
extern ErrorData *explain_decide(Explain *e, void (*decide_order) (void *arg));

/* A version of a rule by its name, or by the draft that would make it */
extern char *explain_version(Explain *e, const char *rule, int32 version, int32 generation);

/* The lines of the order itself; returns whether its rules were looked at */
extern bool explain_order(Explain *e, ErrorData *error);

/* The lines of all rules, after that */
extern void explain_rules(Explain *e);

#endif							/* REBATE_EXPLAIN_INTERNAL_H */
