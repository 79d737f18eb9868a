# Workers that help rebate.mature(): the ledger is the one without them, whatever happens to a worker or to the run.
# Where something is to happen "meanwhile", another session locks the accounts: run and worker stand before their
# first batch then, and each had at most 32 rows in it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use Wire;

my $rows = 20_500;     # due: more than a run does by itself
my $first_batch = 32;
my $members = 500;
my $orders = 0;
my $worker = q(backend_type = 'rebate clock worker');
my $step = q(SELECT rebate.clock_step('mature', '2026-01-01'));
my $call = q(CALL rebate.mature('2026-01-01'));

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nrestart_after_crash = on");
$node->start;

sub sql { my ($sql, $db) = @_; return $node->safe_psql($db // 'postgres', $sql); }

# Wait for a value, as long as the program may need
sub wait_until
{
    my ($query) = @_;
    $node->poll_query_until('postgres', $query) or die "waited in vain for: $query";
    return;
}

sub wait_without_worker { wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE $worker"); return; }
sub waiting { return sql('SELECT count(*) FROM rebate_data.waiting'); }

sub shop
{
    my ($db) = @_;
    sql(q{
        SET client_min_messages = warning;
        CREATE EXTENSION rebate;
        CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, placed timestamptz);
        SELECT rebate.attach('orders', 'customer', 'total', 'EUR', order_time => 'placed', confirmed_at => 'placed',
            since => '2020-01-01', max_backdate => NULL);
        SELECT rebate.set_rule('ten', percent => 10, hold => '14 days', valid_from => '2020-01-01')}, $db);
    return;
}

# More orders whose rebates are due, ten of each member in a row
sub more_due
{
    my ($db) = @_;
    sql(qq{INSERT INTO orders SELECT i, 'm' || i / 10 % $members, 10, '2025-01-01'::timestamptz + i * interval '1 second'
        FROM generate_series($orders + 1, $orders + $rows) i}, $db);
    return;
}

# A run that has only been announced, in a session that waits for what it is told
sub new_run
{
    my (@settings) = @_;
    more_due();
    $orders += $rows;
    my $run = Wire->connect($node, 'postgres');
    $run->simple($_) foreach 'SET rebate.clock_workers = 1', @settings;
    is($run->simple($step), 't SELECT 1', 'a run begins');
    return $run;
}

# The same, and both it and its worker stand before a lock
sub blocked_run
{
    my (@settings) = @_;
    my $run = new_run(@settings);
    my $lock = Wire->connect($node, 'postgres');
    $lock->simple('BEGIN');
    $lock->simple('LOCK TABLE rebate_data.account IN ACCESS EXCLUSIVE MODE');
    $run->query($step)->_send;
    wait_until(q{SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'});
    return ($run, $lock, sql("SELECT pid FROM pg_stat_activity WHERE $worker"));
}

# All orders are there once, and all that was due is available
sub check_ledger
{
    my ($what) = @_;
    is(sql('SELECT sum(available), sum(maturing), (SELECT count(*) FROM rebate_data.waiting) FROM rebate.balances'),
        "$orders.00|0.00|0", "$what: all is available");
    is(sql(q{SELECT count(*) FILTER (WHERE kind = 'accrue'), count(*) FILTER (WHERE kind = 'move') FROM rebate.entries}), "$orders|$orders", 'each was moved once');
    is(sql('SELECT * FROM rebate.audit()'), '', 'the audit is clean');
    return;
}

# Whoever was left behind is gone, and another run ends what the first began
sub check_next_run
{
    my ($what) = @_;
    wait_without_worker();
    is(sql("$call; SELECT state, done FROM rebate.jobs WHERE job = 'mature'") =~ /^finished\|\d+$/ ? 'yes' : 'no', 'yes', "$what: the next run");
    check_ledger($what);
    return;
}

sub notices { return join ' ', map { $_->{notice} ? $_->{notice}{M} : () } @_; }
sub log_since { my ($from) = @_; return substr(slurp_file($node->logfile), $from); }
sub log_size { return -s $node->logfile; }

# --- the same ledger ---------------------------------------------------------------------------------------------------

my $all = q{SELECT string_agg(l::text, E'\n') FROM (SELECT member, kind, debit, credit, amount, order_key, rule, event_at, effective_date
    FROM rebate.entries ORDER BY order_key, kind) l};
my %ledger;
foreach my $workers (0, 2)
{
    my $db = "workers_$workers";
    $node->safe_psql('postgres', "CREATE DATABASE $db");
    shop($db);
    more_due($db);
    is(sql(qq{SET rebate.clock_workers = $workers; $call; SELECT state, done FROM rebate.jobs}, $db), "finished|$rows", "$workers workers: a run");
    $ledger{$workers} = sql($all, $db);
    is(sql('SELECT * FROM rebate.audit()', $db), '', "$workers workers: the audit is clean");
}
cmp_ok(length $ledger{0}, '>', $rows, 'there is a ledger');
ok($ledger{0} eq $ledger{2}, 'and it is the same with workers');
shop();

# --- a worker does work ------------------------------------------------------------------------------------------------

{
    my $run = new_run();
    is($run->simple($step), 't SELECT 1', 'the run does its first batch, and then nothing');
    wait_until("SELECT count(*) < $rows - 5000 FROM rebate_data.waiting");
    pass('meanwhile the worker goes on');
    is(sql("SELECT usename, query FROM pg_stat_activity WHERE $worker"), sql('SELECT current_user') . '|rebate.mature()', 'and shows as whose it works');
    is(notices($run->query($call)->receive), '', 'the run goes on');
    is(sql('SELECT state, done FROM rebate.jobs'), "finished|$rows", 'what both did is counted');
    wait_without_worker();
    check_ledger('a worker');
    $run->leave;
}

# --- a worker ends early -----------------------------------------------------------------------------------------------

foreach my $how ('pg_terminate_backend', 'pg_cancel_backend')
{
    my ($run, $lock, $pid) = blocked_run();
    sql("SELECT $how($pid)");
    wait_without_worker();
    $lock->simple('COMMIT');
    is(Wire::told($run->receive), 't SELECT 1', "$how of a worker: the run's batch");
    is(notices($run->query($call)->receive), '1 of 1 workers left before the end of the run', 'the run goes on, and tells');
    is(sql('SELECT state, done FROM rebate.jobs'), "finished|$rows", 'and does all');
    check_ledger($how);
    $_->leave foreach $run, $lock;
}

# --- the run ends early ------------------------------------------------------------------------------------------------

foreach my $how ('pg_terminate_backend', 'pg_cancel_backend')
{
    my ($run, $lock) = blocked_run();
    sql("SELECT $how($run->{pid})");
    like(Wire::told($run->receive), qr/^error 57/, "$how of the run");
    wait_until(q{SELECT state <> 'running' FROM rebate.jobs});
    is(sql("SELECT count(*) FROM pg_stat_activity WHERE $worker"), 1, 'the worker still stands before the lock');
    $lock->simple('COMMIT');
    wait_without_worker();
    cmp_ok(waiting(), '>=', $rows - $first_batch, 'and leaves after its batch');
    check_next_run("$how of the run");
    $_->leave foreach $run, $lock;
}

{
    my $run = new_run();
    $run->simple($step);
    $run->leave;
    check_next_run('a session that ends');
}

{
    my $run = new_run();
    $run->simple($step);
    is($run->simple('SELECT 1 / 0'), 'error 22012', 'an error in the session of a run');
    check_next_run('an error');
    $run->leave;
}

# --- rights ------------------------------------------------------------------------------------------------------------

# the right is not his own
sql(q{CREATE ROLE clerk LOGIN NOINHERIT; CREATE ROLE operators NOLOGIN; GRANT operators TO clerk; SELECT rebate.grant_right('operator', 'operators')});
my @as_clerk = ('SET SESSION AUTHORIZATION clerk', 'SET ROLE operators');

{
    my $run = new_run(@as_clerk);
    $run->simple($step);
    wait_until("SELECT count(*) < $rows - 5000 FROM rebate_data.waiting");
    is(sql("SELECT usename FROM pg_stat_activity WHERE $worker"), 'clerk', 'a worker is who the session of the run is, with the rights of its role');
    $run->simple($call);
    check_ledger('a role that was set');
    $run->leave;
}

{
    my ($run, $lock) = blocked_run(@as_clerk);
    my $from = log_size();
    $lock->simple(q{SELECT rebate.revoke_right('operator', 'operators')});
    $lock->simple('COMMIT');
    $run->receive;
    wait_without_worker();
    like(log_since($from), qr/permission denied for the jobs of rebate/, 'a worker stops when the role of the run loses its right');
    cmp_ok(waiting(), '>=', $rows - $first_batch, 'and has done nothing');
    is($run->simple($call), 'error 42501', 'as the run does');
    check_next_run('a right that is revoked');
    $_->leave foreach $run, $lock;
    sql(q{SELECT rebate.grant_right('operator', 'operators')});
}

foreach my $case (
    [ 'a role that may not log in', 'ALTER ROLE clerk NOLOGIN', 'ALTER ROLE clerk LOGIN', qr/role "clerk" is not permitted to log in/ ],
    [ 'a role without CONNECT', 'REVOKE CONNECT ON DATABASE postgres FROM public', 'GRANT CONNECT ON DATABASE postgres TO public',
        qr/permission denied for database "postgres"/ ])
{
    my ($what, $before, $after, $why) = @$case;
    my $run = new_run(@as_clerk);
    my $from = log_size();
    sql($before);
    $run->simple($step);
    usleep(20_000) until log_since($from) =~ $why;
    pass("$what has no worker");
    is(notices($run->query($call)->receive), '1 of 1 workers left before the end of the run', 'the run does all, and tells');
    check_ledger($what);
    sql($after);
    $run->leave;
}

# --- the server --------------------------------------------------------------------------------------------------------

{
    my ($run, $lock, $pid) = blocked_run();
    $node->stop('fast');
    $node->start;
    check_next_run('a fast shutdown');
    $_->leave foreach $run, $lock;
}

{
    my ($run, $lock, $pid) = blocked_run();
    kill 'KILL', $pid;
    $run->receive;
    ok($run->{closed}, 'a worker is killed, and with it the server starts again');
    wait_until('SELECT true');
    check_next_run('a crash');
    $_->leave foreach $run, $lock;
}

# --- no place ----------------------------------------------------------------------------------------------------------

foreach my $places (0, 1)
{
    $node->append_conf('postgresql.conf', "max_worker_processes = $places\nmax_logical_replication_workers = 0");
    $node->restart;
    my $run = new_run('SET rebate.clock_workers = 2');
    is(notices($run->query($call)->receive), 2 - $places . ' of 2 workers found no place', "$places places for 2 workers");
    is(sql('SELECT state, done FROM rebate.jobs'), "finished|$rows", 'the run does all');
    wait_without_worker();
    check_ledger("$places places");
    $run->leave;
}

if (-d '/dev/shm')
{
    my $dir = PostgreSQL::Test::Utils::tempdir;
    my $full = '/dev/shm/PostgreSQL';    # as the names of shared memory begin
    system_or_bail($ENV{CC} || 'cc', '-O1', '-shared', '-fPIC', '-Wall', '-o', "$dir/disk_full.so", "$FindBin::RealBin/../fault/disk_full.c", '-ldl');
    $node->append_conf('postgresql.conf', "max_worker_processes = 8\ndynamic_shared_memory_type = posix");
    $node->stop;
    {
        local $ENV{LD_PRELOAD} = "$dir/disk_full.so";
        local $ENV{DISK_FULL} = $full;
        $node->start;
    }
    my $run = new_run();
    append_to_file("$full.flag", '');
    my @heard = $run->query($call)->receive;
    unlink "$full.flag";
    is(notices(@heard), 'there is no shared memory for workers of rebate.mature()', 'shared memory is full');
    is(sql('SELECT state, done FROM rebate.jobs'), "finished|$rows", 'the run does all');
    check_ledger('no shared memory');
    $run->leave;
}

# --- others write beside a run -------------------------------------------------------------------------------------------

{
    my $batches = sub {
        more_due();
        $orders += $rows;
        return sql("$call; SELECT batches FROM rebate.jobs");
    };
    my $alone = $batches->();
    my $writer = Wire->connect($node, 'postgres');
    $writer->query('DO $$ BEGIN LOOP PERFORM txid_current(); COMMIT; PERFORM pg_sleep(0.0005); END LOOP; END $$')->_send;
    wait_until(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^DO .*txid_current' AND state = 'active'});
    cmp_ok($batches->(), '>', 1.5 * $alone, 'batches are shorter while others write');
    sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ '^DO .*txid_current'});
    $writer->receive;
    $writer->leave;
    check_ledger('with short batches');
}

# --- the extension goes ------------------------------------------------------------------------------------------------

{
    my ($run, $lock) = blocked_run();
    is($lock->simple('DROP EXTENSION rebate CASCADE'), 'DROP EXTENSION', 'the extension is dropped');
    $lock->simple('COMMIT');
    $run->receive;
    wait_without_worker();
    cmp_ok(waiting(), '>=', $rows - $first_batch, 'run and worker stop');
    sql(q{SET client_min_messages = warning; CREATE EXTENSION rebate; SELECT rebate.adopt_store('rebate_owner')});
    check_next_run('DROP EXTENSION');
    $_->leave foreach $run, $lock;
}

$node->stop;
done_testing();
