# Every way of pg_dump and pg_restore, into clusters whose transaction ids and OIDs are others: the ledger is the same
# afterwards, nothing is posted twice, the next order and the refund of an old one are exact, and what clients have read
# goes on or is refused.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;

# A server whose next transaction id is at least this one, a multiple of 2^20; 0: as initdb made it.
sub server
{
    my ($name, $xid) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);

    $node->init;
    command_ok([ 'pg_resetwal', '-x', $xid, $node->data_dir ], "$name: transaction ids from $xid") if $xid;
    $node->start;
    return $node;
}

# One value, or the SQLSTATE.
sub ask
{
    my ($node, $db, $sql) = @_;
    my ($status, $out, $errors) = $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

    return $out if $status == 0;
    return $errors =~ /ERROR:\s+(\w+)/ ? $1 : $errors;
}

sub quote { my ($text) = @_; return "\$quote\$$text\$quote\$"; }

# Everything that a restore must bring back.
my %parts = (
    balances => 'SELECT * FROM rebate.balances ORDER BY member, currency',
    accruals => 'SELECT * FROM rebate.accruals ORDER BY accrual_id',
    entries  => 'SELECT * FROM rebate.entries ORDER BY account_id, seq',
    ledger   => 'SELECT account_id, seq, "check" FROM rebate_data.ledger ORDER BY 1, 2',
    orders   => 'SELECT * FROM orders ORDER BY id',
    parted   => 'SELECT tableoid::regclass, * FROM parted ORDER BY id',
    lines    => 'SELECT * FROM shop."Order Lines" ORDER BY 1, 2',
    sources  => 'SELECT * FROM rebate.sources ORDER BY source_id',
    rules    => 'SELECT * FROM rebate.rule_versions ORDER BY rule, version',
    failures => 'SELECT * FROM rebate.failures ORDER BY source, order_key',
    channels => 'SELECT * FROM rebate_data.channel ORDER BY member',
    owners   => q{SELECT n.nspname, c.relname, c.relkind, c.relowner::regrole FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('rebate', 'rebate_data') ORDER BY 1, 2},
    triggers => q{SELECT t.tgrelid::regclass, pg_get_triggerdef(t.oid), t.tgenabled FROM pg_trigger t
        WHERE NOT t.tgisinternal ORDER BY t.tgrelid::regclass::text, t.tgname},
    rights => q{SELECT p.oid::regprocedure, p.proacl FROM pg_proc p WHERE p.pronamespace = 'rebate'::regnamespace
        ORDER BY p.oid::regprocedure::text},
);

sub contents
{
    my ($node, $db) = @_;
    my $out = $node->safe_psql($db, "SET timezone = 'UTC';\n" . join '', map { "\\echo === $_\n$parts{$_};\n" } sort keys %parts);

    return { $out =~ /^=== (\w+)\n(.*?)(?=^===|\z)/msg };
}

# --- the shop that is dumped -----------------------------------------------------------------------------------------

my $old = server('old', 4 << 20);
$old->safe_psql('postgres', q{
    CREATE ROLE books LOGIN;
    CREATE ROLE shop LOGIN;
    CREATE ROLE reader LOGIN;
    CREATE DATABASE shop;
    ALTER DATABASE shop OWNER TO books});
