# Trimton: every entry point sets up what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
# Where torch comes from; https://download.pytorch.org/whl/cpu has builds without CUDA, which are
# much smaller.
TORCH_INDEX ?=

.PHONY: help setup server compiler agent demo test lint schema bench bench-load bench-truth bench-prune bench-real bench-quantize bench-promote bench-distill clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with Trimton and its locked dependencies

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is too old; Trimton needs Python 3.11 or newer (make PYTHON=python3.11 ...)."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot create virtual environments; install them (Debian: apt-get install python3-venv)."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch)
	$(PIP) -e '.[dev]'
	@touch $@

server: setup ## Install the local Triton server into the user's cache (once)
	$(BIN)/trimton server install

compiler: setup
	@command -v "$${CC:-cc}" >/dev/null || $(PIP) ziglang

agent: compiler ## Build Triton's repository agent (AGENT_DIR=..., else into the user's cache)
	$(BIN)/trimton agent build $(if $(AGENT_DIR),--into '$(AGENT_DIR)')

demo: server ## The main job: compress a model, serve it on a real Triton, measure, judge
	$(BIN)/trimton run recipes/fashion_resnet.yaml

test: server compiler $(DEV_STAMP) ## Run the tests (they start a real Triton)
	$(BIN)/python -m pytest

lint: $(DEV_STAMP) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: setup ## Write the JSON schemas of recipes and policies from their definitions
	$(BIN)/python -c 'from trimton.plugin.recipe import recipe_schema; print(recipe_schema(), end="")' \
	  > plugin/recipe.schema.json
	$(BIN)/python -c 'from trimton.plugin.policy import policy_schema; print(policy_schema(), end="")' \
	  > plugin/policy.schema.json

bench: server ## Print the short benchmark tables: fusing, client, backend, resuming (15 minutes)
	@for name in fuse_models client_latency backend_overhead resume_after_kill; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

bench-load: server ## Trimton's load generator beside perf_analyzer's (15 minutes)
	$(BIN)/python benchmarks/load_vs_perf_analyzer.py

bench-truth: server ## Latency from the schedule, replay, peaks, a million requests, false alarms (an hour)
	@for name in coordinated_omission trace_replay peak_search million_requests protocol_cost \
	  false_alarms; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

bench-prune: setup ## Coverage, growth, accuracy and speed of structured pruning (half an hour)
	@for name in prune_coverage prune_scaling prune_accuracy; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

bench-real: setup ## Pruned, factorised and sparse forms of real models (some hours)
	@for name in prune_real_models low_rank sparsity; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

bench-quantize: setup ## Quantised models beside those of other tools; what calibration costs (an hour)
	@for name in quantize_models quantize_calibration quantize_ablation quantize_targets precision_models; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

bench-distill: $(DEV_STAMP) ## Students beside those of Torch-Pruning, of real models, in few bits (three hours)
	@for name in interpreter_models importance distill_models distill_real_models distill_quantised; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

bench-promote: server ## Kills during promotions, clients beside them, large repositories, canaries (20 minutes)
	@for name in promotion_kills promotion_under_load repository_scale canary agent_latency; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

clean: ## Remove what make created here (not the server in the user's cache)
	rm -rf $(VENV) build dist *.egg-info runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
