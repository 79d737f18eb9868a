/*
 * doctor.c
 *	  rebate.doctor(): whether all is as it should be, and what to call if not.
 *
 * Quick enough for each minute: it reads catalogs, what waits in the store, and
 * of each table its last pages.  Whether the money is right the audit tells.
 */
#include "rebate.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "audit.h"
#include "collect.h"
#include "delivery.h"
#include "guard.h"
#include "order.h"
#include "partition.h"
#include "ring.h"
#include "rules.h"
#include "schedule.h"

PG_FUNCTION_INFO_V1(rebate_doctor);

/* Pages at the end of a table whose rows are looked at */
#define PAGES_LOOKED_AT 8

/*
 * Checks that one query answers: rows (subject, status, detail, remedy), none if
 * all is well.  They run as the store's owner.
 */
typedef struct QueryCheck
{
	const char *name;
	const char *sql;
} QueryCheck;

/* The relations that need triggers: attached tables and all partitions below */
#define WITH_RELATIONS \
	"WITH attached AS (" \
	"  SELECT s.*, format('SELECT rebate.attach(%L, %s, replace => true)', s.relation," \
	"         (SELECT string_agg(format('%I => %s', a.key, CASE jsonb_typeof(a.value)" \
	"                   WHEN 'string' THEN quote_literal(a.value #>> '{}')" \
	"                   WHEN 'array' THEN quote_literal(translate(a.value::text, '[]', '{}'))" \
	"                   WHEN 'object' THEN quote_literal(a.value::text)" \
	"                   ELSE a.value::text END), ', ')" \
	"            FROM jsonb_each(s.arguments) a)) AS again" \
	"    FROM rebate_data.source s JOIN pg_class c ON c.oid = s.relation" \
	"   WHERE s.detached_at IS NULL)," \
	" relations AS (" \
	"  SELECT s.again, s.relation::oid AS relid FROM attached s" \
	"  UNION" \
	"  SELECT s.again, p.relid::oid FROM attached s, pg_partition_tree(s.relation) p) "

