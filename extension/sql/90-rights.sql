-- Last: what whoever creates the extension grants by default on all that he makes
-- (ALTER DEFAULT PRIVILEGES) is taken back from ours.
DO $$
DECLARE
	r record;
BEGIN
	FOR r IN
		SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM %s', m.kind, m.name,
				CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END) AS command
		FROM pg_catalog.pg_extension e
		JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
			AND d.refobjid = e.oid AND d.deptype = 'e'
		CROSS JOIN LATERAL (
			SELECT 'ROUTINE' AS kind, p.oid::pg_catalog.regprocedure::text AS name, p.proacl AS acl, p.proowner AS owner
			FROM pg_catalog.pg_proc p
			WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
			UNION ALL
			SELECT 'TABLE', c.oid::pg_catalog.regclass::text, c.relacl, c.relowner
			FROM pg_catalog.pg_class c
			WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid AND c.relkind IN ('r', 'v')
			) m
		CROSS JOIN LATERAL (SELECT DISTINCT x.grantee FROM pg_catalog.aclexplode(m.acl) x) a
		WHERE e.extname = 'rebate' AND a.grantee <> m.owner
	LOOP
		EXECUTE r.command;
	END LOOP;
END
$$;
