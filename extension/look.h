/*
 * look.h
 *	  The publisher's look for committed entries that no hint announced.
 */
#ifndef REBATE_LOOK_H
#define REBATE_LOOK_H

#include "rebate.h"
#include "ring.h"
#include "store.h"
#include "utils/snapshot.h"

/* A snapshot just taken, as it is remembered; what the current transaction does is not seen */
extern void seen_snapshot(Snapshot snapshot, SeenSnapshot *seen);

/*
 * Add to the round what is committed now and was not when db->seen was taken: at
 * most a round of accounts, in the order of their ids; the next call goes on.
 * True: that was all, and *seen is what this look saw when it began.
 */
extern bool look(Store *store, RingDatabase *db, SeenSnapshot *seen);

/* Begin the look at hand again */
extern void look_again(void);

#endif							/* REBATE_LOOK_H */
