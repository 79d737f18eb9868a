/*
 * audit_pass.c
 *	  May anything be wrong with the ledger?  One pass over its rows.
 *
 * The rows are read as they lie on disk.  An entry that follows the last one of
 * its account, as nearly all do, is checked at once; the others are sorted first.
 * What must be equal in two places without an order of its own (a rebate and the
 * sum of its entries, what waits for the clock) is compared by sums of hashes
 * whose seed is drawn for each audit: equal if all is well, and different
 * but for one chance in 2^48 or less if it is not.  Where entries were dropped the
 * sums go on from what is carried forward of them, whose seed is fixed.
 *
 * Any doubt is enough: the pass does not tell what is wrong.  It leaves to others
 * what one row alone cannot show (frozen orders, erased members).
 *
 * Accounts are kept in memory.  Where they do not fit into maintenance_work_mem,
 * the rows are read several times, each time for a part of the accounts.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"

#include "archive.h"
#include "audit_folded.h"
#include "audit_names.h"
#include "audit_parts.h"
#include "audit_pass.h"
#include "ledger_rows.h"
#include "order.h"

/* Of a sequence that is sorted; it shares a number of 63 bits with the account's place */
#define SEQ_BITS	33
#define MAX_PLACES	(UINT64CONST(1) << (63 - SEQ_BITS))

/* An account as its entries tell it, up to the last one that was checked */
typedef struct PassAccount
{
	int64		account_id;
	uint32		hash;
	char		status;
	int16		currency;		/* place in the list; -1: unknown */
	int64		last_seq;
	int64		check;
	TimestampTz posted_at;
	int64		balance[NUM_BUCKETS];
	int64		carried_seq;	/* entries up to this one were dropped, but for openings */
	uint64		opened;			/* hashes of those, less what is carried: zero in the end */
} PassAccount;

#define SH_PREFIX account
#define SH_ELEMENT_TYPE PassAccount
#define SH_KEY_TYPE int64
#define SH_KEY account_id
#define SH_HASH_KEY(tb, k) hash_bytes_uint32((uint32) (k) ^ (uint32) ((k) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

typedef struct LedgerPass
{
	Store	   *store;
	Snapshot	snapshot;
	LedgerDoubt doubt;
	LedgerNames names;			/* what accounts and entries may name */
	FoldedSums	folded;			/* of all ledger accounts; in a store of version 1 of house accounts */
	/* part of the accounts at hand, of so many */
	uint32		part;
	uint32		nparts;
	account_hash *accounts;
	OrderParts *orders;			/* orders of several rows */
	Tuplesortstate *sort;		/* of entries that came before their turn; NULL: none */
	TupleDesc	desc;			/* of what is sorted */
	TupleTableSlot *slot;
	/* compared in the end */
	DigestKey	key;
	LedgerDigest digest;		/* of rebates less their entries */
	uint64		waiting;		/* of rebates that wait less rows of table waiting */
	int64		greatest_id;
	int64		nentries;
} LedgerPass;

/*----------------------------------------------------------------------------
 * Small tables
 *----------------------------------------------------------------------------
 */

static inline bool
has_checkpoint(const LedgerPass *pass)
{
	return pass->store->version >= 2;
}

static void
read_small_tables(LedgerPass *pass)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;

	PushActiveSnapshot(pass->snapshot);
	store_spi_begin(pass->store, &scope);
	names_read(&pass->names, context);
	if (has_checkpoint(pass) ?
		!folded_read(&pass->folded, &pass->names, context, "checkpoint", "checkpoint_epoch",
					 "checkpoint_xid") :
		!folded_read(&pass->folded, &pass->names, context, "house_balance", "epoch", "xid"))
		pass->doubt.any = true;
	if (archive_exists(pass->store))
	{
		/* sums over dropped entries can be continued with their own key only */
		if (names_query("SELECT FROM rebate_data.carried LIMIT 1") > 0)
			pass->key = kept_digest_key;
		folded_take(&pass->folded, &pass->names, "carried_house");
	}
	pass->doubt.frozen = names_query("SELECT FROM rebate_data.freeze LIMIT 1") > 0;
	store_spi_end(&scope);
	PopActiveSnapshot();
}

