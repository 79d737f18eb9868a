/*
 * disk_full.c
 *	  A disk that is full when it is told to be; for LD_PRELOAD.  No file under
 *	  $DISK_FULL grows while there is a file $DISK_FULL.flag.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* May the file get this long? */
static int
has_room(int fd, off_t length)
{
	const char *dir = getenv("DISK_FULL");
	char		name[4096];
	char		link[64];
	struct stat st;
	ssize_t		n;

	if (dir == NULL || fstat(fd, &st) != 0 || length <= st.st_size)
		return 1;
	snprintf(name, sizeof(name), "%s.flag", dir);
	if (access(name, F_OK) != 0)
		return 1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name) - 1);
	if (n < 0 || strncmp(name, dir, strlen(dir)) != 0)
		return 1;
	errno = ENOSPC;
	return 0;
}

static size_t
total(const struct iovec *iov, int n)
{
	size_t		sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

#define NEXT(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

ssize_t
pwrite(int fd, const void *data, size_t size, off_t offset)
{
	return has_room(fd, offset + size) ? NEXT(pwrite) (fd, data, size, offset) : -1;
}

ssize_t
pwrite64(int fd, const void *data, size_t size, off_t offset)
{
	return has_room(fd, offset + size) ? NEXT(pwrite64) (fd, data, size, offset) : -1;
}

ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	return has_room(fd, offset + total(iov, n)) ? NEXT(pwritev) (fd, iov, n, offset) : -1;
}

ssize_t
pwritev64(int fd, const struct iovec *iov, int n, off_t offset)
{
	return has_room(fd, offset + total(iov, n)) ? NEXT(pwritev64) (fd, iov, n, offset) : -1;
}

int
posix_fallocate(int fd, off_t offset, off_t size)
{
	return has_room(fd, offset + size) ? NEXT(posix_fallocate) (fd, offset, size) : ENOSPC;
}

int
posix_fallocate64(int fd, off_t offset, off_t size)
{
	return has_room(fd, offset + size) ? NEXT(posix_fallocate64) (fd, offset, size) : ENOSPC;
}

int
ftruncate(int fd, off_t size)
{
	return has_room(fd, size) ? NEXT(ftruncate) (fd, size) : -1;
}

int
ftruncate64(int fd, off_t size)
{
	return has_room(fd, size) ? NEXT(ftruncate64) (fd, size) : -1;
}
