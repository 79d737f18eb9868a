/*
 * attach_record.c
 *	  The row of rebate_data.source: compared with a new call, and written.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api.h"
#include "attach.h"
#include "store.h"

/* jsonb as text: equal objects have equal texts */
static char *
jsonb_text(Jsonb *jb)
{
	return jb ? JsonbToCString(NULL, &jb->root, VARSIZE(jb)) : NULL;
}

/* Settings that map the key of another order */
static bool
is_other_key(const char *name)
{
	return strcmp(name, "original") == 0 || strcmp(name, "replaces") == 0;
}

/* Add a setting of the new call to the list that is compared. */
static void
add_setting(Recorded *recorded, const char *name, char *given, char *meaning)
{
	Setting    *s = &recorded->settings[recorded->nsettings++];

	Assert(recorded->nsettings <= MAX_SETTINGS);
	s->name = name;
	s->new_given = given;
	s->new_meaning = meaning;
}

/*
 * Read the recorded row of the table, if there is one, beside the settings of
 * this call.
 */
void
record_read(Store *store, Oid relid, AttachMap *map, Recorded *recorded)
{
	MemoryContext context = CurrentMemoryContext;
	SqlParams	params = {0};
	StoreSpi	scope;
	StringInfoData sql;
	bool		isnull;

	memset(recorded, 0, sizeof(Recorded));
	for (int i = 0; i < NUM_MAP_ITEMS; i++)
		add_setting(recorded, map_names[i], map->given[i],
					i == MAP_CURRENCY && map->currency_code ?
					psprintf("code %s", map->currency_code) : map->text[i]);
	add_setting(recorded, "key",
				map->given_key ? mapping_key_json(map->given_key, map->ngiven_key) : NULL,
				mapping_key_json(map->key, map->nkey));
	add_setting(recorded, "original",
				map->given_original ?
				mapping_key_json(map->given_original, map->ngiven_original) : NULL,
				map->original ? mapping_key_json(map->original, map->nkey) : NULL);
	add_setting(recorded, "replaces",
				map->given_replaces ?
				mapping_key_json(map->given_replaces, map->ngiven_replaces) : NULL,
				map->replaces ? mapping_key_json(map->replaces, map->nkey) : NULL);
	add_setting(recorded, "phases", jsonb_text(map->given_phases), NULL);
	add_setting(recorded, "attributes", jsonb_text(map->given_attributes),
				map->attributes ? jsonb_text(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(map->attributes)))) : NULL);
	add_setting(recorded, "max_backdate",
				map->max_backdate ? api_interval_text(map->max_backdate) : NULL, NULL);
	add_setting(recorded, "max_future",
				map->max_future ? api_interval_text(map->max_future) : NULL, NULL);
	add_setting(recorded, "on_delete", map->on_delete, NULL);
	add_setting(recorded, "on_truncate", map->on_truncate, NULL);
	add_setting(recorded, "on_error", map->on_error, NULL);
	/* not recorded where it is not asked for, as before there was a choice */
	add_setting(recorded, "row_triggers", map->row_triggers ? "true" : NULL, NULL);

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT source_id, detached_at IS NOT NULL, since");
	for (int i = 0; i < recorded->nsettings; i++)
	{
		const char *name = recorded->settings[i].name;

		appendStringInfo(&sql, ", arguments ->> %s, ", quote_literal_cstr(name));
		if (strcmp(name, "currency") == 0)
			appendStringInfoString(&sql, "COALESCE('code ' || currency_code, currency)");
		else if (strcmp(name, "key") == 0)
			appendStringInfoString(&sql, "to_jsonb(key_columns)::text");
		else if (is_other_key(name))
			appendStringInfo(&sql, "to_jsonb(%s)::text", quote_identifier(name));
		else if (strcmp(name, "attributes") == 0)
			appendStringInfoString(&sql, "attributes::text");
		else if (i < NUM_MAP_ITEMS)
			appendStringInfoString(&sql, quote_identifier(name));
		else
			appendStringInfoString(&sql, "NULL::text");
	}
	appendStringInfoString(&sql, " FROM rebate_data.source WHERE relation::oid = $1");

	store_spi_begin(store, &scope);
	sql_param(&params, OIDOID, ObjectIdGetDatum(relid), false);
	if (sql_run(sql.data, &params, SPI_OK_SELECT) == 1)
	{
		recorded->exists = true;
		recorded->source_id = sql_get_int(0, 1, 0);
		recorded->detached = DatumGetBool(sql_get(0, 2, &isnull));
		recorded->since = DatumGetTimestampTz(sql_get(0, 3, &isnull));
		for (int i = 0; i < recorded->nsettings; i++)
		{
			recorded->settings[i].old_given = sql_get_text(0, 4 + 2 * i, context);
			recorded->settings[i].old_meaning = sql_get_text(0, 5 + 2 * i, context);
		}
	}
	store_spi_end(&scope);
}

