# Versions of library, SQL and store that differ: this checkout, and a next version made of it. The package is replaced
# under a running shop, sessions with the old library and with the new one post to one store, an older store goes on
# taking orders, what needs a newer one refuses with a hint.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Shape;
use Test::More;
use File::Copy qw(copy);
use IPC::Run ();

my $dir = PostgreSQL::Test::Utils::tempdir;
my $old = (slurp_file('Makefile') =~ /^EXTVERSION\s*=\s*(\S+)/m)[0];
my $next = '99.0';
my $version = (slurp_file('extension/store.h') =~ /^#define STORE_VERSION\s+(\d+)/m)[0];
my $after = $version + 1;

# --- the pair --------------------------------------------------------------------------------------------------------

# Files of the server of our own: other tests run on the common ones.
my $tree = "$dir/tree";
system('cp', '-a', $ENV{REBATE_TREE}, $tree) == 0 or die "cannot copy $ENV{REBATE_TREE}";
chomp(my $bindir = `pg_config --bindir`);
$bindir =~ s/^\Q$ENV{REBATE_TREE}\E//;
$ENV{PATH} = "$tree$bindir:$ENV{PATH}";
chomp(my $libdir = `pg_config --pkglibdir`);
chomp(my $sharedir = `pg_config --sharedir`);
like($libdir, qr/^\Q$tree\E/, 'the server has files of its own');

# The step to the next version of the store, and a function that needs it.
my $feature = q{
CREATE FUNCTION rebate.next() RETURNS bigint
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_next';
COMMENT ON FUNCTION rebate.next() IS 'needs the next version of the store';
REVOKE ALL ON FUNCTION rebate.next() FROM PUBLIC;
};

sub build_next
{
    my $src = "$dir/src";
    system('cp', '-a', '.', $src) == 0 or die "cannot copy the source";

    my $change = sub {
        my ($file, $from, $to) = @_;
        my $text = slurp_file("$src/$file");
        $text =~ s/$from/$to/ or die "$file is not as expected";
        unlink "$src/$file";
        append_to_file("$src/$file", $text);
    };
    # This version's install script is frozen with that, and the upgrade script made against it.
    $change->('Makefile', qr/^EXTVERSION\s*=.*/m, "EXTVERSION = $next");
    $change->('Makefile', qr/^PREVIOUS\s*=.*/m, "PREVIOUS = $old");
    $change->('rebate.control', qr/^default_version = .*/m, "default_version = '$next'");
    $change->('extension/store.h', qr/^#define STORE_VERSION.*/m, "#define STORE_VERSION $after");
    $change->('extension/sql/24-versions.sql', qr/ END (?=\$function\$)/, qq{
WHEN $after THEN \$ddl\$
CREATE TABLE rebate_data.next (one integer PRIMARY KEY);
ALTER TABLE rebate_data.campaign ADD COLUMN budget bigint;
\$ddl\$ END });
    append_to_file("$src/extension/sql/80-next.sql", $feature);
    # A function with another signature: it is dropped, and made again by its piece.
    $change->('extension/sql/60-events.sql', qr/CREATE FUNCTION rebate\.events_cursor\(member text\)/, 'CREATE FUNCTION rebate.events_cursor(member text, unused integer DEFAULT 0)');
    $change->('extension/sql/60-events.sql', qr/FUNCTION rebate\.events_cursor\(text\)/, 'FUNCTION rebate.events_cursor(text, integer)') for 1, 2;
    append_to_file("$src/extension/sql/upgrade/$old--$next.sql", "DROP FUNCTION rebate.events_cursor(text);\n");
    append_to_file("$src/extension/next.c", q{
#include "rebate.h"
#include "api.h"
#include "store.h"

PG_FUNCTION_INFO_V1(rebate_next);

Datum
rebate_next(PG_FUNCTION_ARGS)
{
	Store	   *store = store_get(false);
	StoreSpi	scope;
	int64		n;

	store_require(store, STORE_VERSION, "rebate.next()");
	store_spi_begin(store, &scope);
	n = sql_run("INSERT INTO rebate_data.next VALUES (1)", NULL, SPI_OK_INSERT);
	store_spi_end(&scope);
	PG_RETURN_INT64(n);
}
});
    system("find $src -name '*.o' -o -name '*.so' | xargs rm -f") == 0 or die 'cannot clean';
    system("make -s -C $src -j2 COPT=-O0 PG_CONFIG=$tree$bindir/pg_config all >$dir/build 2>&1") == 0 or die slurp_file("$dir/build");
    return $src;
}

my $src = build_next();
ok(-f "$src/rebate.so", 'the next version is built');


# As a package does: a new file in the place of the old one, not a changed one.
sub install_next
{
    system("make -s -C $src COPT=-O0 PG_CONFIG=$tree$bindir/pg_config install >$dir/install 2>&1") == 0 or die slurp_file("$dir/install");
    return;
}

# --- a shop, with the old version ------------------------------------------------------------------------------------

sub server
{
    my ($name, $settings) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);

    $node->init;
    $node->append_conf('postgresql.conf', $settings);
    $node->start;
    $node->safe_psql('postgres', q{
        SET client_min_messages = warning;
        CREATE EXTENSION rebate;
        CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2), refunded numeric(12,2) NOT NULL DEFAULT 0);
        SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded');
        SELECT rebate.set_rule('five', percent => 5)});
    return $node;
}

