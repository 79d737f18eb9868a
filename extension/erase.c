/*
 * erase.c
 *	  rebate.replace_member(), erase_member(), and the request that an erasure with
 *	  a balance takes.
 *
 * A member's key is in his accounts, once a currency; rebates and entries name the
 * account.  So both are about few rows.  The shop's own rows are the shop's: they
 * may keep the old key, which is known from then on as one that was replaced or
 * erased (former.c).
 */
#include "rebate.h"

#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"

#include "api.h"
#include "collect.h"
#include "erase_failed.h"
#include "former.h"
#include "guard.h"
#include "order.h"
#include "person.h"
#include "post_member.h"
#include "read.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(rebate_replace_member);
PG_FUNCTION_INFO_V1(rebate_request_erasure);
PG_FUNCTION_INFO_V1(rebate_withdraw_erasure);
PG_FUNCTION_INFO_V1(rebate_erase_member);
PG_FUNCTION_INFO_V1(rebate_erasure_requests);
PG_FUNCTION_INFO_V1(rebate_erasures);

#define PSEUDONYM_PREFIX	"erased-"
#define PSEUDONYM_BYTES		16

/* The store, once the caller may, and what his transaction has collected is posted */
static Store *
begin_call(int rights, const char *function, bool writes)
{
	Store	   *store = store_get(false);

	rights_check(store, rights, function);
	if (writes)
		PreventCommandIfReadOnly(function);
	store_require(store, 2, function);
	if (writes)
		(void) collect_flush();
	return store_get(false);
}

/*
 * An old snapshot would miss accounts, channels and messages that came after it,
 * and what was erased would not be.
 */
static void
require_new_snapshots(const char *function)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("%s cannot run in isolation level \"%s\"", function,
						XactIsoLevel == XACT_SERIALIZABLE ? "serializable" : "repeatable read"),
				 errdetail("It must see what others have committed meanwhile."),
				 errhint("BEGIN ISOLATION LEVEL READ COMMITTED.")));
}

/* A member's key as argument: not NULL, not empty, not too long to be kept */
static char *
member_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	char	   *member = api_text(fcinfo, argno);

	if (member == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	if (member[0] == '\0' || strlen(member) > MAX_KEY_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must have 1 to %d bytes", name, MAX_KEY_LENGTH)));
	return member;
}

/* Run one statement about a member's key, $1, and another text, $2. */
static uint64
run_about(Store *store, const char *sql, const char *member, const char *other, int expected)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	uint64		n;

	sql_text(&params, member);
	if (other)
		sql_text(&params, other);
	store_spi_begin(store, &scope);
	n = sql_run(sql, &params, expected);
	store_spi_end(&scope);
	CommandCounterIncrement();
	return n;
}

static bool
has_account(Store *store, const char *member)
{
	return run_about(store, "SELECT FROM rebate_data.account WHERE member = $1 COLLATE \"C\"",
					 member, NULL, SPI_OK_SELECT) > 0;
}

/* His channel's name was made of his old key. */
static void
close_channel(Store *store, const char *member)
{
	(void) run_about(store, "DELETE FROM rebate_data.channel WHERE member = $1 COLLATE \"C\"",
					 member, NULL, SPI_OK_DELETE);
	CacheInvalidateRelcacheByRelid(store->tables[ST_CHANNEL]);
}

/*----------------------------------------------------------------------------
 * Another key
 *----------------------------------------------------------------------------
 */

/* The new key must be nobody's, nor have been anybody else's. */
static void
check_new_key(Store *store, const char *member, const char *key)
{
	char	   *now;
	FormerKind	kind = former_find_now(store, key, &now);

	if (has_account(store, key))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("the new key is a member's already"),
				 errhint("Two members cannot be made one.")));
	if (kind == FORMER_ERASED)
		ereport(ERROR,
				(errcode(ERRCODE_RB_ERASURE_REFUSED),
				 errmsg("the new key is that of an erased member")));
	if (kind == FORMER_REPLACED && strcmp(now, member) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("the new key was another member's"),
				 errdetail("Orders with it still go to him.")));
	if (kind == FORMER_REPLACED)
		former_forget(store, key);
}

