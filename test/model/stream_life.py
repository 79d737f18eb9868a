"""What happens to the orders of a stream besides statements: the clock, freezes, deferring, splits, partitions."""
from datetime import timedelta
from random import Random


def lit(value):
    return 'NULL' if value is None else "'" + str(value).replace("'", "''") + "'"


class Life:
    """Part of Stream."""

    def choose_life(self):
        r = self.rng
        p = lambda x: r.random() < x
        plain = self.shuffled
        self.clock = not plain and p(0.35)
        self.ageing = self.clock and self.status and p(0.5)
        self.defer = not plain and not self.ageing and p(0.25)
        self.splits = not plain and not self.ageing and p(0.3)
        self.partitions = not self.clock and p(0.3)
        self.replica = not plain and p(0.1)
        self.group_changes = p(0.6)
        self.archive = not plain and p(0.25)
        # with chances of its own, so that the streams of a seed stay what they are
        self.drop_rng = Random(self.number)
        self.drop = self.archive and self.drop_rng.random() < 0.6
        self.renames = not plain and p(0.25)
        self.erasure = not plain and p(0.3)
        self.approval = p(0.6)
        self.new_members = []

    def restrict_life(self):
        """Features that do not go together: what the model cannot follow, or what is no such stream."""
        if self.clock or self.splits or self.defer:
            self.rekeys = self.loose_rekeys = False
        if self.splits or self.ageing:
            self.fails = False
        if self.splits:
            # with posting = commit an order inherits of one that comes later in its transaction, too
            self.old_times = False
            if 'cur' in self.currency and self.rng.random() < 0.7:
                self.currency = 'EUR'               # groups agree in it
        if self.ageing:
            # one statement a transaction: a phase that comes and goes within one is seen or not
            self.triggers = self.prepared = self.returns = False
        if self.erasure:
            # what is shared with an order that is settled, and what returns take of it, the model does not follow
            self.splits = self.returns = self.rekeys = self.loose_rekeys = False
        if self.renames or self.erasure:
            self.codes |= {'P0002', '42710', '22023'}       # a member without an account, a key that is somebody's
        if self.erasure:
            self.codes.add('RB018')                         # asked for one who is erased
        self.approval = self.approval and self.rule_changes
        if self.approval:
            self.group_changes = False
        if self.replica:
            self.triggers = self.cascade = False
        if self.partitions and self.key not in ('int', 'bigint', 'composite'):
            self.key = self.rng.choice(['int', 'composite'])
        if self.clock:
            # a freeze in the past counts for those only that were confirmed before it
            self.confirmed_at = self.rng.random() < 0.8
            self.codes |= {'P0002', '22023'}        # a freeze of an order that is not known, or ended before it began
        if self.partitions:
            self.codes |= {'23514'}                 # a row for another partition
            if self.triggers:
                self.codes |= {'0A000'}             # the same, after a BEFORE trigger

    # -- splits -----------------------------------------------------------------

    def choose_split_keys(self):
        """No circles: the first keys are roots, the next are split from those, the others from either."""
        n = len(self.keys)
        self.roots = self.keys[:max(1, n // 3)]
        self.middle = self.keys[len(self.roots):max(2, 2 * n // 3)]

    @property
    def split_columns(self):
        return ['s' + c for c in self.key_columns]

    def any_of(self, keys, prefix=''):
        if self.key == 'composite':
            return '(%sbranch, %sno) IN (%s)' % (prefix, prefix, ', '.join('(%s)' % k for k in keys))
        return '%sid IN (%s)' % (prefix, ', '.join(keys))

    def replaces(self):
        """The mapping: what a row was split from."""
        middle = '%s AND %s' % (self.any_of(self.middle), self.any_of(self.roots, 's'))
        last = 'NOT (%s) AND %s' % (self.any_of(self.roots + self.middle), self.any_of(self.roots + self.middle, 's'))
        return ['CASE WHEN %s OR %s THEN %s END' % (middle, last, c) for c in self.split_columns]

    def split(self):
        """A new order of an old one, whose facts it gets."""
        r = self.rng
        t = self.tables[0]
        root = r.choice(self.roots)
        part = r.choice(self.keys[len(self.roots):])
        values = dict(zip(self.split_columns, root.split(', ', 1) if self.key == 'composite' else [root]))
        # a return would inherit nothing, nor would what a trigger deletes at once
        values.update(total='50', price='50', discount='0', note='NULL')
        return 'RESET ROLE;\nSELECT model.observe();\nSELECT model.before_split(%s, %s, %s);\n%s\n%s;\nRESET ROLE;\nSELECT model.after_split(%s, %s);' % (
            lit(t), self.model_key(root), self.model_key(part), self.become(), self.insert(t, [part], values), lit(t), self.model_key(part))

    # -- partitions ---------------------------------------------------------------

    def make_partitions(self, t, key):
        """A level between, a leaf below it, one with other column numbers, and a default."""
        name = lambda x: t[:-1] + '_%s"' % x if t.endswith('"') else '%s_%s' % (t, x)
        a, b = name('mid'), name('leaf')
        if self.key == 'composite':
            bounds = {a: 'IN (1)', name('late'): 'IN (2)'}
            below = 'LIST (branch)', 'IN (1)'
            by = 'LIST (branch)'
        else:
            n = sorted(int(k) for k in self.keys)
            cut = n[len(n) // 2]
            bounds = {a: 'FROM (MINVALUE) TO (%d)' % cut, name('late'): 'FROM (%d) TO (%d)' % (cut, n[-1])}
            below = 'RANGE (id)', 'FROM (MINVALUE) TO (%d)' % cut
            by = 'RANGE (id)'
        late = name('late')
        self.leaves[t] = [a, b, late, name('rest')]
        self.bounds[late] = bounds[late]
        return by, ['CREATE TABLE %s PARTITION OF %s FOR VALUES %s PARTITION BY %s;' % (a, t, bounds[a], below[0]),
                    'CREATE TABLE %s PARTITION OF %s FOR VALUES %s;' % (b, a, below[1]),
                    'CREATE TABLE %s (gone integer, LIKE %s INCLUDING DEFAULTS);\nALTER TABLE %s DROP COLUMN gone;' % (late, t, late),
                    'ALTER TABLE %s ATTACH PARTITION %s FOR VALUES %s;' % (t, late, bounds[late]),
                    'CREATE TABLE %s PARTITION OF %s DEFAULT;' % (name('rest'), t)]

    def root(self, table):
        """The attached table that a partition belongs to."""
        for t, leaves in self.leaves.items():
            if table in leaves:
                return t
        return table

    def churn(self):
        """A partition goes and comes back, changed meanwhile."""
        r = self.rng
        t = r.choice(self.tables)
        late = self.leaves[t][2]
        meanwhile = r.choice(['', 'UPDATE %s SET %s WHERE %s;\n' % (late, self.assignment(True), self.predicate())])
        return 'RESET ROLE;\nALTER TABLE %s DETACH PARTITION %s;\n%sALTER TABLE %s ATTACH PARTITION %s FOR VALUES %s;\nSELECT rebate.reconcile(%s);' % (
            t, late, meanwhile, t, late, self.bounds[late], lit(t))

    # -- the clock ----------------------------------------------------------------

    def order_key(self, table, key):
        kind = {'int': 'integer', 'char': 'char(5)'}.get(self.key, self.key)
        if self.key == 'composite':
            a, b = key.split(', ', 1)
            return 'rebate.order_key(%s, %s, %s::text)' % (lit(table), a, b)
        return 'rebate.order_key(%s, %s::%s)' % (lit(table), key, kind) if not key.startswith('-') else \
            'rebate.order_key(%s, (%s)::%s)' % (lit(table), key, kind)

    def moment(self, *days):
        t = self.base_time + timedelta(days=self.rng.choice(days))
        return lit(t.strftime('%Y-%m-%d %H:%M:%S+00'))

    def tick(self):
        """A step of the clock, or of a person who stops it."""
        r = self.rng
        x = r.random()
        t = r.choice(self.tables)
        if x < 0.3:
            return 'SELECT model.freeze(%s, %s, %s, %s);' % (
                lit(t), self.order_key(t, r.choice(self.keys[:4])), lit(r.choice(['dispute', 'review'])), self.moment(0, -1, -3, -12, -19))
        if x < 0.45:
            return 'SELECT model.unfreeze(%s, %s, %s, %s);' % (
                lit(t), self.order_key(t, r.choice(self.keys[:4])), r.choice(['NULL', "'dispute'", "'review'"]), self.moment(0, 0, -1, -2))
        if self.ageing and x < 0.55:
            return self.set_ageing(t)
        if self.ageing and x < 0.8:
            upto = self.moment(0, 2, 7, 20, 60)
            return 'SELECT model.before_age(%s);\nCALL rebate.age(%s);' % (upto, upto)
        upto = self.moment(0, 0, 2, 15, 40)
        return 'SELECT model.before_mature(%s);\nCALL rebate.mature(%s);' % (upto, upto)

    def set_ageing(self, table):
        r = self.rng
        return 'SELECT model.set_ageing(%s, %s, %s);' % (
            lit(table), r.choice(['NULL', "'7 days'", "'1 month'", "'36 hours'"]), r.choice(['NULL', "'10 days'", "'30 days'", "'2 days'"]))

    def settle(self):
        """What was deferred is decided, by the facts of when it was."""
        return 'RESET ROLE;\nSELECT model.observe();\nRESET rebate.mode;\n' + ''.join('SELECT rebate.reconcile(%s);\n' % lit(t) for t in self.tables)

    def live(self):
        """The next item, if it is none of the shop's."""
        r = self.rng
        choices = []
        if self.clock:
            choices += [self.clock_item] * 2
        if self.defer:
            choices += [self.defer_item]
        if self.splits:
            choices += [self.split_item]
        if self.partitions:
            choices += [self.churn_item]
        if self.fails:
            choices += [self.retry_item]
        if self.archive:
            choices += [self.archive_item]
        if self.renames:
            choices += [self.rename_item]
        if self.erasure:
            choices += [self.erase_item]
        if self.approval:
            choices += [self.approve_item] * 2
        if not choices or r.random() > 0.1 + 0.08 * len(choices):
            return None
        return r.choice(choices)()

    def clock_item(self):
        return ('raw', (self.settle() if self.defer else 'RESET ROLE;\n') + self.tick())

    def defer_item(self):
        return self.rng.choice([('raw', 'RESET ROLE;\nSET rebate.mode = defer;'), ('raw', 'RESET ROLE;\nSET rebate.mode = defer;'), ('check', '')])

    def split_item(self):
        return ('raw', self.split())

    def churn_item(self):
        return ('raw', self.churn())

    def retry_item(self):
        return ('raw', (self.settle() if self.defer else 'RESET ROLE;\n') + 'SELECT * FROM rebate.retry();')

    def archive_item(self):
        # the entry that opens a rebate stays, and so does an account's last: these make others
        more = 'UPDATE %s SET total = total * 2, price = price * 2;\n' % self.rng.choice(self.tables) * 3
        drop = "\nCALL rebate.drop_archived(clock_timestamp(), 'nowhere');" if self.drop and self.drop_rng.random() < 0.6 else ''
        parts = self.rng.choice([['1'], ['0.5'], ['0.3', '1'], ['0.5', '1']])
        return ('raw', self.settle() + '\n%s\n%sRESET ROLE;\n' % (self.become(), more) + '\n'.join(
            "SELECT model.archive_moment(%s) AS moment \\gset\nCALL rebate.archive(:'moment');\nSELECT model.archived();" % part for part in parts) + drop)

    # -- members --------------------------------------------------------------------

    def a_member(self):
        """A key as accounts have it."""
        return self.rng.choice({'text': ['alice', 'bob', 'Bob', "o'neil"], 'bigint': ['1', '2', '77000000000'], 'char(6)': ['al', 'bo'],
                                'numeric': ['1', '2.5']}[self.member_type] + self.new_members)

    def rename_item(self):
        old = self.a_member()
        new = '%s' % (9001 + len(self.new_members)) if self.rng.random() < 0.8 else self.a_member()
        if new not in self.new_members:
            self.new_members.append(new)
        return ('raw', (self.settle() if self.defer else 'RESET ROLE;\n') + self.alone('SELECT model.replace_member(%s, %s);' % (lit(old), lit(new))))

    def alone(self, text):
        """What changes members runs in no other isolation level."""
        return 'BEGIN ISOLATION LEVEL READ COMMITTED;\n%s\nCOMMIT;' % text

    def second(self, text):
        """Said by another login."""
        return 'SET SESSION AUTHORIZATION rebate_streams_second;\n%s\nRESET SESSION AUTHORIZATION;' % text

    def erase_item(self):
        who = lit(self.a_member())
        off = self.rng.random() < 0.7
        # a balance below zero is written off the other way
        below = '%s\nUPDATE %s SET total = -abs(total), price = -abs(price), refunded = 0 WHERE customer = %s;\n' % (
            self.become(), self.rng.choice(self.tables), who) if self.negatives and self.rng.random() < 0.7 else ''
        return ('raw', below + (self.settle() if self.defer else 'RESET ROLE;\n') + ('SELECT rebate.request_erasure(coalesce((SELECT now FROM model.alias WHERE old = %s), %s));\n' % (who, who) if off else '')
                + self.second(self.alone('SELECT model.erase_member(%s, %s);' % (who, str(off).lower()))))

    # -- a second person for rules --------------------------------------------------

    def approve_item(self):
        r = self.rng
        decide = lambda newest, approves: self.second('SELECT model.decide_draft(%s, %s);' % (newest, approves))
        text = decide(r.choice(['true', 'false']), r.choice(['true', 'true', 'true', 'false']))
        if r.random() < 0.4:
            # two drafts of one rule: who approves the later one makes the other stale
            name = r.choice(self.rule_names)
            text = '%s\n%s\n%s\n%s' % (self.set_rule(name, True), self.set_rule(name, True), decide('true', 'true'), decide('true', 'true'))
        if not self.splits and not self.ageing and r.random() < 0.3:
            become = self.become()
            text = '%s\nBEGIN;\n%s;\nRESET ROLE;\n%s\n%s\n%s;\n%s' % (become, self.dml(), text, become, self.dml(), r.choice(['COMMIT;', 'COMMIT;', 'ROLLBACK;']))
        return ('raw', 'RESET ROLE;\nSELECT model.observe();\n%s\nRESET ROLE;\nSELECT model.observe();' % text)

    def end(self, check):
        """The clock goes on until all is available: then it does not matter when it came."""
        far = self.moment(400)
        if not self.clock:
            return ''
        return 'SELECT model.unfreeze_all();\n' + check + '\n%sSELECT model.before_mature(%s);\nCALL rebate.mature(%s);\n' % (
            'SELECT model.before_age(%s);\nCALL rebate.age(%s);\n' % (far, far) if self.ageing else '', far, far)