static const QueryCheck query_checks[] = {
	{"versions",
		"SELECT part, 'problem', format('version %s, the latest is %s', version, latest), advice"
	"  FROM rebate.versions() WHERE advice IS NOT NULL"},
	{"mode",
		"SELECT NULL::text, CASE m WHEN 'off' THEN 'problem' ELSE 'notice' END,"
		"       CASE m WHEN 'off' THEN 'rebate.mode is off: orders get no rebates'"
		"              ELSE 'rebate.mode is defer: keys of orders are recorded only' END,"
		"       'ALTER SYSTEM RESET rebate.mode; SELECT pg_reload_conf(); SELECT rebate.reconcile(...)'"
	"  FROM current_setting('rebate.mode') m WHERE m <> 'on'"},
	{"triggers",
		WITH_RELATIONS
		"SELECT format('%s, trigger %s', r.relid::regclass, t.name), 'problem',"
		"       CASE WHEN g.oid IS NULL THEN 'it is missing'"
		"            WHEN g.tgfoid <> t.function THEN 'it calls another function'"
		"            ELSE 'it is disabled' END,"
		"       CASE WHEN g.tgfoid = t.function"
		"            THEN format('ALTER TABLE %s ENABLE TRIGGER %s', r.relid::regclass, t.name)"
		"            WHEN g.oid IS NOT NULL THEN format('DROP TRIGGER %s ON %s; %s', t.name, r.relid::regclass, r.again)"
		"            ELSE r.again END"
		"  FROM relations r"
		" CROSS JOIN (VALUES ('rebate_insert', 'rebate.collect()'::regprocedure),"
		"                    ('rebate_update', 'rebate.collect()'::regprocedure),"
		"                    ('rebate_delete', 'rebate.collect()'::regprocedure),"
		"                    ('rebate_truncate', 'rebate.collect_truncate()'::regprocedure)) t(name, function)"
		"  LEFT JOIN pg_trigger g ON g.tgrelid = r.relid AND g.tgname = t.name AND NOT g.tgisinternal"
		" WHERE g.oid IS NULL OR g.tgfoid <> t.function OR g.tgenabled NOT IN ('O', 'A')"
	" ORDER BY 1"},
	{"tables",
		"SELECT s.relation_name, 'notice', 'the attached table is gone; its rebates stay', NULL"
		"  FROM rebate_data.source s"
		" WHERE s.detached_at IS NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation)"
		" UNION ALL "
		"SELECT format('%s, %s', k.conrelid::regclass, k.conname), 'problem',"
		"       format('%s refers to %s, and both are attached: an order and its lines are paid twice',"
		"              k.conrelid::regclass, k.confrelid::regclass),"
		"       format('SELECT rebate.detach(%L) or SELECT rebate.detach(%L)', k.conrelid::regclass,"
		"              k.confrelid::regclass)"
		"  FROM pg_constraint k"
		"  JOIN rebate_data.source c ON c.relation = k.conrelid AND c.detached_at IS NULL"
		"  JOIN rebate_data.source p ON p.relation = k.confrelid AND p.detached_at IS NULL"
		" WHERE k.contype = 'f' AND k.conrelid <> k.confrelid"
	" ORDER BY 1"},
	{"failures",
		"SELECT COALESCE(s.relation_name, f.source_id::text), 'problem',"
		"       format('%s set aside, the first %s, the last %s; most often %s', sum(f.n),"
		"              to_char(min(f.first), 'YYYY-MM-DD HH24:MI TZ'), to_char(max(f.last), 'YYYY-MM-DD HH24:MI TZ'),"
		"              (array_agg(f.what ORDER BY f.n DESC, f.what))[1]),"
		"       format('SELECT * FROM rebate.failures WHERE source = %L; correct the rows, then '"
		"              || 'SELECT * FROM rebate.retry(%L)', s.relation_name, s.relation_name)"
		"  FROM (SELECT source_id, sqlstate || ': ' || message AS what, count(*) AS n,"
		"               min(first_failed_at) AS first, max(last_failed_at) AS last"
		"          FROM rebate_data.failure GROUP BY 1, 2) f"
		"  LEFT JOIN rebate_data.source s ON s.source_id = f.source_id"
	" GROUP BY f.source_id, s.relation_name ORDER BY 1"},
	{"deferred",
		"SELECT s.relation_name,"
		"       CASE WHEN current_setting('rebate.mode') = 'defer' THEN 'notice' ELSE 'problem' END,"
		"       format('%s orders wait, the first since %s', count(*),"
		"              to_char(min(d.first_seen), 'YYYY-MM-DD HH24:MI TZ')),"
		"       format('SELECT rebate.reconcile(%L, deferred_only => true)', s.relation_name)"
		"  FROM rebate_data.deferred d JOIN rebate_data.source s ON s.source_id = d.source_id"
	" GROUP BY s.relation_name ORDER BY 1"},
	{"guards",
		"SELECT c.oid::regclass::text, 'problem', 'its guard is missing or disabled: it can be written directly',"
		"       CASE WHEN g.oid IS NULL THEN 'SELECT rebate.adopt_store()'"
		"            ELSE format('ALTER TABLE %s ENABLE TRIGGER rebate_guard', c.oid::regclass) END"
		"  FROM pg_class c"
		"  LEFT JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgname = 'rebate_guard'"
		"   AND g.tgfoid = 'rebate.guard()'::regprocedure"
		" WHERE c.relnamespace = 'rebate_data'::regnamespace AND c.relkind = 'r'"
		"   AND (g.oid IS NULL OR g.tgenabled NOT IN ('O', 'A'))"
	" ORDER BY 1"},
	{"event triggers",
		"SELECT t.name, CASE WHEN EXISTS (SELECT FROM rebate_data.source s JOIN pg_class c ON c.oid = s.relation"
		"                                  WHERE s.detached_at IS NULL AND c.relkind = 'p')"
		"                    THEN 'problem' ELSE 'notice' END,"
		"       CASE WHEN e.oid IS NULL THEN 'it is missing: partitions and renamed columns are not followed'"
		"            ELSE 'it is disabled: partitions and renamed columns are not followed' END,"
		"       CASE WHEN e.oid IS NULL THEN 'create the extension again'"
		"            ELSE format('ALTER EVENT TRIGGER %s ENABLE ALWAYS', t.name) END"
		"  FROM (VALUES ('rebate_follow_partitions'), ('rebate_watch_drops')) t(name)"
		"  LEFT JOIN pg_event_trigger e ON e.evtname = t.name"
		" WHERE e.oid IS NULL OR e.evtenabled NOT IN ('O', 'A')"
	" ORDER BY 1"},
	{"settings",
		"SELECT t.* FROM (VALUES"
		"  (current_setting('session_replication_role') <> 'origin', 'session_replication_role', 'problem',"
		"   'triggers do not fire in sessions like this one', 'SET session_replication_role = origin'),"
		"  (current_setting('fsync') = 'off', 'fsync', 'problem',"
		"   'a crash of the machine can destroy the ledger', 'ALTER SYSTEM RESET fsync; SELECT pg_reload_conf()'),"
		"  (current_setting('full_page_writes') = 'off', 'full_page_writes', 'problem',"
		"   'a crash of the machine can destroy the ledger', 'ALTER SYSTEM RESET full_page_writes; SELECT pg_reload_conf()'),"
		"  (current_setting('synchronous_commit') = 'off', 'synchronous_commit', 'notice',"
		"   'a crash can take the last orders with their rebates, although clients were told of the commit', NULL))"
	" w(wrong, subject, status, detail, remedy) CROSS JOIN LATERAL (SELECT w.subject, w.status, w.detail, w.remedy) t WHERE w.wrong"},
	{"prepared transactions",
		"SELECT p.gid, 'problem', format('prepared %s: the members of its orders can get no other rebates until it ends',"
		"              to_char(p.prepared, 'YYYY-MM-DD HH24:MI TZ')),"
		"       format('COMMIT PREPARED %L or ROLLBACK PREPARED %L', p.gid, p.gid)"
		"  FROM pg_prepared_xacts p"
		" WHERE p.database = current_database() AND p.prepared < now() - interval '10 minutes'"
	" ORDER BY p.prepared"},
};

