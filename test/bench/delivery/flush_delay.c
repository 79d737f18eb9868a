/*
 * flush_delay.c
 *	  Makes fdatasync() last FLUSH_DELAY_US microseconds longer: a disk that needs that long to flush.
 *
 * A library for LD_PRELOAD of the postmaster; with wal_sync_method = fdatasync it delays each flush of the WAL.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int
fdatasync(int fd)
{
	static int	(*real) (int);
	static long delay = -1;
	struct timespec left;
	int			result;
	int			saved;

	if (real == NULL)
		real = (int (*) (int)) dlsym(RTLD_NEXT, "fdatasync");
	if (delay < 0)
	{
		const char *value = getenv("FLUSH_DELAY_US");

		delay = value ? atol(value) : 0;
	}

	result = real(fd);
	saved = errno;
	left.tv_sec = delay / 1000000;
	left.tv_nsec = delay % 1000000 * 1000;
	/* The server's signals must not make it shorter. */
	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
		;
	errno = saved;
	return result;
}
