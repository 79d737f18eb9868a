/*
 * round.c
 *	  What the publisher announces with its next notification, and the last entry
 *	  of each account that was announced before.
 */
#include "rebate.h"

#include "common/hashfn.h"

#include "channel.h"
#include "delivery.h"
#include "round.h"

/* Accounts whose last announced entry is remembered; then all are forgotten */
#define MAX_ANNOUNCED		200000

/* The last announced entry of an account */
typedef struct Announced
{
	int64		account_id;
	uint32		hash;
	char		status;
	int64		last;			/* announced up to here */
	int64		first;			/* of this round; 0: not in it */
	pg_uuid_t	handle;
} Announced;

#define SH_PREFIX announced
#define SH_ELEMENT_TYPE Announced
#define SH_KEY_TYPE int64
#define SH_KEY account_id
#define SH_HASH_KEY(tb, k) hash_bytes_uint32((uint32) (k) ^ (uint32) ((k) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

static MemoryContext announced_memory = NULL;
static announced_hash *announced = NULL;

/* Accounts of this round, in the order in which they came */
static int64 accounts[MAX_ROUND];
static int	naccounts = 0;

void
round_init(MemoryContext memory)
{
	announced_memory = memory;
	announced = announced_create(memory, 1024, NULL);
}

int
round_accounts(void)
{
	return naccounts;
}

bool
round_knows(int64 account_id, int64 last)
{
	Announced  *a = announced_lookup(announced, account_id);

	return a != NULL && a->last >= last;
}

void
round_add(int64 account_id, const pg_uuid_t *handle, int64 first, int64 last)
{
	Announced  *a;
	bool		found;

	a = announced_insert(announced, account_id, &found);
	if (!found)
	{
		a->last = first - 1;
		a->first = 0;
	}
	if (last <= a->last)
		return;
	if (a->first == 0)
	{
		/* a later commit may have come first, then this one is announced with it */
		a->first = a->last + 1;
		accounts[naccounts++] = account_id;
	}
	a->handle = *handle;
	a->last = last;
}

int64
round_send(Store *store)
{
	Hint	   *members = palloc(sizeof(Hint) * naccounts);
	SharedPayload *payload = palloc0(sizeof(SharedPayload));
	int64		published = 0;

	for (int i = 0; i < naccounts; i++)
	{
		Announced  *a = announced_lookup(announced, accounts[i]);

		if (naccounts <= MAX_NAMED_ACCOUNTS)
			shared_payload_add(payload, &a->handle, a->last);
		members[i].account_id = a->account_id;
		members[i].handle = a->handle;
		members[i].first = a->first;
		members[i].last = a->last;
		published += a->last - a->first + 1;
	}
	if (naccounts > MAX_NAMED_ACCOUNTS)
		shared_notify_many();
	shared_payload_send(payload);
	(void) channel_notify(store, members, naccounts);
	return published;
}

void
round_end(void)
{
	for (int i = 0; i < naccounts; i++)
	{
		Announced  *a = announced_lookup(announced, accounts[i]);

		if (a)
			a->first = 0;
	}
	naccounts = 0;
	if (announced->members > MAX_ANNOUNCED)
	{
		announced_destroy(announced);
		announced = announced_create(announced_memory, 1024, NULL);
	}
}

void
round_reset(void)
{
	round_end();
	announced_reset(announced);
}
