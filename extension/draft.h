/*
 * draft.h
 *	  Changes that wait for a second person.
 */
#ifndef REBATE_DRAFT_H
#define REBATE_DRAFT_H

#include "rebate.h"
#include "person.h"
#include "rule_api.h"
#include "store.h"

/* What a draft would change, as in rebate_data.draft.kind */
#define DRAFT_RULE		"rule"
#define DRAFT_END		"end"
#define DRAFT_GROUP		"group"
#define DRAFT_APPROVAL	"approval"	/* that approval is required no longer */

typedef struct Draft
{
	int32		draft_id;
	char	   *kind;
	char	   *name;			/* of the rule or group */
	Datum		arguments;		/* jsonb */
	char	   *condition;		/* as it was understood when the draft was written */
	char	   *base;
	int32		source_id;		/* 0: every attached table */
	int32		base_version;	/* what was current then */
	char	   *state;
	Person		author;
	char	   *author_role;	/* current_user, whose rights count */
} Draft;

/*
 * All of these run inside SPI as the store's owner, with the configuration locked.
 */

/*
 * Write a draft, whose author is who calls; returns its number.  *found: he has
 * written the same already, and it waits.
 */
extern int32 draft_write(Draft *draft, bool *found);

/* Read a draft into "context"; raises if it is not there or decided */
extern Draft *draft_read(int32 draft_id, MemoryContext context);

/* Decide a draft.  generation 0: nothing was written */
extern void draft_decide(const Draft *draft, const char *state, const char *reason,
						 int32 generation, int32 version);

/* A NOTICE that nothing has changed yet; outside SPI */
extern void draft_notice(const Draft *draft, bool found);

/* draft_apply.c: what a draft has made */
typedef struct DraftResult
{
	int32		generation;
	int32		version;		/* 0: not of one rule */
} DraftResult;

/*
 * Check a draft again, as of now and with its author's rights, and write what it
 * says.  Outside SPI, with the configuration locked.
 */
extern DraftResult draft_apply(Store *store, Draft *draft, bool allow_stale);

#endif							/* REBATE_DRAFT_H */
