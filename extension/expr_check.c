/*
 * expr_check.c
 *	  Which SQL an expression over an order may use.
 *
 * An expression runs as the owner of the store, in the transaction of somebody
 * else, and must give the same result for the same row for ever.  So it may use
 * - the immutable built-ins written in C, but for those whose result is not
 *   bounded by their input;
 * - stable ones that read no more than settings that expr_begin() pins;
 * - the functions of the extension citext, written in C;
 * - what a superuser has allowed, see allow.c.
 * Everything else is refused, new kinds of nodes included.  That a function is
 * "not volatile" says nothing: its author declares it.
 */
#include "expr_check.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "allow.h"
#include "canon.h"
#include "catalog/dependency.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* So many growing steps an expression: each multiplies by a small factor */
#define MAX_GROWING		4

/* A text that replaces another one may be so long, in bytes */
#define MAX_REPLACEMENT	8

/* Greatest lengths of a value in an expression, and of a pattern, in bytes */
#define MAX_VALUE_LENGTH	65536
#define MAX_PATTERN_LENGTH	1024

/* char(n) and bit(n) pad to n */
#define MAX_PADDED		8192

typedef struct CheckContext
{
	ParseState *pstate;
	Bitmapset  *attnos;
	int			growing;
	int			max_length;
	Node	   *node;			/* whose functions are being checked */
} CheckContext;

/* All lists of names are sorted for bsearch() */

/* Immutable built-ins that are refused all the same */
static const char *const denied[] = {
	"array_fill", "factorial", "jsonb_path_query_array", "lpad",
	"postgresql_fdw_validator", "repeat", "rpad", "satisfies_hash_partition",
	"xml_is_well_formed_content", "xml_is_well_formed_document"
};

/* Immutable built-ins that multiply their input by a small factor */
static const char *const growing[] = {
	"encode", "json_object", "jsonb_object", "jsonb_pretty", "like_escape",
	"quote_ident", "quote_literal", "quote_nullable", "similar_escape",
	"similar_to_escape"
};

/* Stable built-ins that read pinned settings only */
static const char *const stable[] = {
	"concat", "concat_ws", "date", "date_add", "date_cmp_timestamptz",
	"date_eq_timestamptz", "date_ge_timestamptz", "date_gt_timestamptz",
	"date_le_timestamptz", "date_lt_timestamptz", "date_ne_timestamptz",
	"date_part", "date_subtract", "date_trunc", "extract", "make_timestamptz",
	"time", "timestamp", "timestamp_cmp_timestamptz",
	"timestamp_eq_timestamptz", "timestamp_ge_timestamptz",
	"timestamp_gt_timestamptz", "timestamp_le_timestamptz",
	"timestamp_lt_timestamptz", "timestamp_ne_timestamptz", "timestamptz",
	"timestamptz_cmp_date", "timestamptz_cmp_timestamp", "timestamptz_eq_date",
	"timestamptz_eq_timestamp", "timestamptz_ge_date",
	"timestamptz_ge_timestamp", "timestamptz_gt_date",
	"timestamptz_gt_timestamp", "timestamptz_le_date",
	"timestamptz_le_timestamp", "timestamptz_lt_date",
	"timestamptz_lt_timestamp", "timestamptz_mi_interval",
	"timestamptz_ne_date", "timestamptz_ne_timestamp",
	"timestamptz_pl_interval", "timetz", "timezone", "to_char", "to_date",
	"to_number", "to_timestamp"
};

/* Built-ins written in SQL, over built-ins that are allowed */
static const char *const in_sql[] = {
	"anytextcat", "bit_length", "date_part", "int8pl_inet", "integer_pl_date",
	"interval_pl_date", "interval_pl_time", "interval_pl_timestamp",
	"interval_pl_timestamptz", "interval_pl_timetz", "log", "log10",
	"overlaps", "round", "substring", "textanycat", "timedate_pl",
	"timestamptz", "timetzdate_pl", "trunc"
};

/* Built-ins that call the output functions of arguments of any type */
static const char *const any_output[] = {
	"anytextcat", "concat", "concat_ws", "textanycat"
};

/* Built-ins that tell the time, for a better hint */
static const char *const clocks[] = {
	"clock_timestamp", "now", "statement_timestamp", "timeofday",
	"transaction_timestamp"
};

#define IN_LIST(name, list) in_list(name, list, lengthof(list))

/*
 * Comparison for in_list().
 */
static int
compare_names(const void *a, const void *b)
{
	return strcmp((const char *) a, *(const char *const *) b);
}

