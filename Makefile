# Coracle: `make run` brings up a cluster and runs a Deployment, `make test` runs all tests. Both install what they need.

SHELL := /bin/bash
CARGO ?= cargo
BUILD_PACKAGES := gcc libc6-dev mold protobuf-compiler libprotobuf-dev
RUN_PACKAGES := containerd runc containernetworking-plugins nftables iproute2 kmod
TEST_PACKAGES := etcd-client etcd-server python3 python3-venv procps openssl

# Clippy is the compiler here, so that the tests' build is linted as it goes and no crate is compiled a second time for `make lint` alone.
# It takes arguments from the environment, each ended by this word.
LINTED := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS="-Dwarnings__CLIPPY_HACKERY__"

.DEFAULT_GOAL := help
.PHONY: help run test build release image bench-store bench-api bench-sched bench-controllers chaos-store compare-store mutants mutants-controllers sim sim-controllers deps-build deps-run deps-test tools lint format fmt down

help: ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: deps-build deps-run release ## Install what is needed, build, bring up a cluster and run a Deployment on it.
	target/release/coracle up --demo

down: ## End the cluster that `make run` brought up.
	target/release/coracle down

test: deps-build deps-run deps-test format build tools ## Install what the tests need and run them all.
	$(LINTED) $(CARGO) nextest run --workspace
	@$(MAKE) --no-print-directory mutants

mutants: deps-build ## Show that the simulation of the store finds each fault planted in it; more with ARGS, as ARGS=--help.
	$(LINTED) $(CARGO) build -p store-simulation --features mutants
	target/debug/store-simulation mutants --jobs $$(nproc) $(ARGS)

mutants-controllers: deps-build ## Show that the simulation of the controllers finds each fault planted in them.
	$(LINTED) $(CARGO) build -p controller-simulation --features mutants
	target/debug/controller-simulation mutants --jobs $$(nproc) $(ARGS)

sim: deps-build ## Simulate the store under 100,000 seeds, or as ARGS say: ARGS="--start 100000 --seeds 20000 --jobs 2".
	$(CARGO) build --release -p store-simulation
	target/release/store-simulation sim $(or $(ARGS),--seeds 100000 --jobs $$(nproc))

sim-controllers: deps-build ## Simulate the controllers under 2,000 seeds, or as ARGS say: ARGS="--start 5000 --seeds 100 --keep-going".
	$(CARGO) build --release -p controller-simulation
	target/release/controller-simulation sim $(or $(ARGS),--seeds 2000 --jobs $$(nproc))

build: image ## Build everything for the tests, with clippy's findings as errors.
	$(LINTED) $(CARGO) build --workspace --all-targets

release: image ## Build the optimised binaries.
	$(CARGO) build --release --workspace --bins

image: ## Build the static program of the demo image.
	$(CARGO) rustc -p coracle-demo --profile image -- -C target-feature=+crt-static

bench-store: deps-build deps-test ## Measure etcd and etcd-lite in turn; more with ARGS, as ARGS="--only put,get,data --clients 1,10,100,1000 --keys 10000,1000000".
	$(CARGO) build --release -p etcd-lite -p coracle-bench --bins
	target/release/bench-store $(ARGS)

bench-api: deps-build deps-test ## Measure the API server on etcd and on etcd-lite in turn; beside a peer with PEER_APISERVER=path; more with ARGS.
	$(CARGO) build --release -p etcd-lite -p apiserver -p coracle-bench --bins
	target/release/bench-api $(ARGS)

bench-sched: deps-build ## Measure the scheduler with 100 to 5,000 nodes, beside a peer with PEER_SCHEDULER=path; more with ARGS.
	$(CARGO) build --release -p etcd-lite -p apiserver -p scheduler -p coracle-bench --bins
	target/release/bench-sched $(ARGS)

bench-controllers: deps-build ## Measure Deployments, Jobs and the end of namespaces, beside a peer with PEER_CONTROLLER_MANAGER=path; more with ARGS.
	$(CARGO) build --release -p etcd-lite -p apiserver -p scheduler -p controller-manager -p coracle-bench --bins
	target/release/bench-controllers $(ARGS)

chaos-store: deps-build deps-run ## Strike three members of etcd-lite under load for 30 minutes; more with ARGS, as ARGS=--help.
	$(CARGO) build --release -p etcd-lite -p store-chaos --bins
	target/release/store-chaos $(ARGS)

compare-store: deps-build deps-test tools ## Compare etcd-lite with etcd by random operations: SEED=n OPERATIONS=n ONLY=n,n REFERENCE=3_5 or 3_4.
	$(CARGO) build --release -p etcd-lite
	CORACLE_BINARIES=$(CURDIR)/target/release OPERATIONS=$(or $(OPERATIONS),100000) $(CARGO) nextest run -p coracle-tests --test store \
	  --no-capture --profile long operations_are_answered_as_by_etcd_$(REFERENCE)

format:
	$(CARGO) fmt --all --check

lint: format ## Check formatting and clippy's findings, without building.
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format the code.
	$(CARGO) fmt --all

tools: target/tools/.ready ## Fetch the clients that the end-to-end tests run.

target/tools/.ready: tests/tools/fetch.py tests/tools/requirements.txt tests/tools/package.json tests/tools/package-lock.json
	python3 -m venv target/tools/python
	target/tools/python/bin/pip install --quiet --disable-pip-version-check -r tests/tools/requirements.txt
	target/tools/python/bin/python tests/tools/fetch.py target/tools
	touch $@

# Installs the Debian packages in $(1) that are missing.
define install
	@missing=(); for package in $(1); do dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q '^install ok installed' || missing+=($$package); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  if [ "$$(id -u)" != 0 ]; then echo "Please install as root: apt-get install $${missing[*]}" >&2; exit 1; fi; \
	  echo "Installing $${missing[*]}"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	fi
endef

deps-build:
	$(call install,$(BUILD_PACKAGES))

deps-run:
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory deps-run-root; else echo "Not root: nodes will be hollow (simulated containers)."; fi

.PHONY: deps-run-root
deps-run-root:
	$(call install,$(RUN_PACKAGES))

deps-test:
	$(call install,$(TEST_PACKAGES))
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest
