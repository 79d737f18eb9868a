# Writers write, two clients follow the feed and a member into files, and all that can die is killed, again and again:
# sessions, the publisher, the clients, the server with everything in it. At the end both files hold the ledger: nothing
# is missing, nothing is there twice, nothing that was taken back, and each account's entries are in order.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Processes;
use Test::More;
use List::Util qw(shuffle);
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(time usleep);

my $times        = 3;              # each deed
my $members      = 12;
my $followed     = 'm3';
my $limit        = $PostgreSQL::Test::Utils::timeout_default;

my $seed = $ENV{REBATE_SEED} || int(rand(2**31));
srand($seed);
note "REBATE_SEED=$seed";

my $dir = PostgreSQL::Test::Utils::tempdir;

# --- the client program: installed, or built here --------------------------------------------------------------------

sub listen_program
{
    my $source = "$FindBin::RealBin/../../client";

    foreach my $path (split /:/, $ENV{PATH})
    {
        return "$path/rebate-listen" if -x "$path/rebate-listen";
    }
    return unless -f "$source/Makefile";
    mkdir "$dir/client" or die "mkdir: $!";
    my $output = qx{make -s -C "$source" BUILDDIR="$dir/client" 2>&1};
    die "rebate-listen cannot be built:\n$output" unless -x "$dir/client/rebate-listen";
    return "$dir/client/rebate-listen";
}

my $program = listen_program();
plan skip_all => 'there is no client/, so nothing follows the feed' unless $program;

# --- the server ------------------------------------------------------------------------------------------------------

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'rebate'
rebate.ring_size = 1024
log_statement = none
restart_after_crash = on
max_prepared_transactions = 20
checkpoint_timeout = 30s
max_wal_size = 64MB
wal_writer_delay = 200ms
autovacuum_naptime = 1s
deadlock_timeout = 200ms
});
$node->start;
$node->safe_psql('postgres', q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL,
        refunded numeric(12,2) NOT NULL DEFAULT 0);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded');
    SELECT rebate.set_rule('ten', percent => 10);
});

# What writers do, with weights: single orders, synchronous or not; a transaction with refund, deletion and a savepoint
# rolled back; one statement over all members; two-phase commit; a rollback; both moments of posting.
my %scripts = (
    'sync@6'  => q{INSERT INTO orders (customer, total) VALUES ('m:m', :t);},
    'async@6' => q{BEGIN; SET LOCAL synchronous_commit = off; INSERT INTO orders (customer, total) VALUES ('m:m', :t); COMMIT;},
    'more@3'  => q{BEGIN; SET LOCAL synchronous_commit = off;
        INSERT INTO orders (customer, total) VALUES ('m:m', :t), ('m:m', :t);
        SAVEPOINT s; UPDATE orders SET total = total * 2 WHERE id = currval('orders_id_seq'); ROLLBACK TO s;
        UPDATE orders SET refunded = 0.5 WHERE id = currval('orders_id_seq');
        DELETE FROM orders WHERE id = currval('orders_id_seq') - 1 AND customer = 'm:m'; COMMIT;},
    'statement@2' => q{BEGIN; SET LOCAL rebate.posting = statement; INSERT INTO orders (customer, total) VALUES ('m:m', :t);
        UPDATE orders SET total = total + 1 WHERE id = currval('orders_id_seq'); COMMIT;},
    'all@1'      => qq{INSERT INTO orders (customer, total) SELECT 'm' || n, 1 FROM generate_series(1, $members) n;},
    'prepared@1' => q{BEGIN; INSERT INTO orders (customer, total) VALUES ('m:m', :t); PREPARE TRANSACTION 'p:g'; COMMIT PREPARED 'p:g';},
    'rollback@1' => q{BEGIN; INSERT INTO orders (customer, total) VALUES ('m:m', :t); SELECT rebate.flush(); ROLLBACK;});
