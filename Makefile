# make demo: set up and run the main job on generated data.   make test: set up and run the tests.
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python

.PHONY: setup demo test test-thorough lint

setup: $(VENV)/.installed

# torch first and from the constraints file: its CPU build, before anything that would fetch the CUDA one.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[cpu,dev]"
	touch $@

demo: setup
	$(RUN) -m ray_jobs.pipeline --config ray_jobs/configs/demo.yaml

test: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest

test-thorough: setup
	$(RUN) -m pytest --thorough

lint: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
