-- The key of channel names.  An extension member without a dump mark: pg_upgrade
-- keeps it, a dump leaves it out, and a copy of the database has other names.
CREATE TABLE rebate.channel_key (
	one		boolean PRIMARY KEY DEFAULT true CHECK (one),
	key		bytea NOT NULL
);
COMMENT ON TABLE rebate.channel_key IS 'the secret that names of member channels are made with';
REVOKE ALL ON rebate.channel_key FROM PUBLIC;

CREATE FUNCTION rebate.channel(member text) RETURNS text
AS 'MODULE_PATHNAME', 'rebate_channel' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.channel(text) IS 'name of a member''s channel, which is published from now on';
REVOKE ALL ON FUNCTION rebate.channel(text) FROM PUBLIC;

CREATE FUNCTION rebate.rotate_channels() RETURNS bigint
AS 'MODULE_PATHNAME', 'rebate_rotate_channels' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.rotate_channels() IS 'new names for all member channels; returns the number of those that were open';
REVOKE ALL ON FUNCTION rebate.rotate_channels() FROM PUBLIC;

CREATE FUNCTION rebate.get_delivery_status(
	OUT setting text, OUT mode text, OUT reason text, OUT worker_pid integer, OUT ring_size integer,
	OUT ring_used bigint, OUT overflows bigint, OUT sweeps bigint, OUT hints bigint,
	OUT published bigint, OUT notifications bigint, OUT lag interval,
	OUT queue_usage double precision, OUT last_error text, OUT last_error_at timestamptz)
AS 'MODULE_PATHNAME', 'rebate_delivery_status' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.get_delivery_status() IS 'the row of rebate.delivery_status';
REVOKE ALL ON FUNCTION rebate.get_delivery_status() FROM PUBLIC;

CREATE VIEW rebate.delivery_status AS SELECT * FROM rebate.get_delivery_status();
COMMENT ON VIEW rebate.delivery_status IS 'who notifies clients of this database and why, and how that goes';
REVOKE ALL ON rebate.delivery_status FROM PUBLIC;
