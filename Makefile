# Everything Remit needs installs itself into .venv on first use. Asked of the machine: Python 3.11 or newer, and make.
PORT ?= 8000
STATE ?= .remit
VENV := .venv
BIN := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
export PYTHONPATH :=

# The first Python that is new enough; `make PYTHON=/path/to/python3` chooses another.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$name >/dev/null 2>&1 && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)

# uv reads no pip configuration; a machine that installs from a mirror says so there.
UV = env $$(index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}}"; \
	test -z "$$index" || echo "UV_DEFAULT_INDEX=$$index") $(BIN)/uv

# "$(call with_dots,what,command)": a dot every two seconds shows that something is going on.
define with_dots
	@printf '  %s ' "$(1)"; (while sleep 2; do printf .; done) & dots=$$!; trap 'kill $$dots 2>/dev/null' EXIT INT TERM; \
		$(2) && echo " done"
endef

.PHONY: help run test quick lint bench test-browser test-cluster screenshots lock clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@echo "make run [PORT=8000] [STATE=.remit]   start Remit on this machine"
	@echo "make test                             lint, types, import contract and every test"
	@echo "make quick                            lint and the tests that take no time and no browser"
	@echo "make bench                            the ratio tables of docs/benchmarks.md"
	@echo "make test-browser | test-cluster      the heavy parts on their own"
	@echo "make screenshots                      docs/screenshots once more, from a mission played for them"
	@echo "make lock                             resolve requirements*.in again"
	@echo "make clean                            remove .venv and caches; state folders stay"

run: $(VENV)/.run
	@exec $(BIN)/python manage.py up --port "$(PORT)" --state "$(STATE)"

# Three workers: many tests wait for other processes more than they work. tests/conftest.py says what stays together.
test: lint
	$(BIN)/python -m pytest -n 3 --no-loadscope-reorder

quick: lint
	$(BIN)/python -m pytest -m "not slow and not browser and not sandbox"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy platform agents budgets governance frontend
	PYTHONPATH=.:platform $(BIN)/lint-imports
	$(BIN)/python manage.py check
	$(BIN)/python -m pytest -q tests/platform/test_project.py

bench: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" bench/run

test-browser: $(VENV)/.dev
	REMIT_REQUIRE_BROWSER=1 $(BIN)/python -m pytest -m browser

test-cluster: $(VENV)/.dev
	REMIT_REQUIRE_SANDBOX=1 $(BIN)/python -m pytest -m sandbox tests/platform/clusters

# The test that plays the first mission to its end takes some on its way, the other one those of all other pages.
screenshots: $(VENV)/.dev
	REMIT_REQUIRE_BROWSER=1 REMIT_SCREENSHOTS=docs/screenshots $(BIN)/python -m pytest -q tests/end_to_end/test_receivables.py tests/end_to_end/test_pictures.py

lock: $(VENV)/.uv
	$(UV) pip compile -q --generate-hashes --no-header --universal --python-version 3.11 requirements.in -o requirements.txt
	$(UV) pip compile -q --generate-hashes --no-header --universal --python-version 3.11 requirements-dev.in -o requirements-dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# uv itself, by the hashes of the lock file.
$(VENV)/.uv:
	@test -n "$(PYTHON)" || { echo "Remit needs Python 3.11 or newer, and there is none on the PATH. Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Remit needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name a newer one: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments. Install its venv module (Debian, Ubuntu: apt-get install python3-venv)."; exit 1; }
	@echo "Installing into $(VENV); this happens once."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@awk '/^uv==/ { found = 1 } found { print } found && !/\\$$/ { exit }' requirements.txt > $(VENV)/uv.txt
	$(call with_dots,the installer,$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt)
	@touch $@

# An environment that already has the development tools keeps them: it is a superset.
$(VENV)/.run: requirements.txt | $(VENV)/.uv
	$(call with_dots,$$(grep -c == requirements.txt) packages,if [ -x $(BIN)/pytest ]; then $(UV) pip install -q --require-hashes -r requirements.txt; else $(UV) pip sync -q --require-hashes requirements.txt; fi)
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(VENV)/.uv
	$(call with_dots,$$(grep -c == requirements-dev.txt) packages and tools,$(UV) pip sync -q --require-hashes requirements-dev.txt)
	@touch $@ $(VENV)/.run