/*
 * rebate.replace_member(old, new): the member has another key from now on.  No
 * entry and no balance changes; orders with the old key go on to be his.
 */
Datum
rebate_replace_member(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call(RIGHT_ADMIN | RIGHT_OPERATOR, "rebate.replace_member", true);
	MemberChange change = {.member = member_argument(fcinfo, 0, "the old key")};

	require_new_snapshots("rebate.replace_member");
	change.now = member_argument(fcinfo, 1, "the new key");
	if (strcmp(change.member, change.now) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the new key is the old one")));
	former_lock_change(store, (const char *const[]) {change.member, change.now}, 2);
	former_check(store, change.member);
	check_new_key(store, change.member, change.now);

	post_change_member(store, &change);
	if (change.naccounts == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("member \"%s\" has no account", change.member),
				 errhint("rebate.balances lists who has one.")));
	former_redirect(store, change.member, change.now);
	former_record(store, change.member, change.now);
	close_channel(store, change.member);
	(void) run_about(store, "UPDATE rebate_data.login SET member = $2 WHERE member = $1 COLLATE \"C\"",
					 change.member, change.now, SPI_OK_UPDATE);
	(void) run_about(store, "UPDATE rebate_data.erasure_request SET member = $2"
					 " WHERE member = $1 COLLATE \"C\"", change.member, change.now, SPI_OK_UPDATE);
	PG_RETURN_VOID();
}

/*----------------------------------------------------------------------------
 * Erasure
 *----------------------------------------------------------------------------
 */

/*
 * rebate.request_erasure(member): one person asks for what another one does.
 */
Datum
rebate_request_erasure(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call(RIGHT_ADMIN | RIGHT_OPERATOR, "rebate.request_erasure", true);
	char	   *member = member_argument(fcinfo, 0, "the member");
	Person		person = person_now();
	StoreSpi	scope;
	SqlParams	params = {0};

	former_lock_open(store, (const char *const *) &member, 1);
	former_check(store, member);
	if (!has_account(store, member))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("member \"%s\" has no account", member),
				 errhint("rebate.erase_member() erases him at once.")));
	sql_text(&params, member);
	sql_text(&params, person.login);
	sql_param(&params, OIDOID, ObjectIdGetDatum(person.login_id), false);
	sql_text(&params, person.claim);
	store_spi_begin(store, &scope);
	sql_run("INSERT INTO rebate_data.erasure_request (member, requested_by, requested_by_id, requested_claim)"
			" VALUES ($1, $2, $3, $4)"
			" ON CONFLICT (member) DO UPDATE SET requested_at = excluded.requested_at,"
			"   requested_by = excluded.requested_by, requested_by_id = excluded.requested_by_id,"
			"   requested_claim = excluded.requested_claim", &params, SPI_OK_INSERT);
	store_spi_end(&scope);
	PG_RETURN_VOID();
}

/* rebate.withdraw_erasure(member): false if nobody had asked for it */
Datum
rebate_withdraw_erasure(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call(RIGHT_ADMIN | RIGHT_OPERATOR | RIGHT_APPROVER,
								   "rebate.withdraw_erasure", true);
	char	   *member = member_argument(fcinfo, 0, "the member");

	PG_RETURN_BOOL(run_about(store, "DELETE FROM rebate_data.erasure_request WHERE member = $1 COLLATE \"C\"",
							 member, NULL, SPI_OK_DELETE) > 0);
}

/* Who asked to erase the member; false: nobody.  The request is locked. */
static bool
read_request(Store *store, const char *member, Person *by)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	bool		found;
	bool		isnull;

	sql_text(&params, member);
	store_spi_begin(store, &scope);
	found = sql_run("SELECT requested_by, requested_by_id, requested_claim FROM rebate_data.erasure_request"
					" WHERE member = $1 COLLATE \"C\" FOR UPDATE", &params, SPI_OK_SELECT) > 0;
	if (found)
	{
		by->login = sql_get_text(0, 1, context);
		by->login_id = DatumGetObjectId(sql_get(0, 2, &isnull));
		by->claim = sql_get_text(0, 3, context);
	}
	store_spi_end(&scope);
	return found;
}

