# Every target sets up what it needs on a fresh machine; stamp files make that happen once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
PACKAGES := $(patsubst %/,%,$(wildcard api/ worker/ shared/ local/ ops/ bench/ client/ tests/))

# One stamp for each step, so that a changed requirement installs again and nothing else does.
VENV_STAMP := $(VENV)/.made
RUN_STAMP := $(VENV)/.run-installed
DEV_STAMP := $(VENV)/.dev-installed
ENGINE_STAMP := local/node_modules/.installed
BROWSER := tests/browser
BROWSER_STAMP := $(BROWSER)/node_modules/.installed
POSTMAN := tests/postman
POSTMAN_STAMP := $(POSTMAN)/node_modules/.installed
DYNAMODB_LOCAL := local/dynamodb-local
DYNAMODB_LOCAL_STAMP := $(DYNAMODB_LOCAL)/lib/.installed
DYNAMODB_LOCAL_PORT ?= 8001
PROMETHEUS := local/prometheus
PROMETHEUS_STAMP := $(PROMETHEUS)/.installed

# A DynamoDB endpoint of the user's makes the embedded engine, and npm with it, needless.
RUN_ENGINE := $(if $(AWS_ENDPOINT_URL_DYNAMODB),,$(ENGINE_STAMP))

# Node trusts only its own list of authorities; the machine's may hold a company's proxy too.
SYSTEM_CERTS := $(wildcard /etc/ssl/certs/ca-certificates.crt)
ifneq ($(SYSTEM_CERTS),)
export NODE_EXTRA_CA_CERTS ?= $(SYSTEM_CERTS)
endif

# Any non-empty FULL, as in FULL=1, asks for the same tests at full size.
FULL ?=

# Settings of make chaos; docs/chaos.md says what they do.
CHAOS_OPTIONS = $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ORDERS),--orders $(ORDERS)) $(if $(SEED),--seed $(SEED)) \
  $(if $(OUT),--out $(OUT))

# Settings of make simulate; docs/simulation.md says what they do.
SIMULATE_OPTIONS = $(if $(SEED),--seed $(SEED)) $(if $(N),--schedules $(N)) $(if $(FROM),--first $(FROM)) $(if $(BUG),--bug $(BUG))

# Settings of make bench, each as in OUT=docs/benchmarks; docs/performance.md says what they do.
BENCH_OPTIONS = $(if $(QUICK),--quick) $(if $(CHECK),--check) $(if $(ONLY),--only $(ONLY)) $(if $(SECONDS),--seconds $(SECONDS)) \
  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(GROWTH),--growth $(GROWTH)) $(if $(OUT),--out $(OUT))

# Settings of make test-schema: cases of each call and phase, seed, seconds of each of its two runs.
SCHEMA_OPTIONS = $(if $(N),--cases $(N)) $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run ops audit test test-simulation test-unit test-integration test-faults test-dynamodb-local test-install test-alerts test-containers \
  test-browser screenshots test-schema test-postman openapi simulate chaos bench profile \
  dynamodb-local check format venv clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN_STAMP) $(RUN_ENGINE) ## Start everything on this machine; Ctrl-C stops it
	@exec $(BIN)/python -m local.run

ops: $(RUN_STAMP) ## Operators' commands on what make run started: make ops ARGS="parked list"
	@exec $(BIN)/python -m local.ops $(ARGS)

audit: $(RUN_STAMP) ## Decide what make run recorded again, and compare; options in ARGS
	@exec $(BIN)/python -m local.ops audit $(ARGS)

test: test-simulation test-unit test-integration ## Run all tests: simulation, unit, then integration and end to end

test-simulation: $(DEV_STAMP) ## Run ten thousand simulated schedules, on all cores
	@$(PYTEST) --capture no -m schedules

test-unit: $(DEV_STAMP) ## Run the other tests that need no engine, on all cores
	@$(PYTEST) --numprocesses auto --dist loadscope -m "not integration and not fault and not slow and not browser and not schedules"

