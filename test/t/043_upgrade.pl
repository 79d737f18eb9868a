# From the release before to this one: its install script, which is frozen, with the library of now. A shop with all that
# a store can hold goes on taking orders while the extension and then the store are brought up. Afterwards they are the
# same as new ones, and the ledger is what it was.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Shape;
use Test::More;
use IPC::Run ();

my ($version) = slurp_file('Makefile') =~ /^EXTVERSION\s*=\s*(\S+)/m;
my ($previous) = slurp_file('Makefile') =~ /^PREVIOUS\s*=\s*(\S+)/m;
my ($store_version) = slurp_file('extension/store.h') =~ /^#define STORE_VERSION\s+(\d+)/m;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "max_prepared_transactions = 5\n");
$node->start;

sub sql { my ($sql, $database) = @_; return $node->safe_psql($database // 'postgres', $sql); }
sub errors { my ($sql) = @_; return ($node->psql('postgres', $sql))[2]; }

# Orders that wait for reconcile() are part of the shop.
sub audit { return sql(q{SELECT * FROM rebate.audit() WHERE violation <> 'orders are deferred'}); }

# --- a shop of the release before -------------------------------------------------------------------------------------

sql(qq{
    CREATE ROLE app LOGIN;
    CREATE ROLE reader LOGIN;
    CREATE ROLE intruder LOGIN;
    CREATE ROLE clock LOGIN;
    SET client_min_messages = warning;
    CREATE EXTENSION rebate VERSION '$previous';
    SELECT rebate.create_store();
    GRANT rebate_owner TO clock;
    GRANT SELECT ON rebate.balances TO reader;
    GRANT EXECUTE ON FUNCTION rebate.events_cursor(text) TO reader;
    SELECT rebate.set_programme('Europe/Berlin');
    SELECT rebate.add_currency('POINTS', 0);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer text, total numeric(12,2), refunded numeric(12,2) NOT NULL DEFAULT 0,
        status text NOT NULL DEFAULT 'paid', at timestamptz NOT NULL DEFAULT now(), original bigint, part_of bigint);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded', status => 'status', order_time => 'at',
        phases => '{"new": "tracked", "paid": "pending", "done": "confirmed", "off": "void"}', original => '{original}', replaces => '{part_of}', since => '-infinity', max_backdate => NULL);
    CREATE TABLE sales (day date, id bigint, customer text, total numeric(12,2), PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
    CREATE TABLE sales_1 PARTITION OF sales FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE sales_2 PARTITION OF sales FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
    SELECT rebate.attach('sales', 'customer', 'total', 'EUR');
    CREATE TABLE copies (id bigint PRIMARY KEY, customer text, total numeric(12,2));
    SELECT rebate.attach('copies', 'customer', 'total', 'POINTS', row_triggers => true);
    SELECT rebate.set_group('one', 'best');
    SELECT rebate.set_rule('three', percent => 3, rule_group => 'one', valid_from => '2020-01-01');
    SELECT rebate.set_rule('fixed', fixed => 0.50, currency => 'EUR', minimum => 20, rule_group => 'one', valid_from => '2020-01-01');
    SELECT rebate.set_rule('held', percent => 1, hold => '14 days', condition => 'total > 50', source => 'orders', valid_from => '2020-01-01');
    SELECT rebate.set_rule('ended', percent => 2, valid_from => '2020-01-01');
    SELECT rebate.end_rule('ended');
    CREATE FUNCTION half(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql RETURN $1 / 2;
    CREATE FUNCTION other(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql RETURN $1 / 3;
    SELECT rebate.allow_function('half(numeric)'), rebate.allow_function('other(numeric)');
    CREATE OR REPLACE FUNCTION other(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql RETURN $1 * 3;
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders, sales, copies TO app;
    SELECT rebate.set_ageing('orders', auto_confirm_after => '30 days');
});

# orders of all kinds, by whoever takes them
my $made = 0;

sub orders_of_all_kinds
{
    my $base = 1000 * ++$made;
    sql(qq{
        SET ROLE app;
        INSERT INTO orders (id, customer, total, status, at) SELECT $base + i, 'm' || i % 7, i * 3.33,
            (ARRAY['new', 'paid', 'done'])[i % 3 + 1], now() - i * interval '1 day' FROM generate_series(1, 60) i;
        UPDATE orders SET status = 'done' WHERE id BETWEEN $base + 1 AND $base + 20;
        UPDATE orders SET refunded = round(total / 3, 2) WHERE id BETWEEN $base + 10 AND $base + 25;
        UPDATE orders SET status = 'off' WHERE id = $base + 30;
        INSERT INTO orders (id, customer, total, status, original) VALUES ($base + 101, 'm3', -10, 'done', $base + 3);
        INSERT INTO orders (id, customer, total, status, part_of) VALUES ($base + 102, 'm4', 20, 'done', $base + 4);
        DELETE FROM orders WHERE id = $base + 40;
        INSERT INTO orders (id, customer, total, status) VALUES ($base + 103, 'm5', 10, 'unheard of'), ($base + 104, NULL, 10, 'done');
        INSERT INTO sales SELECT date '2026-03-01' + i, $base + i, 'm' || i % 5, 100 FROM generate_series(0, 200, 20) i;
        INSERT INTO copies SELECT $base + i, 'm' || i, 1000 FROM generate_series(1, 5) i});
    sql(qq{SELECT rebate.freeze('orders', '${\($base + 5)}', 'dispute'); SELECT rebate.freeze('orders', '${\($base + 6)}', 'review');
        SELECT rebate.unfreeze('orders', '${\($base + 6)}', 'review')});
    sql(qq{SET rebate.mode = defer; SET ROLE app; INSERT INTO orders (id, customer, total) SELECT $base + i, 'm2', 100 FROM generate_series(200, 205) i});
    sql(qq{BEGIN; INSERT INTO orders (id, customer, total) VALUES ($base + 300, 'm6', 100); PREPARE TRANSACTION 'p$base'; COMMIT PREPARED 'p$base'});
    return;
}

orders_of_all_kinds();
sql('CALL rebate.mature(); CALL rebate.age(); CALL rebate.fold(); CALL rebate.retry_failures(); CALL rebate.run_audit()');
is(sql('SELECT version FROM rebate.versions() ORDER BY part'), "$previous\n$version\n1", 'SQL and store of the release before, library of this one');
is(audit(), '', 'all is well before');

# All that the store says of members whom nobody touches meanwhile, to compare before and after a step: in the columns
# that it had before.
my %quiet = (
    'rebate.balances' => q{member LIKE 'm%'},
    'rebate_data.account' => q{member LIKE 'm%'},
    'rebate_data.accrual' => q{order_key !~ '^1......$'},
    'rebate_data.waiting' => q{account_id IN (SELECT account_id FROM rebate_data.account WHERE member LIKE 'm%')},
    map { $_ => 'true' } qw(rebate.failures rebate.freezes rebate.sources rebate.rule_versions rebate_data.deferred rebate_data.link),
);
my %columns;

sub columns_of
{
    my ($relation) = @_;
    return $columns{$relation} //= sql("SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '$relation'::regclass AND attnum > 0");
}

sub standing { return { map { $_ => sql('SELECT ' . columns_of($_) . " FROM $_ WHERE $quiet{$_} ORDER BY 1, 2, 3") } keys %quiet } }

sub changed
{
    my ($old, $new) = @_;
    return join '', map { my $d = difference($new->{$_}, $old->{$_}); $d && "$_:\n$d" } sort keys %$old;
}

sql('CREATE TABLE ledger_before AS SELECT * FROM rebate_data.ledger');
my $columns = columns_of('ledger_before');

# --- upgraded while orders come in ------------------------------------------------------------------------------------

# Orders of its own members by a session that stays, one transaction each, until it is told to stop.
my %shop = (in => '', out => '', errors => '');
$shop{run} = IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') . ' user=app' ], '<', \$shop{in}, '>', \$shop{out}, '2>', \$shop{errors});
my $sent = 0;

sub send_orders
{
    my ($n) = @_;
    for (1 .. $n)
    {
        my $id = 1_000_000 + ++$sent;
        $shop{in} .= "INSERT INTO orders (id, customer, total, status) VALUES ($id, 'busy' || $id % 3, 100, 'done');\n";
        $shop{in} .= "UPDATE orders SET refunded = 50 WHERE id = $id;\n" if $sent % 4 == 0;
    }
    $shop{in} .= "\\echo at $sent\n";
    $shop{run}->pump_nb;
    return;
}

# Until it has taken all that was sent
sub catch_up
{
    my ($what) = @_;
    $shop{run}->pump until $shop{out} =~ /at $sent\n/ || $shop{errors};
    is($shop{errors}, '', "orders come in: $what");
    is(sql(q{SELECT count(*) FROM orders o WHERE customer LIKE 'busy%' AND (SELECT sum(earned) FROM rebate.accruals a WHERE a.order_key = o.id::text AND a.source = 'public.orders')
            IS DISTINCT FROM CASE WHEN refunded = 0 THEN 3 + 1 ELSE 1.5 + 0.5 END}), 0, 'and earn what they should');
    return;
}

# What the trial balance and the entries say otherwise
sub wrong_balances
{
    return sql(q{
        SELECT code, currency, t.balance, e.balance FROM (SELECT code, currency, balance FROM rebate.trial_balance WHERE balance <> 0) t
        FULL JOIN (SELECT code, currency, sum(amount) AS balance
                   FROM (SELECT debit AS code, currency, amount FROM rebate.entries UNION ALL SELECT credit, currency, - amount FROM rebate.entries) e
                   GROUP BY 1, 2 HAVING sum(amount) <> 0) e USING (code, currency)
        WHERE t.balance IS DISTINCT FROM e.balance});
}

# Run a statement while orders come in; they do not wait for it.
sub meanwhile
{
    my ($what, $code) = @_;
    send_orders(200);
    $code->();
    send_orders(50);
    catch_up($what);
    return;
}

meanwhile('before', sub { });

# what whoever updates grants by default is on none of the new functions
sql(q{ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON ROUTINES TO intruder; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO intruder});
my $standing = standing();
meanwhile('ALTER EXTENSION UPDATE', sub { sql('ALTER EXTENSION rebate UPDATE') });
is(changed($standing, standing()), '', 'ALTER EXTENSION UPDATE changes nothing in the store');
is(sql('SELECT version FROM rebate.versions() ORDER BY part'), "$version\n$version\n1", 'the SQL is of this release');
is(sql(q{SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'rebate'::regnamespace AND has_function_privilege('intruder', oid, 'EXECUTE')}), '', 'default privileges give nobody a function');
is(sql(q{SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'rebate'::regnamespace AND proname !~ '^store_' AND NOT has_function_privilege('rebate_owner', oid, 'EXECUTE')}), '',
    'the owner can use all functions, before the store is upgraded');
is(sql(q{SELECT has_table_privilege('reader', 'rebate.balances', 'SELECT'), has_function_privilege('reader', 'rebate.events_cursor(text)', 'EXECUTE')}), 't|t', 'what was granted to others is theirs');
orders_of_all_kinds();
foreach my $job (qw(mature age fold retry_failures run_audit prune)) { sql("SET ROLE clock; CALL rebate.$job()"); }
is(audit(), '', 'new SQL and old store: the audit is clean');
is(sql(q{SELECT count(*) FROM rebate_data.fold WHERE xid > 0}) . wrong_balances(), 1, 'house accounts are folded, and the trial balance is what the entries give');
is(sql(q{SELECT count(*) > 0 FROM rebate.feed(NULL, 10)}), 't', 'there is a feed');
sql(q{SELECT * FROM rebate.statement('m1'); SELECT * FROM rebate.balance('m1', at => now()); SELECT * FROM rebate.explain('orders', '1001'); SELECT * FROM rebate.doctor(true);
    SELECT rebate.events('m1'); SELECT * FROM rebate.retry(); SELECT rebate.set_rule('three', percent => 3, rule_group => 'one', valid_from => '2020-01-01')});

like(errors('CALL rebate.archive(now())'), qr/rebate\.upgrade_store\(\)/, 'what needs the new store refuses, and says what to call');

# one that is cancelled leaves the store as it was, and does no harm to orders
my %holder = (in => "BEGIN; SET ROLE rebate_owner; LOCK TABLE rebate_data.store IN SHARE MODE;\n\\echo held\n", out => '', errors => '');
$holder{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \$holder{in}, '>', \$holder{out}, '2>', \$holder{errors});
$holder{run}->pump until $holder{out} =~ /held/;
meanwhile('an upgrade of the store that is cancelled', sub {
        like(errors(q{SET statement_timeout = '2s'; SELECT rebate.upgrade_store()}), qr/canceling statement due to statement timeout/, 'upgrade_store() is cancelled') });
is(sql(q{SELECT version FROM rebate.versions() WHERE part = 'store'}), 1, 'the store is the old one');
$holder{in} .= "ROLLBACK;\n\\q\n";
$holder{run}->finish;
$standing = standing();
meanwhile('rebate.upgrade_store()', sub { is(sql('SET ROLE clock; SELECT rebate.upgrade_store()'), $store_version, 'rebate.upgrade_store(), by a member of the owner') });
is(changed($standing, standing()), '', 'and it moves no money');
is(sql(q{SELECT function || ' ' || (digest IS NOT NULL) FROM rebate_data.allowed_function ORDER BY function}),
    "public.half(numeric) true\npublic.other(numeric) false", 'allowed functions have a digest, but for one that is not as it was');

is(wrong_balances(), '', 'the trial balance, of which nothing is folded yet');
sql('SET ROLE clock; CALL rebate.fold()');
is(sql(q{SELECT count(*) > 5 FROM rebate_data.checkpoint}) . wrong_balances(), 't', 'and once it is folded');

# --- the ledger is what it was, the rest is as if it were new ----------------------------------------------------------

orders_of_all_kinds();
is(audit(), '', 'new SQL and new store: the audit is clean');
sql(q{SET ROLE clock; CALL rebate.archive(now() + interval '1 minute')});
is(sql('SELECT count(*) > 0 FROM rebate_data.entry_archive') . audit(), 't', 'old entries are archived, and the audit is clean');
is(sql("SELECT count(*) FROM (SELECT $columns FROM ledger_before EXCEPT SELECT $columns FROM rebate_data.ledger) e"), 0, 'all entries of before are there as they were');
is(sql('SELECT count(*) > 300 FROM ledger_before'), 't', 'which are many');
$shop{in} .= "\\q\n";
$shop{run}->finish;
is(sql(q{SELECT rebate.reconcile('orders', deferred_only => true)}), 18, 'what was deferred is caught up with');
is(sql('SELECT * FROM rebate.audit()'), '', 'nothing is left');

sql('CREATE DATABASE fresh TEMPLATE template0');
sql('SET client_min_messages = warning; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON ROUTINES TO intruder; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO intruder;
    CREATE EXTENSION rebate; SELECT rebate.create_store(); SELECT rebate.add_currency(\'POINTS\', 0)', 'fresh');
sql('REVOKE ALL ON rebate.balances FROM reader; REVOKE ALL ON FUNCTION rebate.events_cursor(text) FROM reader');
my ($updated, $fresh) = (shapes($node, 'postgres'), shapes($node, 'fresh'));
is(difference($updated->{$_}, $fresh->{$_}), '', "updated and new are the same: $_") foreach sort keys %$fresh;

$node->stop;
done_testing();
