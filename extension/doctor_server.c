/*
 * doctor_server.c
 *	  What rebate.doctor() asks about versions, settings, the store and the server.
 */
#include "rebate.h"

#include "doctor.h"

/*
 * Settings that are not as they should be here: what they do, and the value that
 * is right.  It has worked for somebody who set it, so what is not "problem" is
 * only told.
 */
#define WITH_SETTINGS \
	"WITH wanted(name, good, bad, status, detail) AS (VALUES" \
	"  ('rebate.mode', 'on', ARRAY['off'], 'problem', 'orders get no rebates')," \
	"  ('rebate.mode', 'on', ARRAY['defer'], 'notice', 'keys of orders are recorded only')," \
	"  ('rebate.posting', 'commit', ARRAY['statement'], 'notice'," \
	"   'transactions hold the accounts of their members from the statement on')," \
	"  ('session_replication_role', 'origin', ARRAY['replica', 'local'], 'problem', 'triggers do not fire')," \
	"  ('fsync', 'on', ARRAY['off'], 'problem', 'a crash of the machine can destroy the ledger')," \
	"  ('full_page_writes', 'on', ARRAY['off'], 'problem', 'a crash of the machine can destroy the ledger')," \
	"  ('zero_damaged_pages', 'off', ARRAY['on'], 'problem', 'a damaged page of the ledger becomes an empty one')," \
	"  ('ignore_checksum_failure', 'off', ARRAY['on'], 'problem', 'damaged pages of the ledger are read')," \
	"  ('autovacuum', 'on', ARRAY['off'], 'notice', 'accounts are updated in place, and orders get slower with each dead row')," \
	"  ('track_counts', 'on', ARRAY['off'], 'notice', 'without it autovacuum does not know what to do')," \
	"  ('default_transaction_isolation', '''read committed''', ARRAY['repeatable read', 'serializable'], 'notice'," \
	"   'orders of a member that come at once end with 40001, and have to be repeated')," \
	"  ('synchronous_commit', 'on', ARRAY['off'], 'notice'," \
	"   'a crash can take the last orders with their rebates, although clients were told of the commit'))"

/* Of this session, and what takes it back */
#define SETTINGS_HERE(which) \
	WITH_SETTINGS \
	"SELECT w.name, w.status, format('it is %s: %s', s.setting, w.detail)," \
	"       CASE s.source" \
	"         WHEN 'session' THEN format('SET %s = %s', w.name, w.good)" \
	"         WHEN 'database' THEN format('ALTER DATABASE %I RESET %s', current_database(), w.name)" \
	"         WHEN 'user' THEN format('ALTER ROLE %I RESET %s', session_user, w.name)" \
	"         WHEN 'database user' THEN" \
	"           format('ALTER ROLE %I IN DATABASE %I RESET %s', session_user, current_database(), w.name)" \
	"         WHEN 'global' THEN format('ALTER ROLE ALL RESET %s', w.name)" \
	"         ELSE format('ALTER SYSTEM SET %s = %s -- then SELECT pg_reload_conf()', w.name, w.good) END" \
	"       || CASE s.setting WHEN 'off' THEN (SELECT COALESCE(string_agg(format('; SELECT rebate.reconcile(%L)', r), ''), '')" \
	"            FROM unnest($1::regclass[]) r WHERE w.name = 'rebate.mode') ELSE '' END" \
	"  FROM wanted w JOIN pg_settings s ON s.name = w.name AND s.setting = ANY (w.bad)" \
	" WHERE " which \
	" ORDER BY w.name"