static bool
same_text(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

/*
 * Do both calls ask for the same?  The given texts are compared, so that a
 * newer major that deparses otherwise changes nothing, and the meanings, so
 * that spelling does not count.
 */
static bool
same_setting(const Setting *s)
{
	if (s->old_given == NULL && s->new_given == NULL && s->old_meaning == NULL &&
		s->new_meaning == NULL)
		return true;
	return same_text(s->old_given, s->new_given) || same_text(s->old_meaning, s->new_meaning);
}

/*
 * A line for each difference between the recorded call and this one; NULL if
 * there is none.
 */
static char *
describe_differences(const Recorded *recorded, const AttachMap *map, bool *key_differs)
{
	StringInfoData buf;

	initStringInfo(&buf);
	*key_differs = false;
	for (int i = 0; i < recorded->nsettings; i++)
	{
		const Setting *s = &recorded->settings[i];
		const char *old = s->old_given ? s->old_given : s->old_meaning;
		const char *new = s->new_given ? s->new_given : s->new_meaning;

		if (same_setting(s))
			continue;
		if (strcmp(s->name, "key") == 0)
			*key_differs = true;
		appendStringInfo(&buf, "%s%s: attached with %s, now %s.", buf.len ? "\n" : "", s->name,
						 old ? quote_literal_cstr(old) : "null",
						 new ? quote_literal_cstr(new) : "null");
	}
	if (map->has_since && map->since != recorded->since)
		appendStringInfo(&buf, "%ssince: attached with %s, now %s.", buf.len ? "\n" : "",
						 quote_literal_cstr(api_timestamptz_text(recorded->since)),
						 quote_literal_cstr(api_timestamptz_text(map->since)));
	return buf.len ? buf.data : NULL;
}

/*
 * The time from which on orders count, if none is given: what is recorded, or
 * the start of this transaction, so that what was ordered while it waited for
 * the table counts too.  Where a date is newly mapped, the start of that day in
 * the programme's zone.
 */
TimestampTz
record_default_since(const AttachMap *map, const Recorded *recorded, Store *store)
{
	TimestampTz since = recorded->exists ? recorded->since : GetCurrentTransactionStartTimestamp();

	if (map->type[MAP_ORDER_TIME] == DATEOID &&
		!(recorded->exists && same_setting(&recorded->settings[MAP_ORDER_TIME])))
		since = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_trunc_zone,
													  CStringGetTextDatum("day"),
													  TimestampTzGetDatum(since),
													  CStringGetTextDatum(store->time_zone)));
	return since;
}

/* The arguments as a JSON object: what was given, defaults included */
static Datum
arguments_json(const Recorded *recorded, const AttachMap *map)
{
	StringInfoData buf;

	json_begin(&buf);
	for (int i = 0; i < recorded->nsettings; i++)
	{
		const Setting *s = &recorded->settings[i];

		if (strcmp(s->name, "key") == 0 || is_other_key(s->name) ||
			strcmp(s->name, "phases") == 0 || strcmp(s->name, "attributes") == 0)
			json_add_raw(&buf, s->name, s->new_given);
		else
			json_add_text(&buf, s->name, s->new_given);
	}
	if (map->has_since)
		json_add_text(&buf, "since", api_timestamptz_text(map->since));
	return json_end(&buf);
}

bool
record_links_differ(const Recorded *recorded)
{
	for (int i = 0; i < recorded->nsettings; i++)
		if (is_other_key(recorded->settings[i].name) &&
			!same_setting(&recorded->settings[i]))
			return true;
	return false;
}

/* text[] for SPI; NULL is null */
static void
sql_text_array(SqlParams *params, char **texts, int n)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; texts && i < n; i++)
		elems[i] = CStringGetTextDatum(texts[i]);
	sql_param(params, TEXTARRAYOID, texts ?
			  PointerGetDatum(construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT)) :
			  (Datum) 0, texts == NULL);
}

/*
 * What rows said of other orders under another mapping is forgotten: all of them
 * are about to be decided again.  Rows that left cannot say it again.
 */
static void
forget_links(int32 source_id)
{
	SqlParams	params = {0};

	sql_int(&params, source_id);
	sql_run("DELETE FROM rebate_data.link l WHERE l.source_id = $1"
			"  AND NOT EXISTS (SELECT FROM rebate_data.accrual x WHERE x.source_id = l.source_id"
			"                     AND x.order_key = l.order_key AND x.flags & 8 <> 0)",
			&params, SPI_OK_DELETE);
}

