-- A random shop whose members get other keys and are erased all the while: each step leaves a clean audit, and in the
-- end each member has what a plain query over the order rows gives him, whatever keys the rows have.
CREATE EXTENSION pgtap;
SET client_min_messages = warning;
SELECT no_plan();
CREATE EXTENSION rebate;
SELECT rebate.create_store();
SELECT rebate.grant_right('approver', 'rebate_owner');
CREATE ROLE rebate_test_asks SUPERUSER LOGIN;
CREATE ROLE rebate_test_agrees SUPERUSER LOGIN;
-- a person, not the engine's to know, with the keys that he has had
CREATE TABLE person (id int PRIMARY KEY, keys text[], erased boolean DEFAULT false);
CREATE TABLE orders (id int PRIMARY KEY, person int, customer text, total numeric(12,2), state text, refunded numeric(12,2) DEFAULT 0,
    placed timestamptz, sent timestamptz);
SELECT rebate.attach('orders', 'customer', 'total', 'EUR', status => 'state', refunded => 'refunded', order_time => 'placed', confirmed_at => 'sent',
    phases => '{"new": "tracked", "paid": "pending", "sent": "confirmed", "cancelled": "void"}', since => '2020-01-01', max_backdate => NULL);
SELECT rebate.set_group('all', 'stack');
SELECT rebate.set_rule('ten', percent => 10, hold => '14 days', valid_from => '2020-01-01', rule_group => 'all');
SELECT rebate.set_rule('one', percent => 1, valid_from => '2020-01-01', rule_group => 'all');
CREATE TABLE seen (step int, what text, violation text, subject text);
CREATE VIEW target AS SELECT p.id, p.keys[cardinality(p.keys)] AS member, coalesce(sum(
        round(o.total * 0.10 * (o.total - o.refunded) / o.total, 2) + round(o.total * 0.01 * (o.total - o.refunded) / o.total, 2))
        FILTER (WHERE o.state <> 'cancelled'), 0) AS money
    FROM person p LEFT JOIN orders o ON o.person = p.id WHERE NOT p.erased GROUP BY p.id;

CREATE PROCEDURE steps(n int) LANGUAGE plpgsql AS $$
DECLARE
    what text;
    p person;
    k text;
    dice float;
BEGIN
    FOR step IN 1 .. n LOOP
        PERFORM set_config('rebate.posting', CASE WHEN random() < 0.5 THEN 'commit' ELSE 'statement' END, false);
        SELECT * INTO p FROM person ORDER BY random() LIMIT 1;
        k := p.keys[1 + floor(random() * cardinality(p.keys))];
        dice := random();
        IF dice < 0.15 AND NOT p.erased THEN
            what := 'replace';
            k := 'k' || step;
            BEGIN
                PERFORM rebate.replace_member(p.keys[cardinality(p.keys)], k);
                UPDATE person SET keys = keys || k WHERE id = p.id;
            EXCEPTION WHEN no_data_found THEN
                NULL;   -- he has not had any order yet
            END;
        ELSIF dice < 0.25 AND NOT p.erased THEN
            what := 'erase';
            BEGIN
                PERFORM rebate.erase_member(p.keys[cardinality(p.keys)]);
                UPDATE person SET erased = true WHERE id = p.id;
            EXCEPTION WHEN SQLSTATE 'RB018' THEN
                IF random() < 0.5 THEN
                    UPDATE orders SET state = 'cancelled' WHERE person = p.id;
                    PERFORM rebate.flush();
                    PERFORM rebate.erase_member(p.keys[cardinality(p.keys)]);
                    UPDATE person SET erased = true WHERE id = p.id;
                END IF;
            END;
        ELSIF dice < 0.35 THEN
            what := 'mature';
            PERFORM 1 FROM rebate_data.waiting;
            COMMIT;
            CALL rebate.mature('2026-01-01'::timestamptz + step * interval '1 hour');
        ELSIF dice < 0.55 THEN
            what := 'update';
            UPDATE orders SET refunded = floor(random() * 3) * total / 2, customer = k,
                state = (ARRAY['new', 'paid', 'sent', 'sent', 'cancelled'])[1 + floor(random() * 5)],
                sent = coalesce(sent, '2026-01-01'::timestamptz + step * interval '1 hour')
            WHERE person = p.id AND random() < 0.5;
        ELSIF dice < 0.6 THEN
            what := 'delete';
            DELETE FROM orders WHERE person = p.id AND random() < 0.2;
        ELSE
            what := 'insert';
            INSERT INTO orders SELECT step * 10 + g, p.id, k, floor(random() * 10000 + 100) / 100, (ARRAY['new', 'paid', 'sent'])[1 + floor(random() * 3)], 0,
                '2026-01-01'::timestamptz, CASE WHEN random() < 0.5 THEN '2026-01-02'::timestamptz END
            FROM generate_series(0, floor(random() * 4)::int) g;
        END IF;
        COMMIT;
        INSERT INTO seen SELECT step, what, violation, subject FROM rebate.audit();
        INSERT INTO seen SELECT step, what, 'balance', t.member FROM target t
            LEFT JOIN rebate.balances b ON b.member = t.member
            WHERE t.money <> coalesce(b.tracked + b.pending + b.maturing + b.available, 0);
        COMMIT;
    END LOOP;
END$$;
INSERT INTO person SELECT g, ARRAY['p' || g] FROM generate_series(1, 12) g;
SELECT setseed(0.42);
CALL steps(200);
SELECT is_empty('SELECT * FROM seen', 'after each step the audit is clean, and members have what their orders are worth');
SELECT cmp_ok((SELECT count(*) FROM person WHERE erased), '>', 2::bigint, 'some were erased');
SELECT cmp_ok((SELECT count(*) FROM person WHERE cardinality(keys) > 2), '>', 2::bigint, 'some got several keys');
SELECT is_empty($$ SELECT * FROM rebate.balances WHERE member LIKE 'erased-%' AND (tracked <> 0 OR pending <> 0 OR maturing <> 0 OR available <> 0) $$, 'erased ones have nothing');
SELECT is_empty($$ SELECT * FROM person p, unnest(p.keys) k JOIN rebate.balances b ON b.member = k WHERE p.erased $$, 'and no account');
SELECT cmp_ok((SELECT count(*) FROM rebate.decisions WHERE decision = 'erased'), '>', 10::bigint, 'orders came for them all the same');

-- all others, two people
SET SESSION AUTHORIZATION rebate_test_asks;
SELECT rebate.request_erasure(member) FROM target WHERE member IN (SELECT member FROM rebate.balances);
RESET SESSION AUTHORIZATION;
SELECT sum(tracked + pending + maturing + available) - sum(tracked) AS liability FROM rebate.balances \gset
SET SESSION AUTHORIZATION rebate_test_agrees;
SELECT count(rebate.erase_member(member, true)) FROM rebate.erasure_requests();
RESET SESSION AUTHORIZATION;
SELECT is((SELECT balance FROM rebate.house_balances WHERE code = 'house:write-off'), -(:liability)::numeric, 'what was owed is written off, no more and no less');
SELECT is((SELECT sum(balance) FROM rebate.trial_balance), 0.00, 'the books balance');
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');
SELECT is_empty($$ SELECT * FROM rebate_data.waiting $$, 'and nothing waits for the clock');
UPDATE orders SET refunded = total, state = 'sent';
UPDATE orders SET refunded = 0;
SELECT is_empty($$ SELECT * FROM rebate.balances WHERE tracked <> 0 OR pending <> 0 OR maturing <> 0 OR available <> 0 $$, 'their orders move nothing');
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is still clean');
SELECT * FROM finish();
