/*
 * query.c
 *	  Queries that a signal or a time limit ends, and what their errors mean.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "listen.h"
#include "query.h"
#include "wait.h"

#define LOST "the connection was lost"

PGconn	   *conn = NULL;
bool		query_ever_read = false;

/* Dropped connections are closed when the next one is made */
static bool dropped = false;

/* Was the loss told about already? */
static bool loss_told = false;

static void
on_notice(void *arg, const PGresult *result)
{
	(void) arg;
	remark("%s", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) ?
		   PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : "notice");
}

/* Begin the first connection: keepalives find a dead peer unless the user wants others */
static PGconn *
first_connection(void)
{
	const char *const keywords[] = {
		"connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
		"host", "port", "user", "dbname", "fallback_application_name", "client_encoding", NULL
	};
	const char *const values[] = {
		getenv("PGCONNECT_TIMEOUT") ? NULL : "10", "10", "5", "3", "30000",
		options.host, options.port, options.user, options.dbname, PROGRAM, "UTF8", NULL
	};
	PGconn	   *made = PQconnectdbParams(keywords, values, 1);

	check_alloc(made);
	PQsetNoticeReceiver(made, on_notice, NULL);
	/* With it, also errors of later connections name their SQLSTATE. */
	PQsetErrorVerbosity(made, PQERRORS_VERBOSE);
	return made;
}

/* libpq's message without the places in the server's source */
static char *
connection_message(void)
{
	char	   *text = check_alloc(strdup(PQerrorMessage(conn)));
	char	   *place;

	while ((place = strstr(text, "\nLOCATION:")) != NULL)
	{
		char	   *rest = place + 1 + strcspn(place + 1, "\n");

		memmove(place, rest, strlen(rest) + 1);
	}
	return text;
}

/*
 * Is the message that of one server that knows the user or the database not?  There
 * is no other way to the SQLSTATE of a failed connection; of several hosts, another
 * one may still come back.
 */
static bool
is_refused_for_good(const char *message)
{
	const char *codes[] = {":  28000: ", ":  28P01: ", ":  3D000: ", ":  42501: "};
	const char *failed = strstr(message, " failed: ");

	if (failed && strstr(failed + 1, " failed: "))
		return false;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strstr(message, codes[i]))
			return true;
	return false;
}

static void
connection_failed(void)
{
	char	   *message = connection_message();

	if (!options.retry && !query_ever_read)
		die(EXIT_CONNECT, "%s", message);
	if (is_refused_for_good(message))
		die(EXIT_CONNECT, "%s", message);
	if (loss_told)
		remark("%s", message);
	else
		complain("%s\ntrying again", message);
	loss_told = true;
	free(message);
}

bool
query_is_connected(void)
{
	return conn != NULL && !dropped && PQstatus(conn) == CONNECTION_OK;
}

void
query_drop(void)
{
	wait_watch(NULL);
	dropped = true;
}

/* The connection is of no more use: say so once, and leave it */
static void
lose(const char *what, const char *why)
{
	if (!query_ever_read && !options.retry)
		die(EXIT_CONNECT, "%s: %s", what, why);
	if (!loss_told)
		complain("%s: %s\ntrying again", what, why);
	loss_told = true;
	query_drop();
}

/* Connect, or connect again: with PQreset(), all hosts are looked up and tried anew */
bool
query_connect(void)
{
	if (conn != NULL && !dropped && PQstatus(conn) != CONNECTION_OK)
		lose(LOST, connection_message());
	wait_watch(NULL);
	wait_end_at_once(true);
	if (stop_asked)
		return false;
	if (conn == NULL)
		conn = first_connection();
	else
		PQreset(conn);
	wait_end_at_once(false);
	dropped = false;
	if (PQstatus(conn) != CONNECTION_OK)
	{
		connection_failed();
		return false;
	}
	if (PQsetnonblocking(conn, 1) != 0)
		die(EXIT_CONNECT, "%s", PQerrorMessage(conn));
	if (loss_told)
		complain("connected again");
	loss_told = false;
	wait_watch(conn);
	return true;
}

