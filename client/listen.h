/*
 * listen.h
 *	  What the files of rebate-listen share.
 */
#ifndef REBATE_LISTEN_H
#define REBATE_LISTEN_H

#include <stdbool.h>
#include <stdio.h>

#define PROGRAM "rebate-listen"
#define VERSION "0.2.0"

/* Exit codes; they are part of the manual */
typedef enum ExitCode
{
	EXIT_DONE = 0,				/* ended as asked */
	EXIT_USAGE = 1,
	EXIT_CONNECT = 2,			/* cannot connect, or the server fails */
	EXIT_CURSOR = 3,			/* cursor refused */
	EXIT_PERMISSION = 4,		/* no permission, or no extension */
	EXIT_LISTEN = 5,			/* cannot be followed on this connection */
	EXIT_EXEC = 6,				/* the command failed too often */
	EXIT_OUTPUT = 7				/* the file, or standard output */
} ExitCode;

typedef struct Options
{
	const char *host;
	const char *port;
	const char *user;
	const char *dbname;			/* name, connection string or URI */
	const char *member;			/* NULL: the whole feed */
	const char *from;			/* "now", "beginning" or a cursor */
	bool		json;
	const char *file;
	const char *command;
	long		exec_retries;	/* negative: without end */
	long		limit_rate;		/* reads a second */
	long		count;			/* 0: without end */
	bool		poll;
	bool		retry;
	bool		verbose;
} Options;

extern Options options;

/* options.c */
extern void options_parse(int argc, char **argv);

/*
 * message.c: what people read on standard error.  Control characters are shown
 * escaped, whoever sent them.
 */
extern void complain(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void remark(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void die(ExitCode code, const char *format,...) __attribute__((format(printf, 2, 3), noreturn));
extern void *check_alloc(void *memory);
extern void put_escaped(FILE *out, const char *text, const char *also);
extern void put_word(FILE *out, const char *text);

/* event.c */
extern void event_print(FILE *out, const char *event);
extern char *event_field(const char *event, const char *name);

/* output.c: standard output */
extern void output_line(const char *event);
extern void output_flush(void);

/* file.c */
extern char *file_open(const char *path);
extern void file_append(const char *cursor, const char *event);
extern void file_sync(void);

/* command.c */
extern bool command_run(const char *cursor, const char *event);

#endif							/* REBATE_LISTEN_H */
