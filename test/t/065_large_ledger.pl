# What makes a large ledger quick to audit and to read: the audit's pass over the rows says of a healthy ledger that
# nothing is in doubt, wherever its rows lie and however little memory there is for accounts, and doubts a damaged one;
# what is read of one member is found by indexes.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('large');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'rebate'\n");
$node->start;
# some 6,000 accounts, of which 1 MB does not hold the half
$node->safe_psql('postgres', q{
    CREATE EXTENSION rebate;
    CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric, state text, at timestamptz);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR', status => 'state', order_time => 'at', confirmed_at => 'at',
        since => '2025-01-01', max_backdate => NULL);
    SELECT rebate.set_rule('five', percent => 5, hold => '14 days', valid_from => '2025-01-01');
    INSERT INTO orders SELECT i, 'm' || i % 6000, 100, CASE WHEN i % 3 = 0 THEN 'pending' ELSE 'confirmed' END,
        timestamptz '2025-01-01 00:00+00' + i * interval '1 minute' FROM generate_series(1, 12000) i;
    UPDATE orders SET state = 'confirmed' WHERE id % 6 = 0;
    UPDATE orders SET total = 50 WHERE id % 7 = 0;
    DELETE FROM orders WHERE id % 11 = 0;
});
$node->safe_psql('postgres', q{CALL rebate.fold()});
$node->safe_psql('postgres', q{CALL rebate.mature('2025-01-20')});

# What the audit finds, and what its pass over the ledger says
sub audit
{
    my ($before) = @_;
    my ($out, $err);

    $node->psql('postgres', qq{
        SET client_min_messages = debug1;
        SET maintenance_work_mem = '1MB';
        BEGIN;
        SET LOCAL session_replication_role = replica;
        $before;
        SET LOCAL session_replication_role = origin;
        SELECT string_agg(DISTINCT part || ': ' || violation, ', ') FROM rebate.audit();
        ROLLBACK;
    }, stdout => \$out, stderr => \$err, extra_params => ['-qAt']);
    my ($pass) = $err =~ /audit of the ledger: (.*) in \d+ ms(?:, in doubt)?$/m;
    return ($out, $pass, $err =~ /in doubt/ ? 1 : 0, $err);
}

my $n = $node->safe_psql('postgres', 'SELECT count(*) FROM rebate_data.ledger');
cmp_ok($n, '>', 15000, 'there are many entries');
my ($found, $pass, $doubt, $err) = audit('SELECT');
is($found, '', 'a healthy ledger: nothing is found');
is($pass, "$n entries", '... all entries were looked at');
is($doubt, 0, '... and nothing was in doubt') or diag($err);

# each row of some accounts is moved to the end of its table, so that entries come before their turn
($found, $pass, $doubt) = audit(q{
    UPDATE rebate_data.accrual SET base = base, order_key = order_key WHERE accrual_id % 3 = 0;
    UPDATE rebate_data.entry SET order_key = order_key WHERE seq % 2 = 0});
is("$found, $doubt", ', 0', 'rows in another order: nothing is found or in doubt');

