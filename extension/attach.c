/*
 * attach.c
 *	  rebate.attach() and rebate.detach().
 *
 * attach() is declarative: what it is given is compared with what is recorded,
 * argument by argument, and nothing is done if they agree.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "api.h"
#include "attach.h"
#include "collect.h"
#include "create_store.h"
#include "expr.h"
#include "reconcile.h"
#include "rights.h"
#include "session.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_attach);
PG_FUNCTION_INFO_V1(rebate_detach);

/* Arguments of rebate.attach(), in their order */
enum
{
	ARG_SOURCE, ARG_MEMBER, ARG_AMOUNT, ARG_CURRENCY, ARG_KEY, ARG_QUANTITY,
	ARG_ORDER_TIME, ARG_STATUS, ARG_PHASES, ARG_CONFIRMED_AT, ARG_REFUNDED,
	ARG_REFUNDED_QUANTITY, ARG_ATTRIBUTES, ARG_SINCE, ARG_MAX_BACKDATE,
	ARG_MAX_FUTURE, ARG_ON_DELETE, ARG_ON_TRUNCATE, ARG_ON_ERROR, ARG_REPLACE,
	ARG_ROW_TRIGGERS, ARG_ORIGINAL, ARG_REPLACES
};

/*
 * Raise unless the caller owns the table.  Done before the table is locked, so
 * that nobody can stop a table that is not his.
 */
static void
check_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("there is no relation with OID %u", relid)));
	form = (Form_pg_class) GETSTRUCT(tuple);
	if (!has_privs_of_role(GetUserId(), form->relowner))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(form->relkind),
					   NameStr(form->relname));
	ReleaseSysCache(tuple);
}

/* Raise unless rows of the table are there after a crash. */
static void
check_persistence(Relation rel)
{
	const char *name = RelationGetRelationName(rel);
	const char *schema = get_namespace_name(RelationGetNamespace(rel));

	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" is temporary", name),
				 errdetail("Its orders vanish with the session, their rebates would stay.")));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" is unlogged", name),
				 errdetail("A crash empties it, their rebates would stay."),
				 errhint("ALTER TABLE %s SET LOGGED.",
						 quote_qualified_identifier(schema, name))));
}

/* Raise unless a relation can be a partition of the attached table "root". */
void
attach_check_partition(Relation rel, const char *root)
{
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table \"%s\" cannot be a partition of table \"%s\" with rebates",
						RelationGetRelationName(rel), root),
				 errdetail("Its rows can change without this server."),
				 errhint("Detach that partition, or keep its rows in a table of this server.")));
	check_persistence(rel);
}

/* Raise unless the relation is a table that can be attached. */
static void
check_kind(Relation rel)
{
	const char *name = RelationGetRelationName(rel);
	Form_pg_class form = rel->rd_rel;
	Oid			relid = RelationGetRelid(rel);
	const char *schema = get_namespace_name(form->relnamespace);

	if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", name),
				 errhint("Attach the table that the orders are inserted into.")));
	if (form->relispartition)
	{
		Oid			root = llast_oid(get_partition_ancestors(relid));

		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" cannot be attached: it is a partition", name),
				 errhint("Attach the table that it is a partition of: %s.",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(root)),
													get_rel_name(root)))));
	}
	if (has_superclass(relid) ||
		(form->relkind == RELKIND_RELATION && find_inheritance_children(relid, NoLock) != NIL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" cannot be attached: tables with inheritance are not supported",
						name),
				 errdetail("Statements on the parent change rows of the child, and their keys need not be unique."),
				 errhint("Use a partitioned table, or ALTER TABLE ... NO INHERIT.")));
	check_persistence(rel);
	if (form->relkind == RELKIND_PARTITIONED_TABLE)
	{
		ListCell   *lc;

		foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		{
			Relation	part = relation_open(lfirst_oid(lc), AccessShareLock);

			attach_check_partition(part, name);
			relation_close(part, NoLock);
		}
	}
	if (IsSystemRelation(rel) || strcmp(schema, STORE_SCHEMA) == 0 ||
		strcmp(schema, "rebate") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s.%s\" is no table of orders", schema, name)));
}

/*
 * Warn if nobody will put triggers on partitions to come: the event trigger is
 * gone or disabled.
 */
static void
warn_without_event_trigger(Relation rel)
{
	int			level;
	uint64		n;

	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return;
	level = sql_begin();
	n = sql_run("SELECT FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid"
				"  JOIN pg_namespace n ON n.oid = p.pronamespace"
				" WHERE n.nspname = 'rebate' AND p.proname = 'follow_partitions' AND e.evtenabled <> 'D'",
				NULL, SPI_OK_SELECT);
	sql_end(level);
	if (n == 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("partitions of table \"%s\" that are created later get no triggers",
						RelationGetRelationName(rel)),
				 errdetail("The event trigger \"rebate_follow_partitions\" is missing or disabled."),
				 errhint("As superuser: ALTER EVENT TRIGGER rebate_follow_partitions ENABLE ALWAYS, or create the extension again. Or call rebate.attach() with the same arguments after each new partition.")));
}

