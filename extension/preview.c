/*
 * preview.c
 *	  rebate.preview(): what an order would earn that does not exist yet, told as
 *	  explain() tells it of one that does.  Writes nothing.
 */
#include "rebate.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/typcache.h"

#include "api.h"
#include "draft.h"
#include "explain_internal.h"
#include "expr_check.h"
#include "guard.h"
#include "read.h"
#include "rights.h"
#include "rule_control.h"
#include "rules.h"

PG_FUNCTION_INFO_V1(rebate_preview);
PG_FUNCTION_INFO_V1(rebate_preview_draft);

/* A row being made of JSON */
typedef struct JsonRow
{
	TupleDesc	desc;
	Jsonb	   *json;
	HeapTuple	tuple;
} JsonRow;

/*----------------------------------------------------------------------------
 * The row
 *----------------------------------------------------------------------------
 */

/* A member of the JSON object as the text that a column's input function reads */
static char *
member_text(const char *column, Oid type, JsonbValue *v)
{
	switch (v->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(v->val.numeric)));
		case jbvBool:
			return pstrdup(v->val.boolean ? "true" : "false");
		default:
			if (getBaseType(type) != JSONBOID && getBaseType(type) != JSONOID)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("column \"%s\" takes no JSON object or array", column),
						 errhint("Give its value as a text, as in SQL.")));
			return JsonbToCString(NULL, v->val.binary.data, v->val.binary.len);
	}
}

/*
 * Make a row of a JSON object; columns that it does not have are null.  A value is
 * read as one of the type below a domain: the domain's checks are somebody's code,
 * and would run as the store's owner, who could change the store.  So a type with
 * a domain inside, whose input function calls them, is not read.
 */
static void
row_from_json(void *arg)
{
	JsonRow    *r = arg;
	int			natts = r->desc->natts;
	Datum	   *values = palloc0(sizeof(Datum) * natts);
	bool	   *nulls = palloc(sizeof(bool) * natts);
	int			nused = 0;

	memset(nulls, true, natts);
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(r->desc, i);
		const char *name = NameStr(att->attname);
		JsonbValue *v;
		char	   *text;
		Oid			type;
		int32		typmod = att->atttypmod;
		Oid			input,
					ioparam;

		if (att->attisdropped)
			continue;
		v = getKeyJsonValueFromContainer(&r->json->root, name, strlen(name), NULL);
		if (v == NULL)
			continue;
		nused++;
		text = member_text(name, att->atttypid, v);
		if (text == NULL)
			continue;
		type = getBaseTypeAndTypmod(att->atttypid, &typmod);
		if (type_hides_domain(type))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" takes no value here", name),
					 errdetail("Its type has a domain inside, whose checks would be called.")));
		getTypeInputInfo(type, &input, &ioparam);
		values[i] = OidInputFunctionCall(input, text, ioparam, typmod);
		nulls[i] = false;
	}
	if (nused != (int) JB_ROOT_COUNT(r->json))
	{
		JsonbIterator *it = JsonbIteratorInit(&r->json->root);
		JsonbValue	v;
		JsonbIteratorToken token;

		while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		{
			char	   *name;
			bool		known = false;

			if (token != WJB_KEY)
				continue;
			name = pnstrdup(v.val.string.val, v.val.string.len);
			for (int i = 0; i < natts && !known; i++)
				known = !TupleDescAttr(r->desc, i)->attisdropped &&
					strcmp(NameStr(TupleDescAttr(r->desc, i)->attname), name) == 0;
			if (!known)
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_COLUMN),
						 errmsg("the table has no column \"%s\"", name)));
		}
	}
	r->tuple = heap_form_tuple(r->desc, values, nulls);
}

/* A row of JSON; what is wrong with a value is raised as an INSERT would. */
static HeapTuple
json_row(Store *store, Relation rel, Jsonb *json)
{
	JsonRow		r = {.desc = RelationGetDescr(rel),.json = json};
	ErrorData  *error;

	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the row must be a JSON object of columns and their values")));
	error = run_guarded(store, row_from_json, &r);
	if (error)
		ThrowErrorData(error);
	return r.tuple;
}

