// Knex: a migration that attaches, transactions, bulk writes. Found through NODE_PATH; WORK: a directory of its own.
let knexFor;
try {
  knexFor = require('knex');
  require('pg');
} catch (error) {
  console.log(`ok - knex # SKIP ${error.message.split('\n')[0]} (NODE_PATH)`);
  process.exit(0);
}
const { execFileSync } = require('child_process');

function ok(passed, what, detail = '') {
  console.log(`${passed ? '' : 'not '}ok - Knex: ${what}`);
  if (!passed) console.log(JSON.stringify(detail).replace(/^/gm, '# '));
}

const migration = {
  async up(knex) {
    await knex.schema.createTable('orders', (t) => {
      t.bigIncrements('id');
      t.text('customer');
      t.decimal('total', 12, 2);
      t.text('note');
    });
    await knex.raw('CREATE EXTENSION IF NOT EXISTS rebate');
    await knex.raw('SELECT rebate.create_store(sandbox => true)');
    await knex.raw("SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR')");
    await knex.raw("SELECT rebate.set_rule('five', percent => 5)");
  },
  async down(knex) {
    await knex.raw("SELECT rebate.detach('orders')");
    await knex.schema.dropTable('orders');
  },
};
const source = {
  getMigrations: async () => ['orders'],
  getMigrationName: (name) => name,
  getMigration: async () => migration,
};

(async () => {
  execFileSync('createdb', ['knex']);
  const knex = knexFor({
    client: 'pg',
    connection: { host: process.env.PGHOST, port: +process.env.PGPORT, user: process.env.PGUSER, database: 'knex' },
  });
  const balances = async () => (await knex.raw('SELECT member, available::text, last_entry::int FROM rebate.balances ORDER BY 1')).rows;
  const is = async (what, wanted) => {
    const got = JSON.stringify((await balances()).map(Object.values));
    ok(got === JSON.stringify(wanted), what, got);
  };

  await knex.migrate.latest({ migrationSource: source });
  await knex.migrate.latest({ migrationSource: source });
  await knex('orders').insert({ customer: 'ann', total: 100 });
  await is('a migration attaches', [['ann', '5.00', 1]]);
  const ids = await knex.batchInsert('orders', [1, 2, 3, 4].map((n) => ({ customer: 'bob', total: n * 10 })), 2).returning('id');
  ok(ids.length === 4, 'batchInsert returns keys', ids);
  await is('and earns', [['ann', '5.00', 1], ['bob', '5.00', 4]]);
  await knex.transaction(async (outer) => {
    await outer('orders').insert({ customer: 'ann', total: 10 });
    await outer.transaction(async (inner) => {
      await inner('orders').insert({ customer: 'ann', total: 1000 });
      throw new Error('no');
    }).catch(() => {});
  });
  await is('a nested transaction that fails earns nothing', [['ann', '5.50', 2], ['bob', '5.00', 4]]);
  await knex('orders').insert({ id: 1, customer: 'ann', total: 100, note: 'read' }).onConflict('id').merge();
  await is('an upsert that changes nothing of ours posts nothing', [['ann', '5.50', 2], ['bob', '5.00', 4]]);
  ok((await knex.raw('SELECT * FROM rebate.audit()')).rows.length === 0, 'the audit is clean');
  await knex.migrate.rollback({ migrationSource: source });
  ok((await knex.raw("SELECT 1 FROM pg_class WHERE relname = 'orders'")).rows.length === 0, 'a migration back drops the table');
  await is('and the ledger stays', [['ann', '5.50', 2], ['bob', '5.00', 4]]);
  await knex.destroy();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
