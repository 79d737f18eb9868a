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
rebate.counted_tables = 3
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

sub of_table
{
    my ($table, $columns, $db) = @_;
    return $node->safe_psql($db // 'postgres', "SELECT $columns FROM rebate.stat_tables WHERE source = 'public.$table'");
}

# All counters of a table, as they are in a row of the engine
my $each_column = 'inserted, updated, deleted, deferred, posted, failed, rebates, entries';

# The figures of a view that are not zero.  When the worker looks for entries that nobody announced is its own affair.
sub not_zero
{
    my ($view) = @_;
    return $node->safe_psql('postgres', qq{
        SELECT string_agg(key, ' ' ORDER BY key COLLATE "C") FROM $view v, jsonb_each(to_jsonb(v))
         WHERE jsonb_typeof(value) = 'number' AND value <> '0' AND key NOT IN ('ring_size', 'queue_usage', 'looks')});
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
is(of_table('orders', $each_column), counted($each_column), 'they are those of the only table');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid() AND backend_type = 'client backend'}),
    0, 'all sessions have gone');
ok($node->poll_query_until('postgres', "SELECT published = $entries AND ring_used = 0 AND worker FROM rebate.stat_delivery"), 'the worker has published all of them')
  or diag($node->safe_psql('postgres', 'SELECT * FROM rebate.stat_delivery'));
is($node->safe_psql('postgres', 'SELECT notifications > 0, lag > 0, unpublished_since IS NULL, errors FROM rebate.stat_delivery'), 't|t|t|0', 'and waits');

# A transaction is visible before its hint is in the ring: of an account that the worker has never heard of, the second hint may come first.
append_to_file("$dir/new.sql", q{INSERT INTO orders (customer, total) VALUES ('new' || nextval('shared') / 8, 100);} . "\n");
$node->safe_psql('postgres', 'CREATE SEQUENCE shared; SELECT rebate.stat_reset()');
$node->command_ok([ 'pgbench', '-n', '-c', 16, '-j', 2, '-t', 500, '-f', "$dir/new.sql", 'postgres' ], 'many sessions, each account in the hands of some');
ok($node->poll_query_until('postgres', 'SELECT published >= 8000 AND ring_used = 0 FROM rebate.stat_delivery'), 'all is published, whichever hint came first')
  or diag($node->safe_psql('postgres', 'SELECT * FROM rebate.stat_delivery'));
is($node->safe_psql('postgres', 'SELECT published FROM rebate.stat_delivery'), 8000, 'and nothing twice');

# --- one after the other -----------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', 'SELECT rebate.stat_reset()');
is(not_zero('rebate.stat_engine'), '', 'a reset');
is(not_zero('rebate.stat_delivery'), '', 'of delivery, too');
is(counted('stats_reset > now() - interval \'1 day\''), 't', 'which has its time');

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
my $timed = time - 1;
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) VALUES ('two', 100); UPDATE orders SET total = 50 WHERE customer = 'two'});
is(counted('collect_time > 0, decide_time > 0, post_time > 0'), 't|t|t', 'until they are asked for');
cmp_ok(counted('collect_time + decide_time + post_time'), '<=', 1000 * (time - $timed), 'in milliseconds, and none twice');

# --- databases ----------------------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE second');
shop('second');
$node->safe_psql('second', q{INSERT INTO orders (customer, total) VALUES ('x', 100)});
is(counted('scope, inserted', 'second'), 'database|1', 'each database counts for itself');
$node->safe_psql('postgres', 'CREATE DATABASE third');
shop('third');
is($node->safe_psql('third', q{INSERT INTO orders (customer, total) VALUES ('x', 100); SELECT scope, inserted FROM rebate.stat_engine}), 'session|1', 'one too many: a session for itself');
is($node->safe_psql('third', q{SELECT source, num_nulls(inserted, updated, deleted, deferred, posted, failed, rebates, entries, last_order_at) FROM rebate.stat_tables}),
    'public.orders|9', 'of its tables nothing is known');
is(counted('scope, inserted', 'third'), 'session|0', 'and the next knows nothing of it');
$node->safe_psql('postgres', 'DROP DATABASE second');
$node->safe_psql('third', q{INSERT INTO orders (customer, total) VALUES ('x', 100)});
is(counted('scope, inserted', 'third'), 'database|1', 'the place of a dropped database begins at zero');

