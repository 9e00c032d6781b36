# `make` alone says what there is. Everything lives in .venv in this checkout; each step runs only
# when what it depends on has changed.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
EDGED := $(VENV)/bin/edged
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --use-pep517
EXTRAS := daemon,api,embedded
OWN_SUITE = $(shell . /etc/os-release && echo $$VERSION_CODENAME)

export PYTHON
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install uninstall deb test test-vm test-vm-unit test-installer test-deb \
        test-arm64 test-homeassistant clients bench bench-turns api-bench daemon-bench daemon-soak lint \
        format models setup clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: models ## set up, fetch the models, and hear: the microphone, or the sample speech without one
	@$(EDGED) run --demo

install: ## as root: edged as a service of this machine; again: upgrades it
	@deploy/install.sh $(ARGS)

uninstall: ## as root: takes the service away; with PURGE=1 settings and data too
	@deploy/install.sh $(if $(PURGE),purge,uninstall)

deb: models ## Debian packages in dist/: make deb SUITE=trixie ARCH=arm64 (default: for this system)
	@PIP="$(PY) -m pip" deploy/deb/build.sh dist $(or $(SUITE),$(if $(ARCH),$(OWN_SUITE))) $(ARCH)

test: $(VENV)/dev models $(if $(CI),clients) ## set up everything, then lint, types and tests
	@$(MAKE) --no-print-directory lint
	@$(PY) -m pytest $(ARGS)

test-vm: ## capture on kernel sound cards, in a virtual machine: slow, as root on Debian
test-vm-unit: models ## the installed service likewise: cards that come and go, memory limit, watchdog
test-vm test-vm-unit: $(VENV)/dev
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" PIP="$(PY) -m pip" tests/system/vm/run $(if $(@:test-vm=),unit,card)

bench: models ## measure this machine: make bench ARGS="--delay 7,10,16"
	@$(EDGED) bench $(ARGS)

bench-turns: $(VENV)/run models ## measure the turn model: make bench-turns ARGS="--manifest FILE"
	@$(PY) -m models.turn.bench_turns $(ARGS)

api-bench: $(VENV)/dev models ## the door: 8 live streams, 2 h at 20 x, 50 000 hostile messages, Opus, memory
	@$(PY) -m tests.bench.api_bench $(ARGS)

daemon-bench: $(VENV)/dev models ## the daemon: latency, pulled microphones, stalls, fuzz, idle, muted
	@$(PY) -m tests.bench.daemon_bench $(ARGS)

daemon-soak: $(VENV)/dev models ## the daemon by the clock: an hour of speech, a broker away for ten minutes
	@$(PY) -m tests.bench.daemon_soak $(ARGS)

lint: $(VENV)/dev ## formatter, linter, type checker and import contracts, all of which must be silent
	@$(PY) -m ruff format --quiet --check .
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-logo --no-cache >/dev/null || $(VENV)/bin/lint-imports --no-logo --no-cache

format: $(VENV)/dev ## let the formatter and the linter mend what they can
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

test-installer: ## installer and unit on a booted Debian, as root: SUITE=trixie (default bookworm)
test-deb: ## the Debian package likewise
test-arm64: ## the package for ARM64 in an emulated Debian, likewise: 20 minutes the first time
test-installer test-deb test-arm64: $(VENV)/dev models
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" PIP="$(PY) -m pip" tests/system/target/run $(@:test-%=%) $(SUITE)

test-homeassistant: $(VENV)/dev models ## its blueprints and dashboard in Home Assistant: HASS=.../hass
	@HASS="$(or $(HASS),$(error HASS= names the program hass))" $(PY) -m pytest -x -v -s \
		tests/system/target/check_homeassistant.py

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

$(VENV)-clients/done: tests/support/clients/requirements.txt
	@$(PYTHON) -m venv --clear $(VENV)-clients
	@echo "installing LiveKit and Pipecat into $(VENV)-clients (a minute or two)" >&2
	@$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VENV)/dev: $(VENV)/run
	@deploy/system-packages test
	@$(PIP) --editable '.[$(EXTRAS),dev]'
	@touch $@
