# Two commands: `make serve` and `make test`. Each sets up what it needs; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.13.9
# gpu where an NVIDIA driver answers, else cpu; set PROFILE= to choose.
PROFILE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
# Test processes side by side.
ROWS ?= 2
CONFIG ?= $(if $(filter gpu,$(PROFILE)),deployments/gpu.yaml,deployments/local.yaml)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(PROFILE)
LOCK := requirements/$(PROFILE).txt

# Containers often forbid Python to keep what it has compiled: every process of a gateway, and of the tests, would compile
# all of this project's modules again.
unexport PYTHONDONTWRITEBYTECODE
# uv does not read pip's setting of the same meaning.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# The CPU build of torch is on PyTorch's own index, unless the machine brings its wheel along.
TORCH_INDEX := $(if $(filter cpu,$(PROFILE)),--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
TORCH_HERE := $(shell find $(UV_FIND_LINKS) -maxdepth 1 -name 'torch-*+cpu-*.whl' 2>/dev/null | head -n 1)
UV_INDEX := $(if $(TORCH_HERE),,$(TORCH_INDEX))
COMPILE := $(BIN)/uv pip compile -q --override requirements/overrides.txt --python-version 3.11 pyproject.toml requirements/model.in --custom-compile-command "make lock" --no-emit-find-links

.PHONY: help setup serve test quick proof check bench lock chromium wheel clean

help: ## List these targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make virtual environments: install your system's python3-venv package"; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)

# `sync` installs exactly the lock, and so removes the project itself: it is installed again after it. Nothing is compiled
# here: of 34,000 modules a gateway imports 8,000, and compiling those as they are imported takes half as long.
$(READY): $(LOCK) pyproject.toml | $(BIN)/uv
	@echo "Installing $(LOCK) into $(VENV) …"
	@rm -f $(VENV)/.ready-*
	@$(BIN)/uv pip sync -q --python $(BIN)/python $(UV_INDEX) $(LOCK)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

setup: $(READY) ## Make .venv with the locked dependencies of PROFILE (cpu or gpu; detected).

serve: $(READY) ## Serve CONFIG (deployments/local.yaml) until Ctrl-C.
	@exec $(BIN)/gateway serve $(CONFIG)

chromium:
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing chromium for the browser tests …"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-core >/dev/null; \
	  else echo "The browser tests need chromium: install it (Debian: apt-get install chromium) and run this again"; exit 1; fi; }

test: $(READY) chromium ## The whole test suite: real Ray, real engines, a real browser.
	@$(BIN)/python -m pytest -q -n $(ROWS) -m "not proof"

quick: $(READY) ## The tests that need no engine, no Ray and no browser.
	@$(BIN)/python -m pytest -q -n $(ROWS) -m "not slow and not proof"

proof: $(READY) chromium ## The long proofs at full size.
	@$(BIN)/python -m pytest -q -m proof --timeout 3600

check: $(READY) ## Format, lint, types, architecture.
	@$(BIN)/ruff format --check -q . || { echo "Not formatted: run $(BIN)/ruff format"; exit 1; }
	@$(BIN)/ruff check -q .
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo
	@$(BIN)/basedpyright --level error

bench: $(READY) ## Measure both doors and the engines against their peers, in one run; writes bench-results/.
	@$(BIN)/python -m tests.bench $(BENCH)

lock: $(BIN)/uv ## Remake requirements/cpu.txt and requirements/gpu.txt.
	@$(COMPILE) $(if $(TORCH_HERE),,--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match) --extra cpu --extra dev -o requirements/cpu.txt
	@UV_FIND_LINKS= $(COMPILE) --python-platform x86_64-manylinux_2_28 --extra gpu --extra dev -o requirements/gpu.txt

wheel: $(READY) ## Build the wheel into dist/.
	@$(BIN)/python -m build -q --wheel --no-isolation

clean: ## Remove .venv and what was built.
	@rm -rf $(VENV) dist bench-results
