# rebate-listen prints each event once: through notifications true and forged, restarts of the server, kills of its own,
# failures of the command it runs; and it says why when it cannot.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use EventSchema;
use IO::Select;
use IO::Socket::UNIX;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $dir = PostgreSQL::Test::Utils::tempdir;
my $listen = "$dir/rebate-listen";

# The test framework names the sessions of all programs after the test.
delete $ENV{PGAPPNAME};
system_or_bail('make', '-s', '-C', "$FindBin::RealBin/../../client", "BUILDDIR=$dir", 'all', 'json_check');

# --- tools -----------------------------------------------------------------------------------------------------------

# A rebate-listen in the background; {out} and {err} are what it has written.
sub follow
{
    my ($node, @arguments) = @_;
    my $l = { out => '', err => '' };

    $l->{run} = IPC::Run::start([ $listen, '-d', $node->connstr('postgres'), '--verbose', @arguments ],
        '<', \undef, '>', \$l->{out}, '2>', \$l->{err}, IPC::Run::timeout(5 * $limit));
    return $l;
}

# Waits until the stream matches; returns the seconds that took, or nothing if it never does.
sub await
{
    my ($l, $stream, $pattern) = @_;
    my $begin = time;

    while (time < $begin + $limit)
    {
        $l->{run}->pump_nb;
        return time - $begin if $l->{$stream} =~ $pattern;
        usleep(10_000);
    }
    diag("waited for $pattern; out: $l->{out}; err: $l->{err}");
    return;
}

sub lines_of { return scalar(() = $_[0] =~ /\n/g); }

# Ends it by a signal; returns its exit code, or minus the signal it died of.
sub end
{
    my ($l, $signal) = @_;
    $l->{run}->signal($signal);
    $l->{run}->finish;
    my $result = $l->{run}->full_result(0);
    return $result & 127 ? -($result & 127) : $result >> 8;
}

