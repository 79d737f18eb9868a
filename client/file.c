/*
 * file.c
 *	  The file of --file: a line "cursor TAB event" for each event.
 *
 * The file is its own memory of how far it is: a line is written with one write, and
 * the cursor in the last complete line is where reading goes on.  So whatever kills
 * the program, no event is missing or twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "listen.h"

#define CHUNK 65536

static int	file = -1;
static const char *name;
static bool dirty = false;

/* Read exactly so much from a place */
static void
read_at(char *into, size_t length, off_t at)
{
	while (length > 0)
	{
		ssize_t		got = pread(file, into, length, at);

		if (got <= 0 && !(got < 0 && errno == EINTR))
			die(EXIT_OUTPUT, "cannot read file \"%s\": %s", name, got == 0 ? "unexpected end" : strerror(errno));
		if (got > 0)
		{
			into += got;
			at += got;
			length -= (size_t) got;
		}
	}
}

/* The place after the last newline before end; 0 if there is none */
static off_t
after_newline(off_t end)
{
	char	   *bytes = check_alloc(malloc(CHUNK));
	off_t		result = 0;

	while (end > 0 && result == 0)
	{
		size_t		length = end < CHUNK ? (size_t) end : CHUNK;

		end -= (off_t) length;
		read_at(bytes, length, end);
		while (length > 0 && bytes[length - 1] != '\n')
			length--;
		if (length > 0)
			result = end + (off_t) length;
	}
	free(bytes);
	return result;
}

/* A name in a directory lasts only when the directory is written out */
static void
sync_directory(void)
{
	const char *slash = strrchr(name, '/');
	char	   *directory = check_alloc(slash ? strndup(name, (size_t) (slash - name) + 1) : strdup("."));
	int			fd = open(directory, O_RDONLY | O_CLOEXEC);

	/* One that may not be read, or a file system that knows no such thing, is no failure. */
	if (fd >= 0)
	{
		if (fsync(fd) != 0 && errno == EIO)
			die(EXIT_OUTPUT, "cannot write out directory \"%s\": %s", directory, strerror(errno));
		close(fd);
	}
	free(directory);
}

/* The cursor of the line between two places */
static char *
cursor_of_line(off_t begin, off_t end)
{
	size_t		length = (size_t) (end - begin);
	char	   *line = check_alloc(malloc(length + 1));
	char	   *tab;

	read_at(line, length, begin);
	line[length] = '\0';
	tab = strchr(line, '\t');
	if (strlen(line) != length || tab == NULL || tab == line || tab[1] != '{')
		die(EXIT_OUTPUT, "the last line of file \"%s\" is none of " PROGRAM, name);
	*tab = '\0';
	return line;
}

/*
 * Open the file, for this process alone, cut off a line that was not completed, and
 * return the cursor of the last line; NULL if there is none.
 */
char *
file_open(const char *path)
{
	struct stat status;
	off_t		end;

	name = path;
	/* Nonblocking: a named pipe is refused below, not waited for. */
	file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
	if (file < 0 || fstat(file, &status) != 0)
		die(EXIT_OUTPUT, "cannot open file \"%s\": %s", path, strerror(errno));
	if (!S_ISREG(status.st_mode))
		die(EXIT_OUTPUT, "\"%s\" is not a regular file", path);
	if (flock(file, LOCK_EX | LOCK_NB) != 0)
	{
		if (errno == EWOULDBLOCK)
			die(EXIT_OUTPUT, "file \"%s\" is in use by another " PROGRAM, path);
		die(EXIT_OUTPUT, "cannot lock file \"%s\": %s", path, strerror(errno));
	}
	/* Another process may have written before the lock was ours. */
	if (fstat(file, &status) != 0)
		die(EXIT_OUTPUT, "cannot open file \"%s\": %s", path, strerror(errno));
	end = after_newline(status.st_size);
	if (end < status.st_size)
	{
		remark("file \"%s\": a line that was not completed is cut off", path);
		if (ftruncate(file, end) != 0)
			die(EXIT_OUTPUT, "cannot cut off the torn line of file \"%s\": %s", path, strerror(errno));
		dirty = true;
	}
	sync_directory();
	/* What is gone on from must be there to stay. */
	dirty = true;
	file_sync();
	return end > 0 ? cursor_of_line(after_newline(end - 1), end - 1) : NULL;
}

/* Append a line, in one write; a part of it is taken back */
void
file_append(const char *cursor, const char *event)
{
	char	   *line;
	size_t		size;
	FILE	   *out;
	ssize_t		written;
	off_t		end = lseek(file, 0, SEEK_END);

	if (*cursor == '\0' || strpbrk(cursor, "\t\n") || *event != '{')
		die(EXIT_OUTPUT, "an event of the server does not fit into a line of file \"%s\"", name);
	out = check_alloc(open_memstream(&line, &size));
	fprintf(out, "%s\t%s\n", cursor, event);
	if (fclose(out) != 0)
		check_alloc(NULL);
	do
		written = write(file, line, size);
	while (written < 0 && errno == EINTR);
	if (written != (ssize_t) size)
	{
		int			error = written < 0 ? errno : ENOSPC;

		if (written > 0 && ftruncate(file, end) != 0)
			complain("cannot take back a part of a line; the next start does");
		file_sync();
		die(EXIT_OUTPUT, "cannot write to file \"%s\": %s", name, strerror(error));
	}
	free(line);
	dirty = true;
}

void
file_sync(void)
{
	if (dirty && fdatasync(file) != 0)
		die(EXIT_OUTPUT, "cannot write out file \"%s\": %s", name, strerror(errno));
	dirty = false;
}
