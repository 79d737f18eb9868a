# The archive is killed in the middle, again and again, while orders come in: each entry is there once, and nothing of
# the ledger changes. Then a run that ends moves the rest.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Processes;
use Test::More;
use IPC::Run ();

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nautovacuum_naptime = 1s\nrebate.clock_batch_time = 0");
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'");
$node->start;
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sql(q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer text, total numeric(12,2), status text NOT NULL DEFAULT 'new');
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', status => 'status', phases => '{"new": "tracked", "paid": "pending", "done": "confirmed", "off": "void"}');
    SELECT rebate.set_rule('five', percent => 5);
    INSERT INTO orders (customer, total) SELECT 'm' || i % 200, 10 FROM generate_series(1, 4000) i});
sql(q{UPDATE orders SET status = 'paid'});
sql(q{UPDATE orders SET status = 'done'});
sql(q{CREATE TABLE before AS SELECT * FROM rebate_data.ledger});
my $cut = sql('SELECT clock_timestamp()');
my $entries = sql('SELECT count(*) FROM rebate_data.entry');

sub check
{
    my ($what) = @_;
    is(sql(q{SELECT count(*) FROM (SELECT * FROM before EXCEPT SELECT * FROM rebate_data.ledger) d}), 0, "$what: all entries are as they were");
    is(sql(q{SELECT count(*) - count(DISTINCT (account_id, seq)) FROM rebate_data.ledger}), 0, "$what: each is there once");
    is(sql('SELECT * FROM rebate.audit()'), '', "$what: the audit is clean");
    return;
}

# Wait for a value, as long as the program may need
sub wait_until
{
    my ($query) = @_;
    $node->poll_query_until('postgres', $query) or die "waited in vain for: $query";
    return;
}

sub session
{
    my ($sql) = @_;
    my %s = (in => $sql, out => '', errors => '');
    $s{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \$s{in}, '>', \$s{out}, '2>', \$s{errors});
    $s{run}->pump_nb;
    return \%s;
}

my $moved = 0;

foreach my $round (1 .. 4)
{
    my $victim = ('the archive', 'the server', 'an order')[ $round % 3 ];
    my $orders = session(join '', map { "INSERT INTO orders (customer, total, status) VALUES ('m' || $_ % 200, 10, 'done');\n" } 1 .. 5000);

    # It comes to an account whose entries somebody has locked, and waits there with a batch begun.
    my $held = session(sprintf "BEGIN; SELECT count(*) FROM (SELECT FROM rebate_data.entry WHERE account_id = (SELECT account_id FROM rebate_data.account
        ORDER BY account_id OFFSET %d LIMIT 1) FOR UPDATE) e;\n", 45 * $round);
    $held->{run}->pump until $held->{out} =~ /\d/;
    my $archive = session("CALL rebate.archive('$cut');\n");
    wait_until(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'});
    wait_until('SELECT count(*) > 4000 FROM orders');
    if ($victim eq 'the server')
    {
        kill_server($node);
        $node->start;
    }
    else
    {
        my $pid = sql($victim eq 'an order' ? q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE 'INSERT%' AND pid <> pg_backend_pid() LIMIT 1} :
                q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL%'});
        die "no process to kill: $pid" if $pid !~ /^\d+$/;
        kill 'KILL', $pid;
        wait_buried($pid);
        wait_until('SELECT true');
    }
    $_->{run}->kill_kill(grace => 0) foreach $archive, $held, $orders;
    my $now = sql('SELECT count(*) FROM rebate_data.entry_archive');
    ok($moved < $now && $now < $entries - 200, "$victim was killed: $now of $entries were archived, and $moved before");
    $moved = $now;
    check("$victim was killed");
}

sql("CALL rebate.archive('$cut')");
is(sql("SELECT count(*) FROM rebate_data.entry e WHERE posted_at < '$cut' AND seq <> (SELECT last_entry FROM rebate_data.account a WHERE a.account_id = e.account_id)"), 0, 'the next run moves the rest');
is(sql(q{SELECT state FROM rebate.jobs WHERE job = 'archive'}), 'finished', 'and ends');
check('at the end');
sql(q{UPDATE orders SET status = 'off' WHERE id <= 4000});
is(sql(q{SELECT count(*) FROM rebate.accruals WHERE order_key::bigint <= 4000 AND earned <> 0}), 0, 'orders whose entries are archived are cancelled');
is(sql('SELECT * FROM rebate.audit()'), '', 'and the audit is clean');
is(sql(q{SELECT sum(balance) FROM rebate.trial_balance}), '0.00', 'and the books balance');

# --- exported and dropped, and killed meanwhile -------------------------------------------------------------------------

