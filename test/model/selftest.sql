-- Cases worked by hand, against the model alone (no engine): prints TAP.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
BEGIN;
\ir model.sql
CREATE SCHEMA mt;
CREATE TABLE mt.o (id integer PRIMARY KEY, member text, amount numeric, currency text, quantity numeric,
	at timestamptz, status text, refunded numeric, rq numeric, country text, shop integer, basis numeric, part_of integer);
INSERT INTO model.source (source, key, member, amount, currency, quantity, order_time, status, refunded,
						  replaces, attributes, since)
	VALUES ('mt.o', 'id', 'member', 'amount', 'currency', 'quantity', 'at', 'status', 'refunded',
			'part_of::text', $$jsonb_build_object('country', country, 'shop', shop)$$, '2026-01-01 00:00+00');
CREATE SEQUENCE mt.n;
CREATE TABLE mt.result (ok boolean);

-- Forget the rules; begin with these: {"name": {"percent": 5, ...}, ...}.
CREATE FUNCTION mt.rules(rules jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	name text;
	a jsonb;
BEGIN
	DELETE FROM model.rule;
	DELETE FROM model.rule_version;
	FOR name, a IN SELECT j.key, j.value FROM jsonb_each(rules) j ORDER BY j.key LOOP
		INSERT INTO model.rule (name) VALUES (name);
		PERFORM mt.version(name, 1, 1, a);
	END LOOP;
END $$;
CREATE FUNCTION mt.version(name text, version integer, generation integer, a jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO model.rule_version VALUES (name, version, generation,
		CASE WHEN a ? 'percent' THEN 'percent' WHEN a ? 'fixed' THEN 'fixed' WHEN a ? 'per_unit' THEN 'per_unit' ELSE 'none' END,
		coalesce(a ->> 'percent', a ->> 'fixed', a ->> 'per_unit')::numeric, a ->> 'currency', a -> 'scope', a ->> 'condition', a ->> 'base',
		(a ->> 'minimum')::numeric, (a ->> 'max')::numeric, coalesce(a ->> 'limit', 'clip'),
		coalesce(a ->> 'rounding', 'half_up'), coalesce(a ->> 'refund', 'pro_rata'), coalesce(a ->> 'returns', 'today'),
		coalesce(a ->> 'hold', '0')::interval, coalesce((a ->> 'priority')::integer, 0), a ->> 'group', a ->> 'mode',
		coalesce((a ->> 'from')::timestamptz, '2020-01-01 00:00+00'), (a ->> 'to')::timestamptz, NULL, NULL);
END $$;

-- The rebates of one order, as "rule amount bucket, ...".
CREATE FUNCTION mt.is(o jsonb, expected text, label text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	got text;
BEGIN
	DELETE FROM mt.o;
	DELETE FROM model.fact;
	INSERT INTO mt.o SELECT * FROM jsonb_populate_record(NULL::mt.o,
		'{"id": 1, "member": "m", "amount": 100, "currency": "EUR", "at": "2026-03-10 12:00+00", "status": "pending", "shop": 1}' || o);
	INSERT INTO model.fact VALUES ('mt.o', '1', '2026-03-10 12:00+00', coalesce((o ->> 'generation')::integer, 1),
								   coalesce((o ->> 'before')::boolean, false));
	SELECT coalesce(string_agg(rule || ' ' || amount || ' ' || bucket, ', ' ORDER BY rule), '') INTO got FROM model.targets('mt.o');
	INSERT INTO mt.result VALUES (got = expected);
	RETURN CASE WHEN got = expected THEN 'ok ' || nextval('mt.n') || ' - ' || label
		ELSE 'not ok ' || nextval('mt.n') || ' - ' || label || E'\n# got ' || got || E'\n# expected ' || expected END;
END $$;
-- The rebates of several orders, numbered from 1, as "order: rule amount bucket, ...".
CREATE FUNCTION mt.are(orders jsonb, expected text, label text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	got text;
BEGIN
	DELETE FROM mt.o;
	DELETE FROM model.fact;
	INSERT INTO mt.o
		SELECT r.* FROM jsonb_array_elements(orders) WITH ORDINALITY j(o, n), jsonb_populate_record(NULL::mt.o,
			'{"member": "m", "amount": 100, "currency": "EUR", "at": "2026-03-10 12:00+00", "status": "pending", "shop": 1}'
			|| jsonb_build_object('id', n) || o) r;
	INSERT INTO model.fact SELECT 'mt.o', n::text, '2026-03-10 12:00+00', coalesce((o ->> 'generation')::integer, 1), false
		FROM jsonb_array_elements(orders) WITH ORDINALITY j(o, n);
	SELECT coalesce(string_agg(okey || ': ' || rule || ' ' || amount || ' ' || bucket, ', ' ORDER BY okey, rule), '') INTO got FROM model.targets('mt.o');
	INSERT INTO mt.result VALUES (got = expected);
	RETURN CASE WHEN got = expected THEN 'ok ' || nextval('mt.n') || ' - ' || label
		ELSE 'not ok ' || nextval('mt.n') || ' - ' || label || E'\n# got ' || got || E'\n# expected ' || expected END;
END $$;
CREATE FUNCTION mt.eq(got anyelement, expected anyelement, label text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO mt.result VALUES (got::text = expected::text);
	RETURN CASE WHEN got::text = expected::text THEN 'ok ' || nextval('mt.n') || ' - ' || label
		ELSE 'not ok ' || nextval('mt.n') || ' - ' || label || E'\n# got ' || got || E'\n# expected ' || expected END;
END $$;
\pset tuples_only on
\pset format unaligned

-- rounding: of 2.345, 2.355 and their mirror images, 1/3, thousandths, whole yen
SELECT mt.eq(model.round_fraction(2345, 1000, 2, 'half_up'), 2.35, 'half_up: a tie goes away from zero');
SELECT mt.eq(model.round_fraction(-2345, 1000, 2, 'half_up'), -2.35, 'half_up: also below zero');
SELECT mt.eq(model.round_fraction(2.345, 1, 2, 'half_down'), 2.34, 'half_down: a tie goes toward zero');
SELECT mt.eq(model.round_fraction(2.3451, 1, 2, 'half_down'), 2.35, 'half_down: above a tie is up');
SELECT mt.eq(model.round_fraction(2.345, 1, 2, 'half_even'), 2.34, 'half_even: 2.345');
SELECT mt.eq(model.round_fraction(2.355, 1, 2, 'half_even'), 2.36, 'half_even: 2.355');
SELECT mt.eq(model.round_fraction(-2.345, 1, 2, 'half_even'), -2.34, 'half_even: -2.345');
SELECT mt.eq(model.round_fraction(2.349999, 1, 2, 'down'), 2.34, 'down');
SELECT mt.eq(model.round_fraction(-2.349999, 1, 2, 'down'), -2.34, 'down is toward zero');
SELECT mt.eq(model.round_fraction(2.340001, 1, 2, 'up'), 2.35, 'up');
SELECT mt.eq(model.round_fraction(-2.340001, 1, 2, 'up'), -2.35, 'up is away from zero');
SELECT mt.eq(model.round_fraction(2.34, 1, 2, 'up'), 2.34, 'up: exact stays');
SELECT mt.eq(model.round_fraction(1, 3, 3, 'half_up'), 0.333, 'a third in thousandths');
SELECT mt.eq(model.round_fraction(1, 2, 0, 'half_up'), 1::numeric, 'half a yen');
SELECT mt.eq(model.round_fraction(1, 2, 0, 'half_even'), 0::numeric, 'half a yen, to even');
SELECT mt.eq(model.round_fraction(0.0149999999999999999999999999999, 3, 2, 'half_up'), 0.00, 'nothing is rounded twice');
SELECT mt.eq(model.round_fraction(1234567890123456789.01 * 7, 7, 2, 'down'), 1234567890123456789.01, 'large numbers are exact');

-- percent
SELECT mt.rules('{"r": {"percent": 5}}');
SELECT mt.is('{"amount": 199.90}', 'r 10.00 pending', '5 % of 199.90 is 9.995');
SELECT mt.is('{"amount": 199.88}', 'r 9.99 pending', '5 % of 199.88 is 9.994');
SELECT mt.is('{"amount": 0.10}', 'r 0.01 pending', '5 % of 0.10 is half a cent');
SELECT mt.is('{"amount": 0.09}', '', '5 % of 0.09 is nothing');
SELECT mt.is('{"amount": 1234, "currency": "JPY"}', 'r 62 pending', 'yen have no decimals');
SELECT mt.is('{"amount": 1.234, "currency": "KWD"}', 'r 0.062 pending', 'dinars have three');
SELECT mt.is('{"amount": 0}', '', 'amount 0 pays nothing');
SELECT mt.is('{"amount": null}', '', 'NULL amount: failed');
SELECT mt.is('{"member": null}', '', 'a guest');
SELECT mt.is('{"before": true}', '', 'before attachment');
SELECT mt.is('{"at": "2025-12-31 23:59+00"}', '', 'older than since');
SELECT mt.is('{"at": "2026-01-01 00:00+00"}', 'r 5.00 pending', 'as old as since');
SELECT mt.is('{"status": "void"}', '', 'void');
SELECT mt.is('{"status": "shipped"}', '', 'unknown status: failed');
SELECT mt.is('{"status": "tracked"}', 'r 5.00 tracked', 'tracked');
SELECT mt.is('{"status": "confirmed"}', 'r 5.00 available', 'confirmed without hold');
-- refunds in steps: 33.33 of 99.99, three times
SELECT mt.is('{"amount": 99.99, "refunded": 33.33}', 'r 3.33 pending', 'refunded a third: 3.333');
SELECT mt.is('{"amount": 99.99, "refunded": 66.66}', 'r 1.67 pending', 'refunded two thirds: 1.6665');
SELECT mt.is('{"amount": 99.99, "refunded": 99.99}', '', 'refunded in full');
SELECT mt.is('{"amount": 99.99, "refunded": 120}', '', 'refunded more than that');
-- a negative row
SELECT mt.is('{"amount": -100}', 'r -5.00 available', 'a negative row, from available at once');
SELECT mt.is('{"amount": -0.10}', 'r -0.01 available', 'rounded on the absolute value');
SELECT mt.is('{"amount": -100, "refunded": 60}', 'r -5.00 available', 'refunded is not read');
SELECT mt.is('{"amount": -100, "status": "tracked"}', '', 'not before it is pending');
SELECT mt.is('{"amount": -100, "status": "confirmed"}', 'r -5.00 available', 'confirmed');
SELECT mt.rules('{"r": {"percent": 5, "hold": "14 days", "returns": "ignore"}}');
SELECT mt.is('{"status": "confirmed"}', 'r 5.00 maturing', 'confirmed with a hold');
SELECT mt.is('{"amount": -100}', '', 'returns ignored');
-- refund modes: minimum 50, 5 %, amount 100, refunded 60
SELECT mt.rules('{"a": {"percent": 5, "minimum": 50, "currency": "EUR", "refund": "pro_rata"},
				  "b": {"percent": 5, "minimum": 50, "currency": "EUR", "refund": "rejudge"},
				  "c": {"percent": 5, "minimum": 50, "currency": "EUR", "refund": "all"},
				  "d": {"percent": 5, "minimum": 50, "currency": "EUR", "refund": "keep_until_full"}}');
SELECT mt.is('{}', 'a 5.00 pending, b 5.00 pending, c 5.00 pending, d 5.00 pending', 'not refunded');
SELECT mt.is('{"refunded": 60}', 'a 2.00 pending, d 5.00 pending', 'refunded 60: pro rata 2.00, rejudged 0');
SELECT mt.is('{"refunded": 50}', 'a 2.50 pending, b 2.50 pending, d 5.00 pending', 'refunded 50: rejudged 2.50');
SELECT mt.is('{"refunded": 0.01}', 'a 5.00 pending, b 5.00 pending, d 5.00 pending', 'refunded a cent');
SELECT mt.is('{"refunded": 100}', '', 'refunded in full');
SELECT mt.is('{"amount": 49.99}', '', 'below the minimum');
SELECT mt.is('{"amount": -50}', 'a -2.50 available, b -2.50 available, c -2.50 available, d -2.50 available', 'a return of the minimum');
SELECT mt.is('{"currency": "USD"}', '', 'money constants are of one currency');
SELECT mt.rules('{"f": {"fixed": 3, "currency": "EUR"}, "g": {"fixed": 3, "currency": "EUR", "refund": "rejudge"}}');
SELECT mt.is('{}', 'f 3.00 pending, g 3.00 pending', 'fixed');
SELECT mt.is('{"refunded": 25}', 'f 2.25 pending, g 3.00 pending', 'fixed, a quarter refunded');
SELECT mt.is('{"refunded": 100}', '', 'fixed, all refunded');
SELECT mt.is('{"amount": -1}', 'f -3.00 available, g -3.00 available', 'fixed, returned');
-- limits
SELECT mt.rules('{"c": {"percent": 10, "max": 6, "currency": "EUR"}, "r": {"percent": 10, "max": 6, "currency": "EUR", "limit": "reject"}}');
SELECT mt.is('{"amount": 60}', 'c 6.00 pending, r 6.00 pending', 'at the limit');
SELECT mt.is('{"amount": 60.01}', 'c 6.00 pending', 'above it: clipped, rejected');
SELECT mt.is('{"amount": 100, "refunded": 50}', 'c 3.00 pending', 'the clipped 6.00 by half, not 5.00');
SELECT mt.is('{"amount": -100}', 'c -6.00 available', 'the mirror image is clipped too');
-- per unit
SELECT mt.rules('{"u": {"per_unit": 0.25, "currency": "EUR"}}');
SELECT mt.is('{"quantity": 3}', 'u 0.75 pending', 'three units');
SELECT mt.is('{"quantity": 3, "refunded": 50}', 'u 0.38 pending', 'half the amount refunded: 0.375');
SELECT mt.is('{"amount": -100, "quantity": -3}', 'u -0.75 available', 'three units back');
SELECT mt.is('{"amount": -100, "quantity": 3}', 'u -0.75 available', 'also if they are written as positive');
SELECT mt.is('{"quantity": -3}', '', 'but a purchase has no units back');
UPDATE model.source SET refunded_quantity = 'rq';
SELECT mt.is('{"quantity": 0, "rq": 0}', '', 'no units');
SELECT mt.is('{"quantity": 3, "rq": 1}', 'u 0.50 pending', 'one of three units back');
SELECT mt.is('{"quantity": 3, "rq": 1, "refunded": 70}', 'u 0.50 pending', 'the quantity replaces the fraction');
SELECT mt.is('{"quantity": 3, "rq": 1, "refunded": 100}', '', 'unless the amount is refunded in full');
SELECT mt.is('{"quantity": 3, "rq": 5}', '', 'more units back than bought');
UPDATE model.source SET refunded_quantity = NULL;
-- base of the other sign
SELECT mt.rules('{"b": {"percent": 10, "base": "basis"}}');
SELECT mt.is('{"basis": 40}', 'b 4.00 pending', 'a base of its own');
SELECT mt.is('{"basis": -40}', '', 'of the other sign: 0');
SELECT mt.is('{"amount": -100, "basis": -40}', 'b -4.00 available', 'both negative');
SELECT mt.is('{"basis": 40, "refunded": 25}', 'b 3.00 pending', 'refunds are parts of the amount');
-- groups
SELECT mt.rules('{"a": {"percent": 1, "base": "basis", "group": "g", "mode": "first", "priority": 1}, "b": {"percent": 9, "group": "g", "mode": "first"}}');
SELECT mt.is('{"basis": 0}', '', 'first: a base of 0 applies, and pays nothing');
SELECT mt.is('{}', 'b 9.00 pending', 'first: without a base the rule does not apply');
SELECT mt.rules('{"a": {"percent": 1, "group": "g", "mode": "first", "priority": 5}, "b": {"percent": 9, "group": "g", "mode": "first"},
				  "c": {"percent": 2}}');
SELECT mt.is('{}', 'a 1.00 pending, c 2.00 pending', 'first: by priority; a rule alone pays');
SELECT mt.rules('{"a": {"percent": 1, "group": "g", "mode": "first"}, "b": {"percent": 9, "group": "g", "mode": "first"}}');
SELECT mt.is('{}', 'a 1.00 pending', 'first, tie: the older rule');
SELECT mt.rules('{"a": {"percent": 1, "group": "g", "mode": "first", "condition": "amount > 100"}, "b": {"percent": 9, "group": "g", "mode": "first"}}');
SELECT mt.is('{}', 'b 9.00 pending', 'first of those that apply');
SELECT mt.rules('{"a": {"percent": 50, "max": 3, "currency": "EUR", "group": "g", "mode": "best"}, "b": {"fixed": 4, "currency": "EUR", "group": "g", "mode": "best"}}');
SELECT mt.is('{}', 'b 4.00 pending', 'best after the limit');
SELECT mt.is('{"amount": 4, "refunded": 3}', 'b 1.00 pending', 'best before refunds');
SELECT mt.rules('{"a": {"percent": 4, "group": "g", "mode": "best"}, "b": {"fixed": 4, "currency": "EUR", "group": "g", "mode": "best", "priority": 1},
				  "c": {"fixed": 4, "currency": "EUR", "group": "g", "mode": "best", "priority": 1}}');
SELECT mt.is('{}', 'b 4.00 pending', 'best, tie: priority, then the older rule');
SELECT mt.is('{"amount": 100.01}', 'a 4.00 pending', 'best compares exactly');
SELECT mt.rules('{"a": {"percent": 4, "group": "g", "mode": "stack"}, "b": {"percent": 1, "group": "g", "mode": "stack"}}');
SELECT mt.is('{}', 'a 4.00 pending, b 1.00 pending', 'stack: all');
-- scope and condition
SELECT mt.rules('{"a": {"percent": 1, "scope": {"country": ["DE", "AT"], "shop": 1}}, "b": {"percent": 2, "condition": "country = ''DE''"}}');
SELECT mt.is('{"country": "AT"}', 'a 1.00 pending', 'scope: any of the list, all attributes');
SELECT mt.is('{"country": "DE", "shop": 2}', 'b 2.00 pending', 'scope: not that shop');
SELECT mt.is('{}', '', 'NULL matches nothing');
-- versions and validity
SELECT mt.rules('{"r": {"percent": 1}}');
SELECT mt.version('r', 2, 2, '{"percent": 2, "from": "2026-03-10 12:00+00"}');
SELECT mt.version('r', 3, 3, '{"from": "2026-03-20 00:00+00"}');
SELECT mt.is('{}', 'r 1.00 pending', 'an order keeps its generation');
SELECT mt.is('{"generation": 2}', 'r 2.00 pending', 'version 2, from its first instant');
SELECT mt.is('{"generation": 2, "at": "2026-03-10 11:59:59.999999+00"}', 'r 1.00 pending', 'before it is valid version 1 applies');
SELECT mt.is('{"generation": 3}', 'r 2.00 pending', 'not ended yet');
SELECT mt.is('{"generation": 3, "at": "2026-03-20 00:00+00"}', '', 'ended');
UPDATE model.source SET order_time_is_date = true;
SELECT mt.is('{"generation": 2, "at": "2026-03-10 00:00+00"}', 'r 2.00 pending', 'a date: version 2 counts from the start of its day');
SELECT mt.is('{"generation": 2, "at": "2026-03-09 00:00+00"}', 'r 1.00 pending', 'the day before');
UPDATE model.programme SET time_zone = 'Europe/Berlin';
SELECT mt.is('{"generation": 2, "at": "2026-03-09 23:00+00"}', 'r 2.00 pending', 'the day begins in the zone of the programme');
SELECT mt.rules('{"r": {"percent": 1, "to": "2026-03-11 00:00+00"}}');
SELECT mt.is('{}', 'r 1.00 pending', 'valid until');
SELECT mt.is('{"at": "2026-03-11 00:00+00"}', '', 'the end is not in it');

-- splits: what has a fixed amount, a minimum or a limit counts once
UPDATE model.source SET order_time_is_date = false;
UPDATE model.programme SET time_zone = 'UTC';
SELECT mt.rules('{"f": {"fixed": 5, "currency": "EUR", "minimum": 100}, "p": {"percent": 1}}');
SELECT mt.are('[{}, {"amount": 40}]', '1: f 5.00 pending, 1: p 1.00 pending, 2: p 0.40 pending', 'two orders: each by itself');
SELECT mt.are('[{"amount": 60}, {"amount": 40, "part_of": 1}]', '1: f 3.00 pending, 1: p 0.60 pending, 2: f 2.00 pending, 2: p 0.40 pending', 'one order of two parts');
SELECT mt.are('[{"amount": 33.33}, {"amount": 33.33, "part_of": 1}, {"amount": 33.34, "part_of": 2}]',
	'1: f 1.67 pending, 1: p 0.33 pending, 2: f 1.66 pending, 2: p 0.33 pending, 3: f 1.67 pending, 3: p 0.33 pending',
	'166.65, 166.65, 166.70: a cent to the largest fraction, one to the smaller key');
SELECT mt.are('[{"amount": 60}, {"amount": 40, "part_of": 1, "status": "void"}]', '1: p 0.60 pending', 'the part that is void does not count');
SELECT mt.are('[{"amount": 60}, {"amount": 40, "part_of": 1, "refunded": 20}]', '1: f 3.00 pending, 1: p 0.60 pending, 2: f 1.00 pending, 2: p 0.20 pending', 'a refund takes of its own share');
SELECT mt.are('[{"amount": 60}, {"amount": 40, "part_of": 1, "currency": "USD"}]', '1: p 0.60 pending, 2: p 0.40 pending', 'another currency is another order');
SELECT mt.rules('{"c": {"percent": 10, "max": 7, "currency": "EUR"}, "r": {"percent": 10, "max": 7, "limit": "reject", "currency": "EUR"}}');
SELECT mt.are('[{"amount": 50}, {"amount": 50, "part_of": 1}]', '1: c 3.50 pending, 2: c 3.50 pending', 'a limit is one for both');
SELECT mt.are('[{"amount": 30}, {"amount": 40, "part_of": 1}]',
	'1: c 3.00 pending, 1: r 3.00 pending, 2: c 4.00 pending, 2: r 4.00 pending', 'up to the limit');

-- the clock: frozen time does not count, once for all reasons
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-01 12:00+00', '14 days'), '2026-03-15 12:00+00'::timestamptz, 'never frozen');
INSERT INTO model.freeze VALUES ('mt.o', '1', 'a', '2026-03-05 00:00+00', '2026-03-08 00:00+00');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-01 12:00+00', '14 days'), '2026-03-18 12:00+00'::timestamptz, 'three days');
INSERT INTO model.freeze VALUES ('mt.o', '1', 'b', '2026-03-06 00:00+00', '2026-03-09 00:00+00');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-01 12:00+00', '14 days'), '2026-03-19 12:00+00'::timestamptz, 'four, not six');
INSERT INTO model.freeze VALUES ('mt.o', '1', 'a', '2026-03-18 00:00+00', '2026-03-20 00:00+00');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-01 12:00+00', '14 days'), '2026-03-21 12:00+00'::timestamptz, 'and two before it was due by then');
INSERT INTO model.freeze VALUES ('mt.o', '1', 'a', '2026-03-22 00:00+00', '2026-03-23 00:00+00');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-01 12:00+00', '14 days'), '2026-03-21 12:00+00'::timestamptz, 'later it has come already');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-08 12:00+00', '14 days'), '2026-03-26 00:00+00'::timestamptz, 'the end of one, two, and one');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-01 12:00+00', '0'), '2026-03-01 12:00+00'::timestamptz, 'at once');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-07 12:00+00', '0'), '2026-03-09 00:00+00'::timestamptz, 'at once, but it is frozen');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-05 00:00+00', '0'), '2026-03-09 00:00+00'::timestamptz, 'as soon as it is frozen');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-09 00:00+00', '0'), '2026-03-09 00:00+00'::timestamptz, 'as soon as it is not');
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-02-19 00:00+00', '14 days'), '2026-03-05 00:00+00'::timestamptz, 'due before it is frozen');
INSERT INTO model.freeze VALUES ('mt.o', '1', 'a', '2026-03-28 00:00+00', NULL);
SELECT mt.eq(model.clock_at('mt.o', '1', '2026-03-01 12:00+00', '14 days'), 'infinity'::timestamptz, 'frozen, it does not come');
SELECT mt.eq(model.clock_at('mt.o', '2', '2026-03-09 00:00+00', '14 days'), '2026-03-23 00:00+00'::timestamptz, 'another order');
SELECT mt.rules('{"r": {"percent": 1}}');
SELECT mt.is('{"status": "confirmed"}', 'r 1.00 maturing', 'without a hold, but it was frozen');
DELETE FROM model.freeze;
SELECT mt.is('{"status": "confirmed"}', 'r 1.00 available', 'confirmed by its row');
INSERT INTO model.aged VALUES ('mt.o', '1', 'confirmed', '2026-04-10 12:00+00', 'pending', '');
SELECT mt.is('{"status": "pending"}', 'r 1.00 available', 'confirmed by the clock');
SELECT mt.is('{"status": "tracked"}', 'r 1.00 tracked', 'while its row says pending');

SELECT '1..' || count(*) FROM mt.result;
ROLLBACK;
