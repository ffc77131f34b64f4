# `make` lists the targets. Every target sets up what it needs, in .venv, and sets it up again only when
# pyproject.toml or constraints.txt has changed. A fresh clone needs Python 3.11 (or newer) and make.
#   PYTHON=…  another interpreter     WORKERS=…  test processes     ARGS=…  more arguments for pytest, the demo, the recipe
#   CUDA=1    let pip take the CUDA build of torch although no NVIDIA GPU is seen

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
CORE := .venv/.stamp-core
DEV := .venv/.stamp-dev

.DEFAULT_GOAL := help
.PHONY: help demo test lint type bench micro notebooks docs pictures format setup clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(CORE) ## ask real clips real questions, stream the answers, write an HTML page
	@$(BIN)/act2see demo $(ARGS)

test: $(DEV) ## run the tests
	@$(BIN)/python -m pytest -n logical --maxprocesses $(WORKERS) --dist loadfile $(ARGS)

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

# Notebooks run in one process, one after another; a cell may take longer than a test may.
notebooks: $(DEV) ## execute the notebooks
	@if ls notebooks/*.ipynb >/dev/null 2>&1; \
	then $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 --timeout=600 notebooks; \
	else echo "no notebooks to execute"; fi

# Not `--quiet`: it also drops the warnings that `--strict` makes errors. The variable silences a notice of the theme.
docs: $(DEV) ## build the site of docs/, with the API reference, in site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: $(DEV) ## photograph a trace and the web page for the README (needs Chromium)
	@$(BIN)/python docs/pictures.py

format: $(DEV) ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

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

# Without an NVIDIA GPU torch's CPU build goes in first, so that nothing pulls gigabytes of CUDA (see constraints.txt).
# pip's own sources (an index, a mirror, a folder of wheels) are tried before PyTorch's CPU index.
$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up .venv with what act2see needs: 1.6 GB on disk, one to five minutes the first time"
	@if [ -z "$(CUDA)" ] && [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1; then \
		torch="$$(sed -n 's/^torch==.*/&+cpu/p' constraints.txt)"; \
		$(INSTALL) "$$torch" 2>/dev/null || $(INSTALL) "$$torch" --extra-index-url https://download.pytorch.org/whl/cpu || \
		{ echo "no CPU build of torch can be had here; make CUDA=1 takes the build with CUDA instead" >&2; exit 1; }; fi
	@$(INSTALL) -e .
	@touch $@

$(DEV): $(CORE)
	@echo "Adding every extra and the development tools to .venv: 1.7 GB more on disk, one to five minutes the first time"
	@$(INSTALL) -e '.[dev]'
	@touch $@
