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

/* Where a change of a rule or group starts from */
typedef struct RuleTarget
{
	int32		rule_id;		/* 0: there is none of that name */
	int32		version;		/* the last; of a group the generation of its last change */
	bool		same;			/* that is what it says already */
} RuleTarget;

/* Group and campaign of a rule */
typedef struct RulePlace
{
	int32		group_id;
	char	   *group_mode;
	int32		campaign_id;
	int32		expense_account;
} RulePlace;

/*
 * rule_write.c: all inside SPI as the store's owner, with the configuration
 * locked.  "author": who is recorded as the one who wrote it; NULL: session_user.
 * What is written has a new generation, which is returned.
 */
extern int32 rule_next_generation(bool expressions);
extern void rule_check_ceiling(const RuleArgs *args, Numeric max_percent);
extern RulePlace rule_find_place(const RuleArgs *args);
extern RuleTarget rule_find(const RuleArgs *args, Datum arguments);
extern int32 rule_write(const RuleArgs *args, Datum arguments, RuleTarget *target,
						const RulePlace *place, const char *author);
extern RuleTarget rule_find_end(const char *name, Datum arguments);
extern int32 rule_write_end(Datum arguments, RuleTarget *target, const char *author);
extern RuleTarget rule_find_group(const char *name, const char *mode);
extern int32 rule_write_group(const char *name, const char *mode, const char *author);

/* rule_api.c: what functions that change rules begin with; makes the store if there is none */
extern Store *rule_begin_call(int right, const char *function);

/* rule_args.c */
#define RULE_NARGS 22
extern void rule_args_read(FunctionCallInfo fcinfo, RuleArgs *args);
extern void rule_args_bind(RuleArgs *args, Store *store);

/*
 * Wait for the tables that a rule applies to (all, or only this one), before the
 * configuration is locked: who has one of them, as rebate.detach() has, may be about to
 * change rules, too.
 */
extern void rule_lock_tables(Store *store, Oid only);
extern void rule_args_check_time(const RuleArgs *args);
extern Datum rule_args_json(const RuleArgs *args);

/* rule_scope.c */
extern ScopeArg *scope_parse(Jsonb *jb);
extern void scope_bind(ScopeArg *scope, Source *source);
extern char *scope_json(const ScopeArg *scope);
extern int32 scope_write(ScopeArg *scope, int32 rule_id, int32 version);

#endif							/* REBATE_RULE_API_H */
