/*
 * latency.c
 *	  How long after the commit's return in the writer a client on the shared channel is told of the entry:
 *	  `latency RATE SECONDS WRITERS MEMBERS MERCHANTS`.
 *
 * WRITERS connections insert RATE orders a second together, evenly spaced, each for members of its own, so that each
 * knows the sequence of the entry it makes.  An entry counts as announced by the first notification with its account
 * and at least its sequence; one told before the writer knew counts as 0.  Prints orders, orders a second, and the
 * milliseconds that half and 99 of 100 took at most, and the most; fails if one was never announced.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_WRITERS 64
#define HANDLE_LEN 32			/* hexadecimal digits */

typedef struct
{
	char		handle[HANDLE_LEN + 1];
	long		base;			/* the last entry before */
	long		posted;			/* entries since then: by the writer */
	long		announced;		/* and by the listener */
	double	   *posted_at;
	double	   *announced_at;
} Member;

static Member *members;
static int	n_members;
static Member **by_handle;
static int	n_writers;
static int	merchants;
static double rate;
static double seconds;
static long room;				/* entries of one member at most */
static double start;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void
fail(const char *what, PGconn *conn)
{
	fprintf(stderr, "latency: %s: %s", what, conn ? PQerrorMessage(conn) : "\n");
	exit(1);
}

static PGresult *
must(PGconn *conn, PGresult *result)
{
	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("query", conn);
	return result;
}

