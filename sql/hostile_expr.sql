--
-- Expressions: what an author, or the owner of the table behind his back, could
-- make them call, and what they could cost.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
CREATE ROLE regress_hostile_owner;
CREATE SCHEMA hostile AUTHORIZATION regress_hostile_owner;
SET ROLE regress_hostile_owner;
CREATE FUNCTION hostile.spy(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN IF current_user <> 'regress_hostile_owner' THEN RAISE EXCEPTION 'called as %', current_user; END IF; RETURN true; END$$;
CREATE FUNCTION hostile.spy(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN RAISE EXCEPTION 'called as %', current_user; END$$;
CREATE OPERATOR hostile.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.spy);
CREATE FUNCTION hostile.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN RAISE EXCEPTION 'called as %', current_user; END$$;
CREATE DOMAIN hostile.dom AS text CHECK (hostile.spy(value));
CREATE DOMAIN hostile.num AS numeric DEFAULT hostile.spy('x')::int CHECK (hostile.spy(value::text));
CREATE TYPE hostile.inner AS (d hostile.dom);
CREATE TYPE hostile.outer AS (i hostile.inner, n int);
CREATE TYPE hostile.plain AS (t text, n numeric);
CREATE TYPE hostile.span AS RANGE (subtype = hostile.dom);
CREATE TYPE hostile.colour AS ENUM ('red', 'blue');
CREATE TEXT SEARCH CONFIGURATION hostile.cfg (COPY = pg_catalog.simple);
CREATE FUNCTION hostile.as_text(hostile.colour) RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN RAISE EXCEPTION 'called as %', current_user; END$$;
CREATE CAST (hostile.colour AS text) WITH FUNCTION hostile.as_text AS IMPLICIT;
CREATE TABLE hostile.orders (
    id hostile.num PRIMARY KEY, customer hostile.dom, total hostile.num, note text, pattern text, js jsonb,
    o hostile.outer, p hostile.plain, da hostile.dom[], pa hostile.plain[], sp hostile.span, c hostile.colour,
    twice numeric GENERATED ALWAYS AS (total * 2) STORED);
CREATE INDEX ON hostile.orders (hostile.spy(note)) WHERE hostile.spy(customer);
CREATE STATISTICS hostile.st ON (hostile.spy(note)) , customer FROM hostile.orders;
RESET ROLE;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;

SELECT rebate.attach('hostile.orders', 'customer', 'total', 'EUR', attributes => '{"note": "note"}');
-- what an author writes, or is made to write
CREATE FUNCTION pg_temp.try(condition text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN 'version ' || rebate.set_rule('probe', percent => 1, condition => condition, source => 'hostile.orders', scope => '{"note": "probe"}');
EXCEPTION WHEN OTHERS THEN
    RETURN sqlstate || ' ' || left(sqlerrm, 120);
END$$;
SET search_path = hostile, pg_catalog, public;
SELECT c AS condition, pg_temp.try(c) FROM unnest(ARRAY[
    -- functions, operators, casts of somebody else's, also where they shadow ours
    'hostile.spy(note)', 'note === ''x''', 'lower(note) = ''x''', 'c::text = ''red''', 'c = ''red''', 'c > ''red''',
    'note::hostile.dom = ''x''', 'CAST(''x'' AS hostile.dom) = note', 'id::hostile.num > 1',
    -- literals that are read while the expression is analysed
    'o = ''("(x)",1)''', 'da = ''{x}''', 'da[1] = ''x''', '''x'' = ANY (da)', 'sp = ''[a,b]''', 'sp @> ''x''', '(o).n = 1',
    'o IS NULL', 'customer = ''x''',
    -- comparisons of types whose functions we do not know
    'pa = pa', 'greatest(pa, pa) IS NULL', 'p = p', 'p IN (p)', '(p).n > 1', 'num_nulls(pa) = 1', 'array_position(pa, p) = 1',
    'ROW(note, p) = ROW(note, p)',
    -- other constructs
    'to_tsvector(''hostile.cfg'', note) IS NOT NULL', 'note::regclass IS NULL', 'note::regconfig IS NULL', 'note::xml IS NULL',
    'orders IS NULL', 'tableoid = 1', 'ctid IS NULL', '(SELECT true)', 'EXISTS (SELECT 1)', 'count(*) > 1', 'sum(total) > 1',
    'row_number() OVER () = 1', 'current_user = ''x''', 'session_user = ''x''', 'now() > ''2020-01-01''', 'random() > 0.5',
    'current_setting(''work_mem'') = ''x''', 'txid_current() > 1', 'nextval(''x'') > 1', 'set_config(''x.y'', ''z'', true) = ''x''',
    'pg_sleep(1) IS NULL', 'note = $1', 'true; SELECT true', 'true UNION SELECT true', 'xmlparse(content note) IS NULL',
    'table_to_xml(''pg_class'', true, true, '''') IS NULL', 'has_table_privilege(''pg_class'', ''select'')',
    'pg_stat_get_numscans(1) > 1', 'lo_get(1) IS NULL', 'pg_read_file(note) = ''x''', 'format(''%s'', note) = ''x''',
    'to_char(total, ''L999'') = ''x''', 'note::money > 1::money', 'to_char(now(), note) = ''x''', 'twice > 1',
    -- results out of proportion, patterns of the row's own making
    'length(repeat(note, 1000000000)) > 1', 'lpad(note, 1000000000) = ''x''', 'note = note || rpad(note, 99999999)', 'total ^ 100000 > 1',
    'power(total, 99999) > 1', 'factorial(100000) > 1', 'note ~ pattern', 'note ~* (''x'' || pattern)', 'note SIMILAR TO pattern',
    'substring(note from pattern) = ''x''', 'regexp_replace(note, pattern, '''') = ''x''', 'regexp_match(note, pattern) IS NULL',
    'jsonb_path_exists(js, pattern::jsonpath)', 'replace(note, ''x'', note) = ''y''', 'replace(note, ''x'', ''yyyyyyyyyyyyyyyy'') = ''y''',
    'array_fill(1, ARRAY[30000, 30000]) IS NULL', 'note::char(100000) = ''x''', 'encode(encode(encode(encode(encode(note::bytea, ''hex'')::bytea, ''hex'')::bytea, ''hex'')::bytea, ''hex'')::bytea, ''hex'') = ''x''',
    -- patterns that try again at each place
    'note ~ ''^(a*)\1$''', 'note SIMILAR TO ''(a)\1''', 'note ~ (''(a)'' || chr(92) || ''1'')', 'note ~ ''(?=a*b)a''', 'note !~* ''a(?!b)''', 'note ~ ''(?<=a)b''',
    'regexp_replace(note, ''(.)\1'', ''x'') = ''x''', 'substring(note from ''(a*)\1'') = ''x''', 'js @? ''$.**.a''', 'js @@ ''$.a like_regex "^a"''',
    'jsonb_path_exists(js, (''$.*'' || ''*'')::jsonpath)', 'note ~ ''^a\\1$''', 'note ~ ''(?:a)\d''', 'js @? ''$.a[*] ? (@ > 1)''', 'note SIMILAR TO ''a%''',
    'note LIKE ''%'' || pattern', 'note ~ ''^x''', 'jsonb_path_exists(js, ''$.a'')']) AS c;
SELECT pg_temp.try('note ~ ' || quote_literal(repeat('a?', 600)));
SELECT pg_temp.try('note = ' || quote_literal(repeat('a', 70000)));
SELECT pg_temp.try(repeat('NOT ', 100000) || 'true');
SELECT left(pg_temp.try(repeat('(', 10000) || 'true' || repeat(')', 10000)), 5);
RESET search_path;
-- nothing of it was called; nor is it when orders come
SELECT rebate.end_rule('probe');
SELECT rebate.set_rule('ten', percent => 10);
SET ROLE regress_hostile_owner;
INSERT INTO hostile.orders (id, customer, total, note) VALUES (2, 'ann', 100, 'x');
BEGIN;
UPDATE hostile.orders SET total = 200;
UPDATE hostile.orders SET total = 300;
COMMIT;
RESET ROLE;
SELECT order_key, earned FROM rebate.accruals WHERE earned <> 0;
SELECT count(*) FROM rebate.explain('hostile.orders', 2);
SELECT * FROM rebate.audit();

-- a function that an expression uses is replaced by another: built-ins only, so there is none.
-- The names in it mean what they meant, whatever path the session has and whatever is in pg_temp.
CREATE TABLE hostile.plain_orders (id int PRIMARY KEY, customer text, total numeric, note text, pattern text, big numeric, js jsonb,
    at timestamp, d date, iv interval, f float8, b bytea, tz timestamptz);
SELECT rebate.detach('hostile.orders');
SELECT rebate.attach('hostile.plain_orders', 'customer', 'total', 'EUR', attributes => '{
    "low": "lower(note)", "at": "at::text", "d": "d::text", "iv": "iv::text", "f": "f::text", "b": "b::text", "tz": "tz::text",
    "month": "to_char(tz, ''YYYY-MM-DD HH24'')", "hour": "extract(hour FROM tz)", "all": "concat(at, d, iv, f, b, tz)",
    "day": "date_trunc(''day'', tz)", "cast": "(at::text || ''+03'')::timestamptz", "us": "(''01/02/'' || note)::date"}');
SELECT rebate.set_rule('s_' || name, fixed => 1, currency => 'EUR', scope => jsonb_build_object(name, value)) FROM (VALUES
    ('low', '2024'), ('at', '2026-03-04 05:06:07'), ('d', '2026-03-04'), ('iv', '1 year 2 mons 3 days 04:05:06'), ('f', '0.1'),
    ('b', '\xdeadbeef'), ('tz', '2026-03-04 05:06:07+00'), ('month', '2026-03-04 05'), ('hour', '5'),
    ('all', '2026-03-04 05:06:072026-03-041 year 2 mons 3 days 04:05:060.1\xdeadbeef2026-03-04 05:06:07+00'),
    ('day', '2026-03-04 00:00:00+00'), ('cast', '2026-03-04 02:06:07+00'), ('us', '2024-01-02')) AS v (name, value);
CREATE FUNCTION pg_temp.place(what text, value text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    next int := (SELECT count(*) FROM hostile.plain_orders) + 100;
BEGIN
    PERFORM set_config(what, value, true);
    EXECUTE format('INSERT INTO hostile.plain_orders (id, customer, total, note, at, d, iv, f, b, tz) VALUES
        (%s, %L, 100, ''2024'', ''2026-03-04 05:06:07'', make_date(2026, 3, 4), make_interval(1, 2, 0, 3, 4, 5, 6), 0.1, decode(''deadbeef'', ''hex''),
         ''epoch''::timestamptz + make_interval(secs => 1772600767))', next, what || ' ' || value);
    PERFORM set_config(what, s.boot_val, true) FROM pg_catalog.pg_settings s WHERE pg_catalog.lower(s.name) = pg_catalog.lower(what);
END$$;
BEGIN;
SELECT pg_temp.place(s, v) FROM (VALUES
    ('DateStyle', 'SQL, DMY'), ('DateStyle', 'German, DMY'), ('DateStyle', 'Postgres, MDY'), ('IntervalStyle', 'iso_8601'), ('IntervalStyle', 'sql_standard'),
    ('TimeZone', 'Asia/Kathmandu'), ('TimeZone', '<-12>+12'), ('extra_float_digits', '-15'), ('bytea_output', 'escape'),
    ('timezone_abbreviations', 'Australia'), ('search_path', 'hostile, pg_temp, pg_catalog'), ('search_path', ''), ('array_nulls', 'off'),
    ('transform_null_equals', 'on'), ('quote_all_identifiers', 'on'), ('backslash_quote', 'off'), ('xmloption', 'document'),
    ('standard_conforming_strings', 'on'), ('synchronize_seqscans', 'off'), ('default_text_search_config', 'pg_catalog.english'),
    ('row_security', 'off'), ('check_function_bodies', 'off'), ('lc_monetary', 'C'), ('lc_numeric', 'C'), ('lc_time', 'C'),
    ('enable_indexscan', 'off'), ('enable_seqscan', 'off'), ('plan_cache_mode', 'force_generic_plan'), ('default_transaction_read_only', 'on'),
    ('synchronous_commit', 'off'), ('client_min_messages', 'error'), ('jit', 'on'), ('constraint_exclusion', 'on'), ('default_tablespace', 'pg_global'),
    ('from_collapse_limit', '1'), ('work_mem', '64'), ('default_toast_compression', 'pglz'), ('vacuum_cost_delay', '1')) AS v (s, v);
COMMIT;
SELECT customer, count(a.*) AS rules, sum(earned) FROM hostile.plain_orders o
LEFT JOIN rebate.accruals a ON a.order_key = o.id::text AND a.source = 'hostile.plain_orders' AND a.rule LIKE 's\_%' AND earned = 1
GROUP BY o.id, customer HAVING count(a.*) <> 13;
SELECT count(*) FROM hostile.plain_orders;
SELECT * FROM rebate.audit();

-- only what a superuser has allowed can be slow
CREATE FUNCTION hostile.squares(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE sum int := 0; BEGIN FOR i IN 1 .. n LOOP FOR j IN 1 .. 20 * n LOOP sum := sum + 1; END LOOP; END LOOP; RETURN sum; END$$;
SELECT rebate.allow_function('hostile.squares(int)');

-- lengths: a long text in an expression fails the row, beside it it does not matter
CREATE TABLE hostile.long_orders (id int PRIMARY KEY, customer text, total numeric, tag text, note text, pattern text, big numeric, js jsonb, status text DEFAULT 'confirmed');
SELECT rebate.attach('hostile.long_orders', 'customer', 'total', 'EUR', status => 'status');
SELECT rebate.set_rule('begins', percent => 1, condition => $$note ~ '^begins'$$, source => 'hostile.long_orders', scope => '{"tag": "begins"}');
SELECT rebate.set_rule('holds', percent => 1, condition => $$note LIKE '%' || pattern || '%'$$, source => 'hostile.long_orders', scope => '{"tag": "holds"}');
SELECT rebate.set_rule('product', percent => 1, base => 'big * big', source => 'hostile.long_orders', scope => '{"tag": "product"}');
SELECT rebate.set_rule('slow', percent => 1, condition => $$hostile.squares(length(note)) > 1$$, source => 'hostile.long_orders', scope => '{"tag": "slow"}');
SELECT rebate.set_rule('cast', percent => 1, condition => $$note::date > '2020-01-01'$$, source => 'hostile.long_orders', scope => '{"tag": "cast"}');
\set VERBOSITY default
INSERT INTO hostile.long_orders (id, customer, total, tag, note) VALUES (1, 'ann', 100, 'begins', 'begins' || repeat('x', 65530)), (2, 'ann', 100, 'begins', 'begins' || repeat('x', 65531));
\set VERBOSITY terse
INSERT INTO hostile.long_orders (id, customer, total, tag, note, pattern) VALUES (3, 'ann', 100, 'holds', repeat('h', 1024), 'h'), (4, 'ann', 100, 'holds', 'h', repeat('h', 1025));
INSERT INTO hostile.long_orders (id, customer, total, tag, big) VALUES (5, 'ann', 100, 'product', repeat('7', 40)::numeric),
    (6, 'ann', 100, 'product', repeat('7', 100000)::numeric), (7, 'ann', 100, 'product', 7);
INSERT INTO hostile.long_orders (id, customer, total) VALUES (8, repeat('ann', 1000000), 100);
INSERT INTO hostile.long_orders (id, customer, total, tag, js) VALUES (9, 'ann', 100, repeat('tag', 1000000), jsonb_build_object('x', repeat('y', 1000000)));
INSERT INTO hostile.long_orders (id, customer, total, status) VALUES (10, 'ann', 100, repeat('confirmed', 1000000));
-- nor does an error fill the server with the value it is about
INSERT INTO hostile.long_orders (id, customer, total, tag, note) VALUES (11, 'ann', 100, 'cast', repeat('x', 60000));
SELECT order_key, sqlstate, left(message, 60) AS message, length(message) < 1000 AS short, left(detail, 90) AS detail FROM rebate.failures ORDER BY order_key::int;
SELECT order_key, rule, earned FROM rebate.accruals WHERE source = 'hostile.long_orders' AND earned <> 0 AND rule <> 'ten' ORDER BY order_key, rule;

-- time: a rule that needs too long fails its orders, the first after it was measured, later ones at once
INSERT INTO hostile.long_orders (id, customer, total, tag, note) VALUES (20, 'ann', 100, 'slow', 'a'), (21, 'ann', 100, 'slow', repeat('a', 501)), (22, 'ann', 100, 'slow', 'a'), (23, 'ann', 100, 'other', 'a');
SELECT order_key, message, detail FROM rebate.failures WHERE order_key IN ('20', '21', '22', '23') ORDER BY 1;
-- a cancel is a cancel
SELECT rebate.set_rule('slow', percent => 2, condition => $$hostile.squares(length(note)) > 1$$, source => 'hostile.long_orders', scope => '{"tag": "slow"}');
SET statement_timeout = '300ms';
INSERT INTO hostile.long_orders (id, customer, total, tag, note) VALUES (24, 'ann', 100, 'slow', repeat('a', 9001));
RESET statement_timeout;
SELECT count(*) FROM hostile.long_orders WHERE id = 24;

-- many columns
DO $$BEGIN EXECUTE 'CREATE TABLE hostile.wide (id int PRIMARY KEY, customer text, total numeric, '
    || (SELECT string_agg('c' || i || ' smallint', ', ') FROM generate_series(4, 1600) i) || ')'; END$$;
SELECT rebate.attach('hostile.wide', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('wide', percent => 50, scope => '{"c1600": "5"}', source => 'hostile.wide');
INSERT INTO hostile.wide (id, customer, total, c1600) VALUES (1, 'wanda', 10, 5);
SELECT rule, earned FROM rebate.accruals WHERE member = 'wanda' ORDER BY rule;
-- a source says no more than its owner wants: SELECT on each column used
CREATE TABLE hostile.secret (id int PRIMARY KEY, customer text, total numeric, salary numeric);
ALTER TABLE hostile.secret OWNER TO regress_hostile_owner;
SELECT rebate.attach('hostile.secret', 'customer', 'total', 'EUR');
CREATE ROLE regress_hostile_app;
GRANT rebate_owner TO regress_hostile_app;
GRANT SELECT (id, customer, total) ON hostile.secret TO regress_hostile_app;
SET ROLE regress_hostile_app;
SELECT rebate.set_rule('salary', percent => 1, condition => 'salary > 1000', source => 'hostile.secret');
SELECT rebate.set_rule('salary', percent => 1, base => 'salary', source => 'hostile.secret');
SELECT rebate.set_rule('total', percent => 1, condition => 'total > 1000', source => 'hostile.secret');
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA hostile CASCADE;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP OWNED BY regress_hostile_app;
DROP ROLE regress_hostile_app, regress_hostile_owner;
