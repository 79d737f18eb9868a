/*
 * server.c
 *	  What is asked of the server.
 *
 * The order is what makes it complete: LISTEN first, then read.  What is committed
 * after a read was notified to a session that listens already.
 */
#include <stdlib.h>
#include <string.h>

#include "listen.h"
#include "query.h"
#include "server.h"
#include "wait.h"

#define SHARED_CHANNEL "rebate"

/* Seconds from a check to the next, depending on who notifies */
#define CHECK_POLLING 1.0
#define CHECK_BY_COMMIT 5.0
#define CHECK_BY_WORKER 30.0

/* Seconds for an answer: of a cheap query, of a read that may have much to sort */
#define SHORT_LIMIT 10.0
#define READ_LIMIT 300.0

/* What is listened to; NULL: nothing, events are found by reading only */
static char *channel = NULL;
static bool worker = false;

/* A single text, allocated; NULL if it is NULL or there is no row */
static char *
single_text(const PGresult *result)
{
	if (PQntuples(result) < 1 || PQgetisnull(result, 0, 0))
		return NULL;
	return check_alloc(strdup(PQgetvalue(result, 0, 0)));
}

/* LISTEN or UNLISTEN */
static PGresult *
run_with_channel(const char *command, const char *name)
{
	char	   *quoted = PQescapeIdentifier(conn, name, strlen(name));
	char	   *sql;
	PGresult   *result;

	check_alloc(quoted);
	sql = check_alloc(malloc(strlen(command) + strlen(quoted) + 2));
	strcpy(sql, command);
	strcat(sql, " ");
	strcat(sql, quoted);
	result = query_run(sql, 0, NULL, SHORT_LIMIT);
	free(sql);
	PQfreemem(quoted);
	return result;
}

/*
 * The channel of what is followed.  *name is NULL where a member has none: a standby
 * that cannot give him one.
 */
static bool
wanted_channel(char **name)
{
	PGresult   *result;

	*name = NULL;
	if (options.member == NULL)
	{
		*name = check_alloc(strdup(SHARED_CHANNEL));
		return true;
	}
	result = query_run("SELECT rebate.channel($1::text)", 1, &options.member, SHORT_LIMIT);
	if (result == NULL)
		return false;
	if (query_failed_with(result, "25006"))
	{
		PQclear(result);
		return true;
	}
	if (!query_succeeded(result))
		return false;
	*name = single_text(result);
	PQclear(result);
	return true;
}

/*
 * Does this session, and no other, hear what the server sends us?  A pooler gives
 * each transaction the session that is free, and its own number in place of the
 * server's.
 */
static bool
check_listening(const char *name)
{
	PGresult   *result;
	bool		hears;

	result = query_run("SELECT pg_catalog.pg_backend_pid(), $1::text IN (SELECT pg_catalog.pg_listening_channels())",
					   1, &name, SHORT_LIMIT);
	if (!query_succeeded(result))
		return false;
	hears = atoi(PQgetvalue(result, 0, 0)) == PQbackendPID(conn) && *PQgetvalue(result, 0, 1) == 't';
	PQclear(result);
	if (!hears)
		die(EXIT_LISTEN, "LISTEN does not work on this connection: a pooler is between this program and the server\n"
			"connect to the server itself, or give --poll");
	return true;
}

/* Listen to the channel of what is followed, if not done yet, and to no other */
static bool
listen_to_channel(void)
{
	char	   *name;
	PGresult   *result;

	if (options.poll)
		return true;
	if (!wanted_channel(&name))
		return false;
	if (name == NULL || (channel && strcmp(name, channel) == 0))
	{
		free(name);
		return true;
	}
	result = run_with_channel("LISTEN", name);
	if (result && query_failed_with(result, "25006"))
	{
		/* A standby.  It may be promoted: each check tries again. */
		PQclear(result);
		free(name);
		return true;
	}
	if (!query_succeeded(result))
	{
		free(name);
		return false;
	}
	PQclear(result);
	if (!check_listening(name))
	{
		free(name);
		return false;
	}
	if (channel)
	{
		remark("the channel has a new name");
		result = run_with_channel("UNLISTEN", channel);
		if (!query_succeeded(result))
		{
			free(name);
			return false;
		}
		PQclear(result);
		free(channel);
	}
	else if (query_ever_read)
		remark("listening now");
	channel = name;
	return true;
}

/* Who notifies?  Who may not see it reads more often. */
static bool
look_at_mode(void)
{
	PGresult   *result = query_run("SELECT mode FROM rebate.delivery_status", 0, NULL, SHORT_LIMIT);

	if (result == NULL)
		return false;
	worker = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 &&
		strcmp(PQgetvalue(result, 0, 0), "worker") == 0;
	PQclear(result);
	return true;
}

bool
server_check(void)
{
	return look_at_mode() && listen_to_channel();
}

bool
server_connect(void)
{
	free(channel);
	channel = NULL;
	if (!query_connect() || !server_check())
		return false;
	remark("connected to process %d, %s", PQbackendPID(conn),
		   channel == NULL ? "reading only" : worker ? "listening to the worker" : "listening to commits");
	return true;
}

bool
server_is_connected(void)
{
	return query_is_connected();
}

double
server_check_interval(void)
{
	return channel == NULL ? CHECK_POLLING : worker ? CHECK_BY_WORKER : CHECK_BY_COMMIT;
}

bool
server_cursor_of_now(char **cursor)
{
	PGresult   *result;

	if (options.member)
		result = query_run("SELECT rebate.events_cursor($1::text)", 1, &options.member, READ_LIMIT);
	else
		result = query_run("SELECT rebate.feed_cursor()", 0, NULL, READ_LIMIT);
	if (!query_succeeded(result))
		return false;
	*cursor = single_text(result);
	PQclear(result);
	return true;
}

PGresult *
server_read(const char *after, long limit)
{
	char		limit_text[32];
	const char *values[] = {after, limit_text, options.member};
	PGresult   *result;

	snprintf(limit_text, sizeof(limit_text), "%ld", limit);
	if (options.member)
		result = query_run("SELECT cursor, event FROM rebate.events($3::text, $1::text, $2::integer)", 3, values, READ_LIMIT);
	else
		result = query_run("SELECT cursor, event FROM rebate.feed($1::text, $2::integer)", 2, values, READ_LIMIT);
	if (!query_succeeded(result))
		return NULL;
	query_ever_read = true;
	return result;
}

void
server_disconnect(void)
{
	wait_watch(NULL);
	PQfinish(conn);
	conn = NULL;
}
