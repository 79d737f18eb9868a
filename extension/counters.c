/*
 * counters.c
 *	  Counts of what the engine does.
 *
 * A session counts in its own memory, by subtransaction.  When the transaction
 * has ended the sums are added to those of the database in shared memory: some
 * atomic additions a transaction, no lock, nothing that can fail.  Without
 * shared memory (the library is not preloaded, or all places are taken) a
 * session knows of itself only.
 *
 * What is counted of each attached table goes the same way, and is part of the
 * sums of the database.
 */
#include "rebate.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"

#include "counters.h"
#include "ring.h"
#include "table_counters.h"

/* What it has done to one attached table */
typedef struct TableCounts
{
	struct TableCounts *next;
	TableKey	key;			/* 0: of none yet */
	int64		counts[NUM_TABLE_COUNTERS];
} TableCounts;

/* What a subtransaction has done that is not rolled back yet */
typedef struct CounterLevel
{
	struct CounterLevel *upper;
	SubTransactionId sub;
	int64		counts[NUM_COMMITTED_COUNTERS];
	TableCounts tables;			/* the first; most have no other */
} CounterLevel;

bool		rebate_track_timing = false;

static CounterLevel bottom;		/* the first level of a transaction; most have no other */
static CounterLevel *level = NULL;	/* the innermost; NULL: nothing counted */
static bool touched = false;	/* something was, whatever became of it */

/* Counts of the transaction that stay if it is rolled back */
static int64 kept[NUM_COUNTERS];
static bool any_kept = false;

static Activity current = ACTIVITY_NONE;
static bool timing = false;		/* since when is known */
static instr_time since;
static instr_time spent[ACTIVITY_POST + 1];

/* Of this session, if the database has no place in shared memory */
static uint64 session_totals[NUM_COUNTERS];
static TimestampTz session_since = 0;

static RingDatabase *database = NULL;

/* The first count in a (sub)transaction; here is the time to look for the database's place. */
static void
open_level(SubTransactionId sub)
{
	CounterLevel *new = &bottom;

	if (level)
		new = MemoryContextAlloc(TopTransactionContext, sizeof(CounterLevel));
	else if (database == NULL && ring_exists())
		database = ring_database();
	memset(new, 0, sizeof(CounterLevel));
	new->upper = level;
	new->sub = sub;
	level = new;
	touched = true;
}

void
counters_add(Counter counter, int64 n)
{
	SubTransactionId sub;

	if (n == 0)
		return;
	if (counter >= NUM_COMMITTED_COUNTERS)
	{
		kept[counter] += n;
		any_kept = true;
		return;
	}
	sub = GetCurrentSubTransactionId();
	if (level == NULL || level->sub != sub)
		open_level(sub);
	level->counts[counter] += n;
}

/* The counts of one table in a level, made if missing */
static TableCounts *
table_counts(CounterLevel *in, TableKey key)
{
	TableCounts *last = &in->tables;

	while (last->key != key && last->next)
		last = last->next;
	if (last->key != key && last->key != 0)
	{
		last->next = MemoryContextAllocZero(TopTransactionContext, sizeof(TableCounts));
		last = last->next;
	}
	last->key = key;
	return last;
}

void
counters_add_of(Store *store, int32 source_id, Counter counter, int64 n)
{
	Assert(counter >= FIRST_TABLE_COUNTER && counter < NUM_COMMITTED_COUNTERS);
	if (n == 0)
		return;
	counters_add(counter, n);
	table_counts(level, table_key(store, source_id))->counts[counter - FIRST_TABLE_COUNTER] += n;
}

void
counters_at_subcommit(SubTransactionId my, SubTransactionId parent)
{
	CounterLevel *inner = level;

	if (inner == NULL || inner->sub != my)
		return;
	if (inner->upper == NULL || inner->upper->sub != parent)
	{
		inner->sub = parent;
		return;
	}
	for (int i = 0; i < NUM_COMMITTED_COUNTERS; i++)
		inner->upper->counts[i] += inner->counts[i];
	for (TableCounts *of = &inner->tables; of && of->key != 0; of = of->next)
	{
		TableCounts *to = table_counts(inner->upper, of->key);

		for (int i = 0; i < NUM_TABLE_COUNTERS; i++)
			to->counts[i] += of->counts[i];
	}
	level = inner->upper;
}

