-- Two persons change what is paid: who may do which step, by what role whatever, and what each sees.
CREATE EXTENSION pgtap;
SET client_min_messages = warning;
SELECT no_plan();
CREATE ROLE rebate_test_author LOGIN;
CREATE ROLE rebate_test_approver LOGIN;
CREATE ROLE rebate_test_both LOGIN;
CREATE ROLE rebate_test_chief LOGIN SUPERUSER;
CREATE ROLE rebate_test_stranger LOGIN;
CREATE EXTENSION rebate;
CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric(12,2));
SELECT rebate.attach('orders', 'customer', 'total', 'EUR');
SELECT rebate.set_rule('five', percent => 5, valid_from => '2020-01-01');
GRANT rebate_owner TO rebate_test_author, rebate_test_approver, rebate_test_both;
SELECT is(rebate.require_approval(true), NULL, 'from now on two are needed');

-- who owns the store has not the right by that
SET SESSION AUTHORIZATION rebate_test_author;
SELECT is(rebate.set_rule('five', percent => 6, valid_from => '2020-01-01'), 1, 'an author writes a draft');
RESET SESSION AUTHORIZATION;
SELECT throws_ok('SELECT rebate.approve_rule(1)', '42501', 'permission denied for rebate.approve_rule', 'nobody was given the right: a superuser has not got it');
SET SESSION AUTHORIZATION rebate_test_approver;
SELECT throws_ok(c, '42501', NULL, 'nor a member of the owner''s role: ' || c)
FROM unnest(ARRAY['SELECT rebate.approve_rule(1)', 'SELECT rebate.reject_rule(1, ''no'')', 'SELECT rebate.erase_member(''alice'', true)']) c;
SET ROLE rebate_owner;
SELECT throws_ok('SELECT rebate.approve_rule(1)', '42501', NULL, 'nor the owner himself');
RESET ROLE;
RESET SESSION AUTHORIZATION;
SELECT rebate.grant_right('approver', 'rebate_owner'), rebate.revoke_right('approver', 'rebate_owner');
SELECT ok(has_function_privilege('rebate_owner', 'rebate.preview(regclass, "any")', 'EXECUTE') AND has_table_privilege('rebate_owner', 'rebate.rule_drafts', 'SELECT'),
    'a right that is taken from the owner leaves what he has for being that');
SELECT rebate.grant_right('approver', 'rebate_owner');

-- who wrote it
SET SESSION AUTHORIZATION rebate_test_author;
SELECT throws_ok('SELECT rebate.approve_rule(1)', 'RB017', NULL, 'and does not approve it');
SET ROLE rebate_owner;
SELECT throws_ok('SELECT rebate.approve_rule(1)', 'RB017', NULL, 'nor as a member of another role');
RESET ROLE;
RESET SESSION AUTHORIZATION;
GRANT rebate_test_author TO rebate_test_approver;
ALTER ROLE rebate_test_author SUPERUSER;
SET SESSION AUTHORIZATION rebate_test_author;
SELECT throws_ok('SELECT rebate.approve_rule(1)', 'RB017', NULL, 'nor as a superuser');
SET ROLE rebate_test_approver;
SELECT throws_ok('SELECT rebate.approve_rule(1)', 'RB017', NULL, 'nor as the approver''s role');
RESET ROLE;
RESET SESSION AUTHORIZATION;
ALTER ROLE rebate_test_author NOSUPERUSER;

-- a role renamed, and one made again under the old name, are still who they were
ALTER ROLE rebate_test_author RENAME TO rebate_test_renamed;
SET SESSION AUTHORIZATION rebate_test_renamed;
SELECT throws_ok('SELECT rebate.approve_rule(1)', 'RB017', 'draft 1 was written by the same person', 'nor under another name');
RESET SESSION AUTHORIZATION;
CREATE ROLE rebate_test_author LOGIN;
GRANT rebate_owner TO rebate_test_author;
SET SESSION AUTHORIZATION rebate_test_author;
SELECT throws_ok('SELECT rebate.approve_rule(1)', 'RB017', 'draft 1 was written by the same person', 'nor does another of the same name');
RESET SESSION AUTHORIZATION;
DROP OWNED BY rebate_test_author;
DROP ROLE rebate_test_author;
SET SESSION AUTHORIZATION rebate_test_approver;
SELECT throws_ok('SELECT rebate.approve_rule(1)', 'RB017', 'role "rebate_test_author", which wrote draft 1, does not exist any more',
    'a draft whose author is gone is not approved');
