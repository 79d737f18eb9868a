CREATE FUNCTION rebate.explain(source regclass, VARIADIC "key" "any")
RETURNS TABLE (topic text, subject text, outcome text, amount numeric, detail text)
AS 'MODULE_PATHNAME', 'rebate_explain' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.explain(regclass, "any") IS 'one order: its facts, which rules pay and why the others do not, its rebates and their entries';
REVOKE ALL ON FUNCTION rebate.explain(regclass, "any") FROM PUBLIC;
