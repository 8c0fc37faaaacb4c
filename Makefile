# make run    set up, build, and show a simulated venue being recorded (no internet needed after set-up)
# make test   set up, build, and run all tests
# Both do everything a machine with Python 3.11+, make and a C compiler needs; a second call is quick.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What an import, a test or a type check of the installed package depends on.
BUILD_INPUTS := pyproject.toml setup.py obframe/_core.pyx obframe/_core.h obframe/_levels.h obframe/_book.h obframe/_apply.h obframe/_rows.h

# Images of containers often set it. Each command that a test starts, and each worker for all the
# tests, would compile anew what it imports; `make clean` removes what Python keeps of it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: bench-core bench-instructions bench-load bench-structures sanitize fuzz free-threaded nightly
.PHONY: help run test lint bench bench-peers crash soak docs build clean setup

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo 'make lint | bench | bench-peers | docs | build | clean'
	@echo 'make bench-load          record 1,500 symbols and judge every row; LOAD_OPTIONS=--help'
	@echo 'make crash ROUNDS=100    kill -9 recorders and backups so many times; flip twice as many bytes'
	@echo 'make soak SECONDS=3600   record 20 symbols for so long and judge every row'
	@echo 'make sanitize            test the core built with AddressSanitizer and UBSan'
	@echo 'make fuzz SECONDS=60     fuzz the core, guided by its coverage'
	@echo 'make nightly             10,000 examples of every property'
	@echo 'make bench-structures    measure blocks and pages beside the flat array that a book is'
	@echo 'make free-threaded       test the core on a Python without GIL: FREE_THREADED_PYTHON=python3.14t'
	@echo 'make bench-core          the budgets that only the processor decides'
	@echo 'make bench-instructions  count instructions with valgrind, beside those last accepted'

$(VENV)/.stamp-venv:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo 'obframe needs Python 3.11 or newer and finds no "$(PYTHON)"; name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "obframe needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) lacks the module venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CC:-cc} >/dev/null 2>&1 || { \
	  echo 'obframe compiles its core and finds no C compiler; on Debian: apt-get install gcc python3-dev' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-built: $(VENV)/.stamp-venv $(BUILD_INPUTS)
	@echo 'installing obframe and all that its tests need into $(VENV), compiling its core: takes some minutes at first'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@# mypy cannot see through an editable install: plugins/ under its import name.
	@mkdir -p build/typing && ln -sfn ../../plugins build/typing/obframe_plugins
	@touch $@

setup: $(VENV)/.stamp-built

run: $(VENV)/.stamp-built
	$(BIN)/obframe demo

# Much of the time goes into waiting for clocks and processes: four workers keep two cores busy.
test: $(VENV)/.stamp-built
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -p no:benchmark

lint: $(VENV)/.stamp-built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest obframe._core --mypy-config-file pyproject.toml

bench: $(VENV)/.stamp-built
	$(BIN)/python -m pytest benchmarks

# The budgets that only the processor decides, not the disk or the wall clock.
bench-core: $(VENV)/.stamp-built
	$(BIN)/python -m pytest benchmarks/bench_core.py benchmarks/bench_book.py benchmarks/bench_serialization.py

# 1,500 symbols from the loopback venue, by each library and event loop, plain and over TLS.
LOAD_OPTIONS ?=
bench-load: $(VENV)/.stamp-built
	$(BIN)/python benchmarks/load.py $(LOAD_OPTIONS)

bench-instructions: $(VENV)/.stamp-built
	$(BIN)/python benchmarks/instructions.py

# Other structures for a book beside the core's; see docs/decisions/0005-flat-book-with-holes.md.
bench-structures: $(VENV)/.stamp-built
	$(BIN)/python benchmarks/structures/run.py $(STRUCTURES_OPTIONS)

# obframe beside the libraries people use instead, in an environment of its own; see docs/performance.md.
# order-book needs Python 3.13, and not every peer has wheels for what is newer.
PEERS_PYTHON ?= $(shell for each in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python) python3; do \
  if $$each -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null; then echo $$each; exit; fi; \
  done; echo $(PYTHON))
PEERS_VENV ?= .venv-peers
PEERS_BIN := $(PEERS_VENV)/bin
PEERS_OPTIONS ?=
PEERS_SKIP ?=

$(PEERS_VENV)/.stamp-peers: benchmarks/peers/requirements.txt benchmarks/peers/install.py
	$(PEERS_PYTHON) -m venv $(PEERS_VENV)
	@echo 'installing the peers; the first time hummingbot is compiled, which takes minutes'
	$(PEERS_BIN)/python benchmarks/peers/install.py $(PEERS_VENV)/reasons.json $(PEERS_SKIP)
	@touch $@

$(PEERS_VENV)/.stamp-obframe: $(PEERS_VENV)/.stamp-peers $(BUILD_INPUTS) $(wildcard obframe/*.py obframe/*/*.py plugins/*.py)
	$(PEERS_BIN)/python benchmarks/peers/install.py obframe
	@touch $@

bench-peers: $(PEERS_VENV)/.stamp-obframe
	$(PEERS_BIN)/python benchmarks/peers/run.py --docs docs --reasons $(PEERS_VENV)/reasons.json $(PEERS_OPTIONS)

# The long forms of two tests that `make test` runs in short.
ROUNDS ?= 100
crash: $(VENV)/.stamp-built
	OBFRAME_CRASH_ROUNDS=$(ROUNDS) OBFRAME_CORRUPTION_ROUNDS=$$((2 * $(ROUNDS))) $(BIN)/python -m pytest \
	  tests/e2e/test_crash.py tests/e2e/test_upkeep.py tests/plugins/test_rocksdb_corruption.py

soak: $(VENV)/.stamp-built
	OBFRAME_LOAD_SECONDS=$(or $(SECONDS),3600) $(BIN)/python -m pytest tests/e2e/test_load.py

# The core on builds of its own, in build/: the one in use stays as it is.
sanitize: $(VENV)/.stamp-built
	$(BIN)/python safety/sanitize.py

fuzz: $(VENV)/.stamp-built
	$(BIN)/python safety/fuzz.py --seconds $(or $(SECONDS),60)

# CPython configured with --disable-gil; with --with-thread-sanitizer besides, races are looked for.
FREE_THREADED_PYTHON ?= python3.14t python3.13t
free-threaded: $(VENV)/.stamp-built
	$(BIN)/python safety/free_threaded.py $(FREE_THREADED_PYTHON)

nightly: $(VENV)/.stamp-built
	$(BIN)/python -m pytest tests/properties --hypothesis-profile nightly --timeout 14400

docs: $(VENV)/.stamp-built
	$(BIN)/python docs/tables.py
	$(BIN)/python -m pytest tests/test_docs.py tests/test_hooks.py

build: $(VENV)/.stamp-built
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(VENV) $(PEERS_VENV) build dist obframe.egg-info obframe-demo-data .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f obframe/_core*.so
	rm -rf obframe/commands/templates/.ruff_cache
