/*
 * rule_scope.c
 *	  The argument scope of rebate.set_rule(): which attribute values a rule
 *	  applies to, and its expansion into keys that orders probe.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "api.h"
#include "canon.h"
#include "rule_api.h"

#define MAX_COMBINATIONS 1000

static int
attribute_cmp(const void *a, const void *b)
{
	return strcmp(((const ScopeAttribute *) a)->name, ((const ScopeAttribute *) b)->name);
}

static int
text_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Text of a JSON scalar, as it is given to a type's input function. */
static char *
scalar_text(const char *name, const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(v->val.numeric)));
		case jbvBool:
			return pstrdup(v->val.boolean ? "true" : "false");
		case jbvNull:
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("scope: attribute \"%s\" must not be null", name),
					 errdetail("A missing value matches nothing.")));
		default:
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("scope: attribute \"%s\" must be a value or a list of values", name)));
	}
	return NULL;				/* keep compiler quiet */
}

/*
 * Read the JSON object: each attribute a value or a list of them.  NULL for one
 * that names no attribute, which is no scope.
 */
ScopeArg *
scope_parse(Jsonb *jb)
{
	ScopeArg   *scope;
	ScopeAttribute *attribute = NULL;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	int			depth = 0;
	double		combinations = 1;

	if (!JB_ROOT_IS_OBJECT(jb))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("scope must be a JSON object"),
				 errhint("For example scope => '{\"merchant\": \"m1\", \"country\": [\"DE\", \"AT\"]}'.")));
	if (JB_ROOT_COUNT(jb) == 0)
		return NULL;

	scope = palloc0(sizeof(ScopeArg));
	scope->attributes = palloc0(sizeof(ScopeAttribute) * JB_ROOT_COUNT(jb));
	it = JsonbIteratorInit(&jb->root);
	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		switch (token)
		{
			case WJB_BEGIN_OBJECT:
			case WJB_BEGIN_ARRAY:
				depth++;
				if (depth > 2 || (depth == 2 && token == WJB_BEGIN_OBJECT))
					ereport(ERROR,
							(errcode(ERRCODE_RB_INVALID_RULE),
							 errmsg("scope: attribute \"%s\" must be a value or a list of values",
									attribute->name)));
				if (depth == 2)
					attribute->given = palloc(sizeof(char *) * Max(v.val.array.nElems, 1));
				break;
			case WJB_END_OBJECT:
			case WJB_END_ARRAY:
				depth--;
				break;
			case WJB_KEY:
				attribute = &scope->attributes[scope->nattributes++];
				attribute->name = pnstrdup(v.val.string.val, v.val.string.len);
				break;
			case WJB_VALUE:
				attribute->given = palloc(sizeof(char *));
				pg_fallthrough;
			case WJB_ELEM:
				attribute->given[attribute->nvalues] = scalar_text(attribute->name, &v);
				attribute->nvalues++;
				break;
			default:
				break;
		}
	}

	qsort(scope->attributes, scope->nattributes, sizeof(ScopeAttribute), attribute_cmp);
	for (int i = 0; i < scope->nattributes; i++)
	{
		attribute = &scope->attributes[i];
		if (attribute->nvalues == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("scope: the list of attribute \"%s\" is empty", attribute->name)));
		combinations *= attribute->nvalues;
	}
	if (combinations > MAX_COMBINATIONS)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("scope has %.0f combinations, more than %d", combinations, MAX_COMBINATIONS),
				 errhint("Write several rules, or map an attribute that says what the lists say.")));
	return scope;
}

/* Sort values and drop duplicates; returns how many are left. */
static int
sort_values(char **values, int n)
{
	int			kept = 0;

	qsort(values, n, sizeof(char *), text_cmp);
	for (int i = 0; i < n; i++)
		if (kept == 0 || strcmp(values[kept - 1], values[i]) != 0)
			values[kept++] = values[i];
	return kept;
}

/*
 * The canonical text of a given value; an input error of the type becomes an
 * error of the scope, which names the attribute.
 */
static char *
canonical_value(const SourceAttribute *source_attribute, const char *name, const char *given)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *result = NULL;

	PG_TRY();
	{
		result = canon_from_text(&source_attribute->canon, given);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_RULE),
				 errmsg("scope: \"%s\" is no value of attribute \"%s\"", given, name),
				 errdetail("%s.", edata->message)));
	}
	PG_END_TRY();
	return result;
}

/*
 * Make the values canonical for the attributes of a source.  Raises if it lacks
 * an attribute, or if an earlier source reads a value differently.
 */
