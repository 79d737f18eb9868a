/*
 * ring.c
 *	  Shared memory between committing sessions and the publisher.
 *
 * Each database with a publisher has a ring of fixed size.  Sessions take places
 * by moving the head; a place is complete when its number is written, so the
 * worker never reads half a hint and sessions never wait for each other.
 */
#include "rebate.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "ring.h"

typedef struct RingPlace
{
	Hint		hint;
	TimestampTz committed_at;
	pg_atomic_uint64 number;	/* head + 1 of who wrote it: it is complete */
} RingPlace;

typedef struct RingControl
{
	LWLock	   *lock;
	int			ndatabases;
	RingDatabase databases[FLEXIBLE_ARRAY_MEMBER];
} RingControl;

int			rebate_ring_size = 16384;
int			rebate_max_databases = 8;

static RingControl *control = NULL;
static RingPlace *places = NULL;	/* of all databases, one after the other */
static char *tables = NULL;		/* the same */
static RingDatabase *mine = NULL;

static shmem_request_hook_type previous_shmem_request = NULL;
static shmem_startup_hook_type previous_shmem_startup = NULL;

static Size
control_size(void)
{
	return MAXALIGN(add_size(offsetof(RingControl, databases),
							 mul_size(sizeof(RingDatabase), rebate_max_databases)));
}

static Size
places_size(void)
{
	return mul_size(mul_size(sizeof(RingPlace), rebate_ring_size), rebate_max_databases);
}

static Size
tables_size(void)
{
	return mul_size(table_counters_size(), rebate_max_databases);
}

static Size
total_size(void)
{
	return add_size(add_size(control_size(), tables_size()), places_size());
}

static void
shmem_request(void)
{
	if (previous_shmem_request)
		previous_shmem_request();
	RequestAddinShmemSpace(total_size());
	RequestNamedLWLockTranche("rebate", 1);
}

