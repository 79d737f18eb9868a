/*
 * output.c
 *	  Events on standard output, batch by batch.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "listen.h"
#include "wait.h"

/* So much goes into a pipe that has room at all */
#define CHUNK 512

static FILE *batch = NULL;
static char *text = NULL;
static size_t size = 0;

/* Add an event to the batch */
void
output_line(const char *event)
{
	if (batch == NULL)
		batch = check_alloc(open_memstream(&text, &size));
	if (options.json)
	{
		fputs(event, batch);
		putc('\n', batch);
	}
	else
		event_print(batch, event);
}

/*
 * Write the batch out.  A reader that is slow is waited for without forgetting the
 * connection.
 */
void
output_flush(void)
{
	size_t		done = 0;

	if (batch == NULL)
		return;
	if (fclose(batch) != 0)
		check_alloc(NULL);
	batch = NULL;
	while (done < size)
	{
		ssize_t		written;

		if (wait_for(STDOUT_FILENO, POLLOUT, NEVER) != WAIT_READY)
			continue;
		written = write(STDOUT_FILENO, text + done, size - done < CHUNK ? size - done : CHUNK);
		if (written >= 0)
			done += (size_t) written;
		else if (errno != EINTR && errno != EAGAIN)
			die(EXIT_OUTPUT, "cannot write to standard output: %s", strerror(errno));
	}
	free(text);
	text = NULL;
}
