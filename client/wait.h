/*
 * wait.h
 *	  Waiting for several things at a time.
 */
#ifndef REBATE_LISTEN_WAIT_H
#define REBATE_LISTEN_WAIT_H

#include <libpq-fe.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>

#define NEVER INFINITY

typedef enum WaitResult
{
	WAIT_READY,					/* the file descriptor is */
	WAIT_INPUT,					/* the watched connection brought something, or broke */
	WAIT_SIGNAL,				/* a child ended, or an end is asked for */
	WAIT_TIMEOUT
} WaitResult;

/* Has SIGINT or SIGTERM asked for the end?  A second one does not ask. */
extern volatile sig_atomic_t stop_asked;

/* Seconds of a clock that only goes forward */
extern double now(void);

extern void wait_init(void);

/* While there is nothing to finish, a signal ends the program at once */
extern void wait_end_at_once(bool yes);

/* The idle connection that is read on while anything else is waited for */
extern void wait_watch(PGconn *conn);

/* Has there been a notification since the last call? */
extern bool wait_notified(void);

/* Is there one that nobody asked about yet? */
extern bool wait_has_notification(void);

extern void wait_forget_notifications(PGconn *conn);

/* Wait for a descriptor (-1: none), until a moment of now() */
extern WaitResult wait_for(int fd, short events, double until);

#endif							/* REBATE_LISTEN_WAIT_H */
