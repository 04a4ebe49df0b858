# tqdb: `make` lists the targets. Everything lives in .venv; nothing but the distribution's packages that
# scripts/ensure-system names is installed outside it.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet
# this package where it lies, with extras; its core is compiled by itself, once
PIP_EDITABLE := TQDB_PYTHON_ONLY=1 $(PIP) install -c constraints.txt --no-build-isolation -e
ARGS ?=
SECONDS ?= 60
PROTOCOL ?= postgres mariadb
CORE := setup.py $(wildcard tqdb/*.pyx tqdb/core/*.pxi tqdb/load/*.pyx tqdb/load/*.pxd)
BENCH := TQDB_SLOWSYNC=build/slowsync.so $(VENV)/bin/tqdb bench --pictures bench-results
# what goes into the executable
PARTS := packaging/tqdb.spec packaging/entry.py $(wildcard tqdb/*.html tqdb/*.py tqdb/*/*.py locustfiles/*.py)
# the executable is built in an older Debian, so that it runs on older systems; `host`: with this machine's Python
BINARY ?= portable
BUILT_BY := $(if $(filter host,$(BINARY)),host,$(shell scripts/build-portable possible 2>/dev/null && echo portable \
	|| echo host))
DEBUG ?= 0
# what needs no server and no socket: it is run under the sanitizers too
SANS_IO := tests/test_sans_io.py tests/test_scanner.py tests/test_fuzz_corpus.py \
	$(wildcard tests/test_interleavings.py tests/test_random_interleavings.py)
SECONDS_EACH := $(or $(SECONDS),60)
ROUNDS ?= 100
SCHEMAS ?= 1000
WRITES ?= 10000000
CLIENTS ?= 10000
NAMES ?=

.DEFAULT_GOAL := help
.PHONY: help run build test test-drivers test-package test-portable test-versions test-conversations test-schemas \
	test-sanitize sans-io test-ledger test-rolling test-cluster test-failover test-memory fuzz coverage lint \
	bench bench-1k bench-10k bench-100k bench-1m bench-all locust locust-headless binary deb wheel clean debug

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build  ## show the product: direct against batched on throwaway servers (ARGS=--once to end by itself)
	@scripts/ensure-system servers
	@$(VENV)/bin/tqdb demo $(ARGS)

build: $(VENV)/.built  ## virtual environment, compiled core, the command .venv/bin/tqdb

test: build $(VENV)/.dev $(VENV)/.drivers build/slowsync.so  ## the test suite, on throwaway servers (ARGS are pytest's)
	@scripts/ensure-system servers
	@scripts/ensure-system tools
	@scripts/ensure-system browser
	@scripts/ensure-system prometheus
	@scripts/ensure-system ed25519
	@$(VENV)/bin/pytest $(ARGS)

test-drivers: build $(VENV)/.dev $(VENV)/.drivers build/java/.fetched  ## the tests with drivers, those of Node and Java too
	@scripts/ensure-system servers
	@scripts/ensure-system ed25519
	@scripts/ensure-system node
	@cd tests/node && npm install --silent --no-audit --no-fund --no-package-lock
	@$(VENV)/bin/pytest tests/test_drivers.py tests/test_orms.py tests/test_node.py tests/test_java.py tests/test_first_day.py \
		tests/test_framework_calls.py $(ARGS)

test-package: dist/tqdb $(VENV)/.dev  ## as root: the Debian package in a minimal Debian, which is made for it
	@scripts/ensure-system servers
	@scripts/ensure-system debootstrap
	@test -d build/debian/usr || debootstrap --variant=minbase bookworm build/debian >build/debootstrap.log
	@TQDB_DEB=$$(scripts/build-deb) TQDB_DEB_NEWER=$$(scripts/build-deb 99.0.0) TQDB_BIN=dist/tqdb \
		TQDB_DEBIAN_ROOT=$(CURDIR)/build/debian $(VENV)/bin/pytest tests/test_package.py $(ARGS)

test-versions: build $(VENV)/.dev  ## on PostgreSQL 13 to 18, MariaDB 10.11 and 11.4, a MySQL-compatible server (NAMES=)
	@scripts/ensure-system servers
	@scripts/ensure-system packages
	@$(VENV)/bin/python -m tests.versions $(NAMES) -- $(ARGS)

test-sanitize: build $(VENV)/.dev  ## the sans-IO tests with AddressSanitizer and UBSan
	@scripts/build-variant sanitize
	@scripts/test-sanitize $(SANS_IO) $(ARGS)

sans-io:  ## names the test files that need neither servers nor sockets
	@echo $(SANS_IO)

test-ledger: build $(VENV)/.dev  ## kills under load, every write accounted for (ROUNDS=100 for each database)
	@scripts/ensure-system servers
	@$(VENV)/bin/python -m tests.ledger --rounds $(ROUNDS) $(ARGS)

test-rolling: build $(VENV)/.dev  ## a proxy replaced under load, nobody refused (ROUNDS=100 for each database)
	@scripts/ensure-system servers
	@$(VENV)/bin/python -m tests.rolling --rounds $(ROUNDS) $(ARGS)

test-cluster: build $(VENV)/.dev  ## two proxies before three Galera nodes that come, go, crash and are cut off
	@scripts/ensure-system servers
	@scripts/ensure-system cluster
	@TQDB_CLUSTER=1 $(VENV)/bin/pytest tests/test_cluster.py $(ARGS)

test-failover: build $(VENV)/.dev  ## the primary goes under load, its standby is promoted (ROUNDS=20)
	@scripts/ensure-system servers
	@$(VENV)/bin/python -m tests.failover --rounds $(if $(filter command\ line environment,$(origin ROUNDS)),$(ROUNDS),20) $(ARGS)

test-memory: build  ## memory under WRITES=10000000 writes, and of each of CLIENTS=10000 idle clients
	@$(VENV)/bin/python -m tests.memory --writes $(WRITES) --clients $(CLIENTS) $(ARGS)

fuzz: build $(VENV)/.fuzz  ## coverage-guided fuzzing of the core (SECONDS=60 for each target, TARGET= for one)
	@scripts/ensure-system clang
	@scripts/build-variant fuzz
	@$(VENV)/bin/python -m tests.fuzz --seconds $(SECONDS_EACH) $(if $(TARGET),--target $(TARGET)) $(ARGS)

coverage: build $(VENV)/.coverage build/slowsync.so  ## lines of Python and Cython that the tests reach, 90 % at least; build/coverage/html
	@scripts/ensure-system servers
	@scripts/build-variant coverage
	@scripts/coverage $(ARGS)

test-conversations: build $(VENV)/.dev  ## random legal conversations, direct and through (SECONDS=1800, PROTOCOL=postgres)
	@scripts/ensure-system servers
	@failed=0; for protocol in $(PROTOCOL); do \
		$(VENV)/bin/python -m tests.conversations --protocol $$protocol --seconds $(SECONDS) $(ARGS) || failed=1; \
		done; exit $$failed

test-schemas: build $(VENV)/.dev  ## random schemas written to, direct and through (SCHEMAS=1000, PROTOCOL=postgres)
	@scripts/ensure-system servers
	@failed=0; for protocol in $(PROTOCOL); do \
		$(VENV)/bin/python -m tests.schemas --protocol $$protocol --schemas $(SCHEMAS) $(ARGS) || failed=1; \
		done; exit $$failed

lint: build $(VENV)/.dev  ## ruff, cython-lint, import-linter
	@$(VENV)/bin/ruff check .
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/cython-lint tqdb/_core.pyx tqdb/core/*.pxi tqdb/load/*.pyx tqdb/load/*.pxd
	@$(VENV)/bin/lint-imports --no-cache

bench: $(VENV)/.bench  ## the benchmark suite, eight minutes; tables, JSON and pictures in bench-results/
	@$(BENCH) --json bench-results/bench.json $(ARGS)

bench-1k bench-10k bench-100k bench-1m: bench-%: $(VENV)/.bench  ## one target of the scenario write
	@$(BENCH) write --target $* --json bench-results/$@.json $(ARGS)

bench-all: $(VENV)/.bench  ## the suite with five seconds for each measurement and all of the grid, an hour
	@$(BENCH) --seconds 5 --json bench-results/bench-all.json $(ARGS)
	@$(BENCH) never --json bench-results/never.json $(ARGS)

locust: build $(VENV)/.locust  ## Locust's web page before throwaway servers (ARGS="--host URL" for your own)
	@scripts/ensure-system servers
	@$(VENV)/bin/tqdb locust $(if $(findstring --host,$(ARGS)),,--throwaway) $(ARGS)

locust-headless: build $(VENV)/.locust  ## a minute of Locust without its web page; HTML and CSV in bench-results/
	@scripts/ensure-system servers
	@mkdir -p bench-results
	@$(VENV)/bin/tqdb locust $(if $(findstring --host,$(ARGS)),,--throwaway) --headless -u 50 -r 50 -t 60s \
		--only-summary --html bench-results/locust.html --csv bench-results/locust $(ARGS)

binary: dist/tqdb  ## one executable, dist/tqdb, that runs with glibc 2.31 (BINARY=host: built here, quick)
	@echo "dist/tqdb needs glibc $$(scripts/glibc-needed dist/tqdb)"

ifeq ($(BUILT_BY),host)
dist/tqdb: $(VENV)/.binary $(PARTS) build/binary.host
	@[ $(BINARY) = host ] || scripts/build-portable possible || \
		echo "tqdb: building with this machine's Python and glibc instead"
	@scripts/ensure-system binutils
	@$(VENV)/bin/pyinstaller --noconfirm --log-level ERROR packaging/tqdb.spec
else
dist/tqdb: packaging/portable-python pyproject.toml constraints.txt $(CORE) $(PARTS) build/binary.portable
	@scripts/build-portable || make --silent BINARY=host $@
endif

# an executable that was built the other way is out of date
build/binary.%:
	@mkdir -p build
	@rm -f build/binary.*
	@touch $@

deb: dist/tqdb  ## a Debian package of the executable, dist/tqdb_VERSION_ARCH.deb
	@scripts/build-deb

wheel: build  ## a wheel, for Python 3.11 or later on this machine's kind
	@$(PIP) wheel -c constraints.txt --no-build-isolation --no-deps -w dist .

test-portable: dist/tqdb $(VENV)/.dev  ## as root: the executable in a bare Debian 11 and a bare Debian 12, made for it
	@scripts/ensure-system servers
	@scripts/ensure-system debootstrap
	@for suite in bullseye bookworm; do test -e build/bare-$$suite/made || { rm -rf build/bare-$$suite && \
		debootstrap --variant=minbase $$suite build/bare-$$suite >build/debootstrap.log && \
		touch build/bare-$$suite/made; } || exit 1; done
	@TQDB_BIN=dist/tqdb TQDB_PORTABLE=$(CURDIR)/build/bare-bullseye:$(CURDIR)/build/bare-bookworm \
		$(VENV)/bin/pytest tests/test_portable.py $(ARGS)

debug:  ## build with line tracing, checks of divisions and C assertions
	@rm -f tqdb/_core.c tqdb/load/_gen.c tqdb/load/_null.c $(VENV)/.built
	@TQDB_DEBUG=1 $(MAKE) build

clean:  ## remove everything that was built
	rm -rf $(VENV) build dist bench-results tqdb.egg-info tqdb/*.so tqdb/load/*.so tqdb/_core.c \
		tqdb/load/_gen.c tqdb/load/_null.c

$(VENV)/.deps: pyproject.toml constraints.txt
	@scripts/ensure-system python "$(PYTHON)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV)"
	@$(PIP) install -c constraints.txt setuptools wheel cython
	@rm -f $(VENV)/.built
	@touch $@

$(VENV)/.built: $(VENV)/.deps $(CORE)
	@echo "compiling the core"
	@$(PIP_EDITABLE) . > build.log 2>&1 || { cat build.log; exit 1; }
	@$(VENV)/bin/python setup.py -q build_ext --inplace > build.log 2>&1 || { cat build.log; exit 1; }
	@rm -f build.log
	@touch $@

$(VENV)/.dev: $(VENV)/.built
	@$(PIP_EDITABLE) '.[test,lint]'
	@touch $@

$(VENV)/.drivers: $(VENV)/.dev
	@scripts/ensure-system drivers
	@$(PIP_EDITABLE) '.[drivers]'
	@$(PIP) install -c constraints.txt mysqlclient > build.log 2>&1 || \
		echo "tqdb: mysqlclient cannot be built here, its tests are skipped"
	@rm -f build.log
	@touch $@

build/java/.fetched: tests/java/pom.xml
	@{ scripts/ensure-system java && \
		mvn --quiet --batch-mode -f $< dependency:copy -DoutputDirectory=$(CURDIR)/build/java && \
		touch $@; } || echo "tqdb: Java's drivers cannot be had here, their tests are skipped"

$(VENV)/.fuzz: $(VENV)/.dev
	@$(PIP_EDITABLE) '.[fuzz]'
	@touch $@

$(VENV)/.coverage: $(VENV)/.drivers
	@$(PIP_EDITABLE) '.[coverage]'
	@touch $@

$(VENV)/.bench: $(VENV)/.built build/slowsync.so
	@scripts/ensure-system servers
	@scripts/ensure-system tools
	@$(PIP_EDITABLE) '.[bench]'
	@touch $@

# a disk with slow commits, preloaded into throwaway servers by benchmarks and never into anything else
build/slowsync.so: tqdb/load/slowsync.c
	@mkdir -p build
	@cc -O2 -shared -fPIC -o $@ $< -ldl

$(VENV)/.locust: $(VENV)/.built
	@$(PIP_EDITABLE) '.[locust]'
	@touch $@

$(VENV)/.binary: $(VENV)/.built
	@$(PIP_EDITABLE) '.[bench,locust,binary]'
	@touch $@
