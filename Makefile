# Everything a person types. Each command sets up what it needs, and finds it there the second time.
.NOTPARALLEL:
.DEFAULT_GOAL := help

PYTHON_ENVIRONMENT := $(CURDIR)/.venv
export PATH := $(PYTHON_ENVIRONMENT)/bin:$(PATH)
export SIDECAML_PYTHON := $(PYTHON_ENVIRONMENT)/bin/python
# What runs models in its own process finds ONNX Runtime in it.
export VIRTUAL_ENV := $(PYTHON_ENVIRONMENT)
# Before anything loads ONNX Runtime: it would keep a database under the home directory otherwise.
export ORT_DISABLE_TELEMETRY := 1
# One at a time in the build folder: dune 2.9 does not see to it itself.
DUNE := mkdir -p build && flock build/dune.lock dune

# Of `make conformance`: native, python, or both.
LANES := native

.PHONY: help demo test check setup test-c test-ocaml test-python conformance bench bench-quick bench-debian13 \
    bench-pauses bench-tools test-debian13 lock format clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: ## an OCaml program streams real speech through a PyTorch-trained voice detector
	@scripts/system-packages core demo
	@scripts/python-environment
	$(DUNE) build examples/vad/vad.exe
	@python examples/vad/demo.py

test: setup test-c test-ocaml test-python ## all tests, in C, OCaml and Python

setup: ## what the tests and daily work need: packages, .venv, the OCaml build
	@scripts/system-packages core test bench
	@scripts/python-environment torch
	$(DUNE) build

# The parts of `make test`, without the set-up.
test-c:
	$(MAKE) -C c_shim test

# --force: dune does not know that the tests also depend on the daemon.
test-ocaml:
	$(DUNE) runtest --force

test-python:
	$(DUNE) build
	python -m pytest

conformance: setup ## ONNX's own conformance suite, all of it: some ten minutes a lane; writes docs/conformance.md
	cd tests && python -m conformance --lanes $(LANES) --page $(CURDIR)/docs/conformance.md

bench: bench-tools ## every path to a model, compared: some ten minutes; writes bench/results and the plots in docs
	python -m pytest bench --benchmark-autosave
	python -m bench.plots

bench-quick: bench-tools ## the same for a first impression, in less than a minute; writes build/bench/quick
	python -m pytest bench --quick

bench-debian13: ## its part for OCaml 5, another domain's pauses, on a bare Debian 13 (as root or with sudo)
	@scripts/system-packages debian13
	@scripts/python-environment
	mkdir -p bench/results
	scripts/debian13 --bring bench/results/pauses.json bench-pauses
	python -m bench.report
	python -m bench.plots

bench-pauses: bench-tools
	python -m pytest bench/test_pauses.py

# The drivers that the benchmark measures with.
bench-tools:
	@scripts/system-packages core test bench
	@scripts/python-environment torch
	$(MAKE) -C bench/drivers
	$(DUNE) build --profile release --build-dir $(CURDIR)/build/dune-release ./bench

check: ## format, lint, types, generated files
	@scripts/system-packages core check
	@scripts/python-environment
	scripts/check

test-debian13: ## `make demo` and `make test` of the committed tree on a bare Debian 13 (as root or with sudo)
	@scripts/system-packages debian13
	scripts/debian13 demo test

format: ## put the sources in the format that `make check` wants
	ruff check --fix --select I .
	ruff format .
	git ls-files -z '*.[ch]' | xargs -0 clang-format -i

lock: ## renew requirements/lock-*.txt after a change of what is required
	scripts/lock

clean: ## remove what was built, .venv too
	rm -rf _build build .venv *.install ipc_server/_core*.so *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