my @script_options;
foreach my $name (sort keys %scripts)
{
    my ($file, $weight) = split /@/, $name;
    (my $sql = $scripts{$name}) =~ s/\s*\n\s*/\n/g;
    # A meta-command takes a line, and so does a statement.
    $sql =~ s/;\s*/;\n/g;
    append_to_file("$dir/$file.pgbench",
        "\\set m random(1, $members)\n\\set t random(100, 9900) / 100.0\n\\set g random(1, 1000000000)\n$sql");
    push @script_options, '-f', "$dir/$file.pgbench\@$weight";
}

# --- processes -------------------------------------------------------------------------------------------------------

my $writer = $node->connstr('postgres') . ' application_name=writer';
my $client = $node->connstr('postgres') . ' application_name=client';
my %commands = (
    (map { ("writer$_" => [ 'pgbench', '-n', '-c', 3, '-j', 1, '-T', 100000, '-R', 60, @script_options, $writer ]) } 1 .. 2),
    feed   => [ $program, '--verbose', '--from=beginning', "--file=$dir/feed", '--retry', $client ],
    member => [ $program, "--member=$followed", '--verbose', '--from=beginning', "--file=$dir/member", '--retry', $client ]);
my %pid_of;
my @bad_exits;
my %restarts;

sub spawn
{
    my ($name) = @_;
    defined(my $pid = fork) or die "fork: $!";
    if (!$pid)
    {
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>>', "$dir/$name.log";
        open STDERR, '>&', \*STDOUT;
        exec @{ $commands{$name} } or POSIX::_exit(127);
    }
    $pid_of{$name} = $pid;
    $restarts{$name}++;
    return;
}

# Starts what is gone; of the clients only a kill may end one: they go on by themselves.
sub supervise
{
    foreach my $name (sort keys %commands)
    {
        next unless $pid_of{$name} && waitpid($pid_of{$name}, WNOHANG) == $pid_of{$name};
        push @bad_exits, "$name: " . ($? & 127 ? 'signal ' . ($? & 127) : 'exit code ' . ($? >> 8))
          if $name !~ /^writer/ && $? != 9;
        spawn($name);
    }
    return;
}

END
{
    my $status = $?;
    foreach my $pid (grep { $_ } values %pid_of)
    {
        kill 'KILL', $pid;
        waitpid($pid, 0);
    }
    $? = $status;
}

# The answer, or nothing if the server cannot give one now.
sub maybe
{
    my ($sql) = @_;
    my ($status, $out) = $node->psql('postgres', $sql, timeout => 30, timed_out => \my $timed_out);
    return defined $status && $status == 0 && !$timed_out ? $out : undef;
}

sub one_of { my (@list) = @_; return $list[ rand @list ]; }

sub backends
{
    my ($where) = @_;
    return split /\n/, maybe("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND $where") // '';
}

sub wait_for_server
{
    my $until = time + $limit;
    until (defined maybe('SELECT 1'))
    {
        die 'the server does not come back' if time > $until;
        usleep(50_000);
    }
    return;
}

sub kill_pid
{
    my ($signal, $pid) = @_;
    return $pid && kill($signal, $pid) ? 1 : 0;
}

# A process of the server: before the postmaster knows that it is dead, others seem to be all right.
sub kill_session
{
    my ($pid) = @_;
    my $n = kill_pid('KILL', $pid);
    wait_buried($pid) if $n;
    return $n;
}

# It comes with an order; after a restart that takes a moment.
sub publisher
{
    my @pids;
    for (1 .. 20)
    {
        last if @pids = backends(q{backend_type = 'rebate publisher'});
        usleep(50_000);
    }
    return $pids[0];
}