$old->safe_psql('shop', q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    SELECT rebate.create_store('books');
    CREATE ROLE clerk;
    SELECT rebate.grant_right('auditor', 'clerk');
    GRANT CREATE ON SCHEMA public TO books;
    SET ROLE books;
    CREATE SCHEMA shop;
    CREATE TYPE shop.state AS ENUM ('new', 'paid', 'cancelled');
    CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2), refunded numeric(12,2) NOT NULL DEFAULT 0,
        state shop.state NOT NULL DEFAULT 'paid', ordered_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE shop."Order Lines" ("Order" int, line int, customer text, total numeric, PRIMARY KEY ("Order", line));
    SELECT rebate.attach('orders', 'lower(customer)', 'total', 'EUR', refunded => 'refunded', status => 'state',
        phases => '{"new": "pending", "paid": "confirmed", "cancelled": "void"}', order_time => 'ordered_at');
    SELECT rebate.attach('shop."Order Lines"', 'customer', 'total', 'JPY');
    CREATE TABLE parted (day date, id int, customer text, total numeric(12,2), PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
    SELECT rebate.attach('parted', 'customer', 'total', 'EUR');
    SELECT rebate.set_rule('two', percent => 2, source => 'parted');
    SELECT rebate.set_rule('five', percent => 5, condition => 'total > 1', source => 'orders');
    SELECT rebate.set_rule('one', percent => 1, source => 'shop."Order Lines"');
    SELECT rebate.set_rule('held', fixed => 0.30, currency => 'EUR', hold => '14 days', source => 'orders');
    GRANT USAGE ON SCHEMA shop TO shop;
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders, parted, shop."Order Lines" TO shop;
    SET ROLE shop;
    INSERT INTO parted SELECT date '2026-06-25' + i, i, 'm' || i % 3, i FROM generate_series(1, 12) i;
    INSERT INTO orders (id, customer, total, state)
        SELECT i, 'M' || i % 7, i * 3.33, CASE WHEN i % 5 = 0 THEN 'new' ELSE 'paid' END::shop.state FROM generate_series(1, 200) i;
    UPDATE orders SET refunded = round(total / 3, 2) WHERE id % 4 = 0;
    UPDATE orders SET state = 'cancelled' WHERE id % 11 = 0;
    DELETE FROM orders WHERE id % 13 = 0;
    INSERT INTO orders (id, customer, total) VALUES (1000, 'm1', 'NaN');
    INSERT INTO shop."Order Lines" SELECT i, j, 'm' || i % 3, 1000 + i FROM generate_series(1, 10) i, generate_series(1, 3) j});
$old->safe_psql('shop', q{SELECT rebate.grant_right('member', 'reader'), rebate.map_login('reader', 'm1')});
# what is seldom there
$old->safe_psql('shop', q{
    SELECT rebate.freeze('orders', '6', 'review');
    SELECT rebate.set_group('best of', 'best');
    SELECT rebate.replace_member('m5', 'm55');
    CALL rebate.fold()});
my $channel  = $old->safe_psql('shop', q{SELECT rebate.channel('m1')});
# and the rows of every table of the store, without its epochs, which are the copy's own
$parts{store} = $old->safe_psql('shop', q{
    SELECT string_agg(format('SELECT %L AS name, t::text AS row FROM rebate_data.%1$I t', c.relname), ' UNION ALL ') || ' ORDER BY 1, 2'
      FROM pg_class c WHERE c.relnamespace = 'rebate_data'::regnamespace AND c.relkind = 'r' AND c.relname <> 'epoch'});
my $contents = contents($old, 'shop');
is(scalar keys %$contents, scalar keys %parts, 'all parts are read');
cmp_ok(length $contents->{$_}, '>', 20, "there are $_") foreach sort keys %parts;
is($old->safe_psql('shop', 'SELECT * FROM rebate.audit()'), '', 'the ledger to be dumped is clean');
cmp_ok($old->safe_psql('shop', 'SELECT min(xid) FROM rebate_data.ledger'), '>', 4 << 20, 'its transaction ids are high');

my %cursor = (
    feed   => $old->safe_psql('shop', 'SELECT rebate.feed_cursor()'),
    middle => $old->safe_psql('shop', 'SELECT cursor FROM rebate.feed(NULL, 50) OFFSET 49'),
    events => $old->safe_psql('shop', q{SELECT rebate.events_cursor('m1')}));

$old->command_ok([ 'pg_dump', '-d', 'shop', '-f', "$dir/plain.sql" ], 'pg_dump');
$old->command_ok([ 'pg_dump', '-d', 'shop', '-Fd', '-j4', '-f', "$dir/parallel" ], 'pg_dump -Fd -j4');
$old->command_ok([ 'pg_dump', '-d', 'shop', '-Fc', '-f', "$dir/custom" ], 'pg_dump -Fc');
$old->command_ok([ 'pg_dump', '-d', 'shop', '-Fc', '-U', 'books', '-f', "$dir/by_owner" ], 'pg_dump as the owner of the store, no superuser');
$old->command_ok([ 'pg_dump', '-d', 'shop', '-s', '-f', "$dir/schema.sql" ], 'pg_dump --schema-only');
$old->command_ok([ 'pg_dump', '-d', 'shop', '-a', '--disable-triggers', '-f', "$dir/data.sql" ], 'pg_dump --data-only --disable-triggers');
$old->command_ok([ 'pg_dumpall', '--globals-only', '-f', "$dir/roles.sql" ], 'pg_dumpall --globals-only');
unlike(slurp_file("$dir/$_"), qr/COPY rebate\.channel_key/, "the key of channels is not in $_") foreach 'plain.sql', 'data.sql';

