# One door for people and machines. Needs Python 3.11 or newer and make; everything else is
# installed into .venv (and .bootstrap, where uv is missing) by the first target that is run.

.DEFAULT_GOAL := help
.PHONY: help demo up test check bench soak crash guards clean bootstrap anvil hledger bitcoind softhsm promtool faults

BIN := .venv/bin
# Two workers: measured, a third only waits for the database server.
TEST_WORKERS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH ?=
GUARD ?=
# A point of the crash matrix, as a failure names it; CAUSEWAY_CRASH_SEED=… chooses those of another run again.
POINT ?= all
SOAK_MINUTES ?= 30
SOAK_TRANSFERS ?= 10000000
# Of a simulated day; what a seed begins with is the same however many there are.
STEPS ?= 100

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: bootstrap ## carry real value through the whole bridge, then prove the books
	@$(BIN)/causeway demo $(DEMO_ARGS)

up: bootstrap ## run the bridge with embedded components until Ctrl-C
	@$(BIN)/causeway up

test: bootstrap anvil hledger bitcoind softhsm faults promtool ## run every test on real PostgreSQL
	@$(BIN)/pytest -n $(TEST_WORKERS) $(PYTEST_ARGS)

# Each of the four says what it has to say, also after another one has failed.
check: bootstrap ## format, lint, import contracts, types
	@status=0; \
	$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --diff --quiet .; status=1; }; \
	$(BIN)/ruff check --quiet . || status=1; \
	$(BIN)/lint-imports --no-logo || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

bench: bootstrap anvil ## run the benchmarks (BENCH=prefix for a group)
	@$(BIN)/causeway bench $(BENCH)

soak: bootstrap anvil hledger bitcoind softhsm faults ## simulated days and random tests with fresh seeds (SOAK_MINUTES=30), then SOAK_TRANSFERS in one book; SEED=… STEPS=…: that day again
ifdef SEED
	@$(BIN)/python -m tests.simulation.soak --seed $(SEED) --steps $(STEPS)
else
	@scripts/soak $(SOAK_MINUTES)
	@$(BIN)/causeway bench ledger_growth --size $(SOAK_TRANSFERS)
endif

crash: bootstrap anvil ## strike at every point of the crash matrix, or at one (POINT='journey @ point')
	@CAUSEWAY_CRASH="$(POINT)" $(BIN)/pytest -q --timeout 0 \
		$(if $(filter all,$(POINT)),-n $(TEST_WORKERS) --dist worksteal) tests/crash/matrix

guards: bootstrap anvil hledger bitcoind softhsm ## take each guard out and watch its test fail (GUARD=beginning of a name)
	@$(BIN)/python -m tests.guards $(GUARD)

clean: ## remove what make made, but no data of the demo (.causeway)
	@rm -rf .venv .bootstrap .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

bootstrap:
	@scripts/bootstrap

anvil:
	@scripts/fetch-anvil

hledger:
	@scripts/fetch-hledger

softhsm:
	@scripts/fetch-softhsm

faults:
	@scripts/fetch-faults

promtool:
	@scripts/fetch-promtool

bitcoind:
	@scripts/fetch-bitcoind
