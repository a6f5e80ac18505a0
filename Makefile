# Few commands, the same for people and for CI. Each sets up what it needs; nothing but Python, git and make is expected.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
PEERS := .venv-peers
STAMP := $(VENV)/.synced
# Trust what the machine trusts: behind a company proxy its own certificates are the only ones that work.
export UV_SYSTEM_CERTS ?= true

.DEFAULT_GOAL := help
.PHONY: help setup servers demo test test-all check format docs bench bench-automl bench-features bench-data bench-serving mutate spark ray deep clients fuzz peers mlflow dagster bench-learning lock clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## create .venv from the lock file (every other command does this by itself)

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "retrodict needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Name another one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'

$(STAMP): $(UV) locks/dev.lock pyproject.toml $(wildcard src/retrodict/core/native/*.[ch])
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes locks/dev.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q src # the first command need not do it
	@touch $@

servers: ## install the servers that tests run against (Debian, as root); without them those tests are skipped
	@tests/install-servers

demo: $(STAMP) ## one whole life on real flights; writes demo-report/report.html and report.json
	$(BIN)/retrodict demo flights --project demo-project --report demo-report

# The same code gets the same answer: generated cases are drawn from a fixed seed here, and anew by `make test-all`.
test: $(STAMP) ## the tests, without those marked slow
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --hypothesis-profile=ci --durations=10 tests src

test-all: $(STAMP) servers spark ray deep clients ## every test, the slow ones too, with fresh generated cases
	$(BIN)/python -m pytest -n 2 --dist worksteal tests src

spark: $(VENV)/.spark ## what the tests of training frames on Spark need (400 MB, and Java); without it they are skipped

$(VENV)/.spark: $(STAMP) locks/spark.lock
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r locks/spark.lock
	@touch $@

ray: $(VENV)/.ray ## what the tests of searches and scores on Ray need (200 MB); without it they are skipped

$(VENV)/.ray: $(STAMP) locks/ray.lock
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r locks/ray.lock
	@touch $@

deep: $(VENV)/.deep ## torch, for the tests of the network (200 MB); without it they are skipped

# By pip and without hashes, since which build of a version it is (for a CPU or for CUDA) depends on how pip is set up.
$(VENV)/.deep: $(STAMP) locks/deep.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r locks/deep.lock
	@touch $@

mlflow: .venv-mlflow/.synced ## MLflow in an environment of its own (850 MB), for its tests and bench_runs; without it both leave it out

.venv-mlflow/.synced: $(UV) locks/mlflow.lock pyproject.toml $(STAMP)
	$(PYTHON) -m venv .venv-mlflow
	$(UV) pip sync --quiet --python .venv-mlflow/bin/python --require-hashes locks/mlflow.lock
	$(UV) pip install --quiet --python .venv-mlflow/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

dagster: .venv-dagster/.synced ## Dagster in an environment of its own (950 MB), for its tests; without it they are skipped

.venv-dagster/.synced: $(UV) locks/dagster.lock pyproject.toml $(STAMP)
	$(PYTHON) -m venv .venv-dagster
	$(UV) pip sync --quiet --python .venv-dagster/bin/python --require-hashes locks/dagster.lock
	$(UV) pip install --quiet --python .venv-dagster/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

CLIENTS := $(foreach name,triton kserve generated openapi schemathesis,.venv-clients/$(name)/.synced)

clients: $(CLIENTS) ## clients of the Open Inference Protocol and schemathesis, an environment for each (600 MB); without them their tests are skipped

.venv-clients/%/.synced: locks/clients/%.lock | $(UV)
	$(PYTHON) -m venv .venv-clients/$*
	$(UV) pip sync --quiet --python .venv-clients/$*/bin/python --require-hashes $<
	@touch $@

CASES ?= 20000
SEED ?= 0

fuzz: $(STAMP) .venv-clients/schemathesis/.synced ## CASES=20000 requests that schemathesis makes up by SEED=0, at a server with everything on; counts by route
	RETRODICT_CASES=$(CASES) RETRODICT_SEED=$(SEED) $(BIN)/python -m pytest -s -o faulthandler_timeout=7200 tests/serving/test_openapi.py -k schemathesis

bench-learning: $(STAMP) mlflow ## recording and finding runs against a bare transaction and MLflow; fits against the bare library
	$(BIN)/python benchmarks/bench_runs.py
	$(BIN)/python benchmarks/bench_learning.py

mutate: $(STAMP) .venv-mutate/.synced ## plant faults in ROOM=… one after the other; say which ones no test catches (hours)
	@tests/mutate $(ROOM) $(FILES)

.venv-mutate/.synced: $(UV) locks/mutate.lock
	$(PYTHON) -m venv .venv-mutate
	$(UV) pip sync --quiet --python .venv-mutate/bin/python --require-hashes locks/mutate.lock
	@touch $@

check: $(STAMP) ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check src tests docs benchmarks
	$(BIN)/ruff check src tests docs benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite the sources in the house format
	$(BIN)/ruff format src tests docs benchmarks
	$(BIN)/ruff check --fix src tests docs benchmarks

docs: $(STAMP) ## run every snippet of the documentation
	$(BIN)/python -m pytest tests/docs

bench: $(STAMP) ## a small run of the features against floors and peers; the last line of each is one JSON object
	$(BIN)/python benchmarks/bench_features.py --rows 100000 --small

bench-features: $(STAMP) peers servers ## features at full size: frames, online reads, streams, Redis (half an hour, 6 GB of disk)
	$(BIN)/python benchmarks/bench_features.py
	$(BIN)/python benchmarks/bench_online.py
	$(BIN)/python benchmarks/bench_redis.py

peers: $(PEERS)/.synced ## other validators and feature stores, in an environment of their own

$(PEERS)/.synced: $(UV) locks/peers.lock
	$(PYTHON) -m venv $(PEERS)
	$(UV) pip sync --quiet --python $(PEERS)/bin/python --require-hashes locks/peers.lock
	@touch $@

bench-automl: $(STAMP) .venv-automl/.synced ## Recipe("auto") against FLAML and LightGBM on tables of packages (an hour or more; goes on where it was)
	$(BIN)/python benchmarks/bench_automl.py

# ISLP for its tables alone, and XGBoost without the 300 MB that only a GPU needs.
.venv-automl/.synced: $(UV) locks/automl.lock locks/automl-tables.lock
	$(PYTHON) -m venv .venv-automl
	$(UV) pip sync --quiet --python .venv-automl/bin/python --require-hashes locks/automl.lock
	$(UV) pip install --quiet --python .venv-automl/bin/python --no-deps --require-hashes -r locks/automl-tables.lock
	@touch $@

bench-data: $(STAMP) peers ## the data room at 10 million rows, against floors and peers (half an hour, 4 GB of disk)
	$(BIN)/python benchmarks/bench_data.py

bench-serving: $(STAMP) peers ## decisions over HTTP against a bare server and FastAPI with the same trees (three minutes)
	$(BIN)/python benchmarks/bench_serving.py

lock: $(UV) ## write locks/dev.lock anew from pyproject.toml
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra demo --extra pandera --extra plots --extra postgres --extra redis --extra nats --extra kafka --extra s3 --extra balance --extra catboost --extra grpc --extra jwt --extra onnx --extra otel --extra tune --extra xgboost --group dev --output-file locks/dev.lock pyproject.toml \
	  locks/build.in
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --output-file locks/peers.lock locks/peers.in
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --output-file locks/spark.lock locks/spark.in
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --output-file locks/ray.lock locks/ray.in
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --no-emit-package nvidia-nccl-cu12 --output-file locks/automl.lock locks/automl.in
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra mlflow --output-file locks/mlflow.lock pyproject.toml locks/build.in locks/mlflow.in
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra dagster --output-file locks/dagster.lock pyproject.toml locks/build.in
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --output-file locks/mutate.lock locks/mutate.in
	for name in triton kserve generated openapi schemathesis; do $(UV) pip compile --quiet --universal --generate-hashes \
	  --no-emit-index-url --no-header --python-version 3.11 --output-file locks/clients/$$name.lock locks/clients/$$name.in; done

clean: ## remove what these commands made
	rm -rf build src/*.egg-info src/retrodict/core/native/*.so .mutants .venv-mutate .venv-mlflow .venv-dagster .venv-automl .venv-clients $(VENV) $(PEERS) demo-project demo-report .mypy_cache .ruff_cache .hypothesis .import_linter_cache
