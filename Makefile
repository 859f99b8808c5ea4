# Two commands do everything: `make demo` shows the job, `make test` proves the code.
# Without a GPU, UV_TORCH_BACKEND=cpu saves 4 GB of download: UV_TORCH_BACKEND=cpu make demo

PYTHON ?= python3
BIN := .venv/bin
LOCK := requirements.lock
STAMP := .venv/.installed

# A module is compiled once and its bytecode kept, whatever the environment says: a process that
# compiles all it imports takes twice as long to start, and the tests start hundreds.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install demo up check lint types test short-tests test-long test-long-setup reference docs bench lock

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## .venv with the locked set; a second time it takes a second

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make install PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
ifeq ($(UV_TORCH_BACKEND),cpu)
	grep -vE '^(nvidia-|cuda-|triton==)' $(LOCK) > .venv/requirements.cpu
	$(BIN)/uv pip sync --python $(BIN)/python .venv/requirements.cpu
else
	$(BIN)/uv pip sync --python $(BIN)/python $(LOCK)
endif
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --editable .
	# Compiles what every process imports, so that they do not all do so at once.
	$(BIN)/python -c 'import annotation_platform.definitions, annotation_platform.models.weight_files'
	@touch $(STAMP)

demo: install  ## the whole job on real servers, with simulated people
	$(BIN)/annotation-platform demo $(DEMO)

up: install  ## Label Studio and Dagster on your own folder (ANNOTATION_HOME)
	$(BIN)/annotation-platform up

check: lint types  ## linters, types, import contracts

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

# Two processes more than there are cores on a small machine: many tests wait for servers and programs.
PROCESSES ?= 4
# The longest first: else one process works on alone at the end.
SIDE_BY_SIDE := -n $(PROCESSES) --dist loadscope --no-loadscope-reorder \
	tests/system tests/pipeline tests/core

# mypy takes a minute of one core where it has no cache, so the tests run beside it.
test: lint  ## check, and the tests that take minutes together
	@$(MAKE) --no-print-directory --jobs=2 types short-tests

short-tests: install
	$(BIN)/pytest -m "not long" $(SIDE_BY_SIDE)

# Programs of Debian and other people's tools, each with an environment of its own.
PEERS := .venv-peers
PROGRAMS := chromium openssh-server postgresql radosgw ceph-mon ceph-osd ceph-mgr
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

test-long-setup: install  ## what long tests need: programs of Debian, peers of PyPI (.venv-peers)
	$(AS_ROOT) apt-get update --quiet
	$(AS_ROOT) apt-get install --yes --quiet --no-install-recommends $(PROGRAMS)
	for peer in pycocotools datumaro supervision label-studio-sdk; do \
		$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(PEERS)/$$peer && \
		$(BIN)/uv pip install --quiet --python $(PEERS)/$$peer/bin/python $$peer || exit 1; \
	done

test-long: install  ## the demo as a test, the races, the browser; after test-long-setup none is skipped
	$(BIN)/pytest -m "long and not browser" $(SIDE_BY_SIDE)
	ANNOTATION_TEST_BROWSER=1 $(BIN)/pytest -m "long and browser" tests/system

reference: install  ## write docs/reference/ from the code
	$(BIN)/python docs/generate.py

bench: install  ## each claim beside a peer, in one table; about fifteen idle minutes
	$(BIN)/python benchmarks/table.py

docs: install  ## docs/ as pages to read in a browser: docs/_build/index.html
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build
	@echo docs/_build/index.html

lock: install  ## resolve requirements.lock anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra docs --extra label-studio --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --quiet --output-file $(LOCK)
