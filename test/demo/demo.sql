-- Placeholder of the demo.
CREATE EXTENSION rebate;
SELECT extversion AS version FROM pg_extension WHERE extname = 'rebate';