# What goes on in the old database while copies are made: a copy must not take its clients for its own.
$old->safe_psql('shop', q{INSERT INTO orders (id, customer, total) VALUES (2000, 'm1', 100), (2001, 'm6', 100)});
my $later = $old->safe_psql('shop', 'SELECT rebate.feed_cursor()');

# --- checks of a copy ------------------------------------------------------------------------------------------------

sub check
{
    my ($what, $node, $db, %but) = @_;
    my $copy = contents($node, $db);

    is($copy->{$_}, $contents->{$_}, "$what: $_") foreach grep { !$but{$_} } sort keys %parts;
    is($node->safe_psql($db, 'SELECT * FROM rebate.audit()'), '', "$what: the audit is clean");

    is( $node->safe_psql($db, q{SELECT rebate.current_member(), (SELECT string_agg(currency || ' ' || available, ', ' ORDER BY 1) FROM rebate.my_balance)},
            extra_params => [ '-U', 'reader' ]),
        'm1|' . $node->safe_psql($db, q{SELECT string_agg(currency || ' ' || available, ', ' ORDER BY 1) FROM rebate.balance('m1')}),
        "$what: a login has its member, and reads what is his");

    # before anything is posted here, and after
    foreach my $when ('at once', 'after an order')
    {
        foreach my $cursor ($cursor{feed}, $cursor{middle}, $later)
        {
            is(ask($node, $db, 'SELECT count(*) FROM rebate.feed(' . quote($cursor) . ')'), 'RB013', "$what: a cursor of the feed is refused $when");
        }
        if ($when eq 'at once')
        {
            is(ask($node, $db, q{SELECT count(*) FROM rebate.events('m1', } . quote($cursor{events}) . ')'), 0, "$what: a member's cursor goes on");
            my $here = $node->safe_psql($db, 'SELECT rebate.feed_cursor()');
            $node->safe_psql($db, q{INSERT INTO orders (id, customer, total) VALUES (3000, 'm1', 33.30)}, extra_params => [ '-U', 'shop' ]);
            is( $node->safe_psql($db, q{SELECT string_agg(event->'order'->>'id' || ' ' || (event->>'amount'), ', ' ORDER BY event->>'amount') FROM rebate.feed(}
                      . quote($here) . ')'),
                '3000 0.30, 3000 1.67', "$what: the feed goes on from here, and the next order is exact");
        }
    }
    is( ask($node, $db, q{SELECT string_agg(event->'order'->>'id', ' ') FROM rebate.events('m1', } . quote($cursor{events}) . ')'),
        '3000 3000', "$what: a member's cursor has the next order");
    is($node->safe_psql($db, 'SELECT count(*), count(DISTINCT (account_id, seq)) FROM rebate_data.ledger'),
        $node->safe_psql($db, q{SELECT count(*), count(DISTINCT (event->>'account', event->>'seq')) FROM rebate.feed(NULL, 1000000)}),
        "$what: the feed has each entry once");
    is($node->safe_psql($db, 'SELECT max(epoch) - min(epoch) FROM rebate_data.ledger'), 1, "$what: in a new epoch");

    # an old order is refunded, by half and then in full; another one comes back to life
    my $of = q{SELECT string_agg(rule || ' ' || earned || ' ' || COALESCE(bucket, ''), ', ' ORDER BY rule) FROM rebate.accruals WHERE source = 'public.orders' AND order_key = };
    is($node->safe_psql($db, $of . q{'102'}), 'five 16.98 available, held 0.30 maturing', "$what: an old order");
    $node->safe_psql($db, q{UPDATE orders SET refunded = total / 2 WHERE id = 102}, extra_params => [ '-U', 'shop' ]);
    is($node->safe_psql($db, $of . q{'102'}), 'five 8.49 available, held 0.15 maturing', "$what: half of it is refunded");
    $node->safe_psql($db, q{UPDATE orders SET refunded = total WHERE id = 102; UPDATE orders SET state = 'paid' WHERE id = 33});
    is($node->safe_psql($db, "SELECT sum(earned) FROM rebate.accruals WHERE source = 'public.orders' AND order_key = '102'"), '0.00', "$what: all of it is");
    is($node->safe_psql($db, $of . q{'33'}), 'five 5.49 available, held 0.30 maturing', "$what: one that was cancelled is not");
    $node->safe_psql($db, q{INSERT INTO shop."Order Lines" VALUES (500, 1, 'm1', 12345)}, extra_params => [ '-U', 'shop' ]);
    is($node->safe_psql($db, q{SELECT earned FROM rebate.accruals WHERE order_key = '["500", "1"]'}), '123', "$what: the other table, too");
    $node->safe_psql($db, q{INSERT INTO parted VALUES ('2026-03-01', 500, 'm1', 50); UPDATE parted SET total = 0 WHERE id = 10});
    is($node->safe_psql($db, q{SELECT string_agg(earned::text, ' ' ORDER BY earned) FROM rebate.accruals WHERE rule = 'two' AND order_key ~ '"(10|500)"'}),
        '0.00 1.00', "$what: and the partitioned one");

    isnt($node->safe_psql($db, q{SELECT rebate.channel('m1')}), $channel, "$what: channels have other names");
    is(ask($node, $db, 'DELETE FROM rebate_data.account'), 'RB009', "$what: the ledger is guarded");
    is($node->safe_psql($db, 'SELECT count(*) - count(DISTINCT accrual_id) FROM rebate_data.accrual'), 0, "$what: new ids are not old ones");
    is($node->safe_psql($db, 'SELECT * FROM rebate.audit()'), '', "$what: the audit is clean afterwards");
    return;
}

# --- lower transaction ids -------------------------------------------------------------------------------------------

my $low = server('low', 0);
$low->safe_psql('postgres', 'CREATE DATABASE plain; CREATE DATABASE parallel; CREATE DATABASE two_steps; CREATE DATABASE bare');
$low->command_ok([ 'psql', '-Xq', '-d', 'postgres', '-f', "$dir/roles.sql" ], 'roles');

$low->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'plain', '-f', "$dir/plain.sql" ], 'psql');
cmp_ok($low->safe_psql('postgres', 'SELECT pg_current_xact_id()'), '<', 1 << 20, 'transaction ids are low here');
check('plain', $low, 'plain');

$low->command_ok([ 'pg_restore', '--exit-on-error', '-j4', '-d', 'parallel', "$dir/parallel" ], 'pg_restore -j4');
check('parallel', $low, 'parallel');

# over what is there by now; pg_restore itself cannot drop primary keys of partitions one by one
$low->safe_psql('parallel', 'DROP TABLE parted');
$low->command_ok([ 'pg_restore', '--exit-on-error', '--clean', '--if-exists', '-d', 'parallel', "$dir/custom" ], 'pg_restore --clean');
check('clean', $low, 'parallel');

# --- schema, then data -----------------------------------------------------------------------------------------------

$low->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'two_steps', '-f', "$dir/schema.sql" ], 'the schema alone');
my ($status, $out, $errors) = $low->psql('two_steps', q{
    INSERT INTO orders (id, customer, total) VALUES (1, 'm1', 100);
    UPDATE orders SET refunded = 1;
    INSERT INTO shop."Order Lines" VALUES (1, 1, 'm1', 100);
    DELETE FROM shop."Order Lines";
    TRUNCATE orders}, extra_params => [ '-U', 'books' ], on_error_stop => 1);
