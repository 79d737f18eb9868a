# Delivery when something is in the way: the first commit has more than hints can say, the mode is changed under writers, the
# queue of notifications is full, databases are copied and dropped while the worker is busy, a standby is promoted.
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
use JSON::PP ();
use Time::HiRes qw(time usleep);

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $dir = PostgreSQL::Test::Utils::tempdir;
my $listen = "$dir/rebate-listen";
delete $ENV{PGAPPNAME};
system_or_bail('make', '-s', '-C', "$FindBin::RealBin/../../client", "BUILDDIR=$dir", 'all');

my $shop = q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
    SELECT rebate.set_rule('ten', percent => 10);
};

sub order
{
    my ($node, $db, @customers) = @_;
    return $node->safe_psql($db, join '', map { "INSERT INTO orders (customer, total) VALUES ('$_', 100);\n" } @customers);
}

# One statement over more members than a transaction remembers
sub order_of_many
{
    my ($node, $db, $count) = @_;
    return $node->safe_psql($db, "INSERT INTO orders (customer, total) SELECT 's' || n, 10 FROM generate_series(1, $count) n");
}

sub status { my ($node, $columns) = @_; return $node->safe_psql('postgres', "SELECT $columns FROM rebate.delivery_status"); }

sub set_delivery
{
    my ($node, $delivery) = @_;
    $node->safe_psql('postgres', "ALTER SYSTEM SET rebate.delivery = $delivery");
    $node->reload;
    $node->poll_query_until('postgres', "SELECT mode = '$delivery' FROM rebate.delivery_status")
      or die "rebate.delivery = $delivery is not there";
    return;
}

sub session
{
    my ($node, $db, $sql, $ready) = @_;
    my $s = { in => $sql, out => '', err => '' };
    $s->{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr($db) ], '<', \$s->{in}, '>', \$s->{out}, '2>', \$s->{err}, IPC::Run::timeout(3 * $limit));
    $s->{run}->pump until $s->{out} =~ $ready;
    return $s;
}

sub end_session { my ($s, $sql) = @_; $s->{in} .= "$sql\n\\q\n"; $s->{run}->finish; return; }

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'\nrebate.ring_size = 1024\nmax_prepared_transactions = 5\nwal_keep_size = 128MB\n");
$node->start;
$node->safe_psql('postgres', $shop);

# --- the first commit ------------------------------------------------------------------------------------------------

# Nobody has asked for the worker, and no hint says all.
foreach my $when ('a new server', 'a restart')
{
    $node->restart;
    my $l = listener($node, 'postgres', 'rebate');
    order_of_many($node, 'postgres', 1000);
    is_announced($l, 4, '%', "the first statement of $when, over 1,000 members");
    close_listener($l);
}
# While it was open others began, and have committed: the worker comes with its commit, and must not take it for seen.
{
    $node->restart;
    my $l = listener($node, 'postgres', 'rebate');
    my $first = session($node, 'postgres', "BEGIN; INSERT INTO orders (customer, total) SELECT 's' || n, 10 FROM generate_series(1, 1000) n;\n\\echo open\n", qr/open/);
    $node->safe_psql('postgres', 'SELECT pg_current_xact_id()');
    end_session($first, 'COMMIT;');
    is_announced($l, 4, '%', 'a first transaction over 1,000 members, with others since its begin');
    close_listener($l);
}
my $l = listener($node, 'postgres', 'rebate');

# --- modes -----------------------------------------------------------------------------------------------------------

foreach my $mode ('off', 'commit')
{
    set_delivery($node, $mode);
    order($node, 'postgres', 'alice');
    usleep(1_200_000);
    set_delivery($node, 'worker');
    order_of_many($node, 'postgres', 1000);
    is_announced($l, 4, 's%', "the first statement after $mode, over 1,000 members");
}

# A session that hears of the change before the worker does leaves a hint that the worker drops, but does not take for announced.
{
    set_delivery($node, 'off');
    my $s = session($node, 'postgres', "SELECT 'pid ' || pg_backend_pid();\n", qr/pid \d+/);
    my ($pid) = $s->{out} =~ /pid (\d+)/;
    $node->safe_psql('postgres', 'ALTER SYSTEM SET rebate.delivery = worker');
    kill 'HUP', $pid;
    $s->{in} .= "INSERT INTO orders (customer, total) VALUES ('early', 10); SELECT setting FROM pg_settings WHERE name = 'rebate.delivery';\n";
    $s->{run}->pump until $s->{out} =~ /^worker$/m;
    $node->poll_query_until('postgres', 'SELECT ring_used = 0 FROM rebate.delivery_status') or die 'the hint stays';
    set_delivery($node, 'worker');
    is_announced($l, 4, 'early', 'an order of a session that knew the mode before the worker');
    end_session($s, '');
}

