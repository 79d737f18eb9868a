/*
 * doctor_rights.c
 *	  What rebate.doctor() asks about who may do what.
 */
#include "rebate.h"

#include "doctor.h"

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
	{NULL, false, NULL}
};
