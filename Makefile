# What people and CI run. On a fresh machine each target makes the environment that it needs.
PROVIDER ?= cpu
PYTHON ?= python3
# cpu has the main environment; the other providers' wheels exclude one another and have one each.
VENV := $(if $(filter cpu,$(PROVIDER)),.venv,.venv-$(PROVIDER))
LOCK := $(if $(filter cpu,$(PROVIDER)),requirements.lock,requirements-$(PROVIDER).lock)
# The last accepted versions, made from reports/baselines/$(LOCK).
REFERENCE ?= .venv-reference-$(PROVIDER)

.DEFAULT_GOAL := help
.PHONY: help validate nightly nightly-tests test test-extras fuzz docs browser operators selftest causes lint style coverage mutants numbers performance scoreboard scale experiment lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | sed -E 's/:.*## /\t/' | expand -t 18

include tests/providers/environments.mk

.venv/.made: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

validate: $(VENV)/.made ## fetch the zoo, run the matrix, write reports/ (PROVIDER=cpu|openvino|webgpu|...)
	$(VENV)/bin/onnx-harness zoo fetch models
	$(RUN_ENV) $(VENV)/bin/python -m pytest models --provider $(PROVIDER) $(ARGS)

# The gate's exit code is the night's: a cell that fails as accepted isn't news. Pytest's own codes above 1 mean that
# no night was recorded, and the gate would look at the one before.
nightly: $(VENV)/.made ## a night: the matrix beside the pinned reference, then the gate (PROVIDER=…, GATE_ARGS=…)
	@rm -f reports/gate.json reports/gate.md
	$(VENV)/bin/onnx-harness gate reference $(REFERENCE) --lock $(LOCK)
	$(VENV)/bin/onnx-harness zoo fetch models
	$(RUN_ENV) $(VENV)/bin/python -m pytest models --provider $(PROVIDER) --gate-reference $(REFERENCE) $(ARGS) \
	    || [ $$? -eq 1 ]
	$(VENV)/bin/onnx-harness gate --provider $(PROVIDER) $(GATE_ARGS)

# Work stealing keeps the tests of a module in one process, which makes its fixtures once.
test: lint ## lint, type-check, test; without the tests marked `nightly`
	.venv/bin/python -m pytest -n 2 --dist worksteal -q $(ARGS)

nightly-tests: .venv/.made ## the tests marked `nightly`: long forms of those that `make test` runs
	.venv/bin/python -m pytest -n 2 --dist worksteal -q -m nightly $(ARGS)

build/fuzz/.made: requirements-fuzz.lock .venv/.made
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target build/fuzz -r $<
	@touch $@

SECONDS ?= 600
fuzz: build/fuzz/.made ## bytes that break a reader, searched led by coverage (SECONDS=600; atheris)
	PYTHONPATH=build/fuzz .venv/bin/python -m tests.fuzz --seconds $(SECONDS)

# PyTorch's own index has builds without CUDA, a tenth of the size: PIP_OPTIONS="--extra-index-url ADDRESS".
EXTRAS ?= torch pyarrow onnxruntime-extensions
PIP_OPTIONS ?=
build/extras/.made: .venv/.made
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --target build/extras \
	    $(PIP_OPTIONS) $(EXTRAS)
	@touch $@

test-extras: build/extras/.made ## what needs large libraries: PyTorch's exporter, Parquet, custom operators (large downloads)
	PYTHONPATH=build/extras .venv/bin/python -m pytest -q -m nightly tests/plugin/test_examples.py \
	    tests/unit/test_cli_report.py -k "torch or parquet"
	PYTHONPATH=build/extras .venv/bin/python -m pytest -q tests/unit/test_custom_ops.py -k real_library

.venv-docs/.made: requirements-docs.lock
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r $<
	@touch $@

# A link that leads nowhere or a page that is in no menu fails it.
docs: .venv/.made .venv-docs/.made ## the generated parts of docs/ made anew, and the site in build/site
	.venv/bin/python -m tests.docs
	.venv-docs/bin/mkdocs build --strict --quiet

# Debian's, which needs no download of Playwright's own.
browser: ## a headless Chromium for tests/browser, where none is installed
	command -v chromium-headless-shell || command -v chromium || command -v google-chrome \
	    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell fonts-dejavu-core; }

operators: .venv/.made ## the official cases of ONNX's operators through our own transforms (ARGS="--shard=1/3")
	.venv/bin/python -m pytest --onnx-backend-suite -n 2 -q --variant simplify --variant fp16.io32 $(ARGS)

selftest: .venv/.made ## how far the verdicts can be trusted, on the small models of the zoo (ROWS=honest ARGS="--seeds 1")
	.venv/bin/onnx-harness selftest $(or $(ROWS),inputs defects honest fp16 half) --quick $(ARGS)

CAUSES := causes defect-causes smallest cause-cost observer mixed mixed-beside int8-beside slower
causes: .venv/.made ## causes, smallest models, mixed precision, slower operators: how often right (hours; ROWS="causes" ARGS="--sample 80")
	.venv/bin/onnx-harness selftest $(or $(ROWS),$(CAUSES)) $(ARGS)

lint: .venv/.made ## ruff, mypy and the floors
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

style: .venv/.made ## how dense the lines are and how private the words
	.venv/bin/python -m tests.style

# Not pytest-cov: this project's plugin is imported before it begins to measure. Workers write their part to the
# project's folder, which is closed to them otherwise.
coverage: .venv/.made ## the lines and branches that the tests reach, worker processes included (ARGS="tests/unit")
	.venv/bin/python -m coverage erase
	ONNX_HARNESS_ALLOW_READ=/ .venv/bin/python -m coverage run -m pytest -n 2 -q $(ARGS)
	.venv/bin/python -m coverage combine --quiet
	.venv/bin/python -m coverage report

mutants: .venv/.made ## mistakes that no test notices, by room (hours; ROOMS="gate isolate", SAMPLE=150 of each, BASE=main for changed lines)
	.venv/bin/python -m tests.mutants $(ROOMS) $(if $(BASE),--changed $(BASE)) $(if $(SAMPLE),--sample $(SAMPLE))

performance: .venv/.made ## the ratios that docs/trust.md states
	.venv/bin/python -m pytest tests/performance -m performance -s

numbers: .venv/.made ## what was asked of FP16 and simplification beside what is measured, in one table (20 minutes)
	.venv/bin/onnx-harness zoo fetch models
	.venv/bin/python -m pytest -m performance -q tests/performance/test_clamp.py tests/performance/test_fp16.py \
	    tests/performance/test_simplify.py tests/performance/test_operators.py

scoreboard: .venv/.made ## a page of what released libraries keep right, in build/scoreboard (half an hour)
	.venv/bin/python -m tests.scoreboard build/scoreboard

scale: .venv/.made ## many cells, killed runs, hostile files: the figures in one table (ARGS="--quick", "--zoo models", "--big 2.5", "--cluster 50")
	.venv/bin/python -m tests.performance.scale $(ARGS)

experiment: .venv/.made ## how far the latency verdicts can be believed (two hours, resumable; ARGS="--row aa --minutes 10")
	.venv/bin/python -m tests.performance.experiment $(ARGS)

lock: lock-providers ## resolve the lock files anew (needs uv)
	$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    --extra cpu --extra dev pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    --group docs -o requirements-docs.lock

clean: ## remove the environments, what tests leave, and the last run's results
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .benchmarks .hypothesis build .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf reports/results.json reports/summary.md reports/report.html reports/gate.json reports/gate.md
