/*
 * attach_mapping.c
 *	  Checks what rebate.attach() was asked for against the table: key, types,
 *	  expressions, phases, attributes.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/relation.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api.h"
#include "attach.h"
#include "canon.h"
#include "expr.h"
#include "source.h"

const char *const map_names[NUM_MAP_ITEMS] = {
	"member", "amount", "currency", "quantity", "order_time", "status",
	"confirmed_at", "refunded", "refunded_quantity"
};

static const Oid map_types[NUM_MAP_ITEMS] = {
	InvalidOid, NUMERICOID, TEXTOID, NUMERICOID, TIMESTAMPTZOID, TEXTOID,
	TIMESTAMPTZOID, NUMERICOID, NUMERICOID
};

static const char *const phase_names[] = {"tracked", "pending", "confirmed", "void", NULL};

/* Attribute number of a user column that is spelled exactly so, or 0. */
static AttrNumber
column_number(Relation rel, const char *name)
{
	AttrNumber	attno = get_attnum(RelationGetRelid(rel), name);

	return attno > 0 ? attno : InvalidAttrNumber;
}

/* Is "text" nothing but one unquoted identifier? */
static bool
is_bare_name(const char *text)
{
	if (!((text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z') ||
		  text[0] == '_' || IS_HIGHBIT_SET(text[0])))
		return false;
	for (const char *p = text; *p; p++)
		if (!(isalnum((unsigned char) *p) || *p == '_' || *p == '$' || IS_HIGHBIT_SET(*p)))
			return false;
	return true;
}

/*
 * Check one expression, with "what" in messages.  The name of a column is that
 * column however it is spelled ("Order Date"), before it is SQL.
 */
static char *
check_expression(Relation rel, const char *what, const char *text, Oid want, Oid *type,
				 Oid *collation)
{
	OrderExpr	expr;
	char	   *result;

	if (text[strspn(text, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("%s must not be empty", what)));
	if (column_number(rel, text))
		text = quote_identifier(text);

	/* The type that it has by itself; then the one it is needed in. */
	result = expr_check(rel, what, text, InvalidOid, &expr);
	*type = getBaseType(expr.type);
	if (collation)
		*collation = expr.collation;
	if (OidIsValid(want) && expr.type != want)
		result = expr_check(rel, what, text, want, NULL);
	return result;
}

/* Raise unless equal values of the type have equal canonical texts. */
static void
check_canonical(const char *what, Oid type, Oid collation)
{
	CanonType	canon;
	char	   *why;

	if (!canon_type_init(&canon, type, collation, &why))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("%s cannot be used: %s", what, why),
				 errhint("Map an expression that casts it to text.")));
}

/*
 * currency: a column, else a known code, else an expression.  There is no
 * default: to guess the unit of money is to be wrong by a factor.
 */
static void
check_currency(AttachMap *map, Relation rel, Store *store)
{
	char	   *given = map->given[MAP_CURRENCY];

	if (given == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("currency is missing"),
				 errhint("Give a code for all rows, currency => 'EUR', or the name of a column that holds it.")));

	if (!column_number(rel, given) && is_bare_name(given))
	{
		char	   *folded = downcase_identifier(given, strlen(given), false, false);

		if (store_currency(store, given))
		{
			map->currency_code = given;
			return;
		}
		if (!column_number(rel, folded))
		{
			char	   *upper = asc_toupper(given, strlen(given));

			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("currency \"%s\" is neither a column of table \"%s\" nor a known code",
							given, RelationGetRelationName(rel)),
					 store_currency(store, upper) ?
					 errhint("Codes are written in capitals: currency => '%s'.", upper) :
					 errhint("Give a code of ISO 4217, a column, or add a unit with rebate.add_currency().")));
		}
	}
	map->text[MAP_CURRENCY] = check_expression(rel, "currency", given, TEXTOID,
											   &map->type[MAP_CURRENCY], NULL);
}

