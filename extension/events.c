/*
 * events.c
 *	  rebate.events(), rebate.my_events() and their cursors: the events of one
 *	  member.
 *
 * A member's cursor holds, for each of his accounts, the entry that was read last
 * and its check, which is chained over all entries before it.  So the server can
 * tell that what was read is still there, whatever happened to it meanwhile.
 * Works on a standby: nothing is written or locked.
 */
#include "rebate.h"

#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "archive.h"
#include "collect.h"
#include "cursor.h"
#include "event.h"
#include "identity.h"
#include "member_account.h"
#include "rights.h"
#include "wal_flush.h"

PG_FUNCTION_INFO_V1(rebate_events);
PG_FUNCTION_INFO_V1(rebate_events_cursor);
PG_FUNCTION_INFO_V1(rebate_my_events);
PG_FUNCTION_INFO_V1(rebate_my_events_cursor);

/* A call of events() or events_cursor() */
typedef struct MemberCall
{
	Store	   *store;
	ReturnSetInfo *result;
	Snapshot	snapshot;
	MemberAccount *accounts;	/* by currency */
	MemberPlace *places;		/* of the same accounts */
	Boundary   *archived;		/* of them: what lies before is not read here */
	int			naccounts;
	int			reading;		/* the account whose entries come */
	int64		left;
	StringInfoData cursor;
	StringInfoData event;
} MemberCall;

/* The store, after checking who calls and posting what waits. */
static Store *
begin_function(const char *function, int rights)
{
	Store	   *store = store_get(false);

	rights_check(store, rights, function);
	if (!RecoveryInProgress())
		collect_flush();
	return store;
}

/* Argument 0, the member whose events are asked for */
static char *
member_argument(FunctionCallInfo fcinfo)
{
	char	   *member = api_text(fcinfo, 0);

	if (member == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the member must not be null")));
	return member;
}

/*
 * The accounts of a member, nothing of them read yet.  The snapshot comes before
 * the flush of WAL: nothing is returned that a crash could take back.
 */
static void
begin_call(MemberCall *call, Store *store, const char *member)
{
	memset(call, 0, sizeof(*call));
	call->store = store;
	initStringInfo(&call->cursor);
	initStringInfo(&call->event);
	call->snapshot = RegisterSnapshot(GetLatestSnapshot());
	wal_flush_inserted();
	call->accounts = member_accounts(store, call->snapshot, member, &call->naccounts);
	call->places = palloc0(sizeof(MemberPlace) * Max(call->naccounts, 1));
	call->archived = palloc(sizeof(Boundary) * Max(call->naccounts, 1));
	for (int i = 0; i < call->naccounts; i++)
	{
		call->places[i].currency = call->accounts[i].currency;
		call->archived[i] = archive_boundary(store, call->snapshot, call->accounts[i].account_id);
	}
}

static void
refuse_place(const MemberPlace *place, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_CURSOR_REFUSED),
			 errmsg("the cursor is of another history than this server's"),
			 errdetail("Entry " INT64_FORMAT " of the account in %s %s.", place->seq,
					   place->currency, problem),
			 errhint("Read from the beginning, or from rebate.events_cursor(), and compare.")));
}

static void
compare_check(void *arg, const EventRow *row)
{
	MemberPlace *place = arg;

	if (row->check != place->check)
		refuse_place(place, "is another one than it has seen");
}

/*
 * Raise if entries that the reader has not seen are archived: he would take the
 * rest for all there was.  The hint has the cursor that lies behind them.
 */
static void
check_archive(MemberCall *call)
{
	int			missing = -1;

	for (int i = 0; i < call->naccounts; i++)
	{
		MemberPlace *place = &call->places[i];
		const Boundary *archived = &call->archived[i];

		if (place->seq >= archived->seq)
			continue;
		if (missing < 0)
			missing = i;
		place->seq = archived->seq;
		place->check = archived->check;
	}
	if (missing < 0)
		return;
	resetStringInfo(&call->cursor);
	member_cursor_write(&call->cursor, call->places, call->naccounts);
	ereport(ERROR,
			(errcode(ERRCODE_RB_ARCHIVED),
			 errmsg("entries that the cursor has not seen are archived"),
			 errdetail("Of the account in %s those up to entry " INT64_FORMAT ".",
					   call->accounts[missing].currency, call->archived[missing].seq),
			 errhint("Read them from rebate.entries, or rebate.my_entries, then go on with cursor %s.",
					 quote_literal_cstr(call->cursor.data))));
}

/* Is the entry of a cursor there?  Those before the boundary are not looked for. */
static bool
place_is_there(MemberCall *call, int i, MemberPlace *given)
{
	const Boundary *archived = &call->archived[i];


	if (given->seq < archived->seq)
		return true;
	if (given->seq == archived->seq)
	{
		if (given->check != archived->check)
			refuse_place(given, "is another one than it has seen");
		return true;
	}
	return event_read(call->store, call->snapshot, call->accounts[i].account_id, given->seq - 1,
					  given->seq, 1, compare_check, given) > 0;
}

/* Take over the places of a cursor, after comparing them with what is there. */
static void
use_cursor(MemberCall *call, const char *text)
{
	int			n;
	MemberPlace *given = member_cursor_parse(text, &n);

	/* both are in the order of their currencies */
	for (int i = 0, j = 0; i < n; i++)
	{
		while (j < call->naccounts &&
			   strcmp(call->accounts[j].currency, given[i].currency) < 0)
			j++;
		if (j == call->naccounts ||
			strcmp(call->accounts[j].currency, given[i].currency) != 0 ||
			!place_is_there(call, j, &given[i]))
			refuse_place(&given[i], "is not there");
		call->places[j].seq = given[i].seq;
		call->places[j].check = given[i].check;
	}
}

