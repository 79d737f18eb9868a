--
-- TRUNCATE: our trigger fires before the rows go, and whoever posts between the two must not find them.  Each case runs
-- with both moments of posting; what is posted is compared with what the rows say, and the audit finds nothing.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
SET timezone = 'UTC';
CREATE EXTENSION rebate;
SELECT rebate.create_store();
RESET client_min_messages;
SELECT rebate.set_rule('ten', percent => 10);

CREATE TABLE plain (id int PRIMARY KEY, customer text, total numeric);
CREATE TABLE linked (id int PRIMARY KEY, customer text, total numeric, returns int);
CREATE TABLE parts (id int, region text, customer text, total numeric, returns int, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
CREATE TABLE kept (id int PRIMARY KEY, customer text, total numeric);
SELECT rebate.attach('plain', 'customer', 'total', 'EUR', on_truncate => 'void');
SELECT rebate.attach('linked', 'customer', 'total', 'EUR', on_truncate => 'void', original => '{returns}');
SELECT rebate.attach('parts', 'customer', 'total', 'EUR', on_truncate => 'void', original => ARRAY[$$'a'$$, 'returns']);
SELECT rebate.attach('kept', 'customer', 'total', 'EUR', on_truncate => 'keep');

-- what is owed by the rows, what is posted, what the audit finds; of "kept" only what is posted
CREATE TABLE outcome (n serial, what text, posting text, posted text, wrong text);
CREATE PROCEDURE play(what text, command text) LANGUAGE plpgsql AS $$
DECLARE
    moment text;
BEGIN
    FOREACH moment IN ARRAY '{commit, statement}'::text[] LOOP
        PERFORM set_config('rebate.posting', moment, false);
        DELETE FROM plain;
        DELETE FROM linked;
        DELETE FROM parts;
        DELETE FROM kept;
        COMMIT;
        INSERT INTO plain VALUES (1, 'p', 100), (2, 'p', 200);
        INSERT INTO linked VALUES (1, 'l', 100, NULL), (2, 'l', 200, NULL), (3, 'l', -40, 1);
        INSERT INTO parts VALUES (1, 'a', 'a', 100, NULL), (2, 'a', 'a', 200, NULL), (3, 'b', 'b', -40, 1), (4, 'b', 'b', 400, NULL);
        INSERT INTO kept VALUES (1, 'k', 100);
        COMMIT;
        EXECUTE command;
        COMMIT;
        INSERT INTO outcome (what, posting, posted, wrong)
        SELECT play.what, moment,
            (SELECT string_agg(format('%s %s', substring(source FROM 8), sum), ', ' ORDER BY source COLLATE "C")
             FROM (SELECT source, sum(earned) FROM rebate.accruals GROUP BY source HAVING sum(earned) <> 0) p),
            concat_ws('; ', (SELECT string_agg(concat_ws(': ', violation, subject), '; ') FROM rebate.audit()),
            (SELECT string_agg(format('%s owes %s and has %s', owed.source, owed.sum, posted.sum), '; ') FROM
                (SELECT 'public.plain' AS source, COALESCE(sum(total), 0) / 10 AS sum FROM plain
                 UNION ALL SELECT 'public.linked', COALESCE(sum(o.total + COALESCE(r.total, 0)), 0) / 10
                     FROM linked o LEFT JOIN linked r ON r.returns = o.id WHERE o.returns IS NULL
                 UNION ALL SELECT 'public.parts', COALESCE(sum(o.total + COALESCE(r.total, 0)), 0) / 10
                     FROM parts o LEFT JOIN parts r ON (o.region, o.id) = ('a', r.returns) WHERE o.returns IS NULL) owed
                LEFT JOIN (SELECT source, sum(earned) FROM rebate.accruals GROUP BY source) posted USING (source)
             WHERE owed.sum <> COALESCE(posted.sum, 0)));
        COMMIT;
    END LOOP;
END $$;

CALL play('nothing', '');
CALL play('one table', 'TRUNCATE plain');
CALL play('what waits', 'INSERT INTO plain VALUES (3, ''p'', 300); UPDATE plain SET total = 150 WHERE id = 1; TRUNCATE plain');
CALL play('and again', 'TRUNCATE plain; INSERT INTO plain VALUES (1, ''p'', 50), (4, ''p'', 40); UPDATE plain SET total = 60 WHERE id = 1');
CALL play('twice', 'TRUNCATE plain; INSERT INTO plain VALUES (1, ''p'', 50); TRUNCATE plain; INSERT INTO plain VALUES (2, ''p'', 20)');
CALL play('several', 'UPDATE linked SET total = total + 1; UPDATE plain SET total = 1; TRUNCATE linked, plain, parts');
CALL play('original alone', 'TRUNCATE parts_a');
CALL play('return alone', 'TRUNCATE parts_b');
CALL play('original, touched', 'UPDATE parts SET total = total + 10 WHERE region = ''a''; TRUNCATE parts_a; INSERT INTO parts VALUES (1, ''a'', ''a'', 70, NULL)');
CALL play('the money stays', 'UPDATE kept SET total = 110; TRUNCATE kept');
CALL play('undone', $$
    DO 'BEGIN
        UPDATE plain SET total = 150 WHERE id = 1;
        TRUNCATE plain, linked, parts;
        PERFORM rebate.flush();
        RAISE EXCEPTION ''back'';
    EXCEPTION WHEN raise_exception THEN
        UPDATE plain SET total = 170 WHERE id = 1;
        UPDATE linked SET total = 170 WHERE id = 1;
    END'$$);

-- triggers of the user's between ours and the TRUNCATE: they post, and they write orders
CREATE FUNCTION post_between() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM rebate.flush();
    RETURN NULL;
END $$;
CREATE TRIGGER z_flush BEFORE TRUNCATE ON plain EXECUTE FUNCTION post_between();
CREATE TRIGGER z_flush BEFORE TRUNCATE ON linked EXECUTE FUNCTION post_between();
CREATE TRIGGER z_flush BEFORE TRUNCATE ON parts_a EXECUTE FUNCTION post_between();
CREATE TRIGGER z_flush BEFORE TRUNCATE ON kept EXECUTE FUNCTION post_between();
CALL play('posted between', 'UPDATE plain SET total = 150 WHERE id = 1; TRUNCATE plain');
CALL play('of several', 'UPDATE plain SET total = 150; UPDATE linked SET total = total * 2; TRUNCATE linked, plain');
CALL play('an original', 'UPDATE parts SET total = total * 2 WHERE region = ''a''; TRUNCATE parts_a');
CALL play('a group', 'UPDATE parts SET total = total * 2; TRUNCATE parts');
CALL play('kept', 'UPDATE kept SET total = 120; UPDATE kept SET total = 130; TRUNCATE kept');
CALL play('and filled', 'UPDATE plain SET total = 1; TRUNCATE plain; INSERT INTO plain VALUES (1, ''p'', 50); UPDATE plain SET total = 60');
CALL play('in the same file', 'TRUNCATE plain; INSERT INTO plain VALUES (1, ''p'', 50); UPDATE plain SET total = 5;
    TRUNCATE plain; INSERT INTO plain VALUES (2, ''p'', 20); UPDATE plain SET total = 30');
CALL play('undone, posted later', $$
    UPDATE plain SET total = 110;
    UPDATE plain SET total = 120;
    DO 'BEGIN
        TRUNCATE plain;
        RAISE EXCEPTION ''back'';
    EXCEPTION WHEN raise_exception THEN NULL;
    END'$$);
CALL play('undone, posted between', $$
    DO 'BEGIN
        UPDATE plain SET total = 150;
        UPDATE linked SET total = 150 WHERE id = 1;
        TRUNCATE linked, plain;
        RAISE EXCEPTION ''back'';
    EXCEPTION WHEN raise_exception THEN
        PERFORM rebate.flush();
    END'$$);
SELECT n, what, posting, posted, wrong FROM outcome ORDER BY n;

-- more than the collection holds: posted while the rows are still there
RESET rebate.posting;
DELETE FROM linked;
INSERT INTO linked SELECT i, 'many', 10, NULL FROM generate_series(1, 9000) i;
INSERT INTO linked SELECT i + 9000, 'many', -1, i FROM generate_series(1, 9000) i;
SELECT available FROM rebate.balances WHERE member = 'many';
TRUNCATE linked;
SELECT available FROM rebate.balances WHERE member = 'many';
SELECT violation, count(*) FROM rebate.audit() GROUP BY violation;

SET client_min_messages = warning;
DROP TABLE plain, linked, parts, kept, outcome;
DROP PROCEDURE play;
DROP FUNCTION post_between;
DROP EXTENSION rebate CASCADE;
DROP SCHEMA rebate_data CASCADE;
