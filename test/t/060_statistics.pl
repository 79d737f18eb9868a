# Counters in shared memory: those of many sessions add up to what the ledger has, survive the sessions, and leave out what was rolled back.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $dir = PostgreSQL::Test::Utils::tempdir;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'rebate'
rebate.max_databases = 2
max_prepared_transactions = 5
max_connections = 40
restart_after_crash = on
CONF
$node->start;

sub shop
{
    my ($db) = @_;
    $node->safe_psql($db, q{
        SET client_min_messages = warning;
        CREATE EXTENSION rebate;
        CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL, total numeric(12,2));
        SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
        SELECT rebate.set_rule('ten', percent => 10);
    });
    return;
}

sub counted
{
    my ($columns, $db) = @_;
    return $node->safe_psql($db // 'postgres', "SELECT $columns FROM rebate.stat_engine");
}

# A session that stays
sub session
{
    my ($db) = @_;
    my $s = { in => '', out => '', n => 0 };
    $s->{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr($db // 'postgres') ], '<', \$s->{in}, '>', \$s->{out}, '2>&1',
        IPC::Run::timeout(3 * $limit));
    return $s;
}

sub send_to { my ($s, $sql) = @_; $s->{in} .= "$sql\n\\echo done " . ++$s->{n} . "\n"; $s->{run}->pump_nb; return; }
sub wait_for { my ($s) = @_; $s->{run}->pump until $s->{out} =~ /^done $s->{n}$/m; return $s->{out}; }
sub run_in { my ($s, $sql) = @_; send_to($s, $sql); return wait_for($s); }
sub end { my ($s) = @_; $s->{in} .= "\\q\n"; eval { $s->{run}->finish; }; return; }

shop('postgres');
is(counted('scope'), 'database', 'the counters are the database\'s');
$node->safe_psql('postgres', 'SELECT rebate.stat_reset()');

# --- many sessions at once -------------------------------------------------------------------------------------------------

my ($clients, $each) = (6, 20);
my %script = (
    insert => q{INSERT INTO orders (customer, total) VALUES ('m' || :client_id % 3, 100);},
    abort => q{BEGIN; INSERT INTO orders (customer, total) VALUES ('m1', 100), ('m2', 100); ROLLBACK;},
    mixed => q{BEGIN;
        INSERT INTO orders (customer, total) VALUES ('c' || :client_id, 100) RETURNING id AS id \gset
        SAVEPOINT s;
        INSERT INTO orders (customer, total) SELECT 'm1', 100 FROM generate_series(1, 3);
        ROLLBACK TO SAVEPOINT s;
        UPDATE orders SET total = 200 WHERE id = :id;
        COMMIT;});
my @runs;
foreach my $name (sort keys %script)
{
    append_to_file("$dir/$name.sql", $script{$name} . "\n");
    my ($out, $err) = ('', '');
    push @runs, [ IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-j', 2, '-t', $each, '-f', "$dir/$name.sql", $node->connstr('postgres') ],
        '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(3 * $limit)), \$err, $name ];
}
foreach my $run (@runs)
{
    ok($run->[0]->finish, "$run->[2] ran") or diag(${ $run->[1] });
}
my $n = $clients * $each;
is(counted('transactions, rolled_back'), 2 * $n . "|$n", 'each transaction counts once');
is(counted('inserted, updated, deleted, statements'), join('|', 2 * $n, $n, 0, 3 * $n), 'what it did, without what was rolled back');
is(counted('posted, rebates, failed'), join('|', 2 * $n, 2 * $n, 0), 'orders and their rebates');
my ($entries, $accruals) = split /\|/, $node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM rebate.entries), (SELECT count(*) FROM rebate.accruals)');
is(counted('entries, rebates'), "$entries|$accruals", 'as the ledger has them');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid() AND backend_type = 'client backend'}),
    0, 'all sessions have gone');
ok($node->poll_query_until('postgres', "SELECT published = $entries AND ring_used = 0 AND worker FROM rebate.stat_delivery"), 'the worker has published all of them')
  or diag($node->safe_psql('postgres', 'SELECT * FROM rebate.stat_delivery'));
