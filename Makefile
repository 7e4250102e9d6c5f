# Every target sets up what it needs on a fresh machine; stamp files make that happen once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
PACKAGES := $(patsubst %/,%,$(wildcard api/ worker/ shared/ local/ bench/ tests/))

# One stamp for each step, so that a changed requirement installs again and nothing else does.
VENV_STAMP := $(VENV)/.made
RUN_STAMP := $(VENV)/.run-installed
DEV_STAMP := $(VENV)/.dev-installed
ENGINE_STAMP := local/node_modules/.installed

# A DynamoDB endpoint of the user's makes the embedded engine, and npm with it, needless.
RUN_ENGINE := $(if $(AWS_ENDPOINT_URL_DYNAMODB),,$(ENGINE_STAMP))

# Node trusts only its own list of authorities; the machine's may hold a company's proxy too.
SYSTEM_CERTS := $(wildcard /etc/ssl/certs/ca-certificates.crt)
ifneq ($(SYSTEM_CERTS),)
export NODE_EXTRA_CA_CERTS ?= $(SYSTEM_CERTS)
endif

# Any non-empty FULL, as in FULL=1, asks for the same tests at full size.
FULL ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test test-unit test-integration test-faults test-install check format venv clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN_STAMP) $(RUN_ENGINE) ## Start everything on this machine; Ctrl-C stops it
	@exec $(BIN)/python -m local.run

test: test-unit test-integration ## Run all tests: unit, then integration and end to end

test-unit: $(DEV_STAMP) ## Run the tests that need no engine
	@$(PYTEST) -m "not integration and not fault and not slow"

test-integration: $(DEV_STAMP) $(ENGINE_STAMP) ## Run the tests on real engines and processes
	@$(PYTEST) -m "(integration or fault) and not slow"

test-faults: $(DEV_STAMP) $(ENGINE_STAMP) ## Run those and the slow ones; FULL=1 makes them full size
	@FULL_SIZE=$(if $(FULL),1,) $(PYTEST) -m "integration or fault"

test-install: $(VENV_STAMP) ## See that the pinned runtime alone can start every process
	@rm -rf $(VENV)/runtime-only
	@$(BIN)/python -m venv $(VENV)/runtime-only
	@$(VENV)/runtime-only/bin/python -m pip --disable-pip-version-check --quiet install -r requirements.txt
	@AWS_DEFAULT_REGION=us-east-1 $(VENV)/runtime-only/bin/python -c 'import api.wsgi, gunicorn.workers.gthread; \
	  import worker.app, worker.sweeper, flower.command, shared.order_store.create_table; \
	  worker.app.app.connection_for_read().transport'
	@rm -rf $(VENV)/runtime-only

check: $(DEV_STAMP) ## Check format, lint, types and import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(PACKAGES)
	@$(BIN)/lint-imports

format: $(DEV_STAMP) ## Format the code and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

venv: $(DEV_STAMP) ## Build .venv with everything for development

clean: ## Remove what make built (never the data in .data)
	@rm -rf $(VENV) local/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV_STAMP):
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "$(PYTHON) is not on PATH. Install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	    "Name a newer one: make PYTHON=python3.12 ..." >&2; \
	  exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo "Python could not make a virtual environment (on Debian: apt install python3-venv)." >&2; \
	  exit 1; }
	@touch $@

$(RUN_STAMP): $(VENV_STAMP) requirements.txt local/requirements.txt
	@echo "Installing what the embedded mode needs"
	@$(PIP) install -r local/requirements.txt
	@touch $@

$(DEV_STAMP): $(VENV_STAMP) requirements.txt local/requirements.txt requirements-dev.txt
	@echo "Installing what development needs"
	@$(PIP) install -r requirements-dev.txt
	@touch $(RUN_STAMP) $@

$(ENGINE_STAMP): local/package.json local/package-lock.json
	@command -v npm >/dev/null 2>&1 || { \
	  echo "npm is not on PATH: it brings the embedded DynamoDB engine. Install Node.js with npm, or" \
	    "set AWS_ENDPOINT_URL_DYNAMODB to a DynamoDB endpoint (DynamoDB Local, say): make run then needs no npm." >&2; \
	  exit 1; }
	@echo "Installing the embedded DynamoDB engine"
	@npm ci --prefix local --prefer-offline --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@
