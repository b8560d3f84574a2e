override PORT := $(or $(PORT),8000)
export PORT
export SANDBOX_PORT ?= $(shell expr $(PORT) + 1)
export HOST ?= 127.0.0.1
export PUBLIC_URL ?= http://localhost:$(PORT)

# `expr STRING : REGEX` prints the number of matched characters, so 0 or nothing where PORT is not a number.
ifeq ($(filter-out 0,$(shell expr "$(PORT)" : "[0-9][0-9]*$$" 2>/dev/null)),)
$(error PORT must be a number, not "$(PORT)")
endif

BIN := .venv/bin
PYTHON := $(BIN)/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
SYSTEM_PYTHON := $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
SANDBOX := $(if $(ELEVENLABS_API_KEY)$(ELEVENLABS_API_KEY_FILE),,sandbox)

# The alerts of the demo are mails in the terminal: nobody has to configure anything to read them.
ifneq ($(and $(SANDBOX),$(if $(EMAIL_URL),,console)),)
run: export ADMIN_EMAILS ?= you@example.org
endif

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast lint format bench image-test install-test lock audit sbom

help: ## list these targets
	@echo "PORT=9000 make run takes another port. SANDBOX_PORT is the next one unless it is set."
	@echo "HOST=0.0.0.0 make run also serves devices in the same network."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: $(BIN)/.installed ## create .venv and install what the server needs

run: install ## start everything with a demo, install first where needed; Ctrl-C stops it
	@echo "==> Checking the ports, migrating the database, creating the demo"
	@$(PYTHON) manage.py check_ports --host "$(HOST)" $(PORT) $(if $(SANDBOX),$(SANDBOX_PORT))
	@$(PYTHON) manage.py migrate -v 0
	@$(PYTHON) manage.py seed_demo --port $(PORT) -v 0
	@echo "==> Starting web, worker, beat$(if $(SANDBOX), and sandbox); wait for \"Ready\""
	@# The shell stays: it passes SIGTERM on to honcho, ends the announcement with it, and takes Ctrl-C (130) for success.
	@PATH="$(CURDIR)/$(BIN):$$PATH"; export PATH; \
	$(BIN)/honcho -e /dev/null -f Procfile.dev start -p $(PORT) web worker beat $(SANDBOX) & honcho=$$!; \
	trap 'kill -TERM $$honcho' TERM; trap : INT; \
	$(PYTHON) manage.py seed_demo --port $(PORT) --when-ready & announcement=$$!; \
	while wait $$honcho; status=$$?; kill -0 $$honcho 2>/dev/null; do :; done; \
	kill $$announcement 2>/dev/null; \
	[ $$status -eq 130 ] || exit $$status

test: $(BIN)/.installed-dev ## run all tests: about 17 minutes on two cores
	@echo "==> All tests: about 17 minutes on two cores. \`make test-fast\` takes less than two."
	$(PYTHON) -m pytest -n 3 --dist loadfile -m "not timed"
	@echo "==> Tests that measure time, for example the first audio within 500 ms. A skipped one says why."
	$(PYTHON) -m pytest -m timed -rs

# Files and folders whose tests talk to other processes: a web server, the sandbox, Redis, S3, a worker, the child that
# speaks offline or inspects recordings, a browser. --no-processes leaves out single tests of other files.
PROCESS_TESTS := tests/browser tests/chaos tests/deploy tests/e2e tests/test_order.py tests/test_services.py \
	tests/cloning/api/test_views.py tests/cloning/jobs/test_submission.py tests/cloning/samples/test_acceptance.py \
	tests/cloning/samples/test_inspection.py tests/cloning/admin \
	tests/tts/cache/test_phrase_cache.py tests/tts/cache/test_stores.py tests/tts/resilience/test_concurrency.py \
	tests/clients tests/voicecare/management/test_talk.py \
	tests/voicecare/core/test_pubsub.py tests/voicecare/core/test_task_queue.py tests/voicecare/management/test_make_run.py \
	tests/voicecare/providers/elevenlabs/sandbox/test_server.py tests/voicecare/providers/espeak \
	tests/voicecare/test_celery.py tests/voicecare/test_settings.py

test-fast: $(BIN)/.installed-dev ## run the tests that need no other process: less than 2 minutes
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not timed" --no-processes $(addprefix --ignore=,$(PROCESS_TESTS))

lint: $(BIN)/.installed-dev ## check style, types and missing migrations
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy && $(PYTHON) manage.py makemigrations --check

format: $(BIN)/.installed-dev ## format the code and fix what ruff can fix
	$(PYTHON) -m ruff check --fix . ; $(PYTHON) -m ruff format .

bench: $(BIN)/.installed-dev ## measure latency and throughput: about 9 minutes
	$(PYTHON) -m tests.bench

image-test: $(BIN)/.installed-dev ## build the image and speak with it; needs Docker, DATABASE_URL and REDIS_URL
	$(PYTHON) -m tests.deploy.image

install-test: $(BIN)/.installed-dev ## install on an empty Debian with the lines of docs/install.md; needs root and debootstrap
	$(PYTHON) -m tests.deploy.install

# requirements*.txt have the direct dependencies, requirements*.lock all packages with their hashes. The tools for the
# audit and the list of components run in environments of their own: their dependencies would change those of the tests.
UV := $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

lock: $(BIN)/.installed-dev ## write requirements*.lock from requirements*.txt; LOCK=--upgrade takes newer indirect ones
	$(COMPILE) $(LOCK) requirements.txt -o requirements.lock
	$(COMPILE) $(LOCK) requirements-traces.txt -c requirements.lock -o requirements-traces.lock
	$(COMPILE) $(LOCK) requirements-dev.txt -c requirements-traces.lock -o requirements-dev.lock

audit: $(BIN)/.installed-dev ## look up known weaknesses of all packages; asks a service on the network
	$(UV) tool run --from pip-audit==2.10.1 pip-audit --strict --require-hashes --disable-pip -r requirements.lock

sbom: $(BIN)/.installed-dev ## write sbom.json: the list of all packages of the server (CycloneDX)
	$(UV) tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		-o sbom.json requirements.lock

$(BIN)/.installed: requirements.lock
	@echo "==> Creating the virtual environment .venv ($(SYSTEM_PYTHON))"
	@$(SYSTEM_PYTHON) -m venv .venv
	@echo "==> Installing requirements.lock"
	@$(PIP) install --require-hashes -r requirements.lock && touch $@

$(BIN)/.installed-dev: requirements-dev.lock $(BIN)/.installed
	@echo "==> Installing requirements-dev.lock"
	@$(PIP) install --require-hashes -r requirements-dev.lock && touch $@
