# What a fresh Debian-like machine with a Rust toolchain needs is installed or fetched by each target itself (scripts/setup.sh).

export ALLUVIUM_CACHE ?= $(HOME)/.cache/alluvium
export CARGO_TARGET_DIR ?= $(ALLUVIUM_CACHE)/target

# One profile for everything that is built (Cargo.toml says why).
CARGO_TEST = cargo test --release --locked
# Most tests wait for a server most of the time.
test test-postgres: export RUST_TEST_THREADS ?= 4

.PHONY: help demo demo-postgres test test-postgres test-spark simulate fuzz proofs bench lint fmt

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1 \t/p' Makefile | expand -t 14

demo: ## the whole story in a minute, without any server
	@scripts/setup.sh build
	cargo run --release --locked -- demo

demo-postgres: ## the same with a private Postgres and pgbench
	@scripts/setup.sh demo-postgres
	cargo build --release --locked
	@scripts/demo-postgres.sh "$(CARGO_TARGET_DIR)/release/alluvium"

test: ## every test, also against Apache Kafka, servers of S3 and Azure, and with the Python readers
	@scripts/setup.sh test
	$(CARGO_TEST) --no-fail-fast

test-postgres: ## the tests of Postgres on every version of it, 14 to 18
	@scripts/setup.sh test
	failed=; for bin in $(ALLUVIUM_CACHE)/postgres/*/bin; do \
		ALLUVIUM_POSTGRES_BIN=$$bin $(CARGO_TEST) --no-fail-fast --test main postgres:: || failed="$$failed $$bin"; \
	done; [ -z "$$failed" ] || { echo "failed on:$$failed"; exit 1; }

test-spark: ## Spark with Delta Lake reads the tables (fetches some 600 MB)
	@scripts/setup.sh test
	@scripts/setup.sh spark
	$(CARGO_TEST) --test spark

simulate: ## the protocol under faults with 2,000 seeds, or ALLUVIUM_SEEDS of them
	@scripts/setup.sh build
	ALLUVIUM_SEEDS=$${ALLUVIUM_SEEDS:-2000} $(CARGO_TEST) --test main simulate:: -- --nocapture

fuzz: ## libFuzzer on the decoders, the configuration and the log, a minute each
	@scripts/setup.sh build
	scripts/fuzz.sh

proofs: ## the crash tests, longer: 50 kills; and a transaction of 5 million rows
	@scripts/setup.sh test
	ALLUVIUM_KILLS=50 ALLUVIUM_LARGE=5000000 $(CARGO_TEST) --test main -- crash:: cluster:: pgbench:: postgres::large:: postgres::letters::

bench: ## all benches, at full size
	@scripts/setup.sh bench
	cargo bench --profile release --locked

lint: ## formatting, and clippy with warnings as errors
	@scripts/setup.sh lint
	cargo fmt --all --check
	cargo clippy --release --locked --all-targets -- -D warnings

fmt: ## format the code
	@scripts/setup.sh lint
	cargo fmt --all
