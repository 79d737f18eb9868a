--
-- An order table that is changed under the mapping: orders go through, are set
-- aside, and are decided when the table is attached again.
--
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
-- with it, mappings follow what is renamed: see tables.sql
ALTER EVENT TRIGGER rebate_follow_partitions DISABLE;
CREATE TABLE p (c2 text, id int PRIMARY KEY, c text, t numeric);
SELECT rebate.attach('p', 'c', 't', 'EUR');
SELECT rebate.set_rule('ten', percent => 10);
INSERT INTO p (id, c, t) VALUES (1, 'ann', 50);

-- a mapped column is renamed
ALTER TABLE p RENAME t TO x;
INSERT INTO p (id, c, x) VALUES (2, 'ann', 50);
UPDATE p SET x = 60 WHERE id = 1;
INSERT INTO p (id, c, x) VALUES (3, 'ann', 50);
DELETE FROM p WHERE id = 2;
SELECT source, order_key, sqlstate, message, detail FROM rebate.failures ORDER BY order_key;
SELECT * FROM rebate.audit();
SELECT rebate.attach('p', 'c', 'x', 'EUR', replace => true);
SELECT source, order_key FROM rebate.failures;
SELECT member, available FROM rebate.balances;
SELECT * FROM rebate.audit();

-- a type that still fits, a column more, a column less
ALTER TABLE p ALTER x TYPE numeric(14,4), ADD note text;
ALTER TABLE p DROP COLUMN c2, DROP COLUMN note;
INSERT INTO p (id, c, x) VALUES (4, 'ann', 10.1250);
ALTER TABLE p ALTER id TYPE bigint;
INSERT INTO p (id, c, x) VALUES (5, 'ann', 10);
UPDATE p SET x = 20 WHERE id = 1;
SELECT member, available FROM rebate.balances;
SELECT * FROM rebate.audit();

-- the key is renamed: orders cannot be named, the audit finds them
ALTER TABLE p RENAME id TO number;
INSERT INTO p (number, c, x) VALUES (6, 'ann', 10);
SELECT * FROM rebate.audit();
ALTER TABLE p RENAME number TO id;
SELECT * FROM rebate.audit();
SELECT rebate.attach('p', 'c', 'x', 'EUR', replace => true, on_error => 'abort');
SELECT member, available FROM rebate.balances;

-- with on_error = abort the statement fails
ALTER TABLE p RENAME x TO t;
INSERT INTO p (id, c, t) VALUES (7, 'ann', 10);
ALTER TABLE p RENAME t TO x;
INSERT INTO p (id, c, x) VALUES (7, 'ann', 10);
SELECT member, available FROM rebate.balances;
SELECT * FROM rebate.audit();

-- dropped and made again: another table
DROP TABLE p;
SELECT * FROM rebate.audit();
CREATE TABLE p (id int PRIMARY KEY, c text, t numeric);
INSERT INTO p (id, c, t) VALUES (1, 'bob', 100);
SELECT member, available FROM rebate.balances ORDER BY member;
DROP TABLE p;