# Each returns whether it found something to kill.
my %deeds = (
    'a writer\'s session' => sub { kill_session(one_of(backends(q{application_name = 'writer'}))) },
    'the session of a client' => sub { kill_session(one_of(backends(q{application_name = 'client'}))) },
    'the session of a client, terminated' => sub { kill_pid('TERM', one_of(backends(q{application_name = 'client'}))) },
    'the publisher' => sub { kill_session(publisher()) },
    'the publisher, terminated' => sub { kill_pid('TERM', publisher()) },
    'the publisher, with a full ring' => sub {
        my $pid = publisher() or return 0;
        stand_still($node, $pid) or return 0;
        maybe(q{INSERT INTO orders (customer, total) SELECT 'm' || 1 + n % 3, 1 FROM generate_series(1, 1500) n});
        return kill_session($pid);
    },
    'the client of the feed' => sub { kill_pid('KILL', $pid_of{feed}) },
    'the client of a member' => sub { kill_pid('KILL', $pid_of{member}) },
    'both clients' => sub { kill_pid('KILL', $pid_of{feed}) & kill_pid('KILL', $pid_of{member}) },
    'everything' => sub { kill_server($node); $node->start; return 1 },
    'everything, with the clients' => sub {
        kill_pid('KILL', $pid_of{$_}) foreach 'feed', 'member';
        kill_server($node);
        $node->start;
        return 1;
    },
    'immediate stop' => sub { $node->stop('immediate'); $node->start; return 1 },
    'fast stop' => sub { $node->stop('fast'); $node->start; return 1 });

spawn($_) foreach sort keys %commands;
$node->poll_query_until('postgres', 'SELECT count(*) > 100 FROM rebate.entries') or die 'the writers write nothing';

# In an order that chance makes. What finds nothing to kill, as after a restart, is tried again.
my @hat = shuffle(map { ($_) x $times } sort keys %deeds);
my $tries = 10 * @hat;
my %count;
my $begin = time;
while (@hat && $tries-- > 0)
{
    my $what = shift @hat;
    my $n = $deeds{$what}->();
    $count{$what}++ if $n;
    push @hat, $what if !$n;
    supervise();
    wait_for_server();
    # Prepared transactions whose session is gone hold the accounts of their members.
    maybe("COMMIT PREPARED '$_'")
      foreach split /\n/, maybe(q{SELECT gid FROM pg_prepared_xacts WHERE prepared < now() - interval '1 s'}) // '';
    # Without a worker there is none to be killed.
    if (!$n || rand() < 0.15)
    {
        maybe('ALTER SYSTEM SET rebate.delivery = ' . one_of('worker', $n ? ('commit', 'off') : ()));
        maybe('SELECT pg_reload_conf()');
    }
    usleep(int(rand(400_000)));
    supervise();
}
note sprintf '%.0f s', time - $begin;
is_deeply(\%count, { map { $_ => $times } keys %deeds }, "all was killed, $times times");
# However slow they are.
my $until = time + $limit;
supervise(), usleep(100_000) until (maybe('SELECT count(*) FROM rebate.entries') // 0) > 2000 or time > $until;

# --- the end ---------------------------------------------------------------------------------------------------------

foreach my $name (grep { /^writer/ } sort keys %pid_of)
{
    kill 'TERM', $pid_of{$name};
    waitpid($pid_of{$name}, 0);
    delete $pid_of{$name};
    delete $commands{$name};
}
$node->safe_psql('postgres', 'ALTER SYSTEM SET rebate.delivery = worker');
$node->reload;
# Until the sessions of the writers are gone too.
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'writer'});
$node->safe_psql('postgres', "COMMIT PREPARED '$_'")
  foreach split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
$node->poll_query_until('postgres', q{SELECT mode = 'worker' FROM rebate.delivery_status});