static int
compare_members(const void *a, const void *b)
{
	return strcmp((*(Member *const *) a)->handle, (*(Member *const *) b)->handle);
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Members 1 .. n_members, with their handles and last entries. */
static void
read_members(PGconn *conn)
{
	char		sql[300];
	PGresult   *result;

	snprintf(sql, sizeof(sql),
			 "SELECT replace(handle::text, '-', ''), last_entry FROM rebate_data.account"
			 " WHERE member::integer <= %d ORDER BY member::integer", n_members);
	result = must(conn, PQexec(conn, sql));
	if (PQntuples(result) != n_members)
		fail("not one account a member", NULL);
	members = calloc(n_members, sizeof(Member));
	by_handle = calloc(n_members, sizeof(Member *));
	for (int i = 0; i < n_members; i++)
	{
		snprintf(members[i].handle, sizeof(members[i].handle), "%s", PQgetvalue(result, i, 0));
		members[i].base = atol(PQgetvalue(result, i, 1));
		members[i].posted_at = calloc(room, sizeof(double));
		members[i].announced_at = calloc(room, sizeof(double));
		by_handle[i] = &members[i];
	}
	PQclear(result);
	qsort(by_handle, n_members, sizeof(Member *), compare_members);
}

/* Entries of an account up to a sequence are announced at this time, if they were not before. */
static void
announced(const char *handle, long seq, double at)
{
	Member		key;
	Member	   *wanted = &key;
	Member	  **found;

	snprintf(key.handle, sizeof(key.handle), "%s", handle);
	found = bsearch(&wanted, by_handle, n_members, sizeof(Member *), compare_members);
	if (!found)
		return;
	if (seq - (*found)->base >= room)
		fail("more entries than orders were written", NULL);
	while ((*found)->announced < seq - (*found)->base)
		(*found)->announced_at[(*found)->announced++] = at;
}

/* Reads the pairs ["handle", "sequence"] of a payload. */
static void
read_payload(const char *p, double at)
{
	while ((p = strstr(p, "[\"")) != NULL)
	{
		char		handle[HANDLE_LEN + 1];
		int			len = 0;

		for (p += 2; *p && *p != '"'; p++)
			if (*p != '-' && len < HANDLE_LEN)
				handle[len++] = *p;
		handle[len] = '\0';
		p += strcspn(p, "0123456789");
		announced(handle, atol(p), at);
	}
}

static void *
writer(void *arg)
{
	int			me = (int) (long) arg;
	PGconn	   *conn = PQconnectdb("user=shop");
	int			own = n_members / n_writers;
	long		orders = (long) (rate * seconds / n_writers);

	PQclear(must(conn, PQprepare(conn, "o",
								 "INSERT INTO orders (customer_id, merchant_id, amount, created_at)"
								 " VALUES ($1::bigint, $2::integer, 10, now())", 0, NULL)));
	for (long k = 0; k < orders; k++)
	{
		double		due = start + (k + (double) me / n_writers) * n_writers / rate;
		double		wait = due - now();
		int			i = me * own + (int) (k % own);
		char		customer[20];
		char		merchant[20];
		const char *args[2] = {customer, merchant};

		if (wait > 0)
		{
			struct timespec t = {(time_t) wait, (long) ((wait - (time_t) wait) * 1e9)};

			nanosleep(&t, NULL);
		}
		snprintf(customer, sizeof(customer), "%d", i + 1);
		snprintf(merchant, sizeof(merchant), "%d", 1 + i % merchants);
		PQclear(must(conn, PQexecPrepared(conn, "o", 2, args, NULL, NULL, 0)));
		members[i].posted_at[members[i].posted++] = now();
	}
	PQfinish(conn);
	return (void *) orders;
}

/* Reads notifications until `until`, or until all that was posted is announced. */
static void
listen_until(PGconn *conn, double until, long total)
{
	while (now() < until)
	{
		struct pollfd fd = {PQsocket(conn), POLLIN, 0};
		PGnotify   *notify;

		poll(&fd, 1, 20);
		if (!PQconsumeInput(conn))
			fail("listener", conn);
		while ((notify = PQnotifies(conn)) != NULL)
		{
			read_payload(notify->extra, now());
			PQfreemem(notify);
		}
		if (total > 0)
		{
			long		done = 0;

			for (int i = 0; i < n_members; i++)
				done += members[i].announced;
			if (done >= total)
				return;
		}
	}
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;
	pthread_t	threads[MAX_WRITERS];
	double	   *took;
	double		end = 0;
	long		n = 0;
	long		lost = 0;

	if (argc != 6)
	{
		fprintf(stderr, "usage: latency RATE SECONDS WRITERS MEMBERS MERCHANTS\n");
		return 2;
	}
	rate = atof(argv[1]);
	seconds = atof(argv[2]);
	n_writers = atoi(argv[3]);
	n_members = atoi(argv[4]);
	merchants = atoi(argv[5]);
	if (n_writers < 1 || n_writers > MAX_WRITERS || n_members < n_writers)
		fail("between 1 and 64 writers, each with a member", NULL);
	room = (long) (rate * seconds / n_writers) / (n_members / n_writers) + 3;

	conn = PQconnectdb("");
	PQclear(must(conn, PQexec(conn, "LISTEN rebate")));
	read_members(conn);
	/* What was announced before is of entries that are in base. */
	start = now() + 0.5;
	for (long w = 0; w < n_writers; w++)
		if (pthread_create(&threads[w], NULL, writer, (void *) w) != 0)
			fail("thread", NULL);
	listen_until(conn, start + seconds, 0);
	for (int w = 0; w < n_writers; w++)
	{
		void	   *orders;

		pthread_join(threads[w], &orders);
		n += (long) orders;
	}
	listen_until(conn, now() + 10, n);

	took = calloc(room * n_members, sizeof(double));
	n = 0;
	for (int i = 0; i < n_members; i++)
	{
		for (long k = 0; k < members[i].posted; k++)
		{
			double		d = members[i].announced_at[k] - members[i].posted_at[k];

			if (members[i].posted_at[k] > end)
				end = members[i].posted_at[k];
			if (k >= members[i].announced)
				lost++;
			else
				took[n++] = d > 0 ? d * 1000 : 0;
		}
	}
	if (lost > 0)
	{
		fprintf(stderr, "latency: %ld entries were never announced, %ld were\n", lost, n);
		return 1;
	}
	qsort(took, n, sizeof(double), compare_doubles);
	printf("%ld %.0f %.3f %.3f %.3f\n", n, n / (end - start), took[n / 2], took[n * 99 / 100], took[n - 1]);
	return 0;
}
