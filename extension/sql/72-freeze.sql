CREATE FUNCTION rebate.freeze(source regclass, order_key text, reason text, "at" timestamptz DEFAULT now()) RETURNS boolean
AS 'MODULE_PATHNAME', 'rebate_freeze' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.freeze(regclass, text, text, timestamptz) IS 'stops the clock for the rebates of an order; false if they were frozen for this reason already';
REVOKE ALL ON FUNCTION rebate.freeze(regclass, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION rebate.unfreeze(source regclass, order_key text, reason text DEFAULT NULL, "at" timestamptz DEFAULT now()) RETURNS integer
AS 'MODULE_PATHNAME', 'rebate_unfreeze' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.unfreeze(regclass, text, text, timestamptz) IS 'ends the freeze of an order for a reason, or for all; returns how many there were';
REVOKE ALL ON FUNCTION rebate.unfreeze(regclass, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION rebate.set_ageing(source regclass, auto_confirm_after interval DEFAULT NULL, give_up_after interval DEFAULT NULL) RETURNS bigint
AS 'MODULE_PATHNAME', 'rebate_set_ageing' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.set_ageing(regclass, interval, interval) IS 'how long after its order time the clock confirms a pending order of a table, or gives up one that was not confirmed; returns how many were decided again';
REVOKE ALL ON FUNCTION rebate.set_ageing(regclass, interval, interval) FROM PUBLIC;
