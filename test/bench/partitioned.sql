-- The shop's table with a partition for each month of 2025.
\ir partitioned_table.sql
SELECT format('CREATE TABLE orders_%s PARTITION OF orders FOR VALUES FROM (%L) TO (%L)',
	to_char(m, 'YYYY_MM'), m, m + interval '1 month')
FROM generate_series('2025-01-01'::timestamptz, '2025-12-01', '1 month') m \gexec
