/*
 * order.h
 *	  What is known of one order on its way to the ledger: the image of its row,
 *	  the facts recorded of it, and the decision.
 */
#ifndef REBATE_ORDER_H
#define REBATE_ORDER_H

#include "rebate.h"
#include "freeze.h"
#include "ledger.h"
#include "nodes/pg_list.h"
#include "source.h"
#include "store.h"

/* One row, read through the mapping of its source */
typedef struct OrderImage
{
	const char *key;			/* canonical */
	char	   *member;			/* canonical; NULL: a guest */
	bool		erased;			/* the member is erased, and nothing more was read */
	CurrencyInfo *currency;
	Phase		phase;
	Numeric		amount;
	Numeric		refunded;		/* NULL: not mapped, or none */
	Numeric		quantity;		/* NULL: not mapped or null */
	Numeric		refunded_quantity;
	char	   *original;		/* canonical key of the order that it returns; or NULL */
	char	   *replaces;		/* ... that it was split from or replaces; or NULL */
	TimestampTz order_time;		/* valid only if has_order_time */
	bool		has_order_time;
	bool		has_confirmed_at;
	TimestampTz confirmed_at;
	TupleTableSlot *slot;
	/* the row cannot be decided */
	int			sqlerrcode;		/* 0: it can */
	const char *error;
	const char *error_detail;
} OrderImage;

/* The rows of an order in rebate_data.accrual, and the facts they agree on */
typedef struct OrderFacts
{
	bool		seen;
	bool		assumed;		/* to be new: nobody has looked */
	int32		generation;
	TimestampTz first_seen;
	TimestampTz order_time;
	int			flags;
	char		phase;
	bool		has_confirmed_at;
	TimestampTz confirmed_at;
	int			nrows;
	HeapTuple  *rows;			/* copies, t_self set */
	int			next_part;		/* of a row to come */
	Freezes		freezes;
	/* touched while deciding was deferred, and not decided since */
	bool		deferred;
	bool		deferred_old;	/* not seen, and older than the attachment */
	bool		deferred_archived;	/* its row left, and its money stays */
	bool		ambiguous;		/* its key changed together with others */
	TimestampTz touched_at;
} OrderFacts;

/* What one rule should have paid */
typedef struct Wish
{
	int32		rule_id;
	int32		version;
	int32		expense;		/* house account */
	int64		amount;			/* minor units, signed */
	Bucket		bucket;
	bool		at_once;		/* without a hold: available once confirmed */
	bool		has_due;
	TimestampTz due;
	Numeric		base;
} Wish;

typedef struct Decision
{
	bool		keep;			/* what is posted stays */
	bool		failed;			/* ... because the row cannot be decided */
	/* of a return that counts: what it takes from which order */
	const char *original;		/* canonical key; NULL: nothing */
	Numeric		returned;
	Numeric		returned_quantity;	/* NULL: none */
	bool		has_row;		/* that says what it replaces, or that it does not */
	const char *replaces;		/* canonical key; NULL: nothing */
	int			flags;			/* ORDER_... */
	char		phase;
	int32		generation;
	TimestampTz first_seen;
	TimestampTz order_time;
	bool		has_confirmed_at;
	TimestampTz confirmed_at;
	const char *member;			/* NULL: no wishes */
	CurrencyInfo currency;
	int			nwishes;
	Wish	   *wishes;
	/* of a failed one */
	int			sqlerrcode;
	const char *error;
	const char *error_detail;
} Decision;

/* Longest key and member, in bytes: an index row has a limit */
#define MAX_KEY_LENGTH 2000

/* Begins the stand-in of a key that is too long to be kept */
#define LONG_KEY_PREFIX "(too long) "

/*
 * image.c: read a row; never raises unless an expression does.  "key" is its
 * canonical key, which costs something to form, where the caller has it already.
 */
extern void image_read(Store *store, Source *source, TupleTableSlot *slot, const char *key,
					   OrderImage *image);
extern void image_read_row(Store *store, Source *source, TupleTableSlot *slot, const char *key,
						   OrderImage *image);
extern bool image_is_of(Store *store, Source *source, TupleTableSlot *slot, const char *member);
extern bool image_is_old(Source *source, TupleTableSlot *slot);
extern char *image_key(Source *source, TupleTableSlot *slot);

/* Only what tells which order it is about, and in which currency */
extern void image_read_link(Store *store, Source *source, TupleTableSlot *slot, OrderImage *image);

/* facts.c: read the rows of an order under a snapshot */
extern void facts_read(Store *store, Relation accrual, int32 source_id, const char *key,
					   Snapshot snapshot, OrderFacts *facts);

