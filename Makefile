# `make` lists what there is. On a fresh machine: Rust (cargo), and for the tests Debian's apt as root or with sudo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

# The minutes that the soak of a fleet takes; the one of the store takes 10 unless told otherwise.
MINUTES ?= 20

.PHONY: help run setup test clients soak bench bench-storage soak-store lint ci secrets

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: ## build and serve on 127.0.0.1:6379, with the embedded store
	$(CARGO) run --release --locked

setup: ## install what the tests need (Redis, Postgres, Prometheus, clients in many languages)
	tests/setup.sh

test: setup ## everything that can be checked by running it
	$(CARGO) test --locked

clients: setup ## write docs/clients.md, the matrix of real clients, from a run of it
	CLOAKROOM_TEST_BLESS=1 $(CARGO) test --locked --test clients

# Built as for the benchmarks, so that the two share the build.
soak: setup ## a fleet under faults for MINUTES=20, judged all the time; writes docs/soak.md
	$(CARGO) build --release --locked --bin cloakroom --example load
	CLOAKROOM_SOAK_MINUTES=$(MINUTES) CLOAKROOM_TEST_BINARY=$(CURDIR)/target/release/cloakroom \
	  $(CARGO) test --locked --test fleet -- --ignored --nocapture soak_with_all_faults

bench: setup ## measure beside Redis and pgbench, write docs/bench (ONLY=section,…: some; SMOKE=1: one short round)
	$(CARGO) build --release --locked --bin cloakroom --example load
	SMOKE=$(SMOKE) ONLY=$(ONLY) KEEP=$(KEEP) python3 bench/run.py

bench-storage: setup ## measure what the table's storage parameters are worth
	$(CARGO) build --release --locked --bin cloakroom --example load
	SMOKE=$(SMOKE) python3 bench/storage.py

soak-store: setup ## rewrite sessions on Postgres for MINUTES=10, watch that nothing grows
	$(CARGO) build --release --locked --bin cloakroom --example load
	SMOKE=$(SMOKE) MINUTES=$(if $(filter file,$(origin MINUTES)),,$(MINUTES)) RATE=$(RATE) python3 bench/soak_store.py

lint: ## format, clippy, documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

ci: ## what must pass before a change is taken in
	.ci/run

secrets: ## make the passwords that docker-compose.yml mounts, once
	@umask 077 && mkdir -p config/secrets && cd config/secrets \
	  && for name in password postgres-password; do \
	       test -e $$name || head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n' > $$name; \
	     done \
	  && test -e pgpass || echo "postgres:5432:cloakroom:cloakroom:$$(cat postgres-password)" > pgpass \
	  && chmod 644 password postgres-password \
	  && { test "$$(stat -c %u pgpass)" = 10001 || chown 10001 pgpass 2>/dev/null || sudo chown 10001 pgpass; }
# The directory is closed to others; in the containers, the files must be readable to their users. A libpq password file
# must belong to the user of the container and to nobody else.
