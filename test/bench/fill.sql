-- One order of each member, so that their accounts exist.
INSERT INTO orders (customer_id, merchant_id, amount, created_at)
SELECT c, 1 + c % :merchants, 10 + c % 490, now() FROM generate_series(1, :members) c;
VACUUM ANALYZE;
CHECKPOINT;
