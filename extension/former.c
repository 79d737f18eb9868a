/*
 * former.c
 *	  Keys that members had: replaced by another one, or erased.
 *
 * The shop's rows may go on with an old key for ever, so it is recognized, but
 * kept as a keyed hash only.  The secret is in the store: a dump has it, since
 * after a restore the key must be refused as before.  Whoever has both can try
 * out keys that he guesses; nobody can read them.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "former.h"

/* Columns of rebate_data.former_member and former_secret */
enum
{
	FM_HASH = 1, FM_MEMBER
};
#define FS_KEY	2

/*----------------------------------------------------------------------------
 * The secret, and the hashes
 *----------------------------------------------------------------------------
 */

void
former_read_key(Store *store)
{
	Relation	rel = table_open(store->tables[ST_FORMER_SECRET], AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);

	store->has_former_key = false;
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		bytea	   *key = DatumGetByteaPP(heap_getattr(tuple, FS_KEY, RelationGetDescr(rel), &isnull));

		if (VARSIZE_ANY_EXHDR(key) == FORMER_KEY_LENGTH)
		{
			memcpy(store->former_key, VARDATA_ANY(key), FORMER_KEY_LENGTH);
			store->has_former_key = true;
		}
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* A key as it is kept: a bytea in the current context */
static Datum
former_hash(Store *store, const char *key)
{
	pg_hmac_ctx *ctx = pg_hmac_create(PG_SHA256);
	bytea	   *result = palloc(VARHDRSZ + FORMER_HASH_LENGTH);

	StaticAssertStmt(FORMER_HASH_LENGTH == PG_SHA256_DIGEST_LENGTH, "hashes are SHA-256");
	if (ctx == NULL || pg_hmac_init(ctx, store->former_key, FORMER_KEY_LENGTH) < 0 ||
		pg_hmac_update(ctx, (const uint8 *) key, strlen(key)) < 0 ||
		pg_hmac_final(ctx, (uint8 *) VARDATA(result), FORMER_HASH_LENGTH) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute the hash of a member's key")));
	pg_hmac_free(ctx);
	SET_VARSIZE(result, VARHDRSZ + FORMER_HASH_LENGTH);
	return PointerGetDatum(result);
}

/*
 * Without the secret, which only a damaged or cut-down copy of a store lacks,
 * no key is known for a former one, and the shop goes on; the audit tells.
 */
FormerKind
former_find(Store *store, const char *key, char **now)
{
	Relation	rel;
	Snapshot	snapshot;
	ScanKeyData skey;
	SysScanDesc scan;
	HeapTuple	tuple;
	FormerKind	result = FORMER_NOT;

	if (!store->maybe_former || !store->has_former_key)
		return FORMER_NOT;
	rel = store_open(store, ST_FORMER_MEMBER, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&skey, FM_HASH, BTEqualStrategyNumber, F_BYTEAEQ, former_hash(store, key));
	scan = systable_beginscan(rel, store->indexes[SI_FORMER_MEMBER], true, snapshot, 1, &skey);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		member = heap_getattr(tuple, FM_MEMBER, RelationGetDescr(rel), &isnull);

		result = isnull ? FORMER_ERASED : FORMER_REPLACED;
		if (!isnull)
			*now = TextDatumGetCString(member);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

bool
former_any_now(Store *store)
{
	if (store->version < 2)
		return false;
	if (!store->maybe_former || !store->has_former_key)
	{
		Relation	rel = store_open(store, ST_FORMER_MEMBER, AccessShareLock);

		store->maybe_former = RelationGetNumberOfBlocks(rel) > 0;
		table_close(rel, AccessShareLock);
		if (store->maybe_former)
			former_read_key(store);
	}
	return store->maybe_former && store->has_former_key;
}

FormerKind
former_find_now(Store *store, const char *key, char **now)
{
	return former_any_now(store) ? former_find(store, key, now) : FORMER_NOT;
}

void
former_check(Store *store, const char *key)
{
	char	   *now;

	switch (former_find_now(store, key, &now))
	{
		case FORMER_ERASED:
			ereport(ERROR,
					(errcode(ERRCODE_RB_ERASURE_REFUSED),
					 errmsg("the member is erased")));
			break;
		case FORMER_REPLACED:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the member has another key now"),
					 errhint("It is \"%s\".", now)));
			break;
		default:
			break;
	}
}

/*----------------------------------------------------------------------------
 * Writing
 *----------------------------------------------------------------------------
 */

/*
 * All sessions look for former keys from now on.  Called before what is written:
 * so the invalidation belongs to the same command, and is replayed here if that is
 * rolled back, which takes back what this session knows.
 */
static void
former_changes(Store *store)
{
	CacheInvalidateRelcacheByRelid(store->tables[ST_FORMER_MEMBER]);
}

/* Make the secret, unless there is one. */
static void
make_secret(Store *store)
{
	bytea	   *key = palloc(VARHDRSZ + FORMER_KEY_LENGTH);
	StoreSpi	scope;
	SqlParams	params = {0};

	SET_VARSIZE(key, VARHDRSZ + FORMER_KEY_LENGTH);
	if (!pg_strong_random(VARDATA(key), FORMER_KEY_LENGTH))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make a random key")));
	sql_param(&params, BYTEAOID, PointerGetDatum(key), false);
	former_changes(store);
	store_spi_begin(store, &scope);
	sql_run("INSERT INTO rebate_data.former_secret (key) VALUES ($1) ON CONFLICT (one) DO NOTHING",
			&params, SPI_OK_INSERT);
	store_spi_end(&scope);
	CommandCounterIncrement();
	former_read_key(store);
	if (!store->has_former_key)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("the secret of former keys is not as it was made"),
				 errhint("Restore table \"%s.former_secret\".", STORE_SCHEMA)));
}

