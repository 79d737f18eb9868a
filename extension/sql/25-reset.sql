CREATE FUNCTION rebate.reset(keep text DEFAULT 'rules', replay boolean DEFAULT false) RETURNS bigint
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_reset';
COMMENT ON FUNCTION rebate.reset(text, boolean) IS 'empties the ledger of a sandbox, for test suites; keeps "rules" (and attached tables), "sources" or "nothing"; orders that exist are recorded as older, or decided as new (replay); returns their number';
REVOKE ALL ON FUNCTION rebate.reset(text, boolean) FROM PUBLIC;
