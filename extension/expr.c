/*
 * expr.c
 *	  SQL expressions over an order row.
 *
 * An expression is analysed under the search_path and settings of its author
 * once, and stored deparsed under pinned ones: every name that is not in
 * pg_catalog is qualified, and every constant is spelled so that no setting
 * matters when it is read again.  Loading it takes no look at the session.
 */
#include "expr.h"

#include <sys/resource.h>

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "expr_check.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "pgtime.h"
#include "portability/instr_time.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"

/* Deparsing and parsing again settles after a round or two */
#define MAX_ROUNDS	5

/* Longest text of an expression, in bytes */
#define MAX_TEXT_LENGTH	65536

/* A varchar of so many characters is never too long a value */
#define MAX_SHORT	256

/* Longest time that one evaluation may take, and how often it is tried */
#define MAX_MICROSECONDS	10000
#define MAX_TRIES	3

/* What an error is about */
typedef struct ErrorPlace
{
	const char *what;
	const char *relname;
	const char *text;
	bool		stored;
} ErrorPlace;

/* A setting and the value it is pinned to */
typedef struct Pin
{
	const char *name;
	const char *value;
} Pin;

/* Settings that evaluation may read, beside TimeZone */
static const Pin run_pins[] = {
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"timezone_abbreviations", "Default"}
};

/* Settings that deparsing and parsing read */
static const Pin text_pins[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
	{"quote_all_identifiers", "off"},
	{"array_nulls", "on"}
};

/* Executor memory of this transaction, and a number for the transaction */
static EState *xact_estate = NULL;
static ExprContext *xact_econtext = NULL;
static uint64 xact_counter = 1;

/*
 * Set what differs of a list of settings.  Opens a level of settings if there
 * is none yet (*nestlevel is 0).
 */
static void
pin_settings(const Pin *pins, int npins, int *nestlevel)
{
	for (int i = 0; i < npins; i++)
	{
		const char *value = GetConfigOption(pins[i].name, true, false);

		/* a setting that a later release has dropped needs no pin */
		if (value == NULL || strcmp(value, pins[i].value) == 0)
			continue;
		if (*nestlevel == 0)
			*nestlevel = NewGUCNestLevel();
		(void) set_config_option(pins[i].name, pins[i].value,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
}

/*
 * Undo pin_settings().
 */
static void
unpin_settings(int nestlevel)
{
	if (nestlevel != 0)
		AtEOXact_GUC(false, nestlevel);
}

/*
 * Say which argument an error is about.  A position is one inside the text of
 * the expression, not inside the statement that the client has sent.  If a
 * stored expression no longer fits its table, the message of the parser stays,
 * but the code tells what happened.
 */
static void
error_callback(void *arg)
{
	ErrorPlace *place = arg;
	int			position = geterrposition();

	if (position > 0 && getinternalerrposition() == 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(place->text);
	}

	if (place->stored)
	{
		switch (geterrcode())
		{
			case ERRCODE_UNDEFINED_COLUMN:
			case ERRCODE_UNDEFINED_FUNCTION:
			case ERRCODE_UNDEFINED_OBJECT:
			case ERRCODE_UNDEFINED_TABLE:
			case ERRCODE_UNDEFINED_SCHEMA:
			case ERRCODE_AMBIGUOUS_FUNCTION:
			case ERRCODE_DATATYPE_MISMATCH:
			case ERRCODE_CANNOT_COERCE:
			case ERRCODE_INDETERMINATE_DATATYPE:
			case ERRCODE_INDETERMINATE_COLLATION:
			case ERRCODE_COLLATION_MISMATCH:
			case ERRCODE_INVALID_TEXT_REPRESENTATION:
			case ERRCODE_RB_INVALID_MAPPING:
				errcode(ERRCODE_RB_INVALID_MAPPING);
				errhint("The table has changed. Attach it again with replace => true, or change the rule.");
				break;
			default:
				break;
		}
	}
	errcontext("argument \"%s\" for table \"%s\"", place->what, place->relname);
}

/*
 * The one raw expression that a text is, and nothing else.  The parser's mode
 * for expressions takes the clauses of a SELECT as well.
 */
static Node *
parse_raw(ParseState *pstate, const char *text)
{
	List	   *list = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select;
	ResTarget  *target;

	if (list_length(list) == 1 &&
		IsA(linitial_node(RawStmt, list)->stmt, SelectStmt))
	{
		select = (SelectStmt *) linitial_node(RawStmt, list)->stmt;
		if (select->op == SETOP_NONE && select->larg == NULL &&
			select->distinctClause == NIL && select->intoClause == NULL &&
			select->fromClause == NIL && select->whereClause == NULL &&
			select->groupClause == NIL &&
			select->havingClause == NULL && select->windowClause == NIL &&
			select->valuesLists == NIL && select->sortClause == NIL &&
			select->limitOffset == NULL && select->limitCount == NULL &&
			select->lockingClause == NIL && select->withClause == NULL &&
			list_length(select->targetList) == 1)
		{
			target = linitial_node(ResTarget, select->targetList);
			if (target->name == NULL && target->indirection == NIL &&
				target->val != NULL &&
				!(IsA(target->val, ColumnRef) &&
				  IsA(llast(((ColumnRef *) target->val)->fields), A_Star)))
				return target->val;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
			 errmsg("a single expression over the columns of the table is expected"),
			 parser_errposition(pstate, 0)));
	return NULL;				/* keep compiler quiet */
}

/*
 * Called with each reference to a column, before a literal beside it is read as
 * of its type.
 */
static Node *
check_reference(ParseState *pstate, ColumnRef *ref, Node *var)
{
	if (var && type_hides_domain(exprType(var)))
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("a column of type %s is not allowed in an expression over an order",
						format_type_be(exprType(var))),
				 errdetail("Domains inside the type may call functions."),
				 parser_errposition(pstate, ref->location)));
	return NULL;
}

