# Sessions write orders while the server is killed, again and again. After each recovery every committed order has its
# rebate, and there is no other.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Processes;
use Test::More;
use IPC::Run ();
use Time::HiRes qw(usleep);

my $sessions = 4;
my $members  = 20;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf',
    "restart_after_crash = on\ncheckpoint_timeout = 30s\nmax_wal_size = 64MB\nautovacuum_naptime = 1s");
$node->start;
$node->safe_psql('postgres', q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL,
        refunded numeric(12,2) NOT NULL DEFAULT 0);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded');
    SELECT rebate.set_rule('five', percent => 5);
});

# What a session does: single inserts; transactions that insert, refund and delete orders of its own, with a savepoint
# rolled back; each number on its output is an order that was confirmed as committed.
sub write_script
{
    my ($round, $session) = @_;
    my $file = PostgreSQL::Test::Utils::tempdir . "/orders-$round-$session.sql";
    my $first = ($round * $sessions + $session) * 100_000 + 1;
    my $sql   = sprintf "SET rebate.posting = %s;\n", $session % 2 ? 'statement' : 'commit';

    for my $i (0 .. 9_999)
    {
        my $id     = $first + $i * 3;
        my $member = sprintf 'm%d', ($i * 7 + $session) % $members;
        my $total  = sprintf '%.2f', 1 + ($i * 37 % 9_973) / 100;

        if ($i % 3 == 0)
        {
            # Of one member: posting at each statement, transactions over several could deadlock.
            $sql .= "BEGIN;\n"
              . "INSERT INTO orders VALUES ($id, '$member', $total), ($id + 1, '$member', $total);\n"
              . "SAVEPOINT s;\nUPDATE orders SET total = total * 2 WHERE id = $id;\nROLLBACK TO s;\n"
              . "UPDATE orders SET refunded = 0.50 WHERE id = $id;\n"
              . "DELETE FROM orders WHERE id = $id + 1;\nCOMMIT;\n\\echo $id\n";
        }
        else
        {
            $sql .= "INSERT INTO orders VALUES ($id, '$member', $total);\n\\echo $id\n";
        }
    }
    append_to_file($file, $sql);
    return $file;
}

sub processes
{
    my ($condition) = @_;
    return split /\n/, $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE $condition");
}

sub check
{
    my ($what, @confirmed) = @_;
    my $orders = $node->safe_psql('postgres', 'SELECT count(*) FROM orders');

    cmp_ok($orders, '>=', scalar @confirmed, "$what: $orders orders are there");
    is( $node->safe_psql('postgres',
            'SELECT count(*) FROM unnest($${' . join(',', @confirmed) . '}$$::int[]) id'
              . ' WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = id.id)'),
        0, "$what: no confirmed order was lost");
    is( $node->safe_psql('postgres', q{
            SELECT count(*) FROM orders o
            FULL JOIN (SELECT * FROM rebate.accruals WHERE earned <> 0) a
                ON a.order_key = o.id::text AND a.member = o.customer
            WHERE a.earned IS DISTINCT FROM round(round(o.total * 0.05, 10) * (o.total - o.refunded) / o.total, 2)}),
        0, "$what: each has its rebate, and there is no other");
    is( $node->safe_psql('postgres',
            q{SELECT (SELECT sum(available) FROM rebate.balances) = (SELECT sum(earned) FROM rebate.accruals)}),
        't', "$what: balances are the sum of the rebates");
    is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit() LIMIT 5'), '', "$what: the audit is clean");
    return;
}

my @confirmed;
my $round = 0;
foreach my $how ('backend killed', 'all killed', 'immediate stop', 'all killed again')
{
    my (@runs, @outputs);
    my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM orders');

    for my $session (0 .. $sessions - 1)
    {
        my $output = '';
        push @outputs, \$output;
        push @runs,
          IPC::Run::start(
            [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f',
                write_script($round, $session) ],
            '<', \'', '>', $outputs[-1], '2>', \my $errors);
    }
    $node->poll_query_until('postgres', "SELECT count(*) >= $before + 1000 FROM orders")
      or die 'the sessions write no orders';
    usleep(int(rand(300_000)));

    my @backends = processes(q{backend_type = 'client backend' AND pid <> pg_backend_pid()});
    cmp_ok(scalar @backends, '>', 0, "$how: sessions are writing");

    if ($how eq 'backend killed')
    {
        kill 'KILL', $backends[0];
    }
    elsif ($how eq 'immediate stop')
    {
        $node->stop('immediate');
    }
    else
    {
        kill_server($node);
    }
    $_->finish foreach @runs;
    push @confirmed, map { split /\n/, $$_ } @outputs;

    if ($how eq 'backend killed')
    {
        $node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
    }
    else
    {
        $node->start;
    }
    check($how, @confirmed);
    $round++;
}

# And it goes on.
$node->safe_psql('postgres', q{INSERT INTO orders VALUES (0, 'm0', 100)});
check('afterwards', @confirmed);
$node->stop;
done_testing();
