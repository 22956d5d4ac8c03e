# Every command makes its own environment in .venv from hashed requirements; nothing but Python and make must be there.
PYTHON ?= python3
BIN := .venv/bin
COMPILE := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
export PIP_DISABLE_PIP_VERSION_CHECK = 1

EXPORTED := $(patsubst %/weights.safetensors,%/openvino/export.json,$(wildcard trainer/pretrained/*/weights.safetensors))

.PHONY: help demo up test lint fuzz schema faults ablations night kills bench serving lock
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-9s %s\n", $$1, $$2}'

.venv/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Lacuna needs Python 3.11 to 3.13; this is {v[0]}.{v[1]}. Say: make PYTHON=python3.12 …")'
	@echo "Making the environment in .venv (a minute, once) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

trainer/pretrained/%/openvino/export.json: trainer/pretrained/%/weights.safetensors trainer/execution/export.py .venv/.ready
	@$(BIN)/python -m trainer export $(<D)
	@touch $@

demo: .venv/.ready $(EXPORTED) ## restore real photos through the real service, and show how well it went
	@$(BIN)/python -m demo

up: .venv/.ready $(EXPORTED) ## start the service at http://127.0.0.1:8080; Ctrl-C stops it
	@$(BIN)/lacunad up

test: .venv/.ready $(EXPORTED) lint ## check the code and run every test
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.ready ## style, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

fuzz: .venv/.ready ## send 2 000 damaged files of every format through the service (two minutes)
	@$(BIN)/python -m tests.fuzz 2000

schema: .venv/.ready ## ask the API whatever its own description allows, and much else (minutes; EXAMPLES of each operation)
	@EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest -q tests/contracts/test_api_schema.py

faults: .venv/.ready $(EXPORTED) ## put every promise under fire, N times at most (an hour for 100); writes docs/reliability.md
	@$(BIN)/python -m tests.faults.matrix $(or $(N),100) --write

ablations: .venv/.ready $(EXPORTED) ## take every mechanism of the promises away once, and see the matrix notice (ten minutes)
	@$(BIN)/python -m tests.faults.ablations

night: .venv/.ready $(EXPORTED) ## send 500 photos through while client, API, worker and Redis are killed (minutes); needs DATA
	@$(BIN)/python -m tests.faults.night

kills: .venv/.ready $(EXPORTED) ## kill a training twenty times, and compare its weights with those of one that nobody disturbed (minutes)
	@KILLS=$(or $(N),20) $(BIN)/python -m pytest -q tests/promises/test_trainings.py -k disturbed

bench: .venv/.ready $(EXPORTED) ## measure engine and service on this machine (minutes; let it be alone)
	@$(BIN)/python -m benchmarks.engine
	@$(BIN)/python -m benchmarks.service

serving: .venv/serving/.ready ## an environment without TensorFlow, in .venv/serving: all that a worker needs that restores on a CPU

.venv/serving/.ready: requirements/serving.txt pyproject.toml $(EXPORTED) $(shell find api client server shared trainer worker -name '*.py')
	@$(PYTHON) -m venv --clear .venv/serving
	@.venv/serving/bin/pip install --quiet --require-hashes -r requirements/serving.txt
	@rm -rf build
	@$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	@.venv/serving/bin/pip install --quiet --no-deps --no-index --find-links build/wheel lacuna
	@rm -r build
	@touch $@

lock: ## write the hashed requirements anew (needs uv)
	uv $(COMPILE) --extra full --output-file requirements/full.txt pyproject.toml
	uv $(COMPILE) --constraints requirements/full.txt --output-file requirements/serving.txt pyproject.toml
	uv $(COMPILE) --constraints requirements/full.txt --extra full --group dev --output-file requirements/dev.txt pyproject.toml
