/*
 * reconcile.h
 *	  Rows that no trigger saw.
 */
#ifndef REBATE_RECONCILE_H
#define REBATE_RECONCILE_H

#include "rebate.h"

/*
 * At attachment, with the table locked against writes: decide the existing rows
 * from the source's "since" on, or (record_all_existing) record all of them as
 * older than the attachment.  Returns the number of rows recorded.
 */
extern int64 reconcile_attach(Oid relid, bool record_all_existing);

#endif							/* REBATE_RECONCILE_H */
