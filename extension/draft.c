/*
 * draft.c
 *	  Changes that wait for a second person: table rebate_data.draft.
 *
 * Where rebate.require_approval() is on, set_rule(), end_rule() and set_group()
 * check all they always check, and then write here what they would have written as
 * a version.  Orders never look at this table.
 */
#include "rebate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "api.h"
#include "draft.h"

int32
draft_write(Draft *draft, bool *found)
{
	SqlParams	params = {0};

	draft->author = person_now();
	sql_text(&params, draft->kind);
	sql_text(&params, draft->name);
	sql_param(&params, JSONBOID, draft->arguments, false);
	sql_text(&params, draft->condition);
	sql_text(&params, draft->base);
	sql_int(&params, draft->source_id);
	sql_int(&params, draft->base_version);
	sql_text(&params, draft->author.login);
	sql_param(&params, OIDOID, ObjectIdGetDatum(draft->author.login_id), false);
	sql_text(&params, draft->author.claim);
	sql_text(&params, draft->author_role);
	*found = sql_run("SELECT draft_id FROM rebate_data.draft"
					 " WHERE state = 'open' AND kind = $1 AND name = $2 AND arguments = $3"
					 "   AND condition IS NOT DISTINCT FROM $4 AND base IS NOT DISTINCT FROM $5"
					 "   AND COALESCE(source_id, 0) = $6 AND base_version = $7"
					 "   AND author = $8 AND author_id = $9 AND author_claim IS NOT DISTINCT FROM $10"
					 "   AND author_role = $11", &params, SPI_OK_SELECT) > 0;
	/* where another draft came after an old snapshot this is the serialization failure that it is */
	if (!*found)
		sql_run("INSERT INTO rebate_data.draft (draft_id, kind, name, arguments, condition, base,"
				"  source_id, base_version, author, author_id, author_claim, author_role, replaces)"
				" SELECT COALESCE(max(draft_id), 0) + 1, $1, $2, $3, $4, $5, NULLIF($6, 0), $7, $8, $9, $10, $11,"
				"        CASE $1 WHEN 'group' THEN (SELECT jsonb_build_object('mode', g.mode)"
				"                                     FROM rebate_data.rule_group g WHERE g.name = $2)"
				"                WHEN 'approval' THEN jsonb_build_object('required', true)"
				"                ELSE (SELECT v.arguments FROM rebate_data.rule_version v"
				"                        JOIN rebate_data.rule r ON r.rule_id = v.rule_id"
				"                       WHERE r.name = $2 AND v.version = $7) END"
				"  FROM rebate_data.draft ON CONFLICT (draft_id) DO NOTHING RETURNING draft_id", &params, SPI_OK_INSERT_RETURNING);
	draft->draft_id = sql_get_int(0, 1, 0);
	return draft->draft_id;
}

Draft *
draft_read(int32 draft_id, MemoryContext context)
{
	MemoryContext old;
	Draft	   *draft;
	SqlParams	params = {0};
	bool		isnull;

	sql_int(&params, draft_id);
	if (sql_run("SELECT kind, name, arguments, condition, base, source_id, base_version, state,"
				"       author, author_id, author_claim, author_role"
				"  FROM rebate_data.draft WHERE draft_id = $1", &params, SPI_OK_SELECT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("draft %d does not exist", draft_id),
				 errhint("The view rebate.rule_drafts has all drafts.")));
	old = MemoryContextSwitchTo(context);
	draft = palloc0(sizeof(Draft));
	draft->draft_id = draft_id;
	draft->kind = sql_get_text(0, 1, context);
	draft->name = sql_get_text(0, 2, context);
	draft->arguments = datumCopy(sql_get(0, 3, &isnull), false, -1);
	draft->condition = sql_get_text(0, 4, context);
	draft->base = sql_get_text(0, 5, context);
	draft->source_id = sql_get_int(0, 6, 0);
	draft->base_version = sql_get_int(0, 7, 0);
	draft->state = sql_get_text(0, 8, context);
	draft->author.login = sql_get_text(0, 9, context);
	draft->author.login_id = DatumGetObjectId(sql_get(0, 10, &isnull));
	draft->author.claim = sql_get_text(0, 11, context);
	draft->author_role = sql_get_text(0, 12, context);
	MemoryContextSwitchTo(old);
	if (strcmp(draft->state, "open") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_RB_APPROVAL),
				 errmsg("draft %d is %s already", draft_id, draft->state)));
	return draft;
}

void
draft_decide(const Draft *draft, const char *state, const char *reason, int32 generation,
			 int32 version)
{
	SqlParams	params = {0};
	Person		person = person_now();

	sql_int(&params, draft->draft_id);
	sql_text(&params, state);
	sql_text(&params, reason);
	sql_text(&params, person.login);
	sql_param(&params, OIDOID, ObjectIdGetDatum(person.login_id), false);
	sql_text(&params, person.claim);
	sql_param(&params, INT4OID, Int32GetDatum(generation), generation == 0);
	sql_param(&params, INT4OID, Int32GetDatum(version), version == 0);
	if (sql_run("UPDATE rebate_data.draft SET state = $2, reason = $3, decided_at = now(),"
				"  decided_by = $4, decided_by_id = $5, decided_claim = $6, generation = $7, version = $8"
				" WHERE draft_id = $1 AND state = 'open'", &params, SPI_OK_UPDATE) != 1)
		elog(ERROR, "draft %d changed meanwhile", draft->draft_id);
}

void
draft_notice(const Draft *draft, bool found)
{
	ereport(NOTICE,
			(found ? errmsg("draft %d says the same and waits for approval", draft->draft_id) :
			 errmsg("draft %d waits for approval", draft->draft_id),
			 errdetail("Until then nothing changes."),
			 errhint("Somebody else calls rebate.approve_rule(%d) or rebate.reject_rule(%d, '...').",
					 draft->draft_id, draft->draft_id)));
}