/*
 * Is a name in a sorted list?
 */
static bool
in_list(const char *name, const char *const *list, size_t length)
{
	return bsearch(name, list, length, sizeof(list[0]), compare_names) != NULL;
}

/*
 * Raise RB004 for a construct, at the place of its node.
 */
static void
forbid(CheckContext *context, Node *node, const char *construct)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
			 errmsg("%s is not allowed in an expression over an order",
					construct),
			 parser_errposition(context->pstate, exprLocation(node))));
}

/*
 * Raise RB004 for the function behind a node, under the name its author used.
 */
static void
forbid_function(CheckContext *context, Oid funcid, const char *detail)
{
	Node	   *node = context->node;
	char	   *name = get_func_name(funcid);
	bool		is_operator = IsA(node, OpExpr) || IsA(node, DistinctExpr) ||
		IsA(node, NullIfExpr);
	bool		is_clock = name != NULL && (IN_LIST(name, clocks) ||
											(strcmp(name, "age") == 0 &&
											 get_func_nargs(funcid) == 1));

	ereport(ERROR,
			(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
			 is_operator ?
			 errmsg("operator %s is not allowed in an expression over an order",
					format_operator(((OpExpr *) node)->opno)) :
			 errmsg("function %s is not allowed in an expression over an order",
					format_procedure(funcid)),
			 detail ? errdetail_internal("%s", detail) :
			 errdetail("Expressions may use immutable built-in functions, and stable ones that depend on the row and on the programme's time zone only."),
			 is_clock ? errhint("Map an order time and refer to its column.") : 0,
			 parser_errposition(context->pstate, exprLocation(node))));
}

/*
 * Types whose input and output functions are harmless: built-in, without
 * catalog lookups of their own, reading pinned settings only.
 */
static bool
scalar_is_allowed(Oid typid)
{
	switch (typid)
	{
		case BOOLOID:
		case BYTEAOID:
		case CHAROID:
		case NAMEOID:
		case INT8OID:
		case INT2OID:
		case INT4OID:
		case TEXTOID:
		case OIDOID:
		case JSONOID:
		case JSONBOID:
		case JSONPATHOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case MACADDROID:
		case MACADDR8OID:
		case INETOID:
		case CIDROID:
		case BPCHAROID:
		case VARCHAROID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case BITOID:
		case VARBITOID:
		case NUMERICOID:
		case UUIDOID:
		case UNKNOWNOID:
			return true;
		default:
			return get_typtype(typid) == TYPTYPE_ENUM || type_is_citext(typid);
	}
}

/*
 * As scalar_is_allowed(), but arrays of such and built-in ranges as well.
 */
static bool
type_is_allowed(Oid typid)
{
	Oid			element = get_element_type(typid);
	char		typtype;

	if (OidIsValid(element))
		typid = element;
	if (scalar_is_allowed(typid))
		return true;
	typtype = get_typtype(typid);
	return typid < FirstNormalObjectId &&
		(typtype == TYPTYPE_RANGE || typtype == TYPTYPE_MULTIRANGE);
}

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
 * Does a type hold domains inside, see the header.
 */
bool
type_hides_domain(Oid typid)
{
	Oid			base = getBaseType(typid);
	Oid			inner = get_element_type(base);
	bool		result = false;

	check_stack_depth();
	if (!OidIsValid(inner) && get_typtype(base) == TYPTYPE_RANGE)
		inner = get_range_subtype(base);
	if (!OidIsValid(inner) && get_typtype(base) == TYPTYPE_MULTIRANGE)
		inner = get_range_subtype(get_multirange_range(base));
	if (OidIsValid(inner))
		return get_typtype(inner) == TYPTYPE_DOMAIN || type_hides_domain(inner);
	if (get_typtype(base) == TYPTYPE_COMPOSITE)
	{
		TupleDesc	desc = lookup_rowtype_tupdesc(base, -1);

		for (int i = 0; !result && i < desc->natts; i++)
		{
			Oid			field = TupleDescAttr(desc, i)->atttypid;

			result = !TupleDescAttr(desc, i)->attisdropped &&
				(get_typtype(field) == TYPTYPE_DOMAIN || type_hides_domain(field));
		}
		ReleaseTupleDesc(desc);
	}
	return result;
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
			forbid_function(context, funcid, _("Its pattern is too long."));
		if (contain_var_clause(pattern))
			context->max_length = MAX_PATTERN_LENGTH;
		return;
	}

	constant = pattern_constant(pattern);
	if (constant == NULL)
		forbid_function(context, funcid, _("Its pattern must be a constant."));
	if (constant->constisnull)
		return;
	source = path ? OidOutputFunctionCall(F_JSONPATH_OUT, constant->constvalue) :
		TextDatumGetCString(constant->constvalue);
	if (strlen(source) > MAX_PATTERN_LENGTH)
		forbid_function(context, funcid, _("Its pattern is too long."));
	if (path)
	{
		if (strstr(source, "**") != NULL || strstr(source, "like_regex") != NULL)
			forbid_function(context, funcid,
							_("Its path has ** or like_regex, which may take too long."));
		context->max_length = MAX_PATTERN_LENGTH;
	}
	else if (regex_is_slow(source))
		forbid_function(context, funcid,
						_("Its pattern refers back or looks around, which may take too long."));
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

		if (!type_is_allowed(getBaseType(typid)))
			forbid_function(context, funcid, psprintf(_("It is used with type %s."),
													  format_type_be(typid)));
	}
}

