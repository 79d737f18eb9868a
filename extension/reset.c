/*
 * reset.c
 *	  rebate.reset(): empties the ledger of a sandbox, for test suites.
 *
 * A sandbox is a store that was made as one; that cannot be changed later, so
 * no call and no mistyped name empties a ledger of real money.  What was read of
 * the old ledger is not mixed up with the new one: ids and sequences go on, and a
 * new epoch makes cursors void.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "api.h"
#include "attach.h"
#include "collect.h"
#include "reconcile.h"
#include "rights.h"
#include "source.h"
#include "store.h"
#include "store_shape.h"

PG_FUNCTION_INFO_V1(rebate_reset);

/* Tables up to this size are emptied row by row: test suites empty small ones often */
#define DELETE_BLOCKS	32

/* What orders leave in the store, and who read of them */
static const StoreTable emptied[] = {
	ST_ACCOUNT, ST_ACCRUAL, ST_ENTRY, ST_WAITING, ST_HOUSE_ENTRY, ST_HOUSE_BALANCE, ST_CHANNEL,
	ST_FAILURE, ST_DEFERRED, ST_LINK, ST_JOB, ST_FINDING, ST_FREEZE, ST_FORMER_MEMBER, ST_ERASURE,
	ST_ERASURE_REQUEST,
	ST_ENTRY_ARCHIVE, ST_BOUNDARY, ST_ARCHIVE, ST_CARRIED, ST_CARRIED_HOUSE, ST_DROPPED,
	ST_CHECKPOINT,
};

/* What stays besides currencies, the programme, campaigns and allowed functions */
typedef enum Keep
{
	KEEP_RULES,					/* all that people wrote */
	KEEP_SOURCES,				/* attached tables */
	KEEP_NOTHING
} Keep;

static Keep
read_keep(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"rules", "sources", "nothing", NULL};
	char	   *name = api_text(fcinfo, 0);
	int			keep = 0;

	api_one_of(ERRCODE_INVALID_PARAMETER_VALUE, "keep", name, names);
	while (strcmp(name, names[keep]) != 0)
		keep++;
	return (Keep) keep;
}

