-- The clock.  Procedures that commit can neither be SECURITY DEFINER nor pin their
-- settings, so they are nothing but a loop: every name is qualified, there is no
-- operator, and all else is in C.
CREATE FUNCTION rebate.clock_step(job text, upto timestamptz) RETURNS boolean
AS 'MODULE_PATHNAME', 'rebate_clock_step' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.clock_step(text, timestamptz) IS 'one batch of a job, for its procedure, which commits; false when there is no more to do';
REVOKE ALL ON FUNCTION rebate.clock_step(text, timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.mature(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('mature', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.mature(timestamptz) IS 'makes maturing rebates available that are due, in batches with COMMIT';
REVOKE ALL ON PROCEDURE rebate.mature(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.age(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('age', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.age(timestamptz) IS 'confirms pending orders after auto_confirm_after and gives up orders after give_up_after, in batches with COMMIT';
REVOKE ALL ON PROCEDURE rebate.age(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.retry_failures(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('retry_failures', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.retry_failures(timestamptz) IS 'decides again the orders in rebate.failures, in batches with COMMIT';
REVOKE ALL ON PROCEDURE rebate.retry_failures(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.run_audit(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('run_audit', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.run_audit(timestamptz) IS 'runs rebate.audit() and keeps what it finds in rebate.findings';
REVOKE ALL ON PROCEDURE rebate.run_audit(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.prune(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('prune', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.prune(timestamptz) IS 'deletes what pg_cron keeps of runs of these jobs that ended over a week ago';
REVOKE ALL ON PROCEDURE rebate.prune(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.fold(upto timestamptz DEFAULT now())
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('fold', upto) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.fold(timestamptz) IS 'adds what was posted up to now to the stored balances of ledger accounts, so that rebate.trial_balance need not read it again';
REVOKE ALL ON PROCEDURE rebate.fold(timestamptz) FROM PUBLIC;

CREATE PROCEDURE rebate.archive(before timestamptz)
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.clock_step('archive', before) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.archive(timestamptz) IS 'moves entries posted before a moment to rebate_data.entry_archive, in batches with COMMIT; the ledger and all balances stay as they are';
REVOKE ALL ON PROCEDURE rebate.archive(timestamptz) FROM PUBLIC;

CREATE FUNCTION rebate.drop_step(before timestamptz, exported_to text, entries bigint DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'rebate_drop_step' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.drop_step(timestamptz, text, bigint) IS 'one batch of rebate.drop_archived(), which commits it; false when there is no more to do';
REVOKE ALL ON FUNCTION rebate.drop_step(timestamptz, text, bigint) FROM PUBLIC;

CREATE PROCEDURE rebate.drop_archived(before timestamptz, exported_to text, entries bigint DEFAULT NULL)
LANGUAGE plpgsql
AS $procedure$
BEGIN
	WHILE rebate.drop_step(before, exported_to, entries) LOOP
		COMMIT;
	END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE rebate.drop_archived(timestamptz, text, bigint) IS 'removes archived entries posted before a moment for good, in batches with COMMIT, and carries their balances forward; exported_to says where they can be read from then on, entries how many were exported that are to go';
REVOKE ALL ON PROCEDURE rebate.drop_archived(timestamptz, text, bigint) FROM PUBLIC;
