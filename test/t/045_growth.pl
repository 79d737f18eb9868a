# Accounts are updated in place: each order and movement updates its member's account, and the table stays as small as it was,
# without a vacuum. REBATE_UPDATES=1000000: that many updates of accounts; by default a share of it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my $updates = $ENV{REBATE_UPDATES} || 50_000;
my $members = 1000;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nmax_wal_size = 4GB");
$node->start;

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sql(q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL, status text NOT NULL DEFAULT 'done');
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', status => 'status', phases => '{"new": "pending", "done": "confirmed"}');
    SELECT rebate.set_rule('five', percent => 5)});

# Transactions of one order each: of four, three are new and one changes an older one.
sub orders
{
    my ($n) = @_;
    sql(qq{DO \$\$
        DECLARE
            order_id bigint;
        BEGIN
            FOR i IN 1 .. $n LOOP
                IF i % 4 < 3 THEN
                    INSERT INTO orders (customer, total) VALUES ('member ' || (i * 7) % $members, 10) RETURNING id INTO order_id;
                ELSE
                    UPDATE orders SET total = total + 1 WHERE id = order_id;
                END IF;
                COMMIT;
            END LOOP;
        END \$\$});
    return;
}

# Updates of accounts so far, and those that were no HOT ones; sessions report what they did when they end
my $counted = 0;

sub updates
{
    my ($n) = @_;
    $counted += $n;
    $node->poll_query_until('postgres', "SELECT n_tup_upd >= $counted FROM pg_stat_user_tables WHERE relid = 'rebate_data.account'::regclass") or die 'statistics do not come';
    return split /\|/, sql(q{SELECT n_tup_upd, n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'rebate_data.account'::regclass});
}

sub pages { my ($relation) = @_; return sql("SELECT pg_relation_size('rebate_data.$relation') / current_setting('block_size')::int"); }

# one order of each member, by which the accounts come to be
sql(qq{INSERT INTO orders (customer, total) SELECT 'member ' || i, 10 FROM generate_series(0, $members - 1) i});
orders(4 * $members);
my ($before, $not_hot_before) = updates(4 * $members);
my %pages = map { $_ => pages($_) } qw(account account_pkey account_member_key);

orders($updates);
my ($after, $not_hot) = updates($updates);
cmp_ok($after - $before, '>=', $updates, ($after - $before) . ' updates of accounts');
is($not_hot - $not_hot_before, 0, 'all stayed in their page, and made no index entries');
is(pages($_), $pages{$_}, "$_ has $pages{$_} pages, as before") foreach sort keys %pages;
is(sql('SELECT * FROM rebate.audit()'), '', 'the audit is clean');

# --- a snapshot that stays ----------------------------------------------------------------------------------------------

# What it may still see cannot be pruned: the table grows as any does, and no further once the snapshot is gone.
my %old = (in => "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM rebate.balances;\n\\echo there\n", out => '', errors => '');
$old{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ], '<', \$old{in}, '>', \$old{out}, '2>', \$old{errors});
$old{run}->pump until $old{out} =~ /there/;
my $share = 10 * $members;
orders($share);
my (undef, $with_snapshot) = updates($share);
my $grown = pages('account');
cmp_ok($grown, '>', $pages{account}, "under a snapshot that stays the table grows to $grown pages");
note(sprintf 'not in their page: %d of %d updates', $with_snapshot - $not_hot, $share);
$old{in} .= "COMMIT;\n\\q\n";
$old{run}->finish;
orders($share);
my (undef, $gone) = updates($share);
cmp_ok($gone - $with_snapshot, '<=', 2 * $members, sprintf 'once it is gone at most the first updates leave their page: %d of %d', $gone - $with_snapshot, $share);
my $settled = pages('account');
orders($share);
my (undef, $last) = updates($share);
is($last - $gone, 0, 'then none');
is(pages('account'), $settled, "and the table stays at $settled pages");

$node->stop;
done_testing();