RESET SESSION AUTHORIZATION;
ALTER ROLE rebate_test_renamed RENAME TO rebate_test_author;

-- the other
SET SESSION AUTHORIZATION rebate_test_approver;
SELECT throws_ok('SELECT rebate.withdraw_rule(1)', 'RB017', NULL, 'only the author withdraws');
SET ROLE rebate_test_author;
SELECT is(rebate.approve_rule(1, 'yes'), 2, 'somebody else approves, whatever role he took');
RESET ROLE;
RESET SESSION AUTHORIZATION;
SELECT results_eq('SELECT created_by, approved_by FROM rebate.rule_versions WHERE version = 2',
    $$ VALUES ('rebate_test_author', 'rebate_test_approver') $$, 'both are recorded, by their logins');
SELECT results_eq('SELECT author, author_role, decided_by, reason FROM rebate.rule_drafts',
    $$ VALUES ('rebate_test_author', 'rebate_test_author', 'rebate_test_approver', 'yes') $$, 'in the draft, too');

-- a superuser is two persons no more than others
SET SESSION AUTHORIZATION rebate_test_chief;
SELECT is(rebate.set_rule('five', percent => 7, valid_from => '2020-01-01'), 2, 'a superuser writes a draft');
SELECT throws_ok('SELECT rebate.approve_rule(2)', 'RB017', NULL, 'and does not approve it');
SELECT is(rebate.end_rule('five'), 3, 'an end is a draft');
SELECT lives_ok('SELECT rebate.withdraw_rule(3)', 'an author withdraws his draft');
SELECT throws_ok('SELECT rebate.approve_rule(3)', 'RB017', 'draft 3 is withdrawn already', 'which then nobody approves');
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION rebate_test_approver;
SELECT throws_ok('SELECT rebate.approve_rule(3)', 'RB017', 'draft 3 is withdrawn already', 'neither who may');
SELECT throws_ok($$ SELECT rebate.reject_rule(2, NULL) $$, '22023', NULL, 'a rejection has a reason');
SELECT lives_ok($$ SELECT rebate.reject_rule(2, 'too much') $$, 'an approver rejects');
RESET SESSION AUTHORIZATION;

-- whoever has neither right
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA rebate TO rebate_test_stranger;
SET SESSION AUTHORIZATION rebate_test_stranger;
SELECT throws_ok(call, '42501', NULL, 'a stranger may not: ' || call) FROM unnest(ARRAY['SELECT rebate.approve_rule(2)',
    $$SELECT rebate.reject_rule(2, 'x')$$, 'SELECT rebate.withdraw_rule(2)', 'SELECT rebate.require_approval(false)',
    $$SELECT rebate.on_behalf_of('rebate_test_approver')$$, 'SELECT rebate.set_max_percent(1000)',
    $$SELECT rebate.preview('orders', '{}', 2)$$, 'SELECT * FROM rebate.rule_drafts']) AS call;
RESET SESSION AUTHORIZATION;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rebate FROM rebate_test_stranger;

-- orders meanwhile, and the audit
INSERT INTO orders VALUES (1, 'alice', 100);
SELECT results_eq('SELECT version, earned FROM rebate.accruals', 'VALUES (2, 6.00)', 'an order has what was approved');
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');

-- turning it off takes two
SET SESSION AUTHORIZATION rebate_test_both;
SELECT is(rebate.require_approval(false), 4, 'to need no approval is a draft');
SELECT throws_ok('SELECT rebate.approve_rule(4)', 'RB017', NULL, 'that its author does not approve');
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION rebate_test_approver;
SELECT is(rebate.approve_rule(4), NULL, 'somebody else does');
RESET SESSION AUTHORIZATION;
SELECT is(rebate.set_rule('five', percent => 8, valid_from => '2020-01-01'), 3, 'then a rule is a version at once');
SELECT is_empty('SELECT * FROM rebate.audit()', 'the audit is clean');
SELECT * FROM finish();
