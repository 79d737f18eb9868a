-- The shop's table with a partition for each month of 2025, and its primary key as it must be then.
DROP TABLE orders;
CREATE TABLE orders (
	id			bigserial,
	customer_id	bigint NOT NULL,
	merchant_id	integer NOT NULL,
	amount		numeric(12,2) NOT NULL,
	created_at	timestamptz NOT NULL,
	PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX ON orders (customer_id);
ALTER TABLE orders OWNER TO shop;
SELECT format('CREATE TABLE orders_%s PARTITION OF orders FOR VALUES FROM (%L) TO (%L)',
	to_char(m, 'YYYY_MM'), m, m + interval '1 month')
FROM generate_series('2025-01-01'::timestamptz, '2025-12-01', '1 month') m \gexec