/* The columns of the primary key; none if there is none to rely on. */
static void
primary_key(AttachMap *map, Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisprimary && form->indisvalid && form->indimmediate)
		{
			map->nkey = form->indnkeyatts;
			map->key = palloc(sizeof(char *) * map->nkey);
			for (int i = 0; i < map->nkey; i++)
				map->key[i] = get_attname(RelationGetRelid(rel), form->indkey.values[i], false);
		}
		index_close(index, NoLock);
	}
	if (map->nkey == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("table \"%s\" has no primary key to tell its orders apart",
						RelationGetRelationName(rel)),
				 errhint("Add one, or name the columns of a unique index with \"key\" => '{...}'.")));
}

/*
 * The key: columns that are NOT NULL, have a canonical text, and are together
 * what a unique index is on.
 */
static void
check_key(AttachMap *map, Relation rel)
{
	AttrNumber *attnos;
	List	   *indexes;
	ListCell   *lc;
	bool		unique = false;

	if (map->given_key)
	{
		map->key = map->given_key;
		map->nkey = map->ngiven_key;
	}
	else
		primary_key(map, rel);
	if (map->nkey == 0 || map->nkey > INDEX_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("key must name 1 to %d columns", INDEX_MAX_KEYS)));

	attnos = palloc(sizeof(AttrNumber) * map->nkey);
	for (int i = 0; i < map->nkey; i++)
	{
		Form_pg_attribute att;

		if (map->key[i] == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("key must not contain nulls")));
		attnos[i] = column_number(rel, map->key[i]);
		if (!attnos[i])
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("key: table \"%s\" has no column \"%s\"",
							RelationGetRelationName(rel), map->key[i])));
		for (int j = 0; j < i; j++)
			if (attnos[j] == attnos[i])
				ereport(ERROR,
						(errcode(ERRCODE_RB_INVALID_MAPPING),
						 errmsg("key names column \"%s\" twice", map->key[i])));
		att = TupleDescAttr(RelationGetDescr(rel), attnos[i] - 1);
		if (!att->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("key column \"%s\" can be null", map->key[i]),
					 errhint("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL.",
							 quote_identifier(RelationGetRelationName(rel)),
							 quote_identifier(map->key[i]))));
		check_canonical(psprintf("key column \"%s\"", map->key[i]), att->atttypid,
						att->attcollation);
	}

	indexes = RelationGetIndexList(rel);
	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		unique = unique || index_is_key(index, attnos, map->nkey);
		index_close(index, NoLock);
	}
	if (!unique)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("key %s of table \"%s\" has no unique index over exactly these columns",
						mapping_key_json(map->key, map->nkey), RelationGetRelationName(rel)),
				 errdetail("Partial, deferrable, invalid and expression indexes do not count.")));
}

/*
 * The key of another order: for each key column what holds it, as the type of the
 * key column.  Returns the deparsed texts; NULL if nothing was given.
 */
static char **
check_other_key(AttachMap *map, Relation rel, const char *what, char **given, int ngiven)
{
	char	  **result;

	if (given == NULL)
		return NULL;
	if (ngiven != map->nkey)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("%s must have as many elements as the key has columns", what),
				 errdetail("The key is %s.", mapping_key_json(map->key, map->nkey)),
				 errhint("Name, in that order, the columns that hold the key of the other order.")));
	result = palloc(sizeof(char *) * map->nkey);
	for (int i = 0; i < map->nkey; i++)
	{
		Oid			type;
		Oid			want = getBaseType(get_atttype(RelationGetRelid(rel),
												   column_number(rel, map->key[i])));

		if (given[i] == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("%s must not contain nulls", what)));
		result[i] = check_expression(rel, psprintf("%s (%s)", what, map->key[i]), given[i], want,
									 &type, NULL);
		if (map->nkey == 1 && strcmp(result[i], quote_identifier(map->key[i])) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("%s (%s) is the key column itself", what, map->key[i]),
					 errdetail("Every order would be about itself."),
					 errhint("Name the column that holds the key of the other order.")));
	}
	return result;
}

