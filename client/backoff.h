/*
 * backoff.h
 *	  How long to wait before something is tried again.
 */
#ifndef REBATE_LISTEN_BACKOFF_H
#define REBATE_LISTEN_BACKOFF_H

#include <stdlib.h>

#define BACKOFF_FIRST 0.1
#define BACKOFF_LAST 10.0

typedef struct Backoff
{
	double		longest;		/* 0: not yet waited */
} Backoff;

/*
 * Seconds: a random time up to a limit, half of it at least, that doubles each time,
 * so that the clients of a server that comes back do not all come at once
 */
static inline double
backoff_next(Backoff *backoff)
{
	backoff->longest = backoff->longest == 0 ? BACKOFF_FIRST : backoff->longest * 2;
	if (backoff->longest > BACKOFF_LAST)
		backoff->longest = BACKOFF_LAST;
	return backoff->longest * (0.5 + 0.5 * drand48());
}

#endif							/* REBATE_LISTEN_BACKOFF_H */