# With statements that post by themselves the channel may be asked for between the posting and the commit.
{
    set_delivery($node, 'commit');
    my $s = session($node, 'postgres', "SET rebate.posting = statement; INSERT INTO orders (customer, total) VALUES ('asks', 10);"
        . " BEGIN; INSERT INTO orders (customer, total) VALUES ('asks', 10);\n\\echo open\n", qr/open/);
    my $channel = $node->safe_psql('postgres', q{SELECT rebate.channel('asks')});
    listen_on($l, $channel);
    end_session($s, 'COMMIT;');
    ok(wait_until($l, 2, sub { on_channel($l, $channel) }), 'a channel that was asked for before the commit speaks');
    set_delivery($node, 'worker');
}

# Who may not have the database cannot send its worker away by trying.
{
    order($node, 'postgres', 'alice');
    is_announced($l, 4, 'alice', 'an order');
    my $pid = status($node, 'worker_pid');
    $node->safe_psql('postgres', 'CREATE ROLE nobody_special LOGIN');
    foreach my $command ('DROP DATABASE postgres', 'ALTER DATABASE postgres RENAME TO mine', 'CREATE DATABASE copy TEMPLATE postgres')
    {
        my (undef, undef, $error) = $node->psql('template1', $command, extra_params => [ '-U', 'nobody_special' ]);
        like($error, qr/must be owner|permission denied/, "$command is refused");
    }
    is(status($node, 'worker_pid'), $pid, 'and the worker stays');
    $node->safe_psql('postgres', 'DROP ROLE nobody_special');
}

# Under writers: whoever reads by cursor misses nothing, whether he is told or not.
{
    my $file = "$dir/modes";
    my ($out, $err) = ('', '');
    my $follower = IPC::Run::start([ $listen, '-d', $node->connstr('postgres'), '--verbose', '--from=beginning', "--file=$file" ],
        '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(3 * $limit));
    append_to_file("$dir/script", "\\set m random(1, 30)\nINSERT INTO orders (customer, total) VALUES ('w:m', 10);\n");
    my $output = '';
    my $writers = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-T', 6, '-R', 150, '-f', "$dir/script", $node->connstr('postgres') ],
        '<', \undef, '>', \$output, '2>&1', IPC::Run::timeout(3 * $limit));
    foreach my $mode ('off', 'commit', 'worker', 'off', 'worker', 'commit', 'worker')
    {
        usleep(400_000);
        set_delivery($node, $mode);
    }
    $writers->finish;
    is($writers->full_result(0), 0, 'orders go on while the mode changes') or diag($output);
    # Nobody was told of those of the other modes, until the next order of the same account.
    order($node, 'postgres', map { "w$_" } 1 .. 30);
    is_announced($l, 4, 'w%', 'after it changed under writers');
    order($node, 'postgres', 'last');
    my $entries = $node->safe_psql('postgres', 'SELECT count(*) FROM rebate.entries');
    my $until = time + $limit;
    my @lines;
    do { usleep(50_000); @lines = -f $file ? split(/\n/, slurp_file($file)) : (); } until @lines >= $entries or time > $until;
    usleep(200_000);
    @lines = split /\n/, slurp_file($file);
    my $json = JSON::PP->new->utf8;
    my @read = map { my $e = $json->decode((split /\t/, $_, 2)[1]); "$e->{member} $e->{seq} $e->{amount}" } @lines;
    is_deeply([ sort @read ], [ sort split /\n/, $node->safe_psql('postgres', q{SELECT concat_ws(' ', member, seq, amount) FROM rebate.entries}) ],
        'a reader by cursor has the ledger, each entry once');
    note_file_lines(@lines);
    $follower->signal('TERM');
    $follower->finish;
}

# --- others do not wait ----------------------------------------------------------------------------------------------

