CREATE FUNCTION rebate.reconcile(source regclass, keys text[] DEFAULT NULL, deferred_only boolean DEFAULT false, "limit" integer DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'rebate_reconcile' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.reconcile(regclass, text[], boolean, integer) IS 'decides orders from their rows as they are now and posts the difference: those with these keys, the deferred ones, or all of the table; returns their number';
REVOKE ALL ON FUNCTION rebate.reconcile(regclass, text[], boolean, integer) FROM PUBLIC;

CREATE FUNCTION rebate.retry(source regclass DEFAULT NULL, "limit" integer DEFAULT NULL,
	OUT healed bigint, OUT failing bigint, OUT busy bigint)
RETURNS record
AS 'MODULE_PATHNAME', 'rebate_retry' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.retry(regclass, integer) IS 'decides again the orders in rebate.failures; returns how many healed, still fail, or are being changed by others';
REVOKE ALL ON FUNCTION rebate.retry(regclass, integer) FROM PUBLIC;
