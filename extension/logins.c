/*
 * logins.c
 *	  rebate.map_login(), unmap_login(): roles that see the rows of a member.
 *
 * A mapping is by the role's name, as a dump has it.  In the cluster where it was
 * made the role must also be the same one: who gets the name of a role that was
 * dropped does not get its member.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "collect.h"
#include "former.h"
#include "identity.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(rebate_map_login);
PG_FUNCTION_INFO_V1(rebate_unmap_login);

/* Columns of rebate_data.login */
enum LoginColumn
{
	LO_LOGIN = 1, LO_MEMBER, LO_ROLE_OID, LO_SYSTEM_IDENTIFIER
};

/* Read without SPI and rights, under the newest snapshot: what was taken back is gone at once. */
char *
login_member(Store *store, Oid role)
{
	char	   *name = GetUserNameFromId(role, true);
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	char	   *member = NULL;

	if (store->version < 2 || name == NULL)
		return NULL;
	rel = store_open(store, ST_LOGIN, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, LO_LOGIN, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(name));
	scan = systable_beginscan(rel, store->indexes[SI_LOGIN], true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		bool		made_here = (uint64) DatumGetInt64(heap_getattr(tuple, LO_SYSTEM_IDENTIFIER, desc, &isnull)) ==
			GetSystemIdentifier();

		if (!made_here ||
			DatumGetObjectId(heap_getattr(tuple, LO_ROLE_OID, desc, &isnull)) == role)
			member = TextDatumGetCString(heap_getattr(tuple, LO_MEMBER, desc, &isnull));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return member;
}

/* rebate.map_login(login, member): the role sees this member's rows from now on */
Datum
rebate_map_login(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *login;
	char	   *member;

	rights_check(store, RIGHT_ADMIN, "rebate.map_login");
	store_require(store, 2, "rebate.map_login()");
	(void) collect_flush();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("login and member must not be null")));
	login = NameStr(*PG_GETARG_NAME(0));
	member = api_text(fcinfo, 1);
	identity_check_member(member);
	former_lock_open(store, (const char *const *) &member, 1);
	former_check(store, member);

	sql_text(&params, login);
	sql_text(&params, member);
	sql_param(&params, OIDOID, ObjectIdGetDatum(get_role_oid(login, false)), false);
	sql_param(&params, INT8OID, Int64GetDatum((int64) GetSystemIdentifier()), false);
	store_spi_begin(store, &scope);
	sql_run("INSERT INTO rebate_data.login (login, member, role_oid, system_identifier)"
			" VALUES ($1, $2, $3, $4)"
			" ON CONFLICT (login) DO UPDATE SET member = excluded.member,"
			"   role_oid = excluded.role_oid, system_identifier = excluded.system_identifier,"
			"   mapped_at = now(), mapped_by = session_user", &params, SPI_OK_INSERT);
	store_spi_end(&scope);
	PG_RETURN_VOID();
}

/* rebate.unmap_login(login): whether it was mapped */
Datum
rebate_unmap_login(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	StoreSpi	scope;
	SqlParams	params = {0};
	uint64		n;

	rights_check(store, RIGHT_ADMIN, "rebate.unmap_login");
	store_require(store, 2, "rebate.unmap_login()");
	(void) collect_flush();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the login must not be null")));
	sql_text(&params, NameStr(*PG_GETARG_NAME(0)));
	store_spi_begin(store, &scope);
	n = sql_run("DELETE FROM rebate_data.login WHERE login = $1", &params, SPI_OK_DELETE);
	store_spi_end(&scope);
	PG_RETURN_BOOL(n > 0);
}
