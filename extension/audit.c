/*
 * audit.c
 *	  rebate.audit(): the ledger in itself, then each source against the ledger.
 */
#include "rebate.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "audit.h"
#include "collect.h"
#include "rights.h"
#include "rules.h"

PG_FUNCTION_INFO_V1(rebate_audit);

void
audit_report(ReturnSetInfo *result, const char *part, const char *violation,
			 const char *subject, const char *detail)
{
	Datum		values[4];
	bool		nulls[4] = {false, false, false, detail == NULL};

	values[0] = CStringGetTextDatum(part);
	values[1] = CStringGetTextDatum(violation);
	values[2] = CStringGetTextDatum(subject);
	values[3] = detail ? CStringGetTextDatum(detail) : (Datum) 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* rebate.audit(): a row for each violation */
Datum
rebate_audit(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	rights_check(store, RIGHT_AUDITOR | RIGHT_OPERATOR, "rebate.audit");
	collect_flush();

	/* somebody may have gone around the guards, and so around the caches */
	store_forget();
	rules_forget();
	store = store_get(false);
	InitMaterializedSRF(fcinfo, 0);
	audit_ledger(store, result);
	audit_rules(store, result);
	audit_sources(store, result);
	return (Datum) 0;
}