/* Of others, when they connect */
#define SETTINGS_OF_ROLES(which) \
	WITH_SETTINGS \
	"SELECT concat_ws(' ', w.name, 'of', CASE WHEN d.setrole <> 0 THEN format('role %I', pg_get_userbyid(d.setrole))" \
	"                                         WHEN d.setdatabase = 0 THEN 'all roles' END," \
	"                 CASE WHEN d.setdatabase <> 0 THEN format('database %I', current_database()) END)," \
	"       w.status, format('it is %s: %s', c.value, w.detail)," \
	"       CASE WHEN d.setrole = 0 AND d.setdatabase <> 0 THEN" \
	"              format('ALTER DATABASE %I RESET %s', current_database(), w.name)" \
	"            ELSE concat_ws(' ', 'ALTER ROLE', CASE WHEN d.setrole = 0 THEN 'ALL'" \
	"                                              ELSE quote_ident(pg_get_userbyid(d.setrole)) END," \
	"                           CASE WHEN d.setdatabase <> 0 THEN format('IN DATABASE %I', current_database()) END," \
	"                           'RESET', w.name) END" \
	"  FROM pg_db_role_setting d" \
	" CROSS JOIN LATERAL (SELECT split_part(e, '=', 1) AS name, lower(split_part(e, '=', 2)) AS value" \
	"                       FROM unnest(d.setconfig) e) c" \
	"  JOIN wanted w ON w.name = c.name AND c.value = ANY (w.bad)" \
	" WHERE d.setdatabase IN (0, (SELECT b.oid FROM pg_database b WHERE b.datname = current_database())) AND " which \
	" ORDER BY 1"

#define OURS	"w.name LIKE 'rebate.%'"
#define NOT_OURS	"w.name NOT LIKE 'rebate.%'"

