-- The shop's table with :partitions partitions of a day each, the last one for tomorrow, and its primary key as it must
-- be then.
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
SELECT format('CREATE TABLE orders_%s PARTITION OF orders FOR VALUES FROM (%L) TO (%L)', d, day, day + interval '1 day')
FROM generate_series(1, :partitions) d, LATERAL (SELECT current_date::timestamptz + (d - :partitions + 1) * interval '1 day' AS day) x
\gexec
