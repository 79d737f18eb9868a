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
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "cluster.h"
#include "store.h"

#define IDS_PER_CALL	64		/* increment of rebate_data.id */

static const char *const table_names[NUM_STORE_TABLES] = {
	"account", "accrual", "entry", "waiting", "rule_scope", "rule_version", "generation",
	"source", "scope", "currency", "channel", "deferred", "link", "freeze"
};

static const struct
{
	const char *name;
	StoreTable	table;
}			index_names[NUM_STORE_INDEXES] = {
	{"account_pkey", ST_ACCOUNT},
	{"account_member_key", ST_ACCOUNT},
	{"accrual_order_key", ST_ACCRUAL},
	{"accrual_seq_key", ST_ACCRUAL},
	{"accrual_xid_brin", ST_ACCRUAL},
	{"entry_pkey", ST_ENTRY},
	{"entry_xid_brin", ST_ENTRY},
	{"waiting_pkey", ST_WAITING},
	{"rule_scope_pkey", ST_RULE_SCOPE},
	{"rule_version_pkey", ST_RULE_VERSION},
	{"generation_pkey", ST_GENERATION},
	{"source_relation_key", ST_SOURCE},
	{"currency_pkey", ST_CURRENCY},
	{"deferred_pkey", ST_DEFERRED},
	{"link_pkey", ST_LINK},
	{"link_target", ST_LINK},
	{"freeze_pkey", ST_FREEZE},
};

/* Column types of the tables that are read and written as C structures */
static const Oid account_types[] = {
	INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,
	TIMESTAMPTZOID, CHAROID, TEXTOID, TEXTOID, TIMESTAMPTZOID, UUIDOID
};
#define ENTRY_TYPES \
	CHAROID, INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, INT4OID, INT4OID, INT4OID, DATEOID, DATEOID, \
	INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID
static const Oid accrual_types[] = {
	INT8OID, INT8OID, INT4OID, INT4OID, INT4OID, INT4OID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, INT8OID, CHAROID, CHAROID, INT2OID, INT2OID, TEXTOID, ENTRY_TYPES,
	TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT2OID, NUMERICOID, JSONBOID
};
static const Oid entry_types[] = {
	INT8OID, INT8OID, INT8OID, INT4OID, INT4OID, TEXTOID, ENTRY_TYPES
};

static Store store;
static bool store_valid = false;
static bool found_empty = false;	/* by the last look for the store */
static uint64 config_counter = 1;
static bool writing = false;

static HTAB *currencies = NULL;
static uint64 currencies_counter = 0;

/* ids taken from the sequence and not given out yet */
static Oid	ids_sequence = InvalidOid;
static int64 ids_next = 0;
static int64 ids_end = 0;

/*
 * A relation changed.  Compares and sets flags only: catalogs must not be read
 * here.
 */
