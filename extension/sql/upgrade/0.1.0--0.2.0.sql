-- What is gone since 0.1.0, and functions whose arguments or results have changed:
-- they are made again by their pieces.
-- a second parameter: sandbox
DROP FUNCTION rebate.create_store(name);
