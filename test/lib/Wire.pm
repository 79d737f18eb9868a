# A client of the wire protocol, version 3, over the Unix socket: says each message by itself, as libpq and psql do not.
package Wire;

use strict;
use warnings;
use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);

# Longest wait for the server, in seconds
our $patience = 180;

sub connect
{
    my ($class, $node, $db) = @_;
    my $path = $node->host . '/.s.PGSQL.' . $node->port;
    my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path) or die "cannot connect to $path: $!";
    my $self = bless { socket => $socket, sent => '', got => '', pid => undef, state => undef }, $class;
    my $user = getpwuid($>);
    my $start = pack('N', 196608) . join("\0", 'user', $user, 'database', $db, 'application_name', 'wire') . "\0\0";

    print {$socket} pack('N', 4 + length $start) . $start or die $!;
    $socket->flush;
    foreach my $message ($self->receive)
    {
        die "the server wants a password\n" if $message->{type} eq 'R' and unpack('N', $message->{body}) != 0;
        $self->{pid} = unpack('N', $message->{body}) if $message->{type} eq 'K';
        die "no connection: $message->{error}{M}\n" if $message->{error};
    }
    return $self;
}

# --- messages to the server; they leave with receive() or flush() --------------------------------------------------

sub say
{
    my ($self, $type, $body) = @_;
    $self->{sent} .= $type . pack('N', 4 + length $body) . $body;
    return $self;
}

sub query { my ($self, $sql) = @_; return $self->say('Q', "$sql\0"); }
sub parse { my ($self, $name, $sql) = @_; return $self->say('P', "$name\0$sql\0" . pack('n', 0)); }
sub close_portal { my ($self, $portal) = @_; return $self->say('C', "P$portal\0"); }
sub execute { my ($self, $portal, $rows) = @_; return $self->say('E', "$portal\0" . pack('N', $rows // 0)); }
sub sync { my ($self) = @_; return $self->say('S', ''); }
sub flush { my ($self) = @_; return $self->say('H', ''); }
sub copy_data { my ($self, $data) = @_; return $self->say('d', $data); }
sub copy_done { my ($self) = @_; return $self->say('c', ''); }

sub bind
{
    my ($self, $portal, $statement, @values) = @_;
    return $self->say('B', "$portal\0$statement\0" . pack('n n', 0, scalar @values)
          . join('', map { defined $_ ? pack('N', length $_) . $_ : pack('N', 0xffffffff) } @values) . pack('n', 0));
}

# A statement without a name of its own, in a portal that may be executed further
sub open
{
    my ($self, $portal, $sql, $rows, @values) = @_;
    return $self->parse('', $sql)->bind($portal, '', @values)->execute($portal, $rows);
}

# --- what the server says --------------------------------------------------------------------------------------------

sub _send
{
    my ($self) = @_;
    my $socket = $self->{socket};

    print {$socket} $self->{sent} or die "the server does not listen: $!" if length $self->{sent};
    $socket->flush;
    $self->{sent} = '';
    return;
}

sub _message
{
    my ($self) = @_;
    my ($type, $length, $body);

    until (length $self->{got} >= 5 and length $self->{got} >= 1 + ($length = unpack('x N', $self->{got})))
    {
        my $ready = '';
        vec($ready, fileno $self->{socket}, 1) = 1;
        select($ready, undef, undef, $patience) or die "no answer in $patience s\n";
        sysread($self->{socket}, $self->{got}, 65536, length $self->{got}) or return;
    }
    ($type, $body) = (substr($self->{got}, 0, 1), substr($self->{got}, 5, $length - 4));
    substr($self->{got}, 0, 1 + $length) = '';
    my $message = { type => $type, body => $body };
    if ($type eq 'E' or $type eq 'N')
    {
        my %fields = map { substr($_, 0, 1) => substr($_, 1) } grep { length } split /\0/, $body;
        $message->{ $type eq 'E' ? 'error' : 'notice' } = \%fields;
    }
    elsif ($type eq 'D')
    {
        my ($n, @row) = (unpack('n', $body));
        my $at = 2;

        for (1 .. $n)
        {
            my $size = unpack('N', substr($body, $at, 4));
            $at += 4;
            push @row, $size == 0xffffffff ? undef : substr($body, $at, $size);
            $at += $size unless $size == 0xffffffff;
        }
        $message->{row} = \@row;
    }
    elsif ($type eq 'Z') { $self->{state} = $body }
    return $message;
}

# All messages up to one of the types (the end of a cycle, unless said otherwise), or up to the end of the connection
sub receive
{
    my ($self, $types) = @_;
    my @messages;

    $types //= 'Z';
    $self->_send;
    while (my $message = $self->_message)
    {
        push @messages, $message;
        return @messages if index($types, $message->{type}) >= 0;
    }
    $self->{closed} = 1;
    return @messages;
}

# A cycle in short: rows with "," between columns, the command or "suspended" where one ended, an error as its SQLSTATE
sub told
{
    my (@messages) = @_;
    my @told;

    foreach my $m (@messages)
    {
        if ($m->{row}) { push @told, join ',', map { $_ // 'null' } @{ $m->{row} } }
        elsif ($m->{error}) { push @told, "error $m->{error}{C}" }
        elsif ($m->{type} eq 's') { push @told, 'suspended' }
        elsif ($m->{type} eq 'C') { push @told, $m->{body} =~ s/\0//r }
    }
    return join ' ', @told;
}

# Send what was said, with a Sync, and tell the answer
sub run { my ($self) = @_; return told($self->sync->receive); }

# The same with a Flush: the implicit transaction goes on.  The answer ends where a portal does, or with an error.
sub go { my ($self) = @_; return told($self->flush->receive('CsE')); }

sub simple { my ($self, $sql) = @_; return told($self->query($sql)->receive); }

# Go without a word
sub leave { my ($self) = @_; close $self->{socket}; $self->{closed} = 1; return; }

1;