test-integration: $(DEV_STAMP) $(ENGINE_STAMP) ## Run the tests on real engines and processes
	@$(PYTEST) -m "(integration or fault) and not slow"

test-faults: $(DEV_STAMP) $(ENGINE_STAMP) ## Run those and the slow ones; FULL=1 makes them full size
	@FULL_SIZE=$(if $(FULL),1,) $(PYTEST) -m "integration or fault"

test-dynamodb-local: $(DEV_STAMP) $(ENGINE_STAMP) $(DYNAMODB_LOCAL_STAMP) ## Run test-integration on AWS's DynamoDB Local
	@DYNAMODB_ENGINE=dynamodb-local $(PYTEST) -m "(integration or fault) and not slow and not any_store"

test-containers: $(DEV_STAMP) ## Check images and compose on a Docker engine, if there is one; stages in ARGS
	@$(BIN)/python -m tests.containers.check $(ARGS)

test-browser: $(DEV_STAMP) $(ENGINE_STAMP) $(BROWSER_STAMP) ## Test the page in a headless Chromium; CHROMIUM=/path/to/one uses yours
	@$(PYTEST) $(BROWSER) -m browser

screenshots: $(DEV_STAMP) $(ENGINE_STAMP) $(BROWSER_STAMP) ## Take the pictures of the page in docs/images
	@SCREENSHOTS=docs/images $(PYTEST) $(BROWSER) -m browser -k pictures

test-alerts: $(DEV_STAMP) $(ENGINE_STAMP) $(PROMETHEUS_STAMP) ## Test the alerts with promtool, and with Prometheus on a real stack
	@$(PYTEST) tests/unit/deploy/test_alerts.py tests/observability

openapi: $(DEV_STAMP) ## Write docs/openapi.json anew from the code
	@AWS_DEFAULT_REGION=us-east-1 $(BIN)/python -m api.openapi docs/openapi.json

test-schema: $(DEV_STAMP) $(ENGINE_STAMP) ## Try what the OpenAPI document says, by thousands of calls; N=60, SEED=1, SECONDS=75
	@$(BIN)/python -m tests.document.run $(SCHEMA_OPTIONS)

test-postman: $(DEV_STAMP) $(ENGINE_STAMP) $(POSTMAN_STAMP) ## Run the Postman collections on a real stack
	@$(BIN)/python -m tests.postman.run

simulate: $(DEV_STAMP) ## Run N=10000 simulated schedules, from seed FROM=0; SEED=123 replays one with its trace
	@$(BIN)/python -m tests.simulation $(SIMULATE_OPTIONS)

chaos: $(DEV_STAMP) $(ENGINE_STAMP) ## Load with faults, then judgement, a minute; ORDERS=100000, SECONDS=, SEED=, OUT=
	@$(BIN)/python -m tests.chaos.run $(CHAOS_OPTIONS)

bench: $(DEV_STAMP) $(ENGINE_STAMP) ## Measure against the yardsticks; QUICK=1 shorter, CHECK=1 fails below a threshold
	@$(BIN)/python -m bench $(BENCH_OPTIONS)

profile: $(DEV_STAMP) $(ENGINE_STAMP) ## Record where API and worker spend their time (.bench/profiles)
	@$(BIN)/python -m bench.profile

test-install: $(VENV_STAMP) ## See that the pinned runtime alone can start every process
	@rm -rf $(VENV)/runtime-only
	@$(BIN)/python -m venv $(VENV)/runtime-only
	@$(VENV)/runtime-only/bin/python -m pip --disable-pip-version-check --quiet install -r requirements.txt
	@AWS_DEFAULT_REGION=us-east-1 $(VENV)/runtime-only/bin/python -c 'import api.wsgi, gunicorn.workers.ggevent; \
	  import worker.app, worker.sweeper, flower.command, ops.__main__, shared.order_store.create_table; \
	  worker.app.app.connection_for_read().transport'
	@rm -rf $(VENV)/runtime-only
	@$(BIN)/python -m venv $(VENV)/client-only
	@$(VENV)/client-only/bin/python -m pip --disable-pip-version-check --quiet install ./client
	@cd / && $(CURDIR)/$(VENV)/client-only/bin/orders --version
	@rm -rf $(VENV)/client-only

