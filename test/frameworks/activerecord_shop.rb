# ActiveRecord, as in Rails: a migration that attaches, transactions, bulk writes. WORK: a directory of its own.
begin
  require 'active_record'
  require 'pg'
rescue LoadError => e
  puts "ok - activerecord # SKIP #{e.message.lines.first.chomp}"
  exit
end

def ok(passed, what, detail = '')
  puts "#{'not ' unless passed}ok - ActiveRecord: #{what}"
  puts detail.to_s.gsub(/^/, '# ') unless passed
end

system('createdb', 'rails') or abort
ActiveRecord::Base.establish_connection(adapter: 'postgresql', database: 'rails', host: ENV['PGHOST'], port: ENV['PGPORT'],
                                        username: ENV['PGUSER'])
ActiveRecord::Base.logger = nil
ActiveRecord::Migration.verbose = false
ActiveRecord::Base.connection.execute("SET client_min_messages = warning")

class Rebates < ActiveRecord::Migration[6.1]
  def up
    create_table :orders do |t|
      t.text :customer
      t.decimal :total, precision: 12, scale: 2
      t.text :note
      t.timestamps
    end
    enable_extension 'rebate'
    execute "SELECT rebate.create_store(sandbox => true)"
    execute "SELECT rebate.attach('orders', member => 'customer', amount => 'total', currency => 'EUR', on_truncate => 'void')"
    execute "SELECT rebate.set_rule('five', percent => 5)"
  end

  def down
    execute "SELECT rebate.detach('orders')"
    drop_table :orders
  end
end

class Order < ActiveRecord::Base; end

def ask(sql)
  ActiveRecord::Base.connection.select_rows(sql)
end
BALANCES = "SELECT member, available::text, last_entry FROM rebate.balances WHERE last_entry > 0 ORDER BY 1".freeze

ActiveRecord::Base.transaction { Rebates.new.up }
ok(ask('SELECT source FROM rebate.sources') == [['public.orders']], 'a migration attaches, in a transaction')

schema = StringIO.new
ActiveRecord::SchemaDumper.dump(ActiveRecord::Base.connection, schema)
ok(schema.string.include?('create_table "orders"') && !schema.string.include?('accrual'), 'schema.rb has the tables of the application only', schema.string)
ok(schema.string.include?('enable_extension "rebate"'), 'and the extension, but no triggers: attach is called after it is loaded', schema.string)

order = Order.create!(customer: 'ann', total: 100)
ok(ask(BALANCES) == [['ann', '5.00', 1]], 'create! earns', ask(BALANCES))
order.update!(note: 'read')
order.touch
ok(ask(BALANCES) == [['ann', '5.00', 1]], 'update! and touch of other columns post nothing')
order.update!(total: 50)
ok(ask(BALANCES) == [['ann', '2.50', 2]], 'update! of the amount does')
Order.transaction do
  Order.create!(customer: 'ann', total: 10)
  Order.transaction(requires_new: true) do
    Order.create!(customer: 'ann', total: 1000)
    raise ActiveRecord::Rollback
  end
end
ok(ask(BALANCES) == [['ann', '3.00', 3]], 'a nested transaction that is rolled back earns nothing', ask(BALANCES))
now = Time.now
ids = Order.insert_all((1..50).map { |n| { customer: 'bob', total: n, created_at: now, updated_at: now } }).rows.flatten
ok(ids.size == 50 && ask(BALANCES)[1] == ['bob', '63.75', 50], 'insert_all returns keys and earns', ask(BALANCES))
Order.upsert_all(ids.map { |id| { id: id, customer: 'bob', total: 10, created_at: now, updated_at: now } })
ok(ask(BALANCES)[1][1] == '25.00', 'upsert_all corrects', ask(BALANCES))
last = ask(BALANCES)[1][2]
Order.upsert_all(ids.map { |id| { id: id, customer: 'bob', total: 10, created_at: now, updated_at: now } })
ok(ask(BALANCES)[1][2] == last, 'and again it posts nothing')
Order.where(customer: 'bob').find_each { |o| o.update!(total: 20) }
Order.where(customer: 'bob').in_batches(of: 10).update_all('total = total / 2')
ok(ask(BALANCES)[1][1] == '25.00', 'find_each, in_batches, update_all', ask(BALANCES))
Order.where(customer: 'bob').destroy_all
ok(ask(BALANCES)[1][1] == '0.00', 'destroy_all takes all back')
# As superuser Rails turns all triggers off for these two, ours as well: what they do is caught up with.
ActiveRecord::Base.connection.truncate_tables('orders')
ok(ask(BALANCES)[0][1] == '3.00', 'truncate_tables, by a superuser, is not seen', ask(BALANCES))
ask("SELECT rebate.reconcile('orders')")
ok(ask(BALANCES).map { |r| r[1] } == ['0.00', '0.00'], 'until reconcile() catches up', ask(BALANCES))
ActiveRecord::Base.connection.insert_fixtures_set({ 'orders' => [{ id: 9001, customer: 'fix', total: 100, created_at: now, updated_at: now }] })
ok(ask(BALANCES).none? { |r| r[0] == 'fix' }, 'nor are fixtures')
ask('SELECT rebate.reset(replay => true)')
ok(ask(BALANCES) == [['fix', '5.00', 1]], 'until reset() replays them', ask(BALANCES))
ActiveRecord::Base.connection.execute('TRUNCATE orders')
ok(ask(BALANCES)[0][1] == '0.00', "a plain TRUNCATE is, with on_truncate => 'void'", ask(BALANCES))
ask('SELECT rebate.reset()')
ok(ask('SELECT * FROM rebate.balances') == [], 'reset() begins anew')
ok(ask('SELECT * FROM rebate.audit()') == [], 'the audit is clean')
ActiveRecord::Base.transaction { Rebates.new.down }
ok(ask("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE 'rebate_insert'") == [], 'a migration back detaches')