/* Insert or update the row of the table in rebate_data.source. */
void
record_write(Store *store, Relation rel, AttachMap *map, Recorded *recorded)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												  RelationGetRelationName(rel));

	api_lock_configuration(store);
	store_spi_begin(store, &scope);
	record_free_name(RelationGetRelid(rel), name);

	sql_param(&params, OIDOID, ObjectIdGetDatum(RelationGetRelid(rel)), false);
	sql_text(&params, name);
	sql_text_array(&params, map->key, map->nkey);
	for (int i = 0; i < NUM_MAP_ITEMS; i++)
		sql_text(&params, map->text[i]);	/* $4 .. $12 */
	sql_text(&params, map->currency_code);	/* $13 */
	sql_param(&params, JSONBOID, JsonbPGetDatum(map->given_phases), map->given_phases == NULL);
	sql_text(&params, map->attributes); /* $15 */
	sql_param(&params, TIMESTAMPTZOID, TimestampTzGetDatum(map->since), false);
	sql_param(&params, INTERVALOID, IntervalPGetDatum(map->max_backdate), map->max_backdate == NULL);
	sql_param(&params, INTERVALOID, IntervalPGetDatum(map->max_future), map->max_future == NULL);
	sql_text(&params, map->on_delete);	/* $19 */
	sql_text(&params, map->on_truncate);
	sql_text(&params, map->on_error);
	sql_param(&params, JSONBOID, arguments_json(recorded, map), false);	/* $22 */
	sql_text_array(&params, map->original, map->nkey);	/* $23 */
	sql_text_array(&params, map->replaces, map->nkey);

	if (recorded->exists)
	{
		if (record_links_differ(recorded))
			forget_links(recorded->source_id);
		sql_int(&params, recorded->source_id);
		sql_run("UPDATE rebate_data.source SET"
				"  relation_name = $2, key_columns = $3, member = $4, amount = $5, currency = $6,"
				"  quantity = $7, order_time = $8, status = $9, confirmed_at = $10, refunded = $11,"
				"  refunded_quantity = $12, currency_code = $13, phases = $14, attributes = $15::jsonb,"
				"  since = $16, max_backdate = $17, max_future = $18, on_delete = $19,"
				"  on_truncate = $20, on_error = $21, arguments = $22, original = $23, \"replaces\" = $24,"
				"  attached_at = CASE WHEN detached_at IS NULL THEN attached_at ELSE now() END,"
				"  attached_by = CASE WHEN detached_at IS NULL THEN attached_by ELSE session_user END,"
				"  detached_at = NULL"
				" WHERE source_id = $25 AND relation::oid = $1", &params, SPI_OK_UPDATE);
	}
	else
		sql_run("INSERT INTO rebate_data.source (source_id, relation, relation_name, programme_id,"
				"  key_columns, member, amount, currency, quantity, order_time, status, confirmed_at,"
				"  refunded, refunded_quantity, currency_code, phases, attributes, since,"
				"  max_backdate, max_future, on_delete, on_truncate, on_error, arguments, original,"
				"  \"replaces\")"
				" SELECT COALESCE((SELECT max(source_id) FROM rebate_data.source), 0) + 1, $1::regclass, $2, 1,"
				"  $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::jsonb, $16, $17, $18, $19,"
				"  $20, $21, $22, $23, $24", &params, SPI_OK_INSERT);
	store_spi_end(&scope);
}

/* Has an order of this source been seen? */
static bool
has_orders(Store *store, int32 source_id)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	bool		found;

	store_spi_begin(store, &scope);
	sql_int(&params, source_id);
	found = sql_run("SELECT FROM rebate_data.accrual WHERE source_id = $1 LIMIT 1", &params,
					SPI_OK_SELECT) > 0;
	store_spi_end(&scope);
	return found;
}

/*
 * Raise RB005 if this call differs from the recorded one and does not say
 * replace.  Returns whether there is something to change.
 */
bool
record_check(Store *store, Relation rel, const AttachMap *map,
					   const Recorded *recorded, bool replace)
{
	bool		key_differs;
	char	   *differences = describe_differences(recorded, map, &key_differs);

	if (differences && !replace)
		ereport(ERROR,
				(errcode(ERRCODE_RB_ATTACHED_OTHERWISE),
				 errmsg("table \"%s\" is attached with other arguments",
						RelationGetRelationName(rel)),
				 errdetail_internal("%s", differences),
				 errhint("Call rebate.attach() with replace => true to change the attachment.")));

	/* Every order would be met again under another key, and be paid twice. */
	if (key_differs && has_orders(store, recorded->source_id))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("the key of table \"%s\" cannot be changed any more",
						RelationGetRelationName(rel)),
				 errdetail("Rebates of its orders are recorded under the key it was attached with.")));
	return differences != NULL;
}

bool
record_row_triggers(Store *store, Oid relid)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	bool		result;

	store_spi_begin(store, &scope);
	sql_param(&params, OIDOID, ObjectIdGetDatum(relid), false);
	result = sql_run("SELECT FROM rebate_data.source WHERE relation::oid = $1"
					 " AND arguments ->> 'row_triggers' = 'true'", &params, SPI_OK_SELECT) > 0;
	store_spi_end(&scope);
	return result;
}

bool
record_has_misfits(Store *store, const Recorded *recorded)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	bool		result;

	store_spi_begin(store, &scope);
	sql_int(&params, recorded->source_id);
	result = sql_run("SELECT FROM rebate_data.failure WHERE source_id = $1 AND sqlstate = 'RB003' LIMIT 1",
					 &params, SPI_OK_SELECT) > 0;
	store_spi_end(&scope);
	return result;
}
