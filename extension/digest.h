/*
 * digest.h
 *	  Sums of hashes of what entries did to rebates.
 *
 * A rebate and the sum of its entries must be equal.  Entries have no order in
 * which each rebate's are together, so all are compared at once: each movement
 * adds the hash of its rebate times the amount times the weight of the bucket.
 * Such sums can be added and subtracted, so that one over dropped entries stands
 * for them.
 */
#ifndef REBATE_DIGEST_H
#define REBATE_DIGEST_H

#include "rebate.h"
#include "common/hashfn.h"

#include "ledger.h"

/* What the sums are made with */
typedef struct DigestKey
{
	uint64		seed;
	uint64		weights[NUM_BUCKETS];	/* odd, an even one would lose bits */
} DigestKey;

typedef struct LedgerDigest
{
	uint64		high;
	uint64		low;
} LedgerDigest;

/*
 * The key of sums that are kept.  It is no secret: like the check of entries
 * they are against damage, and who can write them can compute them.
 */
extern const DigestKey kept_digest_key;

/* The weight of a ledger account: zero unless it is a bucket */
static inline uint64
digest_weight(const DigestKey *key, int32 ledger_account)
{
	return ledger_is_bucket(ledger_account) ? key->weights[ledger_account - LEDGER_BUCKET(0)] : 0;
}

/* What an entry moved, in amounts times weights */
static inline uint64
digest_movement(const DigestKey *key, const EntryFields *e)
{
	return (uint64) e->amount * (digest_weight(key, e->credit) - digest_weight(key, e->debit));
}

/*
 * Add what is said of a rebate: "value" is an amount times the weight of its
 * bucket.  High and low half of the hash each count in full, since a multiple of a
 * power of two loses as many bits of a product.
 */
static inline void
digest_add(LedgerDigest *digest, const DigestKey *key, int64 accrual_id, int64 account_id,
		   uint64 value)
{
	uint64		hash;

	if (value == 0)
		return;
	hash = hash_chain(hash_chain(key->seed, accrual_id), account_id);
	digest->low += hash * value;
	digest->high += ((hash >> 32) | (hash << 32)) * value;
}

#endif							/* REBATE_DIGEST_H */
