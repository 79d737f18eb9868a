/*
 * store.c
 *	  Finds the store, knows its tables, and gives the ways to read and write it.
 *
 * The store belongs to the user: it can be dropped, restored or planted while
 * this library is loaded.  So nothing is believed for longer than the relation
 * cache believes it, and what is found is checked before it is used.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "cluster.h"
#include "former.h"
#include "session.h"
#include "store.h"
#include "store_guard.h"
#include "store_shape.h"

static Store store;
static bool store_valid = false;
static bool known[NUM_STORE_TABLES];	/* not changed since it was checked */
static bool found_empty = false;	/* by the last look for the store */
static uint64 config_counter = 1;
static bool writing = false;

/*
 * A relation changed.  Compares and sets flags only: catalogs must not be read
 * here.
 */
static void
relcache_callback(Datum arg, Oid relid)
{
	bool		was_valid = store_valid;

	for (int i = 0; i < NUM_STORE_TABLES; i++)
	{
		if (relid == InvalidOid || relid == store.tables[i])
		{
			known[i] = false;
			if (i < NUM_EARLY_TABLES)
				store_valid = false;
		}
	}
	if (relid == store.id_sequence || relid == store.tables[ST_FORMER_MEMBER] ||
		relid == store.tables[ST_FORMER_SECRET])
		store_valid = false;
	if (!was_valid || relid == InvalidOid || relid == store.tables[ST_GENERATION] ||
		relid == store.tables[ST_SOURCE])
		config_counter++;
}

/* A schema changed: ours may have been dropped, renamed or given away. */
static void
namespace_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	store_valid = false;
}

void
store_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, namespace_callback, (Datum) 0);
}

/* The guards stand again after any error. */
void
store_at_abort(void)
{
	writing = false;
}

bool
store_writing(void)
{
	return writing;
}

void
store_forget(void)
{
	store_valid = false;
	config_counter++;
}

uint64
store_epoch_of_rules(void)
{
	return config_counter;
}

/* The OID of something in the store's schema; raises RB011 if it is not there. */
static Oid
find_relation(const char *what, const char *name, Oid nspid)
{
	Oid			relid = get_relname_relid(name, nspid);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("%s \"%s.%s\" is missing", what, STORE_SCHEMA, name),
				 errhint("Restore the store from a backup.")));
	return relid;
}

/* Check an open table with those of its indexes that we use; fills "s". */
static void
check_relation(Store *s, StoreTable which, Relation rel)
{
	Oid			nspid = RelationGetNamespace(rel);

	shape_check_table(rel, which, s->owner);
	shape_check_added(rel, which, s->version);
	for (int i = 0; i < NUM_STORE_INDEXES; i++)
	{
		if (shape_index_table(i) != which)
			continue;
		s->indexes[i] = find_relation("index", shape_index_name(i), nspid);
		shape_check_index(s->indexes[i], i, rel);
	}
	s->tables[which] = RelationGetRelid(rel);
}

/* Find a table and check it; fills "s". */
static void
find_table(Store *s, StoreTable which, Oid nspid)
{
	Relation	rel = relation_open(find_relation(which == ST_LEDGER ? "view" : "table",
												  shape_table_name(which), nspid),
									AccessShareLock);

	check_relation(s, which, rel);
	if (which == ST_DEFERRED)
		s->maybe_deferred = RelationGetNumberOfBlocks(rel) > 0;
	if (which == ST_FORMER_MEMBER)
		s->maybe_former = RelationGetNumberOfBlocks(rel) > 0;
	relation_close(rel, AccessShareLock);
}

/* Find and check what is needed at once; fills "s". */
static void
find_relations(Store *s, Oid nspid)
{
	if (!store_guarded())
		refuse_unguarded(s->owner);
	for (int i = 0; i < NUM_EARLY_TABLES; i++)
		find_table(s, i, nspid);
	s->id_sequence = find_relation("sequence", "id", nspid);
	shape_check_sequence(s->id_sequence, s->owner);
}

/*
 * Check again what may have changed since it was checked, and what was not
 * needed yet.  A store of an earlier version has not got all tables.
 */
static void
check_changed(Store *s, StoreTable which)
{
	if (s != &store || known[which] || s->version < shape_table_since(which))
		return;
	find_table(s, which, get_namespace_oid(STORE_SCHEMA, false));
	known[which] = true;
}

/*
 * The table cannot change once it is locked, so it is looked at once more if it
 * did before.
 */
Relation
store_open(Store *s, StoreTable which, LOCKMODE lockmode)
{
	Relation	rel;

	check_changed(s, which);
	rel = table_open(s->tables[which], lockmode);
	if (s == &store && !known[which])
	{
		check_relation(s, which, rel);
		known[which] = true;
	}
	return rel;
}

/*
 * Run fn for each row of a small table of the store, under the newest snapshot.
 * Without SPI: a new connection's first order pays for this.
 */
