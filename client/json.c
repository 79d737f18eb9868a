/*
 * json.c
 *	  As much of JSON as an event needs.
 *
 * Text is checked as a whole, strictly, before anything is taken from it.  What is
 * refused beyond RFC 8259: U+0000 and lone surrogates, which no text of the server
 * can hold, and nesting deeper than MAX_DEPTH.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "listen.h"

#define MAX_DEPTH 16

static const char *skip_value(const char *at, int depth);

static const char *
skip_space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

/* Four hexadecimal digits, or -1 */
static long
hex4(const char *at)
{
	long		value = 0;

	for (int i = 0; i < 4; i++)
	{
		if (!isxdigit((unsigned char) at[i]))
			return -1;
		value = value * 16 + (isdigit((unsigned char) at[i]) ? at[i] - '0' : (at[i] | 0x20) - 'a' + 10);
	}
	return value;
}

/*
 * The character of an escape, of which *at is the letter after the backslash, and
 * steps over it; -1 if it is none
 */
static long
unescape(const char **at)
{
	static const char letters[] = "\"\\/bfnrt";
	static const char meant[] = "\"\\/\b\f\n\r\t";
	const char *letter;
	long		high;
	long		low;

	if (**at != 'u')
	{
		letter = **at ? strchr(letters, **at) : NULL;
		(*at)++;
		return letter ? meant[letter - letters] : -1;
	}
	high = hex4(*at + 1);
	if (high <= 0 || (high >= 0xDC00 && high <= 0xDFFF))
		return -1;
	*at += 5;
	if (high < 0xD800 || high > 0xDBFF)
		return high;
	if ((*at)[0] != '\\' || (*at)[1] != 'u')
		return -1;
	low = hex4(*at + 2);
	if (low < 0xDC00 || low > 0xDFFF)
		return -1;
	*at += 6;
	return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

/* Each function skip_... returns what follows, or NULL if what it looks for is not there */
static const char *
skip_string(const char *at)
{
	if (*at++ != '"')
		return NULL;
	while (*at != '"')
	{
		if ((unsigned char) *at < 0x20)
			return NULL;
		if (*at++ == '\\' && unescape(&at) < 0)
			return NULL;
	}
	return at + 1;
}

static const char *
skip_digits(const char *at)
{
	size_t		digits = strspn(at, "0123456789");

	return digits > 0 ? at + digits : NULL;
}

static const char *
skip_number(const char *at)
{
	if (*at == '-')
		at++;
	at = *at == '0' ? at + 1 : skip_digits(at);
	if (at && *at == '.')
		at = skip_digits(at + 1);
	if (at && (*at == 'e' || *at == 'E'))
	{
		at++;
		if (*at == '+' || *at == '-')
			at++;
		at = skip_digits(at);
	}
	return at;
}

static const char *
skip_word(const char *at)
{
	static const char *const words[] = {"true", "false", "null"};

	for (int i = 0; i < 3; i++)
		if (strncmp(at, words[i], strlen(words[i])) == 0)
			return at + strlen(words[i]);
	return NULL;
}

/* An object or an array, of which *at is the first character */
static const char *
skip_nested(const char *at, int depth)
{
	bool		object = *at == '{';
	char		end = object ? '}' : ']';

	if (depth > MAX_DEPTH)
		return NULL;
	at = skip_space(at + 1);
	if (*at == end)
		return at + 1;
	for (;;)
	{
		if (object)
		{
			at = skip_string(at);
			if (at == NULL)
				return NULL;
			at = skip_space(at);
			if (*at++ != ':')
				return NULL;
			at = skip_space(at);
		}
		at = skip_value(at, depth);
		if (at == NULL)
			return NULL;
		at = skip_space(at);
		if (*at == end)
			return at + 1;
		if (*at++ != ',')
			return NULL;
		at = skip_space(at);
	}
}

static const char *
skip_value(const char *at, int depth)
{
	switch (*at)
	{
		case '"':
			return skip_string(at);
		case '{':
		case '[':
			return skip_nested(at, depth + 1);
		case 't':
		case 'f':
		case 'n':
			return skip_word(at);
		default:
			return skip_number(at);
	}
}

bool
json_is_object(const char *text)
{
	const char *at = skip_space(text);

	if (*at != '{')
		return false;
	at = skip_value(at, 0);
	return at != NULL && *skip_space(at) == '\0';
}

static char *
put_utf8(char *out, long character)
{
	if (character < 0x80)
		*out++ = (char) character;
	else if (character < 0x800)
	{
		*out++ = (char) (0xC0 | (character >> 6));
		*out++ = (char) (0x80 | (character & 0x3F));
	}
	else if (character < 0x10000)
	{
		*out++ = (char) (0xE0 | (character >> 12));
		*out++ = (char) (0x80 | ((character >> 6) & 0x3F));
		*out++ = (char) (0x80 | (character & 0x3F));
	}
	else
	{
		*out++ = (char) (0xF0 | (character >> 18));
		*out++ = (char) (0x80 | ((character >> 12) & 0x3F));
		*out++ = (char) (0x80 | ((character >> 6) & 0x3F));
		*out++ = (char) (0x80 | (character & 0x3F));
	}
	return out;
}

/* The characters of a string; no escape is shorter than what it stands for */
static char *
string_text(const char *at)
{
	char	   *text = check_alloc(malloc((size_t) (skip_string(at) - at)));
	char	   *out = text;

	at++;
	while (*at != '"')
	{
		if (*at == '\\')
		{
			at++;
			out = put_utf8(out, unescape(&at));
		}
		else
			*out++ = *at++;
	}
	*out = '\0';
	return text;
}

bool
json_next(const char **at, char **key, const char **value)
{
	const char *next = skip_space(*at);

	/* The first character is that of an object, or of what follows a member. */
	if (*next == '{' || *next == ',')
		next = skip_space(next + 1);
	if (*next != '"')
		return false;
	*key = string_text(next);
	next = skip_space(skip_string(next));
	*value = skip_space(next + 1);
	*at = skip_value(*value, 0);
	return true;
}

const char *
json_find(const char *object, const char *key)
{
	char	   *name;
	const char *value;

	while (json_next(&object, &name, &value))
	{
		bool		found = strcmp(name, key) == 0;

		free(name);
		if (found)
			return value;
	}
	return NULL;
}

char *
json_text(const char *value)
{
	size_t		length;
	char	   *text;

	if (*value == 'n')
		return NULL;
	if (*value == '"')
		return string_text(value);
	length = (size_t) (skip_value(value, 0) - value);
	text = check_alloc(malloc(length + 1));
	memcpy(text, value, length);
	text[length] = '\0';
	return text;
}
