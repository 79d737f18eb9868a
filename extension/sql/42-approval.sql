-- Changes of rules by two persons: one writes, another approves.
CREATE FUNCTION rebate.require_approval(required boolean) RETURNS integer
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_require_approval';
COMMENT ON FUNCTION rebate.require_approval(boolean) IS 'whether changes of rules need a second person from now on; no longer needs one itself: returns the draft of it';
REVOKE ALL ON FUNCTION rebate.require_approval(boolean) FROM PUBLIC;

CREATE FUNCTION rebate.approve_rule(draft integer, comment text DEFAULT NULL, allow_stale boolean DEFAULT false)
RETURNS integer
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_approve_rule';
COMMENT ON FUNCTION rebate.approve_rule(integer, text, boolean) IS 'makes a draft of somebody else the next version of its rule; returns the version';
REVOKE ALL ON FUNCTION rebate.approve_rule(integer, text, boolean) FROM PUBLIC;

CREATE FUNCTION rebate.reject_rule(draft integer, reason text) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_reject_rule';
COMMENT ON FUNCTION rebate.reject_rule(integer, text) IS 'a draft will not take effect, for this reason';
REVOKE ALL ON FUNCTION rebate.reject_rule(integer, text) FROM PUBLIC;

CREATE FUNCTION rebate.withdraw_rule(draft integer) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_withdraw_rule';
COMMENT ON FUNCTION rebate.withdraw_rule(integer) IS 'takes a draft of one''s own back';
REVOKE ALL ON FUNCTION rebate.withdraw_rule(integer) FROM PUBLIC;

CREATE FUNCTION rebate.on_behalf_of(person text) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_on_behalf_of';
COMMENT ON FUNCTION rebate.on_behalf_of(text) IS 'for gateways: the person that acts, until this transaction ends';
REVOKE ALL ON FUNCTION rebate.on_behalf_of(text) FROM PUBLIC;

CREATE FUNCTION rebate.set_max_percent(max_percent numeric) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_set_max_percent';
COMMENT ON FUNCTION rebate.set_max_percent(numeric) IS 'the greatest percentage that a rule can have from now on; NULL: as each rule says';
REVOKE ALL ON FUNCTION rebate.set_max_percent(numeric) FROM PUBLIC;