dynamodb-local: $(DYNAMODB_LOCAL_STAMP) ## Start AWS's DynamoDB Local on DYNAMODB_LOCAL_PORT, 8001; Ctrl-C stops it
	@exec $(PYTHON) -m local.dynamodb_local $(DYNAMODB_LOCAL_PORT) .data/dynamodb-local

check: $(DEV_STAMP) ## Check format, lint, types, import rules, the AWS templates and the Dockerfiles
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(PACKAGES)
	@$(BIN)/lint-imports
	@$(BIN)/cfn-lint deploy/aws/*.yaml
	@$(BIN)/hadolint Dockerfile.api Dockerfile.worker

format: $(DEV_STAMP) ## Format the code and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

venv: $(DEV_STAMP) ## Build .venv with everything for development

clean: ## Remove what make built (never the data in .data)
	@rm -rf $(VENV) local/node_modules $(BROWSER)/node_modules $(POSTMAN)/node_modules $(DYNAMODB_LOCAL)/lib $(PROMETHEUS) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
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

$(DEV_STAMP): $(VENV_STAMP) requirements.txt local/requirements.txt requirements-dev.txt client/pyproject.toml
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

$(BROWSER_STAMP): $(BROWSER)/package.json $(BROWSER)/package-lock.json $(BROWSER)/unpack.mjs
	@command -v npm >/dev/null 2>&1 || { \
	  echo "npm is not on PATH: it brings the browser of these tests. Install Node.js with npm." >&2; \
	  exit 1; }
	@echo "Installing a headless Chromium and axe-core"
	@npm ci --prefix $(BROWSER) --ignore-scripts --prefer-offline --no-audit --no-fund --loglevel=error
	@node $(BROWSER)/unpack.mjs
	@touch $@

# Debian's, unpacked here: nobody has to be root, and nothing is started. Where there is none, the tests say so.
$(PROMETHEUS_STAMP):
	@rm -rf $(@D) && mkdir -p $(@D)
	@command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1 || { \
	  command -v apt-get >/dev/null 2>&1 && echo "Installing Prometheus" \
	  && cd $(@D) && apt-get download -qq prometheus 2>/dev/null && dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb; } || \
	  echo "Prometheus is not here, and apt-get brings none (after apt-get update?): tests that need it are skipped." >&2
	@touch $@

$(POSTMAN_STAMP): $(POSTMAN)/package.json $(POSTMAN)/package-lock.json
	@command -v npm >/dev/null 2>&1 || { \
	  echo "npm is not on PATH: it brings newman, which runs the collections. Install Node.js with npm." >&2; \
	  exit 1; }
	@echo "Installing newman"
	@npm ci --prefix $(POSTMAN) --prefer-offline --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@

$(DYNAMODB_LOCAL_STAMP): $(DYNAMODB_LOCAL)/pom.xml
	@command -v java >/dev/null 2>&1 && command -v mvn >/dev/null 2>&1 || { \
	  echo "DynamoDB Local needs Java 17 or newer and Maven: java or mvn is not on PATH." >&2; \
	  exit 1; }
	@version=$$(java -XshowSettings:properties -version 2>&1 | sed -n 's/.*java.specification.version = //p'); \
	  test "$${version%%.*}" -ge 17 || { \
	  echo "DynamoDB Local needs Java 17 or newer; java is $$version." >&2; \
	  exit 1; }
	@echo "Installing DynamoDB Local"
	@rm -rf $(@D)
	@mvn --batch-mode --quiet -Dstyle.color=never --file $< process-resources
	@touch $@