static void
say(ReturnSetInfo *result, const char *check, const char *subject, const char *status,
	const char *detail, const char *remedy)
{
	const char *texts[5] = {check, subject, status, detail, remedy};
	Datum		values[5];
	bool		nulls[5];

	for (int i = 0; i < 5; i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = texts[i] ? CStringGetTextDatum(texts[i]) : (Datum) 0;
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* The rows of a query, or one that says that all is well */
static void
run_query_check(Store *store, ReturnSetInfo *result, const QueryCheck *check)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	uint64		n;

	store_spi_begin(store, &scope);
	n = sql_run(check->sql, NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		say(result, check->name, sql_get_text(row, 1, context), sql_get_text(row, 2, context),
			sql_get_text(row, 3, context), sql_get_text(row, 4, context));
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);
	if (n == 0)
		say(result, check->name, NULL, "ok", NULL, NULL);
}

/*----------------------------------------------------------------------------
 * Orders without a decision
 *----------------------------------------------------------------------------
 */

/* Whether the row in a slot leaves no trace; runs under guard */
typedef struct OldRow
{
	Source	   *source;
	TupleTableSlot *slot;
	bool		is_old;
} OldRow;

static void
look_at_time(void *arg)
{
	OldRow	   *row = arg;

	expr_reset();
	row->is_old = image_is_old(row->source, row->slot);
}

/* The last pages of a table that holds rows: how many of them were not decided? */
static void
look_at_pages(Store *store, Source *source, Relation rel, Relation accrual, Snapshot snapshot,
			  int64 *looked_at, int64 *undecided)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rebate doctor",
												  ALLOCSET_DEFAULT_SIZES);
	BlockNumber pages = RelationGetNumberOfBlocks(rel);
	SourcePart *part = source_part_of(source, rel);
	PartReader	reader;
	TableScanDesc scan;
	ItemPointerData first,
				last;

	if (pages > 0)
	{
		part_reader_begin(&reader, part, RelationGetDescr(rel), table_slot_callbacks(rel));
		ItemPointerSet(&first, pages > PAGES_LOOKED_AT ? pages - PAGES_LOOKED_AT : 0,
					   FirstOffsetNumber);
		ItemPointerSet(&last, pages - 1, MaxOffsetNumber);
		scan = table_beginscan_tidrange(rel, snapshot, &first, &last);
		while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, reader.raw))
		{
			MemoryContext caller = MemoryContextSwitchTo(context);
			OldRow		row = {.source = source,.slot = part_reader_convert(&reader)};
			OrderFacts	facts;

			CHECK_FOR_INTERRUPTS();
			facts_read(store, accrual, source->source_id, image_key(source, row.slot), snapshot,
					   &facts);
			(*looked_at)++;
			if (!facts.seen && !facts.deferred &&
				(run_guarded(store, look_at_time, &row) != NULL || !row.is_old))
				(*undecided)++;
			MemoryContextSwitchTo(caller);
			MemoryContextReset(context);
		}
		table_endscan(scan);
		part_reader_end(&reader);
	}
	MemoryContextDelete(context);
}

