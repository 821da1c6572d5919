# make demo    install, then the whole line on the embedded demo set
# make test    install, then all tests, in lanes side by side (tests/conftest.py);
#              LANE="not ray", LANE="ray and not hosts" or LANE=hosts for one of them
# make quick   install, then the tests that need no Ray and take less than a second each
# make check   install, then lint and types
# make bench   install, then all benchmarks: half an hour; writes docs/benchmarks.md
#              (BENCH="--study FOLDER --pydvl PYTHON": see benchmarks/report.py)
# make docs    install, then the documentation as a site in outputs/site/; warnings are errors
# make wheel   the package and its versions as files in dist/, for the nodes of cluster.yaml
# Everything goes to .venv; PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --dist loadgroup --no-loadscope-reorder
# Some environments keep Python from writing bytecode: every process would compile the package, and
# every run the tests, again.
export PYTHONDONTWRITEBYTECODE :=
PROJECT := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test quick check bench docs wheel clean

demo: .venv/.core
	$(BIN)/dcai-ray demo

test: .venv/.dev
	$(PYTEST) -n 3 $(if $(LANE),-m "$(LANE)")

quick: .venv/.dev
	$(PYTEST) -n 2 -m "not ray and not slow"

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.dev
	$(BIN)/python benchmarks/report.py $(BENCH) > docs/benchmarks.md.new
	mv docs/benchmarks.md.new docs/benchmarks.md

docs: .venv/.dev
	$(BIN)/mkdocs build --quiet

wheel:
	rm -rf build dist
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	cp constraints.txt dist/

.venv/.core .venv/.dev: .venv/.%: $(PROJECT)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(if $(filter dev,$*),[dev])'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