is($node->safe_psql('postgres', 'SELECT notifications > 0, lag > 0, unpublished_since IS NULL, errors FROM rebate.stat_delivery'), 't|t|t|0', 'and waits');

# --- one after the other -----------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', 'SELECT rebate.stat_reset()');
is(counted('transactions + rolled_back + inserted + entries + rule_builds, stats_reset > now() - interval \'1 day\''), '0|t', 'a reset');
is($node->safe_psql('postgres', 'SELECT hints + published + notifications FROM rebate.stat_delivery'), 0, 'of delivery, too');

my ($one, $two) = (session(), session());
run_in($one, q{BEGIN; INSERT INTO orders (customer, total) VALUES ('m1', 100); SELECT rebate.flush();});
send_to($two, q{INSERT INTO orders (customer, total) VALUES ('m1', 100);});
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%'}) or die 'nobody waits';
is(counted('inserted'), 0, 'nothing counts before the commit');
run_in($one, 'COMMIT;');
wait_for($two);
is(counted('inserted, entries, retries, conflicts'), '2|2|1|0', 'who had to wait began again');

run_in($two, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders;});
run_in($one, q{INSERT INTO orders (customer, total) VALUES ('m1', 100);});
like(run_in($two, q{INSERT INTO orders (customer, total) VALUES ('m1', 100); COMMIT;}), qr/could not serialize/, 'where it cannot it fails');
is(counted('inserted, entries, retries, conflicts, rolled_back'), '3|3|1|1|1', 'which counts, and what it had done does not');

run_in($one, q{BEGIN; INSERT INTO orders (customer, total) VALUES ('two', 100); PREPARE TRANSACTION 'a';});
is(counted('inserted, transactions'), '4|4', 'a prepared transaction counts');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'a'});
is(counted('inserted, transactions, rolled_back'), '4|4|1', 'whatever becomes of it');

run_in($one, q{BEGIN; INSERT INTO orders (customer, total) VALUES ('two', 100);});
my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 100000)");
is(counted('inserted, transactions, rolled_back'), '4|4|2', 'a session that is ended has rolled back');
end($_) foreach $one, $two;

is(counted('collect_time + decide_time + post_time'), 0, 'no times');
$node->safe_psql('postgres', q{ALTER SYSTEM SET rebate.track_timing = on});
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('rebate.track_timing') = 'on'}) or die;
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) VALUES ('two', 100); UPDATE orders SET total = 50 WHERE customer = 'two'});
is(counted('collect_time > 0, decide_time > 0, post_time > 0'), 't|t|t', 'until they are asked for');

# --- databases ----------------------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE second');
shop('second');
$node->safe_psql('second', q{INSERT INTO orders (customer, total) VALUES ('x', 100)});
is(counted('scope, inserted', 'second'), 'database|1', 'each database counts for itself');
$node->safe_psql('postgres', 'CREATE DATABASE third');
shop('third');
is($node->safe_psql('third', q{INSERT INTO orders (customer, total) VALUES ('x', 100); SELECT scope, inserted FROM rebate.stat_engine}), 'session|1', 'one too many: a session for itself');
is(counted('scope, inserted', 'third'), 'session|0', 'and the next knows nothing of it');
$node->safe_psql('postgres', 'DROP DATABASE second');
$node->safe_psql('third', q{INSERT INTO orders (customer, total) VALUES ('x', 100)});
is(counted('scope, inserted', 'third'), 'database|1', 'the place of a dropped database begins at zero');

# --- a crash --------------------------------------------------------------------------------------------------------------------

my $before = $node->safe_psql('postgres', q{CALL rebate.mature(); CHECKPOINT; SELECT finished_runs FROM rebate.stat_jobs WHERE job = 'mature'});
$node->stop('immediate');
$node->start;
is(counted('inserted'), 0, 'the counters begin again with the server');
is($node->safe_psql('postgres', q{SELECT finished_runs FROM rebate.stat_jobs WHERE job = 'mature'}), 1, 'those of jobs are in the store');
is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');

$node->stop;
done_testing();
