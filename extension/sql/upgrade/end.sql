
-- Rights on what is new.  Nobody has what whoever updates grants by default on all
-- that he makes.  Who could use a function or view could use it before under
-- another signature, too.  The store's owner can use all: what only a later version
-- of his store has comes with rebate.upgrade_store().
DO $$
DECLARE
	before constant jsonb := pg_catalog.current_setting('rebate_upgrade.before')::jsonb;
	command text;
BEGIN
	FOR command IN
		WITH new AS (
			SELECT m.* FROM (
				SELECT 'r' AS kind, p.oid AS id, p.proname AS name, 'ROUTINE ' || p.oid::pg_catalog.regprocedure::text AS object,
					   p.proacl AS acl, p.proowner AS owner
				FROM pg_catalog.pg_proc p
				UNION ALL
				SELECT 't', c.oid, c.relname, 'TABLE ' || c.oid::pg_catalog.regclass::text, c.relacl, c.relowner
				FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'v')) m
			JOIN pg_catalog.pg_depend d ON d.objid = m.id AND d.deptype = 'e'
				AND d.classid = CASE m.kind WHEN 'r' THEN 'pg_catalog.pg_proc' ELSE 'pg_catalog.pg_class' END::pg_catalog.regclass
			JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
				AND d.refobjid = e.oid AND e.extname = 'rebate'
			WHERE NOT before -> 'members' @> pg_catalog.to_jsonb(m.id)
		)
		SELECT line FROM (
			SELECT 1 AS step, pg_catalog.format('REVOKE ALL ON %s FROM %s', n.object,
				CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END) AS line
			FROM new n CROSS JOIN LATERAL (SELECT DISTINCT x.grantee FROM pg_catalog.aclexplode(n.acl) x) a
			WHERE a.grantee <> n.owner
			UNION ALL
			SELECT 2, pg_catalog.format('GRANT %s ON %s TO %s%s', g.privilege, n.object,
				CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::pg_catalog.regrole::text END,
				CASE WHEN g.grantable THEN ' WITH GRANT OPTION' ELSE '' END)
			FROM new n
			JOIN pg_catalog.jsonb_to_recordset(before -> 'grants')
				AS g (kind text, name text, grantee oid, privilege text, grantable boolean)
				ON g.kind = n.kind AND g.name = n.name
			UNION ALL
			SELECT 3, rebate.store_grants(pg_catalog.pg_get_userbyid(c.relowner))
			FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace AND s.nspname = 'rebate_data'
			JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
			WHERE c.relname = 'store' AND t.tgfoid = 'rebate.guard()'::pg_catalog.regprocedure) l
		ORDER BY step, line
	LOOP
		EXECUTE command;
	END LOOP;
END
$$;
