# Every command of the project. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

LOCAL := .local
VENV := $(LOCAL)/venv
FLARE := $(LOCAL)/trainer-flare
FLOWER := $(LOCAL)/trainer-flower
BENCH := $(LOCAL)/bench
BIN := $(VENV)/bin
PACKAGES := contracts chassis $(sort $(wildcard services/*)) cli deploy/local
APP_PACKAGES := contracts fl/nnunet fl/flip fl/apps
FLARE_PACKAGES := $(APP_PACKAGES) fl/flare
FLOWER_PACKAGES := $(APP_PACKAGES) fl/flower
OWN_OF_TRAINERS := $(addprefix --no-emit-package ,flip flip-apps flip-contracts flip-nnunet)
COMPILE := uv pip compile --python-version 3.11 --generate-hashes --no-header --no-annotate -q
export UV_LINK_MODE ?= hardlink
export UV_COMPILE_BYTECODE ?= 1

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# --- runtimes ---------------------------------------------------------------------------------------------------
$(LOCAL)/uv: requirements/development.txt
	python3 -m venv $(LOCAL)/uv
	grep -A20 '^uv==' requirements/development.txt | awk 'NR==1 || /^ /{print; next} {exit}' > $(LOCAL)/uv/uv.txt
	$(LOCAL)/uv/bin/pip install -q --require-hashes -r $(LOCAL)/uv/uv.txt
	touch $@

$(VENV)/.ready: requirements/platform.txt requirements/development.txt $(PACKAGES:%=%/pyproject.toml) | $(LOCAL)/uv
	$(LOCAL)/uv/bin/uv venv -q --allow-existing --python 3.11 $(VENV)
	$(LOCAL)/uv/bin/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/platform.txt -r requirements/development.txt
	$(LOCAL)/uv/bin/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	touch $@

$(FLARE)/.ready: requirements/trainer-flare.txt $(FLARE_PACKAGES:%=%/pyproject.toml) | $(LOCAL)/uv
	$(LOCAL)/uv/bin/uv venv -q --allow-existing --python 3.11 $(FLARE)
	$(LOCAL)/uv/bin/uv pip install -q --python $(FLARE)/bin/python --require-hashes -r requirements/trainer-flare.txt
	$(LOCAL)/uv/bin/uv pip install -q --python $(FLARE)/bin/python --no-deps --no-build-isolation $(FLARE_PACKAGES:%=-e %)
	touch $@

$(FLOWER)/.ready: requirements/trainer-flower.txt $(FLOWER_PACKAGES:%=%/pyproject.toml) | $(LOCAL)/uv
	$(LOCAL)/uv/bin/uv venv -q --allow-existing --python 3.11 $(FLOWER)
	$(LOCAL)/uv/bin/uv pip install -q --python $(FLOWER)/bin/python --require-hashes -r requirements/trainer-flower.txt
	$(LOCAL)/uv/bin/uv pip install -q --python $(FLOWER)/bin/python --no-deps --no-build-isolation $(FLOWER_PACKAGES:%=-e %)
	touch $@

$(BENCH)/.ready: requirements/platform.txt requirements/development.txt requirements/bench.txt | $(LOCAL)/uv
	$(LOCAL)/uv/bin/uv venv -q --allow-existing --python 3.11 $(BENCH)
	$(LOCAL)/uv/bin/uv pip install -q --python $(BENCH)/bin/python --require-hashes $(addprefix -r requirements/,platform.txt development.txt bench.txt)
	$(LOCAL)/uv/bin/uv pip install -q --python $(BENCH)/bin/python --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	touch $@

.PHONY: venv
venv: $(VENV)/.ready ## the platform's Python environment

.PHONY: trainer-flare
trainer-flare: $(FLARE)/.ready ## the NVFLARE trainer's Python environment

.PHONY: trainer-flower
trainer-flower: $(FLOWER)/.ready ## the Flower trainer's Python environment

.PHONY: lock
lock: ## pin every requirement set by hash
	$(COMPILE) $(PACKAGES:%=%/pyproject.toml) --no-emit-package flip-contracts --no-emit-package flip-chassis --no-emit-package flip-client -o requirements/platform.txt
	$(COMPILE) requirements/development.in -o requirements/development.txt
	$(COMPILE) requirements/bench.in -o requirements/bench.txt
	$(COMPILE) $(FLARE_PACKAGES:%=%/pyproject.toml) requirements/trainer-flare.in $(OWN_OF_TRAINERS) -o requirements/trainer-flare.txt
	$(COMPILE) $(FLOWER_PACKAGES:%=%/pyproject.toml) requirements/trainer-flower.in $(OWN_OF_TRAINERS) -o requirements/trainer-flower.txt

# --- the local stack --------------------------------------------------------------------------------------------
LOCAL_STACK := $(BIN)/flip-local

.PHONY: demo
demo: venv trainer-flare trainer-flower ## install what is missing, start the stack, play the main job, show the result
	@$(BIN)/python -m flip_local.demo

.PHONY: up
up: venv trainer-flare trainer-flower ## start the local stack
	@$(LOCAL_STACK) install
	@$(LOCAL_STACK) up

.PHONY: down
down: ## stop the local stack; nothing is left running
	@if [ -x $(LOCAL_STACK) ]; then $(LOCAL_STACK) down; fi

.PHONY: status
status: ## each part: state, process, restarts, memory
	@$(LOCAL_STACK) status

.PHONY: logs
logs: ## follow a part's log: make logs S=scheduler
	@$(LOCAL_STACK) logs $(S) -f

# --- checks -----------------------------------------------------------------------------------------------------
PYTEST := $(BIN)/pytest -q --timeout=600

.PHONY: test
test: venv trainer-flare trainer-flower ## every test, on real parts
	$(BIN)/flip-local install
	$(PYTEST) contracts chassis services cli deploy tests -m "not system"
	$(FLARE)/bin/pytest -q --timeout=900 fl/nnunet fl/flip fl/apps fl/flare
	$(FLOWER)/bin/pytest -q --timeout=900 fl/flower
	$(PYTEST) tests deploy services --timeout=2400 -m system

RUNS ?= 100
.PHONY: chaos
chaos: venv ## many seeded runs with faults, on real parts: make chaos RUNS=1000
	$(LOCAL_STACK) install
	$(BIN)/python -m tests.chaos --runs $(RUNS)

.PHONY: faults
faults: venv trainer-flare trainer-flower ## faults of nets at every stage of a run, to docs/faults.md; goes on after docs/faults.jsonl
	$(LOCAL_STACK) install
	$(BIN)/python -m tests.faults --page docs/faults.md

.PHONY: test-fast
test-fast: venv ## the tests that need no part: under a minute
	$(PYTEST) contracts chassis services cli deploy tests -m "not parts and not system"

.PHONY: bench
bench: venv $(BENCH)/.ready ## the backbone beside its peers, written to docs/benchmarks.md
	$(LOCAL_STACK) install
	$(BENCH)/bin/python -m bench --page docs/benchmarks.md

.PHONY: lint
lint: venv trainer-flare trainer-flower ## ruff and pyright over everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pyright -p fl
	$(BIN)/pyright -p fl/flower
	$(BIN)/flip-contracts check contracts/history
	$(BIN)/flip-contracts check services/imaging/history flip_imaging.domain
	$(BIN)/flip-contracts check services/trainer-node/history flip_trainer_node.attempts

.PHONY: generate
generate: venv ## write what follows from the contracts
	$(BIN)/flip-contracts generate contracts/generated

.PHONY: requirements
requirements: venv ## the rows of the requirements that no test shows
	@$(BIN)/python tests/tools/requirements.py
