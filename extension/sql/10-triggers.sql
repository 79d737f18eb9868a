-- Trigger functions on order tables.  Nobody may create triggers with them but
-- the store's owner, whom rebate.create_store() grants it.
CREATE FUNCTION rebate.collect() RETURNS trigger
AS 'MODULE_PATHNAME', 'rebate_collect' LANGUAGE C;
COMMENT ON FUNCTION rebate.collect() IS 'hands the rows of a statement on an attached table to the engine';
REVOKE ALL ON FUNCTION rebate.collect() FROM PUBLIC;

CREATE FUNCTION rebate.collect_truncate() RETURNS trigger
AS 'MODULE_PATHNAME', 'rebate_collect_truncate' LANGUAGE C;
COMMENT ON FUNCTION rebate.collect_truncate() IS 'refuses TRUNCATE of an attached table, or takes its orders as deleted';
REVOKE ALL ON FUNCTION rebate.collect_truncate() FROM PUBLIC;
