/*
 * json.h
 *	  As much of JSON as an event needs.
 */
#ifndef REBATE_LISTEN_JSON_H
#define REBATE_LISTEN_JSON_H

#include <stdbool.h>

/*
 * Is the text one JSON object, with nothing but white space around it?  The
 * functions below take only text that passed, or a value in it.
 */
extern bool json_is_object(const char *text);

/*
 * Step through the members of an object: *at is the object at first.  False after
 * the last.  The key is allocated.
 */
extern bool json_next(const char **at, char **key, const char **value);

/* The value of a member; NULL if there is none */
extern const char *json_find(const char *object, const char *key);

/*
 * A copy of a value: a string's characters, else the value as it is written; NULL
 * for null
 */
extern char *json_text(const char *value);

#endif							/* REBATE_LISTEN_JSON_H */
