# DROP EXTENSION, with CASCADE too, takes no table, column, sequence or row; orders go on; adopt_store() takes the store
# over and catches up; a store or a schema that somebody planted is refused.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;

# One value, or the SQLSTATE.
sub ask
{
    my ($sql, $user) = @_;
    my ($status, $out, $errors) =
      $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=sqlstate', $user ? ('-U', $user) : () ]);

    return $out if $status == 0;
    return $errors =~ /ERROR:\s+(\w+)/ ? $1 : $errors;
}

# The error, with detail and hint.
sub error
{
    my ($sql) = @_;
    my (undef, undef, $errors) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
    return $errors;
}

# Every relation of user and store, none of the extension, with its columns, and its rows where it has any.
sub contents
{
    return $node->safe_psql('postgres', q{
        SELECT c.oid::regclass, c.relkind, (SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
            CASE WHEN relkind IN ('r', 'S') AND c.oid::regclass::text <> 'rebate_data.epoch'
                THEN md5(query_to_xml('SELECT * FROM ' || c.oid::regclass || CASE relkind WHEN 'S' THEN '' ELSE ' t ORDER BY t::text' END, true, true, '')::text) END
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE n.nspname IN ('public', 'rebate_data') OR n.nspname = 'rebate' AND relkind = 'v' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
        ORDER BY 1});
}

my $audit = q{SELECT * FROM rebate.audit() WHERE violation <> 'attached table is gone'};

$node->safe_psql('postgres', q{
    CREATE ROLE books LOGIN;
    CREATE ROLE mallory LOGIN;
    CREATE ROLE shop LOGIN;
    CREATE ROLE reader LOGIN;
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    SELECT rebate.create_store('books');
    CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2), refunded numeric(12,2) NOT NULL DEFAULT 0);
    CREATE TABLE others (id int PRIMARY KEY, customer text, total numeric(12,2));
    CREATE TABLE left_out (id int PRIMARY KEY, customer text, total numeric(12,2));
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded');
    SELECT rebate.attach('others', 'customer', 'total', 'EUR');
    SELECT rebate.attach('left_out', 'customer', 'total', 'EUR');
    SELECT rebate.detach('left_out');
    SELECT rebate.set_rule('five', percent => 5);
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO shop;
    INSERT INTO orders SELECT i, 'm' || i % 3, 100 + i FROM generate_series(1, 30) i;
    INSERT INTO others SELECT i, 'm' || i % 3, 100 + i FROM generate_series(1, 3) i});
my $mine = q{SELECT string_agg(order_key, ',' ORDER BY seq) FROM rebate.my_rebates WHERE source = 'public.orders' AND order_key::int <= 30};
$node->safe_psql('postgres', q{SELECT rebate.grant_right('member', 'reader'), rebate.map_login('reader', 'm1')});
my $read = ask($mine, 'reader');
is($read, join(',', map { 1 + 3 * $_ } 0 .. 9), 'a member reads his rebates');
my $channel = $node->safe_psql('postgres', q{SELECT rebate.channel('m1')});

# a session that sees it all
my ($in, $out) = ('', '');
my $session = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \my $session_errors);

sub in_session
{
    my ($sql) = @_;
    $out = '';
    $in  = "$sql;\n\\echo done\n";
    $session->pump until $out =~ /done\n/;
    return $out =~ s/done\n$//r;
}

in_session(q{INSERT INTO orders VALUES (31, 'm1', 100)});

# --- dropped ---------------------------------------------------------------------------------------------------------

my $before = contents();
is(ask('DROP EXTENSION rebate'), '2BP01', 'DROP EXTENSION is refused while something depends on it');
is(contents(), $before, 'and does nothing');
is(ask('SET client_min_messages = warning; DROP EXTENSION rebate CASCADE'), '', 'DROP EXTENSION CASCADE');
is(contents(), $before, 'takes no table, column, view, sequence or row');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal}), 0, 'but the triggers');
is(ask($mine, 'reader'), '42P01', 'and the views of members, which are over its functions');

