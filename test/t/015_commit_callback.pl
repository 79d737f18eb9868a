# An error after the commit would stop the whole server. So the end of a transaction is made as bad as it can be (no memory
# at all, interrupts pending, the worker gone, its ring full, its lock taken), and neither raises nor loses an event.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use EventSchema;
use Listener;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Processes;
use Test::More;
use IPC::Run ();
use Time::HiRes qw(time usleep);

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $dir = PostgreSQL::Test::Utils::tempdir;
my $fault = "$FindBin::RealBin/../fault";
chomp(my $include = `pg_config --includedir-server`);
my @cc = ($ENV{CC} || 'cc', '-O1', '-shared', '-fPIC', '-Wall', "-I$include");
system_or_bail(@cc, '-o', "$dir/$_.so", "$fault/$_.c") foreach 'fault', 'out_of_memory';

sub start
{
    my ($node) = @_;
    local $ENV{LD_PRELOAD} = "$dir/out_of_memory.so";
    $node->start;
    return;
}

sub new_node
{
    my ($name) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);

    $node->init;
    $node->append_conf('postgresql.conf', "shared_preload_libraries = '$dir/fault, rebate'\nrebate.ring_size = 1024\n"
          . "restart_after_crash = on\nmax_prepared_transactions = 5\n");
    start($node);
    $node->safe_psql('postgres', qq{
        SET client_min_messages = warning;
        CREATE FUNCTION fault_arm(text) RETURNS void AS '$dir/fault', 'fault_arm' LANGUAGE C;
        CREATE FUNCTION fault_windows() RETURNS integer AS '$dir/fault', 'fault_windows' LANGUAGE C;
        CREATE FUNCTION fault_hold_lock(text) RETURNS void AS '$dir/fault', 'fault_hold_lock' LANGUAGE C;
        CREATE EXTENSION rebate;
        CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL);
        SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
        SELECT rebate.set_rule('ten', percent => 10);
        INSERT INTO orders (customer, total) VALUES ('alice', 100)});
    $node->poll_query_until('postgres', 'SELECT worker_pid IS NOT NULL FROM rebate.delivery_status') or die 'no worker';
    return $node;
}

sub session
{
    my ($node, $sql) = @_;
    my $s = { in => $sql, out => '', err => '' };
    $s->{run} = IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ],
        '<', \$s->{in}, '>', \$s->{out}, '2>', \$s->{err}, IPC::Run::timeout(3 * $limit));
    return $s;
}

# Waits until some session is busy with a command, which $s may have to be told yet.
sub await_active
{
    my ($node, $s, $pattern) = @_;
    my $until = time + $limit;

    do
    {
        die "no session does $pattern: $s->{err}" if time > $until;
        $s->{run}->pump_nb;
    } until $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE query ~ '$pattern' AND state = 'active' AND pid <> pg_backend_pid()");
    return;
}

sub finish
{
    my ($s) = @_;
    $s->{run}->finish;
    return $s->{run}->full_result(0) >> 8;
}

sub insert { return join '', map { "INSERT INTO orders (customer, total) VALUES ('$_', 100);\n" } @_; }

# --- with nothing to be had ------------------------------------------------------------------------------------------

my $node = new_node('main');
my $l = listener($node, 'postgres', 'rebate');
my $windows = 0;

# In one session, each statement list a transaction whose end is made bad.
sub bad_ends
{
    my ($what, $with, @transactions) = @_;
    my $sql = join '', map { "BEGIN;\nSELECT fault_arm('$with');\n$_;\nCOMMIT;\n" } @transactions;
    my ($status, $out, $err) = $node->psql('postgres', "$sql\nSELECT 'windows: ' || fault_windows()", on_error_stop => 1);

    is($status, 0, "$what: committed") or diag($err);
    like($out, qr/^windows: ${\ scalar @transactions}$/m, "$what: with no memory at their ends");
    is_announced($l, 5, '%', $what);
    return;
}

bad_ends('orders', '', insert('alice'), insert('bob', 'carol'), insert('alice', 'alice', 'alice'));
bad_ends('savepoints', '', insert('alice') . "SAVEPOINT a;\n" . insert('dave') . "ROLLBACK TO a;\n" . insert('erin') . 'RELEASE a',
    "SET LOCAL rebate.posting = statement;\n" . insert('alice', 'frank'));
