# `make` alone says what there is. Everything lives in .venv in this checkout; each step runs only
# when what it depends on has changed.
PYTHON ?= python3
VENV := .venv
CLIENTS := .venv-clients
PY := $(VENV)/bin/python
EDGED := $(VENV)/bin/edged
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --use-pep517
EXTRAS := daemon,door,embedded

export PYTHON
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-vm clients bench door-bench lint format models setup clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: models ## set up, fetch the models, and hear: the microphone, or the sample speech without one
	@$(EDGED) run --demo

test: $(VENV)/dev models $(if $(CI),clients) ## set up everything, then lint, types and tests
	@$(MAKE) --no-print-directory lint
	@$(PY) -m pytest $(ARGS)

test-vm: $(VENV)/dev ## capture on kernel sound cards, in a virtual machine: slow, as root on Debian
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/vm/run

clients: $(CLIENTS)/done ## LiveKit and Pipecat, for the tests of the door that need them (750 MB)

bench: models ## measure this machine: make bench ARGS="--delay 7,10,16"
	@$(EDGED) bench $(ARGS)

door-bench: $(VENV)/dev models ## the door: 8 live streams, 2 h at 20 x, 50 000 hostile messages, Opus
	@$(PY) -m tests.door_bench $(ARGS)

lint: $(VENV)/dev ## formatter, linter and type checker, all of which must be silent
	@$(PY) -m ruff format --quiet --check .
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --no-error-summary

format: $(VENV)/dev ## let the formatter and the linter mend what they can
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

clients: $(VENV)-clients/done ## the door's largest clients, LiveKit and Pipecat, for its tests: 750 MB

models: $(VENV)/run ## fetch, verify and build the models
	@$(EDGED) models fetch

setup: $(VENV)/run ## the Python environment alone

clean: ## remove caches
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove the environment and the built models too
	@rm -rf $(VENV) $(VENV)-clients models/built

$(VENV)/run: pyproject.toml deploy/system-packages
	@deploy/system-packages
	@$(PY) -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing edged into $(VENV) (a few minutes the first time)" >&2
	@$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)-clients/done: tests/clients/requirements.txt
	@$(PYTHON) -m venv --clear $(VENV)-clients
	@echo "installing LiveKit and Pipecat into $(VENV)-clients (a minute or two)" >&2
	@$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(CLIENTS)/done: tests/clients/requirements.txt
	@$(PYTHON) -m venv --clear $(CLIENTS)
	@echo "installing LiveKit and Pipecat into $(CLIENTS) (a few minutes)" >&2
	@$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VENV)/dev: $(VENV)/run
	@deploy/system-packages test
	@$(PIP) --editable '.[$(EXTRAS),dev]'
	@touch $@
