/*
 * rights.c
 *	  Who may call what.
 *
 * Each function asks here first, whoever was granted EXECUTE on it: by mistake
 * that is often everybody.  The rights are those in rebate_data.granted_right,
 * remembered until the table or a role changes.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "rights.h"
#include "store_shape.h"

/* Columns of rebate_data.granted_right */
enum
{
	GC_ROLE_NAME = 1, GC_RIGHT_NAME
};

const char *const right_names[NUM_RIGHTS + 1] = {
	"admin", "author", "approver", "auditor", "operator", "gateway", "member", NULL
};

/* A role and what it has been granted */
typedef struct Granted
{
	Oid			role;
	int			rights;
} Granted;

static MemoryContext granted_context = NULL;
static Granted *granted;
static int	ngranted;
static bool granted_valid = false;
static uint64 granted_changes = 0;	/* counted by the callbacks */
static Oid	granted_relid = InvalidOid;

/* The table changed, or is another one. */
static void
relcache_callback(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == granted_relid)
	{
		granted_valid = false;
		granted_changes++;
	}
}

/* A role was made, renamed or dropped. */
static void
role_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	granted_valid = false;
	granted_changes++;
}

void
rights_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, role_callback, (Datum) 0);
}

/* The right of that name; 0 for one that a later version may know. */
static int
right_by_name(const char *name)
{
	for (int i = 0; i < NUM_RIGHTS; i++)
		if (strcmp(right_names[i], name) == 0)
			return 1 << i;
	return 0;
}

/* Remember one row of the table.  A role that is no more has no rights. */
static void
add_granted(HeapTuple tuple, TupleDesc desc, int *allocated)
{
	bool		isnull;
	Oid			role = get_role_oid(TextDatumGetCString(heap_getattr(tuple, GC_ROLE_NAME, desc, &isnull)),
									true);
	int			right = right_by_name(TextDatumGetCString(heap_getattr(tuple, GC_RIGHT_NAME, desc, &isnull)));

	if (!OidIsValid(role))
		return;
	for (int i = 0; i < ngranted; i++)
	{
		if (granted[i].role == role)
		{
			granted[i].rights |= right;
			return;
		}
	}
	if (ngranted == *allocated)
	{
		*allocated *= 2;
		granted = repalloc(granted, sizeof(Granted) * *allocated);
	}
	granted[ngranted++] = (Granted) {role, right};
}

/*
 * Read the table under the newest snapshot, until nothing of it changed while it
 * was read.  What an error leaves half read does not count.
 */
static void
read_granted(Store *store)
{
	uint64		before;

	if (granted_valid)
		return;
	do
	{
		Relation	rel = store_open(store, ST_GRANTED_RIGHT, AccessShareLock);
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		SysScanDesc scan;
		HeapTuple	tuple;
		MemoryContext old;
		int			allocated = 8;

		if (granted_context == NULL)
			granted_context = AllocSetContextCreate(TopMemoryContext, "rebate rights",
													ALLOCSET_SMALL_SIZES);
		MemoryContextReset(granted_context);
		old = MemoryContextSwitchTo(granted_context);
		granted = palloc(sizeof(Granted) * allocated);
		ngranted = 0;
		granted_relid = RelationGetRelid(rel);
		before = granted_changes;
		scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
			add_granted(tuple, RelationGetDescr(rel), &allocated);
		systable_endscan(scan);
		MemoryContextSwitchTo(old);
		UnregisterSnapshot(snapshot);
		table_close(rel, AccessShareLock);
	} while (before != granted_changes);
	granted_valid = true;
}

/* What has been granted to a role, or to one that it has the privileges of */
static int
granted_to(Store *store, Oid user)
{
	int			rights = 0;

	/* before this version there was nothing to be granted */
	if (store->version < shape_table_since(ST_GRANTED_RIGHT))
		return 0;
	read_granted(store);
	for (int i = 0; i < ngranted; i++)
		if (has_privs_of_role(user, granted[i].role))
			rights |= granted[i].rights;
	return rights;
}

bool
rights_of(Store *store, Oid role, int rights)
{
	return has_privs_of_role(role, store->owner) || (granted_to(store, role) & rights) != 0;
}

bool
rights_have(Store *store, int rights)
{
	return rights_of(store, GetUserId(), rights);
}

/* "auditor" or "operator"; and of these the one that allows least */
static char *
names_of(int rights, const char **least)
{
	/* from the one that allows least to the one that allows most */
	static const Right by_reach[NUM_RIGHTS] = {
		RIGHT_MEMBER, RIGHT_GATEWAY, RIGHT_AUDITOR, RIGHT_OPERATOR, RIGHT_AUTHOR, RIGHT_APPROVER,
		RIGHT_ADMIN
	};
	StringInfoData buf;
	Right		which = 0;

	for (int i = 0; which == 0 && i < NUM_RIGHTS; i++)
		which = rights & by_reach[i];
	initStringInfo(&buf);
	for (int i = 0; i < NUM_RIGHTS; i++)
	{
		if ((rights & 1 << i) != 0)
			appendStringInfo(&buf, "%s\"%s\"", buf.len > 0 ? " or " : "", right_names[i]);
		if ((int) which == 1 << i)
			*least = right_names[i];
	}
	return buf.data;
}

void
rights_check(Store *store, int rights, const char *function)
{
	const char *least = NULL;
	char	   *names;

	if (rights_have(store, rights))
		return;
	if (rights == RIGHTS_OWNER || store->version < shape_table_since(ST_GRANTED_RIGHT))
		store_check_user(store, function);
	names = names_of(rights, &least);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s", function),
			 errdetail("It takes the right %s, or membership in the role that owns the store.", names),
			 errhint("SELECT rebate.grant_right('%s', %s).", least,
					 quote_literal_cstr(GetUserNameFromId(GetUserId(), false)))));
}

void
rights_check_granted(Store *store, Right right, const char *function)
{
	const char *name = NULL;

	/* there nobody could be granted anything, and there is nothing for two persons */
	if (store->version < shape_table_since(ST_GRANTED_RIGHT))
		rights_check(store, right, function);
	else if ((granted_to(store, GetUserId()) & right) == 0)
	{
		(void) names_of(right, &name);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", function),
				 errdetail("It takes the right \"%s\", from members of the role that owns the store, too.", name),
				 errhint("SELECT rebate.grant_right('%s', %s).", name,
						 quote_literal_cstr(GetUserNameFromId(GetUserId(), false)))));
	}
}
