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

#include "api.h"
#include "collect.h"
#include "guard.h"
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

/*
 * rebate.balance(member, currency, at): balances now, or after the last entry
 * posted not later than a moment, found by binary search in the account's dense
 * sequence.
 */
Datum
rebate_balance(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	StoreSpi	scope;
	SqlParams	params = {0};

	rights_check(store, RIGHT_AUDITOR, "rebate.balance");
	collect_flush();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the member must not be null")));
	InitMaterializedSRF(fcinfo, 0);

	sql_text(&params, api_text(fcinfo, 0));
	sql_text(&params, api_text(fcinfo, 1));
	store_spi_begin(store, &scope);
	if (PG_ARGISNULL(2))
		sql_run("SELECT a.member, a.currency, a.tracked * c.unit, a.pending * c.unit,"
				"       a.maturing * c.unit, a.available * c.unit, a.held * c.unit, a.last_entry"
				"  FROM rebate_data.account a JOIN rebate_data.currency c ON c.code = a.currency"
				" WHERE a.member = $1 COLLATE \"C\" AND ($2 IS NULL OR a.currency = $2 COLLATE \"C\")"
				" ORDER BY a.currency", &params, SPI_OK_SELECT);
	else
	{
		sql_param(&params, TIMESTAMPTZOID, PG_GETARG_DATUM(2), false);

		/* posted times never decrease along an account's sequence */
		sql_run("WITH RECURSIVE search AS ("
				"  SELECT a.account_id, 0::bigint AS lo, a.last_entry AS hi"
				"    FROM rebate_data.account a"
				"   WHERE a.member = $1 COLLATE \"C\" AND ($2 IS NULL OR a.currency = $2 COLLATE \"C\")"
				"  UNION ALL"
				"  SELECT s.account_id, CASE WHEN e.posted_at <= $3 THEN m.mid ELSE s.lo END,"
				"         CASE WHEN e.posted_at <= $3 THEN s.hi ELSE m.mid - 1 END"
				"    FROM search s"
				"    CROSS JOIN LATERAL (SELECT (s.lo + s.hi + 1) / 2 AS mid) m"
				"    JOIN rebate_data.ledger e ON e.account_id = s.account_id AND e.seq = m.mid"
				"   WHERE s.lo < s.hi)"
				" SELECT a.member, a.currency, coalesce(e.tracked, 0) * c.unit,"
				"        coalesce(e.pending, 0) * c.unit, coalesce(e.maturing, 0) * c.unit,"
				"        coalesce(e.available, 0) * c.unit, coalesce(e.held, 0) * c.unit, s.lo"
				"   FROM search s JOIN rebate_data.account a ON a.account_id = s.account_id"
				"   JOIN rebate_data.currency c ON c.code = a.currency"
				"   LEFT JOIN rebate_data.ledger e ON e.account_id = s.account_id AND e.seq = s.lo"
				"  WHERE s.lo = s.hi ORDER BY a.currency", &params, SPI_OK_SELECT);
	}
	read_return_spi((ReturnSetInfo *) fcinfo->resultinfo);
	store_spi_end(&scope);
	return (Datum) 0;
}
