-- What adopt_store() looks at before it makes a store ours: the shape that
-- create_store() gives, and everything that hangs on it.
CREATE FUNCTION rebate.store_shape() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
WITH relation AS (
	SELECT c.* FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = 'rebate_data'
)
SELECT pg_catalog.string_agg(line, E'\n' ORDER BY line COLLATE "C") FROM (
	SELECT pg_catalog.format('%s %s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view'
			WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' ELSE 'relation of kind ' || c.relkind::text END,
			c.relname) || CASE c.relpersistence WHEN 'p' THEN '' ELSE ', not logged' END
		|| CASE WHEN c.relispartition THEN ', a partition' ELSE '' END
		|| CASE WHEN c.reloftype <> 0 THEN ', of a type' ELSE '' END AS line
	FROM relation c
	UNION ALL
	SELECT pg_catalog.format('column %s of %s: %s%s%s%s', a.attname, c.relname,
			pg_catalog.format_type(a.atttypid, a.atttypmod),
			CASE WHEN a.attcollation <> 0 THEN ' collation ' || a.attcollation::pg_catalog.regcollation::text ELSE '' END,
			CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
			CASE WHEN a.attidentity <> '' OR a.attgenerated <> '' THEN ' generated' ELSE '' END
			|| COALESCE(' default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''))
	FROM relation c
	JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	WHERE c.relkind IN ('r', 'v')
	UNION ALL
	SELECT pg_catalog.format('constraint %s of %s: %s', k.conname, c.relname, pg_catalog.pg_get_constraintdef(k.oid))
	FROM relation c JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid
	UNION ALL
	SELECT 'definition: ' || pg_catalog.pg_get_indexdef(i.indexrelid)
			|| CASE WHEN i.indisvalid THEN '' ELSE ', invalid' END
	FROM relation c JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
	UNION ALL
	SELECT pg_catalog.format('definition of view %s: %s', c.relname,
			pg_catalog.regexp_replace(pg_catalog.pg_get_viewdef(c.oid), '\s+', ' ', 'g'))
	FROM relation c WHERE c.relkind = 'v'
	UNION ALL
	SELECT pg_catalog.format('sequence %s: %s by %s from %s', c.relname, s.seqtypid::pg_catalog.regtype,
			s.seqincrement, s.seqmin)
	FROM relation c JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid) l
$function$;
COMMENT ON FUNCTION rebate.store_shape() IS 'tables, columns, constraints, indexes, views and sequences of the store, a line each';
REVOKE ALL ON FUNCTION rebate.store_shape() FROM PUBLIC;

-- Indexes that somebody added are no difference: they run as the store's owner
-- and change nothing.
CREATE FUNCTION rebate.store_difference(found text, made text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT pg_catalog.string_agg(pg_catalog.format('%s: %s', what, line), E'\n' ORDER BY what, line COLLATE "C") FROM (
	SELECT 'missing' AS what, l.line FROM pg_catalog.string_to_table(made, E'\n') l (line)
	EXCEPT
	SELECT 'missing', l.line FROM pg_catalog.string_to_table(found, E'\n') l (line)
	UNION ALL
	(SELECT 'not ours', l.line FROM pg_catalog.string_to_table(found, E'\n') l (line)
	 WHERE l.line !~ '^index ' AND l.line !~ '^definition: CREATE (UNIQUE )?INDEX '
	 EXCEPT
	 SELECT 'not ours', l.line FROM pg_catalog.string_to_table(made, E'\n') l (line))) d
$function$;
COMMENT ON FUNCTION rebate.store_difference(text, text) IS 'what a store lacks and what it has too much';
REVOKE ALL ON FUNCTION rebate.store_difference(text, text) FROM PUBLIC;

CREATE FUNCTION rebate.store_foreign(owner name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
WITH relation AS (
	SELECT c.*, n.nspname = 'rebate_data' AS in_store
	FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE (n.nspname = 'rebate_data' OR n.nspname = 'rebate' AND NOT EXISTS (
			SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
			AND d.objid = c.oid AND d.deptype = 'e'))
	  AND c.relkind <> 'i'
), trusted AS (
	SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = owner OR r.rolsuper
)
SELECT pg_catalog.string_agg(line, E'\n' ORDER BY line COLLATE "C") FROM (
	SELECT pg_catalog.format('%s belongs to role %I', c.oid::pg_catalog.regclass, pg_catalog.pg_get_userbyid(c.relowner)) AS line
	FROM relation c
	WHERE CASE WHEN c.in_store THEN c.relowner <> owner::pg_catalog.regrole
		ELSE c.relowner NOT IN (SELECT oid FROM trusted) END
	UNION ALL
	SELECT pg_catalog.format('trigger %I on %s', t.tgname, c.oid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
	WHERE NOT t.tgisinternal AND NOT (c.in_store AND t.tgname = 'rebate_guard'
		AND t.tgfoid = 'rebate.guard()'::pg_catalog.regprocedure AND t.tgtype = 62
		AND t.tgattr::text = '' AND t.tgqual IS NULL)
	UNION ALL
	SELECT pg_catalog.format('foreign key %I of %s on %s', k.conname, k.conrelid::pg_catalog.regclass, c.oid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_constraint k ON k.confrelid = c.oid
	UNION ALL
	SELECT pg_catalog.format('rule %I on %s', w.rulename, c.oid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid
	WHERE NOT (c.relkind IN ('v', 'm') AND w.ev_type = '1')
	UNION ALL
	SELECT pg_catalog.format('policy %I on %s', p.polname, c.oid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_policy p ON p.polrelid = c.oid
	UNION ALL
	SELECT pg_catalog.format('row security of %s', c.oid::pg_catalog.regclass)
	FROM relation c WHERE c.relrowsecurity OR c.relforcerowsecurity
	UNION ALL
	SELECT pg_catalog.format('inheritance of %s by %s', i.inhparent::pg_catalog.regclass, i.inhrelid::pg_catalog.regclass)
	FROM relation c JOIN pg_catalog.pg_inherits i ON c.oid IN (i.inhparent, i.inhrelid)
	UNION ALL
	SELECT DISTINCT pg_catalog.format('view %s of role %I on %s', v.oid::pg_catalog.regclass,
		pg_catalog.pg_get_userbyid(v.relowner), c.oid::pg_catalog.regclass)
	FROM relation c
	JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid
		AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
	JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
	JOIN pg_catalog.pg_class v ON v.oid = w.ev_class
	WHERE c.in_store AND v.relowner NOT IN (SELECT oid FROM trusted)) l
$function$;
COMMENT ON FUNCTION rebate.store_foreign(name) IS 'what hangs on the store or its views and is not ours, a line each';
REVOKE ALL ON FUNCTION rebate.store_foreign(name) FROM PUBLIC;

CREATE FUNCTION rebate.adopt_store(owner name DEFAULT NULL) RETURNS name
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_adopt_store';
COMMENT ON FUNCTION rebate.adopt_store(name) IS 'takes over a store that outlived DROP EXTENSION: checks it, makes views, guards, grants and triggers again, and catches up; returns the owner';
REVOKE ALL ON FUNCTION rebate.adopt_store(name) FROM PUBLIC;