# one account in each part, one field of it, and whether others would have told
for my $m (1, 2500, 5998)
{
    ($found, $pass, $doubt) = audit("UPDATE rebate_data.account SET pending = pending + 1 WHERE member = 'm$m'");
    is("$found, $doubt", 'ledger: balance does not match, 1', "balance of member $m");
    ($found, $pass, $doubt) = audit(qq{UPDATE rebate_data.account SET last_check = last_check + 1 WHERE member = 'm$m'});
    is("$found, $doubt", 'ledger: account and entries differ, 1', "check of member $m");
}
for (['an entry that came before its turn', q{
        UPDATE rebate_data.accrual SET order_key = order_key WHERE accrual_id % 3 = 0;
        UPDATE rebate_data.entry SET available = available + 1 WHERE (account_id, seq) = (SELECT account_id, max(seq) FROM rebate_data.entry GROUP BY 1 LIMIT 1)},
        'ledger: balance after the entry does not match, ledger: balance does not match'],
    ['a rebate that says another bucket', q{UPDATE rebate_data.accrual SET bucket = '3' WHERE accrual_id = (SELECT min(accrual_id) FROM rebate_data.accrual WHERE bucket = '2')},
        'ledger: accrual and entries differ, ledger: what waits for the clock is no accrual'],
    ['a rebate and its entries raised by 2^40', q{UPDATE rebate_data.accrual SET earned = earned + (1::bigint << 40) WHERE accrual_id = (SELECT min(accrual_id) FROM rebate_data.accrual WHERE bucket = '2' AND amount IS NOT NULL)},
        'ledger: accrual and entries differ, source: rebate differs from its target'],
    ['a row less that waits', q{DELETE FROM rebate_data.waiting WHERE account_id = (SELECT min(account_id) FROM rebate_data.waiting)},
        'ledger: accrual does not wait for the clock'],
    ['another that waits', q{INSERT INTO rebate_data.waiting VALUES ('2', '2030-01-01', 1, 1)}, 'ledger: what waits for the clock is no accrual'],
    (map { ["what was folded of account $_", "UPDATE rebate_data.checkpoint SET amount = amount + 1 WHERE ledger_account_id = $_", 'ledger: folded balance does not match'] } 2, 3, 5, 100),
    ['what was folded of another currency', q{INSERT INTO rebate_data.checkpoint VALUES (3, 'USD', 1)}, 'ledger: folded balance does not match'],
    ['what was folded is gone', q{DELETE FROM rebate_data.checkpoint}, 'ledger: folded balance does not match'],
    ['the mark of what was folded', q{UPDATE rebate_data.fold SET checkpoint_xid = (SELECT max(xid) FROM rebate_data.entry)}, 'ledger: folded balance does not match'],
    ['a rebate without its order', q{DELETE FROM orders WHERE id = 11500}, 'source: rebate without its order'],
    ['an order without a decision', q{INSERT INTO orders VALUES (20000, 'm1', 10, 'pending', '2025-02-01')}, 'source: order without a decision'])
{
    my ($name, $sql, $expected) = @$_;
    ($found, $pass, $doubt, $err) = audit($sql);
    is($found, $expected, $name) or diag($err);
}

# what is read of one member: with indexes only if there is a way
is($node->safe_psql('postgres', q{
    SET client_min_messages = warning;
    SET enable_seqscan = off;
    BEGIN;
    SELECT count(*) > 0 FROM rebate.entries WHERE member = 'm1';
    SELECT count(*) > 0 FROM rebate.accruals WHERE member = 'm1';
    SELECT count(*) > 0 FROM rebate.statement('m1');
    SELECT count(*) > 0 FROM rebate.balance('m1');
    SELECT count(*) > 0 FROM rebate.balance('m1', at => now());
    SELECT sum(seq_scan) FROM pg_stat_xact_all_tables WHERE schemaname = 'rebate_data' AND relname IN ('accrual', 'entry', 'account');
    COMMIT;
}), "t\nt\nt\nt\nt\n0", 'no table of the ledger is scanned for one member');

# balances at a moment are those of the last entry posted by then
is($node->safe_psql('postgres', q{
    SELECT count(*) FROM (SELECT DISTINCT ON (e.member) e.* FROM rebate.entries e WHERE member IN ('m1', 'm2', 'm3', 'm4', 'm5999')
        ORDER BY e.member, e.seq DESC) e, LATERAL (SELECT * FROM rebate.balance(e.member, 'EUR', e.posted_at)) b
    WHERE (b.tracked, b.pending, b.maturing, b.available, b.held, b.last_entry) = (e.tracked, e.pending, e.maturing, e.available, e.held, e.seq)}),
    '5', 'balance at the time of the last entry');
