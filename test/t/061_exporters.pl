# The files in monitoring/ with the exporters of Debian: what they serve over HTTP is what SQL says, for a login that has
# pg_monitor and nothing else.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IO::Socket::INET;
use IPC::Run ();
use Time::HiRes qw(usleep);

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $dir = PostgreSQL::Test::Utils::tempdir;

sub program
{
    my ($name) = @_;
    foreach my $place ('.build/exporters/usr/bin', split /:/, $ENV{PATH}) { return "$place/$name" if -x "$place/$name"; }
    return;
}

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'\nrebate.track_timing = on");
$node->start;
$node->safe_psql('postgres', q{
    SET client_min_messages = error;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2), placed timestamptz DEFAULT now());
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', order_time => 'placed', confirmed_at => 'placed', since => '2020-01-01', max_backdate => NULL);
    SELECT rebate.set_rule('ten', percent => 10, hold => '1 day', valid_from => '2020-01-01');
    INSERT INTO orders SELECT i, 'm' || i % 3, 100, now() - interval '3 days' FROM generate_series(1, 10) i;
    INSERT INTO orders VALUES (11, 'm1', NULL), (12, 'm1', NULL);
    UPDATE orders SET total = 50 WHERE id = 1;
    CREATE TABLE returns (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2));
    SELECT rebate.attach('returns', 'customer', 'total', 'EUR');
    INSERT INTO returns VALUES (1, 'm1', 10);
    DELETE FROM orders WHERE id = 10;
    SET rebate.mode = defer;
    INSERT INTO orders VALUES (13, 'm1', 100);
    RESET rebate.mode;
    SELECT rebate.reconcile('orders');
    CALL rebate.fold();
    SELECT rebate.clock_step('prune', now());
    CREATE ROLE monitor LOGIN IN ROLE pg_monitor});
$node->poll_query_until('postgres', 'SELECT ring_used = 0 AND published > 0 FROM rebate.stat_delivery') or die 'nothing is published';

# One page of the exporter, without a client that would have to be installed
sub fetch
{
    my ($port) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10) or return '';
    print $socket "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    local $/;
    return <$socket> // '';
}

