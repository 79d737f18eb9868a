/*
 * store_shape.c
 *	  What the tables of the store look like, and whether those that are there do.
 *
 * Rows of the store are read and written as C structures, and what queries give
 * is taken for the type that it should have.  So a table that was altered, or is
 * somebody else's, must be found out before the first row of it is touched: it
 * would be a wrong amount, or a crash.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "store_guard.h"
#include "store_shape.h"

/*
 * The columns of each table as in extension/sql/20-store.sql: name and type, "/C"
 * for that collation, "!" for NOT NULL, "=" for a default.  Tables that are
 * written as C structures have exactly these, and perhaps dropped ones at the end;
 * others may have more there, as those of a later version do.
 */
#define EXACT	true

static const struct
{
	const char *name;
	bool		exact;
	const char *columns;
	int32		since;			/* the version of the store that brought it; 0: the first */
	const char *added;			/* by version 2 to a table of version 1, anywhere behind those */
}			tables[NUM_STORE_TABLES] = {
	[ST_ACCOUNT] = {
		"account", EXACT,
		"account_id int8!, last_entry int8!, tracked int8!, pending int8!, maturing int8!, "
		"available int8!, held int8!, last_check int8!, last_posted timestamptz!, status char!, "
		"currency text/C!, member text/C!, opened_at timestamptz!, handle uuid!"
	},
	[ST_ACCRUAL] = {
		"accrual", EXACT,
		"accrual_id int8!, account_id int8!, source_id int4!, rule_id int4!, version int4!, "
		"generation int4!, first_seen timestamptz!, order_time timestamptz!, earned int8!, "
		"bucket char!, phase char!, flags int2!, part int2!, order_key text/C!, kind char, "
		"seq int8, posted_at timestamptz, xid int8, check int8, debit int4, credit int4, "
		"epoch int4, effective_date date, book_date date, amount int8, event_at timestamptz, "
		"posting_id int8, tracked int8, pending int8, maturing int8, available int8, held int8, "
		"confirmed_at timestamptz, due timestamptz, granted int8, level int2, base numeric, "
		"looked_up jsonb"
	},
	[ST_ENTRY] = {
		"entry", EXACT,
		"account_id int8!, accrual_id int8, payout_id int8, source_id int4, rule_id int4!, "
		"order_key text/C, kind char!, seq int8!, posted_at timestamptz!, xid int8!, check int8!, "
		"debit int4!, credit int4!, epoch int4!, effective_date date!, book_date date, "
		"amount int8!, event_at timestamptz!, posting_id int8, tracked int8, pending int8, "
		"maturing int8, available int8, held int8"
	},
	[ST_WAITING] = {
		"waiting", EXACT,
		"bucket char!, due timestamptz!, account_id int8!, seq int8!"
	},
	[ST_RULE_SCOPE] = {
		"rule_scope", false,
		"scope_id int4!, scope_key text/C!, rule_id int4!, version int4!"
	},
	[ST_RULE_VERSION] = {
		"rule_version", false,
		"rule_id int4!, version int4!, generation int4!, valid_from timestamptz!, "
		"valid_to timestamptz, source_id int4, scope_id int4!, scope jsonb, condition text, "
		"formula text!, rate numeric!, base text, currency text, minimum numeric, "
		"max_per_order numeric, limit_mode text!, rounding text!, refund text!, "
		"unlinked_return text!, hold interval!, priority int4!, group_id int4!, "
		"group_mode text!, campaign_id int4!, expense_account int4!, arguments jsonb!, "
		"created_at timestamptz!=, created_by text!="
	},
	[ST_GENERATION] = {
		"generation", false,
		"one bool!=, generation int4!, changed_at timestamptz!=, expressions bool!="
	},
	[ST_SOURCE] = {
		"source", false,
		"source_id int4!, relation regclass!, relation_name text!, programme_id int4!, "
		"key_columns _text!, member text!, amount text!, currency text, currency_code text, "
		"quantity text, order_time text, status text, phases jsonb, confirmed_at text, "
		"refunded text, refunded_quantity text, attributes jsonb, since timestamptz!, "
		"max_backdate interval, max_future interval, on_delete text!, on_truncate text!, "
		"on_error text!, arguments jsonb!, attached_at timestamptz!=, attached_by text!=, "
		"detached_at timestamptz, original _text, replaces _text, auto_confirm_after interval, "
		"give_up_after interval"
	},
	[ST_SCOPE] = {
		"scope", false,
		"scope_id int4!, attributes _text!"
	},
	[ST_CURRENCY] = {
		"currency", false,
		"code text/C!, scale int2!, unit numeric!, iso bool!="
	},
	[ST_CHANNEL] = {
		"channel", false,
		"member text/C!, asked_at timestamptz!="
	},
	[ST_DEFERRED] = {
		"deferred", false,
		"source_id int4!, order_key text/C!, first_seen timestamptz!, touched_at timestamptz!, "
		"generation int4!, old bool!, ambiguous bool!, archived bool!"
	},
	[ST_LINK] = {
		"link", EXACT,
		"source_id int4!, order_key text/C!, kind char!, target_key text/C!, currency text/C!, "
		"amount numeric!, quantity numeric"
	},
	[ST_FREEZE] = {
		"freeze", false,
		"source_id int4!, order_key text/C!, frozen_at timestamptz!, reason text/C!, "
		"frozen_by text!, unfrozen_at timestamptz, unfrozen_by text"
	},
	[ST_STORE] = {
		"store", false,
		"one bool!=, store_version int4!, compatible_with int4!, created_at timestamptz!=",
		.added = "sandbox bool!="
	},
	[ST_PROGRAMME] = {
		"programme", false,
		"programme_id int4!, name text!, time_zone text!"
	},
	[ST_EPOCH] = {
		"epoch", false,
		"epoch int4!, system_identifier int8!, database_oid oid!, account_oid oid!, "
		"opened_at timestamptz!="
	},
	[ST_RULE] = {
		"rule", false,
		"rule_id int4!, name text!, programme_id int4!, created_at timestamptz!="
	},
	[ST_RULE_GROUP] = {
		"rule_group", false,
		"group_id int4!, name text!, mode text!, generation int4!"
	},
	[ST_CAMPAIGN] = {
		"campaign", false,
		"campaign_id int4!, name text!, expense_account int4!"
	},
	[ST_LEDGER_ACCOUNT] = {
		"ledger_account", false,
		"ledger_account_id int4!, code text!, kind text!, description text!"
	},
	[ST_HOUSE_ENTRY] = {
		"house_entry", false,
		"posting_id int8!, leg int2!, currency text/C!, amount int8!, debit int4!, credit int4!, "
		"book_date date!, posted_at timestamptz!, kind char!"
	},
	[ST_HOUSE_BALANCE] = {
		"house_balance", false,
		"ledger_account_id int4!, currency text/C!, amount int8!"
	},
	[ST_FOLD] = {
		"fold", false,
		"one bool!=, epoch int4!, xid int8!, folded_at timestamptz!=",
		.added = "checkpoint_epoch int4!=, checkpoint_xid int8!="
	},
	[ST_FAILURE] = {
		"failure", false,
		"source_id int4!, order_key text/C!, sqlstate text!, message text!, detail text, "
		"first_failed_at timestamptz!, last_failed_at timestamptz!, attempts int4!"
	},
	[ST_ALLOWED_FUNCTION] = {
		"allowed_function", false,
		"function text/C!, fingerprint int8!, allowed_at timestamptz!=, allowed_by text!=",
		.added = "digest bytea"
	},
	[ST_JOB] = {
		"job", false,
		"job text/C!, upto timestamptz!, started_at timestamptz!, progress_at timestamptz!, "
		"finished_at timestamptz, batches int8!, done int8!, pid int4!, lock_key int8!, "
		"started_by text!",
		.added = "finished_runs int8!=, stopped_runs int8!=, total_done int8!="
	},
	[ST_FINDING] = {
		"finding", false,
		"finding int8!, found_at timestamptz!, part text!, violation text!, subject text!, "
		"detail text"
	},
	[ST_FORMER_MEMBER] = {
		"former_member", false,
		"hash bytea!, member text/C", 2
	},
	[ST_FORMER_SECRET] = {
		"former_secret", false,
		"one bool!=, key bytea!", 2
	},
	[ST_ERASURE] = {
		"erasure", false,
		"member text/C!, erased_at timestamptz!=, erased_by text!=, erased_claim text, "
		"requested_at timestamptz, requested_by text, requested_claim text", 2
	},
	[ST_ERASURE_REQUEST] = {
		"erasure_request", false,
		"member text/C!, requested_at timestamptz!=, requested_by text!, requested_by_id oid!, "
		"requested_claim text", 2
	},
	[ST_LEDGER] = {
		"ledger", EXACT,
		"account_id int8, seq int8, amount int8, posted_at timestamptz, event_at timestamptz, "
		"xid int8, check int8, debit int4, credit int4, epoch int4, effective_date date, "
		"book_date date, rule_id int4, source_id int4, kind char, accrual_id int8, "
		"posting_id int8, payout_id int8, tracked int8, pending int8, maturing int8, "
		"available int8, held int8, order_key text/C"
	},
	[ST_LOGIN] = {
		"login", false,
		"login text/C!, member text/C!, role_oid oid!, system_identifier int8!, "
		"mapped_at timestamptz!=, mapped_by text!=",
		2
	},
	[ST_GRANTED_RIGHT] = {
		"granted_right", false,
		"role_name text/C!, right_name text/C!, granted_at timestamptz!=, granted_by text!",
		2
	},
	[ST_DRAFT] = {
		"draft", false,
		"draft_id int4!, kind text!, name text!, arguments jsonb!, condition text, base text, "
		"source_id int4, base_version int4!, replaces jsonb, author text!, author_id oid!, "
		"author_claim text, author_role text!, written_at timestamptz!=, state text!=, "
		"decided_at timestamptz, decided_by text, decided_by_id oid, decided_claim text, "
		"reason text, generation int4, version int4",
		2
	},
	[ST_RULE_CONTROL] = {
		"rule_control", false,
		"generation int4!, approval bool!, max_percent numeric, changed_at timestamptz!=, "
		"changed_by text!, changed_claim text",
		2
	},
	[ST_ENTRY_ARCHIVE] = {
		"entry_archive", EXACT,
		"account_id int8!, accrual_id int8, payout_id int8, source_id int4, rule_id int4!, "
		"order_key text/C, kind char!, seq int8!, posted_at timestamptz!, xid int8!, check int8!, "
		"debit int4!, credit int4!, epoch int4!, effective_date date!, book_date date, "
		"amount int8!, event_at timestamptz!, posting_id int8, tracked int8, pending int8, "
		"maturing int8, available int8, held int8",
		2
	},
	[ST_BOUNDARY] = {
		"boundary", EXACT,
		"account_id int8!, seq int8!, posted_at timestamptz!, check int8!, tracked int8!, "
		"pending int8!, maturing int8!, available int8!, held int8!",
		2
	},
	[ST_ARCHIVE] = {
		"archive", false,
		"one bool!=, epoch int4!, xid int8!, before timestamptz!, archived_at timestamptz!",
		2
	},
	[ST_CARRIED] = {
		"carried", EXACT,
		"account_id int8!, seq int8!, posted_at timestamptz!, check int8!, tracked int8!, "
		"pending int8!, maturing int8!, available int8!, held int8!, book_date date!, opened int8!, "
		"digest_high int8!, digest_low int8!",
		2
	},
	[ST_CARRIED_HOUSE] = {
		"carried_house", false,
		"ledger_account_id int4!, currency text/C!, amount int8!",
		2
	},
	[ST_DROPPED] = {
		"dropped", false,
		"drop_id int4!, before timestamptz!, exported_to text!, entries int8!=, began_at timestamptz!=, "
		"dropped_by text!=",
		2
	},
	[ST_CHECKPOINT] = {
		"checkpoint", false,
		"ledger_account_id int4!, currency text/C!, amount int8!",
		2
	},
};

