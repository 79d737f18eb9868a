-- Reading.  Each function checks its caller: superusers and members of the
-- store owner's role.  flush() posts what would be posted anyway, but it holds the
-- members' accounts from then on: who needs it is granted it.
CREATE FUNCTION rebate.flush() RETURNS bigint
AS 'MODULE_PATHNAME', 'rebate_flush' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION rebate.flush() IS 'posts the orders that this transaction has collected; returns their number';
REVOKE ALL ON FUNCTION rebate.flush() FROM PUBLIC;

CREATE FUNCTION rebate.balance(member text, currency text DEFAULT NULL, at timestamptz DEFAULT NULL)
RETURNS TABLE (member text, currency text, tracked numeric, pending numeric, maturing numeric,
			   available numeric, held numeric, last_entry bigint)
AS 'MODULE_PATHNAME', 'rebate_balance' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.balance(text, text, timestamptz) IS 'balances of a member by bucket, now or at a moment; one row a currency';
REVOKE ALL ON FUNCTION rebate.balance(text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION rebate.order_key(source regclass, VARIADIC "key" "any") RETURNS text
AS 'MODULE_PATHNAME', 'rebate_order_key' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.order_key(regclass, "any") IS 'canonical text of an order''s key';
REVOKE ALL ON FUNCTION rebate.order_key(regclass, "any") FROM PUBLIC;

CREATE FUNCTION rebate.statement(member text, "from" date DEFAULT NULL, "to" date DEFAULT NULL, currency text DEFAULT NULL)
RETURNS TABLE (currency text, line text, book_date date, seq bigint, posted_at timestamptz, source text,
			   order_key text, rule text, accrual_id bigint, amount numeric, tracked numeric,
			   pending numeric, maturing numeric, available numeric, held numeric)
AS 'MODULE_PATHNAME', 'rebate_statement' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.statement(text, date, date, text) IS 'a member''s account over a range of days by book date: opening balances, each movement with the balances after it, closing balances';
REVOKE ALL ON FUNCTION rebate.statement(text, date, date, text) FROM PUBLIC;
