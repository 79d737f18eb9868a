# Delivery by LISTEN/NOTIFY: who is told of what, in each mode, and what becomes of it when the worker or its database goes.
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

my $json = JSON::PP->new->canonical;

# --- a shop ----------------------------------------------------------------------------------------------------------

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

sub handle_of
{
    my ($node, $db, $member) = @_;
    return $node->safe_psql($db, "SELECT handle FROM rebate_data.account WHERE member = '$member'");
}

sub status
{
    my ($node, $db, $columns) = @_;
    return $node->safe_psql($db, "SELECT $columns FROM rebate.delivery_status");
}

sub worker { my ($node, $db) = @_; return status($node, $db, 'worker_pid'); }

# A cluster's setting, changed by reload; a new session sees it.
sub set_delivery
{
    my ($node, $db, $delivery, $mode) = @_;
    $node->safe_psql($db, "ALTER SYSTEM SET rebate.delivery = $delivery");
    $node->reload;
    $node->poll_query_until($db, "SELECT mode = '$mode' FROM rebate.delivery_status")
      or die "rebate.delivery = $delivery does not get mode $mode";
    return;
}

sub new_node
{
    my ($name, $settings) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);

    $node->init;
    $node->append_conf('postgresql.conf', "max_prepared_transactions = 10\n$settings");
    $node->start;
    $node->safe_psql('postgres', $shop);
    return $node;
}

# The queue of notifications is full, because a listener does not end its transaction: orders go on all the same. From 17
# on the queue can be made small; before, one of 8 GB has to be filled.
my $queue_pages = '';

sub full_queue
{
    my ($node, $l, $mode) = @_;
  SKIP:
    {
        skip 'a queue of 8 GB is filled with PG_TEST_EXTRA=notify_queue only', 5
          unless $queue_pages or ($ENV{PG_TEST_EXTRA} // '') =~ /\bnotify_queue\b/;
        my $stuck = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \my $in, '>', \my $out);
        $in = "LISTEN nothing;\nBEGIN;\nSELECT 'stuck';\n";
        $stuck->pump until defined $out and $out =~ /stuck/;
        # Until it does not fit, a page each. A transaction of several that does not fit would leave those that did in the queue, and
        # wake nobody: then a listener that only waits is behind, too, and no NOTIFY gets through that would wake it.
        my $size = $queue_pages ? 64 : 1048576;
        foreach my $n ($queue_pages ? () : (20000, 200))
        {
            $node->safe_psql('postgres', "SELECT count(pg_notify('flood', n || repeat('x', 7900))) FROM generate_series(1, $n) n")
              while $node->safe_psql('postgres', 'SELECT pg_notification_queue_usage()') < 1 - 2 * $n / $size;
        }
        my $status = 0;
        ($status) = $node->psql('postgres', join '', map { "SELECT pg_notify('flood', repeat('x', 7900));\n" } 1 .. 100)
          until $status;
        cmp_ok($node->safe_psql('postgres', 'SELECT pg_notification_queue_usage()'), '>', 0.9, "$mode: the queue of notifications is full");
        ($status, undef, my $errors) = $node->psql('postgres',
            q{INSERT INTO orders (customer, total) SELECT 'q' || n, 100 FROM generate_series(1, 1000) n;
              INSERT INTO orders (customer, total) VALUES ('alice', 100)});
        is($status, 0, "$mode: orders go on") or diag($errors);
        usleep(1_500_000);
        $in .= "COMMIT;\n\\q\n";
        $stuck->finish;
        forget($l);
        ok( $node->poll_query_until('postgres', q{SELECT pg_notification_queue_usage() < 0.1 FROM pg_notify('flood', '')}),
            "$mode: with the transaction ended it drains");
        order($node, 'postgres', 'alice');
        # Without a worker nobody looks for what was not announced.
        is_announced($l, 10, $mode eq 'worker' ? '%' : 'alice', "$mode: afterwards");
    }
    return;
}

# --- with a worker ---------------------------------------------------------------------------------------------------

my $major = PostgreSQL::Test::Cluster->new('version')->pg_version;
$queue_pages = 'max_notify_queue_pages = 64' if $major >= 17;
my $node = new_node('worker', "shared_preload_libraries = 'rebate'\nrebate.ring_size = 1024\nrebate.max_databases = 4\n$queue_pages");
my $l = listener($node, 'postgres', 'rebate');

