/*
 * delivery.c
 *	  What the current transaction has posted, and who is told of it.
 *
 * With a worker the transaction notifies nobody: NOTIFY takes a lock of the whole
 * cluster at commit and holds it while the WAL is flushed.  After its commit it
 * leaves hints in shared memory.  Without a worker it notifies just before its
 * commit.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "channel.h"
#include "delivery.h"
#include "ledger.h"

/* Accounts a transaction remembers; beyond, the worker looks by itself */
#define MAX_HINTS 256

/* A worker that was asked for and has not come after so long is asked for again */
#define PATIENCE_MS 10000

/* What this transaction has posted; memory that is always there, for the commit */
static Hint hints[MAX_HINTS];
static SubTransactionId hint_subs[MAX_HINTS];
static int	nhints = 0;
static bool too_many = false;
static RingDatabase *ring = NULL;	/* to be told at commit */
static RingDatabase *async_ring = NULL; /* has counted this commit as begun */

int			rebate_delivery = DELIVERY_WORKER;

DeliveryMode
delivery_mode(const char **reason)
{
	const char *why = NULL;
	DeliveryMode mode = rebate_delivery;

	if (mode == DELIVERY_WORKER)
	{
		if (!ring_exists())
			why = "rebate is not in shared_preload_libraries";
		else if (IsBinaryUpgrade)
			why = "the cluster is being upgraded";
		else if (ring_database() == NULL)
			why = "more databases than rebate.max_databases want a worker";
		else if (ring_database()->no_slot)
			why = "there is no free worker slot (max_worker_processes)";
		if (why)
			mode = DELIVERY_COMMIT;
	}
	if (reason)
		*reason = why;
	return mode;
}

const char *
delivery_mode_name(DeliveryMode mode)
{
	static const char *const names[] = {"worker", "commit", "off"};

	return names[mode];
}

/*
 * Entries of an account up to "last" are posted; "account" is its row as it was
 * before.
 */
void
delivery_posted(Relation accounts, int64 account_id, HeapTuple account, int64 last)
{
	SubTransactionId sub = GetCurrentSubTransactionId();
	Hint	   *hint;
	bool		isnull;

	Assert(((Form_account) GETSTRUCT(account))->last_entry < last);
	if (rebate_delivery == DELIVERY_OFF || too_many)
		return;
	for (int i = nhints - 1; i >= 0 && i >= nhints - 8; i--)
	{
		if (hints[i].account_id == account_id && hint_subs[i] == sub)
		{
			hints[i].last = last;
			return;
		}
	}
	if (nhints == MAX_HINTS)
	{
		too_many = true;
		return;
	}
	hint = &hints[nhints];
	hint->accounts = RelationGetRelid(accounts);
	hint->account_id = account_id;
	hint->first = ((Form_account) GETSTRUCT(account))->last_entry + 1;
	hint->last = last;
	hint->handle = *DatumGetUUIDP(heap_getattr(account, AC_HANDLE, RelationGetDescr(accounts),
												 &isnull));
	hint_subs[nhints++] = sub;
}

void
delivery_at_xact_end(void)
{
	nhints = 0;
	too_many = false;
	ring = NULL;
	if (async_ring)
		pg_atomic_fetch_add_u64(&async_ring->async_ended, 1);
	async_ring = NULL;
}

void
delivery_at_subcommit(SubTransactionId my, SubTransactionId parent)
{
	for (int i = nhints - 1; i >= 0 && hint_subs[i] == my; i--)
		hint_subs[i] = parent;
}

/* What the subtransaction posted is gone; that there was too much may stay. */
void
delivery_at_subabort(SubTransactionId my)
{
	while (nhints > 0 && hint_subs[nhints - 1] == my)
		nhints--;
}

/*
 * Register the worker of a database unless it runs, or is on its way.  Returns
 * false if the server has no slot for it.
 */
bool
delivery_register_worker(RingDatabase *db, Oid dbid)
{
	TimestampTz now = GetCurrentTimestamp();
	BackgroundWorker worker;
	bool		start;

	ring_lock(true);
	start = db->dbid == dbid && db->worker_pid == 0 && !db->keep_away &&
		(db->asked_at == 0 || db->asked_at > now ||
		 TimestampDifferenceExceeds(db->asked_at, now, PATIENCE_MS));
	if (start)
		db->asked_at = now;
	ring_unlock();
	if (!start)
		return !db->no_slot;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "rebate", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "rebate_publisher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "rebate publisher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "rebate publisher", BGW_MAXLEN);
	worker.bgw_main_arg = ObjectIdGetDatum(dbid);
	worker.bgw_notify_pid = 0;
	db->no_slot = !RegisterDynamicBackgroundWorker(&worker, NULL);
	return !db->no_slot;
}

