/*
 * api.c
 *	  What the functions that people call share.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "api.h"
#include "session.h"

/* Argument "argno", a text, as C string; NULL for a null. */
char *
api_text(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return NULL;
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/* Argument "argno", a numeric; NULL for a null. */
Numeric
api_numeric(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return NULL;
	return PG_GETARG_NUMERIC(argno);
}

/* Raise "code" unless "value" is in the NULL-ended list "allowed". */
void
api_one_of(int code, const char *argument, const char *value,
		   const char *const *allowed)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; allowed[i]; i++)
	{
		if (value && strcmp(value, allowed[i]) == 0)
			return;
		appendStringInfo(&list, "%s\"%s\"", i ? ", " : "", allowed[i]);
	}
	if (value == NULL)
		ereport(ERROR,
				(errcode(code),
				 errmsg("%s must not be null", argument),
				 errhint("It is one of %s.", list.data)));
	ereport(ERROR,
			(errcode(code),
			 errmsg("%s cannot be \"%s\"", argument, value),
			 errhint("It is one of %s.", list.data)));
}

/* Raise "code" unless "value" can name something of ours. */
void
api_check_name(int code, const char *argument, const char *value)
{
	if (value == NULL)
		ereport(ERROR,
				(errcode(code),
				 errmsg("%s must not be null", argument)));
	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(code),
				 errmsg("%s must not be empty", argument)));
	if (strlen(value) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(code),
				 errmsg("%s is longer than %d bytes", argument, NAMEDATALEN - 1)));
}

/*
 * Lock the one row of rebate_data.generation, which every change of
 * configuration does first: what is read after it is not changed by others any
 * more.  Orders take no lock.
 */
void
api_lock_configuration(Store *store)
{
	StoreSpi	scope;

	store_spi_begin(store, &scope);
	if (sql_run("SELECT FROM rebate_data.generation FOR UPDATE", NULL, SPI_OK_SELECT) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("table \"%s.generation\" must have one row", STORE_SCHEMA),
				 errhint("Restore the store from a backup.")));
	store_spi_end(&scope);
}

/* Append a parameter. */
void
sql_param(SqlParams *p, Oid type, Datum value, bool isnull)
{
	if (p->n >= MAX_SQL_PARAMS)
		elog(ERROR, "too many parameters");
	p->types[p->n] = type;
	p->values[p->n] = value;
	p->nulls[p->n] = isnull ? 'n' : ' ';
	p->n++;
}

/* Append a text parameter; a NULL pointer is a null. */
void
sql_text(SqlParams *p, const char *value)
{
	sql_param(p, TEXTOID, value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

/* Append an integer parameter. */
void
sql_int(SqlParams *p, int32 value)
{
	sql_param(p, INT4OID, Int32GetDatum(value), false);
}

/*
 * Connect to SPI as the current user, names resolved in pg_catalog only;
 * returns what sql_end() wants.
 */
int
sql_begin(void)
{
	int			level = session_pin();

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	return level;
}

void
sql_end(int level)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	AtEOXact_GUC(true, level);
}

/*
 * Run one statement inside SPI with a snapshot of its own, so that it sees
 * what was committed while an earlier statement waited for a lock.
 */
uint64
sql_run(const char *sql, SqlParams *p, int expected)
{
	int			rc;

	if (p)
		rc = SPI_execute_with_args(sql, p->n, p->types, p->values, p->nulls, false, 0);
	else
		rc = SPI_execute(sql, false, 0);
	if (rc != expected)
		elog(ERROR, "unexpected SPI result %s of: %s", SPI_result_code_string(rc), sql);
	return SPI_processed;
}

/* A value of the last result as text, copied into "context"; NULL for a null. */
char *
sql_get_text(uint64 row, int column, MemoryContext context)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

/* An integer of the last result. */
int32
sql_get_int(uint64 row, int column, int32 if_null)
{
	bool		isnull;
	Datum		value = sql_get(row, column, &isnull);

	return isnull ? if_null : DatumGetInt32(value);
}

/* A value of the last result, in SPI's memory. */
Datum
sql_get(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/* Start a JSON object. */
void
json_begin(StringInfo buf)
{
	initStringInfo(buf);
	appendStringInfoChar(buf, '{');
}

/* Append a member whose value is JSON already; nothing for NULL. */
void
json_add_raw(StringInfo buf, const char *key, const char *json)
{
	if (json == NULL)
		return;
	if (buf->len > 1)
		appendStringInfoString(buf, ", ");
	escape_json(buf, key);
	appendStringInfoString(buf, ": ");
	appendStringInfoString(buf, json);
}

/* Append a member with a string value; nothing for NULL. */
void
json_add_text(StringInfo buf, const char *key, const char *value)
{
	StringInfoData json;

	if (value == NULL)
		return;
	initStringInfo(&json);
	escape_json(&json, value);
	json_add_raw(buf, key, json.data);
	pfree(json.data);
}

/* Finish a JSON object and return it as jsonb. */
Datum
json_end(StringInfo buf)
{
	appendStringInfoChar(buf, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(buf->data));
}

/* ISO text of an instant in UTC, whatever the session's settings. */
char *
api_timestamptz_text(TimestampTz t)
{
	char		buf[MAXDATELEN + 1];

	/* The JSON form is ISO always; an explicit offset of 0 makes it UTC */
	if (TIMESTAMP_NOT_FINITE(t))
		return pstrdup(TIMESTAMP_IS_NOBEGIN(t) ? "-infinity" : "infinity");
	else
	{
		const int	utc = 0;

		JsonEncodeDateTime(buf, TimestampTzGetDatum(t), TIMESTAMPTZOID, &utc);
		return pstrdup(buf);
	}
}

/* Text of an interval in the default style, whatever the session's settings. */
char *
api_interval_text(const Interval *span)
{
	int			level = NewGUCNestLevel();
	char	   *result;

	(void) set_config_option("IntervalStyle", "postgres", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	result = DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(span)));
	AtEOXact_GUC(false, level);
	return result;
}
