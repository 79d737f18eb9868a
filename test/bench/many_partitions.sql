-- The shop's table with :partitions partitions of a day each, the last one for tomorrow.
\ir partitioned_table.sql
SELECT format('CREATE TABLE orders_%s PARTITION OF orders FOR VALUES FROM (%L) TO (%L)', d, day, day + interval '1 day')
FROM generate_series(1, :partitions) d, LATERAL (SELECT current_date::timestamptz + (d - :partitions + 1) * interval '1 day' AS day) x
\gexec
