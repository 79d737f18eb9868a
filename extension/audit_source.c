/*
 * audit_source.c
 *	  The source part of the audit: the attached tables, their triggers, and each
 *	  of their orders (audit_orders.c).
 */
#include "rebate.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "api.h"
#include "audit.h"

/* For the audit itself: a line an order */
static void
report_violation(void *arg, Source *source, const char *key, const char *violation,
				 const char *detail)
{
	audit_report(arg, "source", violation, psprintf("%s, order %s", source->name, key), detail);
}

/* Orders that wait are no damage, but until then the ledger is behind. */
static void
report_deferred(Store *store, ReturnSetInfo *result, Source *source)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *n;

	store_spi_begin(store, &scope);
	sql_int(&params, source->source_id);
	(void) sql_run("SELECT NULLIF(count(*), 0)::text FROM rebate_data.deferred WHERE source_id = $1",
				   &params, SPI_OK_SELECT);
	n = sql_get_text(0, 1, context);
	store_spi_end(&scope);
	if (n)
		audit_report(result, "source", "orders are deferred", source->name,
					 psprintf("%s wait for rebate.reconcile().", n));
}

/* Triggers of one table that attach() made and that somebody dropped or disabled */
static void
check_triggers_of(ReturnSetInfo *result, Source *source, Relation rel)
{
	static const char *const names[] = {"rebate_insert", "rebate_update", "rebate_delete",
	"rebate_truncate"};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		bool		works = false;

		for (int j = 0; rel->trigdesc && j < rel->trigdesc->numtriggers; j++)
		{
			Trigger    *t = &rel->trigdesc->triggers[j];

			if (strcmp(t->tgname, names[i]) == 0)
				works = t->tgenabled == TRIGGER_FIRES_ON_ORIGIN || t->tgenabled == TRIGGER_FIRES_ALWAYS;
		}
		if (!works)
			audit_report(result, "source", "trigger is missing or disabled",
						 RelationGetRelid(rel) == source->relid ?
						 psprintf("%s, trigger %s", source->name, names[i]) :
						 psprintf("%s, partition %s, trigger %s", source->name,
								  quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
															 RelationGetRelationName(rel)),
								  names[i]),
						 "Call rebate.attach() with replace => true, or enable it.");
	}
}

/* The same for the attached table and all partitions below it */
static void
check_triggers(ReturnSetInfo *result, Source *source)
{
	ListCell   *lc;

	foreach(lc, source->partitioned ? find_all_inheritors(source->relid, AccessShareLock, NULL) :
			list_make1_oid(source->relid))
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);

		check_triggers_of(result, source, rel);
		table_close(rel, AccessShareLock);
	}
}

void
audit_sources(Store *store, ReturnSetInfo *result)
{
	StoreSpi	scope;
	Oid		   *relids;
	char	  **names;
	int			n;
	MemoryContext context = CurrentMemoryContext;

	store_spi_begin(store, &scope);
	n = (int) sql_run("SELECT relation::oid, relation_name FROM rebate_data.source"
					  " WHERE detached_at IS NULL ORDER BY source_id", NULL, SPI_OK_SELECT);
	relids = MemoryContextAlloc(context, sizeof(Oid) * Max(n, 1));
	names = MemoryContextAlloc(context, sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(sql_get(i, 1, &isnull));
		names[i] = sql_get_text(i, 2, context);
	}
	store_spi_end(&scope);

	for (int i = 0; i < n; i++)
	{
		Source	   *source;

		if (get_rel_relkind(relids[i]) != RELKIND_RELATION &&
			get_rel_relkind(relids[i]) != RELKIND_PARTITIONED_TABLE)
		{
			audit_report(result, "source", "attached table is gone", names[i],
						 "Its rebates stay as they are.");
			continue;
		}
		source = source_get(store, relids[i]);
		if (source == NULL)
			continue;
		check_triggers(result, source);
		if (source->broken)
		{
			audit_report(result, "source", "mapping does not fit the table", names[i],
						 source->broken);
			continue;
		}
		audit_orders(store, source, report_violation, result);
		report_deferred(store, result, source);
	}
}
