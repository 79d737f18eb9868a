/*
 * wait.c
 *	  Waiting for several things at a time.
 *
 * Signals come through a pipe, so that none is missed between a look and a wait.
 * The idle connection is read on whatever is waited for: a listener that stops
 * reading holds back the notifications of the whole cluster.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "listen.h"
#include "wait.h"

volatile sig_atomic_t stop_asked = 0;

static volatile sig_atomic_t end_at_once = 0;
static int	signal_pipe[2];
static PGconn *watched = NULL;
static bool notified = false;

double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static void
on_signal(int signo)
{
	int			saved = errno;

	if (signo != SIGCHLD)
	{
		if (end_at_once)
			_exit(EXIT_DONE);
		stop_asked = 1;
	}
	if (write(signal_pipe[1], "", 1) < 0)
	{
		/* The pipe is full: the reader will wake up anyway. */
	}
	errno = saved;
}

/*
 * The first SIGINT or SIGTERM asks for the end; the second finds the default again
 * and kills a program that waits for a reader or a command that does not come back.
 */
static void
catch_end(int signo)
{
	struct sigaction action;

	/* What the caller ignores, as a shell does for what runs behind it, stays so. */
	if (sigaction(signo, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
		return;
	sigemptyset(&action.sa_mask);
	action.sa_handler = on_signal;
	action.sa_flags = (int) SA_RESETHAND;
	sigaction(signo, &action, NULL);
}

void
wait_init(void)
{
	struct sigaction action;

	if (pipe(signal_pipe) != 0)
		die(EXIT_USAGE, "cannot make a pipe: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
	{
		fcntl(signal_pipe[i], F_SETFD, FD_CLOEXEC);
		fcntl(signal_pipe[i], F_SETFL, O_NONBLOCK);
	}
	catch_end(SIGINT);
	catch_end(SIGTERM);
	sigemptyset(&action.sa_mask);
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
	sigaction(SIGCHLD, &action, NULL);
	action.sa_handler = SIG_IGN;
	action.sa_flags = 0;
	sigaction(SIGPIPE, &action, NULL);
}

void
wait_end_at_once(bool yes)
{
	end_at_once = yes;
}

void
wait_watch(PGconn *conn)
{
	watched = conn;
}

/* Notifications are only counted as a reason to read: what they say is not looked at */
void
wait_forget_notifications(PGconn *conn)
{
	PGnotify   *notify;

	while ((notify = PQnotifies(conn)) != NULL)
	{
		PQfreemem(notify);
		notified = true;
	}
}

bool
wait_notified(void)
{
	bool		result = notified;

	notified = false;
	return result;
}

bool
wait_has_notification(void)
{
	return notified;
}

static int
milliseconds_until(double until)
{
	double		left = (until - now()) * 1000;

	if (until == NEVER)
		return -1;
	return left <= 0 ? 0 : left > 3600e3 ? 3600000 : (int) left + 1;
}

WaitResult
wait_for(int fd, short events, double until)
{
	for (;;)
	{
		struct pollfd polls[3];
		char		bytes[64];
		int			count;

		polls[0] = (struct pollfd) {.fd = signal_pipe[0],.events = POLLIN};
		polls[1] = (struct pollfd) {.fd = fd,.events = events};
		polls[2] = (struct pollfd) {.fd = watched ? PQsocket(watched) : -1,.events = POLLIN};
		count = poll(polls, 3, milliseconds_until(until));
		if (count < 0 && errno != EINTR && errno != EAGAIN)
			die(EXIT_OUTPUT, "poll failed: %s", strerror(errno));
		if (count < 0)
			continue;
		if (polls[0].revents)
		{
			while (read(signal_pipe[0], bytes, sizeof(bytes)) > 0)
				;
			return WAIT_SIGNAL;
		}
		if (polls[2].revents)
		{
			if (PQconsumeInput(watched))
				wait_forget_notifications(watched);
			else
				watched = NULL; /* the next look at its state finds it broken */
		}
		if (fd >= 0 && polls[1].revents)
			return WAIT_READY;
		if (polls[2].revents)
			return WAIT_INPUT;
		if (now() >= until)
			return WAIT_TIMEOUT;
	}
}
