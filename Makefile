# Two commands do everything on a fresh clone: `make demo` and `make test`.
# With uv when it is there, with venv and pip when not. Outside this folder there are only temporary files (a live bus has
# its socket there) and the installer's cache.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
EXTRAS ?= dev,opsml
STAMP  := $(VENV)/.installed

.PHONY: picture demo test pytest lint types floors check bench bench-tiny soak faults pythons setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once, about a minute) …"
	@if command -v uv >/dev/null 2>&1; then \
	    uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && \
	    uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS)]'; \
	else \
	    $(PYTHON) -m venv $(VENV) && \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'; \
	fi
	@touch $@

demo: $(STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python examples/first_minute.py

test: lint types floors pytest bench-tiny

pytest: $(STAMP)
	@$(BIN)/python -m pytest -m "not slow"

# The tests on every supported Python that is found: on the PATH, or among pyenv's.
pythons:
	@for version in 3.11 3.12 3.13; do \
	    for python in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python none; do \
	        if $$python --version 2>/dev/null; then break; fi; \
	    done; \
	    if [ $$python = none ]; then echo "NOT TESTED HERE: no Python $$version on this machine"; continue; fi; \
	    $(MAKE) --no-print-directory pytest PYTHON=$$python VENV=.venv-$$version || exit 1; \
	done

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

floors: $(STAMP)
	@$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

bench-tiny: $(STAMP)
	@$(BIN)/python -m benchmarks --tiny

# What breaks disks, machines, files and timing on purpose: kill -9 by strace, power cuts on loop devices, every bit
# flipped, a publish between any two bytecodes of a reader.
# What this machine cannot do is left out and named.
faults: $(STAMP)
	@$(BIN)/python -m pytest -m slow -k "not soak" --timeout 1200 -rs

soak: $(STAMP)
	@$(BIN)/python -m pytest -m slow -k soak --timeout 1200

picture: $(STAMP)
	@$(BIN)/python examples/picture.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo
