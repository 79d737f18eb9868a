-- Whom a session sees the rows of: only the member it acts for, only until the transaction ends, however that ends; or the
-- one that its role is mapped to. What member A does shows nothing of member B.
CREATE EXTENSION pgtap;
SET client_min_messages = warning;
SELECT no_plan();
CREATE ROLE rebate_test_gateway LOGIN;
CREATE ROLE rebate_test_web;
CREATE ROLE rebate_test_ann LOGIN;
CREATE ROLE rebate_test_app LOGIN;
CREATE ROLE rebate_test_stranger LOGIN;
GRANT rebate_test_web TO rebate_test_gateway;
CREATE EXTENSION rebate;
CREATE TABLE orders (id text PRIMARY KEY, customer text, total numeric(12,2), cur text, state text, refunded numeric(12,2) DEFAULT 0);
SELECT rebate.attach('orders', 'customer', 'total', 'cur', status => 'state', refunded => 'refunded',
    phases => '{"new": "tracked", "paid": "pending", "done": "confirmed", "void": "void"}');
SELECT rebate.set_rule('five', percent => 5, scope => '{"cur": "EUR"}', hold => '3 days');
SELECT rebate.set_rule('points', percent => 10, scope => '{"cur": "JPY"}');
SELECT rebate.grant_right('gateway', 'rebate_test_gateway');
SELECT rebate.grant_right('member', r) FROM unnest(ARRAY['rebate_test_web', 'rebate_test_ann', 'rebate_test_app']) AS r;
-- every text of a member's orders begins as his key does
INSERT INTO orders SELECT m || '-' || i, m, 100 * n + i, CASE WHEN i % 3 = 0 THEN 'JPY' ELSE 'EUR' END, (ARRAY['new', 'paid', 'done', 'void'])[1 + i % 4]
FROM unnest(ARRAY['alice', 'bob', 'carol']) WITH ORDINALITY AS u (m, n), generate_series(1, 40) AS i WHERE m <> 'carol' OR i < 4;
UPDATE orders SET refunded = total / 2 WHERE id LIKE '%7';
UPDATE orders SET state = 'done' WHERE id LIKE '%-2%';
UPDATE orders SET refunded = total WHERE id LIKE '%-8';
CALL rebate.mature(now() + interval '4 days');
GRANT SELECT ON orders TO PUBLIC;

-- who is there, and whose rows
CREATE FUNCTION seen() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT COALESCE(rebate.current_member(), 'nobody') || COALESCE(' ' || (SELECT string_agg(DISTINCT m, '+' ORDER BY m) FROM (
        SELECT split_part(order_key, '-', 1) AS m FROM rebate.my_rebates
        UNION ALL SELECT split_part(order_key, '-', 1) FROM rebate.my_entries
        UNION ALL SELECT event ->> 'member' FROM rebate.my_events(NULL, 1000)
        UNION ALL SELECT o.customer FROM rebate.my_balance b JOIN orders o ON o.customer = rebate.current_member() AND o.cur = b.currency) s), '') $$;
SELECT is(seen(), 'nobody', 'nothing said, nobody mapped: nobody, no rows');

-- the rows are those of the ledger
SET ROLE rebate_test_gateway;
CREATE TEMP TABLE mine_rebates AS SELECT m AS member, r.* FROM unnest(ARRAY['alice', 'bob', 'carol']) AS m, rebate.my_rebates r LIMIT 0;
CREATE TEMP TABLE mine_entries AS SELECT m AS member, e.* FROM unnest(ARRAY['alice']) AS m, rebate.my_entries e LIMIT 0;
CREATE TEMP TABLE mine_balance AS SELECT m AS member, NULL::timestamptz AS at, b.* FROM unnest(ARRAY['alice']) AS m, rebate.my_balance b LIMIT 0;
CREATE TEMP TABLE moments (at timestamptz);
GRANT SELECT, INSERT ON moments TO PUBLIC;
RESET ROLE;
INSERT INTO moments SELECT DISTINCT unnest(ARRAY[posted_at, posted_at - interval '1 microsecond']) FROM rebate.entries;
SET ROLE rebate_test_gateway;
DO $$
DECLARE
    m text;
BEGIN
    FOREACH m IN ARRAY ARRAY['alice', 'bob', 'carol'] LOOP
        PERFORM rebate.act_as(m);
        INSERT INTO mine_rebates SELECT m, * FROM rebate.my_rebates;
        INSERT INTO mine_entries SELECT m, * FROM rebate.my_entries;
        INSERT INTO mine_balance SELECT m, NULL, * FROM rebate.my_balance;
        INSERT INTO mine_balance SELECT m, t.at, b.* FROM moments t, rebate.get_my_balance(t.at) b;
    END LOOP;