static const struct
{
	const char *name;
	Oid			type;
}			types[] = {
	{"int8", INT8OID},
	{"int4", INT4OID},
	{"text", TEXTOID},
	{"timestamptz", TIMESTAMPTZOID},
	{"char", CHAROID},
	{"int2", INT2OID},
	{"bool", BOOLOID},
	{"numeric", NUMERICOID},
	{"jsonb", JSONBOID},
	{"date", DATEOID},
	{"interval", INTERVALOID},
	{"_text", TEXTARRAYOID},
	{"oid", OIDOID},
	{"regclass", REGCLASSOID},
	{"uuid", UUIDOID},
	{"bytea", BYTEAOID},
};

/* Indexes that are scanned without a planner, by the numbers of their columns */
#define UNIQUE	true
#define MAX_KEYS	4

static const struct
{
	const char *name;
	StoreTable	table;
	Oid			method;
	bool		unique;
	int16		keys[MAX_KEYS];
}			indexes[NUM_STORE_INDEXES] = {
	[SI_ACCOUNT_ID] = {"account_pkey", ST_ACCOUNT, BTREE_AM_OID, UNIQUE, {1}},
	[SI_ACCOUNT_MEMBER] = {"account_member_key", ST_ACCOUNT, BTREE_AM_OID, UNIQUE, {12, 11}},
	[SI_ACCRUAL_ORDER] = {"accrual_order_key", ST_ACCRUAL, BTREE_AM_OID, UNIQUE, {3, 14, 13}},
	[SI_ACCRUAL_SEQ] = {"accrual_seq_key", ST_ACCRUAL, BTREE_AM_OID, UNIQUE, {2, 16}},
	[SI_ACCRUAL_XID] = {"accrual_xid_brin", ST_ACCRUAL, BRIN_AM_OID, false, {18}},
	[SI_ENTRY] = {"entry_pkey", ST_ENTRY, BTREE_AM_OID, UNIQUE, {1, 8}},
	[SI_ENTRY_XID] = {"entry_xid_brin", ST_ENTRY, BRIN_AM_OID, false, {10}},
	[SI_WAITING] = {"waiting_pkey", ST_WAITING, BTREE_AM_OID, UNIQUE, {1, 2, 3, 4}},
	[SI_RULE_SCOPE] = {"rule_scope_pkey", ST_RULE_SCOPE, BTREE_AM_OID, UNIQUE, {1, 2, 3, 4}},
	[SI_RULE_VERSION] = {"rule_version_pkey", ST_RULE_VERSION, BTREE_AM_OID, UNIQUE, {1, 2}},
	[SI_GENERATION] = {"generation_pkey", ST_GENERATION, BTREE_AM_OID, UNIQUE, {1}},
	[SI_SOURCE] = {"source_pkey", ST_SOURCE, BTREE_AM_OID, UNIQUE, {1}},
	[SI_SOURCE_RELATION] = {"source_relation_key", ST_SOURCE, BTREE_AM_OID, UNIQUE, {2}},
	[SI_CURRENCY] = {"currency_pkey", ST_CURRENCY, BTREE_AM_OID, UNIQUE, {1}},
	[SI_DEFERRED] = {"deferred_pkey", ST_DEFERRED, BTREE_AM_OID, UNIQUE, {1, 2}},
	[SI_LINK] = {"link_pkey", ST_LINK, BTREE_AM_OID, UNIQUE, {1, 2, 3}},
	[SI_LINK_TARGET] = {"link_target", ST_LINK, BTREE_AM_OID, false, {1, 4, 3}},
	[SI_FREEZE] = {"freeze_pkey", ST_FREEZE, BTREE_AM_OID, UNIQUE, {1, 2, 3, 4}},
	[SI_RULE] = {"rule_pkey", ST_RULE, BTREE_AM_OID, UNIQUE, {1}},
	[SI_LOGIN] = {"login_pkey", ST_LOGIN, BTREE_AM_OID, UNIQUE, {1}},
	[SI_FORMER_MEMBER] = {"former_member_pkey", ST_FORMER_MEMBER, BTREE_AM_OID, UNIQUE, {1}},
	[SI_ENTRY_ARCHIVE] = {"entry_archive_pkey", ST_ENTRY_ARCHIVE, BTREE_AM_OID, UNIQUE, {1, 8}},
	[SI_BOUNDARY] = {"boundary_pkey", ST_BOUNDARY, BTREE_AM_OID, UNIQUE, {1}},
	[SI_CARRIED] = {"carried_pkey", ST_CARRIED, BTREE_AM_OID, UNIQUE, {1}},
};

