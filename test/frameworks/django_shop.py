"""Django: a project with one application, its migrations, its tests. WORK: a directory of its own."""
import os
import subprocess
import sys
import textwrap

try:
    import django
    import psycopg2
except ImportError as error:
    print('ok - django # SKIP %s' % error)
    sys.exit(0)

work = os.environ['WORK']


def write(name, text):
    path = os.path.join(work, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as out:
        out.write(textwrap.dedent(text))


def ok(passed, what, detail=''):
    print('%sok - Django: %s' % ('' if passed else 'not ', what))
    if not passed:
        print(textwrap.indent(str(detail), '# ', lambda line: True))


def manage(*arguments):
    done = subprocess.run([sys.executable, os.path.join(work, 'manage.py')] + list(arguments), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, cwd=work)
    return done.returncode, done.stdout


def ask(sql, dbname='django'):
    connection = psycopg2.connect(dbname=dbname)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql)
        rows = cursor.fetchall()
    connection.close()
    return rows


write('manage.py', '''
    import os, sys
    os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
''')
write('settings.py', '''
    import os
    SECRET_KEY = 'test'
    INSTALLED_APPS = ['shop']
    USE_TZ = True
    DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'
    DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'django',
                             'HOST': os.environ['PGHOST'], 'PORT': os.environ['PGPORT'], 'USER': os.environ['PGUSER']}}
''')
write('shop/__init__.py', '')
write('shop/models.py', '''
    from django.db import models

    class Order(models.Model):
        customer = models.TextField(null=True)
        total = models.DecimalField(max_digits=12, decimal_places=2)
        state = models.TextField(default='paid')
        note = models.TextField(default='')
''')
write('shop/migrations/__init__.py', '')
write('shop/migrations/0001_initial.py', '''
    from django.db import migrations, models

    class Migration(migrations.Migration):
        initial = True
        dependencies = []
        operations = [migrations.CreateModel('Order', [
            ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
            ('customer', models.TextField(null=True)),
            ('total', models.DecimalField(max_digits=12, decimal_places=2)),
            ('state', models.TextField(default='paid')),
            ('note', models.TextField(default='')),
        ])]
''')
# In databases whose name begins with test_ the store is a sandbox.
write('shop/migrations/0002_rebates.py', '''
    from django.db import migrations

    class Migration(migrations.Migration):
        dependencies = [('shop', '0001_initial')]
        operations = [migrations.RunSQL("""
            CREATE EXTENSION IF NOT EXISTS rebate;
            SELECT rebate.create_store(sandbox => starts_with(current_database(), 'test_'));
            SELECT rebate.attach('shop_order', member => 'customer', amount => 'total', currency => 'EUR', status => 'state',
                phases => '{"paid": "confirmed", "void": "void"}', on_truncate => 'void');
            SELECT rebate.set_rule('five', percent => 5);
        """, "SELECT rebate.detach('shop_order')")]
''')
write('shop/tests.py', '''
    from decimal import Decimal
    from django.db import connection, transaction
    from django.test import TestCase, TransactionTestCase
    from shop.models import Order

    def available(member):
        with connection.cursor() as cursor:
            cursor.execute('SELECT rebate.flush()')
            cursor.execute('SELECT available, last_entry FROM rebate.balances WHERE member = %s', [member])
            return cursor.fetchone()

    class RolledBack(TestCase):
        def test_order(self):
            Order.objects.create(customer='ann', total=Decimal('100'))
            self.assertEqual(available('ann'), (Decimal('5.00'), 1))

        def test_again(self):
            self.assertIsNone(available('ann'))
            Order.objects.create(customer='ann', total=Decimal('10'))
            self.assertEqual(available('ann'), (Decimal('0.50'), 1))

        def test_atomic_in_atomic(self):
            Order.objects.create(customer='ann', total=Decimal('100'))
            try:
                with transaction.atomic():
                    Order.objects.create(customer='ann', total=Decimal('900'))
                    raise ValueError
            except ValueError:
                pass
            self.assertEqual(available('ann')[0], Decimal('5.00'))

    class Truncated(TransactionTestCase):
        def setUp(self):
            with connection.cursor() as cursor:
                cursor.execute('SELECT rebate.reset()')

        def test_order(self):
            Order.objects.create(customer='ann', total=Decimal('100'))
            self.assertEqual(available('ann'), (Decimal('5.00'), 1))

        def test_save(self):
            order = Order.objects.create(customer='ann', total=Decimal('100'))
            order.note = 'read'
            order.save()                                    # all columns
            self.assertEqual(available('ann'), (Decimal('5.00'), 1))
            order.total = Decimal('50')
            order.save(update_fields=['total'])
            self.assertEqual(available('ann'), (Decimal('2.50'), 2))
            order.delete()
            self.assertEqual(available('ann'), (Decimal('0.00'), 3))

        def test_bulk(self):
            orders = Order.objects.bulk_create([Order(customer='bob', total=Decimal(n)) for n in (10, 20, 30)])
            self.assertTrue(all(order.pk for order in orders))
            self.assertEqual(available('bob')[0], Decimal('3.00'))
            for order in orders:
                order.total *= 2
            Order.objects.bulk_update(orders, ['total'])
            self.assertEqual(available('bob')[0], Decimal('6.00'))
            with transaction.atomic():
                for order in Order.objects.select_for_update():
                    order.state = 'void'
                    order.save()
            self.assertEqual(available('bob')[0], Decimal('0.00'))

        def test_audit(self):
            with connection.cursor() as cursor:
                cursor.execute('SELECT * FROM rebate.audit()')
                self.assertEqual(cursor.fetchall(), [])
''')

subprocess.check_call(['createdb', 'django'])
status, out = manage('migrate')
ok(status == 0, 'migrate attaches the table', out)
status, out = manage('migrate')
ok(status == 0 and 'No migrations to apply' in out, 'and has nothing to do then', out)
status, out = manage('makemigrations', '--check', '--dry-run')
ok(status == 0 and 'No changes detected' in out, 'makemigrations sees no change', out)
status, out = manage('inspectdb')
ok(status == 0 and 'shop_order' in out and 'rebate' not in out, 'inspectdb shows the tables of the application only', out)
status, out = manage('test')
ok(status == 0 and 'Ran 7 tests' in out, 'its tests pass: rolled back, and with TRUNCATE between them', out)
status, out = manage('test', '--parallel', '2')
ok(status == 0 and 'Cloning test database' in out, 'in several databases at once, which are copies', out)
status, out = manage('shell', '-c', "from shop.models import Order; Order.objects.create(customer='ann', total=100)")
ok(ask('SELECT available::text FROM rebate.balances') == [('5.00',)], 'the application earns', out)
status, out = manage('flush', '--no-input')
ok(status == 0 and ask('SELECT available::text FROM rebate.balances') == [('0.00',)], "flush takes rebates back, with on_truncate => 'void'", out)
status, out = manage('migrate', 'shop', '0001')
ok(status == 0 and ask("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'shop_order'::regclass AND NOT tgisinternal") == [(0,)], 'a migration back detaches', out)
ok(ask("SELECT version !~ 'sandbox' FROM rebate.versions() WHERE part = 'store'") == [(True,)], 'and only the test databases are sandboxes')
ok(ask('SELECT count(*) FROM rebate.audit()') == [(0,)], 'the audit is clean')
