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

.PHONY: demo test test-fast test-minimum coverage lint docs package bench bench-full bench-peers install clean

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

# The quick tests on the oldest versions that pyproject.toml allows, in an environment of its own.
test-minimum:
	$(PYTHON) -m venv $(VENV)-minimum
	$(VENV)-minimum/bin/python -m pip --quiet install -c constraints-minimum.txt --editable '.[test]'
	$(VENV)-minimum/bin/python -m pytest $(PARALLEL) -m "not slow"

# Forty minutes: the whole suite, and what it leaves out. Goals: 98 % of what decides, 90 % of the rest. Tests may fail here
# that pass elsewhere: Python 3.11 refuses to trace two threads that begin at the same moment.
DECIDES := */daskml_scale/plan/*,*/daskml_scale/scaling/*,*/daskml_scale/spec/*
coverage: $(VENV)/installed-dev
	$(BIN)/python -m coverage erase
	-$(BIN)/python -m coverage run -m pytest $(PARALLEL) -q
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --include '$(DECIDES)' --fail-under 98
	$(BIN)/python -m coverage report --omit '$(DECIDES)' --fail-under 90

# The reference pages follow from the code; the rest is Markdown. Opens from a disk: site/index.html.
docs: $(VENV)/installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python -m benchmarks.report
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

# Wheel and source distribution in dist/, and the wheel in an environment of its own.
package: $(VENV)/python
	$(PIP) install build
	$(BIN)/python -m build --outdir dist .
	rm -rf $(VENV)-package && $(PYTHON) -m venv $(VENV)-package
	$(VENV)-package/bin/python -m pip --quiet install $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) dist/*.whl
	cd dist && ../$(VENV)-package/bin/daskml-scale version && ../$(VENV)-package/bin/daskml-scale validate grid

# Small sizes, a quarter of an hour: result files and a page of them in benchmarks/results/small.
bench: RESULTS := benchmarks/results/small
bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks --repeat 1 --folder $(RESULTS)
	$(BIN)/python -m benchmarks.runs --small --json $(RESULTS)/runs.json
	$(BIN)/python -m benchmarks.scaling --seeds 1 --json $(RESULTS)/scaling.json
	$(BIN)/python -m benchmarks.growth --small --repeat 1 --json $(RESULTS)/growth.json
	$(BIN)/python -m benchmarks.report --folder $(RESULTS) --page $(RESULTS)/benchmarks.md --before docs/measured

# Hours, on a quiet machine. What it finds is what docs/benchmarks.md shows.
bench-full: RESULTS := docs/measured
bench-full: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks --size full --repeat 5 --folder $(RESULTS)
	$(BIN)/python -m benchmarks.runs --json $(RESULTS)/runs.json
	$(BIN)/python -m benchmarks.scaling --json $(RESULTS)/scaling.json
	$(BIN)/python -m benchmarks.growth --gb 10 --json $(RESULTS)/growth.json
	$(BIN)/python -m benchmarks.kubernetes --json $(RESULTS)/kubernetes.json
	$(BIN)/python -m benchmarks.watching --json $(RESULTS)/watching.json
	$(BIN)/python -m benchmarks.report

# Peers that need versions of their own: benchmarks.peers says which, and how they are found.
bench-peers: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.peers

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
	rm -rf $(VENV) $(VENV)-minimum $(VENV)-package $(VENV)-peers build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
