/*
 * doctor_tables.c
 *	  What rebate.doctor() asks about attached tables and their orders.
 */
#include "rebate.h"

#include "doctor.h"

/*
 * The triggers that attach() makes.  Those of rows are clones on partitions; kind
 * is pg_trigger.tgtype.
 */
#define WITH_TRIGGERS \
	WITH_ATTACHED ", wanted AS (" \
	"  SELECT r.*, w.* FROM relations r JOIN (VALUES" \
	"    ('rebate_insert', 'rebate.collect()'::regprocedure, 4, false, true, false)," \
	"    ('rebate_update', 'rebate.collect()', 16, true, true, false)," \
	"    ('rebate_delete', 'rebate.collect()', 8, true, false, false)," \
	"    ('rebate_truncate', 'rebate.collect_truncate()', 34, false, false, false)," \
	"    ('rebate_replica_insert', 'rebate.collect_row()', 5, false, false, true)," \
	"    ('rebate_replica_update', 'rebate.collect_row()', 17, false, false, true)," \
	"    ('rebate_replica_delete', 'rebate.collect_row()', 9, false, false, true)," \
	"    ('rebate_replica_truncate', 'rebate.collect_truncate()', 34, false, false, true)" \
	"  ) w(name, function, kind, old, new, replica)" \
	"    ON NOT w.replica OR COALESCE((r.arguments ->> 'row_triggers')::boolean, false)) "

