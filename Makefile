# wh_worker: built by PGXS. `make`, `make install` and `make installcheck` are
# what PGXS makes of them; PG_CONFIG=... chooses the server. The targets at the
# end (test, matrix, lint, reference, demo, fuzz, bench) bring their own packages, so this file must also
# be readable on a machine that has no pg_config yet.

EXTENSION = wh_worker
EXTVERSION = 1.0
MODULE_big = wh_worker
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

# The extension script: one family of objects a file, in the order of their numbers.
SQL_PARTS = $(sort $(wildcard sql/[0-9]*.sql))
# From one version to the next. The last one ends as the extension script does: owners and
# rights are given again. (When EXTVERSION grows it becomes a file that is complete by itself.)
UPGRADES = $(notdir $(sort $(wildcard sql/upgrade/*.sql)))
LAST_UPGRADES = $(filter %--$(EXTVERSION).sql,$(UPGRADES))
PRIVILEGES = sql/99_privileges.sql
DATA_built = $(EXTENSION)--$(EXTVERSION).sql $(UPGRADES)

PG_CPPFLAGS = -I$(libpq_srcdir) -DWH_EXTENSION_VERSION='"$(EXTVERSION)"'
# The three -Wno- are for PostgreSQL's own headers and conventions
# (PG_FUNCTION_ARGS, Size against int, {0} initialisers).
# A package is built by compilers that we do not know: debian/rules says WERROR= .
WERROR ?= -Werror
PG_CFLAGS = -std=gnu99 -Wall -Wextra $(WERROR) \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = $(libpq) -lcrypto

# Bitcode lets the planner's JIT inline functions called once a row. We have
# none, and without it nobody needs clang to build.
override with_llvm := no

# Tests. The variables are expanded at once: PGXS asks whether they are empty.
REGRESS_NAMES := $(basename $(notdir $(sort $(wildcard regress/sql/*.sql))))
REGRESS := $(filter setup,$(REGRESS_NAMES)) $(filter-out setup,$(REGRESS_NAMES))
REGRESS := $(strip $(REGRESS))
# Without a test that makes the extension pg_regress does it.
REGRESS_EXTENSION := $(if $(filter setup,$(REGRESS)),,--load-extension=$(EXTENSION))
REGRESS_OPTS = --inputdir=regress --encoding=UTF8 --no-locale $(REGRESS_EXTENSION)
ISOLATION := $(basename $(notdir $(sort $(wildcard regress/specs/*.spec))))
ISOLATION_OPTS = --inputdir=regress --encoding=UTF8 --no-locale --load-extension=$(EXTENSION)
TAP_TESTS := $(if $(wildcard t/*.pl),1)
PROVE_FLAGS += -I t/lib
TEST_LIBRARIES = t/cron/cron_test.so t/decode/decode_test.so
REGRESS_PREP = drop-test-databases $(TEST_LIBRARIES)
EXTRA_CLEAN = t/*/*.o t/*/*.so dist

PG_CONFIG = pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

.PHONY: all test matrix sanitize deb package-test dist lint reference demo fuzz bench drop-test-databases
all:

ifneq (,$(wildcard $(PGXS)))
include $(PGXS)
else
all install installdirs uninstall installcheck clean:
	@echo "No usable pg_config ($(PG_CONFIG)). Install PostgreSQL's server headers" \
		"(Debian: ci/install-packages build) or say PG_CONFIG=/path/to/pg_config." >&2
	@exit 1
endif

$(OBJS) $(TEST_LIBRARIES:.so=.o): $(wildcard src/*.h)
src/version.o: Makefile

# Functions that only regress/sql/cron.sql and decode.sql call; never installed.
t/cron/cron_test.so: t/cron/cron_test.o src/cron.o src/cron_next.o
t/decode/decode_test.so: t/decode/decode_test.o src/decode.o src/decode_types.o src/row_form.o
$(TEST_LIBRARIES):
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDFLAGS_SL) -shared -o $@

$(EXTENSION)--$(EXTVERSION).sql: $(SQL_PARTS) Makefile
	cat $(SQL_PARTS) | sed 's/@EXTVERSION@/$(EXTVERSION)/g' > $@.tmp
	mv $@.tmp $@

$(UPGRADES): %.sql: sql/upgrade/%.sql
	cat $^ > $@.tmp
	mv $@.tmp $@
$(LAST_UPGRADES): $(PRIVILEGES)

# A launcher is connected to them after an earlier run, so a plain DROP would fail.
drop-test-databases:
	for db in $(CONTRIB_TESTDB) $(ISOLATION_TESTDB); do \
		'$(bindir)/psql' -X -q -d postgres -c "DROP DATABASE IF EXISTS $$db WITH (FORCE)" || exit 1; \
	done

# Everything below works on a fresh machine, as root or not.
# TESTS="t/010_x.pl regress/sql/y.sql" runs only those.
test:
	ci/run-tests $(TESTS)

# The same with each supported PostgreSQL; VERSIONS="17 18" chooses among them.
matrix:
	ci/matrix $(TESTS)

# Under AddressSanitizer and UndefinedBehaviorSanitizer, with assertions.
sanitize:
	ci/sanitize-tests $(TESTS)

# Debian packages, in dist/; and what happens when they are installed, as docs/install.md says.
deb:
	ci/make-deb
package-test:
	ci/test-deb

# For PGXN: what is committed, with the built scripts, in dist/.
dist: $(DATA_built)
	ci/make-dist $(DATA_built)

lint:
	ci/lint

# docs/: what COMMENT ON and the settings' descriptions say.
reference:
	ci/make-reference

demo:
	ci/install-packages demo
	demo/run

# Three targets, SECONDS of time each: make fuzz SECONDS=600.
fuzz:
	ci/install-packages fuzz
	fuzz/run -s $(if $(SECONDS),$(SECONDS),60)

ifneq (,$(wildcard bench/run))
bench:
	ci/install-packages bench
	bench/run
endif
