/*
 * query.h
 *	  Queries that a signal or a time limit ends.
 */
#ifndef REBATE_LISTEN_QUERY_H
#define REBATE_LISTEN_QUERY_H

#include <libpq-fe.h>
#include <stdbool.h>

/* The connection; NULL before the first attempt */
extern PGconn *conn;

/* Has a whole answer of events been read ever?  Until then, failures end the program. */
extern bool query_ever_read;

extern bool query_connect(void);
extern bool query_is_connected(void);

/* Leave the connection: it is made again by query_connect() */
extern void query_drop(void);

/*
 * The result, whatever it is; NULL when the connection is lost or the end was asked
 * for.
 */
extern PGresult *query_run(const char *sql, int nparams, const char *const *values, double seconds);

/*
 * Is the result a good one?  If not, the program ends or the connection is dropped,
 * after a message.  Takes NULL, and frees a bad result.
 */
extern bool query_succeeded(PGresult *result);

/* Has the result failed with this SQLSTATE? */
extern bool query_failed_with(const PGresult *result, const char *sqlstate);

#endif							/* REBATE_LISTEN_QUERY_H */
