# The clock of the machine is set while the server runs: the worker goes on looking, and the doctor tells of a transaction
# that is open for long.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use Listener;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $dir = PostgreSQL::Test::Utils::tempdir;

sub set_clock
{
    my ($seconds) = @_;
    # In one step, since the server reads it all the time.
    append_to_file("$dir/clock.new", $seconds);
    rename "$dir/clock.new", "$dir/clock" or die "rename: $!";
    return;
}

set_clock(0);
system_or_bail($ENV{CC} || 'cc', '-O1', '-shared', '-fPIC', '-Wall', '-o', "$dir/set_clock.so", "$FindBin::RealBin/../fault/set_clock.c", '-ldl');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'\nautovacuum = off\n");
{
    local $ENV{LD_PRELOAD}   = "$dir/set_clock.so";
    local $ENV{REBATE_CLOCK} = "$dir/clock";
    $node->start;
}
$node->safe_psql('postgres', q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
    SELECT rebate.set_rule('ten', percent => 10);
});

sub order { my ($customer) = @_; return $node->safe_psql('postgres', "INSERT INTO orders (customer, total) VALUES ('$customer', 100)"); }

# --- the worker --------------------------------------------------------------------------------------------------------------

my $l = listener($node, 'postgres', 'rebate');
order('before');
is_announced($l, 3, '%', 'an order');
my $now = $node->safe_psql('postgres', 'SELECT extract(epoch FROM now())');
set_clock(-3600);
cmp_ok($node->safe_psql('postgres', 'SELECT extract(epoch FROM now())'), '<', $now - 3000, 'the clock goes back');
foreach my $time (1, 2)
{
    my $sweeps = $node->safe_psql('postgres', 'SELECT sweeps FROM rebate.delivery_status');
    order("back$time");
    ok($node->poll_query_until('postgres', "SELECT sweeps > $sweeps FROM rebate.delivery_status"), 'the worker looks');
}
is_announced($l, 3, '%', 'orders of then');
is($node->safe_psql('postgres', 'SELECT lag >= interval \'0\' FROM rebate.delivery_status'), 't', 'no lag is negative');
set_clock(0);
order('again');
is_announced($l, 3, '%', 'and when it is right again');
close_listener($l);

# --- a transaction that is open for long ---------------------------------------------------------------------------------------

my $look = q{SELECT status, detail FROM rebate.doctor() WHERE "check" = 'open transactions'};
my $open = { in => "BEGIN; INSERT INTO orders (customer, total) VALUES ('open', 100); SELECT rebate.flush();\n\\echo open\n", out => '', err => '' };
$open->{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \$open->{in}, '>', \$open->{out}, '2>', \$open->{err},
    IPC::Run::timeout(2 * $limit));
$open->{run}->pump until $open->{out} =~ /open/;
is($node->safe_psql('postgres', $look), 'ok|', 'a transaction that has just begun is fine');
set_clock(2 * 3600);
like($node->safe_psql('postgres', $look),
    qr/^problem\|a transaction of \w+ is open since [-\d: ]+ UTC, idle in transaction: dead rows stay, cursors of rebate\.feed carry it along, its members /,
    'after two hours it is told');
like($node->safe_psql('template1', 'SELECT 1'), qr/1/, 'the server goes on');
$node->safe_psql('postgres', 'CREATE ROLE watcher; SELECT rebate.grant_right(\'operator\', \'watcher\')');
is($node->safe_psql('postgres', "SET ROLE watcher; $look"), 'ok|', 'who may not see when others began sees none');
is($node->safe_psql('postgres', "GRANT pg_read_all_stats TO watcher; SET ROLE watcher; SELECT status FROM rebate.doctor() WHERE \"check\" = 'open transactions'"),
    'problem', 'who may sees it');
$node->safe_psql('postgres', $node->safe_psql('postgres', q{SELECT remedy FROM rebate.doctor() WHERE "check" = 'open transactions'}));
ok($node->poll_query_until('postgres', qq{SELECT status = 'ok' FROM rebate.doctor() WHERE "check" = 'open transactions'}), 'the remedy ends it');
eval { $open->{run}->finish };
is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
done_testing();