# A session that stays, with the library it has.
sub session
{
    my ($node) = @_;
    my $s = { in => '', out => '', errors => '' };

    $s->{run} = IPC::Run::start([ 'psql', '-XqAt', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres') ], '<', \$s->{in}, '>', \$s->{out}, '2>', \$s->{errors});
    return $s;
}

sub begin
{
    my ($s, $sql) = @_;
    $s->{out} = $s->{errors} = '';
    $s->{in} .= "$sql;\n\\echo done\n";
    $s->{run}->pump_nb;
    return;
}

sub end
{
    my ($s) = @_;
    $s->{run}->pump until $s->{out} =~ /done\n/;
    return $1 if $s->{errors} =~ /ERROR:\s+(\w+)/;
    return $s->{out} =~ s/\n?done\n$//r;
}

sub ask { my ($s, $sql) = @_; begin($s, $sql); return end($s); }

my $node      = server('main', '');
my $preloaded = server('preloaded', "shared_preload_libraries = 'rebate'");
my $version_of = 'SELECT version FROM rebate.versions() WHERE part = ';
my $advice_on = q{SELECT string_agg(part || ': ' || advice, ', ') FROM rebate.versions()};

my $with_old = session($node);
is(ask($with_old, "$version_of 'library'"), $old, 'a session has the old library');
is(ask($with_old, $advice_on), '', 'library, extension and store agree');
my $with_preloaded = session($preloaded);
is(ask($with_preloaded, 'INSERT INTO orders VALUES (0, \'m0\', 100); SELECT mode FROM rebate.delivery_status'), 'worker', 'one is preloaded');

my $order = 0;

# Both sessions write orders of the same members at the same time; all is exact.
sub both
{
    my ($what, $new) = @_;
    my $n = 150;

    foreach my $s ($with_old, $new)
    {
        my $first = $order + 1;
        $order += $n;
        begin($s, join '', map {
                my $id = $first + $_;
                "INSERT INTO orders VALUES ($id, 'm' || $id % 3, $id * 1.37);\n" . ($_ % 5 ? '' : "UPDATE orders SET refunded = round(total / 3, 2) WHERE id = $id;\n")
        } 0 .. $n - 1);
    }
    is(end($_), '', "$what: orders are taken") foreach $with_old, $new;
    foreach my $s ($with_old, $new)
    {
        is( ask($s, q{SELECT count(*) FROM orders o FULL JOIN rebate.accruals a ON a.order_key = o.id::text
                WHERE a.earned IS DISTINCT FROM round(o.total * 0.05 * (o.total - o.refunded) / o.total, 2)}),
            0, "$what: each has its rebate");
        is(ask($s, 'SELECT * FROM rebate.audit()'), '', "$what: the audit is clean");
    }
    is($node->safe_psql('postgres', 'SELECT max(last_entry) > 0, sum(last_entry) = (SELECT count(*) FROM rebate.entries) FROM rebate.balances'), 't|t',
        "$what: no entry is missing or doubled");
    return;
}

# --- the package is replaced -----------------------------------------------------------------------------------------

install_next();
my $new = session($node);
is(ask($new, "$version_of 'library'"), $next, 'a new session has the new library');
is(ask($with_old, "$version_of 'library'"), $old, 'the old one has the old one');
is(ask($new, "$version_of 'store'"), $version, 'the store is the old one');
is(ask($new, $advice_on), "extension: ALTER EXTENSION rebate UPDATE, store: SELECT rebate.upgrade_store()", 'what to do is said');
both('new library, old SQL, old store', $new);
is(ask($new, 'SELECT rebate.next()'), '42883', 'a new function is not there');
is(ask($new, 'SELECT rebate.upgrade_store()'), 'RB015', 'the SQL does not know the step to the next store');

$node->safe_psql('postgres', 'CREATE DATABASE older');
is( $node->safe_psql('older', qq{
        SET client_min_messages = warning;
        CREATE EXTENSION rebate VERSION '$old';
        SELECT rebate.create_store();
        $version_of 'store'}),
    "rebate_owner\n$version", 'a store made with the old SQL is an old one');

# --- then the SQL ----------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', q{
    CREATE ROLE reader;
    CREATE ROLE intruder;
    GRANT EXECUTE ON FUNCTION rebate.events_cursor(text) TO reader;
    ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON ROUTINES TO intruder});