is(status($node, 'postgres', 'setting, mode, reason'), 'worker|worker|', 'with preloading the mode is worker');
order($node, 'postgres', 'alice');
ok($node->poll_query_until('postgres', 'SELECT worker_pid IS NOT NULL FROM rebate.delivery_status'),
    'the first order brings the worker');
is_announced($l, 5, 'alice', 'the first order');

my $alice = handle_of($node, 'postgres', 'alice');
forget($l);
order($node, 'postgres', 'alice');
my $took = wait_until($l, 2, sub { ($l->{known}{$alice} // 0) == 2 });
ok($took, 'a commit is heard of');
my ($heard) = on_channel($l, 'rebate');
is_deeply($json->decode($heard->[1]), { v => 1, accounts => [ [ $alice, '2' ] ] }, 'with the account and its sequence as text');
is($heard->[2], worker($node, 'postgres'), 'from the worker');

# A member's channel.
my $channel = $node->safe_psql('postgres', q{SELECT rebate.channel('alice')});
is($node->safe_psql('postgres', q{SELECT rebate.channel('alice')}), $channel, 'a channel keeps its name');
isnt($node->safe_psql('postgres', q{SELECT rebate.channel('bob')}), $channel, 'and shares it with nobody');
listen_on($l, $channel);
forget($l);
order($node, 'postgres', 'alice', 'bob');
ok(wait_until($l, 3, sub { on_channel($l, $channel) > 0 }), 'the channel of a member speaks');
is_announced($l, 3, 'bob', 'the other order');
is(scalar(on_channel($l, $channel)), 1, 'once, and not of others');
my ($event) = map { $json->decode($_->[1]) } on_channel($l, $channel);
my $same = sub { $node->safe_psql('postgres',
        "SELECT json_agg(event ORDER BY seq) FROM rebate.events('alice') WHERE seq " . shift) };
is_deeply([$event], $json->decode($same->('= 3')), 'with the event that events() has');
is("$event->{member} $event->{seq} $event->{amount} $event->{balance}{available}", 'alice 3 10.00 30.00', 'and the right figures');

forget($l);
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) SELECT 'alice', 100 FROM generate_series(1, 3)});
ok(wait_until($l, 3, sub { on_channel($l, $channel) > 0 }), 'a transaction with several orders is heard of on the channel');
my ($events) = map { $json->decode($_->[1]) } on_channel($l, $channel);
is_deeply($events, $json->decode($same->('BETWEEN 4 AND 6')), 'with an array of its events');
forget($l);
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) SELECT 'alice', 100 FROM generate_series(1, 300)});
ok(wait_until($l, 3, sub { on_channel($l, $channel) > 0 }), 'one with many, too');
is_deeply([ map { $json->decode($_->[1]) } on_channel($l, $channel) ],
    [ { v => 1, account => $alice, first => '7', last => '306', truncated => JSON::PP::true } ], 'with where to read them');

# What is rolled back is not announced.
order($node, 'postgres', 'carol', 'dave');
is_announced($l, 3, '%', 'two more');
forget($l);
$node->safe_psql('postgres', q{
    BEGIN; INSERT INTO orders (customer, total) VALUES ('carol', 1); ROLLBACK;
    BEGIN;
    INSERT INTO orders (customer, total) VALUES ('carol', 5);
    SAVEPOINT a;
    INSERT INTO orders (customer, total) VALUES ('dave', 5), ('carol', 5);
    SELECT rebate.flush();
    ROLLBACK TO a;
    SAVEPOINT b;
    INSERT INTO orders (customer, total) VALUES ('erin', 5);
    SELECT rebate.flush();
    RELEASE b;
    COMMIT;});
is_announced($l, 3, '%', 'after a savepoint was rolled back');
my $dave = handle_of($node, 'postgres', 'dave');
is(scalar(grep { $_->[1] =~ /\Q$dave\E/ } @{ $l->{heard} }), 0, 'nothing of who has nothing');

# More members than a transaction remembers.
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) SELECT 's' || n, 10 FROM generate_series(1, 5000) n});
is_announced($l, 10, 's%', 'a statement over 5,000 members');
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) SELECT 's' || n, 10 FROM generate_series(1, 5000) n});
is_announced($l, 10, 's%', 'and a second one');

# Two-phase commit: its callbacks may run in another session, or in none of ours.
$node->safe_psql('postgres',
    q{BEGIN; INSERT INTO orders (customer, total) VALUES ('paul', 10), ('alice', 10); PREPARE TRANSACTION 'p'});
