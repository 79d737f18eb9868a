// Sequelize: models, sync, transactions, bulk writes. Found through NODE_PATH.
let Sequelize, DataTypes;
try {
  ({ Sequelize, DataTypes } = require('sequelize'));
  require('pg');
} catch (error) {
  console.log(`ok - sequelize # SKIP ${error.message.split('\n')[0]} (NODE_PATH)`);
  process.exit(0);
}
const { execFileSync } = require('child_process');

function ok(passed, what, detail = '') {
  console.log(`${passed ? '' : 'not '}ok - Sequelize: ${what}`);
  if (!passed) console.log(JSON.stringify(detail).replace(/^/gm, '# '));
}

(async () => {
  execFileSync('createdb', ['sequelize']);
  const db = new Sequelize('sequelize', process.env.PGUSER, '', { host: process.env.PGHOST, port: +process.env.PGPORT, dialect: 'postgres', logging: false });
  const rows = async (sql) => (await db.query(sql))[0];
  const is = async (what, wanted) => {
    const got = JSON.stringify((await rows('SELECT member, available::text, last_entry::int FROM rebate.balances ORDER BY 1')).map(Object.values));
    ok(got === JSON.stringify(wanted), what, got);
  };
  const columns = { customer: DataTypes.TEXT, total: DataTypes.DECIMAL(12, 2), note: DataTypes.TEXT };
  const Order = db.define('order', columns, { tableName: 'orders', timestamps: false });

  await db.sync();
  await db.query('CREATE EXTENSION rebate');
  await db.query('SELECT rebate.create_store(sandbox => true)');
  await db.query("SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR')");
  await db.query("SELECT rebate.set_rule('five', percent => 5)");
  const first = await Order.create({ customer: 'ann', total: 100 });
  ok(first.id === 1, 'create returns the key', first.id);
  await is('an order earns', [['ann', '5.00', 1]]);
  await Order.bulkCreate([1, 2, 3, 4].map((n) => ({ customer: 'bob', total: n * 10 })));
  await is('bulkCreate earns', [['ann', '5.00', 1], ['bob', '5.00', 4]]);
  await db.transaction(async (t) => {
    await Order.create({ customer: 'ann', total: 10 }, { transaction: t });
    await db.transaction({ transaction: t }, async (inner) => {
      await Order.create({ customer: 'ann', total: 1000 }, { transaction: inner });
      throw new Error('no');
    }).catch(() => {});
  });
  await is('a savepoint that is rolled back earns nothing', [['ann', '5.50', 2], ['bob', '5.00', 4]]);
  await first.update({ note: 'read' });
  await is('a change of nothing of ours posts nothing', [['ann', '5.50', 2], ['bob', '5.00', 4]]);
  await Order.upsert({ id: 1, customer: 'ann', total: 200 });
  await is('upsert', [['ann', '10.50', 3], ['bob', '5.00', 4]]);

  // sync compares columns, and knows of no trigger
  db.define('order', { ...columns, extra: DataTypes.INTEGER }, { tableName: 'orders', timestamps: false });
  await db.sync({ alter: true });
  ok((await rows("SELECT 1 FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND tgname LIKE 'rebate%'")).length === 4, 'sync({ alter: true }) leaves the triggers');
  await Order.destroy({ where: { customer: 'bob' } });
  await is('destroy takes back', [['ann', '10.50', 3], ['bob', '0.00', 8]]);
  ok((await rows('SELECT * FROM rebate.audit()')).length === 0, 'the audit is clean');
  await db.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
