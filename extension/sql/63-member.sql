-- What a member sees of his own.  The views are of the extension and over its
-- functions, not over the tables: they come and go with it, whatever becomes of
-- the store.
CREATE FUNCTION rebate.act_as(member text) RETURNS void
AS 'MODULE_PATHNAME', 'rebate_act_as' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rebate.act_as(text) IS 'acts for a member until the transaction ends; NULL: for nobody';
REVOKE ALL ON FUNCTION rebate.act_as(text) FROM PUBLIC;

CREATE FUNCTION rebate.act_as_request() RETURNS void
AS 'MODULE_PATHNAME', 'rebate_act_as_request' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rebate.act_as_request() IS 'acts for the member that claim "sub" of setting request.jwt.claims names, in the session of a gateway';
REVOKE ALL ON FUNCTION rebate.act_as_request() FROM PUBLIC;

CREATE FUNCTION rebate.current_member() RETURNS text
AS 'MODULE_PATHNAME', 'rebate_current_member' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION rebate.current_member() IS 'the member whose rows the caller sees: acted for, else mapped to his role; NULL: nobody';
REVOKE ALL ON FUNCTION rebate.current_member() FROM PUBLIC;

CREATE FUNCTION rebate.map_login(login name, member text) RETURNS void
AS 'MODULE_PATHNAME', 'rebate_map_login' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.map_login(name, text) IS 'lets a role see the rows of a member without rebate.act_as()';
REVOKE ALL ON FUNCTION rebate.map_login(name, text) FROM PUBLIC;

CREATE FUNCTION rebate.unmap_login(login name) RETURNS boolean
AS 'MODULE_PATHNAME', 'rebate_unmap_login' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.unmap_login(name) IS 'takes back rebate.map_login(); returns whether there was anything';
REVOKE ALL ON FUNCTION rebate.unmap_login(name) FROM PUBLIC;

CREATE FUNCTION rebate.get_my_balance(at timestamptz DEFAULT NULL)
RETURNS TABLE (currency text, tracked numeric, pending numeric, maturing numeric, available numeric,
			   held numeric, last_entry bigint, posted_at timestamptz)
AS 'MODULE_PATHNAME', 'rebate_get_my_balance' LANGUAGE C STABLE PARALLEL UNSAFE ROWS 2;
COMMENT ON FUNCTION rebate.get_my_balance(timestamptz) IS 'balances of the current member, now or at a moment; one row a currency';
REVOKE ALL ON FUNCTION rebate.get_my_balance(timestamptz) FROM PUBLIC;

CREATE FUNCTION rebate.get_my_rebates(currency text DEFAULT NULL, before bigint DEFAULT NULL,
									  "limit" integer DEFAULT NULL)
RETURNS TABLE (currency text, seq bigint, source text, order_key text, rule text, phase text,
			   bucket text, earned numeric, order_time timestamptz, confirmed_at timestamptz,
			   due timestamptz, posted_at timestamptz)
AS 'MODULE_PATHNAME', 'rebate_get_my_rebates' LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION rebate.get_my_rebates(text, bigint, integer) IS 'the last rebates of the current member in each currency, newest first, opened before an entry';
REVOKE ALL ON FUNCTION rebate.get_my_rebates(text, bigint, integer) FROM PUBLIC;

CREATE FUNCTION rebate.get_my_entries(currency text DEFAULT NULL, before bigint DEFAULT NULL,
									  "limit" integer DEFAULT NULL)
RETURNS TABLE (currency text, seq bigint, kind text, from_bucket text, to_bucket text, amount numeric,
			   source text, order_key text, rule text, tracked numeric, pending numeric,
			   maturing numeric, available numeric, held numeric, event_at timestamptz,
			   effective_date date, book_date date, posted_at timestamptz)
AS 'MODULE_PATHNAME', 'rebate_get_my_entries' LANGUAGE C STABLE PARALLEL UNSAFE ROWS 200;
COMMENT ON FUNCTION rebate.get_my_entries(text, bigint, integer) IS 'the last movements of the current member''s money in each currency, before an entry';
REVOKE ALL ON FUNCTION rebate.get_my_entries(text, bigint, integer) FROM PUBLIC;

CREATE FUNCTION rebate.get_my_channel() RETURNS text
AS 'MODULE_PATHNAME', 'rebate_get_my_channel' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.get_my_channel() IS 'name of the current member''s channel, which is published from now on; NULL in a read-only transaction until it was asked for';
REVOKE ALL ON FUNCTION rebate.get_my_channel() FROM PUBLIC;

CREATE FUNCTION rebate.my_events(after text DEFAULT NULL, "limit" integer DEFAULT 100)
RETURNS TABLE (seq bigint, currency text, cursor text, event json)
AS 'MODULE_PATHNAME', 'rebate_my_events' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.my_events(text, integer) IS 'events of the current member after a cursor (NULL: from the beginning), with the cursor after each';
REVOKE ALL ON FUNCTION rebate.my_events(text, integer) FROM PUBLIC;

CREATE FUNCTION rebate.my_events_cursor() RETURNS text
AS 'MODULE_PATHNAME', 'rebate_my_events_cursor' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.my_events_cursor() IS 'cursor after all events of the current member that are there now; NULL: nobody is';
REVOKE ALL ON FUNCTION rebate.my_events_cursor() FROM PUBLIC;

CREATE VIEW rebate.my_balance WITH (security_barrier = true) AS
SELECT * FROM rebate.get_my_balance();
COMMENT ON VIEW rebate.my_balance IS 'the current member''s balances by bucket: one row a currency';
REVOKE ALL ON rebate.my_balance FROM PUBLIC;

CREATE VIEW rebate.my_rebates WITH (security_barrier = true) AS
SELECT * FROM rebate.get_my_rebates();
COMMENT ON VIEW rebate.my_rebates IS 'the current member''s rebates: what each order earned, and where that stands';
REVOKE ALL ON rebate.my_rebates FROM PUBLIC;

CREATE VIEW rebate.my_entries WITH (security_barrier = true) AS
SELECT * FROM rebate.get_my_entries();
COMMENT ON VIEW rebate.my_entries IS 'each movement of the current member''s money, with the balances after it';
REVOKE ALL ON rebate.my_entries FROM PUBLIC;

CREATE VIEW rebate.my_channel WITH (security_barrier = true) AS
SELECT c.channel FROM rebate.get_my_channel() AS c (channel) WHERE c.channel IS NOT NULL;
COMMENT ON VIEW rebate.my_channel IS 'the channel that the current member''s events are published on; no row in a read-only transaction until it was asked for';
REVOKE ALL ON rebate.my_channel FROM PUBLIC;
