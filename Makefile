# Everything a person types. Each command sets up what it needs, and finds it there the second time.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif
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

# Of `make fuzz`, for all targets together.
FUZZ_SECONDS := 3600

# Of `make conformance`: native, python, or both.
LANES := native

# Of `make chaos`: how many are killed, whether the run is to be one of before, and standbys a model.
CHAOS_KILLS := 1000
CHAOS_SEED :=
CHAOS_STANDBYS := 1
# Of `make chaos-systemd`: how often each.
CHAOS_RESTARTS := 100

.PHONY: help demo test check setup test-c test-ocaml test-python test-python-units test-python-faults test-python-whole \
    conformance chaos chaos-systemd bench bench-quick \
    bench-throughput bench-debian13 bench-pauses bench-tools test-debian13 test-systemd fuzz verify lock format clean

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

# The parts of `make test`, without the set-up. What explores states needs no second system.
test-c:
	$(MAKE) -C c_shim $(if $(filter second,$(SIDECAML_SYSTEM)),gcc clang check-golden,test)

# --force: dune does not know that the tests also depend on the daemon.
test-ocaml:
	$(DUNE) runtest --force

# Three parts side by side on two cores: while one waits for its processes, the others compute. Each is shown when it
# has ended.
test-python:
	$(DUNE) build
	$(MAKE) -j3 --output-sync=target SIDE_BY_SIDE=yes test-python-units test-python-faults test-python-whole

UNITS := tests/unit tests/property
FAULTS := tests/fault

test-python-units:
	python -m pytest $(UNITS)

test-python-faults:
	python -m pytest $(FAULTS)

# Whatever is in neither.
test-python-whole:
	python -m pytest $(addprefix --ignore=,$(UNITS) $(FAULTS))

conformance: setup ## ONNX's own conformance suite, all of it: some ten minutes a lane; writes docs/conformance.md
	cd tests && python -m conformance --lanes $(LANES) --page $(CURDIR)/docs/conformance.md

chaos: ## workers, standbys and clients are killed and stopped under load; CHAOS_KILLS=100 takes a minute
	@scripts/system-packages core test
	@scripts/python-environment
	$(DUNE) build ocaml_lib/test/chaos/chaos_client.exe
	cd tests && python -m chaos --kills $(CHAOS_KILLS) --standbys $(CHAOS_STANDBYS) \
	    $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) --out $(CURDIR)/build/chaos/latest.json

chaos-systemd: ## the same load while systemd's service is restarted and killed 100 times each (as root or with sudo)
	@scripts/system-packages core test debian13
	@scripts/python-environment
	$(DUNE) build ocaml_lib/test/chaos/chaos_client.exe
	cd tests && python -m chaos.pack $(CURDIR)/build/chaos/machine
	scripts/systemd-machine --bring build/chaos/machine --limit 1800 sh -c '/machine/install && \
	    CHAOS_CLIENT=/machine/folder/chaos_client.exe LD_LIBRARY_PATH=/machine/folder \
	    /opt/sidecaml/bin/python -m chaos.restarts --times $(CHAOS_RESTARTS) --out /results/chaos.json'

bench: bench-tools ## every path to a model, compared: some ten minutes; writes bench/results and the plots in docs
	python -m pytest bench --benchmark-autosave
	python -m bench.plots

bench-quick: bench-tools ## the same for a first impression, in less than a minute; writes build/bench/quick
	python -m pytest bench --quick

bench-throughput: bench-tools ## batches, many clients, channels and deadlines: some ten minutes; writes bench/results
	python -m bench.throughput

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

test-systemd: ## under a real systemd, in a Debian 13 that is booted for it (as root or with sudo)
	@scripts/system-packages core debian13
	@scripts/python-environment
	scripts/systemd-machine /opt/sidecaml/bin/python scenarios.py

format: ## put the sources in the format that `make check` wants
	ruff check --fix --select I .
	ruff format .
	git ls-files -z '*.[ch]' | xargs -0 clang-format -i

verify: ## every state of a model of the protocol, with deaths at any step; and mistakes that must be found
	@scripts/system-packages core verify
	python3 c_shim/verify/run.py

fuzz: ## hostile segments and messages, an hour of them; FUZZ_SECONDS=60 for a short run
	@scripts/system-packages core test
	@scripts/python-environment fuzz
	$(MAKE) -C c_shim fuzz
	python scripts/fuzz.py --seconds $(FUZZ_SECONDS)

lock: ## renew requirements/lock-*.txt after a change of what is required
	scripts/lock

clean: ## remove what was built, .venv too
	rm -rf _build build .venv *.install ipc_server/_core*.so *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
