CREATE FUNCTION rebate.allow_function(function regprocedure, allowed boolean DEFAULT true) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_allow_function';
COMMENT ON FUNCTION rebate.allow_function IS 'lets expressions use a function, as long as it stays as it is; superusers only';
REVOKE ALL ON FUNCTION rebate.allow_function FROM PUBLIC;
