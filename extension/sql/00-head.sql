\echo Use "CREATE EXTENSION rebate" to load this file. \quit

-- CREATE EXTENSION must not put its functions into a schema that somebody else
-- prepared: its owner could replace them.
DO $$
BEGIN
	IF (SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'rebate')
		<> (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
	   AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_namespace n
				JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'rebate')
	THEN
		RAISE EXCEPTION 'schema "rebate" belongs to somebody else'
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'Drop or rename that schema, then run CREATE EXTENSION again.';
	END IF;
END
$$;

COMMENT ON SCHEMA rebate IS 'rebates on order tables: functions, and views over the ledger';