# Once they have connected again both are told.
my %log_size = map { $_ => -s "$dir/$_.log" // 0 } 'feed', 'member';
my $told = 0;
for ($until = time + $limit; !$told && time < $until; )
{
    $node->safe_psql('postgres', qq{INSERT INTO orders (customer, total) SELECT 'm' || n, 1 FROM generate_series(1, $members) n});
    my $wait = time;
    until ($told || time - $wait > 1)
    {
        supervise();
        usleep(50_000);
        $told = !grep { substr(slurp_file("$dir/$_.log"), $log_size{$_}) !~ /notified/ } keys %log_size;
    }
}
ok($told, 'both clients are told');

my $entries = $node->safe_psql('postgres', 'SELECT count(*) FROM rebate.entries');
my $of_member = $node->safe_psql('postgres', "SELECT count(*) FROM rebate.entries WHERE member = '$followed'");

sub lines_of
{
    my ($file) = @_;
    return [ -f "$dir/$file" ? split /\n/, slurp_file("$dir/$file") : () ];
}

$until = time + $limit;
supervise(), usleep(100_000)
  while time < $until && (@{ lines_of('feed') } < $entries || @{ lines_of('member') } < $of_member);
usleep(500_000);                # what comes twice comes late
supervise();
foreach my $name ('feed', 'member')
{
    kill 'TERM', $pid_of{$name};
    waitpid(delete $pid_of{$name}, 0);
    push @bad_exits, "$name: $?" if $?;
}
is(scalar(@bad_exits), 0, 'no client ended by itself') or diag(join "\n", @bad_exits[ 0 .. ($#bad_exits < 4 ? $#bad_exits : 4) ],
    map { substr(slurp_file("$dir/$_.log"), -2000) } 'feed', 'member');
note "$entries entries, $of_member of $followed; feed started $restarts{feed}, member $restarts{member} times, writers "
  . ($restarts{writer1} + $restarts{writer2}) . ' times';
cmp_ok($entries, '>', 2000, 'enough was written');

my @ledger = split /\n/, $node->safe_psql('postgres', q{
    SELECT concat_ws(' ', member, currency, seq, kind, amount, posting_id, order_key, tracked, pending, maturing, available, held)
    FROM rebate.entries ORDER BY member, seq});

foreach my $file ('feed', 'member')
{
    my (%last, @unordered);

    # The server reads JSON faster than Perl. Each line has a cursor and a text.
    my ($status, $out, $errors) = $node->psql('postgres', qq{
        CREATE TABLE $file (line serial, cursor text, event text);
        \\copy $file (cursor, event) FROM '$dir/$file' WITH (FORMAT csv, DELIMITER E'\\t', QUOTE E'\\x01')
        SELECT concat_ws(' ', e->>'member', e->>'currency', e->>'seq', e->>'kind', e->>'amount', e->>'posting_id', e->'order'->>'id',
            b->>'tracked', b->>'pending', b->>'maturing', b->>'available', b->>'held')
        FROM $file, LATERAL (SELECT event::jsonb AS e, event::jsonb->'balance' AS b) j ORDER BY line});
    is($status, 0, "$file: each line is an event") or diag($errors);
    my @events = split /\n/, $out;
    foreach my $event (@events)
    {
        my ($member, undef, $seq) = split ' ', $event;
        push @unordered, "$member $seq after " . ($last{$member} // 0) if $seq != ($last{$member} // 0) + 1;
        $last{$member} = $seq;
    }
    is(scalar(@unordered), 0, "$file: each account's events come in order, without gap, and once")
      or diag(join "\n", @unordered[ 0 .. ($#unordered < 9 ? $#unordered : 9) ]);

    my @expected = $file eq 'feed' ? @ledger : grep { /^\Q$followed\E / } @ledger;
    my (%seen, %there);
    $seen{$_}++  foreach @events;
    $there{$_}++ foreach @expected;
    my @missing = grep { !$seen{$_} } @expected;
    my @more = grep { !$there{$_} } @events;
    is(scalar(@missing), 0, "$file: nothing of the ledger is missing")
      or diag(join "\n", @missing[ 0 .. ($#missing < 9 ? $#missing : 9) ]);
    is(scalar(@more), 0, "$file: nothing is there that the ledger has not, or has otherwise")
      or diag(join "\n", @more[ 0 .. ($#more < 9 ? $#more : 9) ]);
    is(scalar(grep { $_ > 1 } values %seen), 0, "$file: nothing is there twice");
    is(scalar(@events), scalar(@expected), "$file: the number agrees");
}

is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal (?!9:)|TRAP:/, 'nothing crashed but what was killed');
$node->stop;
done_testing();
