/*
 * event.c
 *	  The JSON of an event.
 *
 * Written as text, field by field, since clients read hundreds of thousands of
 * them at a time.  What is the same in many events is written once and copied.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "event.h"

/* Columns of rebate_data.rule and rebate_data.source */
#define RULE_NAME				2
#define SOURCE_RELATION_NAME	3
#define SOURCE_KEY_COLUMNS		5

/* A rule or an order table, by id */
typedef struct NamedThing
{
	int32		id;				/* hash key */
	char	   *name;			/* quoted as JSON; NULL: there is none */
	int			nkeys;			/* of a table */
	char	  **keys;			/* the same, quoted */
} NamedThing;

/* What was looked up in the span of event_names_begin() */
typedef struct Names
{
	MemoryContext context;
	MemoryContextCallback forget;
	Snapshot	snapshot;
	Relation	account_rel;
	Relation	account_index;
	IndexScanDesc account_scan;
	TupleTableSlot *account_slot;
	HTAB	   *rules;
	HTAB	   *sources;
	/* the account of the last event */
	int64		account_id;		/* 0: none */
	int			scale;
	StringInfoData head;		/* from the first brace to the sequence */
	StringInfoData owner;		/* member and currency */
} Names;

static Names *names = NULL;

static void
forget_names(void *arg)
{
	names = NULL;
}

static void
open_accounts(Store *store)
{
	names->snapshot = RegisterSnapshot(GetLatestSnapshot());
	names->account_scan = index_beginscan_compat(names->account_rel, names->account_index,
												 names->snapshot, 1);
}

static void
close_accounts(void)
{
	index_endscan(names->account_scan);
	UnregisterSnapshot(names->snapshot);
}

static HTAB *
make_table(const char *name)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(NamedThing);
	ctl.hcxt = names->context;
	return hash_create(name, 32, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

bool
event_names_begin(Store *store)
{
	MemoryContext context;
	MemoryContext old;

	if (names)
		return false;

	/* goes with the subtransaction, as relations and snapshots do after an error */
	context = AllocSetContextCreate(CurTransactionContext, "rebate event names",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	names = palloc0(sizeof(Names));
	names->context = context;
	names->forget.func = forget_names;
	MemoryContextRegisterResetCallback(context, &names->forget);
	names->rules = make_table("rebate event rules");
	names->sources = make_table("rebate event sources");
	initStringInfo(&names->head);
	initStringInfo(&names->owner);
	names->account_rel = store_open(store, ST_ACCOUNT, AccessShareLock);
	names->account_index = index_open(store->indexes[SI_ACCOUNT_ID], AccessShareLock);
	names->account_slot = table_slot_create(names->account_rel, NULL);
	open_accounts(store);
	MemoryContextSwitchTo(old);
	return true;
}

void
event_names_end(void)
{
	close_accounts();
	ExecDropSingleTupleTableSlot(names->account_slot);
	index_close(names->account_index, AccessShareLock);
	table_close(names->account_rel, AccessShareLock);
	MemoryContextDelete(names->context);
}

/* A text as JSON string in memory that lives as long as the names */
static char *
quoted(const char *str)
{
	StringInfoData buf;

	initStringInfo(&buf);
	escape_json(&buf, str);
	return buf.data;
}

/* The columns of an order table's key */
static void
read_key_columns(NamedThing *thing, Datum columns)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(columns), TEXTOID, -1, false, TYPALIGN_INT, &values,
					  &nulls, &n);
	thing->keys = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		thing->keys[i] = quoted(nulls[i] ? "" : TextDatumGetCString(values[i]));
	thing->nkeys = n;
}

/*
 * The row of a small table of the store with this id, its first column, looked
 * for in the index of the primary key.
 */
static void
read_thing(Store *store, NamedThing *thing, StoreTable which, StoreIndex primary_key,
		   int name_column, int key_column)
{
	Relation	rel = store_open(store, which, AccessShareLock);
	Snapshot	snapshot;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(thing->id));
	scan = systable_beginscan(rel, store->indexes[primary_key], true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		Datum		value = heap_getattr(tuple, name_column, desc, &isnull);

		if (!isnull)
			thing->name = quoted(TextDatumGetCString(value));
		if (key_column > 0)
		{
			value = heap_getattr(tuple, key_column, desc, &isnull);
			if (!isnull)
				read_key_columns(thing, value);
		}
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

static NamedThing *
find_thing(bool is_rule, int32 id)
{
	HTAB	   *table = is_rule ? names->rules : names->sources;
	NamedThing *thing = hash_search(table, &id, HASH_FIND, NULL);
	NamedThing	found = {.id = id};
	MemoryContext old;

	if (thing)
		return thing;
	old = MemoryContextSwitchTo(names->context);
	if (is_rule)
		read_thing(store_get(false), &found, ST_RULE, SI_RULE, RULE_NAME, 0);
	else
		read_thing(store_get(false), &found, ST_SOURCE, SI_SOURCE, SOURCE_RELATION_NAME,
				   SOURCE_KEY_COLUMNS);
	MemoryContextSwitchTo(old);
	thing = hash_search(table, &id, HASH_ENTER, NULL);
	*thing = found;
	return thing;
}

static bool
fetch_account(int64 account_id)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(account_id));
	index_rescan(names->account_scan, &key, 1, NULL, 0);
	return index_getnext_slot(names->account_scan, ForwardScanDirection, names->account_slot);
}

