/*
 * server.h
 *	  The connection: what is asked of the server, and what its answers mean.
 *
 * Errors that time does not heal end the program, each with its exit code.  All
 * functions that return bool return false when the connection is lost, or the end
 * was asked for.
 */
#ifndef REBATE_LISTEN_SERVER_H
#define REBATE_LISTEN_SERVER_H

#include <libpq-fe.h>
#include <stdbool.h>

/* Connect, or connect again, and LISTEN; to be tried again when it fails */
extern bool server_connect(void);

extern bool server_is_connected(void);

/* Look after the channel and the mode; also finds a connection that is dead */
extern bool server_check(void);

/* Seconds from one check to the next */
extern double server_check_interval(void);

/* The cursor of now, allocated; NULL if there are no events yet */
extern bool server_cursor_of_now(char **cursor);

/*
 * The events after a cursor (NULL: from the beginning), at most so many: columns
 * cursor and event.  NULL when the connection is lost or the end was asked for.
 */
extern PGresult *server_read(const char *after, long limit);

extern void server_disconnect(void);

#endif							/* REBATE_LISTEN_SERVER_H */
