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

CREATE FUNCTION rebate.collect_row() RETURNS trigger
AS 'MODULE_PATHNAME', 'rebate_collect_row' LANGUAGE C;
COMMENT ON FUNCTION rebate.collect_row() IS 'hands a replicated row of an attached table to the engine';
REVOKE ALL ON FUNCTION rebate.collect_row() FROM PUBLIC;

-- Event triggers: partitions that come and go, and what is renamed.
CREATE FUNCTION rebate.follow_partitions() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'rebate_follow_partitions' LANGUAGE C;
COMMENT ON FUNCTION rebate.follow_partitions() IS 'after DDL: puts triggers on new partitions of attached tables, archives the rebates of detached ones, follows renamed tables and columns';
REVOKE ALL ON FUNCTION rebate.follow_partitions() FROM PUBLIC;

CREATE EVENT TRIGGER rebate_follow_partitions ON ddl_command_end
	WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER SCHEMA')
	EXECUTE FUNCTION rebate.follow_partitions();
ALTER EVENT TRIGGER rebate_follow_partitions ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER rebate_follow_partitions IS 'keeps rebates on partitions that are created, attached or detached';

CREATE FUNCTION rebate.watch_drops() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'rebate_watch_drops' LANGUAGE C;
COMMENT ON FUNCTION rebate.watch_drops() IS 'before a DROP: has the library archive the rebates of partitions that it drops';
REVOKE ALL ON FUNCTION rebate.watch_drops() FROM PUBLIC;

CREATE EVENT TRIGGER rebate_watch_drops ON ddl_command_start
	WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED')
	EXECUTE FUNCTION rebate.watch_drops();
ALTER EVENT TRIGGER rebate_watch_drops ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER rebate_watch_drops IS 'keeps rebates of partitions that are dropped';
