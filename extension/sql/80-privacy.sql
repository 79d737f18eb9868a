-- Keys of members: another one, or none any more.  Each function checks its
-- caller.
CREATE FUNCTION rebate.replace_member(old text, new text) RETURNS void
AS 'MODULE_PATHNAME', 'rebate_replace_member' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.replace_member(text, text) IS 'gives a member another key; orders with the old one go on to be his';
REVOKE ALL ON FUNCTION rebate.replace_member(text, text) FROM PUBLIC;

CREATE FUNCTION rebate.request_erasure(member text) RETURNS void
AS 'MODULE_PATHNAME', 'rebate_request_erasure' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.request_erasure(text) IS 'asks to erase a member and write off what he has; somebody else does it';
REVOKE ALL ON FUNCTION rebate.request_erasure(text) FROM PUBLIC;

CREATE FUNCTION rebate.withdraw_erasure(member text) RETURNS boolean
AS 'MODULE_PATHNAME', 'rebate_withdraw_erasure' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.withdraw_erasure(text) IS 'withdraws a request of rebate.request_erasure(); false if there is none';
REVOKE ALL ON FUNCTION rebate.withdraw_erasure(text) FROM PUBLIC;

CREATE FUNCTION rebate.erase_member(member text, write_off boolean DEFAULT false) RETURNS text
AS 'MODULE_PATHNAME', 'rebate_erase_member' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.erase_member(text, boolean) IS 'replaces a member''s key by a pseudonym, which it returns, and refuses the key from then on; with write_off what he has is written off';
REVOKE ALL ON FUNCTION rebate.erase_member(text, boolean) FROM PUBLIC;

CREATE FUNCTION rebate.erasure_requests()
RETURNS TABLE (member text, requested_at timestamptz, requested_by text)
AS 'MODULE_PATHNAME', 'rebate_erasure_requests' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.erasure_requests() IS 'members to be erased, once somebody else agrees';
REVOKE ALL ON FUNCTION rebate.erasure_requests() FROM PUBLIC;

CREATE FUNCTION rebate.erasures()
RETURNS TABLE (member text, erased_at timestamptz, erased_by text, requested_at timestamptz, requested_by text)
AS 'MODULE_PATHNAME', 'rebate_erasures' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rebate.erasures() IS 'erased members by pseudonym, with who asked for it and who did it';
REVOKE ALL ON FUNCTION rebate.erasures() FROM PUBLIC;

