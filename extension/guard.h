/*
 * guard.h
 *	  Runs what may raise for a row without taking the statement down.
 */
#ifndef REBATE_GUARD_H
#define REBATE_GUARD_H

#include "rebate.h"
#include "store.h"

/*
 * Run fn(arg), which evaluates expressions, as the store's owner in a
 * subtransaction.  Returns NULL, or the error of a row, copied into the current
 * context; errors of the system are raised on.
 */
extern ErrorData *run_guarded(Store *store, void (*fn) (void *), void *arg);

#endif							/* REBATE_GUARD_H */
