/*
 * feed.c
 *	  Reads rebate.feed from the beginning to the end: `feed BATCH`.  Prints events, seconds and bytes of JSON.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	PGconn	   *conn = PQconnectdb("");
	char	   *cursor = NULL;
	long		events = 0;
	long		bytes = 0;
	double		begin;

	if (argc != 2)
	{
		fprintf(stderr, "usage: feed BATCH\n");
		return 2;
	}
	begin = now();
	for (;;)
	{
		const char *args[2] = {cursor, argv[1]};
		PGresult   *result = PQexecParams(conn, "SELECT cursor, event FROM rebate.feed($1, $2::integer)", 2,
										  NULL, args, NULL, NULL, 0);
		int			rows = PQntuples(result);

		if (PQresultStatus(result) != PGRES_TUPLES_OK)
		{
			fprintf(stderr, "feed: %s", PQerrorMessage(conn));
			return 1;
		}
		if (rows == 0)
			break;
		for (int i = 0; i < rows; i++)
			bytes += PQgetlength(result, i, 1);
		events += rows;
		free(cursor);
		cursor = strdup(PQgetvalue(result, rows - 1, 0));
		PQclear(result);
	}
	printf("%ld %.6f %ld\n", events, now() - begin, bytes);
	return 0;
}
