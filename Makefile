# Everything runs in .venv, which these targets make and keep up to date.
PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/quickstart
# Without bytecode, each of the tests' processes would compile every file anew: 16 s before the first test.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-fast faults check format clean

# The main job, on data that come with Python packages; see README.md for what it prints.
quickstart: .venv/bundled
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=$(WORKDIR)

test: check
	$(BIN)/python -m pytest

# While working: all tests but those marked `slow`.
test-fast: .venv/test
	$(BIN)/python -m pytest -m "not slow"

# Hundreds of bad configs, folders, weight files and flipped bits: docs/reliability.md has what it prints.
faults: .venv/test
	$(BIN)/python -W ignore -m tests.faults

# What pre-commit runs too.
check: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# One stamp for each extra; installed anew when the metadata change.
.venv/%: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
