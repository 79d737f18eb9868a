-- Who may do what.  One list for all: rebate.grant_right() grants by it, and a
-- test calls each function as each role to see that the library agrees.
--
-- A line is "function name right ..." or "view name right ...".  In place of rights:
--	owner		members of the store owner's role, and superusers, only; they may do all the others, too
--	superuser	superusers only
--	nobody		called by the engine
CREATE FUNCTION rebate.right_objects(OUT kind text, OUT name text, OUT rights text[])
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT m[1], m[2], pg_catalog.string_to_array(m[3], ' ')
FROM pg_catalog.regexp_matches($list$
-- rights
function grant_right admin
function revoke_right admin
function right_objects admin auditor
view granted_rights admin auditor

-- the store
function create_store owner
function adopt_store owner
function upgrade_store admin
function versions admin auditor operator

-- tables, programme, currencies
function attach admin
function detach admin
function set_programme admin
function add_currency admin
function set_ageing admin
function allow_function superuser
view sources admin author approver auditor operator

-- rules
function set_rule author
function end_rule author
function set_group author
function preview author approver
view rules author approver auditor
view rule_versions author approver auditor

-- reading the ledger
function balance auditor
function statement auditor
function explain auditor
function order_key auditor operator
function audit auditor operator
function flush owner
view balances auditor
view accruals auditor
view entries auditor
view decisions auditor operator
view house_balances auditor
view trial_balance auditor
view ledger_accounts auditor
view findings operator

-- running it
function doctor operator
function reconcile operator
function retry operator
function freeze operator
function unfreeze operator
function clock_step operator
function mature operator
function age operator
function retry_failures operator
function run_audit operator
function prune operator
function fold operator
function archive operator
function schedule operator
function unschedule operator
function schedules operator
view failures operator
view failed_orders auditor operator
view freezes auditor operator
view jobs auditor operator

-- delivery
function events auditor
function events_cursor auditor
function feed auditor
function feed_cursor auditor
function channel auditor
function rotate_channels operator
function get_delivery_status operator
view delivery_status operator

-- approval of rules
function require_approval admin
function set_max_percent admin
function approve_rule approver
function reject_rule approver
function withdraw_rule admin author
function on_behalf_of gateway
view rule_drafts admin author approver auditor

-- members
function act_as gateway
function act_as_request member gateway
function current_member member gateway
function get_my_balance member gateway
function get_my_channel member gateway
function get_my_entries member gateway
function get_my_rebates member gateway
function my_events member gateway
function my_events_cursor member gateway
function map_login admin
function unmap_login admin
view logins admin auditor
view my_balance member gateway
view my_channel member gateway
view my_entries member gateway
view my_rebates member gateway

-- privacy
function replace_member admin operator
function request_erasure admin operator
function withdraw_erasure admin operator approver
function erase_member admin operator approver
function erasure_requests admin operator approver auditor
function erasures admin operator approver auditor
function personal_data admin operator auditor

-- statistics
function get_stat_engine admin auditor operator
function get_stat_delivery admin auditor operator
function get_stat_jobs admin auditor operator
function get_stat_backlog admin auditor operator
function get_stat_tables admin auditor operator
function stat_reset admin operator
view stat_engine admin auditor operator
view stat_delivery admin auditor operator
view stat_jobs admin auditor operator
view stat_backlog admin auditor operator
view stat_tables admin auditor operator

-- archive
function drop_step admin
function drop_archived admin
function feed_snapshot auditor
view archived_entries admin auditor
view dropped_archives admin auditor

-- sandbox
function reset admin

-- triggers
function collect admin
function collect_row admin
function collect_truncate admin
function guard owner
function follow_partitions owner
function watch_drops owner

-- the texts of the store's DDL
function store_currencies nobody
function store_difference nobody
function store_foreign nobody
function store_grants nobody
function store_guards nobody
function store_right_grants nobody
function store_rows nobody
function store_shape nobody
function store_tables nobody
function store_upgrade nobody
function store_view_owner nobody
function store_views nobody
$list$, '^(function|view) (\w+) ([a-z ]+)$', 'gn') AS m
$function$;
COMMENT ON FUNCTION rebate.right_objects() IS 'the functions and views, and the rights of which each of them takes one';
REVOKE ALL ON FUNCTION rebate.right_objects() FROM PUBLIC;

CREATE FUNCTION rebate.store_right_grants(has jsonb, had jsonb) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
WITH object AS (
	SELECT pg_catalog.format('EXECUTE ON ROUTINE %s', p.oid::pg_catalog.regprocedure) AS privilege, o.rights
	FROM rebate.right_objects() o
	JOIN pg_catalog.pg_proc p ON p.proname::text = o.name
	JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
	JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
		AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
		AND d.refobjid = e.oid AND e.extname = 'rebate'
	WHERE o.kind = 'function' AND n.nspname = 'rebate'
	UNION ALL
	SELECT pg_catalog.format('SELECT ON rebate.%I', c.relname), o.rights
	FROM rebate.right_objects() o
	JOIN pg_catalog.pg_class c ON c.relname::text = o.name AND c.relkind = 'v'
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE o.kind = 'view' AND n.nspname = 'rebate'
	UNION ALL
	SELECT 'USAGE ON SCHEMA rebate', NULL
), wanted AS (
	SELECT 'had' AS what, h.key AS role, h.value AS rights FROM pg_catalog.jsonb_each(had) h
	UNION ALL
	SELECT 'has', h.key, h.value FROM pg_catalog.jsonb_each(has) h
), privilege AS (
	SELECT DISTINCT w.what, w.role, o.privilege
	FROM wanted w
	CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(w.rights) r (name)
	JOIN object o ON o.rights IS NULL OR r.name = ANY (o.rights)
)
SELECT pg_catalog.string_agg(pg_catalog.format(
	CASE p.what WHEN 'has' THEN 'GRANT %s TO %I; ' ELSE 'REVOKE %s FROM %I; ' END, p.privilege, p.role), ''
	ORDER BY p.what, p.role, p.privilege)
FROM privilege p
WHERE p.what = 'has'
   OR NOT EXISTS (SELECT FROM privilege h WHERE h.what = 'has' AND h.role = p.role AND h.privilege = p.privilege)
$function$;
COMMENT ON FUNCTION rebate.store_right_grants(jsonb, jsonb) IS 'the GRANTs of rights that roles have, and the REVOKEs of those that they had; JSON objects of rights by role';
REVOKE ALL ON FUNCTION rebate.store_right_grants(jsonb, jsonb) FROM PUBLIC;

CREATE FUNCTION rebate.grant_right(right_name text, role name) RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_grant_right';
COMMENT ON FUNCTION rebate.grant_right(text, name) IS 'gives a role a right: admin, author, approver, auditor, operator, gateway or member; false if it has it';
REVOKE ALL ON FUNCTION rebate.grant_right(text, name) FROM PUBLIC;

CREATE FUNCTION rebate.revoke_right(right_name text, role name) RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_revoke_right';
COMMENT ON FUNCTION rebate.revoke_right(text, name) IS 'takes a right back from a role, with all that no other right of it gives; false if it had it not';
REVOKE ALL ON FUNCTION rebate.revoke_right(text, name) FROM PUBLIC;
