# Fifty clients behind pgbouncer share ONE session of the server by transaction; each acts for another member, some for nobody,
# and end their transactions in every way. Nobody ever sees rows of another, or any without saying whose.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();
use Time::HiRes qw(time usleep);

my $limit   = $PostgreSQL::Test::Utils::timeout_default;
my $clients = 50;
my $rounds  = 60;
my $port    = 6433;
my $dir     = PostgreSQL::Test::Utils::tempdir_short;
delete $ENV{PGAPPNAME};
my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
die "no pgbouncer: run test/deps" unless $pgbouncer;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', qq{
    SET client_min_messages = warning;
    CREATE ROLE gateway LOGIN;
    CREATE ROLE web;
    GRANT web TO gateway;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id text PRIMARY KEY, customer text, total numeric(12,2));
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
    SELECT rebate.set_rule('ten', percent => 10);
    SELECT rebate.grant_right('gateway', 'gateway'), rebate.grant_right('member', 'web');
    -- member m has as many rebates as his number
    INSERT INTO orders SELECT 'm' || m || '-' || i, 'm' || m, 10 * i FROM generate_series(0, $clients - 1) m, generate_series(1, m) i;
    CREATE FUNCTION mine(who text, n bigint) RETURNS boolean LANGUAGE plpgsql AS \$\$
    DECLARE
        foreign_rows bigint;
        mine bigint;
    BEGIN
        SELECT count(*) FILTER (WHERE split_part(order_key, '-', 1) IS DISTINCT FROM who), count(*) INTO foreign_rows, mine
        FROM (SELECT order_key FROM rebate.my_rebates UNION ALL SELECT order_key FROM rebate.my_entries
              UNION ALL SELECT event -> 'order' ->> 'id' FROM rebate.my_events(NULL, 1000)) s;
        IF foreign_rows > 0 OR mine <> 3 * n OR rebate.current_member() IS DISTINCT FROM who
            OR (SELECT COALESCE(sum(available), 0) FROM rebate.my_balance) <> n * (n + 1) / 2 THEN
            RAISE 'LEAK: % sees % rows, % of others, as %', COALESCE(who, 'nobody'), mine, foreign_rows, rebate.current_member();
        END IF;
        RETURN true;
    END\$\$});
my $sees = $node->safe_psql('postgres', q{BEGIN; SELECT rebate.act_as('m7'); SELECT mine('m7', 7); COMMIT});
like($sees, qr/^t$/m, 'a member sees his rows');
isnt($node->psql('postgres', q{BEGIN; SELECT rebate.act_as('m7'); SELECT mine('m8', 8); COMMIT}), 0, 'and the check notices who sees others');

# --- the pooler: one server connection -------------------------------------------------------------------------------

my $config = "$dir/pgbouncer.ini";
append_to_file($config, sprintf("[databases]\npooled = host=%s port=%d dbname=postgres user=gateway pool_mode=transaction pool_size=1\n"
      . "[pgbouncer]\nunix_socket_dir = $dir\nlisten_addr =\nlisten_port = $port\nauth_type = any\npool_mode = transaction\nmax_client_conn = 200\n"
      . "logfile = $dir/pgbouncer.log\npidfile = $dir/pgbouncer.pid\n", $node->host, $node->port));
my $bouncer = IPC::Run::start([ $pgbouncer, '-q', $config ], '<', \undef, '>', '/dev/null', '2>', '/dev/null');
END { my $status = $?; if ($bouncer) { $bouncer->signal('TERM'); $bouncer->finish } $? = $status; }
my $until = time + $limit;
until (-S "$dir/.s.PGSQL.$port")
{
    die 'pgbouncer does not start: ' . slurp_file("$dir/pgbouncer.log") if time > $until;
    usleep(20_000);
}
my $through = "host=$dir port=$port dbname=pooled";

# --- the clients -----------------------------------------------------------------------------------------------------