static void
stop_clock(void)
{
	counters_leave(ACTIVITY_NONE);
}

/* An error has ended whatever was going on. */
void
counters_at_subabort(SubTransactionId my)
{
	stop_clock();
	if (level && level->sub == my)
		level = level->upper;
}

Activity
counters_enter(Activity activity)
{
	Activity	previous = current;
	instr_time	now;

	if (rebate_track_timing || timing)
	{
		INSTR_TIME_SET_CURRENT(now);
		if (timing)
			INSTR_TIME_ACCUM_DIFF(spent[current], now, since);
		since = now;
		timing = activity != ACTIVITY_NONE && rebate_track_timing;
		any_kept = true;
	}
	current = activity;
	return previous;
}

void
counters_leave(Activity previous)
{
	if (current != previous)
		(void) counters_enter(previous);
}

static void
keep_time(Counter counter, Activity activity)
{
	kept[counter] += (int64) (INSTR_TIME_GET_DOUBLE(spent[activity]) * 1e9);
	INSTR_TIME_SET_ZERO(spent[activity]);
}

static void
publish(Counter counter, int64 n)
{
	if (n == 0)
		return;
	if (database)
		pg_atomic_fetch_add_u64(&database->counters[MyProcPid % COUNTER_SHARDS].counts[counter], n);
	else
		session_totals[counter] += n;
}

/*
 * The transaction has ended.  Called after the commit too, where an error would
 * stop the whole server: there is none.
 */
void
counters_at_xact_end(bool committed)
{
	stop_clock();
	if (touched)
	{
		if (!committed)
		{
			kept[CT_ROLLED_BACK]++;
			any_kept = true;
		}
		else if (level)
		{
			level->counts[CT_TRANSACTIONS] = 1;
			for (int i = 0; i < NUM_COMMITTED_COUNTERS; i++)
				publish(i, level->counts[i]);
			for (TableCounts *of = &level->tables; database && of && of->key != 0; of = of->next)
				table_counters_add(ring_tables(database), of->key, of->counts);
		}
	}
	if (any_kept)
	{
		keep_time(CT_COLLECT_TIME, ACTIVITY_COLLECT);
		keep_time(CT_DECIDE_TIME, ACTIVITY_DECIDE);
		keep_time(CT_POST_TIME, ACTIVITY_POST);
		for (int i = NUM_COMMITTED_COUNTERS; i < NUM_COUNTERS; i++)
		{
			publish(i, kept[i]);
			kept[i] = 0;
		}
	}
	level = NULL;
	touched = any_kept = false;
}

bool
counters_read(uint64 totals[NUM_COUNTERS], TimestampTz *since_when)
{
	RingDatabase *db = ring_exists() ? ring_database() : NULL;

	if (db == NULL)
	{
		memcpy(totals, session_totals, sizeof(session_totals));
		*since_when = session_since != 0 ? session_since : MyStartTimestamp;
		return false;
	}
	memset(totals, 0, sizeof(uint64) * NUM_COUNTERS);
	ring_lock(false);
	for (int i = 0; i < COUNTER_SHARDS; i++)
		for (int j = 0; j < NUM_COUNTERS; j++)
			totals[j] += pg_atomic_read_u64(&db->counters[i].counts[j]);
	*since_when = db->counting_since;
	ring_unlock();
	return true;
}

bool
counters_read_of(Store *store, int32 source_id, uint64 totals[NUM_TABLE_COUNTERS],
				 TimestampTz *last_order)
{
	RingDatabase *db = ring_exists() ? ring_database() : NULL;

	return db && table_counters_read(ring_tables(db), table_key(store, source_id), totals, last_order);
}

void
counters_reset(void)
{
	RingDatabase *db = ring_exists() ? ring_database() : NULL;

	if (db)
		ring_reset_counters(db);
	else
	{
		memset(session_totals, 0, sizeof(session_totals));
		session_since = GetCurrentTimestamp();
	}
}