# the gap: orders are inserted, refunded, deleted, by who has no other right
is(ask(q{INSERT INTO orders VALUES (32, 'm1', 1000); UPDATE orders SET refunded = total WHERE id = 1;
    UPDATE orders SET total = 500 WHERE id = 2; DELETE FROM orders WHERE id = 3}, 'shop'), '', 'orders go on');
is(in_session(q{INSERT INTO orders VALUES (33, 'm1', 1000); SELECT 'yes'}), "yes\n", 'in a session from before, too');
my $balances = $node->safe_psql('postgres', 'SELECT * FROM rebate.balances ORDER BY 1');

# --- adopted ---------------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE EXTENSION rebate');
is($node->safe_psql('postgres', 'SELECT * FROM rebate.balances ORDER BY 1'), $balances, 'CREATE EXTENSION changes nothing in it');
is(ask($_), 'RB001', "the store is not ours by itself: $_")
  foreach q{SELECT rebate.attach('orders', 'customer', 'total', 'EUR')}, 'SELECT rebate.create_store()', q{SELECT rebate.create_store('books')},
  q{SELECT rebate.set_rule('x', percent => 1)}, 'SELECT rebate.upgrade_store()';
like(error('SELECT rebate.create_store()'), qr/HINT: .*rebate\.adopt_store\('books'\)/, 'the hint says what to call');
is(ask('SELECT rebate.adopt_store()'), 'RB001', 'the owner is named on purpose');
is(ask(q{SELECT rebate.adopt_store('mallory')}), 'RB001', 'and it is the right one');
is(ask('SELECT rebate.adopt_store()', 'mallory'), '42501', 'not everybody may');
is(ask(q{BEGIN; SET client_min_messages = warning; SELECT rebate.adopt_store('books'); ROLLBACK}), 'books', 'adopted and rolled back');
is(ask(q{SELECT rebate.set_rule('x', percent => 1)}), 'RB001', 'it is not ours');
is(ask(q{SET client_min_messages = warning; SELECT rebate.adopt_store('books')}), 'books', 'adopted');
is(ask($audit), '', 'the gap is posted: the audit is clean');
is(ask($mine, 'reader'), $read, 'the member reads his rebates again');
is( $node->safe_psql('postgres', q{
        SELECT string_agg(order_key || ' ' || earned, ', ' ORDER BY order_key::int) FROM rebate.accruals
        WHERE source = 'public.orders' AND order_key IN ('1', '2', '3', '32', '33')}),
    '1 0.00, 2 25.00, 3 0.00, 32 50.00, 33 50.00', 'inserted, refunded, changed, deleted');
is($node->safe_psql('postgres', 'SELECT max(epoch) FROM rebate_data.epoch'), 1, 'the same history');
is(ask(q{INSERT INTO orders VALUES (34, 'm1', 1000); SELECT 'yes'}, 'shop'), 'yes', 'orders go on');
is(in_session(q{INSERT INTO orders VALUES (35, 'm1', 1000); SELECT earned FROM rebate.accruals WHERE order_key = '35'}), "50.00\n", 'and in a session from before');
is(ask('DELETE FROM rebate_data.account'), 'RB009', 'the ledger is guarded');
is(ask(q{SELECT rebate.balance('m0') IS NOT NULL}, 'books'), 't', 'its owner may use it');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'left_out'::regclass}), 0, 'what was detached stays so');
isnt($node->safe_psql('postgres', q{SELECT rebate.channel('m1')}), $channel, 'channels have new names');
is(ask(q{SELECT rebate.adopt_store()}), 'books', 'again it does nothing');
is(ask($audit), '', 'the audit is clean');

# tables that are gone or renamed
my (undef, undef, $errors) = $node->psql('postgres', q{
    SET client_min_messages = warning;
    DROP EXTENSION rebate CASCADE;
    DROP TABLE others;
    ALTER TABLE orders RENAME TO purchases;
    CREATE EXTENSION rebate;
    SELECT rebate.adopt_store('books')});