/* phases: an object from status values to phases. */
static void
check_phases(AttachMap *map)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;

	if (map->given_phases == NULL)
		return;
	if (map->given[MAP_STATUS] == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("phases without status"),
				 errhint("Say which column holds the status: status => '...'.")));
	if (!JB_ROOT_IS_OBJECT(map->given_phases) || JB_ROOT_COUNT(map->given_phases) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("phases must be a JSON object that is not empty"),
				 errhint("For example phases => '{\"paid\": \"pending\", \"shipped\": \"confirmed\", \"cancelled\": \"void\"}'.")));

	it = JsonbIteratorInit(&map->given_phases->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token != WJB_VALUE)
			continue;
		if (v.type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("phases must map each status to a string"),
					 errhint("It is one of \"tracked\", \"pending\", \"confirmed\", \"void\".")));
		api_one_of(ERRCODE_RB_INVALID_MAPPING, "a value of phases",
				   pnstrdup(v.val.string.val, v.val.string.len), phase_names);
	}
}

/* attributes: an object from names to expressions. */
static void
check_attributes(AttachMap *map, Relation rel)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	StringInfoData json;
	char	   *name = NULL;

	if (map->given_attributes == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(map->given_attributes))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("attributes must be a JSON object"),
				 errhint("For example attributes => '{\"merchant\": \"merchant_id\"}'.")));

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	it = JsonbIteratorInit(&map->given_attributes->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			name = pnstrdup(v.val.string.val, v.val.string.len);
			api_check_name(ERRCODE_RB_INVALID_MAPPING, "a name in attributes", name);
		}
		else if (token == WJB_VALUE)
		{
			char	   *what = psprintf("attributes.%s", name);
			Oid			type;
			Oid			collation;

			if (v.type != jbvString)
				ereport(ERROR,
						(errcode(ERRCODE_RB_INVALID_MAPPING),
						 errmsg("%s must be a column or an expression in a string", what)));
			json_add_text(&json, name,
						  check_expression(rel, what,
										   pnstrdup(v.val.string.val, v.val.string.len),
										   InvalidOid, &type, &collation));
			check_canonical(what, type, collation);
		}
	}
	appendStringInfoChar(&json, '}');
	map->attributes = json.data;
}

/* An interval that bounds how far a time is off: not negative. */
static void
check_distance(const char *argument, const Interval *span)
{
	if (span && (span->month < 0 || span->day < 0 || span->time < 0))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("%s must not be negative", argument)));
	if (span && (span->month > 12 * 1000 || span->day > 366 * 1000 ||
				 span->time > 366 * 1000 * USECS_PER_DAY))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("%s must not be more than 1000 years", argument),
				 errhint("NULL is no limit.")));
}

/* Check everything that was given against the table, and fill in the meaning. */
void
mapping_check(AttachMap *map, Relation rel, Store *store)
{
	static const char *const delete_actions[] = {"void", "keep", NULL};
	static const char *const truncate_actions[] = {"refuse", "void", "keep", NULL};
	static const char *const error_actions[] = {"set_aside", "abort", NULL};
	Oid			collation;

	for (int i = MAP_MEMBER; i <= MAP_AMOUNT; i++)
		if (map->given[i] == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("%s must not be null", map_names[i])));
	api_one_of(ERRCODE_RB_INVALID_MAPPING, "on_delete", map->on_delete, delete_actions);
	api_one_of(ERRCODE_RB_INVALID_MAPPING, "on_truncate", map->on_truncate, truncate_actions);
	api_one_of(ERRCODE_RB_INVALID_MAPPING, "on_error", map->on_error, error_actions);
	check_distance("max_backdate", map->max_backdate);
	check_distance("max_future", map->max_future);

	check_key(map, rel);
	map->original = check_other_key(map, rel, "original", map->given_original,
									map->ngiven_original);
	map->replaces = check_other_key(map, rel, "replaces", map->given_replaces,
									map->ngiven_replaces);
	map->text[MAP_MEMBER] = check_expression(rel, "member", map->given[MAP_MEMBER], InvalidOid,
											 &map->type[MAP_MEMBER], &collation);
	check_canonical("member", map->type[MAP_MEMBER], collation);
	check_currency(map, rel, store);
	for (int i = 0; i < NUM_MAP_ITEMS; i++)
		if (i != MAP_MEMBER && i != MAP_CURRENCY && map->given[i])
			map->text[i] = check_expression(rel, map_names[i], map->given[i], map_types[i],
											&map->type[i], NULL);
	check_phases(map);
	check_attributes(map, rel);

	if (map->given[MAP_REFUNDED_QUANTITY] && !map->given[MAP_QUANTITY])
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("refunded_quantity without quantity")));
	if (map->has_since && !map->given[MAP_ORDER_TIME])
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("since without order_time"),
				 errhint("Without the time of an order nobody can tell which orders are older. Map order_time, or leave since out.")));
	if (map->has_since && TIMESTAMP_IS_NOEND(map->since))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("since must not be infinity")));
}

