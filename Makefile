# make help       these lines
# make repro      the whole pipeline on the embedded default, then where to look
# make test       the fast tests                 make test-slow   the slow ones
# make lint       format, lint and types         make install     the environment only

VENV   := .venv
PYTHON ?= python3
STAMP  := $(VENV)/.installed

# DVC's stages say `python`: it must be the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

# A process a core, with one thread each: threads of several processes wait for each other. Four at
# most: each takes up to 2 GB.
PYTEST := OMP_NUM_THREADS=1 python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: help repro install test test-slow lint clean

help: # the first target: what `make` alone does
	@sed -n '/^# make/s/^# //p' $(firstword $(MAKEFILE_LIST))

repro: $(STAMP)
	@gan doctor --quick
	@dvc repro
	@gan sync

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	gan schema > params.schema.json
	python -m pipeline.report.vega_page .dvc/tmp/plots.html
	@touch $@

test: $(STAMP)
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) -m slow

lint: $(STAMP)
	ruff format --check .
	ruff check .
	mypy

clean:
	rm -rf $(VENV) build *.egg-info params.schema.json
