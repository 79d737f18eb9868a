# Portals that stay open, by the wire protocol, and what else runs statements at odd moments: cursors, procedures that
# commit in a loop, rules, cascades, constraints that write at the commit.  Each leaves the ledger that belongs to the
# rows, with both moments of posting, and beside other libraries that hook the executor, loaded before and after.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use Wire;

my @others = qw(auto_explain pg_stat_statements passwordcheck auth_delay);
my $node = PostgreSQL::Test::Cluster->new('portals');
$node->init;
$node->append_conf('postgresql.conf', qq{
max_prepared_transactions = 5
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_triggers = on
auto_explain.log_nested_statements = on
pg_stat_statements.track = all
pg_stat_statements.track_planning = on
});
chomp(my $pkglibdir = `pg_config --pkglibdir`);
if (-e "$pkglibdir/pg_cron.so")
{
    push @others, 'pg_cron';
    $node->append_conf('postgresql.conf', "cron.database_name = 'postgres'\n");
}
set_libraries(@others, 'rebate');
$node->start;
$node->safe_psql('postgres', q{
    SET client_min_messages = warning;
    CREATE EXTENSION rebate;
    CREATE EXTENSION pg_stat_statements;
    CREATE TABLE customer (name text PRIMARY KEY);
    CREATE TABLE orders (id int PRIMARY KEY, customer text REFERENCES customer ON UPDATE CASCADE ON DELETE CASCADE, total numeric,
        follows int REFERENCES orders ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE gift (id int PRIMARY KEY, customer text REFERENCES customer ON UPDATE CASCADE ON DELETE SET NULL, total numeric,
        follows int);
    CREATE TABLE wish (id int PRIMARY KEY, customer text, total numeric);
    SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
    SELECT rebate.attach('gift', 'customer', 'total', 'EUR');
    SELECT rebate.set_rule('ten', percent => 10);

    -- functions that write an order for each call
    CREATE FUNCTION make(i int, what text DEFAULT 'ann') RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        IF i = 13 THEN
            RAISE EXCEPTION 'thirteen';
        END IF;
        INSERT INTO orders VALUES (i, what, i * 10);
        UPDATE orders SET total = total + 1 WHERE id = i;
        RETURN i;
    END $$;
    CREATE FUNCTION make_sql(i int) RETURNS int LANGUAGE sql AS $$
        INSERT INTO orders VALUES (i, 'ben', i * 10);
        UPDATE orders SET total = total + 1 WHERE id = i RETURNING id;
    $$;
    CREATE FUNCTION make_many(n int) RETURNS SETOF int LANGUAGE plpgsql AS $$
    DECLARE
        c CURSOR FOR SELECT make(i, 'cat') AS made FROM generate_series(1, n) i;
    BEGIN
        FOR r IN c LOOP
            UPDATE orders SET total = total + 1 WHERE id = r.made;
            RETURN NEXT r.made;
        END LOOP;
    END $$;

    -- ways to write an order that are not its table
    CREATE VIEW changing AS SELECT * FROM orders WHERE total > 5 WITH CHECK OPTION;
    CREATE VIEW ruled AS SELECT * FROM orders;
    CREATE RULE ruled_insert AS ON INSERT TO ruled DO INSTEAD INSERT INTO orders VALUES (NEW.id, NEW.customer, NEW.total) RETURNING *;
    CREATE RULE ruled_delete AS ON DELETE TO ruled DO INSTEAD UPDATE orders SET total = 0 WHERE id = OLD.id;
    CREATE RULE wish_also AS ON INSERT TO wish DO ALSO INSERT INTO orders VALUES (NEW.id, NEW.customer, NEW.total);
    CREATE VIEW triggered AS SELECT * FROM orders;
    CREATE FUNCTION write_instead() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO orders VALUES (NEW.id, NEW.customer, NEW.total);
            UPDATE orders SET total = total + 1 WHERE id = NEW.id RETURNING total INTO NEW.total;
            RETURN NEW;
        ELSIF TG_OP = 'UPDATE' THEN
            DELETE FROM orders WHERE id = OLD.id;
            INSERT INTO orders VALUES (NEW.id, NEW.customer, NEW.total);
            RETURN NEW;
        END IF;
        DELETE FROM orders WHERE id = OLD.id;
        RETURN OLD;
    END $$;
    CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON triggered FOR EACH ROW EXECUTE FUNCTION write_instead();

    -- an order that brings others, and a wish that becomes one at the commit
    CREATE FUNCTION bring() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.customer = 'dot' AND NEW.total < 40 THEN
            INSERT INTO orders VALUES (NEW.id + 1, 'dot', NEW.total + 10, NEW.id);
            UPDATE orders SET total = total + 1 WHERE id = NEW.id;
            DELETE FROM gift WHERE id = NEW.id;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER a_bring AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION bring();
    CREATE FUNCTION fulfil() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO orders VALUES (NEW.id, NEW.customer, NEW.total);
        UPDATE gift SET total = total + 1 WHERE id = NEW.id;
        IF NEW.total < 0 THEN
            RAISE EXCEPTION 'a wish that cannot be fulfilled';
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER fulfil AFTER UPDATE ON wish DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fulfil();

    CREATE PROCEDURE run_over(n int, every int) LANGUAGE plpgsql AS $$
    DECLARE
        r record;
    BEGIN
        FOR r IN SELECT id FROM orders ORDER BY id LOOP
            UPDATE orders SET total = total + 100 WHERE id = r.id;
            INSERT INTO orders VALUES (r.id + n, 'ben', r.id);
            IF r.id % every = 0 THEN
                ROLLBACK;
            ELSE
                COMMIT;
            END IF;
        END LOOP;
    END $$;

    -- what is wrong with the ledger, in words
    CREATE FUNCTION wrong() RETURNS text LANGUAGE sql AS $$
        WITH owed AS (SELECT 'public.orders ' || id AS what, round(total / 10, 2) AS earned, customer AS member FROM orders
            UNION ALL SELECT 'public.gift ' || id, round(total / 10, 2), customer FROM gift),
        posted AS (SELECT source || ' ' || order_key AS what, sum(earned) AS earned, min(member) AS member FROM rebate.accruals WHERE earned <> 0 GROUP BY 1)
        SELECT concat_ws('; ',
            (SELECT string_agg(concat_ws(' ', what, 'owes', o.earned, 'to', o.member, 'has', p.earned, 'of', p.member), ', ')
             FROM (SELECT * FROM owed WHERE earned <> 0 AND member IS NOT NULL) o FULL JOIN posted p USING (what)
             WHERE (o.earned, o.member) IS DISTINCT FROM (p.earned, p.member)),
            (SELECT string_agg(concat_ws(' ', member, 'has', b.available, 'of', o.sum), ', ')
             FROM (SELECT member, sum(earned) FROM owed WHERE member IS NOT NULL GROUP BY member) o FULL JOIN rebate.balances b USING (member)
             WHERE COALESCE(o.sum, 0) <> COALESCE(b.available, 0)),
            (SELECT string_agg(concat_ws(' ', violation, subject), ', ') FROM rebate.audit()),
            (SELECT string_agg(concat_ws(' ', 'failed', order_key, message), ', ') FROM rebate.failures))
    $$;
});

sub set_libraries
{
    my (@libraries) = @_;
    $node->append_conf('postgresql.conf', sprintf "shared_preload_libraries = '%s'\n", join ', ', @libraries);
    return;
}

my $posting;
my $wire;
my $reader;
my $round = '';

sub begin
{
    $wire = Wire->connect($node, 'postgres');
    $wire->simple("SET rebate.posting = $posting; SET client_min_messages = error; DELETE FROM orders; DELETE FROM gift; DELETE FROM wish; DELETE FROM customer;
        INSERT INTO customer VALUES ('ann'), ('ben'), ('cat'), ('dot');
        INSERT INTO orders VALUES (1000, 'ann', 100), (1001, 'ben', 110), (1002, 'cat', 120);
        INSERT INTO gift VALUES (1000, 'ann', 10), (1001, 'ben', 11)");
    return;
}

# What is there now, beside what begin() made and as it made it; and the ledger agrees.
sub leaves
{
    my ($what, $orders) = @_;

    my $pid = $wire->{pid};
    $wire->leave unless $wire->{closed};
    is_gone($pid);
    is($reader->simple(q{SELECT string_agg(concat_ws(':', name, id, customer, total), ' ' ORDER BY name DESC, id) FROM
        (SELECT '' AS name, id, customer, total FROM orders UNION ALL SELECT 'gift', id, customer, total FROM gift) o
        WHERE (id, total, customer) IS DISTINCT FROM (1000, 100, 'ann') AND (id, total, customer) IS DISTINCT FROM (1001, 110, 'ben')
            AND (id, total, customer) IS DISTINCT FROM (1002, 120, 'cat') AND (id, total, customer) IS DISTINCT FROM (1000, 10, 'ann')
            AND (id, total, customer) IS DISTINCT FROM (1001, 11, 'ben')}) =~ s/(^| ):/$1/gr =~ s/ ?SELECT 1$//r,
        $orders || 'null', "$round: $what");
    is($reader->simple('SELECT wrong()'), ' SELECT 1', "$round: $what: the ledger");
    return;
}

# A session that has ended, however that is, has also left the server.
sub is_gone
{
    my ($pid) = @_;
    my $until = time + $Wire::patience;

    while ($reader->simple("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") ne '0 SELECT 1')
    {
        die 'a session stays' if time > $until;
        usleep(5_000);
    }
    return;
}

my @scenes = (
    [ 'INSERT ... RETURNING, suspended' => sub {
        $wire->simple('BEGIN');
        is($wire->open('p', "INSERT INTO orders SELECT i, 'ann', i FROM generate_series(1, 4) i RETURNING id", 2)->go, '1 2 suspended', "$round: suspended");
        is($wire->open('q', 'UPDATE orders SET total = total + 1 WHERE id < 10 RETURNING id, total', 1)->go, '1,2 suspended', "$round: another beside it");
        is($wire->execute('p', 1)->go, '3 suspended', "$round: the first goes on");
        $wire->open('', 'DELETE FROM orders WHERE id = 4')->go;
        is($wire->execute('q', 0)->run, '2,3 3,4 4,5 UPDATE 3', "$round: the second ends");
        is($wire->simple('COMMIT'), 'COMMIT', "$round: committed with the first open");
        return '1:ann:2 2:ann:3 3:ann:4';
    } ],
    [ 'writing CTEs, suspended and closed' => sub {
        $wire->simple('BEGIN');
        is($wire->open('p', q{WITH gone AS (DELETE FROM orders WHERE id > 1000 RETURNING *), new AS (INSERT INTO orders SELECT id - 1000, 'dot', total FROM gone RETURNING id)
            SELECT id FROM new ORDER BY id}, 1)->go, '1 suspended', "$round: suspended");
        $wire->open('', q{UPDATE orders SET customer = 'ann' WHERE id = 1})->go;
        $wire->close_portal('p')->run;
        is($wire->simple('SELECT count(*) FROM orders; COMMIT'), '3 SELECT 1 COMMIT', "$round: closed");
        return '1:ann:110 2:dot:120';
    } ],
    [ 'a function for each row, never finished' => sub {
        $wire->simple('BEGIN');
        is($wire->open('p', 'SELECT make(i) FROM generate_series(1, 1000) i', 3)->go, '1 2 3 suspended', "$round: three rows");
        $wire->open('', 'UPDATE orders SET total = 5 WHERE id = 2')->go;
        is($wire->execute('p', 1)->go, '4 suspended', "$round: one more");
        $wire->run;
        is($wire->execute('p', 1)->run, '5 suspended', "$round: and in the next cycle");
        is($wire->simple('COMMIT'), 'COMMIT', "$round: committed with 995 to come");
        return '1:ann:11 2:ann:5 3:ann:31 4:ann:41 5:ann:51';
    } ],
    [ 'an implicit transaction that a Sync ends' => sub {
        is($wire->open('p', 'SELECT make_sql(i) FROM generate_series(1, 1000) i', 2)->go, '1 2 suspended', "$round: two rows");
        is($wire->open('q', 'SELECT make_many(3) + 0', 0)->go, 'error 23505', "$round: an error of another portal");
        is($wire->run, '', "$round: the end of the cycle");
        is($wire->open('p', 'SELECT make_sql(i) FROM generate_series(1, 1000) i', 2)->go, '1 2 suspended', "$round: again");
        is($wire->run, '', "$round: the end of the cycle");
        is($wire->execute('p', 1)->run, 'error 34000', "$round: the portal went with it");
        return '1:ben:11 2:ben:21';
    } ],
    [ 'an error inside' => sub {
        $wire->simple('BEGIN; SAVEPOINT a');
        is($wire->open('p', 'SELECT make(i) FROM generate_series(11, 20) i', 2)->go, '11 12 suspended', "$round: before it");
        $wire->simple('SELECT rebate.flush()');
        is($wire->execute('p', 2)->run, 'error P0001', "$round: the error");
        $wire->simple('ROLLBACK TO a; INSERT INTO orders VALUES (12, $$cat$$, 50)');
        is($wire->execute('p', 2)->run, 'error 34000', "$round: the portal is gone");
        $wire->simple('ROLLBACK TO a; UPDATE orders SET total = 200 WHERE id = 1000; COMMIT');
        return '1000:ann:200';
    } ],
    [ 'across savepoints' => sub {
        $wire->simple('BEGIN');
        is($wire->open('p', 'SELECT make(i) FROM generate_series(1, 20) i', 2)->run, '1 2 suspended', "$round: outside");
        $wire->simple('SAVEPOINT a; UPDATE orders SET total = 7 WHERE id = 1');
        is($wire->open('q', 'SELECT make(i, $1) FROM generate_series(101, 120) i', 2, 'ben')->run, '101 102 suspended', "$round: inside");
        $wire->simple('RELEASE a; SAVEPOINT b; UPDATE orders SET total = 8 WHERE id IN (1, 101)');
        is($wire->execute('q', 1)->run, '103 suspended', "$round: after the release");
        $wire->simple('SELECT rebate.flush(); ROLLBACK TO b');
        is($wire->execute('q', 1)->run, '104 suspended', "$round: after the rollback, which took a row");
        is($wire->execute('p', 1)->run, '3 suspended', "$round: one that did not run inside goes on");
        $wire->simple('DELETE FROM orders WHERE id = 2; COMMIT');
        return '1:ann:7 3:ann:31 101:ben:1011 102:ben:1021 104:ben:1041';
    } ],
    [ 'a pipeline in one transaction' => sub {
        $wire->parse('add', 'INSERT INTO orders VALUES ($1, $2, $3)')->parse('change', 'UPDATE orders SET total = total + $2 WHERE id = $1');
        $wire->bind('', 'add', $_, (qw(ann ben))[ $_ % 2 ], $_)->execute('') foreach 1 .. 60;
        $wire->bind('', 'change', $_, 1)->execute('') foreach 1 .. 30;
        is($wire->run =~ s/ (?=INSERT|UPDATE)/\n/gr, join("\n", ('INSERT 0 1') x 60, ('UPDATE 1') x 30), "$round: all");
        $wire->bind('', 'add', $_, 'cat', 1)->execute('') foreach 61 .. 70, 60, 71 .. 75;
        like($wire->run, qr/^(INSERT 0 1 ){10}error 23505$/, "$round: one that breaks");
        foreach (61 .. 66)
        {
            $wire->bind('', 'add', $_, $_ % 3 ? 'cat' : 'nobody', $_)->execute('')->sync;
        }
        is(join('; ', map { Wire::told($wire->receive) } 61 .. 66), 'INSERT 0 1; INSERT 0 1; error 23503; INSERT 0 1; INSERT 0 1; error 23503', "$round: each by itself");
        $wire->simple('DELETE FROM orders WHERE id BETWEEN 3 AND 60');
        return '1:ben:2 2:ann:3 61:cat:61 62:cat:62 64:cat:64 65:cat:65';
    } ],
    [ 'cursors, with and without HOLD' => sub {
        $wire->simple(q{BEGIN; DECLARE held NO SCROLL CURSOR WITH HOLD FOR SELECT make(i) FROM generate_series(1, 3) i;
            DECLARE short CURSOR FOR SELECT make_sql(i) FROM generate_series(11, 20) i; DECLARE kept SCROLL CURSOR WITH HOLD FOR SELECT id FROM orders ORDER BY id});
        is($wire->open('', 'FETCH 2 FROM short')->go, '11 12 FETCH 2', "$round: fetched");
        is($wire->open('', 'FETCH 1 FROM held')->go, '1 FETCH 1', "$round: of the one with HOLD");
        $wire->open('', 'UPDATE orders SET total = 3 WHERE id = 1')->run;
        is($wire->simple('COMMIT'), 'COMMIT', "$round: the other rows come with the commit");
        is($wire->open('p', 'FETCH ALL FROM held', 1)->run, '2 suspended', "$round: which are there");
        is($wire->simple('FETCH ALL FROM kept'), '1000 1001 1002 FETCH 3', "$round: rows of before");
        $wire->simple('CLOSE ALL');
        return '1:ann:3 2:ann:21 3:ann:31 11:ben:111 12:ben:121';
    } ],
    [ 'a cursor with HOLD whose function fails at the commit' => sub {
        $wire->simple(q{BEGIN; UPDATE orders SET total = 1; DECLARE held NO SCROLL CURSOR WITH HOLD FOR SELECT make(i) FROM generate_series(11, 15) i; FETCH 1 FROM held});
        is($wire->simple('COMMIT'), 'error P0001', "$round: refused");
        return '';
    } ],
    [ 'a cursor in a function, over a function' => sub {
        is($wire->open('p', 'SELECT make_many(3)', 1)->run, '1 suspended', "$round: by rows");
        $wire->simple('BEGIN; SAVEPOINT a');
        is($wire->open('p', 'SELECT make_many(5)', 1)->run, 'error 23505', "$round: which are there");
        $wire->simple('ROLLBACK TO a; DELETE FROM orders WHERE id = 2');
        is($wire->open('p', 'SELECT count(*) FROM orders, make_many(0) RIGHT JOIN (SELECT) o ON true', 1)->run, '5 suspended', "$round: none");
        is($wire->simple('ROLLBACK TO a'), 'ROLLBACK', "$round: back to before the portal");
        is($wire->execute('p', 1)->run, 'error 34000', "$round: which is gone");
        is($wire->simple('COMMIT'), 'ROLLBACK', "$round: and the transaction with it");
        return '1:cat:12 2:cat:22 3:cat:32';
    } ],
    [ 'EXPLAIN ANALYZE' => sub {
        like($wire->simple(q{EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20)}),
            qr/Trigger rebate_insert: calls=1/, "$round: our trigger");
        $wire->simple('BEGIN; EXPLAIN ANALYZE DELETE FROM orders; EXPLAIN ANALYZE SELECT rebate.flush(); ROLLBACK');
        $wire->simple(q{PREPARE change AS UPDATE orders SET total = total + $1 WHERE id < 10; EXPLAIN ANALYZE EXECUTE change(1); EXECUTE change(2)});
        return '1:ann:13 2:ben:23';
    } ],
    [ 'WHERE CURRENT OF' => sub {
        $wire->simple('BEGIN; DECLARE c CURSOR FOR SELECT id FROM orders ORDER BY id FOR UPDATE; FETCH 1 FROM c');
        $wire->open('', 'UPDATE orders SET total = 1 WHERE CURRENT OF c')->go;
        $wire->simple('FETCH 1 FROM c; DELETE FROM orders WHERE CURRENT OF c; COMMIT');
        return '1000:ann:1';
    } ],
    [ 'a session that is killed' => sub {
        $wire->simple('BEGIN; UPDATE orders SET total = 1');
        is($wire->open('p', 'SELECT make(i) FROM generate_series(1, 20) i', 2)->go, '1 2 suspended', "$round: at work");
        $reader->simple("SELECT pg_terminate_backend($wire->{pid})");
        is(Wire::told($wire->receive), 'error 57P01', "$round: killed");
        return '';
    } ],
    [ 'a client that goes away' => sub {
        $wire->simple('BEGIN; UPDATE orders SET total = 1; SELECT rebate.flush()');
        is($wire->open('p', 'SELECT make(i) FROM generate_series(1, 20) i', 2)->go, '1 2 suspended', "$round: at work");
        $wire->leave;
        return '';
    } ],
    [ 'two phases with a portal open' => sub {
        $wire->simple('BEGIN');
        is($wire->open('p', 'SELECT make(i) FROM generate_series(1, 20) i', 2)->run, '1 2 suspended', "$round: suspended");
        is($wire->simple(q{PREPARE TRANSACTION 'portal'}), 'PREPARE TRANSACTION', "$round: prepared");
        is($wire->simple(q{COMMIT PREPARED 'portal'}), 'COMMIT PREPARED', "$round: committed");
        return '1:ann:11 2:ann:21';
    } ],
    [ 'REPEATABLE READ with a portal open' => sub {
        $wire->simple('BEGIN ISOLATION LEVEL REPEATABLE READ');
        is($wire->open('p', 'SELECT make(i) FROM generate_series(301, 320) i', 2)->run, '301 302 suspended', "$round: suspended");
        # of a member, and under a key, that this transaction has not locked
        $reader->simple(q{INSERT INTO orders VALUES (500, 'cat', 50)});
        is($wire->execute('p', 2)->run, '303 304 suspended', "$round: goes on");
        is($wire->simple('UPDATE orders SET total = total * 2 WHERE id BETWEEN 300 AND 600; COMMIT'), 'UPDATE 4 COMMIT', "$round: committed");
        return '301:ann:6022 302:ann:6042 303:ann:6062 304:ann:6082 500:cat:50';
    } ],
    [ 'a procedure that commits in a loop over a cursor' => sub {
        is($wire->open('', 'CALL run_over($1, 3)', 0, 50)->run, 'CALL', "$round: by the protocol");
        is($wire->simple('CALL run_over(1000, 7)'), 'CALL', "$round: by SQL");
        is($wire->simple('BEGIN; CALL run_over(5000, 7)'), 'BEGIN error 2D000', "$round: not in a transaction");
        $wire->simple('ROLLBACK');
        return '1000:ann:300 1001:ben:210 1002:cat:220 1050:ben:1000 1051:ben:1101 2000:ben:1000 2002:ben:1002 2051:ben:1051';
    } ],
    [ 'views and rules' => sub {
        is($wire->open('p', 'INSERT INTO ruled (id, customer, total) SELECT i, $1, 10 * i FROM generate_series(1, 3) i RETURNING id', 1, 'ann')->run, '1 suspended', "$round: a rule");
        $wire->simple('DELETE FROM ruled WHERE id = 2; INSERT INTO wish SELECT i, $$ben$$, i FROM generate_series(11, 12) i');
        is($wire->open('p', 'INSERT INTO triggered (id, customer, total) SELECT i, $1, i FROM generate_series(21, 24) i RETURNING total', 1, 'cat')->run, '22 suspended', "$round: a trigger instead");
        $wire->simple('UPDATE triggered SET total = total + 10 WHERE id IN (22, 1000); DELETE FROM triggered WHERE id IN (23, 1001)');
        is($wire->simple('UPDATE changing SET total = total - 15 WHERE id < 30'), 'error 44000', "$round: refused by a view");
        is($wire->simple('UPDATE changing SET total = total - 5 WHERE id IN (24, 12, 3)'), 'UPDATE 3', "$round: by a view");
        return '1:ann:10 2:ann:0 3:ann:25 11:ben:11 12:ben:7 21:cat:22 22:cat:33 24:cat:20 1000:ann:110';
    } ],
    [ 'cascades' => sub {
        $wire->simple(q{INSERT INTO orders VALUES (1, 'ann', 10, NULL), (2, 'ann', 20, 1), (3, 'cat', 30, 2), (4, 'cat', 40, NULL)});
        $wire->simple('BEGIN');
        is($wire->open('p', q{UPDATE customer SET name = upper(name) WHERE name <> 'dot' RETURNING name}, 1)->run, 'ANN suspended', "$round: names change");
        $wire->simple(q{SAVEPOINT a; DELETE FROM customer WHERE name = 'CAT'; SELECT rebate.flush(); ROLLBACK TO a; DELETE FROM customer WHERE name = 'BEN'; COMMIT});
        $wire->simple(q{BEGIN; DELETE FROM orders WHERE id = 1; INSERT INTO orders VALUES (1, 'dot', 100); COMMIT});
        return 'gift:1000:ANN:10 gift:1001:11 1:dot:100 4:CAT:40 1000:ANN:100 1002:CAT:120';
    } ],
    [ 'triggers in triggers' => sub {
        $wire->simple('INSERT INTO gift VALUES (10, $$ann$$, 5), (11, $$ann$$, 6)');
        is($wire->open('p', q{INSERT INTO orders VALUES (10, 'dot', 10), (20, 'dot', 30) RETURNING id}, 1)->run, '10 suspended', "$round: suspended");
        $wire->simple('BEGIN; SAVEPOINT a; INSERT INTO orders VALUES (30, $$dot$$, 20); ROLLBACK TO a; INSERT INTO orders VALUES (40, $$dot$$, 35); COMMIT');
        return '10:dot:11 11:dot:21 12:dot:31 13:dot:40 20:dot:31 21:dot:40 40:dot:36 41:dot:45';
    } ],
    [ 'orders that are written by constraints at the commit' => sub {
        $wire->simple(q{ALTER TABLE wish DISABLE RULE wish_also; INSERT INTO wish VALUES (1, 'ann', 10), (2, 'ben', 20), (1001, 'cat', 30);
            ALTER TABLE wish ENABLE RULE wish_also; DELETE FROM orders WHERE id = 1001});
        $wire->simple('BEGIN');
        is($wire->open('p', 'UPDATE wish SET total = total + 5 RETURNING id', 1)->run, '1 suspended', "$round: suspended");
        is($wire->simple('SELECT rebate.flush(); COMMIT'), '0 SELECT 1 COMMIT', "$round: committed");
        $wire->simple('DELETE FROM orders WHERE id < 10');
        is($wire->simple('BEGIN; UPDATE wish SET total = -1 WHERE id = 1; UPDATE orders SET total = 1; SELECT rebate.flush() > 0; COMMIT'),
            'BEGIN UPDATE 1 UPDATE 3 ' . ($posting eq 'commit' ? 't' : 'f') . ' SELECT 1 error P0001', "$round: refused");
        is($wire->simple('BEGIN; UPDATE wish SET total = 7 WHERE id = 2; SET CONSTRAINTS ALL IMMEDIATE; UPDATE orders SET total = 8 WHERE id = 2; COMMIT'),
            'BEGIN UPDATE 1 SET CONSTRAINTS UPDATE 1 COMMIT', "$round: early");
        return 'gift:1001:ben:12 2:ben:8 1001:cat:35';
    } ],
);

foreach my $libraries ([ @others, 'rebate' ], [ 'rebate', @others ])
{
    set_libraries(@$libraries);
    $node->restart;
    $reader = Wire->connect($node, 'postgres');
    $reader->simple('SET auto_explain.log_min_duration = -1');
    foreach my $moment ('commit', 'statement')
    {
        $posting = $moment;
        $round = ($libraries->[0] eq 'rebate' ? 'before others' : 'after others') . ", $posting";
        foreach my $scene (@scenes)
        {
            my ($what, $play) = @$scene;
            begin();
            leaves($what, $play->());
        }
    }
}
my $log = slurp_file($node->logfile);
like($log, qr/Query Text: INSERT INTO orders .*Trigger rebate_insert on orders: time/s, 'the others were at work');
unlike($log, qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
