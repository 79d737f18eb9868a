-- A table of the store that is not as create_store() made it is refused with RB011, naming it, before any row of it is
-- read or written: each table and column of the catalog, changed in every way that there is, in a session that has used
-- the store before. A change of what the order does not touch may let it through, with the right amount.
CREATE EXTENSION pgtap;
SET client_min_messages = error;
SELECT no_plan();
CREATE EXTENSION rebate;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2), paid text NOT NULL DEFAULT 'yes');
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', status => 'paid', phases => '{"yes": "confirmed", "no": "pending"}');
SELECT rebate.set_rule('five', percent => 5, hold => '1 day');
INSERT INTO orders VALUES (1, 'alice', 100);
UPDATE orders SET total = 200 WHERE id = 1;
INSERT INTO orders VALUES (2, 'bob', NULL);
SELECT rebate.channel('alice');
SELECT rebate.freeze('orders', '1', 'seen');

-- what an order and a reader hear after a change, which is then undone
CREATE FUNCTION heard(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE call;
    PERFORM rebate.flush();
    RETURN 'went through';
EXCEPTION WHEN OTHERS THEN
    RETURN sqlstate || ' ' || sqlerrm;
END$$;
CREATE TABLE tried (relation text, change text, ordered text, read text, maturing bigint);
CREATE FUNCTION try(relation text, change text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    heard_order text;
    heard_reader text;
    money bigint;
BEGIN
    BEGIN
        EXECUTE change;
        heard_order := heard('INSERT INTO orders VALUES (3, ''alice'', 100)');
        heard_reader := heard('SELECT * FROM rebate.statement(''alice'')');
        IF heard_order = 'went through' THEN
            SELECT maturing INTO money FROM rebate_data.account WHERE member = 'alice';
        END IF;
        RAISE EXCEPTION 'undo' USING ERRCODE = 'UNDO0';
    EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
        NULL;
    END;
    INSERT INTO tried VALUES (relation, change, heard_order, heard_reader, money);
END$$;
SELECT is(heard('INSERT INTO orders VALUES (4, ''alice'', 100)'), 'went through', 'an order of a store that is whole');
DELETE FROM orders WHERE id = 4;
SELECT rebate.flush();

CREATE VIEW store_relations AS SELECT c.oid, c.relname::text AS name, 'rebate_data.' || quote_ident(c.relname) AS called, c.relkind AS kind
    FROM pg_class c WHERE relnamespace = 'rebate_data'::regnamespace AND relkind IN ('r', 'v');
CREATE VIEW store_columns AS SELECT r.*, quote_ident(a.attname) AS col, a.atttypid, a.attnotnull, a.atthasdef, a.attcollation
    FROM store_relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 WHERE kind = 'r';
-- what stands in the way of a change of columns: the table is looked at before its indexes and constraints
CREATE FUNCTION bare(relid oid) RETURNS text LANGUAGE sql AS $$
    SELECT COALESCE((SELECT string_agg(format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE; ', relid::regclass, conname), '')
                     FROM pg_constraint WHERE conrelid = relid AND contype IN ('p', 'u', 'c')), '')
        || COALESCE((SELECT string_agg(format('DROP INDEX %s; ', indexrelid::regclass), '') FROM pg_index i WHERE indrelid = relid
                     AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)), '')
        || (SELECT string_agg(format('DROP VIEW IF EXISTS %s CASCADE; ', viewname::regclass), '') FROM (
            SELECT format('%I.%I', schemaname, viewname) AS viewname FROM pg_views WHERE schemaname IN ('rebate', 'rebate_data')) v
            WHERE NOT EXISTS (SELECT FROM pg_depend WHERE objid = viewname::regclass AND deptype = 'e'))
$$;
SELECT try(name, format('ALTER TABLE %s DROP COLUMN %s CASCADE', called, col)) FROM store_columns;
SELECT try(name, format('ALTER TABLE %s RENAME COLUMN %s TO other', called, col)) FROM store_columns;
SELECT try(name, bare(oid) || format('ALTER TABLE %1$s ALTER %2$s DROP DEFAULT, ALTER %2$s TYPE %3$s USING %4$s', called, col,
        CASE atttypid WHEN 'text'::regtype THEN 'bytea' ELSE 'text' END,
        CASE atttypid WHEN 'text'::regtype THEN 'convert_to(' || col || ', ''UTF8'')' ELSE col || '::text' END)) FROM store_columns;
SELECT try(name, bare(oid) || format('ALTER TABLE %s ALTER %s TYPE text COLLATE "POSIX"', called, col)) FROM store_columns WHERE atttypid = 'text'::regtype;
SELECT try(name, bare(oid) || format('ALTER TABLE %s ALTER %s TYPE numeric(20,4)', called, col)) FROM store_columns WHERE atttypid = 'numeric'::regtype;
SELECT try(name, bare(oid) || format('ALTER TABLE %s ALTER %s DROP NOT NULL', called, col)) FROM store_columns WHERE attnotnull;
SELECT try(name, format('ALTER TABLE %s ALTER %s SET DEFAULT nullif(NULL, ''x'')::text::%s', called, col, atttypid::regtype)) FROM store_columns WHERE NOT atthasdef AND attnotnull;
SELECT try(name, format('ALTER TABLE %s ALTER %s DROP DEFAULT', called, col)) FROM store_columns WHERE atthasdef;
-- whole tables
CREATE TABLE other (x int);
CREATE FUNCTION other_trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
CREATE FUNCTION other_condition() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE ROLE rebate_test_other;
GRANT CREATE ON SCHEMA rebate_data TO rebate_test_other;
SELECT try(name, format('DROP %s %s CASCADE', CASE kind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, called)) FROM store_relations;
SELECT try(name, format('ALTER TABLE %s RENAME TO gone', called)) FROM store_relations;
SELECT try(name, format('ALTER TABLE %s OWNER TO rebate_test_other', called)) FROM store_relations;
SELECT try(name, format('ALTER TABLE %s SET UNLOGGED', called)) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', called)) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('CREATE RULE r AS ON INSERT TO %s DO INSTEAD NOTHING', called)) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('CREATE TRIGGER t AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION other_trigger()', called)) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('CREATE TABLE child () INHERITS (%s)', called)) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('DROP TABLE %1$s CASCADE; CREATE VIEW %1$s AS SELECT 1 AS x', called)) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('DROP TABLE %1$s CASCADE; CREATE TABLE %1$s (x int) PARTITION BY LIST (x)', called)) FROM store_relations WHERE kind = 'r';
-- guards: that of table store tells whose store it is; a weaker one is somebody else's trigger
SELECT try(name, format('DROP TRIGGER rebate_guard ON %1$s; CREATE TRIGGER rebate_guard BEFORE TRUNCATE ON %1$s FOR EACH STATEMENT EXECUTE FUNCTION rebate.guard()',
    called)) FROM store_relations WHERE kind = 'r' AND name <> 'store';
SELECT try(name, format('DROP TRIGGER rebate_guard ON %1$s; CREATE TRIGGER rebate_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$s
    FOR EACH STATEMENT WHEN (other_condition()) EXECUTE FUNCTION rebate.guard()', called)) FROM store_relations WHERE kind = 'r' AND name <> 'store';
-- the view of all tables of entries
SELECT try('ledger', regexp_replace('DROP VIEW rebate_data.ledger CASCADE; CREATE VIEW rebate_data.ledger AS ' || pg_get_viewdef('rebate_data.ledger'::regclass),
        '\y(\w+)\.seq,', '\1.seq::text,', 'g'));

SELECT cmp_ok((SELECT count(*) FROM tried), '>', 800::bigint, 'changes are tried');
-- without table store nobody can tell whose it is
UPDATE tried SET ordered = replace(ordered, 'RB001 schema "rebate_data" holds a store without our guards', 'RB011 table "rebate_data.store" is gone'),
    read = replace(read, 'RB001 schema "rebate_data" holds a store without our guards', 'RB011 table "rebate_data.store" is gone')
    WHERE relation = 'store' AND change ~ '(DROP TABLE|RENAME TO)';
SELECT is_empty($$ SELECT relation, change, read FROM tried WHERE read NOT LIKE 'RB011 % "rebate_data.' || relation || '" is %' $$,
    'a reader is refused after each change, and hears of the table');
SELECT is_empty($$ SELECT relation, change, ordered, maturing FROM tried WHERE ordered NOT LIKE 'RB011 % "rebate_data.' || relation || '" is %'
    AND NOT (ordered = 'went through' AND maturing = 1500) $$,
    'an order is refused, or gets the right amount');
SELECT set_eq($$ SELECT DISTINCT relation FROM tried EXCEPT SELECT relation FROM tried WHERE ordered = 'went through' $$,
    $$ SELECT unnest(ARRAY['account', 'accrual', 'entry', 'waiting', 'rule_scope', 'rule_version', 'generation', 'source', 'scope', 'currency',
        'channel', 'former_member', 'former_secret', 'deferred', 'link', 'freeze', 'store', 'programme', 'epoch']) $$,
    'it is refused whenever a table is changed that the order path reads');

-- indexes that are scanned without a planner: other columns, another order, not unique, partial, gone
TRUNCATE tried;
CREATE VIEW direct_indexes AS SELECT i.indexrelid::regclass::text AS called, c.relname::text AS name, i.indrelid::regclass AS relation, i.indrelid,
        k.conname, i.indisunique AS is_unique, pg_get_indexdef(i.indexrelid) AS definition,
        (SELECT string_agg(quote_ident(attname), ', ' ORDER BY o) FROM unnest(i.indkey) WITH ORDINALITY u (n, o)
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = n) AS cols
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid
    WHERE c.relname IN ('account_pkey', 'account_member_key', 'accrual_order_key', 'accrual_seq_key', 'accrual_xid_brin', 'entry_pkey', 'entry_xid_brin',
        'waiting_pkey', 'rule_scope_pkey', 'rule_version_pkey', 'generation_pkey', 'source_pkey', 'source_relation_key', 'currency_pkey', 'deferred_pkey',
        'link_pkey', 'link_target', 'freeze_pkey', 'rule_pkey') AND c.relnamespace = 'rebate_data'::regnamespace;
CREATE FUNCTION without(i direct_indexes) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN (i).conname IS NULL THEN format('DROP INDEX %s; ', (i).called)
        ELSE format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE; ', (i).relation, (i).conname) END
$$;
SELECT is((SELECT count(*) FROM direct_indexes), 19::bigint, 'indexes are found');
SELECT try(name, without(i)) FROM direct_indexes i;
SELECT try(name, without(i) || format('CREATE INDEX %I ON %s ((1))', name, relation)) FROM direct_indexes i;
SELECT try(name, without(i) || format('CREATE INDEX %I ON %s USING hash (%s)', name, relation, split_part(cols, ',', 1))) FROM direct_indexes i;
SELECT try(name, without(i) || replace(definition, 'UNIQUE ', '')) FROM direct_indexes i WHERE is_unique;
SELECT try(name, without(i) || regexp_replace(definition, '\)', ' DESC)')) FROM direct_indexes i WHERE definition ~ 'btree';
SELECT try(name, without(i) || regexp_replace(definition, '( WHERE .*)?$', ' WHERE false')) FROM direct_indexes i WHERE name <> 'accrual_seq_key';
SELECT try(name, without(i) || regexp_replace(definition, '\)', ', ' || more || ')')) FROM direct_indexes i, LATERAL (SELECT quote_ident(attname) AS more
    FROM pg_attribute WHERE attrelid = indrelid AND attnum > 0 AND NOT quote_ident(attname) = ANY (string_to_array(cols, ', ')) LIMIT 1) m
    WHERE definition ~ 'btree';
SELECT try(name, without(i) || format('ALTER TABLE %s ADD CONSTRAINT %I UNIQUE (%s) DEFERRABLE', relation, name, cols)) FROM direct_indexes i
    WHERE conname IS NOT NULL;
SELECT try(name, without(i) || regexp_replace(definition, '(member|order_key|target_key|code)([,)])', '\1 text_pattern_ops\2')) FROM direct_indexes i
    WHERE cols ~ 'member|order_key|target_key|code';
SELECT try(name, without(i) || regexp_replace(definition, '(member|order_key|target_key|code)([,)])', '\1 COLLATE "POSIX"\2')) FROM direct_indexes i
    WHERE cols ~ 'member|order_key|target_key|code';
SELECT cmp_ok((SELECT count(*) FROM tried), '>', 100::bigint, 'changes of indexes are tried');
SELECT is_empty($$ SELECT relation, change, read FROM tried WHERE read NOT LIKE 'RB011 index "rebate_data.' || relation || '" is %' $$,
    'a reader is refused after each, and hears of the index');

-- the sequence that ids come from
TRUNCATE tried;
SELECT try('id', c) FROM unnest(ARRAY['ALTER SEQUENCE rebate_data.id INCREMENT BY 1', 'ALTER SEQUENCE rebate_data.id CYCLE', 'DROP SEQUENCE rebate_data.id',
    'ALTER SEQUENCE rebate_data.id AS integer MAXVALUE 2000000000', 'ALTER SEQUENCE rebate_data.id OWNER TO rebate_test_other',
    'DROP SEQUENCE rebate_data.id; CREATE TABLE rebate_data.id (x int)']) AS c;
SELECT is_empty($$ SELECT change, ordered, read FROM tried WHERE ordered NOT LIKE 'RB011 sequence "rebate_data.id" is %'
    OR read NOT LIKE 'RB011 sequence "rebate_data.id" is %' $$, 'a changed sequence is refused');

-- what does no harm: further columns and indexes, statistics, storage
TRUNCATE tried;
SELECT try(name, format('CREATE INDEX more ON %s (%s)', called, (SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = oid AND attnum = 1))) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('ALTER TABLE %s SET (autovacuum_enabled = off)', called)) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('ALTER TABLE %s ADD COLUMN note text', called)) FROM store_relations WHERE kind = 'r' AND name NOT IN ('account', 'accrual', 'entry', 'waiting', 'link', 'entry_archive', 'boundary', 'carried');
SELECT try(name, format('ALTER TABLE %s DISABLE TRIGGER ALL', called)) FROM store_relations WHERE kind = 'r';
SELECT try(name, format('CREATE TRIGGER t AFTER INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION other_trigger(); ALTER TABLE %1$s DISABLE TRIGGER t', called)) FROM store_relations WHERE kind = 'r';
SELECT is_empty($$ SELECT * FROM tried WHERE read <> 'went through' OR ordered <> 'went through' OR maturing <> 1500 $$, 'changes that do no harm are none');
TRUNCATE tried;
SELECT try(name, format('ALTER TABLE %s ADD COLUMN note text', called)) FROM store_relations WHERE name IN ('account', 'accrual', 'entry', 'waiting', 'link', 'entry_archive', 'boundary', 'carried');
SELECT is_empty($$ SELECT * FROM tried WHERE read NOT LIKE 'RB011 %' OR ordered NOT LIKE 'RB011 %' AND relation NOT IN ('entry_archive', 'boundary', 'carried') $$, 'but what is written as a structure has no further columns');

-- guards that are gone: the audit tells, adopting puts them back; of table store, it is nobody's store
BEGIN;
ALTER TABLE rebate_data.entry DISABLE TRIGGER rebate_guard;
ALTER TABLE rebate_data.account ENABLE REPLICA TRIGGER rebate_guard;
DROP TRIGGER rebate_guard ON rebate_data.campaign;
SELECT is(heard('INSERT INTO orders VALUES (3, ''alice'', 100)'), 'went through', 'a guard that is off stops no order');
SELECT set_eq($$ SELECT violation, subject FROM rebate.audit() $$,
    $$ SELECT 'direct changes are not guarded', unnest(ARRAY['table account', 'table campaign', 'table entry']) $$, 'the audit tells');
SELECT lives_ok('SELECT rebate.adopt_store()', 'adopting');
SELECT is_empty('SELECT * FROM rebate.audit()', 'puts them back');
SELECT throws_ok('DELETE FROM rebate_data.entry', 'RB009');
SELECT throws_ok('DELETE FROM rebate_data.account', 'RB009');
SELECT throws_ok('DELETE FROM rebate_data.campaign', 'RB009');
ROLLBACK;
BEGIN;
DROP TRIGGER rebate_guard ON rebate_data.store;
SELECT is(heard('INSERT INTO orders VALUES (3, ''alice'', 100)'), 'RB001 schema "rebate_data" holds a store without our guards', 'without that of table store no order is taken');
SELECT is(heard('SELECT * FROM rebate.statement(''alice'')'), 'RB001 schema "rebate_data" holds a store without our guards', 'nor is anything read');
SELECT lives_ok('SELECT rebate.adopt_store()', 'until it is adopted');
SELECT is(heard('INSERT INTO orders VALUES (3, ''alice'', 100)'), 'went through', 'then orders go on');
SELECT is_empty('SELECT * FROM rebate.audit()', 'and nothing is missing');
ROLLBACK;

SELECT is(heard('INSERT INTO orders VALUES (3, ''alice'', 100)'), 'went through', 'after all that was undone, the next order');
SELECT results_eq('SELECT maturing FROM rebate.balances', 'VALUES (15.00)', 'is posted');
SELECT is_empty('SELECT * FROM rebate.audit()', 'and the audit is clean');
SELECT * FROM finish();