/* Raise if an argument without a meaning for NULL is null. */
static void
check_not_null(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("%s must not be null", name)));
}

/* Argument of type text[]; NULL if null, and an element is NULL if it is */
static char **
text_array(FunctionCallInfo fcinfo, int argno, int *n)
{
	Datum	   *elems;
	bool	   *nulls;
	char	  **result;

	if (PG_ARGISNULL(argno))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argno), TEXTOID, -1, false, TYPALIGN_INT,
					  &elems, &nulls, n);
	result = palloc(sizeof(char *) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		result[i] = nulls[i] ? NULL : TextDatumGetCString(elems[i]);
	return result;
}

/* Read the arguments of attach(), without looking at the table. */
static void
read_arguments(FunctionCallInfo fcinfo, AttachMap *map)
{
	static const int args[NUM_MAP_ITEMS] = {
		ARG_MEMBER, ARG_AMOUNT, ARG_CURRENCY, ARG_QUANTITY, ARG_ORDER_TIME,
		ARG_STATUS, ARG_CONFIRMED_AT, ARG_REFUNDED, ARG_REFUNDED_QUANTITY
	};

	memset(map, 0, sizeof(AttachMap));
	check_not_null(fcinfo, ARG_REPLACE, "replace");
	check_not_null(fcinfo, ARG_ROW_TRIGGERS, "row_triggers");
	map->row_triggers = PG_GETARG_BOOL(ARG_ROW_TRIGGERS);
	for (int i = 0; i < NUM_MAP_ITEMS; i++)
		map->given[i] = api_text(fcinfo, args[i]);
	map->given_key = text_array(fcinfo, ARG_KEY, &map->ngiven_key);
	map->given_original = text_array(fcinfo, ARG_ORIGINAL, &map->ngiven_original);
	map->given_replaces = text_array(fcinfo, ARG_REPLACES, &map->ngiven_replaces);
	if (!PG_ARGISNULL(ARG_PHASES))
		map->given_phases = PG_GETARG_JSONB_P(ARG_PHASES);
	if (!PG_ARGISNULL(ARG_ATTRIBUTES))
		map->given_attributes = PG_GETARG_JSONB_P(ARG_ATTRIBUTES);
	if (!PG_ARGISNULL(ARG_SINCE))
	{
		map->has_since = true;
		map->since = PG_GETARG_TIMESTAMPTZ(ARG_SINCE);
	}
	if (!PG_ARGISNULL(ARG_MAX_BACKDATE))
		map->max_backdate = PG_GETARG_INTERVAL_P(ARG_MAX_BACKDATE);
	if (!PG_ARGISNULL(ARG_MAX_FUTURE))
		map->max_future = PG_GETARG_INTERVAL_P(ARG_MAX_FUTURE);
	map->on_delete = api_text(fcinfo, ARG_ON_DELETE);
	map->on_truncate = api_text(fcinfo, ARG_ON_TRUNCATE);
	map->on_error = api_text(fcinfo, ARG_ON_ERROR);
}

/* Names the rule that a table does not fit */
static void
rule_error_context(void *arg)
{
	errcontext("rule \"%s\", which applies to every attached table", (const char *) arg);
}

/*
 * Raise if a rule for every attached table does not fit this one: each of its
 * orders would fail.
 */
static void
check_rules(Store *store, Relation rel)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorContextCallback callback = {
		.callback = rule_error_context,.previous = error_context_stack
	};
	StoreSpi	scope;
	uint64		n;
	char	 ***rules;

	store_spi_begin(store, &scope);
	n = sql_run("SELECT DISTINCT ON (v.condition, v.base) r.name, v.condition, v.base"
				"  FROM rebate_data.rule r CROSS JOIN LATERAL"
				"    (SELECT * FROM rebate_data.rule_version l WHERE l.rule_id = r.rule_id"
				"      ORDER BY l.version DESC LIMIT 1) v"
				" WHERE v.source_id IS NULL AND (v.condition IS NOT NULL OR v.base IS NOT NULL)"
				" ORDER BY v.condition, v.base, r.rule_id", NULL, SPI_OK_SELECT);
	rules = MemoryContextAlloc(context, sizeof(char **) * Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		rules[row] = MemoryContextAlloc(context, sizeof(char *) * 3);
		for (int i = 0; i < 3; i++)
			rules[row][i] = sql_get_text(row, i + 1, context);
	}
	store_spi_end(&scope);

	error_context_stack = &callback;
	for (uint64 row = 0; row < n; row++)
	{
		OrderExpr	expr;

		callback.arg = rules[row][0];
		if (rules[row][1])
			expr_load(rel, "condition", rules[row][1], BOOLOID, &expr);
		if (rules[row][2])
			expr_load(rel, "base", rules[row][2], NUMERICOID, &expr);
	}
	error_context_stack = callback.previous;
}