like($errors, qr/WARNING: +table public\.others stays without triggers\nDETAIL: +The table is gone/, 'a table that is gone is named');
like($errors, qr/WARNING: +table public\.orders stays without triggers\nDETAIL: +The table is now named public\.purchases/, 'and one that has another name');
is(ask(q{SET client_min_messages = warning; SELECT rebate.attach('purchases', 'customer', 'total', 'EUR', refunded => 'refunded')}), 'purchases', 'which is attached by hand');
$node->safe_psql('postgres', q{INSERT INTO purchases VALUES (36, 'm1', 1000)});
is($node->safe_psql('postgres', q{SELECT earned FROM rebate.accruals WHERE order_key = '36'}), '50.00', 'and goes on');

# DROP SCHEMA rebate takes the extension and the views
is(ask(q{SET client_min_messages = warning; DROP SCHEMA rebate CASCADE; INSERT INTO purchases VALUES (37, 'm1', 1000); CREATE EXTENSION rebate;
    SELECT rebate.adopt_store('books')}), 'books', 'DROP SCHEMA rebate CASCADE, then adopted');
is($node->safe_psql('postgres', q{SELECT earned FROM rebate.accruals WHERE order_key = '37'}), '50.00', 'the order between is posted');

# --- planted ---------------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', q{
    SET client_min_messages = warning;
    DROP EXTENSION rebate CASCADE;
    CREATE EXTENSION rebate;
    GRANT CREATE ON SCHEMA public TO mallory;
    SET ROLE mallory;
    CREATE TABLE public.loot (who text);
    CREATE FUNCTION public.steal() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN ALTER ROLE mallory SUPERUSER; RETURN NULL; END';
    CREATE FUNCTION public.steal(x int) RETURNS int LANGUAGE plpgsql AS
        'BEGIN ALTER ROLE mallory SUPERUSER; RETURN x; END';
    GRANT ALL ON public.loot TO PUBLIC});

