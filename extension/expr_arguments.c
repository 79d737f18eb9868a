/*
 * expr_arguments.c
 *	  Arguments with which functions that are allowed are refused all the same.
 *
 * Time and result of an expression go by the length of the row: patterns are
 * constants that one pass over a text decides, and what makes texts longer does
 * so by a small factor, a few times.  No result depends on the session's locale.
 */
#include "expr_check_internal.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "regex/regex.h"
#include "regex/regexport.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* So many growing steps an expression: each multiplies by a small factor */
#define MAX_GROWING		4

/* A text that replaces another one may be so long, in bytes */
#define MAX_REPLACEMENT	8

/* Greatest length of a pattern, in bytes */
#define MAX_PATTERN_LENGTH	1024

/* Most states of a regular expression: each session compiles it, and walks over them for each character */
#define MAX_REGEX_STATES	1000

/* char(n) and bit(n) pad to n */
#define MAX_PADDED		8192

/* Immutable built-ins that multiply their input by a small factor */
static const char *const growing[] = {
	"encode", "json_object", "jsonb_object", "jsonb_pretty", "like_escape",
	"quote_ident", "quote_literal", "quote_nullable", "similar_escape",
	"similar_to_escape"
};

/* Built-ins that call the output functions of arguments of any type */
static const char *const any_output[] = {
	"anytextcat", "concat", "concat_ws", "textanycat"
};

/*
 * The text of a constant argument, or NULL.
 */
static char *
constant_text(List *args, int n)
{
	Node	   *arg;

	if (list_length(args) <= n)
		return NULL;
	arg = (Node *) list_nth(args, n);
	while (IsA(arg, RelabelType))
		arg = (Node *) ((RelabelType *) arg)->arg;
	if (!IsA(arg, Const) || ((Const *) arg)->constisnull ||
		(((Const *) arg)->consttype != TEXTOID &&
		 ((Const *) arg)->consttype != VARCHAROID))
		return NULL;
	return TextDatumGetCString(((Const *) arg)->constvalue);
}

/*
 * Length of the longest text constant in a tree.
 */
static bool
longest_constant(Node *node, void *arg)
{
	Size	   *longest = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Const) && !((Const *) node)->constisnull && ((Const *) node)->constlen == -1)
		*longest = Max(*longest, VARSIZE_ANY_EXHDR(DatumGetPointer(((Const *) node)->constvalue)));
	return expression_tree_walker(node, longest_constant, arg);
}

/*
 * The constant that a pattern is, NULL if it is none.  SIMILAR TO has a function
 * around its own.
 */
static Const *
pattern_constant(Node *node)
{
	for (;;)
	{
		if (IsA(node, RelabelType))
			node = (Node *) ((RelabelType *) node)->arg;
		else if (IsA(node, CollateExpr))
			node = (Node *) ((CollateExpr *) node)->arg;
		else if (IsA(node, FuncExpr) &&
				 (((FuncExpr *) node)->funcid == F_SIMILAR_TO_ESCAPE_TEXT ||
				  ((FuncExpr *) node)->funcid == F_SIMILAR_TO_ESCAPE_TEXT_TEXT))
			node = (Node *) linitial(((FuncExpr *) node)->args);
		else
			return IsA(node, Const) ? (Const *) node : NULL;
	}
}

/*
 * Does a regular expression refer back or look around?  The others are matched
 * in one pass over the text; these try again at each place, for hours if need
 * be, and nothing but a cancel ends them.
 */
static bool
regex_is_slow(const char *regex)
{
	for (; *regex != '\0'; regex++)
	{
		if (regex[0] == '\\' && regex[1] != '\0')
		{
			if (regex[1] >= '1' && regex[1] <= '9')
				return true;
			regex++;
		}
		else if (regex[0] == '(' && regex[1] == '?' &&
				 regex[2] != '\0' && strchr("=!<", regex[2]) != NULL)
			return true;
	}
	return false;
}

