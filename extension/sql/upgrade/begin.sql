\echo Use "ALTER EXTENSION rebate UPDATE" to load this file. \quit

-- Who may use what before the upgrade, for the end of this script.  The setting
-- lasts as long as the script.
SELECT pg_catalog.set_config('rebate_upgrade.before', pg_catalog.jsonb_build_object(
	'members', COALESCE(pg_catalog.jsonb_agg(m.id), '[]'),
	'grants', COALESCE(pg_catalog.jsonb_agg(DISTINCT g.entry) FILTER (WHERE g.entry IS NOT NULL), '[]'))::text, true)
FROM (
	SELECT 'r' AS kind, p.oid AS id, p.proname AS name, p.proacl AS acl, p.proowner AS owner FROM pg_catalog.pg_proc p
	UNION ALL
	SELECT 't', c.oid, c.relname, c.relacl, c.relowner FROM pg_catalog.pg_class c) m
JOIN pg_catalog.pg_depend d ON d.objid = m.id AND d.deptype = 'e'
	AND d.classid = CASE m.kind WHEN 'r' THEN 'pg_catalog.pg_proc' ELSE 'pg_catalog.pg_class' END::pg_catalog.regclass
JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
	AND d.refobjid = e.oid AND e.extname = 'rebate'
LEFT JOIN LATERAL (
	SELECT pg_catalog.jsonb_build_object('kind', m.kind, 'name', m.name, 'grantee', a.grantee,
			'privilege', a.privilege_type, 'grantable', a.is_grantable) AS entry
	FROM pg_catalog.aclexplode(m.acl) a WHERE a.grantee <> m.owner) g ON true;