is($status, 0, 'a database without data takes orders');
is(() = $errors =~ /WARNING/g, 1, 'with one WARNING');
like($errors, qr/WARNING: +orders get no rebates, since the rebate store of this database is empty.*HINT: .*adopt_store/s, 'that says what to do');
is(ask($low, 'two_steps', $_), 'RB001', "nothing else works: $_")
  foreach 'SELECT rebate.create_store()', 'SELECT * FROM rebate.audit()', q{SELECT * FROM rebate.balance('m1')},
  q{SELECT rebate.attach('orders', 'customer', 'total', 'EUR')}, q{SELECT rebate.set_rule('x', percent => 1)};
is(ask($low, 'two_steps', q{INSERT INTO rebate_data.currency VALUES ('X', 0, 1)}), 'RB009', 'and nothing is written into the store');

$low->command_fails_like([ 'pg_restore', '--exit-on-error', '-a', '--schema', 'rebate_data', '-d', 'two_steps', "$dir/custom" ],
    qr/is written by rebate only/, 'data alone is refused');
$low->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'two_steps', '-f', "$dir/data.sql" ], 'the data, with triggers disabled');
check('schema, then data', $low, 'two_steps');

# a test database: a new ledger in the tables that are there
$low->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'bare', '-f', "$dir/schema.sql" ], 'the schema alone, again');
is($low->safe_psql('bare', q{
    SET client_min_messages = warning;
    SELECT rebate.adopt_store('books');
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
    SELECT rebate.set_rule('five', percent => 5);
    INSERT INTO orders (id, customer, total) VALUES (1, 'm1', 100);
    SELECT available FROM rebate.balances;
    SELECT * FROM rebate.audit()}), "books\norders\n1\n5.00", 'it can begin a new ledger');

