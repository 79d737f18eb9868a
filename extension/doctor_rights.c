/*
 * doctor_rights.c
 *	  What rebate.doctor() asks about who may do what: rights, logins of members,
 *	  and whether there are two persons where it takes two.
 */
#include "rebate.h"

#include "doctor.h"

/* Has a role a right that was granted, by itself or as a member of a role? */
#define HAS_RIGHT(role, right) \
	"EXISTS (SELECT FROM rebate_data.granted_right g JOIN pg_roles o ON o.rolname::text = g.role_name" \
	"         WHERE g.right_name = '" right "' AND pg_has_role(" role ", o.oid, 'USAGE'))"

/*
 * Logins that approve and those that write, as (oid, name, many): many persons
 * share that of a gateway.  A superuser is only counted for what he was granted by
 * name; he is a member of every role.
 */
#define WITH_PERSONS \
	"WITH logins AS (SELECT r.oid, r.rolname::text AS name, r.rolsuper, " HAS_RIGHT("r.oid", "gateway") " AND NOT r.rolsuper AS many" \
	"                  FROM pg_roles r WHERE r.rolcanlogin)," \
	" approvers AS (SELECT l.* FROM logins l" \
	"                WHERE CASE WHEN l.rolsuper THEN EXISTS (SELECT FROM rebate_data.granted_right g" \
	"                                                         WHERE g.right_name = 'approver' AND g.role_name = l.name)" \
	"                      ELSE " HAS_RIGHT("l.oid", "approver") " END)," \
	" authors AS (SELECT l.* FROM logins l WHERE " HAS_RIGHT("l.oid", "author") " OR pg_has_role(l.oid, current_user, 'USAGE'))"

#define APPROVAL_REQUIRED \
	"(SELECT c.approval FROM rebate_data.rule_control c ORDER BY c.generation DESC LIMIT 1)"