/*
 * facts_batch.c: the same for many orders, which are sorted by key.  Returns false
 * if two of them have one key.
 */
typedef struct OrderWanted
{
	const char *key;
	OrderFacts *facts;
} OrderWanted;

extern bool facts_read_many(Store *store, Relation accrual, int32 source_id, OrderWanted *wanted,
							int n, Snapshot snapshot);

/* What reading consists of: row after row, and what is recorded elsewhere */
extern void facts_add_row(OrderFacts *facts, Relation accrual, HeapTuple tuple);
extern void facts_complete(Store *store, int32 source_id, const char *key, Snapshot snapshot,
						   OrderFacts *facts);

/*
 * Which of n orders, in the order of their keys, have rows there; sets known[] for
 * those.
 */
extern void facts_probe(Store *store, int32 source_id, const char **keys, int n, bool *known);

/*
 * Lock the row with this key until the end of the transaction, so that nobody
 * changes it meanwhile; without waiting.
 */
typedef enum RowLock
{
	ROW_LOCKED,
	ROW_GONE,
	ROW_BUSY					/* somebody is changing it */
} RowLock;

extern RowLock facts_lock_row(Source *source, Relation rel, const char *key);

/* The same, waiting for whoever is changing it */
extern RowLock facts_wait_row(Source *source, Relation rel, const char *key);
extern bool facts_fetch_row(Source *source, Relation rel, const char *key, Snapshot snapshot,
							TupleTableSlot *slot);
extern bool facts_fetch_past_row(Source *source, Relation rel, const char *key,
								 Snapshot snapshot, TupleTableSlot *slot);

/* What other rows say of an order, and what is known of the order that it returns */
typedef enum OriginalState
{
	ORIGINAL_UNKNOWN,			/* nobody has looked */
	ORIGINAL_MISSING,			/* it is not there, and the return waits */
	ORIGINAL_THERE,
	ORIGINAL_IS_RETURN,
	ORIGINAL_OTHER_CURRENCY
} OriginalState;

/* A live order that was split from the same one as others */
typedef struct GroupMember
{
	const char *key;
	OrderImage	image;			/* as far as rules are judged by it */
} GroupMember;

/* Those of a group that count together: of one currency, with amounts of one sign */
typedef struct OrderPeers
{
	MemoryContext context;		/* they live in */
	CurrencyInfo *currency;
	int			sign;
	int			n;
	int			allocated;
	GroupMember *members;		/* in the order of their keys */
	List	   *views;			/* what rules give them, see decide_group.c */
} OrderPeers;

typedef struct OrderLinks
{
	bool		judged;			/* false: nobody has looked */
	Numeric		returned;		/* by other rows; NULL: nothing */
	Numeric		returned_quantity;
	OriginalState original;
	/* of an order that was split from another one, or that others were split from */
	bool		cycle;			/* it was split from itself */
	OrderPeers *peers;			/* itself among them; NULL: it is alone */
	const char *root;			/* NULL: it is the root itself */
	bool		root_known;		/* and these are its facts: */
	int32		generation;
	TimestampTz first_seen;
	bool		root_before;
} OrderLinks;

/* decide.c: image NULL: the row is gone */
typedef struct DecideContext
{
	Store	   *store;
	Source	   *source;
	TimestampTz now;			/* of the transaction */
	int32		generation;		/* for an order not seen before */
	bool		old_order;		/* an unseen order is older than the attachment */
	bool		known_new;		/* its first evaluation said that it is not */
	bool		archived;		/* the row left with on_delete = keep */
	bool		any_backdate;	/* attach itself reads old rows */
	OrderLinks	links;
} DecideContext;

extern Decision *decide(DecideContext *context, OrderImage *image, OrderFacts *facts);

/* Make a decision that of an order that is settled (ORDER_IS_SETTLED) */
extern void decide_settled(const OrderFacts *facts, Decision *d);

/* What freezes that are recorded make of a decision */
extern void decide_frozen(const OrderFacts *facts, Decision *d);

/*
 * The moment up to which the clock confirms and gives up what is decided; before
 * all moments while it is not the clock that has it decided.
 */
extern TimestampTz decide_clock;

/* A moment plus an interval in the programme's zone, back to an instant */
extern TimestampTz decide_local_plus(Store *store, TimestampTz moment, Interval *span);

/* Deep copy into the current context */
extern Decision *copy_decision(const Decision *d);

/* A line for explain(): one rule looked at, with its outcome */
typedef void (*DecideTrace) (void *arg, int32 rule_id, int32 version, const char *outcome,
							 Numeric amount, const char *detail);
extern DecideTrace decide_trace;
extern void *decide_trace_arg;

#endif							/* REBATE_ORDER_H */