/* Wait until the answer, or a part of it, can be taken without waiting */
static bool
await_answer(double until)
{
	for (;;)
	{
		int			unsent = PQflush(conn);
		WaitResult	what;

		if (unsent < 0)
			return true;		/* PQgetResult() tells what it is */
		if (unsent == 0 && !PQisBusy(conn))
			return true;
		what = wait_for(PQsocket(conn), (short) (unsent ? POLLIN | POLLOUT : POLLIN), until);
		if (stop_asked)
			return false;
		if (what == WAIT_TIMEOUT)
		{
			lose(LOST, "no answer in time");
			return false;
		}
		if (what == WAIT_READY && !PQconsumeInput(conn))
			return true;
	}
}

PGresult *
query_run(const char *sql, int nparams, const char *const *values, double seconds)
{
	PGresult   *result = NULL;
	double		until = now() + seconds;

	if (!query_is_connected())
	{
		lose(LOST, connection_message());
		return NULL;
	}
	wait_watch(NULL);
	if (!PQsendQueryParams(conn, sql, nparams, NULL, values, NULL, NULL, 0))
	{
		lose(LOST, connection_message());
		return NULL;
	}
	for (;;)
	{
		PGresult   *next;

		if (!await_answer(until))
		{
			PQclear(result);
			query_drop();
			return NULL;
		}
		next = PQgetResult(conn);
		if (next == NULL)
			break;
		PQclear(result);
		result = next;
	}
	wait_forget_notifications(conn);
	if (PQstatus(conn) != CONNECTION_OK)
	{
		const char *message = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;

		lose(LOST, message ? message : connection_message());
		PQclear(result);
		return NULL;
	}
	wait_watch(conn);
	return result;
}

bool
query_failed_with(const PGresult *result, const char *sqlstate)
{
	const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return code != NULL && strcmp(code, sqlstate) == 0;
}

/* The server's message, with its detail and hint */
static char *
server_message(const PGresult *result)
{
	static const int fields[] = {PG_DIAG_MESSAGE_PRIMARY, PG_DIAG_MESSAGE_DETAIL, PG_DIAG_MESSAGE_HINT};
	char	   *text;
	size_t		size;
	FILE	   *out = check_alloc(open_memstream(&text, &size));

	for (int i = 0; i < 3; i++)
	{
		const char *field = PQresultErrorField(result, fields[i]);

		if (field)
			fprintf(out, "%s%s", i == 0 ? "" : "\n", field);
	}
	if (fclose(out) != 0)
		check_alloc(NULL);
	if (*text == '\0')
	{
		free(text);
		text = check_alloc(strdup(PQresultErrorMessage(result)));
	}
	return text;
}

/*
 * What an error of the server means.  Leaves the connection and returns for what may be over when it is tried
 * again: the server stops, a conflict, a lack of memory or connections.
 */
static void
judge_error(const PGresult *result)
{
	static const struct
	{
		const char *sqlstate;
		ExitCode	code;
		const char *what;
	}			meanings[] = {
		{"RB001", EXIT_PERMISSION, "there is nothing to follow in this database"},
		{"RB013", EXIT_CURSOR, "the cursor was refused: its events are not those of this server"},
		{"RB014", EXIT_LISTEN, "the feed cannot be read on a standby; --member can"},
		{"42501", EXIT_PERMISSION, "not permitted"},
		{"3F000", EXIT_PERMISSION, "the extension rebate is not installed in this database"},
		{"42P01", EXIT_PERMISSION, "the extension rebate is not installed as this program needs it"},
		{"42883", EXIT_PERMISSION, "the extension rebate is not installed as this program needs it"}
	};
	char	   *message = server_message(result);

	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (query_failed_with(result, meanings[i].sqlstate))
			die(meanings[i].code, "%s\n%s", meanings[i].what, message);
	lose("the server answers with an error", message);
	free(message);
}

bool
query_succeeded(PGresult *result)
{
	if (result == NULL)
		return false;
	if (PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_COMMAND_OK)
		return true;
	judge_error(result);
	PQclear(result);
	return false;
}
