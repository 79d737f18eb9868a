/*
 * account_memo.h
 *	  Where accounts were found before.
 */
#ifndef REBATE_ACCOUNT_MEMO_H
#define REBATE_ACCOUNT_MEMO_H

#include "rebate.h"
#include "storage/buf.h"
#include "storage/itemptr.h"
#include "utils/rel.h"

/*
 * The buffer, pinned, that holds the place where an account with this hash was
 * found last, and the place in *tid; InvalidBuffer if there is none, or its page
 * has left the buffers.  Another account may be there now: the caller looks.
 */
extern Buffer account_memo_read(Relation account, uint32 hash, ItemPointer tid);

/* Remember a place in a page that is pinned */
extern void account_memo_keep(uint32 hash, ItemPointer tid, Buffer buffer);

#endif							/* REBATE_ACCOUNT_MEMO_H */
