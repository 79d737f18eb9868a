"""Streams of several sessions, whose statements and transactions take turns as the seed says."""
from stream_life import lit


class Sessions:
    """
    Part of Stream.  The sessions are connections of dblink.  One that waited for another would wait for ever, so each
    has keys and members of its own; a lock timeout tells if one of them waits all the same.
    """

    def restrict_sessions(self):
        """What would touch the rows or members of others, or hide an error."""
        for feature in ('shuffled', 'clock', 'ageing', 'defer', 'splits', 'returns', 'triggers', 'cascade', 'truncates', 'fails', 'rekeys',
                        'loose_rekeys', 'old_rows', 'prepared', 'clerk', 'replica', 'abort', 'archive', 'renames', 'erasure', 'approval'):
            setattr(self, feature, False)
        self.member_type = self.rng.choice(['text', 'bigint'])
        self.codes |= {'40001'}         # serializable sessions may fail for what only seems to depend on each other

    def connect(self, n, posting):
        name = 's%d' % n
        settings = ["rebate.posting = %s" % posting, "rebate.collect_limit = %s" % self.collect_limit(), "lock_timeout = '20s'", 'client_min_messages = error', "TimeZone = '%s'" % self.session_zone,
                    "DateStyle = '%s'" % self.datestyle, "default_transaction_isolation = '%s'" % self.isolation]
        return '\n'.join(["SELECT public.dblink_connect('%s', format('host=%%s port=%%s dbname=%%s user=%%s', :'HOST', :'PORT', :'DBNAME', :'USER'));" % name] + [
            self.say(n, 'SET ' + s) for s in settings])

    def say(self, n, statement):
        return "SELECT public.dblink_exec('s%d', $say$%s$say$);" % (n, statement)

    def session_body(self, depth=0):
        r = self.rng
        out = []
        for _ in range(r.randint(1, 4)):
            x = r.random()
            if x < 0.1:
                out.append('DO $$ BEGIN PERFORM rebate.flush(); END $$')
            elif x < 0.3 and depth < 2:
                self.savepoints += 1
                name = 's%d' % self.savepoints
                out += ['SAVEPOINT ' + name] + self.session_body(depth + 1) + [r.choice(['ROLLBACK TO ', 'RELEASE ']) + name]
            elif x < 0.4:
                out.append(self.block().rstrip(';'))
            else:
                out.append(self.dml_plain())
        return out

    def session(self):
        """The statements of one session, from its first transaction to its last."""
        r = self.rng
        out = []
        for _ in range(r.randint(3, 7)):
            if r.random() < 0.4:
                out.append(self.dml_plain())
            else:
                out += [r.choice(['BEGIN', 'BEGIN', 'BEGIN ISOLATION LEVEL READ COMMITTED', 'BEGIN ISOLATION LEVEL REPEATABLE READ'])] + \
                    self.session_body() + [r.choice(['COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK'])]
        return out

    def make_sessions(self):
        r = self.rng
        keys = self.keys
        queues = []
        # the first posting of a cluster opens its epoch, and others wait for that
        self.members = 0
        self.first = self.insert(self.tables[0], keys[:1]) + ';'
        for n in range(self.sessions):
            self.keys = keys[n::self.sessions]
            self.members = n
            queues.append(self.session())
        self.keys, self.members = keys, None
        while any(queues):
            n = r.choice([n for n, q in enumerate(queues) if q])
            for _ in range(r.choice([1, 1, 2, 4])):
                if queues[n]:
                    self.items.append(('raw', self.say(n, queues[n].pop(0))))
            x = r.random()
            if x < 0.06:
                self.items.append(('check', ''))
            elif x < 0.16 and self.rule_changes:
                name = r.choice(self.rule_names)
                self.items.append(('raw', self.set_rule(name, True) if r.random() < 0.6 or not self.groups else 'SELECT model.set_group(%s, %s);' % (
                    lit(r.choice(list(self.groups))), lit(r.choice(['first', 'best', 'stack'])))))

    def member_of_session(self, members):
        """The members are the sessions', too."""
        mine = members[self.members::self.sessions] if self.members is not None else members
        return self.rng.choice(mine)
