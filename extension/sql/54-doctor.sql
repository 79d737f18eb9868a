CREATE FUNCTION rebate.doctor(thorough boolean DEFAULT false)
RETURNS TABLE ("check" text, subject text, status text, detail text, remedy text)
AS 'MODULE_PATHNAME', 'rebate_doctor' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.doctor(boolean) IS 'whether all is as it should be, and what to call if not; thorough: every order is looked at';
REVOKE ALL ON FUNCTION rebate.doctor(boolean) FROM PUBLIC;
