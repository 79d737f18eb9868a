// Prisma's client, which needs no program of its own besides node; its migrations do. Found through NODE_PATH; WORK: a directory of its own.
const { execFileSync } = require('child_process');
const fs = require('fs');
let PrismaPg, cli;
try {
  ({ PrismaPg } = require('@prisma/adapter-pg'));
  require.resolve('@prisma/client/package.json');
  cli = require.resolve('prisma/build/index.js');
} catch (error) {
  console.log(`ok - prisma # SKIP ${error.message.split('\n')[0]} (NODE_PATH)`);
  process.exit(0);
}

function ok(passed, what, detail = '') {
  console.log(`${passed ? '' : 'not '}ok - Prisma: ${what}`);
  if (!passed) console.log(JSON.stringify(detail).replace(/^/gm, '# '));
}

// The client is generated from the schema, and finds its library beside it.
function generated(work) {
  const modules = require.resolve('@prisma/client/package.json').replace(/\/@prisma\/client\/package.json$/, '');
  fs.symlinkSync(modules, `${work}/node_modules`);
  fs.writeFileSync(`${work}/package.json`, '{}');
  fs.writeFileSync(`${work}/schema.prisma`, `
datasource db {
  provider = "postgresql"
  url      = "postgresql:///"
}
generator client {
  provider   = "prisma-client-js"
  engineType = "client"
  output     = "./client"
}
model Order {
  id       Int     @id @default(autoincrement())
  customer String
  total    Decimal @db.Decimal(12, 2)
  note     String?
  @@map("orders")
}
`);
  // with an adapter, what generates the client is a library of the package, too
  fs.writeFileSync(`${work}/prisma.config.mjs`, `
import { defineConfig } from 'prisma/config';
import { PrismaPg } from '@prisma/adapter-pg';
export default defineConfig({ schema: 'schema.prisma', engine: 'js', experimental: { adapter: true }, adapter: async () => new PrismaPg({}) });
`);
  execFileSync(process.execPath, [cli, 'generate'], { cwd: work, stdio: 'pipe' });
  return require(`${work}/client`).PrismaClient;
}

(async () => {
  const PrismaClient = generated(process.env.WORK);
  execFileSync('createdb', ['prisma']);
  const db = new PrismaClient({ adapter: new PrismaPg({ host: process.env.PGHOST, port: +process.env.PGPORT, user: process.env.PGUSER, database: 'prisma' }) });
  const is = async (what, wanted) => {
    const got = JSON.stringify((await db.$queryRaw`SELECT member, available::text, last_entry::int FROM rebate.balances ORDER BY 1`).map(Object.values));
    ok(got === JSON.stringify(wanted), what, got);
  };

  await db.$executeRaw`CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, total numeric(12,2) NOT NULL, note text)`;
  await db.$executeRaw`CREATE EXTENSION rebate`;
  await db.$queryRaw`SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR')::text`;
  await db.$queryRaw`SELECT rebate.set_rule('five', percent => 5)`;
  const first = await db.order.create({ data: { customer: 'ann', total: 100 } });
  ok(first.id === 1, 'create returns the key', first.id);
  await is('an order earns', [['ann', '5.00', 1]]);
  await db.order.createMany({ data: [1, 2, 3, 4].map((n) => ({ customer: 'bob', total: n * 10 })) });
  await is('createMany earns', [['ann', '5.00', 1], ['bob', '5.00', 4]]);
  await db.$transaction(async (tx) => {
    await tx.order.create({ data: { customer: 'ann', total: 1000 } });
    throw new Error('no');
  }).catch(() => {});
  await is('a transaction that is rolled back earns nothing', [['ann', '5.00', 1], ['bob', '5.00', 4]]);
  await db.$transaction([db.order.create({ data: { customer: 'ann', total: 10 } }), db.order.update({ where: { id: 1 }, data: { note: 'read' } })]);
  await is('$transaction, and a change of nothing of ours', [['ann', '5.50', 2], ['bob', '5.00', 4]]);
  await db.order.upsert({ where: { id: 1 }, create: { customer: 'ann', total: 1 }, update: { total: 200 } });
  await is('upsert', [['ann', '10.50', 3], ['bob', '5.00', 4]]);
  await db.order.updateMany({ where: { customer: 'bob' }, data: { total: { multiply: 2 } } });
  await is('updateMany', [['ann', '10.50', 3], ['bob', '10.00', 8]]);
  await db.order.deleteMany({ where: { customer: 'bob' } });
  await is('deleteMany takes back', [['ann', '10.50', 3], ['bob', '0.00', 12]]);
  ok((await db.$queryRaw`SELECT violation FROM rebate.audit()`).length === 0, 'the audit is clean');
  await db.$disconnect();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
