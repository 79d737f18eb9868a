-- Names in the schema can be used by everyone; what they lead to is granted to
-- nobody but the store's owner.
GRANT USAGE ON SCHEMA rebate TO PUBLIC;

CREATE FUNCTION rebate.guard() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_guard';
COMMENT ON FUNCTION rebate.guard() IS 'trigger of the store''s tables: refuses changes that the engine does not make';
REVOKE ALL ON FUNCTION rebate.guard() FROM PUBLIC;

-- A guard that is there is turned on, in case it was off.
CREATE FUNCTION rebate.store_guards() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT COALESCE(pg_catalog.string_agg(pg_catalog.format(CASE WHEN t.oid IS NULL THEN $ddl$
CREATE TRIGGER rebate_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
	ON rebate_data.%1$I FOR EACH STATEMENT EXECUTE FUNCTION rebate.guard();
COMMENT ON TRIGGER rebate_guard ON rebate_data.%1$I IS 'the ledger is written by the engine only';
$ddl$ ELSE $ddl$
ALTER TABLE rebate_data.%1$I ENABLE TRIGGER rebate_guard;
$ddl$ END, c.relname), '' ORDER BY c.relname), '')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'rebate_guard'
WHERE n.nspname = 'rebate_data' AND c.relkind = 'r'
  AND t.tgenabled IS DISTINCT FROM 'O'
$function$;
COMMENT ON FUNCTION rebate.store_guards() IS 'the DDL of the guards that rebate.create_store() puts on the store''s tables';
REVOKE ALL ON FUNCTION rebate.store_guards() FROM PUBLIC;

CREATE FUNCTION rebate.store_grants(owner name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT pg_catalog.string_agg(pg_catalog.format(
	'GRANT EXECUTE ON ROUTINE %s TO %I; ', p.oid::pg_catalog.regprocedure, owner), '' ORDER BY p.proname, p.oid)
	|| pg_catalog.format('GRANT SELECT ON rebate.delivery_status, rebate.my_balance, rebate.my_rebates,'
		' rebate.my_entries, rebate.my_channel, rebate.stat_engine, rebate.stat_delivery,'
		' rebate.stat_jobs, rebate.stat_backlog, rebate.stat_tables TO %I; ', owner)
	-- monitoring reads statistics, in which there are no values of rows
	|| 'GRANT SELECT ON rebate.stat_engine, rebate.stat_delivery, rebate.stat_jobs, rebate.stat_backlog,'
		' rebate.stat_tables TO pg_monitor;'
		' GRANT EXECUTE ON FUNCTION rebate.get_stat_engine(), rebate.get_stat_delivery(), rebate.get_stat_jobs(),'
		' rebate.get_stat_backlog(), rebate.get_stat_tables() TO pg_monitor; '
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
	AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
	AND d.refobjid = e.oid AND e.extname = 'rebate'
WHERE n.nspname = 'rebate' AND p.proname NOT LIKE 'store\_%'
$function$;
COMMENT ON FUNCTION rebate.store_grants(name) IS 'the grants that rebate.create_store() makes to the store''s owner and to monitoring';
REVOKE ALL ON FUNCTION rebate.store_grants(name) FROM PUBLIC;

CREATE FUNCTION rebate.store_view_owner(owner name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT pg_catalog.string_agg(pg_catalog.concat(
	-- a new view has what its maker grants by default on what he makes
	(SELECT pg_catalog.string_agg(pg_catalog.format('REVOKE ALL ON rebate.%I FROM %s; ', c.relname,
		CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END), '')
	 FROM (SELECT DISTINCT x.grantee FROM pg_catalog.aclexplode(c.relacl) x) a
	 WHERE a.grantee <> c.relowner AND pg_catalog.pg_get_userbyid(c.relowner) <> owner),
	pg_catalog.format('ALTER VIEW rebate.%I OWNER TO %I; ', c.relname, owner)), '' ORDER BY c.relname)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'rebate' AND c.relkind = 'v'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
				  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
					AND d.objid = c.oid AND d.deptype = 'e')
$function$;
COMMENT ON FUNCTION rebate.store_view_owner(name) IS 'gives the views to the store''s owner, for rebate.create_store()';
REVOKE ALL ON FUNCTION rebate.store_view_owner(name) FROM PUBLIC;

-- ISO 4217 without precious metals, test codes and bond units.
CREATE FUNCTION rebate.store_currencies() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$ SELECT $ddl$
INSERT INTO rebate_data.currency (code, scale, unit, iso)
SELECT l.code, s.scale, ('1e-' || s.scale)::numeric, true
FROM (VALUES
	(0, 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF'),
	(2, 'AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV
		BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE
		CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD
		HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP
		LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR
		MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB
		SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS
		TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG
		YER ZAR ZMW ZWG'),
	(3, 'BHD IQD JOD KWD LYD OMR TND'),
	(4, 'CLF UYW')) AS s (scale, codes)
CROSS JOIN LATERAL pg_catalog.regexp_split_to_table(s.codes, '\s+') AS l (code);
$ddl$ $function$;
COMMENT ON FUNCTION rebate.store_currencies() IS 'the ISO 4217 currencies that rebate.create_store() fills in';
REVOKE ALL ON FUNCTION rebate.store_currencies() FROM PUBLIC;

CREATE FUNCTION rebate.create_store(owner name DEFAULT NULL, sandbox boolean DEFAULT false) RETURNS name
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_create_store';
COMMENT ON FUNCTION rebate.create_store(name, boolean) IS 'makes the store (schema rebate_data) and its views, owned by a role; as a sandbox: one that rebate.reset() may empty; returns the owner';
REVOKE ALL ON FUNCTION rebate.create_store(name, boolean) FROM PUBLIC;
