/*
 * rebate.c
 *	  Entry point of the library: settings and callbacks.
 */
#include "rebate.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "allow.h"
#include "channel.h"
#include "clock.h"
#include "clock_batch.h"
#include "clock_share.h"
#include "collect.h"
#include "counters.h"
#include "delivery.h"
#include "expr.h"
#include "feed.h"
#include "follow.h"
#include "guard.h"
#include "identity.h"
#include "rights.h"
#include "person.h"
#include "rules.h"
#include "source.h"
#include "store.h"
#include "table_counters.h"
#include "trigger.h"
#include "truncating.h"
#include "utility.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

int			rebate_posting = POSTING_COMMIT;
int			rebate_mode = MODE_ON;
int			rebate_collect_limit = 16384;

static const struct config_enum_entry posting_options[] = {
	{"commit", POSTING_COMMIT, false},
	{"statement", POSTING_STATEMENT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry delivery_options[] = {
	{"worker", DELIVERY_WORKER, false},
	{"commit", DELIVERY_COMMIT, false},
	{"off", DELIVERY_OFF, false},
	{NULL, 0, false}
};

static const struct config_enum_entry mode_options[] = {
	{"on", MODE_ON, false},
	{"defer", MODE_DEFER, false},
	{"off", MODE_OFF, false},
	{NULL, 0, false}
};

/* Collected orders are posted before the commit; caches forget after an abort. */
static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			collect_pre_commit();
			delivery_pre_commit(event == XACT_EVENT_PRE_PREPARE);
			break;
		case XACT_EVENT_COMMIT:
			delivery_at_commit();
			pg_fallthrough;
		case XACT_EVENT_PREPARE:
			delivery_at_xact_end();
			counters_at_xact_end(true);
			collect_at_xact_end();
			trigger_at_xact_end();
			truncating_at_xact_end();
			follow_at_xact_end();
			rules_at_commit();
			expr_at_xact_end();
			source_at_xact_end();
			feed_at_xact_end(false);
			identity_at_xact_end();
			person_at_xact_end();
			break;
		case XACT_EVENT_ABORT:
			delivery_at_xact_end();
			counters_at_xact_end(false);
			collect_at_xact_end();
			trigger_at_xact_end();
			truncating_at_xact_end();
			follow_at_xact_end();
			rules_at_abort();
			store_at_abort();
			clock_at_abort();
			expr_at_xact_end();
			source_at_xact_end();
			feed_at_xact_end(true);
			identity_at_xact_end();
			person_at_xact_end();
			break;
		default:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId my, SubTransactionId parent, void *arg)
{
	switch (event)
	{
		case SUBXACT_EVENT_COMMIT_SUB:
			collect_at_subcommit(my, parent);
			truncating_at_subcommit(my, parent);
			delivery_at_subcommit(my, parent);
			identity_at_subcommit(my, parent);
			counters_at_subcommit(my, parent);
			person_at_subcommit();
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			collect_at_subabort(my);
			truncating_at_subabort(my);
			follow_at_xact_end();
			delivery_at_subabort(my);
			identity_at_subabort(my);
			person_at_subabort();
			if (!guard_rolling_back())
			{
				counters_at_subabort(my);
				rules_at_abort();
				store_at_abort();
			}
			break;
		default:
			break;
	}
}

/*
 * Raise if this process has the library already, under another file name: two
 * would post everything twice, and share memory of perhaps two layouts.
 */
static void
check_single(void)
{
	void	  **library = find_rendezvous_variable("rebate library");

	if (*library)
		ereport(ERROR,
				(errcode(ERRCODE_RB_OTHER_VERSION),
				 errmsg("version %s of rebate is loaded already, this file has version %s",
						(char *) *library, REBATE_VERSION),
				 errhint("Connect again; if rebate is preloaded, restart the server.")));
	*library = REBATE_VERSION;
}

void
_PG_init(void)
{
	check_single();
	DefineCustomEnumVariable("rebate.posting",
							 "When the orders of a transaction are posted.",
							 "commit: once, before the transaction commits. statement: at the end of each outermost statement. The ledger is the same.",
							 &rebate_posting, POSTING_COMMIT, posting_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("rebate.mode",
							 "Whether orders are turned into rebates.",
							 "defer: the triggers record the keys of orders only, and rebate.reconcile() catches up. off: they do nothing, and the audit reports the orders that came meanwhile.",
							 &rebate_mode, MODE_ON, mode_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("rebate.clock_batch_time",
							 "How long a batch of the clock holds the accounts that it moves money of, before it ends.",
							 "0: a batch ends after its first row. While others write it has a quarter of the time.",
							 &rebate_clock_batch_time, 1, 0, 1000,
							 PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("rebate.clock_workers",
							"Background workers that help a run of rebate.mature() that has much to do.",
							"0: none. They count among max_worker_processes; a run that gets none does all by itself.",
							&rebate_clock_workers, 0, 0, MAX_CLOCK_WORKERS,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rebate.collect_limit",
							"Orders that a transaction holds before it posts them early.",
							"A statement that inserts more posts them at its end, account by account.",
							&rebate_collect_limit, 16384, 1, 1048576, PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("rebate.track_timing",
							 "Whether the time that orders take is measured.",
							 "It costs four looks at the clock a transaction; see rebate.stat_engine.",
							 &rebate_track_timing, false, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomEnumVariable("rebate.delivery",
							 "Who notifies clients of what was posted.",
							 "worker: a background worker, if rebate is preloaded, else as commit. commit: the transaction itself. off: nobody.",
							 &rebate_delivery, DELIVERY_WORKER, delivery_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("rebate.ring_size",
							"Hints that can wait for the worker of a database.",
							NULL, &rebate_ring_size, 16384, 1024, 1048576,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP,
							0, NULL, NULL, NULL);
	DefineCustomIntVariable("rebate.max_databases",
							"Databases that can have a worker.",
							NULL, &rebate_max_databases, 8, 1, 1024,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP,
							0, NULL, NULL, NULL);
	DefineCustomIntVariable("rebate.counted_tables",
							"Attached tables of a database that are counted one by one.",
							"See rebate.stat_tables; each takes 520 bytes of shared memory in each of rebate.max_databases.",
							&rebate_counted_tables, 128, 1, 65536,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP,
							0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("rebate");

	if (process_shared_preload_libraries_in_progress)
	{
		ring_init();
		utility_init();
	}

	store_init();
	rights_init();
	source_init();
	follow_init();
	channel_init();
	allow_init();
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