/*
 * How many states a regular expression has, its counted repetitions written out; in
 * whichever of the syntaxes that flags can ask for it has the most.
 */
static int
regex_states(const char *regex)
{
	static const int syntaxes[] = {REG_ADVANCED, REG_ADVANCED | REG_EXPANDED, REG_EXTENDED, REG_BASIC};
	size_t		length = strlen(regex);
	pg_wchar   *wide = palloc(sizeof(pg_wchar) * (length + 1));
	int			result = 0;

	length = pg_mb2wchar_with_len(regex, wide, length);
	for (int i = 0; i < (int) lengthof(syntaxes); i++)
	{
		regex_t		compiled;

		/* what is none fails where it is used */
		if (pg_regcomp(&compiled, wide, length, syntaxes[i], C_COLLATION_OID) == REG_OKAY)
		{
			result = Max(result, pg_reg_getnumstates(&compiled));
			pg_regfree(&compiled);
		}
		CHECK_FOR_INTERRUPTS();
	}
	pfree(wide);
	return result;
}

/*
 * Patterns.  A regular expression or JSON path is a constant, and of a kind
 * whose time goes by the length of what it is applied to.  What LIKE compares
 * with may come from the row, but is short then.  So is a value that a JSON path
 * goes through, since a path may visit it once for each of its own members.
 */
static void
check_pattern(CheckContext *context, Oid funcid, const char *name, List *args)
{
	bool		path;
	bool		like = strstr(name, "like") != NULL && strstr(name, "regex") == NULL;
	Node	   *pattern;
	Const	   *constant;
	Size		length = 0;
	char	   *source;

	if (list_length(args) < 2)
		return;
	pattern = (Node *) lsecond(args);
	path = exprType(pattern) == JSONPATHOID;
	if (!path && !like && strstr(name, "regex") == NULL &&
		!(strcmp(name, "substring") == 0 && exprType(pattern) == TEXTOID))
		return;

	if (like)
	{
		(void) longest_constant(pattern, &length);
		if (length > MAX_PATTERN_LENGTH)
			expr_forbid_function(context, funcid, _("Its pattern is too long."));
		if (contain_var_clause(pattern))
			context->max_length = MAX_PATTERN_LENGTH;
		return;
	}

	constant = pattern_constant(pattern);
	if (constant == NULL)
		expr_forbid_function(context, funcid, _("Its pattern must be a constant."));
	if (constant->constisnull)
		return;
	source = path ? OidOutputFunctionCall(F_JSONPATH_OUT, constant->constvalue) :
		TextDatumGetCString(constant->constvalue);
	if (strlen(source) > MAX_PATTERN_LENGTH)
		expr_forbid_function(context, funcid, _("Its pattern is too long."));
	if (path)
	{
		if (strstr(source, "**") != NULL || strstr(source, "like_regex") != NULL)
			expr_forbid_function(context, funcid,
							_("Its path has ** or like_regex, which may take too long."));
		context->max_length = MAX_PATTERN_LENGTH;
	}
	else if (regex_is_slow(source))
		expr_forbid_function(context, funcid,
						_("Its pattern refers back or looks around, which may take too long."));
	else if (regex_states(source) > MAX_REGEX_STATES)
		expr_forbid_function(context, funcid, _("Its pattern repeats too much."));
}

/*
 * Functions over any type compare by the functions of that type: it must be one
 * that we know.
 */
static void
check_actual_types(CheckContext *context, Oid funcid, List *args)
{
	ListCell   *lc;

	foreach(lc, args)
	{
		Oid			typid = exprType((Node *) lfirst(lc));

		if (!expr_type_is_allowed(getBaseType(typid)))
			expr_forbid_function(context, funcid, psprintf(_("It is used with type %s."),
													  format_type_be(typid)));
	}
}

/*
 * Count a step that multiplies its input.  Without a limit, nesting a few of
 * them would make gigabytes of a row.
 */
