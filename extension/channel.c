/*
 * channel.c
 *	  Channels of members: rebate.channel(), rebate.my_channel,
 *	  rebate.rotate_channels(), and what is sent on them.
 *
 * A name is a keyed hash of the member, so whoever knows it has been told.  The
 * key is in a table of the extension that a dump leaves out: a copy of the
 * database has other names.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "channel.h"
#include "collect.h"
#include "delivery.h"
#include "event.h"
#include "former.h"
#include "identity.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(rebate_channel);
PG_FUNCTION_INFO_V1(rebate_get_my_channel);
PG_FUNCTION_INFO_V1(rebate_rotate_channels);

#define KEY_LENGTH 32

/* Whether anybody has asked for a channel: -1 not known; forgotten when the table changes */
static int	any_channels = -1;
static Oid	channel_table = InvalidOid;

static void
relcache_callback(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == channel_table || channel_table == InvalidOid)
		any_channels = -1;
}

void
channel_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

/* The table of the key, which belongs to the extension; invalid with missing_ok only */
static Oid
key_table(bool missing_ok)
{
	Oid			nspid = get_namespace_oid("rebate", true);
	Oid			relid = OidIsValid(nspid) ? get_relname_relid("channel_key", nspid) : InvalidOid;

	if (!OidIsValid(relid) && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("table \"rebate.channel_key\" is missing"),
				 errhint("ALTER EXTENSION rebate UPDATE, or create the extension again.")));
	return relid;
}

