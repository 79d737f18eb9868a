/*
 * event.h
 *	  Entries of the ledger as events: reading them, and their JSON.
 */
#ifndef REBATE_EVENT_H
#define REBATE_EVENT_H

#include "rebate.h"
#include "lib/stringinfo.h"
#include "ledger.h"
#include "store.h"

/* One entry, with what its row says besides */
typedef struct EventRow
{
	EntryFields fields;
	int64		check;
	int64		balance[NUM_BUCKETS];
	int32		source_id;		/* 0: none */
	const char *order_key;		/* NULL: none */
	bool		opening;		/* it opened a rebate, and is in its row */
} EventRow;

/* A place in the ledger: after this entry of this account */
typedef struct EventKey
{
	int64		account_id;
	int64		seq;
} EventKey;

static inline int
event_key_cmp(const EventKey *a, const EventKey *b)
{
	if (a->account_id != b->account_id)
		return a->account_id < b->account_id ? -1 : 1;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

/*
 * Append the event as one JSON object.
 *
 * Names of rules, sources and members are looked up.  Between
 * event_names_begin() and event_names_end() each is looked up once, so keep that
 * span short: what is renamed meanwhile keeps its old name.  _begin() returns
 * false inside another span, whose _end() counts then.  An error ends the span.
 * event_read() is such a span.
 */
extern void event_to_json(Store *store, StringInfo buf, const EventRow *row);
extern bool event_names_begin(Store *store);
extern void event_names_end(void);

/*
 * Call fn for the entries of one account with after < seq <= upto in order, at
 * most limit, as the snapshot sees them; returns how many.
 */
extern int64 event_read(Store *store, Snapshot snapshot, int64 account_id, int64 after, int64 upto,
						int64 limit, void (*fn) (void *arg, const EventRow *row), void *arg);

/* The same for many accounts, one after the other; ends with event_scan_end() */
typedef struct EventScan EventScan;

extern EventScan *event_ranges_begin(Store *store, Snapshot snapshot);
extern int64 event_range(EventScan *scan, int64 account_id, int64 after, int64 upto, int64 limit,
						 void (*fn) (void *arg, const EventRow *row), void *arg);

/* Whether an entry was made by the current transaction, which may yet roll back */
extern bool event_is_own(Store *store, const EventRow *row);

/*
 * The entries of all accounts that a snapshot sees, in the order of account and
 * sequence, from behind a place on.  A row is good until the next call.
 */
extern EventScan *event_scan_begin(Store *store, Snapshot snapshot, EventKey after);
extern const EventRow *event_scan_next(EventScan *scan);
extern void event_scan_end(EventScan *scan);

/*
 * Single entries by their place; "opening": the entry opened a rebate.  NULL if
 * there is none.
 */
extern EventScan *event_lookup_begin(Store *store, Snapshot snapshot);
extern const EventRow *event_lookup(EventScan *scan, EventKey place, bool opening);

#endif							/* REBATE_EVENT_H */
