/*
 * read.c
 *	  flush(), balance(), order_key(): functions that people call to read.
 */
#include "rebate.h"

#include "access/table.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "collect.h"
#include "guard.h"
#include "member_account.h"
#include "read.h"
#include "rights.h"
#include "source.h"

PG_FUNCTION_INFO_V1(rebate_flush);
PG_FUNCTION_INFO_V1(rebate_balance);
PG_FUNCTION_INFO_V1(rebate_order_key);

/* rebate.flush(): anyone may post what his own transaction has collected */
Datum
rebate_flush(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(collect_flush());
}

/*
 * The attached source of argument 0, after checking the caller and posting what
 * waits.
 */
Source *
read_source(FunctionCallInfo fcinfo, Store **store, int rights, const char *function)
{
	Source	   *source;
	Oid			relid;

	*store = store_get(false);
	rights_check(*store, rights, function);
	collect_flush();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the source must not be null")));
	relid = PG_GETARG_OID(0);
	source = source_above(*store, relid);
	if (source == NULL)
	{
		char	   *name = get_rel_name(relid);

		ereport(ERROR,
				(errcode(ERRCODE_RB_NOT_ATTACHED),
				 name ? errmsg("table \"%s\" is not attached", name) :
				 errmsg("relation with OID %u does not exist", relid),
				 errhint("rebate.sources lists what is attached.")));
	}
	if (source->key_broken)
		ereport(ERROR,
				(errcode(ERRCODE_RB_INVALID_MAPPING),
				 errmsg("the key of %s no longer fits the table", source->name),
				 errdetail("%s.", source->broken),
				 errhint("Call rebate.attach() with replace => true.")));
	return source;
}

Source *
read_visible_source(FunctionCallInfo fcinfo, Store **store, int rights, const char *function)
{
	Source	   *source = read_source(fcinfo, store, rights, function);

	if (!may_see_rows(source->relid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", source->name),
				 errdetail("%s tells what rows of it say: it takes SELECT on all columns, and no policy that hides rows.",
						   function)));
	return source;
}

/* Canonical key from the variadic arguments after the first */
char *
read_key(FunctionCallInfo fcinfo, Source *source)
{
	Datum	   *args;
	Oid		   *types;
	bool	   *nulls;
	int			nargs = extract_variadic_args(fcinfo, 1, true, &args, &types, &nulls);
	char	  **parts = palloc(sizeof(char *) * Max(source->nkeys, 1));

	if (nargs != source->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the key of %s has %d column(s), but %d value(s) were given",
						source->name, source->nkeys, Max(nargs, 0))));
	for (int i = 0; i < nargs; i++)
	{
		Oid			output;
		bool		isvarlena;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a key must not be null")));
		getTypeOutputInfo(types[i], &output, &isvarlena);
		parts[i] = canon_from_text(&source->key_canon[i],
								   OidOutputFunctionCall(output, args[i]));
	}
	return canon_key(source->nkeys, parts);
}

/* rebate.order_key(source, key...) */
Datum
rebate_order_key(PG_FUNCTION_ARGS)
{
	Store	   *store;
	Source	   *source = read_source(fcinfo, &store, RIGHT_AUDITOR | RIGHT_OPERATOR,
									  "rebate.order_key");

	PG_RETURN_TEXT_P(cstring_to_text(read_key(fcinfo, source)));
}

/* Append the rows of the last SPI result to a materialized result */
void
read_return_spi(ReturnSetInfo *rsinfo)
{
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
}

/* A row of rebate.balance() */
static void
put_balance(ReturnSetInfo *result, Store *store, const char *member, const MemberAccount *account)
{
	CurrencyInfo *currency = store_currency(store, account->currency);
	Datum		values[3 + NUM_BUCKETS];
	bool		nulls[3 + NUM_BUCKETS] = {0};

	if (currency == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("currency \"%s\" is missing", account->currency),
				 errhint("Restore it in table \"%s.currency\".", STORE_SCHEMA)));
	values[0] = CStringGetTextDatum(member);
	values[1] = CStringGetTextDatum(account->currency);
	for (int b = 0; b < NUM_BUCKETS; b++)
		values[2 + b] = NumericGetDatum(int64_div_fast_to_numeric(account->balance[b],
																  currency->scale));
	values[2 + NUM_BUCKETS] = Int64GetDatum(account->last_entry);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * rebate.balance(member, currency, at): balances now, or after the last entry
 * posted not later than a moment.
 */
Datum
rebate_balance(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	MemberAccount *accounts;
	EventScan  *scan = NULL;
	Snapshot	snapshot;
	char	   *member;
	char	   *currency;
	int			n;

	rights_check(store, RIGHT_AUDITOR, "rebate.balance");
	collect_flush();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the member must not be null")));
	InitMaterializedSRF(fcinfo, 0);
	member = api_text(fcinfo, 0);
	currency = api_text(fcinfo, 1);

	/* newer than that of the query, which does not see what was just posted */
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	accounts = member_accounts(store, snapshot, member, &n);
	if (!PG_ARGISNULL(2) && n > 0)
		scan = event_ranges_begin(store, snapshot);
	for (int i = 0; i < n; i++)
	{
		if (currency && strcmp(accounts[i].currency, currency) != 0)
			continue;
		if (scan)
			member_account_at(store, snapshot, scan, &accounts[i], PG_GETARG_TIMESTAMPTZ(2));
		put_balance((ReturnSetInfo *) fcinfo->resultinfo, store, member, &accounts[i]);
	}
	if (scan)
		event_scan_end(scan);
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}
