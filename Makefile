# Two commands do everything: `make search` and `make test`. Nothing is needed but Python 3.11+, git and make.
PYTHON ?= python3
BIN := .venv/bin
BUDGET ?= 3
# Most tests wait for a process: three at a time keep two cores busy; with more cores, one more than there are cores. By
# file, so that those of one file share what they set up, and in the order of the folders, where the long files (agent)
# come first; else a file of one long test is the last and runs alone.
JOBS ?= 3
# The finished run that `make sample` keeps under tests/data.
RUN ?= latest

.PHONY: search test test-gpu lint sample clean
.DEFAULT_GOAL := help

help:
	@echo "make search   search for a better initialisation (three tests; BUDGET=n for more)"
	@echo "make test     run the tests"
	@echo "make test-gpu check what needs a GPU, with the python at hand (SPEED=1: measure its speed too)"
	@echo "make lint     ruff and mypy"
	@echo "make sample   keep a finished run as the sample, with its picture (RUN=name)"
	@echo "make clean    remove .venv (runs/ stays)"

# constraints.txt: which of the torch versions that pyproject.toml allows is installed here.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	@# A pip of 2023, as Python 3.11 brings it, takes 83 s for what follows, today's 59 s. Without it the old one does it.
	$(BIN)/pip install --quiet --upgrade pip || true

# One stamp per set of dependencies: pip runs again only when pyproject.toml or constraints.txt changed.
.venv/run.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

# Python compiles what tests import, which is a small part of what is installed.
.venv/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --no-compile --editable '.[dev]'
	@touch .venv/run.stamp $@

search: .venv/run.stamp
	$(BIN)/agent search --budget $(BUDGET)

# What the processes of the tests import is compiled once, and kept: torch takes 2 s then, and 5 s else.
unexport PYTHONDONTWRITEBYTECODE
.venv/compiled.stamp: .venv/dev.stamp
	$(BIN)/python -c 'import hypothesis, matplotlib.pyplot, mcp, openai, optuna, scipy.stats, torch'
	@touch $@

test: .venv/compiled.stamp
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# A GPU machine has a torch of its own and perhaps no network: nothing is installed. gpu.txt is the record.
test-gpu:
	PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tests.gpu \
		--output gpu.txt $(if $(SPEED),--speed)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

sample: .venv/dev.stamp
	$(BIN)/python -m tests.sample keep $(RUN)

clean:
	rm -rf .venv
