/*
 * counters.h
 *	  Counts of what the engine does, added up over all sessions of a database.
 */
#ifndef REBATE_COUNTERS_H
#define REBATE_COUNTERS_H

#include "rebate.h"
#include "port/atomics.h"
#include "store.h"

/*
 * The first count only what was committed (or prepared): what a subtransaction or
 * transaction that was rolled back had done is not in them.  The others count what
 * happened, however its transaction ended.  Those from CT_INSERTED on are counted
 * of each attached table, too, see table_counters.h.
 */
typedef enum Counter
{
	CT_TRANSACTIONS,			/* that did anything of the following */
	CT_STATEMENTS,				/* firings of our triggers on order tables */
	CT_BULK_STATEMENTS,			/* posted at their end, account by account */
	CT_INSERTED,				/* orders as statements had them */
	CT_UPDATED,
	CT_DELETED,
	CT_DEFERRED,				/* of these, whose keys were recorded only */
	CT_POSTED,					/* orders compared with what was posted */
	CT_FAILED,					/* orders set aside */
	CT_REBATES,					/* accruals made */
	CT_ENTRIES,
	NUM_COMMITTED_COUNTERS,

	CT_ROLLED_BACK = NUM_COMMITTED_COUNTERS,	/* transactions */
	CT_RETRIES,					/* an account had changed before it was updated */
	CT_CONFLICTS,				/* 40001 raised */
	CT_RULE_BUILDS,				/* caches of rules made anew */
	CT_COLLECT_TIME,			/* nanoseconds; as the activities */
	CT_DECIDE_TIME,
	CT_POST_TIME,
	NUM_COUNTERS
} Counter;

/*
 * Counters in shared memory are kept in several copies, each in cache lines of
 * its own, so that sessions which commit at once seldom meet.
 */
#define COUNTER_SHARDS	16

typedef union CounterShard
{
	pg_atomic_uint64 counts[NUM_COUNTERS];
	char		pad[TYPEALIGN(PG_CACHE_LINE_SIZE, sizeof(pg_atomic_uint64) * NUM_COUNTERS)];
} CounterShard;

/* Those that are counted of each attached table */
#define FIRST_TABLE_COUNTER		CT_INSERTED
#define NUM_TABLE_COUNTERS		(NUM_COMMITTED_COUNTERS - FIRST_TABLE_COUNTER)

/* What a session is busy with; time is counted for the innermost */
typedef enum Activity
{
	ACTIVITY_NONE,
	ACTIVITY_COLLECT,			/* in a trigger: reading rows, deciding them */
	ACTIVITY_DECIDE,			/* deciding again before posting */
	ACTIVITY_POST
} Activity;

extern bool rebate_track_timing;

extern void counters_add(Counter counter, int64 n);

/* The same for one of those that are counted of each attached table */
extern void counters_add_of(Store *store, int32 source_id, Counter counter, int64 n);

/* Begin an activity; returns what goes on around it, for counters_leave() */
extern Activity counters_enter(Activity activity);
extern void counters_leave(Activity previous);

/*
 * The totals of this database, or, where there is no shared memory for it, of
 * this session; returns which, and since when they count.
 */
extern bool counters_read(uint64 totals[NUM_COUNTERS], TimestampTz *since);

/*
 * What was counted of one attached table, by the order of the counters, and when the
 * last transaction that wrote orders of it has ended (0: none has).  Returns false if
 * it has no counters: there is no shared memory, or all places are taken.
 */
extern bool counters_read_of(Store *store, int32 source_id, uint64 totals[NUM_TABLE_COUNTERS],
							 TimestampTz *last_order);

/* Start again at zero */
extern void counters_reset(void);

/* Callbacks of transaction and subtransaction, from rebate.c */
extern void counters_at_xact_end(bool committed);
extern void counters_at_subcommit(SubTransactionId my, SubTransactionId parent);
extern void counters_at_subabort(SubTransactionId my);

#endif							/* REBATE_COUNTERS_H */