const DoctorQuery doctor_rights_queries[] = {
	/* roles that are no more, and grants that were taken back by hand or with the functions */
	{"rights", false,
		"SELECT format('role %s', g.role_name), 'notice', format('it has the right \"%s\", and is no more', g.right_name),"
		"       format('SELECT rebate.revoke_right(%L, %L) -- or, if the role was renamed, grant it to that one, too',"
		"              g.right_name, g.role_name)"
		"  FROM rebate_data.granted_right g"
		" WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname::text = g.role_name)"
	" ORDER BY g.role_name, g.right_name"},
	{"rights", false,
		"SELECT format('role %s', g.role_name), 'problem',"
		"       format('it has the right \"%s\", but may not use %s', g.right_name, string_agg(m.name, ', ' ORDER BY m.name)),"
		"       format('SELECT rebate.grant_right(%L, %L)', g.right_name, g.role_name)"
		"  FROM rebate_data.granted_right g"
		"  JOIN pg_roles r ON r.rolname::text = g.role_name"
		"  JOIN rebate.right_objects() o ON g.right_name = ANY (o.rights)"
		"  JOIN (SELECT 'function' AS kind, p.proname::text AS name, p.oid FROM pg_proc p"
		"         WHERE p.pronamespace = 'rebate'::regnamespace"
		"         UNION ALL"
		"        SELECT 'view', c.relname::text, c.oid FROM pg_class c"
		"         WHERE c.relnamespace = 'rebate'::regnamespace AND c.relkind = 'v') m"
		"    ON m.kind = o.kind AND m.name = o.name"
		" WHERE NOT CASE o.kind WHEN 'view' THEN has_table_privilege(r.oid, m.oid, 'SELECT')"
		"           ELSE has_function_privilege(r.oid, m.oid, 'EXECUTE') END"
		" GROUP BY g.role_name, g.right_name"
	" ORDER BY g.role_name, g.right_name"},
	/* of the store nobody but its owner needs anything */
	{"rights", false,
		"SELECT a.name, CASE WHEN a.privileges && ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES', 'CREATE']"
		"                    THEN 'problem' ELSE 'notice' END,"
		"       format('role %s was granted %s on it by hand: rebate.grant_right() gives the views', a.grantee,"
		"              array_to_string(a.privileges, ', ')),"
		"       format('REVOKE %s ON %s%s FROM %s', a.what, CASE a.kind WHEN 'n' THEN 'SCHEMA ' WHEN 'S' THEN 'SEQUENCE ' ELSE '' END,"
		"              a.name, a.grantee)"
		"  FROM (SELECT x.name, x.kind, x.what, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END AS grantee,"
		"               array_agg(DISTINCT x.privilege_type ORDER BY x.privilege_type) AS privileges"
		"          FROM (SELECT c.oid::regclass::text AS name, c.relkind AS kind, 'ALL' AS what, c.relowner AS owner, (aclexplode(c.relacl)).*"
		"                  FROM pg_class c WHERE c.relnamespace = 'rebate_data'::regnamespace"
		"                 UNION ALL"
		"                SELECT c.oid::regclass::text, c.relkind, format('ALL (%I)', t.attname), c.relowner, (aclexplode(t.attacl)).*"
		"                  FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid"
		"                 WHERE c.relnamespace = 'rebate_data'::regnamespace AND NOT t.attisdropped"
		"                 UNION ALL"
		"                SELECT n.nspname::text, 'n', 'ALL', n.nspowner, (aclexplode(n.nspacl)).*"
		"                  FROM pg_namespace n WHERE n.oid = 'rebate_data'::regnamespace) x"
		"         WHERE x.grantee <> x.owner"
		"         GROUP BY x.name, x.kind, x.what, x.grantee) a"
	" ORDER BY a.name, a.grantee"},
	{"approval", false,
		WITH_PERSONS
		"SELECT 'rebate.approve_rule', 'problem', 'changes of rules wait for a second person, and nobody has the right \"approver\"',"
		"       format('SELECT rebate.grant_right(''approver'', %L) -- or another role: who approves must not be who writes', session_user)"
	"  WHERE " APPROVAL_REQUIRED " AND NOT EXISTS (SELECT FROM approvers)"},
	{"approval", false,
		WITH_PERSONS
		"SELECT format('role %s', a.name), 'notice', 'it alone may approve changes of rules, and nobody what it writes itself',"
		"       CASE WHEN a.name = session_user THEN '-- rebate.grant_right(''approver'', ...) to another role'"
		"            ELSE format('SELECT rebate.grant_right(''approver'', %L) -- or another role', session_user) END"
		"  FROM approvers a JOIN authors w USING (oid)"
		" WHERE " APPROVAL_REQUIRED " AND NOT a.many"
	"    AND NOT EXISTS (SELECT FROM approvers b WHERE b.oid <> a.oid)"},
	/* by the role that it was, where it was mapped; elsewhere only the name is known */
	{"logins", false,
		"WITH mapped AS ("
		"  SELECT l.login, r.oid AS role, s.rolname::text AS renamed,"
		"         l.role_oid = r.oid OR l.system_identifier <> c.system_identifier AS same"
		"    FROM rebate_data.login l CROSS JOIN pg_control_system() c"
		"    LEFT JOIN pg_roles r ON r.rolname::text = l.login"
		"    LEFT JOIN pg_roles s ON s.oid = l.role_oid AND l.system_identifier = c.system_identifier AND s.rolname::text <> l.login)"
		"SELECT format('role %s', m.login), CASE WHEN m.role IS NULL AND m.renamed IS NULL THEN 'notice' ELSE 'problem' END,"
		"       CASE WHEN m.renamed IS NOT NULL THEN format('it sees the rows of a member, and has been renamed to %s: it sees nothing', m.renamed)"
		"            WHEN m.role IS NULL THEN 'it sees the rows of a member, and is no more'"
		"            WHEN NOT m.same THEN 'it was dropped, and this is another role of its name: it sees nothing'"
		"            ELSE 'it sees the rows of a member, and has not the right \"member\"' END,"
		"       CASE WHEN m.renamed IS NOT NULL THEN format('SELECT rebate.map_login(%L, member), rebate.unmap_login(login) FROM rebate.logins WHERE login = %L',"
		"                                                   m.renamed, m.login)"
		"            WHEN m.role IS NULL THEN format('SELECT rebate.unmap_login(%L)', m.login)"
		"            WHEN NOT m.same THEN format('SELECT rebate.unmap_login(%L) -- or map it again, if it is the same person', m.login)"
		"            ELSE format('SELECT rebate.grant_right(''member'', %L)', m.login) END"
		"  FROM mapped m"
		" WHERE m.role IS NULL OR NOT m.same"
		"    OR NOT (" HAS_RIGHT("m.role", "member") " OR pg_has_role(m.role, current_user, 'USAGE'))"
	" ORDER BY m.login"},
	{NULL, false, NULL}
};