/*
 * Return one event.  Those of the current transaction, which may yet roll back,
 * are the last of their account.
 */
static void
put_event(void *arg, const EventRow *row)
{
	MemberCall *call = arg;
	MemberPlace *place = &call->places[call->reading];
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};

	CHECK_FOR_INTERRUPTS();
	if (event_is_own(call->store, row))
		return;
	place->seq = row->fields.seq;
	place->check = row->check;
	resetStringInfo(&call->cursor);
	member_cursor_write(&call->cursor, call->places, call->naccounts);
	resetStringInfo(&call->event);
	event_to_json(call->store, &call->event, row);

	values[0] = Int64GetDatum(row->fields.seq);
	values[1] = CStringGetTextDatum(place->currency);
	values[2] = PointerGetDatum(cstring_to_text_with_len(call->cursor.data, call->cursor.len));
	values[3] = PointerGetDatum(cstring_to_text_with_len(call->event.data, call->event.len));
	tuplestore_putvalues(call->result->setResult, call->result->setDesc, values, nulls);
	for (int i = 1; i < 4; i++)
		pfree(DatumGetPointer(values[i]));
	call->left--;
}

/* An argument that says how many events at most */
static int32
limit_argument(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the limit must not be null")));
	if (PG_GETARG_INT32(argno) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the limit must be at least 1")));
	return PG_GETARG_INT32(argno);
}

/* Return the events of a member behind a cursor (NULL: from the beginning). */
static void
return_events(FunctionCallInfo fcinfo, Store *store, const char *member, const char *after,
			  int32 limit)
{
	MemberCall	call;
	bool		names;

	begin_call(&call, store, member);
	call.left = limit;
	call.result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (after)
		use_cursor(&call, after);
	check_archive(&call);

	names = event_names_begin(call.store);
	for (int i = 0; i < call.naccounts && call.left > 0; i++)
	{
		call.reading = i;
		(void) event_read(call.store, call.snapshot, call.accounts[i].account_id,
						  call.places[i].seq, call.accounts[i].last_entry, call.left, put_event,
						  &call);
	}
	if (names)
		event_names_end();
	UnregisterSnapshot(call.snapshot);
}

/* rebate.events(member, after, limit) */
Datum
rebate_events(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_function("rebate.events", RIGHT_AUDITOR);
	char	   *member = member_argument(fcinfo);
	char	   *after = api_text(fcinfo, 1);
	int32		limit = limit_argument(fcinfo, 2);

	InitMaterializedSRF(fcinfo, 0);
	return_events(fcinfo, store, member, after, limit);
	return (Datum) 0;
}

/* rebate.my_events(after, limit): of the current member, none if there is none */
Datum
rebate_my_events(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_function("rebate.my_events", RIGHT_MEMBER | RIGHT_GATEWAY);
	char	   *member = identity_member(store);
	char	   *after = api_text(fcinfo, 0);
	int32		limit = limit_argument(fcinfo, 1);

	InitMaterializedSRF(fcinfo, 0);
	if (member)
		return_events(fcinfo, store, member, after, limit);
	return (Datum) 0;
}

/* What look_at() finds */
typedef struct Found
{
	Store	   *store;
	bool		own;
	int64		check;
} Found;

static void
look_at(void *arg, const EventRow *row)
{
	Found	   *found = arg;

	found->own = event_is_own(found->store, row);
	found->check = row->check;
}

/*
 * The last entry of an account that is not of the current transaction: its own
 * are behind all others, so a binary search finds where they begin.  The last of
 * the others is never archived.
 */
static void
find_last(MemberCall *call, int i)
{
	MemberPlace *place = &call->places[i];
	int64		low = call->archived[i].seq,
				high = call->accounts[i].last_entry;
	int64		seq = high;

	place->seq = low;
	place->check = call->archived[i].check;
	while (low < high)
	{
		Found		found = {.store = call->store};

		if (event_read(call->store, call->snapshot, call->accounts[i].account_id, seq - 1, seq, 1,
					   look_at, &found) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("entry " INT64_FORMAT " of account " INT64_FORMAT " is missing", seq,
							call->accounts[i].account_id),
					 errhint("Restore it; rebate.audit() lists what is wrong.")));
		if (found.own)
			high = seq - 1;
		else
		{
			low = place->seq = seq;
			place->check = found.check;
		}
		seq = low + (high - low + 1) / 2;
	}
}

/* The cursor after all events of a member that are visible now */
static Datum
last_cursor(Store *store, const char *member)
{
	MemberCall	call;

	begin_call(&call, store, member);
	for (int i = 0; i < call.naccounts; i++)
		find_last(&call, i);
	member_cursor_write(&call.cursor, call.places, call.naccounts);
	UnregisterSnapshot(call.snapshot);
	return PointerGetDatum(cstring_to_text_with_len(call.cursor.data, call.cursor.len));
}

/* rebate.events_cursor(member) */
Datum
rebate_events_cursor(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_function("rebate.events_cursor", RIGHT_AUDITOR);

	return last_cursor(store, member_argument(fcinfo));
}

/* rebate.my_events_cursor(): of the current member, NULL if there is none */
Datum
rebate_my_events_cursor(PG_FUNCTION_ARGS)
{
	Store	   *store = begin_function("rebate.my_events_cursor", RIGHT_MEMBER | RIGHT_GATEWAY);
	char	   *member = identity_member(store);

	if (member == NULL)
		PG_RETURN_NULL();
	return last_cursor(store, member);
}
