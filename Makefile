# make setup | demo | test | test-all | test-stress | gpu | mutants | lint | audit | drills | bench | docs
SHELL := /bin/bash
.DEFAULT_GOAL := setup
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
# What FFCV and its build need.
SYSTEM_PACKAGES := g++ libopencv-dev libturbojpeg0-dev pkg-config
# What several hosts on one machine need (tests marked cluster).
CLUSTER_TOOLS := openssh-server openssh-client rsync iproute2 util-linux tmux curl
# What the tests of the report need: a browser and LaTeX.
PAGE_TOOLS := chromium texlive-latex-recommended
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: system-packages setup demo test test-all test-stress gpu mutants lint format audit cluster-tools page-tools drills bench docs docs-serve notebooks clean
setup: $(STAMP)

system-packages:
	@dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1 || { \
	  command -v apt-get >/dev/null || { echo "install by hand: $(SYSTEM_PACKAGES)" >&2; exit 1; }; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; }

# uv fetches all at once; where it cannot, as with an index that only pip's own configuration names, pip does it.
# Compiled at the end, on all cores at once; what some packages bring along for other versions of Python does not compile.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS)
$(STAMP): pyproject.toml constraints.txt .ci/hashes.txt .ci/uv.txt
	@$(MAKE) --no-print-directory system-packages
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --requirement .ci/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps --requirement .ci/hashes.txt || \
	  $(PIP) --require-hashes --no-deps --requirement .ci/hashes.txt
	$(PIP) --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	touch $@

# Table 1 in small: leave-out trials on digits, the methods with three seeds each, attacks, and a page of it all.
demo: setup
	$(BIN)/bat-dist reproduce --table 1 --scale small --attacks clean fgsm pgd20 cw20 --out demo
	@echo; echo "open demo/report/report.html; demo/scores/index.html has all figures of the trials"

# One process more than cores that may be used: one of them waits most of the time, for hosts that are being hurt.
TEST_PROCESSES ?= $$($(BIN)/python -c "import joblib; print(joblib.cpu_count() + 1)")
PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES)
test: setup
	$(PYTEST) -m "not slow and not cluster"

test-all: setup
	$(PYTEST)

# No test may depend on the machine's speed or on the order: all tests in random order, beside two busy loops, and on one core.
test-stress: setup
	for loop in 1 2; do timeout 7200 sh -c 'while :; do :; done' & done; \
	  $(PYTEST) -p randomly; code=$$?; kill $$(jobs -p); exit $$code
	taskset -c 0 sh -c '$(PYTEST) -p randomly'

# Checks and measures one CUDA device, in some minutes; writes docs/results/gpu.md.  Needs torch and neither Ray nor FFCV:
# make gpu PYTHON=python3 works without make setup.  GPU_IMAGES: see benchmarks/gpu.py --help.
GPU_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
gpu:
	PYTHONPATH=. $(GPU_PYTHON) -m pytest --noconftest -p no:cacheprovider tests/gpu
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/gpu.py $(if $(GPU_IMAGES),--images $(GPU_IMAGES))

# Would the tests notice?  Plants the faults of tests/mutants/faults.yaml in a copy, one by one; half an hour on 2 cores.
# Some of them: make mutants MUTANTS="--room pool"; see tests/mutants/run.py --help.
mutants: setup
	$(BIN)/python tests/mutants/run.py $(MUTANTS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

# Known vulnerabilities of what constraints.txt pins; asks PyPI.  (What is installed is held against .ci/hashes.txt by setup.)
audit: setup
	$(BIN)/python -m venv $(VENV)/audit && $(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

# Debian and Ubuntu, root.
cluster-tools:
	@dpkg -s $(CLUSTER_TOOLS) >/dev/null 2>&1 || { $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(CLUSTER_TOOLS) >/dev/null; }

# The same, for the tests of the report's page and of its LaTeX.
page-tools:
	@dpkg -s $(PAGE_TOOLS) >/dev/null 2>&1 || { $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PAGE_TOOLS) >/dev/null; }

# All that a cluster may do to a job, on several hosts of this machine, and the table in docs/reliability.md anew.
drills: setup cluster-tools
	BAT_DIST_DRILL_TABLE=docs/reliability.md $(BIN)/python -m pytest -m "cluster or slow" tests/cluster

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# All measurements as one table, in about an hour on a quiet machine with two cores; an ended run goes on with the same command.
# make bench IMAGES=cifar10-images.zip (as for --dataset image_folder; without it images are synthetic); make bench BENCH="--only loaders".
# python -m benchmarks --help tells of the rest.  The rivals (.ci/bench.txt, the extra `bench`) are installed where they are missing.
IMAGES ?=
bench: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps --requirement .ci/bench.txt
	$(BIN)/python -m benchmarks $(if $(IMAGES),--images $(IMAGES)) $(BENCH)

# The reference of commands in docs/, from the programs' own --help; the picture of the folders, from their imports; the site, in site/,
# with warnings as errors.  A site for each version: BAT_DIST_DOCS_VERSIONS=mike mike deploy 0.1 latest
docs: setup
	$(BIN)/python docs/make_reference.py
	PYTHONPATH=. $(BIN)/python docs/make_rooms.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

# The site, again after each change of a file, at http://127.0.0.1:8000.
docs-serve: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# The notebooks with their outputs, in docs/notebooks: after a change of what they show.
notebooks: setup
	$(BIN)/python docs/run_notebooks.py

clean:
	rm -rf $(VENV) demo site
