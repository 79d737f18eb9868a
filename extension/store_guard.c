/*
 * store_guard.c
 *	  The triggers that keep others from writing to the store, and that tell it
 *	  from somebody else's.
 *
 * Whoever has CREATE on the database can make a schema of that name, with tables
 * of the right shape and any rules, sources and balances in them.  What he cannot
 * make is a trigger with rebate.guard(): that takes EXECUTE on it, which only
 * rebate.create_store() and rebate.adopt_store() grant, to the owner of what
 * they made or checked.  So table "store" with our guard is ours, and with it
 * the tables of the same schema and owner; a schema that was planted has none, nor
 * has a store that outlived a DROP EXTENSION.
 *
 * A guard that was dropped from another table, or disabled, as restores of data
 * alone do, does not stop orders: rebate.audit() tells, and
 * rebate.adopt_store() puts it back.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "store.h"
#include "store_guard.h"
#include "store_shape.h"

PG_FUNCTION_INFO_V1(rebate_guard);

/* BEFORE each statement that writes */
#define GUARD_TYPE	(TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | \
					 TRIGGER_TYPE_DELETE | TRIGGER_TYPE_TRUNCATE)

/* Only a superuser can have made a function in C, so its name is enough. */
static bool
is_guard_function(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	result = proc->prolang == ClanguageId && strcmp(NameStr(proc->proname), "guard") == 0 &&
		proc->pronamespace == get_namespace_oid("rebate", true);
	ReleaseSysCache(tuple);
	return result;
}

bool
trigger_is_guard(Trigger *trigger)
{
	return trigger->tgtype == GUARD_TYPE && trigger->tgnattr == 0 && trigger->tgqual == NULL &&
		is_guard_function(trigger->tgfoid);
}

/*
 * Asks the catalog, without a lock on the table: whoever planted it must not be
 * able to make others wait.
 */
bool
store_guarded(void)
{
	Oid			nspid = get_namespace_oid(STORE_SCHEMA, true);
	Oid			relid = OidIsValid(nspid) ?
		get_relname_relid(shape_table_name(ST_STORE), nspid) : InvalidOid;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		found = false;

	if (!OidIsValid(relid))
		return false;
	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		found = trigger->tgtype == GUARD_TYPE && trigger->tgattr.dim1 == 0 &&
			heap_attisnull(tuple, Anum_pg_trigger_tgqual, NULL) &&
			is_guard_function(trigger->tgfoid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

void
refuse_unguarded(Oid owner)
{
	const char *name = GetUserNameFromId(owner, false);

	ereport(ERROR,
			(errcode(ERRCODE_RB_NO_STORE),
			 errmsg("schema \"%s\" holds a store without our guards", STORE_SCHEMA),
			 errdetail("It belongs to role \"%s\". It outlived a DROP EXTENSION, or somebody else made it.", name),
			 errhint("If it is yours, take it over with SELECT rebate.adopt_store(%s).",
					 quote_literal_cstr(name))));
}

/*
 * rebate.guard(): trigger of the store's tables.  Refuses what the engine does
 * not do itself; the engine's own writes pass.
 */
Datum
rebate_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("rebate.guard() must be called as trigger")));
	if (!store_writing())
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_GUARDED),
				 errmsg("table \"%s.%s\" is written by rebate only",
						STORE_SCHEMA, RelationGetRelationName(trigdata->tg_relation)),
				 errhint("Rules and tables are changed by the functions of schema \"rebate\", balances by orders.")));
	return PointerGetDatum(NULL);
}
