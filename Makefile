# The two commands of the README, and those of a developer. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The constraints pin what CI tested; `make install CONSTRAINTS=` takes the newest releases.
CONSTRAINTS ?= constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Most tests wait for processes of their own; the tests of one module share what they start.
PARALLEL ?= -n 3 --dist loadfile --no-loadscope-reorder
INSTALL := $(PIP) install $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.PHONY: demo test test-fast lint bench install clean

demo: $(VENV)/installed-examples
	$(BIN)/daskml-scale run flights

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(PARALLEL) --durations=30

test-fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks

install: $(VENV)/installed-examples

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python >= 3.11 is needed; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	touch $@

$(VENV)/installed-examples: $(VENV)/python pyproject.toml
	$(INSTALL) --editable '.[examples]'
	touch $@

$(VENV)/installed-dev: $(VENV)/python pyproject.toml
	$(INSTALL) --editable '.[test,lint]'
	touch $@ $(VENV)/installed-examples

# Not ./runs: results are the user's.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