static void
each_row(Store *s, StoreTable which, void (*fn) (Store *, HeapTuple, TupleDesc))
{
	Relation	rel = table_open(s->tables[which], AccessShareLock);
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;

	shape_check_table(rel, which, s->owner);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		fn(s, tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	/* by the version that this table, or one before it, tells */
	shape_check_added(rel, which, s->version);
	table_close(rel, AccessShareLock);
}

/* A store of version 1 has no column "sandbox"; other columns may come before it. */
static void
read_version(Store *s, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	s->version = DatumGetInt32(heap_getattr(tuple, 2, desc, &isnull));
	s->compatible_with = DatumGetInt32(heap_getattr(tuple, 3, desc, &isnull));
	s->sandbox = false;
	for (int i = 4; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->atttypid == BOOLOID &&
			strcmp(NameStr(att->attname), "sandbox") == 0)
			s->sandbox = DatumGetBool(heap_getattr(tuple, i + 1, desc, &isnull)) && !isnull;
	}
}

static void
read_programme(Store *s, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	if (DatumGetInt32(heap_getattr(tuple, 1, desc, &isnull)) == 1)
		strlcpy(s->time_zone, TextDatumGetCString(heap_getattr(tuple, 3, desc, &isnull)),
				sizeof(s->time_zone));
	s->zone = pg_tzset(s->time_zone);
}

static void
read_epoch(Store *s, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	int32		epoch = DatumGetInt32(heap_getattr(tuple, 1, desc, &isnull));

	if (epoch > s->epoch)
	{
		uint64		cluster = (uint64) DatumGetInt64(heap_getattr(tuple, 2, desc, &isnull));

		s->epoch = epoch;
		s->epoch_current =
			(cluster == GetSystemIdentifier() || cluster_is_former(cluster)) &&
			DatumGetObjectId(heap_getattr(tuple, 3, desc, &isnull)) == MyDatabaseId &&
			DatumGetObjectId(heap_getattr(tuple, 4, desc, &isnull)) == s->tables[ST_ACCOUNT];
	}
}

/*
 * Read version, zone and epoch; fills "s".  Returns false if there is none of
 * them: the tables were made by a dump without data.
 */
static bool
read_settings(Store *s)
{
	each_row(s, ST_STORE, read_version);
	each_row(s, ST_PROGRAMME, read_programme);
	each_row(s, ST_EPOCH, read_epoch);
	if (s->version == 0 && s->zone == NULL && s->epoch == 0)
		return false;
	if (s->version == 0 || s->zone == NULL || s->epoch == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("the store has no version, programme or epoch"),
				 errhint("Restore the store from a backup.")));
	if (s->compatible_with > STORE_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_RB_OTHER_VERSION),
				 errmsg("the store has version %d, the library of this session knows %d",
						s->version, STORE_VERSION),
				 errhint("Connect again; if rebate is preloaded, restart the server.")));
	return true;
}

/* Whether members have former keys is known with the store. */
static void
read_former(Store *s, Oid nspid)
{
	s->maybe_former = s->has_former_key = false;
	if (s->version < shape_table_since(ST_FORMER_MEMBER))
		return;
	find_table(s, ST_FORMER_MEMBER, nspid);
	find_table(s, ST_FORMER_SECRET, nspid);
	if (s->maybe_former)
		former_read_key(s);
}

/*
 * The store, looked up again when a relation of it may have changed.  NULL, if
 * there is none or it is empty, only with missing_ok.
 */
Store *
store_get(bool missing_ok)
{
	Oid			nspid;
	HeapTuple	tuple;
	Store		found;
	uint64		counter;
	bool		has_rows;

	if (store_valid)
		return &store;
	found_empty = false;

	nspid = get_namespace_oid(STORE_SCHEMA, true);
	if (!OidIsValid(nspid))
	{
		if (missing_ok)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_RB_NO_STORE),
				 errmsg("there is no rebate store in this database"),
				 errhint("Attach a table with rebate.attach(), or call rebate.create_store().")));
	}

	memset(&found, 0, sizeof(found));
	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(nspid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for namespace %u", nspid);
	found.owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);

	/* an invalidation that arrives while we look may be about what was read */
	do
	{
		counter = config_counter;
		find_relations(&found, nspid);
		found.version = found.epoch = 0;
		found.zone = NULL;
		has_rows = read_settings(&found);
		if (has_rows)
			read_former(&found, nspid);
	} while (counter != config_counter);
	if (!has_rows)
	{
		found_empty = true;
		if (missing_ok)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_RB_NO_STORE),
				 errmsg("the rebate store of this database is empty"),
				 errdetail("Its tables have no rows, as after the restore of a dump without data."),
				 errhint("Restore the data of the dump, or call rebate.adopt_store() to begin a new ledger.")));
	}
	store = found;
	for (int i = 0; i < NUM_STORE_TABLES; i++)
		known[i] = i < NUM_EARLY_TABLES;
	store_valid = true;
	return &store;
}