void
former_record(Store *store, const char *key, const char *now)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_param(&params, BYTEAOID, former_hash(store, key), false);
	sql_text(&params, now);
	former_changes(store);
	store_spi_begin(store, &scope);
	sql_run("INSERT INTO rebate_data.former_member (hash, member) VALUES ($1, $2)"
			" ON CONFLICT (hash) DO UPDATE SET member = excluded.member", &params, SPI_OK_INSERT);
	store_spi_end(&scope);
	CommandCounterIncrement();
	store->maybe_former = true;
}

void
former_redirect(Store *store, const char *member, const char *now)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_text(&params, member);
	sql_text(&params, now);
	store_spi_begin(store, &scope);
	sql_run("UPDATE rebate_data.former_member SET member = $2 WHERE member = $1 COLLATE \"C\"",
			&params, SPI_OK_UPDATE);
	store_spi_end(&scope);
	CommandCounterIncrement();
}

void
former_forget(Store *store, const char *key)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_param(&params, BYTEAOID, former_hash(store, key), false);
	store_spi_begin(store, &scope);
	sql_run("DELETE FROM rebate_data.former_member WHERE hash = $1", &params, SPI_OK_DELETE);
	store_spi_end(&scope);
	CommandCounterIncrement();
}

/*----------------------------------------------------------------------------
 * Locks
 *
 * An account that is being opened has no row that somebody else could lock.
 * Keys are locked by their hash: two with one hash share a lock, and wait for each
 * other in vain at worst.  Everybody may read pg_locks, also while a member is being
 * erased; so it is the keyed hash, from which nobody learns whose lock it is.
 *
 * Who opens many accounts locks all keys with one lock, which those who open few do
 * not look at.  So does everybody who opens any while there is no secret, as in a copy
 * of a store that was restored without it; the first change of a key makes another.
 *----------------------------------------------------------------------------
 */
#define LOCK_CLASS_KEYS	0x5204
#define LOCK_CLASS_KEY	0x5205

/* Keys that a transaction locks one by one; beyond, it locks all */
#define MAX_KEY_LOCKS	64

static int	nkey_locks = 0;

static void
acquire(uint16 class, uint64 hash, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, class);
	(void) LockAcquire(&tag, mode, false, false);
}

/* The first bytes of its keyed hash */
static uint64
hash_key(Store *store, const char *key)
{
	bytea	   *hash = DatumGetByteaP(former_hash(store, key));
	uint64		result;

	memcpy(&result, VARDATA(hash), sizeof(result));
	pfree(hash);
	return result;
}

/* Is there a secret by now? */
static bool
find_secret(Store *store)
{
	if (!store->has_former_key)
		former_read_key(store);
	return store->has_former_key;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return (x > y) - (x < y);
}

/* Lock keys, in the order of their hashes: two who lock several do not wait for each other. */
static void
lock_keys(Store *store, const char *const *keys, int n, LOCKMODE mode)
{
	uint64		hashes[MAX_KEY_LOCKS];

	for (int i = 0; i < n; i++)
		hashes[i] = hash_key(store, keys[i]);
	qsort(hashes, n, sizeof(uint64), compare_hashes);
	for (int i = 0; i < n; i++)
		acquire(LOCK_CLASS_KEY, hashes[i], mode);
}

void
former_lock_open(Store *store, const char *const *keys, int n)
{
	/* once all are locked no other lock is asked for, also after a rollback to before */
	nkey_locks = Min(nkey_locks + n, MAX_KEY_LOCKS + 1);
	if (nkey_locks > MAX_KEY_LOCKS || !find_secret(store))
		acquire(LOCK_CLASS_KEYS, 0, ShareLock);
	else
		lock_keys(store, keys, n, ShareLock);
}

/* The lock of all comes last: who holds that of a key may still want it. */
void
former_lock_change(Store *store, const char *const *keys, int n)
{
	if (!find_secret(store))
	{
		acquire(LOCK_CLASS_KEYS, 0, RowExclusiveLock);
		make_secret(store);
	}
	lock_keys(store, keys, n, ExclusiveLock);
	acquire(LOCK_CLASS_KEYS, 0, RowExclusiveLock);
}

void
former_at_xact_end(void)
{
	nkey_locks = 0;
}
