/*
 * channel.h
 *	  Channels of members: their names, and who asked for one.
 */
#ifndef REBATE_CHANNEL_H
#define REBATE_CHANNEL_H

#include "rebate.h"
#include "ring.h"
#include "store.h"

/* Length of a channel's name: prefix and 32 hexadecimal digits */
#define CHANNEL_PREFIX	"rebate_"
#define CHANNEL_LENGTH	(sizeof(CHANNEL_PREFIX) - 1 + 32)

/*
 * Notify the channels of those accounts' members who asked for one, with the
 * events of each: in the current transaction, which sees them.  Returns the
 * number of events.
 */
extern int64 channel_notify(Store *store, const Hint *hints, int n);

/* Set-up in _PG_init */
extern void channel_init(void);

#endif							/* REBATE_CHANNEL_H */
