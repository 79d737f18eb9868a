/*
 * command.c
 *	  The command of --exec: run once for each event, until it succeeds.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backoff.h"
#include "listen.h"
#include "wait.h"

/*
 * The child: values are in the environment and the event is on standard input,
 * never in the command line.
 */
static void
child(int input, const char *cursor, const char *event)
{
	static const char *const fields[][2] = {
		{"REBATE_MEMBER", "member"},
		{"REBATE_CURRENCY", "currency"},
		{"REBATE_SEQ", "seq"},
		{"REBATE_KIND", "kind"},
		{"REBATE_AMOUNT", "amount"}
	};

	setenv("REBATE_CURSOR", cursor, 1);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
	{
		char	   *value = event_field(event, fields[i][1]);

		/* Not the caller's value by chance, either. */
		if (value)
			setenv(fields[i][0], value, 1);
		else
			unsetenv(fields[i][0]);
	}
	signal(SIGPIPE, SIG_DFL);
	if (dup2(input, STDIN_FILENO) >= 0)
		execl("/bin/sh", "sh", "-c", options.command, (char *) NULL);
	_exit(127);
}

/* Send the event as far as the child takes it; false when there is nothing more to do */
static bool
feed_child(int fd, const char *event, size_t length, size_t *done)
{
	ssize_t		written = write(fd, event + *done, length - *done);

	if (written > 0)
		*done += (size_t) written;
	/* A child that does not want to read is no failure: its exit code says. */
	return !(written < 0 && errno != EAGAIN && errno != EINTR) && *done < length;
}

/* Run the command once; its status, as of waitpid() */
static int
run_once(const char *cursor, const char *event)
{
	int			ends[2];
	int			status = -1;
	size_t		length = strlen(event) + 1;
	size_t		done = 0;
	char	   *line = check_alloc(malloc(length + 1));
	pid_t		pid;

	memcpy(line, event, length);
	strcpy(line + length - 1, "\n");
	if (pipe(ends) != 0)
		die(EXIT_EXEC, "cannot make a pipe: %s", strerror(errno));
	fcntl(ends[1], F_SETFD, FD_CLOEXEC);
	fcntl(ends[1], F_SETFL, O_NONBLOCK);
	pid = fork();
	if (pid < 0)
		die(EXIT_EXEC, "cannot start a process: %s", strerror(errno));
	if (pid == 0)
	{
		fcntl(ends[0], F_SETFD, FD_CLOEXEC);
		child(ends[0], cursor, event);
	}
	close(ends[0]);
	while (waitpid(pid, &status, WNOHANG) == 0)
	{
		if (wait_for(ends[1], POLLOUT, NEVER) == WAIT_READY && ends[1] >= 0 &&
			!feed_child(ends[1], line, length, &done))
		{
			close(ends[1]);
			ends[1] = -1;
		}
	}
	if (ends[1] >= 0)
		close(ends[1]);
	free(line);
	return status;
}

/*
 * Run the command for an event, again after a failure.  False if the end was asked
 * for first, or it failed too often: then the program ends with EXIT_EXEC.
 */
bool
command_run(const char *cursor, const char *event)
{
	Backoff		backoff = {0};

	for (long failures = 1;; failures++)
	{
		int			status = run_once(cursor, event);
		double		until;

		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			return true;
		if (stop_asked)
			return false;
		complain(WIFEXITED(status) ? "the command ended with exit code %d" : "the command was ended by signal %d",
				 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		if (options.exec_retries >= 0 && failures > options.exec_retries)
			die(EXIT_EXEC, "the command failed %ld time(s) for the event of cursor %s", failures, cursor);
		until = now() + backoff_next(&backoff);
		while (!stop_asked && wait_for(-1, 0, until) != WAIT_TIMEOUT)
			;
		if (stop_asked)
			return false;
	}
}
