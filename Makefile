# Every target sets up what it needs from a bare machine; a second run finds it done.

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Most tests wait for servers: several processes at a time, each with servers of its own.
PARALLEL := -n 3 --dist worksteal
# Scenarios of minutes: a test that hangs is ended later than in `make test`.
LONG := -o faulthandler_timeout=1800
# Beside a private RabbitMQ and Redis, which end with the command.
WITH_SERVERS := $(BIN)/python -m tests.servers run --
RABBITMQ4 := .cache/rabbitmq4

# What speaks to a broker, for the run against RabbitMQ 4.
BROKER_TESTS := $(wildcard $(addprefix tests/,servers broker transport topology provision results stores spine interop scheduler deadletters faults cli examples test_app.py test_management.py))

.DEFAULT_GOAL := help
.PHONY: help demo demo-rabbitmq test test-all test-rabbitmq4 test-embedded faults lint format bench soak lock servers clock clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 18

demo: .venv/.installed ## index Python's standard library with tasks, no server needed
	@env -u AMQFLOW_BROKER -u AMQFLOW_BACKEND $(BIN)/amqflow demo $(ARGS)

demo-rabbitmq: .venv/.installed servers ## the same on a private RabbitMQ and Redis
	@$(WITH_SERVERS) $(BIN)/amqflow demo $(ARGS)

test: .venv/.installed servers ## a sample of everything, in minutes
	$(PYTEST) $(PARALLEL) -m "not slow and not cross and not faults_long and not rabbitmq4" $(ARGS)

test-all: .venv/.installed servers clock ## every test, the slow ones and the long fault scenarios too
	$(PYTEST) $(LONG) -m "not rabbitmq4" $(ARGS)

test-rabbitmq4: .venv/.installed servers $(RABBITMQ4)/.complete ## broker-facing tests on RabbitMQ 4
	AMQFLOW_TEST_RABBITMQ=4 $(PYTEST) $(PARALLEL) -m "not slow and not cross and not faults_long" $(BROKER_TESTS) $(ARGS)

# The same and all that runs tasks, on amqflow's own broker.
EMBEDDED_TESTS := $(BROKER_TESTS) $(addprefix tests/,worker workflow middleware guards dev testing)

test-embedded: .venv/.installed servers ## broker-facing tests on amqflow's own broker; -rs says what is left out
	AMQFLOW_TEST_BROKER=embedded $(PYTEST) $(PARALLEL) -rs -m "not slow and not cross and not faults_long and not rabbitmq4" $(EMBEDDED_TESTS) $(ARGS)

faults: .venv/.installed servers ## the fault scenarios only: kills, pauses, the ledger
	$(PYTEST) $(LONG) -s -m "(faults or faults_long) and not rabbitmq4" $(ARGS)

lint: .venv/.installed ## ruff, mypy --strict and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) tests/test_floors.py

format: .venv/.installed ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed servers ## compare with Celery, Dramatiq and Taskiq; writes RESULTS.md
	@$(WITH_SERVERS) $(BIN)/python -m benchmarks $(ARGS)

soak: .venv/.installed servers ## a million tasks through a worker of threads and one of processes: memory stays flat
	AMQFLOW_SOAK=$(or $(COUNT),1000000) $(PYTEST) -s -m "" -o faulthandler_timeout=0 tests/worker/test_soak.py $(ARGS)

lock: ## pin the newest versions that the ranges allow
	tools/lock.sh

servers: ## install RabbitMQ and Redis where missing (root on Debian or Ubuntu); starts nothing
	@tools/setup-servers.sh

clock:
	@tools/setup-servers.sh --clock

clean: ## remove the virtual environment, RabbitMQ 4 and the caches
	rm -rf .venv .tox .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
	rm -rf --one-file-system .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml requirements.lock tools/setup-venv.sh
	tools/setup-venv.sh
	@touch $@

$(RABBITMQ4)/.complete: tools/rabbitmq4.sh
	tools/rabbitmq4.sh $(RABBITMQ4)
	@touch $@
