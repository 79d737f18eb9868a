# Delivery and standbys: what can be read on one; cursors after a clean switchover go on, after a promotion that lost
# commits they go on or are refused, and never skip or repeat an event without a word.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my @members = ('alice', 'bob', 'carol');

# One value, or the SQLSTATE.
sub ask
{
    my ($node, $sql) = @_;
    my ($status, $out, $errors) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

    return $out if $status == 0;
    return $errors =~ /ERROR:\s+(\w+)/ ? $1 : $errors;
}

sub order
{
    my ($node, @customers) = @_;
    return $node->safe_psql('postgres', join '', map { "INSERT INTO orders (customer, total) VALUES ('$_', 100);\n" } @customers);
}

sub quote { my ($cursor) = @_; return $cursor eq '' ? 'NULL' : "\$cursor\$$cursor\$cursor\$"; }

# Events of the feed after a cursor: lines "member seq", in the order of the feed; by batches of 7.
sub feed
{
    my ($node, $cursor) = @_;
    my @events;

    for (;;)
    {
        my @rows = split /\n/, $node->safe_psql('postgres',
            "SELECT cursor || chr(9) || (event->>'member') || ' ' || (event->>'seq') FROM rebate.feed(" . quote($cursor) . ', 7)');
        last unless @rows;
        foreach my $row (@rows)
        {
            ($cursor, my $event) = split /\t/, $row;
            push @events, $event;
        }
    }
    return ($cursor, @events);
}

# The cursor at the end of the feed.
sub feed_end { my ($node, $cursor) = @_; return (feed($node, $cursor))[0]; }