const char *
shape_table_name(StoreTable which)
{
	return tables[which].name;
}

const char *
shape_index_name(StoreIndex which)
{
	return indexes[which].name;
}

int32
shape_table_since(StoreTable which)
{
	return Max(tables[which].since, 1);
}

StoreTable
shape_index_table(StoreIndex which)
{
	return indexes[which].table;
}

/* One column of the list above */
typedef struct ColumnShape
{
	const char *name;
	int			name_length;
	Oid			type;
	Oid			collation;
	bool		not_null;
	bool		has_default;
} ColumnShape;

/* Take the column that the list at *list begins with, and move on to the next. */
static void
next_column(const char **list, ColumnShape *column)
{
	const char *at = *list;
	int			length;

	column->name = at;
	column->name_length = strcspn(at, " ");
	at += column->name_length + 1;
	length = strcspn(at, "/!=,");
	column->type = InvalidOid;
	for (int i = 0; i < (int) lengthof(types); i++)
	{
		if (strncmp(types[i].name, at, length) == 0 && types[i].name[length] == '\0')
		{
			column->type = types[i].type;
			break;
		}
	}
	Assert(OidIsValid(column->type));
	at += length;
	column->collation = column->type == TEXTOID || column->type == TEXTARRAYOID ?
		DEFAULT_COLLATION_OID : InvalidOid;
	if (strncmp(at, "/C", 2) == 0)
	{
		column->collation = C_COLLATION_OID;
		at += 2;
	}
	column->not_null = *at == '!';
	at += column->not_null;
	column->has_default = *at == '=';
	at += column->has_default;
	if (*at == ',')
		at += 2;
	*list = at;
}

