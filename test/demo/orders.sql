-- `make demo ORDERS=file.csv`, first part: reads the file's text (table demo.line, columns c1, c2 ..., filled by the
-- driver) into an order table of its own, typed, and decides what its columns are. Choices are in demo.choice.
\set QUIET on
\set ON_ERROR_STOP on
\pset pager off
\pset footer off
\pset null ''
SET client_min_messages = warning;
SELECT set_config('demo.' || o.name, o.value, false)
FROM (VALUES ('key', :'key'), ('member', :'member'), ('amount', :'amount'), ('currency', :'currency'), ('time',
    :'time'),
             ('datestyle', :'datestyle')) o (name, value) \g /dev/null

-- Types: of each column the first one that takes all its values.
CREATE FUNCTION demo.fits(k int, type text, datestyle text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('datestyle', 'ISO, ' || datestyle, true);
    EXECUTE format('SELECT count(NULLIF(btrim(c%s), '''')::%s) FROM demo.line', k, type);
    RETURN true;
EXCEPTION WHEN data_exception THEN
    RETURN false;
END $$;

CREATE FUNCTION demo.matches(k int, pattern text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    result boolean;
BEGIN
    EXECUTE format('SELECT COALESCE(bool_and(btrim(c%1$s) ~ %2$L), false) FROM demo.line WHERE btrim(c%1$s) <> ''''',
        k, pattern)
        INTO result;
    RETURN result;
END $$;

DO $$
DECLARE
    c record;
    style text;
BEGIN
    FOR c IN SELECT * FROM demo.col ORDER BY k LOOP
        -- Leading zeros are a code, not a number.
        IF demo.matches(c.k, '^(0|[+-]?[1-9][0-9]{0,17})$') THEN
            UPDATE demo.col SET type = 'bigint' WHERE k = c.k;
        ELSIF demo.matches(c.k, '^[+-]?(0|[1-9][0-9]*)?([.][0-9]+)?$') AND demo.fits(c.k, 'numeric', 'DMY') THEN
            UPDATE demo.col SET type = 'numeric' WHERE k = c.k;
        ELSIF demo.matches(c.k, '^[+-]?[0-9]{1,3}([.]?[0-9]{3})*(,[0-9]+)?$') THEN  -- 1.234,50
            UPDATE demo.col SET type = 'numeric', datestyle = 'comma' WHERE k = c.k;
        ELSIF demo.matches(c.k, '[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}') THEN
            FOREACH style IN ARRAY string_to_array(COALESCE(NULLIF(current_setting('demo.datestyle'), ''),
                'DMY MDY YMD'), ' ') LOOP
                IF demo.fits(c.k, 'timestamptz', style) THEN
                    UPDATE demo.col SET datestyle = style, type = CASE
                        WHEN demo.matches(c.k, '^[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}$') THEN 'date'
                        WHEN demo.matches(c.k, '[0-9](Z|[+-][0-9]{2}(:?[0-9]{2})?)$') THEN 'timestamptz'
                        ELSE 'timestamp' END
                    WHERE k = c.k;
                    EXIT;
                END IF;
            END LOOP;
        END IF;
    END LOOP;
END $$;

-- The choice. A variable of the caller's wins; otherwise the first column whose name and type say it.
CREATE FUNCTION demo.named(pattern text, types text DEFAULT 'bigint numeric text date timestamp timestamptz') RETURNS
    text
LANGUAGE sql AS $$
    SELECT col.name
    FROM unnest(string_to_array(pattern, ' ')) WITH ORDINALITY AS p (pattern, n)
    JOIN demo.col ON col.name ~ ('^' || p.pattern || '$') AND col.type = ANY (string_to_array(types, ' '))
    ORDER BY p.n, col.k LIMIT 1
$$;

DO $$
DECLARE
    id_suffix constant text := '_?(id|no|nr|num|number|key|code|ref)';
    v_key text := NULLIF(current_setting('demo.key'), '');
    v_member text := NULLIF(current_setting('demo.member'), '');
    v_amount text := NULLIF(current_setting('demo.amount'), '');
    v_currency text := NULLIF(current_setting('demo.currency'), '');
    v_time text := NULLIF(current_setting('demo.time'), '');
    price text;
    quantity text;
    is_unique boolean;
    has_null boolean;
    keys text;
    texts text;
BEGIN
    INSERT INTO demo.choice VALUES (1, 'order key', v_key, 'KEY'), (2, 'member', v_member, 'MEMBER'),
        (3, 'amount', v_amount, 'AMOUNT'), (4, 'currency', v_currency, 'CURRENCY'), (5, 'order time', v_time, 'TIME');
    UPDATE demo.choice SET why = 'as you said' WHERE chosen IS NOT NULL;

    IF v_member IS NULL THEN
        v_member := demo.named(format('(customer|member|client|user|buyer|account|consumer|kunden?)s?%1$s '
            '(customer|member|client|user|buyer|kunde)s? (customer|member|client|user|buyer).* .*e_?mail.* account',
            id_suffix), 'bigint text');
        IF v_member IS NULL THEN
            RAISE EXCEPTION 'no column of the file looks like a customer: say which with MEMBER=column'
                USING DETAIL = 'Columns: ' || (SELECT string_agg(name, ', ' ORDER BY k) FROM demo.col);
        END IF;
        UPDATE demo.choice SET chosen = v_member, why = 'by its name' WHERE n = 2;
    END IF;

    IF v_amount IS NULL THEN
        v_amount := demo.named('(order|invoice|grand|sales?)_?(total|amount|value) total_?(amount|price|value|paid)? '
            'amount revenue sales (gross|net)_?(amount|total)? (line|item)_?total betrag summe umsatz '
            'payment_?(value|amount) .*amount.* .*total.*', 'bigint numeric');
        IF v_amount IS NOT NULL THEN
            UPDATE demo.choice SET chosen = v_amount, why = 'by its name' WHERE n = 3;
        ELSE
            price := demo.named('unit_?price price item_?price einzelpreis preis .*price.*', 'bigint numeric');
            quantity := demo.named('quantity qty units menge anzahl .*quantity.* .*qty.*', 'bigint numeric');
            v_amount := quote_ident(price) || COALESCE(' * ' || quote_ident(quantity), '');
            IF v_amount IS NULL THEN
                RAISE EXCEPTION 'no numeric column of the file looks like an amount: say which with AMOUNT=column or '
                    'AMOUNT=''expression'''
                    USING DETAIL = 'Columns: ' || (SELECT string_agg(name || ' ' || type, ', ' ORDER BY k) FROM
                        demo.col);
            END IF;
            UPDATE demo.choice SET chosen = v_amount, why = 'by their names; no column is a total' WHERE n = 3;
        END IF;
    END IF;

    IF v_currency IS NULL THEN
        v_currency := demo.named('(order_|payment_)?(currency|curr|ccy|waehrung|wahrung)(_?(code|id))?', 'text');
        UPDATE demo.choice SET chosen = COALESCE(v_currency, 'EUR'),
            why = CASE WHEN v_currency IS NULL THEN 'a guess: no column says it' ELSE 'by its name' END WHERE n = 4;
    END IF;

    IF v_time IS NULL THEN
        v_time := demo.named('(order|invoice|purchase|transaction|placed|sale|booking)_?(date|time|datetime|timestamp|at|day).* (ordered|placed|purchased|created|bought)_?(at|on|date|time)? date time timestamp datetime .*(purchase|order).* .*(date|time|_at).*', 'date timestamp timestamptz');
        UPDATE demo.choice SET chosen = v_time, why = COALESCE((
            SELECT 'by its name' || CASE WHEN datestyle = 'YMD' OR demo.matches(k, '^[0-9]{4}') THEN '' ELSE
                ', read as ' || CASE datestyle WHEN 'DMY' THEN 'day/month/year' WHEN 'MDY' THEN 'month/day/year' END ||
                CASE WHEN current_setting('demo.datestyle') = '' AND demo.fits(k, 'timestamptz', 'MDY') AND datestyle
                    = 'DMY'
                    THEN ' (it could be month/day/year: DATESTYLE=MDY)' ELSE '' END END
            FROM demo.col WHERE name = v_time), 'no column: the time when we see them') WHERE n = 5;
    END IF;

    v_key := COALESCE(v_key, demo.named(format('(order|invoice|receipt|transaction|bill|booking|purchase|sale|bestellung|rechnung)s?%1$s (order|invoice|receipt|transaction|booking) uuid id', id_suffix), 'bigint text'));
    SELECT string_agg(quote_ident(trim(t)), ', ' ORDER BY n), string_agg('btrim(' || col.source || ')', ', ' ORDER BY n)
    INTO keys, texts
    FROM string_to_table(COALESCE(v_key, ''), ',') WITH ORDINALITY AS s (t, n)
    LEFT JOIN LATERAL (SELECT format('c%s', k) AS source FROM demo.col WHERE name = trim(t)) col ON true
    WHERE trim(t) <> '';
    IF keys IS NULL THEN
        UPDATE demo.choice SET chosen = 'file_line', why = 'no column looks like a key: the line number' WHERE n = 1;
    ELSIF texts IS NULL OR cardinality(string_to_array(texts, ', ')) <> cardinality(string_to_array(keys, ', ')) THEN
        RAISE EXCEPTION 'KEY=% names no columns of the file', v_key
            USING DETAIL = 'Columns: ' || (SELECT string_agg(name, ', ' ORDER BY k) FROM demo.col);
    ELSE
        EXECUTE format('SELECT count(*) = count(DISTINCT (%1$s)), count(*) FILTER (WHERE '''' = ANY (ARRAY[%1$s]) OR '
            'NULL IN (%1$s) OR num_nulls(%1$s) > 0) > 0 FROM demo.line', texts)
            INTO is_unique, has_null;
        IF has_null THEN
            UPDATE demo.choice SET chosen = 'file_line', why = format('the line number: %s is sometimes empty', keys)
                WHERE n = 1;
        ELSIF is_unique THEN
            UPDATE demo.choice SET chosen = keys, why = COALESCE(why, 'by its name, and it is unique') WHERE n = 1;
        ELSE
            UPDATE demo.choice SET chosen = keys || ', file_line', why =
                'not unique alone: the line number was added' WHERE n = 1;
        END IF;
    END IF;
END $$;

-- The order table as a shop would have it, the same without rebates to measure against, and what will be inserted.
SELECT format('CREATE TABLE demo.incoming AS SELECT %s, file_line FROM demo.line ORDER BY file_line',
    string_agg(format('%s AS %I', CASE WHEN type = 'text' THEN format('NULLIF(btrim(c%s), '''')', k)
        WHEN datestyle = 'comma' THEN format('replace(replace(NULLIF(btrim(c%s), ''''), ''.'', ''''), '','', '
            '''.'')::numeric', k)
        WHEN datestyle IS NULL THEN format('NULLIF(btrim(c%s), '''')::%s', k, type)
        ELSE format('demo.moment(NULLIF(btrim(c%s), ''''), %L)::%s', k, datestyle, type) END, name), ', ' ORDER BY
            k)) AS make
FROM demo.col \gset
CREATE FUNCTION demo.moment(value text, style text) RETURNS timestamptz
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('datestyle') <> 'ISO, ' || style THEN
        PERFORM set_config('datestyle', 'ISO, ' || style, true);
    END IF;
    RETURN value::timestamptz;
END $$;
SET timezone = 'UTC';
:make;
ALTER TABLE demo.incoming ADD PRIMARY KEY (file_line);
CREATE TABLE orders (LIKE demo.incoming);
SELECT format('ALTER TABLE orders ADD PRIMARY KEY (%s)', chosen) AS make FROM demo.choice WHERE n = 1 \gset
:make;
CREATE TABLE orders_plain (LIKE orders INCLUDING ALL);
CREATE SEQUENCE demo.next_order;
CREATE SEQUENCE demo.next_plain;
ANALYZE demo.incoming;

\echo
\echo '=== 1. Your orders'
\echo
SELECT format('%s lines of %s. The columns, as they can be used in expressions:', count(*), :'file') AS line
FROM demo.incoming \gset
\echo :line
\echo
SELECT name AS column, type FROM demo.col ORDER BY k;
\echo 'What was chosen. Another choice: make demo ORDERS=... VARIABLE=column, or VARIABLE=''expression'''
\echo
SELECT what, chosen, why, variable FROM demo.choice ORDER BY n;

\echo '=== 2. Attached, with one rule'
\echo
SELECT format('%s %% of every order (PERCENT=), from the first order in the file on.', :'percent') AS line \gset
\echo :line
\echo
CREATE EXTENSION rebate;
SELECT max(chosen) FILTER (WHERE n = 2) AS member, max(chosen) FILTER (WHERE n = 3) AS amount,
       max(chosen) FILTER (WHERE n = 4) AS currency, max(chosen) FILTER (WHERE n = 5) AS time
FROM demo.choice \gset
SELECT format('SELECT min(%s)::timestamptz AS first FROM demo.incoming', COALESCE(NULLIF(:'time', ''), 'NULL')) AS
    make \gset
:make \gset
SELECT format(E'SELECT rebate.attach(''orders'', member => %L, amount => %L, currency => %L%s);', :'member',
    :'amount', :'currency',
    CASE WHEN :'first' <> '' THEN format(E',\n    order_time => %L, since => %L, max_backdate => NULL, max_future => '
        'NULL', :'time', :'first') ELSE '' END) AS attach,
    format(E'SELECT rebate.set_rule(''demo'', percent => %s%s);', :'percent',
    CASE WHEN :'first' <> '' THEN format(E', valid_from => %L', :'first') ELSE '' END) AS rule \gset
\set ECHO queries
\o /dev/null
:attach
:rule
\o
\set ECHO none
