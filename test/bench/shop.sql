-- The plain table of every variant: five columns, primary key, one index on the member.
DO $$
BEGIN
	IF to_regrole('shop') IS NULL THEN
		CREATE ROLE shop LOGIN;
	END IF;
END
$$;
CREATE TABLE orders (
	id			bigserial PRIMARY KEY,
	customer_id	bigint NOT NULL,
	merchant_id	integer NOT NULL,
	amount		numeric(12,2) NOT NULL,
	created_at	timestamptz NOT NULL
);
CREATE INDEX ON orders (customer_id);
ALTER TABLE orders OWNER TO shop;
