# The runbook, "When something is wrong" of docs/operations.md: each line is broken on purpose on a real server, its query
# must show the trouble and its command must mend it, both as printed. A line without a case, or a case without one, fails.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use File::Copy qw(copy);
use IPC::Run ();
use Processes;

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $dir = PostgreSQL::Test::Utils::tempdir;

# --- the lines: what => [query, command] -------------------------------------------------------------------------------

my ($table) = slurp_file('docs/operations.md') =~ /^## When something is wrong\n.*?\n\|---\|---\|---\|\n(.*?)\n\n/ms;
my (%line, @order);
foreach my $row (split /\n/, $table)
{
    my ($what, $look, $do) = map { s/^\s+|\s+$//gr } (split /\|/, $row)[ 1 .. 3 ];
    my ($query) = $look =~ /`([^`]+)`/;
    my ($command) = $do =~ /`([^`]+)`/;
    die "no query and command in: $row" unless $query && $command;
    $line{$what} = [ $query, $command ];
    push @order, $what;
}

# --- servers -------------------------------------------------------------------------------------------------------------

# Files of the server of our own, since the library is taken away: other tests run on the common ones.
my $tree = "$dir/tree";
system('cp', '-a', $ENV{REBATE_TREE}, $tree) == 0 or die "cannot copy $ENV{REBATE_TREE}";
chomp(my $bindir = `pg_config --bindir`);
$bindir =~ s/^\Q$ENV{REBATE_TREE}\E//;
$ENV{PATH} = "$tree$bindir:$ENV{PATH}";
chomp(my $libdir = `pg_config --pkglibdir`);
chomp(my $sharedir = `pg_config --sharedir`);
chomp(my $include = `pg_config --includedir-server`);
like($libdir, qr/^\Q$tree\E/, 'the server has files of its own');
my @cc = ($ENV{CC} || 'cc', '-O1', '-shared', '-fPIC', '-Wall', "-I$include");
system_or_bail(@cc, '-o', "$dir/disk_full.so", "$FindBin::RealBin/../fault/disk_full.c", '-ldl');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'rebate, pg_cron'
cron.database_name = 'jobs'
cron.use_background_workers = on
rebate.max_databases = 64
max_worker_processes = 40
max_prepared_transactions = 5
autovacuum = off
jit = off
full_page_writes = on
wal_keep_size = 64MB
max_wal_size = 32MB
CONF
$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64') if $node->pg_version >= 17;
mkdir "$dir/small";
{
    local $ENV{LD_PRELOAD} = "$dir/disk_full.so";
    local $ENV{DISK_FULL} = "$dir/small";
    $node->start;
}

# A shop in a database of its own
sub shop
{
    my ($db, $table, $more) = @_;
    my $on = $more->{node} // $node;
    $on->safe_psql('postgres', "CREATE DATABASE $db") unless $db eq 'postgres';
    $on->safe_psql($db, q{
        SET client_min_messages = warning;
        CREATE EXTENSION rebate;
        CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2)) } . ($table // '') . q{;
        } . ($more->{before} // '') . q{;
        SELECT rebate.attach('orders', 'customer', 'total', } . ($more->{attach} // q{'EUR'}) . q{);
        SELECT rebate.set_rule('ten', percent => 10);
        INSERT INTO orders SELECT i, 'm' || i % 3, 100 FROM generate_series(1, 10) i});
    return;
}

# What a statement says, its errors and hints, too; psql reads it as somebody would type it
sub says
{
    my ($on, $db, $sql) = @_;
    my (undef, $out, $errors) = $on->psql($db, "$sql\n", on_error_stop => 0);
    return "$out\n$errors";
}

sub earned
{
    my ($on, $db, $key) = @_;
    return $on->safe_psql($db, "SELECT COALESCE(sum(earned), 0) FROM rebate.accruals WHERE order_key = '$key'");
}

sub background
{
    my ($db, $sql, $ready) = @_;
    my $s = { in => "$sql\n\\echo ready\n", out => '', err => '' };
    $s->{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr($db) ], '<', \$s->{in}, '>', \$s->{out}, '2>', \$s->{err},
        IPC::Run::timeout(3 * $limit));
    if ($ready // 1) { $s->{run}->pump until $s->{out} =~ /ready\n/; }
    return $s;
}

sub end { my ($s) = @_; eval { $s->{run}->finish; }; return; }

# The line as printed: its query shows the trouble, its command mends it, and then all is well.
my %done;