END$$;
RESET ROLE;
SELECT cmp_ok((SELECT count(*) FROM mine_rebates), '>', 50::bigint, 'rebates are there');
SELECT bag_eq('SELECT member, currency, source, order_key, rule, phase, bucket, earned::text, order_time, confirmed_at, due FROM mine_rebates',
    'SELECT member, currency, source, order_key, rule, phase, bucket, earned::text, order_time, confirmed_at, due FROM rebate.accruals
     WHERE accrual_id IN (SELECT accrual_id FROM rebate.entries)', 'my_rebates are the rebates of each, to the cent and scale');
SELECT bag_eq('SELECT member, currency, seq, posted_at FROM mine_rebates',
    'SELECT member, currency, min(seq) AS seq, min(posted_at) AS posted_at FROM rebate.entries GROUP BY member, currency, accrual_id', 'by the entry that opened them');
SELECT bag_eq('SELECT member, currency, seq, kind, amount::text, source, order_key, rule, tracked, pending, maturing, available, held::text, event_at,
        effective_date, book_date, posted_at FROM mine_entries',
    'SELECT member, currency, seq, kind, amount::text, source, order_key, rule, tracked, pending, maturing, available, held::text, event_at,
        effective_date, book_date, posted_at FROM rebate.entries', 'my_entries are the entries of each');
SELECT bag_eq('SELECT member, currency, seq, from_bucket, to_bucket FROM mine_entries',
    $$SELECT member, currency, seq, substring(debit FROM '^member:(.*)') AS d, substring(credit FROM '^member:(.*)') AS c FROM rebate.entries$$, 'without the house side');
SELECT bag_eq('SELECT member, currency, tracked::text, pending, maturing, available, held, last_entry FROM mine_balance WHERE at IS NULL',
    'SELECT member, currency, tracked::text, pending, maturing, available, held, last_entry FROM rebate.balances', 'my_balance is the balance of each');
SELECT bag_eq('SELECT member, at, currency, tracked, pending, maturing, available, held, last_entry FROM mine_balance WHERE at IS NOT NULL',
    'SELECT b.member, t.at, b.currency, b.tracked, b.pending, b.maturing, b.available, b.held, b.last_entry
     FROM moments t, unnest(ARRAY[''alice'', ''bob'', ''carol'']) AS m, rebate.balance(m, NULL, t.at) b', 'and at each moment since the first entry');

-- pages
SET ROLE rebate_test_gateway;
BEGIN;
SELECT rebate.act_as('alice');
SELECT is((SELECT array_agg(order_key) FROM rebate.get_my_rebates('EUR', NULL, 5)),
    (SELECT array_agg(order_key) FROM (SELECT order_key FROM rebate.my_rebates WHERE currency = 'EUR' ORDER BY seq DESC LIMIT 5) s), 'the last rebates, newest first');
SELECT bag_eq($$SELECT currency, seq FROM rebate.get_my_rebates('EUR', (SELECT min(seq) FROM rebate.get_my_rebates('EUR', NULL, 5)), 1000)
        UNION ALL SELECT currency, seq FROM rebate.get_my_rebates("limit" => 5)$$,
    $$SELECT currency, seq FROM rebate.my_rebates WHERE currency = 'EUR' UNION ALL
      (SELECT currency, seq FROM rebate.my_rebates WHERE currency = 'JPY' ORDER BY seq DESC LIMIT 5)$$, 'and those before; without a currency the last in each');
SELECT bag_eq($$SELECT currency, seq FROM rebate.get_my_entries('JPY', 7, 3)$$, $$VALUES ('JPY', 4::bigint), ('JPY', 5), ('JPY', 6)$$, 'entries before a sequence number');
SELECT is_empty($$SELECT * FROM rebate.get_my_entries('JPY', 1, 3)$$, 'before the first is none');
SELECT is_empty($$SELECT * FROM rebate.get_my_entries('JPY', -9223372036854775808, 2147483647)$$, 'nor before the least number');
SELECT is_empty($$SELECT * FROM rebate.get_my_rebates('XXX')$$, 'nor in a currency that he has not');
SELECT throws_ok($$SELECT * FROM rebate.get_my_rebates(before => 3)$$, '22023', NULL, 'a number counts in one currency');
SELECT throws_ok($$SELECT * FROM rebate.get_my_entries("limit" => 0)$$, '22023', NULL, 'the limit is at least 1');
COMMIT;
RESET ROLE;

-- endings of a transaction: said once more in the next, it must be nobody
SET ROLE rebate_test_gateway;
BEGIN; SELECT rebate.act_as('alice'); SELECT seen() AS during \gset
COMMIT;
SELECT seen() AS after \gset
SELECT is(ARRAY[:'during', :'after'], ARRAY['alice alice', 'nobody'], 'COMMIT ends it');
BEGIN; SELECT rebate.act_as('alice'); ROLLBACK;
SELECT is(seen(), 'nobody', 'ROLLBACK');
BEGIN; SELECT rebate.act_as('alice'); COMMIT AND CHAIN;
SELECT seen() AS chained \gset
ROLLBACK;
SELECT is(:'chained'::text, 'nobody', 'COMMIT AND CHAIN');
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT rebate.act_as('alice'); ROLLBACK AND CHAIN;
SELECT seen() AS chained \gset
ROLLBACK;
SELECT is(:'chained'::text, 'nobody', 'ROLLBACK AND CHAIN');
BEGIN; SELECT rebate.act_as('alice'); PREPARE TRANSACTION 'acting';
SELECT is(seen(), 'nobody', 'PREPARE TRANSACTION');
COMMIT PREPARED 'acting';
SELECT is(seen(), 'nobody', 'and COMMIT PREPARED brings it not back');
\set ON_ERROR_STOP off
\set VERBOSITY sqlstate
BEGIN; SELECT rebate.act_as('alice'); SELECT 1 / 0; COMMIT;
SELECT is(seen(), 'nobody', 'an error');
SELECT rebate.act_as('alice'), 1 / 0;
SELECT is(seen(), 'nobody', 'an error in the same statement');
BEGIN; SELECT rebate.act_as('alice'); SAVEPOINT s; SELECT rebate.act_as('bob'); SELECT 1 / 0; ROLLBACK TO s;
SELECT seen() AS during \gset
COMMIT;
SELECT is(ARRAY[:'during', seen()], ARRAY['alice alice', 'nobody'], 'an error after a savepoint');
\set VERBOSITY default
\set ON_ERROR_STOP on
SELECT rebate.act_as('alice');
SELECT is(seen(), 'nobody', 'a statement by itself is a transaction');
CREATE TEMP TABLE procedures (who text[]);
DO $$
DECLARE
    who text[];
BEGIN
    PERFORM rebate.act_as('alice');
    who := who || seen();
    COMMIT;
    who := who || seen();
    PERFORM rebate.act_as('bob');
    ROLLBACK;
    who := who || seen();
    PERFORM rebate.act_as('bob');
    COMMIT AND CHAIN;
    who := who || seen();
    INSERT INTO procedures VALUES (who);
END$$;
SELECT is((SELECT who FROM procedures), ARRAY['alice alice', 'nobody', 'nobody', 'nobody'], 'procedures that end transactions');

-- one member at a time, and savepoints
BEGIN;
SELECT rebate.act_as('alice'); SELECT seen() AS w1 \gset
SELECT rebate.act_as('bob'); SELECT seen() AS w2 \gset
SAVEPOINT a; SELECT rebate.act_as('carol'); SELECT rebate.act_as('alice'); SELECT seen() AS w3 \gset
SAVEPOINT b; SELECT rebate.act_as(NULL); SELECT seen() AS w4 \gset
SAVEPOINT c; SELECT rebate.act_as('carol'); RELEASE c; SELECT seen() AS w5 \gset
ROLLBACK TO b; SELECT seen() AS w6 \gset
SELECT rebate.act_as('carol'); RELEASE b; SELECT seen() AS w7 \gset
ROLLBACK TO a; SELECT seen() AS w8 \gset
ROLLBACK TO a; SAVEPOINT d; SELECT rebate.act_as('alice'); RELEASE d; RELEASE a; SELECT seen() AS w9 \gset
COMMIT;
SELECT is(ARRAY[:'w1', :'w2', :'w3', :'w4', :'w5', :'w6', :'w7', :'w8', :'w9'],
    ARRAY['alice alice', 'bob bob', 'alice alice', 'nobody', 'carol carol', 'alice alice', 'carol carol', 'bob bob', 'alice alice'],
    'the last one said counts; a savepoint rolled back brings back whom it had');
BEGIN;
SAVEPOINT a; SELECT rebate.act_as('alice'); ROLLBACK TO a; SELECT seen() AS w1 \gset
COMMIT;
SELECT is(:'w1'::text, 'nobody', 'nobody, if nobody was there');
CREATE FUNCTION pg_temp.tries(OUT first text, OUT inside text, OUT afterwards text, OUT kept text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM rebate.act_as('alice');
    first := seen();
    BEGIN
        PERFORM rebate.act_as('bob');
        inside := seen();
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        afterwards := seen();
    END;
    BEGIN
        PERFORM rebate.act_as('carol');
    EXCEPTION WHEN division_by_zero THEN
    END;
    kept := seen();
END$$;
SELECT is(ARRAY[first, inside, afterwards, kept], ARRAY['alice alice', 'bob bob', 'alice alice', 'carol carol'], 'exception blocks') FROM pg_temp.tries();
SELECT is(seen(), 'nobody', 'and after them nobody');
RESET ROLE;
DO $$
BEGIN
    FOR i IN 1 .. 20000 LOOP
        PERFORM rebate.act_as('alice');
        IF i % 2 = 0 THEN
            BEGIN PERFORM rebate.act_as('bob'); EXCEPTION WHEN division_by_zero THEN END;
        END IF;
    END LOOP;
    IF (SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext') > 1000000 THEN
        RAISE 'memory grows with each call';
    END IF;
END$$;
SELECT pass('said 30,000 times it takes no more memory');

-- plans and cursors
SET ROLE rebate_test_gateway;
CREATE FUNCTION pg_temp.whose(names text[]) RETURNS text LANGUAGE sql AS
    $$SELECT COALESCE(string_agg(DISTINCT split_part(n, '-', 1), '+'), 'nobody') FROM unnest(names) AS n$$;
SET plan_cache_mode = force_generic_plan;
PREPARE generic AS SELECT pg_temp.whose(array_agg(order_key)) AS who FROM rebate.my_rebates WHERE earned > 0;
BEGIN; SELECT rebate.act_as('alice'); EXECUTE generic \gset w1_
COMMIT;
BEGIN; SELECT rebate.act_as('bob'); EXECUTE generic \gset w2_
SELECT rebate.act_as('carol'); EXECUTE generic \gset w3_
COMMIT;
EXECUTE generic \gset w4_
SELECT is(ARRAY[:'w1_who', :'w2_who', :'w3_who', :'w4_who'], ARRAY['alice', 'bob', 'carol', 'nobody'], 'a prepared statement keeps nobody');
SET plan_cache_mode = force_custom_plan;
BEGIN; SELECT rebate.act_as('bob'); EXECUTE generic \gset w1_
COMMIT;
EXECUTE generic \gset w2_
SELECT is(ARRAY[:'w1_who', :'w2_who'], ARRAY['bob', 'nobody'], 'nor does one that is planned each time');
RESET plan_cache_mode;
BEGIN; SELECT rebate.act_as('alice');
DECLARE held CURSOR WITH HOLD FOR SELECT order_key FROM rebate.my_rebates;
COMMIT;
BEGIN; SELECT rebate.act_as('bob');
SELECT seen() AS now \gset
MOVE 5 IN held;
FETCH 1 FROM held \gset held_
DECLARE open CURSOR FOR SELECT order_key FROM rebate.my_rebates;
FETCH 1 FROM open \gset open1_
SELECT rebate.act_as('carol');
FETCH 1 FROM open \gset open2_
COMMIT;
CLOSE held;
SELECT is(ARRAY[:'now', pg_temp.whose(ARRAY[:'held_order_key'])], ARRAY['bob bob', 'alice'], 'a cursor that is held has what it had when its transaction ended');
SELECT is(pg_temp.whose(ARRAY[:'open1_order_key', :'open2_order_key']), 'bob', 'an open cursor goes on with whom it began');
RESET ROLE;

-- a function or operator in the reader's condition, as cheap as can be, meets his own rows only
CREATE SCHEMA evil;
CREATE TABLE evil.heard (what text);
CREATE FUNCTION evil.hear(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$BEGIN INSERT INTO evil.heard VALUES ($1); RETURN true; END$$;
CREATE FUNCTION evil.hear(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$BEGIN INSERT INTO evil.heard VALUES ($1), ($2); RETURN false; END$$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.hear);
GRANT ALL ON SCHEMA evil TO PUBLIC;
GRANT ALL ON evil.heard TO PUBLIC;
SET ROLE rebate_test_gateway;
SET search_path = evil, public;
BEGIN;
SELECT rebate.act_as('alice');
SELECT count(*) FROM rebate.my_rebates WHERE evil.hear(order_key) AND evil.hear(rule);
SELECT count(*) FROM rebate.my_entries WHERE evil.hear(order_key) AND order_key = 'bob-1';
SELECT count(*) FROM rebate.my_balance WHERE evil.hear(currency);
SELECT count(*) FROM rebate.my_channel WHERE evil.hear(channel);
SELECT count(*) FROM rebate.my_events() WHERE evil.hear(event::text);
SELECT seen() AS who \gset
COMMIT;
RESET search_path;
RESET ROLE;
SELECT is(:'who'::text, 'alice alice', 'operators of the caller''s path change nobody');
SELECT cmp_ok((SELECT count(*) FROM evil.heard WHERE what LIKE '%alice%'), '>', 50::bigint, 'leaky conditions are asked about one''s own rows');
SELECT is_empty($$SELECT what FROM evil.heard WHERE what ~ 'bob|carol' AND what <> 'bob-1'$$, 'and about no others');

-- EXPLAIN says the same whoever asks
SET ROLE rebate_test_gateway;
CREATE FUNCTION pg_temp.plans(member text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    result text := '';
    v text;
BEGIN
    PERFORM rebate.act_as(member);
    FOREACH v IN ARRAY ARRAY['my_rebates', 'my_entries', 'my_balance', 'my_channel'] LOOP
        FOR line IN EXECUTE format('EXPLAIN (VERBOSE) SELECT * FROM rebate.%I x WHERE x.*::text <> ''''', v) LOOP
            result := result || line || E'\n';
        END LOOP;
        CONTINUE WHEN v = 'my_channel';
        FOR line IN EXECUTE format('EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT * FROM rebate.%I', v) LOOP
            result := result || regexp_replace(line, 'actual rows=[0-9.]+', '') || E'\n';
        END LOOP;
    END LOOP;
    RETURN result;
END$$;
SELECT is(pg_temp.plans('alice'), pg_temp.plans('bob'), 'plans of two members are the same');
SELECT is(pg_temp.plans('alice'), pg_temp.plans(NULL), 'and that of nobody');
SELECT unalike(pg_temp.plans('alice'), '%Removed%', 'no rows are looked at and left out');
RESET ROLE;

-- parallel workers do not know whom their leader acts for
CREATE FUNCTION wrongly_safe() RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS $$BEGIN RETURN rebate.current_member(); END$$;
CREATE FUNCTION wrongly_safe_act() RETURNS void LANGUAGE plpgsql PARALLEL SAFE AS $$BEGIN PERFORM rebate.act_as('bob'); END$$;
SELECT is((SELECT string_agg(proparallel::text || ' ' || proname, ', ' ORDER BY proname COLLATE "C") FROM pg_proc WHERE pronamespace = 'rebate'::regnamespace
    AND (proname ~ '^(get_)?my_|^act_as|current_member')), 'u act_as, u act_as_request, u current_member, u get_my_balance, u get_my_channel, u get_my_entries, '
    'u get_my_rebates, u my_events, u my_events_cursor', 'none of the functions runs in a parallel query');
SELECT set_config(CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'debug_parallel_query' ELSE 'force_parallel_mode' END, 'on', false);
SET ROLE rebate_test_gateway;
BEGIN;
SELECT rebate.act_as('alice');
SELECT is(rebate.current_member(), 'alice', 'where everything that can runs in a worker');
SELECT is(seen(), 'alice alice', 'the views do not');
SELECT throws_ok('SELECT wrongly_safe()', '25000', 'the current member is not known during a parallel operation', 'and a function that is wrongly marked fails');
SELECT throws_ok('SELECT wrongly_safe_act()', '25000', 'the current member is not known during a parallel operation', 'as one that acts does');
COMMIT;
RESET ROLE;
SELECT set_config(CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'debug_parallel_query' ELSE 'force_parallel_mode' END, 'off', false);

-- arguments
SET ROLE rebate_test_gateway;
SELECT throws_ok($$SELECT rebate.act_as('')$$, '22023', NULL, 'a member has a key');
SELECT throws_ok($$SELECT rebate.act_as(repeat('x', 2001))$$, '22023', NULL, 'of up to 2,000 bytes');
SELECT lives_ok($$SELECT rebate.act_as(repeat('x', 2000))$$, 'which may be one that has no rows');
SELECT throws_ok($$SELECT * FROM rebate.my_events("limit" => 0)$$, '22023', NULL, 'a limit is at least 1');
SELECT is(rebate.my_events_cursor(), NULL, 'nobody has no cursor');
SELECT is_empty('SELECT * FROM rebate.my_channel', 'nor a channel');
-- no setting does it
SELECT throws_ok($$SET rebate.member = 'alice'$$, '42602', NULL, 'the identity is no setting');
SELECT throws_ok($$SET rebate.current_member = 'alice'$$, '42602', NULL, 'under no name');
RESET ROLE;
SELECT is_empty($$SELECT name FROM pg_settings WHERE name ~ '^rebate\.' AND name ~ 'member|act|identity'$$, 'and none looks like it');

-- events by cursor
SET ROLE rebate_test_gateway;
BEGIN;
SELECT rebate.act_as('bob');
SELECT rebate.my_events_cursor() AS bobs_cursor \gset
SELECT channel AS bobs_channel FROM rebate.my_channel \gset
SELECT event ->> 'account' AS bobs_handle FROM rebate.my_events(NULL, 1) \gset
SELECT rebate.act_as('alice');
SELECT rebate.my_events_cursor() AS alices_cursor \gset
SELECT is_empty(format('SELECT * FROM rebate.my_events(%L)', :'alices_cursor'), 'behind the last event is none');
SELECT is((SELECT count(*) FROM rebate.my_events(NULL, 1000)), (SELECT count(*) FROM rebate.my_entries), 'events are the entries');
SELECT is((SELECT max(cursor) FROM (SELECT cursor FROM rebate.my_events(NULL, 1000) OFFSET (SELECT count(*) - 1 FROM rebate.my_entries)) s), :'alices_cursor',
    'and lead to the cursor');
SELECT throws_ok(format('SELECT * FROM rebate.my_events(%L)', :'bobs_cursor'), 'RB013', NULL, 'another member''s cursor is refused');
COMMIT;
RESET ROLE;
SELECT is(:'bobs_cursor'::text, rebate.events_cursor('bob'), 'it is the cursor of rebate.events');
SELECT is(:'bobs_channel'::text, rebate.channel('bob'), 'as the channel is that of rebate.channel');

-- a read-only transaction shows the channel once it was asked for
SET ROLE rebate_test_gateway;
BEGIN READ ONLY; SELECT rebate.act_as('carol'); SELECT count(*) AS before FROM rebate.my_channel \gset
COMMIT;
BEGIN; SELECT rebate.act_as('carol'); SELECT count(*) AS asked FROM rebate.my_channel \gset
COMMIT;
BEGIN READ ONLY; SELECT rebate.act_as('carol'); SELECT count(*) AS later FROM rebate.my_channel \gset
SELECT seen() AS who \gset
COMMIT;
RESET ROLE;
SELECT is(ARRAY[:before, :asked, :later], ARRAY[0, 1, 1], 'my_channel where nothing can be written');
SELECT is(:'who'::text, 'carol carol', 'all others work there');

-- everything that a member's role may read or call, found in the catalog, tells alice nothing of bob
CREATE TABLE callable AS
    SELECT 'SELECT v::text FROM ' || c.oid::regclass || ' v' AS call FROM pg_class c
    WHERE relnamespace IN ('rebate'::regnamespace, 'rebate_data'::regnamespace) AND relkind IN ('r', 'v') AND has_table_privilege('rebate_test_web', c.oid, 'SELECT')
    UNION ALL
    SELECT format('SELECT f::text FROM %I.%I(%s) f', 'rebate', proname, (SELECT string_agg(format('%L::%s',
            CASE t WHEN 'timestamptz'::regtype THEN '2026-01-01' WHEN 'bigint'::regtype THEN '5' WHEN 'integer'::regtype THEN '100' ELSE g END, t::regtype), ', ' ORDER BY o)
        FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, o)))
    FROM pg_proc p, unnest(ARRAY['bob', 'EUR', NULL, :'bobs_cursor', :'bobs_channel', :'bobs_handle', 'bob-2', '']) AS g
    WHERE pronamespace = 'rebate'::regnamespace AND prokind = 'f' AND has_function_privilege('rebate_test_web', p.oid, 'EXECUTE')
        AND proname <> 'act_as_request';
GRANT SELECT ON callable TO PUBLIC;
SELECT cmp_ok((SELECT count(*) FROM callable), '>=', 30::bigint, 'views and functions of a member are found');
CREATE TABLE told (call text, text text);
GRANT ALL ON told TO PUBLIC;
CREATE FUNCTION ask_all() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c text;
    a text; b text; d text; e text;
BEGIN
    FOR c IN SELECT call FROM callable LOOP
        BEGIN
            EXECUTE 'INSERT INTO told SELECT $1, t FROM (' || c || ') x (t)' USING c;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS a = MESSAGE_TEXT, b = PG_EXCEPTION_DETAIL, d = PG_EXCEPTION_HINT, e = PG_EXCEPTION_CONTEXT;
            INSERT INTO told VALUES (c, concat_ws(' ', 'error', a, b, d));
        END;
    END LOOP;
END$$;
SET SESSION AUTHORIZATION rebate_test_gateway;
BEGIN;
SELECT rebate.act_as('alice');
SET LOCAL ROLE rebate_test_web;
SELECT ask_all();
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT cmp_ok((SELECT count(*) FROM told WHERE text LIKE '%alice-%'), '>', 100::bigint, 'alice sees hers');
SELECT is_empty($$SELECT DISTINCT call, text FROM told WHERE text ~ 'bob|carol'$$, 'no row and no error has a word of the others');
SELECT is_empty(format($$SELECT call, text FROM told WHERE text LIKE %L OR text LIKE %L$$, '%' || :'bobs_channel' || '%', '%' || :'bobs_handle' || '%'), 'nor their channel or handle');
SELECT is_empty($$SELECT call FROM told WHERE text ~ 'expense|campaign|default'$$, 'nor of the house');
-- what he hears on: no name of a channel of others
SET SESSION AUTHORIZATION rebate_test_gateway;
BEGIN;
SELECT rebate.act_as('alice');
SET LOCAL ROLE rebate_test_web;
SELECT throws_ok($$SELECT rebate.channel('bob')$$, '42501', NULL, 'a member asks for no other''s channel');
SELECT throws_ok($$SELECT * FROM rebate.events('bob')$$, '42501', NULL, 'events');
SELECT throws_ok($$SELECT * FROM rebate.balance('bob')$$, '42501', NULL, 'balance');
SELECT throws_ok($$SELECT * FROM rebate.statement('bob')$$, '42501', NULL, 'statement');
SELECT throws_ok($$SELECT rebate.act_as('bob')$$, '42501', NULL, 'and acts for nobody');
SELECT throws_ok($$SELECT * FROM rebate_data.login$$, '42501', NULL, 'reads no table of the store');
SELECT throws_ok($$SELECT rebate.map_login('rebate_test_web', 'bob')$$, '42501', NULL, 'and maps no login');
SELECT is(seen(), 'alice alice', 'it is still alice');
COMMIT;
RESET SESSION AUTHORIZATION;
SET ROLE rebate_test_gateway;
SELECT throws_ok($$SELECT * FROM rebate.balances$$, '42501', NULL, 'the gateway reads no view of all members');
SELECT throws_ok($$SELECT * FROM rebate.events('bob')$$, '42501', NULL, 'nor the events of one whom it does not act for');
RESET ROLE;
SET ROLE rebate_test_stranger;
SELECT throws_ok($$SELECT rebate.act_as('alice')$$, '42501', NULL, 'a stranger acts for nobody');
SELECT throws_ok($$SELECT * FROM rebate.my_balance$$, '42501', NULL, 'and reads nothing');
RESET ROLE;

-- logins
SELECT rebate.map_login('rebate_test_ann', 'alice');
SET SESSION AUTHORIZATION rebate_test_ann;
SELECT is(seen(), 'alice alice', 'a login that is mapped needs no call');
BEGIN READ ONLY; SELECT seen() AS who \gset
COMMIT;
SELECT is(:'who'::text, 'alice alice', 'in a read-only transaction, too');
SELECT throws_ok($$SELECT rebate.act_as('bob')$$, '42501', NULL, 'it acts for nobody else');
RESET SESSION AUTHORIZATION;
SET ROLE rebate_test_ann;
SELECT is(seen(), 'alice alice', 'it is the current role that counts, as for all rights');
RESET ROLE;
SET ROLE rebate_test_app;
SELECT is(seen(), 'nobody', 'another has nothing of it');
CREATE FUNCTION pg_temp.as_app() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT seen()';
RESET ROLE;
GRANT CREATE ON SCHEMA public TO rebate_test_ann;
SET ROLE rebate_test_ann;
CREATE FUNCTION as_ann() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = public AS 'SELECT seen()';
SELECT is(pg_temp.as_app(), 'nobody', 'a function with another''s rights has that one''s member, not the caller''s');
RESET ROLE;
SET ROLE rebate_test_app;
SELECT is(as_ann(), 'alice alice', 'as one of hers has hers, which she gave away');
RESET ROLE;
SELECT rebate.grant_right('gateway', 'rebate_test_ann');
SET ROLE rebate_test_ann;
BEGIN; SELECT rebate.act_as('bob'); SELECT seen() AS w1 \gset
SELECT rebate.act_as(NULL); SELECT seen() AS w2 \gset
COMMIT;
SELECT is(ARRAY[:'w1', :'w2', seen()], ARRAY['bob bob', 'nobody', 'alice alice'], 'what is said counts before what is mapped');
RESET ROLE;
SELECT rebate.map_login('rebate_test_ann', 'carol');
SET ROLE rebate_test_ann;
SELECT is(seen(), 'carol carol', 'a login has one member, the last');
RESET ROLE;
SELECT bag_eq('SELECT login, member, in_force, mapped_by = session_user FROM rebate.logins', $$VALUES ('rebate_test_ann', 'carol', true, true)$$, 'rebate.logins tells');
SELECT is(rebate.unmap_login('rebate_test_ann'), true, 'unmapped');
SELECT is(rebate.unmap_login('rebate_test_ann'), false, 'once');
SET ROLE rebate_test_ann;
SELECT is(seen(), 'nobody', 'and nobody is left');
RESET ROLE;
SELECT throws_ok($$SELECT rebate.map_login('rebate_test_none', 'alice')$$, '42704', NULL, 'the role must be there');
SELECT throws_ok($$SELECT rebate.map_login('rebate_test_app', '')$$, '22023', NULL, 'and the member have a key');
-- the name of a role that was dropped, or given to another
CREATE ROLE rebate_test_old;
SELECT rebate.grant_right('member', 'rebate_test_old');
SELECT rebate.map_login('rebate_test_old', 'bob');
SELECT rebate.revoke_right('member', 'rebate_test_old');
DROP ROLE rebate_test_old;
CREATE ROLE rebate_test_old;
SELECT rebate.grant_right('member', 'rebate_test_old');
SET ROLE rebate_test_old;
SELECT is(seen(), 'nobody', 'a new role of an old name has not its member');
RESET ROLE;
SELECT bag_eq('SELECT login, member, in_force FROM rebate.logins', $$VALUES ('rebate_test_old', 'bob', false)$$, 'and rebate.logins says so');
SELECT rebate.map_login('rebate_test_old', 'carol');
ALTER ROLE rebate_test_old RENAME TO rebate_test_new;
ALTER ROLE rebate_test_app RENAME TO rebate_test_old;
SELECT rebate.grant_right('member', 'rebate_test_old');
SET ROLE rebate_test_old;
SELECT is(seen(), 'nobody', 'nor one that was renamed to it');
RESET ROLE;

-- what PostgREST does for each request, in the session of a gateway
SET SESSION AUTHORIZATION rebate_test_gateway;
PREPARE settings(text, text) AS SELECT set_config('search_path', '"rebate", "public"', true), set_config('role', $1, true),
    set_config('request.jwt.claims', $2, true), set_config('request.method', 'GET', true), set_config('request.path', '/my_balance', true);
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
EXECUTE settings ('rebate_test_web', '{"role": "rebate_test_web", "sub": "alice", "exp": 1999999999}');
SELECT rebate.act_as_request();
WITH pgrst_source AS (SELECT "rebate"."my_balance".* FROM "rebate"."my_balance" LIMIT 100 OFFSET 0)
SELECT pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body FROM (SELECT * FROM pgrst_source) _postgrest_t \gset
SELECT public.seen() AS w1 \gset
COMMIT;
SELECT is(ARRAY[:'page_total', :'w1', seen()], ARRAY['2', 'alice alice', 'nobody'], 'a request');
BEGIN READ ONLY;
EXECUTE settings ('rebate_test_web', '{"role": "rebate_test_web"}');
SELECT rebate.act_as_request();
SELECT public.seen() AS w1 \gset
COMMIT;
BEGIN READ ONLY;
EXECUTE settings ('rebate_test_web', '');
SELECT rebate.act_as_request();
SELECT public.seen() AS w2 \gset
COMMIT;
BEGIN READ ONLY;
SET LOCAL ROLE rebate_test_web;
SELECT rebate.act_as_request();
SELECT public.seen() AS w3 \gset
COMMIT;
SELECT is(ARRAY[:'w1', :'w2', :'w3'], ARRAY['nobody', 'nobody', 'nobody'], 'without a member, claims, a request: nobody');
BEGIN;
EXECUTE settings ('rebate_test_web', '{"sub": "alice"}');
SELECT rebate.act_as_request();
SELECT rebate.act_as_request();
SELECT set_config('request.jwt.claims', '{"sub": "bob"}', true);
SELECT public.throws_ok('SELECT rebate.act_as_request()', '42501', NULL, 'what the request calls cannot take another''s place');
SELECT set_config('request.jwt.claims', '', true);
SELECT public.throws_ok('SELECT rebate.act_as_request()', '42501', NULL, 'nor leave it');
SELECT public.is(public.seen(), 'alice alice', 'it is still the first');
COMMIT;
BEGIN;
EXECUTE settings ('rebate_test_web', '{}');
SELECT rebate.act_as_request();
SELECT set_config('request.jwt.claims', '{"sub": "bob"}', true);
SELECT public.throws_ok('SELECT rebate.act_as_request()', '42501', NULL, 'nobody stays nobody');
COMMIT;
SELECT throws_ok(format($$SELECT set_config('request.jwt.claims', %L, true), rebate.act_as_request()$$, c), s, NULL, 'claims: ' || c)
FROM (VALUES ('{"sub": 7}', '22023'), ('{"sub": ["alice"]}', '22023'), ('[]', '22023'), ('"alice"', '22023'), ('{', '22P02'), ('{"sub": ""}', '22023')) AS v (c, s);
SELECT is(seen(), 'nobody', 'and after them nobody');
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION rebate_test_ann;
SELECT rebate.current_member() IS NULL AS unmapped \gset
RESET SESSION AUTHORIZATION;
SELECT rebate.revoke_right('gateway', 'rebate_test_ann');
SET SESSION AUTHORIZATION rebate_test_ann;
SET request.jwt.claims = '{"sub": "bob"}';
SELECT throws_ok('SELECT rebate.act_as_request()', '42501', 'permission denied for rebate.act_as_request', 'whoever connects by himself sets claims in vain');
SELECT is(seen(), 'nobody', 'and is nobody');
RESET SESSION AUTHORIZATION;

SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');
SELECT * FROM finish();
