# Logical replication of the order table only: the subscriber, attached with row_triggers, has every rebate exactly once,
# through initial copy, changes, moves, bad rows, a crash and a restart; its ledger is that of a table with statement
# triggers that was written directly.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical');
$publisher->start;
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init(allows_streaming => 'logical');
$subscriber->append_conf('postgresql.conf', "wal_retrieve_retry_interval = 100ms\nautovacuum = off");
$subscriber->start;

# orders: one table on both sides; parts: plain here, partitioned there; whole: partitioned and published as its root
my $columns = 'id int, region text, customer text, total numeric, refunded numeric DEFAULT 0, status text DEFAULT \'sent\'';
$publisher->safe_psql('postgres', qq{
    CREATE TABLE orders ($columns, PRIMARY KEY (id));
    CREATE TABLE parts ($columns, PRIMARY KEY (id, region));
    CREATE TABLE whole ($columns, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE whole_a PARTITION OF whole FOR VALUES IN ('a');
    CREATE TABLE whole_b PARTITION OF whole FOR VALUES IN ('b');
    CREATE PUBLICATION shop FOR TABLE orders, parts;
    CREATE PUBLICATION root FOR TABLE whole WITH (publish_via_partition_root = true);
    INSERT INTO orders SELECT i, 'a', 'early', 10 FROM generate_series(1, 3) i;
});
$subscriber->safe_psql('postgres', qq{
    SET client_min_messages = warning;
    CREATE TABLE orders ($columns, PRIMARY KEY (id));
    CREATE TABLE parts (status text DEFAULT 'sent', refunded numeric DEFAULT 0, total numeric, customer text, region text, id int,
        PRIMARY KEY (region, id)) PARTITION BY LIST (region);
    CREATE TABLE parts_a (x int, $columns);
    ALTER TABLE parts_a DROP COLUMN x, ALTER id SET NOT NULL, ALTER region SET NOT NULL;
    ALTER TABLE parts ATTACH PARTITION parts_a FOR VALUES IN ('a');
    CREATE TABLE parts_b PARTITION OF parts DEFAULT;
    CREATE TABLE whole ($columns, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE whole_all PARTITION OF whole DEFAULT PARTITION BY HASH (id);
    CREATE TABLE whole_all_0 PARTITION OF whole_all FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    CREATE TABLE direct ($columns, PRIMARY KEY (id));
    CREATE EXTENSION rebate;
    SELECT rebate.attach(t, 'customer', 'total', 'EUR', refunded => 'refunded', status => 'status', on_truncate => 'void',
        phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "void": "void"}', row_triggers => t <> 'direct'::regclass)
    FROM unnest(ARRAY['orders', 'parts', 'whole', 'direct']::regclass[]) t;
    SELECT rebate.set_rule('ten', percent => 10);
    SELECT rebate.set_rule('large', percent => 5, minimum => 100, currency => 'EUR', hold => '14 days');
});
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION shop CONNECTION '" . $publisher->connstr . " dbname=postgres' PUBLICATION shop, root");

# The initial copy, too: with a status that no phase is for, to be healed.
sub caught_up
{
    $subscriber->wait_for_subscription_sync;
    $publisher->wait_for_catchup('shop');
}

# What each order of a table has earned, by its id
sub ledger
{
    my ($table) = @_;
    return $subscriber->safe_psql('postgres', qq{
        SELECT string_agg(concat_ws(' ', id, rule, member, bucket, earned), ', ' ORDER BY id, rule)
        FROM (SELECT CASE WHEN order_key LIKE '[%' THEN
                  (SELECT e FROM jsonb_array_elements_text(order_key::jsonb) e WHERE e ~ '^[0-9]+\$') ELSE order_key END::int AS id,
                  rule, member, bucket, earned
              FROM rebate.accruals WHERE source = 'public.$table' AND earned <> 0) l});
}

sub audit { return $subscriber->safe_psql('postgres', 'SELECT * FROM rebate.audit()'); }

caught_up();
is(ledger('orders'), '1 ten early available 1.00, 2 ten early available 1.00, 3 ten early available 1.00', 'rows of the initial copy');

# One stream of transactions, for the replicated tables on the publisher and one with statement triggers
srand(my $seed = $ENV{REBATE_SEED} // 20261125);
note "seed $seed";
my @stream;
for my $i (10 .. 59)
{
    push @stream, sprintf(q{INSERT INTO %%s (id, region, customer, total, status) VALUES (%d, '%s', 'c%d', %d, '%s')},
        $i, (qw(a b))[ rand 2 ], rand 4, 1 + rand 200, (qw(new paid sent))[ rand 3 ]);
}
for (1 .. 60)
{
    my $id = 10 + int(rand 50);

    push @stream, (
        "UPDATE %s SET refunded = total / 2 WHERE id = $id",
        "UPDATE %s SET status = 'sent', refunded = 0 WHERE id IN ($id, $id + 1)",
        "UPDATE %s SET customer = 'c9', total = total + 1 WHERE id = $id",
        "DELETE FROM %s WHERE id = $id",
        "INSERT INTO %s (id, region, customer, total) SELECT $id, 'a', 'c1', 120 WHERE NOT EXISTS (SELECT FROM %s WHERE id = $id)",
        "BEGIN; UPDATE %s SET total = 500 WHERE id = $id; SAVEPOINT s; DELETE FROM %s WHERE id = $id; ROLLBACK TO s;"
            . " UPDATE %s SET total = 44 WHERE id = $id; COMMIT",
        "BEGIN; DELETE FROM %s; ROLLBACK")[ rand 7 ];
}
push @stream, q{INSERT INTO %s (id, region, customer, total, status) VALUES (100, 'a', 'bad', 50, 'what'), (101, 'b', 'bad', NULL, 'sent')};
push @stream, q{UPDATE %s SET total = 70 WHERE id = 101};

sub run_stream
{
    my ($node, $table) = @_;
    return $node->safe_psql('postgres', 'SET client_min_messages = error;'
        . join '', map { my $statement = $_; $statement =~ s/%s/$table/g; "$statement;\n" } @stream);
}

run_stream($publisher, $_) foreach ('orders', 'parts', 'whole');
run_stream($subscriber, 'direct');
caught_up();
my $direct = ledger('direct');
isnt($direct, '', 'statement triggers');
is(ledger('orders') =~ s/^(\d ten early available 1.00, )+//r, $direct, 'the same ledger for a plain table');
is(ledger('parts'), $direct, 'for a partitioned one with its columns in another order');
is(ledger('whole'), $direct, 'for one that is published by its root');
is(audit(), '', 'the audit finds nothing');
is($subscriber->safe_psql('postgres', "SELECT string_agg(source || ' ' || order_key, ', ' ORDER BY source) FROM rebate.failures"),
    'public.direct 100, public.orders 100, public.parts ["a", "100"], public.whole ["100", "a"]', 'bad rows are set aside');

# A transaction that is replicated while the server of the subscriber dies is there once.
$publisher->safe_psql('postgres', q{INSERT INTO orders SELECT i, 'a', 'crash', 10 FROM generate_series(1000, 1999) i});
$subscriber->stop('immediate');
$publisher->safe_psql('postgres', q{UPDATE orders SET refunded = 5 WHERE customer = 'crash'});
$subscriber->start;
caught_up();
is($subscriber->safe_psql('postgres', q{SELECT available, last_entry >= 1000 FROM rebate.balances WHERE member = 'crash'}), '500.00|t',
    'rebates of a thousand orders, each once, after a crash');
is(audit(), '', 'the audit finds nothing after the crash');

# A move to another partition that is replicated; the rebate is with the new key.
$publisher->safe_psql('postgres', q{INSERT INTO parts VALUES (2000, 'a', 'mover', 100); UPDATE parts SET region = 'b' WHERE id = 2000});
$publisher->safe_psql('postgres', q{INSERT INTO whole VALUES (2000, 'a', 'mover', 100); UPDATE whole SET region = 'b' WHERE id = 2000});
caught_up();
is($subscriber->safe_psql('postgres', q{SELECT source, order_key, rule, earned FROM rebate.accruals WHERE member = 'mover' AND earned <> 0 ORDER BY source, rule}),
    join("\n", 'public.parts|["b", "2000"]|large|5.00', 'public.parts|["b", "2000"]|ten|10.00',
        'public.whole|["2000", "b"]|large|5.00', 'public.whole|["2000", "b"]|ten|10.00'),
    'orders that moved');

# A partition that comes later, and a local statement beside the replicated ones.
$subscriber->safe_psql('postgres', q{
    CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c');
    INSERT INTO parts (id, region, customer, total) VALUES (3000, 'c', 'later', 10);
});
$publisher->safe_psql('postgres', q{INSERT INTO parts VALUES (3001, 'c', 'later', 20)});
caught_up();
is($subscriber->safe_psql('postgres', q{SELECT available, last_entry FROM rebate.balances WHERE member = 'later'}), '3.00|2', 'a partition that was made later');

# TRUNCATE is replicated: with on_truncate => 'void' the rebates go.
$publisher->safe_psql('postgres', 'TRUNCATE orders, parts, whole');
caught_up();
is($subscriber->safe_psql('postgres', q{SELECT count(*), sum(earned) FROM rebate.accruals WHERE source IN ('public.orders', 'public.whole') AND earned <> 0}),
    '0|', 'a replicated TRUNCATE takes the rebates back');
is(audit(), '', 'the audit finds nothing in the end');
unlike(slurp_file($subscriber->logfile), qr/PANIC|terminated by signal (?!9)/, 'no crash of the subscriber');

$subscriber->stop;
$publisher->stop;
done_testing();
