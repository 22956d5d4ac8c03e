# Every command makes its own environment in .venv from hashed requirements; nothing but Python and make must be there.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo up test lint lock
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-6s %s\n", $$1, $$2}'

.venv/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Lacuna needs Python 3.11 to 3.13; this is {v[0]}.{v[1]}. Say: make PYTHON=python3.12 …")'
	@echo "Making the environment in .venv (a minute, once) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/.ready ## restore real photos through the real service, and show how well it went
	@$(BIN)/python -m demo

up: .venv/.ready ## start the service at http://127.0.0.1:8080; Ctrl-C stops it
	@$(BIN)/lacunad up

test: .venv/.ready lint ## check the code and run every test
	@$(BIN)/python -m pytest -q

lint: .venv/.ready ## style, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

lock: ## write the hashed requirements anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --output-file requirements/runtime.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group dev --constraints requirements/runtime.txt --output-file requirements/dev.txt pyproject.toml
