/*
 * api.h
 *	  What the functions that people call share: reading arguments, parameter
 *	  lists for SPI, JSON of arguments.
 */
#ifndef REBATE_API_H
#define REBATE_API_H

#include "rebate.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "store.h"

/* Arguments: NULL pointers for SQL nulls */
extern char *api_text(FunctionCallInfo fcinfo, int argno);
extern Numeric api_numeric(FunctionCallInfo fcinfo, int argno);

/* Raise "code" naming "argument" unless "value" is one of a NULL-ended list */
extern void api_one_of(int code, const char *argument, const char *value,
					   const char *const *allowed);

/* Raise "code" unless "value" is a usable name: not NULL, 1 to 63 bytes */
extern void api_check_name(int code, const char *argument, const char *value);

/* A list of parameters $1, $2, ... */
#define MAX_SQL_PARAMS 40

typedef struct SqlParams
{
	int			n;
	Oid			types[MAX_SQL_PARAMS];
	Datum		values[MAX_SQL_PARAMS];
	char		nulls[MAX_SQL_PARAMS];
} SqlParams;

extern void sql_param(SqlParams *p, Oid type, Datum value, bool isnull);
extern void sql_text(SqlParams *p, const char *value);
extern void sql_int(SqlParams *p, int32 value);

/*
 * Wait until no other transaction changes rules or attaches a table, and keep
 * others from it until this one ends.
 */
extern void api_lock_configuration(Store *store);

/*
 * SPI as the current user with names resolved in pg_catalog; the store's tables
 * are reached by store_spi_begin() instead.
 */
extern int	sql_begin(void);
extern void sql_end(int level);

/*
 * Run one statement with its own snapshot, raise unless it returns "expected"
 * (SPI_OK_...), return the number of rows.  p may be NULL.
 */
extern uint64 sql_run(const char *sql, SqlParams *p, int expected);

/* Values of the last result, copied into "context" */
extern char *sql_get_text(uint64 row, int column, MemoryContext context);
extern int32 sql_get_int(uint64 row, int column, int32 if_null);
extern Datum sql_get(uint64 row, int column, bool *isnull);

/* A JSON object under construction; members with NULL values are left out */
extern void json_begin(StringInfo buf);
extern void json_add_text(StringInfo buf, const char *key, const char *value);
extern void json_add_raw(StringInfo buf, const char *key, const char *json);
extern Datum json_end(StringInfo buf);

/* Text forms that do not depend on settings, NULL for a null argument */
extern char *api_timestamptz_text(TimestampTz t);
extern char *api_interval_text(const Interval *span);

#endif							/* REBATE_API_H */
