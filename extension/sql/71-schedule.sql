-- The jobs of the clock in pg_cron, which need not be there.
CREATE FUNCTION rebate.schedule(job text DEFAULT NULL, schedule text DEFAULT NULL)
RETURNS TABLE (name text, "at" text, command text)
AS 'MODULE_PATHNAME', 'rebate_schedule' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.schedule(text, text) IS 'registers the jobs of the clock, or one of them, with pg_cron';
REVOKE ALL ON FUNCTION rebate.schedule(text, text) FROM PUBLIC;

CREATE FUNCTION rebate.unschedule(job text DEFAULT NULL) RETURNS integer
AS 'MODULE_PATHNAME', 'rebate_unschedule' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.unschedule(text) IS 'takes the jobs of the clock, or one of them, out of pg_cron; returns their number';
REVOKE ALL ON FUNCTION rebate.unschedule(text) FROM PUBLIC;

CREATE FUNCTION rebate.schedules(OUT job text, OUT schedule text, OUT username text, OUT active boolean,
	OUT last_run timestamptz, OUT last_status text, OUT last_message text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'rebate_schedules' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.schedules() IS 'the jobs of the clock as pg_cron has them, and how their last runs went';
REVOKE ALL ON FUNCTION rebate.schedules() FROM PUBLIC;