int
shape_exact_columns(StoreTable which)
{
	const char *list = tables[which].columns;
	ColumnShape column;
	int			n = 0;

	if (!tables[which].exact || which == ST_LEDGER)
		return 0;
	for (; *list; n++)
		next_column(&list, &column);
	return n;
}

/* What makes a column another than the one of the list; NULL: nothing */
static const char *
column_difference(TupleDesc desc, int i, ColumnShape *column)
{
	Form_pg_attribute att;

	if (i >= desc->natts)
		return psprintf("Column \"%.*s\" is missing.", column->name_length, column->name);
	att = TupleDescAttr(desc, i);
	if (att->attisdropped ||
		strncmp(NameStr(att->attname), column->name, column->name_length) != 0 ||
		NameStr(att->attname)[column->name_length] != '\0')
		return psprintf("Column \"%.*s\" is not in its place.", column->name_length, column->name);
	if (att->atttypid != column->type || att->atttypmod != -1 ||
		att->attcollation != column->collation)
		return psprintf("Column \"%s\" is of another type or collation.", NameStr(att->attname));
	if (column->not_null != column_not_null(desc, i))
		return psprintf("Column \"%s\" is %s.", NameStr(att->attname),
						column->not_null ? "nullable" : "not nullable");
	if (att->attgenerated || att->attidentity || att->atthasdef != column->has_default)
		return psprintf("Column \"%s\" has %s default.", NameStr(att->attname),
						column->has_default ? "no" : "a");
	if (att->attinhcount != 0)
		return psprintf("Column \"%s\" is inherited.", NameStr(att->attname));
	return NULL;
}

