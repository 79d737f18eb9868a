# Writers behind pgbouncer, whose transactions run in whatever session is free: a client that is connected to the server
# itself gets every event, once; one behind the pooler is told that it cannot listen there.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use EventSchema;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();
use JSON::PP ();
use Time::HiRes qw(time usleep);

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $clients = 8;
my $sessions = 3;
my $port = 6432;

my $dir = PostgreSQL::Test::Utils::tempdir_short;
my $listen = "$dir/rebate-listen";
delete $ENV{PGAPPNAME};
system_or_bail('make', '-s', '-C', "$FindBin::RealBin/../../client", "BUILDDIR=$dir", 'all');
my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
die "no pgbouncer: run test/deps" unless $pgbouncer;

# --- the pooler ------------------------------------------------------------------------------------------------------

my $bouncer;

# In front of a node: "pooled" by transaction, "kept" by session.
sub start_pooler
{
    my ($node) = @_;
    my $user = $node->safe_psql('postgres', 'SELECT current_user');
    my $server = sprintf 'host=%s port=%d dbname=postgres user=%s', $node->host, $node->port, $user;
    my $config = "$dir/pgbouncer.ini";

    unlink $config;
    append_to_file($config, "[databases]\npooled = $server pool_mode=transaction\nkept = $server pool_mode=session\n"
          . "[pgbouncer]\nunix_socket_dir = $dir\nlisten_addr =\nlisten_port = $port\nauth_type = any\npool_mode = transaction\n"
          . "default_pool_size = $sessions\nlogfile = $dir/pgbouncer.log\npidfile = $dir/pgbouncer.pid\nadmin_users = $user\n");
    $bouncer = IPC::Run::start([ $pgbouncer, '-q', $config ], '<', \undef, '>', '/dev/null', '2>', '/dev/null');
    my $until = time + $limit;
    until (-S "$dir/.s.PGSQL.$port")
    {
        die "pgbouncer does not start: " . slurp_file("$dir/pgbouncer.log") if time > $until;
        usleep(20_000);
    }
    return;
}

sub stop_pooler
{
    $bouncer->signal('TERM') if $bouncer;
    $bouncer->finish if $bouncer;
    undef $bouncer;
    return;
}
END { my $status = $?; stop_pooler(); $? = $status; }

sub through { my ($db) = @_; return "host=$dir port=$port dbname=$db"; }

