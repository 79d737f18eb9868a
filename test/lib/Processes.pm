# Processes of a server: killed so that none is left, or stopped where the others do not need them.
package Processes;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(kill_server stand_still wait_buried wait_gone);

my $limit = $PostgreSQL::Test::Utils::timeout_default;

# Of each process its parent and state, a letter; without ps where there is /proc, since small systems lack it.
sub processes
{
    my %found;

    foreach my $stat (glob '/proc/[0-9]*/stat')
    {
        open(my $file, '<', $stat) or next;
        my $line = <$file> // next;
        $found{$1} = { state => $2, parent => $3 } if $line =~ /^(\d+) \(.*\) (\S) (\d+)/s;
    }
    return %found if %found;
    foreach my $line (split /\n/, qx{ps -axo pid=,ppid=,stat=})
    {
        my ($pid, $parent, $state) = split ' ', $line;
        $found{$pid} = { state => substr($state, 0, 1), parent => $parent };
    }
    return %found;
}

# Waits until a process is in one of these states: Z dead and not yet buried, T stopped; empty: gone.
sub wait_for_state
{
    my ($pid, $pattern) = @_;
    my $until = time + $limit;

    for (;;)
    {
        my %all = processes();
        return if ($all{$pid} ? $all{$pid}{state} : '') =~ $pattern;
        die "process $pid is in state $all{$pid}{state}" if time > $until;
        usleep(10_000);
    }
}

# Waits until processes are gone, or dead and not yet buried by init.
sub wait_gone { wait_for_state($_, qr/^Z?$/) foreach @_; return; }

# Waits until the postmaster has taken notice of the death of a child.
sub wait_buried { wait_for_state($_, qr/^$/) foreach @_; return; }

# Kills the postmaster and every process of its, and waits until they are gone. The postmaster is stopped first: a
# process that it starts after we looked would hold the shared memory, and the server could not start again.
sub kill_server
{
    my ($node) = @_;
    my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;

    kill 'STOP', $postmaster;
    wait_for_state($postmaster, qr/^[TZ]?$/);
    my %all = processes();
    my @children = grep { $all{$_}{parent} == $postmaster } keys %all;
    $node->kill9;
    kill 'KILL', @children;
    wait_gone($postmaster, @children);
    # A dead postmaster that is not buried would stop the next one.
    unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
    return;
}

# Stops a process of the server while it waits for something to do, that is, where it holds no lock: one that is stopped
# with a lock would hold up whatever the test does next. Returns whether it stands.
sub stand_still
{
    my ($node, $pid) = @_;

    for (1 .. 200)
    {
        kill 'STOP', $pid or return 0;
        wait_for_state($pid, qr/^[TZ]?$/);
        my ($status, $waits) = $node->psql('postgres', "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid",
            timeout => 10, timed_out => \my $timed_out);
        return 1 if !$timed_out && ($waits // '') eq 'Extension';
        kill 'CONT', $pid;
        usleep(50_000);
    }
    return 0;
}

1;