static const char *
columns_difference(TupleDesc desc, StoreTable which)
{
	const char *list = tables[which].columns;
	const char *difference;
	int			i = 0;

	while (*list)
	{
		ColumnShape column;

		next_column(&list, &column);
		difference = column_difference(desc, i++, &column);
		if (difference)
			return difference;
	}
	for (; tables[which].exact && i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			return psprintf("Column \"%s\" is one more.", NameStr(TupleDescAttr(desc, i)->attname));
	return NULL;
}

/* Those that a version added come by name: somebody may have put others before them. */
static const char *
added_difference(TupleDesc desc, StoreTable which)
{
	const char *list = tables[which].added;

	while (*list)
	{
		ColumnShape column;
		const char *difference;
		int			i = 0;

		next_column(&list, &column);
		while (i < desc->natts &&
			   (TupleDescAttr(desc, i)->attisdropped ||
				strncmp(NameStr(TupleDescAttr(desc, i)->attname), column.name, column.name_length) != 0 ||
				NameStr(TupleDescAttr(desc, i)->attname)[column.name_length] != '\0'))
			i++;
		difference = column_difference(desc, i, &column);
		if (difference)
			return difference;
	}
	return NULL;
}

/*
 * What hangs on a table and would see less than the engine does, or more: the
 * engine writes below triggers, rules and policies, so one who relies on them, as
 * tools that rewrite tables do, would lose what is posted.
 */
static const char *
foreign_difference(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (!trigger->tgisinternal && trigger->tgenabled != TRIGGER_DISABLED &&
			!trigger_is_guard(trigger))
			return psprintf("Trigger \"%s\" is on it.", trigger->tgname);
	}
	if (rel->rd_rules && rel->rd_rel->relkind == RELKIND_RELATION)
		return "A rule is on it.";
	if (rel->rd_rel->relrowsecurity || rel->rd_rel->relforcerowsecurity)
		return "It has row level security.";
	if (rel->rd_rel->relispartition || OidIsValid(rel->rd_rel->reloftype) ||
		(rel->rd_rel->relhassubclass &&
		 find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL))
		return "It takes part in inheritance.";
	return NULL;
}

