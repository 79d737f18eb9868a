/*
 * message.c
 *	  Text for people.  Whatever comes from elsewhere is data: nothing in it moves
 *	  the cursor of a terminal, starts a line or turns the direction of reading.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "listen.h"

/*
 * The character at text, and its length in *length; -1, of length 1, if it is no
 * UTF-8
 */
static long
next_character(const unsigned char *text, int *length)
{
	long		character;
	int			more;
	static const long smallest[] = {0, 0x80, 0x800, 0x10000};

	*length = 1;
	if (*text < 0x80)
		return *text;
	if (*text >= 0xC2 && *text <= 0xDF)
		more = 1;
	else if ((*text & 0xF0) == 0xE0)
		more = 2;
	else if (*text >= 0xF0 && *text <= 0xF4)
		more = 3;
	else
		return -1;
	character = *text & (0x3F >> more);
	for (int i = 1; i <= more; i++)
	{
		if ((text[i] & 0xC0) != 0x80)
			return -1;
		character = (character << 6) | (text[i] & 0x3F);
	}
	if (character < smallest[more] || character > 0x10FFFF || (character >= 0xD800 && character <= 0xDFFF))
		return -1;
	*length = more + 1;
	return character;
}

/* Control characters, line and paragraph separators, marks of direction, invisible ones */
static bool
is_control(long c)
{
	return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0xAD || c == 0x61C || c == 0x180E ||
		(c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
		c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE007F);
}

/*
 * Write text with control characters, backslashes and the ASCII characters in also
 * (if not NULL) escaped: \n \r \t, \xHH for a byte that is no UTF-8, else \u{H}
 */
void
put_escaped(FILE *out, const char *text, const char *also)
{
	const unsigned char *at = (const unsigned char *) text;

	while (*at)
	{
		int			length;
		long		c = next_character(at, &length);

		if (c == '\n' || c == '\r' || c == '\t')
			fprintf(out, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
		else if (c < 0)
			fprintf(out, "\\x%02X", *at);
		else if (is_control(c))
			fprintf(out, "\\u{%lX}", c);
		else
		{
			if (c == '\\' || (also && c < 0x80 && strchr(also, (int) c)))
				putc('\\', out);
			fwrite(at, 1, (size_t) length, out);
		}
		at += length;
	}
}

/*
 * Write a value as one word: in quotes if it could be taken for more than that
 */
void
put_word(FILE *out, const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+._@/:#";
	bool		quote = *text == '\0';

	for (const char *at = text; *at; at++)
		quote |= (unsigned char) *at < 0x80 && strchr(plain, *at) == NULL;
	if (quote)
		putc('"', out);
	put_escaped(out, text, "\"");
	if (quote)
		putc('"', out);
}

/* One message, in one write, so that it is not torn by those of others */
static void
say(const char *format, va_list arguments)
{
	char	   *raw;
	size_t		raw_size;
	char	   *text;
	size_t		size;
	FILE	   *out;
	char	   *line;
	char	   *rest;

	out = check_alloc(open_memstream(&raw, &raw_size));
	vfprintf(out, format, arguments);
	fclose(out);
	out = check_alloc(open_memstream(&text, &size));
	fputs(PROGRAM ":", out);
	for (line = strtok_r(raw, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
	{
		fputs(line == raw ? " " : "    ", out);
		put_escaped(out, line + strspn(line, " \t"), NULL);
		putc('\n', out);
	}
	fclose(out);
	if (write(STDERR_FILENO, text, size) < 0)
	{
		/* Nobody to tell. */
	}
	free(raw);
	free(text);
}

void
complain(const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
}

/* What only --verbose shows */
void
remark(const char *format,...)
{
	va_list		arguments;

	if (!options.verbose)
		return;
	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
}

/*
 * End with a message.  Called only while nothing waits to be written out: events
 * are flushed batch by batch.
 */
void
die(ExitCode code, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
	exit(code);
}

void *
check_alloc(void *memory)
{
	static const char message[] = PROGRAM ": out of memory\n";

	if (memory == NULL)
	{
		if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0)
		{
			/* Nobody to tell. */
		}
		_exit(EXIT_OUTPUT);
	}
	return memory;
}
