# `make demo` and `make test` are all a newcomer needs; both set up the virtual environment themselves.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/demo
BIN := $(VENV)/bin

.PHONY: demo test lint format bench

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@echo "setting up $(VENV): a minute or two, 2.7 GB on disk"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,parity]'
	touch $@

# The main job on real weights and real reviews: train, evaluate, export, verify, predict.
demo: $(VENV)/.installed
	$(BIN)/tf-finetune train --config=reviews_minilm --workdir=$(WORKDIR) --restart
	$(BIN)/tf-finetune evaluate --workdir=$(WORKDIR)
	$(BIN)/tf-finetune export --workdir=$(WORKDIR)
	$(BIN)/tf-finetune verify --workdir=$(WORKDIR)
	$(BIN)/tf-finetune predict --workdir=$(WORKDIR) \
	  "The movie was absolutely wonderful, full of joy." "The movie was terrible and boring."

test: $(VENV)/.test-installed
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Times one AdamW update of the demo model against Keras's and the tokenizer in the graph against Hugging Face's, each
# interleaved in one run.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/optimizer_step.py
	$(BIN)/python benchmarks/tokenizer_speed.py
