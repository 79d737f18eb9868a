/*
 * ring.h
 *	  Shared memory between the sessions that commit and the publisher of their
 *	  database: hints of what was posted.
 *
 * The ring carries hints, the tables carry the truth: a hint that finds no room
 * is replaced by the wish that the publisher look by itself.
 */
#ifndef REBATE_RING_H
#define REBATE_RING_H

#include "rebate.h"
#include "counters.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "table_counters.h"
#include "utils/uuid.h"

/* Entries of one account that a transaction has posted */
typedef struct Hint
{
	int64		account_id;
	pg_uuid_t	handle;
	int64		first;
	int64		last;
	Oid			accounts;		/* the table that the account is in */
} Hint;

/* Transactions in progress that the publisher remembers of its last look */
#define MAX_REMEMBERED_XIDS 1024

/* What a publisher has seen; kept here, so that its exit loses nothing */
typedef struct SeenSnapshot
{
	bool		valid;
	int			nxip;
	uint64		xmin;
	uint64		xmax;
	uint64		xip[MAX_REMEMBERED_XIDS];
} SeenSnapshot;

/* One database with a publisher, or free */
typedef struct RingDatabase
{
	Oid			dbid;			/* 0: free; under the lock */
	pid_t		worker_pid;		/* 0: none; under the lock */
	TimestampTz asked_at;		/* when a worker was asked for */
	bool		no_slot;		/* the server had no place for a worker */
	bool		keep_away;		/* somebody wants the database for himself */
	Latch	   *latch;			/* of the worker, while worker_pid is set */

	pg_atomic_uint32 sleeping;	/* the worker waits to be woken */
	pg_atomic_uint32 look;		/* hints were lost: it must look by itself */
	pg_atomic_uint64 head;		/* next place to be taken by a session */
	pg_atomic_uint64 tail;		/* next place to be read by the worker */

	/* transactions that committed, or are about to, without waiting for the disk */
	pg_atomic_uint64 async_begun;
	pg_atomic_uint64 async_ended;

	SeenSnapshot seen;			/* written by the worker only */

	/* statistics; written by the worker, but for the first */
	pg_atomic_uint64 overflows;
	pg_atomic_uint64 sweeps;
	pg_atomic_uint64 hints;
	pg_atomic_uint64 published;
	pg_atomic_uint64 notifications;
	pg_atomic_uint64 lag_us;	/* of the last notification: commit to notification */
	TimestampTz last_error_at;
	char		last_error[256];
	pg_atomic_uint64 errors;

	/* what the sessions do, see counters.c */
	TimestampTz counting_since; /* under the lock */
	CounterShard counters[COUNTER_SHARDS];
} RingDatabase;

extern int	rebate_ring_size;
extern int	rebate_max_databases;

/* In _PG_init, while preloading */
extern void ring_init(void);

/* Whether the library was preloaded, so that there is shared memory */
extern bool ring_exists(void);

/* This database's place, made if missing; NULL: no shared memory, or all taken */
extern RingDatabase *ring_database(void);

/* The place of any database, or NULL */
extern RingDatabase *ring_find(Oid dbid);

/* What its sessions count of each attached table */
extern TablePlace *ring_tables(RingDatabase *db);

/* Give the place of a dropped database back */
extern void ring_forget(Oid dbid);

/* For the commit: cannot fail, allocates nothing.  Then wake the worker. */
extern void ring_push(RingDatabase *db, const Hint *hints, int n);
extern void ring_look(RingDatabase *db);
extern void ring_wake(RingDatabase *db);

/* For the worker: the next hint; false if there is none that is complete */
extern bool ring_pop(RingDatabase *db, Hint *hint, TimestampTz *committed_at);

/* Whether the next hint is complete */
extern bool ring_ready(RingDatabase *db);

/* Hints that wait, and the commit that left the first of them (0: none waits) */
extern uint64 ring_used(RingDatabase *db);
extern TimestampTz ring_oldest(RingDatabase *db);

/* All statistics at zero, what is added meanwhile is not lost */
extern void ring_reset_counters(RingDatabase *db);

/* The lock over the fields that say so */
extern void ring_lock(bool exclusive);
extern void ring_unlock(void);

#endif							/* REBATE_RING_H */