# --- higher transaction ids, other OIDs ------------------------------------------------------------------------------

my $high = server('high', 8 << 20);
$high->safe_psql('postgres', join ';', 'CREATE DATABASE restored', 'CREATE DATABASE unowned', map { "CREATE TABLE t$_ (a text)" } 1 .. 300);
$high->command_ok([ 'psql', '-Xq', '-d', 'postgres', '-f', "$dir/roles.sql" ], 'roles');
$high->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', "$dir/by_owner" ], 'a dump by the owner of the store');
cmp_ok($high->safe_psql('postgres', 'SELECT pg_current_xact_id()'), '>', $old->safe_psql('shop', 'SELECT max(xid) FROM rebate_data.ledger'),
    'transaction ids are higher here');
isnt($high->safe_psql('restored', q{SELECT 'orders'::regclass::oid}), $old->safe_psql('shop', q{SELECT 'orders'::regclass::oid}), 'OIDs are others');
check('higher', $high, 'restored');

# without owners and rights: adopt_store() grants again
$high->command_ok([ 'pg_restore', '--exit-on-error', '-O', '-x', '-d', 'unowned', "$dir/custom" ], 'pg_restore --no-owner --no-privileges');
$high->safe_psql('unowned', q{
    DO $$ DECLARE t record; BEGIN
        FOR t IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname = 'rebate_data' AND relkind IN ('r', 'v', 'S')
        LOOP EXECUTE format('ALTER %s %s OWNER TO books', CASE t.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, t.name); END LOOP;
    END $$;
    ALTER SCHEMA rebate_data OWNER TO books;
    SELECT rebate.adopt_store('books');
    GRANT USAGE ON SCHEMA shop TO shop;
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders, parted, shop."Order Lines" TO shop});
check('without owners', $high, 'unowned');
is($high->safe_psql($_, 'SET ROLE clerk; SELECT count(*) > 0 FROM rebate.entries; SELECT * FROM rebate.audit()'), 't', "rights came along: $_")
  foreach 'restored', 'unowned';

# --- the same cluster ------------------------------------------------------------------------------------------------

$old->safe_psql('postgres', 'CREATE DATABASE again');
$old->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'again', "$dir/custom" ], 'into another database of the same cluster');
check('same cluster', $old, 'again');
is(ask($old, 'shop', 'SELECT count(*) FROM rebate.feed(' . quote($later) . ')'), 0, 'cursors of the database itself go on');
$old->safe_psql('postgres', 'CREATE DATABASE template_copy TEMPLATE shop');
is(ask($old, 'template_copy', 'SELECT count(*) FROM rebate.feed(' . quote($later) . ')'), 'RB013', 'in a copy as template they do not');
is($old->safe_psql('template_copy', 'SELECT * FROM rebate.audit()'), '', 'and its ledger is clean');

$_->stop foreach $old, $low, $high;
done_testing();
