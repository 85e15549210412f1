# make study   set everything up and run the main job on what the package embeds (offline)
# make test    set everything up and run the tests
# make lint    style and types
# make docs    the documentation as pages in site/; links are checked
# make bench   timed comparisons, each printing a ratio

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export OMP_WAIT_POLICY ?= PASSIVE

EXTRAS := all,onnx,openvino,picture,ray,serve,explore

# not measure.py, which they share, and not those that take hours or need an accelerator
NOT_TIMED := $(addprefix benchmarks/, measure.py processors.py released.py accelerator.py)
BENCHMARKS := $(filter-out $(NOT_TIMED), $(wildcard benchmarks/*.py))

.PHONY: study test lint docs bench install clean

study: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/tsprune study --frontier --out study

# two processes of one thread each: products of small models are no quicker with more threads
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/.installed-test $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	HF_HUB_OFFLINE=1 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(VENV)/.installed-test
	for benchmark in $(BENCHMARKS); do $(BIN)/python $$benchmark || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tsprune needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"

# --no-compile: what is imported is compiled then, and most of these packages never is
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable ".[all,onnx,serve]"
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable ".[$(EXTRAS)]" --group test
	touch $(VENV)/.installed $@

$(VENV)/.installed-lint: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --group lint
	touch $@

# neither torch's models nor upstream packages are needed: pages are made from declarations and docstrings
$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable . --group docs
	touch $@

# for all of the above, sooner than one after the other
install: | $(VENV)/bin/python
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable ".[$(EXTRAS)]" --group test --group lint --group docs
	touch $(VENV)/.installed $(addprefix $(VENV)/.installed-, test lint docs)

clean:
	rm -rf $(VENV) study site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
