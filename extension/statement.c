/*
 * statement.c
 *	  rebate.statement(): a member's account over a range of days.
 *
 * Statements go by book date, and an entry may have an earlier one than the entry
 * before it.  So balances are added up here, and those after each entry in the
 * ledger, which follow the order of posting, are not used.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"

#include "api.h"
#include "archive.h"
#include "collect.h"
#include "read.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(rebate_statement);

/* What an entry does to the bucket whose ledger account is "id" */
#define DELTA(id) \
	"CASE WHEN l.credit = " id " THEN l.amount WHEN l.debit = " id " THEN - l.amount ELSE 0 END"

#define BEFORE(bucket) \
	"max(account." bucket ") + coalesce(sum(movement." bucket ") FILTER (WHERE movement.book_date < $2), 0)"

#define BALANCE(bucket) "sum(line." bucket ") OVER w * account.unit"

/* What the account begins with, where entries may have been dropped, and where not */
static const char *const from_carried =
"coalesce(k.seq, 0) AS seq, coalesce(k.tracked, 0) AS tracked, coalesce(k.pending, 0) AS pending,"
" coalesce(k.maturing, 0) AS maturing, coalesce(k.available, 0) AS available, coalesce(k.held, 0) AS held"
"    FROM rebate_data.account a JOIN rebate_data.currency c ON c.code = a.currency"
"    LEFT JOIN rebate_data.carried k ON k.account_id = a.account_id";

static const char *const from_zero =
"0 AS seq, 0 AS tracked, 0 AS pending, 0 AS maturing, 0 AS available, 0 AS held"
"    FROM rebate_data.account a JOIN rebate_data.currency c ON c.code = a.currency";

static const char *const statement_sql =
"WITH account AS ("
"  SELECT a.account_id, a.currency, c.unit, %s"
"   WHERE a.member = $1 COLLATE \"C\" AND ($4 IS NULL OR a.currency = $4 COLLATE \"C\")),"
" movement AS MATERIALIZED ("
"  SELECT l.account_id, l.seq, l.book_date, l.posted_at, l.kind, l.source_id, l.order_key,"
"         l.rule_id, l.accrual_id, l.amount,"
"         " DELTA("1") " AS tracked, " DELTA("2") " AS pending, " DELTA("3") " AS maturing,"
"         " DELTA("4") " AS available, " DELTA("5") " AS held"
"    FROM account JOIN rebate_data.ledger l USING (account_id)"
"   WHERE l.book_date <= $3 AND l.seq > account.seq),"
" line AS ("
"  SELECT account_id, 1 AS place, book_date, seq, posted_at,"
"         CASE kind WHEN 'a' THEN 'accrue' WHEN 'r' THEN 'reverse' WHEN 'm' THEN 'move'"
"              WHEN 'w' THEN 'write_off' ELSE kind::text END AS line, source_id, order_key, rule_id, accrual_id, amount,"
"         tracked, pending, maturing, available, held"
"    FROM movement WHERE book_date >= $2"
"  UNION ALL"
"  SELECT account_id, 0, $2, NULL, NULL, 'opening', NULL, NULL, NULL, NULL, NULL,"
"         " BEFORE("tracked") ", " BEFORE("pending") ", " BEFORE("maturing") ","
"         " BEFORE("available") ", " BEFORE("held")
"    FROM account LEFT JOIN movement USING (account_id) GROUP BY account_id"
"  UNION ALL"
"  SELECT account_id, 2, $3, NULL, NULL, 'closing', NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0"
"    FROM account)"
" SELECT account.currency, line.line, line.book_date, line.seq, line.posted_at, s.relation_name,"
"        line.order_key, r.name, line.accrual_id, line.amount * account.unit,"
"        " BALANCE("tracked") ", " BALANCE("pending") ","
"        " BALANCE("maturing") ", " BALANCE("available") ", " BALANCE("held")
"   FROM line JOIN account USING (account_id)"
"   LEFT JOIN rebate_data.source s ON s.source_id = line.source_id"
"   LEFT JOIN rebate_data.rule r ON r.rule_id = line.rule_id"
" WINDOW w AS (PARTITION BY account.currency ORDER BY line.place, line.book_date, line.seq)"
"  ORDER BY account.currency, line.place, line.book_date, line.seq";

static char *
date_text(DateADT day)
{
	char		buf[MAXDATELEN + 1];
	struct pg_tm tm = {0};

	j2date(day + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	EncodeDateOnly(&tm, USE_ISO_DATES, buf);
	return pstrdup(buf);
}

/*
 * Raise if entries that the statement is about were dropped.  It is asked after the
 * statement, so that what was dropped meanwhile is not missed.
 */
static void
check_dropped(SqlParams *params)
{
	bool		isnull;
	Datum		last;

	sql_run("SELECT max(k.book_date)"
			"  FROM rebate_data.carried k JOIN rebate_data.account a ON a.account_id = k.account_id"
			" WHERE a.member = $1 COLLATE \"C\" AND ($4 IS NULL OR a.currency = $4 COLLATE \"C\")"
			"   AND k.book_date >= $2 AND $3 IS NOT NULL", params, SPI_OK_SELECT);
	last = sql_get(0, 1, &isnull);
	if (!isnull)
		ereport(ERROR,
				(errcode(ERRCODE_RB_ARCHIVED),
				 errmsg("entries of that time were exported and dropped"),
				 errdetail("The last of them is booked on %s.", date_text(DatumGetDateADT(last))),
				 errhint("Ask for a statement from %s on, or read what was exported.",
						 date_text(DatumGetDateADT(last) + 1))));
}

/*
 * rebate.statement(member, from, to, currency): the balances before the first
 * day, each movement booked on one of the days, and the balances after the last.
 * No first day: from the beginning; no last: to the end.
 */
Datum
rebate_statement(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	StoreSpi	scope;
	SqlParams	params = {0};
	DateADT		from = PG_ARGISNULL(1) ? DATEVAL_NOBEGIN : PG_GETARG_DATEADT(1);
	DateADT		to = PG_ARGISNULL(2) ? DATEVAL_NOEND : PG_GETARG_DATEADT(2);

	rights_check(store, RIGHT_AUDITOR, "rebate.statement");
	collect_flush();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the member must not be null")));
	if (from > to)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the first day of a statement must not be after its last")));
	InitMaterializedSRF(fcinfo, 0);
	sql_text(&params, api_text(fcinfo, 0));
	sql_param(&params, DATEOID, DateADTGetDatum(from), false);
	sql_param(&params, DATEOID, DateADTGetDatum(to), false);
	sql_text(&params, api_text(fcinfo, 3));
	store_spi_begin(store, &scope);
	sql_run(psprintf(statement_sql, archive_exists(store) ? from_carried : from_zero), &params,
			SPI_OK_SELECT);
	read_return_spi((ReturnSetInfo *) fcinfo->resultinfo);
	if (archive_exists(store))
		check_dropped(&params);
	store_spi_end(&scope);
	return (Datum) 0;
}
