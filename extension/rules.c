/*
 * rules.c
 *	  The rules this backend has met so far.
 *
 * Nothing is loaded ahead: an order probes the index of rebate_data.rule_scope
 * once for each set of attributes that scopes name, and what it finds, or that
 * it finds nothing, is remembered until rules are written.  So a new connection
 * pays for the rules its first orders meet and not for all there are, and the
 * number of rules costs the depth of an index.
 */
#include "rebate.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "api.h"
#include "counters.h"
#include "rules.h"

/* Above this many remembered keys start again: a bound, not a tuning */
#define MAX_CACHED_KEYS 200000
#define MAX_CACHED_KEY_LENGTH 256

typedef struct ScopeKey
{
	int32		scope_id;
	int			len;
	const char *key;
} ScopeKey;

typedef struct ScopeEntry
{
	ScopeKey	key;
	uint32		hash;
	char		status;
	RuleCandidates candidates;
} ScopeEntry;

static inline uint32
hash_scope_key(ScopeKey key)
{
	return hash_bytes_uint32(key.scope_id) ^ hash_bytes((const unsigned char *) key.key, key.len);
}

#define SH_PREFIX scopehash
#define SH_ELEMENT_TYPE ScopeEntry
#define SH_KEY_TYPE ScopeKey
#define SH_KEY key
#define SH_HASH_KEY(tb, k) hash_scope_key(k)
#define SH_EQUAL(tb, a, b) ((a).scope_id == (b).scope_id && (a).len == (b).len && \
							memcmp((a).key, (b).key, (a).len) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

static MemoryContext cache_context = NULL;
static bool cache_valid = false;
static uint64 cache_counter = 0;
static int32 cache_generation = 0;
static bool cache_expressions = false;
static bool cache_of_writer = false;	/* loaded by a writing transaction */
static Oid	cache_table = InvalidOid;
static scopehash_hash *scope_hash = NULL;
static HTAB *rule_hash = NULL;
static int	nscopes = 0;
static RuleScope *scopes = NULL;

/*
 * Rules written in a (sub)transaction that aborts must not survive here: what
 * was loaded since this transaction began to write is thrown away.
 */
void
rules_at_abort(void)
{
	if (cache_of_writer)
		cache_valid = false;
	cache_of_writer = false;
}

void
rules_forget(void)
{
	cache_valid = false;
}

/* What this transaction loaded is committed now. */
void
rules_at_commit(void)
{
	cache_of_writer = false;
}

