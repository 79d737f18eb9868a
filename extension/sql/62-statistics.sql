-- Statistics for monitoring: counts, times and ages, and no value of a row.
CREATE FUNCTION rebate.get_stat_engine(
	OUT scope text, OUT transactions bigint, OUT rolled_back bigint, OUT statements bigint,
	OUT bulk_statements bigint, OUT inserted bigint, OUT updated bigint, OUT deleted bigint,
	OUT deferred bigint, OUT posted bigint, OUT failed bigint, OUT rebates bigint,
	OUT entries bigint, OUT retries bigint, OUT conflicts bigint, OUT rule_builds bigint,
	OUT collect_time double precision, OUT decide_time double precision,
	OUT post_time double precision, OUT stats_reset timestamptz)
AS 'MODULE_PATHNAME', 'rebate_stat_engine' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.get_stat_engine() IS 'the row of rebate.stat_engine';
REVOKE ALL ON FUNCTION rebate.get_stat_engine() FROM PUBLIC;

CREATE VIEW rebate.stat_engine WITH (security_barrier) AS SELECT * FROM rebate.get_stat_engine();
COMMENT ON VIEW rebate.stat_engine IS 'what the engine did in this database, and the time that it took, in milliseconds';
REVOKE ALL ON rebate.stat_engine FROM PUBLIC;

CREATE FUNCTION rebate.get_stat_delivery(
	OUT mode text, OUT worker boolean, OUT ring_used bigint, OUT ring_size integer,
	OUT hints bigint, OUT looks bigint, OUT overflows bigint, OUT published bigint,
	OUT notifications bigint, OUT errors bigint, OUT last_error_at timestamptz,
	OUT lag double precision, OUT unpublished_since timestamptz,
	OUT queue_usage double precision, OUT stats_reset timestamptz)
AS 'MODULE_PATHNAME', 'rebate_stat_delivery' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.get_stat_delivery() IS 'the row of rebate.stat_delivery';
REVOKE ALL ON FUNCTION rebate.get_stat_delivery() FROM PUBLIC;

CREATE VIEW rebate.stat_delivery WITH (security_barrier) AS SELECT * FROM rebate.get_stat_delivery();
COMMENT ON VIEW rebate.stat_delivery IS 'what the worker of this database has published, and what waits for it';
REVOKE ALL ON rebate.stat_delivery FROM PUBLIC;

CREATE FUNCTION rebate.get_stat_jobs(
	OUT job text, OUT state text, OUT started_at timestamptz, OUT progress_at timestamptz,
	OUT finished_at timestamptz, OUT batches bigint, OUT done bigint, OUT finished_runs bigint,
	OUT stopped_runs bigint, OUT total_done bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'rebate_stat_jobs' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.get_stat_jobs() IS 'the rows of rebate.stat_jobs';
REVOKE ALL ON FUNCTION rebate.get_stat_jobs() FROM PUBLIC;

CREATE VIEW rebate.stat_jobs WITH (security_barrier) AS SELECT * FROM rebate.get_stat_jobs();
COMMENT ON VIEW rebate.stat_jobs IS 'each job of the clock: its last run, how far that is, and how all of them went';
REVOKE ALL ON rebate.stat_jobs FROM PUBLIC;

CREATE FUNCTION rebate.get_stat_backlog(
	OUT kind text, OUT source text, OUT waiting bigint, OUT oldest timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'rebate_stat_backlog' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.get_stat_backlog() IS 'the rows of rebate.stat_backlog';
REVOKE ALL ON FUNCTION rebate.get_stat_backlog() FROM PUBLIC;

CREATE VIEW rebate.stat_backlog WITH (security_barrier) AS
SELECT b.kind, b.source, b.waiting, b.oldest, pg_catalog.clock_timestamp() - b.oldest AS age
FROM rebate.get_stat_backlog() b;
COMMENT ON VIEW rebate.stat_backlog IS 'what waits, how much of it (up to 10,000 are counted), and since when';
REVOKE ALL ON rebate.stat_backlog FROM PUBLIC;

CREATE FUNCTION rebate.get_stat_tables(
	OUT source text, OUT inserted bigint, OUT updated bigint, OUT deleted bigint,
	OUT deferred bigint, OUT posted bigint, OUT failed bigint, OUT rebates bigint,
	OUT entries bigint, OUT last_order_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'rebate_stat_tables' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.get_stat_tables() IS 'the rows of rebate.stat_tables';
REVOKE ALL ON FUNCTION rebate.get_stat_tables() FROM PUBLIC;

CREATE VIEW rebate.stat_tables WITH (security_barrier) AS SELECT * FROM rebate.get_stat_tables();
COMMENT ON VIEW rebate.stat_tables IS 'each attached table: what was counted of its orders, null if nothing is counted of it';
REVOKE ALL ON rebate.stat_tables FROM PUBLIC;

CREATE FUNCTION rebate.stat_reset() RETURNS void
AS 'MODULE_PATHNAME', 'rebate_stat_reset' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.stat_reset() IS 'sets the counters of this database back to zero';
REVOKE ALL ON FUNCTION rebate.stat_reset() FROM PUBLIC;