/*
 * Count a step that multiplies its input.  Without a limit, nesting a few of
 * them would make gigabytes of a row.
 */
static void
count_growing(CheckContext *context)
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
check_arguments(CheckContext *context, Oid funcid, const char *name,
				Oid first_type, List *args)
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
			forbid_function(context, funcid, _("Its format must be a constant."));
		if (number ? strpbrk(format, "DdGgLlSs") != NULL :
			strstr(format, "TM") != NULL || strstr(format, "tm") != NULL ||
			strstr(format, "Tm") != NULL || strstr(format, "tM") != NULL)
			forbid_function(context, funcid, number ?
							_("Formats D, G, L and S depend on the locale of the session.") :
							_("Format TM depends on the locale of the session."));
	}
	else if (strcmp(name, "replace") == 0 ||
			 strcmp(name, "regexp_replace") == 0)
	{
		char	   *from = name[2] == 'p' ? constant_text(args, 1) : NULL;
		char	   *to = constant_text(args, 2);

		if (to == NULL)
			forbid_function(context, funcid, _("Its replacement must be a constant."));
		if (from != NULL && strlen(to) <= strlen(from))
			return;
		if (strlen(to) > MAX_REPLACEMENT)
			forbid_function(context, funcid, _("Its replacement is too long."));
		count_growing(context);
	}
	else if ((strcmp(name, "bpchar") == 0 || strcmp(name, "bit") == 0) &&
			 list_length(args) > 1)
	{
		Node	   *length = (Node *) lsecond(args);

		if (!IsA(length, Const) || ((Const *) length)->constisnull ||
			DatumGetInt32(((Const *) length)->constvalue) > MAX_PADDED)
			forbid_function(context, funcid, _("It pads to too great a length."));
	}
	else if (first_type == NUMERICOID &&
			 (strcmp(name, "power") == 0 || strcmp(name, "pow") == 0 ||
			  strcmp(name, "numeric_power") == 0))
		forbid_function(context, funcid,
						_("Its result may have too many digits. Cast to double precision."));

	if (IN_LIST(name, any_output))
	{
		ListCell   *lc;

		foreach(lc, args)
		{
			Oid			typid = exprType((Node *) lfirst(lc));

			if (!scalar_is_allowed(getBaseType(typid)))
				forbid_function(context, funcid,
								psprintf(_("It makes a text of type %s."),
										 format_type_be(typid)));
		}
	}
}

/*
 * Arguments of a node that calls a function.
 */
static List *
node_arguments(Node *node)
{
	switch (nodeTag(node))
	{
		case T_FuncExpr:
			return ((FuncExpr *) node)->args;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			return ((OpExpr *) node)->args;
		case T_ScalarArrayOpExpr:
			return ((ScalarArrayOpExpr *) node)->args;
		case T_RowCompareExpr:
			return list_concat_copy(((RowCompareExpr *) node)->largs,
									((RowCompareExpr *) node)->rargs);
		case T_MinMaxExpr:
			return ((MinMaxExpr *) node)->args;
		default:
			return NIL;
	}
}

/*
 * Refuse a function that is not on the allow list.  Called for each function
 * of a node; always returns false, so that the search goes on.
 */
