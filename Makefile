# The one runner. Each target says what it needs and installs it; CI calls only these.
# Package installs need root or sudo; everything else runs as whoever calls.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
RUST_MINIMUM := 1.90
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
export PATH := $(HOME)/.cargo/bin:$(PATH)

BUILD_PACKAGES := build-essential cmake git libclang-dev pkg-config
RUN_PACKAGES := nftables iproute2 procps
TEST_PACKAGES := apache2-bin conntrack ethtool iputils-ping libfaketime nginx prometheus tcpdump util-linux

.PHONY: help
help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: deps
deps: packages rust ## Installs what is missing: apt packages and the Rust toolchain

.PHONY: packages
packages:
	@missing=(); for package in $(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES); do \
	  dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package"); \
	done; \
	if [ "$${#missing[@]}" -gt 0 ]; then \
	  echo "Installing: $${missing[*]}"; \
	  command -v apt-get >/dev/null || { echo "This needs apt (Debian or Ubuntu). Install by hand: $${missing[*]}" >&2; exit 69; }; \
	  $(SUDO) apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	fi

.PHONY: rust
rust:
	@if ! command -v $(CARGO) >/dev/null; then \
	  if apt-cache show rustup >/dev/null 2>&1; then \
	    $(SUDO) apt-get install -y -qq rustup >/dev/null && rustup default stable; \
	  else \
	    echo "Rust is missing and this release has no rustup package. Install it with:" >&2; \
	    echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" >&2; exit 69; \
	  fi; \
	fi; \
	have=$$($(CARGO) --version | cut -d' ' -f2); \
	[ "$$(printf '%s\n%s\n' $(RUST_MINIMUM) "$$have" | sort -V | head -1)" = $(RUST_MINIMUM) ] || \
	  { echo "Rust $$have is older than $(RUST_MINIMUM). Update it with: rustup update stable" >&2; exit 69; }

.PHONY: build
build: deps ## Builds the release programs: weft, control-plane, ztunnel, waypoint
	$(CARGO) build --release --locked -p cli -p control-plane -p ztunnel -p waypoint

.PHONY: demo
demo: build ## Runs the mesh with the demo application until Ctrl-C
	./target/release/weft demo

.PHONY: test
test: deps ## Runs every test, those in network namespaces included
	$(CARGO) build --workspace --locked
	$(CARGO) test --workspace --locked

# Promises have times, which what else runs on the machine would lengthen: built as it is released, one test at
# a time. One that fails is told of at the end, hours later, with the others.
.PHONY: test-full
test-full: deps ## Runs every test at the size of its promise and prints what it measured; takes hours
	$(CARGO) build --release --workspace --locked
	WEFT_TEST_SCALE=full $(CARGO) test --release --workspace --locked --no-fail-fast -- --test-threads=1 --nocapture

# Not a part of `test`, which replays the corpora. Fuzzers need flags of the nightly toolchain, which
# RUSTC_BOOTSTRAP lets the stable one take; and a crate with fuzz targets is all it takes to be here.
FUZZ_SECONDS ?= 60
FUZZ_CRATES ?= $(patsubst %/fuzz/Cargo.toml,%,$(wildcard */fuzz/Cargo.toml crates/*/fuzz/Cargo.toml))
.PHONY: fuzz
fuzz: deps ## Fuzzes what comes from the network, FUZZ_SECONDS for each target
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked
	@export RUSTC_BOOTSTRAP=1; failed=; for crate in $(FUZZ_CRATES); do \
	  for target in $$(cd $$crate && $(CARGO) fuzz list); do \
	    echo "$$crate: $$target"; found=fuzz/target/corpus/$$target; \
	    (cd $$crate && mkdir -p $$found && $(CARGO) fuzz run "$$target" $$found fuzz/corpus/$$target -- \
	      -max_total_time=$(FUZZ_SECONDS)) || failed="$$failed $$target"; \
	  done; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

# ZTUNNEL names another ztunnel's program, to measure beside ours; JSON a file for the figures of every run of TCP.
ZTUNNEL ?=
JSON ?= target/bench.json
.PHONY: bench
bench: build ## Measures against plain TCP, and the waypoint beside Envoy; prints ratios, writes JSON
	$(CARGO) build --release --locked -p tests --bins
	./target/release/bench $(if $(ZTUNNEL),--ztunnel $(ZTUNNEL)) $(if $(JSON),--json $(JSON))
	./target/release/bench http
	./target/release/bench apply

.PHONY: lint
lint: deps ## Formatting, clippy without warnings
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

CARGO_DENY := 0.20.2
.PHONY: deny
deny: deps ## Dependencies: bans, licences, sources; advisories where their database can be reached
	@have=$$($(CARGO) deny --version 2>/dev/null | cut -d' ' -f2 || true); \
	[ "$$have" = $(CARGO_DENY) ] || $(CARGO) install --locked --quiet cargo-deny --version $(CARGO_DENY)
	$(CARGO) deny --log-level warn check bans licenses sources
	@if $(CARGO) deny --log-level error fetch db 2>/dev/null; then \
	  $(CARGO) deny --log-level warn check --disable-fetch advisories; \
	else echo "advisories NOT checked: their database can't be reached"; fi

.PHONY: fmt
fmt: ## Formats the code
	$(CARGO) fmt --all
