/*
 * allow.c
 *	  Functions that a superuser lets expressions use.
 *
 * What is recorded is the function's name and a fingerprint of all that makes
 * it what it is.  It is compared each time an expression is loaded, and
 * expressions are loaded again when a function of theirs may have changed.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "allow.h"
#include "api.h"
#include "collect.h"
#include "create_store.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_allow_function);

/* Does an expression of this session use such a function? */
static bool in_use = false;

/* A function changed.  Compares and sets flags only. */
static void
proc_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	if (in_use)
		store_forget();
}

void
allow_init(void)
{
	CacheRegisterSyscacheCallback(PROCOID, proc_callback, (Datum) 0);
}

/* A column of pg_proc as text; "" for a null. */
static char *
proc_text(HeapTuple tuple, AttrNumber attno)
{
	bool		isnull;
	Datum		value = SysCacheGetAttr(PROCOID, tuple, attno, &isnull);

	return isnull ? pstrdup("") : TextDatumGetCString(value);
}

/* The settings that a function is called with, one after the other. */
static char *
proc_settings(HeapTuple tuple)
{
	bool		isnull;
	Datum		value = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	StringInfoData buf;
	Datum	   *elems;
	int			n;

	initStringInfo(&buf);
	if (isnull)
		return buf.data;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &elems, NULL, &n);
	for (int i = 0; i < n; i++)
		appendStringInfo(&buf, "%s;", TextDatumGetCString(elems[i]));
	return buf.data;
}

/* Body of a function that was parsed when it was created; NULL if there is none. */
static char *
proc_parsed_body(Oid funcid, HeapTuple tuple)
{
	bool		isnull;

	(void) SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &isnull);
	if (isnull)
		return NULL;
	return TextDatumGetCString(DirectFunctionCall1(pg_get_function_sqlbody,
												   ObjectIdGetDatum(funcid)));
}

/*
 * A number that is another one, but for one chance in 2^64, when anything of
 * the function is another: language, owner, properties, settings, body.
 */
static int64
fingerprint(Oid funcid, HeapTuple tuple)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	char	   *parsed = proc_parsed_body(funcid, tuple);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s|%s|%c%c%d%d%d|%s|%s|",
					 get_language_name(proc->prolang, false),
					 GetUserNameFromId(proc->proowner, false),
					 proc->prokind, proc->provolatile, proc->prosecdef, proc->proisstrict,
					 proc->proretset, format_type_be_qualified(proc->prorettype),
					 proc_settings(tuple));
	appendStringInfo(&buf, "%zu|%s|%s|%s", strlen(proc_text(tuple, Anum_pg_proc_prosrc)),
					 proc_text(tuple, Anum_pg_proc_prosrc), proc_text(tuple, Anum_pg_proc_probin),
					 parsed ? parsed : "");
	return (int64) hash_bytes_extended((const unsigned char *) buf.data, buf.len, 0);
}

/*
 * Raise RB004 for a function that no superuser should allow: one that may give
 * another result tomorrow, gives its caller rights, or finds its names under
 * the path of whoever writes an order.
 */
static void
check_suitable(Oid funcid, HeapTuple tuple)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	char	   *name = format_procedure(funcid);

	if (proc->prokind != PROKIND_FUNCTION || proc->proretset)
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("function %s cannot be allowed", name),
				 errdetail("It does not return one value for one row.")));
	if (proc->provolatile != PROVOLATILE_IMMUTABLE)
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("function %s cannot be allowed", name),
				 errdetail("It is not declared IMMUTABLE.")));
	if (proc->prosecdef)
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("function %s cannot be allowed", name),
				 errdetail("It is declared SECURITY DEFINER.")));
	if (isTempNamespace(proc->pronamespace))
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("function %s cannot be allowed", name),
				 errdetail("It is temporary.")));
	if (proc->prolang != ClanguageId && proc->prolang != INTERNALlanguageId &&
		proc_parsed_body(funcid, tuple) == NULL &&
		strstr(proc_settings(tuple), "search_path=") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_FORBIDDEN_EXPRESSION),
				 errmsg("function %s cannot be allowed", name),
				 errdetail("Its names would mean what the path of the session makes of them."),
				 errhint("ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp.", name)));
}

/* The fingerprint that was recorded for a function; false if there is none. */
static bool
recorded_fingerprint(Store *store, const char *name, int64 *result)
{
	Relation	rel = store_open(store, ST_ALLOWED_FUNCTION, AccessShareLock);
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;

		if (strcmp(TextDatumGetCString(heap_getattr(tuple, 1, desc, &isnull)), name) != 0)
			continue;
		*result = DatumGetInt64(heap_getattr(tuple, 2, desc, &isnull));
		found = true;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

bool
function_is_allowed(Oid funcid)
{
	Store	   *store = store_get(true);
	HeapTuple	tuple;
	int64		recorded;
	bool		result;

	if (store == NULL ||
		!recorded_fingerprint(store, format_procedure_qualified(funcid), &recorded))
		return false;
	/* also of one that is not as it was: it may be made so again */
	in_use = true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = recorded == fingerprint(funcid, tuple);
	ReleaseSysCache(tuple);
	return result;
}

/* rebate.allow_function(function, allowed) */
Datum
rebate_allow_function(PG_FUNCTION_ARGS)
{
	Oid			funcid;
	HeapTuple	tuple;
	Store	   *store;
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *name;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for rebate.allow_function"),
				 errdetail("Only superusers may call it: the function will run as the owner of the store.")));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "function" : "allowed")));
	funcid = PG_GETARG_OID(0);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", funcid)));

	(void) collect_flush();
	(void) create_store_if_missing();
	store = store_get(false);
	name = format_procedure_qualified(funcid);
	if (PG_GETARG_BOOL(1))
		check_suitable(funcid, tuple);

	sql_text(&params, name);
	store_spi_begin(store, &scope);
	if (PG_GETARG_BOOL(1))
	{
		sql_param(&params, INT8OID, Int64GetDatum(fingerprint(funcid, tuple)), false);
		sql_run("INSERT INTO rebate_data.allowed_function (function, fingerprint) VALUES ($1, $2)"
				" ON CONFLICT (function) DO UPDATE SET fingerprint = excluded.fingerprint,"
				"  allowed_at = excluded.allowed_at, allowed_by = excluded.allowed_by",
				&params, SPI_OK_INSERT);
	}
	else
		sql_run("DELETE FROM rebate_data.allowed_function WHERE function = $1", &params, SPI_OK_DELETE);
	store_spi_end(&scope);
	ReleaseSysCache(tuple);
	store_rules_changed(store);
	PG_RETURN_VOID();
}
