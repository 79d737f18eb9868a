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
#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "common/sha2.h"
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

/* All that makes the function what it is: language, owner, properties, settings, body */
static char *
describe(Oid funcid, HeapTuple tuple)
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
	return buf.data;
}

/*
 * What the first version of the store keeps of it.  Whoever owns the function can
 * make another one with this number.
 */
static int64
fingerprint(const char *description)
{
	return (int64) hash_bytes_extended((const unsigned char *) description, strlen(description), 0);
}

/* Its SHA-256, which nobody can aim at */
static bytea *
digest(const char *description)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	bytea	   *result = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);

	if (ctx == NULL || pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) description, strlen(description)) < 0 ||
		pg_cryptohash_final(ctx, (uint8 *) VARDATA(result), PG_SHA256_DIGEST_LENGTH) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute the digest of a function")));
	pg_cryptohash_free(ctx);
	SET_VARSIZE(result, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	return result;
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

/* The column that version 2 of the store added, wherever it is; 0: there is none. */
static AttrNumber
digest_column(Store *store, TupleDesc desc)
{
	for (int i = 0; store->version >= 2 && i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), "digest") == 0)
			return i + 1;
	return 0;
}

/*
 * Does a row of the table tell of this description?  By its digest, unless the row
 * is of a store of version 1, or of a library that knows no other.
 */
static bool
row_tells(HeapTuple tuple, TupleDesc desc, AttrNumber column, const char *description)
{
	bool		isnull = true;
	Datum		value = column ? heap_getattr(tuple, column, desc, &isnull) : (Datum) 0;

	if (!isnull)
		return DatumGetBool(DirectFunctionCall2(byteaeq, value,
												PointerGetDatum(digest(description))));
	return DatumGetInt64(heap_getattr(tuple, 2, desc, &isnull)) == fingerprint(description);
}

bool
function_is_allowed(Oid funcid)
{
	Store	   *store = store_get(true);
	HeapTuple	proc;
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *name;
	bool		found = false;
	bool		result = false;

	if (store == NULL)
		return false;
	proc = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(proc))
		return false;
	name = format_procedure_qualified(funcid);
	rel = store_open(store, ST_ALLOWED_FUNCTION, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;

		if (strcmp(TextDatumGetCString(heap_getattr(tuple, 1, desc, &isnull)), name) != 0)
			continue;
		found = true;
		/* also of one that is not as it was: it may be made so again */
		in_use = true;
		result = row_tells(tuple, desc, digest_column(store, desc), describe(funcid, proc));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	ReleaseSysCache(proc);
	return result;
}

/*
 * Write down a function as it is now.  A row that is there is replaced, or (seal)
 * completed if it tells of just this.
 */
static void
record(Store *store, Oid funcid, bool seal)
{
	HeapTuple	proc = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	const char *description = describe(funcid, proc);
	StoreSpi	scope;
	SqlParams	params = {0};

	ReleaseSysCache(proc);
	sql_text(&params, format_procedure_qualified(funcid));
	sql_param(&params, INT8OID, Int64GetDatum(fingerprint(description)), false);
	if (store->version >= 2)
		sql_param(&params, BYTEAOID, PointerGetDatum(digest(description)), false);
	store_spi_begin(store, &scope);
	if (seal)
		sql_run("UPDATE rebate_data.allowed_function SET digest = $3"
				" WHERE function = $1 AND fingerprint = $2 AND digest IS NULL", &params, SPI_OK_UPDATE);
	else
		sql_run(store->version >= 2 ?
				"INSERT INTO rebate_data.allowed_function (function, fingerprint, digest) VALUES ($1, $2, $3)"
				" ON CONFLICT (function) DO UPDATE SET fingerprint = excluded.fingerprint, digest = excluded.digest,"
				"  allowed_at = excluded.allowed_at, allowed_by = excluded.allowed_by" :
				"INSERT INTO rebate_data.allowed_function (function, fingerprint) VALUES ($1, $2)"
				" ON CONFLICT (function) DO UPDATE SET fingerprint = excluded.fingerprint,"
				"  allowed_at = excluded.allowed_at, allowed_by = excluded.allowed_by",
				&params, SPI_OK_INSERT);
	store_spi_end(&scope);
}

/*
 * Functions that were allowed in version 1 of the store get a digest, as they are at
 * its upgrade, if they have the fingerprint that was recorded.
 */
void
allow_seal(Store *store)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	uint64		n;
	Oid		   *candidates;

	store_spi_begin(store, &scope);
	n = sql_run("SELECT p.oid FROM pg_proc p WHERE p.provolatile = 'i' AND EXISTS ("
				"  SELECT FROM rebate_data.allowed_function a WHERE a.digest IS NULL"
				"     AND strpos(a.function, quote_ident(p.proname)) > 0)", NULL, SPI_OK_SELECT);
	candidates = MemoryContextAlloc(context, sizeof(Oid) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		candidates[i] = DatumGetObjectId(sql_get(i, 1, &isnull));
	}
	store_spi_end(&scope);
	for (uint64 i = 0; i < n; i++)
		record(store, candidates[i], true);
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
	if (PG_GETARG_BOOL(1))
		check_suitable(funcid, tuple);

	ReleaseSysCache(tuple);
	if (PG_GETARG_BOOL(1))
		record(store, funcid, false);
	else
	{
		sql_text(&params, format_procedure_qualified(funcid));
		store_spi_begin(store, &scope);
		sql_run("DELETE FROM rebate_data.allowed_function WHERE function = $1", &params, SPI_OK_DELETE);
		store_spi_end(&scope);
	}
	store_rules_changed(store);
	PG_RETURN_VOID();
}