const DoctorQuery doctor_server_queries[] = {
	{"versions", false,
		"SELECT part, 'problem', format('version %s, the latest is %s', version, latest), advice"
	"  FROM rebate.versions() WHERE advice IS NOT NULL"},
	{"mode", true, SETTINGS_HERE(OURS)},
	{"mode", true, SETTINGS_OF_ROLES(OURS)},
	{"settings", true, SETTINGS_HERE(NOT_OURS)},
	{"settings", true, SETTINGS_OF_ROLES(NOT_OURS)},
	{"guards", false,
		"SELECT c.oid::regclass::text, 'problem',"
		"       CASE WHEN g.oid IS NULL THEN 'its guard is missing: it can be written directly'"
		"            WHEN g.tgname <> 'rebate_guard' THEN format('its guard is named %s', g.tgname)"
		"            ELSE 'its guard is disabled: it can be written directly' END,"
		"       CASE WHEN g.oid IS NULL THEN format('SELECT rebate.adopt_store(%L)', pg_get_userbyid(c.relowner))"
		"            WHEN g.tgname <> 'rebate_guard' THEN"
		"              format('ALTER TRIGGER %I ON %s RENAME TO rebate_guard', g.tgname, c.oid::regclass)"
		"            ELSE format('ALTER TABLE %s ENABLE TRIGGER rebate_guard', c.oid::regclass) END"
		"  FROM pg_class c"
		"  LEFT JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgfoid = 'rebate.guard()'::regprocedure"
		"   AND g.tgtype = 62 AND g.tgqual IS NULL AND g.tgattr = ''"
		" WHERE c.relnamespace = 'rebate_data'::regnamespace AND c.relkind = 'r'"
		"   AND (g.oid IS NULL OR g.tgname <> 'rebate_guard' OR g.tgenabled NOT IN ('O', 'A'))"
	" ORDER BY 1"},
	{"event triggers", false,
		"SELECT t.name, CASE WHEN EXISTS (SELECT FROM rebate_data.source s JOIN pg_class c ON c.oid = s.relation"
		"                                  WHERE s.detached_at IS NULL AND c.relkind = 'p')"
		"                    THEN 'problem' ELSE 'notice' END,"
		"       CASE WHEN e.oid IS NULL THEN 'it is missing: partitions and renamed things are not followed'"
		"            WHEN e.evtname <> t.name THEN format('it is named %s', e.evtname)"
		"            ELSE 'it is disabled: partitions and renamed things are not followed' END,"
		"       CASE WHEN e.oid IS NULL THEN"
		"              format('DROP EXTENSION rebate CASCADE; CREATE EXTENSION rebate; SELECT rebate.adopt_store(%L)',"
		"                     (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = 'rebate_data.store'::regclass))"
		"            WHEN e.evtname <> t.name THEN format('ALTER EVENT TRIGGER %I RENAME TO %s', e.evtname, t.name)"
		"            ELSE format('ALTER EVENT TRIGGER %s ENABLE ALWAYS', t.name) END"
		"  FROM (VALUES ('rebate_follow_partitions', 'rebate.follow_partitions()'::regprocedure),"
		"               ('rebate_watch_drops', 'rebate.watch_drops()')) t(name, function)"
		"  LEFT JOIN pg_event_trigger e ON e.evtfoid = t.function"
		" WHERE e.oid IS NULL OR e.evtname <> t.name OR e.evtenabled NOT IN ('O', 'A')"
	" ORDER BY 1"},
	/* an old one, or one that somebody waits for */
	{"prepared transactions", true,
		"SELECT p.gid, 'problem', format('prepared %s by %I%s: the members of its orders can get no other rebates until it ends',"
		"              " MOMENT("p.prepared") ", p.owner, CASE WHEN w.n > 0 THEN format(', and %s wait for it', w.n) ELSE '' END),"
		"       format('COMMIT PREPARED %L -- or ROLLBACK PREPARED', p.gid)"
		"  FROM pg_prepared_xacts p"
		" CROSS JOIN LATERAL (SELECT count(*) AS n FROM pg_locks l"
		"                      WHERE l.locktype = 'transactionid' AND l.transactionid = p.transaction AND NOT l.granted) w"
		" WHERE p.database = current_database() AND (p.prepared < now() - interval '10 minutes' OR w.n > 0)"
	" ORDER BY p.prepared"},
	/* as far as the caller may see when others began: whoever has an id, or a snapshot of this database */
	{"open transactions", true,
		"SELECT format('process %s', a.pid), CASE WHEN a.state LIKE 'idle in transaction%' THEN 'problem' ELSE 'notice' END,"
		"       format('a transaction of %I is open since %s, %s: %s', a.usename, " MOMENT("a.xact_start") ", a.state,"
		"              concat_ws(', ', CASE WHEN a.datname = current_database() THEN 'dead rows stay' END,"
		"                        CASE WHEN a.backend_xid IS NOT NULL THEN 'cursors of rebate.feed carry it along' END,"
		"                        CASE WHEN a.backend_xid IS NOT NULL AND a.datname = current_database()"
		"                             THEN 'its members get no other rebates if it has posted any, and cannot be erased' END)),"
		"       format('SELECT pg_terminate_backend(%s) -- unless it is at work', a.pid)"
		"  FROM pg_stat_activity a"
		" WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()"
		"   AND a.xact_start < now() - interval '1 hour'"
		"   AND (a.backend_xid IS NOT NULL OR a.datname = current_database())"
	" ORDER BY a.xact_start"},
	{"transaction ids", false,
		"SELECT c.oid::regclass::text,"
		"       CASE WHEN a.xids > current_setting('vacuum_failsafe_age')::bigint"
		"              OR a.multis > current_setting('vacuum_multixact_failsafe_age')::bigint THEN 'problem' ELSE 'notice' END,"
		"       format('its oldest transaction id is %s old, its oldest multixact %s: autovacuum does not get to it',"
		"              a.xids, a.multis),"
		"       format('VACUUM (FREEZE) %s', CASE c.relkind WHEN 't' THEN (SELECT m.oid::regclass FROM pg_class m"
		"                                                                  WHERE m.reltoastrelid = c.oid) ELSE c.oid END)"
		"  FROM pg_class c"
		" CROSS JOIN LATERAL (SELECT age(c.relfrozenxid) AS xids, mxid_age(c.relminmxid) AS multis) a"
		" WHERE c.oid IN (SELECT unnest(ARRAY[s.oid, s.reltoastrelid]) FROM pg_class s"
		"                  WHERE s.relnamespace = 'rebate_data'::regnamespace AND s.relkind = 'r')"
		"   AND (a.xids > 1.2 * current_setting('autovacuum_freeze_max_age')::bigint"
		"    OR a.multis > 1.2 * current_setting('autovacuum_multixact_freeze_max_age')::bigint)"
	" ORDER BY 1"},
	/* those that the engine scans itself stop it; the others cost, and serve nobody */
	{"indexes", false,
		"SELECT i.indexrelid::regclass::text, 'problem', 'it is invalid: it is written, and not used',"
		"       format(CASE WHEN x.relname ~ '_cc(new|old)[0-9]*$' THEN 'DROP INDEX %s' ELSE 'REINDEX INDEX %s' END, i.indexrelid::regclass)"
		"  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid"
		" WHERE c.relnamespace = 'rebate_data'::regnamespace AND NOT i.indisvalid"
	" ORDER BY 1"},
	{"vacuum", false,
		"SELECT c.oid::regclass::text, 'notice', 'autovacuum is off for it',"
		"       format('ALTER TABLE %s RESET (autovacuum_enabled)', c.oid::regclass)"
		"  FROM pg_class c CROSS JOIN LATERAL pg_options_to_table(c.reloptions) o"
		" WHERE c.relnamespace = 'rebate_data'::regnamespace AND c.relkind = 'r'"
		"   AND o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean"
	" ORDER BY 1"},
	{"vacuum", false,
		"SELECT c.oid::regclass::text, 'notice',"
		"       format('%s dead rows beside %s live ones: autovacuum does not get to it, or a transaction or slot holds it back',"
		"              u.dead, u.live),"
		"       format('VACUUM (ANALYZE) %s', c.oid::regclass)"
		"  FROM pg_class c"
		" CROSS JOIN LATERAL (SELECT pg_stat_get_dead_tuples(c.oid) AS dead, pg_stat_get_live_tuples(c.oid) AS live) u"
		" WHERE c.relnamespace = 'rebate_data'::regnamespace AND c.relkind = 'r'"
		"   AND u.dead > 100000 AND u.dead > u.live"
	" ORDER BY 1"},
	{"replication slots", true,
		"SELECT s.slot_name::text, 'notice',"
		"       format('nobody reads it, and it keeps %s of WAL: the disk fills', pg_size_pretty(w.kept)),"
		"       format('SELECT pg_drop_replication_slot(%L) -- if nobody comes back for it', s.slot_name)"
		"  FROM pg_replication_slots s"
		" CROSS JOIN LATERAL (SELECT CASE WHEN NOT pg_is_in_recovery()"
		"                            THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END AS kept) w"
		" WHERE NOT s.active AND NOT s.temporary AND w.kept > pg_size_bytes(current_setting('max_wal_size'))"
	" ORDER BY 1"},
	/* names of channels are secrets, once there are any */
	{"channel names", false,
		"SELECT s.name, 'notice', format('it is %s: whoever reads %s sees names of members'' channels', s.setting, w.place),"
		"       format('ALTER SYSTEM SET %s = %s -- then SELECT pg_reload_conf()', s.name, w.good)"
		"  FROM (VALUES ('pg_stat_statements.track_utility', ARRAY['on'], 'off', 'pg_stat_statements'),"
		"               ('log_statement', ARRAY['all'], 'ddl', 'the server''s log'),"
		"               ('log_min_duration_statement', ARRAY['0'], '-1', 'the server''s log')) w(name, bad, good, place)"
		"  JOIN pg_settings s ON s.name = w.name AND s.setting = ANY (w.bad)"
		" WHERE EXISTS (SELECT FROM rebate_data.channel)"
	" ORDER BY 1"},
	{"delivery", true,
		"SELECT 'notification queue', 'problem', format('%s %% of it is full: a session that listens stays behind',"
		"       round((100 * pg_notification_queue_usage())::numeric)),"
		"       (SELECT format('SELECT pg_terminate_backend(%s)', a.pid) FROM pg_stat_activity a"
		"         WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL"
		"         ORDER BY a.xact_start LIMIT 1)"
	" WHERE pg_notification_queue_usage() > 0.5"},
	{NULL, false, NULL}
};