sub events
{
    my ($node, $member, $cursor) = @_;
    return $node->safe_psql('postgres', "SELECT json_agg(event ORDER BY seq) FROM rebate.events('$member', " . quote($cursor // '') . ', 1000000)');
}

sub ledger
{
    my ($node, $where) = @_;
    return [ sort { by_account($a, $b) } split /\n/,
        $node->safe_psql('postgres', "SELECT member || ' ' || seq FROM rebate.entries WHERE $where") ];
}

# "member seq" by member and number.
sub by_account
{
    my ($x, $y) = map { [split] } @_;
    return $x->[0] cmp $y->[0] || $x->[1] <=> $y->[1];
}

sub is_feed
{
    my ($node, $cursor, $where, $what) = @_;
    my (undef, @events) = feed($node, $cursor);
    my (%last, $unordered);

    is_deeply([ sort { by_account($a, $b) } @events ],
        ledger($node, $where), $what);
    foreach my $event (@events)
    {
        my ($member, $seq) = split ' ', $event;
        $unordered //= $event if $seq <= ($last{$member} // 0);
        $last{$member} = $seq;
    }
    is($unordered, undef, "$what: in order");
    return;
}

my $settings = "shared_preload_libraries = 'rebate'\nmax_prepared_transactions = 5\nwal_keep_size = 128MB\n";
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', $settings);
$primary->start;
$primary->safe_psql('postgres', q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
    SELECT rebate.set_rule('ten', percent => 10);
});
order($primary, (@members) x 5);
my $channel = $primary->safe_psql('postgres', q{SELECT rebate.channel('alice')});

sub standby_of
{
    my ($node, $name) = @_;
    my $standby = PostgreSQL::Test::Cluster->new($name);

    $node->backup($name);
    $standby->init_from_backup($node, $name, has_streaming => 1);
    $standby->start;
    return $standby;
}

# --- on a standby ----------------------------------------------------------------------------------------------------

my $standby = standby_of($primary, 'standby');
order($primary, @members);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

is(events($standby, 'alice'), events($primary, 'alice'), 'events() of a standby are those of the primary');
my $half = $primary->safe_psql('postgres', q{SELECT cursor FROM rebate.events('alice', NULL, 3) ORDER BY seq DESC LIMIT 1});
is(events($standby, 'alice', $half), events($primary, 'alice', $half), 'after a cursor of the primary, too');
is( $standby->safe_psql('postgres', q{SELECT rebate.events_cursor('alice')}),
    $primary->safe_psql('postgres', q{SELECT rebate.events_cursor('alice')}), 'events_cursor() is the same');
is(ask($standby, 'SELECT count(*) FROM rebate.feed()'), 'RB014', 'feed() is refused');
is(ask($standby, 'SELECT rebate.feed_cursor()'), 'RB014', 'and so is feed_cursor()');
is(ask($standby, q{SELECT rebate.channel('alice')}), $channel, 'a channel that was asked for has its name');
unlike(ask($standby, q{SELECT rebate.channel('bob')}), qr/^rebate_/, 'another has none');
sub mine { my ($member, $sql) = @_; return "BEGIN; DO \$\$ BEGIN PERFORM rebate.act_as('$member'); END \$\$; $sql; COMMIT"; }
foreach my $view ('my_balance', 'my_rebates', 'my_entries')
{
    my $sql = mine('alice', "SELECT count(*) || ' ' || md5(string_agg(v::text, ' ' ORDER BY v::text)) FROM rebate.$view v");
    is($standby->safe_psql('postgres', $sql), $primary->safe_psql('postgres', $sql), "a member's $view");
}
is($standby->safe_psql('postgres', mine('alice', 'SELECT rebate.my_events_cursor()')), $standby->safe_psql('postgres', q{SELECT rebate.events_cursor('alice')}),
    'her cursor');
is($standby->safe_psql('postgres', mine('alice', 'SELECT channel FROM rebate.my_channel')), $channel, 'her channel');
is($standby->safe_psql('postgres', mine('bob', 'SELECT channel FROM rebate.my_channel')), '', 'that of another, who has not asked');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM rebate.my_entries'), 0, 'and without saying who nothing');
is(ask($standby, 'SELECT rebate.rotate_channels()'), '25006', 'rotate_channels() is refused');
is($standby->safe_psql('postgres', 'SELECT worker_pid FROM rebate.delivery_status'), '', 'there is no worker');

# What the primary takes back is not there on either: a cursor of something never committed is refused.
is(ask($standby, q{SELECT count(*) FROM rebate.events('bob', '} . $half . q{')}), 'RB013', 'a cursor of another member is refused');
is(ask($standby, q{SELECT count(*) FROM rebate.events('alice', 'nonsense')}), 'RB013', 'nonsense, too');
is(ask($primary, q{SELECT count(*) FROM rebate.feed('nonsense')}), 'RB013', 'also as a cursor of the feed');

# --- a clean switchover ----------------------------------------------------------------------------------------------

# Cursors in the middle of a batch, at the end, and while transactions are open: one ends before the switchover, and one
# is prepared and ends after it.
my $start = feed_end($primary, '');
my $middle = $primary->safe_psql('postgres', q{SELECT cursor FROM rebate.feed(NULL, 8) WITH ORDINALITY f(cursor, event, n) ORDER BY n DESC LIMIT 1});
my $open = IPC::Run::start([ 'psql', '-XqAt', '-d', $primary->connstr('postgres') ], '<', \my $in, '>', \my $out);
$in = "BEGIN; INSERT INTO orders (customer, total) VALUES ('open', 100); SELECT rebate.flush();\n";
$open->pump until defined $out and $out =~ /1/;
$primary->safe_psql('postgres', q{BEGIN; INSERT INTO orders (customer, total) VALUES ('prepared', 100); PREPARE TRANSACTION 'p'});
order($primary, @members);
my $beside = feed_end($primary, $start);
is(feed_end($primary, $beside), $beside, 'at the end the feed has nothing');
my $now = $primary->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
$in .= "COMMIT;\n\\q\n";
$open->finish;
order($primary, 'alice');
my $of_alice = $primary->safe_psql('postgres', q{SELECT rebate.events_cursor('alice')});
my $of_bob = $primary->safe_psql('postgres', q{SELECT rebate.events_cursor('bob')});
# Read to the end before it goes; this must have said all but the prepared one.
is_feed($primary, '', 'true', 'the feed before the switchover has the ledger');
my $end = feed_end($primary, $beside);

$primary->stop('fast');
$standby->promote;
order($standby, @members);
$standby->safe_psql('postgres', q{COMMIT PREPARED 'p'});
order($standby, 'alice');

is_feed($standby, '', 'true', 'the feed from the beginning has the ledger');
is_feed($standby, $start, q{seq > 6 OR member IN ('open', 'prepared')}, 'from a cursor of the old primary');
is_feed($standby, $beside, q{seq > 7 OR member IN ('open', 'prepared')}, 'from one beside open transactions');
is_feed($standby, $now, q{seq > 7 OR member IN ('open', 'prepared')}, 'from feed_cursor() of then');
is_feed($standby, $end, q{(member = 'alice' AND seq > 8) OR (member IN ('bob', 'carol') AND seq > 7) OR member = 'prepared'},
    'from the last one');
my (undef, @rest) = feed($standby, $middle);
my (undef, @all) = feed($standby, '');
is(scalar(@rest), scalar(@all) - 8, 'from one in the middle of a batch: the number');
is( scalar(
        grep { my $event = $_; !grep { $_ eq $event } @rest } split /\n/,
        $standby->safe_psql('postgres', q{SELECT member || ' ' || seq FROM rebate.entries WHERE seq > 6})), 0, 'and nothing is missing');
is($standby->safe_psql('postgres', "SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM rebate.events('alice', " . quote($of_alice) . ')'),
    '9 10', 'events() goes on');
is($standby->safe_psql('postgres', "SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM rebate.events('bob', " . quote($of_bob) . ')'),
    '8', 'for each member');
is($standby->safe_psql('postgres', q{SELECT rebate.channel('alice')}), $channel, 'channels keep their names');
ok($standby->poll_query_until('postgres', 'SELECT worker_pid IS NOT NULL FROM rebate.delivery_status'), 'there is a worker now');
is($standby->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');

# --- a promotion that loses commits ----------------------------------------------------------------------------------

$primary = $standby;
$standby = standby_of($primary, 'second');
order($primary, @members);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

my %kept = (feed => feed_end($primary, ''), now => $primary->safe_psql('postgres', 'SELECT rebate.feed_cursor()'));
$kept{$_} = $primary->safe_psql('postgres', "SELECT rebate.events_cursor('$_')") foreach @members;
# One whose transaction is open at the cursor: on the standby it was never committed.
my $lost = IPC::Run::start([ 'psql', '-XqAt', '-d', $primary->connstr('postgres') ], '<', \$in, '>', \$out);
$out = '';
$in = "BEGIN; INSERT INTO orders (customer, total) VALUES ('carol', 1000), ('lost', 1000); SELECT rebate.flush();\n";
$lost->pump until $out =~ /\d/;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$kept{open} = feed_end($primary, $kept{feed});
is($kept{open}, $kept{feed}, 'an open transaction is nothing new');
$kept{open_now} = $primary->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
# All of these cursors lie before what the standby has.
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
my $ledger = ledger($primary, 'true');

$standby->stop;
$in .= "COMMIT;\n\\q\n";
$lost->finish;
order($primary, 'alice', 'alice', 'dave');
my %ahead = (feed => feed_end($primary, $kept{feed}), now => $primary->safe_psql('postgres', 'SELECT rebate.feed_cursor()'));
$ahead{$_} = $primary->safe_psql('postgres', "SELECT rebate.events_cursor('$_')") foreach 'alice', 'carol', 'dave';
$ahead{middle} = $primary->safe_psql('postgres',
    'SELECT cursor FROM rebate.feed(' . quote($kept{feed}) . ', 2) WITH ORDINALITY f(cursor, event, n) ORDER BY n DESC LIMIT 1');
isnt($ahead{feed}, $kept{feed}, 'the primary commits what the standby does not get');

$primary->stop('immediate');
$standby->start;
$standby->promote;
is_deeply(ledger($standby, 'true'), $ledger, 'the new primary lacks it');

sub check_refused
{
    my ($what) = @_;
    is(ask($standby, "SELECT count(*) FROM rebate.feed(" . quote($ahead{$_}) . ')'), 'RB013', "$what: a cursor ahead is refused: feed, $_")
      foreach 'feed', 'now', 'middle';
    is(ask($standby, "SELECT count(*) FROM rebate.events('$_', " . quote($ahead{$_}) . ')'), 'RB013',
        "$what: a cursor ahead is refused: events of $_")
      foreach 'alice', 'carol', 'dave';
    return;
}

check_refused('after the promotion');
is(feed_end($standby, $kept{$_}), $kept{$_}, "the feed is at the end for the one before: $_") foreach 'feed', 'open';
is(ask($standby, "SELECT count(*) FROM rebate.events('$_', " . quote($kept{$_}) . ')'), 0, "events of $_ go on") foreach @members;

# The same numbers again, with other content: still refused.
$standby->safe_psql('postgres', q{INSERT INTO orders (customer, total) VALUES ('alice', 1), ('carol', 1), ('dave', 1)});
$standby->safe_psql('postgres', q{INSERT INTO orders (customer, total) VALUES ('alice', 1), ('alice', 1), ('bob', 1)});
check_refused('with new entries of the same numbers');
my %had = map { $_ => 1 } @$ledger;
foreach my $cursor ('feed', 'now', 'open', 'open_now')
{
    my (undef, @events) = feed($standby, $kept{$cursor});
    is_deeply([ sort @events ], [ sort grep { !$had{$_} } @{ ledger($standby, 'true') } ], "the feed goes on from before: $cursor");
}
is( $standby->safe_psql('postgres', "SELECT count(*) FROM rebate.events('alice', " . quote($kept{alice}) . ')'), 3, 'events of alice go on');
is( $standby->safe_psql('postgres', "SELECT count(*) FROM rebate.events('bob', " . quote($kept{bob}) . ')'), 1, 'events of bob, too');
is_feed($standby, '', 'true', 'from the beginning the feed has the ledger');
is($standby->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
$standby->stop;
done_testing();
