/*
 * store_guard.h
 *	  The triggers that keep others from writing to the store, and that tell it
 *	  from somebody else's.
 */
#ifndef REBATE_STORE_GUARD_H
#define REBATE_STORE_GUARD_H

#include "rebate.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"

/* Is this our guard, for all that writes to a table? */
extern bool trigger_is_guard(Trigger *trigger);

/* Did this installation make the store that is there, or take it over?  Takes no lock on it. */
extern bool store_guarded(void);

/* Raise RB001 for a store that it did not */
extern void refuse_unguarded(Oid owner);

#endif							/* REBATE_STORE_GUARD_H */
