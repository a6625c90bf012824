# Two commands: `make run` and `make test`. Both set up what they need first; a second call starts at once.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON := .venv/bin/python
DATA ?=
MODELS ?=
TORCH_INDEX ?=
ifneq ($(wildcard ../shared/data),)
export FALAJ_DATA ?= ../shared/data
endif
ifneq ($(wildcard ../shared/schemas),)
export FALAJ_SCHEMAS ?= ../shared/schemas
endif

.PHONY: help setup run test lint ui up-team down bench clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: ## make .venv with the pinned set (TORCH_INDEX=URL takes torch from there, for a GPU machine)
	@TORCH_INDEX='$(TORCH_INDEX)' sh infra/setup.sh

run: setup ## the main job; DATA=FILE runs it on real hotel bookings, MODELS="a b" on some models
	@$(PYTHON) -m platform_assets.cli run $(MODELS) $(if $(DATA),--source "hotel_bookings=$(DATA)")

test: setup ## the whole test suite
	@$(PYTHON) -m pytest

lint: setup ## ruff, types, import contracts, declarations, reference
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PYTHON) -m platform_assets.cli check
	@$(PYTHON) -m platform_assets.reference --check
	@DAGSTER_DISABLE_TELEMETRY=1 .venv/bin/dg check defs

ui: setup ## web UI, daemon and inference server on loopback, in the background
	@$(PYTHON) -m platform_assets.cli up

up-team: setup ## the same on a team's servers, which FALAJ_TEAM names (docs/how-to/run-as-a-team.md)
	@FALAJ_ENV=team $(PYTHON) -m platform_assets.cli up

down: setup ## stop what `make ui` started
	@$(PYTHON) -m platform_assets.cli down

bench: setup ## measure the main job, stage by stage
	@$(PYTHON) -m platform_assets.cli bench pipeline

clean: ## remove .venv (state under .falaj stays)
	@rm -rf .venv