/* The row that was given, in whatever form */
static HeapTuple
given_row(FunctionCallInfo fcinfo, Store *store, Relation rel)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 1);

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the row must not be null")));
	if (type == UNKNOWNOID)
		return json_row(store, rel,
						DatumGetJsonbP(DirectFunctionCall1(jsonb_in, PG_GETARG_DATUM(1))));
	if (type == JSONBOID)
		return json_row(store, rel, PG_GETARG_JSONB_P(1));
	if (type == JSONOID || type == TEXTOID)
	{
		char	   *given = text_to_cstring(PG_GETARG_TEXT_PP(1));

		return json_row(store, rel,
						DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(given))));
	}
	if (OidIsValid(type) && getBaseType(type) == rel->rd_rel->reltype)
	{
		HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(1);
		HeapTupleData tuple;

		/* a composite value can be older than a change of its table */
		if (HeapTupleHeaderGetTypeId(header) != rel->rd_rel->reltype)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the row is none of table \"%s\"", RelationGetRelationName(rel))));
		tuple.t_len = HeapTupleHeaderGetDatumLength(header);
		ItemPointerSetInvalid(&tuple.t_self);
		tuple.t_tableOid = RelationGetRelid(rel);
		tuple.t_data = header;
		return heap_copytuple(&tuple);
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("the row is none of table \"%s\"", RelationGetRelationName(rel)),
			 errhint("Give a JSON object of columns and their values, or cast: ROW(...)::%s.",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												RelationGetRelationName(rel)))));
}

/*----------------------------------------------------------------------------
 * The decision
 *----------------------------------------------------------------------------
 */

/* Decide the row in the slot as a new order; runs under guard. */
static void
decide_new_order(void *arg)
{
	Explain    *e = arg;
	DecideContext context = {
		.store = e->store,
		.source = e->source,
		.now = GetCurrentTransactionStartTimestamp(),
		.generation = rules_generation(e->store)
	};

	expr_reset();
	image_read(e->store, e->source, e->slot, e->key, &e->image);
	e->image_read = true;
	if (e->image.currency)
		e->scale = e->image.currency->scale;
	e->decision = decide(&context, &e->image, &e->facts);
}

/*
 * What would be posted: as explain() has it, the rebates, or the entries that
 * open them.
 */
static void
preview_postings(Explain *e, bool entries)
{
	MemoryContext context = CurrentMemoryContext;
	Decision   *d = e->decision;
	StoreSpi	scope;

	for (int i = 0; d && i < d->nwishes; i++)
	{
		Wish	   *wish = &d->wishes[i];
		const char *bucket = bucket_names[wish->bucket];
		SqlParams	params = {0};
		char	   *rule;
		char	   *house;
		Numeric		amount;
		StringInfoData detail;

		if (wish->amount == 0)
			continue;
		sql_int(&params, wish->rule_id);
		sql_int(&params, wish->bucket == BUCKET_TRACKED ? LEDGER_MEMO : wish->expense);
		sql_param(&params, INT8OID, Int64GetDatum(wish->amount), false);
		sql_text(&params, d->currency.code);
		store_spi_begin(e->store, &scope);
		sql_int(&params, wish->version);
		if (sql_run("SELECT r.name, l.code, $3 * c.unit, v.generation"
					"  FROM rebate_data.rule r, rebate_data.ledger_account l,"
					"       rebate_data.currency c, rebate_data.rule_version v"
					" WHERE r.rule_id = $1 AND l.ledger_account_id = $2 AND c.code = $4 COLLATE \"C\""
					"   AND v.rule_id = $1 AND v.version = $5",
					&params, SPI_OK_SELECT) != 1)
			elog(ERROR, "rule %d has no name, version or house account", wish->rule_id);
		rule = MemoryContextStrdup(context, explain_version(e, sql_get_text(0, 1, context), wish->version,
															sql_get_int(0, 4, 0)));
		house = sql_get_text(0, 2, context);
		{
			MemoryContext old = MemoryContextSwitchTo(context);
			bool		isnull;

			amount = DatumGetNumericCopy(sql_get(0, 3, &isnull));
			MemoryContextSwitchTo(old);
		}
		store_spi_end(&scope);

		initStringInfo(&detail);
		if (entries)
		{
			if (wish->amount > 0)
				explain_remark(&detail, "%s -> member:%s", house, bucket);
			else
				explain_remark(&detail, "member:%s -> %s", bucket, house);
			explain_remark(&detail, "member %s", d->member);
			explain_line(e, "entry", rule,
						 wish->amount > 0 ? "accrue" : "reverse",
						 DatumGetNumeric(DirectFunctionCall1(numeric_abs,
															 NumericGetDatum(amount))),
						 detail.data);
			continue;
		}
		explain_remark(&detail, "member %s", d->member);
		explain_remark(&detail, "%s", d->currency.code);
		if (wish->base)
			explain_remark(&detail, "base %s", explain_number_text(wish->base, e->scale));
		if (wish->has_due)
			explain_remark(&detail, "due %s", explain_time_text(wish->due));
		explain_line(e, "accrual", rule, bucket, amount, detail.data);
	}
}

