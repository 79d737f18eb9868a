/*
 * guard.h
 *	  Runs what may raise for a row without taking the statement down.
 */
#ifndef REBATE_GUARD_H
#define REBATE_GUARD_H

#include "rebate.h"
#include "store.h"

/* Longest message of a row that is kept, in bytes; the last character may not fit in */
#define MAX_MESSAGE_LENGTH	500

/*
 * Run fn(arg), which evaluates expressions, as the store's owner in a
 * subtransaction.  Returns NULL, or the error of a row, copied into the current
 * context; errors of the system are raised on.
 */
extern ErrorData *run_guarded(Store *store, void (*fn) (void *), void *arg);

/*
 * Whether the subtransaction that is rolled back is a guard's own: nothing was
 * written in it, and what goes on around it goes on.
 */
extern bool guard_rolling_back(void);

/*
 * May the current user see the values of a table's rows?  Whoever writes orders
 * need not be allowed to read them; then no error text shows him any.
 */
extern bool may_see_rows(Oid relid);

#endif							/* REBATE_GUARD_H */
