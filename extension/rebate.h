/*
 * rebate.h
 *	  What every module of rebate shares: SQLSTATEs, small enums, settings.
 *
 * Data flows one way: collect (trigger) -> image (row) -> decide (rules) ->
 * post (ledger).  Everything else reads.
 */
#ifndef REBATE_H
#define REBATE_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "compat.h"

/* SQLSTATE class RB; causes and remedies are in docs/reference.md */
#define ERRCODE_RB_NO_STORE				MAKE_SQLSTATE('R', 'B', '0', '0', '1')
#define ERRCODE_RB_NOT_ATTACHED			MAKE_SQLSTATE('R', 'B', '0', '0', '2')
#define ERRCODE_RB_INVALID_MAPPING		MAKE_SQLSTATE('R', 'B', '0', '0', '3')
#define ERRCODE_RB_FORBIDDEN_EXPRESSION	MAKE_SQLSTATE('R', 'B', '0', '0', '4')
#define ERRCODE_RB_ATTACHED_OTHERWISE	MAKE_SQLSTATE('R', 'B', '0', '0', '5')
#define ERRCODE_RB_TABLE_BUSY			MAKE_SQLSTATE('R', 'B', '0', '0', '6')
#define ERRCODE_RB_INVALID_RULE			MAKE_SQLSTATE('R', 'B', '0', '0', '7')
#define ERRCODE_RB_TRUNCATE_REFUSED		MAKE_SQLSTATE('R', 'B', '0', '0', '8')
#define ERRCODE_RB_STORE_GUARDED		MAKE_SQLSTATE('R', 'B', '0', '0', '9')
#define ERRCODE_RB_ORDER_FAILED			MAKE_SQLSTATE('R', 'B', '0', '1', '0')
#define ERRCODE_RB_STORE_DAMAGED		MAKE_SQLSTATE('R', 'B', '0', '1', '1')
#define ERRCODE_RB_AMBIGUOUS_REKEY		MAKE_SQLSTATE('R', 'B', '0', '1', '2')
#define ERRCODE_RB_CURSOR_REFUSED		MAKE_SQLSTATE('R', 'B', '0', '1', '3')
#define ERRCODE_RB_NOT_ON_STANDBY		MAKE_SQLSTATE('R', 'B', '0', '1', '4')
#define ERRCODE_RB_OTHER_VERSION		MAKE_SQLSTATE('R', 'B', '0', '1', '5')
#define ERRCODE_RB_ARCHIVED				MAKE_SQLSTATE('R', 'B', '0', '1', '6')
#define ERRCODE_RB_APPROVAL				MAKE_SQLSTATE('R', 'B', '0', '1', '7')
#define ERRCODE_RB_ERASURE_REFUSED		MAKE_SQLSTATE('R', 'B', '0', '1', '8')

/* Where an order stands for us */
typedef enum Phase
{
	PHASE_TRACKED = 't',
	PHASE_PENDING = 'p',
	PHASE_CONFIRMED = 'c',
	PHASE_VOID = 'v'
} Phase;

/* The buckets of an account, in the order of its columns */
typedef enum Bucket
{
	BUCKET_TRACKED,
	BUCKET_PENDING,
	BUCKET_MATURING,
	BUCKET_AVAILABLE,
	BUCKET_HELD
} Bucket;

#define NUM_BUCKETS 5
#define BUCKET_NONE '-'			/* accrual.bucket of money that is nowhere */

/* ledger_account_id of a bucket, and of the memo account beside "tracked" */
#define LEDGER_BUCKET(b)	((int32) (b) + 1)
#define LEDGER_MEMO			10

/* The house account that takes what erased members had */
#define LEDGER_WRITE_OFF	20

/* Kinds of entries */
#define ENTRY_ACCRUE	'a'
#define ENTRY_REVERSE	'r'
#define ENTRY_MOVE		'm'
#define ENTRY_WRITE_OFF	'w'		/* to or from LEDGER_WRITE_OFF, as its member was erased */

/* Flags of an order, kept in its rows of rebate_data.accrual */
#define ORDER_BEFORE_ATTACHMENT	0x0001	/* a fact: never accrues */
#define ORDER_FAILED			0x0002	/* set aside, see rebate.failures */
#define ORDER_GUEST				0x0004	/* no member */
#define ORDER_ARCHIVED			0x0008	/* its row left with on_delete = keep */
#define ORDER_NO_RULE			0x0010	/* no rule pays */
#define ORDER_DELETED			0x0020	/* its row is gone */
#define ORDER_OVER_REFUNDED		0x0040	/* refunded more than its amount */
#define ORDER_UNPHASED_RETURN	0x0080	/* negative row that is not pending yet */
#define ORDER_TOO_OLD			0x0100	/* its time was moved before "since" */
#define ORDER_RETURN			0x0200	/* a return of another order */
#define ORDER_FROZEN			0x0400	/* a fact: freezes of it are recorded, ended or not */
#define ORDER_AUTO_CONFIRMED	0x0800	/* a fact: the clock confirmed it while it was pending */
#define ORDER_GIVEN_UP			0x1000	/* by the clock, until its phase changes */
#define ORDER_REVIVED			0x2000	/* a fact: it was given up, and is not again */
#define ORDER_ERASED			0x4000	/* its member is erased */

/*
 * A fact: what is posted of it stays for good, since its member was erased when
 * it was his.
 */
#define ORDER_SETTLED			(ORDER_ERASED | ORDER_ARCHIVED)
#define ORDER_IS_SETTLED(flags)	(((flags) & ORDER_SETTLED) == ORDER_SETTLED)

/* Settings */
typedef enum PostingMoment
{
	POSTING_COMMIT,
	POSTING_STATEMENT
} PostingMoment;

typedef enum RebateMode
{
	MODE_ON,
	MODE_DEFER,
	MODE_OFF
} RebateMode;

extern int	rebate_posting;
extern int	rebate_mode;
extern int	rebate_collect_limit;

#endif							/* REBATE_H */
