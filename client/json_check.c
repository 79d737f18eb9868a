/*
 * json_check.c
 *	  Shows what json.c makes of each line of standard input: for the tests.
 *
 * "refused", or the members of the object as key=text, escaped, separated by " | ".
 */
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "listen.h"

Options		options;

int
main(void)
{
	static char line[65536];

	while (fgets(line, sizeof(line), stdin))
	{
		const char *at = line;
		const char *value;
		char	   *key;
		const char *between = "";

		line[strcspn(line, "\n")] = '\0';
		if (!json_is_object(line))
		{
			puts("refused");
			continue;
		}
		while (json_next(&at, &key, &value))
		{
			char	   *text = json_text(value);

			fputs(between, stdout);
			put_escaped(stdout, key, NULL);
			putchar('=');
			if (text)
				put_escaped(stdout, text, NULL);
			else
				fputs("(null)", stdout);
			between = " | ";
			free(key);
			free(text);
		}
		putchar('\n');
	}
	return 0;
}
