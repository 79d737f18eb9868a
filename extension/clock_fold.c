/*
 * clock_fold.c
 *	  The job that folds entries into balances of ledger accounts.
 *
 * The trial balance is what was folded and the entries since then.  Orders lock
 * nothing of it and wait for nothing here, and who reads it while a fold runs has
 * sums and mark of either before or after.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "api.h"
#include "clock.h"

/* Of which ledger accounts sums are kept, and where; each kind has its own mark */
typedef struct FoldKind
{
	const char *sums;			/* a table */
	const char *epoch;			/* columns of rebate_data.fold */
	const char *xid;
	int32		first;			/* the least ledger account */
} FoldKind;

/* In a store of version 1, house accounts only */
static const FoldKind of_version_1 = {"house_balance", "epoch", "xid", LEDGER_MEMO};
static const FoldKind of_version_2 = {"checkpoint", "checkpoint_epoch", "checkpoint_xid", LEDGER_BUCKET(0)};

/* Entries of earlier epochs, and those of this epoch by earlier transactions, are folded */
typedef struct FoldMark
{
	int32		epoch;
	int64		xid;
} FoldMark;

/* The mark that was reached, which nobody else moves until we have committed */
static FoldMark
lock_mark(const FoldKind *kind)
{
	FoldMark	mark;
	bool		isnull;

	if (sql_run(psprintf("SELECT %s, %s FROM rebate_data.fold FOR UPDATE", kind->epoch, kind->xid), NULL,
				SPI_OK_SELECT) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("table \"%s.fold\" must have one row", STORE_SCHEMA),
				 errhint("Restore the store from a backup.")));
	mark.epoch = sql_get_int(0, 1, 0);
	mark.xid = DatumGetInt64(sql_get(0, 2, &isnull));
	return mark;
}

/*
 * The oldest transaction that still runs: what earlier ones have posted is there,
 * and nothing comes to it.
 */
static FoldMark
next_mark(Store *store)
{
	FoldMark	mark = {store->epoch, 0};
	bool		isnull;

	/*
	 * After a restore, until something is posted here, transaction ids of the last
	 * epoch mean nothing, and all of them have ended.
	 */
	if (!store->epoch_current)
	{
		mark.epoch++;
		return mark;
	}
	(void) sql_run("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint", NULL, SPI_OK_SELECT);
	mark.xid = DatumGetInt64(sql_get(0, 1, &isnull));
	return mark;
}

static void
add_marks(SqlParams *params, FoldMark from, FoldMark upto)
{
	sql_int(params, from.epoch);
	sql_param(params, INT8OID, Int64GetDatum(from.xid), false);
	sql_int(params, upto.epoch);
	sql_param(params, INT8OID, Int64GetDatum(upto.xid), false);
}

/*
 * What the entries from one mark to the other moved: ledger account, currency and
 * sum, which is zero for a bucket that none moved.  A query by itself, so that a
 * large ledger is read by several processes.
 */
static SPITupleTable *
sum_entries(const FoldKind *kind, FoldMark from, FoldMark upto, uint64 *n)
{
	SqlParams	params = {0};

	add_marks(&params, from, upto);
	sql_int(&params, kind->first);
	*n = sql_run(psprintf("SELECT g.ledger_account_id, m.currency, sum(g.amount)"
						  "  FROM (SELECT e.debit, e.credit, a.currency, sum(e.amount) AS amount"
						  "          FROM rebate_data.ledger e"
						  "          JOIN rebate_data.account a ON a.account_id = e.account_id"
						  "         WHERE %s"
						  "         GROUP BY e.debit, e.credit, a.currency) m"
						  " CROSS JOIN LATERAL (VALUES (m.debit, m.amount), (m.credit, - m.amount),"
						  "                            (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)) g (ledger_account_id, amount)"
						  " WHERE g.ledger_account_id >= $5"
						  " GROUP BY g.ledger_account_id, m.currency",
						  from.epoch == upto.epoch ?
	/* the usual case, for which there is an index */
						  "e.epoch = $1 AND e.xid >= $2 AND e.xid < $4" :
	/* the planner takes a comparison of rows for a rare case, and would look each account up */
						  "(e.epoch > $1 AND e.epoch < $3 OR e.epoch = $1 AND e.xid >= $2 OR e.epoch = $3 AND e.xid < $4)"),
				 &params, SPI_OK_SELECT);
	return SPI_tuptable;
}

/* Add a sum to what was folded before. */
static void
add_sum(const FoldKind *kind, SPITupleTable *sums, uint64 row)
{
	static const Oid types[] = {INT4OID, TEXTOID, NUMERICOID};
	SqlParams	params = {0};

	for (int i = 0; i < (int) lengthof(types); i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(sums->vals[row], sums->tupdesc, i + 1, &isnull);

		sql_param(&params, types[i], value, isnull);
	}
	sql_run(psprintf("INSERT INTO rebate_data.%s AS h (ledger_account_id, currency, amount) VALUES ($1, $2, $3)"
					 " ON CONFLICT (ledger_account_id, currency) DO UPDATE SET amount = h.amount + excluded.amount",
					 kind->sums), &params, SPI_OK_INSERT);
}

/*
 * Add to the balances what was posted by transactions that no snapshot can still
 * wait for, and move their mark, in one step.
 */
bool
clock_fold_step(Store *store, ClockRun *run)
{
	const FoldKind *kind = store->version >= 2 ? &of_version_2 : &of_version_1;
	StoreSpi	scope;
	SqlParams	params = {0};
	FoldMark	from;
	FoldMark	upto;
	SPITupleTable *sums;
	uint64		n;

	store_spi_begin(store, &scope);
	from = lock_mark(kind);
	upto = next_mark(store);
	sums = sum_entries(kind, from, upto, &n);
	for (uint64 row = 0; row < n; row++)
		add_sum(kind, sums, row);
	sql_int(&params, upto.epoch);
	sql_param(&params, INT8OID, Int64GetDatum(upto.xid), false);
	sql_run(psprintf("UPDATE rebate_data.fold SET %s = $1, %s = $2, folded_at = clock_timestamp()",
					 kind->epoch, kind->xid), &params, SPI_OK_UPDATE);
	store_spi_end(&scope);
	return false;
}
