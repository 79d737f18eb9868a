# pg_upgrade of a cluster with rebate preloaded, orders, channels and readers: it goes through, and afterwards all goes on
# where it was: the next order, the channels' names, the cursors of members and of the feed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use EventSchema;
use Listener;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my $settings = "shared_preload_libraries = 'rebate'\nmax_prepared_transactions = 5\n";
my @members = ('alice', 'bob', 'carol');

sub order
{
    my ($node, @customers) = @_;
    return $node->safe_psql('postgres', join '', map { "INSERT INTO orders (customer, total) VALUES ('$_', 100);\n" } @customers);
}

# One value, or the SQLSTATE
sub ask
{
    my ($node, $sql) = @_;
    my ($status, $out, $errors) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

    return $out if $status == 0;
    return $errors =~ /ERROR:\s+(\w+)/ ? $1 : $errors;
}

sub quote { my ($cursor) = @_; return "\$c\$$cursor\$c\$"; }

# "member seq" of what the feed has after a cursor, in its order
sub feed
{
    my ($node, $cursor) = @_;
    my $events = ask($node, 'SELECT event FROM rebate.feed(' . quote($cursor) . ', 100000)');
    note_events('event', split /\n/, $events) if $events =~ /^\{/;
    return join ' ', sort map { /"seq": "(\d+)", "member": "(\w+)"/ ? "$2-$1" : $_ } split /\n/, $events;
}

sub events_after { my ($node, $member, $cursor) = @_; return ask($node, "SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM rebate.events('$member', " . quote($cursor) . ')'); }

sub new_node
{
    my ($name) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);
    $node->init;
    $node->append_conf('postgresql.conf', $settings);
    return $node;
}

my $old = new_node('old');
$old->start;
$old->safe_psql('postgres', q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL, refunded numeric(12,2) NOT NULL DEFAULT 0,
        state text NOT NULL DEFAULT 'c');
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded', status => 'state', phases => '{"p": "pending", "c": "confirmed"}');
    SELECT rebate.set_rule('ten', percent => 10);
    CREATE DATABASE second;
});
$old->safe_psql('second', q{SET client_min_messages = warning; CREATE EXTENSION rebate});
# Ids of transactions that a new cluster has not reached.
$old->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1 .. 3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$});
order($old, (@members) x 3);
$old->safe_psql('postgres', q{UPDATE orders SET refunded = 50 WHERE id = 1; INSERT INTO orders (customer, total, state) VALUES ('alice', 30, 'p')});
$old->poll_query_until('postgres', 'SELECT worker_pid IS NOT NULL FROM rebate.delivery_status') or die 'no worker';
my %channels = map { $_ => $old->safe_psql('postgres', "SELECT rebate.channel('$_')") } @members;

# Cursors: in the middle of a batch; beside a transaction that commits later; at the end.
my %cursor = (middle => $old->safe_psql('postgres', 'SELECT cursor FROM rebate.feed(NULL, 4) WITH ORDINALITY f(cursor, event, n) ORDER BY n DESC LIMIT 1'));
my $open = IPC::Run::start([ 'psql', '-XqAt', '-d', $old->connstr('postgres') ], '<', \my $in, '>', \my $out);
$in = "BEGIN; INSERT INTO orders (customer, total) VALUES ('open', 100); SELECT rebate.flush();\n";
$open->pump until defined $out and $out =~ /1/;
$cursor{beside} = $old->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
$in .= "COMMIT;\n\\q\n";
$open->finish;
order($old, 'bob');
$cursor{end} = $old->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
my %of = map { $_ => $old->safe_psql('postgres', "SELECT rebate.events_cursor('$_')") } @members;
order($old, 'carol');       # what neither the last cursor nor carol's has seen

my %before = map { $_ => feed($old, $cursor{$_}) } sort keys %cursor;
is($before{beside}, 'bob-4 carol-4 open-1', 'before: what the cursors have not seen');
my $entries = $old->safe_psql('postgres', 'SELECT * FROM rebate.entries ORDER BY account_id, seq');
my $balances = $old->safe_psql('postgres', 'SELECT * FROM rebate.balances ORDER BY 1, 2');
my $xid = $old->safe_psql('postgres', 'SELECT pg_current_xact_id()');
my $dump = $old->basedir . '/dump.sql';
run_log([ 'pg_dump', '-f', $dump, $old->connstr('postgres') ]) or die 'pg_dump';
$old->stop;

# --- the upgrade -----------------------------------------------------------------------------------------------------

