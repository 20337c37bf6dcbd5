# make demo        create .venv, install what the lock names, tune the embedded model, print the table (no network at run time)
# make test        create .venv if needed, install the dev extras, run the default tests (under 10 minutes on two cores)
# make test-full   the long checks too
# make lint types  style and types
# make docs        the site, into site/; a broken link is an error
# make lock        resolve the locks anew from pyproject.toml
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-full lint types docs format lock clean

demo: $(VENV)/core
	$(BIN)/holdfast demo --output holdfast-demo --overwrite

test: $(VENV)/dev
	$(BIN)/python -m pytest -n 2

test-full: $(VENV)/dev
	$(BIN)/python -m pytest -m ""

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

docs: $(VENV)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/core: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/dev: requirements-dev.lock $(VENV)/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	touch $@

lock:
	$(PYTHON) scripts/lock.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis holdfast-demo site dist