/*
 * Analyse and check a text.  Returns the tree as its author wrote it, and in
 * *coerced the same with the cast to "want".
 */
static Node *
analyse(Relation rel, const char *what, const char *text, Oid want,
		Node **coerced, Bitmapset **attnos, int *max_length)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *nsitem;
	Node	   *raw;
	Node	   *tree;
	Oid			type;

	pstate->p_sourcetext = text;
	pstate->p_post_columnref_hook = check_reference;
	if (strlen(text) > MAX_TEXT_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("expression is longer than %d bytes", MAX_TEXT_LENGTH)));
	nsitem = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
										   NULL, false, true);
	addNSItemToQuery(pstate, nsitem, true, true, true);

	raw = parse_raw(pstate, text);
	expr_forbid_raw(pstate, raw);

	/* this kind refuses nothing by itself, so that the messages are ours */
	tree = transformExpr(pstate, raw, EXPR_KIND_OTHER);

	type = exprType(tree);
	if (type == UNKNOWNOID && !OidIsValid(want))
		want = TEXTOID;
	*coerced = tree;
	if (OidIsValid(want))
		*coerced = coerce_to_target_type(pstate, tree, type, want, -1,
										 COERCION_ASSIGNMENT,
										 COERCE_IMPLICIT_CAST, -1);
	if (*coerced == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("argument \"%s\" of type %s cannot be used as %s",
						what, format_type_be(type), format_type_be(want)),
				 parser_errposition(pstate, exprLocation(tree))));
	/* what a literal without a type is, its author's settings decide */
	if (type == UNKNOWNOID)
		tree = *coerced;

	assign_expr_collations(pstate, *coerced);
	*attnos = expr_forbid(pstate, *coerced, max_length);
	free_parsestate(pstate);
	return tree;
}

/*
 * Refuse columns that have no value in a row: virtual generated ones.
 */
static void
check_columns(Relation rel, Bitmapset *attnos)
{
	int			attno = -1;

	while ((attno = bms_next_member(attnos, attno)) >= 0)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);

		if (att->attgenerated == 'v')
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("virtual generated column \"%s\" cannot be used",
							NameStr(att->attname)),
					 errhint("Use its expression, or make it a stored one.")));
	}
}

/*
 * The current user must be able to read what the expression reads, or rules
 * would show it rows that it may not see.
 */
