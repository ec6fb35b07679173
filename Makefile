# `make demo` and `make test` are all a newcomer needs; both set up the virtual environment themselves.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
WORKDIR ?= runs/demo
BIN := $(VENV)/bin
# Without compiling all of what is installed, of which little is imported.
PIP := $(BIN)/pip install --quiet --no-compile --constraint $(CONSTRAINTS)

.PHONY: demo test test-slow test-colab browser lint format notebook bench

$(VENV)/.installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	@echo "setting up $(VENV): a minute or two, 2.7 GB on disk"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(PIP) --editable '.[test,parity]'
	touch $@

# The main job on real weights and real reviews: train, evaluate, export, verify, predict, report. An interrupted
# training goes on.
demo: $(VENV)/.installed
	$(BIN)/tf-finetune train --config=reviews_minilm --workdir=$(WORKDIR)
	$(BIN)/tf-finetune evaluate --workdir=$(WORKDIR)
	$(BIN)/tf-finetune export --workdir=$(WORKDIR)
	$(BIN)/tf-finetune verify --workdir=$(WORKDIR)
	$(BIN)/tf-finetune predict --workdir=$(WORKDIR) \
	  "The movie was absolutely wonderful, full of joy." "The movie was terrible and boring."
	$(BIN)/tf-finetune report --workdir=$(WORKDIR)

# What tests/commands/report_test.py looks at the report with; needs npm, and chromium on the PATH. Without, those tests
# are skipped.
browser: tests/pages/browser/node_modules/.package-lock.json

tests/pages/browser/node_modules/.package-lock.json: tests/pages/browser/package.json
	cd tests/pages/browser && npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

test: $(VENV)/.test-installed
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# What `make test` leaves out.
test-slow: $(VENV)/.test-installed
	$(BIN)/python -m pytest -m slow

# `make test` on the versions of Colab's CPU and GPU runtimes, which are also the oldest that setup.cfg allows of
# TensorFlow and Keras.
# PyTorch's build for CUDA brings triton, which does not load beside that TensorFlow.
test-colab: COLAB := VENV=.venv-colab PYTHON=python3.13 CONSTRAINTS=constraints-colab.txt
test-colab:
	$(MAKE) .venv-colab/.test-installed $(COLAB)
	.venv-colab/bin/pip uninstall --quiet --yes triton
	$(MAKE) test $(COLAB)

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The Colab notebook, and the badges that open it, from notebooks/finetune_imdb.py.
notebook: $(VENV)/.test-installed
	$(BIN)/python notebooks/build.py

$(VENV)/.bench-installed: $(VENV)/.installed
	$(PIP) --editable '.[bench]'
	touch $@

# The small benchmarks, then us and every peer on the same work, each in an environment of its own: hours, and 9 GB.
# An interrupted run goes on where it was; OPTIONS=--quick tries all of it in small.
bench: $(VENV)/.bench-installed
	$(BIN)/python benchmarks/optimizer_step.py
	$(BIN)/python benchmarks/tokenizer_speed.py
	$(BIN)/python benchmarks/padding.py
	$(BIN)/python benchmarks/checkpoint_overhead.py
	$(BIN)/python benchmarks/million_rows.py
	$(BIN)/python benchmarks/compare.py $(OPTIONS)
	$(BIN)/python benchmarks/serving.py
	$(if $(findstring --quick,$(OPTIONS)),,$(BIN)/python benchmarks/report.py)
