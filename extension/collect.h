/*
 * collect.h
 *	  The orders that the current transaction has touched and not yet posted.
 */
#ifndef REBATE_COLLECT_H
#define REBATE_COLLECT_H

#include "rebate.h"
#include "order.h"

/*
 * Post what this transaction has collected; returns the number of orders.
 * Afterwards its own postings are visible to it.
 */
extern int64 collect_flush(void);

/* How rows came to the engine */
typedef enum CollectEvent
{
	COLLECT_INSERT,
	COLLECT_UPDATE,
	COLLECT_DELETE
} CollectEvent;

/* Rows of one statement on their way into the collection */
typedef struct CollectBatch CollectBatch;

/* Next row into the batch's slot; false at the end */
typedef bool (*CollectNext) (CollectBatch *batch);

struct CollectBatch
{
	Store	   *store;
	Source	   *source;
	CollectEvent event;
	bool		archived;		/* the rows leave, and their money stays */
	bool		any_backdate;
	bool		all_old;		/* unseen rows are older than the attachment */
	bool		only_unseen;	/* rows that have a decision are passed over */
	bool		only_known;		/* rows that have none are */
	bool		skip_old;		/* rows before the attachment leave no trace */
	bool		keys_changed;	/* the statement has touched orders already */
	bool		assume_new;		/* one new row: posting will find out if it is known */
	bool		many;			/* rows that need not come in this order, more than are held */
	CollectNext next;
	void	   *next_arg;
	TupleTableSlot *slot;
	/* set by collect_rows() */
	bool		touched_before; /* orders wait, or waited, that the batch may meet */
	bool		all_touched;	/* by earlier statements of the transaction */
	struct Bulk *bulk;			/* new orders go there; or NULL */
	Relation	accrual;		/* NULL with assume_new or bulk */
	Snapshot	snapshot;
	int32		generation;
	int64		ncollected;
	int64		nfailed;
	const char *first_key;		/* of the failed */
	const char *first_error;
};

/* Decide the rows of a batch and collect them; emits the statement's WARNING */
extern void collect_rows(CollectBatch *batch);

/* The same for all rows of the source's table, or of a partition of it */
extern void collect_table(CollectBatch *batch, Relation rel);

/*
 * Orders that a person has decided again, whatever rebate.mode says: what fails
 * is set aside and counted, also with on_error = abort, and without a WARNING.
 */
typedef struct CollectRun
{
	int64		nfailed;
} CollectRun;

extern CollectRun *collect_run;

/*
 * An order to be decided again in such a run.  An order not seen before came
 * while nobody looked.
 */
extern void collect_again(Store *store, Source *source, const char *key, bool archived);

/* A trigger fires: failures of this firing stand although it touches their rows */
extern void collect_firing(void);

/* Whether an order has facts of its own and is not older than the attachment */
extern bool collect_knows(Store *store, Source *source, const char *key);

/* An order whose row left or came back under its own key: its row decides */
extern void collect_touch(Store *store, Source *source, const char *key);

/* An UPDATE took an order to another key */
extern void collect_rekey(Store *store, Source *source, const char *oldkey, const char *newkey);

/* An order that cannot be decided because of its statement */
extern void collect_failure(Store *store, Source *source, const char *key, int sqlerrcode,
							const char *error, const char *detail);

/* Raise for a row under on_error = abort */
extern void collect_abort_on(Source *source, const char *key, int sqlerrcode,
							 const char *error, const char *detail);

/* Callbacks of transaction and subtransaction, from rebate.c */
extern void collect_pre_commit(void);
extern void collect_at_xact_end(void);
extern void collect_at_subcommit(SubTransactionId my, SubTransactionId parent);
extern void collect_at_subabort(SubTransactionId my);

/* Whether nothing waits to be posted */
extern bool collect_is_empty(void);

#endif							/* REBATE_COLLECT_H */
