/*
 * rule_api.h
 *	  Parts of rebate.set_rule(): its arguments, and what they mean for the
 *	  attached tables.
 */
#ifndef REBATE_RULE_API_H
#define REBATE_RULE_API_H

#include "rebate.h"
#include "nodes/pg_list.h"
#include "source.h"
#include "store.h"
#include "utils/jsonb.h"

/* One attribute of a scope, and the values it may have */
typedef struct ScopeAttribute
{
	char	   *name;
	int			nvalues;
	char	  **given;
	char	  **values;			/* canonical, sorted, no duplicates */
} ScopeAttribute;

typedef struct ScopeArg
{
	int			nattributes;
	ScopeAttribute *attributes; /* sorted by name (strcmp) */
} ScopeArg;

/* Arguments of rebate.set_rule(); NULL pointers for nulls */
typedef struct RuleArgs
{
	char	   *name;
	const char *formula;
	Numeric		rate;
	char	   *currency;
	ScopeArg   *scope;
	char	   *condition;
	char	   *base;
	Numeric		minimum;
	Numeric		max_per_order;
	char	   *limit_mode;
	char	   *rounding;
	char	   *refund;
	char	   *unlinked_return;
	Interval   *hold;
	int32		priority;
	char	   *rule_group;
	bool		has_valid_from;
	TimestampTz valid_from;
	bool		has_valid_to;
	TimestampTz valid_to;
	Oid			source;
	char	   *campaign;

	/* what they mean */
	int32		source_id;		/* 0: every attached table */
	char	   *source_name;
	char	   *condition_text;
	char	   *base_text;
} RuleArgs;

/* rule_args.c */
extern void rule_args_read(FunctionCallInfo fcinfo, RuleArgs *args);
extern void rule_args_bind(RuleArgs *args, Store *store);
extern Datum rule_args_json(const RuleArgs *args);

/* rule_scope.c */
extern ScopeArg *scope_parse(Jsonb *jb);
extern void scope_bind(ScopeArg *scope, Source *source);
extern char *scope_json(const ScopeArg *scope);
extern int32 scope_write(ScopeArg *scope, int32 rule_id, int32 version);

#endif							/* REBATE_RULE_API_H */
