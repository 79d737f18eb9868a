/*
 * allow.h
 *	  Functions that a superuser lets expressions use.
 */
#ifndef REBATE_ALLOW_H
#define REBATE_ALLOW_H

#include "rebate.h"
#include "store.h"

/* Has a superuser allowed this function, and is it still the same? */
extern bool function_is_allowed(Oid funcid);

/* After the upgrade of a store from version 1 */
extern void allow_seal(Store *store);

extern void allow_init(void);

#endif							/* REBATE_ALLOW_H */
