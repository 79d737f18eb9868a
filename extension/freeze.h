/*
 * freeze.h
 *	  Orders whose rebates are frozen: the clock stands still for them.
 */
#ifndef REBATE_FREEZE_H
#define REBATE_FREEZE_H

#include "rebate.h"
#include "store.h"

/* One reason, from when to when; infinity: still */
typedef struct Freeze
{
	TimestampTz from;
	TimestampTz until;
} Freeze;

typedef struct Freezes
{
	int			n;
	Freeze	   *items;			/* by their beginning */
} Freezes;

/* What is recorded of an order, under a snapshot */
extern void freezes_read(Store *store, int32 source_id, const char *key, Snapshot snapshot,
						 Freezes *freezes);

/*
 * What is due at "due", and waits since "since", is due later by the time in which
 * it was frozen for any reason before it was due; infinity while it is frozen.
 */
extern TimestampTz freezes_due(const Freezes *freezes, TimestampTz since, TimestampTz due);

/* An order was given another key */
extern void freezes_rekey(Store *store, int32 source_id, const char *oldkey, const char *newkey);

#endif							/* REBATE_FREEZE_H */
