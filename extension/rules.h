/*
 * rules.h
 *	  Rules as the backend knows them, loaded when an order first needs them.
 */
#ifndef REBATE_RULES_H
#define REBATE_RULES_H

#include "rebate.h"
#include "arith.h"
#include "source.h"
#include "store.h"

typedef enum Formula
{
	FORMULA_PERCENT,
	FORMULA_FIXED,
	FORMULA_PER_UNIT,
	FORMULA_NONE
} Formula;

typedef enum RefundMode
{
	REFUND_PRO_RATA,
	REFUND_REJUDGE,
	REFUND_ALL,
	REFUND_KEEP_UNTIL_FULL
} RefundMode;

typedef enum GroupMode
{
	GROUP_STACK,
	GROUP_FIRST,
	GROUP_BEST
} GroupMode;

typedef struct RuleVersion
{
	int32		rule_id;
	int32		version;
	int32		generation;
	TimestampTz valid_from;
	TimestampTz valid_to;		/* infinity if open */
	int32		source_id;		/* 0: any */
	int32		scope_id;
	Formula		formula;
	Numeric		rate;			/* a percentage as a fraction of one */
	char	   *currency;		/* NULL: any */
	Numeric		minimum;		/* NULL: none */
	Numeric		max_per_order;
	bool		reject_over_limit;
	Rounding	rounding;
	RefundMode	refund;
	bool		ignore_returns;
	bool		has_hold;
	Interval	hold;
	int32		priority;
	int32		group_id;
	GroupMode	group_mode;
	int32		expense;
	char	   *condition;		/* texts; NULL: none */
	char	   *base;
	/* compiled for one build of one source */
	uint64		compiled_for;
	MemoryContext compiled;		/* NULL: never */
	OrderExpr	condition_expr;
	OrderExpr	base_expr;
} RuleVersion;

typedef struct Rule
{
	int32		rule_id;		/* hash key */
	int			nversions;
	RuleVersion **versions;		/* by version, ascending */
} Rule;

/* A version that orders with some attribute values can meet */
typedef struct RuleCandidate
{
	Rule	   *rule;
	int32		version;
} RuleCandidate;

typedef struct RuleCandidates
{
	int			n;
	RuleCandidate *items;
} RuleCandidates;

/* One set of attribute names, bound to a source */
typedef struct RuleScope
{
	int32		scope_id;
	int			nattributes;
	char	  **names;
	uint64		bound_to;		/* build of the source it is bound to */
	bool		usable;			/* the source has them all */
	SourceAttribute **attributes;
} RuleScope;

/*
 * The generation of the newest rules this backend has loaded.  Rebuilds the
 * cache when rules were written; what was returned earlier is then gone, so call
 * it once, before the first use in a batch of orders.
 */
extern int32 rules_generation(Store *store);

/* Whether any rule has a condition or a base of its own, which could raise */
extern bool rules_have_expressions(void);

/* The scopes in use, bound to "source" */
extern int	rules_scopes(Source *source, RuleScope **scopes);

/* An attribute that a scope names and the source does not have, or NULL */
extern const char *rules_missing_attribute(Source *source, int32 scope_id);

/* Versions whose scope has this key; loaded on first use */
extern RuleCandidates *rules_lookup(Store *store, int32 scope_id, const char *key, int keylen);

/* A rule with all its versions; NULL if there is none */
extern Rule *rules_get(Store *store, int32 rule_id);

/* The name of a rule, in the current context: for messages */
extern char *rules_name(Store *store, int32 rule_id);

/* The expense account of a version, for money that goes back */
extern int32 rules_expense(Store *store, int32 rule_id, int32 version);

/* How long what a version pays is held */
extern Interval rules_hold(Store *store, int32 rule_id, int32 version);

/* Compile condition and base for a source, once */
extern void rules_compile(RuleVersion *version, Source *source);

/* Load everything again on next use: for the audit */
extern void rules_forget(void);

extern void rules_at_abort(void);
extern void rules_at_commit(void);

#endif							/* REBATE_RULES_H */
