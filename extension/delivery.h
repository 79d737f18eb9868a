/*
 * delivery.h
 *	  Telling clients of what a transaction has posted.
 */
#ifndef REBATE_DELIVERY_H
#define REBATE_DELIVERY_H

#include "rebate.h"
#include "ring.h"
#include "store.h"

typedef enum DeliveryMode
{
	DELIVERY_WORKER,
	DELIVERY_COMMIT,
	DELIVERY_OFF
} DeliveryMode;

extern int	rebate_delivery;

#define SHARED_CHANNEL	"rebate"

/* Longest payload that is sent; PostgreSQL takes less than 8,000 bytes */
#define MAX_PAYLOAD		7000

/* The mode in force, and why it is not the one that is set (NULL: it is) */
extern DeliveryMode delivery_mode(const char **reason);

extern const char *delivery_mode_name(DeliveryMode mode);

/* The writer has posted entries of an account */
extern void delivery_posted(Relation accounts, int64 account_id, HeapTuple account, int64 last);

/* Callbacks of transaction and subtransaction, from rebate.c */
extern void delivery_pre_commit(bool prepare);
extern void delivery_at_commit(void);
extern void delivery_at_xact_end(void);
extern void delivery_at_subcommit(SubTransactionId my, SubTransactionId parent);
extern void delivery_at_subabort(SubTransactionId my);

/* Ask for the worker of this or any database unless it is there; false: there can be none */
extern bool delivery_start_worker(void);
extern bool delivery_register_worker(RingDatabase *db, Oid dbid);

/* The payload of the shared channel, written piece by piece */
typedef struct SharedPayload
{
	char		text[MAX_PAYLOAD + 1];
	int			len;
	int			naccounts;
} SharedPayload;

/* Accounts that one round or transaction names on the shared channel; of more it says so only */
#define MAX_NAMED_ACCOUNTS 300

extern void shared_notify_many(void);

/* Add an account; sends the payload when it is full.  The other sends the rest. */
extern void shared_payload_add(SharedPayload *payload, const pg_uuid_t *handle, int64 last);
extern void shared_payload_send(SharedPayload *payload);

/*
 * publisher.c: before something is committed that leaves no hints, so that a
 * worker that is yet to come finds it
 */
extern void publisher_remember_snapshot(void);

/* Keep the worker of a database away, and let it come back */
extern void publisher_keep_away(Oid dbid);
extern void publisher_let_back(Oid dbid);

#endif							/* REBATE_DELIVERY_H */
