// TypeORM: migrations, synchronize, transactions. Found through NODE_PATH.
let DataSource, EntitySchema;
try {
  ({ DataSource, EntitySchema } = require('typeorm'));
  require('pg');
} catch (error) {
  console.log(`ok - typeorm # SKIP ${error.message.split('\n')[0]} (NODE_PATH)`);
  process.exit(0);
}
const { execFileSync } = require('child_process');

function ok(passed, what, detail = '') {
  console.log(`${passed ? '' : 'not '}ok - TypeORM: ${what}`);
  if (!passed) console.log(JSON.stringify(detail).replace(/^/gm, '# '));
}

const columns = {
  id: { type: 'int', primary: true, generated: true },
  customer: { type: 'text', nullable: true },
  total: { type: 'numeric', precision: 12, scale: 2 },
  note: { type: 'text', nullable: true },
};
const order = (more) => new EntitySchema({ name: 'Order', tableName: 'orders', columns: { ...columns, ...more } });
const options = { type: 'postgres', host: process.env.PGHOST, port: +process.env.PGPORT, username: process.env.PGUSER, database: 'typeorm' };

class Attach1700000000000 {
  name = 'Attach1700000000000';

  async up(runner) {
    await runner.query('CREATE TABLE orders (id serial PRIMARY KEY, customer text, total numeric(12, 2) NOT NULL, note text)');
    await runner.query('CREATE EXTENSION rebate');
    await runner.query('SELECT rebate.create_store(sandbox => true)');
    await runner.query("SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR')");
    await runner.query("SELECT rebate.set_rule('five', percent => 5)");
  }

  async down(runner) {
    await runner.query("SELECT rebate.detach('orders')");
    await runner.query('DROP TABLE orders');
  }
}

(async () => {
  execFileSync('createdb', ['typeorm']);
  let db = await new DataSource({ ...options, entities: [order({})], migrations: [Attach1700000000000] }).initialize();
  const is = async (what, wanted) => {
    const got = JSON.stringify((await db.query('SELECT member, available::text, last_entry::int FROM rebate.balances ORDER BY 1')).map(Object.values));
    ok(got === JSON.stringify(wanted), what, got);
  };

  await db.runMigrations();
  const orders = db.getRepository('Order');
  const first = await orders.save({ customer: 'ann', total: 100 });
  ok(first.id === 1, 'save returns the key', first.id);
  await is('a migration attaches, an order earns', [['ann', '5.00', 1]]);
  await orders.insert([1, 2, 3, 4].map((n) => ({ customer: 'bob', total: n * 10 })));
  await is('insert of many', [['ann', '5.00', 1], ['bob', '5.00', 4]]);
  await db.transaction(async (outer) => {
    await outer.save('Order', { customer: 'ann', total: 10 });
    await outer.transaction(async (inner) => {
      await inner.save('Order', { customer: 'ann', total: 1000 });
      throw new Error('no');
    }).catch(() => {});
  });
  await is('a nested transaction that fails earns nothing', [['ann', '5.50', 2], ['bob', '5.00', 4]]);
  await orders.save({ id: 1, customer: 'ann', total: 100, note: 'read' });
  await is('a save that changes nothing of ours posts nothing', [['ann', '5.50', 2], ['bob', '5.00', 4]]);
  await db.destroy();

  // synchronize compares the tables of entities, and knows of no trigger and no other schema
  db = await new DataSource({ ...options, entities: [order({ extra: { type: 'int', nullable: true } })], synchronize: true, migrations: [Attach1700000000000] }).initialize();
  ok((await db.query("SELECT 1 FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND tgname LIKE 'rebate%'")).length === 4, 'synchronize leaves the triggers');
  await db.getRepository('Order').delete({ customer: 'bob' });
  await is('delete takes back', [['ann', '5.50', 2], ['bob', '0.00', 8]]);
  ok((await db.query('SELECT * FROM rebate.audit()')).length === 0, 'the audit is clean');
  await db.undoLastMigration();
  await is('a migration back leaves the ledger', [['ann', '5.50', 2], ['bob', '0.00', 8]]);
  await db.destroy();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