static void
count_order(void *arg, Source *source, const char *key, const char *violation, const char *detail)
{
	(*(int64 *) arg)++;
}

/* All of a table as the audit looks at it, or its last pages only */
static bool
check_orders(Store *store, ReturnSetInfo *result, Source *source, bool thorough)
{
	int64		looked_at = 0;
	int64		undecided = 0;
	Relation	accrual;
	Snapshot	snapshot;
	ListCell   *lc;
	char	   *remedy = psprintf("SELECT rebate.reconcile(%s)", quote_literal_cstr(source->name));

	if (thorough)
	{
		audit_orders(store, source, count_order, &undecided);
		if (undecided > 0)
			say(result, "orders", source->name, "problem",
				psprintf(INT64_FORMAT " places where the ledger is not as the orders say", undecided),
				remedy);
		return undecided == 0;
	}

	accrual = table_open(store->tables[ST_ACCRUAL], AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	foreach(lc, find_all_inheritors(source->relid, AccessShareLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION &&
			(source->partitioned || RelationGetRelid(rel) == source->relid))
			look_at_pages(store, source, rel, accrual, snapshot, &looked_at, &undecided);
		table_close(rel, NoLock);
	}
	UnregisterSnapshot(snapshot);
	table_close(accrual, AccessShareLock);
	if (undecided > 0)
		say(result, "orders", source->name, "problem",
			psprintf(INT64_FORMAT " of " INT64_FORMAT " orders in the last pages were never decided",
					 undecided, looked_at), remedy);
	return undecided == 0;
}

static void
check_sources(Store *store, ReturnSetInfo *result, bool thorough)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *relids = NIL;
	StoreSpi	scope;
	ListCell   *lc;
	bool		fine = true;
	uint64		n;

	store_spi_begin(store, &scope);
	n = sql_run("SELECT relation::oid FROM rebate_data.source WHERE detached_at IS NULL"
				" ORDER BY source_id", NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
	{
		bool		isnull;
		Oid			relid = DatumGetObjectId(sql_get(row, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(context);

		relids = lappend_oid(relids, relid);
		MemoryContextSwitchTo(old);
	}
	store_spi_end(&scope);

	foreach(lc, relids)
	{
		char		relkind = get_rel_relkind(lfirst_oid(lc));
		Source	   *source;

		if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
			continue;
		source = source_get(store, lfirst_oid(lc));
		if (source == NULL)
			continue;
		if (source->broken)
		{
			say(result, "orders", source->name, "problem",
				psprintf("the mapping no longer fits the table: %s", source->broken),
				psprintf("SELECT rebate.attach(%s, ..., replace => true)",
						 quote_literal_cstr(source->name)));
			fine = false;
		}
		else
			fine &= check_orders(store, result, source, thorough);
	}
	if (fine)
		say(result, "orders", NULL, "ok", NULL, NULL);
}

/*----------------------------------------------------------------------------
 * Delivery
 *----------------------------------------------------------------------------
 */

static void
check_delivery(ReturnSetInfo *result)
{
	const char *reason;
	DeliveryMode mode = delivery_mode(&reason);
	RingDatabase *db = ring_exists() ? ring_database() : NULL;
	bool		fine = true;

	if (mode != (DeliveryMode) rebate_delivery)
	{
		say(result, "delivery", "rebate.delivery", "notice", reason,
			ring_exists() ? "raise max_worker_processes or rebate.max_databases, and restart" :
			"shared_preload_libraries = 'rebate', and restart");
		fine = false;
	}
	else if (mode == DELIVERY_OFF)
	{
		say(result, "delivery", "rebate.delivery", "notice", "nobody is notified",
			"ALTER SYSTEM RESET rebate.delivery; SELECT pg_reload_conf()");
		fine = false;
	}
	if (db && pg_atomic_read_u64(&db->overflows) > 0)
	{
		say(result, "delivery", "rebate.ring_size", "notice",
			psprintf(UINT64_FORMAT " times the ring was full; the worker's looks found what did not fit in",
					 pg_atomic_read_u64(&db->overflows)),
			"raise rebate.ring_size, and restart");
		fine = false;
	}
	if (db && db->last_error[0] != '\0')
	{
		say(result, "delivery", "worker", "notice",
			psprintf("its last error, %s: %s", timestamptz_to_str(db->last_error_at),
					 db->last_error),
			"SELECT * FROM rebate.delivery_status");
		fine = false;
	}
	if (fine)
		say(result, "delivery", NULL, "ok", NULL, NULL);
}

/*----------------------------------------------------------------------------
 * The clock
 *----------------------------------------------------------------------------
 */

static void
say_clock(void *arg, const char *subject, const char *status, const char *detail,
		  const char *remedy)
{
	say(arg, "clock", subject, status, detail, remedy);
}

static void
check_clock(ReturnSetInfo *result)
{
	if (schedule_check(say_clock, result))
		say(result, "clock", NULL, "ok", NULL, NULL);
}

/* rebate.doctor(thorough) */
Datum
rebate_doctor(PG_FUNCTION_ARGS)
{
	bool		thorough = !PG_ARGISNULL(0) && PG_GETARG_BOOL(0);
	Store	   *store = store_get(true);
	ReturnSetInfo *result;

	if (store)
	{
		store_check_user(store, "rebate.doctor");
		collect_flush();
	}
	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (store == NULL)
	{
		if (store_is_empty())
			say(result, "store", "rebate_data", "problem",
				"the store is empty, as after the restore of a dump without data",
				"restore the data, or SELECT rebate.adopt_store() to begin a new ledger");
		else
			say(result, "store", "rebate_data", "notice", "there is no store yet",
				"SELECT rebate.attach(...)");
		return (Datum) 0;
	}
	(void) rules_generation(store);
	for (int i = 0; i < (int) lengthof(query_checks); i++)
		run_query_check(store, result, &query_checks[i]);
	check_clock(result);
	check_sources(store, result, thorough);
	check_delivery(result);
	return (Datum) 0;
}