static void
shmem_startup(void)
{
	bool		found;

	if (previous_shmem_startup)
		previous_shmem_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	control = ShmemInitStruct("rebate ring", total_size(), &found);
	tables = (char *) control + control_size();
	places = (RingPlace *) (tables + tables_size());
	if (!found)
	{
		memset(control, 0, control_size());
		control->lock = &GetNamedLWLockTranche("rebate")->lock;
		control->ndatabases = rebate_max_databases;
		for (int i = 0; i < rebate_max_databases; i++)
		{
			RingDatabase *db = &control->databases[i];

			pg_atomic_init_u32(&db->sleeping, 0);
			pg_atomic_init_u32(&db->look, 0);
			pg_atomic_init_u64(&db->head, 0);
			pg_atomic_init_u64(&db->tail, 0);
			pg_atomic_init_u64(&db->async_begun, 0);
			pg_atomic_init_u64(&db->async_ended, 0);
			pg_atomic_init_u64(&db->overflows, 0);
			pg_atomic_init_u64(&db->sweeps, 0);
			pg_atomic_init_u64(&db->hints, 0);
			pg_atomic_init_u64(&db->published, 0);
			pg_atomic_init_u64(&db->notifications, 0);
			pg_atomic_init_u64(&db->lag_us, 0);
			pg_atomic_init_u64(&db->errors, 0);
			for (int j = 0; j < COUNTER_SHARDS; j++)
				for (int k = 0; k < NUM_COUNTERS; k++)
					pg_atomic_init_u64(&db->counters[j].counts[k], 0);
			table_counters_init(ring_tables(db));
		}
		for (Size i = 0; i < (Size) rebate_ring_size * rebate_max_databases; i++)
			pg_atomic_init_u64(&places[i].number, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
ring_init(void)
{
	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

bool
ring_exists(void)
{
	return control != NULL;
}

void
ring_lock(bool exclusive)
{
	LWLockAcquire(control->lock, exclusive ? LW_EXCLUSIVE : LW_SHARED);
}

void
ring_unlock(void)
{
	LWLockRelease(control->lock);
}

/* The lock is held. */
static RingDatabase *
find_locked(Oid dbid)
{
	for (int i = 0; i < control->ndatabases; i++)
		if (control->databases[i].dbid == dbid)
			return &control->databases[i];
	return NULL;
}

RingDatabase *
ring_find(Oid dbid)
{
	RingDatabase *db;

	if (control == NULL)
		return NULL;
	ring_lock(false);
	db = find_locked(dbid);
	ring_unlock();
	return db;
}

TablePlace *
ring_tables(RingDatabase *db)
{
	return (TablePlace *) (tables + (db - control->databases) * table_counters_size());
}

static void
clear(pg_atomic_uint64 *counter)
{
	pg_atomic_fetch_sub_u64(counter, pg_atomic_read_u64(counter));
}

/* The lock is held exclusively, so that nothing is taken away twice. */
static void
reset_locked(RingDatabase *db)
{
	for (int i = 0; i < COUNTER_SHARDS; i++)
		for (int j = 0; j < NUM_COUNTERS; j++)
			clear(&db->counters[i].counts[j]);
	table_counters_reset(ring_tables(db));
	clear(&db->overflows);
	clear(&db->sweeps);
	clear(&db->hints);
	clear(&db->published);
	clear(&db->notifications);
	clear(&db->errors);
	db->last_error[0] = '\0';
	db->counting_since = GetCurrentTimestamp();
}

void
ring_reset_counters(RingDatabase *db)
{
	ring_lock(true);
	reset_locked(db);
	ring_unlock();
}

RingDatabase *
ring_database(void)
{
	if (mine && mine->dbid == MyDatabaseId)
		return mine;
	if (control == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	ring_lock(true);
	mine = find_locked(MyDatabaseId);
	if (mine == NULL)
	{
		mine = find_locked(InvalidOid);
		if (mine)
		{
			mine->dbid = MyDatabaseId;
			mine->keep_away = mine->no_slot = false;
			mine->asked_at = 0;
			mine->seen.valid = false;
			reset_locked(mine);
			table_counters_forget(ring_tables(mine));
			/* places keep the numbers of who had them before, so go on from there */
			pg_atomic_write_u64(&mine->tail, pg_atomic_read_u64(&mine->head));
		}
	}
	ring_unlock();
	return mine;
}

void
ring_forget(Oid dbid)
{
	RingDatabase *db;

	if (control == NULL)
		return;
	ring_lock(true);
	db = find_locked(dbid);
	if (db && db->worker_pid == 0)
		db->dbid = InvalidOid;
	ring_unlock();
}

static inline RingPlace *
place_of(RingDatabase *db, uint64 number)
{
	return &places[(Size) (db - control->databases) * rebate_ring_size +
				   number % rebate_ring_size];
}

/*
 * Leave hints for the worker.  Called after the commit, where an error would
 * stop the whole server: takes no lock, allocates nothing, cannot fail.
 */
void
ring_push(RingDatabase *db, const Hint *hints, int n)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64		head = pg_atomic_read_u64(&db->head);

	do
	{
		if (head + n - pg_atomic_read_u64(&db->tail) > (uint64) rebate_ring_size)
		{
			pg_atomic_fetch_add_u64(&db->overflows, 1);
			ring_look(db);
			return;
		}
	} while (!pg_atomic_compare_exchange_u64(&db->head, &head, head + n));

	for (int i = 0; i < n; i++)
	{
		RingPlace  *place = place_of(db, head + i);

		place->hint = hints[i];
		place->committed_at = now;
		pg_write_barrier();
		pg_atomic_write_u64(&place->number, head + i + 1);
	}
}

void
ring_look(RingDatabase *db)
{
	pg_atomic_write_u32(&db->look, 1);
}

/*
 * Wake the worker if it sleeps.  The latch of a worker that has ended belongs to
 * a process slot that may have another owner: he wakes up for nothing.
 */
void
ring_wake(RingDatabase *db)
{
	Latch	   *latch;

	pg_memory_barrier();
	if (pg_atomic_read_u32(&db->sleeping) == 0 ||
		pg_atomic_exchange_u32(&db->sleeping, 0) == 0)
		return;
	latch = db->latch;
	if (latch)
		SetLatch(latch);
}

bool
ring_ready(RingDatabase *db)
{
	uint64		tail = pg_atomic_read_u64(&db->tail);

	return pg_atomic_read_u64(&place_of(db, tail)->number) == tail + 1;
}

bool
ring_pop(RingDatabase *db, Hint *hint, TimestampTz *committed_at)
{
	uint64		tail = pg_atomic_read_u64(&db->tail);
	RingPlace  *place = place_of(db, tail);

	if (pg_atomic_read_u64(&place->number) != tail + 1)
		return false;
	pg_read_barrier();
	*hint = place->hint;
	*committed_at = place->committed_at;
	pg_memory_barrier();
	pg_atomic_write_u64(&db->tail, tail + 1);
	return true;
}

uint64
ring_used(RingDatabase *db)
{
	return pg_atomic_read_u64(&db->head) - pg_atomic_read_u64(&db->tail);
}

TimestampTz
ring_oldest(RingDatabase *db)
{
	uint64		tail = pg_atomic_read_u64(&db->tail);
	RingPlace  *place = place_of(db, tail);
	TimestampTz committed_at;

	if (pg_atomic_read_u64(&place->number) != tail + 1)
		return 0;
	pg_read_barrier();
	committed_at = place->committed_at;
	pg_read_barrier();
	/* read meanwhile: what the place holds may be of a later one */
	return pg_atomic_read_u64(&db->tail) == tail ? committed_at : 0;
}
