# weir: build, test and show. CI runs these targets and nothing else (.ci/run).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build release lint test soak bench instructions doc fmt deny msrv sbom reproducible deps demo fuzz dashboards chart static

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' | expand -t 14

build: ## Build the release binary, target/release/weir
	cargo build --release --locked

release: ## Build weir as it ships, target/shipped/weir: guided by a profile (needs rustup; takes a while)
	scripts/pgo.sh

demo: ## Start weir, a simulated provider and some traffic
	cargo run --release --locked -- demo

static: ## Build the image's static binary, and say how large it is and what it takes when idle (needs rustup, musl-tools)
	scripts/static.sh

test: deps .venv/installed ## Run every test: Rust, official SDKs, real Prometheus
	scripts/test.sh

soak: ## Let everything happen at once for MINUTES, default 10; then compare all books and what has grown
	SOAK_MINUTES=$(or $(MINUTES),10) cargo test --release --locked --test soak -- --nocapture

lint: ## Check formatting, clippy, rustdoc, scripts; warnings are errors
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
	bash -n .ci/run scripts/*.sh
	python3 -m compileall -q tests scripts grafana

fmt: ## Format the Rust code
	cargo fmt

dashboards: ## Write grafana/dashboards/*.json from grafana/dashboards.py
	python3 grafana/dashboards.py

chart: .venv/installed ## Copy rules and dashboards into helm/weir, write the tables of values
	.venv/bin/python scripts/chart.py

fuzz: ## Run every fuzz target for FUZZ_SECONDS (60), FUZZ_JOBS (2) at a time (needs cargo-fuzz and nightly)
	scripts/fuzz.sh

doc: ## Build the documentation of the code
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked

bench: release ## Hold weir against the bars of docs/performance.md (BARS="P1 P9" for some), then time its parts (takes a while)
	cargo build --release --locked --no-default-features --target-dir target/slim
	BENCH_WEIR=target/shipped/weir BENCH_SLIM=target/slim/release/weir \
		cargo bench --locked --bench proxy -- $(BARS) --json target/shipped/figures.json
	cargo bench --locked --bench micro --bench lookup --bench admission --bench scrape

instructions: ## Hold the instructions that weir's parts take against those that are committed (needs valgrind)
	cargo bench --locked --bench micro -- instructions

deny: ## Check licences, sources, duplicates and advisories of dependencies (needs cargo-deny, and its list of advisories)
	@if ! command -v cargo-deny >/dev/null; then \
	    echo "deny: NOTHING WAS CHECKED: cargo-deny is not installed; get it with: cargo install --locked cargo-deny" >&2; exit 1; fi
	cargo deny --locked check bans licenses sources
	@cargo deny --locked check advisories || { \
	    echo "deny: ADVISORIES: some were found, or their list could not be fetched and NONE WERE CHECKED: see above" >&2; exit 1; }

msrv: ## Check that the oldest compiler that Cargo.toml names compiles everything (needs rustup)
	oldest=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); rustup toolchain install --profile minimal "$$oldest"; \
	cargo "+$$oldest" check --locked --all-targets --target-dir target/msrv

sbom: ## Write target/weir.cdx.json: all that the binary is made of
	python3 scripts/sbom.py target/weir.cdx.json

reproducible: ## Build this commit twice in two directories, and compare the bytes
	scripts/reproducible.sh

deps: ## Install what the tests need from Debian, if it is missing
	scripts/deps.sh

.venv/installed: tests/requirements.txt
	python3 -m venv --clear .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@
