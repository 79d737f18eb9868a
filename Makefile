# rebate: built with PGXS.
#
#   make                     build
#   make install             into the PostgreSQL that PG_CONFIG names (DESTDIR is honoured)
#   make client              rebate-listen, a program on libpq; make install-client
#   make installcheck        regression tests and isolation specs on a running server (PGHOST, PGPORT, PGUSER)
#   make test                everything, on private servers; TESTS="regress isolation" selects
#   make soak              a quarter of a year of a shop, a million orders; SOAK_ORDERS=
#   make ubsan               the regression tests with the sanitizer of undefined behaviour
#   make valgrind            the regression tests under valgrind, for hours; TESTS="attach returns": these
#   make demo                a sample shop on a private server; ORDERS=file.csv: with your own orders
#   make psql                the same shop, and a psql in it
#   make seed DB=mydb        fills a sample shop in your own database
#   make bench               all benchmarks; make bench-oltp: one; make bench-report: docs/BENCHMARKS.md

EXTENSION   = rebate
MODULE_big  = rebate
EXTVERSION  = 0.2.0
# The release before it, whose install script is frozen.
PREVIOUS    = 0.1.0

OBJS        = $(patsubst %.c,%.o,$(sort $(wildcard extension/*.c)))

# The install script is built from pieces, in the order of their names.
SQL_PIECES  = $(sort $(wildcard extension/sql/*.sql))
INSTALL_SQL = extension/rebate--$(EXTVERSION).sql
# The way from that one is made of the same pieces; see "A release" in test/README.md.
UPGRADE_SQL = extension/rebate--$(PREVIOUS)--$(EXTVERSION).sql
UPGRADE_DIR = extension/sql/upgrade
DATA_built  = $(INSTALL_SQL) $(UPGRADE_SQL)
DATA        = $(filter-out $(DATA_built),$(sort $(wildcard extension/rebate--*.sql)))

REGRESS     = $(sort $(patsubst sql/%.sql,%,$(wildcard sql/*.sql)))
# One locale and encoding for everyone, so that sort order does not depend on the server.
REGRESS_OPTS = --no-locale --encoding=UTF8

ISOLATION   = $(sort $(patsubst test/isolation/specs/%.spec,%,$(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --no-locale --encoding=UTF8 --inputdir=test/isolation --load-extension=rebate

# As system headers, the server's own headers raise no warnings under -Wextra.
PG_CPPFLAGS = -Iextension -DREBATE_VERSION='"$(EXTVERSION)"' -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Wmissing-prototypes

EXTRA_CLEAN = results regression.diffs regression.out output_iso

# No bitcode: it would need clang, and inlining buys a trigger nothing.
override with_llvm := no

PG_CONFIG  ?= pg_config
PGXS       := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
# Debian's package of the client brings the makefiles, but no headers.
SERVER_HEADERS := $(wildcard $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h)

ifneq (,$(and $(wildcard $(PGXS)),$(SERVER_HEADERS)))

include $(PGXS)

# From 16 on pg_regress looks for expected/ in a directory of its own.
ifneq (15,$(MAJORVERSION))
ISOLATION_OPTS += --expecteddir=test/isolation
endif

# PGXS tracks no header dependencies; rebuilding all is a matter of seconds.
$(OBJS): $(wildcard extension/*.h) Makefile

# The list of pieces is a prerequisite too: a removed piece must not survive in the script.
$(INSTALL_SQL): $(SQL_PIECES) $(wildcard extension/sql) Makefile
	@cat $(SQL_PIECES) /dev/null > $@.tmp && mv $@.tmp $@

$(UPGRADE_SQL): extension/rebate--$(PREVIOUS).sql $(SQL_PIECES) $(wildcard extension/sql $(UPGRADE_DIR) $(UPGRADE_DIR)/*) Makefile
	@{ cat $(UPGRADE_DIR)/begin.sql $(wildcard $(UPGRADE_DIR)/$(PREVIOUS)--$(EXTVERSION).sql) && \
	   awk -f $(UPGRADE_DIR)/replay.awk extension/rebate--$(PREVIOUS).sql $(SQL_PIECES) && \
	   cat $(UPGRADE_DIR)/end.sql; } > $@.tmp && mv $@.tmp $@

else

# Nothing to build with yet. The targets below still work: they install what is missing, or say what it is.
.DEFAULT_GOAL := all
all install installcheck uninstall clean:
	@echo "$(PG_CONFIG) does not lead to the server's build files (PGXS and headers)." >&2
	@echo "Debian: apt-get install postgresql-server-dev-NN; or set PG_CONFIG. 'make test' and 'make demo' install what is missing." >&2
	@exit 1

endif

.PHONY: all install installcheck uninstall clean client install-client test soak demo psql seed bench deps FORCE

client:
	@$(MAKE) -s -C client PG_CONFIG=$(PG_CONFIG)

install-client:
	@$(MAKE) -s -C client PG_CONFIG=$(PG_CONFIG) install

deps:
	@test/deps

test: deps
	@test/run $(TESTS)

soak: deps
	@SOAK_ORDERS=$${SOAK_ORDERS:-1000000} SOAK_AUDIT=$${SOAK_AUDIT:-1} REBATE_TIMEOUT=$${REBATE_TIMEOUT:-36000} test/run suites/soak

demo:
	@test/deps build
	@test/demo/run demo

psql:
	@test/deps build
	@test/demo/run psql

seed:
	@test/demo/run seed $(DB)

bench:
	@test/deps build
	@test/bench/run

bench-report: FORCE
	@test/deps build
	@test/bench/report

bench-%: FORCE
	@test/deps build
	@test/bench/run $*

ubsan: FORCE
	@test/deps
	@test/sanitize ubsan $(TESTS)

valgrind: FORCE
	@test/deps
	@test/sanitize valgrind $(TESTS)

FORCE:
