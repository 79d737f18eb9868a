/*
 * store.h
 *	  The tables of schema rebate_data as the engine reads and writes them.
 */
#ifndef REBATE_STORE_H
#define REBATE_STORE_H

#include "rebate.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "pgtime.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#define STORE_SCHEMA	"rebate_data"

/*
 * The version of the tables that this library makes; it can use all before it.
 * A step to the next version may add tables, and columns to tables other than
 * account, accrual and entry; anything else raises compatible_with, too.
 */
#define STORE_VERSION	2

#define IDS_PER_CALL	64		/* increment of rebate_data.id */

#define FORMER_KEY_LENGTH	32	/* bytes of the secret of former keys */

/* The tables of the store, and the indexes that are reached without SPI; store_shape.c has more of them */
typedef enum StoreTable
{
	ST_ACCOUNT,
	ST_ACCRUAL,
	ST_ENTRY,
	ST_WAITING,
	ST_RULE_SCOPE,
	ST_RULE_VERSION,
	ST_GENERATION,
	ST_SOURCE,
	ST_SCOPE,
	ST_CURRENCY,
	ST_CHANNEL,
	ST_DEFERRED,
	ST_LINK,
	ST_FREEZE,
	ST_STORE,
	ST_PROGRAMME,
	ST_EPOCH,
	NUM_EARLY_TABLES,			/* those above are looked up with the store */
	ST_RULE = NUM_EARLY_TABLES,
	ST_RULE_GROUP,
	ST_CAMPAIGN,
	ST_LEDGER_ACCOUNT,
	ST_HOUSE_ENTRY,
	ST_HOUSE_BALANCE,
	ST_FOLD,
	ST_FAILURE,
	ST_ALLOWED_FUNCTION,
	ST_JOB,
	ST_FINDING,
	/* of version 2 */
	ST_LOGIN,
	ST_GRANTED_RIGHT,
	ST_DRAFT,
	ST_RULE_CONTROL,
	ST_FORMER_MEMBER,
	ST_FORMER_SECRET,
	ST_ERASURE,
	ST_ERASURE_REQUEST,
	ST_ENTRY_ARCHIVE,
	ST_BOUNDARY,
	ST_ARCHIVE,
	ST_CARRIED,
	ST_CARRIED_HOUSE,
	ST_DROPPED,
	ST_CHECKPOINT,
	/* the view comes after the tables, so that one of them is named first */
	ST_LEDGER,
	NUM_STORE_TABLES
} StoreTable;

typedef enum StoreIndex
{
	SI_ACCOUNT_ID,
	SI_ACCOUNT_MEMBER,
	SI_ACCRUAL_ORDER,
	SI_ACCRUAL_SEQ,
	SI_ACCRUAL_XID,
	SI_ENTRY,
	SI_ENTRY_XID,
	SI_WAITING,
	SI_RULE_SCOPE,
	SI_RULE_VERSION,
	SI_GENERATION,
	SI_SOURCE,
	SI_SOURCE_RELATION,
	SI_CURRENCY,
	SI_DEFERRED,
	SI_LINK,
	SI_LINK_TARGET,
	SI_FREEZE,
	SI_RULE,
	SI_LOGIN,
	SI_FORMER_MEMBER,
	SI_ENTRY_ARCHIVE,
	SI_BOUNDARY,
	SI_CARRIED,
	NUM_STORE_INDEXES
} StoreIndex;

typedef struct CurrencyInfo
{
	char		code[32];		/* hash key, zero padded */
	int			scale;
} CurrencyInfo;

/* What this backend knows of the store; valid until its catalog entries change */
typedef struct Store
{
	Oid			owner;
	int32		version;
	int32		compatible_with;	/* a library must know this version */
	Oid			tables[NUM_STORE_TABLES];	/* late ones: invalid until needed */
	Oid			indexes[NUM_STORE_INDEXES];
	Oid			id_sequence;
	int32		epoch;
	bool		epoch_current;	/* false: opened elsewhere, before a restore */
	char		time_zone[64];	/* of the programme */
	pg_tz	   *zone;			/* the same */
	bool		maybe_deferred; /* orders may wait for reconcile() */
	bool		sandbox;		/* rebate.reset() may empty it */
	bool		maybe_former;	/* members may have had other keys, or be erased */
	bool		has_former_key;
	uint8		former_key[FORMER_KEY_LENGTH];	/* of their hashes */
} Store;

/*
 * The store, or NULL if there is none, or an empty one, and missing_ok.  Raises
 * RB001 if it has no guard of ours, RB011 if it is not as create_store() made it.
 */
extern Store *store_get(bool missing_ok);

/* Is it guarded, with all tables and indexes?  While it is being restored some are not there. */
extern bool store_is_whole(void);

/* After store_get() found none: is it there, and without any rows? */
extern bool store_is_empty(void);

/* Open a new epoch if the store is not where the last entry was written */
extern void store_ensure_epoch(Store *store);

/* Raise RB015 for what needs a later version of the store */
extern void store_require(Store *store, int32 version, const char *feature);

/* Raise unless the current user is a superuser or a member of the owner */
extern void store_check_user(Store *store, const char *function);

/*
 * Open a table of the store and see that it is still as it was found.  Whoever
 * reads or writes one without SPI opens it so.
 */
extern Relation store_open(Store *store, StoreTable which, LOCKMODE lockmode);

/* Next id of rebate_data.id */
extern int64 store_next_id(Store *store);

/*
 * A row of the store from its first n columns, and back.  Behind them a table may
 * have columns that were dropped, or that we do not know, which are NULL then.
 */
extern HeapTuple store_form_row(TupleDesc desc, const Datum *values, const bool *nulls, int n);
extern void store_deform_row(HeapTuple tuple, TupleDesc desc, Datum *values, bool *nulls, int n);

/* Currency by code, NULL if unknown; forgotten when the table changes */
extern CurrencyInfo *store_currency(Store *store, const char *code);

/*
 * Run SPI as the store's owner, with names resolved in pg_catalog only and the
 * guards of the store lifted, reading the newest committed data:
 *
 *		store_spi_begin(store, &scope);
 *		... SPI_execute_with_args() ...
 *		store_spi_end(&scope);
 */
typedef struct StoreSpi
{
	Oid			save_userid;
	int			save_sec_context;
	int			guc_nestlevel;
	bool		save_writing;
} StoreSpi;

extern void store_spi_begin(Store *store, StoreSpi *scope);
extern void store_spi_end(StoreSpi *scope);

/* True while the engine itself writes; the guard triggers ask */
extern bool store_writing(void);

/* After a write of rules, sources, currencies, programme: other backends forget */
extern void store_rules_changed(Store *store);

/* Believe nothing that was read before: for the audit */
extern void store_forget(void);

/* Invalidation counters: bumped by callbacks, compared by the caches */
extern uint64 store_epoch_of_rules(void);

/* Set-up in _PG_init */
extern void store_init(void);

/* Abort of a (sub)transaction: nothing of it may survive in caches */
extern void store_at_abort(void);

#endif							/* REBATE_STORE_H */