usleep(1_500_000);
is_announced($l, 1, '%', 'before the second phase');
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
is_announced($l, 3, '%', 'what was prepared');
is(handle_of($node, 'postgres', 'paul') ne '', 1, 'the new account is there');

# A commit that was in progress at a look while others went by.
my $slow = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \my $slow_in, '>', \my $slow_out);
$slow_in = "BEGIN; INSERT INTO orders (customer, total) VALUES ('slow', 10); SELECT rebate.flush();\n";
$slow->pump until defined $slow_out and $slow_out =~ /1/;
order($node, 'postgres', map { "s$_" } 1 .. 20);
usleep(1_500_000);
order($node, 'postgres', map { "s$_" } 1 .. 20);
is_announced($l, 3, 's%', 'those beside an open transaction');
$slow_in .= "COMMIT;\n\\q\n";
$slow->finish;
is_announced($l, 3, 'slow', 'the open one, after its commit');

# The ring is full: the worker stands still for more commits than it holds.
my $pid = worker($node, 'postgres');
my $overflows = status($node, 'postgres', 'overflows');
stand_still($node, $pid) or die 'the worker does not stand still';
order($node, 'postgres', map { 'o' . $_ % 2500 } 1 .. 3000);
cmp_ok(status($node, 'postgres', 'overflows'), '>', $overflows, 'with the worker stopped the ring overflows');
kill 'CONT', $pid;
is_announced($l, 10, '%', 'what found no room');
cmp_ok(status($node, 'postgres', 'ring_used'), '<=', 1, 'and the ring is empty again');

# The worker is terminated, with hints that it has not read.
stand_still($node, $pid) or die 'the worker does not stand still';
order($node, 'postgres', map { "t$_" } 1 .. 50);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
order($node, 'postgres', map { "t$_" } 51 .. 60);
kill 'CONT', $pid;
order($node, 'postgres', map { "t$_" } 61 .. 100);
ok($node->poll_query_until('postgres', "SELECT worker_pid <> $pid FROM rebate.delivery_status"), 'a terminated worker is started again');
is_announced($l, 10, '%', 'what it had not read');
# And again while nobody commits: what is committed, but nobody told it, is not lost with it.
for my $n (1 .. 3)
{
    $pid = worker($node, 'postgres');
    stand_still($node, $pid) or die 'the worker does not stand still';
    order($node, 'postgres', map { "u$_" } 1 .. 30);
    kill 'TERM', $pid;
    kill 'CONT', $pid;
    is_announced($l, 10, '%', "without new orders, $n");
}

# Forged notifications, which no schema describes.
$Listener::genuine = 0;
my $before = $same->('> 0');
$node->safe_psql('postgres', $_) foreach
    qq{NOTIFY rebate, '{"v": 1, "accounts": [["$alice", "999999"]]}'},
    q<NOTIFY rebate, '{"v": 1, "accounts": "'>, q{NOTIFY rebate}, q{SELECT pg_notify('rebate', repeat('x', 7999))},
    qq{NOTIFY "$channel", '{"v": 1, "member": "alice", "seq": "1", "amount": "1000000.00"}'};
tick($l) for 1 .. 2;
is($l->{known}{$alice}, 999999, 'a forged notification is heard');
is($same->('> 0'), $before, 'and changes nothing of the events');
is($node->safe_psql('postgres', q{SELECT * FROM rebate.audit()}), '', 'nor of the ledger');
delete $l->{known}{$alice};
$Listener::genuine = 1;
order($node, 'postgres', 'alice');
is_announced($l, 3, 'alice', 'a true one after it');

# New names.
my $open = $node->safe_psql('postgres', 'SELECT count(*) FROM rebate_data.channel');
is($node->safe_psql('postgres', 'SELECT rebate.rotate_channels()'), $open, "rotate_channels ends $open channels");
forget($l);
order($node, 'postgres', 'alice', 'bob');
is_announced($l, 3, '%', 'orders after that');
usleep(1_200_000);
tick($l);
is(scalar(on_channel($l, $channel)), 0, 'the old name is silent');
my $new_channel = $node->safe_psql('postgres', q{SELECT rebate.channel('alice')});
isnt($new_channel, $channel, 'the new name is another one');
listen_on($l, $new_channel);
order($node, 'postgres', 'alice');
ok(wait_until($l, 3, sub { on_channel($l, $new_channel) > 0 }), 'on the new name it speaks');
is(scalar(on_channel($l, $channel)), 0, 'and on the old one still not');