sub try
{
    my ($what, %case) = @_;
    my $on = $case{node} // $node;
    my $db = $case{db};
    my ($query, $command) = @{ $line{$what} // [] };

    $done{$what} = 1;
    return fail("there is a line: $what") unless $query;
    like(says($on, $db, $query), $case{shows}, "$what: the query shows it");
    $case{between}->() if $case{between};
    my $said = says($on, $db, ($command =~ /\\gexec$/ ? $command : "$command;"));
    unlike($said, qr/ERROR/, "$what: the command");
    $case{after}->($said) if $case{after};
    is($on->safe_psql($db, 'SELECT * FROM rebate.audit()'), '', "$what: the audit is clean");
    # the test's own server does without fsync
    is($on->safe_psql($db, q{SELECT "check", subject, detail FROM rebate.doctor(true) WHERE status = 'problem' AND subject IS DISTINCT FROM 'fsync'}),
        '', "$what: the doctor has no problem");
    return;
}

# --- a fail-over: the primary goes on, and what it then posts is lost -----------------------------------------------------

{
    shop('postgres');
    $node->backup('backup');
    my $standby = PostgreSQL::Test::Cluster->new('standby');
    $standby->init_from_backup($node, 'backup', has_streaming => 1);
    $standby->start;
    $node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
    my $upstream = $standby->safe_psql('postgres', 'SELECT 1') && 'primary_conninfo';
    $standby->append_conf('postgresql.conf', "$upstream = ''");
    $standby->reload;
    $standby->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)') or die 'the standby does not let go';
    $node->safe_psql('postgres', q{INSERT INTO orders VALUES (11, 'lost', 100)});
    my $cursor = $node->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
    my $has = $node->safe_psql('postgres', 'SELECT count(*) FROM rebate.entries');
    $standby->promote;
    $standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
    $standby->safe_psql('postgres', q{INSERT INTO orders VALUES (12, 'new', 100)});
    like(says($standby, 'postgres', "\\set VERBOSITY verbose\nSELECT * FROM rebate.feed(\$c\$$cursor\$c\$);"), qr/RB013/, 'the follower is refused');
    $standby->safe_psql('postgres', q{DELETE FROM orders WHERE id = 12});
    my $new = $standby->safe_psql('postgres', 'SELECT count(*) FROM rebate.entries');
    try('after a fail-over followers are refused (RB013)', node => $standby, db => 'postgres', shows => qr/^$new\|/,
        after => sub {
            my ($fresh) = $_[0] =~ /^(\S.*)$/m;
            $standby->safe_psql('postgres', q{INSERT INTO orders VALUES (13, 'new', 100)});
            is($standby->safe_psql('postgres', "SELECT event -> 'order' ->> 'id' FROM rebate.feed(\$c\$$fresh\$c\$)"), 13, 'the follower goes on from there');
        });
    is($standby->safe_psql('postgres', q{SELECT count(*) FROM rebate.accruals WHERE order_key = '11'}), 0, 'what was lost is lost with its order');
    cmp_ok($has, '!=', $new, 'and the two have not the same');
    $standby->stop;
}

# --- orders ----------------------------------------------------------------------------------------------------------------

shop('failing', '', { attach => q{'EUR', on_error => 'abort'} });
isnt(($node->psql('failing', q{INSERT INTO orders VALUES (20, 'm1', NULL)}))[0], 0, 'an order fails');
try('orders fail, and the shop\'s statements with them', db => 'failing', shows => qr/public\.orders\|abort/,
    after => sub {
        is(($node->psql('failing', q{INSERT INTO orders VALUES (20, 'm1', NULL), (21, 'm1', 100)}))[0], 0, 'orders go on');
        is(earned($node, 'failing', 21), '10.00', 'and those that can be decided earn');
        $node->safe_psql('failing', 'UPDATE orders SET total = 0 WHERE id = 20');
    });

shop('aside', '', { before => 'ALTER TABLE orders ADD unit text DEFAULT \'EUR\'', attach => q{'unit'} });
$node->psql('aside', q{INSERT INTO orders VALUES (20, 'm1', 100, 'POINTS')});
is(earned($node, 'aside', 20), 0, 'an order is set aside');
try('orders are set aside', db => 'aside', shows => qr/RB010\|.*currency.*\|1/,
    between => sub { $node->safe_psql('aside', q{SELECT rebate.add_currency('POINTS', 0)}) },
    after => sub { is(earned($node, 'aside', 20), '10', 'it is decided') });

