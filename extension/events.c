/*
 * events.c
 *	  rebate.events() and rebate.events_cursor(): the events of one member.
 *
 * A member's cursor holds, for each of his accounts, the entry that was read last
 * and its check, which is chained over all entries before it.  So the server can
 * tell that what was read is still there, whatever happened to it meanwhile.
 * Works on a standby: nothing is written or locked.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "collect.h"
#include "cursor.h"
#include "event.h"
#include "rights.h"
#include "wal_flush.h"

PG_FUNCTION_INFO_V1(rebate_events);
PG_FUNCTION_INFO_V1(rebate_events_cursor);

/* One account of the member, and how far it was read */
typedef struct MemberAccount
{
	int64		account_id;
	int64		last_entry;
	char	   *currency;
} MemberAccount;

/* A call of events() or events_cursor() */
typedef struct MemberCall
{
	Store	   *store;
	ReturnSetInfo *result;
	Snapshot	snapshot;
	char	   *member;
	MemberAccount *accounts;	/* by currency */
	MemberPlace *places;		/* of the same accounts */
	int			naccounts;
	int			reading;		/* the account whose entries come */
	int64		left;
	StringInfoData cursor;
	StringInfoData event;
} MemberCall;

/* List the member's accounts in the order of their currencies. */
static void
find_accounts(MemberCall *call)
{
	Relation	rel = store_open(call->store, ST_ACCOUNT, AccessShareLock);
	Relation	index = index_open(call->store->indexes[SI_ACCOUNT_MEMBER], AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = index_beginscan_compat(rel, index, call->snapshot, 1);
	ScanKeyData key;
	int			allocated = 4;

	call->accounts = palloc(sizeof(MemberAccount) * allocated);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(call->member));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		MemberAccount *account;
		Form_account row;

		if (call->naccounts == allocated)
			call->accounts = repalloc(call->accounts, sizeof(MemberAccount) * (allocated *= 2));
		slot_getallattrs(slot);
		row = (Form_account) GETSTRUCT(ExecFetchSlotHeapTuple(slot, false, NULL));
		account = &call->accounts[call->naccounts++];
		account->account_id = row->account_id;
		account->last_entry = row->last_entry;
		account->currency = TextDatumGetCString(slot->tts_values[AC_CURRENCY - 1]);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);

	call->places = palloc0(sizeof(MemberPlace) * Max(call->naccounts, 1));
	for (int i = 0; i < call->naccounts; i++)
		call->places[i].currency = call->accounts[i].currency;
}

/*
 * What both functions do first.  The snapshot comes before the flush of WAL:
 * nothing is returned that a crash could take back.
 */
static void
begin_call(MemberCall *call, FunctionCallInfo fcinfo, const char *function)
{
	memset(call, 0, sizeof(*call));
	call->store = store_get(false);
	rights_check(call->store, RIGHT_AUDITOR, function);
	if (!RecoveryInProgress())
		collect_flush();
	call->member = api_text(fcinfo, 0);
	if (call->member == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the member must not be null")));
	initStringInfo(&call->cursor);
	initStringInfo(&call->event);
	call->snapshot = RegisterSnapshot(GetLatestSnapshot());
	wal_flush_inserted();
	find_accounts(call);
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
			event_read(call->store, call->snapshot, call->accounts[j].account_id,
					   given[i].seq - 1, given[i].seq, 1, compare_check, &given[i]) == 0)
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

/* rebate.events(member, after, limit) */
Datum
rebate_events(PG_FUNCTION_ARGS)
{
	char	   *after = api_text(fcinfo, 1);
	MemberCall	call;
	bool		names;

	begin_call(&call, fcinfo, "rebate.events");
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the limit must not be null")));
	call.left = PG_GETARG_INT32(2);
	if (call.left < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the limit must be at least 1")));
	InitMaterializedSRF(fcinfo, 0);
	call.result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (after)
		use_cursor(&call, after);

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
 * are behind all others, so a binary search finds where they begin.
 */
static void
find_last(MemberCall *call, int i)
{
	MemberPlace *place = &call->places[i];
	int64		low = 0,
				high = call->accounts[i].last_entry;
	int64		seq = high;

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

/* rebate.events_cursor(member): after all that is visible now */
Datum
rebate_events_cursor(PG_FUNCTION_ARGS)
{
	MemberCall	call;

	begin_call(&call, fcinfo, "rebate.events_cursor");
	for (int i = 0; i < call.naccounts; i++)
		find_last(&call, i);
	member_cursor_write(&call.cursor, call.places, call.naccounts);
	UnregisterSnapshot(call.snapshot);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(call.cursor.data, call.cursor.len));
}