{
    my $idle = session($node, 'postgres', "BEGIN; INSERT INTO orders (customer, total) VALUES ('idle', 10); SELECT rebate.flush();\n", qr/1/);
    $node->safe_psql('postgres', q{BEGIN; INSERT INTO orders (customer, total) VALUES ('prepared', 10); PREPARE TRANSACTION 'p'});
    my $channel = $node->safe_psql('postgres', q{SELECT rebate.channel('alice')});
    listen_on($l, $channel);
    usleep(1_200_000);
    forget($l);
    my $cursor = $node->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
    my $hints = status($node, 'hints');
    order($node, 'postgres', 'alice');
    ok(wait_until($l, 0.7, sub { on_channel($l, $channel) }), 'beside an open and a prepared transaction a member is told');
    cmp_ok(status($node, 'hints'), '>', $hints, 'by the hint of the commit');
    is($node->safe_psql('postgres', "SELECT event->>'member' FROM rebate.feed(\$c\$$cursor\$c\$)"), 'alice', 'and the feed has it');
    is_announced($l, 2, '%', 'all but those two');
    end_session($idle, 'COMMIT;');
    is_announced($l, 2, 'idle', 'the open one, when it commits');
    $node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
    is_announced($l, 3, 'prepared', 'the prepared one, too');
    is($node->safe_psql('postgres', "SELECT string_agg(event->>'member', ' ') FROM rebate.feed(\$c\$$cursor\$c\$)"), 'alice idle prepared',
        'the feed has each once');
}

# --- a full queue ----------------------------------------------------------------------------------------------------

# From 17 on the queue can be made small, and 010 does it.
SKIP:
{
    skip 'the queue is filled by another test', 1 if $node->pg_version >= 17;
    chomp(my $include = `pg_config --includedir-server`);
    system_or_bail($ENV{CC} || 'cc', '-O1', '-shared', '-fPIC', '-Wall', "-I$include", '-o', "$dir/notify_queue.so", "$FindBin::RealBin/../fault/notify_queue.c");
    $node->safe_psql('postgres', "CREATE FUNCTION $_(integer) RETURNS void AS '$dir/notify_queue', '$_' LANGUAGE C") foreach 'notify_queue_fill', 'notify_queue_drain';

    foreach my $mode ('worker', 'commit')
    {
        set_delivery($node, $mode);
        my $stuck = session($node, 'postgres', "LISTEN nothing;\nBEGIN;\nSELECT 'pid ' || pg_backend_pid();\n", qr/pid \d+\n/);
        my ($pid) = $stuck->{out} =~ /pid (\d+)/;
        my $filler = session($node, 'postgres', "SELECT notify_queue_fill($pid);\n\\echo full\n", qr/full/);
        cmp_ok(status($node, 'queue_usage'), '>', 0.95, "$mode: the queue is full, and delivery_status tells");
        isnt(($node->psql('postgres', 'NOTIFY other'))[0], 0, "$mode: nobody can notify");

        my $cursor = $node->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
        order_of_many($node, 'postgres', 300);
        order($node, 'postgres', 'alice', 'alice');
        is($node->safe_psql('postgres', "SELECT count(*) FROM rebate.feed(\$c\$$cursor\$c\$)"), 302, "$mode: orders go on, and are there for readers by cursor");
        is($node->safe_psql('postgres', q{SELECT count(*) FROM rebate.events('alice', NULL, 100000)}),
            $node->safe_psql('postgres', q{SELECT last_entry FROM rebate.balances WHERE member = 'alice'}), "$mode: of a member, too");
        if ($mode eq 'worker')
        {
            ok($node->poll_query_until('postgres', q{SELECT last_error ~ 'NOTIFY queue' AND last_error_at > now() - interval '10 s' FROM rebate.delivery_status}),
                'worker: delivery_status has the error');
            cmp_ok(status($node, 'worker_pid'), '>', 0, 'worker: it is still there');
        }
        end_session($filler, "SELECT notify_queue_drain($pid);");
        end_session($stuck, 'COMMIT;');
        order($node, 'postgres', 'alice');
        # Without a worker nobody looks for what was not announced.
        is_announced($l, 5, $mode eq 'worker' ? '%' : 'alice', "$mode: after it has drained");
        cmp_ok(status($node, 'queue_usage'), '<', 0.1, "$mode: and delivery_status tells");
    }
    set_delivery($node, 'worker');
}

