-- a second parameter: sandbox
DROP FUNCTION rebate.create_store(name);
