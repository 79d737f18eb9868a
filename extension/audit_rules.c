/*
 * audit_rules.c
 *	  The part of the audit about rules that two persons make.
 *
 * A superuser can write a version, or turn the requirement off, behind our back.
 * It shows: each version that was written while approval was required must have the
 * draft that made it, approved by another person, and say what that says.
 */
#include "rebate.h"

#include "executor/spi.h"

#include "api.h"
#include "audit.h"
#include "rule_control.h"

/* Was approval required for what has this generation? */
#define REQUIRED(generation) \
	"(SELECT c.approval FROM rebate_data.rule_control c WHERE c.generation < " generation \
	"  ORDER BY c.generation DESC LIMIT 1)"

/* Each query returns violation, subject, detail */
static const char *const queries[] = {
	"SELECT 'rule version without approval', 'rule ' || r.name || ', version ' || v.version,"
	"       'Written by ' || v.created_by || ' at ' || v.created_at || '.'"
	"  FROM rebate_data.rule_version v JOIN rebate_data.rule r USING (rule_id)"
	"  LEFT JOIN rebate_data.rule_group g USING (group_id)"
	" WHERE " REQUIRED("v.generation")
	"   AND NOT EXISTS (SELECT FROM rebate_data.draft d"
	"                    WHERE d.generation = v.generation AND d.state = 'approved'"
	"                      AND CASE d.kind WHEN 'group' THEN d.name = g.name"
	"                          ELSE d.name = r.name AND d.version = v.version END)"
	" ORDER BY r.name COLLATE \"C\", v.version",
	"SELECT 'rule version is not as it was approved', 'rule ' || r.name || ', version ' || v.version,"
	"       'Approved was draft ' || d.draft_id || '.'"
	"  FROM rebate_data.rule_version v JOIN rebate_data.rule r USING (rule_id)"
	"  JOIN rebate_data.draft d ON d.generation = v.generation AND d.state = 'approved'"
	"  LEFT JOIN rebate_data.rule_version p ON p.rule_id = v.rule_id AND p.version = v.version - 1"
	"  CROSS JOIN LATERAL (SELECT CASE d.kind WHEN 'group' THEN p.arguments ELSE d.arguments END) x (a)"
	" WHERE v.arguments IS DISTINCT FROM x.a"
	"    OR CASE d.kind"
	"       WHEN 'end' THEN v.formula <> 'none'"
	"         OR v.valid_from <> COALESCE((a ->> 'at')::timestamptz, d.decided_at)"
	"       WHEN 'group' THEN v.group_mode IS DISTINCT FROM d.arguments ->> 'mode'"
	"         OR (to_jsonb(v) - '{version,generation,group_mode,created_at,created_by}'::text[])"
	"            IS DISTINCT FROM"
	"            (to_jsonb(p) - '{version,generation,group_mode,created_at,created_by}'::text[])"
	"       ELSE v.rate IS DISTINCT FROM (a ->> v.formula)::numeric"
	"         OR v.condition IS DISTINCT FROM d.condition OR v.base IS DISTINCT FROM d.base"
	"         OR v.source_id IS DISTINCT FROM d.source_id OR v.scope IS DISTINCT FROM a -> 'scope'"
	"         OR v.currency IS DISTINCT FROM a ->> 'currency'"
	"         OR v.minimum IS DISTINCT FROM (a ->> 'minimum')::numeric"
	"         OR v.max_per_order IS DISTINCT FROM (a ->> 'max_per_order')::numeric"
	"         OR v.limit_mode <> a ->> 'limit_mode' OR v.rounding <> a ->> 'rounding'"
	"         OR v.refund <> a ->> 'refund' OR v.unlinked_return <> a ->> 'unlinked_return'"
	"         OR v.hold <> (a ->> 'hold')::interval OR v.priority <> (a ->> 'priority')::integer"
	"         OR v.valid_from <> COALESCE((a ->> 'valid_from')::timestamptz, d.decided_at)"
	"         OR v.valid_to IS DISTINCT FROM (a ->> 'valid_to')::timestamptz END"
	" ORDER BY r.name COLLATE \"C\", v.version",
	/* as person_same() has it */
	"SELECT 'draft approved by its author', 'draft ' || draft_id, 'The author is ' || author || '.'"
	"  FROM rebate_data.draft"
	" WHERE state = 'approved'"
	"   AND (COALESCE(author_claim, author) = COALESCE(decided_claim, decided_by)"
	"        OR ((author_claim IS NULL OR decided_claim IS NULL)"
	"            AND (author_id = decided_by_id OR author = decided_by))"
	"        OR decided_by IS NULL)"
	" ORDER BY draft_id",
	"SELECT 'approval turned off without approval', 'generation ' || p.generation,"
	"       'By ' || p.changed_by || ' at ' || p.changed_at || '.'"
	"  FROM rebate_data.rule_control p"
	" WHERE NOT p.approval AND " REQUIRED("p.generation")
	"   AND NOT EXISTS (SELECT FROM rebate_data.draft d"
	"                    WHERE d.generation = p.generation AND d.state = 'approved' AND d.kind = 'approval')"
	" ORDER BY p.generation",
	"SELECT 'rule version above the greatest percentage', 'rule ' || r.name || ', version ' || v.version,"
	"       v.rate || ' %, ' || c.max_percent || ' % were allowed.'"
	"  FROM rebate_data.rule_version v JOIN rebate_data.rule r USING (rule_id)"
	"  CROSS JOIN LATERAL (SELECT c.max_percent FROM rebate_data.rule_control c"
	"                       WHERE c.generation < v.generation ORDER BY c.generation DESC LIMIT 1) c"
	" WHERE v.formula = 'percent' AND v.rate > c.max_percent"
	/* a group's new mode writes each of its rules again, as it was */
	"   AND NOT EXISTS (SELECT FROM rebate_data.rule_version p"
	"                    WHERE p.rule_id = v.rule_id AND p.version = v.version - 1"
	"                      AND p.arguments = v.arguments AND p.rate = v.rate)"
	" ORDER BY r.name COLLATE \"C\", v.version"
};

void
audit_rules(Store *store, ReturnSetInfo *result)
{
	StoreSpi	scope;

	if (store->version < CONTROL_STORE_VERSION)
		return;
	store_spi_begin(store, &scope);
	for (int i = 0; i < (int) lengthof(queries); i++)
	{
		sql_run(queries[i], NULL, SPI_OK_SELECT);
		for (uint64 row = 0; row < SPI_processed; row++)
			audit_report(result, "rules",
						 SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1),
						 SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 2),
						 SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 3));
	}
	store_spi_end(&scope);
}
