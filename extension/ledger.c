/*
 * ledger.c
 *	  Entries as they lie in the tables of the store.
 */
#include "rebate.h"

#include "common/hashfn.h"
#include "utils/date.h"

#include "ledger.h"

/*
 * The check of an entry: hashint8extended() chained over its fields, so that it
 * can be recomputed in SQL, on any machine.
 */
static inline uint64
chain(uint64 seed, int64 value)
{
	uint32		lo = (uint32) value;
	uint32		hi = (uint32) (value >> 32);

	lo ^= (value >= 0) ? hi : ~hi;
	return DatumGetUInt64(hash_uint32_extended(lo, seed));
}

int64
entry_check(int64 previous, const EntryFields *e)
{
	uint64		check = (uint64) previous;

	check = chain(check, e->account_id);
	check = chain(check, e->seq);
	check = chain(check, e->posting_id);
	check = chain(check, e->amount);
	check = chain(check, e->posted_at);
	check = chain(check, e->event_at);
	check = chain(check, e->xid);
	check = chain(check, e->debit);
	check = chain(check, e->credit);
	check = chain(check, e->epoch);
	check = chain(check, e->effective_date);
	check = chain(check, e->book_date);
	check = chain(check, e->rule_id);
	check = chain(check, e->kind);
	check = chain(check, e->accrual_id);
	check = chain(check, e->payout_id);
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