# what is done, what the refusal names, how it is undone
my @damage = (
    [ 'a trigger', 'CREATE TRIGGER t BEFORE INSERT ON rebate_data.account EXECUTE FUNCTION public.steal()',
        'trigger t on rebate_data.account', 'DROP TRIGGER t ON rebate_data.account' ],
    [ 'a trigger with the name of ours', 'CREATE TRIGGER rebate_guard BEFORE INSERT ON rebate_data.entry EXECUTE FUNCTION public.steal()',
        'trigger rebate_guard on rebate_data.entry', 'DROP TRIGGER rebate_guard ON rebate_data.entry' ],
    [ 'a rule', q{CREATE RULE r AS ON INSERT TO rebate_data.failure DO ALSO INSERT INTO public.loot VALUES (current_user)},
        'rule r on rebate_data.failure', 'DROP RULE r ON rebate_data.failure' ],
    [ 'a policy', 'CREATE POLICY p ON rebate_data.source USING (public.steal(1) = 1)', 'policy p on rebate_data.source', 'DROP POLICY p ON rebate_data.source' ],
    [ 'row security', 'ALTER TABLE rebate_data.source ENABLE ROW LEVEL SECURITY', 'row security of rebate_data.source', 'ALTER TABLE rebate_data.source DISABLE ROW LEVEL SECURITY' ],
    [ 'a default', 'ALTER TABLE rebate_data.failure ALTER attempts SET DEFAULT public.steal(1)', 'default public.steal\(1\)',
        'ALTER TABLE rebate_data.failure ALTER attempts DROP DEFAULT' ],
    [ 'a generated column', 'ALTER TABLE rebate_data.failure ADD g int GENERATED ALWAYS AS (1) STORED', 'column g of failure', 'ALTER TABLE rebate_data.failure DROP g' ],
    [ 'a column more', 'ALTER TABLE rebate_data.scope ADD c int', 'not ours: column c of scope', 'ALTER TABLE rebate_data.scope DROP c' ],
    [ 'another type', 'ALTER TABLE rebate_data.house_entry ALTER leg TYPE int', 'missing: column leg of house_entry: smallint',
        'ALTER TABLE rebate_data.house_entry ALTER leg TYPE smallint' ],
    [ 'a check', 'ALTER TABLE rebate_data.account ADD CONSTRAINT c CHECK (public.steal(1) = 1) NOT VALID', 'constraint c of account', 'ALTER TABLE rebate_data.account DROP CONSTRAINT c' ],
    [ 'NULL allowed', 'ALTER TABLE rebate_data.entry ALTER amount DROP NOT NULL', 'column amount of entry', 'ALTER TABLE rebate_data.entry ALTER amount SET NOT NULL' ],
    [ 'no index', 'ALTER TABLE rebate_data.failure DROP CONSTRAINT failure_pkey', 'missing: .*failure_pkey', 'ALTER TABLE rebate_data.failure ADD PRIMARY KEY (source_id, order_key)' ],
    [ 'inheritance', 'CREATE TABLE public.child () INHERITS (rebate_data.failure)', 'inheritance of rebate_data.failure by public.child', 'DROP TABLE public.child' ],
    [ 'a foreign key', 'CREATE TABLE public.child (id int REFERENCES rebate_data.campaign ON DELETE CASCADE)', 'foreign key .* on rebate_data.campaign', 'DROP TABLE public.child' ],
    [ 'a view of somebody else', 'CREATE VIEW public.v AS SELECT * FROM rebate_data.account; ALTER VIEW public.v OWNER TO mallory',
        'view public.v of role mallory on rebate_data.account', 'DROP VIEW public.v' ],
    [ 'another owner', 'ALTER TABLE rebate_data.rule OWNER TO mallory', 'rebate_data.rule belongs to role mallory', 'ALTER TABLE rebate_data.rule OWNER TO books' ],
    [ 'a table more', 'CREATE TABLE rebate_data.more (a int); ALTER TABLE rebate_data.more OWNER TO books', 'not ours: table more', 'DROP TABLE rebate_data.more' ],
    [ 'a materialised view', 'CREATE MATERIALIZED VIEW rebate_data.more AS SELECT 1; ALTER MATERIALIZED VIEW rebate_data.more OWNER TO books', 'relation of kind m more', 'DROP MATERIALIZED VIEW rebate_data.more' ],
    [ 'an unlogged table', 'ALTER TABLE rebate_data.channel SET UNLOGGED', 'table channel, not logged', 'ALTER TABLE rebate_data.channel SET LOGGED' ],
    [ 'another sequence', 'ALTER SEQUENCE rebate_data.id INCREMENT 1', 'sequence id: bigint by 1', 'ALTER SEQUENCE rebate_data.id INCREMENT 64' ],
    [ 'another view of the ledger', 'CREATE OR REPLACE VIEW rebate_data.ledger AS ' . do {
            my $view = $node->safe_psql('postgres', q{SELECT pg_get_viewdef('rebate_data.ledger')});
            $view =~ s/SELECT accrual\.account_id/SELECT public.steal(1)::bigint AS account_id/ or die $view;
            $view;
        }, 'definition of view ledger', 'CREATE OR REPLACE VIEW rebate_data.ledger AS ' . $node->safe_psql('postgres', q{SELECT pg_get_viewdef('rebate_data.ledger')}) ],
    [ 'a view of ours that is not', 'DROP VIEW rebate.failures; CREATE VIEW rebate.failures AS SELECT 1 AS a; ALTER VIEW rebate.failures OWNER TO mallory',
        'rebate.failures belongs to role mallory', 'DROP VIEW rebate.failures' ],
    [ 'a trigger on a view of ours', 'CREATE TRIGGER t INSTEAD OF INSERT ON rebate.rules FOR EACH ROW EXECUTE FUNCTION public.steal()', 'trigger t on rebate.rules', 'DROP TRIGGER t ON rebate.rules' ],
);
foreach my $damage (@damage)
{
    my ($what, $do, $names, $undo) = @$damage;

    $node->safe_psql('postgres', "SET client_min_messages = warning; $do");
    my $text = error(q{SELECT rebate.adopt_store('books')});
    like($text, qr/ERROR: +RB011: +the store cannot be adopted.*DETAIL: .*$names/s, "refused: $what");
    $node->safe_psql('postgres', "SET client_min_messages = warning; $undo");
}
# and no table is left out
$node->safe_psql('postgres', q{
    CREATE TABLE passed (what text);
    DO $$ DECLARE t text; part int; said text; detail text; line text; BEGIN
        FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'rebate_data'::regnamespace AND relkind = 'r' LOOP
            FOR part IN 1 .. 2 LOOP
                said := 'adopted';
                BEGIN
                    IF part = 1 THEN
                        EXECUTE format('ALTER TABLE rebate_data.%I ADD more int', t);
                    ELSE
                        EXECUTE format('CREATE TRIGGER t BEFORE INSERT ON rebate_data.%1$I EXECUTE FUNCTION public.steal();
                            ALTER TABLE rebate_data.%1$I ENABLE ROW LEVEL SECURITY; ALTER TABLE rebate_data.%1$I OWNER TO mallory', t);
                    END IF;
                    PERFORM rebate.adopt_store('books');
                EXCEPTION WHEN OTHERS THEN
                    GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
                    said := said || ' ' || detail;
                END;
                -- what the version of a store is its owner reads
                CONTINUE WHEN part = 2 AND t = 'store' AND said LIKE 'permission denied for table store%';
                FOREACH line IN ARRAY CASE part WHEN 1 THEN ARRAY['column more of %1$s'] ELSE
                    ARRAY['trigger t on %2$s', 'row security of %2$s', '%2$s belongs to role mallory'] END LOOP
                    line := format(line, t, format('rebate_data.%I', t)::regclass);
                    IF strpos(said, line) = 0 THEN INSERT INTO passed VALUES (line || ': ' || said); END IF;
                END LOOP;
            END LOOP;
        END LOOP;
    END $$});
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relnamespace = 'rebate_data'::regnamespace AND relkind = 'r'}), '>', 25, 'there are many tables');
is($node->safe_psql('postgres', 'SELECT what FROM passed; DROP TABLE passed'), '', 'what is wrong with any of them is found');
is(ask(q{SET client_min_messages = warning; SELECT rebate.adopt_store('books')}), 'books', 'all undone: adopted');
is(ask($audit), '', 'the audit is clean');
$node->safe_psql('postgres', q{INSERT INTO purchases VALUES (38, 'm1', 1000)});
is($node->safe_psql('postgres', q{SELECT earned FROM rebate.accruals WHERE order_key = '38'}), '50.00', 'and orders go on');

