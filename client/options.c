/*
 * options.c
 *	  The command line.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "listen.h"

Options		options = {
	.from = "now",
	.exec_retries = -1,
	.limit_rate = 50
};

enum
{
	OPTION_MEMBER = 256,
	OPTION_FROM,
	OPTION_FORMAT,
	OPTION_FILE,
	OPTION_EXEC,
	OPTION_EXEC_RETRIES,
	OPTION_LIMIT_RATE,
	OPTION_COUNT,
	OPTION_POLL,
	OPTION_RETRY,
	OPTION_VERBOSE
};

static const struct option long_options[] = {
	{"host", required_argument, NULL, 'h'},
	{"port", required_argument, NULL, 'p'},
	{"username", required_argument, NULL, 'U'},
	{"dbname", required_argument, NULL, 'd'},
	{"member", required_argument, NULL, OPTION_MEMBER},
	{"from", required_argument, NULL, OPTION_FROM},
	{"format", required_argument, NULL, OPTION_FORMAT},
	{"file", required_argument, NULL, OPTION_FILE},
	{"exec", required_argument, NULL, OPTION_EXEC},
	{"exec-retries", required_argument, NULL, OPTION_EXEC_RETRIES},
	{"limit-rate", required_argument, NULL, OPTION_LIMIT_RATE},
	{"count", required_argument, NULL, OPTION_COUNT},
	{"poll", no_argument, NULL, OPTION_POLL},
	{"retry", no_argument, NULL, OPTION_RETRY},
	{"verbose", no_argument, NULL, OPTION_VERBOSE},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, '?'},
	{NULL, 0, NULL, 0}
};

static const char help[] =
PROGRAM " follows the rebates of a member, or of all, and prints each event once.\n"
"\n"
"Usage:\n"
"  " PROGRAM " [OPTION]... [DBNAME | CONNECTION STRING | URI]\n"
"\n"
"What to follow:\n"
"  --member=NAME         the events of this member (default: all events)\n"
"  --from=now            what comes from now on (default)\n"
"  --from=beginning      everything\n"
"  --from=CURSOR         what comes after the place of a cursor\n"
"\n"
"What to do with an event:\n"
"  --format=text|json    print a line for people (default), or the event, one a line\n"
"  --file=FILE           append \"cursor TAB event\" to FILE instead, and go on from its\n"
"                        last line after a restart; --from counts while FILE is empty\n"
"  --exec=COMMAND        run COMMAND instead, with the event on standard input and\n"
"                        REBATE_CURSOR, REBATE_MEMBER, REBATE_CURRENCY, REBATE_SEQ,\n"
"                        REBATE_KIND, REBATE_AMOUNT in the environment; the next event\n"
"                        comes when it has exited with 0; with --file, then the line\n"
"  --exec-retries=N      give up after N more attempts (default: never)\n"
"  --count=N             end after N events\n"
"\n"
"How:\n"
"  --poll                read every second, without LISTEN (for poolers)\n"
"  --limit-rate=N        at most N reads a second (default: 50)\n"
"  --retry               try again when the first connection fails, too\n"
"  --verbose             tell what happens\n"
"\n"
"Connection:\n"
"  -h, --host=HOST       server's host or directory of its socket\n"
"  -p, --port=PORT       server's port\n"
"  -U, --username=NAME   user\n"
"  -d, --dbname=DBNAME   database, connection string or URI\n"
"The rest, and what is not given, is taken from the PG* environment and ~/.pgpass.\n"
"\n"
"  -V, --version         show the version\n"
"  -?, --help            show this\n"
"\n"
"Exit codes:\n"
"  0  ended as asked: --count, SIGINT, SIGTERM\n"
"  1  wrong usage\n"
"  2  cannot connect, or the server failed before the first read\n"
"  3  the cursor was refused: the server has another history\n"
"  4  no permission, or the extension or its store is missing\n"
"  5  cannot be followed here: a pooler is between, or the feed is read on a standby\n"
"  6  the command of --exec failed too often\n"
"  7  the file, or standard output, cannot be used\n";

static void
wrong_usage(const char *what, const char *value)
{
	complain(what, value);
	complain("try \"%s --help\"", PROGRAM);
	exit(EXIT_USAGE);
}

static long
number(const char *text, long least, const char *what)
{
	char	   *end;
	long		value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value < least)
		wrong_usage(what, text);
	return value;
}

static void
show_and_exit(const char *text)
{
	if (fputs(text, stdout) < 0 || fflush(stdout) != 0)
		exit(EXIT_OUTPUT);
	exit(EXIT_DONE);
}

static void
take_option(int option, char *value, bool help_asked)
{
	switch (option)
	{
		case 'h':
			options.host = value;
			break;
		case 'p':
			options.port = value;
			break;
		case 'U':
			options.user = value;
			break;
		case 'd':
			options.dbname = value;
			break;
		case 'V':
			show_and_exit(PROGRAM " (rebate) " VERSION "\n");
			break;
		case OPTION_MEMBER:
			options.member = value;
			break;
		case OPTION_FROM:
			options.from = value;
			break;
		case OPTION_FORMAT:
			options.json = strcmp(value, "json") == 0;
			if (!options.json && strcmp(value, "text") != 0)
				wrong_usage("--format is text or json, not \"%s\"", value);
			break;
		case OPTION_FILE:
			options.file = value;
			break;
		case OPTION_EXEC:
			options.command = value;
			break;
		case OPTION_EXEC_RETRIES:
			options.exec_retries = number(value, 0, "--exec-retries is a number from 0 on, not \"%s\"");
			break;
		case OPTION_LIMIT_RATE:
			options.limit_rate = number(value, 1, "--limit-rate is a number from 1 on, not \"%s\"");
			break;
		case OPTION_COUNT:
			options.count = number(value, 1, "--count is a number from 1 on, not \"%s\"");
			break;
		case OPTION_POLL:
			options.poll = true;
			break;
		case OPTION_RETRY:
			options.retry = true;
			break;
		case OPTION_VERBOSE:
			options.verbose = true;
			break;
		default:
			/* getopt returns the same for -? and for what it does not know. */
			if (help_asked)
				show_and_exit(help);
			wrong_usage("%s", "the command line is not understood");
	}
}

/* Set options from the command line, or end with a message */
void
options_parse(int argc, char **argv)
{
	int			option;

	/* Messages are ours; the first colon also tells a missing value. */
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h:p:U:d:V?", long_options, NULL)) != -1)
	{
		const char *word = argv[optind - 1];

		if (option == ':')
			wrong_usage("option \"%s\" needs a value", word);
		take_option(option, optarg, strcmp(word, "-?") == 0 || (strncmp(word, "--h", 3) == 0 && optopt == 0));
	}
	if (optind < argc && options.dbname == NULL)
		options.dbname = argv[optind++];
	if (optind < argc)
		wrong_usage("there is no place for argument \"%s\"", argv[optind]);
	if (*options.from == '\0')
		wrong_usage("%s", "--from is empty");
	if (options.exec_retries >= 0 && options.command == NULL)
		wrong_usage("%s", "--exec-retries goes with --exec");
}
