/*
 * rebate.c
 *	  Entry point of the library: settings and callbacks.
 */
#include "rebate.h"

#include "access/xact.h"
#include "utils/guc.h"

#include "collect.h"
#include "expr.h"
#include "guard.h"
#include "rules.h"
#include "source.h"
#include "store.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

int			rebate_posting = POSTING_COMMIT;
int			rebate_mode = MODE_ON;

static const struct config_enum_entry posting_options[] = {
	{"commit", POSTING_COMMIT, false},
	{"statement", POSTING_STATEMENT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry mode_options[] = {
	{"on", MODE_ON, false},
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
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			collect_at_xact_end();
			rules_at_commit();
			expr_at_xact_end();
			source_at_xact_end();
			break;
		case XACT_EVENT_ABORT:
			collect_at_xact_end();
			rules_at_abort();
			store_at_abort();
			expr_at_xact_end();
			source_at_xact_end();
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
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			collect_at_subabort(my);
			if (!guard_rolling_back())
			{
				rules_at_abort();
				store_at_abort();
			}
			break;
		default:
			break;
	}
}

void
_PG_init(void)
{
	DefineCustomEnumVariable("rebate.posting",
							 "When the orders of a transaction are posted.",
							 "commit: once, before the transaction commits. statement: at the end of each outermost statement. The ledger is the same.",
							 &rebate_posting, POSTING_COMMIT, posting_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("rebate.mode",
							 "Whether orders are turned into rebates.",
							 "off: the triggers do nothing, and the audit reports the orders that came meanwhile.",
							 &rebate_mode, MODE_ON, mode_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("rebate");

	store_init();
	source_init();
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
