/*
 * utility.h
 *	  Commands that concern a publisher.
 */
#ifndef REBATE_UTILITY_H
#define REBATE_UTILITY_H

/* In _PG_init, while preloading */
extern void utility_init(void);

#endif							/* REBATE_UTILITY_H */
