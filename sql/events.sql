--
-- Events: their JSON, and reading them by cursor.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
CREATE EXTENSION rebate;
-- nothing of the session may show in an event
SET timezone = 'America/New_York';
SET datestyle = 'German';
SET extra_float_digits = 0;

CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, unit text DEFAULT 'EUR',
    status text DEFAULT 'paid', refunded numeric DEFAULT 0, at timestamptz DEFAULT '2026-01-31 23:59:59.5Z');
CREATE TABLE "book ings" (hotel text, "no ""1""" int, guest text, price numeric,
    PRIMARY KEY (hotel, "no ""1"""));
SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'unit', status => 'status',
    phases => '{"seen": "tracked", "paid": "pending", "sent": "confirmed", "void": "void"}',
    refunded => 'refunded', order_time => 'at', max_backdate => NULL, max_future => NULL, since => '2000-01-01Z');
SELECT rebate.attach('"book ings"', member => 'guest', amount => 'price', currency => 'CHF');
SELECT rebate.set_rule('ten', percent => 10, valid_from => '2000-01-01Z');
SELECT rebate.add_currency('POINTS_12', 12);
RESET client_min_messages;

-- What differs from run to run is replaced, if it is what it should be.
CREATE FUNCTION fixed(event json) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    shown text := event;
    t text := '"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"';
BEGIN
    shown := regexp_replace(shown, '"account": "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"', '"account": H');
    shown := regexp_replace(shown, '"accrual_id": "[1-9]\d*"', '"accrual_id": N');
    shown := regexp_replace(shown, '"posting_id": "[1-9]\d*"', '"posting_id": N');
    shown := regexp_replace(shown, '"posted_at": ' || t, '"posted_at": T');
    IF event->>'source' <> 'public.orders' THEN
        shown := regexp_replace(shown, '"event_at": ' || t, '"event_at": T');
        shown := regexp_replace(shown, '"(effective|book)_date": "\d{4}-\d\d-\d\d"', '"\1_date": D', 'g');
    END IF;
    RETURN shown;
END $$;

--
-- JSON
--
INSERT INTO orders VALUES (1, 'alice', 199.99);
UPDATE orders SET status = 'sent';
UPDATE orders SET refunded = 100;
UPDATE orders SET status = 'void';
INSERT INTO orders VALUES (2, 'alice', 5000, 'JPY', 'seen'), (3, 'alice', 12.345, 'KWD', 'sent');
UPDATE orders SET status = 'sent' WHERE id = 2;
INSERT INTO orders VALUES (4, E'new\nline "quoted" \\ käse', 1, 'POINTS_12', 'sent', 0, '2026-07-01 12:00:00+02');
INSERT INTO orders VALUES (5, 'negative', -0.5, 'EUR', 'sent');
INSERT INTO orders VALUES (7, 'late', 10, 'EUR', 'sent', 0, '9990-01-02 03:04:05.000001Z');
INSERT INTO "book ings" VALUES ('a, "b" \ ]', -7, 'bob', 80), ('', 0, 'bob', 20);
SELECT seq, currency, fixed(event) FROM rebate.events('alice');
SELECT seq, currency, fixed(event) FROM rebate.events(E'new\nline "quoted" \\ käse');
SELECT seq, currency, fixed(event) FROM rebate.events('negative');
SELECT seq, event->>'event_at' AS event_at, event->>'book_date' AS book_date FROM rebate.events('late');
SELECT seq, currency, fixed(event) FROM rebate.events('bob');
SELECT * FROM rebate.events('nobody');

-- the largest balances that fit
INSERT INTO orders VALUES (8, 'rich', 9999999999999999, 'JPY', 'sent'), (9, 'rich', -9999999999999999, 'JPY', 'sent'), (10, 'rich', -9999999999999999, 'JPY', 'sent');
SELECT seq, event->>'amount' AS amount, event#>>'{balance,available}' AS available FROM rebate.events('rich');