/* A sequence that was lost in a restore would give numbers out twice. */
static void
check_sequence(LedgerPass *pass)
{
	StoreSpi	scope;

	PushActiveSnapshot(pass->snapshot);
	store_spi_begin(pass->store, &scope);
	if (names_query("SELECT last_value + 64 FROM rebate_data.id") != 1 ||
		pass->greatest_id >= DatumGetInt64(names_value(0, 1)))
		pass->doubt.any = true;
	store_spi_end(&scope);
	PopActiveSnapshot();
}

/*----------------------------------------------------------------------------
 * Accounts
 *----------------------------------------------------------------------------
 */

static inline bool
is_of_part(LedgerPass *pass, int64 account_id)
{
	return pass->nparts == 1 ||
		murmurhash32((uint32) account_id ^ (uint32) (account_id >> 32)) % pass->nparts == pass->part;
}

/*
 * Make the accounts of the part; false if those of the first do not fit into
 * memory, then it must be a smaller one.  The others are about as many.
 */
static bool
load_accounts(LedgerPass *pass)
{
	Relation	rel = store_open(pass->store, ST_ACCOUNT, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan_strat(rel, pass->snapshot, 0, NULL, true, false);
	/* the table is grown when it is nine tenths full, and copied then */
	uint64		limit = Min((uint64) maintenance_work_mem * 1024 / (3 * sizeof(PassAccount)), MAX_PLACES / 2);
	bool		fits = true;

	pass->accounts = account_create(CurrentMemoryContext, 1024, NULL);
	while (fits && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);
		int64		id = ((Form_account) GETSTRUCT(tuple))->account_id;
		PassAccount *account;
		char	   *currency;
		bool		isnull;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (!is_of_part(pass, id))
			continue;
		account = account_insert(pass->accounts, id, &found);
		if (found)
			pass->doubt.any = true;
		currency = TextDatumGetCString(slot_getattr(slot, AC_CURRENCY, &isnull));
		account->currency = names_currency(&pass->names, currency);
		pfree(currency);
		account->last_seq = account->check = 0;
		account->posted_at = PG_INT64_MIN;
		memset(account->balance, 0, sizeof(account->balance));
		account->carried_seq = 0;
		account->opened = 0;
		pass->greatest_id = Max(pass->greatest_id, id);
		if (account->currency < 0)
			pass->doubt.any = true;
		fits = pass->part > 0 || pass->accounts->members <= limit;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	if (!fits)
		account_destroy(pass->accounts);
	return fits;
}

/* The accounts of the part whose oldest entries were dropped begin with what is carried forward. */
static void
load_carried(LedgerPass *pass)
{
	Relation	rel;
	TupleTableSlot *slot;
	TableScanDesc scan;

	if (!archive_exists(pass->store))
		return;
	rel = store_open(pass->store, ST_CARRIED, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan_strat(rel, pass->snapshot, 0, NULL, true, false);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		int64		id;
		Carried		carried;
		PassAccount *account;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		carried = archive_carried_row(slot, &id);
		if (!is_of_part(pass, id))
			continue;
		account = account_lookup(pass->accounts, id);
		if (account == NULL)
		{
			pass->doubt.any = true;
			continue;
		}
		account->last_seq = account->carried_seq = carried.seq;
		account->check = carried.check;
		account->posted_at = carried.posted_at;
		memcpy(account->balance, carried.balance, sizeof(account->balance));
		account->opened = -carried.opened;
		pass->digest.high -= carried.digest.high;
		pass->digest.low -= carried.digest.low;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/*
 * Does each account say what its entries say?  What the accounts of a currency have
 * together was folded, or came since.
 */
static void
compare_accounts(LedgerPass *pass)
{
	Relation	rel = store_open(pass->store, ST_ACCOUNT, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan_strat(rel, pass->snapshot, 0, NULL, true, false);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Form_account row = (Form_account) GETSTRUCT(ExecFetchSlotHeapTuple(slot, false, NULL));
		PassAccount *account;

		CHECK_FOR_INTERRUPTS();
		if (!is_of_part(pass, row->account_id))
			continue;
		if (row->status == ACCOUNT_ERASED)
			pass->doubt.erased = true;
		account = account_lookup(pass->accounts, row->account_id);
		if (account == NULL || account->last_seq != row->last_entry ||
			account->check != row->last_check || account->opened != 0 ||
			memcmp(account->balance, row->balance, sizeof(account->balance)) != 0)
			pass->doubt.any = true;
		else if (has_checkpoint(pass))
			for (int b = 0; b < NUM_BUCKETS; b++)
				folded_meet(&pass->folded, LEDGER_BUCKET(b), account->currency,
							-row->balance[b]);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/* Take an account through its next entry; false if the entry is not as it should be. */
static bool
apply_entry(PassAccount *account, const LedgerEntry *entry)
{
	const EntryFields *e = &entry->fields;

	if (e->amount <= 0 || e->debit == e->credit || e->posted_at < account->posted_at)
		return false;
	account->last_seq = e->seq;
	account->posted_at = e->posted_at;
	account->check = entry_check(account->check, e);
	ledger_move(account->balance, e);
	for (int b = 0; b < NUM_BUCKETS; b++)
		if (account->balance[b] != entry->balance[b] ||
			(account->balance[b] < 0 && b != BUCKET_AVAILABLE))
			return false;
	return account->check == entry->check;
}

/*
 * Keep an entry that came before its turn.  The sort has one key, the account's
 * place in the table and the sequence, so that it compares numbers only.
 */
static void
keep_entry(LedgerPass *pass, const PassAccount *account, const LedgerEntry *entry)
{
	AttrNumber	attno = 1;
	Oid			operator = Int8LessOperator;
	Oid			collation = InvalidOid;
	bool		nulls_first = false;
	uint64		place = account - pass->accounts->data;
	union
	{
		bytea		value;
		char		bytes[VARHDRSZ + sizeof(LedgerEntry)];
	}			packed;

	if (entry->fields.seq < 0 || entry->fields.seq >> SEQ_BITS != 0 || place >= MAX_PLACES)
	{
		pass->doubt.any = true;
		return;
	}
	if (pass->sort == NULL)
		pass->sort = tuplesort_begin_heap(pass->desc, 1, &attno, &operator, &collation,
										  &nulls_first, maintenance_work_mem, NULL, TUPLESORT_NONE);
	SET_VARSIZE(&packed.value, sizeof(packed.bytes));
	memcpy(VARDATA(&packed.value), entry, sizeof(LedgerEntry));
	ExecClearTuple(pass->slot);
	pass->slot->tts_values[0] = Int64GetDatum((int64) (place << SEQ_BITS) | entry->fields.seq);
	pass->slot->tts_values[1] = PointerGetDatum(&packed.value);
	memset(pass->slot->tts_isnull, false, sizeof(bool) * 2);
	ExecStoreVirtualTuple(pass->slot);
	tuplesort_puttupleslot(pass->sort, pass->slot);
}

/* Check the entries that came before their turn: now it is. */
static void
check_kept_entries(LedgerPass *pass)
{
	TupleTableSlot *sorted;

	if (pass->sort == NULL)
		return;
	sorted = MakeSingleTupleTableSlot(pass->desc, &TTSOpsMinimalTuple);
	tuplesort_performsort(pass->sort);
	while (!pass->doubt.any && tuplesort_gettupleslot(pass->sort, true, false, sorted, NULL))
	{
		bool		isnull;
		uint64		place;
		LedgerEntry entry;
		PassAccount *account;

		CHECK_FOR_INTERRUPTS();
		place = (uint64) DatumGetInt64(slot_getattr(sorted, 1, &isnull)) >> SEQ_BITS;
		memcpy(&entry, VARDATA_ANY(DatumGetPointer(slot_getattr(sorted, 2, &isnull))),
			   sizeof(LedgerEntry));
		account = &pass->accounts->data[place];
		if (entry.fields.seq != account->last_seq + 1 || !apply_entry(account, &entry))
			pass->doubt.any = true;
	}
	ExecDropSingleTupleTableSlot(sorted);
	tuplesort_end(pass->sort);
	pass->sort = NULL;
}

/*----------------------------------------------------------------------------
 * Rows
 *----------------------------------------------------------------------------
 */

static uint64
hash_waiting(LedgerPass *pass, int64 account_id, int64 seq, char bucket, TimestampTz due)
{
	int64		fields[4] = {account_id, seq, bucket, due};

	return hash_bytes_extended((const unsigned char *) fields, sizeof(fields), pass->key.seed);
}

/* What the row of a rebate or a decision says by itself */
static void
check_accrual(LedgerPass *pass, const LedgerRow *row)
{
	const FormData_accrual *x = row->accrual;
	bool		live = x->bucket >= '0' && x->bucket < '0' + NUM_BUCKETS;

	pass->greatest_id = Max(pass->greatest_id, x->accrual_id);
	pass->doubt.frozen |= (x->flags & ORDER_FROZEN) != 0;
	if ((x->rule_id != 0) != row->has_entry || !names_know(&pass->names.sources, x->source_id) ||
		(x->rule_id != 0 && !names_know_version(&pass->names, x->rule_id, x->version)) ||
		(x->rule_id != 0 && (live ? x->earned == 0 : x->bucket != BUCKET_NONE || x->earned != 0)) ||
		!parts_agree(pass->orders, x, row->order_key))
		pass->doubt.any = true;
	if (row->has_due && x->bucket >= '0' && x->bucket <= '0' + BUCKET_MATURING)
		pass->waiting += row->has_entry ?
			hash_waiting(pass, x->account_id, row->entry.fields.seq, x->bucket, row->due) : 1;
	else if (row->has_due && TIMESTAMP_IS_NOEND(row->due))
		pass->doubt.any = true;
}

static inline void
take_from_houses(FoldedSums *folded, const PassAccount *account, const EntryFields *e)
{
	if (e->debit >= LEDGER_MEMO)
		folded_meet(folded, e->debit, account->currency, e->amount);
	if (e->credit >= LEDGER_MEMO)
		folded_meet(folded, e->credit, account->currency, -e->amount);
}

/*
 * Take what an entry moved from what was folded.  Of the buckets the accounts'
 * balances are taken, in which the entries since the mark are, too, so those are
 * given back: they are fewer.
 */
static void
take_from_folded(LedgerPass *pass, const PassAccount *account, const EntryFields *e)
{
	if (folded_has(&pass->folded, e))
		take_from_houses(&pass->folded, account, e);
	else if (has_checkpoint(pass))
	{
		if (ledger_is_bucket(e->debit))
			folded_meet(&pass->folded, e->debit, account->currency, -e->amount);
		if (ledger_is_bucket(e->credit))
			folded_meet(&pass->folded, e->credit, account->currency, e->amount);
	}
}

static void
check_row(LedgerPass *pass, const LedgerRow *row)
{
	const FormData_accrual *x = row->accrual;
	const EntryFields *e = &row->entry.fields;
	uint64		value = 0;
	PassAccount *account;

	/* the first part of the accounts stands for all rows in what is not about accounts */
	if (x && pass->part == 0)
	{
		check_accrual(pass, row);
		if (x->rule_id != 0 && x->bucket >= '0' && x->bucket < '0' + NUM_BUCKETS)
			value = (uint64) x->earned * pass->key.weights[x->bucket - '0'];
	}
	if (!row->has_entry)
		return;
	if (pass->part == 0)
	{
		pass->nentries++;
		if (e->kind == ENTRY_WRITE_OFF || e->debit == LEDGER_WRITE_OFF || e->credit == LEDGER_WRITE_OFF)
			pass->doubt.erased = true;
		if ((e->kind != ENTRY_ACCRUE && e->kind != ENTRY_REVERSE && e->kind != ENTRY_MOVE &&
			 e->kind != ENTRY_WRITE_OFF) ||
			e->accrual_id == 0 || !names_know(&pass->names.ledger_accounts, e->debit) ||
			!names_know(&pass->names.ledger_accounts, e->credit))
			pass->doubt.any = true;
		value -= digest_movement(&pass->key, e);
		digest_add(&pass->digest, &pass->key, e->accrual_id, e->account_id, value);
	}
	if (!is_of_part(pass, e->account_id))
		return;
	account = account_lookup(pass->accounts, e->account_id);
	if (account == NULL)
	{
		pass->doubt.any = true;
		return;
	}
	take_from_folded(pass, account, e);
	if (e->seq <= account->carried_seq)
	{
		if (row->entry.opening)
			account->opened += (uint64) entry_check(0, e);
		else
			pass->doubt.any = true;
	}
	else if (e->seq != account->last_seq + 1)
		keep_entry(pass, account, &row->entry);
	else if (!apply_entry(account, &row->entry))
		pass->doubt.any = true;
}

/* The other side of what the rebates say that wait */
static void
subtract_waiting(LedgerPass *pass)
{
	Relation	rel = store_open(pass->store, ST_WAITING, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan_strat(rel, pass->snapshot, 0, NULL, true, false);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Form_waiting w = (Form_waiting) GETSTRUCT(ExecFetchSlotHeapTuple(slot, false, NULL));

		CHECK_FOR_INTERRUPTS();
		pass->waiting -= hash_waiting(pass, w->account_id, w->seq, w->bucket, w->due);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/* All rows, for the accounts of one part */
static void
check_part(LedgerPass *pass)
{
	LedgerRows *rows = ledger_rows_begin(pass->store, pass->snapshot);
	const LedgerRow *row;

	pass->orders = parts_begin(pass->store, pass->snapshot);
	while (!pass->doubt.any && (row = ledger_rows_next(rows)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		check_row(pass, row);
	}
	parts_end(pass->orders);
	ledger_rows_end(rows);
	check_kept_entries(pass);
	if (!pass->doubt.any)
		compare_accounts(pass);
	account_destroy(pass->accounts);
}

/* Do the sums agree? */
static void
compare_sums(LedgerPass *pass)
{
	subtract_waiting(pass);
	check_sequence(pass);
	if (pass->digest.low != 0 || pass->digest.high != 0 || pass->waiting != 0 ||
		!folded_agree(&pass->folded))
		pass->doubt.any = true;
}

static void
draw_seed(LedgerPass *pass)
{
	if (!pg_strong_random(&pass->key, sizeof(pass->key)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not draw a random number")));
	for (int b = 0; b < NUM_BUCKETS; b++)
		pass->key.weights[b] |= 1;
}

static void
make_sort_slot(LedgerPass *pass)
{
	TupleDesc	desc = CreateTemplateTupleDesc(2);

	TupleDescInitEntry(desc, 1, "place and seq", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 2, "entry", BYTEAOID, -1, 0);
	/* a copy is complete in all majors, without another call */
	pass->desc = CreateTupleDescCopy(desc);
	pass->slot = MakeSingleTupleTableSlot(pass->desc, &TTSOpsVirtual);
}

/*
 * Look at all rows of the ledger under "snapshot".  If nothing is in doubt, the
 * ledger is as the slow checks of the audit want it.
 */
LedgerDoubt
audit_pass(Store *store, Snapshot snapshot)
{
	LedgerPass	pass = {.store = store,.snapshot = snapshot,.nparts = 1};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate audit",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	TimestampTz begin = GetCurrentTimestamp();

	draw_seed(&pass);
	make_sort_slot(&pass);
	read_small_tables(&pass);
	for (; pass.part < pass.nparts && !pass.doubt.any; pass.part++)
	{
		while (!load_accounts(&pass))
			pass.nparts *= 2;
		load_carried(&pass);
		check_part(&pass);
	}
	if (!pass.doubt.any)
		compare_sums(&pass);
	ExecDropSingleTupleTableSlot(pass.slot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	ereport(DEBUG1,
			(errmsg_internal("audit of the ledger: " INT64_FORMAT " entries in %ld ms%s",
							 pass.nentries,
							 TimestampDifferenceMilliseconds(begin, GetCurrentTimestamp()),
							 pass.doubt.any ? ", in doubt" : "")));
	return pass.doubt;
}
