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
 * older than the attachment.  "again": orders that were recorded before are
 * decided again.  Returns the number of rows looked at.
 */
extern int64 reconcile_attach(Oid relid, bool record_all_existing, bool again);

#endif							/* REBATE_RECONCILE_H */
