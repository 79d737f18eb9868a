# The archive is killed in the middle, again and again, while orders come in: each entry is there once, and nothing of
# the ledger changes. Then a run that ends moves the rest.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Processes;
use Test::More;
use IPC::Run ();
use Time::HiRes qw(time usleep);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nautovacuum_naptime = 1s\nrebate.clock_batch_time = 0");
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'");
$node->start;
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sql(q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer text, total numeric(12,2), status text NOT NULL DEFAULT 'new');
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', status => 'status', phases => '{"new": "tracked", "paid": "pending", "done": "confirmed", "off": "void"}');
    SELECT rebate.set_rule('five', percent => 5);
    INSERT INTO orders (customer, total) SELECT 'm' || i % 200, 10 FROM generate_series(1, 4000) i});
sql(q{UPDATE orders SET status = 'paid'});
sql(q{UPDATE orders SET status = 'done'});
sql(q{CREATE TABLE before AS SELECT * FROM rebate_data.ledger});
my $cut = sql('SELECT clock_timestamp()');
my $entries = sql('SELECT count(*) FROM rebate_data.entry');
my $state = q{SELECT (SELECT count(*) FROM rebate_data.entry_archive) || ' ' || (SELECT count(*) FROM rebate_data.boundary)};

sub check
{
    my ($what) = @_;
    is(sql(q{SELECT count(*) FROM (SELECT * FROM before EXCEPT SELECT * FROM rebate_data.ledger) d}), 0, "$what: all entries are as they were");
    is(sql(q{SELECT count(*) - count(DISTINCT (account_id, seq)) FROM rebate_data.ledger}), 0, "$what: each is there once");
    is(sql('SELECT * FROM rebate.audit()'), '', "$what: the audit is clean");
    return;
}

# Wait for a value, as long as the program may need
sub wait_until
{
    my ($query) = @_;
    $node->poll_query_until('postgres', $query) or die "waited in vain for: $query";
    return;
}

my ($interrupted, $moved) = (0, 0);

foreach my $victim ('the archive', 'an order', 'the server', 'the archive', 'the server')
{
    my ($in, $out, $errors) = ("CALL rebate.archive('$cut');\n", '', '');
    my $archive = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$errors);
    my ($orders_in, $orders_out, $orders_errors) = (join('', map { "INSERT INTO orders (customer, total, status) VALUES ('m' || $_ % 200, 10, 'done');\n" } 1 .. 5000), '', '');
    my $orders = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres') ], '<', \$orders_in, '>', \$orders_out, '2>', \$orders_errors);

    $archive->pump_nb;
    $orders->pump_nb;
    wait_until("SELECT count(*) > $moved FROM rebate_data.entry_archive");
    $orders->pump_nb;
    wait_until(q{SELECT count(*) > 0 FROM orders WHERE id > 4000});
    if ($victim eq 'the server')
    {
        kill_server($node);
        $node->start;
    }
    else
    {
        my $pid = sql(sprintf q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query LIKE '%s%%'},
            $victim eq 'an order' ? 'INSERT' : 'CALL');
        SKIP:
        {
            skip 'it was over', 1 if $pid eq '';
            kill 'KILL', $pid;
            wait_gone($pid);
            $archive->finish;
            ok(1, "$victim was killed");
        }
        wait_until('SELECT true');
    }
    eval { $archive->finish };
    eval { $orders->finish };
    my $now = sql('SELECT count(*) FROM rebate_data.entry_archive');
    $interrupted++ if $now < $entries - 200 && $now > $moved;
    $moved = $now;
    note("$victim: $moved of $entries are archived");
    check("$victim was killed");
}
cmp_ok($interrupted, '>', 0, 'it was in the middle');

sql("CALL rebate.archive('$cut')");
is(sql("SELECT count(*) FROM rebate_data.entry e WHERE posted_at < '$cut' AND seq <> (SELECT last_entry FROM rebate_data.account a WHERE a.account_id = e.account_id)"), 0, 'the next run moves the rest');
is(sql(q{SELECT state FROM rebate.jobs WHERE job = 'archive'}), 'finished', 'and ends');
check('at the end');
sql(q{UPDATE orders SET status = 'off' WHERE id <= 4000});
is(sql(q{SELECT count(*) FROM rebate.accruals WHERE order_key::bigint <= 4000 AND earned <> 0}), 0, 'orders whose entries are archived are cancelled');
is(sql('SELECT * FROM rebate.audit()'), '', 'and the audit is clean');
is(sql(q{SELECT sum(balance) FROM rebate.trial_balance}), '0.00', 'and the books balance');

# --- what a dump takes along -------------------------------------------------------------------------------------------

my $dump = PostgreSQL::Test::Utils::tempdir . '/dump.sql';
my $ledger = sql('SELECT count(*), sum(hashtext(l::text)::bigint) FROM rebate_data.ledger l');
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'a dump');
sql('CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('copy') ], 'is restored');
is($node->safe_psql('copy', 'SELECT count(*), sum(hashtext(l::text)::bigint) FROM rebate_data.ledger l'), $ledger, 'with the archive');
is($node->safe_psql('copy', 'SELECT * FROM rebate.audit()'), '', 'its audit is clean');
$node->safe_psql('copy', q{INSERT INTO orders (customer, total, status) VALUES ('m1', 10, 'done'), ('m1', 20, 'done'); UPDATE orders SET status = 'off' WHERE total = 20; CALL rebate.archive(now() + interval '1 minute')});
is($node->safe_psql('copy', 'SELECT * FROM rebate.audit()'), '', 'and stays so, an epoch later');
is(($node->psql('copy', q{SELECT count(*) FROM rebate.feed()}, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]))[2] =~ /RB016/ ? 'RB016' : '', 'RB016', 'where a reader from the beginning is refused, too');
is($node->safe_psql('copy', q{SELECT count(*) FROM rebate.feed(rebate.feed_cursor())}), 0, 'and one from now on is not');

$node->stop;
done_testing();
