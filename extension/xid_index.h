/*
 * xid_index.h
 *	  The way to entries by transaction id, which costs the writer next to nothing.
 */
#ifndef REBATE_XID_INDEX_H
#define REBATE_XID_INDEX_H

#include "rebate.h"

/*
 * Summarise the ranges of pages that have become full.  Takes no lock that is
 * not free, and does a bounded piece of work; runs in a transaction of its own.
 */
extern void xid_index_keep_up(void);

#endif							/* REBATE_XID_INDEX_H */
