CREATE FUNCTION rebate.explain(source regclass, VARIADIC "key" "any")
RETURNS TABLE (topic text, subject text, outcome text, amount numeric, detail text)
AS 'MODULE_PATHNAME', 'rebate_explain' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.explain(regclass, "any") IS 'one order: its facts, which rules pay and why the others do not, its rebates and their entries';
REVOKE ALL ON FUNCTION rebate.explain(regclass, "any") FROM PUBLIC;

CREATE FUNCTION rebate.preview(source regclass, "row" "any")
RETURNS TABLE (topic text, subject text, outcome text, amount numeric, detail text)
AS 'MODULE_PATHNAME', 'rebate_preview' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.preview(regclass, "any") IS 'what an order would earn that does not exist yet, as explain() tells it; the row as JSON object or as a row of the table';
REVOKE ALL ON FUNCTION rebate.preview(regclass, "any") FROM PUBLIC;

CREATE FUNCTION rebate.preview(source regclass, "row" "any", draft integer)
RETURNS TABLE (topic text, subject text, outcome text, amount numeric, detail text)
AS 'MODULE_PATHNAME', 'rebate_preview_draft' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.preview(regclass, "any", integer) IS 'what an order would earn if a draft were approved now';
REVOKE ALL ON FUNCTION rebate.preview(regclass, "any", integer) FROM PUBLIC;