/* A balance is written off by two people: raise unless somebody else asked for it. */
static void
check_request(Store *store, const char *member)
{
	Person		by;
	Person		person = person_now();

	if (!read_request(store, member, &by))
		ereport(ERROR,
				(errcode(ERRCODE_RB_ERASURE_REFUSED),
				 errmsg("nobody has asked to write off what the member has"),
				 errhint("Let somebody else call rebate.request_erasure() first.")));
	if (person_same(&by, &person))
		ereport(ERROR,
				(errcode(ERRCODE_RB_ERASURE_REFUSED),
				 errmsg("who asks to write off a balance cannot agree to it"),
				 errdetail("It was asked for by %s; you are %s.", person_text(&by), person_text(&person)),
				 errhint("It takes two people, with logins of their own.")));
}

/* Write down who was erased, by whom, and who had asked for it. */
static void
record_erasure(Store *store, const MemberChange *change)
{
	StoreSpi	scope;
	SqlParams	params = {0};

	sql_text(&params, change->member);
	sql_text(&params, change->now);
	sql_text(&params, person_now().claim);
	store_spi_begin(store, &scope);
	sql_run("INSERT INTO rebate_data.erasure (member, erased_claim, requested_at, requested_by, requested_claim)"
			" SELECT $2, $3, r.requested_at, r.requested_by, r.requested_claim"
			"   FROM (VALUES (true)) v LEFT JOIN rebate_data.erasure_request r ON r.member = $1 COLLATE \"C\"",
			&params, SPI_OK_INSERT);
	store_spi_end(&scope);
}