# --- databases while the worker is busy ------------------------------------------------------------------------------

# Goes through, whoever has to step aside for it.
sub goes_through
{
    my ($sql, $what) = @_;
    my $begin = time;
    my ($status, undef, $error) = $node->psql('postgres', $sql, timeout => $limit);

    is($status, 0, $what) or diag($error);
    note sprintf '%s: %.1f s', $what, time - $begin;
    return;
}

{
    $node->safe_psql('postgres', 'CREATE DATABASE busy');
    $node->safe_psql('busy', $shop);
    my $client = listener($node, 'busy', 'rebate');
    order($node, 'busy', 'alice');
    is_announced($client, 5, '%', 'a database');
    close_listener($client);

    # Much to look for, much in the ring, and a queue that is read by nobody: then somebody wants the database.
    my $pid = $node->safe_psql('busy', 'SELECT worker_pid FROM rebate.delivery_status');
    stand_still($node, $pid) or die 'the worker does not stand still';
    order_of_many($node, 'busy', 15000);
    order($node, 'busy', map { "t$_" } 1 .. 500);
    kill 'CONT', $pid;
    goes_through('CREATE DATABASE copy TEMPLATE busy', 'a database whose worker is busy is copied');
    $client = listener($node, 'busy', 'rebate');
    # Those before the listener came are read by cursor; what was not announced yet is.
    order_of_many($node, 'busy', 15000);
    order($node, 'busy', 'alice', map { "t$_" } 1 .. 500);
    is_announced($client, 20, '%', 'the one that was copied');
    close_listener($client);

    # A DROP of any database waits until every process of the server has noticed.
    $pid = $node->safe_psql('busy', 'SELECT worker_pid FROM rebate.delivery_status');
    order_of_many($node, 'busy', 15000);
    goes_through('DROP DATABASE copy', 'another database is dropped while a worker is busy');
    usleep(1_200_000);
    $node->safe_psql('postgres', 'CREATE DATABASE copy');
    goes_through('DROP DATABASE copy', 'and while it is idle');
    is($node->safe_psql('busy', 'SELECT worker_pid FROM rebate.delivery_status'), $pid, 'the worker of the other one stays');

    # With writers that are busy, too.
    my $output = '';
    my $writers = IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-T', 20, '-f', "$dir/script", $node->connstr('busy') ],
        '<', \undef, '>', \$output, '2>&1', IPC::Run::timeout(3 * $limit));
    usleep(500_000);
    goes_through('DROP DATABASE busy WITH (FORCE)', 'a database with busy writers and a busy worker is dropped');
    $writers->finish;
    is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rebate publisher'}), 1, 'its worker is gone');
    order($node, 'postgres', 'alice');
    is_announced($l, 3, 'alice', 'the other database afterwards');
}

# --- promotion -------------------------------------------------------------------------------------------------------

{
    $node->backup('copy');
    my $standby = PostgreSQL::Test::Cluster->new('standby');
    $standby->init_from_backup($node, 'copy', has_streaming => 1);
    $standby->start;
    $node->safe_psql('postgres', q{BEGIN; INSERT INTO orders (customer, total) SELECT 'q' || n, 10 FROM generate_series(1, 400) n; PREPARE TRANSACTION 'q'});
    my $channel = $node->safe_psql('postgres', q{SELECT rebate.channel('alice')});
    $node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
    is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rebate publisher'}), 0, 'a standby has no publisher');
    close_listener($l);
    $node->stop;
    $standby->promote;

    my $new = listener($standby, 'postgres', 'rebate', $channel);
    $standby->safe_psql('postgres', q{COMMIT PREPARED 'q'});
    is_announced($new, 4, 'q%', 'the first commit after a promotion, of what was prepared before it');
    is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rebate publisher'}), 1, 'by its publisher');
    order($standby, 'postgres', 'alice');
    ok(wait_until($new, 2, sub { on_channel($new, $channel) }), 'a member is told on the channel that he had');
    is_announced($new, 2, 'alice', 'an order');
    close_listener($new);
    is($standby->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
    unlike(slurp_file($standby->logfile), qr/PANIC|terminated by signal|TRAP:/, 'nothing crashed');
    $standby->stop;
}
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal|TRAP:/, 'nothing crashed');
events_are_valid('what was told and read', 'event', 'shared_payload', 'member_payload');
done_testing();
