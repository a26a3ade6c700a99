# Every target does its own set-up on a fresh Debian machine with Rust. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

ONCE ?=
CUT ?=
HOURS ?= 2
RINGS ?=
ROUNDS ?= 50
SEED ?= 1
RING ?= sim
SECONDS ?= 60
ARGS ?=
CARGO_DENY_VERSION := 0.20.2
TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)

.PHONY: help
help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: demo
demo: setup-demo ## Shows the main job and leaves it running; ONCE=1 stops everything; CUT=cloud-fsync must fail
	$(if $(CUT),$(MAKE) planted,cargo build --workspace --bins)
	CUT="$(CUT)" $(if $(CUT),SONAE_BIN_DIR=target/planted) target/debug/sonae-chaos demo $(if $(ONCE),--once)

.PHONY: test
test: setup format lint deny unit sim doc-test ## Runs every test and check

.PHONY: format
format: ## Checks the formatting
	cargo fmt --all --check

.PHONY: lint
lint: ## Runs clippy over everything
	cargo clippy --workspace --all-targets --all-features -- -D warnings

.PHONY: deny
deny: $(TOOLS)/bin/cargo-deny ## Checks licences, bans and sources of all dependencies
	cargo deny --all-features check licenses bans sources

.PHONY: build
build: ## Builds all programs
	cargo build --workspace --bins

.PHONY: unit
unit: build ## Runs unit and integration tests
	if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run --workspace --no-fail-fast --test-threads $$((2 * $$(nproc))); \
	else \
	    cargo test --workspace --lib --bins --tests --no-fail-fast; \
	fi

.PHONY: sim
sim: planted ## The rings sim, simnet and adversary over fixed seeds; every planted defect must be found, in the real programs too
	export SONAE_BIN_DIR="$(CURDIR)/target/planted"; \
	if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run --workspace --features $(PLANTED) --test sim --test simnet --test adversary --test proc_planted --test kill --no-fail-fast; \
	else \
	    cargo test --workspace --features $(PLANTED) --test sim --test simnet --test adversary --test proc_planted --test kill; \
	fi

# The programs with defects in them lie apart, and what lies in target/debug is what is shipped again afterwards.
PLANTED := sonae-chaos/sim,sonae-edge/planted,sonae-cloud/planted

.PHONY: planted
planted: ## Builds the programs with defects that tests can plant, into target/planted
	cargo build --workspace --bins --features $(PLANTED)
	mkdir -p target/planted
	cp target/debug/sonae-{edge,cloud,provision,chaos} target/planted/
	cargo build --workspace --bins

.PHONY: soak
soak: ## All rings, or RINGS="sim proc", two at a time, for HOURS=2; the sums over all runs of this commit lie in target/soak/COMMIT
	cargo build --workspace --bins --release
	cargo build -p sonae-chaos --features sim --release
	target/release/sonae-chaos soak --hours $(HOURS) $(RINGS:%=--ring %) --commit "$$(git describe --always --dirty --abbrev=12)"

.PHONY: replay
replay: ## Runs one seed of a ring again and prints all that happens. SEED=1 RING=sim, simnet, adversary or proc
	cargo build -q --workspace --bins
	cargo build -q -p sonae-chaos --features sim
	target/debug/sonae-chaos replay --ring $(RING) --seed $(SEED)

.PHONY: doc-test
doc-test: ## Runs the examples in the documentation and checks that it builds
	cargo test --workspace --doc --quiet
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

.PHONY: release
release: ## Builds the programs as they are shipped and prints their sizes
	cargo build --workspace --bins --release
	ls -l target/release/sonae-{edge,cloud,provision,chaos} | awk '{print $$5, $$9}'

.PHONY: drill
drill: build ## kill -9 of edge and cloud, power cuts of the edge's disk, a disk that fills, under load with an outside ledger. ROUNDS=50
	target/debug/sonae-chaos drill kill-edge --rounds $(ROUNDS) --json
	target/debug/sonae-chaos drill kill-cloud --rounds $(ROUNDS) --json
	target/debug/sonae-chaos drill power-cut --rounds $(ROUNDS) --json
	target/debug/sonae-chaos drill full-disk --json

.PHONY: fuzz
fuzz: build ## Mutates inputs of every decoder. SECONDS=60 for all together; TARGET= for one, SEED=1
	target/debug/sonae-chaos fuzz --seconds $(SECONDS) --seed $(SEED) $(if $(TARGET),--target $(TARGET)) --json

.PHONY: exhaustive
exhaustive: ## The store on the simulated disk: a cut before, and a fault at, every single operation
	SONAE_EXHAUSTIVE=all cargo test --workspace --test exhaustive -- --nocapture

.PHONY: bench
bench: release ## Bytes on the wire, commit latency as a ratio, idle wakeups and memory, size after 90 days without a line
	cargo run --release -p sonae-journal --example commit_ratio -- --json
	SONAE_BIN_DIR=target/release target/release/sonae-chaos bench wire --json
	SONAE_BIN_DIR=target/release target/release/sonae-chaos bench courier --json
	SONAE_BIN_DIR=target/release target/release/sonae-chaos bench idle --json
	SONAE_BIN_DIR=target/release target/release/sonae-chaos bench erasure --json
	SONAE_BIN_DIR=target/release target/release/sonae-chaos bench satellite --json
	cargo run --release -p sonae-store --example dark --features testing -- 90
	SONAE_BIN_DIR=target/release target/release/sonae-chaos bench blackout --json

.PHONY: audit
audit: $(TOOLS)/bin/cargo-deny ## Checks known advisories; needs a download
	cargo deny check advisories || { echo "not verified: the advisory database could not be read or has findings"; exit 1; }

# What tests and the demo need besides Rust: age, zstd and jq open batches by hand; the ring of real programs makes
# networks and wrong clocks.
DEBIAN_PACKAGES := age zstd jq gcc libc6-dev iproute2 nftables util-linux libfaketime

.PHONY: setup
setup: debian $(TOOLS)/bin/cargo-deny ## Installs what the tests need

.PHONY: setup-demo
setup-demo: ## Says what the demo needs
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from your distribution or with rustup"; exit 1; }
	@command -v cc >/dev/null || $(MAKE) --no-print-directory debian

.PHONY: debian
debian:
	@missing=""; \
	for package in $(DEBIAN_PACKAGES); do \
	    dpkg -s "$$package" >/dev/null 2>&1 || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then \
	    echo "Debian packages are missing; install them with: sudo apt-get install$$missing"; exit 1; \
	fi; \
	echo "installing$$missing"; \
	apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

$(TOOLS)/bin/cargo-deny:
	@if command -v cargo-deny >/dev/null; then \
	    mkdir -p $(TOOLS)/bin && ln -sf "$$(command -v cargo-deny)" $@; \
	else \
	    cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked --root $(TOOLS) --target-dir target/tools-build; \
	    rm -rf target/tools-build; \
	fi