/* What makes a relation another than the one that create_store() makes; NULL: nothing */
static const char *
table_difference(Relation rel, StoreTable which, Oid owner)
{
	bool		is_view = which == ST_LEDGER;
	const char *difference;

	if (rel->rd_rel->relkind != (is_view ? RELKIND_VIEW : RELKIND_RELATION) ||
		(!is_view && rel->rd_rel->relam != HEAP_TABLE_AM_OID))
		return is_view ? "It is no view." : "It is no ordinary table.";
	if (rel->rd_rel->relowner != owner)
		return psprintf("It belongs to role \"%s\", the schema to role \"%s\".",
						GetUserNameFromId(rel->rd_rel->relowner, true),
						GetUserNameFromId(owner, true));
	if (rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		return "It is not logged.";
	difference = columns_difference(RelationGetDescr(rel), which);
	return difference ? difference : foreign_difference(rel);
}

/* RB011: "what" is not as it should be. */
static void
refuse(const char *what, const char *name, const char *difference)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_STORE_DAMAGED),
			 errmsg("%s \"%s.%s\" is not as rebate.create_store() made it", what, STORE_SCHEMA, name),
			 errdetail_internal("%s", difference),
			 errhint("Undo the change, or restore the store from a backup.")));
}

void
shape_check_table(Relation rel, StoreTable which, Oid owner)
{
	const char *difference = table_difference(rel, which, owner);

	if (difference)
		refuse(which == ST_LEDGER ? "view" : "table", tables[which].name, difference);
}

