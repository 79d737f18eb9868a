/*
 * event.c
 *	  An event as a line for people, and its fields.
 */
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "listen.h"

/* A copy of a field; NULL if it is missing or null, or the event is no object */
char *
event_field(const char *event, const char *name)
{
	const char *value = json_is_object(event) ? json_find(event, name) : NULL;

	return value ? json_text(value) : NULL;
}

/* Write before, and a field as a word, if there is one */
static void
put_field(FILE *out, const char *event, const char *name, const char *before)
{
	char	   *text = event_field(event, name);

	if (text)
	{
		fputs(before, out);
		put_word(out, text);
	}
	free(text);
}

/* The columns of the order's key: " id=1 line=2" */
static void
put_order(FILE *out, const char *event)
{
	const char *order = json_find(event, "order");
	const char *value;
	char	   *key;

	if (order == NULL || *order != '{')
		return;
	while (json_next(&order, &key, &value))
	{
		char	   *text = json_text(value);

		putc(' ', out);
		put_word(out, key);
		putc('=', out);
		put_word(out, text ? text : "");
		free(key);
		free(text);
	}
}

/* The buckets that are not zero: "; now available 10.00, pending 3.00" */
static void
put_balance(FILE *out, const char *event)
{
	const char *balance = json_find(event, "balance");
	const char *between = " ";
	const char *value;
	char	   *key;

	if (balance == NULL || *balance != '{')
		return;
	fputs("; now", out);
	while (json_next(&balance, &key, &value))
	{
		char	   *text = json_text(value);

		if (text && text[strspn(text, "-0.")] != '\0')
		{
			fputs(between, out);
			put_word(out, key);
			putc(' ', out);
			put_word(out, text);
			between = ", ";
		}
		free(key);
		free(text);
	}
	if (strcmp(between, " ") == 0)
		fputs(" nothing", out);
}

/*
 * Write an event as one line for people.  One that is not understood is shown as it
 * came, escaped.
 */
void
event_print(FILE *out, const char *event)
{
	if (!json_is_object(event))
	{
		put_escaped(out, event, NULL);
		putc('\n', out);
		return;
	}
	put_field(out, event, "posted_at", "");
	put_field(out, event, "member", " ");
	putc(':', out);
	put_field(out, event, "kind", " ");
	put_field(out, event, "amount", " ");
	put_field(out, event, "currency", " ");
	put_field(out, event, "from", " from ");
	put_field(out, event, "to", " to ");
	put_field(out, event, "rule", ", rule ");
	put_field(out, event, "source", ", ");
	put_order(out, event);
	put_balance(out, event);
	putc('\n', out);
}