const DoctorQuery doctor_table_queries[] = {
	{"triggers", false,
		WITH_TRIGGERS
		/* state: 1 disabled, 2 renamed, 3 missing, 4 another function, 5 otherwise made */
		", found AS ("
		"  SELECT w.*, o.tgname AS renamed,"
		"         CASE WHEN g.oid IS NULL AND o.oid IS NOT NULL THEN 2 WHEN g.oid IS NULL THEN 3"
		"              WHEN g.tgfoid <> w.function THEN 4"
		"              WHEN g.tgtype <> w.kind OR g.tgqual IS NOT NULL OR g.tgattr <> ''"
		"                OR (g.tgoldtable IS NOT NULL) <> w.old OR (g.tgnewtable IS NOT NULL) <> w.new THEN 5"
		"              WHEN g.tgenabled <> ALL (CASE WHEN w.replica THEN ARRAY['R', 'A'] ELSE ARRAY['O', 'A'] END::\"char\"[])"
		"              THEN 1 ELSE 0 END AS state"
		"    FROM wanted w"
		"    LEFT JOIN pg_trigger g ON g.tgrelid = w.relid AND g.tgname = w.name AND NOT g.tgisinternal"
		"    LEFT JOIN LATERAL (SELECT o.oid, o.tgname FROM pg_trigger o"
		"                        WHERE o.tgrelid = w.relid AND o.tgfoid = w.function AND o.tgtype = w.kind"
		"                          AND (o.tgenabled IN ('R', 'A')) = w.replica"
		"                          AND o.tgname NOT IN (SELECT x.name FROM wanted x)"
		"                        ORDER BY o.tgname LIMIT 1) o ON g.oid IS NULL),"
		" drops AS ("
		"  SELECT source_id, string_agg(format('DROP TRIGGER IF EXISTS %s ON %s; ', name, relid::regclass), ''"
		"                               ORDER BY relid::regclass::text, name) AS drops"
		"    FROM found WHERE state >= 4 GROUP BY source_id) "
		"SELECT format('%s, trigger %s', f.relid::regclass, f.name), 'problem',"
		"       CASE f.state WHEN 1 THEN 'it is disabled' WHEN 2 THEN format('it is named %s', f.renamed)"
		"                    WHEN 3 THEN 'it is missing' WHEN 4 THEN 'it calls another function'"
		"                    ELSE 'it fires otherwise than rebate.attach() makes it' END,"
		"       CASE f.state WHEN 1 THEN format('ALTER TABLE %s ENABLE %sTRIGGER %s', f.relid::regclass,"
		"                                       CASE WHEN f.replica THEN 'REPLICA ' ELSE '' END, f.name)"
		"                    WHEN 2 THEN format('ALTER TRIGGER %I ON %s RENAME TO %s', f.renamed, f.relid::regclass, f.name)"
		"                    ELSE concat(d.drops, f.again) END"
		"  FROM found f LEFT JOIN drops d ON d.source_id = f.source_id"
		" WHERE f.state > 0"
		/* those first that attach() would make again */
	" ORDER BY f.state, 1"},
	{"triggers", false,
		WITH_TRIGGERS
		"SELECT format('%s, trigger %s', g.tgrelid::regclass, g.tgname), 'notice',"
		"       'it does nothing, since the table is not attached',"
		"       format('DROP TRIGGER %I ON %s', g.tgname, g.tgrelid::regclass)"
		"  FROM pg_trigger g"
		" WHERE g.tgfoid IN (SELECT w.function FROM wanted w) AND NOT g.tgisinternal AND g.tgparentid = 0"
		"   AND g.tgrelid NOT IN (SELECT r.relid FROM relations r)"
		"   AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = g.tgrelid AND i.inhdetachpending)"
	" ORDER BY 1"},
	{"triggers", false,
		WITH_ATTACHED
		"SELECT s.relation_name, 'problem',"
		"       format('subscription of logical replication writes to it (%s), and fires none of its triggers',"
		"              string_agg(DISTINCT r.relid::regclass::text, ', ')),"
		/* first what was written so far, which attach() would take for older than itself */
		"       format('SELECT rebate.reconcile(%L); ', s.relation) || "
		ATTACH_CALL("s.relation", "s.arguments || '{\"row_triggers\": true}'")
		"  FROM attached s"
		" CROSS JOIN LATERAL (SELECT s.relation::oid AS relid UNION"
		"                     SELECT p.relid FROM pg_partition_tree(s.relation) p) r"
		"  JOIN pg_subscription_rel n ON n.srrelid = r.relid"
		" WHERE NOT COALESCE((s.arguments ->> 'row_triggers')::boolean, false)"
		" GROUP BY s.relation_name, s.relation, s.arguments"
	" ORDER BY 1"},
	{"tables", false,
		"SELECT s.relation_name, 'notice', 'the attached table is gone; its rebates stay',"
		"       NULL"
		"  FROM rebate_data.source s"
		" WHERE s.detached_at IS NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation)"
		" UNION ALL "
		"SELECT format('%s, %s', k.conrelid::regclass, k.conname), 'problem',"
		"       format('%s refers to %s, and both are attached: an order and its lines are paid twice',"
		"              k.conrelid::regclass, k.confrelid::regclass),"
		"       format('SELECT rebate.detach(%L) -- or the other table', k.conrelid::regclass)"
		"  FROM pg_constraint k"
		"  JOIN rebate_data.source c ON c.relation = k.conrelid AND c.detached_at IS NULL"
		"  JOIN rebate_data.source p ON p.relation = k.confrelid AND p.detached_at IS NULL"
		" WHERE k.contype = 'f' AND k.conrelid <> k.confrelid"
	" ORDER BY 1"},
	{"tables", false,
		WITH_ATTACHED
		"SELECT i.inhrelid::regclass::text, 'problem',"
		"       format('half detached from %s: its orders are not followed any more', i.inhparent::regclass),"
		"       format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', i.inhparent::regclass, i.inhrelid::regclass)"
		"  FROM pg_inherits i JOIN relations r ON r.relid = i.inhparent"
		" WHERE i.inhdetachpending"
	" ORDER BY 1"},
	/* what is told, and is no trouble */
	{"tables", false,
		"SELECT s.relation_name, 'ok',"
		"       format('detached since %s: its orders get no rebates', " MOMENT("s.detached_at") "), NULL"
		"  FROM rebate_data.source s JOIN pg_class c ON c.oid = s.relation"
		" WHERE s.detached_at IS NOT NULL"
	" ORDER BY 1"},
	{"links", false,
		WITH_ATTACHED
		"SELECT format('%s, %s', s.relation_name, m.what), 'notice',"
		"       format('it is mapped, and of some %s orders none has it: each order pays for locks', c.reltuples::bigint),"
		"       " ATTACH_CALL("s.relation", "s.arguments - m.what")
		"  FROM attached s JOIN pg_class c ON c.oid = s.relation"
		"  JOIN (VALUES ('original', 'o'::\"char\"), ('replaces', 'r')) m(what, kind)"
		"    ON CASE m.what WHEN 'original' THEN s.original ELSE s.\"replaces\" END IS NOT NULL"
		" WHERE c.reltuples >= 1000"
		"   AND NOT EXISTS (SELECT FROM rebate_data.link l WHERE l.source_id = s.source_id AND l.kind = m.kind)"
	" ORDER BY 1"},
	{"sequences", true,
		"SELECT format('%s.%I', q.relid::regclass, q.attname), 'problem',"
		"       format('%s %% of the numbers of its sequence are taken; orders will fail', trunc(100 * q.last / q.most)),"
		"       format('ALTER SEQUENCE %s AS bigint MAXVALUE 9223372036854775807', q.seq)"
		"       || CASE WHEN q.atttypid = 'bigint'::regtype THEN ''"
		"               ELSE format('; ALTER TABLE %s ALTER %I TYPE bigint -- as the owner; it writes the table anew',"
		"                           q.relid::regclass, q.attname) END"
		"  FROM (SELECT d.refobjid AS relid, a.attname, a.atttypid, v.last_value::numeric AS last,"
		"               format('%I.%I', v.schemaname, v.sequencename) AS seq,"
		"               LEAST(v.max_value, CASE a.atttypid WHEN 'smallint'::regtype THEN 32767"
		"                                  WHEN 'integer'::regtype THEN 2147483647 ELSE v.max_value END)::numeric AS most"
		"          FROM pg_depend d"
		"          JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'"
		"          JOIN pg_namespace n ON n.oid = c.relnamespace"
		"          JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
		"          JOIN pg_sequences v ON v.schemaname = n.nspname AND v.sequencename = c.relname"
		"         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass"
		"           AND d.refobjid = ANY ($1) AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')"
		"           AND v.increment_by > 0 AND NOT v.cycle) q"
		" WHERE q.last > 0.8 * q.most"
	" ORDER BY 1"},
	{"sequences", false,
		"SELECT 'rebate_data.id', 'problem',"
		"       CASE WHEN m.used - COALESCE(v.last_value, 0) >= 64 THEN 'it gives numbers that are taken: the next order may fail'"
		"            ELSE format('%s %% of its numbers are taken', trunc(100 * (v.last_value::numeric / v.max_value))) END,"
		"       'SELECT setval(''rebate_data.id'', (SELECT 64 * (max(i) / 64 + 1) FROM (SELECT max(account_id)"
		" FROM rebate_data.account UNION ALL SELECT max(accrual_id) FROM rebate_data.accrual UNION ALL"
		" SELECT max(posting_id) FROM rebate_data.ledger) ids(i)))'"
		"  FROM pg_sequences v, (SELECT max(account_id) AS used FROM rebate_data.account) m"
		" WHERE v.schemaname = 'rebate_data' AND v.sequencename = 'id'"
	"   AND (m.used - COALESCE(v.last_value, 0) >= 64 OR v.last_value > 0.8 * v.max_value)"},
	{"failures", false,
		"SELECT COALESCE(s.relation_name, f.source_id::text), 'problem',"
		"       format('%s set aside, the first %s, the last %s; most often %s', sum(f.n),"
		"              " MOMENT("min(f.first)") ", " MOMENT("max(f.last)") ","
		"              (array_agg(f.what ORDER BY f.n DESC, f.what))[1]),"
		"       CASE WHEN bool_or(f.ambiguous) THEN"
		"         format('SELECT rebate.reconcile(%L, ARRAY(SELECT order_key FROM rebate.failures"
		" WHERE source = %1$L AND sqlstate = ''RB012'')) -- or take the keys back', s.relation_name)"
		"       ELSE format('SELECT * FROM rebate.retry(%L) -- after correcting the rows, see rebate.failures',"
		"                   s.relation_name) END"
		"  FROM (SELECT source_id, sqlstate || ': ' || message AS what, count(*) AS n, sqlstate = 'RB012' AS ambiguous,"
		"               min(first_failed_at) AS first, max(last_failed_at) AS last"
		"          FROM rebate_data.failure GROUP BY 1, 2, 4) f"
		"  LEFT JOIN rebate_data.source s ON s.source_id = f.source_id"
	" GROUP BY f.source_id, f.ambiguous, s.relation_name ORDER BY 1, f.ambiguous"},
	{"deferred", false,
		"SELECT s.relation_name,"
		"       CASE WHEN current_setting('rebate.mode') = 'defer' THEN 'notice' ELSE 'problem' END,"
		"       format('%s orders wait, the first since %s', count(*), " MOMENT("min(d.first_seen)") "),"
		"       format('SELECT rebate.reconcile(%L, deferred_only => true)', s.relation_name)"
		"  FROM rebate_data.deferred d JOIN rebate_data.source s ON s.source_id = d.source_id"
	" GROUP BY s.relation_name ORDER BY 1"},
	{"clock", false,
		"SELECT j.job, 'problem', format('rebates wait for it that are due since %s', " MOMENT("min(w.due)") "),"
		"       format('CALL rebate.%s()', j.job)"
		"  FROM (VALUES ('mature', interval '10 minutes', ARRAY['2']), ('age', '1 hour', ARRAY['0', '1']))"
		"       j(job, patience, buckets)"
		"  JOIN rebate_data.waiting w ON w.bucket = ANY (j.buckets::\"char\"[]) AND w.due < now() - j.patience"
		" GROUP BY j.job ORDER BY 1"},
	{"clock", false,
		"SELECT j.job, 'notice', CASE WHEN j.state = 'finished' THEN format('its last run ended %s', " MOMENT("j.finished_at") ")"
		"                             WHEN j.state = 'stopped' THEN format('its last run broke off %s', " MOMENT("j.progress_at") ")"
		"                             ELSE format('it runs since %s and has not moved since %s', " MOMENT("j.started_at") ","
		"                                         " MOMENT("j.progress_at") ") END,"
		"       CASE WHEN j.state = 'running' THEN format('SELECT pg_cancel_backend(%s)', j.pid)"
		"            ELSE format('CALL rebate.%s()', j.job) END"
		"  FROM rebate.jobs j"
		"  JOIN (VALUES ('mature', interval '15 minutes'), ('age', '1 hour'), ('fold', '3 hours'),"
		"               ('retry_failures', '3 hours'), ('run_audit', '3 days'), ('prune', '3 days')) p(job, patience)"
		"    ON p.job = j.job"
		" WHERE COALESCE(j.finished_at, j.progress_at) < now() - p.patience OR j.state = 'stopped'"
	" ORDER BY 1"},
	{NULL, false, NULL}
};
