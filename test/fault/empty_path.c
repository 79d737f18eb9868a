/*
 * empty_path.c
 *	  Runs the extension's functions under an empty search_path, for tests.
 *
 * As after pg_dump's SET, or in the apply worker of logical replication: nothing
 * that the extension does may depend on the path of whoever makes it run.  Loaded
 * by session_preload_libraries, this library empties the path when a function of
 * the extension is called, also as a trigger, and when a transaction is about to
 * commit.  The path of the test's own statements and triggers stays.  Functions
 * that read what their caller wrote read it under his path: expressions, and in
 * event triggers his command.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "utils/guc.h"
#include "utils/syscache.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static const char *const authoring[] = {"attach", "set_rule", "preview"};

static void
empty_path(GucAction action)
{
	(void) set_config_option("search_path", "", PGC_USERSET, PGC_S_SESSION, action, true, 0, false);
}

/* Whether a function is the extension's, and reads nothing that is written in its caller's names */
static bool
is_engine(Oid function)
{
	Oid			extension = get_extension_oid("rebate", true);
	HeapTuple	tuple;
	bool		result;

	if (!OidIsValid(extension) ||
		getExtensionOfObject(ProcedureRelationId, function) != extension)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_proc) GETSTRUCT(tuple))->prorettype != EVENT_TRIGGEROID;
	for (int i = 0; i < (int) lengthof(authoring); i++)
		if (strcmp(NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname), authoring[i]) == 0)
			result = false;
	ReleaseSysCache(tuple);
	return result;
}

static void
at_pre_commit(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		empty_path(GUC_ACTION_LOCAL);
}

/* After an error, the end of the subtransaction brings the path back. */
static void
around(FmgrHookEventType event, FmgrInfo *flinfo, Datum *private)
{
	static bool registered = false;

	if (event == FHET_START)
	{
		/* callbacks that come last are called first, and by now the extension has its own */
		if (!registered)
			RegisterXactCallback(at_pre_commit, NULL);
		registered = true;
		*private = Int32GetDatum(NewGUCNestLevel());
		empty_path(GUC_ACTION_SAVE);
	}
	else if (event == FHET_END)
		AtEOXact_GUC(true, DatumGetInt32(*private));
}

void
_PG_init(void)
{
	needs_fmgr_hook = is_engine;
	fmgr_hook = around;
}