# --- modes -----------------------------------------------------------------------------------------------------------

# Prepared transactions and ordinary ones in each mode.
foreach my $mode ('commit', 'off', 'worker')
{
    set_delivery($node, 'postgres', $mode, $mode);
    is(status($node, 'postgres', 'setting, mode, reason'), "$mode|$mode|", "delivery_status after the reload: $mode");
    forget($l);
    my $writer = $node->safe_psql('postgres', q{INSERT INTO orders (customer, total) VALUES ('alice', 1); SELECT pg_backend_pid()});
    if ($mode eq 'off')
    {
        # The worker may have been at work when the mode changed.
        usleep(1_500_000);
        forget($l);
        order($node, 'postgres', 'alice');
        usleep(1_500_000);
        tick($l) for 1 .. 2;
        is(scalar(@{ $l->{heard} }), 0, 'off: nobody is told anything');
    }
    else
    {
        is_announced($l, 3, 'alice', $mode);
        ok(wait_until($l, 3, sub { on_channel($l, $new_channel) > 0 }), "$mode: the member's channel speaks");
        my ($first) = on_channel($l, 'rebate');
        is($first->[2], $mode eq 'commit' ? $writer : worker($node, 'postgres'), "$mode: told by the right one");
    }
    is( ($node->psql('postgres',
            "BEGIN; INSERT INTO orders (customer, total) VALUES ('$mode', 1); PREPARE TRANSACTION '$mode'; COMMIT PREPARED '$mode'"))[0],
        0, "$mode: PREPARE TRANSACTION works");
    is($node->safe_psql('postgres', "SELECT available FROM rebate.balances WHERE member = '$mode'"), '0.10', "$mode: and has its rebate");
}
is_announced($l, 3, 'worker', 'what was prepared with a worker');
full_queue($node, $l, 'worker');

# --- databases come and go -------------------------------------------------------------------------------------------

# Orders of a database until its worker has announced them.
sub new_shop
{
    my ($db, $sql) = @_;
    $node->safe_psql('postgres', "CREATE DATABASE $db") unless $sql;
    $node->safe_psql($db, $sql // $shop);
    my $client = listener($node, $db, 'rebate');
    order($node, $db, 'x', 'y');
    is_announced($client, 10, '%', "database $db");
    cmp_ok(worker($node, $db), '>', 0, "$db has a worker");
    close_listener($client);
    return;
}

# Goes through, whoever has to step aside for it.
sub goes_through
{
    my ($sql, $what) = @_;
    my $begin = time;
    my ($status, undef, $error) = $node->psql('postgres', $sql, timeout => $PostgreSQL::Test::Utils::timeout_default);

    is($status, 0, $what) or diag($error);
    note sprintf '%s: %.1f s', $what, time - $begin;
    return $status == 0;
}

new_shop('shop1');
if (goes_through('CREATE DATABASE shop2 TEMPLATE shop1', 'a database with a worker is copied'))
{
    my $client = listener($node, 'shop1', 'rebate');
    order($node, 'shop1', 'x');
    is_announced($client, 10, 'x', 'the one it was copied from, afterwards');
    close_listener($client);
    new_shop('shop2', 'SELECT 1');
    goes_through('DROP DATABASE shop2', 'a database with a worker is dropped');
}
goes_through('ALTER DATABASE shop1 RENAME TO shop3', 'one is renamed');
new_shop('shop3', 'SELECT 1');
goes_through('DROP DATABASE shop3', 'and dropped');
# Places of dropped databases are free again: more databases than rebate.max_databases, one after the other.
foreach my $n (1 .. 2)
{
    new_shop("again$n");
    goes_through("DROP DATABASE again$n", "again$n is dropped");
}

# Somebody wants the database for himself, but does not get it: the worker went away for him with hints that it had not
# read, and nobody writes orders after that.
new_shop('wanted');
my $client = listener($node, 'wanted', 'rebate');
$pid = worker($node, 'wanted');
stand_still($node, $pid) or die 'the worker does not stand still';
order($node, 'wanted', 'x', 'z');
my $copying = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'CREATE DATABASE copy TEMPLATE wanted OWNER nobody_there' ],
    '<', \'', '>', \my $ignored, '2>', \my $refused);
usleep(300_000);
kill 'CONT', $pid;
$copying->finish;
like($refused, qr/role "nobody_there" does not exist/, 'a copy of a database fails');
is_announced($client, 5, 'x', 'what its worker had not read');
is_announced($client, 1, 'z', 'all of it');
close_listener($client);
goes_through('DROP DATABASE wanted', 'the database with a listener gone is dropped');