void
scope_bind(ScopeArg *scope, Source *source)
{
	for (int i = 0; i < scope->nattributes; i++)
	{
		ScopeAttribute *attribute = &scope->attributes[i];
		SourceAttribute *found = source_attribute(source, attribute->name);
		char	  **values = palloc(sizeof(char *) * attribute->nvalues);
		int			n;
		bool		differs;

		if (found == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("scope: table %s has no attribute \"%s\"", source->name, attribute->name),
					 errhint("Attributes are the columns, or what rebate.attach() was given as attributes.")));
		if (!found->usable)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("scope: attribute \"%s\" of table %s has a type that no scope can name",
							attribute->name, source->name),
					 errhint("Use a condition.")));
		for (int j = 0; j < attribute->nvalues; j++)
			values[j] = canonical_value(found, attribute->name, attribute->given[j]);
		n = sort_values(values, attribute->nvalues);

		if (attribute->values == NULL)
		{
			attribute->values = values;
			attribute->nvalues = n;
			continue;
		}
		differs = n != attribute->nvalues;
		for (int j = 0; !differs && j < n; j++)
			differs = strcmp(values[j], attribute->values[j]) != 0;
		if (differs)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_RULE),
					 errmsg("scope: attribute \"%s\" means something else in table %s than in another",
							attribute->name, source->name),
					 errhint("Write a rule for each table: source => '%s'.", source->name)));
	}
}

/* The scope as JSON text, in canonical values. */
char *
scope_json(const ScopeArg *scope)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	for (int i = 0; i < scope->nattributes; i++)
	{
		const ScopeAttribute *attribute = &scope->attributes[i];

		if (i > 0)
			appendStringInfoString(&buf, ", ");
		escape_json(&buf, attribute->name);
		appendStringInfoString(&buf, ": ");
		if (attribute->nvalues > 1)
			appendStringInfoChar(&buf, '[');
		for (int j = 0; j < attribute->nvalues; j++)
		{
			if (j > 0)
				appendStringInfoString(&buf, ", ");
			escape_json(&buf, attribute->values[j]);
		}
		if (attribute->nvalues > 1)
			appendStringInfoChar(&buf, ']');
	}
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

/* The id of this set of attributes, made if missing; inside SPI. */
static int32
scope_id(const ScopeArg *scope)
{
	SqlParams	params = {0};
	Datum	   *names = palloc(sizeof(Datum) * scope->nattributes);

	for (int i = 0; i < scope->nattributes; i++)
		names[i] = CStringGetTextDatum(scope->attributes[i].name);
	sql_param(&params, TEXTARRAYOID,
			  PointerGetDatum(construct_array(names, scope->nattributes, TEXTOID, -1, false, TYPALIGN_INT)),
			  false);
	if (sql_run("SELECT scope_id FROM rebate_data.scope WHERE attributes = $1", &params,
				SPI_OK_SELECT) == 0)
		sql_run("INSERT INTO rebate_data.scope (scope_id, attributes)"
				" SELECT max(scope_id) + 1, $1 FROM rebate_data.scope RETURNING scope_id", &params,
				SPI_OK_INSERT_RETURNING);
	return sql_get_int(0, 1, 0);
}

/*
 * Record under which keys orders find this version: a row for each combination
 * of values.  Inside SPI as the store's owner, with the generation locked.
 * Returns the scope_id.
 */
int32
scope_write(ScopeArg *scope, int32 rule_id, int32 version)
{
	SqlParams	params = {0};
	int32		id = 0;
	int			total = 1;
	Datum	   *keys;

	if (scope)
	{
		id = scope_id(scope);
		for (int i = 0; i < scope->nattributes; i++)
			total *= scope->attributes[i].nvalues;
	}

	keys = palloc(sizeof(Datum) * total);
	for (int k = 0; k < total; k++)
	{
		StringInfoData key;
		int			rest = k;

		initStringInfo(&key);
		for (int i = 0; scope && i < scope->nattributes; i++)
		{
			ScopeAttribute *attribute = &scope->attributes[i];

			canon_append_scope(&key, attribute->values[rest % attribute->nvalues]);
			rest /= attribute->nvalues;
		}
		keys[k] = CStringGetTextDatum(key.data);
	}

	sql_int(&params, id);
	sql_param(&params, TEXTARRAYOID,
			  PointerGetDatum(construct_array(keys, total, TEXTOID, -1, false, TYPALIGN_INT)),
			  false);
	sql_int(&params, rule_id);
	sql_int(&params, version);
	sql_run("INSERT INTO rebate_data.rule_scope (scope_id, scope_key, rule_id, version)"
			" SELECT $1, k, $3, $4 FROM unnest($2) k", &params, SPI_OK_INSERT);
	return id;
}