bad_ends('without waiting for the disk', '', "SET LOCAL synchronous_commit = off;\n" . insert('alice', 'greg'));
bad_ends('more accounts than are remembered', '', q{INSERT INTO orders (customer, total) SELECT 's' || n, 10 FROM generate_series(1, 1000) n});
bad_ends('changes and deletions', '', q{UPDATE orders SET total = total + 1 WHERE customer < 'c'}, q{DELETE FROM orders WHERE customer = 'alice'});
bad_ends('cancelled', 'cancel', insert('harry'), insert('alice'));
bad_ends('all else', '',
    q{SELECT count(*) FROM rebate.feed(); SELECT rebate.feed_cursor(); SELECT count(*) FROM rebate.events('alice')},
    q{SELECT rebate.channel('alice'); SELECT rebate.rotate_channels(); SELECT rebate.channel('bob')} . ";\n" . insert('bob'),
    q{SELECT count(*) FROM rebate.explain('orders', 2); SELECT count(*) FROM rebate.audit()},
    q{SELECT rebate.set_rule('extra', percent => 1, condition => 'total > 1000')} . ";\n" . insert('alice'),
    q{CREATE TABLE more (LIKE orders INCLUDING ALL); SELECT rebate.attach('more', 'customer', 'total', 'USD'); INSERT INTO more (customer, total) VALUES ('ian', 10000)},
    q{ALTER TABLE more ADD note text; SELECT rebate.attach('more', 'customer', 'total', 'USD', quantity => '1', replace => true)},
    q{INSERT INTO more (customer, total) VALUES ('ian', 'NaN')}, q{SELECT rebate.detach('more'); DROP TABLE more}, q{SELECT rebate.flush()});
is(($node->psql('postgres', "BEGIN;\nSELECT fault_arm('');\n" . insert('jane') . "ROLLBACK;\nBEGIN;\nSELECT fault_arm('');\n" . insert('kate')
            . "PREPARE TRANSACTION 'p';\nBEGIN;\nSELECT fault_arm('');\n" . insert('alice') . "SELECT 1 / 0;\nCOMMIT;\n" . "COMMIT PREPARED 'p'", on_error_stop => 0))[0],
    0, 'ended otherwise: by ROLLBACK, PREPARE, an error');
is_announced($l, 5, '%', 'those');

# Terminated while it commits: the session ends, and the event is there.
my ($status, undef, $err) = $node->psql('postgres', "BEGIN;\nSELECT fault_arm('terminate');\n" . insert('liz') . "COMMIT;\nSELECT 1;\n");
like($err, qr/terminating connection/, 'a session that is terminated while it commits ends');
is($node->safe_psql('postgres', q{SELECT available FROM rebate.balances WHERE member = 'liz'}), '10.00', 'has committed');
is_announced($l, 5, 'liz', 'what it committed');

foreach my $delivery ('commit', 'off', 'worker')
{
    $node->safe_psql('postgres', "ALTER SYSTEM SET rebate.delivery = $delivery");
    $node->reload;
    $node->poll_query_until('postgres', "SELECT mode = '$delivery' FROM rebate.delivery_status");
    ($status) = $node->psql('postgres', "BEGIN;\nSELECT fault_arm('');\n" . insert('mode') . "COMMIT;\n", on_error_stop => 1);
    is($status, 0, "rebate.delivery = $delivery: committed");
    is_announced($l, 5, 'mode', "rebate.delivery = $delivery") if $delivery ne 'off';
}
is_announced($l, 5, '%', 'all modes');

# --- with the worker in trouble --------------------------------------------------------------------------------------

# A session that waits between its commit and our callback; "meanwhile" is done then.
sub meanwhile
{
    my ($what, $customers, $meanwhile) = @_;
    my $file = "$dir/wait";
    append_to_file($file, '');
    my $s = session($node, "BEGIN;\nSELECT fault_arm('$file');\n" . insert(@$customers) . "COMMIT;\n\\echo committed\n\\q\n");
    await_active($node, $s, '^COMMIT');
    $meanwhile->($s);
    unlink $file;
    is(finish($s), 0, "$what: committed") or diag($s->{err});
    is_announced($l, 6, '%', $what);
    return;
}