shop('changed');
$node->safe_psql('changed', q{CREATE TRIGGER copy BEFORE UPDATE ON rebate_data.account FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
    ALTER TABLE rebate_data.failure ENABLE ROW LEVEL SECURITY; CREATE RULE twice AS ON INSERT TO rebate_data.job DO ALSO NOTHING});
like(says($node, 'changed', "\\set VERBOSITY verbose\nINSERT INTO orders VALUES (20, 'm1', 100);"), qr/RB011/, 'orders fail');
try('the store was changed (RB011), or the doctor says so', db => 'changed',
    shows => qr/rebate_data\.account\|trigger copy is on it.*rebate_data\.failure\|it has row level security.*rebate_data\.job\|rule twice is on it/s,
    after => sub {
        $node->safe_psql('changed', q{INSERT INTO orders VALUES (20, 'm1', 100)});
        is(earned($node, 'changed', 20), '10.00', 'orders go on');
    });

shop('wider');
$node->safe_psql('wider', q{ALTER TABLE rebate_data.account ADD note text DEFAULT 'x'; ALTER TABLE rebate_data.accrual ADD "a note" int DEFAULT 1, ADD more int;
    ALTER TABLE rebate_data.job ADD note text});
like(says($node, 'wider', "\\set VERBOSITY verbose\nINSERT INTO orders VALUES (20, 'm1', 100);"), qr/RB011.*Column "(a )?note" is one more/s, 'orders fail');
try('somebody added a column to the store (RB011)', db => 'wider',
    shows => qr/rebate_data\.account\|somebody added column note.*rebate_data\.accrual\|somebody added column "a note".*DROP COLUMN "a note".*more/s,
    after => sub {
        $node->safe_psql('wider', q{INSERT INTO orders VALUES (20, 'm1', 100); UPDATE orders SET total = 50 WHERE id = 1});
        is(join(' ', earned($node, 'wider', 20), earned($node, 'wider', 1)), '10.00 5.00', 'orders go on');
    });