/* What stands for an erased key: random, so that it leads to nobody */
static char *
make_pseudonym(void)
{
	uint8		random[PSEUDONYM_BYTES];
	char	   *result = palloc0(strlen(PSEUDONYM_PREFIX) + 2 * PSEUDONYM_BYTES + 1);

	if (!pg_strong_random(random, sizeof(random)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make a random name")));
	strcpy(result, PSEUDONYM_PREFIX);
	hex_encode((char *) random, PSEUDONYM_BYTES, result + strlen(PSEUDONYM_PREFIX));
	return result;
}

/* His orders that are settled, by the pseudonym $2 */
#define HIS_ORDER(source, key) \
	"EXISTS (SELECT FROM rebate_data.accrual x JOIN rebate_data.account a ON a.account_id = x.account_id" \
	"         WHERE a.member = $2 COLLATE \"C\" AND x.flags & 16392 = 16392" \
	"           AND x.source_id = " source " AND x.order_key = " key ")"

/* The key where it stands by itself in a text, as a pattern; every other character is taken literally */
#define KEY_PATTERN \
	"('(?<![[:alnum:]])' || regexp_replace($1 COLLATE \"C\", '([^[:alnum:]])', '\\\\\\1', 'g')" \
	" || '(?![[:alnum:]])') COLLATE \"C\""

/* How much of the key a text ends with, in characters, if it was clipped and may have lost the rest */
#define CLIPPED_KEY(text) \
	"CASE WHEN octet_length(" text ") > " CppAsString2(MAX_MESSAGE_LENGTH) " - " CppAsString2(MAX_MULTIBYTE_CHAR_LEN) \
	" THEN (SELECT coalesce(max(n), 0) FROM generate_series(1, length($1) - 1) n" \
	"        WHERE right(" text ", n) = left($1, n) COLLATE \"C\"" \
	"          AND left(right(" text ", n + 1), 1) !~ '[[:alnum:]]' COLLATE \"C\") ELSE 0 END"

/* The text without that */
#define WITHOUT_CLIPPED_KEY(text) \
	"CASE WHEN " CLIPPED_KEY(text) " > 0 THEN left(" text ", - (" CLIPPED_KEY(text) ")) || '(erased)' ELSE " text " END"

/*
 * Everything else that names him, or quotes a row of his: $1 is his key, $2 the
 * pseudonym.
 */
static const char *const erase_texts[] = {
	"DELETE FROM rebate_data.failure f WHERE " HIS_ORDER("f.source_id", "f.order_key"),
	/* messages may quote values of rows of his, also under another order */
	"UPDATE rebate_data.failure SET message = regexp_replace(message, " KEY_PATTERN ", '(erased)', 'g'),"
	"  detail = regexp_replace(detail, " KEY_PATTERN ", '(erased)', 'g')"
	" WHERE message ~ " KEY_PATTERN " OR detail ~ " KEY_PATTERN,
	"UPDATE rebate_data.failure SET message = " WITHOUT_CLIPPED_KEY("message") ", detail = " WITHOUT_CLIPPED_KEY("detail")
	" WHERE " CLIPPED_KEY("message") " > 0 OR " CLIPPED_KEY("detail") " > 0",
	"UPDATE rebate_data.freeze f SET reason = 'erased ' || n.n"
	"  FROM (SELECT o.source_id, o.order_key, o.frozen_at, o.reason, row_number() OVER"
	"          (PARTITION BY o.source_id, o.order_key, o.frozen_at ORDER BY o.reason) AS n"
	"          FROM rebate_data.freeze o WHERE " HIS_ORDER("o.source_id", "o.order_key") ") n"
	" WHERE f.source_id = n.source_id AND f.order_key = n.order_key AND f.frozen_at = n.frozen_at"
	"   AND f.reason = n.reason",
	/* of orders it is not known whose they are; the next audit finds again what is still there */
	"DELETE FROM rebate_data.finding f"
	" WHERE f.part = 'source' OR f.subject ~ " KEY_PATTERN " OR f.detail ~ " KEY_PATTERN
	"    OR EXISTS (SELECT FROM rebate_data.source s, rebate_data.accrual x, rebate_data.account a"
	"                WHERE a.member = $2 COLLATE \"C\" AND x.account_id = a.account_id AND s.source_id = x.source_id"
	"                  AND f.subject IN (s.relation_name || ', order ' || x.order_key,"
	"                                    'source ' || x.source_id || ', order ' || x.order_key))",
};

/* Statistics of the planner have values of rows: columns of texts of ours that have $1 */
static const char statistics_sql[] =
	"SELECT c.oid, a.attnum, format('ANALYZE rebate_data.%I (%I)', c.relname, a.attname)"
	"  FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename AND c.relnamespace = 'rebate_data'::regnamespace"
	"  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = s.attname"
	" WHERE s.schemaname = 'rebate_data' AND a.atttypid = 'text'::regtype AND a.attname <> 'order_key'"
	"   AND EXISTS (SELECT FROM unnest(s.most_common_vals::text::text[] || s.histogram_bounds::text::text[]) v"
	"                WHERE v ~ " KEY_PATTERN ")";

/*
 * A large table may not be analysed again for a long time, and one that is empty by
 * now never is; so what is known of the column goes first.  The lock keeps out
 * an ANALYZE that has read the rows as they were.
 */
static void
erase_statistics(Store *store, const char *member)
{
	StoreSpi	scope;
	SqlParams	params = {0};
	uint64		n;
	List	   *commands = NIL;
	ListCell   *lc;

	sql_text(&params, member);
	store_spi_begin(store, &scope);
	n = sql_run(statistics_sql, &params, SPI_OK_SELECT);
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Oid			relid = DatumGetObjectId(sql_get(i, 1, &isnull));

		LockRelationOid(relid, ShareUpdateExclusiveLock);
		RemoveStatistics(relid, DatumGetInt16(sql_get(i, 2, &isnull)));
		commands = lappend(commands, sql_get_text(i, 3, CurrentMemoryContext));
	}
	CommandCounterIncrement();
	foreach(lc, commands)
		sql_run(lfirst(lc), NULL, SPI_OK_UTILITY);
	store_spi_end(&scope);
}

static void
erase_traces(Store *store, const char *member, const char *pseudonym)
{
	for (int i = 0; i < (int) lengthof(erase_texts); i++)
		(void) run_about(store, erase_texts[i], member, pseudonym,
						 strncmp(erase_texts[i], "DELETE", 6) == 0 ? SPI_OK_DELETE : SPI_OK_UPDATE);
	erase_statistics(store, member);
}

/* Who writes a balance off is the second of two persons, so being the owner does not suffice. */
static Store *
begin_erasure(bool write_off)
{
	Store	   *store = begin_call(RIGHT_ADMIN | RIGHT_OPERATOR | RIGHT_APPROVER,
								   "rebate.erase_member", true);

	if (write_off)
		rights_check_granted(store, RIGHT_APPROVER, "rebate.erase_member");
	return store;
}

/*
 * rebate.erase_member(member, write_off): returns the pseudonym that his accounts
 * have from now on; NULL if he had none.  Called again it erases what came back
 * since, such as the error of an order.
 */
Datum
rebate_erase_member(PG_FUNCTION_ARGS)
{
	bool		write_off = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	Store	   *store = begin_erasure(write_off);
	MemberChange change = {
		.member = member_argument(fcinfo, 0, "the member"),
		.now = make_pseudonym(),
		.erase = true,
		.write_off = write_off
	};
	FailedOrders *failed;
	char	   *now;
	bool		again;

	require_new_snapshots("rebate.erase_member");
	failed = failed_look(store, change.member);
	former_lock_change(store, (const char *const *) &change.member, 1);
	again = former_find_now(store, change.member, &now) == FORMER_ERASED;
	if (!again)
		former_check(store, change.member);
	if (write_off)
		check_request(store, change.member);

	post_change_member(store, &change);
	if (change.naccounts > 0)
	{
		former_redirect(store, change.member, NULL);
		former_record(store, change.now, NULL);
		record_erasure(store, &change);
	}
	else
		ereport(NOTICE,
				(again ? errmsg("the member is erased already") :
				 errmsg("the member has no account"),
				 again ? 0 : errdetail("Orders with this key earn nothing from now on.")));
	former_record(store, change.member, NULL);
	close_channel(store, change.member);
	(void) run_about(store, "DELETE FROM rebate_data.login WHERE member = $1 COLLATE \"C\"",
					 change.member, NULL, SPI_OK_DELETE);
	(void) run_about(store, "DELETE FROM rebate_data.erasure_request WHERE member = $1 COLLATE \"C\"",
					 change.member, NULL, SPI_OK_DELETE);
	erase_traces(store, change.member, change.now);
	failed_decide(failed);
	if (change.naccounts == 0)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(change.now));
}

