/*
 * round.h
 *	  What the publisher announces with its next notification.
 */
#ifndef REBATE_ROUND_H
#define REBATE_ROUND_H

#include "rebate.h"
#include "store.h"
#include "utils/uuid.h"

/* Accounts in one round; what is more waits for the next */
#define MAX_ROUND	4096

/* Once, with memory that lives as long as the process */
extern void round_init(MemoryContext memory);

/* Entries first to last of an account are to be announced, if they are news. */
extern void round_add(int64 account_id, const pg_uuid_t *handle, int64 first, int64 last);

/* Whether entries first to last of an account are announced, or in the round */
extern bool round_knows(int64 account_id, int64 first, int64 last);

extern int	round_accounts(void);

/* Notify of what is in the round, in a transaction; returns how many entries */
extern int64 round_send(Store *store);

/* The round is over: was sent, or will never be. */
extern void round_end(void);

/* Forget what was announced */
extern void round_reset(void);

#endif							/* REBATE_ROUND_H */
