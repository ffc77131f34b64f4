# `make` lists the targets. Every target installs what it needs into .venv, and installs again only after a change of
# pyproject.toml, constraints.txt or the lock. A fresh clone needs Python 3.11 (or newer) and make.
#   PYTHON=…  another interpreter     WORKERS=…  test processes     ARGS=…  more arguments for pytest, demo, bench, micro
#   CUDA=1    install the CUDA build of torch although no NVIDIA GPU is found
#   UNLOCKED=1  let pip resolve within constraints.txt, without hashes: where an index has files of its own making

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2

BIN := .venv/bin
PIP := -m pip --disable-pip-version-check install -qq
INSTALL := $(BIN)/python $(PIP) -c constraints.txt
# The lock names every package with the hashes of its files, so pip resolves nothing and takes no other file.
LOCKED := $(BIN)/python $(PIP) --no-deps --require-hashes
LOCK := supply/core.txt supply/more.txt supply/torch.txt
CORE := .venv/.stamp-core
DEV := .venv/.stamp-dev

# Without an NVIDIA GPU, torch's CPU build is installed first, so that no package pulls in gigabytes of CUDA (see
# constraints.txt). `$(call cpu_torch,COMMAND,VERSION)` tries pip's configured sources (an index, a mirror, a folder of
# wheels) before PyTorch's CPU index.
NO_GPU = [ -z "$(CUDA)" ] && [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1
CPU_INDEX := https://download.pytorch.org/whl/cpu
cpu_torch = { $(1) "torch==$(2)+cpu" 2>/dev/null || $(1) "torch==$(2)+cpu" --extra-index-url $(CPU_INDEX); }
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

LOWEST := .venv-lowest/bin
LOWEST_TORCH := $(shell sed -n 's/^  "torch>=\(.*\)",/\1/p' pyproject.toml)
LOWEST_INSTALL := $(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --resolution lowest-direct
LOWEST_TEST := $(LOWEST)/python -m pytest -n logical --maxprocesses $(WORKERS) --dist loadfile -W default \
	-k 'not interrupt and not forked and not kill_9 and not own_output'

.DEFAULT_GOAL := help
.PHONY: help demo test lint type bench micro notebooks docs lowest pictures format setup lock supply clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(CORE) ## ask real clips real questions, stream the answers, write an HTML page
	@$(BIN)/act2see demo $(ARGS)

# In the order of their names, since files with few tests, which xdist would run last, take longest.
test: $(DEV) ## run the tests
	@$(BIN)/python -m pytest -n logical --maxprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(DEV) ## check style, format, and which room imports which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo --no-cache

type: $(DEV) ## check types of the package, strictly
	@$(BIN)/mypy

bench: $(CORE) ## measure speed and memory; results go to benchmarks/results
	@$(BIN)/python -m benchmarks $(ARGS)

micro: $(CORE) ## train the three micro models again, from nothing
	@$(BIN)/act2see micro train $(ARGS)

# A cell may take longer than a test. One thread for each notebook, since two run at a time.
notebooks: $(DEV) ## execute the notebooks
	@if ls notebooks/*.ipynb >/dev/null 2>&1; \
	then OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses $(WORKERS) --nbmake --nbmake-timeout=300 --timeout=600 notebooks; \
	else echo "no notebooks to execute"; fi

# Not `--quiet`: it also drops the warnings that `--strict` makes errors. The variable silences a notice of the theme.
docs: $(DEV) ## build the site of docs/, with the API reference, in site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The environment is created anew each time, because uv keeps an installed version that satisfies a bound. The extra
# `train` needs newer versions than the rest, so it is installed after the rest has been tested. Dependencies of
# dependencies are the newest, and deprecation warnings are not errors here; so the test that a script prints none is
# left out, and those that interrupt, fork or kill processes, because they take long.
lowest: ## run the quick tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	@rm -rf .venv-lowest
	@$(PYTHON) -m venv .venv-lowest
	@$(LOWEST)/python $(PIP) -c constraints.txt uv
	@if $(NO_GPU); then \
		$(call cpu_torch,$(LOWEST)/python $(PIP) --no-deps,$(LOWEST_TORCH)) 2>/dev/null || { \
		echo "torch $(LOWEST_TORCH)+cpu cannot be installed here; testing with $(TORCH)+cpu"; \
		$(call cpu_torch,$(LOWEST)/python $(PIP) --no-deps,$(TORCH)); }; fi
	@$(LOWEST_INSTALL) -e '.[chat,decord,notebook,ocr,ollama,otel,scenes,serve,ui]' $$(grep -E '^(hypothesis|pytest)' constraints.txt)
	@$(LOWEST_TEST) tests/agent tests/graphs tests/tools tests/trace $(ARGS)
	@$(LOWEST_INSTALL) -e '.[train]'
	@$(LOWEST_TEST) tests/training tests/models $(ARGS)

pictures: $(DEV) ## photograph a trace and the web page for the README (needs Chromium)
	@$(BIN)/python docs/pictures.py

format: $(DEV) ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: | $(BIN)/python ## resolve the dependencies again, and write their versions and hashes to supply/ (needs a network)
	@$(BIN)/python $(PIP) -c constraints.txt uv
	@$(BIN)/python -m supply.lock

supply: $(DEV) ## check the lock, licences and known weaknesses of the dependencies; write build/sbom.json
	@$(BIN)/python -m supply

setup: $(DEV) ## set up .venv with every extra and the development tools (3.3 GB; the demo's needs 1.6)
	@echo "Ready. To use it: . .venv/bin/activate"

clean: ## remove caches and build output; .venv and the trained models stay
	@rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "act2see needs Python 3.11 or newer, and neither python3.11 nor python3 is: install it, or say make PYTHON=/path/to/python" >&2; \
		exit 1; fi
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

$(CORE): pyproject.toml constraints.txt $(LOCK) | $(BIN)/python
	@echo "Setting up .venv with what act2see needs: 1.6 GB on disk, one to five minutes the first time"
	@if $(NO_GPU); then \
		$(call cpu_torch,$(if $(UNLOCKED),$(INSTALL),$(BIN)/python $(PIP) --no-deps),$(TORCH)) || \
		{ echo "no CPU build of torch can be had here; make CUDA=1 takes the build with CUDA instead" >&2; exit 1; }; \
	elif [ -z "$(UNLOCKED)" ]; then $(LOCKED) -r supply/torch.txt; fi
	@if [ -n "$(UNLOCKED)" ]; then $(INSTALL) -e .; else \
		$(LOCKED) -r supply/core.txt && $(BIN)/python $(PIP) --no-deps --no-build-isolation -e .; fi
	@touch $@

$(DEV): $(CORE)
	@echo "Adding every extra and the development tools to .venv: 1.7 GB more on disk, one to five minutes the first time"
	@if [ -n "$(UNLOCKED)" ]; then $(INSTALL) -e '.[dev]' && $(INSTALL) --no-deps dashscope; else \
		$(LOCKED) -r supply/more.txt; fi # dashscope: for its file of Qwen's vocabulary; it is never imported
	@touch $@
