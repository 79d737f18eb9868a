-- The shop's table as one that takes partitions by time, and its primary key as it must be then.
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