bool
store_is_whole(void)
{
	Oid			nspid = get_namespace_oid(STORE_SCHEMA, true);

	if (!OidIsValid(nspid) || (!store_valid && !store_guarded()))
		return false;
	/* of the tables of later versions, those that were there when we last looked */
	for (int i = 0; i < NUM_STORE_TABLES; i++)
		if (!known[i] && shape_table_since(i) <= Max(store.version, 1) &&
			!OidIsValid(get_relname_relid(shape_table_name(i), nspid)))
			return false;
	if (store_valid)
		return true;
	for (int i = 0; i < NUM_STORE_INDEXES; i++)
		if (shape_table_since(shape_index_table(i)) == 1 &&
			!OidIsValid(get_relname_relid(shape_index_name(i), nspid)))
			return false;
	return OidIsValid(get_relname_relid("id", nspid));
}

bool
store_is_empty(void)
{
	return !store_valid && found_empty;
}

/*
 * Open a new epoch when the store is not where its last entries were written:
 * after a restore, into this cluster or another, the transaction ids in the old
 * rows mean nothing, and what clients have read need not be what is here.
 * Called before the first posting.
 */
void
store_ensure_epoch(Store *s)
{
	StoreSpi	scope;
	Oid			argtypes[3] = {INT8OID, OIDOID, OIDOID};
	Datum		values[3];
	bool		isnull;

	if (s->epoch_current)
		return;

	/*
	 * Our copy of the epoch must go if this transaction rolls back; the
	 * invalidation is replayed here then.  It is sent before the row is written,
	 * since what comes after the last command is not.
	 */
	CacheInvalidateRelcacheByRelid(s->tables[ST_GENERATION]);
	store_spi_begin(s, &scope);
	values[0] = Int64GetDatum((int64) GetSystemIdentifier());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	values[2] = ObjectIdGetDatum(s->tables[ST_ACCOUNT]);
	if (SPI_execute("LOCK TABLE rebate_data.epoch IN SHARE ROW EXCLUSIVE MODE", false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not lock the epochs");
	if (SPI_execute_with_args("WITH last AS (SELECT * FROM rebate_data.epoch ORDER BY epoch DESC LIMIT 1),"
							  " made AS (INSERT INTO rebate_data.epoch (epoch, system_identifier, database_oid, account_oid)"
							  "          SELECT epoch + 1, $1, $2, $3 FROM last"
							  "           WHERE system_identifier <> $1 OR database_oid <> $2 OR account_oid <> $3"
							  "          RETURNING epoch)"
							  " SELECT epoch FROM made UNION ALL SELECT epoch FROM last ORDER BY epoch DESC LIMIT 1",
							  3, argtypes, values, NULL, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not open an epoch");
	s->epoch = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	store_spi_end(&scope);
	s->epoch_current = true;
}

void
store_require(Store *s, int32 version, const char *feature)
{
	if (s->version < version)
		ereport(ERROR,
				(errcode(ERRCODE_RB_OTHER_VERSION),
				 errmsg("%s needs version %d of the store, this is version %d", feature, version,
						s->version),
				 errhint("Call rebate.upgrade_store().")));
}

void
store_check_user(Store *s, const char *function)
{
	if (!has_privs_of_role(GetUserId(), s->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", function),
				 errdetail("Only superusers and members of the role that owns the store may call it."),
				 errhint("GRANT %s TO %s.", quote_identifier(GetUserNameFromId(s->owner, false)),
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

/*
 * Run SPI as the store's owner, who may have hung anything on his tables: as a
 * restricted operation, so that no deferred trigger of his runs later as
 * somebody else.
 */
void
store_spi_begin(Store *s, StoreSpi *scope)
{
	/* what queries give is taken for the type that it should have */
	for (int i = 0; i < NUM_STORE_TABLES; i++)
		check_changed(s, i);

	/*
	 * The snapshot goes below SPI's own use of the stack, and is the newest:
	 * configuration is never read as of the start of an old transaction.
	 */
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	GetUserIdAndSecContext(&scope->save_userid, &scope->save_sec_context);
	SetUserIdAndSecContext(s->owner,
						   scope->save_sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	scope->guc_nestlevel = session_pin();
	scope->save_writing = writing;
	writing = true;
}

void
store_spi_end(StoreSpi *scope)
{
	writing = scope->save_writing;
	AtEOXact_GUC(false, scope->guc_nestlevel);
	SetUserIdAndSecContext(scope->save_userid, scope->save_sec_context);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	PopActiveSnapshot();
}

void
store_rules_changed(Store *s)
{
	CacheInvalidateRelcacheByRelid(s->tables[ST_GENERATION]);
	CommandCounterIncrement();
}
