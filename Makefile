# `make` alone lists the targets. Everything is installed into .venv in this checkout; a step runs
# again only when something that it depends on has changed. ARGS= passes further arguments on.
PYTHON ?= python3
VENV := .venv
CLIENTS := .venv-clients
PY := $(VENV)/bin/python
EDGED := $(VENV)/bin/edged
CONSTRAINTS := deploy/constraints.txt
PIP := $(PY) -I -m pip install --quiet --disable-pip-version-check --use-pep517 --constraint $(CONSTRAINTS)
EXTRAS := daemon,api,embedded
PARALLEL := -n 2 --dist loadfile
OWN_SUITE = $(shell . /etc/os-release && echo $$VERSION_CODENAME)

export PYTHON
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: bench-turns bench-rooms help run check test test-python install uninstall deb bench lint format constraints models \
        setup clients test-vm test-vm-unit test-installer test-deb test-arm64 test-homeassistant \
        api-bench daemon-bench daemon-soak clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: models ## try it: the microphone, or recorded speech if there is none; captions in this terminal
	@$(EDGED) run --demo

check: lint ## in a minute: lint, types and the tests that need no models, broker or browser
	@$(PY) -m pytest $(PARALLEL) -m "not slow" tests/unit $(ARGS)

test: $(VENV)/dev models $(if $(CI),clients) ## all tests, after lint and types; what CI runs
	@deploy/system-packages test
	@$(MAKE) --no-print-directory lint
	@$(PY) -m pytest $(PARALLEL) -m "not serial" $(ARGS)
	@$(PY) -m pytest -m serial $(ARGS)

test-python: ## all tests with another Python: make test-python VERSION=3.13
	@$(MAKE) test PYTHON=python$(or $(VERSION),$(error VERSION= is missing)) VENV=.venv-$(VERSION)

install: ## as root: install edged as a service of this machine, or upgrade it
	@deploy/install.sh $(ARGS)

uninstall: ## as root: remove the service; with PURGE=1 settings and data too
	@deploy/install.sh $(if $(PURGE),purge,uninstall)

deb: models ## build Debian packages in dist/: make deb SUITE=trixie ARCH=arm64 (default: this system)
	@PIP="$(PY) -I -m pip" deploy/deb/build.sh dist $(or $(SUITE),$(if $(ARCH),$(OWN_SUITE))) $(ARCH)

bench: models ## measure the recogniser on this machine: make bench ARGS="--delay 7,10,16"
	@$(EDGED) bench $(ARGS)

lint: $(VENV)/dev ## formatter, linter, type checker and import contracts
	@$(PY) -m ruff format --quiet --check .
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-logo --no-cache >/dev/null || $(VENV)/bin/lint-imports --no-logo --no-cache

format: $(VENV)/dev ## format the code and fix what the linter can fix
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

constraints: $(VENV)/run ## the versions of a release, for Python 3.11 to 3.13; ARGS=--upgrade takes the newest
	@$(PY) -I -m pip install --quiet --disable-pip-version-check uv
	@echo pip | $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
		--extra daemon --extra api --extra embedded --extra dev \
		--custom-compile-command 'make constraints' --output-file $(CONSTRAINTS) $(ARGS) pyproject.toml -

models: $(VENV)/run ## fetch, verify and build the models
	@$(EDGED) models fetch

setup: $(VENV)/run ## the Python environment alone

bench-turns: models ## measure the turn model: make bench-turns ARGS="--manifest FILE"
	@$(PY) -m models.turn.bench_turns $(ARGS)

bench-rooms: models ## measure in simulated rooms: make bench-rooms MANIFEST=FILE (clips for edged bench)
	@$(PY) -c 'import pyroomacoustics' 2>/dev/null || $(PIP) --editable '.[rooms]'
	@$(PY) -m tests.bench.rooms "$(or $(MANIFEST),$(error MANIFEST= must name a list of clips))" build/rooms
	@$(EDGED) bench --manifest build/rooms/manifest.jsonl $(ARGS)

clients: $(CLIENTS)/done ## LiveKit and Pipecat, clients of the API server, for its tests (750 MB)

test-vm: ## capture from kernel sound cards in a virtual machine; slow, as root on Debian
test-vm-unit: models ## the service there too: cards that come and go, memory limit, watchdog
test-vm test-vm-unit: $(VENV)/dev
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" PIP="$(PY) -I -m pip" tests/system/vm/run $(if $(@:test-vm=),unit,card)

test-installer: ## the installer and the service on a booted Debian, as root: SUITE=trixie (default bookworm)
test-deb: ## the Debian package there
test-arm64: ## the package for ARM64 in an emulated Debian; 20 minutes the first time
test-installer test-deb test-arm64: $(VENV)/dev models
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" PIP="$(PY) -I -m pip" tests/system/target/run $(@:test-%=%) $(SUITE)

test-homeassistant: $(VENV)/dev models ## Home Assistant itself: blueprints, dashboard, voice assistant: HASS=.../hass
	@HASS="$(or $(HASS),$(error HASS= must name the program hass))" $(PY) -m pytest -x -v -s \
		tests/system/target/check_homeassistant.py tests/system/target/check_homeassistant_voice.py

api-bench: $(VENV)/dev models ## the API server: 8 live streams, 2 h at 20 x, 50 000 hostile messages, Opus, memory
	@$(PY) -m tests.bench.api_bench $(ARGS)

daemon-bench: $(VENV)/dev models ## the daemon: latency, unplugged microphones, stalls, fuzz, idle, muted
	@$(PY) -m tests.bench.daemon_bench $(ARGS)

daemon-soak: $(VENV)/dev models ## the daemon in real time: an hour of speech, a broker away for ten minutes
	@$(PY) -m tests.bench.daemon_soak $(ARGS)

clean: ## remove caches
	@rm -rf .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis build dist *.egg-info
	@find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove the environments and the built models too
	@rm -rf .venv .venv-* models/built

$(VENV)/run: pyproject.toml $(CONSTRAINTS) deploy/system-packages
	@deploy/system-packages
	@$(PY) -I -c 'import pip' 2>/dev/null || $(PYTHON) -I -m venv --clear $(VENV)
	@echo "installing edged into $(VENV) (a few minutes the first time)" >&2
	@$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

$(CLIENTS)/done: tests/support/clients/requirements.txt
	@$(PYTHON) -I -m venv --clear $(CLIENTS)
	@echo "installing LiveKit and Pipecat into $(CLIENTS) (a minute or two)" >&2
	@$(CLIENTS)/bin/python -I -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VENV)/dev: $(VENV)/run
	@$(PIP) --editable '.[$(EXTRAS),dev]'
	@touch $@