# The metrics as they come: "name{labels}" => value, with those labels that are asked for
sub metrics
{
    my ($page, @labels) = @_;
    my %value;
    foreach (split /\n/, $page)
    {
        my ($name, $labels, $value) = /^(\w+)(?:\{(.*)\})? (\S+)$/ or next;
        my %label = ($labels // '') =~ /(\w+)="([^"]*)"/g;
        $value{ join ' ', $name, map { $label{$_} // '' } @labels } = $value;
    }
    return \%value;
}

sub serve
{
    my ($port, $ready, $env, @command) = @_;
    my ($page, $out) = ('', '');
    local @ENV{ keys %$env } = values %$env;
    my $run = IPC::Run::start(\@command, '<', \undef, '>', "$dir/exporter.log", '2>&1');
    my $until = time + $limit;
    until ($page =~ $ready || time > $until)
    {
        usleep(100_000);
        $page = fetch($port);
    }
    $run->kill_kill;
    diag(slurp_file("$dir/exporter.log")) unless $page =~ $ready;
    return $page;
}

my $engine = $node->safe_psql('postgres', q{SELECT json_object_agg(key, value) FROM json_each((SELECT to_json(e) FROM rebate.stat_engine e))});
sub of_table { my ($column, $table) = @_; return $node->safe_psql('postgres', "SELECT $column FROM rebate.stat_tables WHERE source = 'public." . ($table // 'orders') . "'"); }
sub of_engine { my ($name) = @_; return $engine =~ /"$name" : ([\d.]+)/ ? $1 : undef; }
cmp_ok(of_engine('entries'), '==', $node->safe_psql('postgres', 'SELECT count(*) FROM rebate.entries'), 'what SQL says');

# A figure in seconds of one in milliseconds
sub is_seconds
{
    my ($seconds, $milliseconds, $what) = @_;
    cmp_ok($milliseconds, '>', 0, "$what: there is time");
    cmp_ok(abs($seconds - $milliseconds / 1000), '<', 1e-6, "$what in seconds");
    return;
}

# Both exporters: the same figures under their names
sub compare
{
    my ($m, $counter, $gauge) = @_;
    foreach my $column (qw(transactions rolled_back statements inserted updated deleted posted failed rebates entries))
    {
        is($m->{ $counter->('engine', $column) }, of_engine($column), "engine, $column");
    }
    foreach my $column (qw(inserted updated deleted deferred posted failed rebates entries))
    {
        is($m->{ $counter->('table', $column, 'public.orders') }, of_table($column), "table, $column");
        is($m->{ $counter->('table', $column, 'public.returns') }, of_table($column, 'returns'), "another table, $column");
    }
    cmp_ok($m->{ $gauge->('table', 'idle_seconds', 'public.orders') }, '>', 0, 'table, idle');
    cmp_ok($m->{ $gauge->('table', 'idle_seconds', 'public.orders') }, '<=',
        $node->safe_psql('postgres', q{SELECT extract(epoch FROM clock_timestamp() - last_order_at) FROM rebate.stat_tables WHERE source = 'public.orders'}), 'in seconds');
    is_seconds($m->{ $counter->('engine', "${_}_seconds") }, of_engine("${_}_time"), "engine, time to $_") foreach qw(collect decide post);
    is($m->{ $gauge->('delivery', 'worker', 'worker') }, 1, 'delivery, worker');
    is($m->{ $counter->('delivery', 'published', 'worker') }, $node->safe_psql('postgres', 'SELECT published FROM rebate.stat_delivery'), 'delivery, published');
    is_seconds($m->{ $gauge->('delivery', 'lag_seconds', 'worker') }, $node->safe_psql('postgres', 'SELECT lag FROM rebate.stat_delivery'), 'delivery, lag');
    is($m->{ $gauge->('backlog', 'waiting', 'failure', 'public.orders') }, 2, 'backlog, failures');
    is($m->{ $gauge->('backlog', 'waiting', 'mature', '') }, 9, 'backlog, due');
    my $age = $m->{ $gauge->('backlog', 'age_seconds', 'mature', '') };
    my $now = $node->safe_psql('postgres', q{SELECT extract(epoch FROM age) FROM rebate.stat_backlog WHERE kind = 'mature'});
    cmp_ok($age, '>', 86400, 'backlog, age');
    cmp_ok($age, '<=', $now, 'in seconds');
    is($m->{ $gauge->('backlog', 'age_seconds', 'deferred', 'public.orders') }, 0, 'of what does not wait');
    is($m->{ $counter->('job', 'finished_runs', 'fold') }, 1, 'jobs');
    is($m->{ $counter->('job', 'finished_runs', 'mature') }, 0, 'also those that never ran');
    is($m->{ $gauge->('job', 'broken', 'prune') }, 1, 'one whose session ended in the middle');
    is($m->{ $gauge->('job', 'broken', 'fold') }, 0, 'and one whose did not');
    return;
}

SKIP:
{
    my $exporter = program('prometheus-postgres-exporter');
    skip 'prometheus-postgres-exporter is not installed', 50 unless $exporter;
    my $port = PostgreSQL::Test::Cluster::get_free_port();
    my $page = serve($port, qr/^rebate_job_done_total/m,
        { DATA_SOURCE_NAME => 'host=' . $node->host . ' port=' . $node->port . ' dbname=postgres user=monitor sslmode=disable' },
        $exporter, '--disable-default-metrics', '--disable-settings-metrics', '--no-collector.database', '--no-collector.bgwriter',
        '--extend.query-path=monitoring/postgres_exporter.yaml', "--web.listen-address=127.0.0.1:$port");
    like($page, qr/^# TYPE rebate_engine_entries_total counter$/m, 'the postgres_exporter serves counters');
    my $name = sub { my ($query, $column, @labels) = @_; return join ' ', "rebate_${query}_$column", @labels };
    my %m = (%{ metrics($page) }, %{ metrics($page, 'mode') }, %{ metrics($page, 'source') }, %{ metrics($page, 'kind', 'source') }, %{ metrics($page, 'job') });
    compare(\%m, sub { my ($query, $column, @labels) = @_; return $name->($query, "${column}_total", @labels) }, $name);

    # each name that an alert is about is there
    my %is = map { /^(\w+)/ => 1 } keys %m;
    my @alerts = slurp_file('monitoring/rebate.rules.yml') =~ /^\s+expr: (.*)$/mg;
    my @unknown = grep { !$is{$_} } map { /\b(rebate_\w+)/g } @alerts;
    cmp_ok(scalar @alerts, '>', 8, 'there are alerts');
    is("@unknown", '', 'all are about something that is served');
}

SKIP:
{
    my $exporter = program('prometheus-sql-exporter');
    skip 'prometheus-sql-exporter is not installed', 48 unless $exporter;
    my $port = PostgreSQL::Test::Cluster::get_free_port();
    my $config = slurp_file('monitoring/sql_exporter.yml');
    my ($host, $db_port) = ($node->host, $node->port);
    $host =~ s!/!%2F!g;
    ok($config =~ s!'postgres://[^']*'!'postgres://monitor\@/postgres?host=$host&port=$db_port&sslmode=disable'!, 'the connection is put in');
    append_to_file("$dir/sql_exporter.yml", $config);
    my $page = serve($port, qr/^sql_rebate_job\{[^\n]*col="done"/m, {}, $exporter, "-config.file=$dir/sql_exporter.yml", "-web.listen-address=127.0.0.1:$port");
    my $name = sub { my ($query, $column, @labels) = @_; return join ' ', "sql_rebate_$query", $column, @labels };
    compare({ %{ metrics($page, 'col') }, %{ metrics($page, 'col', 'mode') }, %{ metrics($page, 'col', 'source') }, %{ metrics($page, 'col', 'kind', 'source') }, %{ metrics($page, 'col', 'job') } },
        $name, $name);
}

# --- the alerts --------------------------------------------------------------------------------------------------------------

my %alert = map { $_ => 1 } slurp_file('monitoring/rebate.rules.yml') =~ /^\s+- alert: (\w+)$/mg;
my ($section) = slurp_file('docs/operations.md') =~ /^### Alerts\n(.*?)^##/ms;
my %explained = map { $_ => 1 } $section =~ /^\| `(\w+)` \|/mg;
is_deeply(\%explained, \%alert, 'each alert is explained in docs/operations.md');
SKIP:
{
    my $promtool = program('promtool');
    skip 'promtool is not installed', 1 unless $promtool;
    command_ok([ $promtool, 'check', 'rules', 'monitoring/rebate.rules.yml' ], 'the rules are valid');
}

$node->stop;
done_testing();
