CREATE FUNCTION rebate.audit()
RETURNS TABLE (part text, violation text, subject text, detail text)
AS 'MODULE_PATHNAME', 'rebate_audit' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.audit() IS 'checks the ledger against itself and the sources against the ledger: one row a violation, none if all is well';
REVOKE ALL ON FUNCTION rebate.audit() FROM PUBLIC;
