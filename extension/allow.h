/*
 * allow.h
 *	  Functions that a superuser lets expressions use.
 */
#ifndef REBATE_ALLOW_H
#define REBATE_ALLOW_H

#include "rebate.h"

/* Has a superuser allowed this function, and is it still the same? */
extern bool function_is_allowed(Oid funcid);

extern void allow_init(void);

#endif							/* REBATE_ALLOW_H */