my $act = "SELECT rebate.act_as('m' || :client_id);\nSELECT mine('m' || :client_id, :client_id);\n";
my %scripts = (
    commit    => "BEGIN;\n${act}COMMIT;\n",
    rollback  => "BEGIN;\n${act}ROLLBACK;\n",
    chain     => "BEGIN;\n${act}COMMIT AND CHAIN;\nSELECT mine(NULL, 0);\nROLLBACK;\n",
    statement => "SELECT rebate.act_as('m' || :client_id), mine('m' || :client_id, :client_id);\n",
    savepoint => "BEGIN;\n${act}SAVEPOINT s;\nSELECT rebate.act_as('m' || ((:client_id + 1) % $clients));\n"
      . "SELECT mine('m' || ((:client_id + 1) % $clients), (:client_id + 1) % $clients);\nROLLBACK TO s;\nSELECT mine('m' || :client_id, :client_id);\nCOMMIT;\n",
    request => "BEGIN READ ONLY;\nSELECT set_config('role', 'web', true), set_config('request.jwt.claims', json_build_object('sub', 'm' || :client_id)::text, true);\n"
      . "SELECT rebate.act_as_request();\nSELECT mine('m' || :client_id, :client_id);\nCOMMIT;\n",
    nobody => "SELECT mine(NULL, 0);\nBEGIN;\nSELECT mine(NULL, 0);\nCOMMIT;\n");
my @options;
foreach my $name (sort keys %scripts)
{
    append_to_file("$dir/$name.sql", $scripts{$name});
    push @options, '-f', "$dir/$name.sql";
}
# and some whose transactions fail, or who leave in the middle of one
append_to_file("$dir/failing", join '', map {
    my $m = $_ % ($clients - 1) + 1;
    "BEGIN; SELECT rebate.act_as('m$m'); SELECT mine('m$m', $m); SELECT 1 / 0; COMMIT;\nSELECT mine(NULL, 0);\n"
      . "SELECT rebate.act_as('m$m'), 1 / 0;\nSELECT mine(NULL, 0);\n"
} 1 .. 100);
append_to_file("$dir/leaving", "BEGIN;\nSELECT rebate.act_as('m9');\nSELECT mine('m9', 9);\n");

foreach my $protocol ('simple', 'extended')
{
    my ($output, $failing, $left) = ('', '', '');
    my $others = IPC::Run::start([ 'psql', '-XqAt', '-d', $through, '-f', "$dir/failing" ], '<', \undef, '>', \$failing, '2>&1');
    my $bench = IPC::Run::start([ 'pgbench', '-n', '-M', $protocol, '-c', $clients, '-j', 2, '-t', $rounds, @options, $through ],
        '<', \undef, '>', \$output, '2>&1', IPC::Run::timeout(5 * $limit));
    foreach (1 .. 5)
    {
        IPC::Run::run([ 'psql', '-XqAt', '-d', $through, '-f', "$dir/leaving" ], '<', \undef, '>', \$left, '2>&1');
        unlike($left, qr/LEAK/, "$protocol: one who leaves in the middle");
    }
    $bench->finish;
    $others->finish;
    is($bench->full_result(0), 0, "$protocol: $clients clients, each another member, nobody sees others") or diag($output);
    like($output, qr{number of transactions actually processed: (\d+)/\1}, "$protocol: all of them to the end") or diag($output);
    unlike($output . $failing, qr/LEAK/, "$protocol: nor after errors");
    is(scalar(() = $failing =~ /^t$/gm), 300, "$protocol: those who fail saw theirs, and then nobody's") or diag($failing);
    is(scalar(() = $failing =~ /division by zero/g), 200, "$protocol: and they failed");
    is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'gateway'}), 1, "$protocol: in one session of the server");
}
is($node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'), '', 'the audit is clean');
$bouncer->signal('TERM');
$bouncer->finish;
undef $bouncer;
$node->stop;
done_testing();
