-- `make demo ORDERS=file.csv`: the columns of the file, from its header.
\set QUIET on
\set ON_ERROR_STOP on
CREATE SCHEMA demo;
COMMENT ON SCHEMA demo IS 'what the demo needs to read a file; the shop itself is in public';
CREATE TABLE demo.col (k int PRIMARY KEY, name text UNIQUE, type text NOT NULL DEFAULT 'text', datestyle text);
CREATE TABLE demo.choice (n int PRIMARY KEY, what text, chosen text, variable text, why text);
SELECT convert_from(decode(:'header_hex', 'hex'), :'encoding') AS header \gset

INSERT INTO demo.col (k, name)
SELECT k, name || CASE WHEN count(*) OVER (PARTITION BY name) > 1 OR name = 'file_line' THEN '_' || k ELSE '' END
FROM (
    SELECT k, COALESCE(NULLIF(trim(BOTH '_' FROM lower(regexp_replace(replace(trim(BOTH '"' FROM m[1]), '""', '"'),
        '[^[:alnum:]]+', '_', 'g'))), ''), 'column') AS name
    FROM regexp_matches(:'header' || :'delimiter',
        format('[[:space:]]*("(?:[^"]|"")*"|[^%1$s]*)[[:space:]]*[%1$s]', :'delimiter'), 'g') WITH ORDINALITY AS t
            (m, k)) names;

SELECT format('CREATE TABLE demo.line (%s, file_line bigint GENERATED ALWAYS AS IDENTITY)',
    string_agg(format('c%s text', k), ', ' ORDER BY k)) AS make
FROM demo.col \gset
:make;
