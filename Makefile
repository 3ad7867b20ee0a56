# `make demo` and `make test` need Python 3.11 or newer, pip and make; everything else is installed into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Two test processes where there are two cores; more only costs memory. WORKERS=0 runs the tests in one process.
CORES   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
WORKERS ?= $(shell test $(CORES) -ge 2 && echo 2 || echo 0)
# Each process keeps to one thread: two that share two cores would only slow each other.
TESTS   := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
CODE    := $(wildcard src tests benchmarks)
PIP     := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format benchmark clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

# The stamps stand for what is installed: it is installed anew only when the versions or the dependencies change.
$(VENV)/stamp-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Trivium needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/stamp-package: $(VENV)/stamp-python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/stamp-tests: $(VENV)/stamp-package
	$(PIP) --editable '.[test]'
	@touch $@

# The peers of the benchmark live apart: they want narrow version ranges of their own. torch alone is the same, so that
# it is not a build for another machine, gigabytes large, and both sides are timed on one.
$(VENV)-peers/stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-peers
	grep '^torch==' constraints.txt > $(VENV)-peers/torch.txt
	$(VENV)-peers/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint $(VENV)-peers/torch.txt --editable '.[peers]'
	@touch $@

install: $(VENV)/stamp-tests ## set up .venv with everything development needs

demo: $(VENV)/stamp-package ## train the primer from nothing and print where the report is
	$(BIN)/trivium run

test: $(VENV)/stamp-tests ## the tests that take seconds
	$(TESTS) -m "not slow" -n $(WORKERS)

test-slow: $(VENV)/stamp-tests ## the tests that take minutes
	$(TESTS) -m slow

lint: $(VENV)/stamp-tests ## ruff and mypy
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: $(VENV)/stamp-tests ## let ruff mend what it can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

benchmark: $(VENV)-peers/stamp ## time against TRL, transformers and litgpt (installs them)
	$(VENV)-peers/bin/python -m benchmarks

clean: ## remove what the tools left (runs and .venv stay)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