is(ask($new, 'ALTER EXTENSION rebate UPDATE'), '', 'ALTER EXTENSION UPDATE');
is( ask($new, q{SELECT f, string_agg(r, ' ' ORDER BY r) FROM unnest(ARRAY['rebate.events_cursor(text, integer)', 'rebate.next()']) f, unnest(ARRAY['reader', 'rebate_owner', 'intruder']) r
        WHERE has_function_privilege(r, f, 'EXECUTE') GROUP BY f ORDER BY f}),
    "rebate.events_cursor(text, integer)|reader rebate_owner\nrebate.next()|rebate_owner", 'who could use a function can use it with its new signature, a new one the owner alone');
$node->safe_psql('postgres', q{ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON ROUTINES FROM intruder; REVOKE ALL ON FUNCTION rebate.events_cursor(text, integer) FROM reader});
is(ask($with_old, $advice_on), 'library: connect again', 'the old session is told to connect again');
both('new library, new SQL, old store', $new);
is(ask($new, 'SELECT rebate.next()'), 'RB015', 'a new function refuses');
like(($node->psql('postgres', 'SELECT rebate.next()'))[2], qr/HINT: +Call rebate\.upgrade_store\(\)/, 'and says what to call');
is(ask($with_old, 'SET client_min_messages = warning; SELECT rebate.upgrade_store()'), $version, 'the old library has nothing to do');

# --- then the store --------------------------------------------------------------------------------------------------

# a step that fails leaves it as it was, and the next call does all of it
ask($new, 'CREATE TABLE rebate_data.next (another text)');
is(ask($new, 'SELECT rebate.upgrade_store()'), '42P07', 'a step that fails');
is(ask($new, "$version_of 'store'"), $version, 'changes nothing');
ask($new, 'DROP TABLE rebate_data.next');
both('after a step that failed', $new);
is(ask($new, 'SELECT rebate.upgrade_store()'), $after, 'rebate.upgrade_store()');
is(ask($new, 'SET client_min_messages = warning; SELECT rebate.upgrade_store()'), $after, 'again it does nothing');
is(ask($new, $advice_on), '', 'all agree');
both('old library, new SQL, new store', $new);
is(ask($new, 'SELECT rebate.next()'), 1, 'the new function works');
is(ask($new, 'DELETE FROM rebate_data.next'), 'RB009', 'the new table is guarded');

