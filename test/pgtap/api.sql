-- What the extension shows to its users: names, signatures, columns, comments; and who may do what with them.
CREATE EXTENSION pgtap;
SET client_min_messages = warning;
SET timezone = 'UTC';
SELECT no_plan();

-- The schema of somebody else is refused, and only a superuser creates the extension.
CREATE ROLE rebate_test_mallory LOGIN;
CREATE ROLE rebate_test_shop LOGIN;
CREATE ROLE rebate_test_clerk LOGIN;
CREATE SCHEMA rebate AUTHORIZATION rebate_test_mallory;
SELECT throws_ok('CREATE EXTENSION rebate', '42501', NULL, 'CREATE EXTENSION refuses a schema that somebody else owns');
DROP SCHEMA rebate;
SELECT throws_ok('CREATE EXTENSION rebate SCHEMA public', NULL, NULL, 'the schema is fixed');
GRANT CREATE ON DATABASE rebate_test TO rebate_test_mallory;
SET ROLE rebate_test_mallory;
SELECT throws_ok('CREATE EXTENSION rebate', '42501', NULL, 'CREATE EXTENSION takes a superuser');
RESET ROLE;
REVOKE CREATE ON DATABASE rebate_test FROM rebate_test_mallory;

CREATE EXTENSION rebate;
SELECT hasnt_schema('rebate_data', 'CREATE EXTENSION makes no store');
SELECT is_empty($$ SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'rebate'::regnamespace
    AND relkind <> 'i' AND relname NOT IN ('channel_key', 'cluster', 'delivery_status') AND relname !~ '^(my|stat)_' $$,
    'nor a table or view, but those of delivery of members and of statistics');
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2));
SELECT lives_ok($$ SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR') $$,
    'attach makes it');
SELECT is(rebate.set_rule('five', percent => 5), 1, 'the first version of a rule');

