# A client that listens, by psql: what it is told, on which channel, by which process.
package Listener;

use strict;
use warnings;
use EventSchema;
use Exporter 'import';
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(listener listen_on tick wait_until forget on_channel close_listener is_announced);

# What is heard is noted for events_are_valid(), unless the test forges notifications.
our $genuine = 1;

my $json = JSON::PP->new->canonical;

# Nothing is wrong by being slow: what takes longer than it should is noted, and waited for until here.
my $limit = $PostgreSQL::Test::Utils::timeout_default;

# A psql that listens on channels, and keeps what it is told: {heard} is a list of [channel, payload, process id].
sub listener
{
    my ($node, $db, @channels) = @_;
    my $l = { node => $node, db => $db, in => '', out => '', err => '', heard => [], ticks => 0, known => {} };

    $l->{run} = IPC::Run::start(
        [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db) ],
        '<', \$l->{in}, '>', \$l->{out}, '2>', \$l->{err});
    listen_on($l, @channels);
    return $l;
}

sub listen_on
{
    my ($l, @channels) = @_;
    $l->{in} .= qq{LISTEN "$_";\n} foreach @channels;
    tick($l) for 1 .. 2;
    return;
}

# psql takes notifications in after each query: one query, and all that came until then is in {heard}.
sub tick
{
    my ($l) = @_;
    my $mark = 'tick ' . ++$l->{ticks};
    my $until = time + $limit;

    $l->{in} .= "SELECT '$mark';\n\\echo end of $mark\n";
    until ($l->{out} =~ /^end of \Q$mark\E\n/m)
    {
        die "the listener does not answer: $l->{err}" if time > $until or !$l->{run}->pumpable;
        $l->{run}->pump_nb;
        usleep(1000) unless $l->{out} =~ /^end of \Q$mark\E\n/m;
    }
    while ($l->{out} =~ /Asynchronous notification "([^"]+)" (?:with payload "(.*?)" )?received from server process with PID (\d+)\./g)
    {
        my ($channel, $text, $pid) = ($1, $2 // '', $3);
        push @{ $l->{heard} }, [ $channel, $text, $pid ];
        note_notification($channel, $text) if $genuine;
        next unless $channel eq 'rebate';
        my $payload = eval { $json->decode($text) } or next;
        next unless ref $payload eq 'HASH';
        # Of many accounts nobody is named: what counts is what can be read now.
        $payload->{accounts} = [ map { [ split /\|/ ] } split /\n/,
            $l->{node}->safe_psql($l->{db}, 'SELECT handle, last_entry FROM rebate_data.account') ]
          if $payload->{many};
        next unless ref $payload->{accounts} eq 'ARRAY';
        foreach my $pair (@{ $payload->{accounts} })
        {
            my ($handle, $seq) = @$pair;
            $l->{known}{$handle} = $seq if $seq > ($l->{known}{$handle} // 0);
        }
    }
    $l->{out} = '';
    return;
}

# Ticks until the condition holds; the seconds that took, which should be no more than so many, or nothing.
sub wait_until
{
    my ($l, $seconds, $condition) = @_;
    my $begin = time;

    for (;;)
    {
        tick($l);
        last if $condition->();
        return if time - $begin > $limit;
        usleep(20_000);
    }
    note sprintf 'late: %.1f s, not %s', time - $begin, $seconds if time - $begin > $seconds;
    return time - $begin || 1e-6;
}

sub forget
{
    my ($l) = @_;
    tick($l) for 1 .. 2;
    @{ $l->{heard} } = ();
    return;
}

sub on_channel { my ($l, $channel) = @_; return grep { $_->[0] eq $channel } @{ $l->{heard} }; }

# Closed by hand: a psql that is only forgotten could hold its session.
sub close_listener
{
    my ($l) = @_;
    $l->{in} .= "\\q\n";
    $l->{run}->finish;
    return;
}

# Is all that the ledger has of these members announced, and nothing that it has not?
sub is_announced
{
    my ($l, $seconds, $like, $what) = @_;
    my %ledger = map { split /\|/ } split /\n/, $l->{node}->safe_psql($l->{db},
        "SELECT handle, last_entry FROM rebate_data.account WHERE member LIKE '$like'");
    my $missing = sub { scalar grep { ($l->{known}{$_} // 0) < $ledger{$_} } keys %ledger };
    my $took = wait_until($l, $seconds, sub { !$missing->() });

    ok(%ledger && defined $took, "$what: announced")
      or diag($missing->() . ' of ' . keys(%ledger) . ' accounts are not');
    note sprintf '%s: %d accounts, %.2f s', $what, scalar keys %ledger, $took // -1;
    is(scalar(grep { ($l->{known}{$_} // 0) > $ledger{$_} } keys %ledger), 0, "$what: and nothing else");
    return;
}

1;