static bool
check_function(Oid funcid, void *arg)
{
	CheckContext *context = arg;
	HeapTuple	tuple;
	Form_pg_proc proc;
	char		name[NAMEDATALEN];
	Oid			first_type;
	bool		builtin;
	bool		allowed;
	List	   *args;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	strlcpy(name, NameStr(proc->proname), NAMEDATALEN);
	first_type = proc->pronargs > 0 ? proc->proargtypes.values[0] : InvalidOid;
	builtin = funcid < FirstNormalObjectId &&
		proc->pronamespace == PG_CATALOG_NAMESPACE;

	allowed = proc->prokind == PROKIND_FUNCTION && !proc->proretset &&
		!proc->prosecdef;
	if (allowed && builtin)
	{
		if (proc->prolang == SQLlanguageId)
			allowed = IN_LIST(name, in_sql) &&
				proc->provolatile != PROVOLATILE_VOLATILE;
		else if (proc->prolang != INTERNALlanguageId)
			allowed = false;
		else if (proc->provolatile == PROVOLATILE_IMMUTABLE)
			allowed = !IN_LIST(name, denied) && strncmp(name, "pg_", 3) != 0;
		else
			allowed = proc->provolatile == PROVOLATILE_STABLE &&
				IN_LIST(name, stable);
	}
	else if (allowed)
	{
		Oid			extension = get_extension_oid("citext", true);

		allowed = OidIsValid(extension) &&
			proc->provolatile == PROVOLATILE_IMMUTABLE &&
			(proc->prolang == INTERNALlanguageId ||
			 proc->prolang == ClanguageId) &&
			getExtensionOfObject(ProcedureRelationId, funcid) == extension;
	}

	/*
	 * The types of the signature leave out, in one go, what works on internal
	 * state, relations, text search configurations, XML and so on.
	 */
	for (int i = 0; allowed && i <= proc->pronargs; i++)
	{
		Oid			typid = i < proc->pronargs ?
			proc->proargtypes.values[i] : proc->prorettype;

		allowed = IsPolymorphicType(typid) || typid == ANYOID ||
			type_is_allowed(typid);
	}
	ReleaseSysCache(tuple);

	if (!allowed && !builtin)
		allowed = function_is_allowed(funcid);
	if (!allowed)
		forbid_function(context, funcid,
						builtin && IN_LIST(name, denied) ?
						_("Its result may be out of proportion to its arguments.") : NULL);
	args = node_arguments(context->node);
	check_actual_types(context, funcid, args);
	check_pattern(context, funcid, name, args);
	if (builtin)
	{
		if (IN_LIST(name, growing))
			count_growing(context);
		check_arguments(context, funcid, name, first_type, args);
	}
	return false;
}

/*
 * A cast through texts: both types' functions must be harmless.
 */
static void
check_io_cast(CheckContext *context, CoerceViaIO *cast)
{
	Oid			from = getBaseType(exprType((Node *) cast->arg));
	Oid			to = getBaseType(cast->resulttype);

	if (!scalar_is_allowed(from) || !scalar_is_allowed(to))
		forbid(context, (Node *) cast,
			   psprintf(_("a cast from %s to %s"),
						format_type_be(from), format_type_be(to)));
	if (from == BYTEAOID || from == JSONOID || from == JSONBOID ||
		from == JSONPATHOID)
		count_growing(context);
}

/*
 * Refuse 'now' and the like as a time: it would be the moment of the check for
 * ever, which is hardly what its author means.
 */
static void
check_clock_literal(CheckContext *context, Const *constant)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};
	const char *source = context->pstate->p_sourcetext;

	if (constant->location < 0 ||
		(constant->consttype != DATEOID && constant->consttype != TIMEOID &&
		 constant->consttype != TIMETZOID &&
		 constant->consttype != TIMESTAMPOID &&
		 constant->consttype != TIMESTAMPTZOID))
		return;
	source += constant->location;
	source += strspn(source, "' \t\n");
	for (int i = 0; i < (int) lengthof(words); i++)
	{
		if (pg_strncasecmp(source, words[i], strlen(words[i])) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
					 errmsg("constant \"%s\" is not allowed in an expression over an order",
							words[i]),
					 errhint("Map an order time and refer to its column."),
					 parser_errposition(context->pstate, constant->location)));
	}
}

/*
 * Refuse what is not allowed in a transformed tree, collecting its columns.
 */