-- Functions
SELECT bag_eq($$
    SELECT p.proname::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
    FROM pg_proc p WHERE p.pronamespace = 'rebate'::regnamespace AND p.proname NOT LIKE 'store\_%'
        AND p.prokind = 'f' AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) $$, $$ VALUES
    ('act_as', 'member text', 'void'),
    ('act_as_request', '', 'void'),
    ('add_currency', 'code text, scale integer', 'void'),
    ('allow_function', 'function regprocedure, allowed boolean DEFAULT true', 'void'),
    ('approve_rule', 'draft integer, comment text DEFAULT NULL::text, allow_stale boolean DEFAULT false', 'integer'),
    ('attach', 'source regclass, member text, amount text, currency text DEFAULT NULL::text, key text[] DEFAULT '
        'NULL::text[], quantity text DEFAULT NULL::text, order_time text DEFAULT NULL::text, status text DEFAULT '
        'NULL::text, phases jsonb DEFAULT NULL::jsonb, confirmed_at text DEFAULT NULL::text, refunded text DEFAULT '
        'NULL::text, refunded_quantity text DEFAULT NULL::text, attributes jsonb DEFAULT NULL::jsonb, since timestamp '
        'with time zone DEFAULT NULL::timestamp with time zone, max_backdate interval DEFAULT ''30 days''::interval, '
        'max_future interval DEFAULT ''1 day''::interval, on_delete text DEFAULT ''void''::text, on_truncate text '
        'DEFAULT ''refuse''::text, on_error text DEFAULT ''set_aside''::text, replace boolean DEFAULT false, row_triggers '
        'boolean DEFAULT false, original text[] DEFAULT NULL::text[], replaces text[] DEFAULT NULL::text[]',
        'regclass'),
    ('adopt_store', 'owner name DEFAULT NULL::name', 'name'),
    ('audit', '', 'TABLE(part text, violation text, subject text, detail text)'),
    ('balance', 'member text, currency text DEFAULT NULL::text, at timestamp with time zone DEFAULT NULL::timestamp '
        'with time zone', 'TABLE(member text, currency text, tracked numeric, pending numeric, maturing numeric, '
        'available numeric, held numeric, last_entry bigint)'),
    ('channel', 'member text', 'text'),
    ('create_store', 'owner name DEFAULT NULL::name, sandbox boolean DEFAULT false', 'name'),
    ('clock_step', 'job text, upto timestamp with time zone', 'boolean'),
    ('current_member', '', 'text'),
    ('detach', 'source regclass', 'void'),
    ('doctor', 'thorough boolean DEFAULT false', 'TABLE("check" text, subject text, status text, detail text, remedy '
        'text)'),
    ('drop_step', 'before timestamp with time zone, exported_to text, entries bigint DEFAULT NULL::bigint', 'boolean'),
    ('end_rule', 'name text, at timestamp with time zone DEFAULT NULL::timestamp with time zone', 'integer'),
    ('erase_member', 'member text, write_off boolean DEFAULT false', 'text'),
    ('erasure_requests', '', 'TABLE(member text, requested_at timestamp with time zone, requested_by text)'),
    ('erasures', '', 'TABLE(member text, erased_at timestamp with time zone, erased_by text, requested_at timestamp with '
        'time zone, requested_by text)'),
    ('events', 'member text, after text DEFAULT NULL::text, "limit" integer DEFAULT 100',
        'TABLE(seq bigint, currency text, cursor text, event json)'),
    ('events_cursor', 'member text', 'text'),
    ('explain', 'source regclass, VARIADIC key "any"', 'TABLE(topic text, subject text, outcome text, amount numeric, '
        'detail text)'),
    ('feed', 'cursor text DEFAULT NULL::text, "limit" integer DEFAULT 1000', 'TABLE(cursor text, event json)'),
    ('feed_cursor', '', 'text'),
    ('feed_snapshot', '', 'TABLE(cursor text, account uuid, member text, currency text, last_entry bigint, tracked numeric, pending numeric, '
        'maturing numeric, available numeric, held numeric)'),
    ('flush', '', 'bigint'),
    ('freeze', 'source regclass, order_key text, reason text, at timestamp with time zone DEFAULT now()', 'boolean'),
    ('get_delivery_status', 'OUT setting text, OUT mode text, OUT reason text, OUT worker_pid integer, OUT ring_size '
        'integer, OUT ring_used bigint, OUT overflows bigint, OUT sweeps bigint, OUT hints bigint, OUT published '
        'bigint, OUT notifications bigint, OUT lag interval, OUT queue_usage double precision, OUT last_error text, '
        'OUT last_error_at timestamp with time zone', 'record'),
    ('get_my_balance', 'at timestamp with time zone DEFAULT NULL::timestamp with time zone', 'TABLE(currency text, tracked '
        'numeric, pending numeric, maturing numeric, available numeric, held numeric, last_entry bigint, posted_at '
        'timestamp with time zone)'),
    ('get_my_channel', '', 'text'),
    ('get_my_entries', 'currency text DEFAULT NULL::text, before bigint DEFAULT NULL::bigint, "limit" integer DEFAULT '
        'NULL::integer', 'TABLE(currency text, seq bigint, kind text, from_bucket text, to_bucket text, amount numeric, '
        'source text, order_key text, rule text, tracked numeric, pending numeric, maturing numeric, available numeric, '
        'held numeric, event_at timestamp with time zone, effective_date date, book_date date, posted_at timestamp with '
        'time zone)'),
    ('get_my_rebates', 'currency text DEFAULT NULL::text, before bigint DEFAULT NULL::bigint, "limit" integer DEFAULT '
        'NULL::integer', 'TABLE(currency text, seq bigint, source text, order_key text, rule text, phase text, bucket '
        'text, earned numeric, order_time timestamp with time zone, confirmed_at timestamp with time zone, due timestamp '
        'with time zone, posted_at timestamp with time zone)'),
    ('get_stat_backlog', 'OUT kind text, OUT source text, OUT waiting bigint, OUT oldest timestamp with time zone', 'SETOF record'),
    ('get_stat_delivery', 'OUT mode text, OUT worker boolean, OUT ring_used bigint, OUT ring_size integer, OUT hints bigint, '
        'OUT looks bigint, OUT overflows bigint, OUT published bigint, OUT notifications bigint, OUT errors bigint, '
        'OUT last_error_at timestamp with time zone, OUT lag double precision, OUT unpublished_since timestamp with time zone, '
        'OUT queue_usage double precision, OUT stats_reset timestamp with time zone', 'record'),
    ('get_stat_engine', 'OUT scope text, OUT transactions bigint, OUT rolled_back bigint, OUT statements bigint, '
        'OUT bulk_statements bigint, OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT deferred bigint, '
        'OUT posted bigint, OUT failed bigint, OUT rebates bigint, OUT entries bigint, OUT retries bigint, OUT conflicts bigint, '
        'OUT rule_builds bigint, OUT collect_time double precision, OUT decide_time double precision, '
        'OUT post_time double precision, OUT stats_reset timestamp with time zone', 'record'),
    ('get_stat_jobs', 'OUT job text, OUT state text, OUT started_at timestamp with time zone, OUT progress_at timestamp '
        'with time zone, OUT finished_at timestamp with time zone, OUT batches bigint, OUT done bigint, OUT finished_runs bigint, '
        'OUT stopped_runs bigint, OUT total_done bigint', 'SETOF record'),
    ('get_stat_tables', 'OUT source text, OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT deferred bigint, '
        'OUT posted bigint, OUT failed bigint, OUT rebates bigint, OUT entries bigint, OUT last_order_at timestamp with time zone', 'SETOF record'),
    ('grant_right', 'right_name text, role name', 'boolean'),
    ('map_login', 'login name, member text', 'void'),
    ('my_events', 'after text DEFAULT NULL::text, "limit" integer DEFAULT 100',
        'TABLE(seq bigint, currency text, cursor text, event json)'),
    ('my_events_cursor', '', 'text'),
    ('on_behalf_of', 'person text', 'void'),
    ('order_key', 'source regclass, VARIADIC key "any"', 'text'),
    ('preview', 'source regclass, "row" "any"', 'TABLE(topic text, subject text, outcome text, amount numeric, '
        'detail text)'),
    ('personal_data', '', 'TABLE(schema text, "table" text, "column" text, what text, kept text, erasure text)'),
    ('preview', 'source regclass, "row" "any", draft integer', 'TABLE(topic text, subject text, outcome text, amount '
        'numeric, detail text)'),
    ('reconcile', 'source regclass, keys text[] DEFAULT NULL::text[], deferred_only boolean DEFAULT false, "limit" '
        'integer DEFAULT NULL::integer', 'bigint'),
    ('reset', 'keep text DEFAULT ''rules''::text, replay boolean DEFAULT false', 'bigint'),
    ('reject_rule', 'draft integer, reason text', 'void'),
    ('require_approval', 'required boolean', 'integer'),
    ('replace_member', 'old text, new text', 'void'),
    ('request_erasure', 'member text', 'void'),
    ('retry', 'source regclass DEFAULT NULL::regclass, "limit" integer DEFAULT NULL::integer, OUT healed bigint, OUT '
        'failing bigint, OUT busy bigint', 'record'),
    ('revoke_right', 'right_name text, role name', 'boolean'),
    ('right_objects', 'OUT kind text, OUT name text, OUT rights text[]', 'SETOF record'),
    ('rotate_channels', '', 'bigint'),
    ('schedule', 'job text DEFAULT NULL::text, schedule text DEFAULT NULL::text', 'TABLE(name text, at text, command text)'),
    ('schedules', 'OUT job text, OUT schedule text, OUT username text, OUT active boolean, OUT last_run timestamp with '
        'time zone, OUT last_status text, OUT last_message text', 'SETOF record'),
    ('set_ageing', 'source regclass, auto_confirm_after interval DEFAULT NULL::interval, give_up_after interval DEFAULT '
        'NULL::interval', 'bigint'),
    ('set_group', 'name text, mode text DEFAULT ''first''::text', 'void'),
    ('set_max_percent', 'max_percent numeric', 'void'),
    ('set_programme', 'time_zone text', 'void'),
    ('set_rule', 'name text, percent numeric DEFAULT NULL::numeric, fixed numeric DEFAULT NULL::numeric, per_unit '
        'numeric DEFAULT NULL::numeric, currency text DEFAULT NULL::text, scope jsonb DEFAULT NULL::jsonb, condition '
        'text DEFAULT NULL::text, base text DEFAULT NULL::text, minimum numeric DEFAULT NULL::numeric, max_per_order '
        'numeric DEFAULT NULL::numeric, limit_mode text DEFAULT ''clip''::text, rounding text DEFAULT '
        '''half_up''::text, refund text DEFAULT ''pro_rata''::text, unlinked_return text DEFAULT ''today''::text, '
        'hold interval DEFAULT ''00:00:00''::interval, priority integer DEFAULT 0, rule_group text DEFAULT '
        'NULL::text, valid_from timestamp with time zone DEFAULT NULL::timestamp with time zone, valid_to timestamp '
        'with time zone DEFAULT NULL::timestamp with time zone, source regclass DEFAULT NULL::regclass, campaign text '
        'DEFAULT ''default''::text, max_percent numeric DEFAULT 100', 'integer'),
    ('stat_reset', '', 'void'),
    ('statement', 'member text, "from" date DEFAULT NULL::date, "to" date DEFAULT NULL::date, currency text DEFAULT NULL::text',
        'TABLE(currency text, line text, book_date date, seq bigint, posted_at timestamp with time zone, source text, '
        'order_key text, rule text, accrual_id bigint, amount numeric, tracked numeric, pending numeric, maturing '
        'numeric, available numeric, held numeric)'),
    ('unfreeze', 'source regclass, order_key text, reason text DEFAULT NULL::text, at timestamp with time zone DEFAULT '
        'now()', 'integer'),
    ('unmap_login', 'login name', 'boolean'),
    ('unschedule', 'job text DEFAULT NULL::text', 'integer'),
    ('upgrade_store', '', 'integer'),
    ('withdraw_rule', 'draft integer', 'void'),
    ('withdraw_erasure', 'member text', 'boolean'),
    ('versions', 'OUT part text, OUT version text, OUT latest text, OUT advice text', 'SETOF record')
    $$, 'functions have the signatures of the reference');
SELECT bag_eq($$
    SELECT p.proname::text, pg_get_function_arguments(p.oid) FROM pg_proc p
    WHERE p.pronamespace = 'rebate'::regnamespace AND p.prokind = 'p' $$, $$ VALUES
    ('age', 'IN upto timestamp with time zone DEFAULT now()'),
    ('archive', 'IN before timestamp with time zone'),
    ('drop_archived', 'IN before timestamp with time zone, IN exported_to text, IN entries bigint DEFAULT NULL::bigint'),
    ('fold', 'IN upto timestamp with time zone DEFAULT now()'),
    ('mature', 'IN upto timestamp with time zone DEFAULT now()'),
    ('prune', 'IN upto timestamp with time zone DEFAULT now()'),
    ('retry_failures', 'IN upto timestamp with time zone DEFAULT now()'),
    ('run_audit', 'IN upto timestamp with time zone DEFAULT now()')
    $$, 'and so have procedures');

-- Views
SELECT views_are('rebate', ARRAY['accruals', 'archived_entries', 'balances', 'decisions', 'delivery_status', 'dropped_archives', 'entries', 'failed_orders', 'failures',
    'findings', 'freezes', 'granted_rights', 'house_balances', 'jobs', 'ledger_accounts', 'logins', 'my_balance', 'my_channel', 'my_entries',
    'my_rebates', 'rule_drafts', 'rule_versions', 'rules', 'sources', 'stat_backlog',
    'stat_delivery', 'stat_engine', 'stat_jobs', 'stat_tables', 'trial_balance']);
SELECT columns_are('rebate', 'stat_engine', ARRAY['scope', 'transactions', 'rolled_back', 'statements', 'bulk_statements', 'inserted',
    'updated', 'deleted', 'deferred', 'posted', 'failed', 'rebates', 'entries', 'retries', 'conflicts', 'rule_builds', 'collect_time',
    'decide_time', 'post_time', 'stats_reset']);
SELECT columns_are('rebate', 'stat_delivery', ARRAY['mode', 'worker', 'ring_used', 'ring_size', 'hints', 'looks', 'overflows',
    'published', 'notifications', 'errors', 'last_error_at', 'lag', 'unpublished_since', 'queue_usage', 'stats_reset']);
SELECT columns_are('rebate', 'stat_jobs', ARRAY['job', 'state', 'started_at', 'progress_at', 'finished_at', 'batches', 'done',
    'finished_runs', 'stopped_runs', 'total_done']);
SELECT columns_are('rebate', 'stat_backlog', ARRAY['kind', 'source', 'waiting', 'oldest', 'age']);
SELECT columns_are('rebate', 'stat_tables', ARRAY['source', 'inserted', 'updated', 'deleted', 'deferred', 'posted', 'failed',
    'rebates', 'entries', 'last_order_at']);
SELECT columns_are('rebate', 'house_balances', ARRAY['code', 'kind', 'currency', 'balance']);
SELECT columns_are('rebate', 'trial_balance', ARRAY['code', 'kind', 'campaign', 'currency', 'debit', 'credit', 'balance']);
SELECT columns_are('rebate', 'findings', ARRAY['found_at', 'part', 'violation', 'subject', 'detail']);
SELECT columns_are('rebate', 'failed_orders', ARRAY['source', 'order_key', 'sqlstate', 'first_failed_at', 'last_failed_at', 'attempts']);
SELECT columns_are('rebate', 'logins', ARRAY['login', 'member', 'in_force', 'mapped_at', 'mapped_by']);
SELECT columns_are('rebate', 'granted_rights', ARRAY['role', 'right_name', 'role_exists', 'granted_at', 'granted_by']);
SELECT columns_are('rebate', 'freezes', ARRAY['source', 'order_key', 'reason', 'frozen_at', 'frozen_by', 'unfrozen_at',
    'unfrozen_by']);
SELECT columns_are('rebate', 'archived_entries', ARRAY['account_id', 'seq', 'member', 'currency', 'kind', 'debit', 'credit', 'amount', 'source', 'order_key',
    'rule', 'accrual_id', 'posting_id', 'payout_id', 'tracked', 'pending', 'maturing', 'available', 'held', 'event_at', 'effective_date', 'book_date', 'posted_at',
    'stays', 'epoch', 'xid', 'check', 'unit', 'debit_id', 'credit_id', 'rule_id']);
SELECT columns_are('rebate', 'dropped_archives', ARRAY['before', 'exported_to', 'entries', 'began_at', 'dropped_by']);
SELECT columns_are('rebate', 'jobs', ARRAY['job', 'state', 'upto', 'started_at', 'progress_at', 'finished_at', 'batches',
    'done', 'pid', 'started_by']);
SELECT columns_are('rebate', 'delivery_status', ARRAY['setting', 'mode', 'reason', 'worker_pid', 'ring_size', 'ring_used',
    'overflows', 'sweeps', 'hints', 'published', 'notifications', 'lag', 'queue_usage', 'last_error', 'last_error_at']);
SELECT columns_are('rebate', 'balances', ARRAY['member', 'currency', 'tracked', 'pending', 'maturing', 'available',
    'held', 'last_entry', 'account_id', 'opened_at']);
SELECT columns_are('rebate', 'accruals', ARRAY['accrual_id', 'member', 'currency', 'source', 'order_key', 'rule',
    'version', 'phase', 'bucket', 'earned', 'base', 'order_time', 'confirmed_at', 'due', 'first_seen', 'generation',
    'account_id']);
SELECT columns_are('rebate', 'entries', ARRAY['account_id', 'seq', 'member', 'currency', 'kind', 'debit', 'credit',
    'amount', 'source', 'order_key', 'rule', 'accrual_id', 'posting_id', 'tracked', 'pending', 'maturing',
    'available', 'held', 'event_at', 'effective_date', 'book_date', 'posted_at']);
SELECT columns_are('rebate', 'decisions', ARRAY['source', 'order_key', 'decision', 'first_seen', 'generation',
    'rebates', 'earned']);
SELECT columns_are('rebate', 'failures', ARRAY['source', 'order_key', 'sqlstate', 'message', 'detail',
    'first_failed_at', 'last_failed_at', 'attempts']);
SELECT columns_are('rebate', 'sources', ARRAY['source', 'source_id', 'key', 'member', 'amount', 'currency', 'since',
    'attached_at', 'attached_by', 'detached_at', 'arguments', 'failures', 'deferred']);
SELECT columns_are('rebate', 'rules', ARRAY['rule', 'version', 'formula', 'rate', 'currency', 'scope', 'condition',
    'valid_from', 'valid_to', 'rule_group', 'priority', 'campaign', 'arguments']);
SELECT columns_are('rebate', 'rule_versions', ARRAY['rule', 'version', 'formula', 'rate', 'currency', 'scope',
    'condition', 'valid_from', 'valid_to', 'rule_group', 'priority', 'campaign', 'arguments', 'generation',
    'created_at', 'created_by', 'draft', 'approved_by']);
SELECT columns_are('rebate', 'my_balance', ARRAY['currency', 'tracked', 'pending', 'maturing', 'available', 'held',
    'last_entry', 'posted_at']);
SELECT columns_are('rebate', 'my_rebates', ARRAY['currency', 'seq', 'source', 'order_key', 'rule', 'phase', 'bucket',
    'earned', 'order_time', 'confirmed_at', 'due', 'posted_at']);
SELECT columns_are('rebate', 'my_entries', ARRAY['currency', 'seq', 'kind', 'from_bucket', 'to_bucket', 'amount', 'source',
    'order_key', 'rule', 'tracked', 'pending', 'maturing', 'available', 'held', 'event_at', 'effective_date', 'book_date',
    'posted_at']);
SELECT columns_are('rebate', 'my_channel', ARRAY['channel']);
SELECT columns_are('rebate', 'rule_drafts', ARRAY['draft', 'kind', 'rule', 'state', 'changes', 'arguments', 'condition', 'base',
    'base_version', 'current_version', 'stale', 'author', 'author_claim', 'author_role', 'written_at', 'decided_by',
    'decided_claim', 'decided_at', 'reason', 'version']);
SELECT columns_are('rebate', 'ledger_accounts', ARRAY['code', 'kind', 'description']);
SELECT triggers_are('public', 'orders', ARRAY['rebate_insert', 'rebate_update', 'rebate_delete', 'rebate_truncate']);

-- Members of the extension are functions, views over functions, event triggers, and for delivery a secret; the store is the owner's.
SELECT is_empty($$ SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'rebate')
        AND deptype = 'e' AND classid NOT IN ('pg_proc'::regclass, 'pg_event_trigger'::regclass)
        AND NOT (classid = 'pg_class'::regclass AND objid::regclass::text ~ '^rebate\.(channel_key|cluster|delivery_status|my_\w+|stat_\w+)$')
        -- from 17 on the row types of those count, too
        AND NOT (classid = 'pg_type'::regclass AND objid::regtype::text ~ '^rebate\.(channel_key|cluster|delivery_status|my_\w+|stat_\w+)(\[\])?$') $$,
    'no money is a member of the extension');
SELECT is_empty($$ SELECT c.oid::regclass, d.refobjid::regclass FROM pg_class c JOIN pg_rewrite w ON w.ev_class = c.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
    WHERE c.relnamespace = 'rebate'::regnamespace AND c.relname LIKE 'my\_%' AND d.refobjid <> c.oid $$,
    'the views of members read no table by themselves');
SELECT is_empty($$ SELECT extconfig FROM pg_extension WHERE extname = 'rebate' AND extconfig IS NOT NULL $$,
    'a dump leaves the key of channels out');
SELECT is_empty($$ SELECT c.oid::regclass FROM pg_class c
    WHERE relnamespace IN ('rebate'::regnamespace, 'rebate_data'::regnamespace) AND relkind IN ('r', 'v', 'S')
        AND relowner <> 'rebate_owner'::regrole
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') $$, 'tables, sequences and views belong to the store''s owner');
SELECT is_empty($$ SELECT rolname FROM pg_roles WHERE rolname = 'rebate_owner' AND (rolcanlogin OR rolsuper OR
    rolcreaterole OR rolcreatedb OR rolbypassrls) $$,
    'who can neither log in nor do anything else');

-- Comments
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'rebate'::regnamespace AND
    obj_description(oid, 'pg_proc') IS NULL $$,
    'every function has a comment');
SELECT is_empty($$ SELECT oid::regclass FROM pg_class WHERE relnamespace IN ('rebate'::regnamespace,
    'rebate_data'::regnamespace)
    AND relkind IN ('r', 'v', 'S') AND obj_description(oid, 'pg_class') IS NULL $$,
        'every table, sequence and view has a comment');
SELECT is_empty($$ SELECT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal
    AND relnamespace = 'rebate_data'::regnamespace AND obj_description(pg_trigger.oid, 'pg_trigger') IS NULL $$,
        'every guard has a comment');

-- Rights
SELECT bag_eq($$ SELECT p.proname::text FROM pg_proc p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
    WHERE p.pronamespace = 'rebate'::regnamespace AND a.grantee = 0 $$, ARRAY[]::text[],
        'PUBLIC may execute nothing');
SELECT is_empty($$ SELECT c.oid::regclass, a.* FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.relnamespace IN ('rebate'::regnamespace, 'rebate_data'::regnamespace) AND a.grantee <> c.relowner
        AND NOT (c.relname ~ '^(delivery_status$|my_|stat_)' AND a.grantee = 'rebate_owner'::regrole)
        AND NOT (c.relname ~ '^stat_' AND a.grantee = 'pg_monitor'::regrole AND a.privilege_type = 'SELECT') $$,
    'nobody but the owner has a right on tables and views, but for monitoring');
SELECT is_empty($$ SELECT n.nspname FROM pg_namespace n, aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) a
    WHERE n.nspname = 'rebate_data' AND a.grantee <> n.nspowner OR n.nspname = 'rebate' AND a.grantee = 0 AND
        a.privilege_type <> 'USAGE' $$,
    'nor in the schemas, but for names in "rebate"');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'rebate'::regnamespace AND prosecdef $$,
    'no function is SECURITY DEFINER');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'rebate'::regnamespace
    AND prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c')
    AND prokind = 'f' AND NOT COALESCE(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp'] $$,
        'functions not in C pin their search_path');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'rebate'::regnamespace AND prokind = 'p'
    AND prosrc !~ '^\s*BEGIN\s+WHILE rebate\.(clock_step\(''\w+'', (upto|before)\)|drop_step\(before, exported_to, entries\)) LOOP\s+COMMIT;\s+END LOOP;\s+END\s*$' $$,
        'procedures, which cannot, are nothing but a loop');

-- Whoever writes orders: needs nothing, gains nothing.
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO rebate_test_shop;
SET ROLE rebate_test_shop;
SELECT lives_ok($$ INSERT INTO orders VALUES (1, 'alice', 100), (2, 'bob', 50) $$, 'a shop inserts orders');
SELECT lives_ok($$ UPDATE orders SET total = 200 WHERE id = 1 $$, 'updates');
SELECT lives_ok($$ DELETE FROM orders WHERE id = 2 $$, 'deletes');
SELECT throws_ok('TRUNCATE orders', '42501', NULL, 'but gets no TRUNCATE by us');
SELECT throws_ok('SELECT rebate.flush()', '42501', NULL, 'may not flush');
SELECT throws_ok(format('SELECT * FROM rebate.%I', v), '42501', NULL, 'and reads no view: ' || v)
FROM unnest(ARRAY['accruals', 'archived_entries', 'balances', 'decisions', 'delivery_status', 'dropped_archives', 'entries', 'failed_orders', 'failures', 'findings', 'freezes', 'granted_rights',
    'house_balances', 'jobs', 'ledger_accounts', 'logins', 'my_balance', 'my_channel', 'my_entries', 'my_rebates', 'rule_drafts', 'rule_versions', 'rules', 'sources', 'stat_backlog',
    'stat_delivery', 'stat_engine', 'stat_jobs', 'stat_tables', 'trial_balance',
    'channel_key', 'cluster']) AS v;
SELECT throws_ok(c, '42501', NULL, 'nor may: ' || c)
FROM unnest(ARRAY[
    $$SELECT * FROM rebate.balance('alice')$$, $$SELECT * FROM rebate.explain('orders', 1)$$, $$SELECT * FROM
        rebate.audit()$$,
    $$SELECT rebate.channel('alice')$$, $$SELECT rebate.rotate_channels()$$, $$SELECT * FROM rebate.events('alice')$$,
    $$SELECT rebate.events_cursor('alice')$$, $$SELECT * FROM rebate.feed()$$, $$SELECT rebate.feed_cursor()$$, $$SELECT * FROM rebate.feed_snapshot()$$,
    $$CALL rebate.drop_archived(now(), 'nowhere')$$, $$SELECT rebate.drop_step(now(), 'nowhere')$$,
    $$SELECT * FROM rebate.get_delivery_status()$$, $$SELECT rebate.stat_reset()$$,
    $$SELECT rebate.order_key('orders', 1)$$, $$SELECT rebate.attach('orders', 'customer', 'total', 'EUR', replace =>
        true)$$,
    $$SELECT rebate.detach('orders')$$, $$SELECT rebate.set_rule('mine', percent => 100)$$, $$SELECT
        rebate.end_rule('five')$$,
    $$SELECT rebate.set_group('mine')$$, $$SELECT rebate.set_programme('UTC')$$, $$SELECT rebate.add_currency('MINE',
        2)$$,
    $$SELECT rebate.create_store()$$, $$SELECT rebate.store_tables()$$, $$SELECT * FROM rebate_data.account$$,
    $$INSERT INTO rebate_data.currency VALUES ('XXX', 2, 0.01)$$, $$SELECT nextval('rebate_data.id')$$,
    $$SET rebate.mode = off$$, $$SET rebate.posting = statement$$]) AS c;
CREATE TEMP TABLE mine (id int PRIMARY KEY, customer text, total numeric);
SELECT throws_ok($$ CREATE TRIGGER rebate_insert AFTER INSERT ON mine REFERENCING NEW TABLE AS new_rows FOR EACH
    STATEMENT EXECUTE FUNCTION rebate.collect() $$,
    '42501', NULL, 'nor hang our trigger on a table of his own');
RESET ROLE;
SELECT bag_eq($$ SELECT member, available FROM rebate.balances $$,
    $$ VALUES ('alice', 10.00), ('bob', 0.00) $$, 'the rebates of his orders are there');

-- A role with a view granted reads it, and nothing else.
GRANT SELECT ON rebate.balances TO rebate_test_clerk;
SET ROLE rebate_test_clerk;
SELECT lives_ok('SELECT * FROM rebate.balances', 'a clerk reads a view granted to him');
SELECT throws_ok('SELECT * FROM rebate.entries', '42501', NULL, 'and no other');
RESET ROLE;

-- A member of the owner's role reads and writes rules; attaching takes a table of one's own.
GRANT rebate_owner TO rebate_test_clerk;
SET ROLE rebate_test_clerk;
SELECT lives_ok('SELECT * FROM rebate.audit()', 'a member of the store owner''s role audits');
SELECT lives_ok($$ SELECT rebate.set_rule('six', percent => 6) $$, 'writes rules');
SELECT throws_ok($$ SELECT rebate.attach('orders', 'customer', 'total', 'EUR', replace => true) $$, '42501', NULL,
    'and attaches no table of others');
RESET ROLE;

-- The guards: direct DML is refused for everyone, each table.
SELECT is_empty($$ SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'rebate_data'::regnamespace AND
    relkind = 'r'
    AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'rebate.guard'::regproc AND
        t.tgenabled IN ('O', 'A')) $$,
    'every table of the store has its guard');
SELECT throws_ok('DELETE FROM ' || c.oid::regclass, 'RB009', NULL, 'superuser: DELETE FROM ' || c.oid::regclass)
FROM pg_class c WHERE relnamespace = 'rebate_data'::regnamespace AND relkind = 'r' ORDER BY relname;
SELECT throws_ok('TRUNCATE rebate_data.entry', 'RB009', NULL, 'superuser: TRUNCATE');
SELECT throws_ok('UPDATE rebate_data.account SET available = 0', 'RB009', NULL, 'superuser: UPDATE');
SELECT throws_ok('INSERT INTO rebate_data.campaign VALUES (2, ''mine'', 100)', 'RB009', NULL, 'superuser: INSERT');
SET ROLE rebate_owner;
SELECT throws_ok('UPDATE rebate_data.account SET available = 1000', 'RB009', NULL, 'the owner: UPDATE');
RESET ROLE;
SELECT throws_ok('UPDATE rebate.balances SET available = 1000', NULL, NULL, 'the views take no UPDATE');
SELECT throws_ok('TRUNCATE orders', 'RB008', NULL, 'TRUNCATE of an attached table is refused');

-- Settings
SELECT bag_eq($$ SELECT name, context, boot_val FROM pg_settings WHERE name LIKE 'rebate.%' $$,
    $$ VALUES ('rebate.mode', 'superuser', 'on'), ('rebate.posting', 'superuser', 'commit'),
        ('rebate.delivery', 'sighup', 'worker'), ('rebate.ring_size', 'sighup', '16384'),
        ('rebate.max_databases', 'sighup', '8'), ('rebate.clock_batch_time', 'superuser', '1'), ('rebate.clock_workers', 'superuser', '0'),
        ('rebate.counted_tables', 'sighup', '128'), ('rebate.collect_limit', 'superuser', '16384'), ('rebate.track_timing', 'superuser', 'off') $$,
        'settings are those of the reference');

SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');
SELECT * FROM finish();