void
expr_count_growing(CheckContext *context)
{
	if (++context->growing > MAX_GROWING)
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("expression over an order uses more than %d functions whose results are longer than their arguments",
						MAX_GROWING),
				 parser_errposition(context->pstate,
									exprLocation(context->node))));
}

/*
 * Built-ins that are allowed with some arguments only: formats that read the
 * session's locale, padding, powers, and replacements.
 */
static void
check_builtin(CheckContext *context, Oid funcid, const char *name, Oid first_type, List *args)
{
	if (strcmp(name, "to_char") == 0 || strcmp(name, "to_date") == 0 ||
		strcmp(name, "to_timestamp") == 0 || strcmp(name, "to_number") == 0)
	{
		char	   *format;
		bool		number = strcmp(name, "to_number") == 0 ||
			first_type == INT4OID || first_type == INT8OID ||
			first_type == NUMERICOID || first_type == FLOAT4OID ||
			first_type == FLOAT8OID;

		/* to_timestamp(double precision) has no format */
		if (list_length(args) < 2)
			return;
		format = constant_text(args, 1);
		if (format == NULL)
			expr_forbid_function(context, funcid, _("Its format must be a constant."));
		if (number ? strpbrk(format, "DdGgLlSs") != NULL :
			strstr(format, "TM") != NULL || strstr(format, "tm") != NULL ||
			strstr(format, "Tm") != NULL || strstr(format, "tM") != NULL)
			expr_forbid_function(context, funcid, number ?
							_("Formats D, G, L and S depend on the locale of the session.") :
							_("Format TM depends on the locale of the session."));
	}
	else if (strcmp(name, "replace") == 0 ||
			 strcmp(name, "regexp_replace") == 0)
	{
		char	   *from = name[2] == 'p' ? constant_text(args, 1) : NULL;
		char	   *to = constant_text(args, 2);

		if (to == NULL)
			expr_forbid_function(context, funcid, _("Its replacement must be a constant."));
		if (from != NULL && strlen(to) <= strlen(from))
			return;
		if (strlen(to) > MAX_REPLACEMENT)
			expr_forbid_function(context, funcid, _("Its replacement is too long."));
		expr_count_growing(context);
	}
	else if ((strcmp(name, "bpchar") == 0 || strcmp(name, "bit") == 0) &&
			 list_length(args) > 1)
	{
		Node	   *length = (Node *) lsecond(args);

		if (!IsA(length, Const) || ((Const *) length)->constisnull ||
			DatumGetInt32(((Const *) length)->constvalue) > MAX_PADDED)
			expr_forbid_function(context, funcid, _("It pads to too great a length."));
	}
	else if (first_type == NUMERICOID &&
			 (strcmp(name, "power") == 0 || strcmp(name, "pow") == 0 ||
			  strcmp(name, "numeric_power") == 0))
		expr_forbid_function(context, funcid,
						_("Its result may have too many digits. Cast to double precision."));
	else if (first_type == NUMERICOID && (strcmp(name, "gcd") == 0 || strcmp(name, "lcm") == 0))
		expr_forbid_function(context, funcid, _("It takes too long for numbers with many digits."));

	if (IN_LIST(name, any_output))
	{
		ListCell   *lc;

		foreach(lc, args)
		{
			Oid			typid = exprType((Node *) lfirst(lc));

			if (!expr_scalar_is_allowed(getBaseType(typid)))
				expr_forbid_function(context, funcid,
								psprintf(_("It makes a text of type %s."),
										 format_type_be(typid)));
		}
	}
}

void
expr_check_arguments(CheckContext *context, Oid funcid, const char *name, bool builtin,
					 Oid first_type, List *args)
{
	check_actual_types(context, funcid, args);
	check_pattern(context, funcid, name, args);
	if (!builtin)
		return;
	if (IN_LIST(name, growing))
		expr_count_growing(context);
	check_builtin(context, funcid, name, first_type, args);
}