/*
 * rebate.attach(): record the mapping of a table, create its triggers, and
 * decide or set aside the rows that are there already, in one transaction.
 */
Datum
rebate_attach(PG_FUNCTION_ARGS)
{
	AttachMap	map;
	Recorded	recorded;
	Store	   *store;
	Relation	rel;
	Oid			relid;
	bool		replace;
	bool		triggers;
	bool		changes = true;
	int			level;

	rights_check_early(RIGHT_ADMIN, "rebate.attach");
	check_not_null(fcinfo, ARG_SOURCE, "source");
	relid = PG_GETARG_OID(ARG_SOURCE);
	level = session_pin_names();
	read_arguments(fcinfo, &map);
	replace = PG_GETARG_BOOL(ARG_REPLACE);
	(void) collect_flush();

	check_owner(relid);
	triggers_lock_tree(relid, ShareRowExclusiveLock, "rebate.attach");
	rel = relation_open(relid, NoLock);
	check_kind(rel);
	check_owner(relid);

	(void) create_store_if_missing();
	store = store_get(false);
	rights_check(store, RIGHT_ADMIN, "rebate.attach");

	mapping_check(&map, rel, store);
	record_read(store, relid, &map, &recorded);
	triggers = triggers_complete(relid, map.row_triggers);
	if (recorded.exists)
	{
		changes = record_check(store, rel, &map, &recorded, replace) || recorded.detached;

		/* rows that did not fit may fit now */
		if (!changes && triggers &&
			!(replace && record_has_misfits(store, &recorded)))
		{
			ereport(NOTICE,
					(errmsg("table \"%s\" is attached already, nothing changed",
							RelationGetRelationName(rel))));
			relation_close(rel, NoLock);
			AtEOXact_GUC(true, level);
			PG_RETURN_OID(relid);
		}
	}

	/* On a replacement a broken rule must not stand in the way of the repair. */
	if (!recorded.exists)
		check_rules(store, rel);
	mapping_warn(&map, rel, store);
	if (!map.has_since)
		map.since = record_default_since(&map, &recorded, store);
	record_write(store, rel, &map, &recorded);
	triggers_create(relid, map.row_triggers);
	warn_without_event_trigger(rel);

	/* Other sessions compile the mapping again with their next order. */
	CacheInvalidateRelcache(rel);
	CommandCounterIncrement();
	store_rules_changed(store);
	relation_close(rel, NoLock);

	/*
	 * Rows that came while nobody looked, or that a new since takes in; what is
	 * recorded already is decided again, since a mapping is part of the target.
	 * Where only triggers were missing, a key that is not recorded came since.
	 */
	(void) reconcile_attach(relid, changes && map.text[MAP_ORDER_TIME] == NULL,
							recorded.exists);
	AtEOXact_GUC(true, level);
	PG_RETURN_OID(relid);
}

/*
 * rebate.detach(): drop the triggers.  The row of the source stays, and so does
 * the ledger.
 */
Datum
rebate_detach(PG_FUNCTION_ARGS)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	Store	   *store;
	Relation	rel;
	Oid			relid;
	uint64		updated;

	(void) collect_flush();
	store = store_get(false);
	rights_check(store, RIGHT_ADMIN, "rebate.detach");
	check_not_null(fcinfo, 0, "source");
	relid = PG_GETARG_OID(0);

	/* DROP TRIGGER needs this lock; taken at once, so that none is upgraded. */
	check_owner(relid);
	triggers_lock_tree(relid, AccessExclusiveLock, "rebate.detach");
	rel = relation_open(relid, NoLock);
	check_owner(relid);

	store_spi_begin(store, &scope);
	sql_param(&params, OIDOID, ObjectIdGetDatum(relid), false);
	updated = sql_run("UPDATE rebate_data.source SET detached_at = now()"
					  " WHERE relation::oid = $1 AND detached_at IS NULL", &params, SPI_OK_UPDATE);
	store_spi_end(&scope);
	if (updated == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_NOT_ATTACHED),
				 errmsg("table \"%s\" is not attached", RelationGetRelationName(rel))));

	triggers_drop(relid);
	CacheInvalidateRelcache(rel);
	CommandCounterIncrement();
	store_rules_changed(store);
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}
