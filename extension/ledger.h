/*
 * ledger.h
 *	  How entries lie in the tables of the store, for those who write and read
 *	  them.
 *
 * The entry that opens a rebate is kept in the rebate's own row of
 * rebate_data.accrual, so that an order costs one row; all later movements are
 * rows of rebate_data.entry.  The columns from kind to held are the same in both
 * tables.  What is as the rest of the row says is NULL there; the view
 * rebate_data.ledger fills it in.
 */
#ifndef REBATE_LEDGER_H
#define REBATE_LEDGER_H

#include "rebate.h"
#include "common/hashfn.h"
#include "utils/date.h"

/* The start of the tuples of rebate_data.account */
typedef struct FormData_account
{
	int64		account_id;
	int64		last_entry;
	int64		balance[NUM_BUCKETS];
	int64		last_check;
	TimestampTz last_posted;
	char		status;
} FormData_account;

typedef FormData_account *Form_account;

/* account.status; all others are 'a' */
#define ACCOUNT_ERASED	'e'

enum AccountColumn
{
	AC_ACCOUNT_ID = 1, AC_CURRENCY = 11, AC_MEMBER = 12, AC_HANDLE = 14
};

/* The start of the tuples of rebate_data.accrual */
typedef struct FormData_accrual
{
	int64		accrual_id;
	int64		account_id;
	int32		source_id;
	int32		rule_id;
	int32		version;
	int32		generation;
	TimestampTz first_seen;
	TimestampTz order_time;
	int64		earned;
	char		bucket;
	char		phase;
	int16		flags;
	int16		part;			/* 0, 1, ... of the rows of an order */
} FormData_accrual;

typedef FormData_accrual *Form_accrual;

/* The tuples of rebate_data.waiting */
typedef struct FormData_waiting
{
	char		bucket;
	TimestampTz due;
	int64		account_id;
	int64		seq;			/* of the entry that opened the accrual */
} FormData_waiting;

typedef FormData_waiting *Form_waiting;

/* Columns that both tables have, in this order from kind on */
enum EntryColumn
{
	EC_KIND, EC_SEQ, EC_POSTED_AT, EC_XID, EC_CHECK, EC_DEBIT, EC_CREDIT, EC_EPOCH,
	EC_EFFECTIVE_DATE, EC_BOOK_DATE, EC_AMOUNT, EC_EVENT_AT, EC_POSTING_ID, EC_TRACKED,
	NUM_ENTRY_COLUMNS = EC_TRACKED + NUM_BUCKETS
};

enum AccrualColumn
{
	ACC_ACCRUAL_ID = 1, ACC_ACCOUNT_ID, ACC_SOURCE_ID, ACC_RULE_ID, ACC_VERSION,
	ACC_GENERATION, ACC_FIRST_SEEN, ACC_ORDER_TIME, ACC_EARNED, ACC_BUCKET, ACC_PHASE,
	ACC_FLAGS, ACC_PART, ACC_ORDER_KEY, ACC_KIND,
	ACC_CONFIRMED_AT = ACC_KIND + NUM_ENTRY_COLUMNS,
	ACC_DUE, ACC_GRANTED, ACC_LEVEL, ACC_BASE, ACC_LOOKED_UP
};
#define ACC_NATTS ACC_LOOKED_UP

enum EntryTableColumn
{
	EN_ACCOUNT_ID = 1, EN_ACCRUAL_ID, EN_PAYOUT_ID, EN_SOURCE_ID, EN_RULE_ID, EN_ORDER_KEY,
	EN_KIND
};
#define EN_NATTS (EN_KIND + NUM_ENTRY_COLUMNS - 1)

/* Attribute number of one of the common columns in each table */
#define ACC_ENTRY(column)	(ACC_KIND + (column))
#define EN_ENTRY(column)	(EN_KIND + (column))

/* What the check of an entry is chained over */
typedef struct EntryFields
{
	int64		account_id;
	int64		seq;
	int64		posting_id;
	int64		amount;
	TimestampTz posted_at;
	TimestampTz event_at;
	int64		xid;
	int32		debit;
	int32		credit;
	int32		epoch;
	int32		effective_date;
	int32		book_date;
	int32		rule_id;
	char		kind;
	int64		accrual_id;		/* 0: none */
	int64		payout_id;
} EntryFields;

/* The amount of the entry that an accrual was opened with */
static inline int64
ledger_abs(int64 earned)
{
	return earned < 0 ? -earned : earned;
}

/* Is a ledger account one of members' buckets? */
static inline bool
ledger_is_bucket(int32 ledger_account)
{
	return ledger_account >= LEDGER_BUCKET(0) && ledger_account < LEDGER_BUCKET(NUM_BUCKETS);
}

/*
 * Bring balances by bucket through an entry.  Damaged amounts may overflow: wrap,
 * whoever compares will see it.
 */
static inline void
ledger_move(int64 *balance, const EntryFields *e)
{
	if (ledger_is_bucket(e->debit))
		balance[e->debit - LEDGER_BUCKET(0)] =
			(int64) ((uint64) balance[e->debit - LEDGER_BUCKET(0)] - (uint64) e->amount);
	if (ledger_is_bucket(e->credit))
		balance[e->credit - LEDGER_BUCKET(0)] =
			(int64) ((uint64) balance[e->credit - LEDGER_BUCKET(0)] + (uint64) e->amount);
}

/* hashint8extended(), so that what is chained with it can be recomputed in SQL, on any machine */
static inline uint64
hash_chain(uint64 seed, int64 value)
{
	uint32		lo = (uint32) value;
	uint32		hi = (uint32) (value >> 32);

	lo ^= (value >= 0) ? hi : ~hi;
	return DatumGetUInt64(hash_uint32_extended(lo, seed));
}

/* One step of the check that is chained over the entries of an account */
extern int64 entry_check(int64 previous, const EntryFields *entry);

/* Fill the common columns of a row to be (both arrays begin with kind) */
extern void entry_to_columns(const EntryFields *entry, int64 check, const int64 *balance,
							 Datum *values, bool *nulls);

/*
 * Read the common columns of a row.  NULL amount and event_at, as the opening
 * entry of an accrual has them, leave what is in *entry; so do the columns that
 * are not common.
 */
extern void entry_from_columns(const Datum *values, const bool *nulls, EntryFields *entry,
							   int64 *check, int64 *balance);

/* The words for what the tables keep as a letter or by its place */
extern const char *const bucket_names[NUM_BUCKETS];
extern const char *phase_name(char phase);
extern const char *entry_kind_name(char kind);

#endif							/* REBATE_LEDGER_H */