sub outcome
{
    my (@arguments) = @_;
    my ($out, $err) = ('', '');
    my $run = IPC::Run::start([ $listen, @arguments ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($limit));
    $run->finish;
    return ($run->full_result(0) >> 8, $out, $err);
}

sub lines { my ($file) = @_; return -f $file ? split(/\n/, slurp_file($file)) : (); }

# "member seq kind amount" of lines of a file
my $json = JSON::PP->new->utf8;
sub entries_of
{
    return map { my $e = $json->decode((split /\t/, $_, 2)[1]); join ' ', @$e{qw(member seq kind amount)} } @_;
}

# --- writers ---------------------------------------------------------------------------------------------------------

# Single statements, and transactions of several whose statements must meet in one session; posted at either moment.
my %scripts = (
    single => q{INSERT INTO orders (customer, total) VALUES ('m:m', :t);},
    several => q{BEGIN; INSERT INTO orders (customer, total) VALUES ('m:m', :t); SELECT rebate.flush();
        UPDATE orders SET refunded = 0.5 WHERE id = (SELECT max(id) FROM orders WHERE customer = 'm:m' AND total = :t);
        INSERT INTO orders (customer, total) VALUES ('m:m', 1), ('n:m', 1); COMMIT;},
    undone => q{BEGIN; SET LOCAL rebate.posting = statement; INSERT INTO orders (customer, total) VALUES ('m:m', :t);
        SAVEPOINT s; INSERT INTO orders (customer, total) VALUES ('n:m', :t); ROLLBACK TO s; COMMIT;});
my @options;
foreach my $name (sort keys %scripts)
{
    (my $sql = $scripts{$name}) =~ s/;\s*/;\n/g;
    append_to_file("$dir/$name", "\\set m random(1, 20)\n\\set t random(100, 99900) / 100.0\n$sql");
    push @options, '-f', "$dir/$name";
}

foreach my $mode ('worker', 'commit')
{
    my $node = PostgreSQL::Test::Cluster->new($mode);
    $node->init;
    $node->append_conf('postgresql.conf', $mode eq 'worker' ? "shared_preload_libraries = 'rebate'\n" : '');
    $node->start;
    $node->safe_psql('postgres', q{
        SET client_min_messages = warning;
        CREATE EXTENSION rebate;
        CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL, refunded numeric(12,2) DEFAULT 0);
        CREATE INDEX ON orders (customer, total);
        SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded');
        SELECT rebate.set_rule('ten', percent => 10);
    });
    is($node->safe_psql('postgres', 'SELECT mode FROM rebate.delivery_status'), $mode, "delivery by $mode");
    start_pooler($node);

    my $file = "$dir/$mode.events";
    my ($out, $err) = ('', '');
    my $follower = IPC::Run::start([ $listen, '-d', $node->connstr('postgres'), '--verbose', '--from=beginning', "--file=$file" ],
        '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(5 * $limit));
    $follower->pump until $err =~ /waiting/;

    my $output;
    ok(IPC::Run::run([ 'pgbench', '-n', '-c', $clients, '-j', 1, '-t', 60, @options, through('pooled') ], '<', \undef, '>', \$output, '2>&1'),
        "$mode: $clients writers in $sessions sessions") or diag($output);
    my $last = time;
    my $kept = $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'pgbench'});
    cmp_ok($kept, '<=', $sessions, "$mode: which are kept for the next");
    cmp_ok($kept, '>', 0, "$mode: and are the server's");

    my @ledger = split /\n/, $node->safe_psql('postgres', q{SELECT concat_ws(' ', member, seq, kind, amount) FROM rebate.entries});
    cmp_ok(scalar(@ledger), '>', 600, "$mode: " . @ledger . ' entries');
    usleep(10_000) while lines($file) < @ledger && time < $last + $limit;
    # Time for what should not come.
    usleep(300_000);
    my @lines = lines($file);
    is_deeply([ sort(entries_of(@lines)) ], [ sort @ledger ], "$mode: each event of the ledger reached the file, once");
    my (%next, @unordered);
    foreach (entries_of(@lines))
    {
        my ($member, $seq) = split ' ';
        push @unordered, $_ if $seq != ++$next{$member};
    }
    is("@unordered", '', "$mode: in order");
    note_file_lines(@lines);

    # One by one: each by its own notification, though the follower would look by itself after a while.
    my $notified = 0;
    foreach my $n (1 .. 5)
    {
        $follower->pump_nb;
        $err = '';
        IPC::Run::run([ 'psql', '-XqAt', '-d', through('pooled'), '-c', "INSERT INTO orders (customer, total) VALUES ('one', $n)" ]) or die 'psql';
        my $until = time + $limit;
        $follower->pump_nb, usleep(2_000)
          until time > $until or $err =~ /notified/ && grep { /"member": "one"/ && /"seq": "$n"/ } lines($file);
        $notified++ if time <= $until;
    }
    is($notified, 5, "$mode: of an order through the pooler the follower is notified, and it writes its event");

    # Behind the pooler.
    my $entries = $node->safe_psql('postgres', 'SELECT count(*) FROM rebate.entries');
    foreach my $db ('pooled', 'kept')
    {
        foreach my $of ([], [ '--member=one' ])
        {
            my ($code, $printed, $why) = outcome('-d', through($db), @$of, '--from=beginning');
            is("$code $printed", '5 ', "$mode: rebate-listen behind it (database $db, @$of): exit code 5");
            like($why, qr/LISTEN does not work on this connection: a pooler .*--poll/s, "$mode: and it says why, and what to do");
        }
        my ($code, $printed, $why) = outcome('-d', through($db), '--poll', '--from=beginning', '--format=json', "--count=$entries");
        is("$code $why", '0 ', "$mode: with --poll it reads");
        is(scalar(() = $printed =~ /\n/g), $entries, "$mode: all of it");
        note_events('event', split /\n/, $printed);
    }

    $follower->signal('TERM');
    $follower->finish;
    is($follower->full_result(0), 0, "$mode: the follower ends") or diag($err);
    is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', "$mode: the audit is clean");
    stop_pooler();
    $node->stop;
}
events_are_valid('what came', 'event');
done_testing();
