# make demo       a 90 MB SmolLM2 for llama.cpp, from nothing but Python 3.11 or newer
# make test       pytest, with ruff and mypy beside it
# make test-fast  pytest without the tests that are marked slow and with fewer examples of each property: a minute and a half
# make campaign   kills, mutants, full disks and flipped bits by the hundred, and a table of what came of them (an hour or two)
# make lint       ruff and mypy alone
# make setup      the environment with everything the tests need, and nothing run
# make clean      remove the environment, the demo and the caches
#
# Settings, e.g. `make test PYTHON=python3.12`:
#   PYTHON=python3        the Python that makes the environment
#   VENV=.venv            where the environment lies
#   TORCH=torch           what pip is asked for first; e.g. TORCH='torch --index-url URL' for another build of the pinned version
#   BUDGET=90MB           the demo's budget in bytes of the finished file
#   MUTANTS=5000          the campaign's mutants of each of its 40 inputs
#   ROUNDS=24             how often it kills each command, fills its disk and flips a bit of what it keeps
#   SEED=1                where its random numbers begin
#   OUT=demo/             where the demo writes
#   JOBS=3                processes that share the tests, about 1 GB each; one more than two cores, as tests wait for others, which fast ones do not:
#                         2 for them. 0: only pytest's own
#   TESTS=                what pytest is asked for besides, e.g. TESTS='tests/search -k knapsack'

PYTHON = python3
VENV = .venv
TORCH = torch
BUDGET = 90MB
OUT = demo/
JOBS = 3
TESTS =
MUTANTS = 5000
ROUNDS = 24
SEED = 1

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
# the tests read models from the environment, never from a hub
RUN := HF_HUB_OFFLINE=1 $(BIN)/python -m
# compiled code is kept, whatever the environment says: most of the time that a process of the tests takes to start
# a file's tests share a process, so that its fixtures are made once; files in the order of their names, since the last ones are quick
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-fast campaign lint setup clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed $(VENV)/.model
	@model="$$($(BIN)/python examples/smollm2.py)" && $(BIN)/bitwright fit "$$model" --budget $(BUDGET) --target llama.cpp --out $(OUT)

# ruff and mypy run beside the tests, which often wait for a process of their own
test: setup
	@{ $(RUN) ruff check && $(RUN) mypy; } & lint=$$!; status=0; $(PYTEST) $(TESTS) || status=$$?; \
		wait $$lint || { status=$$?; echo "ruff or mypy found a fault: it is told above, and by make lint" >&2; }; exit $$status

test-fast: JOBS = 2
test-fast: setup
	@$(PYTEST) -m 'not slow' --hypothesis-profile few $(TESTS)

campaign: setup
	@rm -f .campaign.jsonl
	@echo "seed $(SEED), $(MUTANTS) mutants of each input, $(ROUNDS) rounds"
	@status=0; BITWRIGHT_CAMPAIGN=$(MUTANTS) BITWRIGHT_ROUNDS=$(ROUNDS) BITWRIGHT_SEED=$(SEED) BITWRIGHT_FIGURES=.campaign.jsonl \
		$(RUN) pytest tests/campaign --timeout 5400 || status=$$?; $(RUN) tests.campaign.figures .campaign.jsonl; exit $$status

lint: setup
	@$(RUN) ruff check
	@$(RUN) mypy

setup: $(VENV)/.dev $(VENV)/.model

# --- set-up: each step leaves a stamp, and is done again when pyproject.toml or constraints.txt change

$(VENV)/.made:
	@$(PYTHON) -c '' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot be run; Bitwright needs Python 3.11 or newer: name one with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "'$(PYTHON)' is $$($(PYTHON) --version 2>&1); Bitwright needs Python 3.11 or newer: name one with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' lacks the modules venv and ensurepip: install them (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "making the environment $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.made constraints.txt
	@echo "installing torch (about 200 MB, more where its build is for CUDA) ..."
	@$(INSTALL) $(TORCH)
	@touch $@

# the build backend is pinned too, hence no build isolation
$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "installing bitwright and what it needs (about 150 MB) ..."
	@$(INSTALL) hatchling editables
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing what the tests need ..."
	@$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/.model: $(VENV)/.made examples/smollm2.py
	@$(BIN)/python examples/smollm2.py > /dev/null
	@touch $@

clean:
	@rm -rf .venv $(OUT) .campaign.jsonl .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