shop('indexes');
$node->safe_psql('indexes', q{UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rebate_data.failure_pkey'::regclass});
try('an index of the store is invalid', db => 'indexes', shows => qr/^rebate_data\.failure_pkey\|it is invalid.*REINDEX INDEX/m);
$node->safe_psql('indexes', q{CREATE INDEX entry_pkey_ccnew ON rebate_data.entry (account_id, seq);
    UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('rebate_data.accrual_order_key'::regclass, 'rebate_data.entry_pkey_ccnew'::regclass)});
like(says($node, 'indexes', "\\set VERBOSITY verbose\nINSERT INTO orders VALUES (20, 'm1', 100);"), qr/RB011/, 'orders fail');
try('an index of the store is invalid', db => 'indexes', shows => qr/^rebate_data\.accrual_order_key\|the index is invalid/m,
    after => sub { $node->safe_psql('indexes', q{INSERT INTO orders VALUES (20, 'm1', 100)}); is(earned($node, 'indexes', 20), '10.00', 'orders go on') });

shop('off');
$node->safe_psql('off', 'ALTER SYSTEM SET rebate.mode = off');
$node->reload;
$node->poll_query_until('off', q{SELECT current_setting('rebate.mode') = 'off'}) or die;
$node->safe_psql('off', q{INSERT INTO orders VALUES (20, 'm1', 100); UPDATE orders SET total = 200 WHERE id = 1; DELETE FROM orders WHERE id = 2});
is(earned($node, 'off', 20), 0, 'orders get nothing');
try('orders get no rebates at all', db => 'off', shows => qr/rebate\.mode\|off\|configuration file/,
    after => sub { is(join(' ', map { earned($node, 'off', $_) } 20, 1, 2), '10.00 20.00 0.00', 'they have what they should') });
$node->safe_psql('postgres', 'ALTER SYSTEM RESET rebate.mode');

shop('nothing');
$node->safe_psql('nothing', q{SET session_replication_role = replica; INSERT INTO orders VALUES (42, 'm1', 100)});
try('an order earned nothing, or too much', db => 'nothing', shows => qr/order\|.*42/,
    after => sub { is(earned($node, 'nothing', 42), '10.00', 'it is decided') });

shop('everything');
$node->safe_psql('everything', q{ALTER TABLE orders DISABLE TRIGGER rebate_insert; INSERT INTO orders VALUES (20, 'm1', 100); ALTER TABLE rebate_data.entry DISABLE TRIGGER USER});
try('whatever it is', db => 'everything', shows => qr/guards\|.*triggers\|public\.orders, trigger rebate_insert\|.*orders\|public\.orders\|/s,
    after => sub { is(earned($node, 'everything', 20), '10.00', 'the order is decided') });
$node->safe_psql('postgres', 'ALTER SYSTEM RESET fsync');

# --- slow, waiting ---------------------------------------------------------------------------------------------------------

shop('slow');
my $reader = background('slow', 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders;');
$node->safe_psql('slow', join '', map { "INSERT INTO orders VALUES ($_, 'm1', 100);\n" } 100 .. 400);
$reader->{in} .= "COMMIT;\n\\q\n";
end($reader);
my $dead = q{SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'account'};
$node->poll_query_until('slow', "SELECT ($dead) >= 200") or die 'no dead rows';
try('orders are slow', db => 'slow', shows => qr/^account\|\d+\|\d{3}/m,
    after => sub { ok($node->poll_query_until('slow', "SELECT ($dead) < 20"), 'the dead rows are gone') });

shop('vacuum');
$node->safe_psql('vacuum', 'ALTER TABLE rebate_data.account SET (autovacuum_enabled = off)');
try('dead rows pile up', db => 'vacuum', shows => qr/^rebate_data\.account\|autovacuum is off for it$/m,
    after => sub { is($node->safe_psql('vacuum', q{SELECT "check" FROM rebate.doctor() WHERE "check" = 'vacuum' AND status <> 'ok'}), '', 'autovacuum is on') });

shop('waiting');
my $holder = background('waiting', q{BEGIN; INSERT INTO orders VALUES (20, 'm1', 100); SELECT rebate.flush();});
my $waiter = background('waiting', q{INSERT INTO orders VALUES (21, 'm1', 100);}, 0);
$waiter->{run}->pump_nb;
my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0};
$node->poll_query_until('waiting', $waits) or die 'nobody waits';
try('orders wait', db => 'waiting', shows => qr/\d+\|idle in transaction\|.*SELECT rebate\.flush/,
    after => sub {
        $waiter->{run}->pump until $waiter->{out} =~ /ready\n/;
        is(earned($node, 'waiting', 21), '10.00', 'who waited goes on');
        is(earned($node, 'waiting', 20), 0, 'and the other is gone');
    });
$waiter->{in} .= "\\q\n";
end($_) foreach $waiter, $holder;

shop('prepared');
$node->safe_psql('prepared', q{BEGIN; INSERT INTO orders VALUES (20, 'm1', 100); PREPARE TRANSACTION 'it''s mine'});
$waiter = background('prepared', q{INSERT INTO orders VALUES (21, 'm1', 100);}, 0);
$waiter->{run}->pump_nb;
$node->poll_query_until('prepared', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted}) or die 'nobody waits';
try('orders wait for a prepared transaction', db => 'prepared', shows => qr/it's mine\|prepared .* by postgres, and 1 wait for it.*COMMIT PREPARED 'it''s mine'/,
    after => sub {
        $waiter->{run}->pump until $waiter->{out} =~ /ready\n/;
        is(join(' ', earned($node, 'prepared', 20), earned($node, 'prepared', 21)), '10.00 10.00', 'both have their rebates');
    });
$waiter->{in} .= "\\q\n";
end($waiter);

# --- checks ----------------------------------------------------------------------------------------------------------------

shop('triggers');
$node->safe_psql('triggers', q{ALTER TABLE orders DISABLE TRIGGER rebate_update; DROP TRIGGER rebate_insert ON orders;
    INSERT INTO orders VALUES (20, 'm1', 100)});
try('triggers are off, or gone', db => 'triggers', shows => qr/trigger rebate_update\|it is disabled.*trigger rebate_insert\|it is missing/s,
    after => sub { is(earned($node, 'triggers', 20), '10.00', 'what came meanwhile is decided') });

shop('audit');
$node->safe_psql('audit', q{SET session_replication_role = replica; INSERT INTO orders VALUES (20, 'm1', 100); UPDATE orders SET total = 50 WHERE id = 1;
    DELETE FROM orders WHERE id = 2});
try('the audit finds something', db => 'audit', shows => qr/^source\|.*\|1$/m,
    after => sub { is(join(' ', map { earned($node, 'audit', $_) } 20, 1, 2), '10.00 5.00 0.00', 'all is as the rows say') });

# --- the disk --------------------------------------------------------------------------------------------------------------

shop('crowded');
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$dir/small'");
$node->safe_psql('crowded', 'ALTER TABLE rebate_data.accrual SET TABLESPACE small');
append_to_file("$dir/small.flag", '');
my $failed = says($node, 'crowded', "\\set VERBOSITY verbose\nINSERT INTO orders SELECT i, 'm1', 100 FROM generate_series(1000, 3000) i;");
like($failed, qr/53100/, 'the disk is full');
is($node->safe_psql('crowded', 'SELECT count(*) FROM orders WHERE id >= 1000'), 0, 'no order without its rebate');
try('the disk is full', db => 'crowded', shows => qr/^rebate_data\.accrual\|/m,
    after => sub {
        $node->safe_psql('crowded', q{INSERT INTO orders SELECT i, 'm1', 100 FROM generate_series(1000, 3000) i});
        is(earned($node, 'crowded', 3000), '10.00', 'orders go on');
    });
unlink "$dir/small.flag";

shop('slots');
$node->safe_psql('slots', q{SELECT pg_create_physical_replication_slot('left', true)});
$node->safe_psql('slots', 'CREATE TABLE IF NOT EXISTS filler (); DROP TABLE filler; SELECT pg_switch_wal()') foreach 1 .. 4;
try('a replication slot keeps WAL', db => 'slots', shows => qr/^left\|nobody reads it, and it keeps \d+ MB of WAL/m,
    after => sub { is($node->safe_psql('slots', 'SELECT count(*) FROM pg_replication_slots'), 0, 'it is gone') });

# --- what came without us ----------------------------------------------------------------------------------------------------

shop('before');
$node->command_ok([ 'pg_dump', '-d', 'before', '-f', "$dir/before.sql" ], 'a backup');
$node->safe_psql('before', q{INSERT INTO orders VALUES (20, 'm1', 100)});
$node->command_ok([ 'pg_dump', '-d', 'before', '-a', '-t', 'orders', '--disable-triggers', '-f', "$dir/orders.sql" ], 'a later one of the orders');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', "$dir/before.sql" ], 'restored');
$node->safe_psql('restored', 'SET session_replication_role = replica; DELETE FROM orders');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', "$dir/orders.sql" ], 'and the orders');
try('after a restore', db => 'restored', shows => qr/orders\|public\.orders\|1 place/,
    after => sub { is(earned($node, 'restored', 20), '10.00', 'the ledger has caught up') });

shop('parted', 'PARTITION BY RANGE (id)', { before => 'CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (100)' });
$node->safe_psql('parted', q{CREATE TABLE orders_2 (LIKE orders); INSERT INTO orders_2 VALUES (120, 'm1', 100);
    ALTER TABLE orders ATTACH PARTITION orders_2 FOR VALUES FROM (100) TO (200)});
try('partitions were attached', db => 'parted', shows => qr/public\.orders\|1 of 11 orders/,
    after => sub { is(earned($node, 'parted', 120), '10.00', 'its orders have their rebates') });

# --- delivery ----------------------------------------------------------------------------------------------------------------

shop('quiet');
$node->safe_psql('quiet', 'ALTER SYSTEM SET rebate.delivery = off');
$node->reload;
$node->poll_query_until('quiet', q{SELECT mode = 'off' FROM rebate.delivery_status}) or die;

# An order, and whether a session that listens hears of it
sub is_heard
{
    my ($id, $what) = @_;
    my $l = background('quiet', 'LISTEN rebate;');
    $node->safe_psql('quiet', "INSERT INTO orders VALUES ($id, 'm1', 100)");
    my $until = time + $limit;
    until ($l->{out} =~ /notification "rebate"/ || time > $until)
    {
        $l->{in} .= "SELECT pg_sleep(0.1);\n\\echo again\n";
        $l->{out} .= '';
        my $seen = () = $l->{out} =~ /again/g;
        $l->{run}->pump until (() = $l->{out} =~ /again/g) > $seen;
    }
    like($l->{out}, qr/notification "rebate"/, $what);
    $l->{in} .= "\\q\n";
    end($l);
    return;
}

try('nobody hears of rebates', db => 'quiet', shows => qr/^off\|/m,
    after => sub {
        $node->poll_query_until('quiet', q{SELECT mode = 'worker' FROM rebate.delivery_status}) or die;
        is_heard(20, 'who listens hears');
    });
$node->poll_query_until('quiet', 'SELECT worker_pid IS NOT NULL FROM rebate.delivery_status') or die 'no worker';
my $pid = $node->safe_psql('quiet', 'SELECT worker_pid FROM rebate.delivery_status');
stand_still($node, $pid) or die 'the worker does not stand still';
$node->safe_psql('quiet', q{INSERT INTO orders VALUES (21, 'm1', 100)});
try('the worker is stuck', db => 'quiet', shows => qr/^$pid\|1\|/m,
    after => sub {
        kill 'CONT', $pid;
        ok($node->poll_query_until('quiet', "SELECT worker_pid <> $pid AND ring_used = 0 FROM rebate.delivery_status"), 'another worker has read what waited');
        is_heard(22, 'who listens hears');
    });

shop('names');
$node->safe_psql('names', q{ALTER SYSTEM SET log_statement = 'all'; SELECT pg_reload_conf()});
$node->poll_query_until('names', q{SELECT current_setting('log_statement') = 'all'}) or die;
is($node->safe_psql('names', q{SELECT status FROM rebate.doctor() WHERE "check" = 'channel names'}), 'ok', 'without channels there is no secret');
$node->safe_psql('names', q{SELECT rebate.channel('m1')});
try('names of channels can be read', db => 'names', shows => qr/^log_statement\|it is all: whoever reads the server's log/m,
    after => sub {
        $node->reload;
        ok($node->poll_query_until('names', q{SELECT status = 'ok' FROM rebate.doctor() WHERE "check" = 'channel names'}), 'they are in no log');
    });

my $stuck = background('quiet', "LISTEN nothing;\nBEGIN;\nSELECT 'pid ' || pg_backend_pid();");
my $filler;
if ($node->pg_version < 17)
{
    my ($listener) = $stuck->{out} =~ /pid (\d+)/;
    system_or_bail(@cc, '-o', "$dir/notify_queue.so", "$FindBin::RealBin/../fault/notify_queue.c");
    $node->safe_psql('quiet', "CREATE FUNCTION notify_queue_fill(integer) RETURNS void AS '$dir/notify_queue', 'notify_queue_fill' LANGUAGE C");
    $node->safe_psql('quiet', "SELECT notify_queue_fill($listener)");
}
else
{
    $node->psql('quiet', join '', map { "SELECT pg_notify('nothing', repeat('x', 7900));\n" } 1 .. 100);
}
isnt(($node->psql('quiet', 'NOTIFY other'))[0], 0, 'nobody can notify');
$node->safe_psql('quiet', q{INSERT INTO orders VALUES (23, 'm1', 100)});
try('the notification queue is full', db => 'quiet', shows => qr/^(1|0\.[5-9]\d*)$/m,
    after => sub {
        ok($node->poll_query_until('quiet', 'SELECT queue_usage < 0.1 FROM rebate.delivery_status'), 'it has drained');
        is_heard(24, 'who listens hears');
    });
$stuck->{in} .= "\\q\n";
end($stuck);

# --- the clock -----------------------------------------------------------------------------------------------------------------

shop('jobs', '', { before => 'ALTER TABLE orders ADD placed timestamptz DEFAULT now(); CREATE EXTENSION pg_cron;
    CREATE ROLE rebate_clock LOGIN; GRANT USAGE ON SCHEMA cron TO rebate_clock',
    attach => q{'EUR', order_time => 'placed', confirmed_at => 'placed'} });
# It has tried to find its database since the server started, and goes on trying once a second.
ok($node->poll_query_until('jobs', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher' AND datname = 'jobs')}),
    'the launcher of pg_cron has its database');
$node->safe_psql('jobs', q{GRANT rebate_owner TO rebate_clock; SET ROLE rebate_clock; SELECT rebate.schedule()});
$node->safe_psql('jobs', q{SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'rebate mature'});
unlike(says($node, 'jobs', $line{'pg_cron has no jobs, or they fail'}[0]), qr/^mature\|/m, 'a job is gone');
try('pg_cron has no jobs, or they fail', db => 'jobs', shows => qr/^age\|/m,
    after => sub { is($node->safe_psql('jobs', q{SELECT active FROM rebate.schedules() WHERE job = 'mature'}), 't', 'the job is there') });

# two jobs of a role that is no more and of a database that was renamed, and a role that is kept from its work
$node->safe_psql('jobs', q{SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname NOT IN ('rebate mature', 'rebate fold', 'rebate age', 'rebate prune') OR username <> 'rebate_clock';
    -- none of them just now: pg_cron may end when a job is taken away that it runs
    UPDATE cron.job SET active = true, schedule = '17 3 1 1 *', jobname = CASE jobname WHEN 'rebate prune' THEN E'rebate prune\nx; DROP TABLE orders; --' ELSE jobname END, username = CASE jobname WHEN 'rebate prune' THEN 'ghost' WHEN 'rebate fold' THEN 'keeper' ELSE username END,
        database = CASE jobname WHEN 'rebate fold' THEN 'before_its_name' ELSE database END;
    CREATE ROLE keeper LOGIN; SELECT rebate.grant_right('operator', 'keeper'); REVOKE rebate_owner FROM rebate_clock});
my $jobs_line = 'a job of pg_cron fails, or its role or database is gone';
try($jobs_line, db => 'jobs',
    shows => qr/^fold\|.*for database "before_its_name".*^age\|its role "rebate_clock" has not the right "operator".*^mature\|.*right "operator".*^prune\n.*its role "ghost" is no more/ms,
    after => sub {
        is($node->safe_psql('jobs', q{SELECT string_agg(job || ' of ' || username, ', ' ORDER BY job) FROM rebate.schedules()}),
            'fold of keeper', 'the jobs that nobody may run are gone');
        is($node->safe_psql('jobs', q{SELECT count(*) FROM rebate.granted_rights WHERE role = 'rebate_clock'}), 0, 'and nobody was given a right');
        is($node->safe_psql('jobs', q{SELECT count(*) > 0 FROM orders}), 't', 'nor is what stands in the name of a job executed');
    });
$node->safe_psql('jobs', q{SELECT rebate.grant_right('operator', 'rebate_clock'); UPDATE cron.job SET username = 'rebate_clock'; SELECT rebate.revoke_right('operator', 'keeper'); DROP OWNED BY keeper; DROP ROLE keeper});
try('pg_cron has no jobs, or they fail', db => 'jobs', shows => qr/^fold\|/m,
    after => sub { is($node->safe_psql('jobs', q{SELECT count(*) FROM rebate.schedules() WHERE active}), 6, 'the line above: they are there again') });
my $run = q{INSERT INTO cron.job_run_details (jobid, database, username, status, return_message) SELECT jobid, database, username, };
$node->safe_psql('jobs', "ALTER ROLE rebate_clock SET statement_timeout = 1; $run 'failed', 'ERROR:  canceling statement due to statement timeout' FROM cron.job WHERE jobname = 'rebate fold'");
try($jobs_line, db => 'jobs', shows => qr/^fold\|its last run by pg_cron failed: ERROR:  canceling/m,
    after => sub {
        my $set = $node->safe_psql('jobs', 'SHOW statement_timeout', connstr => $node->connstr('jobs') . ' user=rebate_clock');
        is($set, 0, 'the role has time');
        $node->safe_psql('jobs', "$run 'succeeded', 'CALL' FROM cron.job WHERE jobname = 'rebate fold'");
    });

shop('overdue', '', { before => 'ALTER TABLE orders ADD placed timestamptz DEFAULT now()',
    attach => q{'EUR', order_time => 'placed', confirmed_at => 'placed', since => '2020-01-01'} });
$node->safe_psql('overdue', q{SELECT rebate.set_rule('held', percent => 10, hold => '1 day', valid_from => '2020-01-01');
    INSERT INTO orders VALUES (20, 'late', 100, now() - interval '2 days')});
try('rebates do not mature', db => 'overdue', shows => qr/^mature\|rebates wait for it/m,
    after => sub { is($node->safe_psql('overdue', q{SELECT available FROM rebate.balances WHERE member = 'late'}), '10.00', 'they are available') });

# --- persons --------------------------------------------------------------------------------------------------------------------

shop('persons');
$node->safe_psql('persons', q{CREATE ROLE finance LOGIN; CREATE ROLE marketing LOGIN;
    SELECT rebate.grant_right('author', 'marketing'), rebate.grant_right('approver', 'finance'), rebate.require_approval(true);
    SET SESSION AUTHORIZATION marketing; SELECT rebate.set_rule('ten', percent => 20)});
is($node->safe_psql('persons', q{SELECT status FROM rebate.doctor() WHERE "check" = 'approval'}), 'ok', 'there are two persons');
$node->safe_psql('persons', q{SELECT rebate.revoke_right('approver', 'finance'); DROP ROLE finance});
like(says($node, 'persons', 'SELECT rebate.approve_rule(1);'), qr/permission denied/, 'nobody approves');
try('changes of rules wait, and nobody may approve them', db => 'persons', shows => qr/nobody has the right "approver"/,
    after => sub { is($node->safe_psql('persons', 'SELECT rebate.approve_rule(1)'), 2, 'somebody may now') });

shop('members');
$node->safe_psql('members', q{CREATE ROLE mary LOGIN; CREATE ROLE nick LOGIN; CREATE ROLE olga LOGIN; CREATE ROLE "Paul's" LOGIN; CREATE ROLE well LOGIN;
    SELECT rebate.map_login('mary', 'm1'), rebate.map_login('nick', 'm2'), rebate.map_login('olga', 'm0'), rebate.map_login('Paul''s', 'm1'), rebate.map_login('well', 'm2');
    SELECT rebate.grant_right('member', r) FROM unnest('{mary,olga,"Paul''s",well}'::name[]) r;
    ALTER ROLE mary RENAME TO maria; SELECT rebate.grant_right('member', 'maria'), rebate.revoke_right('member', 'mary');
    SELECT rebate.revoke_right('member', 'olga'), rebate.revoke_right('member', 'Paul''s'); DROP ROLE olga, "Paul's"; CREATE ROLE "Paul's" LOGIN});
is($node->safe_psql('members', 'SET SESSION AUTHORIZATION maria; SELECT count(*) FROM rebate.my_balance'), 0, 'she sees nothing');
try('a member with a login of his own sees nothing', db => 'members',
    shows => qr/role Paul's\|it was dropped, and this is another.*role mary\|.*renamed to maria.*role nick\|.*has not the right "member".*role olga\|.*is no more/s,
    after => sub {
        is($node->safe_psql('members', 'SET SESSION AUTHORIZATION maria; SELECT currency FROM rebate.my_balance'), 'EUR', 'she sees what is hers');
        is($node->safe_psql('members', 'SET SESSION AUTHORIZATION nick; SELECT currency FROM rebate.my_balance'), 'EUR', 'and he what is his');
        is($node->safe_psql('members', q{SELECT string_agg(login, ' ' ORDER BY login) FROM rebate.logins WHERE in_force}), 'maria nick well', 'the others are gone');
        is($node->safe_psql('members', q{SELECT status FROM rebate.doctor() WHERE "check" = 'logins'}), 'ok', 'the doctor is content');
    });

# --- library and versions ------------------------------------------------------------------------------------------------------

shop('versions');
my ($version) = slurp_file('rebate.control') =~ /^default_version = '([^']+)'/m;
append_to_file("$sharedir/extension/rebate--0.0.1--$version.sql", "-- nothing\n");
$node->safe_psql('versions', q{UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'rebate'});
try('versions differ', db => 'versions', shows => qr/^extension\|0\.0\.1\|\Q$version\E\|ALTER EXTENSION rebate UPDATE$/m,
    after => sub { is($node->safe_psql('versions', q{SELECT extversion FROM pg_extension WHERE extname = 'rebate'}), $version, 'they agree') });

shop('library');
rename "$libdir/rebate.so", "$dir/rebate.so" or die;
like(says($node, 'library', q{INSERT INTO orders VALUES (20, 'm1', 100);}), qr/could not access file/, 'orders fail');
{
    my ($query, $command) = @{ $line{'the library is missing: *could not access file*'} };
    like(says($node, 'library', "$query;"), qr/could not access file/, 'the library is missing: the query shows it');
    $node->safe_psql('library', $command);
    $node->safe_psql('library', q{INSERT INTO orders VALUES (20, 'm1', 100)});
    rename "$dir/rebate.so", "$libdir/rebate.so" or die;
    # what the line says to do then
    $line{'the library is missing: *could not access file*'} = $line{'whatever it is'};
}
try('the library is missing: *could not access file*', db => 'library', shows => qr/event triggers\|rebate_follow_partitions.*orders\|public\.orders/s,
    after => sub { is(earned($node, 'library', 20), '10.00', 'what came meanwhile is decided') });

is_deeply([ sort keys %done ], [ sort @order ], 'each line has a case');
$node->stop;
done_testing();