/* The same for this database, with one WARNING a session if there is no slot. */
bool
delivery_start_worker(void)
{
	static bool warned = false;
	RingDatabase *db = ring_database();

	if (db == NULL || IsBinaryUpgrade)
		return false;
	if (db->worker_pid != 0 || db->keep_away)
		return true;
	if (RecoveryInProgress())
		return false;
	/* from where it looks for what the first transactions cannot say with hints */
	publisher_remember_snapshot();
	if (delivery_register_worker(db, MyDatabaseId))
		return true;
	if (!warned)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("rebate has no worker for this database, so transactions notify clients themselves"),
				 errhint("Raise max_worker_processes, or set rebate.delivery = commit.")));
	warned = true;
	return false;
}

void
shared_payload_add(SharedPayload *payload, const pg_uuid_t *handle, int64 last)
{
	static const char hex[] = "0123456789abcdef";
	char	   *p;

	/* two quotes, a handle of 36 and a number of at most 19 digits */
	if (payload->len > MAX_PAYLOAD - 70)
		shared_payload_send(payload);
	if (payload->naccounts == 0)
	{
		strcpy(payload->text, "{\"v\": 1, \"accounts\": [");
		payload->len = strlen(payload->text);
	}
	p = payload->text + payload->len;
	if (payload->naccounts++ > 0)
	{
		*p++ = ',';
		*p++ = ' ';
	}
	*p++ = '[';
	*p++ = '"';
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = hex[handle->data[i] >> 4];
		*p++ = hex[handle->data[i] & 0x0f];
	}
	memcpy(p, "\", \"", 4);
	p += 4;
	p += pg_lltoa(last, p);
	*p++ = '"';
	*p++ = ']';
	payload->len = p - payload->text;
}

void
shared_payload_send(SharedPayload *payload)
{
	if (payload->naccounts == 0)
		return;
	strcpy(payload->text + payload->len, "]}");
	Async_Notify(SHARED_CHANNEL, payload->text);
	payload->naccounts = 0;
	payload->len = 0;
}

/*
 * There are new entries in more accounts than are named: each page of the queue
 * is read by every listener of the database, whatever he listens to.
 */
void
shared_notify_many(void)
{
	Async_Notify(SHARED_CHANNEL, "{\"v\": 1, \"many\": true}");
}

/* Half of the queue is left to others: an order never fails for want of room. */
static bool
queue_is_half_full(void)
{
	return DatumGetFloat8(OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE)) >= 0.5;
}

/* Notify from the transaction: one message, and one for each channel asked for */
static void
notify_from_commit(void)
{
	SharedPayload *payload;
	Store	   *store = store_get(true);

	if (store == NULL || queue_is_half_full())
		return;
	if (too_many)
		shared_notify_many();
	else
	{
		payload = MemoryContextAllocZero(TopTransactionContext, sizeof(SharedPayload));
		for (int i = 0; i < nhints; i++)
			shared_payload_add(payload, &hints[i].handle, hints[i].last);
		shared_payload_send(payload);
	}
	channel_notify(store, hints, nhints);
}

/*
 * Just before the commit: the last moment at which something may fail.  Decides
 * who is told, and finds the ring for the time after the commit.
 */
void
delivery_pre_commit(bool prepare)
{
	DeliveryMode mode;

	if (nhints == 0 && !too_many)
		return;
	mode = rebate_delivery;
	if (mode == DELIVERY_WORKER && !delivery_start_worker())
		mode = DELIVERY_COMMIT;
	if (mode == DELIVERY_WORKER)
	{
		ring = ring_database();

		/*
		 * Such a commit is visible before it is flushed, so the worker must flush
		 * before it tells of it.
		 */
		if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF && !prepare && async_ring == NULL)
		{
			async_ring = ring;
			pg_atomic_fetch_add_u64(&ring->async_begun, 1);
		}
	}
	else if (mode == DELIVERY_COMMIT && !prepare)
		notify_from_commit();
}

/* After the commit: an error would stop the whole server, so there is none. */
void
delivery_at_commit(void)
{
	if (ring == NULL)
		return;
	if (too_many)
		ring_look(ring);
	if (nhints > 0)
		ring_push(ring, hints, nhints);
	ring_wake(ring);
}