# an index of the owner's own is no harm
is(ask(q{SET client_min_messages = warning; DROP EXTENSION rebate CASCADE; CREATE INDEX own ON rebate_data.account (opened_at); CREATE EXTENSION rebate;
    SELECT rebate.adopt_store('books')}), 'books', 'with an index more: adopted');

# a whole schema
$node->safe_psql('postgres', q{
    SET client_min_messages = warning;
    DROP EXTENSION rebate CASCADE; DROP SCHEMA rebate CASCADE; DROP SCHEMA rebate_data CASCADE;
    GRANT CREATE ON DATABASE postgres TO mallory});
$node->safe_psql('postgres', 'CREATE SCHEMA rebate; CREATE FUNCTION rebate.guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$',
    extra_params => [ '-U', 'mallory' ]);
is(ask('CREATE EXTENSION rebate'), '42501', 'a schema rebate of somebody else is refused');
$node->safe_psql('postgres', 'DROP SCHEMA rebate CASCADE');
$node->safe_psql('postgres', q{
    CREATE SCHEMA rebate_data;
    CREATE VIEW rebate_data.store AS SELECT true AS one, public.steal(1) AS store_version, 1 AS compatible_with}, extra_params => [ '-U', 'mallory' ]);
$node->safe_psql('postgres', 'CREATE EXTENSION rebate');
isnt(ask($_), '', "a planted store is refused: $_")
  foreach 'SELECT rebate.create_store()', 'SELECT rebate.adopt_store()', q{SELECT rebate.adopt_store('mallory')}, 'SELECT * FROM rebate.versions()';
$node->safe_psql('postgres', q{CREATE TABLE one (id int PRIMARY KEY, c text, t numeric)});
isnt(ask(q{SELECT rebate.attach('one', 'c', 't', 'EUR')}), 'one', 'and nothing is attached to it');
is($node->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}), 'f', 'nobody ran what was planted');

$session->finish;
$node->stop;
done_testing();
