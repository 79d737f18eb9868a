CREATE FUNCTION rebate.set_rule(
	name				text,
	percent				numeric DEFAULT NULL,
	fixed				numeric DEFAULT NULL,
	per_unit			numeric DEFAULT NULL,
	currency			text DEFAULT NULL,
	scope				jsonb DEFAULT NULL,
	condition			text DEFAULT NULL,
	base				text DEFAULT NULL,
	minimum				numeric DEFAULT NULL,
	max_per_order		numeric DEFAULT NULL,
	limit_mode			text DEFAULT 'clip',
	rounding			text DEFAULT 'half_up',
	refund				text DEFAULT 'pro_rata',
	unlinked_return		text DEFAULT 'today',
	hold				interval DEFAULT '0',
	priority			integer DEFAULT 0,
	rule_group			text DEFAULT NULL,
	valid_from			timestamptz DEFAULT NULL,
	valid_to			timestamptz DEFAULT NULL,
	source				regclass DEFAULT NULL,
	campaign			text DEFAULT 'default',
	max_percent			numeric DEFAULT 100
) RETURNS integer
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_set_rule';
COMMENT ON FUNCTION rebate.set_rule IS 'writes a rule, or the next version of it; returns the version';
REVOKE ALL ON FUNCTION rebate.set_rule FROM PUBLIC;

CREATE FUNCTION rebate.end_rule(name text, at timestamptz DEFAULT NULL) RETURNS integer
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_end_rule';
COMMENT ON FUNCTION rebate.end_rule IS 'ends a rule: a version that pays nothing from a moment on; returns the version';
REVOKE ALL ON FUNCTION rebate.end_rule FROM PUBLIC;

CREATE FUNCTION rebate.set_group(name text, mode text DEFAULT 'first') RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_set_group';
COMMENT ON FUNCTION rebate.set_group IS 'makes a group of rules, or changes which of its rules pay';
REVOKE ALL ON FUNCTION rebate.set_group FROM PUBLIC;
