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

static Place *places = NULL;
static uint32 nplaces = 0;		/* a power of two */
static uint32 nkept = 0;		/* since the table has this size */

/* To a larger table, by steps large enough that few places are forgotten meanwhile. */
static void
grow(void)
{
	uint32		oldn = nplaces;
	Place	   *old = places;
	Place	   *grown;
	uint32		n = oldn ? Min(oldn * 16, MAX_PLACES) : MIN_PLACES;

	grown = MemoryContextAllocExtended(CacheMemoryContext, sizeof(Place) * n,
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (uint32 i = 0; i < oldn; i++)
		if (old[i].buffer != InvalidBuffer)
			grown[old[i].hash & (n - 1)] = old[i];
	places = grown;
	nplaces = n;
	nkept = 0;
	if (old)
		pfree(old);
}

Buffer
account_memo_read(Relation account, uint32 hash, ItemPointer tid)
{
	Place	   *place;

	if (nplaces == 0)
		return InvalidBuffer;
	place = &places[hash & (nplaces - 1)];
	if (place->buffer == InvalidBuffer || place->hash != hash ||
		!ReadRecentBuffer(relation_locator(account), MAIN_FORKNUM,
						  ItemPointerGetBlockNumber(&place->tid), place->buffer))
		return InvalidBuffer;
	*tid = place->tid;
	return place->buffer;
}

void
account_memo_keep(uint32 hash, ItemPointer tid, Buffer buffer)
{
	Place	   *place;

	if (nkept >= nplaces && nplaces < MAX_PLACES)
		grow();
	nkept++;
	place = &places[hash & (nplaces - 1)];
	place->hash = hash;
	place->buffer = buffer;
	place->tid = *tid;
}
