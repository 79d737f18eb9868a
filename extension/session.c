/*
 * session.c
 *	  The settings under which our own SQL is read and names are written.
 *
 * Our statements run in sessions of others, whose settings may say that a
 * backslash is an escape, that "= NULL" is a test, or that every name is quoted.
 * None of it may change what a statement of ours means, or the name that it
 * records.
 */
#include "rebate.h"

#include "parser/parse_expr.h"
#include "parser/parser.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "session.h"

static void
set(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

int
session_pin_names(void)
{
	int			level = NewGUCNestLevel();

	if (quote_all_identifiers)
		set("quote_all_identifiers", "off");
	return level;
}

/* All but the path are nearly always as we want them, and are set only if not. */
int
session_pin(void)
{
	int			level = session_pin_names();

	set("search_path", "pg_catalog, pg_temp");
	if (!strings_conform())
		set("standard_conforming_strings", "on");
	if (Transform_null_equals)
		set("transform_null_equals", "off");
	if (!Array_nulls)
		set("array_nulls", "on");
	return level;
}