# A store that the old library cannot write: it refuses, and the new one goes on.
$node->safe_psql('postgres', qq{
    BEGIN;
    SET session_replication_role = replica;
    UPDATE rebate_data.store SET compatible_with = $after;
    RESET session_replication_role;
    SELECT rebate.set_rule('nothing', fixed => 0, currency => 'EUR');
    COMMIT});
is(ask($with_old, q{INSERT INTO orders VALUES (100001, 'm0', 100)}), 'RB015', 'a store that the old library does not understand');
is(ask($new, q{INSERT INTO orders VALUES (100001, 'm0', 100); SELECT earned FROM rebate.accruals WHERE order_key = '100001' AND rule = 'five'}), '5.00', 'is written by the new one');

# --- fresh and updated are the same ----------------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE fresh TEMPLATE template0');
$node->safe_psql('fresh', 'SET client_min_messages = warning; CREATE EXTENSION rebate; SELECT rebate.create_store()');
my ($updated, $fresh) = (shapes($node, 'postgres'), shapes($node, 'fresh'));
is(difference($updated->{$_}, $fresh->{$_}), '', "updated and fresh are the same: $_") foreach sort keys %$fresh;

# the new version takes over what it finds
is( $node->safe_psql('older', qq{
        SET client_min_messages = warning;
        DROP EXTENSION rebate CASCADE;
        CREATE EXTENSION rebate;
        SELECT rebate.adopt_store();
        SELECT rebate.upgrade_store();
        SELECT * FROM rebate.audit()}),
    "rebate_owner\n$after", 'an old store is adopted, then upgraded');

# --- preloaded -------------------------------------------------------------------------------------------------------

is(ask($with_preloaded, q{INSERT INTO orders VALUES (1, 'm0', 100); SELECT available FROM rebate.balances}), '10.00', 'a preloaded library goes on');
my $later = session($preloaded);
is(ask($later, "$version_of 'library'"), $old, 'new sessions have it, too');
is(ask($later, 'ALTER EXTENSION rebate UPDATE'), '42883', 'ALTER EXTENSION UPDATE is refused until the server is restarted');
is(ask($later, $advice_on), '', 'and has done nothing');
copy("$libdir/rebate.so", "$libdir/rebate_copy.so") or die $!;
is(ask($later, q{LOAD 'rebate_copy'}), 'RB015', 'a second library in one session is refused');
is(ask($later, q{INSERT INTO orders VALUES (2, 'm0', 100); SELECT available FROM rebate.balances}), '15.00', 'and the session goes on');
$_->{run}->finish foreach map { $_->{in} .= "\\q\n"; $_ } $with_preloaded, $later;
$preloaded->restart;
$later = session($preloaded);
is(ask($later, "$version_of 'library'"), $next, 'after a restart there is the new library');
is(ask($later, q{INSERT INTO orders VALUES (3, 'm0', 100); SELECT available FROM rebate.balances}), '20.00', 'which takes orders');
is(ask($later, 'ALTER EXTENSION rebate UPDATE; SELECT rebate.upgrade_store(); SELECT rebate.next()'), "$after\n1", 'and can be upgraded');
is(ask($later, q{INSERT INTO orders VALUES (4, 'm0', 100); SELECT available FROM rebate.balances; SELECT mode FROM rebate.delivery_status}), "25.00\nworker", 'and goes on');
is(ask($later, 'SELECT * FROM rebate.audit()'), '', 'its audit is clean');
$_->{run}->finish foreach map { $_->{in} .= "\\q\n"; $_ } $with_old, $new, $later;

$_->stop foreach $node, $preloaded;
done_testing();