# The worker must not be there while pg_upgrade is the only one that may connect; both clusters have rebate preloaded.
my $new = new_node('new');
my $bindir = (grep { -x "$_/pg_upgrade" } split /:/, $ENV{PATH})[0];
chdir $new->basedir or die 'chdir';
my @upgrade = ('pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
    '-s', PostgreSQL::Test::Utils::tempdir_short, '-p', $old->port, '-P', $new->port);
my $output;
ok(IPC::Run::run([ @upgrade, '--check' ], '<', \undef, '>', \$output, '2>&1', IPC::Run::timeout(600)), 'pg_upgrade --check') or diag($output);
ok(IPC::Run::run(\@upgrade, '<', \undef, '>', \$output, '2>&1', IPC::Run::timeout(600)), 'pg_upgrade') or diag($output);

# --- afterwards ------------------------------------------------------------------------------------------------------

$new->start;
is($new->safe_psql('postgres', 'SELECT * FROM rebate.entries ORDER BY account_id, seq'), $entries, 'the ledger is the same');
is($new->safe_psql('postgres', 'SELECT * FROM rebate.balances ORDER BY 1, 2'), $balances, 'and so are the balances');
is($new->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
cmp_ok($new->safe_psql('postgres', 'SELECT pg_current_xact_id()'), '>', $xid, 'transaction ids go on');
is($new->safe_psql('postgres', "SELECT rebate.channel('$_')"), $channels{$_}, "the channel of $_ has its name") foreach @members;

# Before anything is posted, and after.
is(feed($new, $cursor{$_}), $before{$_}, "the feed goes on from a cursor of before: $_") foreach sort keys %cursor;
is(events_after($new, 'alice', $of{alice}), '', 'events() has nothing new for alice');
is(events_after($new, 'carol', $of{carol}), '4', 'and one for carol');

my $l = listener($new, 'postgres', 'rebate', values %channels);
order($new, 'alice', 'bob', 'dave');
is($new->safe_psql('postgres', q{SELECT available FROM rebate.balances WHERE member IN ('alice', 'dave') ORDER BY member}), "35.00\n10.00", 'the next orders are exact');
is_announced($l, 4, 'alice', 'the next order, by the worker');
ok(wait_until($l, 3, sub { on_channel($l, $channels{alice}) }), 'and its member is told on the channel he had');
$new->safe_psql('postgres', q{UPDATE orders SET refunded = 100 WHERE id = 1; UPDATE orders SET state = 'c' WHERE state = 'p'});
is($new->safe_psql('postgres', q{SELECT available, pending FROM rebate.balances WHERE member = 'alice'}), '33.00|0.00', 'and so is the refund of an old one');

is(feed($new, $cursor{$_}), join(' ', sort split(/ /, "$before{$_} bob-5 dave-1"), 'alice-6', 'alice-7', 'alice-8'), "with new orders, too: $_")
  foreach sort keys %cursor;
is(events_after($new, 'alice', $of{alice}), '6 7 8', 'events() goes on');
my $after = $new->safe_psql('postgres', 'SELECT rebate.feed_cursor()');
order($new, 'carol');
is(feed($new, $after), 'carol-5', 'a cursor of afterwards');
$new->restart;
is(feed($new, $after), 'carol-5', 'after a restart');
is(feed($new, $cursor{end}), join(' ', sort split(/ /, "$before{end} bob-5 dave-1 carol-5"), 'alice-6', 'alice-7', 'alice-8'), 'and one of before');
is($new->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
close_listener($l);

# --- what is no upgrade ----------------------------------------------------------------------------------------------

# The same tables by a dump, in a cluster with other ids of transactions: cursors of the feed are refused there.
my $restored = new_node('restored');
$restored->start;
$restored->safe_psql('postgres', 'CREATE ROLE rebate_owner');
run_log([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $restored->connstr('postgres') ]) or die 'restore';
is(feed($restored, $cursor{$_}), 'RB013', "restored from a dump, a cursor of the feed is refused: $_") foreach sort keys %cursor;
order($restored, 'alice');
is(feed($restored, $cursor{$_}), 'RB013', "and after an order: $_") foreach sort keys %cursor;
is(events_after($restored, 'alice', $of{alice}), '6', 'events() goes on, since the entries are the same');
isnt($restored->safe_psql('postgres', q{SELECT rebate.channel('alice')}), $channels{alice}, 'channels have other names');
# A cursor of the upgraded cluster is nothing to the one restored.
is(feed($restored, $after), 'RB013', 'one of the upgraded cluster, too');
is($restored->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
unlike(slurp_file($_->logfile), qr/PANIC|terminated by signal|TRAP:/, 'nothing crashed') foreach $new, $restored;
$_->stop foreach $new, $restored;
events_are_valid('what came', 'event', 'shared_payload', 'member_payload');
done_testing();