/* The key as it is committed, or by this transaction; false if there is none yet. */
static bool
read_key(uint8 *key)
{
	Oid			relid = key_table(true);
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	if (!OidIsValid(relid))
		return false;
	rel = table_open(relid, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		bool		isnull;
		bytea	   *value = DatumGetByteaPP(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull));

		found = VARSIZE_ANY_EXHDR(value) == KEY_LENGTH;
		if (found)
			memcpy(key, VARDATA_ANY(value), KEY_LENGTH);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Write a new key, as the owner of its table, in the place of the old one or
 * (only_missing) if there is none.
 */
static void
write_key(bool only_missing)
{
	Relation	rel = table_open(key_table(false), AccessShareLock);
	bytea	   *value = palloc(VARHDRSZ + KEY_LENGTH);
	SqlParams	params = {0};
	Oid			save_userid;
	int			save_sec_context;
	int			level;

	SET_VARSIZE(value, VARHDRSZ + KEY_LENGTH);
	if (!pg_strong_random(VARDATA(value), KEY_LENGTH))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make a random key")));
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner, save_sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	table_close(rel, NoLock);
	level = sql_begin();
	sql_param(&params, BYTEAOID, PointerGetDatum(value), false);
	sql_run(only_missing ?
			"INSERT INTO rebate.channel_key VALUES (true, $1) ON CONFLICT (one) DO NOTHING" :
			"INSERT INTO rebate.channel_key VALUES (true, $1) ON CONFLICT (one) DO UPDATE SET key = excluded.key",
			&params, SPI_OK_INSERT);
	sql_end(level);
	SetUserIdAndSecContext(save_userid, save_sec_context);
	CommandCounterIncrement();
}

/* The name of a member's channel under a key */
static void
channel_name(const uint8 *key, const char *member, char *name)
{
	pg_hmac_ctx *ctx = pg_hmac_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	if (ctx == NULL || pg_hmac_init(ctx, key, KEY_LENGTH) < 0 ||
		pg_hmac_update(ctx, (const uint8 *) member, strlen(member)) < 0 ||
		pg_hmac_final(ctx, digest, sizeof(digest)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute the name of a channel")));
	pg_hmac_free(ctx);
	strcpy(name, CHANNEL_PREFIX);
	hex_encode((const char *) digest, 16, name + strlen(CHANNEL_PREFIX));
	name[CHANNEL_LENGTH] = '\0';
}

/* Has a channel been asked for by, or for, this member? */
static bool
was_asked_for(Store *store, const char *member)
{
	SqlParams	params = {0};
	StoreSpi	scope;
	bool		there;

	sql_text(&params, member);
	store_spi_begin(store, &scope);
	there = sql_run("SELECT FROM rebate_data.channel WHERE member = $1 COLLATE \"C\"", &params,
					SPI_OK_SELECT) > 0;
	store_spi_end(&scope);
	return there;
}

/*
 * Record that a channel was asked for; "key" is read, or made if there is none.  A
 * key that a member had once gets a name as any other does, on which nothing will
 * come, and is not written down: an erased one must not come back this way.
 */
static void
ask_for_channel(Store *store, const char *member, uint8 *key)
{
	SqlParams	params = {0};
	StoreSpi	scope;
	char	   *now;

	write_key(true);
	if (!read_key(key))
		elog(ERROR, "the key of channels is not there");
	/* nor while he is being erased */
	if (store->version >= 2)
		former_lock_open(store, (const char *const *) &member, 1);
	if (former_find_now(store, member, &now) != FORMER_NOT)
		return;
	sql_text(&params, member);
	store_spi_begin(store, &scope);
	sql_run("INSERT INTO rebate_data.channel (member) VALUES ($1) ON CONFLICT (member) DO NOTHING",
			&params, SPI_OK_INSERT);
	store_spi_end(&scope);
	CacheInvalidateRelcacheByRelid(store->tables[ST_CHANNEL]);
	(void) delivery_start_worker();
}

/* rebate.channel(member) */
Datum
rebate_channel(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	char	   *member;
	uint8		key[KEY_LENGTH];
	char		name[CHANNEL_LENGTH + 1];

	rights_check(store, RIGHT_AUDITOR, "rebate.channel");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the member must not be null")));
	member = api_text(fcinfo, 0);
	if (!was_asked_for(store, member) || !read_key(key))
	{
		PreventCommandIfReadOnly("rebate.channel()");
		PreventCommandDuringRecovery("rebate.channel()");
		ask_for_channel(store, member, key);
	}
	channel_name(key, member, name);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/*
 * rebate.get_my_channel(): of the current member, NULL if there is none.  Where
 * nothing can be written it is NULL as well until the channel was asked for
 * elsewhere: those who read in read-only transactions go on.
 */
Datum
rebate_get_my_channel(PG_FUNCTION_ARGS)
{
	Store	   *store;
	char	   *member;
	uint8		key[KEY_LENGTH];
	char		name[CHANNEL_LENGTH + 1];

	identity_refuse_parallel();
	store = store_get(false);
	rights_check(store, RIGHT_MEMBER | RIGHT_GATEWAY, "rebate.get_my_channel");
	member = identity_member(store);
	if (member == NULL)
		PG_RETURN_NULL();
	if (!was_asked_for(store, member) || !read_key(key))
	{
		if (XactReadOnly || RecoveryInProgress())
			PG_RETURN_NULL();
		ask_for_channel(store, member, key);
	}
	channel_name(key, member, name);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/* rebate.rotate_channels() */
Datum
rebate_rotate_channels(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	StoreSpi	scope;
	int64		n;

	rights_check(store, RIGHT_OPERATOR, "rebate.rotate_channels");
	write_key(false);
	store_spi_begin(store, &scope);
	n = sql_run("DELETE FROM rebate_data.channel", NULL, SPI_OK_DELETE);
	store_spi_end(&scope);
	CacheInvalidateRelcacheByRelid(store->tables[ST_CHANNEL]);
	PG_RETURN_INT64(n);
}

/*
 * Whether there is any channel to notify.  Who has asked for one must be told of
 * what is committed afterwards, also by a transaction that has begun before.
 */
static bool
channels_asked_for(Store *store)
{
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	bool		any;

	AcceptInvalidationMessages();
	if (any_channels >= 0 && channel_table == store->tables[ST_CHANNEL])
		return any_channels > 0;
	channel_table = store->tables[ST_CHANNEL];
	rel = store_open(store, ST_CHANNEL, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	any = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	any_channels = any;
	return any;
}

/* More events than these fit into no payload */
#define MAX_EVENTS 50

/* The payload of one channel, filled event by event; used again for the next */
typedef struct MemberPayload
{
	Store	   *store;
	EventScan  *scan;
	StringInfoData events;		/* after an opening bracket */
	int			nevents;
} MemberPayload;

static void
add_event(void *arg, const EventRow *row)
{
	MemberPayload *payload = arg;

	if (payload->nevents++ > 0)
		appendStringInfoString(&payload->events, ", ");
	if (payload->events.len < MAX_PAYLOAD)
		event_to_json(payload->store, &payload->events, row);
}

/* Send the events of one account on a channel. */
static int
notify_account(MemberPayload *payload, const char *channel, const Hint *hint)
{
	StringInfo	events = &payload->events;

	resetStringInfo(events);
	appendStringInfoChar(events, '[');
	payload->nevents = 0;
	(void) event_range(payload->scan, hint->account_id, hint->first - 1, hint->last, MAX_EVENTS,
					   add_event, payload);
	if (payload->nevents == 0)
		return 0;
	if (events->len + 1 > MAX_PAYLOAD || hint->last - hint->first >= MAX_EVENTS)
	{
		char	   *handle = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&hint->handle)));

		Async_Notify(channel,
					 psprintf("{\"v\": 1, \"account\": \"%s\", \"first\": \"" INT64_FORMAT
							  "\", \"last\": \"" INT64_FORMAT "\", \"truncated\": true}",
							  handle, hint->first, hint->last));
	}
	else if (payload->nevents == 1)
		Async_Notify(channel, events->data + 1);
	else
	{
		appendStringInfoChar(events, ']');
		Async_Notify(channel, events->data);
	}
	return payload->nevents;
}

int64
channel_notify(Store *store, const Hint *asked, int n)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context;
	MemoryContext old;
	Oid			argtypes[1] = {INT8ARRAYOID};
	Datum	   *ids;
	Datum		values[1];
	uint8		key[KEY_LENGTH];
	StoreSpi	scope;
	MemberPayload payload = {.store = store};
	bool		names;
	uint64		nfound;
	int64		published = 0;

	if (n == 0 || !channels_asked_for(store) || !read_key(key))
		return 0;

	context = AllocSetContextCreate(CurrentMemoryContext, "rebate channels", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	ids = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(asked[i].account_id);
	values[0] = PointerGetDatum(construct_array(ids, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));

	store_spi_begin(store, &scope);
	if (plan == NULL)
	{
		plan = SPI_prepare("SELECT u.place::int, a.member"
						   "  FROM unnest($1) WITH ORDINALITY u(account_id, place)"
						   "  JOIN rebate_data.account a ON a.account_id = u.account_id"
						   "  JOIN rebate_data.channel c ON c.member = a.member ORDER BY u.place",
						   1, argtypes);
		if (plan == NULL)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
	}
	if (SPI_execute_plan(plan, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for channels");
	nfound = SPI_processed;
	initStringInfo(&payload.events);
	payload.scan = event_ranges_begin(store, GetActiveSnapshot());
	names = event_names_begin(store);
	for (uint64 i = 0; i < nfound; i++)
	{
		char		name[CHANNEL_LENGTH + 1];

		channel_name(key, sql_get_text(i, 2, context), name);
		published += notify_account(&payload, name, &asked[sql_get_int(i, 1, 1) - 1]);
	}
	if (names)
		event_names_end();
	event_scan_end(payload.scan);
	store_spi_end(&scope);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return published;
}