is($node->safe_psql('postgres', q{
    SELECT count(*), count(*) FILTER (WHERE b.last_entry = x.seq AND b.available = x.available AND b.pending = x.pending)
    FROM (SELECT e.member, e.seq, e.posted_at, e.pending, e.available, lead(e.posted_at, 1, 'infinity') OVER (PARTITION BY e.member ORDER BY e.seq) AS next
          FROM rebate.entries e WHERE member IN ('m1', 'm2', 'm77')) x, LATERAL rebate.balance(x.member, 'EUR', x.posted_at) b
    WHERE x.next > x.posted_at}) =~ /^([1-9]\d*)\|\1$/ ? 'all' : 'not all', 'all', '... and of each entry after which time passed');
is($node->safe_psql('postgres', q{SELECT available, last_entry FROM rebate.balance('m1', 'EUR', '2000-01-01')}), '0.00|0', '... and nothing before');

# orders of several rebates: their rows agree, whether they follow one another or lie apart
$node->safe_psql('postgres', q{
    SELECT rebate.set_rule('one', percent => 1, valid_from => '2025-01-01');
    SELECT rebate.set_rule('fixed', fixed => 2, currency => 'EUR', valid_from => '2025-01-01');
    INSERT INTO orders SELECT i, 'm' || i % 50, 100, 'confirmed', '2025-01-10 00:00+00' FROM generate_series(15001, 15500) i});
is($node->safe_psql('postgres', 'SELECT max(part) FROM rebate_data.accrual'), 2, 'orders of three rebates');
for (['one after the other', 'SELECT'],
    ['apart', q{UPDATE rebate_data.accrual SET base = base WHERE part = 0 AND order_key > '15000'}],
    ['in another order', q{UPDATE rebate_data.accrual SET base = base WHERE part = 1 AND order_key > '15000'}])
{
    my ($name, $move) = @$_;
    ($found, $pass, $doubt, $err) = audit($move);
    is("$found, $doubt", ', 0', "rows of orders $name: nothing is found or in doubt") or diag($err);
    for my $part (0, 1, 2)
    {
        ($found, $pass, $doubt) = audit("$move; UPDATE rebate_data.accrual SET generation = generation - 1 WHERE order_key = '15300' AND part = $part");
        # of another moment the rules may be others, so the rebate may differ, too
        like("$found, $doubt", qr/^ledger: facts of an order disagree(, source: rebate differs from its target)?, 1$/, "... those of part $part");
        ($found, $pass, $doubt) = audit("$move; UPDATE rebate_data.accrual SET first_seen = first_seen - interval '1 s' WHERE order_key = '15300' AND part = $part");
        is("$found, $doubt", 'ledger: facts of an order disagree, 1', "... when part $part was first seen");
    }
    ($found, $pass, $doubt) = audit("$move; UPDATE rebate_data.accrual SET rule_id = 1, version = 1 WHERE order_key = '15300' AND part = 2");
    like("$found, $doubt", qr/ledger: rebate twice.*, 1$/, '... a rebate that is there twice');
}

# new rebates lie behind all others, whatever room there is before: what was posted since a moment is in few pages
sub pages { return $node->safe_psql('postgres', q{SELECT pg_relation_size('rebate_data.accrual') / current_setting('block_size')::int}) }
$node->safe_psql('postgres', q{UPDATE orders SET total = total + 1});
$node->safe_psql('postgres', q{VACUUM rebate_data.accrual});
my $pages = pages();
$node->safe_psql('postgres', q{
    CREATE EXTENSION pg_freespacemap;
    INSERT INTO orders VALUES (20001, 'm1', 100, 'confirmed', '2025-01-10 00:00+00');
    INSERT INTO orders SELECT i, 'm' || i % 6000, 100, 'confirmed', '2025-01-10 00:00+00' FROM generate_series(20002, 23000) i});
is($node->safe_psql('postgres', q{SELECT count(*) > 20 FROM pg_freespace('rebate_data.accrual') WHERE avail > 2000}), 't', 'there is room');
cmp_ok($node->safe_psql('postgres', q{SELECT min((ctid::text::point)[0]) FROM rebate_data.accrual WHERE order_key::int > 20000}), '>=', $pages - 1, 'and new rebates are behind it');

$node->stop;
done_testing();