is(of_table('orders', 'inserted, posted', 'third'), '1|1', 'those of its tables, too');
$node->safe_psql('third', q{SET client_min_messages = error; DROP EXTENSION rebate CASCADE; DROP SCHEMA rebate_data CASCADE; DROP SCHEMA rebate CASCADE; DROP TABLE orders});
shop('third');
is(of_table('orders', "$each_column, last_order_at", 'third'), '0|0|0|0|0|0|0|0|', 'a table of a new store is not one of the old');

# --- each attached table ------------------------------------------------------------------------------------------------------

is(not_zero('rebate.stat_engine'), 'collect_time conflicts decide_time entries inserted post_time posted rebates retries rolled_back rule_builds statements transactions updated',
    'most counters have counted');
$node->safe_psql('postgres', q{
    SET client_min_messages = error;
    CREATE TABLE sales (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2), sold timestamptz DEFAULT now() - interval '3 days');
    SELECT rebate.attach('sales', 'customer', 'total', 'EUR', order_time => 'sold', confirmed_at => 'sold', since => '2020-01-01', max_backdate => NULL);
    SELECT rebate.set_rule('held', percent => 5, hold => '1 day', valid_from => '2020-01-01');
    SELECT rebate.stat_reset()});
is(not_zero('rebate.stat_engine'), '', 'and a reset takes all of them back');
is(of_table($_, "$each_column, last_order_at"), '0|0|0|0|0|0|0|0|', "$_: nothing yet") foreach qw(orders sales);
my $began = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
$node->safe_psql('postgres', q{
    BEGIN;
    INSERT INTO orders (customer, total) VALUES ('t1', 100), ('t2', 100);
    INSERT INTO sales VALUES (1, 't1', 100), (2, 't2', 100), (3, 't3', 100);
    SAVEPOINT a;
    INSERT INTO sales VALUES (4, 't1', 100);
    INSERT INTO orders (customer, total) VALUES ('t1', 100);
    ROLLBACK TO SAVEPOINT a;
    SAVEPOINT b;
    UPDATE sales SET total = 50 WHERE id = 1;
    SAVEPOINT c;
    DELETE FROM orders WHERE customer = 't2';
    DELETE FROM sales WHERE id = 2;
    RELEASE SAVEPOINT c;
    RELEASE SAVEPOINT b;
    COMMIT});
is(of_table('orders', 'inserted, updated, deleted, posted'), '2|0|1|2', 'one transaction, two tables: what it did to the one');
is(of_table('sales', 'inserted, updated, deleted, posted'), '3|1|1|3', 'and to the other');
foreach my $table (qw(orders sales))
{
    is(of_table($table, 'rebates, entries'), $node->safe_psql('postgres', qq{
        SELECT (SELECT count(*) FROM rebate.accruals WHERE source = 'public.$table' AND first_seen > '$began'),
               (SELECT count(*) FROM rebate.entries WHERE source = 'public.$table' AND posted_at > '$began')}), "$table: as the ledger has it");
}
is($node->safe_psql('postgres', qq{SELECT count(*), count(DISTINCT last_order_at), min(last_order_at) BETWEEN '$began' AND clock_timestamp() FROM rebate.stat_tables}),
    '2|1|t', 'both at the same moment');

$node->safe_psql('postgres', q{SET rebate.collect_limit = 10; INSERT INTO sales SELECT i, 't' || i % 7, 100 FROM generate_series(101, 150) i});
is(of_table('sales', 'inserted, posted, rebates'), '53|53|52', 'a statement that is posted at its end');
is(counted('bulk_statements'), 1, 'it was');

my ($last, $last_of_orders) = map { of_table($_, 'last_order_at') } qw(sales orders);
my $entered = of_table('sales', 'entries');
$node->safe_psql('postgres', q{BEGIN; INSERT INTO sales VALUES (5, 't1', 100); ROLLBACK});
$node->safe_psql('postgres', 'CALL rebate.mature()');
is(of_table('sales', "inserted, entries - $entered, last_order_at = '$last'"), '53|52|t', 'the clock makes entries of a table, and is no order; nor is what is rolled back');
isnt($last, $last_of_orders, 'each table has a time of its own');
$node->safe_psql('postgres', q{
    SET client_min_messages = error;
    INSERT INTO orders (customer, total) VALUES ('t1', NULL), ('t1', 5), ('t1', NULL);
    SET rebate.mode = defer;
    INSERT INTO sales VALUES (6, 't1', 100)});
