/*
 * follow.h
 *	  Follows DDL on attached tables and their partitions.
 */
#ifndef REBATE_FOLLOW_H
#define REBATE_FOLLOW_H

#include "rebate.h"

/* Set-up in _PG_init */
extern void follow_init(void);

/* At the end of a transaction, or the rollback of a part of it */
extern void follow_at_xact_end(void);

#endif							/* REBATE_FOLLOW_H */
