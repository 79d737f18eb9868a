# What makes a store a sandbox: it lasts through dump and restore and DROP EXTENSION, and does not come to a store that is
# none. reset() under orders that go on, and the worker after it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use IPC::Run ();
use Listener;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'");
$node->start;

my $kind = q{SELECT version FROM rebate.versions() WHERE part = 'store'};

sub shop
{
    my ($db, $create) = @_;

    $node->safe_psql('postgres', "CREATE DATABASE $db");
    $node->safe_psql(
        $db, qq{
        SET client_min_messages = warning;
        CREATE EXTENSION rebate;
        $create;
        CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2));
        SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
        SELECT rebate.set_rule('five', percent => 5);
        INSERT INTO orders SELECT i, 'm' || i % 3, 100 FROM generate_series(1, 10) i});
    return;
}

shop('sandbox', 'SELECT rebate.create_store(sandbox => true)');
shop('real', 'SELECT rebate.create_store()');

# dumps
for my $db ('sandbox', 'real')
{
    my $file = $PostgreSQL::Test::Utils::tmp_check . "/$db.dump";
    my $was = $node->safe_psql($db, $kind);

    $node->command_ok([ 'pg_dump', '-Fc', '-f', $file, '-d', $node->connstr($db) ], "pg_dump of $db");
    $node->safe_psql('postgres', "CREATE DATABASE ${db}_copy");
    $node->command_ok([ 'pg_restore', '-d', $node->connstr("${db}_copy"), $file ], 'and pg_restore');
    is($node->safe_psql("${db}_copy", $kind), $was, "a copy of $db is what it was");
    like($was, $db eq 'sandbox' ? qr/^\d+, sandbox$/ : qr/^\d+$/, 'as it was made');
}
is($node->safe_psql('sandbox_copy', 'SELECT rebate.reset()'), '10', 'the copy of a sandbox can be reset');
is($node->safe_psql('sandbox_copy', 'SELECT count(*) FROM rebate.accruals'), '0', 'and is empty then');
is($node->safe_psql('sandbox_copy', 'SELECT * FROM rebate.audit()'), '', 'with a clean audit');
my (undef, undef, $errors) = $node->psql('real_copy', 'SELECT rebate.reset()');
like($errors, qr/is for sandboxes, and this store is none/, 'the copy of another store cannot');
is($node->safe_psql('real_copy', 'SELECT count(*), sum(earned) FROM rebate.accruals'), '10|50.00', 'and keeps its money');

# without its rows it begins anew, as no sandbox
$node->safe_psql('postgres', 'CREATE DATABASE empty_copy');
{
    my $file = $PostgreSQL::Test::Utils::tmp_check . '/schema.dump';
    $node->command_ok([ 'pg_dump', '-Fc', '-s', '-f', $file, '-d', $node->connstr('sandbox') ], 'pg_dump without rows');
    $node->command_ok([ 'pg_restore', '-d', $node->connstr('empty_copy'), $file ], 'and pg_restore');
    $node->safe_psql('empty_copy', 'SELECT rebate.adopt_store()');
    unlike($node->safe_psql('empty_copy', $kind), qr/sandbox/, 'a store that begins anew is no sandbox');
}

# reset while orders come: whatever comes between, the ledger is whole, and each order has one rebate or none
{
    my $insert = $PostgreSQL::Test::Utils::tmp_check . '/insert.sql';
    append_to_file($insert, "INSERT INTO orders VALUES (nextval('n'), 'm' || :client_id, 100);\n");
    $node->safe_psql('sandbox', 'CREATE SEQUENCE n START 1000');
    my $pgbench = IPC::Run::start(
        [ 'pgbench', '-n', '-f', $insert, '-c', '3', '-t', '300', '-d', $node->connstr('sandbox') ],
        '>' => \my $out, '2>' => \my $err);
    my $resets = 0;
    for my $i (1 .. 12)
    {
        my ($rc) = $node->psql('sandbox', sprintf 'SELECT rebate.reset(replay => %s)', $i % 2 ? 'true' : 'false');
        $resets++ if $rc == 0;
    }
    $pgbench->finish;
    is($pgbench->result(0), 0, 'no order fails under resets') or diag($err);
    cmp_ok($resets, '>', 0, "and resets come through ($resets of 12)");
    is($node->safe_psql('sandbox', 'SELECT count(*) FROM orders'), '910', 'all orders are there');
    is($node->safe_psql('sandbox', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
    is($node->safe_psql('sandbox', 'SELECT count(*) FROM rebate.decisions'), '910', 'each order has one decision');
    $node->safe_psql('sandbox', 'SELECT rebate.reset(replay => true)');
    is($node->safe_psql('sandbox', 'SELECT count(*), sum(earned) FROM rebate.accruals'), '910|4550.00', 'replayed, each has its rebate');
    is($node->safe_psql('sandbox', 'SELECT sum(available) FROM rebate.balances'), '4550.00', 'and the members have them');
}

# the worker tells of the new ledger
{
    my $cursor = $node->safe_psql('sandbox', 'SELECT rebate.feed_cursor()');
    $node->safe_psql('sandbox', 'SELECT rebate.reset()');
    my $listener = listener($node, 'sandbox', 'rebate');
    $node->safe_psql('sandbox', q{INSERT INTO orders VALUES (2000, 'new', 100)});
    is_announced($listener, 2, 'new', 'a new account after a reset');
    close_listener($listener);
    my (undef, undef, $refused) = $node->psql('sandbox', "SELECT * FROM rebate.feed('$cursor')");
    like($refused, qr/of another history/, 'cursors of before are refused');
}

$node->stop;
done_testing();
