"""Alembic and SQLAlchemy: an environment, a revision that attaches, autogenerate, and the ORM. WORK: a directory of its own."""
import os
import subprocess
import sys
import textwrap

try:
    import alembic.command
    import alembic.config
    import sqlalchemy as sa
    from sqlalchemy import orm
    import psycopg2  # noqa: F401, the driver
except ImportError as error:
    print('ok - alembic # SKIP %s' % error)
    sys.exit(0)

work = os.environ['WORK']
url = sa.engine.URL.create('postgresql+psycopg2', username=os.environ['PGUSER'], database='alembic',
                           query={'host': os.environ['PGHOST'], 'port': os.environ['PGPORT']})


def write(name, text):
    path = os.path.join(work, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as out:
        out.write(textwrap.dedent(text))


def ok(passed, what, detail=''):
    print('%sok - Alembic: %s' % ('' if passed else 'not ', what))
    if not passed:
        print(textwrap.indent(str(detail), '# ', lambda line: True))


write('models.py', '''
    import sqlalchemy as sa
    from sqlalchemy import orm
    Base = orm.declarative_base()

    class Order(Base):
        __tablename__ = 'orders'
        id = sa.Column(sa.BigInteger, primary_key=True)
        customer = sa.Column(sa.Text)
        total = sa.Column(sa.Numeric(12, 2))
        note = sa.Column(sa.Text)
''')
# SCHEMAS: how autogenerate looks at other schemas
write('env.py', '''
    import os, sys
    sys.path.insert(0, os.environ['WORK'])
    from alembic import context
    from models import Base
    import sqlalchemy as sa

    def include_name(name, type_, parent_names):
        return not (type_ == 'schema' and name in ('rebate', 'rebate_data'))

    engine = sa.create_engine(context.config.attributes['url'])
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata,
                          include_schemas=os.environ['SCHEMAS'] != 'default',
                          include_name=include_name if os.environ['SCHEMAS'] == 'ours left out' else None)
        with context.begin_transaction():
            context.run_migrations()
''')
write('script.py.mako', '''
    """${message}"""
    from alembic import op
    import sqlalchemy as sa
    revision = ${repr(up_revision)}
    down_revision = ${repr(down_revision)}
    def upgrade():
        ${upgrades if upgrades else "pass"}
    def downgrade():
        pass
''')
write('versions/1_orders.py', '''
    from alembic import op
    import sqlalchemy as sa
    revision = '1'
    down_revision = None

    def upgrade():
        op.create_table('orders', sa.Column('id', sa.BigInteger, primary_key=True), sa.Column('customer', sa.Text),
                        sa.Column('total', sa.Numeric(12, 2)), sa.Column('note', sa.Text))
        op.execute('CREATE EXTENSION IF NOT EXISTS rebate')
        op.execute('SELECT rebate.create_store(sandbox => true)')
        op.execute("SELECT rebate.attach('orders', 'customer', 'total', 'EUR')")
        op.execute("SELECT rebate.set_rule('five', percent => 5)")

    def downgrade():
        op.execute("SELECT rebate.detach('orders')")
        op.drop_table('orders')
''')
subprocess.check_call(['createdb', 'alembic'])
config = alembic.config.Config()
config.set_main_option('script_location', work)
config.attributes['url'] = url
os.environ['SCHEMAS'] = 'default'
alembic.command.upgrade(config, 'head')
engine = sa.create_engine(url)


def ask(sql):
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(sql))]


ok(ask("SELECT source FROM rebate.sources") == [('public.orders',)], 'upgrade attaches')
alembic.command.upgrade(config, 'head')
ok(ask("SELECT version FROM rebate.rules") == [(1,)], 'and again does nothing')


def autogenerate(name):
    os.environ['SCHEMAS'] = name
    script = alembic.command.revision(config, message=name, autogenerate=True)
    with open(script.path) as text:
        found = text.read()
    os.remove(script.path)
    return found


found = autogenerate('default')
ok('op.' not in found, 'autogenerate finds nothing to change', found)
found = autogenerate('all')
ok("op.drop_table('account', schema='rebate_data')" in found, 'with include_schemas it would drop the ledger', found[:2000])
found = autogenerate('ours left out')
ok('op.' not in found, 'unless include_name leaves schemas rebate and rebate_data out', found)
os.environ['SCHEMAS'] = 'default'

sys.path.insert(0, work)
from models import Order  # noqa: E402

earned = "SELECT member, available::text, last_entry FROM rebate.balances ORDER BY 1"
with orm.Session(engine) as session:
    session.add_all([Order(customer='ann', total=10 * n) for n in (1, 2, 3)])
    session.flush()
    # the session of SQLAlchemy has written, ours posts at the commit or now
    session.execute(sa.text('SELECT rebate.flush()'))
    ok([tuple(r) for r in session.execute(sa.text(earned))] == [('ann', '3.00', 3)], 'a session flushes, rebate.flush() posts')
    session.rollback()
ok(ask(earned) == [], 'and a rollback takes both back')
with orm.Session(engine) as session:
    session.bulk_save_objects([Order(id=n, customer='ann', total=10) for n in range(1, 101)])
    session.execute(sa.insert(Order).values([{'id': n, 'customer': 'bob', 'total': 10} for n in range(101, 201)]).returning(Order.id))
    session.commit()
ok(ask(earned) == [('ann', '50.00', 100), ('bob', '50.00', 100)], 'bulk inserts earn')
with orm.Session(engine) as session:
    for order in session.query(Order).filter(Order.customer == 'ann'):
        order.note = 'read'
    session.commit()
ok(ask(earned)[0] == ('ann', '50.00', 100), 'changes of other columns post nothing')
with orm.Session(engine) as session:
    with session.begin_nested():
        session.get(Order, 1).total = 20
    nested = session.begin_nested()
    session.get(Order, 2).total = 1000
    session.flush()
    nested.rollback()
    session.delete(session.get(Order, 3))
    session.commit()
ok(ask(earned)[0][:2] == ('ann', '50.00'), 'nested transactions count as far as they last', ask(earned))
ok(ask('SELECT * FROM rebate.audit()') == [], 'the audit is clean')
