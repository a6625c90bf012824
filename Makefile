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

.PHONY: help setup run test test-cluster lint scan snapshot verify gate images images-check publish apply bundle approve rollback ui up-team down bench clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: ## make .venv with the pinned set (TORCH_INDEX=URL takes torch from there, for a GPU machine)
	@TORCH_INDEX='$(TORCH_INDEX)' sh infra/setup.sh

run: setup ## the main job; DATA=FILE runs it on real hotel bookings, MODELS="a b" on some models
	@$(PYTHON) -m platform_assets.cli run $(MODELS) $(if $(DATA),--source "hotel_bookings=$(DATA)")

test: setup ## the whole test suite, on two workers
	@$(PYTHON) -m pytest -n 2 --no-loadscope-reorder

test-cluster: setup ## manifests, tenants and a training on a real Kubernetes control plane, built once (docs/reference/kubernetes.md)
	@tests/cluster/build_control_plane.sh
	@$(PYTHON) -m pytest tests/cluster

lint: setup ## ruff, types, import contracts, declarations, reference
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PYTHON) -m platform_assets.cli check
	@$(PYTHON) -m platform_assets.reference --check
	@DAGSTER_DISABLE_TELEMETRY=1 .venv/bin/dg check defs

scan: setup ## packages, files and code of this tree, or the packages of IMAGE, held against ADVISORIES (docs/how-to/scan-what-is-shipped.md)
	@$(PYTHON) -m platform_assets.scans $(if $(IMAGE),--image '$(IMAGE)') $(if $(ADVISORIES),--advisories '$(ADVISORIES)')

snapshot: setup ## hold the graph of assets, jobs and sensors against the committed one
	@$(PYTHON) -m pytest tests/definitions/test_loading.py

verify: setup ## signature and every byte of MODEL's live release, and the audit log
	@$(PYTHON) -m platform_assets.cli release verify $(or $(MODEL),$(error MODEL=NAME is missing))
	@$(PYTHON) -m platform_assets.cli audit verify

bundle: setup ## one archive of MODEL's live release that installs offline (docs/how-to/run-at-the-edge.md)
	@$(PYTHON) -m platform_assets.cli bundle $(or $(MODEL),$(error MODEL=NAME is missing)) --target edge

gate: setup ## what the gate decided on MODEL's newest candidate, against bounds and champion
	@$(PYTHON) -m platform_assets.cli release gate $(or $(MODEL),$(error MODEL=NAME is missing))

images: setup ## build the three images on BASE=NAME:TAG as REGISTRY/falaj/...:VERSION (docs/how-to/build-images.md)
	@for kind in inference platform trainer; do \
		infra/docker/build.sh $$kind '$(or $(BASE),$(error BASE=NAME:TAG is missing))' \
			'$(or $(REGISTRY),$(error REGISTRY=HOST is missing))/falaj/'$$kind':$(or $(VERSION),$(error VERSION=TAG is missing))' || exit 1; \
	done

images-check: setup ## build the images on the base in /var/cache/falaj/base, train in one and run a tenant in the others as pods do (minutes)
	@$(PYTHON) -m pytest tests/images

publish: ## push those images and sign each by its digest with the cosign key KEY
	@infra/docker/publish.sh '$(or $(REGISTRY),$(error REGISTRY=HOST is missing))' '$(or $(VERSION),$(error VERSION=TAG is missing))' \
		'$(or $(KEY),$(error KEY=FILE is missing))'

apply: setup ## judge the manifests of OVERLAY, apply them to kubectl's context CONTEXT, and wait until they run
	@infra/kubernetes/apply.sh '$(or $(OVERLAY),$(error OVERLAY=NAME is missing))' '$(or $(CONTEXT),$(error CONTEXT=NAME is missing))'

approve: setup ## the second person's word for RELEASE=MODEL@VERSION, with their token in TOKEN_FILE
	@$(PYTHON) -m platform_assets.cli approve $(or $(RELEASE),$(error RELEASE=MODEL@VERSION is missing)) $(if $(TOKEN_FILE),--token-file '$(TOKEN_FILE)')

rollback: setup ## put MODEL's release of before back, proven by hash
	@$(PYTHON) -m platform_assets.cli rollback $(or $(MODEL),$(error MODEL=NAME is missing))

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
