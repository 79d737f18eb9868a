# The real pg_cron matures an accrual, in both ways in which it connects; what rebate.schedule() says where it cannot; and
# what is seen of jobs that fail. Two servers wait for the same minute.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $wait = 150;    # seconds: pg_cron wakes up each minute

sub sql { my ($node, $sql, $db) = @_; return $node->safe_psql($db // 'postgres', $sql); }

# What a call says when it is refused
sub refusal
{
    my ($node, $sql, $db) = @_;
    my (undef, undef, $stderr) = $node->psql($db // 'postgres', "\\set VERBOSITY verbose\n$sql");
    return $stderr;
}

# A shop with one order that is due, and the role that jobs run as
sub shop
{
    my ($node, $db) = @_;
    sql($node, <<'SQL', $db);
SET client_min_messages = warning;
CREATE EXTENSION rebate;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, placed timestamptz);
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', order_time => 'placed', confirmed_at => 'placed',
    since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_rule('ten', percent => 10, hold => '14 days', valid_from => '2020-01-01');
INSERT INTO orders VALUES (1, 'alice', 100, now() - interval '20 days'), (2, 'alice', 50, now() - interval '1 day');
SQL
    return;
}

my %node;
for my $mode (qw(libpq worker))
{
    my $node = $node{$mode} = PostgreSQL::Test::Cluster->new($mode);
    $node->init;
    $node->append_conf('postgresql.conf', "autovacuum = off");
}

# --- where there is no pg_cron -------------------------------------------------------------------------------------------

my $first = $node{libpq};
$first->start;
shop($first);
sql($first, q(CREATE ROLE rebate_clock LOGIN; SELECT rebate.grant_right('operator', 'rebate_clock'); CREATE ROLE stuck IN ROLE rebate_owner));
my $as_clock = 'SET ROLE rebate_clock; SELECT * FROM rebate.schedule();';
like(refusal($first, $as_clock), qr/55000: pg_cron is not loaded.*cron\.database_name = 'postgres'.*psql -c 'CALL rebate\.mature\(\)'/s,
    'not loaded: what to set');
is(sql($first, 'SET ROLE rebate_clock; SELECT count(*) FROM rebate.schedules()'), 0, 'and there are no jobs');
like(sql($first, q(SELECT concat_ws(' ', subject, status, detail) FROM rebate.doctor() WHERE "check" = 'clock')),
    qr/pg_cron notice/, 'which the doctor mentions');
$first->stop;

my $socket = $first->host;
$first->append_conf('postgresql.conf',
    "shared_preload_libraries = 'pg_cron, rebate'\ncron.database_name = 'postgres'\ncron.host = '$socket'");
$node{worker}->append_conf('postgresql.conf',
    "shared_preload_libraries = 'rebate, pg_cron'\ncron.database_name = 'postgres'\ncron.use_background_workers = on\nmax_worker_processes = 20");
# a role that is let in by nothing
my $hba = slurp_file($first->data_dir . '/pg_hba.conf');
unlink $first->data_dir . '/pg_hba.conf';
append_to_file($first->data_dir . '/pg_hba.conf', "local all shut_out reject\n$hba");

$first->start;
like(refusal($first, $as_clock), qr/55000: extension "pg_cron" is not installed.*CREATE EXTENSION pg_cron/s, 'loaded, not installed');
sql($first, 'CREATE EXTENSION pg_cron');
like(refusal($first, $as_clock), qr/42501: permission denied for schema cron.*GRANT USAGE ON SCHEMA cron TO rebate_clock/s, 'not granted');
like(refusal($first, 'SELECT * FROM rebate.schedule()'), qr/42501: jobs must not be registered by a superuser.*CREATE ROLE rebate_clock LOGIN; SELECT rebate\.grant_right\('operator', 'rebate_clock'\)/s,
    'a superuser is refused');
like(refusal($first, 'SET ROLE stuck; SELECT * FROM rebate.schedule()'), qr/42501: jobs must be registered by a role that can log in/,
    'and so is who cannot log in');
sql($first, 'CREATE ROLE nobody LOGIN');
like(refusal($first, 'SET ROLE nobody; SELECT * FROM rebate.schedule()'), qr/42501: permission denied/, 'and who has no right on rebates');

# --- jobs ----------------------------------------------------------------------------------------------------------------

$node{worker}->start;
shop($node{worker});
sql($node{worker}, q(CREATE EXTENSION pg_cron; CREATE ROLE rebate_clock LOGIN; SELECT rebate.grant_right('operator', 'rebate_clock')));
sql($_, 'GRANT USAGE ON SCHEMA cron TO rebate_clock') for values %node;

like(refusal($first, $as_clock), qr/NOTICE.*pg_cron will connect to host "\Q$socket\E" as role "rebate_clock".*cron\.use_background_workers = on/s,
    'by libpq: the way it connects is told');
unlike(refusal($node{worker}, $as_clock), qr/NOTICE/, 'by worker: nothing to tell');
is(sql($first, q(SET ROLE rebate_clock; SELECT schedule, command FROM cron.job WHERE jobname = 'rebate mature')),
    '* * * * *|CALL rebate.mature()', 'the job is registered');
sql($first, "SET ROLE rebate_clock; SELECT * FROM rebate.schedule('mature', '*/1 * * * *')");
is(sql($first, q(SELECT schedule, count(*) OVER () FROM cron.job WHERE jobname = 'rebate mature')), '*/1 * * * *|1', 'again with another schedule');
like(refusal($first, "SET ROLE rebate_clock; SELECT * FROM rebate.schedule('mature', 'sometimes')"), qr/invalid schedule/, 'but not with nonsense');
like(refusal($first, "SET ROLE rebate_clock; SELECT * FROM rebate.schedule('tea')"), qr/22023: there is no job "tea"/, 'or another job');

# from another database: what the hint says, as it is
sql($first, 'CREATE DATABASE shop');
shop($first, 'shop');
sql($first, q(SELECT rebate.grant_right('operator', 'rebate_clock')), 'shop');
my $hint = refusal($first, $as_clock, 'shop');
like($hint, qr/55000: pg_cron is in database "postgres", not in this one/, 'from another database');
my $statements = join "\n", $hint =~ /^(SELECT cron\.schedule_in_database.*;)$/mg;
like($statements, qr/CALL rebate\.mature\(\)/, 'the statements are there');
sql($first, $statements);

# one that will not be let in
sql($first, 'CREATE ROLE shut_out LOGIN IN ROLE rebate_owner; GRANT USAGE ON SCHEMA cron TO shut_out');
sql($first, "SET ROLE shut_out; SELECT * FROM rebate.schedule('mature')");

# --- the minute ------------------------------------------------------------------------------------------------------------

sub poll
{
    my ($node, $sql, $db) = @_;
    my $until = time + $wait;
    until (sql($node, $sql, $db) eq 't')
    {
        return 0 if time > $until;
        usleep(200_000);
    }
    return 1;
}

my $balance = q(SELECT available::text || ' ' || maturing FROM rebate.balances WHERE member = 'alice');
my $matured = q(SELECT available = 10 FROM rebate.balances WHERE member = 'alice');
for my $case ([ 'libpq', 'postgres' ], [ 'worker', 'postgres' ], [ 'libpq', 'shop' ])
{
    my ($mode, $db) = @$case;
    ok(poll($node{$mode}, $matured, $db), "$mode, database $db: matured");
    is(sql($node{$mode}, $balance, $db), '10.00 5.00', 'what is due, and no more');
    ok(poll($node{$mode}, "SELECT count(*) = 1 FROM rebate.jobs WHERE job = 'mature' AND state = 'finished'", $db), 'the run is over');
    is(sql($node{$mode}, "SELECT done, started_by FROM rebate.jobs WHERE job = 'mature' AND done > 0", $db), '1|rebate_clock', 'and was its own role\'s')
      if $db eq 'postgres';
    is(sql($node{$mode}, 'SELECT * FROM rebate.audit()', $db), '', 'the audit is clean');
}
for my $mode (qw(libpq worker))
{
    ok(poll($node{$mode}, q(SET ROLE rebate_clock; SELECT count(*) = 1 FROM rebate.schedules() WHERE job = 'mature' AND active AND last_status = 'succeeded')),
        "$mode: the run succeeded, says pg_cron");
}
ok(poll($first, q(SELECT count(*) = 1 FROM rebate.schedules() WHERE username = 'shut_out' AND last_status = 'failed')), 'one was not let in');
like(sql($first, q(SELECT concat_ws(' ', status, detail, remedy) FROM rebate.doctor() WHERE "check" = 'clock' AND subject = 'mature')),
    qr/problem its last run by pg_cron failed: connection failed.*cron\.use_background_workers = on/, 'and the doctor says so');

# --- pg_cron's own history: that of these jobs, after a week ---------------------------------------------------------------

my $mine = q(SELECT count(*) FROM cron.job_run_details WHERE database = 'postgres' AND username = 'rebate_clock');
my $runs = sql($first, $mine);
cmp_ok($runs, '>=', 1, 'pg_cron keeps a history');
sql($first, q(INSERT INTO cron.job_run_details (jobid, database, username, command, status, start_time, end_time)
    SELECT j.jobid, j.database, j.username, j.command, 'succeeded', now() - interval '8 days', now() - interval '8 days'
    FROM cron.job j, generate_series(1, 2500) WHERE jobname = 'rebate mature' AND username = 'rebate_clock' AND database = 'postgres';
    SET ROLE rebate_clock; SELECT cron.schedule('tea', '0 0 1 1 *', 'SELECT 1'); RESET ROLE;
    INSERT INTO cron.job_run_details (jobid, database, username, command, status, start_time, end_time)
    SELECT jobid, 'postgres', 'rebate_clock', 'SELECT 1', 'succeeded', now() - interval '8 days', now() - interval '8 days'
    FROM cron.job WHERE jobname = 'tea'));
sql($first, 'SET ROLE rebate_clock; CALL rebate.prune()');
is(sql($first, q(SELECT done FROM rebate.jobs WHERE job = 'prune')), 2500, 'what is older is deleted');
is(sql($first, "$mine AND end_time < now() - interval '7 days'"), 1, 'but not that of other jobs');
cmp_ok(sql($first, $mine), '>=', $runs + 1, 'nor what is younger');

# --- no more -----------------------------------------------------------------------------------------------------------------

is(sql($first, 'SET ROLE rebate_clock; SELECT rebate.unschedule()') > 0, 1, 'unscheduled');
is(sql($first, q(SELECT count(*) FROM cron.job WHERE username = 'rebate_clock' AND database = 'postgres' AND jobname <> 'tea')), 0, 'all of the role\'s jobs in this database');
is(sql($first, q(SELECT count(*) FROM cron.job WHERE username = 'shut_out')), 1, 'no others');
is(sql($first, q(SET ROLE shut_out; SELECT rebate.unschedule('mature'), rebate.unschedule())), '1|0', 'or one');

$_->stop for values %node;
done_testing();