/* Decide the row that was given by the rules as they are, and tell of it. */
static void
preview_row(FunctionCallInfo fcinfo, Explain *e)
{
	ErrorData  *error;

	(void) rules_generation(e->store);
	e->rel = table_open(e->source->relid, AccessShareLock);
	e->slot = MakeSingleTupleTableSlot(RelationGetDescr(e->rel), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(given_row(fcinfo, e->store, e->rel), e->slot, false);
	e->key = image_key(e->source, e->slot);
	if (e->key[0] == '\0')
		e->key = NULL;

	error = explain_decide(e, decide_new_order);
	if (explain_order(e, error))
		explain_rules(e);
	preview_postings(e, false);
	preview_postings(e, true);

	ExecDropSingleTupleTableSlot(e->slot);
	table_close(e->rel, NoLock);
}

/* rebate.preview(source, row) */
Datum
rebate_preview(PG_FUNCTION_ARGS)
{
	Explain		e = {.scale = -1,.preview = true,.row_there = true};

	e.source = read_visible_source(fcinfo, &e.store, RIGHT_AUTHOR | RIGHT_APPROVER, "rebate.preview");
	InitMaterializedSRF(fcinfo, 0);
	e.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	preview_row(fcinfo, &e);
	return (Datum) 0;
}

/*
 * Suppose a draft approved: write what it says, to be undone by the caller.  Who may
 * approve it is not asked, all that approval checks of the draft itself is.
 */
static void
suppose_draft(Explain *e, int32 draft_id)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	Draft	   *draft;

	api_lock_configuration(e->store);
	store_spi_begin(e->store, &scope);
	draft = draft_read(draft_id, context);
	store_spi_end(&scope);
	e->draft_id = draft_id;
	e->draft_generation = draft_apply(e->store, draft, true).generation;
	store_rules_changed(e->store);
}

/*
 * rebate.preview(source, row, draft): the same if a draft were approved now.  The
 * draft is approved in a subtransaction that is rolled back, so the rules meet the
 * row by the same code as ever; nobody else sees anything of it, but who changes
 * rules waits for that moment.
 */
Datum
rebate_preview_draft(PG_FUNCTION_ARGS)
{
	Explain		e = {.scale = -1,.preview = true,.row_there = true};
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	e.source = read_visible_source(fcinfo, &e.store, RIGHT_AUTHOR | RIGHT_APPROVER, "rebate.preview");
	store_require(e.store, CONTROL_STORE_VERSION, "rebate.preview with a draft");
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("draft must not be null")));
	PreventCommandIfReadOnly("rebate.preview() of a draft");
	InitMaterializedSRF(fcinfo, 0);
	e.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		suppose_draft(&e, PG_GETARG_INT32(2));
		e.source = source_get(e.store, e.source->relid);
		preview_row(fcinfo, &e);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error)
		ReThrowError(error);
	return (Datum) 0;
}