static void
check_privileges(Relation rel, Bitmapset *attnos)
{
	Oid			relid = RelationGetRelid(rel);
	int			attno = -1;

	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK)
		return;
	while ((attno = bms_next_member(attnos, attno)) >= 0)
	{
		AclResult	result = pg_attribute_aclcheck(relid, attno, GetUserId(),
												   ACL_SELECT);

		if (result != ACLCHECK_OK)
			aclcheck_error_col(result, OBJECT_COLUMN,
							   RelationGetRelationName(rel),
							   get_attname(relid, attno, false));
	}
}

/*
 * The columns of a variable length that no type modifier keeps short.
 */
static void
find_long(Relation rel, Bitmapset *attnos, OrderExpr *result)
{
	int			attno = -1;

	result->long_attnos = palloc(sizeof(AttrNumber) * Max(bms_num_members(attnos), 1));
	while ((attno = bms_next_member(attnos, attno)) >= 0)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
		Oid			type = att->atttypid;
		int32		typmod = att->atttypmod;

		if (att->attlen != -1)
			continue;
		type = getBaseTypeAndTypmod(type, &typmod);
		if (typmod >= 0 && (type == NUMERICOID || (type == VARCHAROID && typmod <= MAX_SHORT)))
			continue;
		result->long_attnos[result->nlong++] = attno;
	}
}

/*
 * Plan a checked tree into *result, in memory context "target".
 */
static void
finish(Relation rel, const char *what, const char *text, Node *coerced, Bitmapset *attnos,
	   int max_length, MemoryContext target, OrderExpr *result)
{
	Node	   *plain = coerced;
	MemoryContext old;

	memset(result, 0, sizeof(OrderExpr));
	result->type = exprType(coerced);
	result->typmod = exprTypmod(coerced);
	result->collation = exprCollation(coerced);

	/* varchar as text is the same datum */
	while (IsA(plain, RelabelType))
		plain = (Node *) ((RelabelType *) plain)->arg;
	if (!IsA(plain, Var))
		coerced = (Node *) expression_planner((Expr *) coerced);

	old = MemoryContextSwitchTo(target);
	if (IsA(plain, Var))
		result->attno = ((Var *) plain)->varattno;
	else
	{
		result->tree = copyObject((Expr *) coerced);
		result->max_length = max_length;
		result->what = pstrdup(what);
		result->text = pstrdup(text);
		find_long(rel, attnos, result);
	}
	result->attnos = bms_copy(attnos);
	MemoryContextSwitchTo(old);
}

/*
 * Check what a person wrote, see the header.
 *
 * Parser and deparser together are not idempotent (an IN list over varchar
 * changes its casts once), so the text goes round until it stays; that one is
 * stored, and *result is what expr_load() will make of it.
 */
char *
expr_check(Relation rel, const char *what, const char *text, Oid want,
		   OrderExpr *result)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work;
	ErrorPlace	place = {what, RelationGetRelationName(rel), text, false};
	ErrorContextCallback callback;
	AttrNumber	attno = InvalidAttrNumber;
	List	   *dpcontext;
	Node	   *tree;
	Node	   *coerced;
	Bitmapset  *attnos;
	int			max_length;
	OrderExpr	ignored;
	char	   *stored;
	int			nestlevel = 0;
	int			round = 0;

	/* after an error it goes with its parent */
	work = AllocSetContextCreate(caller, "rebate expression",
								 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(work);

	/* a bare name is the column, even where it is a key word: "user" */
	if (strlen(text) < NAMEDATALEN)
		attno = get_attnum(RelationGetRelid(rel), text);
	if (attno > 0)
		place.text = quote_identifier(text);

	callback.callback = error_callback;
	callback.arg = &place;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	tree = analyse(rel, what, place.text, want, &coerced, &attnos, &max_length);
	check_columns(rel, attnos);
	check_privileges(rel, attnos);
	expr_check_depth(tree);

	pin_settings(text_pins, lengthof(text_pins), &nestlevel);
	dpcontext = deparse_context_for(RelationGetRelationName(rel),
									RelationGetRelid(rel));
	stored = deparse_expression(tree, dpcontext, false, false);
	for (;;)
	{
		char	   *again;

		place.text = stored;
		tree = analyse(rel, what, stored, want, &coerced, &attnos, &max_length);
		again = deparse_expression(tree, dpcontext, false, false);
		if (strcmp(stored, again) == 0)
			break;
		if (++round == MAX_ROUNDS)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("expression cannot be stored"),
					 errdetail("It reads differently each time it is parsed: %s",
							   again)));
		stored = again;
	}
	finish(rel, what, stored, coerced, attnos, max_length, caller, result ? result : &ignored);
	unpin_settings(nestlevel);

	error_context_stack = callback.previous;
	MemoryContextSwitchTo(caller);
	stored = pstrdup(stored);
	MemoryContextDelete(work);
	return stored;
}