/*----------------------------------------------------------------------------
 * Lists
 *----------------------------------------------------------------------------
 */

/* As person_text() has it */
#define PERSON_TEXT(act)	act "_by || COALESCE(', for ' || " act "_claim, '')"

static Datum
return_list(FunctionCallInfo fcinfo, Store *store, const char *sql)
{
	StoreSpi	scope;

	InitMaterializedSRF(fcinfo, 0);
	store_spi_begin(store, &scope);
	sql_run(sql, NULL, SPI_OK_SELECT);
	read_return_spi((ReturnSetInfo *) fcinfo->resultinfo);
	store_spi_end(&scope);
	return (Datum) 0;
}

/* rebate.erasure_requests(): what waits for a second person */
Datum
rebate_erasure_requests(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call(RIGHT_ADMIN | RIGHT_OPERATOR | RIGHT_APPROVER | RIGHT_AUDITOR,
								   "rebate.erasure_requests", false);

	return return_list(fcinfo, store,
					   "SELECT member, requested_at, " PERSON_TEXT("requested") " FROM rebate_data.erasure_request"
					   " ORDER BY requested_at, member");
}

/* rebate.erasures(): who was erased, by pseudonym, and by whom */
Datum
rebate_erasures(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_call(RIGHT_ADMIN | RIGHT_OPERATOR | RIGHT_APPROVER | RIGHT_AUDITOR,
								   "rebate.erasures", false);

	return return_list(fcinfo, store,
					   "SELECT member, erased_at, " PERSON_TEXT("erased") ", requested_at, " PERSON_TEXT("requested")
					   "  FROM rebate_data.erasure ORDER BY erased_at, member");
}
