#!/bin/bash
# Runs once, when the image makes its database: the extension, its store, and the jobs of the clock.
#   REBATE_OWNER     role that owns the store (rebate_owner)
#   REBATE_SANDBOX   yes: a store for tests, which rebate.reset() may empty
#   REBATE_DEMO      yes: a sample shop of 1,000 orders
set -euo pipefail

run() { psql -X -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"; }

run -v owner="${REBATE_OWNER:-rebate_owner}" -v sandbox="${REBATE_SANDBOX:-no}" <<'SQL'
CREATE EXTENSION rebate;
SELECT format('CREATE ROLE %I NOLOGIN', :'owner') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \gexec
SELECT rebate.create_store(:'owner', sandbox => :'sandbox'::boolean);
SQL

# The jobs of the clock run as a role that may do nothing else.
if [ "$(run -At -c "SELECT current_setting('cron.database_name', true) = current_database()")" = t ]; then
	run -v owner="${REBATE_OWNER:-rebate_owner}" <<'SQL'
CREATE EXTENSION pg_cron;
CREATE ROLE rebate_clock LOGIN IN ROLE :"owner";
GRANT USAGE ON SCHEMA cron TO rebate_clock;
SET ROLE rebate_clock;
SELECT * FROM rebate.schedule();
SQL
fi
if [ "${REBATE_DEMO:-no}" = yes ]; then run -f "${REBATE_SEED_FILE:-/usr/local/share/rebate/seed.sql}"; fi
