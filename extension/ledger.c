/*
 * ledger.c
 *	  Entries as they lie in the tables of the store.
 */
#include "rebate.h"

#include "common/hashfn.h"
#include "utils/date.h"

#include "digest.h"
#include "ledger.h"

/* What sums of hashes that are kept are made with: digits of pi, as odd as they must be */
const DigestKey kept_digest_key = {
	.seed = UINT64CONST(0x243f6a8885a308d3),
	.weights = {
		UINT64CONST(0x13198a2e03707345), UINT64CONST(0xa4093822299f31d1),
		UINT64CONST(0x082efa98ec4e6c89), UINT64CONST(0x452821e638d01377),
		UINT64CONST(0xbe5466cf34e90c6d)
	}
};

/* The check of an entry is chained over its fields. */
int64
entry_check(int64 previous, const EntryFields *e)
{
	uint64		check = (uint64) previous;

	check = hash_chain(check, e->account_id);
	check = hash_chain(check, e->seq);
	check = hash_chain(check, e->posting_id);
	check = hash_chain(check, e->amount);
	check = hash_chain(check, e->posted_at);
	check = hash_chain(check, e->event_at);
	check = hash_chain(check, e->xid);
	check = hash_chain(check, e->debit);
	check = hash_chain(check, e->credit);
	check = hash_chain(check, e->epoch);
	check = hash_chain(check, e->effective_date);
	check = hash_chain(check, e->book_date);
	check = hash_chain(check, e->rule_id);
	check = hash_chain(check, e->kind);
	check = hash_chain(check, e->accrual_id);
	check = hash_chain(check, e->payout_id);
	return (int64) check;
}

void
entry_to_columns(const EntryFields *e, int64 check, const int64 *balance, Datum *values,
				 bool *nulls)
{
	memset(nulls, false, sizeof(bool) * NUM_ENTRY_COLUMNS);
	values[EC_KIND] = CharGetDatum(e->kind);
	values[EC_SEQ] = Int64GetDatum(e->seq);
	values[EC_POSTED_AT] = TimestampTzGetDatum(e->posted_at);
	values[EC_XID] = Int64GetDatum(e->xid);
	values[EC_CHECK] = Int64GetDatum(check);
	values[EC_DEBIT] = Int32GetDatum(e->debit);
	values[EC_CREDIT] = Int32GetDatum(e->credit);
	values[EC_EPOCH] = Int32GetDatum(e->epoch);
	values[EC_EFFECTIVE_DATE] = DateADTGetDatum(e->effective_date);
	values[EC_BOOK_DATE] = DateADTGetDatum(e->book_date);
	nulls[EC_BOOK_DATE] = e->book_date == e->effective_date;
	values[EC_AMOUNT] = Int64GetDatum(e->amount);
	values[EC_EVENT_AT] = TimestampTzGetDatum(e->event_at);
	values[EC_POSTING_ID] = Int64GetDatum(e->posting_id);
	nulls[EC_POSTING_ID] = e->posting_id == e->accrual_id;
	for (int b = 0; b < NUM_BUCKETS; b++)
	{
		values[EC_TRACKED + b] = Int64GetDatum(balance[b]);
		nulls[EC_TRACKED + b] = balance[b] == 0;
	}
}

void
entry_from_columns(const Datum *values, const bool *nulls, EntryFields *e, int64 *check,
				   int64 *balance)
{
	e->kind = DatumGetChar(values[EC_KIND]);
	e->seq = DatumGetInt64(values[EC_SEQ]);
	e->posted_at = DatumGetTimestampTz(values[EC_POSTED_AT]);
	e->xid = DatumGetInt64(values[EC_XID]);
	e->debit = DatumGetInt32(values[EC_DEBIT]);
	e->credit = DatumGetInt32(values[EC_CREDIT]);
	e->epoch = DatumGetInt32(values[EC_EPOCH]);
	e->effective_date = DatumGetDateADT(values[EC_EFFECTIVE_DATE]);
	e->book_date = nulls[EC_BOOK_DATE] ? e->effective_date : DatumGetDateADT(values[EC_BOOK_DATE]);
	if (!nulls[EC_AMOUNT])
		e->amount = DatumGetInt64(values[EC_AMOUNT]);
	if (!nulls[EC_EVENT_AT])
		e->event_at = DatumGetTimestampTz(values[EC_EVENT_AT]);
	e->posting_id = nulls[EC_POSTING_ID] ? e->accrual_id : DatumGetInt64(values[EC_POSTING_ID]);
	*check = DatumGetInt64(values[EC_CHECK]);
	for (int b = 0; b < NUM_BUCKETS; b++)
		balance[b] = nulls[EC_TRACKED + b] ? 0 : DatumGetInt64(values[EC_TRACKED + b]);
}

const char *const bucket_names[NUM_BUCKETS] = {
	"tracked", "pending", "maturing", "available", "held"
};

/* Where an order stands */
const char *
phase_name(char phase)
{
	switch (phase)
	{
		case PHASE_TRACKED:
			return "tracked";
		case PHASE_PENDING:
			return "pending";
		case PHASE_CONFIRMED:
			return "confirmed";
		default:
			return "void";
	}
}

/* What an entry is */
const char *
entry_kind_name(char kind)
{
	switch (kind)
	{
		case ENTRY_ACCRUE:
			return "accrue";
		case ENTRY_REVERSE:
			return "reverse";
		case ENTRY_WRITE_OFF:
			return "write_off";
		default:
			return "move";
	}
}