void
shape_check_added(Relation rel, StoreTable which, int32 version)
{
	const char *difference;

	if (tables[which].added == NULL || version < 2)
		return;
	difference = added_difference(RelationGetDescr(rel), which);
	if (difference)
		refuse("table", tables[which].name, difference);
}

static Oid
method_of(Oid indexid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(indexid));
	Oid			method;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	method = ((Form_pg_class) GETSTRUCT(tuple))->relam;
	ReleaseSysCache(tuple);
	return method;
}

/* Does a key of an index order as a scan expects: the column's type, upward, by its collation? */
static bool
key_fits(Relation table, HeapTuple tuple, int i, int16 attno)
{
	Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);
	Oid			type = TupleDescAttr(RelationGetDescr(table), attno - 1)->atttypid;
	Oid			opclass;
	Oid			collation;
	Datum		value;
	bool		isnull;

	if (index->indkey.values[i] != attno)
		return false;
	value = SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indclass, &isnull);
	opclass = ((oidvector *) DatumGetPointer(value))->values[i];
	value = SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indcollation, &isnull);
	collation = ((oidvector *) DatumGetPointer(value))->values[i];
	value = SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indoption, &isnull);
	if (((int2vector *) DatumGetPointer(value))->values[i] != 0)
		return false;
	if (type == TEXTOID)
		return collation == C_COLLATION_OID && get_opclass_family(opclass) == TEXT_BTREE_FAM_OID;
	/* a regclass is ordered as the oid that it is */
	return get_opclass_input_type(opclass) == (type == REGCLASSOID ? OIDOID : type);
}

/* Raise RB011 unless the index is of that table, and as it should be. */
void
shape_check_index(Oid indexid, StoreIndex which, Relation table)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	Form_pg_index index;
	int			nkeys = 0;
	bool		partial;
	bool		ok;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("index \"%s.%s\" is missing", STORE_SCHEMA, indexes[which].name),
				 errhint("Restore the store from a backup.")));
	index = (Form_pg_index) GETSTRUCT(tuple);
	while (nkeys < MAX_KEYS && indexes[which].keys[nkeys] != 0)
		nkeys++;
	partial = !heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	ok = index->indrelid == RelationGetRelid(table) && index->indnatts == nkeys && index->indnkeyatts == nkeys &&
		index->indisunique == indexes[which].unique && index->indimmediate &&
		!index->indnullsnotdistinct && index->indisvalid && index->indisready &&
		partial == (which == SI_ACCRUAL_SEQ) &&
		method_of(indexid) == indexes[which].method;
	for (int i = 0; ok && i < nkeys; i++)
		ok = key_fits(table, tuple, i, indexes[which].keys[i]);
	ReleaseSysCache(tuple);
	if (!ok)
		refuse("index", indexes[which].name, "Its table, columns or kind differ.");
}

/* Sessions take as many ids at a time as the sequence steps. */
void
shape_check_sequence(Oid relid, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(relid));
	HeapTuple	class;
	Form_pg_sequence sequence;
	bool		ok;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("sequence \"%s.id\" is missing", STORE_SCHEMA),
				 errhint("Restore the store from a backup.")));
	sequence = (Form_pg_sequence) GETSTRUCT(tuple);
	ok = sequence->seqtypid == INT8OID && sequence->seqincrement == IDS_PER_CALL &&
		!sequence->seqcycle;
	ReleaseSysCache(tuple);
	class = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	ok = ok && HeapTupleIsValid(class) &&
		((Form_pg_class) GETSTRUCT(class))->relowner == owner &&
		((Form_pg_class) GETSTRUCT(class))->relpersistence == RELPERSISTENCE_PERMANENT;
	if (HeapTupleIsValid(class))
		ReleaseSysCache(class);
	if (!ok)
		refuse("sequence", "id", "Its owner, increment or kind differ.");
}
