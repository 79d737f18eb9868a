# After the restore of a dump an erased key is refused as before, and a replaced one leads to its member; the server's
# log has his key at default settings only where an order failed with it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $key = 'zoe.quark@example.org';

sub server
{
    my ($name) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);

    $node->init;
    $node->append_conf('postgresql.conf', "log_statement = none\nlog_min_error_statement = panic\nlog_min_duration_statement = -1\nlog_line_prefix = '%m [%p] '\n");
    $node->start;
    return $node;
}

my $old = server('old');
$old->safe_psql('postgres', q{CREATE ROLE asks LOGIN SUPERUSER; CREATE ROLE agrees LOGIN SUPERUSER; CREATE DATABASE shop});
$old->safe_psql('shop', qq{
    SET client_min_messages = error;
    CREATE EXTENSION rebate;
    SELECT rebate.create_store();
    SELECT rebate.grant_right('approver', 'rebate_owner');
    CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, note text);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', quantity => 'note::numeric');
    SELECT rebate.set_rule('ten', percent => 10, hold => '14 days');
    INSERT INTO orders VALUES (1, '$key', 100, NULL), (2, 'bob', 100, NULL), (3, '$key', 100, '$key');
    SELECT rebate.channel('$key');
    SELECT rebate.replace_member('bob', 'bill');
    SET SESSION AUTHORIZATION asks;
    SELECT rebate.request_erasure('$key');
    SET SESSION AUTHORIZATION agrees;
    SELECT rebate.erase_member('$key', true)});
is($old->safe_psql('shop', q{SELECT count(*) FROM rebate.audit()}), '0', 'audit before the dump');
is_deeply([ map { /(DETAIL|LOG|STATEMENT|ERROR)/ ? $1 : $_ } grep { /\Q$key\E/ } split /\n/, slurp_file($old->logfile) ], ['DETAIL'],
    "the server's log has it once: in the WARNING of the order that failed with it");

# nothing but the shop's own table has the key
my ($dump) = run_command([ 'pg_dump', '-Fp', '-d', $old->connstr('shop') ]);
my %tables = map { $_ => 1 } ($dump =~ /^COPY (\S+) [^\n]*\n(?:(?!\\\.\n).*\n)*?[^\n]*\Q$key\E/mg);
is_deeply([ sort keys %tables ], ['public.orders'], 'a dump has the key in the rows of the shop only');

my $new = server('new');
$new->safe_psql('postgres', q{CREATE ROLE rebate_owner; CREATE DATABASE shop});
for my $format (qw(plain custom))
{
    my $db = "shop_$format";
    my $file = "$dir/$format.dump";

    command_ok([ 'pg_dump', '-F', substr($format, 0, 1), '-f', $file, '-d', $old->connstr('shop') ], "$format: dump");
    $new->safe_psql('postgres', "CREATE DATABASE $db");
    command_ok($format eq 'plain' ? [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $new->connstr($db), '-f', $file ]
        : [ 'pg_restore', '-e', '-d', $new->connstr($db), $file ], "$format: restore");
    $new->safe_psql($db, qq{INSERT INTO orders VALUES (4, '$key', 100), (5, 'bob', 100), (6, 'bill', 100);
        UPDATE orders SET total = 200 WHERE id IN (1, 4)});
    is($new->safe_psql($db, q{SELECT order_key, decision, earned FROM rebate.decisions ORDER BY order_key::int}),
        "1|erased|0.00\n2|accrued|10.00\n3|erased|0\n4|erased|0\n5|accrued|10.00\n6|accrued|10.00", "$format: the refusal holds, and so does the other key");
    is($new->safe_psql($db, q{SELECT CASE WHEN member LIKE 'erased-%' THEN 'erased' ELSE member END, maturing, available FROM rebate.balances ORDER BY 1}),
        "bill|30.00|0.00\nerased|0.00|0.00", "$format: balances");
    is($new->safe_psql($db, q{SELECT violation FROM rebate.audit()}), '', "$format: audit");
    is($new->safe_psql($db, q{SELECT count(*) FROM rebate.erasures() WHERE requested_by = 'asks' AND erased_by = 'agrees'}), '1',
        "$format: who erased is known");
}

# whoever leaves the secret out of a copy is told so
command_ok([ 'pg_dump', '-Fc', '-f', "$dir/cut.dump", '--exclude-table-data=rebate_data.former_secret', '-d', $old->connstr('shop') ], 'a dump without the secret');
$new->safe_psql('postgres', 'CREATE DATABASE cut');
command_ok([ 'pg_restore', '-e', '-d', $new->connstr('cut'), "$dir/cut.dump" ], 'is restored');
like($new->safe_psql('cut', q{SELECT violation FROM rebate.audit()}), qr/^erased members can come back$/m, 'and the audit tells');
$new->safe_psql('cut', qq{INSERT INTO orders VALUES (4, '$key', 100)});
is($new->safe_psql('cut', q{SELECT decision FROM rebate.decisions WHERE order_key = '4'}), 'accrued', 'what that means');

# a worker announces what is written off, also of an account that it has not heard of
$new->safe_psql('shop_plain', q{INSERT INTO orders VALUES (7, 'wanda', 100)});
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'\n");
$new->restart;
$new->safe_psql('postgres', q{CREATE ROLE asks LOGIN SUPERUSER; CREATE ROLE agrees LOGIN SUPERUSER});
for my $member (qw(bill wanda))
{
    # the first one starts the worker, which looks around then
    $new->safe_psql('shop_plain', qq{
        SET client_min_messages = error;
        SET SESSION AUTHORIZATION asks;
        SELECT rebate.request_erasure('$member');
        SET SESSION AUTHORIZATION agrees;
        SELECT rebate.erase_member('$member', true)});
    ok($new->poll_query_until('shop_plain', q{SELECT published >= (SELECT count(*) FROM rebate.entries
        WHERE kind = 'write_off' AND posted_at > pg_postmaster_start_time()) FROM rebate.stat_delivery}), "$member: published");
}

done_testing();
