-- Where the extension was created: an extension member without a dump mark, so
-- that pg_upgrade brings it along and a restore has the new cluster's.
CREATE TABLE rebate.cluster (
	system_identifier	bigint PRIMARY KEY
);
INSERT INTO rebate.cluster SELECT system_identifier FROM pg_catalog.pg_control_system();
COMMENT ON TABLE rebate.cluster IS 'the cluster that the extension was created in; another one than this after pg_upgrade, which changes neither transaction ids nor cursors';
REVOKE ALL ON rebate.cluster FROM PUBLIC;

-- Reading events by cursor.  Each function checks its caller: superusers and
-- members of the store owner's role.
CREATE FUNCTION rebate.events(member text, after text DEFAULT NULL, "limit" integer DEFAULT 100)
RETURNS TABLE (seq bigint, currency text, cursor text, event json)
AS 'MODULE_PATHNAME', 'rebate_events' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.events(text, text, integer) IS 'events of a member after a cursor (NULL: from the beginning), with the cursor after each';
REVOKE ALL ON FUNCTION rebate.events(text, text, integer) FROM PUBLIC;

CREATE FUNCTION rebate.events_cursor(member text) RETURNS text
AS 'MODULE_PATHNAME', 'rebate_events_cursor' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.events_cursor(text) IS 'cursor after all events of a member that are there now';
REVOKE ALL ON FUNCTION rebate.events_cursor(text) FROM PUBLIC;

CREATE FUNCTION rebate.feed(cursor text DEFAULT NULL, "limit" integer DEFAULT 1000)
RETURNS TABLE (cursor text, event json)
AS 'MODULE_PATHNAME', 'rebate_feed' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.feed(text, integer) IS 'events of all members after a cursor (NULL: from the beginning), each once, with the cursor after each';
REVOKE ALL ON FUNCTION rebate.feed(text, integer) FROM PUBLIC;

CREATE FUNCTION rebate.feed_snapshot()
RETURNS TABLE (cursor text, account uuid, member text, currency text, last_entry bigint, tracked numeric,
			   pending numeric, maturing numeric, available numeric, held numeric)
AS 'MODULE_PATHNAME', 'rebate_feed_snapshot' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.feed_snapshot() IS 'balances of all members and the cursor after exactly what is in them, the same in each row, for who begins to read the feed; without accounts one row that has the cursor only';
REVOKE ALL ON FUNCTION rebate.feed_snapshot() FROM PUBLIC;

CREATE FUNCTION rebate.feed_cursor() RETURNS text
AS 'MODULE_PATHNAME', 'rebate_feed_cursor' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.feed_cursor() IS 'cursor after all events that are visible now';
REVOKE ALL ON FUNCTION rebate.feed_cursor() FROM PUBLIC;
