# Whatever a client is given is valid by schema/event.schema.json: tests note what they see, and check it all at once.
package EventSchema;

use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run ();
use Test::More;

our @EXPORT = qw(note_events note_file_lines note_notification events_are_valid invalid_events);

my $lib = dirname(__FILE__);
my $schema = "$lib/../../schema/event.schema.json";
my %noted;

# Notes texts as what the schema calls event, member_payload or shared_payload. Each text is checked once.
sub note_events
{
    my ($kind, @texts) = @_;
    $noted{$kind}{$_} = 1 foreach @texts;
    return;
}

# Lines of a file of rebate-listen: cursor, tab, event
sub note_file_lines { note_events('event', map { (split /\t/, $_, 2)[1] } @_); return; }

# The payload of a notification on a channel
sub note_notification
{
    my ($channel, $payload) = @_;
    note_events($channel eq 'rebate' ? 'shared_payload' : 'member_payload', $payload);
    return;
}

# A python3 that has jsonschema: the first in PATH may be another one than Debian's.
sub python
{
    foreach my $python ('python3', '/usr/bin/python3')
    {
        return $python if IPC::Run::run([ $python, '-c', 'import jsonschema' ], '<', \undef, '>', \my $out, '2>', \my $err);
    }
    die "no python3 with jsonschema: run test/deps";
}

# What is wrong with texts, a line each; nothing if they are valid.
sub invalid_events
{
    my ($kind, @texts) = @_;
    my ($in, $out, $err) = (join('', map { "$kind\t" . s/\n/ /gr . "\n" } @texts));

    IPC::Run::run([ python(), "$lib/check_events", $schema ], '<', \$in, '>', \$out, '2>', \$err)
      or die "check_events: $err";
    return split /\n/, $out;
}

# One assertion: all that was noted is valid, and there was something of each kind asked for.
sub events_are_valid
{
    my ($what, @kinds) = @_;
    my @wrong;

    foreach my $kind (sort keys %noted)
    {
        my @texts = sort keys %{ $noted{$kind} };
        push @wrong, map { /^(\d+): / ? "$_\n    $texts[$1 - 1]" : $_ } invalid_events($kind, @texts);
    }
    push @wrong, map { "nothing was noted as $_" } grep { !$noted{$_} } @kinds;
    my $counts = join ', ', map { keys(%{ $noted{$_} }) . " $_" } sort keys %noted;
    is(scalar(@wrong), 0, "$what: valid by the schema: $counts") or diag(join "\n", @wrong[ 0 .. ($#wrong < 9 ? $#wrong : 9) ]);
    %noted = ();
    return;
}

1;
