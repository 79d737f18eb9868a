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
#include "expr_check_internal.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "allow.h"
#include "catalog/dependency.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* Deepest nesting of what a person writes */
#define MAX_DEPTH	200

/* Immutable built-ins that are refused all the same */
static const char *const denied[] = {
	"array_fill", "factorial", "jsonb_path_query_array", "lpad",
	"postgresql_fdw_validator", "repeat", "rpad", "satisfies_hash_partition",
	"xml_is_well_formed_content", "xml_is_well_formed_document"
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

/* Built-ins that tell the time, for a better hint */
static const char *const clocks[] = {
	"clock_timestamp", "now", "statement_timestamp", "timeofday",
	"transaction_timestamp"
};

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
bool
expr_in_list(const char *name, const char *const *list, size_t length)
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
void
expr_forbid_function(CheckContext *context, Oid funcid, const char *detail)
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
			expr_type_is_allowed(typid);
	}
	ReleaseSysCache(tuple);

	if (!allowed && !builtin)
		allowed = function_is_allowed(funcid);
	if (!allowed)
		expr_forbid_function(context, funcid,
						builtin && IN_LIST(name, denied) ?
						_("Its result may be out of proportion to its arguments.") : NULL);
	args = node_arguments(context->node);
	expr_check_arguments(context, funcid, name, builtin, first_type, args);
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

	if (!expr_scalar_is_allowed(from) || !expr_scalar_is_allowed(to))
		forbid(context, (Node *) cast,
			   psprintf(_("a cast from %s to %s"),
						format_type_be(from), format_type_be(to)));
	if (from == BYTEAOID || from == JSONOID || from == JSONBOID ||
		from == JSONPATHOID)
		expr_count_growing(context);
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
			if (!expr_type_is_allowed(((Const *) node)->consttype))
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
			if (!expr_type_is_allowed(((SubscriptingRef *) node)->refcontainertype))
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
 * Raise RB004 for an expression that is nested too deep.
 */
static bool
depth_walker(Node *node, void *arg)
{
	CheckContext *context = arg;
	bool		result;

	if (node == NULL)
		return false;
	if (++context->depth > MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("expression over an order is nested more than %d levels deep", MAX_DEPTH)));
	result = expression_tree_walker(node, depth_walker, context);
	context->depth--;
	return result;
}

/*
 * Check the depth of a transformed expression, see the header.
 */
void
expr_check_depth(Node *tree)
{
	CheckContext context = {0};

	(void) depth_walker(tree, &context);
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
				if (!expr_type_is_allowed(typid))
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