/* Write what all events of an account begin with, and who owns it. */
static void
use_account(Store *store, int64 account_id)
{
	TupleTableSlot *slot = names->account_slot;
	MemoryContext old = MemoryContextSwitchTo(names->context);
	CurrencyInfo *currency;
	char	   *str;
	bool		found;

	names->account_id = 0;
	found = fetch_account(account_id);
	if (!found)
	{
		/* it may have been opened since */
		close_accounts();
		open_accounts(store);
		found = fetch_account(account_id);
	}
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("account " INT64_FORMAT " is missing", account_id),
				 errhint("Restore it; rebate.audit() lists what is wrong.")));
	slot_getallattrs(slot);

	resetStringInfo(&names->head);
	str = DatumGetCString(DirectFunctionCall1(uuid_out, slot->tts_values[AC_HANDLE - 1]));
	appendStringInfo(&names->head, "{\"v\": 1, \"account\": \"%s\", \"seq\": \"", str);
	pfree(str);

	resetStringInfo(&names->owner);
	appendStringInfoString(&names->owner, "\", \"member\": ");
	str = TextDatumGetCString(slot->tts_values[AC_MEMBER - 1]);
	escape_json(&names->owner, str);
	pfree(str);
	appendStringInfoString(&names->owner, ", \"currency\": ");
	str = TextDatumGetCString(slot->tts_values[AC_CURRENCY - 1]);
	escape_json(&names->owner, str);
	currency = store_currency(store, str);
	if (currency == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("currency \"%s\" of account " INT64_FORMAT " is missing", str, account_id),
				 errhint("Restore it in table \"%s.currency\".", STORE_SCHEMA)));
	pfree(str);
	names->scale = currency->scale;
	ExecClearTuple(slot);
	MemoryContextSwitchTo(old);
	names->account_id = account_id;
}

#define put_literal(buf, literal) \
	appendBinaryStringInfo(buf, literal, sizeof(literal) - 1)

static void
put_int(StringInfo buf, int64 value)
{
	enlargeStringInfo(buf, MAXINT8LEN + 1);
	buf->len += pg_lltoa(value, buf->data + buf->len);
}

/* Minor units as a decimal of this scale, at most 12 */
static void
put_money(StringInfo buf, int64 amount, int scale)
{
	uint64		absolute = amount < 0 ? -(uint64) amount : (uint64) amount;
	char		digits[MAXINT8LEN + 1];
	int			n = pg_ulltoa_n(absolute, digits);
	int			whole = n > scale ? n - scale : 0;

	enlargeStringInfo(buf, MAXINT8LEN + 16);
	if (amount < 0)
		buf->data[buf->len++] = '-';
	if (whole == 0)
		buf->data[buf->len++] = '0';
	memcpy(buf->data + buf->len, digits, whole);
	buf->len += whole;
	if (scale > 0)
	{
		buf->data[buf->len++] = '.';
		for (int i = n; i < scale; i++)
			buf->data[buf->len++] = '0';
		memcpy(buf->data + buf->len, digits + whole, n - whole);
		buf->len += n - whole;
	}
	buf->data[buf->len] = '\0';
}

/* "width" digits, or more if the number has more */
static inline char *
put_digits(char *p, int value, int width)
{
	return pg_ultostr_zeropad(p, (uint32) value, width);
}

/* Orders may be some years older than year 1; RFC 3339 has no way to say so. */
static char *
put_ymd(char *p, int year, int month, int day)
{
	if (year < 0)
		*p++ = '-';
	p = put_digits(p, abs(year), 4);
	*p++ = '-';
	p = put_digits(p, month, 2);
	*p++ = '-';
	return put_digits(p, day, 2);
}

/* RFC 3339 in UTC; null for what no entry should have: an infinite time. */
static void
put_time(StringInfo buf, TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char	   *p;

	if (TIMESTAMP_NOT_FINITE(time))
	{
		put_literal(buf, "null");
		return;
	}
	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	enlargeStringInfo(buf, 40);
	p = buf->data + buf->len;
	*p++ = '"';
	p = put_ymd(p, tm.tm_year, tm.tm_mon, tm.tm_mday);
	*p++ = 'T';
	p = put_digits(p, tm.tm_hour, 2);
	*p++ = ':';
	p = put_digits(p, tm.tm_min, 2);
	*p++ = ':';
	p = put_digits(p, tm.tm_sec, 2);
	*p++ = '.';
	p = put_digits(p, fsec, 6);
	*p++ = 'Z';
	*p++ = '"';
	*p = '\0';
	buf->len = p - buf->data;
}