-- each event says what the ledger says
CREATE VIEW read AS SELECT f.event->>'member' AS member, f.event->>'currency' AS currency, (f.event->>'seq')::bigint AS seq,
    f.event->>'kind' AS kind, f.event->>'amount' AS amount, f.event->>'from' AS debit, f.event->>'to' AS credit,
    f.event#>>'{balance,tracked}' AS tracked, f.event#>>'{balance,pending}' AS pending, f.event#>>'{balance,maturing}' AS maturing,
    f.event#>>'{balance,available}' AS available, f.event#>>'{balance,held}' AS held,
    f.event->>'rule' AS rule, f.event->>'source' AS source, f.event->>'accrual_id' AS accrual_id, f.event->>'posting_id' AS posting_id,
    f.event->>'posted_at' AS posted_at, f.event->>'book_date' AS book_date
    FROM rebate.feed(NULL, 1000000) f;
CREATE VIEW posted AS SELECT member, currency, seq, kind, amount::text, substring(debit FROM '^member:(.*)') AS debit, substring(credit FROM '^member:(.*)') AS credit,
    tracked::text, pending::text, maturing::text, available::text, held::text,
    rule, source, accrual_id::text, posting_id::text,
    to_char(posted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS posted_at,
    to_char(book_date, 'YYYY-MM-DD') AS book_date
    FROM rebate.entries;
SELECT count(*) FROM read;
(TABLE read EXCEPT TABLE posted) UNION ALL (TABLE posted EXCEPT TABLE read);
SELECT count(DISTINCT (event->>'account')) = (SELECT count(*) FROM rebate_data.account a WHERE a.last_entry > 0) AS handles FROM rebate.feed();
SELECT count(*) FROM rebate.feed() f JOIN rebate_data.account a ON a.handle::text = f.event->>'account' AND a.member = f.event->>'member' AND a.currency = f.event->>'currency';

--
-- Reading on from every place, with every limit, gives what reading at once gives
--
CREATE FUNCTION read_on(what text, start text, lim int) RETURNS TABLE (place bigint, event text) LANGUAGE plpgsql AS $$
DECLARE
    c text := start;
    n int;
    r record;
BEGIN
    place := 0;
    LOOP
        n := 0;
        FOR r IN EXECUTE format('SELECT x.cursor, x.event FROM rebate.%s $1, $2) x', what) USING c, lim LOOP
            n := n + 1;
            c := r.cursor;
            place := place + 1;
            event := r.event;
            RETURN NEXT;
        END LOOP;
        EXIT WHEN n < lim;
    END LOOP;
END $$;
CREATE FUNCTION compare(what text, start text DEFAULT NULL) RETURNS TABLE (events bigint, differences bigint) LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE whole AS SELECT * FROM read_on(what, start, 1000000);
    SELECT count(*) INTO events FROM whole;
    -- with each limit
    SELECT count(*) INTO differences
      FROM generate_series(1, events::int + 1) lim
     WHERE (SELECT array_agg(event ORDER BY place) FROM read_on(what, start, lim)) IS DISTINCT FROM (SELECT array_agg(event ORDER BY place) FROM whole);
    -- from the cursor of each row of one look
    FOR start IN EXECUTE format('SELECT x.cursor FROM rebate.%s $1, 1000000) x', what) USING start LOOP
        DELETE FROM whole WHERE place = (SELECT min(place) FROM whole);
        differences := differences + (SELECT count(*) FROM (SELECT (SELECT array_agg(event ORDER BY place) FROM read_on(what, start, 3)) IS DISTINCT FROM (SELECT array_agg(event ORDER BY place) FROM whole) AS differ) d WHERE differ);
    END LOOP;
    differences := differences + (SELECT count(*) FROM whole);
    DROP TABLE whole;
    RETURN NEXT;
END $$;
SELECT * FROM compare('events(''alice'',');
SELECT * FROM compare('events(''rich'',');
SELECT * FROM compare('feed(');
-- what came later, among much that is older
SELECT rebate.feed_cursor() AS middle \gset
SELECT rebate.events_cursor('alice') AS alice \gset
SELECT count(*) FROM rebate.feed(:'middle');
SELECT count(*) FROM rebate.events('alice', :'alice');
UPDATE orders SET status = 'void' WHERE id IN (2, 3, 7);
INSERT INTO orders SELECT 100 + g, 'm' || g % 5, g, 'EUR', 'sent' FROM generate_series(1, 20) g;
UPDATE orders SET refunded = total WHERE id BETWEEN 100 AND 103;
INSERT INTO orders VALUES (200, 'alice', 1, 'USD', 'sent');
SELECT * FROM compare('feed(', :'middle');
SELECT * FROM compare('feed(');
SELECT * FROM compare('events(''alice'',', :'alice');
SELECT * FROM compare('events(''m1'',');
SELECT seq, currency, event->>'kind' AS kind, event#>>'{order,id}' AS "order" FROM rebate.events('alice', :'alice');
-- rows of a batch stay the batch's when they are changed meanwhile, and what is new comes after them
SELECT cursor AS mid FROM rebate.feed(:'middle', 5) OFFSET 4 \gset
CREATE TEMP TABLE before AS SELECT * FROM read_on('feed(', :'mid', 1000);
UPDATE orders SET refunded = 1, total = total + 20 WHERE id >= 100;
SELECT count(*) > 20 AS more FROM rebate.feed(:'mid');
SELECT count(*) FROM before b JOIN read_on('feed(', :'mid', 1000) r USING (place, event);
SELECT (SELECT count(*) FROM before) AS before;
SELECT max(n) FROM (SELECT count(*) AS n FROM read_on('feed(', :'middle', 7) GROUP BY event) x;
-- back in the same batch
CREATE TEMP TABLE batch AS SELECT f.cursor, f.event#>>'{order,id}' AS "order", n FROM rebate.feed(:'middle', 20) WITH ORDINALITY f(cursor, event, n);
SELECT count(*) FROM rebate.feed(:'middle', 1);
SELECT b.n, (SELECT string_agg(f.event#>>'{order,id}', ' ') FROM rebate.feed(b.cursor, 2) f) = (SELECT string_agg("order", ' ' ORDER BY n) FROM batch a WHERE a.n - b.n IN (1, 2)) AS same
  FROM (SELECT * FROM batch WHERE n IN (4, 9, 16) ORDER BY n % 7) b;
-- after the cursors of the end there is nothing
SELECT count(*) FROM rebate.feed(rebate.feed_cursor());
SELECT count(*) FROM rebate.events('alice', rebate.events_cursor('alice'));
SELECT rebate.events_cursor('nobody');
SELECT count(*) = (SELECT sum(last_entry) FROM rebate.balances WHERE member = 'alice') AS all FROM rebate.events('alice', rebate.events_cursor('nobody'));

--
-- Only what is committed
--
SELECT rebate.feed_cursor() AS c, rebate.events_cursor('carol') AS m \gset
BEGIN;
INSERT INTO orders VALUES (300, 'carol', 10, 'EUR', 'sent'), (301, 'carol', 10, 'EUR', 'sent');
SELECT count(*) FROM rebate.events('carol');
SELECT count(*) FROM rebate.feed(:'c');
SELECT rebate.feed_cursor() AS during, rebate.events_cursor('carol') AS m_during \gset
-- posted all the same
SELECT last_entry FROM rebate.balances WHERE member = 'carol';
SELECT last_entry FROM rebate.balance('carol');
ROLLBACK;
SELECT count(*) FROM rebate.feed(:'c');
SELECT :'m' = :'m_during' AS same;
BEGIN;
INSERT INTO orders VALUES (302, 'carol', 10, 'EUR', 'sent');
SAVEPOINT a;
INSERT INTO orders VALUES (303, 'carol', 20, 'EUR', 'sent');
SELECT count(*) FROM rebate.events('carol');
ROLLBACK TO a;
SELECT count(*) FROM rebate.events('carol');
SAVEPOINT b;
INSERT INTO orders VALUES (304, 'carol', 30, 'EUR', 'sent');
RELEASE b;
SELECT count(*) FROM rebate.feed(:'during');
SELECT rebate.feed_cursor() AS during2, rebate.events_cursor('carol') AS m_during2 \gset
COMMIT;
SELECT event#>>'{order,id}' AS "order", event->>'seq' AS seq FROM rebate.events('carol');
SELECT event#>>'{order,id}' AS "order" FROM rebate.feed(:'c');
SELECT event#>>'{order,id}' AS "order" FROM rebate.feed(:'during');
SELECT event#>>'{order,id}' AS "order" FROM rebate.feed(:'during2');
SELECT event#>>'{order,id}' AS "order" FROM rebate.events('carol', :'m_during2');
-- own entries behind committed ones
BEGIN;
INSERT INTO orders SELECT g, 'carol', 10, 'EUR', 'sent' FROM generate_series(310, 320) g;
SELECT count(*) FROM rebate.events('carol');
SELECT rebate.events_cursor('carol') AS m_during \gset
COMMIT;
SELECT count(*) FROM rebate.events('carol', :'m_during');
SELECT * FROM compare('feed(', :'c');
-- a snapshot that is older than the events hides none
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM rebate.feed(:'c');
SELECT * FROM rebate.events('carol', NULL, 2147483647) OFFSET 13;
COMMIT;

--
-- Refused
--
\set VERBOSITY terse
SELECT * FROM rebate.events('alice', NULL, 0);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM rebate.events('alice', NULL, NULL);
SELECT * FROM rebate.events(NULL);
SELECT rebate.events_cursor(NULL);
SELECT * FROM rebate.feed(NULL, -1);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM rebate.feed(NULL, NULL);

\set VERBOSITY default
SELECT rebate.events_cursor('carol') AS good \gset
-- another check, another sequence, a sequence that is not there yet, another currency, of another member
SELECT * FROM rebate.events('carol', regexp_replace(:'good', ':\d+$', ':12345'));
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM rebate.events('carol', regexp_replace(:'good', 'EUR:13:', 'EUR:12:'));
SELECT * FROM rebate.events('carol', regexp_replace(:'good', 'EUR:13:', 'EUR:14:'));
SELECT * FROM rebate.events('carol', regexp_replace(:'good', 'EUR', 'USD'));
SELECT * FROM rebate.events('m1', :'good');
\set VERBOSITY sqlstate
CREATE FUNCTION refused(what text, c text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT count(*) FROM rebate.%s $1)', what) USING c;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
-- malformed
SELECT c, refused('events(''alice'',', c) FROM unnest(ARRAY['', 'm', 'm1', 'm1.', 'm1.EUR', 'm1.EUR:', 'm1.EUR:1', 'm1.EUR:1:', 'm1.EUR:0:1',
    'm1.EUR:-1:1', 'm1.EUR:1:-1', 'm1.EUR:1:1:', 'm1.EUR:99999999999999999999:1', 'm1.EUR:1:99999999999999999999', 'm1.:1:1',
    'm2.EUR:1:1', 'm1.USD:1:1.EUR:1:1', 'm1 ', 'nonsense', 'f1.1', repeat('m1.EUR:1:1', 10000)]) c WHERE length(c) < 100
    UNION ALL SELECT 'long', refused('events(''alice'',', repeat('m1.EUR:1:1', 10000));
-- each truncation of a cursor of the feed, and each changed character
SELECT cursor AS good FROM rebate.feed(:'middle', 3) OFFSET 2 \gset
SELECT refused('feed(', :'good');
SELECT refused('feed(', left(:'good', n)) AS refused, count(*) = length(:'good') AS all FROM generate_series(0, length(:'good') - 1) n GROUP BY 1;
SELECT refused('feed(', overlay(:'good' PLACING CASE WHEN substr(:'good', n, 1) = '7' THEN '8' ELSE '7' END FROM n)) AS refused, count(*) = length(:'good') AS all
    FROM generate_series(1, length(:'good')) n GROUP BY 1;
SELECT refused('feed(', :'good' || '0'), refused('feed(', ''), refused('feed(', rebate.events_cursor('alice'));
-- well-formed, but of another history: the last field is a hash of the others
CREATE FUNCTION forged(c text, field int, value text) RETURNS text LANGUAGE sql AS $$
    SELECT x || (hashtext(x)::bigint & 4294967295)
      FROM (SELECT string_agg(CASE WHEN n = field THEN value ELSE f END, '.' ORDER BY n) || '.' AS x
              FROM regexp_split_to_table(c, '\.') WITH ORDINALITY s(f, n) WHERE n < 9) y $$;
SELECT forged(:'good', 1, 'f1') = :'good' AS same;
CREATE FUNCTION why(c text) RETURNS TABLE (code text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM rebate.feed(c);
    message := 'accepted';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    detail := regexp_replace(detail, 'account \d+', 'account N');
    RETURN NEXT;
END $$;
SELECT n, d.* FROM (VALUES (1, 2, '42'), (2, 3, '2'), (3, 4, '77'), (4, 5, '9223372036854775807'),
    (5, 8, regexp_replace(split_part(:'good', '.', 8), '\d+$', '1')),
    (6, 8, regexp_replace(split_part(:'good', '.', 8), ':\d+:', ':1000:')),
    (7, 6, '9:8:'), (8, 6, '8:9:1'), (9, 6, '8:18:5,5'), (10, 6, '8:18:5,4'), (11, 6, '8:18:10'), (12, 6, '8:18:0,9')) v(n, field, value)
    CROSS JOIN LATERAL why(forged(:'good', field, value)) d ORDER BY n;

-- who may
CREATE ROLE regress_events_reader;
SET ROLE regress_events_reader;
\set VERBOSITY terse
SELECT rebate.events_cursor('alice');
SELECT * FROM rebate.feed();
RESET ROLE;
GRANT EXECUTE ON FUNCTION rebate.events(text, text, integer), rebate.events_cursor(text), rebate.feed(text, integer), rebate.feed_cursor() TO regress_events_reader;
SET ROLE regress_events_reader;
SELECT * FROM rebate.events('alice');
SELECT rebate.events_cursor('alice');
SELECT * FROM rebate.feed();
SELECT rebate.feed_cursor();
RESET ROLE;
GRANT rebate_owner TO regress_events_reader;
SET ROLE regress_events_reader;
SELECT count(*) > 0 AS allowed FROM rebate.events('alice');
SELECT count(*) > 0 AS allowed FROM rebate.feed(:'middle');
RESET ROLE;

-- settings of the reader do not matter
SET enable_bitmapscan = off;
SET enable_indexscan = off;
SET search_path = pg_temp;
SELECT count(*) = (SELECT count(*) FROM rebate.entries) AS all FROM rebate.feed(NULL, 1000000);
SELECT count(*) > 20 AS some FROM rebate.feed(:'middle');
RESET search_path;
RESET enable_indexscan;
RESET enable_bitmapscan;

-- names are those of now
BEGIN;
SET LOCAL client_min_messages = warning;
UPDATE rebate_data.rule SET name = 'renamed';
ROLLBACK;
ALTER TABLE rebate_data.rule DISABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.source DISABLE TRIGGER rebate_guard;
BEGIN;
UPDATE rebate_data.rule SET name = 'renamed';
UPDATE rebate_data.source SET relation_name = 'moved' WHERE relation_name = 'public.orders';
SELECT event->>'rule' AS rule, event->>'source' AS source FROM rebate.events('carol', NULL, 1);
ROLLBACK;
SELECT event->>'rule' AS rule, event->>'source' AS source FROM rebate.events('carol', NULL, 1);
ALTER TABLE rebate_data.rule ENABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.source ENABLE TRIGGER rebate_guard;
SELECT * FROM rebate.audit();

-- a cursor of a store that is gone
SELECT cursor AS good FROM rebate.feed(:'middle', 3) OFFSET 2 \gset
SET client_min_messages = warning;
DROP SCHEMA rebate_data CASCADE;
SELECT rebate.create_store();
SELECT code, message, detail FROM why(:'good');
SELECT * FROM rebate.feed();
SELECT count(*) FROM rebate.feed(rebate.feed_cursor());

DROP OWNED BY regress_events_reader;
DROP ROLE regress_events_reader;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
DROP TABLE orders, "book ings";
DROP FUNCTION fixed, read_on, compare, refused, forged, why;