/* The tables that are attached and still there, by source */
static List *
attached_tables(Store *store)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	List	   *relids = NIL;
	uint64		n;

	store_spi_begin(store, &scope);
	n = sql_run("SELECT relation::oid FROM rebate_data.source WHERE detached_at IS NULL ORDER BY source_id",
				NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Oid			relid = DatumGetObjectId(sql_get(i, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(context);

		if (get_rel_name(relid) != NULL)
			relids = lappend_oid(relids, relid);
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);
	return relids;
}

/*
 * Lock the order tables, then the configuration, then the ledger: transactions
 * that wrote orders have ended, and none begins.  Who attaches a table locks it
 * first and the configuration after it, as we do; a table that was attached while we
 * waited is locked, too.  Raises RB006 where a lock is not to be had in some
 * seconds.  Returns the tables.
 */
static List *
lock_all(Store *store, LOCKMODE mode)
{
	List	   *relids = NIL;
	ListCell   *lc;

	for (int i = 0; i < 2; i++)
	{
		relids = attached_tables(store);
		foreach(lc, relids)
			triggers_lock_tree(lfirst_oid(lc), mode, "rebate.reset");
		if (i == 0)
			api_lock_configuration(store);
	}
	for (int i = 0; i < (int) lengthof(emptied); i++)
		triggers_lock_tree(store->tables[emptied[i]], AccessExclusiveLock, "rebate.reset");
	return relids;
}

/* Empty one table, which is locked.  What is large goes as a file. */
static void
empty_table(Store *store, StoreTable which)
{
	Relation	rel = store_open(store, which, NoLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	const char *name = shape_table_name(which);

	table_close(rel, NoLock);
	if (blocks > DELETE_BLOCKS)
		sql_run(psprintf("TRUNCATE " STORE_SCHEMA ".%s", name), NULL, SPI_OK_UTILITY);
	else if (blocks > 0)
		sql_run(psprintf("DELETE FROM " STORE_SCHEMA ".%s", name), NULL, SPI_OK_DELETE);
}

/* A new ledger in a new epoch; nothing is folded. */
static void
empty_ledger(Store *store)
{
	SqlParams	params = {0};
	StoreSpi	scope;

	sql_param(&params, INT8OID, Int64GetDatum((int64) GetSystemIdentifier()), false);
	sql_param(&params, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	sql_param(&params, OIDOID, ObjectIdGetDatum(store->tables[ST_ACCOUNT]), false);
	store_spi_begin(store, &scope);
	for (int i = 0; i < (int) lengthof(emptied); i++)
		empty_table(store, emptied[i]);
	sql_run("UPDATE rebate_data.fold SET epoch = 0, xid = 0, checkpoint_epoch = 0, checkpoint_xid = 0,"
			"  folded_at = now()", NULL, SPI_OK_UPDATE);
	sql_run("INSERT INTO rebate_data.epoch (epoch, system_identifier, database_oid, account_oid)"
			" SELECT max(epoch) + 1, $1, $2, $3 FROM rebate_data.epoch", &params, SPI_OK_INSERT);
	store_spi_end(&scope);
	CacheInvalidateRelcacheByRelid(store->tables[ST_CHANNEL]);
	CacheInvalidateRelcacheByRelid(store->tables[ST_FORMER_MEMBER]);
	CacheInvalidateRelcacheByRelid(store->tables[ST_EPOCH]);
	store_rules_changed(store);
}

/* Forget rules with what only they name: groups and scopes. */
static void
drop_rules(Store *store)
{
	StoreSpi	scope;

	store_spi_begin(store, &scope);
	sql_run("DELETE FROM rebate_data.rule_scope", NULL, SPI_OK_DELETE);
	sql_run("DELETE FROM rebate_data.rule_version", NULL, SPI_OK_DELETE);
	sql_run("DELETE FROM rebate_data.rule", NULL, SPI_OK_DELETE);
	sql_run("DELETE FROM rebate_data.rule_group", NULL, SPI_OK_DELETE);
	sql_run("DELETE FROM rebate_data.scope WHERE scope_id <> 0", NULL, SPI_OK_DELETE);
	sql_run("DELETE FROM rebate_data.draft WHERE kind <> 'approval'", NULL, SPI_OK_DELETE);
	sql_run("UPDATE rebate_data.generation SET generation = generation + 1, changed_at = now(),"
			"  expressions = false", NULL, SPI_OK_UPDATE);
	store_spi_end(&scope);
	store_rules_changed(store);
}

/* Take the triggers off the order tables, which must be the caller's, and forget them. */
static void
drop_sources(Store *store, List *relids)
{
	ListCell   *lc;
	StoreSpi	scope;

	foreach(lc, relids)
	{
		SqlParams	params = {0};
		int			level = sql_begin();

		sql_param(&params, OIDOID, ObjectIdGetDatum(lfirst_oid(lc)), false);
		sql_run("SELECT rebate.detach($1::regclass)", &params, SPI_OK_SELECT);
		sql_end(level);
	}
	store_spi_begin(store, &scope);
	sql_run("DELETE FROM rebate_data.source", NULL, SPI_OK_DELETE);
	store_spi_end(&scope);
	store_rules_changed(store);
}

/*
 * The orders that are there: as old ones, that earn nothing, or as if they came
 * now.  Returns their number.
 */
static int64
begin_again(List *relids, bool replay)
{
	int64		n = 0;
	ListCell   *lc;

	foreach(lc, relids)
	{
		Source	   *source = source_get(store_get(false), lfirst_oid(lc));

		if (source->broken)
			ereport(WARNING,
					(errcode(ERRCODE_RB_INVALID_MAPPING),
					 errmsg("the orders of table %s wait, since its mapping no longer fits", source->name),
					 errdetail_internal("%s.", source->broken),
					 errhint("Call rebate.attach() with replace => true.")));
		else
			n += reconcile_attach(lfirst_oid(lc), !replay, false);
	}
	return n;
}

/*
 * rebate.reset(keep, replay): a sandbox without rebates, accounts, failures, jobs and
 * channels, in one transaction; returns the number of orders that are there.
 */
Datum
rebate_reset(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	Keep		keep;
	bool		replay;
	List	   *relids;
	int64		n = 0;

	rights_check(store, RIGHT_ADMIN, "rebate.reset");
	PreventCommandIfReadOnly("rebate.reset()");
	if (!store->sandbox)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rebate.reset() is for sandboxes, and this store is none"),
				 errdetail("A store is made a sandbox when it is created, or never."),
				 errhint("In a database for tests: SELECT rebate.create_store(sandbox => true), before anything is attached.")));
	keep = read_keep(fcinfo);
	replay = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	if (replay && keep == KEEP_NOTHING)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("without attached tables there is nothing to replay"),
				 errhint("keep \"rules\" or \"sources\".")));

	(void) collect_flush();
	relids = lock_all(store, keep == KEEP_NOTHING ? AccessExclusiveLock : ExclusiveLock);
	empty_ledger(store_get(false));
	if (keep != KEEP_RULES)
		drop_rules(store_get(false));
	if (keep == KEEP_NOTHING)
		drop_sources(store_get(false), relids);
	else
		n = begin_again(relids, replay);
	PG_RETURN_INT64(n);
}