/*
 * Warn about an enum's labels that are in no phase (their rows would fail), and
 * about names in phases that are no label.
 */
static void
warn_labels(AttachMap *map)
{
	SqlParams	params = {0};
	MemoryContext context = CurrentMemoryContext;
	int			level;
	char	   *unmapped = NULL;
	char	   *unknown = NULL;

	if (map->given[MAP_STATUS] == NULL || !type_is_enum(map->type[MAP_STATUS]))
		return;
	level = sql_begin();
	sql_param(&params, OIDOID, ObjectIdGetDatum(map->type[MAP_STATUS]), false);
	if (map->given_phases)
		sql_param(&params, JSONBOID, JsonbPGetDatum(map->given_phases), false);
	else
		sql_param(&params, JSONBOID,
				  DirectFunctionCall1(jsonb_in, CStringGetDatum("{\"tracked\": 1, \"pending\": 1, \"confirmed\": 1, \"void\": 1}")),
				  false);
	sql_run("SELECT (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)"
			"          FROM pg_enum e"
			"         WHERE e.enumtypid = $1"
			"           AND NOT $2 ? e.enumlabel::text),"
			"       (SELECT string_agg(quote_literal(k.k), ', ' ORDER BY k.k)"
			"          FROM jsonb_object_keys($2) k (k)"
			"         WHERE NOT EXISTS (SELECT FROM pg_enum e"
			"                            WHERE e.enumtypid = $1"
			"                              AND e.enumlabel::text = k.k))",
			&params, SPI_OK_SELECT);
	unmapped = sql_get_text(0, 1, context);
	unknown = sql_get_text(0, 2, context);
	sql_end(level);

	if (unmapped)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("status values without a phase: %s", unmapped),
				 errdetail("An order with such a status is a failed row."),
				 errhint("Name them in phases.")));
	if (unknown && map->given_phases)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("phases names what no status is: %s", unknown)));
}

/* Point out what is allowed but probably not meant. */
void
mapping_warn(AttachMap *map, Relation rel, Store *store)
{
	Oid			amount = map->type[MAP_AMOUNT];
	Oid			order_time = map->type[MAP_ORDER_TIME];

	if (map->currency_code &&
		(amount == INT2OID || amount == INT4OID || amount == INT8OID))
	{
		int			scale = store_currency(store, map->currency_code)->scale;

		if (scale > 0)
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("amount is an integer, taken as whole %s", map->currency_code),
					 errhint("If it counts the smallest unit, map amount => '%s / 1%0*d.0'.",
							 map->text[MAP_AMOUNT], scale, 0)));
	}
	if (amount == FLOAT4OID || amount == FLOAT8OID)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("amount is a floating-point number, which holds most amounts inexactly"),
				 errhint("Change the column to numeric, or round: amount => 'round((%s)::numeric, 2)'.",
						 map->text[MAP_AMOUNT])));
	if ((order_time == TIMESTAMPOID || order_time == DATEOID) &&
		strcmp(store->time_zone, "UTC") == 0)
		ereport(NOTICE,
				(errmsg("order times have no time zone and are read in UTC"),
				 errhint("Set the zone of your shop: SELECT rebate.set_programme('Europe/Berlin').")));
	warn_labels(map);
}

/* The names of key columns as a JSON array. */
char *
mapping_key_json(char **key, int nkey)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '[');
	for (int i = 0; i < nkey; i++)
	{
		if (i > 0)
			appendStringInfoString(&buf, ", ");
		escape_json(&buf, key[i]);
	}
	appendStringInfoChar(&buf, ']');
	return buf.data;
}