/*
 * Load a stored text, see the header.  It is checked again, as the table and
 * the functions may have changed.
 */
void
expr_load(Relation rel, const char *what, const char *text, Oid want,
		  OrderExpr *result)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work;
	ErrorPlace	place = {what, RelationGetRelationName(rel), text, true};
	ErrorContextCallback callback;
	Node	   *coerced;
	Bitmapset  *attnos;
	int			max_length;
	int			nestlevel = 0;

	work = AllocSetContextCreate(caller, "rebate expression",
								 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(work);

	callback.callback = error_callback;
	callback.arg = &place;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	pin_settings(text_pins, lengthof(text_pins), &nestlevel);
	(void) analyse(rel, what, text, want, &coerced, &attnos, &max_length);
	check_columns(rel, attnos);
	finish(rel, what, text, coerced, attnos, max_length, caller, result);
	unpin_settings(nestlevel);

	error_context_stack = callback.previous;
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
}

/*
 * Make the expression's state for this transaction.  It lives in memory that
 * ends with the transaction; the counter tells that it did.
 */
static void
prepare(OrderExpr *expr)
{
	MemoryContext old;

	if (xact_estate == NULL)
	{
		EState	   *estate;

		old = MemoryContextSwitchTo(TopTransactionContext);
		estate = CreateExecutorState();
		xact_econtext = CreateExprContext(estate);
		xact_estate = estate;
		MemoryContextSwitchTo(old);
	}

	old = MemoryContextSwitchTo(xact_estate->es_query_cxt);
	expr->state = ExecInitExpr(expr->tree, NULL);
	expr->state_xact = xact_counter;
	MemoryContextSwitchTo(old);
}

/*
 * Refuse a row whose values are too long: what an expression costs, and how long
 * its result can be, goes by them.  Looks at lengths only; nothing is detoasted.
 */
static void
check_lengths(OrderExpr *expr, TupleTableSlot *slot)
{
	for (int i = 0; i < expr->nlong; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, expr->long_attnos[i], &isnull);

		if (!isnull && toast_raw_datum_size(value) > (Size) (expr->max_length + VARHDRSZ))
			ereport(ERROR,
					(errcode(ERRCODE_RB_ORDER_FAILED),
					 errmsg("column \"%s\" is too long for argument \"%s\"",
							NameStr(TupleDescAttr(slot->tts_tupleDescriptor,
												  expr->long_attnos[i] - 1)->attname),
							expr->what),
					 errdetail("Expressions take values of up to %d bytes; this one is %s.",
							   expr->max_length, expr->text)));
	}
}

static void
refuse_slow(OrderExpr *expr)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_ORDER_FAILED),
			 errmsg("argument \"%s\" takes longer than %d ms", expr->what, MAX_MICROSECONDS / 1000),
			 errdetail("The expression is %s.", expr->text),
			 errhint("Write it in a cheaper way, or keep what it computes in a column.")));
}

/* Time that the processor has spent on this process */
static double
cpu_microseconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec * 1e6 + usage.ru_utime.tv_usec +
		usage.ru_stime.tv_sec * 1e6 + usage.ru_stime.tv_usec;
}

/*
 * Value for a row, see the header.
 *
 * The time is measured after the row: no interrupt is used for it.  A machine
 * that does other things for a while makes any expression slow, so that one is
 * evaluated again, which is harmless, and what counts then is the processor's
 * time.
 */
