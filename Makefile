# make setup | demo | test | check | test-long | bench | lock
#
# PYTHON=python3.12     another interpreter (3.11 or newer)
# UV=/path/to/uv        a uv of your own; otherwise pip brings one into .tools/
# TORCH_ARGS="--index https://... "   one source for torch *and* torchvision, e.g. CPU-only builds of both
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV ?= $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
TORCH_ARGS ?=
EXTRAS ?= timm,tensorboard,wandb

# uv reads neither pip.conf nor PIP_*; what a user told pip is handed on, unless a UV_* says otherwise.
# `pip config list` prints environment lines first, so the first match has pip's own precedence.
pip_setting = $(shell $(PYTHON) -m pip config list 2>/dev/null \
	| sed -n "s/^\(:env:\|global\|install\|site\|user\)\.$(1)='\(.*\)'$$/\2/p" | head -n 1 | sed 's/\\n/ /g')
comma_separated = $(shell echo "$(1)" | sed 's/  */,/g')
UV_DEFAULT_INDEX ?= $(call pip_setting,index-url)
UV_INDEX ?= $(call pip_setting,extra-index-url)
UV_FIND_LINKS ?= $(call comma_separated,$(call pip_setting,find-links))
SSL_CERT_FILE ?= $(call pip_setting,cert)
UV_INSECURE_HOST ?= $(call pip_setting,trusted-host)

# An empty SSL_CERT_FILE breaks uv, so each is set only where it has a value. pip merges its indexes: so does uv here.
uv_env = env UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1 UV_INDEX_STRATEGY=unsafe-best-match UV_LINK_MODE=$(LINK_MODE) \
	$(if $(strip $(UV_DEFAULT_INDEX)),UV_DEFAULT_INDEX="$(strip $(UV_DEFAULT_INDEX))") \
	$(if $(strip $(UV_INDEX)),UV_INDEX="$(strip $(UV_INDEX))") \
	$(if $(strip $(UV_FIND_LINKS)),UV_FIND_LINKS="$(strip $(UV_FIND_LINKS))") \
	$(if $(strip $(SSL_CERT_FILE)),SSL_CERT_FILE="$(strip $(SSL_CERT_FILE))") \
	$(if $(strip $(UV_INSECURE_HOST)),UV_INSECURE_HOST="$(strip $(UV_INSECURE_HOST))")
LINK_MODE ?= hardlink

.PHONY: help setup demo test test-long check format bench lock clean

help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

setup: $(VENV)/.ready

.tools/bin/uv:
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { \
	  echo "there is no $(PYTHON), or it has no pip: install it (Debian: apt-get install python3-pip), or give a uv with UV=/path/to/uv" >&2; exit 1; }
	$(PYTHON) -m pip install --quiet --upgrade --target .tools uv

$(VENV)/.ready: pyproject.toml constraints.txt $(if $(filter .tools/bin/uv,$(UV)),.tools/bin/uv)
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "there is no $(PYTHON): name a Python 3.11 or newer with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than 3.11: name a newer one with PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(uv_env) $(UV) venv --quiet --python "$(PYTHON)" $(VENV)
	$(if $(strip $(TORCH_ARGS)),$(uv_env) $(UV) pip install --quiet --python $(BIN)/python $(TORCH_ARGS) torch torchvision)
	$(uv_env) $(UV) pip install --quiet --python $(BIN)/python \
	  $(if $(strip $(TORCH_ARGS)),,-c constraints.txt) -e '.[$(EXTRAS)]' --group dev
	$(BIN)/python -m sparse_transfer doctor --install-check
	@touch $@

demo: setup
	$(BIN)/sparse-transfer demo

# One thread a worker: two workers on two cores, never more threads than cores.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile

test-long: setup
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile --timeout 5400

check: setup
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format src tests benchmarks tools
	$(BIN)/ruff check --fix src tests benchmarks tools

bench: setup
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# The constraints hold no index address and no hashes: a user's own builds of the same versions stay welcome.
lock: $(if $(filter .tools/bin/uv,$(UV)),.tools/bin/uv)
	$(uv_env) $(UV) pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --all-extras --group dev pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) .tools build dist
