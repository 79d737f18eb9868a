/*
 * account_memo.c
 *	  Where accounts were found before: a small table that saves a member's next
 *	  order the way through the index.
 *
 * What it says is a guess.  A buffer is taken only if it still holds the very
 * page, so nothing is read from disk and no page that is gone is asked for; and
 * who asks compares the account that he finds there.  So nothing needs to be
 * invalidated.
 */
#include "rebate.h"

#include "storage/bufmgr.h"
#include "utils/memutils.h"

#include "account_memo.h"

#define MIN_PLACES	1024
#define MAX_PLACES	131072		/* two megabytes */

typedef struct Place
{
	uint32		hash;
	Buffer		buffer;			/* 0: nothing here */
	ItemPointerData tid;
} Place;

/* Two places for accounts whose hashes meet: the one kept last, and the one before */
typedef Place Pair[2];

static Pair *pairs = NULL;
static uint32 npairs = 0;		/* a power of two */
static uint32 nkept = 0;		/* since the table has this size */

static void
keep(Pair pair, Place place)
{
	if (pair[0].hash != place.hash)
		pair[1] = pair[0];
	pair[0] = place;
}

/* To a larger table, by steps large enough that few places are forgotten meanwhile. */
static void
grow(void)
{
	uint32		oldn = npairs;
	Pair	   *old = pairs;
	Pair	   *grown;
	uint32		n = oldn ? Min(oldn * 16, MAX_PLACES / 2) : MIN_PLACES / 2;

	grown = MemoryContextAllocExtended(CacheMemoryContext, sizeof(Pair) * n,
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (uint32 i = 0; i < oldn; i++)
		for (int j = 1; j >= 0; j--)
			if (old[i][j].buffer != InvalidBuffer)
				keep(grown[old[i][j].hash & (n - 1)], old[i][j]);
	pairs = grown;
	npairs = n;
	nkept = 0;
	if (old)
		pfree(old);
}

Buffer
account_memo_read(Relation account, uint32 hash, ItemPointer tid)
{
	Place	   *pair;

	if (npairs == 0)
		return InvalidBuffer;
	pair = pairs[hash & (npairs - 1)];
	for (int i = 0; i < 2; i++)
	{
		if (pair[i].buffer == InvalidBuffer || pair[i].hash != hash ||
			!ReadRecentBuffer(relation_locator(account), MAIN_FORKNUM,
							  ItemPointerGetBlockNumber(&pair[i].tid), pair[i].buffer))
			continue;
		*tid = pair[i].tid;
		return pair[i].buffer;
	}
	return InvalidBuffer;
}

void
account_memo_keep(uint32 hash, ItemPointer tid, Buffer buffer)
{
	Place		place = {hash, buffer, *tid};

	if (nkept >= npairs && npairs < MAX_PLACES / 2)
		grow();
	nkept++;
	keep(pairs[hash & (npairs - 1)], place);
}
