/*
 * reconcile.h
 *	  Orders that no trigger decided.
 */
#ifndef REBATE_RECONCILE_H
#define REBATE_RECONCILE_H

#include "rebate.h"
#include "nodes/pg_list.h"
#include "source.h"

/*
 * At attachment, with the table locked against writes: decide the existing rows
 * from the source's "since" on, or (record_all_existing) record all of them as
 * older than the attachment.  "again": orders that were recorded before are
 * decided again.  Returns the number of rows looked at.
 */
extern int64 reconcile_attach(Oid relid, bool record_all_existing, bool again);

/* Keys that are decided in one posting: what the collection holds */
#define RECONCILE_BATCH 16384

/* What became of orders that were decided again */
typedef struct Reconciled
{
	int64		ndecided;
	int64		nfailed;		/* of these, set aside */
	int64		nbusy;			/* left alone: others are changing them */
} Reconciled;

/*
 * Decide orders again from their rows as they are now, and post the difference.
 * Keys whose UPDATE was ambiguous are left as they are unless "named".
 */
extern void reconcile_keys(Store *store, Source *source, List *keys, bool named,
						   Reconciled *result);

/* A key as rebate.accruals.order_key has it, or as a person writes it */
extern char *reconcile_key(Source *source, const char *text);

/* Raise unless the mapping of a source fits its table */
extern void reconcile_check_source(Source *source);

#endif							/* REBATE_RECONCILE_H */
