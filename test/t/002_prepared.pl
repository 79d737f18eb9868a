# Two-phase commit: rebates are posted before PREPARE TRANSACTION, survive a restart with it, and end with it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$node->start;
$node->safe_psql('postgres', q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2), refunded numeric(12,2) DEFAULT 0);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', refunded => 'refunded');
    SELECT rebate.set_rule('five', percent => 5);
    INSERT INTO orders VALUES (1, 'alice', 100), (2, 'bob', 100), (3, 'carol', 100), (4, 'dave', 100);
});

sub balances
{
    return $node->safe_psql('postgres',
        q{SELECT string_agg(member || ' ' || available || ' ' || last_entry, ', ' ORDER BY member) FROM rebate.balances});
}

sub audit { return $node->safe_psql('postgres', 'SELECT * FROM rebate.audit()'); }

my $start = 'alice 5.00 1, bob 5.00 1, carol 5.00 1, dave 5.00 1';

# One that commits and one that does not, of each: new order, refund, both moments of posting; and a new member.
my %prepared = (
    alice => q{INSERT INTO orders VALUES (11, 'alice', 200)},
    bob   => q{INSERT INTO orders VALUES (12, 'bob', 200)},
    carol => q{SET LOCAL rebate.posting = statement; UPDATE orders SET refunded = 40 WHERE id = 3},
    dave  => q{SET LOCAL rebate.posting = statement; DELETE FROM orders WHERE id = 4},
    erin  => q{INSERT INTO orders VALUES (15, 'erin', 10); SAVEPOINT s; UPDATE orders SET total = 1000 WHERE id = 15; ROLLBACK TO s},
    frank => q{INSERT INTO orders VALUES (16, 'frank', 10)});

$node->safe_psql('postgres', "BEGIN; $prepared{$_}; PREPARE TRANSACTION '$_'") foreach sort keys %prepared;
is(balances(), $start, 'what is prepared is not seen');
is(audit(),    '',     'nor by the audit');

foreach my $how ('fast', 'immediate')
{
    $node->stop($how);
    $node->start;
    is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 6, "$how restart: prepared transactions are there");
    is(balances(), $start, "$how restart: their rebates are not");
    is(audit(),    '',     "$how restart: the audit is clean");
}

# They hold the accounts of their members, and no other.
my ($result, undef, $errors) = $node->psql('postgres', q{SET lock_timeout = '200ms'; INSERT INTO orders VALUES (21, 'alice', 300)},
    extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
like($errors, qr/55P03/, 'an order of the same member waits');
is($node->safe_psql('postgres', 'SELECT count(*) FROM orders WHERE id = 21'), 0, 'and goes if it may not wait');
$node->safe_psql('postgres', q{INSERT INTO orders VALUES (22, 'gina', 20)});
is(balances(), "$start, gina 1.00 1", 'an order of another does not');

$node->safe_psql('postgres', "COMMIT PREPARED 'alice'");
$node->safe_psql('postgres', "ROLLBACK PREPARED 'bob'");
$node->safe_psql('postgres', "COMMIT PREPARED 'carol'");
$node->safe_psql('postgres', "ROLLBACK PREPARED 'dave'");
$node->safe_psql('postgres', "COMMIT PREPARED 'erin'");
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', "ROLLBACK PREPARED 'frank'");
is( balances(),
    'alice 15.00 2, bob 5.00 1, carol 3.00 2, dave 5.00 1, erin 0.50 1, gina 1.00 1',
    'committed ones have their rebates, rolled back ones none');
is(audit(), '', 'the audit is clean');

# Entries go on without a gap.
$node->safe_psql('postgres',
    q{INSERT INTO orders SELECT 30 + n, (ARRAY['alice', 'bob', 'carol', 'dave', 'erin', 'frank'])[n], 100 FROM generate_series(1, 6) n});
is( balances(),
    'alice 20.00 3, bob 10.00 2, carol 8.00 3, dave 10.00 2, erin 5.50 2, frank 5.00 1, gina 1.00 1',
    'later orders go on from there');
is(audit(), '', 'the audit is clean at the end');

$node->stop;
done_testing();