# The extension goes and comes back; the store stays, and a hint that was not read does not wait for ever.
$pid = worker($node, 'postgres');
stand_still($node, $pid) or die 'the worker does not stand still';
order($node, 'postgres', 'alice');
my $owner = $node->safe_psql('postgres', q{SELECT relowner::regrole FROM pg_class WHERE oid = 'rebate_data.account'::regclass});
goes_through('SET client_min_messages = warning; DROP EXTENSION rebate CASCADE', 'DROP EXTENSION with a worker');
kill 'CONT', $pid;
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) VALUES ('unseen', 1)});
usleep(1_500_000);
is($node->safe_psql('postgres', q{CREATE EXTENSION rebate; SELECT ring_used FROM rebate.delivery_status; DROP EXTENSION rebate}), 0, 'the hint is gone');
$node->safe_psql('postgres', qq{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    SELECT rebate.adopt_store('$owner');
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', replace => true);});
order($node, 'postgres', 'alice', 'returned');
is_announced($l, 10, 'alice', 'after CREATE EXTENSION');
is_announced($l, 10, 'returned', 'with a new member');
my $third_channel = $node->safe_psql('postgres', q{SELECT rebate.channel('alice')});
listen_on($l, $third_channel);
order($node, 'postgres', 'alice');
ok(wait_until($l, 3, sub { on_channel($l, $third_channel) > 0 }), 'a channel of the extension that came back speaks');

# A new store in place of the old one, whose accounts start again with the same ids and with entry 1; so quickly that the
# worker does not see the time between. Hints of the old one wait in the ring.
$pid = worker($node, 'postgres');
stand_still($node, $pid) or die 'the worker does not stand still';
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) SELECT member, 100 FROM rebate_data.account ORDER BY account_id LIMIT 100});
$node->safe_psql('postgres', qq{
    SET client_min_messages = warning;
    DROP EXTENSION rebate CASCADE;
    DROP SCHEMA rebate_data CASCADE;
    DROP TABLE orders;
    $shop
    INSERT INTO orders (customer, total) SELECT 'n' || n, 100 FROM generate_series(1, 100) n});
kill 'CONT', $pid;
is_announced($l, 5, '%', 'a new store');
order($node, 'postgres', map { "n$_" } 1 .. 3);
is_announced($l, 5, '%', 'and more of it');

# Settings of the database that a worker must not trip over.
$ENV{PGOPTIONS} = '-c default_transaction_read_only=off -c default_transaction_isolation=read\ committed -c statement_timeout=0'
  . ' -c lock_timeout=0 -c default_transaction_deferrable=off -c search_path=public';
$node->safe_psql('postgres', "ALTER DATABASE postgres SET $_") foreach
  'default_transaction_read_only = on', 'default_transaction_isolation = serializable', 'default_transaction_deferrable = on',
  q{statement_timeout = '1ms'}, q{lock_timeout = '1ms'}, q{idle_in_transaction_session_timeout = '1ms'}, 'search_path = nowhere';
$pid = worker($node, 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->poll_query_until('postgres', "SELECT worker_pid <> $pid FROM rebate.delivery_status");
order($node, 'postgres', 'n1', 'n4');
is_announced($l, 5, '%', 'with hostile settings of the database');
$node->safe_psql('postgres', q{INSERT INTO orders (customer, total) SELECT 'n' || n, 100 FROM generate_series(1, 1000) n});
is_announced($l, 5, '%', 'many, with hostile settings');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL');
delete $ENV{PGOPTIONS};

# A restart: clients connect again and read by cursor; then hints come as before. The first thing committed was prepared
# before it, so that nobody has asked for the worker yet.
$node->safe_psql('postgres', q{BEGIN; INSERT INTO orders (customer, total) VALUES ('again', 10), ('n1', 10); PREPARE TRANSACTION 'a'});
close_listener($l);
$node->restart;
$l = listener($node, 'postgres', 'rebate');
usleep(1_200_000);
$node->safe_psql('postgres', q{COMMIT PREPARED 'a'});
is_announced($l, 4, 'again', 'what was prepared before a restart');
order($node, 'postgres', 'alice', 'bob');
is_announced($l, 5, 'alice', 'after a restart');
is(status($node, 'postgres', 'last_error'), '', 'no error is on record');
close_listener($l);
my $log = slurp_file($node->logfile);
unlike($log, qr/PANIC|terminated by signal|TRAP:/, 'nothing crashed');
# Its lines have no program name; nor have those of autovacuum, which goes away for who wants a table.
my @worker_errors = grep { /\] ERROR:/ && !/NOTIFY queue|canceling autovacuum task/ } split /\n/, $log;
is("@worker_errors", '', 'no error of the worker');
$node->stop;

