/*
 * doctor_damage.c
 *	  For rebate.doctor(): a store that the engine refuses to use.
 *
 * Then nothing can be asked of the store itself.  What others have done to its
 * tables stands in the catalogs, and so does what takes it back.
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "api.h"
#include "doctor.h"
#include "store_shape.h"

/*
 * The store as store_get(true) gives it, or NULL and the error, in the current
 * context, for which the engine refuses to use it.
 */
Store *
doctor_find_store(ErrorData **damage)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Store	   *volatile store = NULL;

	*damage = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		store = store_get(true);
		if (store)
		{
			StoreSpi	scope;

			/* looks at all of its tables */
			store_spi_begin(store, &scope);
			store_spi_end(&scope);
		}
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_RB_NO_STORE &&
			error->sqlerrcode != ERRCODE_RB_STORE_DAMAGED)
			ReThrowError(error);
		*damage = error;
	}
	PG_END_TRY();
	return store;
}

/* Whose the schema is, whatever is in it */
static Oid
schema_owner(void)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID,
										ObjectIdGetDatum(get_namespace_oid(STORE_SCHEMA, false)));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema \"%s\"", STORE_SCHEMA);
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* What hangs on the tables of the store that the engine would pass by, and what takes it away */
static const char *const foreign_sql =
"WITH ours AS (SELECT c.*, n.nspowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
"               WHERE n.nspname = 'rebate_data' AND c.relkind = 'r')"
"SELECT o.oid::regclass::text, format('trigger %I is on it', t.tgname),"
"       format('ALTER TABLE %s DISABLE TRIGGER %I', o.oid::regclass, t.tgname)"
"  FROM ours o JOIN pg_trigger t ON t.tgrelid = o.oid"
" WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'"
"   AND t.tgfoid IS DISTINCT FROM to_regprocedure('rebate.guard()')"
" UNION ALL "
"SELECT o.oid::regclass::text, format('rule %I is on it', r.rulename),"
"       format('DROP RULE %I ON %s', r.rulename, o.oid::regclass)"
"  FROM ours o JOIN pg_rewrite r ON r.ev_class = o.oid"
" UNION ALL "
"SELECT o.oid::regclass::text, 'it has row level security',"
"       format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', o.oid::regclass)"
"  FROM ours o WHERE o.relrowsecurity OR o.relforcerowsecurity"
" UNION ALL "
"SELECT o.oid::regclass::text, format('it belongs to role %I, the schema to role %I',"
"                                     pg_get_userbyid(o.relowner), pg_get_userbyid(o.nspowner)),"
"       format('ALTER TABLE %s OWNER TO %I', o.oid::regclass, pg_get_userbyid(o.nspowner))"
"  FROM ours o WHERE o.relowner <> o.nspowner"
" UNION ALL "
"SELECT o.oid::regclass::text, 'it is not logged: a crash empties it', format('ALTER TABLE %s SET LOGGED', o.oid::regclass)"
"  FROM ours o WHERE o.relpersistence = 'u'"
" UNION ALL "
"SELECT o.oid::regclass::text, format('somebody added column %I', a.attname),"
"       format('ALTER TABLE %s DROP COLUMN %I -- what is in it is lost', o.oid::regclass, a.attname)"
"  FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid AND NOT a.attisdropped"
"  JOIN jsonb_each_text($1::jsonb) x(name, n) ON x.name = o.relname::text AND a.attnum > x.n::integer"
" UNION ALL "
"SELECT i.indexrelid::regclass::text, 'the index is invalid', format('REINDEX INDEX %s', i.indexrelid::regclass)"
"  FROM ours o JOIN pg_index i ON i.indrelid = o.oid WHERE NOT i.indisvalid"
" ORDER BY 1, 2";

/* A text as a comment in SQL: a name in it may hold the end of a line. */
static char *
comment(const char *text)
{
	char	   *result = psprintf("-- %s", text);

	for (char *c = result; *c; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	return result;
}

/* The tables that have a number of columns, and no more: an object of these numbers */
static char *
exact_tables(void)
{
	StringInfoData json;

	json_begin(&json);
	for (int i = 0; i < NUM_STORE_TABLES; i++)
		if (shape_exact_columns(i) > 0)
			json_add_raw(&json, shape_table_name(i), psprintf("%d", shape_exact_columns(i)));
	return JsonbToCString(NULL, &DatumGetJsonbP(json_end(&json))->root, 0);
}

/* A line for each thing that is known to stop the engine, or what it said itself */
void
doctor_damage(ReturnSetInfo *result, const ErrorData *damage)
{
	MemoryContext context = CurrentMemoryContext;
	SqlParams	params = {0};
	int			level;
	uint64		n;

	if (!has_privs_of_role(GetUserId(), schema_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", "rebate.doctor"),
				 errdetail("The store cannot be used, so only superusers and members of the role that owns its schema may call it.")));
	level = sql_begin();
	sql_text(&params, exact_tables());
	n = sql_run(foreign_sql, &params, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
		doctor_say(result, "store", sql_get_text(row, 1, context), "problem",
				   psprintf("%s: the engine refuses to work, and orders fail", sql_get_text(row, 2, context)),
				   sql_get_text(row, 3, context));
	sql_end(level);
	if (n == 0)
		doctor_say(result, "store", STORE_SCHEMA, "problem",
				   damage->detail ? psprintf("%s. %s", damage->message, damage->detail) :
				   damage->message,
				   comment(damage->hint ? damage->hint : "Restore the store from a backup."));
}