static void
relcache_callback(Datum arg, Oid relid)
{
	if (!store_valid)
	{
		config_counter++;
		return;
	}
	if (relid == InvalidOid || relid == store.tables[ST_GENERATION] ||
		relid == store.tables[ST_SOURCE])
	{
		store_valid = false;
		config_counter++;
		return;
	}
	for (int i = 0; i < NUM_STORE_TABLES; i++)
	{
		if (relid == store.tables[i])
			store_valid = false;
	}
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

/*
 * The columns that tables begin with, as far as they are read here: a letter a
 * type, "!" for NOT NULL.  Somebody else's table, or one that was altered, must
 * not be read as if it were ours.
 */
static const struct
{
	const char *table;
	const char *columns;
}			shapes[] =
{
	{"account", "l!l!l!l!l!l!l!l!z!c!t!t!z!u!"},
	{"accrual", "l!l!i!i!i!i!z!z!l!c!c!h!h!t!"},
	{"channel", "t!"},
	{"currency", "t!h!n!b!"},
	{"entry", "l!llii!tc!l!z!l!l!i!i!i!d!dl!z!"},
	{"epoch", "i!l!o!o!"},
	{"freeze", "i!t!z!t!t!zt"},
	{"generation", "b!i!z!b!"},
	{"link", "i!t!c!t!t!n!n"},
	{"programme", "i!t!t!"},
	{"rule_scope", "i!t!i!i!"},
	{"rule_version", "i!i!i!z!zii!jtt!n!ttnnt!t!t!t!v!i!i!t!i!i!"},
	{"scope", "i!T!"},
	{"source", "i!r!t!i!T!t!t!tttttjtttjz!vvt!t!t!"},
	{"store", "b!i!i!"},
	{"waiting", "c!z!l!l!"},
};

static Oid
type_of_letter(char letter)
{
	switch (letter)
	{
		case 'b':
			return BOOLOID;
		case 'c':
			return CHAROID;
		case 'd':
			return DATEOID;
		case 'h':
			return INT2OID;
		case 'i':
			return INT4OID;
		case 'j':
			return JSONBOID;
		case 'l':
			return INT8OID;
		case 'n':
			return NUMERICOID;
		case 'o':
			return OIDOID;
		case 'r':
			return REGCLASSOID;
		case 't':
			return TEXTOID;
		case 'T':
			return TEXTARRAYOID;
		case 'u':
			return UUIDOID;
		case 'v':
			return INTERVALOID;
		case 'z':
			return TIMESTAMPTZOID;
	}
	return InvalidOid;
}

/* Do the columns of a table begin as they should?  True for one not in the list. */
static bool
has_shape(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const char *at = NULL;
	int			i = 0;

	for (int j = 0; j < (int) lengthof(shapes); j++)
		if (strcmp(RelationGetRelationName(rel), shapes[j].table) == 0)
			at = shapes[j].columns;
	while (at && *at)
	{
		Form_pg_attribute att;

		if (i == desc->natts)
			return false;
		att = TupleDescAttr(desc, i++);
		if (att->attisdropped || att->atttypid != type_of_letter(*at))
			return false;
		at++;
		if (*at == '!')
		{
			if (!att->attnotnull)
				return false;
			at++;
		}
	}
	return true;
}

/*
 * Raise unless "rel" is an ordinary table of "owner" with exactly these columns
 * (types NULL: any).
 */
static void
check_table(Relation rel, Oid owner, const Oid *types, int ntypes)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		ok = rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->rd_rel->relowner == owner && has_shape(rel);

	if (ok && types)
	{
		ok = desc->natts == ntypes;
		for (int i = 0; ok && i < ntypes; i++)
			ok = TupleDescAttr(desc, i)->atttypid == types[i];
	}
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("table \"%s.%s\" is not as rebate.create_store() made it",
						STORE_SCHEMA, RelationGetRelationName(rel)),
				 errdetail("Its owner, kind or columns differ."),
				 errhint("Undo the change, or restore the store from a backup.")));
}

void
store_check_table(Store *s, Relation rel)
{
	check_table(rel, s->owner, NULL, 0);
}

/* Find and check tables and indexes; fills "s". */
static void
find_relations(Store *s, Oid nspid)
{
	for (int i = 0; i < NUM_STORE_TABLES; i++)
	{
		Oid			relid = get_relname_relid(table_names[i], nspid);
		Relation	rel;

		if (!OidIsValid(relid))
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("table \"%s.%s\" is missing", STORE_SCHEMA, table_names[i]),
					 errhint("Restore the store from a backup.")));
		rel = table_open(relid, AccessShareLock);
		check_table(rel, s->owner,
					i == ST_ACCOUNT ? account_types :
					i == ST_ACCRUAL ? accrual_types :
					i == ST_ENTRY ? entry_types : NULL,
					i == ST_ACCOUNT ? lengthof(account_types) :
					i == ST_ACCRUAL ? lengthof(accrual_types) :
					lengthof(entry_types));
		if (i == ST_DEFERRED)
			s->maybe_deferred = RelationGetNumberOfBlocks(rel) > 0;
		table_close(rel, AccessShareLock);
		s->tables[i] = relid;
	}

	for (int i = 0; i < NUM_STORE_INDEXES; i++)
	{
		Oid			relid = get_relname_relid(index_names[i].name, nspid);

		if (!OidIsValid(relid) ||
			IndexGetRelation(relid, true) != s->tables[index_names[i].table])
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("index \"%s.%s\" is missing", STORE_SCHEMA, index_names[i].name),
					 errhint("Restore the store from a backup.")));
		s->indexes[i] = relid;
	}

	s->id_sequence = get_relname_relid("id", nspid);
	if (!OidIsValid(s->id_sequence))
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("sequence \"%s.id\" is missing", STORE_SCHEMA),
				 errhint("Restore the store from a backup.")));
}

