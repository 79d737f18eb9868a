/*
 * listen.c
 *	  Clients that listen: `listen CONNECTIONS CHANNEL`.
 *
 * One connection listens on CHANNEL, more on CHANNEL_1, CHANNEL_2 ...  Prints "ready" when all listen; reads what comes
 * and forgets it; on SIGTERM prints the number of notifications and ends.
 */
#define _GNU_SOURCE
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t ended = 0;

static void
end(int signo)
{
	(void) signo;
	ended = 1;
}

static PGconn *
listen_on(const char *channel)
{
	PGconn	   *conn = PQconnectdb("");
	char		sql[200];
	PGresult   *result;

	snprintf(sql, sizeof(sql), "LISTEN \"%s\"", channel);
	result = PQexec(conn, sql);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "listen: %s", PQerrorMessage(conn));
		exit(1);
	}
	PQclear(result);
	return conn;
}

int
main(int argc, char **argv)
{
	int			n = argc == 3 ? atoi(argv[1]) : 0;
	PGconn	  **conns;
	struct pollfd *fds;
	long		heard = 0;
	sigset_t	term;
	sigset_t	waiting;

	if (n < 1)
	{
		fprintf(stderr, "usage: listen CONNECTIONS CHANNEL\n");
		return 2;
	}
	/* Blocked but in ppoll, so that none is missed just before it. */
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &waiting);
	signal(SIGTERM, end);

	conns = calloc(n, sizeof(PGconn *));
	fds = calloc(n, sizeof(struct pollfd));
	for (int i = 0; i < n; i++)
	{
		char		channel[80];

		snprintf(channel, sizeof(channel), n == 1 ? "%s" : "%s_%d", argv[2], i + 1);
		conns[i] = listen_on(channel);
		fds[i].fd = PQsocket(conns[i]);
		fds[i].events = POLLIN;
	}
	printf("ready\n");
	fflush(stdout);

	while (!ended)
	{
		if (ppoll(fds, n, NULL, &waiting) < 0)
			continue;
		for (int i = 0; i < n; i++)
		{
			PGnotify   *notify;

			if (!fds[i].revents)
				continue;
			if (!PQconsumeInput(conns[i]))
			{
				fprintf(stderr, "listen: %s", PQerrorMessage(conns[i]));
				return 1;
			}
			while ((notify = PQnotifies(conns[i])) != NULL)
			{
				heard++;
				PQfreemem(notify);
			}
		}
	}
	printf("%ld\n", heard);
	return 0;
}