sql('CREATE TABLE balances AS SELECT * FROM rebate.balances; CREATE TABLE trial AS SELECT * FROM rebate.trial_balance');
sql("CREATE TABLE export AS SELECT account_id, seq, stays FROM rebate.archived_entries WHERE posted_at < '$cut'");
sub check_dropped
{
    my ($what) = @_;
    is(sql('SELECT count(*) FROM (SELECT account_id, seq FROM before EXCEPT (SELECT account_id, seq FROM export UNION SELECT account_id, seq FROM rebate_data.ledger)) d'), 0, "$what: all entries are exported or there");
    is(sql('SELECT count(*) FROM ((TABLE balances EXCEPT TABLE rebate.balances) UNION ALL (TABLE trial EXCEPT TABLE rebate.trial_balance)) d'), 0, "$what: balances are as they were");
    is(sql('SELECT count(*) FROM rebate_data.carried c JOIN rebate_data.entry_archive e ON e.account_id = c.account_id AND e.seq <= c.seq'), 0, "$what: nothing is there and carried forward");
    is(sql('SELECT * FROM rebate.audit()'), '', "$what: the audit is clean");
    return;
}
check_dropped('before the drop');
my $archived = sql('SELECT count(*) FROM rebate_data.entry_archive');
foreach my $victim ('the drop', 'the server')
{
    my $there = sql('SELECT count(*) FROM rebate_data.entry_archive');
    my $held = session(sprintf "BEGIN; SELECT count(*) FROM (SELECT FROM rebate_data.entry_archive WHERE account_id = (SELECT account_id FROM rebate_data.account
        ORDER BY account_id OFFSET %d LIMIT 1) FOR UPDATE) e;\n", $victim eq 'the drop' ? 60 : 150);
    $held->{run}->pump until $held->{out} =~ /\d/;
    my $drop = session("CALL rebate.drop_archived('$cut', 'table export');\n");
    wait_until(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'});
    if ($victim eq 'the server')
    {
        kill_server($node);
        $node->start;
    }
    else
    {
        my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL%'});
        kill 'KILL', $pid;
        wait_buried($pid);
        wait_until('SELECT true');
    }
    $_->{run}->kill_kill(grace => 0) foreach $drop, $held;
    my $left = sql('SELECT count(*) FROM rebate_data.entry_archive');
    ok($left < $there && $left > 100, "$victim was killed: $left of $there are left");
    check_dropped("$victim was killed");
}
sql("CALL rebate.drop_archived('$cut', 'table export')");
is(sql('SELECT count(*) FROM rebate_data.entry_archive'), 0, 'the next run drops the rest');
is(sql('SELECT sum(entries) FROM rebate.dropped_archives'), $archived, 'all that was dropped is told');
check_dropped('at the end');
sql(q{UPDATE orders SET status = 'done' WHERE id <= 100; UPDATE orders SET status = 'off' WHERE id BETWEEN 50 AND 60});
is(sql('SELECT * FROM rebate.audit()'), '', 'orders whose entries were dropped come back and go');
is(sql(q{SELECT sum(balance) FROM rebate.trial_balance}), '0.00', 'and the books balance');
my $statement = q{SELECT md5(string_agg(s::text, ' ' ORDER BY m.member, s.line, s.seq)) FROM (SELECT DISTINCT member FROM rebate.balances) m CROSS JOIN LATERAL rebate.statement(m.member, '2100-01-01') s};

# --- what a dump takes along -------------------------------------------------------------------------------------------

my $dump = PostgreSQL::Test::Utils::tempdir . '/dump.sql';
my $ledger = sql('SELECT count(*), sum(hashtext(l::text)::bigint) FROM rebate_data.ledger l');
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'a dump');
sql('CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('copy') ], 'is restored');
is($node->safe_psql('copy', 'SELECT count(*), sum(hashtext(l::text)::bigint) FROM rebate_data.ledger l'), $ledger, 'with the archive');
is($node->safe_psql('copy', 'SELECT * FROM rebate.audit()'), '', 'its audit is clean');
is($node->safe_psql('copy', $statement), sql($statement), 'statements begin with what was carried forward');
$node->safe_psql('copy', q{INSERT INTO orders (customer, total, status) VALUES ('m1', 10, 'done'), ('m1', 20, 'done'); UPDATE orders SET status = 'off' WHERE total = 20; CALL rebate.archive(now() + interval '1 minute')});
is($node->safe_psql('copy', 'SELECT * FROM rebate.audit()'), '', 'and stays so, an epoch later');
is(($node->psql('copy', q{SELECT count(*) FROM rebate.feed()}, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]))[2] =~ /RB016/ ? 'RB016' : '', 'RB016', 'where a reader from the beginning is refused, too');
is($node->safe_psql('copy', q{SELECT count(*) FROM rebate.feed(rebate.feed_cursor())}), 0, 'and one from now on is not');

$node->stop;
done_testing();
