/*
 * attach_follow.c
 *	  What rebate_data.source records of a table follows the table's names.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "api.h"
#include "attach.h"
#include "store.h"

/*
 * Names of sources are unique in the views: a table that was dropped or renamed
 * since it was attached gives its old name up.  Inside store_spi_begin().
 */
void
record_free_name(Oid relid, const char *name)
{
	SqlParams	params = {0};
	uint64		n;

	sql_text(&params, name);
	sql_param(&params, OIDOID, ObjectIdGetDatum(relid), false);
	n = sql_run("UPDATE rebate_data.source s SET"
			"  relation_name = COALESCE((SELECT format('%I.%I', n.nspname, c.relname)"
			"    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = s.relation::oid),"
			"    format('%s (dropped, source %s)', s.relation_name, s.source_id)),"
			"  detached_at = CASE WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation::oid)"
			"    THEN s.detached_at ELSE COALESCE(s.detached_at, now()) END"
			" WHERE s.relation_name = $1 AND s.relation::oid <> $2"
			" RETURNING CASE WHEN NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation::oid)"
			"           THEN s.relation_name END", &params, SPI_OK_UPDATE_RETURNING);
	for (uint64 row = 0; row < n; row++)
	{
		char	   *old_name = sql_get_text(row, 1, CurrentMemoryContext);

		if (old_name)
			ereport(NOTICE,
					(errmsg("table %s is not the one that was attached before under this name",
							name),
					 errdetail("That one was dropped; its rebates stay, in the views as those of \"%s\".",
							   old_name)));
	}
}

/*
 * Mappings that are the renamed column and nothing else are the new name now,
 * the key's columns too.  An expression stays as it is: it no longer fits.
 */
void
record_rename_column(Store *store, Oid relid, const char *oldname, const char *newname)
{
	SqlParams	params = {0};
	StoreSpi	scope;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "UPDATE rebate_data.source SET key_columns = array_replace(key_columns, $2, $3),"
						   " attributes = (SELECT jsonb_object_agg(a.key, CASE WHEN a.value = to_jsonb($4::text) THEN to_jsonb($5::text) ELSE a.value END)"
						   "   FROM jsonb_each(attributes) a),"
						   " original = array_replace(original, $4, $5),"
						   " \"replaces\" = array_replace(\"replaces\", $4, $5)");
	for (int i = 0; i < NUM_MAP_ITEMS; i++)
	{
		const char *column = quote_identifier(map_names[i]);

		appendStringInfo(&sql, ", %s = CASE WHEN %s = $4 THEN $5 ELSE %s END",
						 column, column, column);
	}
	appendStringInfoString(&sql, " WHERE relation::oid = $1");

	sql_param(&params, OIDOID, ObjectIdGetDatum(relid), false);
	sql_text(&params, oldname);
	sql_text(&params, newname);
	sql_text(&params, quote_identifier(oldname));
	sql_text(&params, quote_identifier(newname));
	store_spi_begin(store, &scope);
	sql_run(sql.data, &params, SPI_OK_UPDATE);
	store_spi_end(&scope);
	store_rules_changed(store);
}

/* Tables, or their schemas, have new names: so have their sources. */
void
record_rename_tables(void)
{
	MemoryContext context = CurrentMemoryContext;
	Store	   *store = store_get(false);
	StoreSpi	scope;
	uint64		n;
	Oid		   *relids;
	char	  **names;

	store_spi_begin(store, &scope);
	n = sql_run("SELECT c.oid, format('%I.%I', n.nspname, c.relname) FROM rebate_data.source s"
				"  JOIN pg_class c ON c.oid = s.relation::oid"
				"  JOIN pg_namespace n ON n.oid = c.relnamespace"
				" WHERE s.relation_name <> format('%I.%I', n.nspname, c.relname)", NULL, SPI_OK_SELECT);
	relids = MemoryContextAlloc(context, sizeof(Oid) * Max(n, 1));
	names = MemoryContextAlloc(context, sizeof(char *) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(sql_get(i, 1, &isnull));
		names[i] = sql_get_text(i, 2, context);
	}
	for (uint64 i = 0; i < n; i++)
	{
		SqlParams	params = {0};

		record_free_name(relids[i], names[i]);
		sql_param(&params, OIDOID, ObjectIdGetDatum(relids[i]), false);
		sql_text(&params, names[i]);
		sql_run("UPDATE rebate_data.source SET relation_name = $2 WHERE relation::oid = $1",
				&params, SPI_OK_UPDATE);
	}
	store_spi_end(&scope);
	if (n > 0)
		store_rules_changed(store);
}