# Runs it to its end: exit code, standard output, standard error.
sub outcome
{
    my ($connection, @arguments) = @_;
    my ($out, $err) = ('', '');
    my $run = IPC::Run::start([ $listen, '-d', $connection, @arguments ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($limit));
    $run->finish;
    return ($run->full_result(0) >> 8, $out, $err);
}

my $next_order = 0;

# Orders of a member, each in a transaction of its own.
sub order
{
    my ($node, $member, $count) = @_;
    my $sql = '';

    $sql .= sprintf qq{INSERT INTO orders VALUES (%d, \$m\$%s\$m\$, 100);\n}, ++$next_order, $member for 1 .. $count // 1;
    $node->safe_psql('postgres', $sql);
    return;
}

my $json = JSON::PP->new->utf8;

# "member currency seq kind amount" of each event
sub entries_of
{
    note_events('event', @_);
    return map {
        my $e = $json->decode($_);
        join ' ', map { $e->{$_} =~ s/\n/?/gr } qw(member currency seq kind amount)
    } @_;
}

sub ledger
{
    my ($node, $condition) = @_;
    return split /\n/, $node->safe_psql('postgres',
        "SELECT concat_ws(' ', translate(member, E'\\n', '?'), currency, seq, kind, amount) FROM rebate.entries WHERE " . ($condition // 'true'));
}

# The same events as in the ledger, each once, those of an account in order.
sub is_ledger
{
    my ($what, $ledger, @entries) = @_;
    my (%count, %last, $disorder);

    $count{$_}++ foreach @entries;
    $count{$_}-- foreach @$ledger;
    my @wrong = map { sprintf '%+d %s', $count{$_}, $_ } grep { $count{$_} } sort keys %count;
    is(join("\n", @wrong[ 0 .. ($#wrong > 9 ? 9 : $#wrong) ]), '', "$what: exactly the ledger, " . scalar(@$ledger) . ' entries');
    foreach (@entries)
    {
        my ($account, $seq) = /^(.* \w+) (\d+) \w+ \S+$/;
        $disorder //= $_ if ($last{$account} // 0) + 1 != $seq;
        $last{$account} = $seq;
    }
    is($disorder, undef, "$what: in the order of each account");
    return;
}

sub new_shop
{
    my ($name, $settings) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);

    $node->init(allows_streaming => 1);
    $node->append_conf('postgresql.conf', "restart_after_crash = on\n$settings");
    $node->start;
    $node->safe_psql('postgres', q{
        SET client_min_messages = warning;
        CREATE EXTENSION rebate;
        CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL);
        SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
        SELECT rebate.set_rule('five', percent => 5);
        CREATE DATABASE empty;
        CREATE ROLE stranger LOGIN;
    });
    return $node;
}

# --- what it takes from JSON -----------------------------------------------------------------------------------------

my @json = (
    [ '{}', '' ],
    [ '{"a": "1", "b": null, "c": {"x": "1", "y": [1, 2.5e-3, true]}, "d": -0.10}', 'a=1 | b=(null) | c={"x": "1", "y": [1, 2.5e-3, true]} | d=-0.10' ],
    [ '{"a": "\u00e9\ud83d\ude00\n\t\"\\\\\/\b"}', "a=\xC3\xA9\xF0\x9F\x98\x80\\n\\t\"\\\\/\\u{8}" ],
    [ '{"k\u0065y": "v", "key": "w"}', 'key=v | key=w' ],
    [ "{\"a\": \"\xC2\x9B31m\xE2\x80\xAE\xFF\xC0\x80\"}", 'a=\u{9B}31m\u{202E}\xFF\xC0\x80' ],
    map { [ $_, 'refused' ] } (
        '', '[1]', 'x', '{"a": "\u0000"}', '{"a": "\ud83d"}', '{"a": "\ude00"}', '{"a": "\ud83dx"}', '{"a": "\x"}', '{"a": "\\', '{"a": "',
        '{"a"', '{"a": ', '{"a": "1",}', '{"a" "1"}', '{"a": 01}', '{"a": 1.}', '{"a": 1e}', '{"a": -}', '{"a": tru}', '{"a": 1} x', '{"a": [1, 2}',
        '{a: 1}', "{\"a\": \"\t\"}", '{"a":' . '[' x 30 . ']' x 30 . '}')
);
my $given = join '', map { "$_->[0]\n" } @json;
my $read;
IPC::Run::run([ "$dir/json_check" ], '<', \$given, '>', \$read);
is($read, join('', map { "$_->[1]\n" } @json), 'JSON is read strictly');

# --- wrong usage -----------------------------------------------------------------------------------------------------

foreach my $arguments ([ '--nonsense' ], [ '--format', 'xml' ], [ '--count', '0' ], [ '--limit-rate', '5x' ], [ '--member' ], [ 'another' ],
    [ '--exec-retries', '3' ])
{
    my ($code, $out, $err) = outcome("dbname=x host=$dir", @$arguments);
    is("$code $out", '1 ', "wrong usage: @$arguments");
}
{
    my ($code, $out, $err) = outcome('x', '--help');
    is("$code $err", '0 ', '--help');
    like($out, qr/--member=NAME.*  7  the file/s, '--help tells options and exit codes');
    ($code, $out, $err) = outcome("dbname=x host=$dir/nowhere");
    is("$code $out", '2 ', 'no server: exit code 2');
}

# --- in each mode ----------------------------------------------------------------------------------------------------

sub check_following
{
    my ($node, $how) = @_;

    # What is committed is printed because it was notified, though reading without would come later.
    my $all = follow($node, '--format', 'json');
    await($all, 'err', qr/waiting/);
    order($node, 'alice');
    ok(defined await($all, 'out', qr/\n/), "$how: the first rebate is printed");
    ok(defined await($all, 'err', qr/waiting.*notified/s), "$how: by notification");
    is(join("\n", entries_of(split /\n/, $all->{out})), 'alice EUR 1 accrue 5.00', "$how: it is the rebate");

    # One member, and nothing of others.
    my $one = follow($node, '--member', 'bob', '--format', 'json', '--from', 'beginning');
    await($one, 'err', qr/waiting/);
    order($node, 'alice');
    order($node, 'bob');
    ok(defined await($one, 'out', qr/\n/), "$how: a member's rebate is printed");
    ok(defined await($one, 'err', qr/waiting.*notified/s), "$how: by notification, too");

    # Forged notifications only make it read.
    my $channel = $node->safe_psql('postgres', q{SELECT rebate.channel('bob')});
    my $forged = q({"v": 1, "account": "x", "seq": "99", "member": "bob", "currency": "EUR", "kind": "accrue", "amount": "1000.00"});
    foreach my $payload ('', 'garbage', '{"v": 1, "accounts": [["x", "999999999999999999999"]]}', $forged, "[$forged, $forged]", 'x' x 7000)
    {
        $node->safe_psql('postgres', "SELECT pg_notify(c, \$p\$$payload\$p\$) FROM (VALUES ('rebate'), ('$channel')) v(c)");
    }
    # A channel that was renamed is found by the next look, which also reads what came meanwhile: after 5 seconds, or half a
    # minute with a worker, which is too long for a test.
    if ($how eq 'commit')
    {
        $node->safe_psql('postgres', 'SELECT rebate.rotate_channels()');
        order($node, 'bob');
        await($one, 'out', qr/\n.*\n/);
        await($one, 'err', qr/new name/);
        order($node, 'bob');
        await($one, 'out', qr/(.*\n){3}/);
        ok(defined await($one, 'err', qr/new name.*notified/s), "$how: a channel that was renamed is listened to");
    }
    my $orders = ledger($node);
    await($all, 'out', qr/(.*\n){$orders}/);
    is(end($one, 'TERM'), 0, "$how: SIGTERM ends it with 0");
    is_ledger("$how, a member", [ ledger($node, q{member = 'bob'}) ], entries_of(split /\n/, $one->{out}));

    # Connections that are lost, servers that are stopped, and that crash.
    $node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rebate-listen'});
    order($node, 'carol', 3);
    foreach my $way ('fast', 'immediate')
    {
        order($node, 'carol', 3);
        $node->stop($way);
        usleep(300_000);
        $node->start;
        order($node, 'dave', 3);
    }
    my @ledger = ledger($node);
    my $count = @ledger;
    await($all, 'out', qr/(.*\n){$count}/);
    # Time for what should not come.
    usleep(500_000);
    is(end($all, 'INT'), 0, "$how: SIGINT ends it with 0");
    is_ledger("$how, lost connections", \@ledger, entries_of(split /\n/, $all->{out}));
    my ($cursor) = $all->{err} =~ /; cursor (\S+)$/m;

    # From a cursor, and from the beginning.
    order($node, "e\x1B[2J\"e\n");
    my ($code, $out, $err) = outcome($node->connstr('postgres'), '--from', $cursor, '--count', 1);
    is($code, 0, "$how: --count ends it");
    like($out, qr/^\S+ "e\\u\{1B\}\[2J\\"e\\n": accrue 5.00 EUR to available, rule five, public.orders id=\d+; now available 5.00\n\z/,
        "$how: after a cursor comes what followed; a wild name is shown escaped");
    ($code, $out, $err) = outcome($node->connstr('postgres'), '--from', 'beginning', '--count', $count, '--format', 'json');
    is_ledger("$how, from the beginning", \@ledger, entries_of(split /\n/, $out));
    return;
}

# Killed again and again while orders come, it writes each event once.
sub check_file
{
    my ($node, $how) = @_;
    my $file = "$dir/" . $node->name . '.events';
    my $sql = "$dir/" . $node->name . '.sql';
    my ($kills, $torn, $output) = (0, 0, '');

    append_to_file($sql, join '', map { sprintf qq{INSERT INTO orders VALUES (%d, 'm%d', 100);\n}, ++$next_order, $_ % 7 } 1 .. 2000);
    my $writer = IPC::Run::start([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $sql ],
        '<', \undef, '>', \$output, '2>&1');
    while ($kills < 25)
    {
        my $l = follow($node, '--from', 'beginning', '--file', $file);
        usleep(10_000 + int(rand(120_000)));
        # On a slow machine it is given the time to write something after a while.
        my $until = time + $limit;
        usleep(10_000) until $kills < 20 or -s $file or time > $until;
        end($l, 'KILL');
        $kills++;
        if (($kills % 5 == 0 || $kills > 20) && -s $file)
        {
            # What a crash of the machine in the middle of a line would leave.
            append_to_file($file, (split /\n/, slurp_file($file))[0] =~ s/.{10}$//r);
            $torn++;
        }
    }
    $writer->finish;
    is($writer->full_result(0) . $output, '0', "$how: orders were written meanwhile");
    cmp_ok($torn, '>', 0, "$how: the file was torn $torn times, the program killed $kills times");

    my @ledger = ledger($node);
    my $l = follow($node, '--from', 'beginning', '--file', $file);
    await($l, 'err', qr/waiting/);
    my ($code, undef, $err) = outcome($node->connstr('postgres'), '--file', $file);
    is($code, 7, "$how: a second process on the file: exit code 7");
    is(end($l, 'TERM'), 0, "$how: SIGTERM ends it with 0");
    my @lines = split /\n/, slurp_file($file);
    is(scalar(grep { !/^[^\t]+\t\{.*\}$/ } @lines), 0, "$how: each line is whole");
    is_ledger("$how, killed", \@ledger, entries_of(map { (split /\t/)[1] } @lines));

    append_to_file($file, "something else\n");
    ($code, undef, $err) = outcome($node->connstr('postgres'), '--file', $file);
    is($code, 7, "$how: a file of something else is not written to: exit code 7");
    return;
}

foreach my $mode ('commit', 'worker')
{
    my $node = new_shop($mode, $mode eq 'worker' ? "shared_preload_libraries = 'rebate'\n" : '');

    is($node->safe_psql('postgres', 'SELECT mode FROM rebate.delivery_status'), $mode, "delivery by $mode");
    check_following($node, $mode);
    check_file($node, $mode);
    is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit() LIMIT 5'), '', "$mode: the audit is clean");
    $node->stop;
}

# --- a command for each event ----------------------------------------------------------------------------------------

my $node = new_shop('shop', '');
my $wild = q{o'x"; touch pwned; $(touch pwned) `touch pwned`};
order($node, $wild);
order($node, 'zoe');
{
    my $seen = "$dir/seen";
    my $failing = "$dir/failing";
    my $command = qq{cat >> '$seen' && printf '%s\\n' "\$REBATE_MEMBER|\$REBATE_CURRENCY|\$REBATE_SEQ|\$REBATE_KIND|\$REBATE_AMOUNT" >> '$seen' && test -n "\$REBATE_CURSOR"};
    my ($code, $out, $err) = outcome($node->connstr('postgres'), '--from', 'beginning', '--count', 2, '--exec', $command);
    is("$code $out", '0 ', 'a command for each event');
    my @seen = split /\n/, slurp_file($seen);
    is(join(' ', sort(entries_of(@seen[ 0, 2 ]))), join(' ', sort(ledger($node))), 'the event is on its standard input');
    is(join("\n", sort @seen[ 1, 3 ]), "$wild|EUR|1|accrue|5.00\nzoe|EUR|1|accrue|5.00", 'the rest is in its environment');
    ok(!-e "$FindBin::RealBin/../../pwned" && !-e 'pwned', 'nothing of it is run by the shell');

    ($code, $out, $err) = outcome($node->connstr('postgres'), '--from', 'beginning', '--exec', "echo >> '$failing'; exit 3", '--exec-retries', 2);
    is($code, 6, 'a command that fails too often: exit code 6');
    is(lines_of(slurp_file($failing)), 3, 'it was tried again as often as asked');

    # It does not go on before the command has succeeded, and the file only has what did.
    my $members = "$dir/members";
    append_to_file($failing, '');
    my $l = follow($node, '--from', 'beginning', '--count', 2, '--file', "$dir/done", '--exec',
        qq{printf '%s\\n' "\$REBATE_SEQ\$REBATE_MEMBER" >> '$members'; test ! -e '$failing'});
    await($l, 'err', qr/(ended with exit code 1.*){3}/s);
    is(slurp_file("$dir/done"), '', 'the line is not written before the command has succeeded');
    my %tried = map { $_ => 1 } split /\n/, slurp_file($members);
    is(scalar(keys %tried), 1, 'and no other event is dealt with');
    unlink $failing;
    $l->{run}->finish;
    is($l->{run}->full_result(0), 0, 'then it goes on');
    is_ledger('the file', [ ledger($node) ], entries_of(map { (split /\t/)[1] } split /\n/, slurp_file("$dir/done")));

    # A listener that waits for its command still takes its notifications in.
    my $go = "$dir/go";
    my $slow = follow($node, '--from', 'beginning', '--exec', "for i in \$(seq 1000); do test ! -e '$go' || exit 0; sleep 0.3; done");
    $node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'rebate-listen' AND query ~ 'feed'})
      or die 'it does not read';
    # More than fits into the buffers of a socket.
    $node->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1 .. 400 LOOP PERFORM pg_notify('rebate', repeat('x', 7000) || i); COMMIT; END LOOP; END $$});
    ok($node->poll_query_until('postgres', q{SELECT pg_notification_queue_usage() = 0 AND NOT EXISTS (
            SELECT FROM pg_stat_activity WHERE application_name = 'rebate-listen' AND state <> 'idle')}),
        'while its command runs, notifications do not pile up on the server');
    append_to_file($go, '');
    is(end($slow, 'TERM'), 0, 'and SIGTERM ends it after the command');
}

# --- a flood ---------------------------------------------------------------------------------------------------------

{
    my $l = follow($node, '--limit-rate', 5);
    await($l, 'err', qr/waiting/);
    my $begin = time;
    $node->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1 .. 300 LOOP PERFORM pg_notify('rebate', i::text); COMMIT; PERFORM pg_sleep(0.01); END LOOP; END $$});
    order($node, 'flood');
    await($l, 'out', qr/ flood: /);
    my $seconds = time - $begin;
    end($l, 'TERM');
    my ($reads) = $l->{err} =~ / in (\d+) read/;
    # Those before the flood began and after the clock was read are in the margin.
    cmp_ok($reads, '<=', 5 * ($seconds + 2), "300 notifications in $seconds s made $reads reads");
    is(lines_of($l->{out}), 1, 'and the order after them is printed once');
}

# --- where it cannot work --------------------------------------------------------------------------------------------

foreach my $case (
    [ 3, qr/cursor was refused/, 'postgres', '--from', 'nonsense' ],
    [ 3, qr/cursor was refused/, 'postgres', '--member', 'zoe', '--from', 'nonsense' ],
    [ 4, qr/not installed/, 'empty' ],
    [ 4, qr/not installed/, 'empty', '--member', 'zoe' ],
    [ 4, qr/not permitted/, 'postgres', '-U', 'stranger' ],
    [ 4, qr/not permitted/, 'postgres', '-U', 'stranger', '--member', 'zoe' ],
    [ 2, qr/no_such_db/, 'no_such_db' ],
    [ 2, qr/no_such_db/, 'no_such_db', '--retry' ],
    [ 7, qr/standard output|directory|file/, 'postgres', '--file', $dir ])
{
    my ($expected, $message, $db, @arguments) = @$case;
    my ($code, $out, $err) = outcome(sprintf("host='%s' port=%d dbname=%s", $node->host, $node->port, $db), @arguments);
    is("$code $out", "$expected ", "exit code $expected: $db @arguments");
    like($err, $message, "and it says why: $db @arguments");
}

# What is read before the server is there: with --retry.
{
    my $l;
    $node->stop;
    my ($code) = outcome($node->connstr('postgres'));
    is($code, 2, 'no server, and no --retry: exit code 2');
    $l = follow($node, '--retry', '--from', 'beginning');
    await($l, 'err', qr/trying again/);
    $node->start;
    ok(defined await($l, 'out', qr/ zoe: /), 'with --retry it waits for the server');
    end($l, 'TERM');
}

# A pooler, as far as a client can tell: the number of the session is not the server's.
{
    my $there = IO::Socket::UNIX->new(Type => SOCK_STREAM, Listen => 5, Local => "$dir/.s.PGSQL.6543") or die "no socket: $!";
    my $pid = fork // die "no process: $!";

    if ($pid == 0)
    {
        # Each connection is passed on as it is, but for the message BackendKeyData.
        while (my $client = $there->accept)
        {
            my $server = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $node->host . '/.s.PGSQL.' . $node->port) or exit 1;
            my $both = IO::Select->new($client, $server);
            SESSION: while (1)
            {
                foreach my $from ($both->can_read)
                {
                    sysread($from, my $bytes, 65536) or last SESSION;
                    $bytes =~ s/(K\0\0\0\x0C)..../$1\0\0\0\x01/s if $from == $server;
                    syswrite($from == $server ? $client : $server, $bytes);
                }
            }
        }
        exit 0;
    }
    my $connection = "host=$dir port=6543 dbname=postgres user=" . $node->safe_psql('postgres', 'SELECT current_user');
    my ($code, $out, $err) = outcome($connection);
    is($code, 5, 'behind a pooler: exit code 5');
    like($err, qr/pooler.*--poll/s, 'and it says what to do');
    ($code, $out, $err) = outcome($connection, '--poll', '--from', 'beginning', '--count', 1);
    is("$code $err", '0 ', 'with --poll it reads');
    like($out, qr/^\S+ \S.*: accrue 5.00 EUR/, 'and prints');
    kill 'KILL', $pid;
    waitpid $pid, 0;
}

# A standby: no LISTEN, no feed; a member's events are read.
{
    $node->backup('copy');
    my $standby = PostgreSQL::Test::Cluster->new('standby');
    $standby->init_from_backup($node, 'copy', has_streaming => 1);
    $standby->start;
    my ($code, $out, $err) = outcome($standby->connstr('postgres'), '--from', 'beginning');
    is($code, 5, 'the feed of a standby: exit code 5');
    my $l = follow($standby, '--member', 'zoe', '--from', 'beginning', '--format', 'json');
    await($l, 'err', qr/waiting/);
    order($node, 'zoe');
    await($l, 'out', qr/\n.*\n/);
    is_ledger('a member on a standby', [ ledger($node, q{member = 'zoe'}) ], entries_of(split /\n/, $l->{out}));

    # Promoted, it listens.
    $standby->promote;
    ok(defined await($l, 'err', qr/listening now/), 'after promotion it listens');
    end($l, 'TERM');
    $standby->stop;
}

$node->stop;
events_are_valid('what rebate-listen printed', 'event');
done_testing();