# --- no worker to be had ---------------------------------------------------------------------------------------------

# The only slot is that of logical replication.
my $full = new_node('full', "shared_preload_libraries = 'rebate'\nmax_worker_processes = 1\nmax_parallel_workers = 0");
$l = listener($full, 'postgres', 'rebate');
my ($status, undef, $errors) = $full->psql('postgres', join '', map { "INSERT INTO orders (customer, total) VALUES ('a$_', 100);\n" } 1 .. 3);
is($status, 0, 'without a free worker slot orders go on');
is(() = $errors =~ /WARNING/g, 1, 'with one WARNING') or diag($errors);
is_announced($l, 3, 'a%', 'they');
($status, undef, $errors) = $full->psql('postgres', q{INSERT INTO orders (customer, total) VALUES ('b1', 100)});
is_announced($l, 3, 'b%', 'those of the next session');
is(status($full, 'postgres', 'setting, mode'), 'worker|commit', 'delivery_status says commit');
like(status($full, 'postgres', 'reason'), qr/max_worker_processes/, 'and why');
is($full->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
close_listener($l);
$full->stop;

# More databases than rebate.max_databases.
my $few = new_node('few', "shared_preload_libraries = 'rebate'\nrebate.max_databases = 1");
order($few, 'postgres', 'a');
$few->safe_psql('postgres', 'CREATE DATABASE second');
$few->safe_psql('second', $shop);
$l = listener($few, 'second', 'rebate');
order($few, 'second', 'a', 'b');
is_announced($l, 3, '%', 'one database too many');
is(status($few, 'second', 'mode'), 'commit', 'its mode is commit');
like(status($few, 'second', 'reason'), qr/max_databases/, 'and delivery_status says why');
close_listener($l);
$few->stop;

# --- without preloading ----------------------------------------------------------------------------------------------

my $plain = new_node('plain', $queue_pages);
$l = listener($plain, 'postgres', 'rebate');
$channel = $plain->safe_psql('postgres', q{SELECT rebate.channel('alice')});
listen_on($l, $channel);
is(status($plain, 'postgres', 'setting, mode, worker_pid'), 'worker|commit|', 'without preloading the mode is commit');
like(status($plain, 'postgres', 'reason'), qr/shared_preload_libraries/, 'and delivery_status says why');
my $writer = $plain->safe_psql('postgres', q{INSERT INTO orders (customer, total) VALUES ('alice', 100), ('bob', 100); SELECT pg_backend_pid()});
is_announced($l, 2, '%', 'a commit');
is_deeply([ map { $_->[2] } @{ $l->{heard} } ], [ $writer, $writer ], 'by the session that wrote it, once on each channel');
($event) = map { $json->decode($_->[1]) } on_channel($l, $channel);
is_deeply([$event], $json->decode($plain->safe_psql('postgres', q{SELECT json_agg(event) FROM rebate.events('alice')})),
    'the member\'s channel has the event');
forget($l);
$plain->safe_psql('postgres', q{
    BEGIN; INSERT INTO orders (customer, total) VALUES ('alice', 1); ROLLBACK;
    BEGIN; INSERT INTO orders (customer, total) VALUES ('bob', 1); SAVEPOINT a;
    INSERT INTO orders (customer, total) VALUES ('alice', 1); SELECT rebate.flush(); ROLLBACK TO a; COMMIT;});
is_announced($l, 2, '%', 'only what is committed');
is(scalar(on_channel($l, $channel)), 0, 'and the member of what was rolled back is told nothing');
is( ($plain->psql('postgres', q{BEGIN; INSERT INTO orders (customer, total) VALUES ('carol', 1); PREPARE TRANSACTION 'c'}))[0],
    0, 'PREPARE TRANSACTION works');
$plain->safe_psql('postgres', q{COMMIT PREPARED 'c'});

full_queue($plain, $l, 'commit');
close_listener($l);
is($plain->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
$plain->stop;
events_are_valid('notifications of worker and commit', 'member_payload', 'shared_payload');
done_testing();