# The hint that does not come is replaced by a look, late by a second.
meanwhile('a hint that does not come', [ 'alice', 'new' ], sub { is_announced($l, 3, '%', 'before the hint is there') });

my $worker = sub { $node->safe_psql('postgres', 'SELECT worker_pid FROM rebate.delivery_status') };

meanwhile('a worker that ends meanwhile', ['alice'], sub {
    my $pid = $worker->();
    kill 'TERM', $pid;
    wait_gone($pid);
});
meanwhile('a worker that is sent away', [ 'alice', 'bob' ], sub {
    # Not by the hook that wants a database for itself: that waits for us too.
    my $pid = $worker->();
    $node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 5000)");
    $node->poll_query_until('postgres', "SELECT worker_pid <> $pid FROM rebate.delivery_status");
});
meanwhile('delivery switched off and on', ['carol'], sub {
    foreach my $delivery ('off', 'worker')
    {
        $node->safe_psql('postgres', "ALTER SYSTEM SET rebate.delivery = $delivery");
        $node->reload;
        $node->poll_query_until('postgres', "SELECT mode = '$delivery' FROM rebate.delivery_status");
        usleep(200_000);
    }
});

# A full ring, and a worker that does not read.
my $pid = $worker->();
my $overflows = $node->safe_psql('postgres', 'SELECT overflows FROM rebate.delivery_status');
stand_still($node, $pid) or die 'the worker does not stand still';
$node->safe_psql('postgres', insert(map { 's' . $_ % 1000 } 1 .. 1020));
($status) = $node->psql('postgres', join('', map { "BEGIN;\nSELECT fault_arm('cancel');\n" . insert(map { "s$_" } 1 .. $_) . "COMMIT;\n" } 3, 5, 100, 300), on_error_stop => 1);
is($status, 0, 'a full ring: committed');
cmp_ok($node->safe_psql('postgres', 'SELECT overflows FROM rebate.delivery_status'), '>', $overflows, 'it was full');
kill 'CONT', $pid;
is_announced($l, 10, '%', 'what found no room');

# Somebody holds the lock over the shared memory: a session that has once committed does not ask for it.
append_to_file("$dir/hold", '');
my $s = session($node, insert('alice') . "\\echo ready\n");
$s->{run}->pump until $s->{out} =~ /ready/;
my $holder = session($node, "SELECT fault_hold_lock('$dir/hold');\n\\q\n");
await_active($node, $holder, '^SELECT fault_hold');
usleep(100_000);
$s->{in} .= "BEGIN;\nSELECT fault_arm('');\n" . insert('alice') . "COMMIT;\n\\echo committed\n";
my $until = time + $limit;
$s->{run}->pump_nb, usleep(10_000) until $s->{out} =~ /committed/ or time > $until;
like($s->{out}, qr/committed/, 'with the lock taken: committed');
unlink "$dir/hold";
$s->{in} .= "\\q\n";
finish($_) foreach $s, $holder;
is_announced($l, 5, '%', 'with the lock taken');
is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
my $log = slurp_file($node->logfile);
unlike($log, qr/PANIC|terminated by signal|TRAP:/, 'nothing crashed');
unlike($log, qr/out of memory/, 'and nobody asked for memory');

# --- mistakes --------------------------------------------------------------------------------------------------------

# What a mistake in the callback would do, so that all of the above can fail: the server stops and starts again. Even
# then what was committed stays, and a reader by cursor gets it.
my $cursor = $node->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
close_listener($l);
my %message = (allocate => qr/PANIC|out of memory/, raise => qr/a mistake/, lock => qr/out of (shared )?memory/);
foreach my $mistake (sort keys %message)
{
    my $offset = -s $node->logfile;
    ($status, undef, $err) = $node->psql('postgres', "BEGIN;\nSELECT fault_arm('$mistake');\n" . insert("by_$mistake") . "COMMIT;\n");
    isnt($status, 0, "a callback with a mistake ($mistake) ends the session");
    like(substr(slurp_file($node->logfile), $offset), qr/PANIC:/, 'and stops the server');
    $node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
    is($node->safe_psql('postgres', qq{SELECT count(*) FROM rebate.feed(\$c\$$cursor\$c\$) WHERE event->>'member' = 'by_$mistake'}), 1,
        'its event is not lost');
}
is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
events_are_valid('what was told', 'shared_payload');
$node->stop;
done_testing();
