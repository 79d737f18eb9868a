"""One random stream of statements over random rules: see README.md."""
import os
import random
import re
from datetime import datetime, timedelta, timezone

from stream_life import Life, lit
from stream_sessions import Sessions

ROLE = 'rebate_streams_clerk'
AVOID = [x for x in (os.environ.get('REBATE_AVOID') or '').split(',') if x]

# Errors that statements may end with: they are part of the stream.
ALLOWED = {
    '23505',    # unique_violation: a key that is there already
    '23503',    # foreign_key_violation: a shop that is not there
    '25P02',    # in_failed_sql_transaction
    '3B001',    # invalid_savepoint_specification, in a failed transaction
    '21000',    # cardinality_violation: ON CONFLICT or MERGE met a row twice
    '27000',    # triggered_data_change_violation: a trigger changed the row first
    '42704',    # COMMIT PREPARED of a transaction that failed
}


class Stream(Life, Sessions):
    """One stream: set-up, then items (each one or more statements at top level)."""

    def __init__(self, seed, number):
        self.number = number
        self.rng = random.Random('%s/%s' % (seed, number))
        self.items = []                 # (kind, text)
        self.setup = []
        self.codes = set(ALLOWED)
        self.savepoints = 0
        self.leaves = {}
        self.bounds = {}
        self.choose()
        self.make_setup()
        if self.sessions:
            self.make_sessions()
        elif self.shuffled:
            self.make_chains()
        else:
            self.make_items()

    # -- what kind of stream ------------------------------------------------

    def choose(self):
        r = self.rng
        p = lambda x: r.random() < x
        self.shuffled = p(0.25)
        plain = self.shuffled
        self.base_time = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
        self.tables = ['shop.o'] if plain or p(0.7) else ['shop.o', 'shop."Order Two"']
        self.key = r.choice(['int', 'int', 'int', 'bigint', 'text', 'composite', 'composite', 'numeric', 'char', 'uuid'])
        self.member_type = r.choice(['text', 'text', 'text', 'bigint', 'char(6)', 'numeric'])
        self.amount_type = r.choice(['numeric', 'numeric', 'numeric(12,2)', 'numeric(14,4)', 'integer', 'double precision'])
        self.amount = r.choice(['total', 'total', 'total', 'total - discount', 'total * 1.19', 'price * count'])
        self.currency = r.choice(['cur', 'cur', 'cur', 'EUR', 'JPY', 'KWD', 'upper(cur)'])
        self.negatives = p(0.4)
        self.quantity = r.choice([None, 'qty', 'qty * 2'])
        if self.quantity and self.negatives and p(0.5):
            # returns carry their quantity with either sign
            self.quantity = 'CASE WHEN (%s) < 0 THEN -(%s) ELSE (%s) END' % (self.amount, self.quantity, self.quantity)
        self.order_time = r.choice([None, None, 'timestamptz', 'timestamptz', 'timestamp', 'date'])
        self.status = r.choice([None, 'map', 'map', 'map', 'phase'])
        self.confirmed_at = p(0.3)
        self.refunded = p(0.8)
        self.refunded_quantity = self.quantity and p(0.4)
        self.attributes = r.choice([None, None, 'some'])
        # the last keys are those of returns, if negative, of orders under the first ones
        self.returns = self.negatives and p(0.6)
        self.zone = r.choice(['UTC', 'UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Kolkata'])
        self.session_zone = r.choice(['UTC', 'Pacific/Auckland', 'America/Los_Angeles'])
        self.datestyle = r.choice(['ISO, MDY', 'German', 'SQL, DMY'])
        self.isolation = r.choice(['read committed', 'read committed', 'repeatable read', 'serializable'])
        self.clerk = p(0.3)
        self.abort = not plain and p(0.1)
        self.fails = not plain and p(0.35)
        self.rekeys = not plain and p(0.4)
        self.rule_changes = not plain and p(0.45)
        self.loose_rekeys = self.rekeys and p(0.5)      # anywhere; the test does not follow the facts then
        self.cascade = not plain and p(0.25)
        self.triggers = not plain and p(0.4)
        self.prepared = not plain and p(0.15)
        self.old_rows = not plain and p(0.3)        # rows before attach
        self.old_times = self.order_time and not plain and p(0.3)
        self.truncates = not plain and p(0.3)
        self.sessions = r.choice([2, 3]) if p(0.12) else 0
        self.crowded = p(0.2)                       # rules that compete for the same orders
        self.late_keys = self.rule_changes and p(0.7)   # orders that first come when rules have changed
        self.members = None             # of the session whose statements are made
        self.choose_life()
        for feature in AVOID:
            setattr(self, feature, False)
        if self.sessions:
            self.restrict_sessions()
        self.restrict_life()
        self.keys = self.make_keys(10 if self.sessions else r.choice([4, 7, 10]))
        self.originals = self.keys[:len(self.keys) // 2]
        self.choose_split_keys()
        self.late = []
        if self.late_keys and not self.sessions:
            n = max(1, 2 * len(self.keys) // 5)
            self.keys, self.late = self.keys[:-n], self.keys[-n:]
        if self.returns and 'cur' in self.currency:
            self.currency = 'EUR'           # a return in another currency would fail
        if self.abort:
            self.codes.add('RB010')         # order_failed
        if not self.truncates:
            self.codes.add('RB008')         # truncate_refused
        self.statuses = {'new': 'tracked', 'paid': 'pending', 'sent': 'pending', 'done': 'confirmed', 'gone': 'void'} \
            if self.status == 'map' else {x: x for x in ('tracked', 'pending', 'confirmed', 'void')}

    def make_keys(self, n):
        r = self.rng
        if self.key in ('int', 'bigint'):
            base = r.choice([0, 1000000, -5]) if self.key == 'int' else 9000000000
            return [str(base + i) for i in range(1, n + 1)]
        if self.key == 'text':
            return [lit(x) for x in ['A1', 'a1', 'b 2', 'c"3', 'ü4', "d'5", ' e', '6', '06', 'x\\y'][:n]]
        if self.key == 'char':
            return [lit(x) for x in ['a', 'A', 'b', 'bb', 'c d', 'e', '1', '01', 'z', 'zz'][:n]]
        if self.key == 'uuid':
            return [lit('00000000-0000-4000-8000-%012x' % i) for i in range(n)]
        if self.key == 'numeric':
            return ['1', '1.5', '2.00', '-3', '0.001', '100', '1000000000000000000000', '7.10', '8', '9'][:n]
        return ['%d, %s' % (i % 2 + 1, lit(x)) for i, x in enumerate(['a', 'a', 'b', 'b"', "c'", 'd,', '[e]', 'f', 'g', 'h'][:n])]

    # -- set-up -------------------------------------------------------------

    @property
    def key_columns(self):
        return ['branch', 'no'] if self.key == 'composite' else ['id']

    @property
    def ref_columns(self):
        return ['r' + c for c in self.key_columns]

    def ref_types(self, keys):
        return ', '.join(p + x for p in 'rs' for x in keys.split(', '))

    def original(self):
        """The mapping: what a row returns."""
        returns = '(%s) < 0 AND NOT (%s)' % (self.amount, ' OR '.join(self.where(k) for k in self.originals))
        return ['CASE WHEN %s THEN %s END' % (returns, c) for c in self.ref_columns]

    def where(self, key, alias=''):
        dot = alias + '.' if alias else ''
        if self.key == 'composite':
            return '(%sbranch, %sno) = (%s)' % (dot, dot, key)
        return '%sid = %s' % (dot, key)

    def model_key(self, key=None):
        """The key's canonical text as the model writes it, of a row, of a literal or of a list of columns."""
        if self.key == 'composite':
            a, b = ('branch', 'no') if key is None else key if isinstance(key, list) else key.split(', ', 1)
            return 'jsonb_build_array((%s)::text, %s)::text' % (a, b)
        x = 'id' if key is None else key[0] if isinstance(key, list) else key
        if self.key == 'numeric':
            return 'trim_scale(%s)::text' % x
        if self.key == 'char':
            return 'rtrim(%s::text)' % x
        return '(%s)::text' % x

    def time(self, key=None):
        r = self.rng
        if self.old_times and r.random() < 0.2:
            hours = -24 * r.randint(11, 13)
        else:
            hours = r.choice([0, -1, -30, -24 * r.randint(1, 9), 12])
        t = self.base_time + timedelta(hours=hours)
        if self.order_time == 'date':
            return lit(t.strftime('%Y-%m-%d'))
        if self.order_time == 'timestamp':
            return lit(t.strftime('%Y-%m-%d %H:%M:%S'))
        return lit(t.strftime('%Y-%m-%d %H:%M:%S+00'))

    def instant(self, days):
        t = self.base_time + timedelta(days=days)
        return lit(t.strftime('%Y-%m-%d %H:%M:%S+00'))

    def midnight(self, days):
        """The start of a day in the programme's zone."""
        t = self.base_time + timedelta(days=days)
        return "('%s 00:00'::timestamp AT TIME ZONE '%s')" % (t.strftime('%Y-%m-%d'), self.zone)

    def make_setup(self):
        r = self.rng
        out = self.setup
        out.append('CREATE SCHEMA shop;')
        keys = {'int': 'id integer', 'bigint': 'id bigint', 'text': 'id text', 'char': 'id char(5)', 'uuid': 'id uuid',
                'numeric': 'id numeric', 'composite': 'branch integer, no text'}[self.key]
        placed = self.order_time or 'timestamptz'
        references = ''
        if self.cascade:
            out.append('CREATE TABLE shop.branch (shop integer PRIMARY KEY);\nINSERT INTO shop.branch VALUES (1), (2), (3), (4);')
            references = ' REFERENCES shop.branch ON UPDATE CASCADE ON DELETE %s' % r.choice(['CASCADE', 'SET NULL'])
        dropped = r.random() < 0.3
        for t in self.tables:
            by, parts = self.make_partitions(t, keys) if self.partitions else (None, [])
            out.append('CREATE TABLE %s (%s%s, customer %s, total %s, discount numeric DEFAULT 0, price numeric, count integer, '
                       'cur text, qty numeric, status text, refunded numeric, rqty numeric, placed %s, done_at timestamptz, '
                       'country text, shop integer%s, weight numeric(6,2), cat char(4), note text, %s, PRIMARY KEY (%s))%s;'
                       % (t, 'gone integer, ' if dropped else '', keys, self.member_type, self.amount_type, placed, references, self.ref_types(keys),
                          ', '.join(self.key_columns), ' PARTITION BY ' + by if by else ''))
            if dropped:
                out.append('ALTER TABLE %s DROP COLUMN gone;' % t)
            out += parts
        out.append('GRANT USAGE ON SCHEMA shop TO %s;\nGRANT ALL ON ALL TABLES IN SCHEMA shop TO %s;' % (ROLE, ROLE))
        if self.zone != 'UTC' or r.random() < 0.5:
            out.append("SELECT rebate.set_programme('%s');\nUPDATE model.programme SET time_zone = '%s';" % (self.zone, self.zone))
        if self.old_rows:
            for t in self.tables:
                for k in r.sample(self.keys, 2):
                    out.append(self.insert(t, [k]) + ';')
        user = self.triggers and r.random() < 0.7
        if user:
            self.user_triggers(before=True)
        groups, rules = self.make_rules()
        out += groups
        # what needs no table to be checked against may be written before there is one
        early = [x for x in rules if r.random() < 0.5 and not re.search('scope|condition|base|source', x)] if r.random() < 0.4 else []
        out += early
        for t in self.tables:
            self.attach(t)
        if self.triggers:
            self.user_triggers(before=False)
        if self.ageing:
            out += [self.set_ageing(t) for t in self.tables]
        out += [x for x in rules if x not in early]
        if self.loose_rekeys:
            self.rule_changes = self.approval = False
        if self.approval:
            out.append('SELECT model.require_approval();')
        if not self.loose_rekeys:
            out.append('SELECT model.observe();')
        out.append("SET TimeZone = '%s';\nSET DateStyle = '%s';\nSET default_transaction_isolation = '%s';"
                   % (self.session_zone, self.datestyle, self.isolation))
        if r.random() < 0.2:
            out.append("SET search_path = '';")
        if r.random() < 0.2:
            out.append("SET extra_float_digits = -5;\nSET IntervalStyle = 'sql_standard';")
        if self.replica:
            out.append('SET session_replication_role = replica;')

    def attach(self, table):
        a = {'member': 'customer', 'amount': self.amount, 'currency': self.currency}
        m = {'source': lit(table), 'key': lit(self.model_key()), 'amount': lit(self.amount),
             'currency': lit(self.currency if 'cur' in self.currency else lit(self.currency))}
        m['member'] = lit({'numeric': 'trim_scale(customer)', 'char(6)': 'rtrim(customer::text)'}.get(self.member_type, 'customer'))
        if self.rng.random() < 0.1:
            a['key'] = 'ARRAY[%s]' % ', '.join(lit(k) for k in self.key_columns)
        if self.quantity:
            a['quantity'] = self.quantity
            m['quantity'] = lit(self.quantity)
        since = self.midnight(-10)
        if self.order_time:
            a['order_time'] = 'placed'
            m['order_time'] = lit('placed' if self.order_time == 'timestamptz' else "placed::timestamp AT TIME ZONE '%s'" % self.zone)
            m['order_time_is_date'] = 'true' if self.order_time == 'date' else 'false'
        if self.status:
            a['status'] = 'status'
            m['status'] = lit('status')
            if self.status == 'map':
                a['phases'] = m['phases'] = lit('{%s}' % ', '.join('"%s": "%s"' % x for x in self.statuses.items()))
        if self.confirmed_at:
            a['confirmed_at'] = 'done_at'
            m['confirmed_at'] = lit('done_at')
        if self.refunded:
            a['refunded'] = 'refunded'
            m['refunded'] = lit('refunded')
        if self.refunded_quantity:
            a['refunded_quantity'] = 'rqty'
            m['refunded_quantity'] = lit('rqty')
        if self.returns:
            a['original'] = 'ARRAY[%s]' % ', '.join(lit(x) for x in self.original())
            m['original'] = lit('CASE WHEN num_nulls(%s) = 0 THEN %s END'
                                % (', '.join(self.original()), self.model_key(self.original())))
        if self.splits:
            a['replaces'] = 'ARRAY[%s]' % ', '.join(lit(x) for x in self.replaces())
            m['replaces'] = lit('CASE WHEN num_nulls(%s) = 0 THEN %s END'
                                % (', '.join(self.replaces()), self.model_key(self.replaces())))
        if self.replica:
            a['row_triggers'] = 'true'
        attributes = "'country', country, 'shop', shop, 'weight', weight, 'cat', rtrim(cat::text)"
        if self.attributes:
            a['attributes'] = lit('{"country": "lower(country)", "shop": "shop", "weight": "weight", "cat": "cat"}')
            attributes = attributes.replace("'country', country", "'country', lower(country)")
        m['attributes'] = lit('jsonb_build_object(%s)' % attributes)
        if self.abort:
            a['on_error'] = 'abort'
        if self.truncates:
            a['on_truncate'] = 'void'
        text = []
        for name, value in a.items():
            raw = name in ('key', 'phases', 'attributes', 'original', 'replaces', 'row_triggers')
            text.append('%s => %s' % ('"%s"' % name if name in ('key', 'replaces') else name, value if raw else lit(value)))
        if self.order_time:
            text.append('since => %s' % since)
            m['since'] = since
        else:
            m['since'] = "'-infinity'"
        self.setup.append('SELECT rebate.attach(%s,\n\t%s);' % (lit(table), ', '.join(text)))
        self.setup.append('INSERT INTO model.source (%s)\n\tVALUES (%s);' % (', '.join(m), ', '.join(m.values())))

    # A user's own triggers: what they do depends on the note of the row.
    def user_triggers(self, before):
        r = self.rng
        out = self.setup
        for t in self.tables:
            plain = t.replace('"', '').replace(' ', '_').replace('.', '_')
            match = ' AND '.join('t.%s = NEW.%s' % (c, c) for c in self.key_columns)
            old = match.replace('NEW', 'OLD')
            cols = ', '.join(self.all_columns())
            again = ', '.join({'note': "'again'", 'total': 'NEW.total + 7'}.get(c, 'NEW.' + c) for c in self.all_columns())
            oldrow = ', '.join({'note': "'undeleted'"}.get(c, 'OLD.' + c) for c in self.all_columns())
            name = r.choice(['a_', 'z_', 'reb', 'rebate_insert_z'])
            if before:
                out.append("""CREATE FUNCTION shop.before_%(p)s() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
	IF NEW.note = 'raise' THEN NEW.total := NEW.total + 1; END IF;
	IF NEW.note = 'swap' THEN NEW.country := 'AT'; END IF;
	RETURN NEW;
END $f$;
CREATE TRIGGER %(n)sbefore BEFORE INSERT OR UPDATE ON %(t)s FOR EACH ROW EXECUTE FUNCTION shop.before_%(p)s();"""
                           % dict(p=plain, n=name, t=t))
                continue
            out.append("""CREATE FUNCTION shop.row_%(p)s() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
	IF TG_OP = 'DELETE' THEN
		IF OLD.note = 'keep' THEN
			INSERT INTO %(t)s (%(cols)s) VALUES (%(oldrow)s);
		END IF;
		RETURN NULL;
	END IF;
	CASE NEW.note
		WHEN 'touch' THEN UPDATE %(t)s t SET total = total + 3, note = 'touched' WHERE %(match)s;
		WHEN 'drop' THEN DELETE FROM %(t)s t WHERE %(match)s;
		WHEN 'redo' THEN
			DELETE FROM %(t)s t WHERE %(match)s;
			INSERT INTO %(t)s (%(cols)s) VALUES (%(again)s);
		WHEN 'twice' THEN
			UPDATE %(t)s t SET note = 'once', total = total + 1 WHERE %(match)s;
			UPDATE %(t)s t SET note = 'never', total = total + 1 WHERE %(match)s;
		WHEN 'flip' THEN
			BEGIN
				UPDATE %(t)s t SET note = 'flop', total = total + 5 WHERE %(match)s;
				IF NEW.shop > 2 THEN RAISE EXCEPTION 'no'; END IF;
			EXCEPTION WHEN raise_exception THEN
				UPDATE %(t)s t SET note = 'flap' WHERE %(match)s;
			END;
		ELSE NULL;
	END CASE;
	RETURN NULL;
END $f$;
CREATE TRIGGER %(n)srow AFTER INSERT OR UPDATE OR DELETE ON %(t)s FOR EACH ROW EXECUTE FUNCTION shop.row_%(p)s();"""
                       % dict(p=plain, n=name, t=t, match=match, old=old, cols=cols, again=again, oldrow=oldrow))
            if r.random() < 0.6:
                name = r.choice(['a_', 'z_'])
                out.append("""CREATE FUNCTION shop.statement_%(p)s() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
	IF EXISTS (SELECT FROM %(t)s WHERE note = 'bulk') THEN
		UPDATE %(t)s SET total = total * 2, note = 'bulked' WHERE note = 'bulk';
	END IF;
	IF EXISTS (SELECT FROM %(t)s WHERE note = 'purge') THEN
		DELETE FROM %(t)s WHERE note = 'purge';
	END IF;
	RETURN NULL;
END $f$;
CREATE TRIGGER %(n)sstatement AFTER INSERT OR UPDATE ON %(t)s FOR EACH STATEMENT EXECUTE FUNCTION shop.statement_%(p)s();"""
                           % dict(p=plain, n=name, t=t))

    # -- rules ----------------------------------------------------------------

    def make_rules(self):
        r = self.rng
        self.groups = {}
        groups = []
        for name, mode in (('g first', 'first'), ('g best', 'best'), ('g stack', 'stack')):
            if r.random() < 0.5 or self.crowded and mode == 'best':
                self.groups[name] = mode
                groups.append("SELECT model.set_group(%s, '%s');" % (lit(name), mode))
        self.rule_names = ['r%d' % i for i in range(1, r.choice([2, 4, 7]) + 1)]
        return groups, [self.set_rule(name, False) for name in self.rule_names]

    def rule_currency(self):
        if 'cur' in self.currency:
            return self.rng.choice(['EUR', 'EUR', 'JPY', 'KWD'])
        return self.currency if self.rng.random() < 0.9 else 'USD'

    def money(self, currency, *values):
        v = self.rng.choice(values)
        return v * 100 if currency == 'JPY' else v

    def set_rule(self, name, change):
        r = self.rng
        p = lambda x: r.random() < x
        a = {}
        # one that pays for nearly all orders: else most streams have none that is paid for
        broad = name == 'r1' and p(0.5 if change else 0.9)
        formula = 'percent' if broad else r.choice(['percent', 'percent', 'percent', 'fixed', 'per_unit' if self.quantity else 'fixed'])
        currency = None
        if formula != 'percent' or not broad and p(0.8 if self.splits else 0.4):
            currency = self.rule_currency()
            a['currency'] = lit(currency)
        if formula == 'percent':
            a['percent'] = r.choice(['5', '2.5', '10', '3.333', '0.75', '100', '12.345678', '1'])
        else:
            a[formula] = str(self.money(currency, 1, 3, 0.5, 0.125, 2.005, 0.333))
        scopes = ['{"country": "DE"}', '{"country": ["DE", "AT"]}', '{"shop": [1, 2]}', '{"shop": 1, "country": ["AT", "DE"]}',
                  '{"weight": 1.50}', '{"weight": ["2", 1.5]}', '{"cat": "b"}', '{"cat": ["b ", "c"], "shop": [1, 2, 3]}']
        wide = self.crowded or self.late_keys       # for more orders
        if not broad and p(0.1 if wide else 0.25 if self.splits else 0.5):
            scope = r.choice(scopes[:-2] if p(0.7) else scopes[:-1] + ['{"cat": ["b", "c"], "shop": [1, 2, 3]}'])
            if self.attributes:
                scope = scope.replace('DE', 'de').replace('AT', 'at')
            a['scope'] = lit(scope)
        if not broad and p(0.1 if self.splits or wide else 0.3):
            a['condition'] = lit(r.choice([
                "country = 'DE'", 'total > 20', "qty >= 2 AND cat <> 'b'", "note IS DISTINCT FROM 'x'", 'weight / 2 > 0.8',
                'length(note) > 3', 'coalesce(discount, 0) = 0', "country IN ('DE', 'CH')", 'shop % 2 = 1', "lower(country) = 'de'",
                "CASE WHEN shop IS NULL THEN true ELSE total BETWEEN 10 AND 1000 END", 'NULL', "refunded > 0"]))
        group = 'g best' if self.crowded and p(0.7) else r.choice([None, None] + list(self.groups))
        if group:
            a['rule_group'] = lit(group)
        if formula == 'percent' and p(0.25):
            a['base'] = lit(r.choice(['total - discount', 'total * 0.5', 'qty * 2.5', 'total / 3', '(total - 10)']))
        if currency:
            if p(0.35):
                a['minimum'] = str(self.money(currency, 50, 10, 99.99, 0.01))
            if p(0.6 if self.splits else 0.4):
                a['max_per_order'] = str(self.money(currency, 1, 2.5, 5, 3.333))
                a['limit_mode'] = lit(r.choice(['clip', 'clip', 'reject']))
        if p(0.4):
            a['rounding'] = lit(r.choice(['half_even', 'half_down', 'down', 'up', 'half_up']))
        if p(0.5) and not (formula == 'per_unit' and (self.refunded_quantity or self.returns and not self.refunded)):
            a['refund'] = lit(r.choice(['pro_rata', 'rejudge', 'all', 'keep_until_full']))
        if p(0.15):
            a['unlinked_return'] = lit('ignore')
        if p(0.7 if self.clock else 0.4):
            a['hold'] = lit(r.choice(['14 days', '1 month', '36 hours', '0', '1 day 2 hours']))
        if p(0.8 if self.crowded else 0.4):
            a['priority'] = str(r.choice([1, 5, -2]))
        if self.order_time:
            start = r.choice([-100, -100, -100, -5, -2, None] if change else [-100, -100, -100, -5])
        else:
            start = r.choice([None, -100, -5]) if change or p(0.5) else None
        if start is not None:
            a['valid_from'] = self.instant(start)
        if not broad and p(0.2):
            a['valid_to'] = self.instant(r.choice([-1, 5, 5]) if start is not None else 5)
        if not broad and p(0.2):
            a['source'] = lit(r.choice(self.tables))
        return 'SELECT model.set_rule(%s, %s);' % (lit(name), ', '.join('%s => %s' % x for x in a.items()))

    # -- rows and statements --------------------------------------------------

    def columns(self):
        return ['customer', 'total', 'discount', 'price', 'count', 'cur', 'qty', 'status', 'refunded', 'rqty', 'placed', 'done_at',
                'country', 'shop', 'weight', 'cat', 'note'] + self.ref_columns + self.split_columns

    def all_columns(self):
        return self.key_columns + self.columns()

    def value(self, column):
        r = self.rng
        if column == 'customer':
            if r.random() < 0.12:
                return 'NULL'
            members = {'text': ["'alice'", "'bob'", "'Bob'", "'o''neil'", "'ümit'"], 'bigint': ['1', '2', '77000000000'],
                       'char(6)': ["'al'", "'bo'", "'al  '"], 'numeric': ['1', '1.0', '2.50', '2.5']}[self.member_type]
            return self.member_of_session(members + [lit(m) if 'char' in self.member_type or self.member_type == 'text' else m for m in self.new_members])
        if column in ('total', 'price'):
            v = r.choice(['100', '50', '49.99', '99.99', '0.10', '0.3', '33.33', '12.5', '10.01', '1.005', '1000', '7', '250', '20.7',
                          str(r.randint(1, 99999) / 100)])
            if r.random() < 0.06:
                v = '0'
            elif self.negatives and r.random() < (0.4 if self.returns else 0.2):
                v = '-' + v
            if column == 'total' and self.amount_type == 'integer':
                v = v.split('.')[0]
            return v
        if column == 'discount':
            return r.choice(['0', '0', '0', '5', '1.5'])
        if column == 'count':
            return r.choice(['1', '2', '3'])
        if column == 'cur':
            c = r.choice(['EUR', 'EUR', 'EUR', 'JPY', 'KWD', 'USD'])
            return lit(c.lower() if 'upper' in self.currency and r.random() < 0.5 else c)
        if column == 'qty':
            return r.choice(['1', '2', '3', '7', '1.5', '0' if r.random() < 0.2 else '4'])
        if column == 'status':
            return lit(r.choice(list(self.statuses)))
        if column == 'refunded':
            return r.choice(['0', '0', 'NULL', '10', '33.33', '5', '0.01', '100', '60'])
        if column == 'rqty':
            return r.choice(['0', 'NULL', '1', '2', '0.5'])
        if column == 'placed':
            return self.time()
        if column == 'done_at':
            return self.instant(r.choice([0, -1, -20])) if self.confirmed_at else r.choice(['NULL', self.instant(-1)])
        if column == 'country':
            return r.choice(["'DE'", "'AT'", "'CH'", 'NULL'])
        if column == 'shop':
            return r.choice(['1', '2', '3', '4' if self.cascade else 'NULL'])
        if column == 'weight':
            return r.choice(['1.5', '2', '3.25', 'NULL'])
        if column == 'cat':
            return r.choice(["'a'", "'b'", "'c'", 'NULL'])
        if column in self.ref_columns:
            k = r.choice(self.originals)
            part = k.split(', ', 1)[column == 'rno'] if self.key == 'composite' else k
            return part if self.returns and r.random() < 0.8 else 'NULL'
        if column in self.split_columns:
            k = r.choice(self.roots + self.middle)
            part = k.split(', ', 1)[column == 'sno'] if self.key == 'composite' else k
            return part if self.splits and r.random() < 0.7 else 'NULL'
        notes = ['NULL', "'x'", "'hello'", "''"]
        if self.triggers:
            notes += [lit(x) for x in ('touch', 'drop', 'redo', 'twice', 'flip', 'bulk', 'purge', 'keep', 'raise', 'swap')]
        return r.choice(notes)

    def values(self, key, given={}):
        return '(%s, %s)' % (key, ', '.join(given.get(c) or self.value(c) for c in self.columns()))

    def table(self):
        """An attached table, or a partition of one."""
        t = self.rng.choice(self.tables)
        return self.rng.choice(self.leaves[t]) if self.leaves and self.rng.random() < 0.3 else t

    def some_keys(self, least=1, most=4):
        return self.rng.sample(self.keys, min(len(self.keys), self.rng.randint(least, most)))

    def insert(self, table, keys, given={}):
        return 'INSERT INTO %s (%s) VALUES\n\t%s' % (table, ', '.join(self.all_columns()), ',\n\t'.join(self.values(k, given) for k in keys))

    def assignment(self, many=False, column=None):
        """One or two column = value; no value fails a row or turns its sign against its quantity."""
        r = self.rng
        choice = column or r.choice(['total', 'total', 'total', 'status', 'status', 'status', 'refunded', 'refunded', 'qty', 'rqty', 'customer',
                                     'customer', 'cur', 'placed', 'country', 'shop', 'weight', 'cat', 'note', 'note', 'discount', 'done_at',
                                     'price', 'same', 'pair'] + self.ref_columns * (3 if self.returns else 0)
                                    + self.split_columns * (2 if self.splits else 0))
        if choice == 'same':
            return r.choice(['total = total', 'note = note', 'status = status', 'shop = shop'])
        if choice == 'pair':
            return '%s, %s' % (self.assignment(many, 'status'), self.assignment(many, r.choice(['refunded', 'total', 'customer'])))
        if choice == 'total' and r.random() < 0.4:
            return r.choice(['total = total * 2', 'total = total + 1', 'total = total / 2'])
        if choice == 'refunded' and r.random() < 0.5:
            return r.choice(['refunded = greatest(total, 0)', 'refunded = coalesce(refunded, 0) + 10', 'refunded = 0',
                             'refunded = greatest(%s, 0)' % self.amount])
        if choice == 'note' and not self.triggers and r.random() < 0.5:
            return "note = coalesce(note, '') || 'y'"
        return '%s = %s' % (choice, self.value(choice))

    def predicate(self):
        r = self.rng
        if self.members is not None:
            return self.any_of(self.some_keys(1, 3))
        return r.choice(['true', 'shop = %s' % r.choice('123'), "country = 'DE'", 'total > 30', "status = %s" % lit(r.choice(list(self.statuses))),
                         'customer IS NULL', '(%s) IN (%s)' % (', '.join(self.key_columns), ', '.join(
                             '(%s)' % k for k in self.some_keys(2, 4)))])

    def upsert(self, table, keys):
        r = self.rng
        action = r.choice(['DO NOTHING', 'DO UPDATE SET total = excluded.total, status = excluded.status',
                           'DO UPDATE SET total = o.total + excluded.total', 'DO UPDATE SET refunded = coalesce(o.refunded, 0) + 1, customer = excluded.customer',
                           'DO UPDATE SET status = excluded.status WHERE o.shop = 1', "DO UPDATE SET note = 'x'"])
        return '%s\n\tON CONFLICT (%s) %s' % (self.insert(table, keys).replace(' (', ' AS o (', 1), ', '.join(self.key_columns), action)

    def merge(self, table, keys):
        r = self.rng
        rows = ',\n\t\t'.join('(%s, %s, %s)' % (k, r.choice(['true', 'false', 'false']), self.values(k).split(', ', 1)[1][:-1]
                                                if self.key != 'composite' else self.values(k).split(', ', 2)[2][:-1]) for k in keys)
        cols = self.columns()
        src = ', '.join(['k_' + c for c in self.key_columns] + ['del'] + ['v_' + c for c in cols])
        # casts: a VALUES list of NULLs is text
        types = {'customer': self.member_type, 'total': self.amount_type, 'discount': 'numeric', 'price': 'numeric', 'count': 'integer',
                 'cur': 'text', 'qty': 'numeric', 'status': 'text', 'refunded': 'numeric', 'rqty': 'numeric', 'placed': self.order_time or 'timestamptz',
                 'done_at': 'timestamptz', 'country': 'text', 'shop': 'integer', 'weight': 'numeric', 'cat': 'char(4)', 'note': 'text'}
        ktypes = {'char': 'char(5)', 'uuid': 'uuid'}
        for c in self.ref_columns + self.split_columns:
            types[c] = {'branch': 'integer', 'no': 'text'}.get(c[1:]) or {'int': 'integer'}.get(self.key) or ktypes.get(self.key, self.key)
        k = ktypes.get(self.key)
        on = ' AND '.join('o.%s = v.k_%s%s' % (c, c, '::' + k if k else '') for c in self.key_columns)
        return ('MERGE INTO %s AS o USING (VALUES\n\t\t%s) AS v(%s)\n\tON %s\n\tWHEN MATCHED AND v.del THEN DELETE\n\t'
                'WHEN MATCHED THEN UPDATE SET total = v.v_total, status = v.v_status%s\n\t'
                'WHEN NOT MATCHED AND NOT v.del THEN INSERT (%s) VALUES (%s)'
                % (table, rows, src, on, r.choice(['', ', customer = v.v_customer::' + self.member_type, ', refunded = 5']),
                   ', '.join(self.all_columns()),
                   ', '.join(['v.k_' + c + ('::' + k if k else '') for c in self.key_columns] + ['v.v_%s::%s' % (c, types[c]) for c in cols])))

    def insert_select(self, table):
        r = self.rng
        new = r.choice(self.keys)
        other = self.table()
        change = {'total': 'total + 1'} if r.random() < 0.5 else {'customer': self.value('customer')}
        select = ', '.join(change.get(c, c) for c in self.columns())
        return ('INSERT INTO %s (%s)\n\tSELECT %s, %s FROM %s\n\tWHERE total IS NOT NULL AND total <> \'NaN\' AND status IN (%s) AND cur <> \'QQQ\' '
                'ORDER BY %s LIMIT 1%s'
                % (table, ', '.join(self.all_columns()), new, select, other, ', '.join(lit(s) for s in self.statuses),
                   ', '.join(self.key_columns), r.choice(['', ' ON CONFLICT DO NOTHING']))).replace("total <> 'NaN' AND ", '' if self.amount_type == 'integer' else "total <> 'NaN' AND ")

    def generate(self, table):
        keys = ', '.join('(%s)' % k for k in self.some_keys(2, 5))
        cols = ', '.join(self.value(c) for c in self.columns())
        names = ', '.join('k%d' % i for i, _ in enumerate(self.key_columns))
        cast = {'char': '::char(5)', 'uuid': '::uuid'}.get(self.key, '')
        return 'INSERT INTO %s (%s)\n\tSELECT %s, %s FROM (VALUES %s) AS k(%s) ON CONFLICT DO NOTHING' % (
            table, ', '.join(self.all_columns()), names + cast if cast else names, cols, keys, names)

    def cte(self, table):
        r = self.rng
        a, b = r.sample(self.keys, 2)
        other = self.table()
        kind = r.randrange(5)
        cols = ', '.join(self.columns())
        if kind == 0:
            return 'WITH d AS (DELETE FROM %s WHERE %s RETURNING *)\nINSERT INTO %s (%s) SELECT %s, %s FROM d' % (
                table, self.where(a), other, ', '.join(self.all_columns()), b, cols)
        if kind == 1:
            return 'WITH u AS (UPDATE %s SET %s WHERE %s RETURNING *)\nUPDATE %s SET %s WHERE %s' % (
                table, self.assignment(), self.where(a), other, self.assignment(), self.where(b))
        if kind == 2:
            return 'WITH i AS (%s ON CONFLICT DO NOTHING RETURNING *), u AS (UPDATE %s SET %s WHERE %s RETURNING *)\nSELECT FROM i, u' % (
                self.insert(table, [a]), other, self.assignment(), self.where(b))
        if kind == 3:
            return 'WITH d AS (DELETE FROM %s WHERE %s RETURNING *), i AS (%s RETURNING *)\nSELECT FROM d, i' % (
                table, self.where(a), self.insert(other, [b]))
        return 'WITH u AS (UPDATE %s SET %s WHERE %s RETURNING *)\n%s' % (table, self.assignment(), self.where(a), self.upsert(other, [b]))

    def copy(self, table, keys):
        def cell(text):
            if text == 'NULL':
                return '\\N'
            if text.startswith("'"):
                text = text[1:-1].replace("''", "'")
            return text.replace('\\', '\\\\')
        lines = []
        for k in keys:
            parts = k.split(', ', 1) if self.key == 'composite' else [k]
            lines.append('\t'.join([cell(x) for x in parts] + [cell(self.value(c)) for c in self.columns()]))
        return 'COPY %s (%s) FROM STDIN;\n%s\n\\.' % (table, ', '.join(self.all_columns()), '\n'.join(lines))

    def dml(self):
        """A statement that may be anywhere."""
        r = self.rng
        t = self.table()
        k = r.choice(self.keys)
        n = r.random()
        if n < 0.22:
            return self.insert(t, [k]) + r.choice(['', '\n\tON CONFLICT DO NOTHING'])
        if self.members is not None and (n > 0.99 or 0.38 <= n < 0.41):
            n = 0.5                     # they touch rows or members of other sessions
        if n > 0.99:
            return 'TRUNCATE %s' % t
        if n < 0.28:
            return self.insert(t, self.some_keys(2, 4)) + r.choice(['', '\n\tON CONFLICT DO NOTHING'])
        if n < 0.33:
            return self.upsert(t, self.some_keys(1, 3))
        if n < 0.38:
            return self.merge(t, self.some_keys(1, 3))
        if n < 0.41:
            return self.insert_select(t)
        if n < 0.44:
            return self.generate(t)
        if n < 0.65:
            return 'UPDATE %s SET %s WHERE %s' % (t, self.assignment(), self.where(k))
        if n < 0.76:
            return 'UPDATE %s SET %s WHERE %s' % (t, self.assignment(True), self.predicate())
        if n < 0.84:
            return 'DELETE FROM %s WHERE %s' % (t, self.where(k))
        if n < 0.86:
            return 'DELETE FROM %s WHERE %s' % (t, self.predicate())
        if n < 0.93:
            return self.cte(t)
        if self.cascade:
            return r.choice(['UPDATE shop.branch SET shop = shop + 10 WHERE shop = %d' % r.randint(1, 4), 'DELETE FROM shop.branch WHERE shop = %d' % r.randint(1, 4),
                             'UPDATE shop.branch SET shop = shop - 10 WHERE shop > 10', 'INSERT INTO shop.branch VALUES (%d) ON CONFLICT DO NOTHING' % r.randint(1, 4)])
        if self.loose_rekeys:
            return self.rekey()[0]
        return 'UPDATE %s SET %s WHERE %s' % (t, self.assignment(), self.where(k))

    def rekey(self):
        t = self.table()
        a, b = self.rng.sample(self.keys, 2)
        cols = '(%s) = (%s)' % (', '.join(self.key_columns), b) if self.key == 'composite' else 'id = %s' % b
        extra = self.rng.choice(['', '', ', total = total + 1', ", status = " + self.value('status')])
        return ('UPDATE %s SET %s%s WHERE %s' % (t, cols, extra, self.where(a)), t, a, b)

    def fail(self):
        """Makes rows fail, or lets them be good again; a transaction of its own."""
        r = self.rng
        t = self.table()
        bad = ['total = NULL'] if self.amount in ('total', 'total - discount', 'total * 1.19') else ['price = NULL']
        if self.amount_type != 'integer' and self.amount != 'price * count':
            bad.append("total = 'NaN'")
        if self.status:
            bad += ["status = 'lost'", 'status = NULL']
        if 'cur' in self.currency:
            bad += ["cur = 'QQQ'", 'cur = NULL']
        where = self.where(r.choice(self.keys)) if r.random() < 0.7 else self.predicate()
        if r.random() < 0.3:
            k = r.choice(self.keys)
            return 'SELECT model.keep(%s);\n%s\n%s;' % (lit(self.root(t)), self.become(), re.sub(
                r"\b(%s)\b" % '|'.join(map(re.escape, ["'paid'", "'pending'", "'new'"])), "'lost'", self.insert(t, [k])) if self.status
                else self.insert(t, [k]))
        return 'SELECT model.keep(%s);\n%s\nUPDATE %s SET %s WHERE %s;' % (lit(self.root(t)), self.become(), t, r.choice(bad), where)

    def become(self):
        return 'SET ROLE %s;' % ROLE if self.clerk else 'RESET ROLE;'

    def flush(self):
        return 'RESET ROLE;\nSELECT rebate.flush();\n' + self.become() if self.clerk else 'SELECT rebate.flush();'

    def inner(self, depth, n):
        """Statements inside a transaction."""
        r = self.rng
        out = []
        for _ in range(n):
            x = r.random()
            if x < 0.12:
                out.append(self.flush())
            elif x < 0.4 and depth < 3:
                self.savepoints += 1
                name = 's%d' % self.savepoints
                end = r.choice(['ROLLBACK TO %s;' % name, 'ROLLBACK TO %s;\nRELEASE %s;' % (name, name), 'RELEASE %s;' % name, 'RELEASE %s;' % name])
                out += ['SAVEPOINT %s;' % name] + self.inner(depth + 1, r.randint(1, 3)) + [end]
            elif x < 0.45:
                out.append(self.block())
            elif x < 0.48:
                out.append(self.copy(self.table(), self.some_keys(1, 2)))
            else:
                out.append(self.dml() + ';')
        return out

    def block(self):
        r = self.rng

        def body(depth):
            lines = []
            for _ in range(r.randint(1, 3)):
                if depth < 2 and r.random() < 0.4:
                    end = r.choice(['', "RAISE EXCEPTION 'undo';\n", "PERFORM 1 / 0;\n"])
                    lines.append('BEGIN\n%s%sEXCEPTION WHEN OTHERS THEN\n%sEND;\n' % (body(depth + 1), end, r.choice(['NULL;\n', self.dml_plain() + ';\n'])))
                else:
                    lines.append(self.dml_plain() + ';\n')
            return ''.join(lines)
        return 'DO $do$\nBEGIN\n%sEND $do$;' % body(0)

    def dml_plain(self):
        while True:
            text = self.dml()
            if not re.search(r'\nSELECT FROM', text):
                return text

    def transaction(self):
        r = self.rng
        body = self.inner(0, r.randint(1, 5))
        end = r.choice(['COMMIT;', 'COMMIT;', 'COMMIT;', 'ROLLBACK;'])
        if self.prepared and end == 'COMMIT;' and r.random() < 0.5:
            gid = "'%s'" % ('streams_:db_%d' % len(self.items))
            end = 'PREPARE TRANSACTION %s;\nCOMMIT PREPARED %s;' % (gid, gid) if r.random() < 0.7 else \
                'PREPARE TRANSACTION %s;\nROLLBACK PREPARED %s;' % (gid, gid)
        begin = r.choice(['BEGIN;', 'BEGIN;', 'BEGIN ISOLATION LEVEL READ COMMITTED;', 'BEGIN ISOLATION LEVEL REPEATABLE READ;'])
        return '\n'.join([begin] + body + [end])

    def rule_change(self):
        r = self.rng
        name = r.choice(self.rule_names + (['r9'] if len(self.rule_names) < 8 else []))
        if name == 'r9' and 'r9' not in self.rule_names:
            self.rule_names.append(name)
            text = self.set_rule(name, True)
        elif self.groups and self.group_changes and r.random() < 0.25:
            text = 'SELECT model.set_group(%s, %s);' % (lit(r.choice(list(self.groups))), lit(r.choice(['first', 'best', 'stack'])))
        elif r.random() < 0.25:
            at = 'NULL'
            if self.order_time and r.random() < 0.7:
                at = self.instant(r.choice([-3, -1, 0]))
            text = 'SELECT model.end_rule(%s, %s);' % (lit(name), at)
        else:
            text = self.set_rule(name, True)
        if r.random() < 0.15:
            text += '\n' + text         # the same again
        x = r.random()
        become = self.become()
        if self.splits:
            pass
        elif x < 0.2:
            text = 'BEGIN;\n%s;\nRESET ROLE;\n%s\n%s\n%s;\n%s' % (self.dml(), text, become, self.dml(), r.choice(['COMMIT;', 'ROLLBACK;']))
            text = become + '\n' + text
        elif x < 0.3:
            text = '%s\nBEGIN;\n%s;\nSAVEPOINT s;\nRESET ROLE;\n%s\n%s\n%s;\nROLLBACK TO s;\n%s;\nCOMMIT;' % (
                become, self.dml(), text, become, self.dml(), self.dml())
        return 'RESET ROLE;\nSELECT model.observe();\n%s\nRESET ROLE;\nSELECT model.observe();' % text

    def late_order(self):
        """An order that nobody has seen under the rules of before."""
        key = self.late.pop()
        self.keys.append(key)
        member = next(m for m in iter(lambda: self.value('customer'), '') if m != 'NULL')
        good = {'customer': member, 'total': '80', 'price': '80', 'discount': '0'}
        if self.status:
            good['status'] = lit(self.rng.choice([x for x, phase in self.statuses.items() if phase != 'void']))
        return self.insert(self.table(), [key], good) + ';'

    def make_items(self):
        r = self.rng
        n = r.randint(12, 30)
        changed = False
        for i in range(n):
            x = r.random()
            if changed and self.late and r.random() < 0.7:
                self.items.append(('dml', self.late_order()))
            changed = False
            lived = self.live() if i >= 3 else None
            if lived:
                self.items.append(lived)
                changed = 'model.decide_draft' in lived[1]
            elif i < 3:
                self.items.append(('dml', self.insert(self.tables[0] if i == 0 else self.table(), self.some_keys(1, 3)) + '\n\tON CONFLICT DO NOTHING;'))
            elif x < 0.28 and not self.ageing:
                self.items.append(('dml', self.transaction()))
            elif x < 0.33 and not self.ageing:
                self.items.append(('dml', self.block()))
            elif x < 0.37:
                self.items.append(('dml', self.copy(self.table(), self.some_keys(1, 3))))
            elif x < 0.45 and self.fails:
                self.items.append(('raw', 'RESET ROLE;\n' + self.fail()))
            elif x < (0.6 if self.late else 0.53) and self.rule_changes:
                self.items.append(('raw', self.rule_change()))
                changed = True
            elif x < 0.60 and self.rekeys and not self.loose_rekeys:
                text, t, a, b = self.rekey()
                self.items.append(('raw', 'RESET ROLE;\nSELECT model.observe();\n%s\n%s;\nRESET ROLE;\nSELECT model.rekeyed(%s, %s, %s);' % (
                    self.become(), text, lit(self.root(t)), self.model_key(a), self.model_key(b))))
            else:
                self.items.append(('dml', self.dml() + ';'))
            if r.random() < 0.08:
                self.items.append(('check', ''))

    # -- streams that may be shuffled: a chain of statements for each key --------

    def make_chains(self):
        r = self.rng
        self.chains = []
        t = self.tables[0]
        for k in self.keys:
            there = False
            chain = []
            for _ in range(r.randint(3, 8)):
                if not there:
                    chain.append(('insert', self.values(k)))
                    there = True
                elif r.random() < 0.2:
                    chain.append(('dml', 'DELETE FROM %s WHERE %s' % (t, self.where(k))))
                    there = False
                elif r.random() < 0.2:
                    chain.append(('dml', self.upsert(t, [k])))
                elif r.random() < 0.1:
                    chain.append(('dml', 'UPDATE %s SET %s WHERE %s AND shop IS NOT NULL' % (t, self.assignment(), self.where(k))))
                else:
                    chain.append(('dml', 'UPDATE %s SET %s WHERE %s' % (t, self.assignment(), self.where(k))))
            self.chains.append(chain)
        self.items = self.interleave(self.rng)

    def interleave(self, r):
        """The chains in a random order and in random transactions."""
        heads = [list(c) for c in self.chains]
        t = self.tables[0]
        flat = []
        while any(heads):
            i = r.choice([i for i, c in enumerate(heads) if c])
            kind, text = heads[i].pop(0)
            rows = [text]
            if kind == 'insert':
                # a few inserts at once
                for c in heads:
                    if c is not heads[i] and c and c[0][0] == 'insert' and r.random() < 0.4:
                        rows.append(c.pop(0)[1])
                text = 'INSERT INTO %s (%s) VALUES\n\t%s' % (t, ', '.join(self.all_columns()), ',\n\t'.join(rows))
            flat.append(text + ';')
        items = []
        while flat:
            n = r.choice([1, 1, 1, 3, 8])
            part, flat = flat[:n], flat[n:]
            if len(part) > 1:
                body = []
                for s in part:
                    x = r.random()
                    if x < 0.1:
                        body += ['SAVEPOINT s;', 'DELETE FROM %s;' % t, 'ROLLBACK TO s;', s]
                    elif x < 0.2:
                        body += ['SAVEPOINT s;', s, self.flush(), 'ROLLBACK TO s;', s]
                    elif x < 0.3:
                        body += ['SAVEPOINT s;', s, 'RELEASE s;']
                    elif x < 0.35:
                        body += [s, self.flush()]
                    else:
                        body.append(s)
                items.append(('dml', '\n'.join(['BEGIN;'] + body + ['COMMIT;'])))
            else:
                items.append(('dml', part[0]))
        return items

    # -- the script of one run ------------------------------------------------

    def collect_limit(self):
        return (1, 2, 'DEFAULT', 4, 1, 16)[self.number % 6]

    def script(self, posting, items=None, database='?'):
        out = ['-- stream %d, rebate.posting = %s' % (self.number, posting),
               '\\set ON_ERROR_STOP off', '\\set VERBOSITY verbose', '\\set db %s' % database,
               '\\pset tuples_only on', '\\pset format unaligned', 'SET client_min_messages = error;',
               'SET rebate.posting = %s;' % posting,
               # most with so few that statements of some rows are large ones
               'SET rebate.collect_limit = %s;' % self.collect_limit()]
        out += self.setup
        settle = self.settle() if self.defer else 'RESET ROLE;\n'
        check = settle + "\\o\nSELECT 'DIFF|' || c FROM model.check(%s) c;\n\\o /dev/null" % (
            'true' if self.old_rows or self.old_times else 'false')
        out.append('\\o /dev/null')
        if self.sessions:
            out += [self.first, 'CREATE EXTENSION dblink SCHEMA public;'] + [self.connect(n, posting) for n in range(self.sessions)]
        for kind, text in self.items if items is None else items:
            text = text.replace("'streams_:db_", "'streams_%s_" % database)
            if kind == 'check':
                out.append(check)
            elif kind == 'raw':
                out.append(text)
            else:
                out.append(self.become())
                out.append(text)
        out += [self.say(n, 'COMMIT') for n in range(self.sessions)]
        out.append(check)
        out.append('RESET session_replication_role;')
        if self.clock:
            out += [self.end(check), check]
        out.append("\\o\nSELECT 'DIFF|' || c FROM model.finish() c;\nSELECT 'DIFF|' || c FROM model.events() c;")
        out.append("SELECT 'TOTAL|' || t FROM model.totals() t;\n\\echo END")
        return '\n'.join(out) + '\n'
