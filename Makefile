# `make` lists what there is. On a fresh machine: Rust (cargo), and for the tests Debian's apt as root or with sudo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help run setup test bench lint ci secrets

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: ## build and serve on 127.0.0.1:6379, with the embedded store
	$(CARGO) run --release --locked

setup: ## install what the tests need (Redis, Postgres, Prometheus, Python and Node clients)
	tests/setup.sh

test: setup ## everything that can be checked by running it
	$(CARGO) test --locked

bench: setup ## compare with Redis, in one go; SMOKE=1 for a short run that keeps nothing
	$(CARGO) build --release --locked
	SMOKE=$(SMOKE) python3 bench/run.py

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
