/*
 * round.c
 *	  What the publisher announces with its next notification, and which entries
 *	  of each account were announced before.
 */
#include "rebate.h"

#include "common/hashfn.h"

#include "channel.h"
#include "delivery.h"
#include "round.h"

/* Accounts whose announced entries are remembered; then all are forgotten */
#define MAX_ANNOUNCED		200000

/* The entries of an account that were announced, or are in this round */
typedef struct Announced
{
	int64		account_id;
	uint32		hash;
	char		status;
	int64		from;			/* what came before this one is not known */
	int64		last;
	int64		first;			/* of this round; 0: not in it */
	int64		news;			/* so many entries of this round are new */
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
round_knows(int64 account_id, int64 first, int64 last)
{
	Announced  *a = announced_lookup(announced, account_id);

	return a != NULL && a->from <= first && a->last >= last;
}

/*
 * A transaction is visible before it leaves its hint, so the hint of a later one
 * may come first.  Sequences are dense in commit order: then both are announced,
 * unless the account was not known, and the earlier entries follow.
 */
void
round_add(int64 account_id, const pg_uuid_t *handle, int64 first, int64 last)
{
	Announced  *a;
	bool		found;

	a = announced_insert(announced, account_id, &found);
	if (!found)
	{
		a->from = first;
		a->last = first - 1;
		a->first = 0;
	}
	if (first >= a->from && last <= a->last)
		return;
	if (a->first == 0)
	{
		a->first = a->last + 1;
		a->news = 0;
		accounts[naccounts++] = account_id;
	}
	a->handle = *handle;
	if (first < a->from)
	{
		a->news += a->from - first;
		a->first = a->from = first;
	}
	if (last > a->last)
	{
		a->news += last - a->last;
		a->last = last;
	}
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
		published += a->news;
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
