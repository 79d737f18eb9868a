/*
 * doctor.h
 *	  What the parts of rebate.doctor() share.
 */
#ifndef REBATE_DOCTOR_H
#define REBATE_DOCTOR_H

#include "rebate.h"
#include "nodes/execnodes.h"
#include "source.h"
#include "store.h"

/*
 * A question that one query answers: rows (subject, status, detail, remedy), none
 * if all is well.  It runs as the store's owner; what only its caller may see is
 * asked as he.  Questions of one name that follow each other are one check.
 */
typedef struct DoctorQuery
{
	const char *check;
	bool		as_caller;
	const char *sql;
} DoctorQuery;

/*
 * The call that attaches a table with arguments as rebate_data.source has them;
 * there those that are NULL are left out, and two have another default.
 */
#define ATTACH_CALL(relation, arguments) \
	"format('SELECT rebate.attach(%L, %s, replace => true)', " relation "," \
	"       (SELECT string_agg(format('%I => %s', a.key, CASE jsonb_typeof(a.value)" \
	"                 WHEN 'string' THEN quote_literal(a.value #>> '{}')" \
	"                 WHEN 'array' THEN quote_literal(ARRAY(" \
	"                      SELECT e.value FROM jsonb_array_elements_text(a.value)" \
	"                             WITH ORDINALITY e(value, i) ORDER BY e.i)::text)" \
	"                 WHEN 'object' THEN quote_literal(a.value::text)" \
	"                 ELSE a.value::text END), ', ')" \
	"          FROM jsonb_each('{\"max_backdate\": null, \"max_future\": null}'::jsonb || (" arguments ")) a))"

/*
 * The attached tables, and the call that attaches each again as it is; with all
 * partitions below, too.
 */
#define WITH_ATTACHED \
	"WITH attached AS (" \
	"  SELECT s.*, " ATTACH_CALL("s.relation", "s.arguments") " AS again" \
	"    FROM rebate_data.source s JOIN pg_class c ON c.oid = s.relation" \
	"   WHERE s.detached_at IS NULL)," \
	" relations AS (" \
	"  SELECT s.source_id, s.relation::oid AS relid, s.again, s.arguments FROM attached s" \
	"  UNION ALL" \
	"  SELECT s.source_id, p.relid::oid, s.again, s.arguments" \
	"    FROM attached s, pg_partition_tree(s.relation) p" \
	"   WHERE p.relid <> s.relation) "

/* How moments are shown */
#define MOMENT(t) "to_char(" t ", 'YYYY-MM-DD HH24:MI TZ')"

/* Add a line to the result. */
extern void doctor_say(ReturnSetInfo *result, const char *check, const char *subject,
					   const char *status, const char *detail, const char *remedy);

/* doctor_tables.c, doctor_server.c: ended by one without SQL */
extern const DoctorQuery doctor_table_queries[];
extern const DoctorQuery doctor_server_queries[];

/* doctor_damage.c: the store if it can be used, or why it cannot; and a line for that */
extern Store *doctor_find_store(ErrorData **damage);
extern void doctor_damage(ReturnSetInfo *result, const ErrorData *damage);
/* doctor_rights.c: for a store of version 2 */
extern const DoctorQuery doctor_rights_queries[];

/* doctor_orders.c: orders without a decision, mappings that no longer fit */
extern void doctor_orders(Store *store, ReturnSetInfo *result, Datum relids, bool thorough);

#endif							/* REBATE_DOCTOR_H */
