--
-- rebate.preview(): an order that does not exist yet, told as explain() tells it
-- of one that does.
--
\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rebate CASCADE;
DROP SCHEMA IF EXISTS rebate_data CASCADE;
DROP SCHEMA IF EXISTS rebate CASCADE;
CREATE EXTENSION rebate;
SET timezone = 'UTC';
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE shop (gone int, id serial PRIMARY KEY, customer varchar(5), total numeric(10,2), state text, merchant mood, refunded numeric, units int, at timestamptz, extra jsonb);
ALTER TABLE shop DROP gone;
-- an order time of then, so that nothing differs from run to run
SELECT rebate.attach('shop', 'customer', 'total', 'EUR', status => 'state', refunded => 'refunded', quantity => 'units', order_time => 'at',
	attributes => '{"merchant": "merchant", "channel": "extra ->> ''channel''"}', since => '2026-01-01', max_backdate => NULL, max_future => NULL);
\set valid '2026-01-01'
SELECT rebate.set_rule('five', percent => 5, hold => '14 days', valid_from => :'valid');
SELECT rebate.set_rule('good', percent => 10, scope => '{"merchant": "good"}', max_per_order => 3, currency => 'EUR', rounding => 'down', valid_from => :'valid');
SELECT rebate.set_rule('large', fixed => 10, currency => 'EUR', minimum => 500, valid_from => :'valid');
SELECT rebate.set_rule('web', percent => 1, scope => '{"channel": "web"}', condition => 'total > 20', valid_from => :'valid');
SELECT rebate.set_rule('unit', per_unit => 0.333, currency => 'EUR', valid_from => :'valid');
SELECT * FROM rebate.preview('shop', '{"customer": "ann", "total": 199.90, "state": "pending", "merchant": "good", "units": 2, "at": "2026-01-02 03:04:05+00", "extra": {"channel": "web"}}');
-- the same as a row of the table, refunded in part: what explain() says afterwards
CREATE TEMP TABLE said AS
	SELECT * FROM rebate.preview('shop', ROW(7, 'ann', 199.90, 'pending', 'good', 20, 2, '2026-01-02 03:04:05+00', '{"channel": "web"}')::shop);
INSERT INTO shop VALUES (7, 'ann', 199.90, 'pending', 'good', 20, 2, '2026-01-02 03:04:05+00', '{"channel": "web"}');
SELECT topic, subject, outcome, amount, detail FROM rebate.explain('shop', 7) WHERE topic = 'rule'
EXCEPT SELECT topic, subject, outcome, amount, detail FROM said;
SELECT topic, subject, outcome, amount, detail FROM rebate.explain('shop', 7) WHERE topic = 'accrual'
EXCEPT SELECT topic, subject, outcome, amount, detail FROM said;
SELECT topic, subject, outcome, amount FROM said WHERE topic IN ('accrual', 'entry');
SELECT available, pending FROM rebate.balances WHERE member = 'ann';

-- it writes nothing, not even a number of the sequence
CREATE TEMP TABLE counted AS SELECT (SELECT count(*) FROM rebate_data.accrual) AS accruals, (SELECT last_value FROM rebate_data.id) AS id, (SELECT last_value FROM shop_id_seq) AS no;
BEGIN READ ONLY;
SELECT outcome FROM rebate.preview('shop', '{"customer": "zoe", "total": 10, "state": "confirmed", "at": "2026-01-02"}') WHERE topic = 'accrual';
COMMIT;
SELECT c.accruals = (SELECT count(*) FROM rebate_data.accrual) AND c.id = (SELECT last_value FROM rebate_data.id) AND c.no = (SELECT last_value FROM shop_id_seq) AS nothing FROM counted c;
SELECT count(*) FROM rebate.balances WHERE member = 'zoe';

-- reasons for nothing
SELECT topic, subject, outcome, amount FROM rebate.preview('shop', '{"total": 10, "state": "confirmed", "at": "2026-01-02"}'::jsonb);
SELECT topic, subject, outcome, amount FROM rebate.preview('shop', '{"customer": "ann", "total": 10, "state": "confirmed", "at": "2025-01-02"}'::json);
SELECT topic, subject, outcome, amount, detail FROM rebate.preview('shop', '{"customer": "ann", "total": 10, "state": "lost", "at": "2026-01-02"}'::text);
SELECT topic, subject, outcome, amount FROM rebate.preview('shop', '{"customer": "ann", "total": null, "state": "confirmed", "at": "2026-01-02"}');
SELECT topic, subject, outcome, amount FROM rebate.preview('shop', '{"customer": "ann", "total": 10, "state": "void", "at": "2026-01-02"}');
SELECT topic, subject, outcome, amount FROM rebate.preview('shop', '{"id": 9, "customer": "ann", "total": -10, "state": "pending", "at": "2026-01-02", "units": 1}');

-- what an INSERT would refuse is refused as there
SELECT rebate.preview('shop', '{"customer": "longer than five"}');
SELECT rebate.preview('shop', '{"merchant": "ugly"}');
SELECT rebate.preview('shop', '{"total": "ten"}');
SELECT rebate.preview('shop', '{"total": [10]}');
SELECT rebate.preview('shop', '{"totl": 10}');
SELECT rebate.preview('shop', '{"gone": 10}');
SELECT rebate.preview('shop', '[10]');
SELECT rebate.preview('shop', 'x');
SELECT rebate.preview('shop', ROW(1, 2));
SELECT rebate.preview('shop', 7);
SELECT rebate.preview('shop', NULL);
SELECT rebate.preview('pg_class', '{}');
CREATE TABLE other (id int PRIMARY KEY);
SELECT rebate.preview('shop', ROW(1)::other);

-- a domain's check is not called: it would run as the store's owner, who may do what he likes to the store
CREATE FUNCTION sneak(x text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'checked as %', current_user;
	ALTER TABLE rebate_data.account DISABLE TRIGGER rebate_guard;
	UPDATE rebate_data.account SET available = 1000000;
	RETURN true;
END $$;
CREATE DOMAIN sneaky AS text CHECK (sneak(VALUE));
ALTER TABLE other ADD customer sneaky, ADD total numeric;
SELECT rebate.attach('other', 'total', 'total', 'EUR');
SELECT topic, subject, outcome, amount FROM rebate.preview('other', '{"id": 1, "customer": "x", "total": 1}') WHERE topic = 'accrual';
ALTER TABLE other ADD tags sneaky[];
SELECT rebate.preview('other', '{"id": 1, "customer": "x", "total": 1, "tags": "{y}"}');
CREATE ROLE regress_clerk;
GRANT ALL ON shop TO regress_clerk;
GRANT EXECUTE ON FUNCTION rebate.preview(regclass, "any") TO regress_clerk;
SET ROLE regress_clerk;
SELECT rebate.preview('shop', '{}');
RESET ROLE;
REVOKE ALL ON FUNCTION rebate.preview(regclass, "any") FROM regress_clerk;
DROP TABLE shop, other;
DROP ROLE regress_clerk;
DROP DOMAIN sneaky;
DROP FUNCTION sneak(text);
DROP TYPE mood;