/* The row of rebate_data.generation, with the newest snapshot. */
static int32
read_generation(Store *store, bool *expressions)
{
	Relation	rel = store_open(store, ST_GENERATION, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;
	int32		result;

	/* by its index: after many writes the one row lies behind many pages */
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(true));
	scan = systable_beginscan(rel, store->indexes[SI_GENERATION], true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_RB_STORE_DAMAGED),
				 errmsg("table \"%s.generation\" is empty", STORE_SCHEMA),
				 errhint("Restore the store from a backup.")));
	result = DatumGetInt32(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull));
	*expressions = DatumGetBool(heap_getattr(tuple, 4, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

/* Load the scopes: all that is loaded ahead. */
static void
load_scopes(Store *store)
{
	Relation	rel = store_open(store, ST_SCOPE, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	MemoryContext old = MemoryContextSwitchTo(cache_context);
	HeapTuple	tuple;
	int			allocated = 8;

	nscopes = 0;
	scopes = palloc0(sizeof(RuleScope) * allocated);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RuleScope  *scope;
		Datum	   *elems;
		bool		isnull;

		if (nscopes == allocated)
			scopes = repalloc(scopes, sizeof(RuleScope) * (allocated *= 2));
		scope = &scopes[nscopes++];
		scope->scope_id = DatumGetInt32(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull));
		scope->bound_to = 0;
		deconstruct_array(DatumGetArrayTypeP(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull)),
						  TEXTOID, -1, false, TYPALIGN_INT, &elems, NULL, &scope->nattributes);
		scope->names = palloc(sizeof(char *) * Max(scope->nattributes, 1));
		scope->attributes = palloc(sizeof(SourceAttribute *) * Max(scope->nattributes, 1));
		for (int j = 0; j < scope->nattributes; j++)
			scope->names[j] = TextDatumGetCString(elems[j]);
	}
	MemoryContextSwitchTo(old);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* Throw everything away and begin anew under "generation". */
static void
rebuild(Store *store, int32 generation, bool expressions)
{
	HASHCTL		ctl;

	counters_add(CT_RULE_BUILDS, 1);
	cache_valid = false;
	if (cache_context)
		MemoryContextReset(cache_context);
	else
		cache_context = AllocSetContextCreate(CacheMemoryContext, "rebate rules",
											  ALLOCSET_DEFAULT_SIZES);
	scope_hash = scopehash_create(cache_context, 256, NULL);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(Rule);
	ctl.hcxt = cache_context;
	rule_hash = hash_create("rebate rules", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	load_scopes(store);
	cache_generation = generation;
	cache_expressions = expressions;
	cache_table = store->tables[ST_RULE_VERSION];
	cache_valid = true;
}

int32
rules_generation(Store *store)
{
	uint64		counter = store_epoch_of_rules();
	int32		generation;
	bool		expressions;

	if (cache_valid && cache_counter == counter &&
		cache_table == store->tables[ST_RULE_VERSION] &&
		scope_hash->members < MAX_CACHED_KEYS)
		return cache_generation;

	/*
	 * VACUUM and other writes of configuration invalidate too: rebuild only if
	 * rules were written.  In a transaction that writes, the number does not
	 * tell: it may have been taken, rolled back to a savepoint and taken again.
	 */
	generation = read_generation(store, &expressions);
	if (!cache_valid || generation != cache_generation ||
		cache_table != store->tables[ST_RULE_VERSION] ||
		scope_hash->members >= MAX_CACHED_KEYS ||
		TransactionIdIsValid(GetTopTransactionIdIfAny()))
	{
		rebuild(store, generation, expressions);
		cache_of_writer = TransactionIdIsValid(GetTopTransactionIdIfAny());
	}
	cache_counter = counter;
	return cache_generation;
}

bool
rules_have_expressions(void)
{
	return cache_expressions;
}

int
rules_scopes(Source *source, RuleScope **result)
{
	for (int i = 0; i < nscopes; i++)
	{
		RuleScope  *scope = &scopes[i];

		if (scope->bound_to == source->build)
			continue;
		scope->usable = true;
		for (int j = 0; j < scope->nattributes; j++)
		{
			scope->attributes[j] = source_attribute(source, scope->names[j]);
			if (scope->attributes[j] == NULL || !scope->attributes[j]->usable)
				scope->usable = false;
		}
		scope->bound_to = source->build;
	}
	*result = scopes;
	return nscopes;
}

const char *
rules_missing_attribute(Source *source, int32 scope_id)
{
	RuleScope  *all;
	int			n = rules_scopes(source, &all);

	for (int i = 0; i < n; i++)
		for (int j = 0; all[i].scope_id == scope_id && j < all[i].nattributes; j++)
			if (all[i].attributes[j] == NULL || !all[i].attributes[j]->usable)
				return all[i].names[j];
	return NULL;
}

/* Copy of a nullable text or numeric column, NULL if null */
static char *
text_or_null(Datum *values, bool *nulls, int attno)
{
	return nulls[attno - 1] ? NULL : TextDatumGetCString(values[attno - 1]);
}

static Numeric
numeric_or_null(Datum *values, bool *nulls, int attno)
{
	return nulls[attno - 1] ? NULL : DatumGetNumericCopy(values[attno - 1]);
}

/* Fill a version from a tuple of rebate_data.rule_version. */
static RuleVersion *
load_version(HeapTuple tuple, TupleDesc desc)
{
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	RuleVersion *v = palloc0(sizeof(RuleVersion));
	char	   *word;

	enum
	{
		RV_RULE_ID = 1, RV_VERSION, RV_GENERATION, RV_VALID_FROM, RV_VALID_TO, RV_SOURCE_ID,
		RV_SCOPE_ID, RV_SCOPE, RV_CONDITION, RV_FORMULA, RV_RATE, RV_BASE, RV_CURRENCY,
		RV_MINIMUM, RV_MAX_PER_ORDER, RV_LIMIT_MODE, RV_ROUNDING, RV_REFUND,
		RV_UNLINKED_RETURN, RV_HOLD, RV_PRIORITY, RV_GROUP_ID, RV_GROUP_MODE,
		RV_CAMPAIGN_ID, RV_EXPENSE_ACCOUNT
	};

	heap_deform_tuple(tuple, desc, values, nulls);
	v->rule_id = DatumGetInt32(values[RV_RULE_ID - 1]);
	v->version = DatumGetInt32(values[RV_VERSION - 1]);
	v->generation = DatumGetInt32(values[RV_GENERATION - 1]);
	v->valid_from = DatumGetTimestampTz(values[RV_VALID_FROM - 1]);
	v->valid_to = nulls[RV_VALID_TO - 1] ? DT_NOEND : DatumGetTimestampTz(values[RV_VALID_TO - 1]);
	v->source_id = nulls[RV_SOURCE_ID - 1] ? 0 : DatumGetInt32(values[RV_SOURCE_ID - 1]);
	v->scope_id = DatumGetInt32(values[RV_SCOPE_ID - 1]);
	word = TextDatumGetCString(values[RV_FORMULA - 1]);
	v->formula = strcmp(word, "percent") == 0 ? FORMULA_PERCENT :
		strcmp(word, "fixed") == 0 ? FORMULA_FIXED :
		strcmp(word, "per_unit") == 0 ? FORMULA_PER_UNIT : FORMULA_NONE;
	v->rate = DatumGetNumericCopy(values[RV_RATE - 1]);
	if (v->formula == FORMULA_PERCENT)
		v->rate = arith_percent(v->rate);
	v->currency = text_or_null(values, nulls, RV_CURRENCY);
	v->minimum = numeric_or_null(values, nulls, RV_MINIMUM);
	v->max_per_order = numeric_or_null(values, nulls, RV_MAX_PER_ORDER);
	v->reject_over_limit = strcmp(TextDatumGetCString(values[RV_LIMIT_MODE - 1]), "reject") == 0;
	word = TextDatumGetCString(values[RV_ROUNDING - 1]);
	v->rounding = strcmp(word, "half_even") == 0 ? ROUND_HALF_EVEN :
		strcmp(word, "half_down") == 0 ? ROUND_HALF_DOWN :
		strcmp(word, "down") == 0 ? ROUND_DOWN :
		strcmp(word, "up") == 0 ? ROUND_UP : ROUND_HALF_UP;
	word = TextDatumGetCString(values[RV_REFUND - 1]);
	v->refund = strcmp(word, "rejudge") == 0 ? REFUND_REJUDGE :
		strcmp(word, "all") == 0 ? REFUND_ALL :
		strcmp(word, "keep_until_full") == 0 ? REFUND_KEEP_UNTIL_FULL : REFUND_PRO_RATA;
	v->ignore_returns = strcmp(TextDatumGetCString(values[RV_UNLINKED_RETURN - 1]), "ignore") == 0;
	v->hold = *DatumGetIntervalP(values[RV_HOLD - 1]);
	v->has_hold = v->hold.time != 0 || v->hold.day != 0 || v->hold.month != 0;
	v->priority = DatumGetInt32(values[RV_PRIORITY - 1]);
	v->group_id = DatumGetInt32(values[RV_GROUP_ID - 1]);
	word = TextDatumGetCString(values[RV_GROUP_MODE - 1]);
	v->group_mode = strcmp(word, "first") == 0 ? GROUP_FIRST :
		strcmp(word, "best") == 0 ? GROUP_BEST : GROUP_STACK;
	v->expense = DatumGetInt32(values[RV_EXPENSE_ACCOUNT - 1]);
	v->condition = text_or_null(values, nulls, RV_CONDITION);
	v->base = text_or_null(values, nulls, RV_BASE);
	pfree(values);
	pfree(nulls);
	return v;
}

Rule *
rules_get(Store *store, int32 rule_id)
{
	Rule	   *rule = hash_search(rule_hash, &rule_id, HASH_FIND, NULL);
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	MemoryContext old;
	RuleVersion **versions;
	int			n = 0,
				allocated = 4;

	if (rule)
		return rule;

	old = MemoryContextSwitchTo(cache_context);
	versions = palloc(sizeof(RuleVersion *) * allocated);
	rel = store_open(store, ST_RULE_VERSION, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(rule_id));
	scan = systable_beginscan(rel, store->indexes[SI_RULE_VERSION], true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (n == allocated)
			versions = repalloc(versions, sizeof(RuleVersion *) * (allocated *= 2));
		versions[n++] = load_version(tuple, RelationGetDescr(rel));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	MemoryContextSwitchTo(old);
	if (n == 0)
		return NULL;

	rule = hash_search(rule_hash, &rule_id, HASH_ENTER, NULL);
	rule->nversions = n;
	rule->versions = versions;
	return rule;
}

char *
rules_name(Store *store, int32 rule_id)
{
	MemoryContext context = CurrentMemoryContext;
	StoreSpi	scope;
	SqlParams	params = {0};
	char	   *name = NULL;

	sql_int(&params, rule_id);
	store_spi_begin(store, &scope);
	if (sql_run("SELECT name FROM rebate_data.rule WHERE rule_id = $1", &params, SPI_OK_SELECT) > 0)
		name = sql_get_text(0, 1, context);
	store_spi_end(&scope);
	return name ? name : psprintf("%d", rule_id);
}

static const RuleVersion *
get_version(Store *store, int32 rule_id, int32 version)
{
	Rule	   *rule = rules_get(store, rule_id);

	for (int i = 0; rule && i < rule->nversions; i++)
		if (rule->versions[i]->version == version)
			return rule->versions[i];
	ereport(ERROR,
			(errcode(ERRCODE_RB_STORE_DAMAGED),
			 errmsg("version %d of rule %d is missing", version, rule_id),
			 errhint("Restore it; rebate.audit() lists what is wrong.")));
}

int32
rules_expense(Store *store, int32 rule_id, int32 version)
{
	return get_version(store, rule_id, version)->expense;
}

Interval
rules_hold(Store *store, int32 rule_id, int32 version)
{
	return get_version(store, rule_id, version)->hold;
}

RuleCandidates *
rules_lookup(Store *store, int32 scope_id, const char *key, int keylen)
{
	ScopeKey	probe = {scope_id, keylen, key};
	ScopeEntry *entry = scopehash_lookup(scope_hash, probe);
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	ScanKeyData keys[2];
	HeapTuple	tuple;
	RuleCandidates found = {0, NULL};
	int			allocated = 0;
	char	   *keycopy;
	bool		isnull,
				existed;

	if (entry)
		return &entry->candidates;

	keycopy = MemoryContextAlloc(cache_context, keylen + 1);
	memcpy(keycopy, key, keylen);
	keycopy[keylen] = '\0';

	rel = store_open(store, ST_RULE_SCOPE, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(scope_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(keycopy));
	scan = systable_beginscan(rel, store->indexes[SI_RULE_SCOPE], true, snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		int32		rule_id = DatumGetInt32(heap_getattr(tuple, 3, RelationGetDescr(rel), &isnull));
		int32		version = DatumGetInt32(heap_getattr(tuple, 4, RelationGetDescr(rel), &isnull));
		Rule	   *rule = rules_get(store, rule_id);

		if (rule == NULL)
			continue;
		if (found.n == allocated)
		{
			allocated = Max(4, allocated * 2);
			found.items = found.items ?
				repalloc(found.items, sizeof(RuleCandidate) * allocated) :
				MemoryContextAlloc(cache_context, sizeof(RuleCandidate) * allocated);
		}
		found.items[found.n].rule = rule;
		found.items[found.n++].version = version;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	/* what no rule names comes from rows, and there could be any number of it */
	if (found.n == 0 &&
		(keylen > MAX_CACHED_KEY_LENGTH || scope_hash->members >= MAX_CACHED_KEYS))
	{
		static RuleCandidates none = {0, NULL};

		pfree(keycopy);
		return &none;
	}

	probe.key = keycopy;
	entry = scopehash_insert(scope_hash, probe, &existed);
	entry->candidates = found;
	return &entry->candidates;
}

/* An expression of a rule that is being compiled */
typedef struct RuleText
{
	const char *what;
	const char *text;
} RuleText;

/* Tell which rule no longer fits the table: the one with this text. */
static void
compile_error(void *arg)
{
	RuleText   *rule = arg;

	errdetail("The %s of the rule is %s.", rule->what, rule->text);
}

static void
load_expr(Relation rel, const char *what, const char *text, Oid type, OrderExpr *result)
{
	RuleText	rule = {what, text};
	ErrorContextCallback callback = {
		.previous = error_context_stack,.callback = compile_error,.arg = &rule
	};

	error_context_stack = &callback;
	expr_load(rel, what, text, type, result);
	error_context_stack = callback.previous;
}

void
rules_compile(RuleVersion *version, Source *source)
{
	MemoryContext context;
	MemoryContext old;
	OrderExpr	condition = {0};
	OrderExpr	base = {0};
	Relation	rel;

	if (version->compiled_for == source->build)
		return;

	/* built aside: an error leaves nothing behind */
	context = AllocSetContextCreate(CurrentMemoryContext, "rebate rule", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	rel = table_open(source->relid, AccessShareLock);
	if (version->condition)
		load_expr(rel, "condition", version->condition, BOOLOID, &condition);
	if (version->base)
		load_expr(rel, "base", version->base, NUMERICOID, &base);
	table_close(rel, NoLock);
	MemoryContextSwitchTo(old);

	if (version->compiled)
		MemoryContextDelete(version->compiled);
	MemoryContextSetParent(context, cache_context);
	version->compiled = context;
	version->condition_expr = condition;
	version->base_expr = base;
	version->compiled_for = source->build;
}