is(of_table('orders', "failed, deferred, posted, last_order_at > '$last_of_orders'"), '2|0|5|t', 'what is set aside');
is(of_table('sales', "failed, deferred, posted, last_order_at > '$last'"), '0|1|53|t', 'and deferred');
$node->safe_psql('postgres', q{SELECT rebate.reconcile('sales')});
is(of_table('sales', 'deferred, posted'), '1|54', 'and caught up with');
is($node->safe_psql('postgres', 'SELECT ' . join(', ', map { "sum($_)" } split /, /, $each_column) . ' FROM rebate.stat_tables'), counted($each_column),
    'all tables add up to what was done');
$node->safe_psql('postgres', q{
    SET client_min_messages = error;
    CREATE ROLE second LOGIN SUPERUSER;
    SELECT rebate.grant_right('approver', 'second');
    SELECT rebate.request_erasure('t2');
    SET SESSION AUTHORIZATION second;
    SELECT rebate.erase_member('t2', true)});
is($node->safe_psql('postgres', q{SELECT count(*) > 5 FROM rebate.entries WHERE kind = 'write_off'}), 't', 'a member is erased');
is($node->safe_psql('postgres', 'SELECT sum(entries) FROM rebate.stat_tables'), counted('entries'), 'and what is written off is of the tables of his orders');

$node->safe_psql('postgres', q{
    SET client_min_messages = error;
    CREATE TABLE parted (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2)) PARTITION BY RANGE (id);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
    SELECT rebate.attach('parted', 'customer', 'total', 'EUR');
    INSERT INTO parted_1 VALUES (1, 't1', 100);
    INSERT INTO parted VALUES (2, 't1', 100);
    CREATE TABLE fourth (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2));
    SELECT rebate.attach('fourth', 'customer', 'total', 'EUR');
    INSERT INTO fourth VALUES (1, 't1', 100)});
is(of_table('parted', 'inserted, posted'), '2|2', 'partitions count for the table that is attached');
is(of_table('fourth', 'num_nulls(inserted, updated, deleted, deferred, posted, failed, rebates, entries, last_order_at)'), 9, 'one too many has no counters');
is(counted('inserted'), 5 + 54 + 2 + 1, 'its orders count in the whole');
is($node->safe_psql('postgres', q{SELECT status, detail, remedy FROM rebate.doctor() WHERE "check" = 'statistics'}),
    'notice|attached tables that rebate.stat_tables does not count: 1; all places are taken|ALTER SYSTEM SET rebate.counted_tables = 6 -- and restart',
    'the doctor says so');
$node->safe_psql('postgres', q{SELECT rebate.detach('parted')});
is($node->safe_psql('postgres', q{SELECT string_agg(source, ' ' ORDER BY source) FROM rebate.stat_tables}), 'public.fourth public.orders public.sales', 'a table that is detached has gone');
like(not_zero('rebate.stat_engine'), qr/\b$_\b/, "$_ has counted") foreach qw(bulk_statements deferred deleted failed);
$node->safe_psql('postgres', 'SELECT rebate.stat_reset()');
is(not_zero('rebate.stat_engine'), '', 'a reset of these');
is(of_table($_, "$each_column, last_order_at"), '0|0|0|0|0|0|0|0|', "$_: a reset") foreach qw(orders sales);
$node->safe_psql('postgres', q{BEGIN; INSERT INTO sales VALUES (7, 't1', 100); PREPARE TRANSACTION 'a'});
is(of_table('sales', 'inserted, last_order_at IS NOT NULL'), '1|t', 'a prepared transaction counts');
$node->safe_psql('postgres', q{COMMIT PREPARED 'a'; ALTER SYSTEM SET rebate.counted_tables = 6});

# --- a crash --------------------------------------------------------------------------------------------------------------------

my $before = $node->safe_psql('postgres', q{CALL rebate.mature(); CHECKPOINT; SELECT finished_runs FROM rebate.stat_jobs WHERE job = 'mature'});
$node->stop('immediate');
$node->start;
is(counted('inserted'), 0, 'the counters begin again with the server');
is(of_table('sales', 'inserted, last_order_at'), '0|', 'those of tables, too');
is(of_table('fourth', 'inserted'), 0, 'and there is room for another one now');
is($node->safe_psql('postgres', q{SELECT status FROM rebate.doctor() WHERE "check" = 'statistics'}), 'ok', 'which the doctor finds');
is($node->safe_psql('postgres', q{SELECT finished_runs FROM rebate.stat_jobs WHERE job = 'mature'}), $before, 'those of jobs are in the store');
is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');

$node->stop;
done_testing();