/*
 * Run fn for each row of a small table of the store, under the newest snapshot.
 * Without SPI: a new connection's first order pays for this.
 */
static void
each_row(Oid nspid, const char *name, void (*fn) (Store *, HeapTuple, TupleDesc), Store *s)
{
	Oid			relid = get_relname_relid(name, nspid);
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("table \"%s.%s\" is missing", STORE_SCHEMA, name),
				 errhint("Restore the store from a backup.")));
	rel = table_open(relid, AccessShareLock);
	check_table(rel, s->owner, NULL, 0);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		fn(s, tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

static void
read_version(Store *s, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	s->version = DatumGetInt32(heap_getattr(tuple, 2, desc, &isnull));
	s->compatible_with = DatumGetInt32(heap_getattr(tuple, 3, desc, &isnull));
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
read_settings(Store *s, Oid nspid)
{
	each_row(nspid, "store", read_version, s);
	each_row(nspid, "programme", read_programme, s);
	each_row(nspid, "epoch", read_epoch, s);
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
		has_rows = read_settings(&found, nspid);
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
	store_valid = true;
	return &store;
}

bool
store_is_whole(void)
{
	Oid			nspid = get_namespace_oid(STORE_SCHEMA, true);

	if (store_valid)
		return true;
	if (!OidIsValid(nspid))
		return false;
	for (int i = 0; i < NUM_STORE_TABLES; i++)
		if (!OidIsValid(get_relname_relid(table_names[i], nspid)))
			return false;
	for (int i = 0; i < NUM_STORE_INDEXES; i++)
		if (!OidIsValid(get_relname_relid(index_names[i].name, nspid)))
			return false;
	return OidIsValid(get_relname_relid("id", nspid)) &&
		OidIsValid(get_relname_relid("store", nspid)) &&
		OidIsValid(get_relname_relid("programme", nspid)) &&
		OidIsValid(get_relname_relid("epoch", nspid));
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

	/*
	 * Our copy of the epoch must go if this transaction rolls back; the
	 * invalidation is replayed here then.
	 */
	CacheInvalidateRelcacheByRelid(s->tables[ST_GENERATION]);
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

int64
store_next_id(Store *s)
{
	if (ids_next == ids_end || ids_sequence != s->id_sequence)
	{
		int64		last = nextval_internal(s->id_sequence, false);

		ids_sequence = s->id_sequence;
		ids_next = last;
		ids_end = last + IDS_PER_CALL;
	}
	return ids_next++;
}

CurrencyInfo *
store_currency(Store *s, const char *code)
{
	CurrencyInfo *info;
	char		key[sizeof(info->code)];
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	ScanKeyData scankey;
	HeapTuple	tuple;
	bool		found,
				isnull;
	int			scale = -1;

	if (strlen(code) >= sizeof(key))
		return NULL;
	if (currencies == NULL || currencies_counter != config_counter)
	{
		HASHCTL		ctl;

		if (currencies)
			hash_destroy(currencies);
		ctl.keysize = sizeof(key);
		ctl.entrysize = sizeof(CurrencyInfo);
		currencies = hash_create("rebate currencies", 16, &ctl, HASH_ELEM | HASH_STRINGS);
		currencies_counter = config_counter;
	}

	info = hash_search(currencies, code, HASH_FIND, NULL);
	if (info)
		return info;

	/* without SPI: a new connection's first order pays for this */
	rel = table_open(s->tables[ST_CURRENCY], AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&scankey, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(code));
	scan = systable_beginscan(rel, s->indexes[SI_CURRENCY], true, snapshot, 1, &scankey);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		scale = DatumGetInt16(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	/* Unknown codes are not remembered: they come from rows and could be many */
	if (scale < 0)
		return NULL;
	info = hash_search(currencies, code, HASH_ENTER, &found);
	info->scale = scale;
	return info;
}

/*
 * Run SPI as the store's owner, who may have hung anything on his tables: as a
 * restricted operation, so that no deferred trigger of his runs later as
 * somebody else.
 */
void
store_spi_begin(Store *s, StoreSpi *scope)
{
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
	scope->guc_nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
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
