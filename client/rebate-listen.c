/*
 * rebate-listen.c
 *	  Follows the rebates of a member, or of all, and prints each event once.
 *
 * A notification is a reason to read, and nothing else: events, and the cursor behind
 * each, come from rebate.feed() and rebate.events() only.  The cursor of the last
 * event that was dealt with is all there is to remember, so a connection can be lost
 * at any moment.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backoff.h"
#include "listen.h"
#include "server.h"
#include "wait.h"

#define BATCH 1000

/* Behind the last event that was dealt with; NULL: the beginning */
static char *position = NULL;

/* Is position where to go on, or still to be asked for? */
static bool positioned = false;

static long events = 0;
static long reads = 0;

static bool
finished(void)
{
	return stop_asked || (options.count > 0 && events >= options.count);
}

/*
 * At most --limit-rate reads in any second: a bucket that holds a quarter of them and
 * is filled with the rest, so that a burst is read at once and a flood evenly.
 */
static void
wait_for_turn(void)
{
	static double bucket = -1;
	static double last;
	double		burst = (double) (options.limit_rate / 4 > 0 ? options.limit_rate / 4 : 1);
	double		rate = (double) options.limit_rate - burst + 1;

	if (bucket < 0)
	{
		bucket = burst;
		last = now();
	}
	for (;;)
	{
		double		t = now();

		bucket += (t - last) * rate;
		if (bucket > burst)
			bucket = burst;
		last = t;
		if (bucket >= 1 || stop_asked)
			break;
		wait_for(-1, 0, t + (1 - bucket) / rate);
	}
	bucket -= 1;
}

/* Deal with one event; false if the end was asked for before it was */
static bool
deliver(const char *cursor, const char *event)
{
	if (options.command && !command_run(cursor, event))
		return false;
	if (options.file)
		file_append(cursor, event);
	/* What a command has done should be done once, so it is remembered at once. */
	if (options.file && options.command)
		file_sync();
	if (!options.file && !options.command)
		output_line(event);
	return true;
}

/* An event is a line: space between the values of a JSON text may be any */
static void
make_one_line(char *event)
{
	for (event += strcspn(event, "\r\n"); *event; event += strcspn(event, "\r\n"))
		*event = ' ';
}

/* Deal with the rows of a read, and write out what they gave */
static void
deliver_rows(const PGresult *result)
{
	for (int row = 0; row < PQntuples(result); row++)
	{
		const char *cursor = PQgetvalue(result, row, 0);
		char	   *event;
		bool		done;

		if (options.count > 0 && events >= options.count)
			break;
		/* A batch is printed to its end; a command may take its time. */
		if (stop_asked && options.command)
			break;
		event = check_alloc(strdup(PQgetvalue(result, row, 1)));
		make_one_line(event);
		done = deliver(cursor, event);
		free(event);
		if (!done)
			break;
		free(position);
		position = check_alloc(strdup(cursor));
		events++;
	}
	output_flush();
	if (options.file)
		file_sync();
}

/* Read until nothing is returned; false when the connection is lost or the end is there */
static bool
catch_up(void)
{
	int			rows;

	do
	{
		PGresult   *result;

		wait_for_turn();
		if (stop_asked)
			return false;
		/* What has been notified until here is seen by this read. */
		if (wait_notified())
			remark("notified");
		result = server_read(position, BATCH);
		if (result == NULL)
			return false;
		reads++;
		rows = PQntuples(result);
		deliver_rows(result);
		PQclear(result);
	} while (rows > 0 && !finished());
	return !finished();
}

/* Connect, wait after a failure; the place to begin is asked for once we listen */
static bool
connect_again(Backoff *backoff)
{
	if (backoff->longest > 0)
	{
		double		until = now() + backoff_next(backoff);

		while (!stop_asked && wait_for(-1, 0, until) != WAIT_TIMEOUT)
			;
		if (stop_asked)
			return false;
	}
	else
		backoff->longest = BACKOFF_FIRST / 2;
	if (!server_connect())
		return false;
	if (!positioned)
		positioned = server_cursor_of_now(&position);
	return positioned;
}

static void
follow(void)
{
	Backoff		backoff = {0};
	double		next_check = 0;
	bool		told = false;

	while (!finished())
	{
		if (!server_is_connected())
		{
			if (!connect_again(&backoff))
				continue;
			next_check = now() + server_check_interval();
		}
		else if (now() >= next_check)
		{
			if (!server_check())
				continue;
			next_check = now() + server_check_interval();
		}
		if (!catch_up())
			continue;
		backoff.longest = 0;
		if (!told)
			remark("up to date, waiting");
		told = true;
		while (!stop_asked && server_is_connected() && !wait_has_notification() &&
			   wait_for(-1, 0, next_check) != WAIT_TIMEOUT)
			;
	}
}

int
main(int argc, char **argv)
{
	options_parse(argc, argv);
	srand48((long) time(NULL) ^ ((long) getpid() << 16));
	wait_init();
	if (options.file)
		position = file_open(options.file);
	if (position != NULL || strcmp(options.from, "beginning") == 0)
		positioned = true;
	else if (strcmp(options.from, "now") != 0)
	{
		position = check_alloc(strdup(options.from));
		positioned = true;
	}
	follow();
	remark("%ld event(s) in %ld read(s); cursor %s", events, reads, position ? position : "none");
	server_disconnect();
	return EXIT_DONE;
}
