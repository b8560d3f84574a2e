override PORT := $(or $(PORT),8000)
export PORT
export SANDBOX_PORT ?= $(shell expr $(PORT) + 1)
export PUBLIC_URL ?= http://localhost:$(PORT)

ifneq ($(shell expr "$(PORT)" : "[0-9][0-9]*$$"),$(shell expr length "$(PORT)"))
$(error PORT must be a number, not "$(PORT)")
endif

BIN := .venv/bin
PYTHON := $(BIN)/python
SYSTEM_PYTHON := $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
SANDBOX := $(if $(ELEVENLABS_API_KEY),,sandbox)

.PHONY: install run test lint format bench

install: $(BIN)/.installed

run: install
	@$(PYTHON) manage.py check_ports $(PORT) $(if $(SANDBOX),$(SANDBOX_PORT)) && $(PYTHON) manage.py migrate -v 0 && $(PYTHON) manage.py seed_demo
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/honcho -e /dev/null -f Procfile.dev start -p $(PORT) web worker beat $(SANDBOX)

test: $(BIN)/.installed-dev
	$(PYTHON) -m pytest -n 3 --dist loadfile -m "not timed"
	$(PYTHON) -m pytest -m timed

lint: $(BIN)/.installed-dev
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy && $(PYTHON) manage.py makemigrations --check

format: $(BIN)/.installed-dev
	$(PYTHON) -m ruff check --fix . ; $(PYTHON) -m ruff format .

bench: $(BIN)/.installed-dev
	$(PYTHON) -m tests.bench

$(BIN)/.installed: requirements.txt
	$(SYSTEM_PYTHON) -m venv .venv
	$(PYTHON) -m pip install -q -r requirements.txt && touch $@

$(BIN)/.installed-dev: requirements-dev.txt $(BIN)/.installed
	$(PYTHON) -m pip install -q -r requirements-dev.txt && touch $@