static void
put_date(StringInfo buf, DateADT date)
{
	int			year,
				month,
				day;
	char	   *p;

	if (DATE_NOT_FINITE(date))
	{
		put_literal(buf, "null");
		return;
	}
	j2date(date + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	enlargeStringInfo(buf, 24);
	p = buf->data + buf->len;
	*p++ = '"';
	p = put_ymd(p, year, month, day);
	*p++ = '"';
	*p = '\0';
	buf->len = p - buf->data;
}

/* The bucket of one side of an entry; null for what is outside the account. */
static void
put_bucket(StringInfo buf, int32 ledger_account)
{
	if (ledger_is_bucket(ledger_account))
	{
		appendStringInfoChar(buf, '"');
		appendStringInfoString(buf, bucket_names[ledger_account - LEDGER_BUCKET(0)]);
		appendStringInfoChar(buf, '"');
	}
	else
		put_literal(buf, "null");
}

static void
put_balance(StringInfo buf, const int64 *balance)
{
	put_literal(buf, ", \"balance\": {");
	for (int b = 0; b < NUM_BUCKETS; b++)
	{
		if (b > 0)
			put_literal(buf, ", ");
		appendStringInfoChar(buf, '"');
		appendStringInfoString(buf, bucket_names[b]);
		put_literal(buf, "\": \"");
		put_money(buf, balance[b], names->scale);
		appendStringInfoChar(buf, '"');
	}
	appendStringInfoChar(buf, '}');
}

/*
 * The key of an order as an object.  The key of several columns is a JSON array
 * of texts already (see canon_key()), whose members are copied as they are.
 */
static void
put_order(StringInfo buf, const NamedThing *source, const char *key)
{
	const char *p = key + 1;

	appendStringInfoChar(buf, '{');
	if (source->nkeys == 1)
	{
		appendStringInfoString(buf, source->keys[0]);
		put_literal(buf, ": ");
		escape_json(buf, key);
	}
	for (int i = 0; source->nkeys > 1 && i < source->nkeys && *p == '"'; i++)
	{
		const char *start = p++;

		while (*p != '\0' && *p != '"')
			p += *p == '\\' && p[1] != '\0' ? 2 : 1;
		if (*p == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_RB_STORE_DAMAGED),
					 errmsg("the key of an order is not as it was written"),
					 errdetail("It is \"%s\".", key),
					 errhint("Restore the store from a backup.")));
		p++;
		if (i > 0)
			put_literal(buf, ", ");
		appendStringInfoString(buf, source->keys[i]);
		put_literal(buf, ": ");
		appendBinaryStringInfo(buf, start, p - start);
		if (p[0] == ',' && p[1] == ' ')
			p += 2;
	}
	appendStringInfoChar(buf, '}');
}

static void
put_source(StringInfo buf, const EventRow *row)
{
	NamedThing *source = row->source_id != 0 ? find_thing(false, row->source_id) : NULL;

	appendStringInfoString(buf, source && source->name ? source->name : "null");
	put_literal(buf, ", \"order\": ");
	if (source && source->name && row->order_key)
		put_order(buf, source, row->order_key);
	else
		put_literal(buf, "null");
}

static void
put_event(StringInfo buf, const EventRow *row)
{
	const EntryFields *e = &row->fields;
	NamedThing *rule = e->rule_id != 0 ? find_thing(true, e->rule_id) : NULL;

	appendBinaryStringInfo(buf, names->head.data, names->head.len);
	put_int(buf, e->seq);
	appendBinaryStringInfo(buf, names->owner.data, names->owner.len);
	put_literal(buf, ", \"kind\": \"");
	appendStringInfoString(buf, entry_kind_name(e->kind));
	put_literal(buf, "\", \"amount\": \"");
	put_money(buf, e->amount, names->scale);
	put_literal(buf, "\", \"from\": ");
	put_bucket(buf, e->debit);
	put_literal(buf, ", \"to\": ");
	put_bucket(buf, e->credit);
	put_balance(buf, row->balance);
	put_literal(buf, ", \"rule\": ");
	appendStringInfoString(buf, rule && rule->name ? rule->name : "null");
	put_literal(buf, ", \"source\": ");
	put_source(buf, row);
	put_literal(buf, ", \"accrual_id\": ");
	if (e->accrual_id != 0)
	{
		appendStringInfoChar(buf, '"');
		put_int(buf, e->accrual_id);
		appendStringInfoChar(buf, '"');
	}
	else
		put_literal(buf, "null");
	put_literal(buf, ", \"posting_id\": \"");
	put_int(buf, e->posting_id);
	put_literal(buf, "\", \"event_at\": ");
	put_time(buf, e->event_at);
	put_literal(buf, ", \"posted_at\": ");
	put_time(buf, e->posted_at);
	put_literal(buf, ", \"effective_date\": ");
	put_date(buf, e->effective_date);
	put_literal(buf, ", \"book_date\": ");
	put_date(buf, e->book_date);
	appendStringInfoChar(buf, '}');
}

void
event_to_json(Store *store, StringInfo buf, const EventRow *row)
{
	bool		opened = event_names_begin(store);

	if (names->account_id != row->fields.account_id)
		use_account(store, row->fields.account_id);
	put_event(buf, row);
	if (opened)
		event_names_end();
}
