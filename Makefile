# Everything a newcomer types. The first call builds .venv from pyproject.toml and requirements.lock; later ones start at once.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := .venv-docs
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$name && break; done)

# One process of tests a core, up to four: each holds torch and a few GiB.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: help demo test test-all mutants lint format lock docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## train the default ViT on the bundled digits (seconds)
	$(BIN)/vitexp

test: $(STAMP) ## the tests that CI runs (minutes)
	$(BIN)/pytest $(SIDE_BY_SIDE)

test-all: $(STAMP) ## all tests, slow proofs included
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not gpu or gpu"

mutants: $(STAMP) ## small faults in the core, each against its module's tests (hours; ARGS="optim --number 20")
	$(BIN)/python tests/mutants.py $(ARGS)

lint: $(STAMP) ## ruff check, ruff format --check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## pin the newest versions that pyproject.toml allows, with the hashes of their files
	$(UV) pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url --no-annotate --no-header --generate-hashes \
		--upgrade pyproject.toml --output-file requirements.lock
	echo mkdocs-material | $(UV) pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header --generate-hashes \
		--upgrade - --output-file docs/site/requirements.lock

docs: $(DOCS)/.installed ## build the site of docs/ into .site/
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml

clean: ## remove .venv and caches; outputs/ stays
	rm -rf $(VENV) $(DOCS) .site .mypy_cache .ruff_cache .pytest_cache

UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)

$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "vitexp needs Python 3.11, 3.12 or 3.13"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	command -v uv >/dev/null 2>&1 || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(DOCS)/.installed: docs/site/requirements.lock | $(STAMP)
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(UV) pip install --quiet --python $(DOCS)/bin/python --require-hashes --requirement docs/site/requirements.lock
	@touch $@
