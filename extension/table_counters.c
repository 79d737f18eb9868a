/*
 * table_counters.c
 *	  Counters of attached tables in shared memory.
 *
 * A place is found by the number of its table, or by the next ones that follow; who
 * finds a free one takes it by writing its key.  Keys are never taken back while
 * sessions are there, so neither looking nor adding needs a lock.
 */
#include "rebate.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "table_counters.h"

/* In copies, so that sessions that commit at once seldom meet */
#define TABLE_SHARDS	4

/* Behind the counters: when the last transaction ended, a TimestampTz; 0: none has */
#define LAST_ORDER		NUM_TABLE_COUNTERS

typedef union TableShard
{
	pg_atomic_uint64 values[LAST_ORDER + 1];
	char		pad[TYPEALIGN(PG_CACHE_LINE_SIZE, sizeof(pg_atomic_uint64) * (LAST_ORDER + 1))];
} TableShard;

struct TablePlace
{
	pg_atomic_uint64 key;		/* 0: free */
	TableShard	shards[TABLE_SHARDS];
};

int			rebate_counted_tables = 128;

Size
table_counters_size(void)
{
	return MAXALIGN(mul_size(sizeof(TablePlace), rebate_counted_tables));
}

void
table_counters_init(TablePlace *places)
{
	for (int i = 0; i < rebate_counted_tables; i++)
	{
		TablePlace *place = &places[i];

		pg_atomic_init_u64(&place->key, 0);
		for (int j = 0; j < TABLE_SHARDS; j++)
			for (int k = 0; k <= LAST_ORDER; k++)
				pg_atomic_init_u64(&place->shards[j].values[k], 0);
	}
}

/*
 * The place of a table, or NULL.  "take": take a free one if it has none; else
 * "*room" tells whether there is a free one.
 */
static TablePlace *
find_place(TablePlace *places, TableKey key, bool take, bool *room)
{
	int			first = (int) ((uint32) key % rebate_counted_tables);

	*room = false;
	for (int i = 0; i < rebate_counted_tables; i++)
	{
		TablePlace *place = &places[(first + i) % rebate_counted_tables];
		uint64		is = pg_atomic_read_u64(&place->key);

		if (is == 0 && !take)
		{
			*room = true;
			return NULL;
		}
		if (is == key ||
			(is == 0 && (pg_atomic_compare_exchange_u64(&place->key, &is, key) || is == key)))
			return place;
	}
	return NULL;
}

void
table_counters_add(TablePlace *places, TableKey key, const int64 counts[NUM_TABLE_COUNTERS])
{
	bool		room;
	TablePlace *place = find_place(places, key, true, &room);
	TableShard *shard;

	if (place == NULL)
		return;
	shard = &place->shards[MyProcPid % TABLE_SHARDS];
	for (int i = 0; i < NUM_TABLE_COUNTERS; i++)
		if (counts[i] != 0)
			pg_atomic_fetch_add_u64(&shard->values[i], counts[i]);
	if (counts[CT_INSERTED - FIRST_TABLE_COUNTER] != 0 ||
		counts[CT_UPDATED - FIRST_TABLE_COUNTER] != 0 ||
		counts[CT_DELETED - FIRST_TABLE_COUNTER] != 0)
	{
		uint64		now = (uint64) GetCurrentTransactionStopTimestamp();
		uint64		last = pg_atomic_read_u64(&shard->values[LAST_ORDER]);

		/* leaves "last" as it is now where another session was faster */
		while (last < now && !pg_atomic_compare_exchange_u64(&shard->values[LAST_ORDER], &last, now))
			;
	}
}

bool
table_counters_read(TablePlace *places, TableKey key, uint64 totals[NUM_TABLE_COUNTERS],
					TimestampTz *last_order)
{
	bool		room;
	TablePlace *place = find_place(places, key, false, &room);

	memset(totals, 0, sizeof(uint64) * NUM_TABLE_COUNTERS);
	*last_order = 0;
	if (place == NULL)
		return room;
	for (int i = 0; i < TABLE_SHARDS; i++)
	{
		TableShard *shard = &place->shards[i];
		TimestampTz last = (TimestampTz) pg_atomic_read_u64(&shard->values[LAST_ORDER]);

		for (int j = 0; j < NUM_TABLE_COUNTERS; j++)
			totals[j] += pg_atomic_read_u64(&shard->values[j]);
		*last_order = Max(*last_order, last);
	}
	return true;
}

void
table_counters_reset(TablePlace *places)
{
	for (int i = 0; i < rebate_counted_tables; i++)
		for (int j = 0; j < TABLE_SHARDS; j++)
		{
			TableShard *shard = &places[i].shards[j];

			for (int k = 0; k < NUM_TABLE_COUNTERS; k++)
				pg_atomic_fetch_sub_u64(&shard->values[k], pg_atomic_read_u64(&shard->values[k]));
			pg_atomic_write_u64(&shard->values[LAST_ORDER], 0);
		}
}

void
table_counters_forget(TablePlace *places)
{
	for (int i = 0; i < rebate_counted_tables; i++)
		pg_atomic_write_u64(&places[i].key, 0);
}