-- Where the data of people is, in the tables of the store and of the extension.
-- sql/privacy.sql looks for it everywhere else.
CREATE FUNCTION rebate.personal_data()
RETURNS TABLE ("schema" text, "table" text, "column" text, what text, kept text, erasure text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT * FROM (VALUES
	('rebate_data', 'account', 'member', 'key of the member', 'for good', 'replaced by a pseudonym'),
	('rebate_data', 'account', 'handle', 'name of the account for clients', 'for good', 'a new one'),
	('rebate_data', 'accrual', 'order_key', 'key of an order', 'for good', 'stays: without it an order could be paid twice'),
	('rebate_data', 'accrual', 'base', 'amount of an order', 'for good', 'stays: it explains the entries'),
	('rebate_data', 'accrual', 'looked_up', 'values that a rule looked up', 'for good', 'stays: it is empty in this version'),
	('rebate_data', 'entry', 'order_key', 'key of an order', 'for good', 'stays: entries are never changed'),
	('rebate_data', 'entry_archive', 'order_key', 'key of an order', 'until rebate.drop_archived()', 'stays: entries are never changed'),
	('rebate_data', 'dropped', 'dropped_by', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'link', 'order_key', 'key of a return, or of an order that was split', 'as long as it says so', 'stays'),
	('rebate_data', 'link', 'target_key', 'key of the order that it is about', 'as long as it says so', 'stays'),
	('rebate_data', 'link', 'amount', 'amount of a return', 'as long as it says so', 'stays'),
	('rebate_data', 'link', 'quantity', 'quantity of a return', 'as long as it says so', 'stays'),
	('rebate_data', 'deferred', 'order_key', 'key of an order', 'until rebate.reconcile()', 'stays until then'),
	('rebate_data', 'failure', 'order_key', 'key of an order', 'until it can be decided', 'removed'),
	('rebate_data', 'failure', 'message', 'an error, which may quote values of the row', 'until it can be decided', 'removed'),
	('rebate_data', 'failure', 'detail', 'an error, which may quote values of the row', 'until it can be decided', 'removed'),
	('rebate_data', 'finding', 'subject', 'key of an order', 'until the next audit', 'removed'),
	('rebate_data', 'finding', 'detail', 'an error, which may quote values of the row', 'until the next audit', 'removed'),
	('rebate_data', 'freeze', 'order_key', 'key of an order', 'for good', 'stays: it explains when a rebate was due'),
	('rebate_data', 'freeze', 'reason', 'what somebody wrote', 'for good', 'replaced by "erased" and a number'),
	('rebate_data', 'freeze', 'frozen_by', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'freeze', 'unfrozen_by', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'channel', 'member', 'key of the member', 'until channels are rotated', 'removed'),
	('rebate_data', 'former_member', 'hash', 'keyed hash of a key that the member had', 'for good', 'added: orders with the key are refused'),
	('rebate_data', 'former_member', 'member', 'key of the member', 'for good', 'removed'),
	('rebate_data', 'former_secret', 'key', 'the secret of the hashes', 'for good', 'stays: whoever has it can try out keys'),
	('rebate_data', 'login', 'login', 'login of a member', 'until rebate.unmap_login()', 'removed'),
	('rebate_data', 'login', 'member', 'key of the member', 'until rebate.unmap_login()', 'removed'),
	('rebate_data', 'login', 'mapped_by', 'login of staff', 'until rebate.unmap_login()', 'removed'),
	('rebate_data', 'erasure', 'member', 'pseudonym', 'for good', 'added'),
	('rebate_data', 'erasure', 'erased_by', 'login of staff', 'for good', 'added'),
	('rebate_data', 'erasure', 'erased_claim', 'name of staff', 'for good', 'added'),
	('rebate_data', 'erasure', 'requested_by', 'login of staff', 'for good', 'added'),
	('rebate_data', 'erasure', 'requested_claim', 'name of staff', 'for good', 'added'),
	('rebate_data', 'erasure_request', 'member', 'key of the member', 'until he is erased', 'removed'),
	('rebate_data', 'erasure_request', 'requested_by', 'login of staff', 'until he is erased', 'removed'),
	('rebate_data', 'erasure_request', 'requested_claim', 'name of staff', 'until he is erased', 'removed'),
	('rebate_data', 'source', 'attached_by', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'rule_version', 'created_by', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'rule_version', 'scope', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'rule_version', 'condition', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'rule_version', 'arguments', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'rule_scope', 'scope_key', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'rule_version', 'base', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'draft', 'condition', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'draft', 'base', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'draft', 'arguments', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'draft', 'replaces', 'what somebody wrote: name no person in a rule', 'for good', 'stays'),
	('rebate_data', 'draft', 'reason', 'what somebody wrote: name no person there', 'for good', 'stays'),
	('rebate_data', 'draft', 'author', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'draft', 'author_role', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'draft', 'author_claim', 'name of staff', 'for good', 'stays'),
	('rebate_data', 'draft', 'decided_by', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'draft', 'decided_claim', 'name of staff', 'for good', 'stays'),
	('rebate_data', 'rule_control', 'changed_by', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'rule_control', 'changed_claim', 'name of staff', 'for good', 'stays'),
	('rebate_data', 'granted_right', 'role_name', 'login of staff', 'until rebate.revoke_right()', 'stays'),
	('rebate_data', 'granted_right', 'granted_by', 'login of staff', 'until rebate.revoke_right()', 'stays'),
	('rebate', 'channel_key', 'key', 'the secret of the names of channels', 'until channels are rotated', 'stays: whoever has it can tell a member''s channel'),
	('rebate_data', 'allowed_function', 'allowed_by', 'login of staff', 'for good', 'stays'),
	('rebate_data', 'job', 'started_by', 'login of staff', 'until the next run', 'stays')
) AS d ("schema", "table", "column", what, kept, erasure)
$function$;
COMMENT ON FUNCTION rebate.personal_data() IS 'columns with data of people: what it is, how long it is kept, and what an erasure does to it';
REVOKE ALL ON FUNCTION rebate.personal_data() FROM PUBLIC;