static bool
forbid_walker(Node *node, void *arg)
{
	CheckContext *context = arg;

	if (node == NULL)
		return false;
	context->node = node;

	switch (nodeTag(node))
	{
		case T_Var:
			{
				Var		   *var = (Var *) node;

				if (var->varattno == 0)
					forbid(context, node, _("a reference to the whole row"));
				if (var->varattno < 0)
					forbid(context, node, _("a system column"));
				context->attnos = bms_add_member(context->attnos, var->varattno);
				return false;
			}
		case T_Const:
			check_clock_literal(context, (Const *) node);
			if (!type_is_allowed(((Const *) node)->consttype))
				forbid(context, node,
					   psprintf(_("a constant of type %s"),
								format_type_be(((Const *) node)->consttype)));
			return false;
		case T_FuncExpr:
			if (((FuncExpr *) node)->funcretset)
				forbid(context, node, _("a set-returning function"));
			check_functions_in_node(node, check_function, context);
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			if (((OpExpr *) node)->opretset)
				forbid(context, node, _("a set-returning operator"));
			check_functions_in_node(node, check_function, context);
			break;
		case T_ScalarArrayOpExpr:
		case T_RowCompareExpr:
			check_functions_in_node(node, check_function, context);
			break;
		case T_MinMaxExpr:
			{
				TypeCacheEntry *type;

				type = lookup_type_cache(((MinMaxExpr *) node)->minmaxtype,
										 TYPECACHE_CMP_PROC);
				if (OidIsValid(type->cmp_proc))
					check_function(type->cmp_proc, context);
				break;
			}
		case T_CoerceViaIO:
			check_io_cast(context, (CoerceViaIO *) node);
			break;
		case T_SubscriptingRef:
			if (!type_is_allowed(((SubscriptingRef *) node)->refcontainertype))
				forbid(context, node, _("a subscript of a type that is not built in"));
			break;
		case T_CoerceToDomain:
			/* its checks may be changed at any time, and call anything */
			forbid(context, node,
				   psprintf(_("a cast to the domain %s"),
							format_type_be(((CoerceToDomain *) node)->resulttype)));
			break;
		case T_Aggref:
		case T_GroupingFunc:
			forbid(context, node, _("an aggregate function"));
			break;
		case T_WindowFunc:
			forbid(context, node, _("a window function"));
			break;
		case T_SubLink:
			forbid(context, node, _("a subquery"));
			break;
		case T_SQLValueFunction:
			ereport(ERROR,
					(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
					 errmsg("the time, user or schema of the session is not allowed in an expression over an order"),
					 errhint("Map an order time and refer to its column."),
					 parser_errposition(context->pstate, exprLocation(node))));
			break;
		case T_XmlExpr:
			forbid(context, node, _("an XML function"));
			break;
		case T_RowExpr:
			forbid(context, node, _("a row constructor"));
			break;
		case T_List:
		case T_NamedArgExpr:
		case T_BoolExpr:
		case T_FieldSelect:
		case T_RelabelType:
		case T_ArrayCoerceExpr:
		case T_CollateExpr:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_ArrayExpr:
		case T_CoalesceExpr:
		case T_NullTest:
		case T_BooleanTest:
			break;
		default:
			forbid(context, node, _("this construct"));
			break;
	}
	return expression_tree_walker(node, forbid_walker, context);
}

/*
 * Check a transformed expression, see the header.
 */
Bitmapset *
expr_forbid(ParseState *pstate, Node *tree, int *max_length)
{
	CheckContext context = {0};

	context.pstate = pstate;
	context.max_length = MAX_VALUE_LENGTH;
	forbid_walker(tree, &context);
	*max_length = context.max_length;
	return context.attnos;
}

/*
 * Walk the raw tree, see expr_forbid_raw().
 */
static bool
raw_walker(Node *node, void *arg)
{
	CheckContext *context = arg;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_SubLink:
			forbid(context, node, _("a subquery"));
			break;
		case T_ParamRef:
			forbid(context, node, _("a parameter"));
			break;
		case T_TypeCast:
			{
				TypeName   *name = ((TypeCast *) node)->typeName;
				Oid			typid = typenameTypeId(context->pstate, name);

				/* analysis may call its input function, which may be anybody's */
				if (!type_is_allowed(typid))
					ereport(ERROR,
							(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
							 errmsg("a cast to type %s is not allowed in an expression over an order",
									format_type_be(typid)),
							 parser_errposition(context->pstate,
												name->location)));
				break;
			}
		default:
			break;
	}
	return raw_expression_tree_walker(node, raw_walker, context);
}

/*
 * Check an expression before analysis, see the header.
 */
void
expr_forbid_raw(ParseState *pstate, Node *raw)
{
	CheckContext context = {0};

	context.pstate = pstate;
	raw_walker(raw, &context);
}
