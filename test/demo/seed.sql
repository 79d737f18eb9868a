-- Placeholder of the sample shop.
CREATE EXTENSION IF NOT EXISTS rebate;