Datum
expr_eval(OrderExpr *expr, TupleTableSlot *slot, bool *isnull)
{
	if (likely(expr->attno > 0))
		return slot_getattr(slot, expr->attno, isnull);

	if (unlikely(expr->too_slow))
		refuse_slow(expr);
	if (unlikely(expr->state_xact != xact_counter))
		prepare(expr);
	check_lengths(expr, slot);
	xact_econtext->ecxt_scantuple = slot;
	for (int try = 0; try < MAX_TRIES; try++)
	{
		instr_time	start;
		instr_time	end;
		double		cpu = try > 0 ? cpu_microseconds() : 0;
		Datum		result;

		INSTR_TIME_SET_CURRENT(start);
		result = ExecEvalExprSwitchContext(expr->state, xact_econtext, isnull);
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, start);
		if (likely(INSTR_TIME_GET_MICROSEC(end) <= MAX_MICROSECONDS) ||
			(try > 0 && cpu_microseconds() - cpu <= MAX_MICROSECONDS))
			return result;
		CHECK_FOR_INTERRUPTS();
	}
	expr->too_slow = true;
	refuse_slow(expr);
	return (Datum) 0;			/* keep compiler quiet */
}

/*
 * Is this the session's zone?  UTC has two names that are in common use, and
 * servers and programmes are often set to different ones.
 */
static bool
is_session_zone(pg_tz *zone)
{
	static pg_tz *last_session = NULL;
	static pg_tz *last_zone = NULL;
	static bool last_result;

	if (session_timezone == zone)
		return true;
	if (zone == NULL)
		return false;
	if (last_session != session_timezone || last_zone != zone)
	{
		const char *a = pg_get_timezone_name(session_timezone);
		const char *b = pg_get_timezone_name(zone);

		last_result = (strcmp(a, "UTC") == 0 || strcmp(a, "Etc/UTC") == 0) &&
			(strcmp(b, "UTC") == 0 || strcmp(b, "Etc/UTC") == 0);
		last_session = session_timezone;
		last_zone = zone;
	}
	return last_result;
}

/*
 * Pin settings and switch the user, see the header.
 *
 * In a session with common settings that is a few comparisons.  Settings that
 * no allowed expression reads are left alone, since setting them would cost
 * each order more than its rebate: search_path (names were resolved when the
 * expression was loaded) and lc_* (formats that read them are refused).
 */
void
expr_begin(ExprScope *scope, Oid owner, const char *time_zone)
{
	static char zone_name[TZ_STRLEN_MAX + 1] = "";
	static pg_tz *zone = NULL;
	const char *abbreviations;

	scope->guc_nestlevel = 0;
	GetUserIdAndSecContext(&scope->save_userid, &scope->save_sec_context);
	SetUserIdAndSecContext(owner,
						   scope->save_sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);

	/* zones are cached for the life of the backend: their address will do */
	if (unlikely(zone == NULL || strcmp(zone_name, time_zone) != 0))
	{
		zone = pg_tzset(time_zone);
		strlcpy(zone_name, zone ? time_zone : "", sizeof(zone_name));
	}
	if (unlikely(!is_session_zone(zone)))
	{
		scope->guc_nestlevel = NewGUCNestLevel();
		(void) set_config_option("TimeZone", time_zone,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}

	abbreviations = GetConfigOption("timezone_abbreviations", true, false);
	if (unlikely(DateStyle != USE_ISO_DATES || DateOrder != DATEORDER_MDY ||
				 IntervalStyle != INTSTYLE_POSTGRES ||
				 extra_float_digits < 1 ||	/* all above are the same */
				 bytea_output != BYTEA_OUTPUT_HEX ||
				 (abbreviations != NULL &&
				  strcmp(abbreviations, "Default") != 0)))
		pin_settings(run_pins, lengthof(run_pins), &scope->guc_nestlevel);
}

/*
 * Go back to the settings and the user before expr_begin().
 */
void
expr_end(ExprScope *scope)
{
	unpin_settings(scope->guc_nestlevel);
	SetUserIdAndSecContext(scope->save_userid, scope->save_sec_context);
}

/*
 * Free what the last evaluations left.
 */
void
expr_reset(void)
{
	if (xact_econtext != NULL)
		ResetExprContext(xact_econtext);
}

/*
 * Forget states and executor memory; the memory goes with the transaction.
 */
void
expr_at_xact_end(void)
{
	xact_estate = NULL;
	xact_econtext = NULL;
	xact_counter++;
}
